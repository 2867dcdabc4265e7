"""Radar points to encoder input: a picture that an encoder of photographs can read."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities import PicturePreset
from omnibind_core.modalities.drawing import Picture, coloured

Points = NDArray[np.float32]  # [N, 5]: x, y, z, radial velocity, strength

_FULL_SPEED = 3.0  # m/s faster or slower than the thing as a whole, which has the ends of the colour scale
_FADED = 30.0  # dB below the strongest echo, which are half as bright


@dataclass(frozen=True)
class RadarPreset(PicturePreset):
    """A radar preset. Both show one thing: the median of its points is in the middle.

    Attributes:
        style: ``"above"`` (bird's-eye view, forward is up) or ``"doppler"`` (distance to the right, velocity upwards).
        extent: What the picture is wide and high: metres, for ``"doppler"`` metres and m/s.
    """

    style: str = "above"
    extent: tuple[float, float] = (10.0, 10.0)


PRESETS = {
    preset.name: preset
    for preset in (RadarPreset("above"), RadarPreset("doppler", style="doppler", extent=(10.0, 8.0)))
}


def process(raw: Points, preset: RadarPreset) -> NDArray[np.uint8]:
    """``float32 [N, 5]`` to ``uint8 [1, 3, size, size]``: dots on black, see :func:`colours`."""
    distance = np.hypot(raw[:, 0], raw[:, 1])
    right, up = (-raw[:, 1], raw[:, 0]) if preset.style == "above" else (distance, raw[:, 3])
    place = np.stack([right, up], axis=1)
    place = (place - np.median(place, axis=0)) / preset.extent + 0.5
    picture = dots(place, colours(raw), preset.shape[-1])
    return np.ascontiguousarray(picture.transpose(2, 0, 1))[None]


def colours(raw: Points) -> NDArray[np.uint8]:
    """Colour of each point, RGB ``uint8 [N, 3]``.

    The hue is its velocity against that of the thing as a whole (limbs and wheels differ), the brightness its strength.
    """
    faster = (raw[:, 3] - np.median(raw[:, 3])) / _FULL_SPEED
    hue = coloured(np.clip(128 + 127 * faster, 0, 255).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0]
    brightness = np.clip(1 + (raw[:, 4] - raw[:, 4].max()) / (2 * _FADED), 0.3, 1)
    return (hue * brightness[:, None]).astype(np.uint8)


def dots(place: NDArray[np.float64], colour: NDArray[np.uint8], size: int) -> Picture:
    """Draws points as dots on black.

    Args:
        place: ``[N, 2]``, from the left and from below, 0..1; points beyond are not seen.
        colour: RGB ``uint8 [N, 3]``; the brightest are drawn last.
        size: Side of the picture in pixels.
    """
    picture = np.zeros((size, size, 3), np.uint8)
    pixel = np.clip(np.stack([place[:, 0], 1 - place[:, 1]], axis=1) * size, -size, 2 * size).astype(int)
    for index in np.argsort(colour.sum(axis=1), kind="stable"):
        cv2.circle(picture, pixel[index].tolist(), max(2, size // 40), colour[index].tolist(), -1, cv2.LINE_AA)
    return picture
