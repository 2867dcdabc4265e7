"""What the domain randomisation of several modalities needs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def soft_field(size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """A random field without edges, ``float32 [H, W]`` from 0 to 1: what light, warmth or clutter vary like."""
    height, width = size[:2]
    total = np.zeros((height, width), np.float32)
    for cells, weight in ((3, 1.0), (7, 0.5), (15, 0.25)):
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        total += np.float32(weight) * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    field: NDArray[np.float32] = (total - total.min()) / max(float(np.ptp(total)), 1e-6)
    return field
