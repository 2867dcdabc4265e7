"""Which sensors see a thing, where in their pictures, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnibind_core.objects.regions import Rectangle, Region2D, Volume
from omnibind_core.objects.rig import View
from omnibind_core.objects.snapshot import Cloud, Cover, Snapshot

LEAST_PIXELS: Mapping[str, int] = {"image": 24, "thermal": 16, "event": 24}
"""Square root of the area of a thing's picture below which its modality says little of it."""
LEAST_POINTS = 32
"""Points of a thing below which they say little of it."""
MARGIN = 0.1
"""By how much boxes are made larger on each side, of that side: what found them may have cut a thing short."""
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


def sights(volume: Volume, snapshot: Snapshot, boxes: Mapping[str, Region2D] | None = None) -> dict[str, Sight]:
    """What every camera and cloud of a tick sees of a thing.

    A place that is known along a ray only, as of a box in one picture, is moved along that ray by one standard
    deviation both ways, with its size in proportion to the distance, and all of its pictures are taken together: for a
    second camera at the same place that changes nothing, for one beside it the box becomes wide, and beyond
    :data:`MOST_TIMES` it is of no use.

    Args:
        volume: Where the thing is.
        snapshot: The tick.
        boxes: By sensor, where it was found in the picture of this tick: is taken for what is to be seen there.
    """
    found: dict[str, Sight] = {}
    for name in snapshot.pictures:
        region, view = (boxes or {}).get(name), snapshot.views[name]
        found[name] = _in_picture(volume, view, snapshot.cover(name)) if region is None else _given(region.box, view)
    for name in snapshot.clouds:
        found[name] = _in_cloud(volume, snapshot.views[name], snapshot.cloud(name))
    return found


def _in_picture(volume: Volume, view: View, cover: Cover) -> Sight:
    pixels, distance = view.project(_places(volume, view.pose.translation).reshape(-1, 3))
    pixels, distance = pixels.reshape(3, -1, 2) + 0.5, distance.reshape(3, -1)
    here = distance[0, _MIDDLE]
    if here <= 0:
        return Sight(reason=f"behind the camera, by {-here:.1f} m")
    alone, whole = _bounds(pixels[0]), _bounds(pixels)
    shown = None if whole is None else whole.within(_picture(view))
    if alone is None or whole is None or shown is None or not shown.area:
        return Sight(reason="outside of the picture")
    times = max(whole.width / alone.width, whole.height / alone.height)
    if times > MOST_TIMES:
        low, high = distance[:, _MIDDLE].min(), distance[:, _MIDDLE].max()
        known = f"its place is known to {low:.1f} to {high:.1f} m only, which leaves {times:.1f} times its size"
        return Sight(reason=f"{known}, at most {MOST_TIMES:g} wanted")
    share = shown.area / whole.area
    if share < LEAST_SHARE:
        return Sight(reason=f"outside of the picture but for {share:.0%}, {LEAST_SHARE:.0%} wanted")
    front = float(distance[distance > 0].min())
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


def _in_cloud(volume: Volume, view: View, cloud: Cloud) -> Sight:
    _, along = _uncertain(volume)
    if along > volume.size.max():
        away = float(np.linalg.norm(volume.centre - view.pose.translation))
        known = f"its place is known to {max(away - along, 0):.1f} to {away + along:.1f} m only"
        return Sight(reason=f"{known}, it is {volume.size.max():.1f} m large")
    count = len(cloud.inside(volume, MARGIN))
    if count < LEAST_POINTS:
        return Sight(reason=f"too few points: {count} in its box, {LEAST_POINTS} wanted")
    return Sight()


def _picture(view: View) -> Rectangle:
    return Rectangle(0, 0, *view.reading.size)


def _uncertain(volume: Volume) -> tuple[NDArray[np.float64], float]:
    """The direction in which least is known of a place, and its standard deviation, metres."""
    variances, axes = np.linalg.eigh(volume.spread)
    return axes[:, -1], float(np.sqrt(max(variances[-1], 0.0)))


def _places(volume: Volume, eye: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the box ``[3, 27, 3]``: where it is, and one standard deviation away both ways.

    It is as large as the distance makes it, from where the line along which it may be passes the eye, if that line
    leads to the eye: there stood the camera that saw it, or near.
    """
    grid = (_GRID * volume.size / 2) @ volume.rotation.T
    axis, along = _uncertain(volume)
    away = float(axis @ (volume.centre - eye))
    to_eye = abs(away) > _ALONG * float(np.linalg.norm(volume.centre - eye))
    steps = np.array([0.0, -along, along])
    scales = np.maximum(1 + steps / away, _LEAST_SCALE) if to_eye and away else np.ones(3)
    if to_eye and away:
        steps = (scales - 1) * away
    return np.asarray(volume.centre + steps[:, None, None] * axis + scales[:, None, None] * grid)


def _bounds(pixels: NDArray[np.float64]) -> Rectangle | None:
    """Around all pixels ``[..., 2]`` that the lens can see; ``None`` if that is nothing."""
    flat = pixels.reshape(-1, 2)
    flat = flat[np.isfinite(flat).all(axis=1)]
    if len(flat) < 2:
        return None
    box = Rectangle(*flat.min(axis=0).tolist(), *flat.max(axis=0).tolist())
    return box if box.area else None
