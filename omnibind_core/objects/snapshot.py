"""What all sensors of a tick saw, in one frame: computed once, asked for by every thing."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnibind_core.geometry import Camera
from omnibind_core.objects.proposals import ground
from omnibind_core.objects.proposals.ground import Ground
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.rig import PICTURES, View

CLOUD = "point_cloud"
"""The modality whose items are points in space."""
_MOST = 16_384  # points that are projected into pictures; of more, as many evenly chosen
_MOST_GROUND = 8192  # points that the ground is sought in
_CELLS = 64  # of the longer side of a picture, where the nearest points are noted
_SPARE = 1.05
_NEAR = 0.05  # m; nearer are the lens and its holder


class Cloud:
    """Points of one sensor.

    Args:
        columns: ``float64 [3, N]`` in the fixed frame, metres, all finite. NumPy is slow along an axis of three.
    """

    def __init__(self, columns: NDArray[np.float64]) -> None:
        self.points = columns.T
        """``[N, 3]``."""
        self._columns = columns

    def inside(self, volume: Volume, margin: float = 0.0) -> NDArray[np.intp]:
        """Which points are in a box that was made larger on each side by a share of that side."""
        half = volume.size * (0.5 + margin)
        reach = np.abs(volume.rotation) @ half
        low, high = volume.centre - reach, volume.centre + reach
        found = np.flatnonzero((self._columns[0] >= low[0]) & (self._columns[0] <= high[0]))
        for column, least, most in zip(self._columns[1:], low[1:], high[1:], strict=True):
            values = column[found]
            found = found[(values >= least) & (values <= most)]
        local = (self.points[found] - volume.centre) @ volume.rotation
        return found[(np.abs(local) <= half).all(axis=1)]


@dataclass(frozen=True, eq=False)
class Cover:
    """Points of all clouds in one picture.

    Attributes:
        pixels: ``float64 [M, 2]`` from the picture's outer edge, all inside of it.
        distance: ``float64 [M]``, metres along the optical axis.
        index: ``intp [M]``, which of :attr:`Snapshot.points` they are.
        cell: Pixels of a side of the cells of ``nearest``.
        nearest: ``float64 [rows, columns]``, least distance in each cell, infinite without a point.
    """

    pixels: NDArray[np.float64]
    distance: NDArray[np.float64]
    index: NDArray[np.intp]
    cell: float
    nearest: NDArray[np.float64]

    def within(self, box: Rectangle) -> NDArray[np.intp]:
        """Which of the pixels are in a box."""
        left, top, right, bottom = box
        x, y = self.pixels.T
        return np.flatnonzero((x >= left) & (x < right) & (y >= top) & (y < bottom))

    def nearer(self, box: Rectangle, distance: float) -> Hidden:
        """How much of a box the points before a distance cover, of the cells in which there are points."""
        (top, bottom), (left, right) = (
            (int(low // self.cell), max(int(np.ceil(high / self.cell)), int(low // self.cell) + 1))
            for low, high in ((box.top, box.bottom), (box.left, box.right))
        )
        cells = self.nearest[top:bottom, left:right]
        before = cells[cells < distance]
        if len(before) < min(_FEW_CELLS, cells.size):
            return Hidden(0.0, np.inf)
        return Hidden(len(before) / int(np.isfinite(cells).sum()), float(np.sort(before)[len(before) // 2]))


_FEW_CELLS = 3  # with nearer points, that may be noise


class Hidden(NamedTuple):
    """What nearer points cover of a box in a picture."""

    share: float  # 0..1
    distance: float  # m, of those points


class Snapshot:
    """Items of one tick, whose geometry is known.

    Args:
        views: By sensor.
    """

    def __init__(self, views: Mapping[str, View]) -> None:
        self.views = dict(views)
        self._clouds: dict[str, Cloud] = {}
        self._covers: dict[str, Cover] = {}
        self._grounds: dict[str, Ground | None] = {}

    def seen_by(self, view: View) -> Snapshot:
        """The same tick, to a sensor that looked from elsewhere."""
        other = copy.copy(self)
        other.views = {**self.views, view.reading.sensor: view}
        other._covers = {}
        return other

    @property
    def pictures(self) -> list[str]:
        """Sensors whose items are pictures."""
        return [name for name, view in self.views.items() if view.reading.modality in PICTURES]

    @property
    def clouds(self) -> list[str]:
        """Sensors whose items are points in space."""
        return [name for name, view in self.views.items() if view.reading.modality == CLOUD]

    @property
    def points(self) -> NDArray[np.float64]:
        """``[N, 3]``, points of all clouds in the fixed frame, metres; of very many, some, of the ground least."""
        return self._all[0]

    @property
    def above(self) -> NDArray[np.bool_]:
        """``[N]``, which of :attr:`points` are not of the ground."""
        return self._all[1]

    @functools.cached_property
    def _all(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        found = [self.cloud(name).points for name in self.clouds]
        points = np.concatenate(found) if found else np.zeros((0, 3))
        above = np.concatenate([self.solid(name) for name in self.clouds]) if found else np.zeros(0, np.bool_)
        if len(points) <= _MOST:
            return points, above
        solid, rest = some(np.flatnonzero(above), _MOST * 3 // 4), np.flatnonzero(~above)
        kept = np.concatenate([solid, some(rest, _MOST - len(solid))])
        return points[kept], above[kept]

    def cloud(self, sensor: str) -> Cloud:
        """Points of one sensor."""
        if sensor not in self._clouds:
            view = self.views[sensor]
            raw = np.asarray(view.reading.raw, np.float64).reshape(-1, 3)
            columns = view.pose.rotation @ raw.T + view.pose.translation[:, None]
            finite = np.isfinite(columns)
            self._clouds[sensor] = Cloud(columns if finite.all() else columns[:, finite.all(axis=0)])
        return self._clouds[sensor]

    def ground(self, sensor: str) -> Ground | None:
        """The ground that a sensor sees in its points, if it does."""
        if sensor not in self._grounds:
            points = self.cloud(sensor).points
            some = points[:: max(1, len(points) // _MOST_GROUND)]
            self._grounds[sensor] = ground.find(some, self.views[sensor].pose.translation)
        return self._grounds[sensor]

    def solid(self, sensor: str) -> NDArray[np.bool_]:
        """Which points of a sensor are not of the ground."""
        found, points = self.ground(sensor), self.cloud(sensor).points
        return np.ones(len(points), np.bool_) if found is None else found.above(points)

    def inside(self, sensor: str, volume: Volume, margin: float = 0.0) -> NDArray[np.float64]:
        """Points ``[N, 3]`` of a sensor in a box, as :meth:`Cloud.inside`, without those of the ground."""
        cloud, found = self.cloud(sensor), self.ground(sensor)
        points = cloud.points[cloud.inside(volume, margin)]
        return points if found is None else points[found.above(points)]

    def cover(self, sensor: str) -> Cover:
        """Points of all clouds in the picture of a sensor."""
        if sensor not in self._covers:
            self._covers[sensor] = _cover(self.views[sensor], self.points)
        return self._covers[sensor]


def some(values: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many, evenly chosen."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).astype(np.intp)]


def _cover(view: View, points: NDArray[np.float64]) -> Cover:
    camera = view.camera
    assert camera is not None
    x, y, z = view.pose.rotation.T @ (points - view.pose.translation).T  # by columns
    index = np.flatnonzero((z > _NEAR) & (x * x + y * y < (_widest(camera) * z) ** 2))
    pixels, inside = camera.project(np.stack([x[index], y[index], z[index]], axis=1))
    pixels, index = pixels[inside] + 0.5, index[inside]
    distance = z[index]
    cell = max(camera.width, camera.height) / _CELLS
    rows, columns = (int(np.ceil(side / cell)) for side in (camera.height, camera.width))
    nearest = np.full(rows * columns, np.inf)
    places = (pixels // cell).astype(np.intp)
    far_first = np.argsort(-distance)  # of several points in a cell the nearest is written last
    nearest[(places[:, 1] * columns + places[:, 0])[far_first]] = distance[far_first]
    return Cover(pixels, distance, index, cell, nearest.reshape(rows, columns))


@functools.lru_cache(maxsize=64)
def _widest(camera: Camera) -> float:
    """Tangent of the angle from the optical axis beyond which nothing is in the picture; to look at fewer points."""
    right, bottom = camera.width - 0.5, camera.height - 0.5
    corners = np.array([(-0.5, -0.5), (right, -0.5), (-0.5, bottom), (right, bottom)])
    widest = float(np.hypot(*camera.rays(corners)[:, :2].T).max())
    return _SPARE * widest if np.isfinite(widest) else np.inf
