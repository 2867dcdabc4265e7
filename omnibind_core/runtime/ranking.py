"""What a vector of label probabilities says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        entropy: Of the distribution, nat; what the probabilities lack of 1 may be any label.
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
        probabilities: ``[C]``, sum at most 1.
        names: The ``C`` labels.
        top_k: Number of labels to keep, 1 or more.
        threshold: Confidence below which it is unknown.
    """
    values = np.array(probabilities, dtype=np.float64)
    order = np.arange(len(values))
    if top_k < len(values):  # only what can be among them is sorted: there may be many labels
        order = np.flatnonzero(~(values < np.partition(values, -top_k)[-top_k]))
    order = order[np.argsort(-values[order], kind="stable")][:top_k]
    labels = tuple(names[index] for index in order.tolist())
    scores = tuple(values[order].tolist())
    unknown = scores[0] < threshold
    values += max(1 - values.sum(), 0) / len(values)  # that nothing fits is no certainty about a label
    entropy = float(-(values * np.log(np.maximum(values, np.finfo(np.float64).tiny))).sum())
    return Ranking("" if unknown else labels[0], scores[0], unknown, entropy, labels, scores)


def conflict(said: Iterable[tuple[str, float]]) -> float:
    """How much what sensors say alone contradicts each other, 0..1.

    The conflict of Dempster's rule of combination (Shafer 1976, A Mathematical Theory of Evidence, chapter 3): each
    sensor vouches for its label with its confidence, and for nothing otherwise; this is the mass of all cases in which
    two or more labels are vouched for. Sensors that are not sure contradict nobody, however many labels they have.

    Args:
        said: Label and confidence, 0..1, of each sensor; those that say nothing (label ``""``) do not count.
    """
    doubt: dict[str, float] = {}  # that none of the sensors of a label vouches for it
    for label, confidence in said:
        if label:
            doubt[label] = doubt.get(label, 1.0) * (1 - confidence)
    nothing, one = 1.0, 0.0  # no label is vouched for, a single one
    for missing in doubt.values():
        nothing, one = nothing * missing, one * missing + nothing * (1 - missing)
    return min(max(1 - nothing - one, 0.0), 1.0)
