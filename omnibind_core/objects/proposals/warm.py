"""Things in a thermal picture: what is warmer than the surroundings."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.pictures import to_grey
from omnibind_core.objects.proposals.blobs import blobs
from omnibind_core.objects.regions import Region2D
from omnibind_core.objects.snapshot import Snapshot

PROPOSER = "warm"
DEVIATIONS = 4.0
"""By how many standard deviations of the surroundings a thing is warmer."""
LEAST = 64
"""Pixels of the smallest thing."""
_LEAST_STEP = {"f": 1.0, "u": 8.0}  # °C, a part of 255: what is to differ in a picture of nothing
_TO_DEVIATION = 1.4826  # from the median of distances to the median, of normal noise
_SMOOTH = 1.0  # pixels
_GRID = 128  # rows and columns that tell median and deviation


def propose(sensor: str, snapshot: Snapshot) -> list[Region2D]:
    """Boxes with masks around what is warmer than the picture's median, the largest first.

    By :data:`DEVIATIONS` times the deviation that half of the pixels have, and by 1 °C, or 8 of 255 in a picture
    without a unit, at least. White is warm in 8-bit pictures; pseudo-colours count by their luminance. What fills half
    of the picture is the surroundings.

    Args:
        sensor: Name of a sensor of thermal pictures.
        snapshot: The tick.
    """
    reading = snapshot.views[sensor].reading
    warmth, step = _warmth(reading.raw)
    some = warmth[:: -(-warmth.shape[0] // _GRID), :: -(-warmth.shape[1] // _GRID)]
    middle = float(np.median(some))
    deviation = _TO_DEVIATION * float(np.median(np.abs(some - middle)))
    bound = middle + max(DEVIATIONS * deviation, step)
    found = []
    for blob in blobs(warmth > bound, LEAST):
        rows, columns = slice(int(blob.box.top), int(blob.box.bottom)), slice(int(blob.box.left), int(blob.box.right))
        above = float(np.median(warmth[rows, columns][blob.mask])) - middle
        score = above / (above + bound - middle)
        found.append(Region2D(sensor, blob.box, reading.stamp_ns, score, PROPOSER, blob.mask))
    return found


def _warmth(raw: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """Values that grow with the temperature ``[H, W]``, and by how much those of a thing differ at least."""
    values = to_grey(raw) if raw.ndim == 3 else raw
    step = _LEAST_STEP[values.dtype.kind] * (256 if values.dtype == np.uint16 else 1)
    if values.dtype == np.uint16:  # counts of any range
        low, high = np.percentile(values[::8, ::8], (1, 99))
        step = max(step * float(high - low) / 65536, 1.0)
    filled = np.nan_to_num(values.astype(np.float32), nan=-np.inf, posinf=-np.inf)
    filled = np.maximum(filled, filled[np.isfinite(filled)].min(initial=np.inf))
    return np.asarray(cv2.GaussianBlur(filled, (0, 0), _SMOOTH), np.float32), step
