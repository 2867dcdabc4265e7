"""Boxes around what stands out in a map of a picture."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.objects.regions import Rectangle

LARGEST = 0.5
"""Of the picture's area: a thing's box may be as large, larger is the surroundings."""
MOST = 16
"""Blobs of one picture; more is noise."""


class Blob(NamedTuple):
    """What hangs together."""

    box: Rectangle  # in pixels of the map, from its outer edge
    mask: NDArray[np.bool_]  # of the box
    area: int  # pixels of the map


def blobs(stands_out: NDArray[np.bool_], least: int) -> list[Blob]:
    """Those of enough pixels, whose boxes are not as large as the surroundings, the largest first.

    Args:
        stands_out: ``[H, W]``.
        least: Pixels of the smallest.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(stands_out.astype(np.uint8), connectivity=8)
    found = []
    for number in range(1, count):
        left, top, width, height, area = stats[number].tolist()
        if area < least or width * height > LARGEST * stands_out.size:
            continue
        mask = labels[top : top + height, left : left + width] == number
        found.append(Blob(Rectangle(left, top, left + width, top + height), mask, area))
    return sorted(found, key=lambda blob: -blob.area)[:MOST]
