"""What is known of where a thing is: in one picture, in space, and both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError

FURTHEST = 1e8
"""Metres from the origin of the fixed frame, of maps of the Earth, too; what is further away is no place."""


class Rectangle(NamedTuple):
    """A part of a picture, in pixels from its outer edge: the whole is ``(0, 0, W, H)``.

    What :class:`~omnibind_core.geometry.Camera` calls ``(u, v)``, counting from the centre of the first pixel, is at
    ``(u + 0.5, v + 0.5)`` here.
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels across."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels down."""
        return self.bottom - self.top

    @property
    def area(self) -> float:
        """Square pixels, 0 of one that is turned inside out."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle, pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def holds(self, point: tuple[float, float]) -> bool:
        """Whether a point is in it."""
        return self.left <= point[0] <= self.right and self.top <= point[1] <= self.bottom

    def within(self, other: Rectangle) -> Rectangle:
        """What both cover; of area 0 if that is nothing."""
        return Rectangle(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    def overlap(self, other: Rectangle) -> float:
        """Intersection over union, 0..1."""
        both = self.within(other).area
        return both / (self.area + other.area - both) if both else 0.0


@dataclass(frozen=True, eq=False)
class Region2D:
    """A thing in the picture of one sensor.

    Attributes:
        sensor: Sensor in whose picture it is: a camera, a thermal or an event camera.
        box: Where.
        stamp_ns: Of the picture.
        score: How sure its proposer is that there is a thing, 0..1.
        proposer: Who found it: a detector's topic, or one of our proposers.
        mask: ``bool [H, W]`` of the box, its rows and columns rounded outwards; ``None`` if all of it may be the thing.
        depth: Nearest and furthest metre along the optical axis; ``None`` if nothing is known.
    """

    sensor: str
    box: Rectangle
    stamp_ns: int
    score: float = 1.0
    proposer: str = ""
    mask: NDArray[np.bool_] | None = field(default=None, repr=False)
    depth: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.box).all() or not self.box.area:
            told = ", ".join(f"{value:g}" for value in self.box)
            raise InvalidInputError(
                self.sensor, f"a box from {self.proposer or 'nobody'} of {told}", "one with an area"
            )


@dataclass(frozen=True, eq=False)
class Volume:
    """A thing in space, in the fixed frame.

    Attributes:
        centre: ``float64 [3]``, metres.
        size: ``float64 [3]``, sides of the box along its own axes, metres.
        rotation: ``float64 [3, 3]``, from the box's axes to the fixed frame.
        spread: ``float64 [3, 3]``, covariance of the centre, square metres: long along the ray where only a picture saw
            it, whose size is then that at the centre.
    """

    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    rotation: NDArray[np.float64]
    spread: NDArray[np.float64]

    def __post_init__(self) -> None:
        values = (self.centre, self.size, self.rotation, self.spread)
        far = max(float(np.abs(value).max()) for value in (self.centre, self.size))
        if not all(np.isfinite(value).all() for value in values) or not (self.size > 0).all() or far > FURTHEST:
            found = f"a box at {self.centre.tolist()} of {self.size.tolist()} m"
            raise InvalidInputError("objects", found, f"sides above 0, and no more than {FURTHEST:g} m")

    @property
    def corners(self) -> NDArray[np.float64]:
        """``float64 [8, 3]``."""
        return self.centre + (_SIGNS * self.size / 2) @ self.rotation.T

    def inside(self, points: NDArray[np.floating], margin: float = 0.0) -> NDArray[np.bool_]:
        """Which points ``[N, 3]`` of the fixed frame are in the box, made larger by so many metres on each side."""
        local = (np.asarray(points, np.float64) - self.centre) @ self.rotation
        return np.asarray((np.abs(local) <= self.size / 2 + margin).all(axis=1))


_SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@dataclass(frozen=True, eq=False)
class Region3D:
    """A thing in space, found by one sensor, or by a detector that gives boxes in space.

    Attributes:
        volume: Where.
        stamp_ns: Of the cloud.
        sensor: Sensor whose points it was found in; ``""`` if that is not known.
        score: How sure its proposer is that there is a thing, 0..1.
        proposer: Who found it.
    """

    volume: Volume
    stamp_ns: int
    sensor: str = ""
    score: float = 1.0
    proposer: str = ""


@dataclass(frozen=True, eq=False)
class Candidate:
    """What may be one thing, from all proposers that found it.

    Attributes:
        volume: Where.
        boxes: By sensor, the region in its picture, of those pictures that it was found in.
        stamp_ns: Of the newest of its regions.
        score: How sure the surest of its proposers is, 0..1.
        proposers: Who found it.
    """

    volume: Volume
    boxes: Mapping[str, Region2D]
    stamp_ns: int
    score: float
    proposers: tuple[str, ...]
