"""What things stand on: tables, shelves, boxes; so that a thing on one is found apart from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.25, 1.4
"""Metres above its own lowest point, between which a support has its top."""
LARGEST = 2.5
"""Metres of the longest side of a support."""
_LEVEL, _CELL = 0.03, 0.04  # m, in height and across
_FLAT = 1.6  # times the cells with points that the median level of the thing has, that its top has
_LEAST, _FULL = 4, 0.3  # cells of a side of a top, and share of its cells with points: others are rings of a scan
_ABOVE = 0.03  # m, from which on a point is above the top


def level(points: NDArray[np.float64]) -> float | None:
    """Height of the flat top that others of the points are above; ``None`` without such.

    The sides of a thing have points along their outlines at each level, a top all over.

    Args:
        points: ``[N, 3]`` of one cluster, metres, z is up.
    """
    low = points.min(axis=0)
    size = points.max(axis=0) - low
    if size.max() > LARGEST or size[2] < LOWEST + _ABOVE:
        return None
    cells = np.floor((points - low) / (_CELL, _CELL, _LEVEL)).astype(np.intp)
    width, depth, height = cells.max(axis=0) + 1
    filled = np.unique((cells[:, 2] * width + cells[:, 0]) * depth + cells[:, 1]) // (width * depth)
    counts = np.bincount(filled, minlength=height).astype(np.float64)
    counts[1:] += counts[:-1].copy()  # a top is rarely within one level alone
    first, last = int(LOWEST / _LEVEL), min(int(HIGHEST / _LEVEL), height - 1)
    if first >= last:
        return None
    top = first + int(counts[first:last].argmax())
    if counts[top] < _FLAT * np.median(counts[counts > 0]):
        return None
    on = (cells[:, 2] == top) | (cells[:, 2] == top - 1)
    x, y = cells[on, 0] - cells[on, 0].min(), cells[on, 1] - cells[on, 1].min()
    sides = int(x.max()) + 1, int(y.max()) + 1
    if min(sides) < _LEAST or len(np.unique(x * sides[1] + y)) < _FULL * sides[0] * sides[1]:
        return None
    return float(np.median(points[on, 2])) + _ABOVE
