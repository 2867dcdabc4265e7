"""Less of a training set: few samples of every label, or none of some labels or sources.

Validation samples stay as they are, but those of sources that are left out.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.errors import ConfigError, DataError
from omnibind_core.features.sets import FeatureSet
from omnibind_core.modalities import Role
from omnibind_core.training.dataset import TrainingData


def few_shot(data: TrainingData, shots: int, seed: int) -> TrainingData:
    """Keeps a few training samples of every label for each student; the teachers keep all of theirs.

    What is imagined of the teachers' photos is kept, too.

    Args:
        data: All samples.
        shots: Samples that are kept of each label and modality, with all their variants; fewer where there are fewer.
        seed: Of the draw. What is kept of a smaller number is also kept of a larger one.
    """
    train = dict(data.train)
    for name, samples in data.train.items():
        if modalities.get(name).role is Role.STUDENT:
            order = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(len(samples))
            order = order[np.argsort(samples.concept[order], kind="stable")]
            concept = samples.concept[order]
            place = np.arange(len(samples)) - np.searchsorted(concept, concept)
            train[name] = samples.take(np.sort(order[place < shots]))
    return dataclasses.replace(data, train=train)


def without_labels(data: TrainingData, left_out: Mapping[str, Collection[str]]) -> TrainingData:
    """Takes the training samples of some labels from some students: their sensors never saw them.

    The teachers still know these labels, so what is imagined of the teachers' photos is kept.

    Args:
        data: All samples.
        left_out: Labels by modality.

    Raises:
        ConfigError: A modality has no training samples, or a label is not in the vocabulary.
        DataError: A modality has no training sample left.
    """
    train = dict(data.train)
    for name, labels in left_out.items():
        unknown = sorted(set(labels) - set(data.vocabulary))
        if name not in train or unknown:
            raise ConfigError(f"cannot leave out {', '.join(unknown or labels)}: there is no such label of '{name}'")
        numbers = [data.vocabulary.index(label) for label in labels]
        rows = np.flatnonzero(~np.isin(train[name].concept, numbers))
        if not len(rows):
            raise DataError(f"{name}: no training sample is left without {', '.join(labels)}")
        train[name] = train[name].take(rows)
    return dataclasses.replace(data, train=train)


def of_source(data: TrainingData, name: str, source: str) -> list[FeatureSet]:
    """All samples of one source of a modality, without their variants: those of training, those of validation."""
    found = []
    for part in (data.train, data.val):
        if name in part:
            rows = np.array([sample.source == source for sample in part[name].samples], bool)
            found.append(FeatureSet(part[name].samples, part[name].inputs[:, :1], part[name].concept).take(rows))
    return found


def without_sources(data: TrainingData, left_out: Mapping[str, str]) -> TrainingData:
    """Takes whole sources from training and validation, and of other sources what shows the same (equal groups).

    What is imagined of photos that are left out goes with them.

    Args:
        data: All samples.
        left_out: A source by modality.

    Raises:
        ConfigError: A modality has no samples of its source.
        DataError: A modality has no training sample left.
    """
    parts = {"train": dict(data.train), "val": dict(data.val), "shifted": dict(data.shifted)}
    imagined = dict(data.imagined)
    for name, source in left_out.items():
        gone = {sample.group for samples in of_source(data, name, source) for sample in samples.samples}
        if not gone:
            raise ConfigError(f"cannot leave out source '{source}': there are no samples of '{name}' from it")

        def kept(samples: FeatureSet, source: str = source, gone: Collection[str] = gone) -> NDArray[np.bool_]:
            return np.array([one.source != source and one.group not in gone for one in samples.samples], bool)

        for part in parts.values():
            if name in part:
                part[name] = part[name].take(kept(part[name]))
        for split in ("val", "shifted"):
            parts[split] = {key: samples for key, samples in parts[split].items() if len(samples)}
        if not len(parts["train"].get(name, ())):
            raise DataError(f"{name}: no training sample is left without the source '{source}'")
        if name == "image":
            imagined = {student: samples.take(kept(samples)) for student, samples in imagined.items()}
    return dataclasses.replace(
        data, train=parts["train"], val=parts["val"], shifted=parts["shifted"], imagined=imagined
    )
