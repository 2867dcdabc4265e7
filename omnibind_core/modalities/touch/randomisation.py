"""Contacts as other tactile sensors would have felt them: domain randomisation (Tobin et al. 2017) for training."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.pictures import to_grey
from omnibind_core.modalities.randomising import soft_field
from omnibind_core.modalities.touch import corruption


def randomise(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another array, skin and pressure, or a camera behind a gel in place of the array.

    8 to 128 taxels on one side, up to two and a half times as many on the other; the thing larger or smaller; a soft
    skin that smears, one that saturates, one that feels nothing below a threshold. A camera sees the slope of the skin
    in coloured light, or how much its picture changed.
    """
    grey = corruption.augment(raw, rng)
    pressure = (to_grey(grey) if grey.ndim == 3 else grey).astype(np.float32)
    pressure /= 255 if grey.dtype == np.uint8 else 1
    pressure = _framed(pressure, rng)
    rows = round(np.exp(rng.uniform(np.log(8), np.log(128))))
    columns = round(rows * rng.uniform(1.0, 2.5))
    if rng.random() < 0.5:
        rows, columns = columns, rows
    shrinks = rows < pressure.shape[0]
    pressure = _resized(pressure, rows, columns, cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    pressure = np.asarray(cv2.GaussianBlur(pressure, (0, 0), rng.uniform(0.05, 0.04 * rows + 0.3)), np.float32)
    pressure = np.clip(pressure, 0, None) * np.float32(np.exp(rng.uniform(-0.9, 0.9)))
    pressure = np.clip(pressure - rng.uniform(0, 0.1), 0, 1) ** np.float32(np.exp(rng.uniform(-0.7, 0.7)))
    if rng.random() < 0.3:
        seen = _by_camera(pressure, rng)
    else:
        seen = 255 * (pressure + rng.uniform(0, 0.04) * rng.standard_normal(pressure.shape))
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


def _framed(pressure: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The contact on a larger or a smaller array."""
    height, width = pressure.shape
    scale = np.exp(rng.uniform(-0.6, 0.4))
    matrix = np.array([[scale, 0, (1 - scale) * width / 2], [0, scale, (1 - scale) * height / 2]], np.float32)
    return np.asarray(cv2.warpAffine(pressure, matrix, (width, height)), np.float32)


def _resized(pressure: NDArray[np.float32], rows: int, columns: int, method: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(pressure, (columns, rows), interpolation=method), np.float32)


def _by_camera(pressure: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """What a camera behind the gel sees, 0 to 255: the slopes lit in three colours, or the change in grey."""
    across = cv2.Sobel(pressure, cv2.CV_32F, 1, 0, ksize=3)
    down = cv2.Sobel(pressure, cv2.CV_32F, 0, 1, ksize=3)
    if rng.random() < 0.5:
        change = np.abs(across) + np.abs(down) + rng.uniform(0, 0.5) * pressure
        return np.asarray(255 * rng.uniform(0.3, 1.2) * change, np.float32)
    angles = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    lit = across[..., None] * np.cos(angles) + down[..., None] * np.sin(angles)
    base = 100 + 60 * (soft_field(pressure.shape, rng)[..., None] - 0.5)
    return np.asarray(base + 90 * rng.uniform(0.5, 1.5) * lit, np.float32)
