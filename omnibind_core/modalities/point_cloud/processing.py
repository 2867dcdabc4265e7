"""Point cloud to encoder input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import PicturePreset, Preset

_CANDIDATES = 2  # farthest point sampling starts from this many times the wanted points


@dataclass(frozen=True)
class CloudPreset(Preset):
    """A cloud of a fixed number of points inside the unit ball.

    Attributes:
        points: Number of points.
    """

    points: int = 1024


@dataclass(frozen=True)
class CloudPicturePreset(PicturePreset):
    """A cloud as an image trunk can see it: shaded pictures of its surface, from several sides.

    Attributes:
        azimuths: Directions to look from, degrees about z.
        elevation: Angle above the horizon to look from, degrees.
        points: Larger clouds are thinned to so many.
        pixels: Side of the picture in which the points are drawn, before it is enlarged.
    """

    azimuths: tuple[float, ...] = (30.0, 90.0, 150.0)
    elevation: float = 20.0
    points: int = 8192
    pixels: int = 160


PRESETS: dict[str, Preset] = {
    f"unit_{points}": CloudPreset(f"unit_{points}", shape=(points, 3), points=points) for points in (1024, 2048, 8192)
} | {"pictures": CloudPicturePreset("pictures")}


def process(raw: NDArray[np.float32], preset: Preset) -> NDArray[Any]:
    """``float32 [N, 3]`` to ``float32 [1, points, 3]`` in the unit ball, or to ``uint8 [views, 3, 224, 224]``."""
    if isinstance(preset, CloudPreset):
        return normalise(sample(raw, preset.points))[None]
    assert isinstance(preset, CloudPicturePreset)
    return pictures(raw, preset)


def pictures(points: NDArray[np.float32], preset: CloudPicturePreset) -> NDArray[np.uint8]:
    """Draws ``[N, 3]`` from every azimuth: ``uint8 [views, 3, side, side]``, three equal channels, on white.

    Grey shows the slope of the surface against a lamp above the viewer's right shoulder, and its nearness.
    """
    if len(points) > preset.points:
        points = points[np.random.default_rng(0).choice(len(points), preset.points, replace=False)]
    side = preset.shape[-1]
    centred = points - points.mean(axis=0)
    drawn = []
    for azimuth in preset.azimuths:
        grey = _shade(_depth(centred, np.radians(azimuth), np.radians(preset.elevation), preset.pixels))
        drawn.append(cv2.resize(grey, (side, side), interpolation=cv2.INTER_LINEAR))
    return np.repeat(np.stack(drawn)[:, None], 3, axis=1)


_FILL = 0.82  # of the picture's side that the cloud's larger extent takes
_FAR = -9.0  # nearer than any point: where nothing was drawn
_LAMP = np.array([0.3, 0.6, 0.74], np.float32)  # direction to the light: right, up, towards the viewer


def _depth(points: NDArray[np.float32], azimuth: float, elevation: float, size: int) -> NDArray[np.float32]:
    """Nearness of the surface ``[size, size]`` in units of the picture's extent, :data:`_FAR` beside it.

    Args:
        points: ``[N, 3]`` with their mean at the origin.
        azimuth: Direction to look from, radians.
        elevation: The same.
        size: Pixels.
    """
    sa, ca, se, ce = np.sin(azimuth), np.cos(azimuth), np.sin(elevation), np.cos(elevation)
    axes = np.array([[ca, sa, 0], [-sa * se, ca * se, ce], [sa * ce, -ca * ce, se]], np.float32)
    seen = np.ascontiguousarray((points @ axes.T).T)  # NumPy is slow along an axis of three
    low, high = seen.min(axis=1), seen.max(axis=1)
    extent = max(float((high - low)[:2].max()), float(np.finfo(np.float32).tiny))
    right, up, towards = (seen - ((low + high) / 2)[:, None]) / extent
    column = np.clip(right * _FILL * size + size / 2, 0, size - 1).astype(np.int32)
    row = np.clip(size / 2 - up * _FILL * size, 0, size - 1).astype(np.int32)
    nearness = np.full((size, size), _FAR, np.float32)
    order = np.argsort(towards)  # of several points in a pixel the nearest is written last
    nearness.reshape(-1)[(row * size + column)[order]] = towards[order]
    reach = min(max(round(0.6 * size / math.sqrt(len(points))), 1), size // 16)  # half the distance of neighbours
    spread = cv2.dilate(nearness, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    there = (spread > _FAR).astype(np.uint8)
    closed = cv2.morphologyEx(there, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    filled: NDArray[Any] = cv2.copyTo(spread, there, cv2.dilate(spread, np.ones((7, 7), np.uint8)))
    return np.asarray(cv2.copyTo(filled, closed, np.full_like(nearness, _FAR)))


def _shade(nearness: NDArray[np.float32]) -> NDArray[np.uint8]:
    there = nearness > _FAR
    weight = cv2.GaussianBlur(there.astype(np.float32), (0, 0), 1.5)
    smooth = cv2.GaussianBlur(nearness * there, (0, 0), 1.5) / np.maximum(weight, 1e-3)
    scale = _FILL * len(nearness) / 8  # of Sobel's kernel, and of the extent to pixels
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3) * scale
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3) * scale
    light = (_LAMP[2] - _LAMP[0] * across + _LAMP[1] * down) / np.sqrt(1 + across**2 + down**2)
    low, high = np.percentile(np.sort(smooth.take(np.flatnonzero(there))), (2, 98), overwrite_input=True)
    near = np.clip((smooth - low) / max(float(high - low), 1e-3), 0, 1)
    grey = (0.25 + 0.55 * np.clip(light, 0, 1) + 0.2 * near) * 230
    shown = np.clip(grey, 0, 255).astype(np.uint8)
    return np.asarray(cv2.copyTo(shown, there.view(np.uint8), np.full(there.shape, 255, np.uint8)))


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
