"""What speaks against a point cloud: that it is no cloud of one thing, but of all that the sensor saw around it.

The bounds are those that no training cloud meets, whatever its unit, and most made-up rooms, halls, streets and floors
before made-up LiDARs and depth cameras do (docs/messages.md#what-cannot-be).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Doubt

_POINTS = 1024  # as many, drawn at random, tell as much
_DRAWN = np.random.default_rng(0).random(_POINTS)
_PLANE = 1e-4  # thickness by width, as standard deviations: of a laser scan
_GROUND = 0.008  # the same, of a floor with what a sensor adds to it
_GROUND_SIZE = 2.0  # m; a smaller piece may be a thing
_ROUGH = 0.05  # m, standard deviation: of a ground that is smaller or rougher, such as a lawn
_ROUGH_SHARE = 0.05  # the same by width; something thicker is no ground
_GROUND_SLOPE = 0.35  # cosine between its normal and z: a door stands upright
_ROOM_SIZE = 3.0  # m
_SECTORS = 24  # of the circle around the sensor
_LOOK = 8  # rows and columns that a view is divided into
_PIXELS = 0.36  # deviation by mean of the points in each, for even pixels of a camera
_BEAMS = 0.55  # the same for beams of a LiDAR, of which some come back from nothing


def doubt(raw: NDArray[np.float32]) -> Doubt | None:
    """The doubt about a checked cloud ``[N, 3]``: a plane, the ground, a room or a whole view says nothing."""
    columns, low, size, (thin, rough, normal) = _measured(raw)
    extent = float(size.max())
    if thin < _PLANE:
        return _in_one_plane(size)
    if extent < _GROUND_SIZE:
        return None
    if (thin < _GROUND or (thin < _ROUGH_SHARE and rough < _ROUGH)) and abs(normal) > _GROUND_SLOPE:
        return _no_thing(size, f"a plane that is {100 * thin:.1f} % as thick as wide: the ground?")
    if _is_view(columns) or _is_sector(columns):
        return _no_thing(size, "as wide as the view of a depth camera or LiDAR: all that it sees?")
    if extent < _ROOM_SIZE:
        return None
    if _is_room(columns, size) or _is_sweep(columns, low, size):
        return _no_thing(size, "something on all sides: a whole room or street?")
    return None


def part_doubt(raw: NDArray[np.float32]) -> Doubt | None:
    """The doubt about points that were cut out because there is a thing: only that all of them lie in one plane."""
    _, _, size, (thin, _, _) = _measured(raw)
    return _in_one_plane(size) if thin < _PLANE else None


class _Measured(NamedTuple):
    columns: NDArray[np.float64]
    low: NDArray[np.float64]
    size: NDArray[np.float64]
    flat: tuple[float, float, float]  # thickness by width, in m, and the cosine between what it is thin along and z


def _measured(raw: NDArray[np.float32]) -> _Measured:
    points = raw if len(raw) <= _POINTS else raw[(_DRAWN * len(raw)).astype(np.intp)]
    columns = points.T.astype(np.float64)  # NumPy is slow along an axis of three
    low = columns.min(axis=1)
    size = columns.max(axis=1) - low
    if float(size.max()) < _GROUND_SIZE and float(size.min()) > 0:
        return _Measured(columns, low, size, (1.0, math.inf, 0.0))  # a small one is not looked at
    centred = columns - columns.mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(centred @ centred.T / len(points))
    rough = math.sqrt(max(float(spread[0]), 0.0))
    thin = rough / math.sqrt(max(float(spread[2]), 1e-30))
    return _Measured(columns, low, size, (thin, rough, float(axes[2, 0])))


def _in_one_plane(size: NDArray[np.float64]) -> Doubt:
    return _no_thing(size, "all points in one plane: a laser scan?")


def _no_thing(size: NDArray[np.float64], what: str) -> Doubt:
    extents = " x ".join(f"{value:.2f}" for value in size)
    # A thing that lies flat, or in another unit, may look like that: it keeps its answer, and counts little.
    return Doubt(f"{extents} m, {what} Expected the points of one thing, in metres", excludes=False)


def _is_room(columns: NDArray[np.float64], size: NDArray[np.float64]) -> bool:
    """Whether there are four walls and a floor, and little but those: a room, whatever place it was seen from."""
    height = float(size[2])
    if not 1.8 <= height <= 10:
        return False
    (_, _), _, angle = cv2.minAreaRect(np.ascontiguousarray(columns[:2].T, np.float32))
    turn = math.radians(angle)
    x = math.cos(turn) * columns[0] + math.sin(turn) * columns[1]
    y = math.cos(turn) * columns[1] - math.sin(turn) * columns[0]
    ground, above = columns[2] - columns[2].min(), columns[2].max() - columns[2]
    sides = np.stack([x - x.min(), x.max() - x, y - y.min(), y.max() - y])
    width, depth = sorted((float(np.ptp(x)), float(np.ptp(y))))
    if width < 2.5 or not height < depth <= 40:
        return False
    at_wall = sides < 0.02 * depth
    inside = (ground > 0.1 * height) & (above > 0.1 * height) & ~at_wall.any(axis=0)
    walls, floor = at_wall.mean(axis=1).min(), (ground < 0.03 * depth).mean()
    return bool(walls > 0.04 and floor > 0.03 and inside.mean() < 0.35)


def _is_sweep(columns: NDArray[np.float64], low: NDArray[np.float64], size: NDArray[np.float64]) -> bool:
    """Whether it lies all around the origin as what a turning LiDAR has measured: as much in every direction."""
    x, y, _ = columns
    sector = ((np.arctan2(y, x) + math.pi) * (_SECTORS / (2 * math.pi))).astype(np.intp) % _SECTORS
    counts = np.bincount(sector, minlength=_SECTORS)
    if counts.min() == 0:
        return False
    extent = float(size.max())
    rise = float(size[2]) / extent
    uneven = counts.std() / counts.mean()
    if uneven < 0.22 and rise < 0.35:
        return True
    if uneven < 0.2:
        near = np.minimum(columns - low[:, None], (low + size)[:, None] - columns)
        hollow = (np.abs(columns - (low + size / 2)[:, None]) < size[:, None] / 4).all(axis=0).mean() < 0.1
        return bool(hollow and (near.min(axis=0) < 0.02 * extent).mean() > 0.65)
    if rise > 0.15:
        return False
    cells = np.bincount(((columns - low[:, None]) * (23.99 / extent)).astype(np.intp).T @ np.array([576, 24, 1]))
    cells = cells[cells > 0]
    return bool(cells.std() > 2 * cells.mean())  # dense near the sensor, sparse far away


def _is_view(columns: NDArray[np.float64]) -> bool:
    """Whether it fills a rectangle of directions from the origin as evenly as the pixels of a depth camera do."""
    directions = columns / np.maximum(np.sqrt((columns**2).sum(axis=0)), 1e-9)
    ahead = directions.mean(axis=1)
    length = float(np.linalg.norm(ahead))
    if length < 0.7:
        return False
    ahead /= length
    up = np.array([0.0, 0.0, 1.0]) if abs(ahead[2]) < 0.95 else np.array([0.0, 1.0, 0.0])
    across = np.cross(up, ahead)
    across /= np.linalg.norm(across)
    distance = ahead @ columns
    seen = np.stack([across, np.cross(ahead, across)]) @ columns[:, distance > 1e-6] / distance[distance > 1e-6]
    low, high = np.quantile(seen, (0.01, 0.99), axis=1)
    wide = np.degrees(np.arctan(high) - np.arctan(low))
    return bool(wide.min() > 30 and wide.max() > 40 and _evenly(seen, low, high, _PIXELS))


def _is_sector(columns: NDArray[np.float64]) -> bool:
    """Whether it fills a sector of angles around the origin as evenly as the beams of a LiDAR that looks ahead do."""
    x, y, z = columns
    heading = math.atan2(float(y.mean()), float(x.mean()))
    around = (np.arctan2(y, x) - heading + math.pi) % (2 * math.pi) - math.pi
    angles = np.degrees(np.stack([around, np.arctan2(z, np.hypot(x, y))]))
    low, high = np.quantile(angles, (0.01, 0.99), axis=1)
    wide, tall = high - low
    return bool(75 < wide < 185 and 15 < tall < 100 and _evenly(angles, low, high, _BEAMS, 0.25))


def _evenly(
    places: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    most: float,
    most_across: float = math.inf,
) -> bool:
    """Whether places ``[2, N]`` fill a rectangle: in its cells, and in its columns, as many by as little deviation."""
    cell = ((places - low[:, None]) * (_LOOK / (high - low)[:, None])).astype(np.intp)
    cell = cell[:, ((cell >= 0) & (cell < _LOOK)).all(axis=0)]
    counts = np.bincount(cell[0] * _LOOK + cell[1], minlength=_LOOK * _LOOK)
    across = counts.reshape(_LOOK, _LOOK).sum(axis=1)
    even = counts.std() < most * counts.mean() and across.std() < most_across * across.mean()
    return bool(even and (counts > 0).mean() > 0.85)
