"""How far away a thing in a picture is, and how large: from the points around it, or from what its detector knows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.objects.regions import Rectangle, Region2D, Volume
from omnibind_core.objects.rig import View
from omnibind_core.objects.snapshot import Snapshot

LIMITS = (0.5, 30.0)
"""Metres along the optical axis, between which a thing is of which no more is known; any ratio is as likely."""
_FEWEST = 4  # points that tell a distance
_INNER = 0.2  # of the box, left out on each side: there is what is behind
_DENSE = 0.2  # of what the largest group covers of the box, that a nearer one has to cover
_PARTS, _STEPS = 8, 5.0  # of a side of the box, and of the logarithm of the distance, in which points count as one
_DEEP = (0.3, 0.1)  # m, and share of the distance, that one group is deep
_FIRST, _LAST = 0.16, 0.84  # quantiles one standard deviation from the middle
_SIDE = 0.125  # of a side, standard deviation of the box's place in the picture
_ROUNDS = 3  # until the picture of the box is the region; askew, it is larger at first
_THICK = 0.25  # of the thickness, which is not seen


def place(region: Region2D, snapshot: Snapshot, limits: tuple[float, float] = LIMITS) -> Volume:
    """Where a thing in a picture is in space.

    Its front is the nearest dense group of points in its mask, or in the inner part of its box, that are not of the
    ground: what is behind is further away, and a few points in front are too few. Without such points
    :attr:`Region2D.depth` tells, else it is anywhere between the limits: then ``spread`` is long along the ray, and the
    centre in the middle of what one standard deviation covers. The box looks to the sensor, so that its picture is the
    region's; it is as thick as the shorter of its other sides, since nobody sees that.

    Args:
        region: The thing in the picture.
        snapshot: The tick; it has a view of the region's sensor.
        limits: Nearest and furthest metre of what nothing is known of.

    Raises:
        InvalidInputError: The box is outside of the picture, or where the lens sees nothing, or its depth is none.
    """
    view = snapshot.views.get(region.sensor)
    if view is None or view.camera is None:
        raise InvalidInputError(region.sensor, f"a box from {region.proposer or 'nobody'}", "one of a camera in use")
    front = _front(region, snapshot)
    if front is None:
        near, far = limits if region.depth is None else region.depth
        if not 0 < near <= far < np.inf:
            raise InvalidInputError(region.sensor, f"a depth of {near:g} to {far:g} m", "metres above 0, nearest first")
        low, high = (near * (far / near) ** share for share in (_FIRST, _LAST))
        front = (low + high) / 2, (high - low) / 2
    return _volume(region.box, view, *front)


def _front(region: Region2D, snapshot: Snapshot) -> tuple[float, float] | None:
    """Distance of the front along the optical axis and its standard deviation, metres."""
    cover = snapshot.cover(region.sensor)
    found = cover.within(region.box)
    found = found[_in_region(cover.pixels[found], region)]
    above = found[snapshot.above[cover.index[found]]]
    found = above if len(above) >= _FEWEST else found  # a thing may lie flat
    if len(found) < _FEWEST:
        return None
    found = found[np.argsort(cover.distance[found])]
    distance = cover.distance[found]
    ends = np.searchsorted(distance, distance + _DEEP[0] + _DEEP[1] * distance, "right")
    covered = np.cumsum([0.0, *_weights(cover.pixels[found], distance, region.box)])
    parts = covered[ends] - covered[:-1]
    dense = (parts >= _DENSE * parts.max()) & (ends - np.arange(len(ends)) >= _FEWEST)
    if not dense.any():
        return None
    start = int(np.argmax(dense))
    # From there on, the fullest that begins inside of it: the first may have begun with the few in front.
    start += int(np.argmax(parts[start : ends[start]]))
    group = distance[start : ends[start]]
    return float(np.quantile(group, 0.1)), max(float(group.std()), 0.02) / np.sqrt(min(len(group), 16) / _FEWEST)


def _weights(pixels: NDArray[np.float64], distance: NDArray[np.float64], box: Rectangle) -> NDArray[np.float64]:
    """One for each part of the box and step of the distance, shared by the points in it: dense clouds count no more."""
    parts = ((pixels - (box.left, box.top)) * (_PARTS / box.width, _PARTS / box.height)).astype(np.int64)
    steps = (np.log(distance) * _STEPS).astype(np.int64)
    key = ((steps - steps.min()) * _PARTS + parts[:, 1]) * _PARTS + parts[:, 0]
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[inverse])


def _in_region(pixels: NDArray[np.float64], region: Region2D) -> NDArray[np.bool_]:
    """Which pixels ``[N, 2]`` in the box are in the mask, or in the inner part."""
    box = region.box
    if region.mask is None:
        across, down = _INNER * box.width, _INNER * box.height
        low, high = (box.left + across, box.top + down), (box.right - across, box.bottom - down)
        return np.asarray(((pixels >= low) & (pixels <= high)).all(axis=1))
    rows, columns = region.mask.shape
    column, row = (pixels - np.floor((box.left, box.top))).astype(np.intp).T
    return np.asarray(region.mask[row.clip(0, rows - 1), column.clip(0, columns - 1)])


def _volume(box: Rectangle, view: View, front: float, along: float) -> Volume:
    assert view.camera is not None
    shown = box.within(Rectangle(0, 0, *view.reading.size))
    corners = [(x, y) for x in (shown.left, shown.right) for y in (shown.top, shown.bottom)]
    rays = view.camera.rays(np.array([shown.centre, *corners]) - 0.5) @ view.pose.rotation.T
    if not shown.area or not np.isfinite(rays).all():
        told = ", ".join(f"{value:g}" for value in box)
        raise InvalidInputError(view.reading.sensor, f"a box of {told}", "one in what the lens sees")
    eye, away = view.pose.translation, front * float(np.linalg.norm(rays[0]))
    axes = _facing(rays[0], view.pose.rotation)
    face = rays[1:] @ axes
    face *= (away / face[:, 0])[:, None]  # where the rays of the corners meet the front
    sides = np.ptp(face[:, 1:], axis=0)
    for _ in range(_ROUNDS):
        thick = float(sides.min())
        variances = np.array([(along * away / front) ** 2 + (_THICK * thick) ** 2, *(_SIDE * sides) ** 2])
        size, centre = np.array([thick, *sides]), eye + (away + thick / 2) * axes[:, 0]
        volume = Volume(centre, size, axes, (axes * variances) @ axes.T)
        pixels = view.project(volume.corners)[0] + 0.5
        if not np.isfinite(pixels).all():
            break
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        aside = ((low + high) / 2 - shown.centre) * sides / (high - low)  # left and up, where pixels go right and down
        sides = sides * (shown.width, shown.height) / (high - low)
        axes = _facing(axes @ (away, *aside), view.pose.rotation)
    return volume


def _facing(ray: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes of a box as columns: along the ray, to the left in the picture, and up in it."""
    ray = ray / np.linalg.norm(ray)
    left = ray * (ray @ rotation[:, 0]) - rotation[:, 0]
    left /= np.linalg.norm(left)
    return np.stack([ray, left, np.cross(ray, left)], axis=1)
