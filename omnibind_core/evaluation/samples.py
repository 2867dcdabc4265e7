"""What is evaluated on: the samples of one split whose labels the model has, and those of other things."""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core import modalities
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.damage import Damaged
from omnibind_core.data.samples import Loads, Sample
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.errors import DataError
from omnibind_core.evaluation.held_out import HELD_OUT, HeldOut
from omnibind_core.evaluation.labelling import Key, Labelled, find_labels, fold_labels
from omnibind_core.features.combinations import Index, Split
from omnibind_core.features.sets import FeatureSet, embed_all, sample_features
from omnibind_core.modalities import Doubt
from omnibind_core.model import OmniBind
from omnibind_core.parallel import cores, in_order
from omnibind_core.training.config import TrainConfig
from omnibind_core.training.dataset import variants


@dataclass(frozen=True)
class TestData:
    """Everything that a model is evaluated on.

    Attributes:
        name: Name of the folder.
        split: Which split of it.
        known: Samples whose label the model has.
        unknown: Samples of things that the model has no label for.
        labels: What each label of the data became.
        counts: Samples by what became of them: ``known``, ``unknown``, ``left out``, ``not encoded``, ``silent``.
        source: Loads them.
        samples: All samples of the split.
        fold: ``int64 [C]``, what each label of the model counts as, itself or another; None if each is its own.
        silent: Why, by id, of samples with a label that say nothing (silence, no contact): they are asked nowhere, as
            they have weight 0 wherever the model answers, see :func:`omnibind_core.modalities.doubt`.
    """

    __test__ = False  # no test class for pytest

    name: str
    split: str
    known: Split
    unknown: Split
    labels: Mapping[Key, Labelled]
    counts: Mapping[str, int]
    source: Loads
    samples: Sequence[Sample] = dataclasses.field(repr=False, default=())
    fold: Index | None = None
    silent: Mapping[str, str] = dataclasses.field(default_factory=dict)


