"""What is around things: a room, or a street, and the light in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering.scenes.surfaces import Paint, Surface, box, joined

Kind = Literal["rooms", "streets"]
_WALL = 0.05  # m that a wall is thick
_NIGHT, _DIM = 0.5, (0.005, 0.2)  # share of places that are dim, and how bright they are
_TEXTURE = 256  # pixels


@dataclass(frozen=True, eq=False)
class Light:
    """What lights a place.

    Attributes:
        place: Of the lamp, or of the sun, metres.
        strength: Of what is turned towards it, 1: white is white.
        above: RGB of the light from all of the upper half.
        below: The same of the lower.
        sky: RGB of what is behind everything, at the horizon; it gets darker upwards.
        level: Of all light, 1: as bright as a camera needs it.
    """

    place: tuple[float, float, float]
    strength: float
    above: tuple[float, float, float]
    below: tuple[float, float, float]
    sky: tuple[float, float, float] = (0.75, 0.82, 0.9)
    level: float = 1.0


@dataclass(frozen=True, eq=False)
class Place:
    """A place without things.

    Attributes:
        surfaces: What it is made of, and degrees Celsius of each.
        light: What lights it.
        sky: Degrees Celsius of what is behind everything.
    """

    surfaces: list[tuple[Surface, float]]
    light: Light
    sky: float


def room(reach: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> Place:
    """A floor, walls and a ceiling around circles ``(x, y, radius)`` of the floor, metres."""
    far = max([3.0, *(float(x + radius) + rng.uniform(0.3, 1.2) for x, _, radius in reach)])
    wide = max([1.8, *(float(abs(y) + radius) + rng.uniform(0.3, 1.0) for _, y, radius in reach)])
    high = 2.7
    tint = rng.uniform(0.62, 0.92) * (1 - rng.uniform(0, 0.12, 3))
    wall = Paint((1, 1, 1), _speckled(rng, tint, 0.012))
    floor = Paint((1, 1, 1), planks(rng, rng.uniform(0.4, 0.7)) if rng.random() < 0.6 else _tiles(rng))
    low, top = (-2.0, -wide), (far, wide)
    walls = [
        box((far, low[1], 0), (far + _WALL, top[1], high), wall, 2.0),
        box((low[0], low[1] - _WALL, 0), (far, low[1], high), wall, 2.0),
        box((low[0], top[1], 0), (far, top[1] + _WALL, high), wall, 2.0),
        box((low[0] - _WALL, low[1], 0), (low[0], top[1], high), wall, 2.0),
    ]
    board = Paint((0.9, 0.9, 0.88))
    skirting = [
        box((far - 0.015, low[1], 0), (far, top[1], 0.09), board),
        box((low[0], low[1], 0), (far, low[1] + 0.015, 0.09), board),
        box((low[0], top[1] - 0.015, 0), (far, top[1], 0.09), board),
    ]
    found = [
        (joined([*walls, *skirting]), 21.0),
        (box((low[0], low[1], -_WALL), (far, top[1], 0), floor, 2.0), 20.0),
        (box((low[0], low[1], high), (far, top[1], high + _WALL), Paint((0.93, 0.93, 0.93))), 21.5),
    ]
    lamp = (rng.uniform(0.2, 0.5) * far, rng.uniform(-0.5, 0.5) * wide, high - 0.3)
    warm = rng.uniform(0.9, 1.0)
    above, below = (0.36, 0.36 * warm, 0.35 * warm), (0.26, 0.25 * warm, 0.24 * warm)
    light = Light(lamp, 0.65, above, below, level=_level(rng))
    return Place(found, light, 21.0)


def street(reach: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> Place:
    """Ground, and buildings behind circles ``(x, y, radius)`` of it, metres."""
    far = max([12.0, *(float(x + radius) for x, _, radius in reach)]) + 3.0
    wide = max([8.0, *(float(abs(y) + radius) for _, y, radius in reach)]) + 2.0
    grey = rng.uniform(0.3, 0.5)
    ground = Paint((1, 1, 1), _speckled(rng, np.array([grey, grey, grey]), 0.03))
    found = [(box((-30, -3 * wide, -0.1), (2 * far, 3 * wide, 0), ground, 3.0), 19.0)]
    y = -2 * wide
    while y < 2 * wide:
        front, high = rng.uniform(8, 16), rng.uniform(6, 14)
        paint = Paint((1, 1, 1), _facade(rng))
        begin = far + rng.uniform(0, 3)
        found.append((box((begin, y, 0), (begin + 10, y + front, high), paint, 3.0), float(rng.uniform(16, 20))))
        y += front + (rng.uniform(2, 5) if rng.random() < 0.3 else 0)
    turn = rng.uniform(-1.2, 1.2)  # the sun stands behind the robot, or beside it
    sun = (-600 * math.cos(turn), 600 * math.sin(turn), rng.uniform(450, 900))
    sky = tuple(np.array([0.72, 0.8, 0.92]) * rng.uniform(0.9, 1.0))
    light = Light(sun, 0.75, (0.34, 0.37, 0.42), (0.2, 0.19, 0.18), (sky[0], sky[1], sky[2]), _level(rng))
    return Place(found, light, -10.0)


def _level(rng: np.random.Generator) -> float:
    """Robots work by day and by night."""
    return float(np.exp(rng.uniform(*np.log(_DIM)))) if rng.random() < _NIGHT else 1.0


def _speckled(rng: np.random.Generator, colour: NDArray[np.floating], contrast: float) -> NDArray[np.uint8]:
    """One colour, in which fine and coarse grains differ."""
    grains = np.pad(rng.normal(0, contrast, (2, _TEXTURE, _TEXTURE)), ((0, 0), (8, 8), (8, 8)), "wrap")  # no seams
    fine, coarse = (
        cv2.GaussianBlur(of, (0, 0), width)[8:-8, 8:-8] * width for of, width in zip(grains, (1, 4), strict=True)
    )
    return _bytes(colour + (fine + coarse)[..., None])


def planks(rng: np.random.Generator, bright: float) -> NDArray[np.uint8]:
    """Eight planks of wood, of two metres together."""
    wood = bright * np.array([1.0, rng.uniform(0.72, 0.85), rng.uniform(0.45, 0.65)])
    picture = np.empty((_TEXTURE, _TEXTURE, 3))
    step = _TEXTURE // 8
    for number in range(8):
        grain = cv2.resize(rng.normal(0, 0.035, (step, 4)), (_TEXTURE, step), interpolation=cv2.INTER_CUBIC)
        picture[number * step : (number + 1) * step] = wood * rng.uniform(0.85, 1.1) + grain[..., None]
        picture[number * step] *= 0.6
        picture[number * step : (number + 1) * step, rng.integers(_TEXTURE)] *= 0.6
    return _bytes(picture)


def _tiles(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Tiles of half a metre, of two metres together."""
    picture = np.empty((_TEXTURE, _TEXTURE, 3))
    step = _TEXTURE // 4
    tint = rng.uniform(0.45, 0.8) * (1 - rng.uniform(0, 0.15, 3))
    for row in range(4):
        for column in range(4):
            tile = np.s_[row * step : (row + 1) * step, column * step : (column + 1) * step]
            picture[tile] = tint * rng.uniform(0.94, 1.05) + rng.normal(0, 0.012, (step, step, 1))
    picture[::step] *= 0.7
    picture[:, ::step] *= 0.7
    return _bytes(picture)


def _facade(rng: np.random.Generator) -> NDArray[np.uint8]:
    """One window in a wall, of three by three metres."""
    wall = rng.uniform(0.45, 0.8) * (1 - rng.uniform(0, 0.3, 3))
    picture = wall + rng.normal(0, 0.02, (_TEXTURE, _TEXTURE, 1))
    frame = np.s_[64:192, 80:176]
    picture[frame] = 0.85
    picture[70:186, 86:170] = np.array([0.2, 0.25, 0.32]) * rng.uniform(0.8, 1.3)
    picture[126:130, 86:170] = 0.85
    return _bytes(picture)


def _bytes(picture: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray((picture * 255).clip(0, 255).round(), np.uint8)
