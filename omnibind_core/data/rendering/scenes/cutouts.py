"""Photographs that were cut out, as bodies: flat from behind and beside, but of the picture's outline, and rounded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering.scenes.surfaces import Array, Paint, Surface
from omnibind_core.errors import DataError

_CELLS = 96  # along the longer side
_OPAQUE = 0.5
_THICK = 0.35  # of the shorter side, where it is thickest


def read(path: Path) -> NDArray[np.uint8]:
    """A picture with transparency, BGRA ``uint8 [H, W, 4]``, its transparent margins cut off.

    Raises:
        DataError: It is none.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        raise DataError(f"{path}: cannot be read as a PNG picture with transparency")
    left, top, width, height = cv2.boundingRect((picture[..., 3] > 127).astype(np.uint8))
    if not width:
        raise DataError(f"{path}: all of it is transparent")
    return np.ascontiguousarray(picture[top : top + height, left : left + width], np.uint8)


def relief(picture: NDArray[np.uint8], height: float) -> Surface:
    """A body of the picture's outline, thick in its middle, as high as told, standing on z = 0, its front towards -y.

    Args:
        picture: BGRA ``uint8 [H, W, 4]``.
        height: Metres.
    """
    rows, columns = picture.shape[:2]
    scale = min(_CELLS / max(rows, columns), 1.0)
    cells = max(round(columns * scale), 1), max(round(rows * scale), 1)
    opacity = cv2.resize(picture[..., 3], cells, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    solid = (opacity >= _OPAQUE).astype(np.uint8)
    pitch = height / cells[1]
    depth = cv2.distanceTransform(np.pad(solid, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    bulge = np.sqrt(depth / max(float(depth.max()), 1e-6)) * _THICK / 2 * min(cells) * pitch
    grid = _at_corners(np.asarray(bulge, np.float32))
    y, x = np.nonzero(solid)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    down, across = y[:, None] + square[:, 1], x[:, None] + square[:, 0]
    places = np.stack([across / cells[0], 1 - down / cells[1]], axis=-1).astype(np.float32)
    front = np.stack(
        [(across - cells[0] / 2) * pitch, -grid[down, across], (cells[1] - down) * pitch], axis=-1, dtype=np.float32
    )
    back = front * np.array([1, -1, 1], np.float32)
    corners, uv = np.concatenate([_triangles(front), _triangles(back)]), np.concatenate([_triangles(places)] * 2)
    # The photograph has its own light and shade: all of it is lit as what faces the camera, and a little upwards.
    normals = np.repeat(np.array([[0, -0.9, 0.44], [0, 0.9, 0.44]], np.float32), len(corners) // 2, axis=0)
    normals = np.repeat(normals[:, None], 3, axis=1)
    return Surface(corners, normals, uv, np.zeros(len(corners), np.int32), (Paint((1, 1, 1), _filled(picture)),))


def _triangles(squares: Array) -> Array:
    return np.concatenate([squares[:, [0, 1, 2]], squares[:, [0, 2, 3]]])


def _at_corners(cells: Array) -> Array:
    padded = np.pad(cells, 1)
    return np.asarray((padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:]) / 4)


def _filled(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB; what is transparent has the colour of what is opaque nearby."""
    opaque = (picture[..., 3:] > 127).astype(np.float32)
    colours = picture[..., 2::-1].astype(np.float32)
    width = max(max(picture.shape[:2]) // 16 * 2 + 1, 3)
    near = cv2.blur(colours * opaque, (width, width))
    share = cv2.blur(opaque[..., 0], (width, width))[..., None]
    return np.where(opaque > 0, colours, near / np.maximum(share, 1e-3)).clip(0, 255).astype(np.uint8)
