"""Less of a training set: few samples of every label, or none of some labels. Validation samples stay as they are."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Collection, Mapping

import numpy as np

from omnibind_core import modalities
from omnibind_core.errors import ConfigError, DataError
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
