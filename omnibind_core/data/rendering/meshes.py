"""Triangle meshes: reading them, and what a LiDAR sees of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import DataError
from omnibind_core.optional import require

# Sensor elevation above the object's middle, degrees; the range of the scans that the point trunk is trained on.
ELEVATION = (5.0, 35.0)
# Standard deviation of the range noise, as a share of the object's diagonal; the same.
RANGE_NOISE = 0.005


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: ``float32 [V, 3]``, metres, z up.
        triangles: ``uint32 [T, 3]``, rows of :attr:`vertices`.
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.uint32]

    @property
    def extent(self) -> NDArray[np.float32]:
        """Side lengths of the bounding box, ``float32 [3]``, m."""
        extent: NDArray[np.float32] = np.ptp(self.vertices, axis=0)
        return extent


def read_obj(path: Path) -> Mesh:
    """Reads a Wavefront OBJ file with y up (the format's custom), without its materials.

    Raises:
        DataError: No triangles in it.
        MissingDependencyError: open3d is not installed.
    """
    open3d = require("open3d", "Reading a mesh")
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):  # missing materials are no matter
        # read_triangle_mesh would drop every face that is not a triangle.
        parts = [part.mesh for part in open3d.io.read_triangle_model(str(path)).meshes]
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    triangles = [np.asarray(part.triangles) + start for part, start in zip(parts, starts, strict=False)]
    if not sum(map(len, triangles)):
        raise DataError(f"{path}: no faces found, expected a Wavefront OBJ mesh")
    vertices = np.concatenate([np.asarray(part.vertices, dtype=np.float32) for part in parts])
    x, y, z = vertices.T
    return Mesh(np.ascontiguousarray(np.stack([x, -z, y], axis=1)), np.concatenate(triangles).astype(np.uint32))


def fit(mesh: Mesh, size: NDArray[np.float32], rotation: NDArray[np.float32] | None = None) -> Mesh:
    """Turns, scales and centres a mesh.

    Args:
        mesh: The mesh.
        size: ``float32 [3]``, side lengths of the bounding box afterwards, m.
        rotation: ``float32 [3, 3]``, applied first.

    Returns:
        A mesh centred on the middle of its bounding box.
    """
    vertices = mesh.vertices if rotation is None else mesh.vertices @ rotation.T
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    scale = size / np.maximum(high - low, 1e-6)
    return Mesh(((vertices - (low + high) / 2) * scale).astype(np.float32), mesh.triangles)


def cast(mesh: Mesh, origins: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance to the first surface along each ray.

    Args:
        mesh: The mesh.
        origins: ``float32 [..., 3]``, m.
        directions: ``float32 [..., 3]``, unit length.

    Returns:
        ``float32 [...]``, m; infinite where a ray meets nothing.
    """
    open3d = require("open3d", "Ray casting")
    scene: Any = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(mesh.vertices), open3d.core.Tensor(mesh.triangles))
    rays = np.concatenate(np.broadcast_arrays(origins, directions), axis=-1, dtype=np.float32)
    hit: NDArray[np.float32] = scene.cast_rays(open3d.core.Tensor(np.ascontiguousarray(rays)))["t_hit"].numpy()
    return hit


def scan(mesh: Mesh, rng: np.random.Generator, points: int = 2048, resolution: int = 160) -> NDArray[np.float32]:
    """What a LiDAR sees of a mesh from a random side: the near surface only, with range noise.

    Args:
        mesh: The mesh.
        rng: Source of the azimuth, the elevation (:data:`ELEVATION`), the noise and the choice of points.
        points: At most so many points are returned.
        resolution: Rays per side of the field of view, which just holds the object.

    Returns:
        ``float32 [N, 3]``, m, z up, in the mesh's own frame, 1 <= N <= ``points``.

    Raises:
        DataError: No ray meets the mesh.
    """
    azimuth = rng.uniform(0, 2 * math.pi)
    elevation = math.radians(rng.uniform(*ELEVATION))
    diagonal = float(np.linalg.norm(mesh.extent))
    middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    back = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    up = np.cross(back, right)
    eye = (middle + 2 * diagonal * back).astype(np.float32)
    steps = np.linspace(
        -0.27, 0.27, resolution
    )  # tan of half the view: 0.5 diagonal seen from 2 diagonals, plus margin
    rays = -back + steps[None, :, None] * right - steps[:, None, None] * up
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)
    distance = cast(mesh, eye, rays)
    hit = np.isfinite(distance)
    if not hit.any():
        raise DataError(f"no ray meets the mesh ({len(mesh.triangles)} triangles, extent {mesh.extent} m)")
    distance, rays = distance[hit], rays[hit]
    chosen = rng.permutation(len(distance))[:points]
    noisy = distance[chosen] + rng.normal(0, RANGE_NOISE * diagonal, len(chosen)).astype(np.float32)
    cloud: NDArray[np.float32] = eye + noisy[:, None] * rays[chosen]
    return cloud
