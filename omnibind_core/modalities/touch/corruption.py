"""Augmentation and damage of tactile pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.pictures import picture_corruptions


def augment(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Any rotation, mirror, shift by a tenth and pressure by a third: contacts have no preferred pose."""
    height, width = raw.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), rng.uniform(0.9, 1.1))
    matrix[0, 2] += rng.uniform(-0.1, 0.1) * width
    matrix[1, 2] += rng.uniform(-0.1, 0.1) * height
    border = np.median(raw, axis=(0, 1)).tolist()  # untouched skin; 0 on pressure arrays
    moved = cv2.warpAffine(
        raw, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=border if raw.ndim == 3 else (border,)
    )
    if rng.random() < 0.5:
        moved = moved[:, ::-1]
    pressed = moved.astype(np.float32) * rng.uniform(0.7, 1.3)
    if raw.dtype == np.uint8:
        return np.clip(np.rint(pressed), 0, 255).astype(np.uint8)
    return np.clip(pressed, 0, 1)


# On the sensor's full scale.
CORRUPTIONS = picture_corruptions(lambda picture: (0, 255 if picture.dtype == np.uint8 else 1))
