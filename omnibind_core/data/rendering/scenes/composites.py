"""Things of which each sensor shows what a real one recorded: boards with photographs, samples pasted where they are.

No two sensors saw the same thing, only things of one label. What is rendered is the place around them, and where they
are seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering.demo_objects import COOL
from omnibind_core.data.rendering.events import gathered
from omnibind_core.data.rendering.scenes.layout import Built, Scene, Thing
from omnibind_core.data.rendering.scenes.surfaces import Paint, board, box
from omnibind_core.geometry import Camera, Transform
from omnibind_core.modalities.base import Events

SEEN = ("image", "thermal", "event", "point_cloud")
"""Modalities of which samples are shown."""
_SIDE = (0.6, 1.0)  # m, of a board's longer side
_NARROW = 0.75  # shorter to longer side, at least; of a longer picture the middle is shown
_NEARER = 1.4  # than other things: pictures have margins around what they show
_DEEP = 1.5  # width of a cloud to that of its board, at most
_COLDEST, _WARMEST = 15.0, 38.0  # degrees Celsius that black and white of a thermal picture without degrees stand for
_PART_US = 50_000
_RIM = 5  # pixels across, around boards, where their own events are left out
_FEWEST = 0.6  # share of a sample's events that is kept at least
_WINDOW_US = 200_000  # after which a sample of events is repeated


def build(label: str, raw: Mapping[str, Any], rng: np.random.Generator) -> Built:
    """A thing that is shown by samples.

    Args:
        label: What it is.
        raw: Checked raw items by modality; those of :data:`SEEN` are used.
        rng: Source of its size.
    """
    samples = {name: item for name, item in raw.items() if name in SEEN}
    photo = samples.get("image")
    rows, columns = (1, 1) if photo is None else photo.shape[:2]
    side = float(rng.uniform(*_SIDE))
    width, height = (side * max(part / max(rows, columns), _NARROW) for part in (columns, rows))
    deep = 0.05
    if "point_cloud" in samples:
        samples["point_cloud"] = _fitted(samples["point_cloud"], width, height)
        reach = 2 * np.abs(samples["point_cloud"]).max(axis=0)
        deep = max(deep, float(reach[1]))
    if "thermal" in samples:
        samples["thermal"] = _middle(_degrees(samples["thermal"]), width / height)
    grey = Paint((0.6, 0.6, 0.6))
    look = board(
        width, height, grey if photo is None else Paint((1.0, 1.0, 1.0), _middle(_colour(photo), width / height))
    )
    size = max(width, float(reach[0])) if "point_cloud" in samples else width, deep, height
    shape = box((0, 0, 0), size, grey).standing(size)
    return Built(label, look, shape, COOL, True, False, samples, _NEARER)


def _fitted(points: NDArray[np.floating], width: float, height: float) -> NDArray[np.float32]:
    """A cloud that stands where a board does, about as large."""
    low, high = points.min(axis=0), points.max(axis=0)
    sides = np.maximum(high - low, 1e-6)
    scale = min(height / sides[2], _DEEP * width / max(sides[:2]))
    return np.asarray((points - [*((low + high) / 2)[:2], low[2]]) * scale, np.float32)


def _middle(picture: NDArray[Any], aspect: float) -> NDArray[Any]:
    """As much of its middle as has so much width for its height."""
    rows, columns = picture.shape[:2]
    high, wide = min(rows, max(round(columns / aspect), 1)), min(columns, max(round(rows * aspect), 1))
    top, left = (rows - high) // 2, (columns - wide) // 2
    return np.ascontiguousarray(picture[top : top + high, left : left + wide])


def _colour(photo: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2), np.uint8)


def _degrees(picture: NDArray[Any]) -> NDArray[np.float32]:
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    if picture.dtype != np.uint8:
        return np.asarray(grey, np.float32)
    return np.asarray(_COLDEST + (_WARMEST - _COLDEST) * grey / 255, np.float32)


def _onto(shape: tuple[int, int], thing: Thing, camera: Camera, pose: Transform, seconds: float) -> Any:
    """Homography from a sample of so many rows and columns, as large as fits on the board, to the picture.

    ``None`` where the lens cannot see all of it.
    """
    rows, columns = shape
    width, height = float(thing.built.look.size[0]), float(thing.built.look.size[2])
    scale = min(width / columns, height / rows)
    corners = np.array([[-0.5, 0, 0.5], [0.5, 0, 0.5], [0.5, 0, -0.5], [-0.5, 0, -0.5]]) * scale
    corners = corners * [columns, 1, rows] + [0, 0, height / 2]
    pixels, _ = camera.project(pose.inverse()(thing.placed(corners, seconds)))
    if not np.isfinite(pixels).all():
        return None
    edges = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32) - 0.5
    return cv2.getPerspectiveTransform(edges.astype(np.float32), pixels.astype(np.float32))


def paste_temperatures(
    picture: NDArray[np.float32],
    scene: Scene,
    bodies: NDArray[np.int32],
    camera: Camera,
    pose: Transform,
    seconds: float,
) -> None:
    """Shows thermal samples where their boards are seen, in place; what has none is as warm as the place.

    Args:
        picture: ``float32 [H, W]``, degrees Celsius.
        scene: What there is.
        bodies: ``int32 [H, W]``, what each pixel sees.
        camera: The lens.
        pose: From its optical frame to the scene's.
        seconds: Since the scene's beginning.
    """
    for number, thing in enumerate(scene.things):
        sample = (thing.built.samples or {}).get("thermal")
        way = None if sample is None else _onto(sample.shape, thing, camera, pose, seconds)
        if sample is None or way is None:
            continue
        seen = bodies == number
        small = max(int(np.sqrt(sample.size / max(seen.sum(), 1))), 1)
        smooth = cv2.blur(sample, (small, small))  # a pixel sees all that is in it
        size = (camera.width, camera.height)
        picture[seen] = cv2.warpPerspective(smooth, way, size, borderMode=cv2.BORDER_REPLICATE)[seen]


def paste_events(
    events: Events,
    scene: Scene,
    bodies: NDArray[np.int32],
    camera: Camera,
    pose: Transform,
    seconds: float,
    rng: np.random.Generator,
) -> Events:
    """Shows event samples where their boards are seen, instead of the boards' own events.

    Args:
        events: Those of a part of the stream; their times begin at 0.
        scene: What there is.
        bodies: ``int32 [H, W]``, what each pixel sees.
        camera: The lens.
        pose: From its optical frame to the scene's.
        seconds: Since the scene's beginning, at the part's beginning; it lasts 50 ms.
        rng: Source of the choice of events where the sample has more pixels than the board.
    """
    boards = np.array([thing.built.samples is not None for thing in scene.things] + [False], np.bool_)
    if not boards.any():
        return events
    covered = boards[np.where(bodies < len(scene.things), bodies, -1)].astype(np.uint8)
    kept = cv2.dilate(covered, np.ones((_RIM, _RIM), np.uint8))[events.y, events.x] == 0
    parts = [np.stack([events.x, events.y, events.t, events.p]).astype(np.int64)[:, kept]]
    first = round(seconds * 1e6) % _WINDOW_US
    for number, thing in enumerate(scene.things):
        sample = (thing.built.samples or {}).get("event")
        way = None if sample is None else _onto((sample.height, sample.width), thing, camera, pose, seconds)
        if sample is None or way is None or not len(sample):
            continue
        own = np.flatnonzero((sample.t >= first) & (sample.t < first + _PART_US))
        share = (bodies == number).sum() / (sample.width * sample.height)
        own = own[rng.random(len(own)) < max(share, _FEWEST)]
        places = np.stack([sample.x[own], sample.y[own]], axis=1).astype(np.float32)[:, None]
        x, y = np.rint(cv2.perspectiveTransform(places, way)[:, 0]).astype(np.int64).T if len(own) else ([], [])
        x, y = np.asarray(x, np.int64), np.asarray(y, np.int64)
        inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
        inside[inside] = bodies[y[inside], x[inside]] == number
        own, x, y = own[inside], x[inside], y[inside]
        parts.append(np.stack([x, y, sample.t[own] - first, sample.p[own]]).astype(np.int64))
    return gathered(parts, camera.width, camera.height)


def paste_points(scene: Scene, seconds: float) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Points of samples ``float64 [N, 3]`` where their things are, in the scene's frame; ``int32 [N]``, whose."""
    found = [
        (thing.placed(thing.built.samples["point_cloud"], seconds), number)
        for number, thing in enumerate(scene.things)
        if thing.built.samples is not None and "point_cloud" in thing.built.samples
    ]
    if not found:
        return np.zeros((0, 3)), np.zeros(0, np.int32)
    bodies = np.repeat([number for _, number in found], [len(points) for points, _ in found])
    return np.concatenate([points for points, _ in found]), bodies.astype(np.int32)
