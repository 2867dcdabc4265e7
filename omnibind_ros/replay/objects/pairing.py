"""Which box of ours is which thing: intersection over union, in pictures and in space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_ros.replay.objects.scoring import Found

ENOUGH = 0.5
"""Intersection over union from which on two boxes are the same thing."""
Box = TypeVar("Box", Rectangle, Volume)


def pairs(
    true: Mapping[str, Box], told: Mapping[str, Box], overlap: Callable[[Box, Box], float], enough: float = ENOUGH
) -> tuple[dict[str, str], dict[str, float]]:
    """The pairs that together overlap most, of those that overlap enough.

    Args:
        true: The things, by name.
        told: Our boxes, by id.
        overlap: Intersection over union of two, 0..1.
        enough: Smallest one of a pair.

    Returns:
        By thing, the id of its box and their intersection over union.
    """
    if not true or not told:
        return {}, {}
    names, ids = list(true), list(told)
    values = np.array([[overlap(true[name], told[own]) for own in ids] for name in names])
    values[values < enough] = 0.0
    rows, columns = linear_sum_assignment(values, maximize=True)
    best = {names[row]: (ids[column], float(values[row, column])) for row, column in zip(rows, columns, strict=True)}
    kept = {name: pair for name, pair in best.items() if pair[1]}
    return {name: own for name, (own, _) in kept.items()}, {name: value for name, (_, value) in kept.items()}


def found(
    time_s: float,
    where: str,
    true: Mapping[str, Box],
    told: Mapping[str, Box],
    labels: Mapping[str, str],
    overlap: Callable[[Box, Box], float],
    enough: float = ENOUGH,
) -> Found:
    """The pairs of one picture, or of space, for scoring.

    Args:
        time_s: s from the beginning of the bag.
        where: Sensor, or :data:`~omnibind_ros.replay.objects.scoring.SPACE`.
        true: The things, by name.
        told: Our boxes, by id.
        labels: What was said of the latter.
        overlap: Intersection over union of two.
        enough: That they need.
    """
    own, overlaps = pairs(true, told, overlap, enough)
    return Found(time_s, where, tuple(true), tuple(told), own, overlaps, {one: labels[one] for one in told})


def in_space(one: Volume, other: Volume) -> float:
    """Intersection over union of two boxes that stand upright; the tilt of others is left out."""
    kind, corners = cv2.rotatedRectangleIntersection(_footprint(one, one.centre), _footprint(other, one.centre))
    if kind == cv2.INTERSECT_NONE or corners is None:
        return 0.0
    low = max(volume.centre[2] - volume.size[2] / 2 for volume in (one, other))
    high = min(volume.centre[2] + volume.size[2] / 2 for volume in (one, other))
    both = float(cv2.contourArea(cv2.convexHull(corners))) * max(high - low, 0.0)
    return both / float(one.size.prod() + other.size.prod() - both)


def _footprint(volume: Volume, origin: NDArray[np.float64]) -> tuple[tuple[float, float], tuple[float, float], float]:
    """As OpenCV has it, in single precision: near the origin, therefore."""
    yaw = np.degrees(np.arctan2(volume.rotation[1, 0], volume.rotation[0, 0]))
    x, y = (volume.centre - origin)[:2]
    length, width = volume.size[:2]
    return (float(x), float(y)), (float(length), float(width)), float(yaw)
