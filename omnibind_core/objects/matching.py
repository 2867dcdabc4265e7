"""Which regions, of several proposers, are one thing."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnibind_core.objects.regions import Candidate, Rectangle, Region2D, Region3D, Volume
from omnibind_core.objects.rig import View
from omnibind_core.objects.visibility import Places

GATE = 7.8
"""Square of the distance of two centres, in standard deviations, that 95 % of the pairs are below that are one
(chi-squared, three dimensions)."""
_INSIDE = 0.8  # of the smaller box, that is in the other: one may have found a part of what the other has found
_PART = 0.2  # of the area, or volume, that the smaller one has at least: a cup is no part of the table that it is on
_BY_PLACE = 0.5  # what two vague places that agree count, of boxes that are the same
_VAGUE = 0.5  # of the longest side; clusters know their centres to half of that
_CUBES = np.stack(np.meshgrid(*[(np.arange(6) + 0.5) / 6 - 0.5] * 3), axis=-1).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class Placed:
    """A region, and where it is in space.

    Attributes:
        region: The region.
        volume: Where.
        view: How the sensor of a :class:`Region2D` looked when it saw it.
    """

    region: Region2D | Region3D
    volume: Volume
    view: View | None = None

    @property
    def origin(self) -> tuple[str, str]:
        """Who found it in what: two regions of one origin are two things."""
        return self.region.proposer, self.region.sensor

    @functools.cached_property
    def vague(self) -> bool:
        """Whether its place is known less well than it is large."""
        return is_vague(self.volume)


def merge(regions: Sequence[Placed], overlap: float = 0.3) -> list[Candidate]:
    """Makes one candidate of what is one thing: the surest pairs first, none with two regions of one origin.

    Two regions are one thing if they overlap in a picture of one of them, and are not at different places as far as
    these are known; if their boxes in space overlap, or the centre of one is in the other; or, where both are known
    along a ray only, if the rays meet. A part of a thing, such as one of the two clusters that a chair has become, goes
    to the thing if it is in its box in space; a box that is much smaller than the one around it is a thing of its own.

    Args:
        regions: The regions.
        overlap: Intersection over union from which on two boxes are of one thing.

    Returns:
        Candidates, those first whose first region comes first. A candidate has the place of the region whose place is
        known best.
    """
    likeness = _likeness(regions, overlap)
    group = list(range(len(regions)))
    members = {index: [index] for index in group}
    first, second = np.nonzero(np.triu(likeness, 1))
    order = np.lexsort((second, first, -likeness[first, second]))
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        one, other = sorted((group[a], group[b]))
        if one == other:
            continue
        if {regions[index].origin for index in members[one]} & {regions[index].origin for index in members[other]}:
            continue
        for index in members[other]:
            group[index] = one
        members[one] += members.pop(other)
    return [candidate_of([regions[index] for index in sorted(found)]) for found in _without_parts(regions, members)]


def _without_parts(regions: Sequence[Placed], members: dict[int, list[int]]) -> Iterator[list[int]]:
    """Groups, less those that are one region of an origin that a larger group has, inside of that group's box."""
    large = {key: found for key, found in members.items() if len(found) > 1}
    for key, found in members.items():
        alone = regions[found[0]]
        if key in large or not any(_is_part(alone, [regions[index] for index in other]) for other in large.values()):
            yield found


def _is_part(alone: Placed, others: Sequence[Placed]) -> bool:
    if alone.vague or alone.origin not in {other.origin for other in others}:
        return False
    best = _best(others)
    if best.vague or np.prod(alone.volume.size) > np.prod(best.volume.size):
        return False
    return any(_holds(other, alone) for other in others) and bool(
        best.volume.inside(alone.volume.centre[None], 0.25 * float(best.volume.size.max()))[0]
    )


def _holds(other: Placed, alone: Placed) -> bool:
    """Whether a region in a picture has all of another in its box."""
    if not isinstance(other.region, Region2D) or other.view is None:
        return False
    box = _shown(alone, other)
    return box is not None and box.within(other.region.box).area >= _INSIDE * box.area


def uncertain(volume: Volume) -> tuple[NDArray[np.float64], float]:
    """The direction in which least is known of a place, and its standard deviation, metres."""
    variances, axes = np.linalg.eigh(volume.spread)
    return axes[:, -1], float(np.sqrt(max(variances[-1], 0.0)))


def is_vague(volume: Volume) -> bool:
    """Whether a place is known along a ray only: less well than half of the thing's size.

    What one picture has found may be near and small or far and large, so its size grows with what is not known.
    """
    return bool(uncertain(volume)[1] > _VAGUE * volume.size.max())


def _best(regions: Sequence[Placed]) -> Placed:
    return min(regions, key=lambda placed: float(np.trace(placed.volume.spread)))


