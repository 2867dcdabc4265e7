"""Augmentation and damage of camera pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.pictures import picture_corruptions, random_crop


def augment(raw: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random crop (half of the area or more), mirror, brightness, contrast and white balance."""
    part = random_crop(raw, rng)
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
    offset = rng.uniform(-20, 20)
    levels = np.arange(256, dtype=np.float32)[:, None] * gain + offset
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)  # one lookup per pixel instead of float arithmetic
    return np.stack([table[part[:, :, channel], channel] for channel in range(3)], axis=-1)


CORRUPTIONS = picture_corruptions(lambda picture: (0, 255))
