"""Augmentation and damage of depth pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities import Corruptions
from omnibind_core.modalities.pictures import corrupt_picture, random_crop


def augment(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Random crop (0.6 of the area or more), mirror, distance (20 % nearer or farther) and noise of up to 1 %."""
    part = random_crop(raw, rng, min_area=0.6)
    if not part.any():
        part = raw
    return measure(part * rng.uniform(0.8, 1.25), rng, part.max() * rng.uniform(0, 0.01))


def _gaussian(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Noise of 5 % of the range."""
    return measure(raw, rng, 0.05 * raw.max())


def _holes(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """70 % of the pixels are lost."""
    return np.where(rng.random(raw.shape) < 0.7, 0, raw)


def _occluded(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Half of the area is lost."""
    return corrupt_picture(raw, "occluded", rng, 0.0, float(raw.max()))


def measure(depth: NDArray[Any], rng: np.random.Generator, noise: float | NDArray[Any]) -> NDArray[Any]:
    """Adds noise of a standard deviation in metres where something was measured; ``float32 [H, W]``."""
    noisy = depth + noise * rng.standard_normal(depth.shape, np.float32)
    return np.where(depth > 0, np.maximum(noisy, 1e-3), 0).astype(np.float32)


CORRUPTIONS: Corruptions[NDArray[Any]] = {"gaussian": _gaussian, "holes": _holes, "occluded": _occluded}
