"""The ground under things: one plane near the horizontal, found among whatever else is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEEPEST = 30.0
"""Degrees between the ground and the horizontal."""
_LEANS = np.cos(np.radians(STEEPEST))
_CELL = 0.4  # m, of the grid whose lowest points may be the ground
_FARTHEST = 60.0  # m, beyond which nobody sees the ground
_TRIALS = 150  # planes through three of them
_JUDGES = 500  # of the lowest points, that judge a plane
_THICK = 0.08  # m, that the ground may differ from the plane,
_ROUGH = 0.01  # and for each metre from the sensor
_FEWEST, _SHARE = 12, 0.25  # lowest points, and their share, that have to be on the plane
_BELOW = 0.08  # share of the lowest points that may be below it: what glass mirrors, and steps


@dataclass(frozen=True, eq=False)
class Ground:
    """A plane.

    Attributes:
        normal: ``float64 [3]``, upwards, of length 1.
        offset: Metres from the origin along the normal.
        eye: ``float64 [3]``, where the sensor is.
    """

    normal: NDArray[np.float64]
    offset: float
    eye: NDArray[np.float64]

    def height(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Metres of points ``[N, 3]`` above it."""
        return np.asarray(points @ self.normal - self.offset)

    def above(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the points ``[N, 3]`` do not belong to it."""
        x, y = points[:, 0] - self.eye[0], points[:, 1] - self.eye[1]
        return np.asarray(self.height(points) > _THICK + _ROUGH * np.sqrt(x * x + y * y))


def find(points: NDArray[np.float64], eye: NDArray[np.float64]) -> Ground | None:
    """The plane that holds most of what is lowest, with next to nothing below.

    Args:
        points: ``[N, 3]``, metres, z is up; finite.
        eye: ``[3]``, where the sensor is.

    Returns:
        ``None`` if no plane holds enough: the sensor does not see the ground.
    """
    x, y = (points[:, :2] - eye[:2]).T
    lowest = _lowest(points[x * x + y * y < _FARTHEST**2])
    if len(lowest) < _FEWEST:
        return None
    rng = np.random.default_rng(0)
    judges = lowest if len(lowest) <= _JUDGES else lowest[rng.choice(len(lowest), _JUDGES, replace=False)]
    first, second, third = lowest[rng.integers(len(lowest), size=(3, _TRIALS))]
    normals = np.cross(second - first, third - first)
    lengths = np.linalg.norm(normals, axis=1)
    kept = np.abs(normals[:, 2]) > _LEANS * lengths
    normals = normals[kept] / (lengths[kept] * np.sign(normals[kept, 2]))[:, None]
    if not len(normals):
        return None
    heights = judges @ normals.T - np.einsum("ti,ti->t", first[kept], normals)
    on = np.abs(heights) < _THICK + _ROUGH * np.linalg.norm(judges - eye, axis=1)[:, None]
    below = (~on & (heights < 0)).mean(axis=0)
    votes = np.where(below <= _BELOW, on.sum(axis=0), 0)
    best = int(votes.argmax())
    if votes[best] < max(_FEWEST, _SHARE * len(judges)):
        return None
    return _fitted(judges[on[:, best]], normals[best], eye)


def _fitted(points: NDArray[np.float64], normal: NDArray[np.float64], eye: NDArray[np.float64]) -> Ground:
    """The plane through its points, unless they lie in a line and leave it open."""
    middle = points.mean(axis=0)
    _, sizes, axes = np.linalg.svd(points - middle, full_matrices=False)
    if sizes[1] > 0.05 * sizes[0] and abs(axes[2, 2]) > _LEANS:
        normal = axes[2] * np.sign(axes[2, 2])
    return Ground(normal, float(np.median(points @ normal)), eye)


def _lowest(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lowest point of each cell of a horizontal grid."""
    if not len(points):
        return points
    x, y = np.floor(points[:, :2].T / _CELL).astype(np.intp)
    x -= x.min()
    y -= y.min()
    cell = x * (int(y.max()) + 1) + y
    lowest = np.full(int(cell.max()) + 1, -1)
    highest_first = np.argsort(-points[:, 2])  # of several points in a cell the lowest is written last
    lowest[cell[highest_first]] = highest_first
    return points[lowest[lowest >= 0]]
