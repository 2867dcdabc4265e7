"""Thermal pictures as other cameras would have taken them: domain randomisation (Tobin et al. 2017) for training."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.pictures import random_crop, to_grey
from omnibind_core.modalities.randomising import soft_field

_PALETTES = (
    cv2.COLORMAP_INFERNO,
    cv2.COLORMAP_HOT,
    cv2.COLORMAP_JET,
    cv2.COLORMAP_RAINBOW,
    cv2.COLORMAP_BONE,
    cv2.COLORMAP_MAGMA,
    cv2.COLORMAP_PLASMA,
)


def randomise(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another size, sharpness, contrast, background, polarity and palette.

    Down to 16 pixels on the short side; white-hot, black-hot or in colours; a background that is warm in places, and
    columns that differ as those of a microbolometer do.
    """
    part = random_crop(raw, rng, min_area=0.5)
    grey = _scaled(part)
    height, width = grey.shape
    short = np.exp(rng.uniform(np.log(16), np.log(160)))
    scale = min(1.0, short / min(height, width))
    size = max(4, round(width * scale)), max(4, round(height * scale))
    grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
    if rng.random() < 0.5:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.3, 0.04 * min(size) + 0.5)), np.float32)
    if rng.random() < 0.5:
        grey = grey ** np.float32(np.exp(rng.uniform(-0.7, 0.7)))
    if rng.random() < 0.4:  # a wall or a road in the sun
        grey = grey + np.float32(rng.uniform(0.1, 0.5)) * soft_field(grey.shape, rng)
    if rng.random() < 0.4:
        grey = grey + np.float32(rng.uniform(0, 0.05)) * rng.standard_normal((1, size[0]), np.float32)
    grey = grey + np.float32(rng.uniform(0, 0.06)) * rng.standard_normal(grey.shape, np.float32)
    low, high = float(grey.min()), float(grey.max())
    grey = (grey - low) / max(high - low, 1e-6)
    if rng.random() < 0.35:
        grey = 1 - grey
    contrast = rng.uniform(0.3, 1.0)
    levels = np.rint(255 * (rng.uniform(0, 1 - contrast) + contrast * grey)).astype(np.uint8)
    if rng.random() < 0.6:
        return levels
    coloured = cv2.applyColorMap(levels, int(rng.choice(_PALETTES)))
    return np.ascontiguousarray(coloured[:, :, ::-1])


def _scaled(raw: NDArray[Any]) -> NDArray[np.float32]:
    """``[H, W]`` from 0 to 1; pseudo-colour by its luminance."""
    grey = (to_grey(raw) if raw.ndim == 3 else raw).astype(np.float32)
    low, high = np.percentile(grey, (0.5, 99.5))
    scaled: NDArray[np.float32] = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
    return scaled
