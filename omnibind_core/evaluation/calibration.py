"""Temperatures that turn cosines into probabilities, and the confidence below which the answer is "unknown"."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.evaluation.combinations import Draw, Embedded
from omnibind_core.fusion import Fusion
from omnibind_core.labels import LabelBank
from omnibind_core.model import Calibration

_TEMPERATURES = tuple(float(value) for value in np.geomspace(0.005, 0.5, 200))
KEEP = 0.95
"""Share of the right answers of single sensors that stay above the threshold of ``unknown``."""


def calibrate(embedded: Embedded, labels: LabelBank, fusion: Fusion, count: int, seed: int) -> Calibration:
    """Fits the calibration on validation combinations of every size.

    Args:
        embedded: Validation embeddings.
        labels: The vocabulary.
        fusion: The trained fusion.
        count: Combinations per size.
        seed: Of the draws.

    Returns:
        Temperatures of least negative log-likelihood (Guo et al. 2017), and the threshold that keeps :data:`KEEP` of
        the right answers of single sensors.
    """
    draws = [embedded.draw(count, np.random.default_rng((seed, s)), size=s) for s in embedded.sizes]
    with torch.inference_mode():
        fused = torch.cat([labels.similarities(fusion(draw.tokens, draw.mask, draw.kind).embedding) for draw in draws])
        label = torch.cat([draw.label for draw in draws])
        single, single_label = _singles(draws, labels)
        temperature = best_temperature(fused, label)
        # Of single sensors, whose right answers are the least confident: no sensor is to be unknown most of the time.
        alone = slice(0, len(draws[0].label))
        confidence, answer = (fused[alone] / temperature).softmax(-1).max(-1)
        right = confidence[answer == label[alone]]
        threshold = float(right.quantile(1 - KEEP)) if len(right) else 0.0
    return Calibration(
        temperature=temperature,
        single_temperature=best_temperature(single, single_label),
        threshold=round(threshold, 4),
    )


def best_temperature(similarities: Tensor, label: Tensor) -> float:
    """The temperature of least negative log-likelihood, by a fine search over 0.005 to 0.5.

    Args:
        similarities: ``float32 [N, C]`` cosines.
        label: ``int64 [N]``.
    """
    losses = [F.cross_entropy(similarities / value, label).item() for value in _TEMPERATURES]
    return round(_TEMPERATURES[int(np.argmin(losses))], 5)


def _singles(draws: list[Draw], labels: LabelBank) -> tuple[Tensor, Tensor]:
    tokens = torch.cat([draw.tokens[draw.mask] for draw in draws])
    label = torch.cat([draw.label[:, None].expand_as(draw.mask)[draw.mask] for draw in draws])
    return labels.similarities(tokens), label
