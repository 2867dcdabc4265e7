"""The point cloud modality."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Corruptions, Modality, Preset, Role, positive, readable_file
from omnibind_core.modalities.drawing import Picture
from omnibind_core.modalities.objects import as_array
from omnibind_core.modalities.pictures import read_array
from omnibind_core.modalities.point_cloud import corruption, drawing, processing
from omnibind_core.optional import require

MIN_POINTS = 8  # fewer say nothing about a shape
_FARTHEST = 1e9  # in any unit; drivers mark what they did not measure by the highest float, too


class PointCloud(Modality[NDArray[np.float32], Preset]):
    """Point cloud. Raw form: ``float32 [N, 3]``, metres, x, y, z with z up."""

    name: ClassVar[str] = "point_cloud"
    role: ClassVar[Role] = Role.STUDENT
    topic_ending: ClassVar[str] = "points"
    suffixes: ClassVar[tuple[str, ...]] = (".npz", ".npy", ".bin", ".pcd", ".ply")
    presets: ClassVar[dict[str, Preset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[NDArray[np.float32]]] = corruption.CORRUPTIONS
    needs: ClassVar[dict[str, str]] = {".pcd": "open3d", ".ply": "open3d"}
    units: ClassVar[Mapping[str, str]] = {"scale": "metres of one unit of the numbers, such as 0.001 for mm"}

    def check(self, raw: NDArray[np.float32], source: str) -> NDArray[np.float32]:
        """Accepts any float or integer ``[N, 3 or more]``; drops further columns, and rows with NaN or beyond 1e9."""
        expected = f"float32 [N, 3] with at least {MIN_POINTS} finite points"
        if not isinstance(raw, np.ndarray) or raw.dtype.kind not in "uif":
            found = f"dtype {raw.dtype}" if isinstance(raw, np.ndarray) else type(raw).__name__
            raise InvalidInputError(source, found, expected)
        if raw.ndim != 2 or raw.shape[1] < 3:
            raise InvalidInputError(source, f"shape {list(raw.shape)}", expected)
        with np.errstate(over="ignore"):  # beyond float32 becomes inf, which is dropped below
            points = raw[:, :3].astype(np.float32, copy=False)
        measured = np.abs(points) <= _FARTHEST  # also no NaN
        if not measured.all():
            points = points[measured.all(axis=1)]
        if len(points) < MIN_POINTS:
            raise InvalidInputError(source, f"{len(raw)} points, {len(points)} of them finite", expected)
        if (points == points[0]).all():
            raise InvalidInputError(source, f"{len(points)} points at one place", "points at different places")
        return points

    def load(self, path: Path) -> NDArray[np.float32]:
        """Reads ``.npz`` (``points``), ``.npy``, ``.pcd``, ``.ply`` or ``.bin`` (KITTI: float32 x, y, z, intensity)."""
        what = "a point cloud file"
        readable_file(path, self.suffixes, what)
        suffix = path.suffix.lower()
        if suffix == ".npz":
            points = _read_npz(path)
        elif suffix == ".npy":
            points = read_array(path, what)
        elif suffix == ".bin":
            if path.stat().st_size % 16:
                raise InvalidInputError(str(path), f"{path.stat().st_size} bytes", "four float32 (16 bytes) per point")
            points = np.fromfile(path, "<f4").reshape(-1, 4)
        else:
            points = _read_open3d(path)
        return self.check(points, str(path))

    def convert(self, given: Any, source: str, **units: Any) -> NDArray[np.float32]:
        """Accepts what :meth:`check` does, ``[3 or 4, N]``, fields ``x, y, z``, and objects with ``points``."""
        cloud = as_array(getattr(given, "points", given), source)
        if cloud.dtype.names is not None and {*"xyz"} <= set(cloud.dtype.names):
            cloud = np.stack([cloud[name].ravel() for name in "xyz"], axis=1)
        if cloud.ndim == 2 and cloud.shape[0] in (3, 4) and cloud.shape[1] >= MIN_POINTS:  # too few points otherwise
            cloud = cloud.T
        scale = positive(units, "scale", source)
        if scale is not None and cloud.dtype.kind in "uif":
            cloud = cloud[:, :3] * scale if cloud.ndim == 2 else cloud
        return self.check(cloud, source)

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


def _read_npz(path: Path) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "points" in archive:
                points: NDArray[Any] = archive["points"]
                return points
            found = f"an archive with {', '.join(archive) or 'no arrays'}"
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(str(path), f"a file that NumPy cannot read ({error})", "an .npz archive") from error
    raise InvalidInputError(str(path), found, "an array 'points' [N, 3]")


def _read_open3d(path: Path) -> NDArray[np.float64]:
    open3d = require("open3d", "Reading .pcd and .ply files")
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.io.read_point_cloud(str(path), remove_nan_points=True)
    if cloud.is_empty():
        raise InvalidInputError(str(path), "no points that open3d can read", "a point cloud file")
    return np.asarray(cloud.points)


MODALITY = PointCloud()
