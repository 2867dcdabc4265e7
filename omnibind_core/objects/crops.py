"""What each sensor has of one thing: raw items of its modality, at the sensor's own resolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities import Events
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.rig import View
from omnibind_core.objects.snapshot import CLOUD, Snapshot
from omnibind_core.objects.visibility import LEAST_POINTS, MARGIN, Sight

LEAST_EVENTS = 200
"""Events of a thing in a window below which they say little of it: 70.7 % are right with 200, 47.3 % with 100, 98.0 %
with all (``python tools/bench_crops.py ../shared/data --modalities events``)."""
_SQUARE = ("image",)  # modalities whose encoders see the largest square in the middle alone


def crop(volume: Volume, sight: Sight, sensor: str, snapshot: Snapshot, margin: float = MARGIN) -> tuple[Any, str]:
    """The part of an item that shows a thing.

    Of a picture, the box with a margin, rounded outwards and cut at the picture's edge, without a copy; a camera's is
    made square, since its encoders see the largest square alone. What is around a thing with a mask is left as it is:
    encoders know things in surroundings. Of events, those in the box, their pixels counted from its corner. Of points,
    those in the box in space that are not of the ground, from its centre, turned about z until x leads to the sensor:
    z is up whatever way the sensor looks, and its encoders look from that side. With x towards the sensor 76.0 % of
    clouds from one side are right, with x across or aslant 71.0 to 72.0 % (``python tools/bench_crops.py
    ../shared/data --modalities side --samples 100``).

    Args:
        volume: Where the thing is.
        sight: What the sensor sees of it.
        sensor: Name of the sensor.
        snapshot: The tick.
        margin: By how much the box is made larger on each side, of that side.

    Returns:
        A raw item of the sensor's modality and ``""``, or ``None`` and why there is none.
    """
    if not sight.seen:
        return None, sight.reason
    view = snapshot.views[sensor]
    if view.reading.modality == CLOUD:
        return _points(volume, view, snapshot, margin)
    assert sight.box is not None
    square = view.reading.modality in _SQUARE
    left, top, right, bottom = _window(sight.box, view.reading.size, margin, square)
    if view.reading.modality == "event":
        return _events(view.reading.raw, left, top, right, bottom)
    return view.reading.raw[top:bottom, left:right], ""


def _window(box: Rectangle, size: tuple[int, int], margin: float, square: bool) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of whole pixels; a square is moved into the picture where it fits."""
    edges: list[tuple[int, int]] = []
    sides = (box.width * (1 + 2 * margin), box.height * (1 + 2 * margin))
    for middle, own, most in zip(box.centre, sides, size, strict=True):
        half = (max(sides) if square else own) / 2
        low, high = math.floor(middle - half), math.ceil(middle + half)
        if square:
            low, high = (low - max(high - most, 0), min(high, most)) if low > 0 else (0, high - low)
        low = min(max(low, 0), most - 1)
        edges.append((low, max(min(high, most), low + 1)))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _events(raw: Events, left: int, top: int, right: int, bottom: int) -> tuple[Events | None, str]:
    kept = np.flatnonzero((raw.x >= left) & (raw.x < right) & (raw.y >= top) & (raw.y < bottom))
    if len(kept) < LEAST_EVENTS:
        return None, f"nothing moves: {len(kept)} events in its box, {LEAST_EVENTS} wanted"
    x, y = raw.x[kept] - np.uint16(left), raw.y[kept] - np.uint16(top)
    return Events(x, y, raw.t[kept], raw.p[kept], right - left, bottom - top), ""


def _points(volume: Volume, view: View, snapshot: Snapshot, margin: float) -> tuple[NDArray[np.float32] | None, str]:
    found = snapshot.inside(view.reading.sensor, volume, margin)
    if len(found) < LEAST_POINTS:
        return None, f"too few points: {len(found)} in its box, {LEAST_POINTS} wanted"
    across, along, _ = view.pose.translation - volume.centre
    turn = math.atan2(along, across)
    cos, sin = math.cos(turn), math.sin(turn)
    to_sensor = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return ((found - volume.centre) @ to_sensor.T).astype(np.float32), ""
