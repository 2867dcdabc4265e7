"""Point cloud to encoder input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Preset

_CANDIDATES = 2  # farthest point sampling starts from this many times the wanted points


@dataclass(frozen=True)
class CloudPreset(Preset):
    """A cloud of a fixed number of points inside the unit ball.

    Attributes:
        points: Number of points.
    """

    points: int = 1024


PRESETS = {
    f"unit_{points}": CloudPreset(f"unit_{points}", shape=(points, 3), points=points) for points in (1024, 2048, 8192)
}


def process(raw: NDArray[np.float32], preset: CloudPreset) -> NDArray[np.float32]:
    """``float32 [N, 3]`` to ``float32 [1, points, 3]``: centroid at the origin, farthest point at distance 1."""
    return normalise(sample(raw, preset.points))[None]


def normalise(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Moves the centroid of ``[N, 3]`` to the origin and scales the largest distance from it to 1."""
    centred = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    radius = np.sqrt(np.einsum("ij,ij->i", centred, centred).max())
    return centred / max(radius, np.finfo(np.float32).tiny)


def sample(points: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Exactly ``count`` well spread points, always the same ones for the same input.

    More than twice as many points are first thinned at random (fixed seed), then by farthest point sampling; fewer
    points are repeated in turn.
    """
    if len(points) <= count:
        return points[np.arange(count) % len(points)]
    if len(points) > _CANDIDATES * count:
        points = points[np.random.default_rng(0).choice(len(points), _CANDIDATES * count, replace=False)]
    return points[farthest_points(points, count)]


def farthest_points(points: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices of ``count`` points, each the farthest from those before it, starting at index 0.

    Args:
        points: ``float32 [N, 3]``.
        count: Number of indices, at most N.
    """
    points = points - points.mean(axis=0)  # near the origin |a|^2 - 2 a.b + |b|^2 is exact enough
    squares = np.einsum("ij,ij->i", points, points)
    ones = np.ones_like(squares)
    columns = np.stack([*points.T, squares, ones])
    queries = np.stack(
        [*(-2 * points.T), ones, squares], axis=1
    )  # query of b times column of a: their distance squared
    nearest = np.full(len(points), np.inf, np.float32)
    distance = np.empty_like(nearest)
    chosen = [0]
    while len(chosen) < count:
        np.dot(queries[chosen[-1]], columns, out=distance)
        np.minimum(nearest, distance, out=nearest)
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)
