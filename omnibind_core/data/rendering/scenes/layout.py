"""Where things stand in front of a robot, in a room or in a street."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from omnibind_core.data.rendering.demo_objects import COOL
from omnibind_core.data.rendering.scenes.places import Kind, Light, planks, room, street
from omnibind_core.data.rendering.scenes.stage import Body, Stage
from omnibind_core.data.rendering.scenes.surfaces import Paint, Surface, box

_SPREAD = math.radians(32)  # things stand within, to both sides of where the robot looks at first
_TURN = math.radians(55)  # by which fronts are turned from the robot at most
_HIDDEN = 0.35  # of the nearer of two things in one direction, that may overlap with the other
_TRIES = 60
_GAP = 0.1  # m between things


class Limits(NamedTuple):
    """How things are placed in one kind of place.

    Attributes:
        angle: Smallest and largest angle, degrees, that the longest side is seen at.
        distance: Nearest and furthest, metres.
        low: Height, m, up to which a thing stands on a stand.
        speed: Of what moves, m/s for each metre of its distance; 0: nothing does.
    """

    angle: tuple[float, float]
    distance: tuple[float, float]
    low: float
    speed: float


LIMITS: dict[str, Limits] = {
    "rooms": Limits((9.0, 20.0), (1.3, 4.5), 0.55, 0.03),
    "streets": Limits((8.0, 18.0), (2.4, 40.0), 0.0, 0.05),
}


@dataclass(frozen=True, eq=False)
class Built:
    """A thing, standing on z = 0 above the origin, its front towards -y.

    Attributes:
        label: What it is.
        look: What cameras see.
        shape: What a LiDAR meets.
        temperature: Assumed, degrees Celsius.
        faces: Whether it looks right from its front alone.
        moves: Whether it can move.
        samples: By modality, what a sensor recorded of such a thing, which is shown instead of what it would see of
            this one; a sensor without a sample does not see it. ``None``: all see it as it is.
        nearer: How many times nearer it is placed than its size would tell.
    """

    label: str
    look: Surface
    shape: Surface
    temperature: float
    faces: bool
    moves: bool
    samples: Mapping[str, Any] | None = None
    nearer: float = 1.0

    def seen_by(self, modality: str) -> bool:
        """Whether sensors of a modality see it."""
        return self.samples is None or modality in self.samples


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing in a scene.

    Attributes:
        built: What it is and looks like.
        centre: ``float64 [3]``, of its box at first, metres.
        size: ``float64 [3]``, of its box, along its own axes.
        yaw: Of its box, rad.
        velocity: ``(x, y, z)``, m/s.
    """

    built: Built
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw: float
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def at(self, seconds: float) -> NDArray[np.float64]:
        """Centre of its box, ``float64 [3]``, so long after the beginning."""
        return self.centre + seconds * np.array(self.velocity)

    def put(self, surface: Surface) -> Surface:
        """A surface of it, where it is at first."""
        return surface.turned(self._turn).moved(self.centre - np.array([0, 0, self.size[2] / 2]))

    def placed(self, points: NDArray[np.floating], seconds: float) -> NDArray[np.float64]:
        """Points ``[N, 3]`` of it, standing on z = 0 above the origin, so long after the beginning."""
        return np.asarray(points @ self._turn.T + self.at(seconds) - np.array([0, 0, self.size[2] / 2]))

    @property
    def _turn(self) -> NDArray[np.float64]:
        return np.asarray(Rotation.from_euler("z", self.yaw).as_matrix())


@dataclass(frozen=True, eq=False)
class Scene:
    """Things and what is around them. The robot stands at the origin and looks along x.

    Attributes:
        things: Things; their numbers as bodies are those in this order.
        light: What lights it.
        look: What cameras see.
        shape: What a LiDAR meets.
        temperatures: ``float32 [B]``, by number of the body, degrees Celsius.
        sky: Degrees Celsius of what is behind everything.
    """

    things: tuple[Thing, ...]
    light: Light
    look: Stage = field(repr=False)
    shape: Stage = field(repr=False)
    temperatures: NDArray[np.float32]
    sky: float


def compose(kind: Kind, things: Iterable[Built], number: int, seconds: float, rng: np.random.Generator) -> Scene:
    """Furnishes a place with things of different labels.

    Args:
        kind: What kind of place.
        things: What it can be furnished with; what finds no space is left out.
        number: Things; fewer, where no space is found for so many.
        seconds: That things move for.
        rng: Source of all choice.

    Raises:
        DataError: A file of a package is damaged.
        MissingDependencyError: open3d is not installed.
    """
    placed: list[Thing] = []
    stands: list[Surface] = []
    for built in things:
        found = _place(built, placed, LIMITS[kind], seconds, rng)
        if found:
            placed.append(found)
            stands += _stand(found, rng)
        if len(placed) == number:
            break
    return assemble(kind, placed, stands, rng)


