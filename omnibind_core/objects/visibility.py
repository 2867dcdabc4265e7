"""Which sensors see a thing, where in their pictures, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnibind_core.objects.regions import Rectangle, Region2D, Volume
from omnibind_core.objects.rig import View
from omnibind_core.objects.snapshot import Cover, Snapshot

LEAST_PIXELS: Mapping[str, int] = {"image": 24, "thermal": 8, "event": 64}
"""Square root of the area of a thing's picture, pixels, below which its modality says little of it.

About where a sensor alone, made that coarse, has lost half of what it is right by: 49.3 % of 94.7 % of pictures at 24
pixels, 66.0 % of 95.3 % of thermal ones at 8 (the most frequent of their few labels is 33.3 %), 52.7 % of 98.0 % of
events at 64 and 23.3 % at 48 (``python tools/bench_crops.py ../shared/data``, 150 samples of the split ``val`` each).
"""
LEAST_POINTS = 192
"""Points of a thing below which they say little of it: 36.7 % of clouds from one side are right with so many, 28.0 %
with 128, 79.3 % of whole ones (``python tools/bench_crops.py ../shared/data --modalities scan``)."""
MARGIN = 0.05
"""By how much boxes are made larger on each side, of that side: what found them may have cut a thing short.

With so much of other surroundings 94.7 % of pictures are right, with 0.1 92.7 %, with 0.2 88.7 %, without and with 0.1
cut off 94.7 %; thermal ones 87.3, 86.7, 80.7 and 95.3 % (``python tools/bench_crops.py ../shared/data --margins
--modalities image thermal``).
"""
MOST_TIMES = 3.0
"""How many times its own size the picture of a thing may be, for what is not known of its place."""
LEAST_SHARE = 0.25
"""Of its picture that has to be inside of the sensor's."""
MOST_HIDDEN = 0.6
"""Of its picture that nearer points may cover."""
_BEFORE = (0.2, 0.05)  # m, and share of the distance, by which points have to be nearer to hide a thing
_ALONG = 0.9  # cosine between a ray and the direction in which a place is uncertain, from which on it is along the ray
_LEAST_SCALE = 0.05
_GRID = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)], np.float64)
_MIDDLE = len(_GRID) // 2


@dataclass(frozen=True)
class Sight:
    """What one sensor sees of a thing.

    Attributes:
        box: Where it is in the picture, inside of it; ``None`` in a cloud, and where it is not seen.
        reason: Why it is not seen, in words with values; ``""`` if it is.
    """

    box: Rectangle | None = None
    reason: str = ""

    @property
    def seen(self) -> bool:
        """Whether the sensor takes part."""
        return not self.reason


def sights(
    volumes: Sequence[Volume], snapshot: Snapshot, boxes: Sequence[Mapping[str, Region2D]] = ()
) -> list[dict[str, Sight]]:
    """What every camera and cloud of a tick sees of each thing, by sensor.

    A place that is known along a ray only, as of a box in one picture, is moved along that ray by one standard
    deviation both ways, with its size in proportion to the distance, and all of its pictures are taken together: for a
    second camera at the same place that changes nothing, for one beside it the box becomes wide, and beyond
    :data:`MOST_TIMES` it is of no use.

    Args:
        volumes: Where the things are.
        snapshot: The tick.
        boxes: Of each thing, by sensor, where it was found in the picture of this tick: taken for what is to be seen.
    """
    found: list[dict[str, Sight]] = [{} for _ in volumes]
    if not volumes:
        return found
    places = Places(volumes)
    for name in snapshot.pictures:
        view, cover = snapshot.views[name], snapshot.cover(name)
        looks = places.seen(view)
        for number, (sight, look) in enumerate(zip(found, looks, strict=True)):
            region = boxes[number].get(name) if boxes else None
            sight[name] = _in_picture(look, view, cover) if region is None else _given(region.box, view)
    for name in snapshot.clouds:
        for sight, volume, along in zip(found, volumes, places.along.tolist(), strict=True):
            sight[name] = _in_cloud(volume, along, name, snapshot)
    return found


class Look(NamedTuple):
    """A thing in one picture, which may reach beyond it."""

    alone: Rectangle  # at its most likely place; of area 0 if the lens sees nothing of it
    whole: Rectangle  # wherever it may be
    middle: float  # m along the optical axis
    known: tuple[float, float]  # m, between which its middle is
    front: float  # m, of what is nearest of it


