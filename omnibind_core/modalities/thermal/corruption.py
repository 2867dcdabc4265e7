"""Augmentation and damage of thermal pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.pictures import CORRUPTIONS, corrupt_picture, random_crop

__all__ = ["CORRUPTIONS", "augment", "corrupt"]


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


def corrupt(raw: NDArray[Any], kind: str, rng: np.random.Generator) -> NDArray[Any]:
    """Damage as in :func:`~omnibind_core.modalities.pictures.corrupt_picture`.

    8-bit pictures span 0..255; temperatures and counts span what this picture spans, the camera's range being unknown.
    """
    low, high = (0.0, 255.0) if raw.dtype == np.uint8 else (float(raw.min()), float(raw.max()))
    return corrupt_picture(raw, kind, rng, low, high)
