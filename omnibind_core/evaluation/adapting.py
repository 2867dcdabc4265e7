"""What a model is adapted with: a recording of the user's own, a part of it held out; and what that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.holdout import hold_out
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.encoders.heads import Adapted
from omnibind_core.errors import DataError
from omnibind_core.evaluation.labelling import find_labels, fold_labels
from omnibind_core.features.adaptation import Home
from omnibind_core.features.combinations import EmbeddedSplit, Index, Split
from omnibind_core.features.sets import FeatureSet, embed_all, sample_features
from omnibind_core.fusion import evidence
from omnibind_core.model import OmniBind

LEAST = 2
"""Samples of a label that one modality has to have, so that it is learned."""
VARIANTS = 8
"""Augmented variants of each sample that is learned, as long as there are at most :data:`_ROWS` with them."""
_ROWS = 2048
_HOME = 640  # samples of a modality that its home is learned from


@dataclass(frozen=True)
class Recording:
    """A folder of the user's own, ready to be learned from.

    Attributes:
        names: The model's labels, and behind them those that are new.
        learned: By modality, samples to learn from, with augmented variants.
        held: By modality, samples that are never learned from.
        fold: ``int64 [C]``, what each label counts as where answers are compared, itself or another.
        concepts: What each of the recording's labels is to the model.
        notes: What a person should know, in sentences.
    """

    names: tuple[str, ...]
    learned: Mapping[str, FeatureSet]
    held: Mapping[str, FeatureSet]
    fold: Index
    concepts: Concepts
    notes: tuple[str, ...]


def read(
    root: Path, model: OmniBind, own: Concepts, given: Concepts | None = None, holdout: float = 0.25, seed: int = 0
) -> Recording:
    """Reads a recording; trunk features that are not cached yet are computed.

    Args:
        root: Folder with ``samples.csv``.
        model: Gives the encoders and the vocabulary.
        own: The label table that the model was trained with.
        given: The label table of the recording: an empty concept leaves a label out, one that the vocabulary lacks is
            new. Without a row, a label that matches none of the vocabulary is new, under its own name.
        holdout: Share of the groups of each label to hold out, where the table has no split ``val``.
        seed: Of what is held out.

    Raises:
        DataError: There is nothing to learn; says why.
    """
    source = FolderSource(root)
    samples = source.samples()

    def embed(sentences: Sequence[str]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.embed_text(sentences).cpu().numpy()
        return found

    found = find_labels(samples, model.labels.names, own, given, embed, leave_out=True)
    concept = {sample.id: found[sample.source, sample.label].concept for sample in samples}
    usable = [name for name in model.modalities if name != "text"]
    wanted = [sample for sample in samples if concept[sample.id] and sample.modality in usable]
    notes = []
    if tested := sum(sample.split == "test" for sample in wanted):
        notes.append(f"{tested} samples of the split 'test' are left alone")
        wanted = [sample for sample in wanted if sample.split != "test"]
    if len(wanted) + tested < len(samples):
        notes.append(
            f"{len(samples) - len(wanted) - tested} of {len(samples)} samples are left out by the label table or are "
            f"of a modality that is not adapted; these are: {', '.join(usable)}"
        )
    learn, held, why = _parts(wanted, concept, holdout, seed)
    notes += [why] if why else []
    learn, few = _enough(learn, concept)
    notes += few
    if not learn:
        raise DataError(
            f"{root}: nothing can be learned from {len(samples)} samples; expected at least {LEAST} samples of a label "
            f"in one of {', '.join(usable)} beside those that are held out, better four or more"
            + "".join(f"; {note}" for note in notes)
        )
    known = {*model.labels.names}
    new = dict.fromkeys(concept[sample.id] for sample in learn if concept[sample.id] not in known)
    names = (*model.labels.names, *new)
    if new:
        notes.append(f"new labels: {', '.join(new)}")
    number = {name: index for index, name in enumerate(names)}
    sets: list[dict[str, FeatureSet]] = []
    for part, learns in ((learn, True), (held, False)):
        sets.append({})
        for modality in usable:
            items = [sample for sample in part if sample.modality == modality and concept[sample.id] in number]
            if items:
                variants = min(VARIANTS, max(_ROWS // len(items) - 1, 0)) if learns else 0
                inputs = sample_features(source, items, modality, model.config, model.encoders, variants, seed)
                numbers = np.array([number[concept[sample.id]] for sample in items], np.int64)
                sets[-1][modality] = FeatureSet(tuple(items), inputs, numbers)
    if missing := len(held) - sum(map(len, sets[1].values())):
        notes.append(f"{missing} held-out samples are of labels that were not learned and are not asked")
    for modality, told in sets[0].items():
        if len(only := np.unique(told.concept)) == 1:
            name = names[int(only[0])]
            notes.append(
                f"{modality}: '{name}' alone was learned, and is what anything on this sensor will be taken "
                "for; a second label would tell the two apart"
            )
    folded = {} if given is None else fold_labels(names, own, given)
    fold = np.array([number[folded.get(name, name)] for name in names], np.int64)
    keys = sorted({(sample.source, sample.label) for sample in wanted})
    rows = [Match(*key, found[key].concept, 1.0, "adapted") for key in keys]
    return Recording(names, sets[0], sets[1], fold, Concepts(rows), tuple(notes))


def _parts(
    samples: Sequence[Sample], concept: Mapping[str, str], holdout: float, seed: int
) -> tuple[list[Sample], list[Sample], str]:
    """What is learned from and what is held out, whole groups each, and what to know of that."""
    splits = {sample.split for sample in samples}
    if {"train", "val"} <= splits:
        return [s for s in samples if s.split == "train"], [s for s in samples if s.split == "val"], ""
    apart = hold_out(samples, lambda sample: concept[sample.id], holdout, seed)
    held = [sample for sample in samples if sample.group in apart]
    why = "" if held else "no part can be held out, since no label has two groups: nothing says how good it became"
    return [sample for sample in samples if sample.group not in apart], held, why if holdout else ""


def _enough(samples: Sequence[Sample], concept: Mapping[str, str]) -> tuple[list[Sample], list[str]]:
    """The samples of labels with enough of them in a modality, and what is left out."""
    count = Counter((sample.modality, concept[sample.id]) for sample in samples)
    few = [f"{modality}: '{label}'" for (modality, label), number in sorted(count.items()) if number < LEAST]
    told = [f"less than {LEAST} samples to learn from, so not learned: {', '.join(few)}"] if few else []
    return [sample for sample in samples if count[sample.modality, concept[sample.id]] >= LEAST], told


def home_of(root: Path, model: OmniBind, modality: str, seed: int = 0) -> Home | None:
    """What a modality was trained on, from the split ``train`` of a folder; None if that has too little of it."""
    source = FolderSource(root)
    samples = source.samples(split="train", modality=modality)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(samples))[:_HOME])
    if len(chosen) < LEAST:
        return None
    items = [samples[place] for place in chosen]
    return Home.of(sample_features(source, items, modality, model.config, model.encoders, 0, 0)[:, 0], seed)


def unheard(model: OmniBind, modality: str, learned: FeatureSet) -> int:
    """How many samples an adapted head takes for what the model knew before, although it learned from them."""
    head = model.encoders.heads[modality]
    assert isinstance(head, Adapted)
    with torch.inference_mode():
        gate = head.gate(torch.from_numpy(np.array(learned.inputs[:, 0])).to(model.device))
    return int((gate < 0.5).sum())


def compare(
    before: OmniBind, after: OmniBind, split: Split, fold: Index | None = None, count: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """How right two models are on the same samples, and how sure.

    Args:
        before: One model.
        after: The other, with the same labels in front.
        split: Samples by modality.
        fold: See :attr:`Recording.fold`; None if each label is its own.
        count: Pairs that are drawn.
        seed: Of the draw.

    Returns:
        A row for each modality, and one for pairs of two where a label has them: ``modalities``, ``n``, and for
        ``before`` and ``after`` the share that is ``right`` and the mean ``confidence``.
    """
    asked = [(name, split.single(name)) for name in split.modalities]
    if 2 in split.sizes:
        asked.append(("pairs", split.draw(count, np.random.default_rng((seed, 2)), 2)))
    rows: list[dict[str, Any]] = [{"modalities": name, "n": len(drawn)} for name, drawn in asked]
    for key, model in (("before", before), ("after", after)):
        tokens = {
            name: embed_all(model.encoders, model.config, name, samples.inputs[:, :1]).clone()
            for name, samples in split.sets.items()
        }
        embedded = EmbeddedSplit(split.names, split.sets, tokens=tokens, slots=tuple(model.config.modalities))
        for row, (name, drawn) in zip(rows, asked, strict=True):
            sets = embedded.gather(drawn)
            with torch.inference_mode():
                fused = model.fusion(*sets)
                proof = evidence(fused, sets.tokens, sets.mask)
                cosines = model.labels.similarities(fused.embedding if name == "pairs" else sets.tokens[:, 0])
                sure, answer = model.calibration.probabilities(cosines, drawn.names, proof).max(dim=1)
            said = answer.cpu().numpy()
            right = (said if fold is None else fold[said]) == (drawn.label if fold is None else fold[drawn.label])
            row[key] = {"right": round(float(right.mean()), 4), "confidence": round(sure.mean().item(), 4)}
    return rows
