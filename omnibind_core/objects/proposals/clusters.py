"""Things in a point cloud: what hangs together and stands on the ground, or hangs in the air."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from omnibind_core.objects.proposals import supports, walls
from omnibind_core.objects.proposals.ground import Ground
from omnibind_core.objects.regions import Region3D, Volume
from omnibind_core.objects.snapshot import Snapshot, some

PROPOSER = "clusters"
SMALLEST, LARGEST = 0.1, 6.0
"""Metres of the longest side of a thing: crumbs and noise, walls and rooms are none."""
FEWEST = 10
"""Points of a thing."""
_GAP, _REACH = 0.1, 2.4  # m between neighbours, up to so many m from the sensor; further out the gap grows with it
_VOXEL = _GAP / 2
_THIN, _LONG, _HIGH = 0.15, 2.0, 1.2  # thickness by length, and m, of a piece of wall
_LEAST = 0.05  # m of the second side: less is an edge
_CEILING, _FLAT = 1.6, 0.1  # m above the ground, and high: a piece of the ceiling
_STANDS = 0.4  # m above the ground, from which on a thing does not stand on it
_MOST = 200_000  # points that are looked at, evenly chosen
_SLACK = 0.02  # m, the least side of a box


def propose(sensor: str, snapshot: Snapshot) -> list[Region3D]:
    """Boxes about z of the things in a cloud, those with most points first, and of what stands on them.

    Neighbours are :data:`_GAP` apart at most, further away than :data:`_REACH` in proportion to the distance, as rays
    diverge.

    Args:
        sensor: Name of a sensor whose items are clouds.
        snapshot: The tick.
    """
    view = snapshot.views[sensor]
    points = walls.without(snapshot.cloud(sensor).points[some(np.flatnonzero(snapshot.solid(sensor)), _MOST)])
    eye, ground = view.pose.translation, snapshot.ground(sensor)
    whole = _clusters(points, eye)
    tops = [(cluster, supports.level(cluster)) for cluster in whole]
    above = [cluster[cluster[:, 2] > top] for cluster, top in tops if top is not None]
    parts = _clusters(np.concatenate(above), eye) if above else []
    found = []
    for cluster, base in [*((cluster, ground) for cluster in whole), *((part, None) for part in parts)]:
        volume = _box(cluster, eye, base)
        if volume is not None:
            score = len(cluster) / (len(cluster) + FEWEST)
            found.append(Region3D(volume, view.reading.stamp_ns, sensor, score, PROPOSER))
    return sorted(found, key=lambda region: -region.score)


def _clusters(points: NDArray[np.float64], eye: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Points of each cluster that has enough."""
    if len(points) < FEWEST:
        return []
    labels = _labels(points - eye)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return [points[members] for members in np.split(order, starts[1:]) if len(members) >= FEWEST]


def _labels(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number of the cluster of each point ``[N, 3]``, seen from the origin."""
    distance = np.maximum(np.sqrt(np.einsum("ni,ni->n", points, points)), _REACH)
    # Beyond the reach: direction and logarithm of the distance, in which the gap has the same length everywhere.
    even = np.concatenate([points * (_REACH / distance)[:, None], _REACH * np.log(distance / _REACH)[:, None]], axis=1)
    cells = np.floor(even / _VOXEL).astype(np.int64)
    cells -= cells.min(axis=0)
    _, inverse, counts = np.unique(cells @ _strides(cells), return_inverse=True, return_counts=True)
    middles = np.stack([np.bincount(inverse, column) / counts for column in even.T], axis=1)
    pairs = cKDTree(middles).query_pairs(_GAP, output_type="ndarray")
    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (len(middles), len(middles)))
    return np.asarray(connected_components(edges, directed=False)[1][inverse], np.intp)


def _strides(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    sizes = cells.max(axis=0) + 1
    return np.concatenate([[1], np.cumprod(sizes[:-1])])


def _box(points: NDArray[np.float64], eye: NDArray[np.float64], ground: Ground | None) -> Volume | None:
    """The box of least area about z; ``None`` around what is no thing."""
    low, high = points.min(axis=0), points.max(axis=0)
    height = float((high - low)[2])
    if (high - low).max() < SMALLEST or height > LARGEST:
        return None
    middle = (low + high) / 2
    centre, sides, angle = cv2.minAreaRect((points[:, :2] - middle[:2]).astype(np.float32))
    length, width = max(sides), min(sides)
    if length > LARGEST or (length > _LONG and height > _HIGH and width < _THIN * length):
        return None
    if sorted((length, width, height))[1] < _LEAST:
        return None
    rise, bottom = 0.0, low[2]
    if ground is not None:
        rise = float(ground.height(np.array([[*middle[:2], bottom]]))[0]) / float(ground.normal[2])
        bottom -= rise if 0 < rise < _STANDS else 0.0
    if rise > _CEILING and height < _FLAT:
        return None
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    size = np.maximum(np.array([*sides, high[2] - bottom]), _SLACK)
    place = np.array([middle[0] + centre[0], middle[1] + centre[1], (bottom + high[2]) / 2])
    return Volume(place, size, rotation, _spread(place - eye, size))


def _spread(ray: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the centre: a tenth of the size across, and more along the ray, as the far side of a thing is not seen."""
    across, along = 0.1 * float(size.max()), 0.25 * float(size.max())
    direction = ray / max(float(np.linalg.norm(ray)), 1e-9)
    return np.asarray(across**2 * np.eye(3) + (along**2 - across**2) * np.outer(direction, direction))
