"""Thermal picture to encoder input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import PicturePreset
from omnibind_core.modalities.pictures import fit_picture

_PERCENTILES = (1.0, 99.0)  # a hot spot or a dead pixel must not set the contrast
_PERCENTILE_PIXELS = 65536  # enough of them for a percentile; larger pictures are sampled on a grid


@dataclass(frozen=True)
class ThermalPreset(PicturePreset):
    """A thermal preset. With ``dtype="float32"`` the picture is ``(value / 255 - mean) / std``.

    Attributes:
        stretch: Whether 8-bit grey is stretched to the full contrast. All other scalar pictures always are.
        mean: Of the normalisation, on 0..1.
        std: Of the normalisation, on 0..1.
    """

    stretch: bool = True
    mean: float = 0.0
    std: float = 1.0


PRESETS = {
    preset.name: preset
    for preset in (
        ThermalPreset("efficientnet", fit="letterbox"),
        # ImageBind's thermal trunk: grey on 0..1. Without any further normalisation LLVIP gives 62.4 % of the official
        # 63.4 %, with mean and std 0.5 it gives 55.2 % (ImageBind pull request 73).
        ThermalPreset("imagebind", (1, 224, 224), "float32", resize=224, stretch=False),
        # UniBind's loader: the same, with mean and std 0.5.
        ThermalPreset("unibind", (1, 224, 224), "float32", resize=224, stretch=False, mean=0.5, std=0.5),
    )
}


def process(raw: NDArray[Any], preset: ThermalPreset) -> NDArray[Any]:
    """Temperatures, counts or pseudo-colour to ``[1, *preset.shape]`` of the preset's dtype."""
    grey = raw.ndim == 2
    if grey and (preset.stretch or raw.dtype != np.uint8):
        raw = stretch_contrast(raw)
    picture = fit_picture(raw, preset)
    if preset.dtype == "uint8":
        return picture
    return (picture * np.float32(1 / (255 * preset.std))) - np.float32(preset.mean / preset.std)


def stretch_contrast(raw: NDArray[Any]) -> NDArray[np.uint8]:
    """Maps the 1st to the 99th percentile of ``[H, W]`` to 0..255; a picture without contrast becomes 0."""
    step = int(np.ceil(np.sqrt(max(1.0, raw.size / _PERCENTILE_PIXELS))))
    low, high = np.percentile(raw[::step, ::step], _PERCENTILES)
    if high <= low:  # a spot smaller than a percent, or no contrast at all
        low, high = float(raw.min()), float(raw.max())
    scale = 255 / (high - low) if high > low else 0.0
    stretched = raw.astype(np.float32)
    stretched -= np.float32(low)
    stretched *= np.float32(scale)
    stretched += np.float32(0.5)
    return np.clip(stretched, 0, 255, out=stretched).astype(np.uint8)
