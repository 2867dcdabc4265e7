"""The point cloud modality."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Corruptions, Modality, Preset, Role, positive, readable_file
from omnibind_core.modalities.drawing import Picture
from omnibind_core.modalities.objects import as_array, is_array_like
from omnibind_core.modalities.point_cloud import cleaning, corruption, drawing, files, processing

_log = logging.getLogger(__name__)
MIN_POINTS = 8  # fewer say nothing about a shape


class PointCloud(Modality[NDArray[np.float32], Preset]):
    """Point cloud. Raw form: ``float32 [N, 3]``, metres, x, y, z with z up."""

    name: ClassVar[str] = "point_cloud"
    role: ClassVar[Role] = Role.STUDENT
    topic_ending: ClassVar[str] = "points"
    suffixes: ClassVar[tuple[str, ...]] = tuple(files.READERS)
    presets: ClassVar[dict[str, Preset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[NDArray[np.float32]]] = corruption.CORRUPTIONS
    needs: ClassVar[dict[str, str]] = {
        ".pcd": "open3d",
        **dict.fromkeys((".las", ".laz"), "laspy"),
        **dict.fromkeys((".ply", ".off", ".obj", ".stl", ".glb", ".gltf"), "trimesh"),
    }
    units: ClassVar[Mapping[str, str]] = {"scale": "metres of one unit of the numbers, such as 0.001 for mm"}

    def check(self, raw: NDArray[Any], source: str) -> NDArray[np.float32]:
        """Accepts any float or integer ``[N, 3 or more]``, or a structured array with fields x, y and z.

        Drops further columns, and rows that are no points of the thing: see :func:`.cleaning.clean`.
        """
        return self._clean(raw, source).points

    def load(self, path: Path) -> NDArray[np.float32]:
        """Reads a cloud, or points on the surface of a mesh: see :func:`.files.read`."""
        return self.convert(self.read(path), str(path))

    def read(self, path: Path) -> NDArray[Any]:
        """What a file holds, in its own unit, nothing left out: see :func:`.files.read`."""
        return files.read(readable_file(path, self.suffixes, "a point cloud file"))

    def _clean(self, raw: NDArray[Any], source: str) -> cleaning.Cleaned:
        values = _coordinates(raw, source)
        cleaned = cleaning.clean(values)
        points = cleaned.points
        if len(points) < MIN_POINTS:
            found = f"{len(values)} points, {len(points)} of them finite and off the origin"
            raise InvalidInputError(source, found, f"float32 [N, 3] with at least {MIN_POINTS} finite points")
        if (points[:MIN_POINTS] == points[0]).all() and (points == points[0]).all():
            raise InvalidInputError(source, f"{len(points)} points at one place", "points at different places")
        return cleaned

    def convert(self, given: Any, source: str, **units: Any) -> NDArray[np.float32]:
        """Accepts what :meth:`check` does, ``[3 or 4, N]``, fields ``x, y, z``, and objects with ``points``.

        How many points are left out is logged.
        """
        points = getattr(given, "points", given)
        # Open3D's vectors have but the buffer protocol.
        cloud = as_array(points if points is given or is_array_like(points) else np.asarray(points), source)
        if cloud.dtype.names is not None:
            cloud = _coordinates(cloud, source)
        if cloud.ndim == 2 and cloud.shape[0] in (3, 4) and cloud.shape[1] >= MIN_POINTS:  # too few points otherwise
            cloud = cloud.T
        scale = positive(units, "scale", source)
        if scale is not None and cloud.dtype.kind in "uif":
            cloud = cloud[:, :3] * scale if cloud.ndim == 2 else cloud
        cleaned = self._clean(cloud, source)
        if cleaned.unmeasured or cleaned.apart:
            left_out = "%s: left out %d points that are not finite or at the origin, and %d far away from all others"
            _log.info(left_out, source, cleaned.unmeasured, cleaned.apart)
        return cleaned.points

    def process(self, raw: NDArray[np.float32], preset: Preset) -> NDArray[Any]:
        """Cloud to ``float32 [1, points, 3]`` in the unit ball, or to ``uint8 [views, 3, 224, 224]`` pictures."""
        return processing.process(raw, preset)

    def augment(self, raw: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Another heading, size, density, noise and view."""
        return corruption.augment(raw, rng)

    def noise_only(self, raw: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """As many points, anywhere in the bounding box."""
        return corruption.noise_only(raw, rng)

    def draw(self, raw: NDArray[np.float32], height: int = 240) -> Picture:
        """From three sides: see :func:`.drawing.draw`."""
        return drawing.draw(raw, height)


def _coordinates(raw: Any, source: str) -> NDArray[Any]:
    """x, y and z of an array ``[N, 3 or more]`` or of a structured one with such fields, ``[N, 3]``."""
    expected = f"float32 [N, 3] with at least {MIN_POINTS} finite points"
    if not isinstance(raw, np.ndarray):
        raise InvalidInputError(source, type(raw).__name__, expected)
    names = {name.lower(): name for name in reversed(raw.dtype.names or ())}
    if names.keys() >= {"x", "y", "z"}:
        raw = np.stack([raw[names[axis]].ravel() for axis in "xyz"], axis=1)
    elif names:
        raise InvalidInputError(source, f"an array with the fields {', '.join(names)}", "fields x, y and z")
    if raw.dtype.kind not in "uif":
        raise InvalidInputError(source, f"dtype {raw.dtype}", expected)
    if raw.ndim != 2 or raw.shape[1] < 3:
        raise InvalidInputError(source, f"shape {list(raw.shape)}", expected)
    return raw[:, :3]


MODALITY = PointCloud()