class Places:
    """Where things may be: at their most likely places, and one standard deviation away both ways."""

    def __init__(self, volumes: Sequence[Volume]) -> None:
        self._centre = np.stack([volume.centre for volume in volumes])
        self._grid = np.stack([(_GRID * volume.size / 2) @ volume.rotation.T for volume in volumes])
        variances, axes = np.linalg.eigh(np.stack([volume.spread for volume in volumes]))
        self._axis = axes[:, :, -1]  # along which least is known
        self.along = np.sqrt(np.maximum(variances[:, -1], 0.0))
        """``[V]``, metres, standard deviations in the direction in which least is known."""

    def seen(self, view: View) -> list[Look]:
        """Each of them in a picture."""
        points = self._moved(view.pose.translation)
        pixels, distance = view.project(points.reshape(-1, 3))
        pixels, distance = pixels.reshape(*points.shape[:3], 2) + 0.5, distance.reshape(points.shape[:3])
        seen = np.isfinite(pixels)
        low = np.where(seen, pixels, np.inf).min(axis=2)
        high = np.where(seen, pixels, -np.inf).max(axis=2)
        alone = np.concatenate([low[:, 0], high[:, 0]], axis=1).tolist()
        whole = np.concatenate([low.min(axis=1), high.max(axis=1)], axis=1).tolist()
        middles = distance[:, :, _MIDDLE]
        front = np.where(distance > 0, distance, np.inf).min(axis=(1, 2)).tolist()
        known = zip(middles.min(axis=1).tolist(), middles.max(axis=1).tolist(), strict=True)
        looks = zip(alone, whole, middles[:, 0].tolist(), known, front, strict=True)
        return [Look(Rectangle(*alone), Rectangle(*whole), *rest) for alone, whole, *rest in looks]

    def _moved(self, eye: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points of the boxes ``[V, 3, 27, 3]``.

        They are as large as the distance makes them, from where the line along which a thing may be passes the eye, if
        that line leads to the eye: there stood the camera that saw it, or near.
        """
        to_thing = self._centre - eye
        away = np.einsum("vi,vi->v", self._axis, to_thing)
        to_eye = np.abs(away) > _ALONG * np.linalg.norm(to_thing, axis=1)
        steps = self.along[:, None] * np.array([0.0, -1.0, 1.0])
        grows = np.maximum(1 + steps / np.where(to_eye, away, 1.0)[:, None], _LEAST_SCALE)
        scales = np.where(to_eye[:, None], grows, 1.0)
        steps = np.where(to_eye[:, None], (scales - 1) * away[:, None], steps)
        moved = self._centre[:, None] + steps[:, :, None] * self._axis[:, None]
        return np.asarray(moved[:, :, None] + scales[:, :, None, None] * self._grid[:, None])


def _in_picture(look: Look, view: View, cover: Cover) -> Sight:
    alone, whole, here, known, front = look
    if here <= 0:
        return Sight(reason=f"behind the camera, by {-here:.1f} m")
    shown = whole.within(_picture(view))
    if not alone.area or not shown.area:
        return Sight(reason="outside of the picture")
    times = max(whole.width / alone.width, whole.height / alone.height)
    if times > MOST_TIMES:
        place = f"its place is known to {known[0]:.1f} to {known[1]:.1f} m only"
        return Sight(reason=f"{place}, which leaves {times:.1f} times its size, at most {MOST_TIMES:g} wanted")
    share = shown.area / whole.area
    if share < LEAST_SHARE:
        return Sight(reason=f"outside of the picture but for {share:.0%}, {LEAST_SHARE:.0%} wanted")
    hidden = cover.nearer(shown, front * (1 - _BEFORE[1]) - _BEFORE[0])
    if hidden.share > MOST_HIDDEN:
        return Sight(
            reason=f"occluded to {hidden.share:.0%} by points at {hidden.distance:.1f} m, it is at {here:.1f} m"
        )
    return _if_large(shown, view)


def _given(box: Rectangle, view: View) -> Sight:
    shown = box.within(_picture(view))
    return _if_large(shown, view) if shown.area else Sight(reason="outside of the picture")


def _if_large(box: Rectangle, view: View) -> Sight:
    least = LEAST_PIXELS[view.reading.modality]
    if box.area >= least**2:
        return Sight(box)
    return Sight(reason=f"too small: {box.width:.0f} x {box.height:.0f} pixels, {least} x {least} wanted")


def _in_cloud(volume: Volume, along: float, sensor: str, snapshot: Snapshot) -> Sight:
    if along > volume.size.max():
        away = float(np.linalg.norm(volume.centre - snapshot.views[sensor].pose.translation))
        known = f"its place is known to {max(away - along, 0):.1f} to {away + along:.1f} m only"
        return Sight(reason=f"{known}, it is {volume.size.max():.1f} m large")
    count = len(snapshot.inside(sensor, volume, MARGIN))
    if count < LEAST_POINTS:
        return Sight(reason=f"too few points: {count} in its box, {LEAST_POINTS} wanted")
    return Sight()


def _picture(view: View) -> Rectangle:
    return Rectangle(0, 0, *view.reading.size)
