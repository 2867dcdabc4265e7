"""What a camera sees of a thing that was cut out of a photograph: all of it, in a frame that is always the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 320, 240
# Length of the thing's longer side as a share of the frame's height. Models look at the middle of a frame only, 7/8 of
# its height or more: nothing of a thing may be lost there, however long it is.
FILL = 0.8
# A sheet of paper that runs from the wall to the floor without an edge: brightness at the top, at the bottom, 0..255.
_SHEET = (205.0, 175.0)
_FALL_OFF = 0.15  # of the light, from the middle to the corners
_SHADOW = 0.45  # darkness of the shadow where the thing touches the floor, 0..1


@dataclass(frozen=True)
class Shot:
    """One frame.

    Attributes:
        photo: RGB ``uint8 [H, W, 3]``.
        opacity: ``uint8 [H, W]``, of the thing in it.
    """

    photo: NDArray[np.uint8]
    opacity: NDArray[np.uint8]


def shoot(cutout: NDArray[np.uint8], rng: np.random.Generator, size: tuple[int, int] = SIZE) -> Shot:
    """Photographs a thing that stands on a sheet of paper, under soft light from above.

    Args:
        cutout: BGRA ``uint8 [h, w, 4]``; margins that are transparent are cut off.
        rng: Source of the place in the frame, a few pixels from the middle, and of the light's direction.
        size: Width and height of the frame, pixels.

    Returns:
        The frame.
    """
    width, height = size
    thing = _cut(cutout)
    scale = FILL * height / max(thing.shape[:2])
    rows, columns = (max(round(scale * side), 1) for side in thing.shape[:2])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = np.clip(cv2.resize(thing, (columns, rows), interpolation=way), 0, 1)
    top, left = (height - rows) // 2, (width - columns) // 2
    free = (1 - FILL) / 8 * height
    down, right = rng.uniform(-free, free, 2).round().astype(int)
    top, left = top + down, left + right
    layer = np.zeros((height, width, 4), np.float32)
    layer[top : top + rows, left : left + columns] = small
    opacity = layer[..., 3]
    light = _sheet(width, height, rng) * (1 - _shadow(opacity, top + rows))
    photo = layer[..., 2::-1] * 255 + (light * (1 - opacity))[..., None]
    return Shot(photo.round().clip(0, 255).astype(np.uint8), (opacity * 255).round().astype(np.uint8))


def _cut(cutout: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The opaque part, ``float32 [h, w, 4]``, 0..1, colours multiplied by the opacity so that they can be scaled."""
    left, top, width, height = cv2.boundingRect((cutout[..., 3] > 8).astype(np.uint8))
    part = cutout[top : top + height, left : left + width] if width else cutout
    thing: NDArray[np.float32] = part.astype(np.float32) / np.float32(255)
    thing[..., :3] *= thing[..., 3:]
    return thing


def _sheet(width: int, height: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness of the empty sheet, ``float32 [H, W]``, 0..255."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    across, along = rng.uniform(-0.3, 0.3), -0.3
    lit: NDArray[Any] = 1 - _FALL_OFF * ((x - across) ** 2 + (y - along) ** 2) / 2
    ramp = _SHEET[0] + (_SHEET[1] - _SHEET[0]) * (y + 1) / 2
    return np.asarray(ramp * lit, np.float32)


def _shadow(opacity: NDArray[np.float32], base: int) -> NDArray[np.float32]:
    """Darkness of the soft shadow on the floor around the thing's lowest row, ``float32 [H, W]``, 0..1."""
    height, width = opacity.shape
    # The outline seen from the lamp above: a tenth of its height, lying where it stands.
    flat = np.array([[1, 0, 0], [0, 0.1, base - 0.1 * base]], dtype=np.float64)
    cast = cv2.warpAffine(opacity, flat, (width, height), flags=cv2.INTER_AREA)
    soft: NDArray[Any] = cv2.GaussianBlur(cast, (0, 0), 0.02 * height)
    return np.asarray(_SHADOW * soft / max(float(soft.max()), 1e-6), np.float32)
