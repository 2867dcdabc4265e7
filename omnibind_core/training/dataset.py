"""What both stages train on: cached trunk features of every sample, by modality and split, with concept numbers."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core import modalities
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.damage import ANY, Damaged, damages
from omnibind_core.data.holdout import hold_out
from omnibind_core.data.imagine import Imagined
from omnibind_core.data.matching.labels import keep_labels, match_labels
from omnibind_core.data.modality_free.dataset import ModalityFree
from omnibind_core.data.randomised import Randomised
from omnibind_core.data.samples import Loads, Sample
from omnibind_core.data.scenes import GivenCombinations
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.base import text_once
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.errors import ConfigError, DataError
from omnibind_core.features import combinations
from omnibind_core.features.combinations import EmbeddedSplit, Split
from omnibind_core.features.sets import FeatureSet, learns, sample_features
from omnibind_core.labels import EmbedText, LabelBank
from omnibind_core.model import OmniBind
from omnibind_core.optional import require
from omnibind_core.training.config import OWN, AlignConfig, TrainConfig

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Everything that is trained and validated on.

    Attributes:
        vocabulary: Concept names; the label bank of the trained model.
        concepts: The label matching.
        train: Samples by modality.
        val: The same, without augmented variants.
        shifted: The validation samples with variants as other sensors and damaged ones would give them; empty for none.
        index: Combinations to train and evaluate on; None draws them on the fly.
        imagined: By student, what its sensor would have seen of the training photos.
        descriptions: Sentences on what concepts mean.
        known: Label bank that the vocabulary begins with; None for none.
    """

    vocabulary: tuple[str, ...]
    concepts: Concepts
    train: dict[str, FeatureSet]
    val: dict[str, FeatureSet]
    index: ModalityFree | None = None
    imagined: dict[str, FeatureSet] = dataclasses.field(default_factory=dict)
    descriptions: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    known: LabelBank | None = None
    shifted: dict[str, FeatureSet] = dataclasses.field(default_factory=dict)

    def bank(self, embed_text: EmbedText) -> LabelBank:
        """The label bank of the vocabulary."""
        if self.known is not None:
            return self.known.extended(self.vocabulary, embed_text, self.descriptions)
        return LabelBank.from_names(self.vocabulary, embed_text, descriptions=self.descriptions)


def load(
    config: TrainConfig,
    model: ModelConfig,
    encoder_set: EncoderSet,
    concepts: Concepts,
    known: LabelBank | None = None,
    descriptions: Mapping[str, Sequence[str]] | None = None,
    damage: int = 0,
    shifts: int = 0,
) -> TrainingData:
    """Reads the samples and computes the trunk features that are not cached yet.

    Args:
        config: The experiment.
        model: Architecture.
        encoder_set: Encoders with packaged weights loaded; already on their device.
        concepts: Label matching of the data.
        known: The vocabulary begins with this one.
        descriptions: Of concepts; those of ``known`` keep what they have.
        damage: Variants of each training sample with a damaged sensor.
        shifts: Variants of each validation sample by another sensor, and as many by a damaged one.

    Raises:
        ConfigError: What ``align.imagined`` asks for needs a frozen trunk.
        DataError: No concept has enough samples, or the data set is broken.
    """
    index = None if config.index is None else ModalityFree.open(config.index)
    source = FolderSource(Path(str(config.data))) if index is None else index
    samples = splits(source.samples(), config.holdout, config.seed)
    by_split = {
        split: [(sample, concepts.of(sample)) for sample in samples if sample.split == split]
        for split in ("train", "val")
    }
    counts = Counter(concept for _, concept in by_split["train"] if concept)
    found = sorted(name for name, count in counts.items() if count >= config.vocabulary)
    vocabulary = tuple(dict.fromkeys([*(known.names if known else ()), *found]))
    if not vocabulary:
        raise DataError(f"{config.index or config.data}: no concept has {config.vocabulary} training samples")
    number = {name: index for index, name in enumerate(vocabulary)}
    sets: dict[str, dict[str, FeatureSet]] = {"train": {}, "val": {}, "shifted": {}}
    alone = {"augmentations": 0, "more_augmentations": {}, "randomised": shifts, "more_randomised": {}}
    shifting = config.model_copy(update=alone)
    # Features of all samples, so that a change of labels or vocabulary does not make the cached ones useless.
    for split, labelled in by_split.items():
        for modality in modalities.names():
            items = [(sample, name) for sample, name in labelled if sample.modality == modality]
            if modality not in encoder_set.heads or modality == "text" or not any(name in number for _, name in items):
                continue
            samples = [sample for sample, _ in items]
            if split == "train":
                inputs, damaged = variants(source, samples, modality, model, encoder_set, config, damage)
                others = config.randomised_of(modality) if modalities.randomisation(modality) is not None else 0
            else:
                inputs = sample_features(source, samples, modality, model, encoder_set, 0, config.features_seed)
                damaged, others = None, 0
            sets[split][modality] = _feature_set(items, inputs, number, damaged, others)
            if split == "val" and shifts:
                inputs, damaged = variants(source, samples, modality, model, encoder_set, shifting, shifts)
                sets["shifted"][modality] = _feature_set(items, inputs, number, damaged)
    photos = [(sample, name) for sample, name in by_split["train"] if sample.modality == "image"]
    imagined = {}
    for student in _imagining(config.align, sets["train"], model, encoder_set):
        seen = _imagined(source, photos, student, model, encoder_set, config.features_seed, number)
        if len(seen):
            imagined[student] = seen
    told = descriptions or {}
    return TrainingData(vocabulary, concepts, sets["train"], sets["val"], index, imagined, told, known, sets["shifted"])