def candidate_of(regions: Sequence[Placed]) -> Candidate:
    """One candidate of regions, at least one, that are one thing."""
    boxes: dict[str, Region2D] = {}
    for region in (placed.region for placed in regions):
        if isinstance(region, Region2D) and (region.sensor not in boxes or region.score > boxes[region.sensor].score):
            boxes[region.sensor] = region
    return Candidate(
        _best(regions).volume,
        boxes,
        max(placed.region.stamp_ns for placed in regions),
        max(placed.region.score for placed in regions),
        tuple(dict.fromkeys(placed.region.proposer for placed in regions)),
    )


def _likeness(regions: Sequence[Placed], overlap: float) -> NDArray[np.float64]:
    """``[n, n]``, upper triangle: how much two regions are one thing, 0 if they are not."""
    found = np.zeros((len(regions), len(regions)))
    near = _near(regions)
    for a, b in zip(*(indices.tolist() for indices in np.nonzero(near)), strict=True):
        one, other = regions[a], regions[b]
        if one.origin == other.origin:
            continue
        in_picture = [_in_picture(one, other, overlap), _in_picture(other, one, overlap)]
        known = [value for value in in_picture if value is not None]
        if known:
            found[a, b] = max(known)
        elif not one.vague and not other.vague:
            found[a, b] = _in_space(one.volume, other.volume, overlap)
        elif _meet(one, other) and _meet(other, one):
            found[a, b] = _BY_PLACE * float(np.exp(-near[a, b] / 2))
    return found


def _near(regions: Sequence[Placed]) -> NDArray[np.float64]:
    """``[n, n]``, upper triangle: square of the distance of two centres in standard deviations, 0 beyond the gate."""
    centres = np.array([placed.volume.centre for placed in regions]).reshape(-1, 3)
    spreads = np.array([_slack(placed.volume) for placed in regions]).reshape(-1, 3, 3)
    one, other = np.triu_indices(len(regions), 1)
    found = np.zeros((len(regions), len(regions)))
    away = centres[one] - centres[other]
    scaled = np.linalg.solve(spreads[one] + spreads[other], away[:, :, None])[:, :, 0]
    squares = (away * scaled).sum(axis=1)
    found[one, other] = np.where(squares < GATE, np.maximum(squares, np.finfo(np.float64).tiny), 0.0)
    return found


def _slack(volume: Volume) -> NDArray[np.float64]:
    """Covariance of where its centre is, for others that have found another part of it."""
    return np.asarray(volume.spread + (volume.rotation * (volume.size / 4) ** 2) @ volume.rotation.T)


def _shown(placed: Placed, by: Placed) -> Rectangle | None:
    """Where a region is in the picture of another one; ``None`` if its place does not tell."""
    assert by.view is not None
    region = placed.region
    if isinstance(region, Region2D) and (region.sensor, region.stamp_ns) == (by.region.sensor, by.region.stamp_ns):
        return region.box
    return None if placed.vague else outline(placed.volume, by.view)


def outline(volume: Volume, view: View) -> Rectangle | None:
    """Around the corners of a box in a picture, pixels from its outer edge; ``None`` if the lens does not see all."""
    pixels, _ = view.project(volume.corners)
    if not np.isfinite(pixels).all():
        return None
    (left, top), (right, bottom) = pixels.min(axis=0) + 0.5, pixels.max(axis=0) + 0.5
    return Rectangle(float(left), float(top), float(right), float(bottom))


def _in_picture(placed: Placed, by: Placed, overlap: float) -> float | None:
    """Likeness in the picture of ``by``; ``None`` if there is none in which both are."""
    if not isinstance(by.region, Region2D) or by.view is None:
        return None
    box, own = _shown(placed, by), by.region.box
    if box is None or not box.area:
        return None
    return _alike(box.within(own).area, box.area, own.area, overlap)


def _meet(placed: Placed, by: Placed) -> bool:
    """Whether a region, wherever it may be along its ray, can be what another one is in its picture."""
    if not isinstance(by.region, Region2D) or by.view is None:
        return True
    return by.region.box.within(Places([placed.volume]).seen(by.view)[0].whole).area > 0


def _in_space(one: Volume, other: Volume, overlap: float) -> float:
    """Likeness of two boxes in space."""
    both = float(other.inside(one.centre + (_CUBES * one.size) @ one.rotation.T).mean() * np.prod(one.size))
    back = float(one.inside(other.centre + (_CUBES * other.size) @ other.rotation.T).mean() * np.prod(other.size))
    alike = _alike(max(both, back), float(np.prod(one.size)), float(np.prod(other.size)), overlap)
    if not alike and (one.inside(other.centre[None])[0] or other.inside(one.centre[None])[0]):
        sizes = sorted((float(np.prod(one.size)), float(np.prod(other.size))))
        return overlap if sizes[0] >= _PART * sizes[1] else 0.0
    return alike


def _alike(both: float, one: float, other: float, overlap: float) -> float:
    """From what two boxes share and are large: the share of both in all, or, of a part, in the smaller one."""
    smaller, larger = sorted((one, other))
    union = both / max(one + other - both, 1e-12)
    if union >= overlap:
        return union
    return overlap if both >= _INSIDE * smaller and smaller >= _PART * larger else 0.0
