"""Triangles and how they look: meshes with their materials, and the boxes that rooms and streets are made of."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering.demo_objects import Furniture
from omnibind_core.errors import DataError
from omnibind_core.optional import require

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Paint:
    """What a triangle is painted with.

    Attributes:
        colour: RGB, 0..1, as shown on a screen.
        texture: RGB ``uint8 [H, W, 3]``, repeated without end, its last row at v = 0; ``None`` if it has one colour.
    """

    colour: tuple[float, float, float]
    texture: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Surface:
    """Painted triangles.

    Attributes:
        corners: ``float32 [T, 3, 3]``, metres, z up.
        normals: ``float32 [T, 3, 3]``, unit length, at the corners.
        places: ``float32 [T, 3, 2]``, where the corners are in the texture, (u, v).
        paint: ``int32 [T]``, which of :attr:`paints`.
        paints: All paints.
    """

    corners: Array
    normals: Array
    places: Array
    paint: NDArray[np.int32]
    paints: tuple[Paint, ...]

    @property
    def low(self) -> Array:
        """``float32 [3]``, the lowest x, y and z."""
        return np.asarray(self.corners.min(axis=(0, 1)))

    @property
    def size(self) -> Array:
        """``float32 [3]``, sides of the bounding box, metres."""
        return np.asarray(self.corners.max(axis=(0, 1)) - self.low)

    def turned(self, rotation: NDArray[np.floating]) -> Surface:
        """Turned about the origin by ``[3, 3]``."""
        turn: Array = np.asarray(rotation, np.float32).T
        return replace(self, corners=self.corners @ turn, normals=self.normals @ turn)

    def moved(self, by: Sequence[float] | NDArray[np.floating]) -> Surface:
        """Moved by so many metres."""
        return replace(self, corners=self.corners + np.asarray(by, np.float32))

    def standing(self, size: Sequence[float] | NDArray[np.floating]) -> Surface:
        """Scaled to a bounding box of this size, m, its middle above the origin and its lowest point on z = 0."""
        scale = np.asarray(size / np.maximum(self.size, 1e-6), np.float32)
        middle = self.low + self.size / 2
        middle[2] = self.low[2]
        normals = np.asarray(self.normals / scale, np.float32)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        corners = np.asarray((self.corners - middle) * scale, np.float32)
        return replace(self, corners=corners, normals=normals)


def joined(surfaces: Sequence[Surface]) -> Surface:
    """All as one."""
    starts = np.cumsum([0, *(len(one.paints) for one in surfaces)])
    return Surface(
        np.concatenate([one.corners for one in surfaces]),
        np.concatenate([one.normals for one in surfaces]),
        np.concatenate([one.places for one in surfaces]),
        np.concatenate([one.paint + start for one, start in zip(surfaces, starts, strict=False)]).astype(np.int32),
        tuple(paint for one in surfaces for paint in one.paints),
    )


def box(low: Sequence[float], high: Sequence[float], paint: Paint, scale: float = 1.0) -> Surface:
    """A box between two corners, seen from outside.

    Args:
        low: Lowest x, y, z, metres.
        high: Highest.
        paint: Of all of its sides.
        scale: Metres that a texture is repeated after.
    """
    ends = np.array([low, high], np.float32)
    faces, normals, places = [], [], []
    for axis in range(3):
        across, up = [other for other in range(3) if other != axis]
        for side in range(2):
            square = np.empty((4, 3), np.float32)
            square[:, axis] = ends[side, axis]
            square[:, across] = ends[[0, 1, 1, 0], across]
            square[:, up] = ends[[0, 0, 1, 1], up]
            normal = np.zeros(3, np.float32)
            normal[axis] = 2 * side - 1
            for rows in ((0, 1, 2), (0, 2, 3)):
                faces.append(square[list(rows)])
                normals.append([normal] * 3)
                places.append(square[list(rows)][:, [across, up]] / scale)
    return Surface(
        np.array(faces, np.float32),
        np.array(normals, np.float32),
        np.array(places, np.float32),
        np.zeros(12, np.int32),
        (paint,),
    )


def board(width: float, height: float, paint: Paint) -> Surface:
    """A flat board that stands on z = 0 above the origin, its front towards -y, its paint once across it."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    corners = np.stack([(square[:, 0] - 0.5) * width, np.zeros(4), square[:, 1] * height], axis=1).astype(np.float32)
    rows = np.array([[0, 1, 2], [0, 2, 3]])
    normals = np.tile(np.array([0, -0.9, 0.44], np.float32), (2, 3, 1))  # lit as pictures are, see :mod:`.cutouts`
    return Surface(corners[rows], normals, square[rows], np.zeros(2, np.int32), (paint,))


def read(furniture: Furniture) -> Surface:
    """A mesh of the catalogue with its materials, in its real size, standing on z = 0, its front towards -y.

    Raises:
        DataError: The catalogue is damaged.
        MissingDependencyError: open3d is not installed.
    """
    folder = str(PurePosixPath(furniture.member).parent)
    with tempfile.TemporaryDirectory() as work:
        try:
            with zipfile.ZipFile(furniture.archive) as catalogue:
                names = [name for name in catalogue.namelist() if name.startswith(f"{folder}/") and name[-1] != "/"]
                catalogue.extractall(work, names)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{furniture.archive}: cannot read {furniture.member}: {error}") from error
        return read_obj(Path(work) / furniture.member).standing(furniture.size)


def read_obj(path: Path) -> Surface:
    """A Wavefront OBJ file with y up and its materials.

    Raises:
        DataError: No triangles in it.
        MissingDependencyError: open3d is not installed.
    """
    open3d = require("open3d", "Reading a mesh")
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):  # missing textures are no matter
        model = open3d.io.read_triangle_model(str(path))
    parts = [_part(one.mesh, _paint(model.materials[one.material_idx])) for one in model.meshes]
    parts = [part for part in parts if len(part.corners)]
    if not parts:
        raise DataError(f"{path}: no faces found, expected a Wavefront OBJ mesh")
    return joined(parts)


def _part(mesh: Any, paint: Paint) -> Surface:
    triangles = np.asarray(mesh.triangles)
    if not mesh.has_vertex_normals():
        mesh.compute_vertex_normals()
    swap = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32).T  # y up to z up
    corners = np.asarray(mesh.vertices, np.float32)[triangles] @ swap
    normals = np.asarray(mesh.vertex_normals, np.float32)[triangles] @ swap
    places = np.asarray(mesh.triangle_uvs, np.float32).reshape(-1, 3, 2)
    if len(places) != len(triangles):
        places = np.zeros((len(triangles), 3, 2), np.float32)
    return Surface(corners, normals, places, np.zeros(len(triangles), np.int32), (paint,))


def _paint(material: Any) -> Paint:
    red, green, blue = (float(value) for value in material.base_color[:3])
    picture = material.albedo_img
    if picture is None:
        return Paint((red, green, blue))
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] < 3:
        return Paint((red, green, blue))
    return Paint((1.0, 1.0, 1.0), np.ascontiguousarray(pixels[..., :3]))
