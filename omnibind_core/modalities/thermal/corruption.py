"""Augmentation and damage of thermal pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.pictures import picture_corruptions, random_crop


def augment(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Random crop (0.6 of the area or more), mirror, and noise of up to 3 % of the picture's range."""
    part = random_crop(raw, rng, min_area=0.6)
    low, high = float(raw.min()), float(raw.max())
    level = (high - low) * rng.uniform(0, 0.03)
    noisy = part + level * rng.standard_normal(part.shape[:2], np.float32).reshape(
        *part.shape[:2], *[1] * (raw.ndim - 2)
    )
    noisy = np.clip(noisy, low, high)
    return (np.rint(noisy) if raw.dtype.kind == "u" else noisy).astype(raw.dtype)


def _limits(raw: NDArray[Any]) -> tuple[float, float]:
    """8-bit pictures span 0..255; temperatures and counts what this one spans, the camera's range being unknown."""
    return (0.0, 255.0) if raw.dtype == np.uint8 else (float(raw.min()), float(raw.max()))


CORRUPTIONS = picture_corruptions(_limits)
