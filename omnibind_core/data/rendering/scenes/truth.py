"""Where things are in the pictures of a rendered scene, and in space: ``objects.csv``."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering.scenes.layout import Thing
from omnibind_core.data.rendering.scenes.views import Sight
from omnibind_core.geometry import Camera, Transform

SEEN = 0.25
"""Share of its whole rectangle that must be seen of a thing, or it has no box in the picture."""
_FEWEST = 12  # pixels of a thing
_WIDE = 3.0  # of the picture; further out a lens is not followed


@dataclass(frozen=True)
class Row:
    """A thing's box during an interval, in the picture of a sensor or in space; empty: not told.

    Attributes:
        start_s: Beginning, s from the beginning of the recording.
        end_s: End, s.
        id: Of the thing, one in the recording.
        label: What it is.
        sensor: In whose picture the box is.
        left: Pixels from the picture's outer edge.
        top: The same.
        right: The same.
        bottom: The same.
        frame: That the box in space is told in.
        x: Of its centre, metres.
        y: The same.
        z: The same.
        length: Along the box's own x, metres.
        width: Along its y.
        height: Along its z.
        yaw: From the frame's x to the box's, rad.
    """

    start_s: float
    end_s: float
    id: str
    label: str
    sensor: str = ""
    left: float | None = None
    top: float | None = None
    right: float | None = None
    bottom: float | None = None
    frame: str = ""
    x: float | None = None
    y: float | None = None
    z: float | None = None
    length: float | None = None
    width: float | None = None
    height: float | None = None
    yaw: float | None = None


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes the table."""
    names = [field.name for field in fields(Row)]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        for row in rows:
            table.writerow([_cell(getattr(row, name)) for name in names])


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.4f}".rstrip("0").rstrip(".")


def box(
    sight: Sight, camera: Camera, pose: Transform, thing: Thing, number: int, seconds: float
) -> tuple[float, float, float, float] | None:
    """The rectangle of those pixels that see a thing; ``None`` if too little of it is seen.

    Args:
        sight: What the pixels look at.
        camera: The lens.
        pose: From its optical frame to the scene's.
        thing: The thing.
        number: Its number as a body.
        seconds: Since the scene's beginning.

    Returns:
        Left, top, right, bottom, in pixels from the picture's outer edge.
    """
    rows, columns = np.nonzero(sight.bodies == number)
    if len(rows) < _FEWEST:
        return None
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    whole = _rectangle(camera, pose, thing, seconds)
    if whole is None or (right - left) * (bottom - top) < SEEN * whole:
        return None
    return float(left), float(top), float(right), float(bottom)


def _rectangle(camera: Camera, pose: Transform, thing: Thing, seconds: float) -> float | None:
    """Square pixels of the rectangle around a thing as it would be seen if nothing, nor the edge, hid it."""
    corners = thing.built.look.corners.reshape(-1, 3)
    corners = corners[:: max(len(corners) // 2000, 1)]
    local = pose.inverse()(thing.placed(corners, seconds))
    ahead = local[local[:, 2] > 0.05]
    if not len(ahead):
        return None
    flat: NDArray[np.float64] = ahead[:, :2] / ahead[:, 2:] * np.array(camera.focal)
    limit = _WIDE * np.array([camera.width, camera.height])
    return float(np.prod(np.ptp(flat.clip(-limit, limit), axis=0)))
