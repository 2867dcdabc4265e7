"""Bodies that stand still or move, and what rays meet of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering.scenes.surfaces import Array, Surface, joined
from omnibind_core.optional import require

NOTHING = -1
_LIFT = 2e-3  # m above a surface that a ray begins at, so that it does not meet the surface itself


@dataclass(frozen=True, eq=False)
class Hits:
    """What rays met first.

    Attributes:
        distance: ``float32 [N]``, metres; infinite where a ray met nothing.
        body: ``int32 [N]``, number of the body, or :data:`NOTHING`.
        colour: ``float32 [N, 3]``, of its paint, 0..1.
        normal: ``float32 [N, 3]``, of unit length, towards where the ray came from.
    """

    distance: Array
    body: NDArray[np.int32]
    colour: Array
    normal: Array

    @classmethod
    def joined(cls, first: Hits, second: Hits) -> Hits:
        """One after the other."""
        pairs = ((getattr(first, field.name), getattr(second, field.name)) for field in fields(cls))
        return cls(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True, eq=False)
class Body:
    """A surface where it is at first, in a number that it is known by, and how it moves.

    Attributes:
        number: Its number.
        surface: Placed in the scene.
        velocity: ``(x, y, z)``, m/s.
    """

    number: int
    surface: Surface
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Stage:
    """Bodies, ready to be looked at.

    Args:
        bodies: All of them.

    Raises:
        MissingDependencyError: open3d is not installed.
    """

    def __init__(self, bodies: Sequence[Body]) -> None:
        still = [body for body in bodies if not any(body.velocity)]
        groups = [still] if still else []
        self._parts = [_Part(group) for group in (*groups, *([body] for body in bodies if any(body.velocity)))]

    def cast(self, origins: Array, directions: Array, seconds: float = 0.0) -> Hits:
        """What rays meet.

        Args:
            origins: ``float32 [N, 3]`` or ``[3]``, metres.
            directions: ``float32 [N, 3]``, of unit length.
            seconds: Since the beginning.
        """
        origins = np.broadcast_to(np.asarray(origins, np.float32), directions.shape)
        count = len(directions)
        found = Hits(
            np.full(count, np.inf, np.float32),
            np.full(count, NOTHING, np.int32),
            np.zeros((count, 3), np.float32),
            np.zeros((count, 3), np.float32),
        )
        for part in self._parts:
            rows = part.near(origins, directions, seconds)
            hits = part.cast(origins[rows], directions[rows], seconds)
            nearer = hits.distance < found.distance[rows]
            rows = rows[nearer]
            for field in fields(Hits):
                getattr(found, field.name)[rows] = getattr(hits, field.name)[nearer]
        return found

    def free(self, points: Array, normals: Array, towards: Array, seconds: float = 0.0) -> NDArray[np.bool_]:
        """Whether nothing lies between points on surfaces and a light.

        Args:
            points: ``float32 [N, 3]``, metres.
            normals: ``float32 [N, 3]``, of the surfaces there.
            towards: ``float32 [N, 3]``, way to the light, metres.
            seconds: Since the beginning.
        """
        begin = points + _LIFT * normals
        free = np.ones(len(points), np.bool_)
        for part in self._parts:
            rows = part.near(begin, towards / np.linalg.norm(towards, axis=1, keepdims=True), seconds)
            free[rows] &= ~part.blocks(begin[rows], towards[rows], seconds)
        return free


class _Part:
    """Bodies that move alike, or one that moves."""

    def __init__(self, bodies: Sequence[Body]) -> None:
        open3d = require("open3d", "Ray casting")
        self._tensor = open3d.core.Tensor
        self._surface = joined([body.surface for body in bodies])
        self._velocity = np.array(bodies[0].velocity, np.float32)
        self._owner = np.repeat([body.number for body in bodies], [len(b.surface.corners) for b in bodies])
        vertices = self._surface.corners.reshape(-1, 3)
        self._middle = self._surface.low + self._surface.size / 2
        self._radius = float(np.linalg.norm(self._surface.size)) / 2 if self._velocity.any() else None
        self._scene: Any = open3d.t.geometry.RaycastingScene()
        rows = np.arange(len(vertices), dtype=np.uint32).reshape(-1, 3)
        self._scene.add_triangles(self._tensor(np.ascontiguousarray(vertices)), self._tensor(rows))

    def near(self, origins: Array, directions: Array, seconds: float) -> NDArray[np.int64]:
        """Rays ``int64 [N]`` that may meet it."""
        if self._radius is None:
            return np.arange(len(directions))
        way = self._middle + np.float32(seconds) * self._velocity - origins
        along = np.einsum("nc,nc->n", way, directions)
        return np.flatnonzero(np.einsum("nc,nc->n", way, way) - along**2 <= self._radius**2)

    def cast(self, origins: Array, directions: Array, seconds: float) -> Hits:
        hits = self._scene.cast_rays(self._rays(origins, directions, seconds))
        distance = hits["t_hit"].numpy()
        body = np.full(len(distance), NOTHING, np.int32)
        colour, normal = np.zeros((len(distance), 3), np.float32), np.zeros((len(distance), 3), np.float32)
        met = np.flatnonzero(np.isfinite(distance))
        triangles = hits["primitive_ids"].numpy()[met].astype(np.int64)
        second, third = hits["primitive_uvs"].numpy()[met].T
        weights = np.stack([1 - second - third, second, third], axis=1)[:, None]
        body[met] = self._owner[triangles]
        colour[met] = self._colours(triangles, weights)
        facing = (weights @ self._surface.normals[triangles])[:, 0]
        facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-6)
        away = np.einsum("nc,nc->n", facing, directions[met]) > 0
        facing[away] *= -1
        normal[met] = facing
        return Hits(distance, body, colour, normal)

    def blocks(self, origins: Array, towards: Array, seconds: float) -> NDArray[np.bool_]:
        rays = self._rays(origins, towards, seconds)
        return np.asarray(self._scene.test_occlusions(rays, tfar=1.0).numpy(), np.bool_)

    def _rays(self, origins: Array, directions: Array, seconds: float) -> Any:
        rays = np.concatenate([origins - seconds * self._velocity, directions], axis=1, dtype=np.float32)
        return self._tensor(np.ascontiguousarray(rays))

    def _colours(self, triangles: NDArray[np.int64], weights: Array) -> Array:
        surface = self._surface
        paints = surface.paint[triangles]
        found = np.array([paint.colour for paint in surface.paints], np.float32)[paints]
        for number in np.unique(paints):
            texture = surface.paints[number].texture
            if texture is not None:
                rows = np.flatnonzero(paints == number)
                found[rows] = _look_up(texture, (weights[rows] @ surface.places[triangles[rows]])[:, 0])
        return found


def _look_up(texture: NDArray[np.uint8], places: Array) -> Array:
    height, width = texture.shape[:2]
    across = np.floor(places[:, 0] * width).astype(np.int64) % width
    down = np.floor((1 - places[:, 1]) * height).astype(np.int64) % height
    return texture[down, across].astype(np.float32) / np.float32(255)
