"""What a vector of label probabilities says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranking:
    """The labels that one vector of probabilities speaks for.

    Attributes:
        label: Most probable label, or ``""`` if unknown.
        confidence: Its probability.
        unknown: Whether the confidence is below the threshold.
        entropy: Of the distribution, nat.
        labels: Top labels, most probable first; equal ones in the order of the vocabulary.
        scores: Their probabilities.
    """

    label: str
    confidence: float
    unknown: bool
    entropy: float
    labels: tuple[str, ...]
    scores: tuple[float, ...]


def rank(probabilities: NDArray[np.float32], names: Sequence[str], top_k: int, threshold: float) -> Ranking:
    """Ranks labels.

    Args:
        probabilities: ``[C]``, sum 1.
        names: The ``C`` labels.
        top_k: Number of labels to keep, 1 or more.
        threshold: Confidence below which it is unknown.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-values, kind="stable")[:top_k]
    labels = tuple(names[index] for index in order)
    scores = tuple(values[order].tolist())
    unknown = scores[0] < threshold
    entropy = float(-(values * np.log(np.maximum(values, np.finfo(np.float64).tiny))).sum())
    return Ranking("" if unknown else labels[0], scores[0], unknown, entropy, labels, scores)
