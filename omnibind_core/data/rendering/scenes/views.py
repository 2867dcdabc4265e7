"""What a robot's sensors see of a scene: pictures, temperatures, events and points."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering import events
from omnibind_core.data.rendering.demo_objects import COOL
from omnibind_core.data.rendering.scenes.composites import paste_events, paste_points, paste_temperatures
from omnibind_core.data.rendering.scenes.layout import Scene
from omnibind_core.data.rendering.scenes.robot import Beams
from omnibind_core.data.rendering.scenes.stage import NOTHING, Hits
from omnibind_core.data.rendering.thermal import COLUMN_NOISE, NOISE, REFLECTIONS
from omnibind_core.geometry import Camera, Transform
from omnibind_core.modalities.base import Events

Array = NDArray[np.float32]
_GAMMA = 2.2
# Noise of the camera, 1: white; of the light itself at white, and of reading it; and how far it amplifies.
_SHOT, _READ, _GAIN = 0.012, 0.001, 16.0
_QUARTERS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))  # pixels from its middle
_MIDDLE = ((0.0, 0.0),)
_EDGE = 0.25  # of a normal's parts, or of four times a colour, between pixels
_BEHIND = 0.05  # m, from which on a point of a sample is hidden by what is before it
_SOFT = 1.5  # pixels, edges of shadows
_BLUR = 0.6  # pixels, of an event camera's lens


@dataclass(frozen=True, eq=False)
class Sight:
    """What the pixels of a picture look at: each through its middle, those at edges also through its quarters.

    Attributes:
        hits: Of all rays.
        origin: ``float32 [3]``, of the camera.
        rays: ``float32 [R, 3]``, of unit length; the first ``H * W`` are those through the middles, row by row.
        pixel: ``int64 [R]``, which pixel a ray is of.
        size: W and H.
    """

    hits: Hits
    origin: Array
    rays: Array
    pixel: NDArray[np.int64]
    size: tuple[int, int]

    @property
    def bodies(self) -> NDArray[np.int32]:
        """``int32 [H, W]``, what is in the middle of each pixel."""
        width, height = self.size
        return self.hits.body[: width * height].reshape(height, width)

    @property
    def points(self) -> Array:
        """``float32 [R, 3]``, where the rays end; the origin where they do not."""
        distance = np.where(np.isfinite(self.hits.distance), self.hits.distance, 0)
        return np.asarray(self.origin + distance[:, None] * self.rays, np.float32)

    def mean(self, values: Array) -> Array:
        """Means over the rays of each pixel, ``[H, W]`` or ``[H, W, C]``, of ``[R]`` or ``[R, C]``."""
        width, height = self.size
        area = width * height
        found = np.array(values[:area], np.float32)
        if len(values) > area:
            pixels, starts, counts = np.unique(self.pixel[area:], return_index=True, return_counts=True)
            more = np.add.reduceat(values[area:], starts, axis=0)
            found[pixels] += more
            found[pixels] /= (counts + 1).reshape(-1, *[1] * (values.ndim - 1))
        return found.reshape(height, width, *values.shape[1:])


@functools.lru_cache(maxsize=8)
def _directions(camera: Camera, offsets: tuple[tuple[float, float], ...]) -> Array:
    """``float32 [H * W, S, 3]``, of unit length, in the optical frame, through so many places of each pixel."""
    y, x = np.mgrid[: camera.height, : camera.width]
    places = np.stack([x, y], axis=-1).reshape(-1, 1, 2) + np.array(offsets)
    return _unit(camera.rays(places.reshape(-1, 2))).reshape(-1, len(offsets), 3)


def _unit(rays: NDArray[np.floating]) -> Array:
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True), np.float32)


def look(scene: Scene, camera: Camera, pose: Transform, seconds: float, fine: bool = True) -> Sight:
    """Looks through a camera.

    Args:
        scene: What there is.
        camera: The lens.
        pose: From its optical frame to the scene's.
        seconds: Since the scene's beginning.
        fine: Whether pixels at edges are looked through at more than one place.
    """
    turn, origin = pose.rotation.T.astype(np.float32), pose.translation.astype(np.float32)
    size = camera.width, camera.height
    rays = _directions(camera, _MIDDLE)[:, 0] @ turn
    pixel = np.arange(len(rays))
    first = Sight(scene.look.cast(origin, rays, seconds), origin, rays, pixel, size)
    if not fine:
        return first
    edges = np.flatnonzero(_edges(first))
    more = _directions(camera, _QUARTERS)[edges].reshape(-1, 3) @ turn
    hits = Hits.joined(first.hits, scene.look.cast(origin, more, seconds))
    return Sight(hits, origin, np.concatenate([rays, more]), np.append(pixel, np.repeat(edges, len(_QUARTERS))), size)


def _edges(sight: Sight) -> NDArray[np.bool_]:
    """``bool [H, W]``, pixels beside which something else is seen, or what is turned or coloured otherwise."""
    width, height = sight.size
    looks = np.concatenate([sight.hits.normal, 4 * sight.hits.colour, sight.hits.body[:, None]], axis=1)
    looks = looks.reshape(height, width, -1)
    found = np.zeros((height, width), np.bool_)
    across = (np.abs(looks[:, 1:] - looks[:, :-1]) > _EDGE).any(axis=-1)
    down = (np.abs(looks[1:] - looks[:-1]) > _EDGE).any(axis=-1)
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found


def colours(scene: Scene, sight: Sight, seconds: float, shadows: bool) -> Array:
    """Light that arrives at a camera, ``float32 [H, W, 3]``, 0..1 as shown on a screen.

    Args:
        scene: What there is.
        sight: What the pixels look at.
        seconds: Since the scene's beginning.
        shadows: Whether things cast shadows.
    """
    hits, light = sight.hits, scene.light
    seen = np.empty((len(hits.body), 3), np.float32)
    seen[:] = (np.array(light.sky, np.float32) * (1 - 0.45 * np.clip(sight.rays[:, 2:], 0, 1))) ** np.float32(_GAMMA)
    met = np.flatnonzero(hits.body != NOTHING)
    normal, points = hits.normal[met], sight.points[met]
    towards = np.array(light.place, np.float32) - points
    facing = np.einsum("nc,nc->n", normal, _unit(towards)).clip(0, None)
    if shadows:
        facing *= _lit(scene, sight, seconds)[sight.pixel[met]]
    below, above = np.array(light.below, np.float32), np.array(light.above, np.float32)
    ambient = below + (above - below) * (normal[:, 2:] + 1) / 2
    seen[met] = hits.colour[met] ** np.float32(_GAMMA) * (ambient + light.strength * facing[:, None])
    return np.asarray(np.clip(sight.mean(np.asarray(seen, np.float32)), 0, 1) ** np.float32(1 / _GAMMA), np.float32)


def _lit(scene: Scene, sight: Sight, seconds: float) -> Array:
    """How much of the light comes to what is in each pixel, ``float32 [H * W]``, 0..1; soft at the edges of shadows."""
    width, height = sight.size
    middles = np.flatnonzero(sight.hits.body[: width * height] != NOTHING)
    points, normals = sight.points[middles], sight.hits.normal[middles]
    lit = np.ones(width * height, np.float32)
    lit[middles] = scene.look.free(points, normals, np.array(scene.light.place, np.float32) - points, seconds)
    return np.asarray(cv2.GaussianBlur(lit.reshape(height, width), (0, 0), _SOFT), np.float32).ravel()


def photograph(scene: Scene, sight: Sight, seconds: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """RGB ``uint8 [H, W, 3]``, with shadows and noise; where there is little light it is amplified, and so is noise."""
    level = scene.light.level
    light = colours(scene, sight, seconds, shadows=True) ** np.float32(_GAMMA) * np.float32(level)
    spread = np.sqrt(_SHOT**2 * light + _READ**2)
    light += spread * rng.standard_normal(light.shape, np.float32)
    gained = np.clip(light * min(1 / level, _GAIN), 0, 1) ** np.float32(1 / _GAMMA)
    return np.asarray((gained * 255).round(), np.uint8)


def temperatures(
    scene: Scene, sight: Sight, camera: Camera, pose: Transform, seconds: float, rng: np.random.Generator
) -> Array:
    """What a thermal camera sees, ``float32 [H, W]``, degrees Celsius.

    As :func:`omnibind_core.data.rendering.thermal.render`: a warm thing is cooler where it is seen from the side, and
    parts of it differ as their colours do; what is as warm as the place is seen by its reflections.

    Args:
        scene: What there is.
        sight: What the pixels look at.
        camera: The lens.
        pose: From its optical frame to the scene's.
        seconds: Since the scene's beginning.
        rng: Source of noise.
    """
    hits = sight.hits
    warmth = np.append(scene.temperatures, np.float32(scene.sky))[hits.body]
    faces = np.abs(np.einsum("nc,nc->n", hits.normal, sight.rays))
    bright = hits.colour.mean(axis=1)
    shown = [thing.built.samples is None for thing in scene.things]  # others are boards
    things = np.append(shown, np.zeros(len(scene.temperatures) - len(shown) + 1, np.bool_))[hits.body]
    contrast = np.zeros_like(bright)
    for body in np.unique(hits.body[things]):
        of = hits.body == body
        contrast[of] = (bright[of].mean() - bright[of]) / (bright[of].std() + 1e-3)
    contrast = contrast.clip(-1, 1) * 0.5
    share = np.where(things, 0.75 + 0.25 * np.sqrt(faces) + 0.25 * contrast, 1)
    seen = COOL + (warmth - COOL) * share + REFLECTIONS * contrast
    mean = sight.mean(np.asarray(seen, np.float32))
    paste_temperatures(mean, scene, sight.bodies, camera, pose, seconds)
    blurred: NDArray[Any] = cv2.GaussianBlur(mean, (0, 0), 0.8)
    columns = rng.normal(0, COLUMN_NOISE, camera.width)
    return np.asarray(blurred + columns + rng.normal(0, NOISE, blurred.shape), np.float32)


def scan(
    scene: Scene, beams: Beams, pose: Transform, seconds: float, rng: np.random.Generator
) -> tuple[Array, NDArray[np.int32]]:
    """What a LiDAR measures, all beams at one moment.

    Args:
        scene: What there is.
        beams: What it sends out.
        pose: From its frame to the scene's.
        seconds: Since the scene's beginning.
        rng: Source of noise and of the beams that nothing comes back of.

    Returns:
        ``float32 [N, 3]``, metres, in its own frame; ``int32 [N]``, the bodies that they are on.
    """
    own = beams.directions
    rays = np.asarray(own @ pose.rotation.T.astype(np.float32), np.float32)
    hits = scene.shape.cast(pose.translation.astype(np.float32), rays, seconds)
    measured = hits.distance + rng.normal(0, beams.noise, len(own)).astype(np.float32)
    near, far = beams.range
    kept = (hits.distance > near) & (hits.distance < far) & (rng.random(len(own)) >= beams.lost)
    points, bodies = _samples(scene, pose, seconds)
    return np.concatenate([measured[kept, None] * own[kept], points]), np.append(hits.body[kept], bodies)


def _samples(scene: Scene, pose: Transform, seconds: float) -> tuple[Array, NDArray[np.int32]]:
    """Points of samples that nothing hides, in the frame of the LiDAR."""
    points, bodies = paste_points(scene, seconds)
    away = points - pose.translation
    distance = np.linalg.norm(away, axis=1)
    rays = np.asarray(away / np.maximum(distance, 1e-6)[:, None], np.float32)
    free = scene.shape.cast(pose.translation.astype(np.float32), rays, seconds).distance > distance - _BEHIND
    return np.asarray(pose.inverse()(points[free]), np.float32), bodies[free]


class EventCamera:
    """An event camera, whose pixels remember.

    Args:
        scene: What there is.
        camera: Its lens.
        rng: Source of the pixels' thresholds, and of what is left out of samples.
    """

    def __init__(self, scene: Scene, camera: Camera, rng: np.random.Generator) -> None:
        self._scene = scene
        self._camera = camera
        self._rng = rng
        self._threshold = events.thresholds(camera.width, camera.height, rng)
        self._reference: Array | None = None
        self._before: Array | None = None
        self._seconds = 0.0

    def look(self, pose: Transform, seconds: float) -> Events:
        """Events since it last looked; none the first time, when pixels only see what to compare with.

        Args:
            pose: From its optical frame to the scene's.
            seconds: Since the scene's beginning.
        """
        scene, camera = self._scene, self._camera
        sight = look(scene, camera, pose, seconds, fine=False)
        grey = cv2.cvtColor(colours(scene, sight, seconds, shadows=False), cv2.COLOR_RGB2GRAY)
        now = events.log_intensity(np.asarray(cv2.GaussianBlur(grey, (0, 0), _BLUR), np.float32))
        begin, self._seconds = self._seconds, seconds
        if self._reference is None or self._before is None:
            self._reference, self._before = now.copy(), now
            return events.gathered([], camera.width, camera.height)
        length = (seconds - begin) * 1e6
        found = events.crossings(self._reference, self._before, now, self._threshold, 0.0, length)
        self._before = now
        own = events.gathered(found, camera.width, camera.height)
        return paste_events(own, scene, sight.bodies, camera, pose, begin, self._rng)
