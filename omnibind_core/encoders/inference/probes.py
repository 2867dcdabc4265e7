"""Made-up input, by which it is told whether something else computes what a network does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Preset

_BLOCK = 16  # pixels of the largest shapes in a made-up picture


def probes(preset: Preset, count: int = 12) -> NDArray[Any]:
    """Made-up views ``[count, ...]``: pictures of blocks with more and more noise; other input at several scales."""
    rng = np.random.default_rng(0)
    shape = (count, *(256 if size < 0 else size for size in preset.shape))
    if preset.dtype != "uint8":
        scale = np.geomspace(0.25, 2.0, count).reshape(-1, *(1,) * (len(shape) - 1))
        return (rng.standard_normal(shape) * scale).astype(np.float32)
    blocks = rng.integers(0, 256, shape).astype(np.float32)
    for axis in (-2, -1):  # every pixel has the value of its block's first
        at = np.arange(shape[axis]) // _BLOCK * _BLOCK
        blocks = np.take(blocks, at, axis=axis)
    noise = rng.uniform(-64, 64, shape) * np.linspace(0.2, 1, count).reshape(-1, *(1,) * (len(shape) - 1))
    return np.clip(blocks + noise, 0, 255).astype(np.uint8)
