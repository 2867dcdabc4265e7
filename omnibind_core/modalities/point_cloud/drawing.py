"""A point cloud as a picture for people."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.drawing import Picture, coloured, stretched

_DOT = 2  # pixels, side of a point


def draw(points: NDArray[np.float32], height: int) -> Picture:
    """From above, from the front and from the side, at one scale, ``[height, 3 * height, 3]``.

    Points are coloured by their height, the nearest ones are on top.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (height - 9) / max(float((high - low).max()), 1e-9)
    pixels = np.rint((points - (low + high) / 2) * scale).astype(np.int64) + height // 2
    colours = coloured(stretched(points[:, 2:]), cv2.COLORMAP_VIRIDIS)[:, 0]
    views = []
    for right, up, nearness in ((0, 1, points[:, 2]), (0, 2, -points[:, 1]), (1, 2, points[:, 0])):
        view = np.full((height, height, 3), 255, np.uint8)
        order = np.argsort(nearness)
        x, y = pixels[order, right], height - 1 - pixels[order, up]
        for down, along in np.ndindex(_DOT, _DOT):
            view[np.clip(y + down, 0, height - 1), np.clip(x + along, 0, height - 1)] = colours[order]
        views.append(view)
    return np.concatenate(views, axis=1)
