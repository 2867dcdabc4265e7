"""Things in the events of a window: what moves, where the rest does not."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities import Events
from omnibind_core.objects.proposals.blobs import blobs
from omnibind_core.objects.regions import Rectangle, Region2D
from omnibind_core.objects.snapshot import Snapshot

PROPOSER = "moving"
CELL = 8
"""Pixels of a side of the cells in which events are counted."""
LEAST = 4
"""Events of a cell in which something moves, above noise; and cells of a thing."""
DEVIATIONS = 4.0
"""By how many standard deviations of noise a cell of a thing has more events than the median of all cells."""
STILL = 0.5
"""Of all cells that have to be still: if more move, it is the camera."""


def propose(sensor: str, snapshot: Snapshot) -> list[Region2D]:
    """Boxes around cells full of events, the largest first; none while the camera itself moves.

    Args:
        sensor: Name of an event camera.
        snapshot: The tick.
    """
    reading = snapshot.views[sensor].reading
    counts = _counts(reading.raw)
    if (counts >= LEAST).mean() > 1 - STILL:
        return []
    usual = float(np.median(counts))
    moves = counts > LEAST + usual + DEVIATIONS * math.sqrt(usual)
    whole = cv2.morphologyEx(moves.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    found = []
    for blob in blobs(whole, LEAST):
        box = Rectangle(*(edge * CELL for edge in blob.box)).within(Rectangle(0, 0, *reading.size))
        score = blob.area / (blob.area + LEAST)
        found.append(Region2D(sensor, box, reading.stamp_ns, score, PROPOSER))
    return found


def _counts(raw: Events) -> NDArray[np.float64]:
    """Events of each cell; of a pixel at most as many as tell that something moves: hot ones do not stop."""
    rows, columns = -(-raw.height // CELL), -(-raw.width // CELL)
    pixels = np.bincount(raw.y.astype(np.intp) * raw.width + raw.x, minlength=raw.width * raw.height)
    padded = np.zeros((rows * CELL, columns * CELL), np.float64)
    padded[: raw.height, : raw.width] = np.minimum(pixels, LEAST - 1).reshape(raw.height, raw.width)
    return np.asarray(padded.reshape(rows, CELL, columns, CELL).sum(axis=(1, 3)))