def match(config: TrainConfig, encoder_set: EncoderSet) -> Concepts:
    """The label matching of an experiment: that of its index or ``config.labels``, or made anew from its labels.

    Raises:
        DataError: The file or the data set is missing or wrong.
    """
    if config.index is not None:
        return ModalityFree.open(config.index).concepts
    if config.labels is not None and config.labels != OWN:
        return Concepts.read(Path(config.labels))
    samples = FolderSource(Path(str(config.data))).samples()
    pairs = sorted({(sample.source, sample.label, sample.modality) for sample in samples})
    if config.labels == OWN:
        return keep_labels(pairs)
    encode: Callable[[Sequence[str]], Tensor] = encoder_set.encode_text_once
    if encoder_set.trunks[encoder_set.trunk_of["text"]].fingerprint:
        # What matching takes for the same was measured with MiniLM; to CLIP all short texts are much alike.
        from omnibind_core.encoders.lite.minilm import MiniLMTower

        encode = partial(text_once, MiniLMTower())

    def embed_words(sentences: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(encode(sentences).cpu().numpy(), np.float32)

    return match_labels(pairs, embed_words)


def embed(data: TrainingData, model: OmniBind, split: str) -> EmbeddedSplit:
    """Embeddings of one split, and of the sources' own words for the concepts, ready to be combined.

    Variants with a damaged sensor count as further variants. ``shifted`` is the validation split with its variants.
    """
    sets = {"train": data.train, "val": data.val, "shifted": data.shifted}[split]
    if data.index is None or split == "shifted":
        return combinations.embed(Split(data.vocabulary, sets), model)
    given, words = _given(data.index, split, sets, data.vocabulary)
    return combinations.embed(Split(data.vocabulary, sets, given=given), model, words)


def _given(
    index: ModalityFree, split: str, sets: dict[str, FeatureSet], vocabulary: Sequence[str]
) -> tuple[GivenCombinations, list[tuple[int, str]]]:
    """The combinations of a split with samples as rows of ``sets``, and their (concept, words) by number.

    Modalities that the model lacks count as absent, concepts that are not in the vocabulary are left out.
    """
    pa, pc = require("pyarrow", "An index"), require("pyarrow.compute", "An index")
    ids = {name: pa.array([sample.id for sample in samples.samples], pa.string()) for name, samples in sets.items()}
    names = pa.array(vocabulary, pa.string())
    words: dict[tuple[int, str], int] = {}
    rows, concept, text = [], [], []
    for table in index.tables(split):
        number = np.asarray(pc.index_in(table["concept"], names).fill_null(-1)).astype(np.int64)
        present = [np.asarray(pc.index_in(table[name], ids[name]).fill_null(-1)) for name in sets]
        place = np.stack(present, axis=1).astype(np.int32)
        kept = (number >= 0) & (place >= 0).any(axis=1)
        said = zip(number[kept].tolist(), table["text"].filter(pa.array(kept)).to_pylist(), strict=True)
        text += [-1 if word is None else words.setdefault((of, word), len(words)) for of, word in said]
        rows.append(place[kept])
        concept.append(number[kept])
    if not text:
        raise DataError(f"{index.folder}: no combination of the split '{split}' can be used with this model")
    given = GivenCombinations(np.concatenate(rows), np.concatenate(concept), np.array(text, np.int64))
    return given, list(words)


def prompts(data: TrainingData, encoder_set: EncoderSet) -> Tensor:
    """The text teacher's embeddings ``[C, D]`` of the whole vocabulary: the prototypes of its label bank."""
    with torch.inference_mode():
        text = data.bank(encoder_set.encode_text_once).prototypes()
    return text.clone()


def _feature_set(
    items: Sequence[tuple[Sample, str]],
    inputs: NDArray[np.float32],
    number: Mapping[str, int],
    damaged: NDArray[np.float32] | None = None,
    randomised: int = 0,
) -> FeatureSet:
    """The samples whose concept is in the vocabulary."""
    rows = [row for row, (_, name) in enumerate(items) if name in number]
    return FeatureSet(
        tuple(items[row][0] for row in rows),
        inputs if len(rows) == len(items) else inputs[rows],
        np.array([number[items[row][1]] for row in rows], np.int64),
        damaged if damaged is None or len(rows) == len(items) else damaged[rows],
        randomised,
    )


def _imagining(
    settings: AlignConfig, train: Collection[str], model: ModelConfig, encoder_set: EncoderSet
) -> Iterator[str]:
    """The students that are to learn from imagined samples, too.

    Raises:
        ConfigError: The trunk of one learns.
    """
    if "image" not in train:
        return
    for student, share in settings.imagined.items():
        if share == 0 or student not in train or student not in (settings.students or [student]):
            continue
        trunk = model.modalities[student].trunk
        if learns(encoder_set.trunks[trunk]):
            raise ConfigError(f"align.imagined.{student}: its trunk '{trunk}' learns, expected one that is frozen")
        yield student


def _imagined(
    source: FolderSource | ModalityFree,
    photos: Sequence[tuple[Sample, str]],
    student: str,
    model: ModelConfig,
    encoder_set: EncoderSet,
    seed: int,
    number: Mapping[str, int],
) -> FeatureSet:
    """What a student's sensor would have seen of the photos, but of those that are no good for it."""
    items = [(dataclasses.replace(photo, modality=student), name) for photo, name in photos]
    samples = [sample for sample, _ in items]
    inputs = sample_features(Imagined(source, seed), samples, student, model, encoder_set, 0, seed, "imagined ")
    good = np.flatnonzero(~np.isnan(inputs[:, 0, 0]))
    _logger.info("%s: %d of %d photos could be imagined", student, len(good), len(photos))
    return _feature_set([items[row] for row in good], inputs[good], number)


def variants(
    source: Loads,
    samples: Sequence[Sample],
    modality: str,
    model: ModelConfig,
    encoder_set: EncoderSet,
    config: TrainConfig,
    damage: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Features of training samples and their variants.

    Args:
        source: Loads the samples.
        samples: All of ``modality``.
        modality: Modality name.
        model: Architecture.
        encoder_set: The encoders.
        config: Says how many augmented and randomised variants there are, and their seed.
        damage: Number of variants with a damaged sensor.

    Returns:
        ``float32 [N, 1 + A, F]`` of the samples, augmented and randomised; ``[N, damage, F]`` of damaged ones, None for
        none.
    """
    seed, others = config.features_seed, config.randomised_of(modality)
    augmentations = config.more_augmentations.get(modality, config.augmentations)
    inputs = sample_features(source, samples, modality, model, encoder_set, augmentations, seed)

    def changed(what: str, count: int, make: Callable[[int], Loads]) -> NDArray[np.float32]:
        each = [
            sample_features(make(seed + index), samples, modality, model, encoder_set, 0, seed + index, what)
            for index in range(count)
        ]
        return np.concatenate(each, axis=1)

    if others and modalities.randomisation(modality) is not None:
        what = f"randomised {modalities.fingerprint(modality, randomised=True)} "
        inputs = np.concatenate([inputs, changed(what, others, partial(Randomised, source))], axis=1)
    if not damage or not damages(modality):
        return inputs, None
    return inputs, changed(f"damaged {ANY} ", damage, partial(Damaged, source, ANY))


def splits(samples: Iterable[Sample], holdout: float, seed: int) -> list[Sample]:
    """The samples as they are; where none is of the split ``val``, with a part of the split ``train`` held out as that.

    Args:
        samples: Of all splits.
        holdout: Share of the groups of each label and modality.
        seed: Of the draw.
    """
    found = list(samples)
    if not holdout or any(sample.split == "val" for sample in found):
        return found
    train = [sample for sample in found if sample.split == "train"]
    apart = hold_out(train, lambda sample: (sample.label, sample.modality), holdout, seed)
    return [
        dataclasses.replace(sample, split="val") if sample.split == "train" and sample.group in apart else sample
        for sample in found
    ]
