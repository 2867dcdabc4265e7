"""Temperatures that turn cosines into probabilities, and the confidence below which the answer is "unknown"."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.features.combinations import EmbeddedSplit, similarities, with_conflicts
from omnibind_core.fusion import Fusion
from omnibind_core.labels import LabelBank
from omnibind_core.model import Calibration

_TEMPERATURES = tuple(float(value) for value in np.geomspace(0.005, 0.5, 200))
KEEP = 0.95
"""Share of the right answers of single sensors that stay above the threshold of ``unknown``."""
LEAST_LABELS = 5
"""Sizes of combinations that fewer labels have take the temperature of the size before."""
CONFLICTS = 0.1
"""Share of the combinations of two or more in which one sensor shows something else, so that certainty is earned."""


def calibrate(split: EmbeddedSplit, labels: LabelBank, fusion: Fusion, count: int, seed: int) -> Calibration:
    """Fits the calibration on validation combinations of every size.

    Args:
        split: The validation split.
        labels: The vocabulary.
        fusion: The trained fusion.
        count: Combinations per size.
        seed: Of the draws.

    Returns:
        Temperatures of least negative log-likelihood (Guo et al. 2017) for every number of modalities and for
        every modality alone, and the threshold that keeps :data:`KEEP` of the right answers of single sensors.
    """
    with torch.inference_mode():
        by_size: dict[int, float] = {}
        for size in split.sizes:
            drawn = split.draw(count, np.random.default_rng((seed, size)), size)
            if by_size and len(np.unique(drawn.label)) < LEAST_LABELS:
                break
            # Three agreeing sensors are always right on clean data, and would be taken for certain ever after.
            real = with_conflicts(drawn, CONFLICTS, np.random.default_rng((seed, size, 1)))
            fused = similarities(fusion, labels, split.gather(real))
            by_size[size] = best_temperature(fused, torch.from_numpy(real.label).to(fused.device))
        counts = range(1, max(by_size) + 1)
        temperatures = [by_size[min(by_size, key=lambda size: abs(size - count))] for count in counts]
        single, right = {}, []
        for name, samples in split.sets.items():
            alone, label = _alone(split.tokens[name][:, 0], samples.concept, labels)
            if (alone.argmax(-1) != label).any():  # one that never errs does not tell how sure it may be
                # Every label counts the same, as in the combinations: rare ones are those that it is too sure of.
                single[name] = best_temperature(alone, label, 1 / label.bincount()[label])
            confidence, answer = (alone / single.get(name, temperatures[0])).softmax(-1).max(-1)
            right.append(confidence[answer == label])
        # Of single sensors, whose right answers are the least confident: no sensor is to be unknown most of the time.
        confidences = torch.cat(right)
        threshold = float(confidences.quantile(1 - KEEP)) if len(confidences) else 0.0
    return Calibration(temperatures=tuple(temperatures), single=single, threshold=round(threshold, 4))


def best_temperature(similarities: Tensor, label: Tensor, weight: Tensor | None = None) -> float:
    """The temperature of least negative log-likelihood, by a fine search over 0.005 to 0.5.

    Args:
        similarities: ``float32 [N, C]`` cosines.
        label: ``int64 [N]``.
        weight: ``float32 [N]``, how much each counts; None for all the same.
    """
    counts = torch.ones_like(similarities[:, 0]) if weight is None else weight
    losses = [
        (F.cross_entropy(similarities / value, label, reduction="none") * counts).sum().item()
        for value in _TEMPERATURES
    ]
    return round(_TEMPERATURES[int(np.argmin(losses))], 5)


def _alone(tokens: Tensor, concept: NDArray[np.int64], labels: LabelBank) -> tuple[Tensor, Tensor]:
    """Cosines of the samples that have a label, and these labels."""
    kept = torch.from_numpy(np.flatnonzero(concept >= 0)).to(tokens.device)
    return labels.similarities(tokens[kept]), torch.from_numpy(concept).to(tokens.device)[kept]