def assemble(kind: Kind, things: Sequence[Thing], stands: Sequence[Surface], rng: np.random.Generator) -> Scene:
    """Puts placed things and what they stand on into a place.

    Args:
        kind: What kind of place.
        things: The things.
        stands: What some of them stand on.
        rng: Source of colours and light.

    Raises:
        MissingDependencyError: open3d is not installed.
    """
    reach = [np.append(thing.at(0)[:2], np.hypot(*thing.size[:2]) / 2) for thing in things]
    place = (room if kind == "rooms" else street)(reach, rng)
    around = [*place.surfaces, *((stand, COOL) for stand in stands)]
    first = len(things)
    bodies = [Body(first + number, surface) for number, (surface, _) in enumerate(around)]
    looks = [Body(number, thing.put(thing.built.look), thing.velocity) for number, thing in enumerate(things)]
    shapes = [
        Body(number, thing.put(thing.built.shape), thing.velocity)
        for number, thing in enumerate(things)
        if thing.built.samples is None
    ]
    warmth = [*(thing.built.temperature for thing in things), *(degrees for _, degrees in around)]
    look, shape = Stage([*looks, *bodies]), Stage([*shapes, *bodies])
    return Scene(tuple(things), place.light, look, shape, np.array(warmth, np.float32), place.sky)


def _place(
    built: Built, others: Sequence[Thing], limits: Limits, seconds: float, rng: np.random.Generator
) -> Thing | None:
    """Somewhere in front of the robot, where nothing else is; ``None`` if no such place was found."""
    size = built.shape.size.astype(np.float64)
    seen = math.radians(rng.uniform(*limits.angle))
    distance = float(np.clip(max(built.look.size) / math.tan(seen) / built.nearer, *limits.distance))
    height = float(rng.uniform(0.6, 0.85)) if size[2] < limits.low else 0.0
    for _ in range(_TRIES):
        azimuth = float(rng.uniform(-_SPREAD, _SPREAD))
        turn = rng.uniform(-0.2, 0.2) if built.faces else rng.uniform(-_TURN, _TURN)
        away = distance + float(size[1]) / 2 + float(rng.uniform(0, 0.3 * distance))
        centre = np.array([away * math.cos(azimuth), away * math.sin(azimuth), height + size[2] / 2])
        speed = limits.speed * away * float(rng.uniform(0.5, 1.0)) if built.moves and not height else 0.0
        sideways = -math.copysign(1.0, azimuth)
        along = speed * sideways
        velocity = (-along * math.sin(azimuth), along * math.cos(azimuth), 0.0)
        thing = Thing(built, centre, size, azimuth - math.pi / 2 + turn, velocity)
        ends = thing.at(0), thing.at(seconds)
        if all(_apart(end, size, other, seconds) for end in ends for other in others):
            return thing
    return None


def _apart(centre: NDArray[np.float64], size: NDArray[np.float64], other: Thing, seconds: float) -> bool:
    """Whether a thing is not in another, nor hides too much of it or is hidden."""
    own, its = (float(np.hypot(*one[:2])) / 2 for one in (size, other.size))
    for there in (other.at(0), other.at(seconds)):
        if np.hypot(*(centre - there)[:2]) < own + its + _GAP:
            return False
    far, near = np.hypot(*centre[:2]), np.hypot(*other.centre[:2])
    wide = own / far, its / near
    between = abs(math.atan2(centre[1], centre[0]) - math.atan2(other.centre[1], other.centre[0]))
    return between > sum(wide) - 2 * _HIDDEN * min(wide)


def _stand(thing: Thing, rng: np.random.Generator) -> Iterator[Surface]:
    """What a small thing stands on."""
    top = thing.centre[2] - thing.size[2] / 2
    if top < 0.01:
        return
    side = max(float(np.hypot(*thing.size[:2])) / 2 + 0.05, 0.15)
    x, y = thing.centre[:2]
    grey = rng.uniform(0.35, 0.85)
    paint = Paint((1, 1, 1), planks(rng, grey)) if rng.random() < 0.6 else Paint((grey, grey, grey))
    yield box((x - side, y - side, top - 0.03), (x + side, y + side, top), paint)
    leg = side * 0.8
    yield box((x - leg, y - leg, 0), (x + leg, y + leg, top - 0.03), paint)
