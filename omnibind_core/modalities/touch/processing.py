"""Tactile picture to encoder input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import PicturePreset
from omnibind_core.modalities.pictures import fit_picture

PRESETS = {
    preset.name: preset
    for preset in (
        # Pressure arrays: the whole array, because a contact may lie at its edge, and its shape unchanged.
        PicturePreset("pressure", fit="letterbox"),
        # Camera-based skins (GelSight): ImageNet evaluation, as Touch-and-Go's baselines use it.
        PicturePreset("gelsight", resize=256),
    )
}


def process(raw: NDArray[Any], preset: PicturePreset) -> NDArray[np.uint8]:
    """``uint8`` picture or ``float32`` pressure to ``uint8 [1, 3, 224, 224]``; pressure 0..1 becomes 0..255."""
    return fit_picture(to_8_bit(raw), preset)


def to_8_bit(raw: NDArray[Any]) -> NDArray[np.uint8]:
    """Pressure 0..1 as 0..255; ``uint8`` stays as it is."""
    return raw if raw.dtype == np.uint8 else np.rint(np.clip(raw, 0, 1) * 255).astype(np.uint8)


def subtract_reference(raw: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Removes the look of the untouched sensor.

    Args:
        raw: ``uint8 [H, W]`` or RGB ``uint8 [H, W, 3]``.
        reference: Picture of the same sensor without contact, of the same shape.

    Returns:
        ``uint8`` of the same shape. Grey is pressure: what exceeds the reference. Colour is a skin seen by a camera:
        the difference on mid grey, 128 where nothing changed, half of the contrast.

    Raises:
        InvalidInputError: The shapes differ.
    """
    if raw.shape != reference.shape:
        raise InvalidInputError("touch reference", f"shape {list(reference.shape)}", f"that of {list(raw.shape)}")
    if raw.ndim == 2:
        return np.maximum(raw, reference) - reference
    return ((raw.astype(np.int16) - reference + 256) >> 1).astype(np.uint8)