def load(
    root: Path,
    split: str,
    model: OmniBind,
    own: Concepts,
    given: Concepts | None = None,
    augmentations: TrainConfig | None = None,
    *,
    leave_out: bool = False,
    fold: bool = True,
) -> TestData:
    """Reads the samples of one split; trunk features that are not cached yet are computed.

    Args:
        root: Folder with ``samples.csv``.
        split: Which split.
        model: Gives the encoders and the vocabulary.
        own: The label table that the model was trained with.
        given: The label table of these data.
        augmentations: Take the variants of each sample that this experiment has; None takes none.
        leave_out: Whether an empty concept in ``given`` leaves a label out; else it is unknown.
        fold: Whether labels that ``given`` takes for the same are one; False for samples that are learned from.

    Raises:
        DataError: The folder has no such split, or the model has no label for any of its samples.
    """
    source = FolderSource(root)
    samples = source.samples(split=split)
    if not samples:
        splits = sorted({sample.split for sample in source.samples()})
        raise DataError(f"{root} has no samples of the split '{split}'; it has {', '.join(splits) or 'none at all'}")
    names = model.labels.names

    def embed(sentences: Sequence[str]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.embed_text(sentences).cpu().numpy()
        return found

    labels = find_labels(samples, names, own, given, embed, leave_out=leave_out)
    folded = fold_labels(names, own, given) if fold and given is not None else {}
    labels = {key: dataclasses.replace(of, concept=folded.get(of.concept, of.concept)) for key, of in labels.items()}
    concept = {sample.id: labels[sample.source, sample.label].concept for sample in samples}
    # In the order of the samples: what an unknown thing is called changes no draw.
    unknown = dict.fromkeys(name for name in concept.values() if name and name not in names)
    number = {name: index for index, name in enumerate((*names, *unknown))}
    usable = [name for name in model.modalities if name != "text"]
    silent = {}
    if augmentations is None:  # whoever learns is asked nothing
        asked = [sample for sample in samples if concept[sample.id] and sample.modality in usable]
        silent = _silent(source, asked)
    sets: dict[bool, dict[str, FeatureSet]] = {True: {}, False: {}}
    for modality in usable:
        items = [sample for sample in samples if sample.modality == modality and sample.id not in silent]
        if not any(concept[sample.id] for sample in items):
            continue
        harmed = None
        if augmentations is None:
            inputs = sample_features(source, items, modality, model.config, model.encoders, 0, 0)
        else:
            damage = augmentations.fuse.damage
            inputs, harmed = variants(source, items, modality, model.config, model.encoders, augmentations, damage)
        of = np.array([number.get(concept[sample.id], -1) for sample in items], np.int64)
        for known, rows in ((True, (of >= 0) & (of < len(names))), (False, of >= len(names))):
            if rows.any():
                chosen = tuple(sample for sample, kept in zip(items, rows, strict=True) if kept)
                taken = None if harmed is None else harmed[rows]
                sets[known][modality] = FeatureSet(chosen, inputs if rows.all() else inputs[rows], of[rows], taken)
    counts = Counter(
        "silent" if sample.id in silent else _fate(concept[sample.id], sample.modality in usable, names)
        for sample in samples
    )
    if not sets[True] and silent and not sets[False]:
        raise DataError(f"{root}, split '{split}': no sample says anything, the first: {next(iter(silent.values()))}")
    if not sets[True]:
        found = ", ".join(sorted(set(concept.values()))[:8])
        raise DataError(
            f"{root}, split '{split}': the model has no label for any sample; expected some of its {len(names)} "
            f"labels, found {found or 'labels that are left out'}. A label table (--labels) can say which is which"
            f"{_answered(model, Split(tuple(number), sets[False]))}"
        )
    every = tuple(number)
    return TestData(
        root.resolve().name,
        split,
        Split(every, sets[True]),
        Split(every, sets[False]),
        labels,
        counts,
        source,
        samples,
        np.array([number[folded.get(name, name)] for name in names], np.int64),
        silent,
    )


def embeddings(model: OmniBind, split: Split) -> dict[str, Tensor]:
    """Unit-length embeddings ``[N, 1, D]`` of all samples by modality, without augmented variants."""
    return {
        name: embed_all(model.encoders, model.config, name, samples.inputs[:, :1]).clone()
        for name, samples in split.sets.items()
    }


def spread(split: Split, count: int, seed: int) -> dict[str, Index]:
    """At most ``count`` samples of each modality, in turn of every label; labels of several modalities come first."""
    several = Counter(int(label) for samples in split.sets.values() for label in np.unique(samples.concept))
    chosen = {}
    for name, samples in split.sets.items():
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        order = rng.permutation(len(samples))
        order = order[np.argsort(samples.concept[order], kind="stable")]
        concept = samples.concept[order]
        turn = np.arange(len(samples)) - np.searchsorted(concept, concept)
        alone = np.array([several[int(label)] < 2 for label in concept])
        chosen[name] = np.sort(order[np.lexsort((concept, turn, alone))[:count]])
    return chosen


def damaged(data: TestData, model: OmniBind, name: str, rows: Index, damage: str, seed: int) -> NDArray[np.float32]:
    """Trunk features ``[K, 1, F]`` of some known samples of a modality with their sensor damaged."""
    known = data.known.sets[name]
    source = HeldOut(data.source, seed) if damage == HELD_OUT else Damaged(data.source, damage, seed)
    chosen = [known.samples[row] for row in rows]
    what = f"{damage}, seed {seed}, "
    return sample_features(source, chosen, name, model.config, model.encoders, 0, 0, what)


def _answered(model: OmniBind, unknown: Split) -> str:
    """How many unknown things get a label nevertheless, as a sentence: all that can be said without known ones."""
    found = [
        not model.recognise([name], row).unknown for name, rows in embeddings(model, unknown).items() for row in rows
    ]
    if not found:
        return ""
    return (
        f". Of {len(found)} samples of unknown things {sum(found)} get a label above the model's threshold; "
        "accuracies, and how well known and unknown things are told apart (AUROC), take samples of known ones as well"
    )


def _silent(source: Loads, samples: Sequence[Sample]) -> dict[str, str]:
    """Why, by id, nothing can be said from some of the samples."""

    def doubted(sample: Sample) -> Doubt | None:
        return modalities.doubt(sample.modality, source.load(sample))

    found = {}
    for sample, doubt in zip(samples, in_order(doubted, samples, cores()), strict=True):
        if doubt is not None and doubt.excludes:
            found[sample.id] = str(doubt)
    return found


def _fate(concept: str, encoded: bool, names: Sequence[str]) -> str:
    if not concept:
        return "left out"
    if not encoded:
        return "not encoded"
    return "known" if concept in names else "unknown"
