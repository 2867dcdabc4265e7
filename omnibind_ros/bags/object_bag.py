"""Renders recordings of rooms and streets with several things at once, by the calibrated sensors of one robot.

Beside pictures, events and points there are what is needed to put them together, ``CameraInfo``, ``/tf`` and
``/tf_static``, and a table of where each thing was (:mod:`omnibind_core.data.rendering.scenes.truth`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from omnibind_core.data.rendering.scenes import catalogue, composites, layout, robot, truth, views
from omnibind_core.data.rendering.scenes.layout import Built, Scene
from omnibind_core.data.rendering.scenes.places import Kind
from omnibind_core.errors import DataError
from omnibind_core.geometry import Camera, Transform
from omnibind_ros.bags import types
from omnibind_ros.bags.scene_bag import EPOCH_NS, SENSORS, THERMAL_OFFSET, THERMAL_SCALE, SceneData
from omnibind_ros.bags.write import BagWriter
from omnibind_ros.messages import CAMERA_INFO, event_array_fields, image_fields, point_cloud_fields

TF = "tf2_msgs/msg/TFMessage"
Things = Callable[[np.random.Generator], Iterator[Built]]
"""What a scene can be furnished with, drawn from a generator."""
_THINGS = (3, 5)  # in a scene
_PART = 0.05  # s of events in a message, and between transforms
_PICTURES = 4  # parts between pictures and clouds
_APART = 60.0  # m between the beginnings of two scenes
_LAST = 1_000_000  # ns before the end of a scene, of its last transform


def write(
    path: Path, table: Path, kind: Kind, things: Things, scenes: int, seconds: float = 5.0, seed: int = 0
) -> list[str]:
    """Writes a bag (rosbag2, MCAP) and the table of where things are. Same arguments, same messages.

    Args:
        path: Folder of the bag.
        table: File of the table; it may lie in the bag's folder.
        kind: What kind of place.
        things: What a scene is furnished with, by what its choice is drawn from.
        scenes: Number of scenes, each somewhere else.
        seconds: Length of each.
        seed: Of all choice.

    Returns:
        Labels of the things, in the order of their ids.

    Raises:
        DataError: There is a bag already, or what things are made of cannot be used.
        MissingDependencyError: open3d is not installed.
    """
    labels: list[str] = []
    rows: list[truth.Row] = []
    with BagWriter(path) as writer:
        for number in range(scenes):
            rng = np.random.default_rng((seed, number))
            wanted = int(rng.integers(_THINGS[0], _THINGS[1] + 1))
            scene = layout.compose(kind, things(rng), wanted, seconds, rng)
            motion = robot.Motion(phase=float(rng.uniform(0, 2 * np.pi)))
            recording = Recording(writer, scene, motion, number, len(labels), rng)
            rows += recording.run(seconds)
            labels += [thing.built.label for thing in scene.things]
    truth.write(table, sorted(rows, key=lambda row: (row.start_s, int(row.id), row.sensor)))
    return labels


def of_packages(kind: Kind, known: Collection[str] | None = None, cache: Path | None = None) -> Things:
    """Things of Debian packages; see :mod:`omnibind_core.data.rendering.scenes.catalogue`.

    Args:
        kind: What kind of place.
        known: Only things with one of these labels, if given.
        cache: Where packages are unpacked, ``None`` for the default.

    Raises:
        DataError: The packages cannot be had.
    """
    kept = catalogue.find(kind, known, cache)
    return lambda rng: catalogue.pick(kept, rng)


def of_samples(scenes: Iterable[SceneData]) -> Things:
    """Things of which each sensor shows a recorded sample; see :mod:`omnibind_core.data.rendering.scenes.composites`.

    Args:
        scenes: Samples of one label each; those that fewer than two of the sensors have samples of are left out.

    Raises:
        DataError: Fewer than five can be used.
    """
    usable = [scene for scene in scenes if sum(name in composites.SEEN for name in scene.raw) > 1]
    if len(usable) < _THINGS[1]:
        found = f"{len(usable)} things of which two of {', '.join(composites.SEEN)} have samples"
        raise DataError(f"the samples hold {found}, expected at least {_THINGS[1]}")
    turn = itertools.count()

    def things(rng: np.random.Generator) -> Iterator[Built]:
        """Each once before one comes again."""
        labels: set[str] = set()
        for _ in usable:
            one = usable[next(turn) % len(usable)]
            if one.label not in labels:
                labels.add(one.label)
                yield composites.build(one.label, one.raw, rng)

    return things


@dataclass
class Recording:
    """One scene on its way into a bag.

    Attributes:
        writer: Where messages go.
        scene: The scene.
        motion: How the robot moves.
        number: Of the scene; it begins so many lengths after the beginning, and so much further away.
        first: Number of its first thing in the recording.
        rng: Source of all noise.
    """

    writer: BagWriter
    scene: Scene
    motion: robot.Motion
    number: int
    first: int
    rng: np.random.Generator
    _begin_ns: int = field(default=0, init=False)
    _begin_s: float = field(default=0.0, init=False)

    def run(self, seconds: float) -> Iterator[truth.Row]:
        """Writes all messages and gives where things are."""
        self._begin_s = self.number * seconds
        self._begin_ns = EPOCH_NS + round(self._begin_s * 1e9)
        if not self.number:
            self._static()
        mount = robot.MOUNTS["event_camera"]
        assert mount.camera is not None
        eye = views.EventCamera(self.scene, mount.camera, self.rng)
        eye.look(self._pose("event_camera", 0.0), 0.0)
        parts = round(seconds / _PART)
        for part in range(parts):
            now = part * _PART
            self._moved(now)
            if part % _PICTURES == 0:
                yield from self._pictures(now, min(_PICTURES * _PART, seconds - now))
            end = now + _PART
            found = eye.look(self._pose("event_camera", end), end)
            if part == parts - 1:
                self._moved(seconds - _LAST * 1e-9)
            if len(found):
                stamp = self._ns(now) + int(found.t[0]) * 1000
                self._write("event_camera", event_array_fields(found), stamp, self._ns(end) - 1)

    def _pictures(self, now: float, length: float) -> Iterator[truth.Row]:
        """Pictures and a cloud of one moment, and where things are until the next."""
        stamp = self._ns(now)
        for name, mount in robot.MOUNTS.items():
            pose = self._pose(name, now)
            if mount.camera is None:
                points, _ = views.scan(self.scene, robot.Beams(), pose, now, self.rng)
                point_field = types.typestore().types["sensor_msgs/msg/PointField"]
                self._write(name, point_cloud_fields(points, point_field), stamp, stamp)
                continue
            sight = views.look(self.scene, mount.camera, pose, now, fine=name != "event_camera")
            if name == "camera":
                pixels: Any = views.photograph(self.scene, sight, now, self.rng)
                self._write(name, image_fields(pixels, "rgb8"), stamp, stamp)
            elif name == "thermal":
                celsius = views.temperatures(self.scene, sight, mount.camera, pose, now, self.rng)
                kelvin = (celsius - THERMAL_OFFSET) / THERMAL_SCALE
                self._write(name, image_fields(kelvin.round().astype(np.uint16), "16UC1"), stamp, stamp)
            info = types.message(CAMERA_INFO, camera_info_fields(mount.camera), stamp, mount.frame)
            self.writer.write(info_topic(name), CAMERA_INFO, stamp, info)
            for number, thing in enumerate(self.scene.things):
                box = truth.box(sight, mount.camera, pose, thing, number, now)
                if box and thing.built.seen_by(SENSORS[name].modality):
                    left, top, right, bottom = box
                    row = self._row(number, now, length)
                    yield replace(row, sensor=name, left=left, top=top, right=right, bottom=bottom)
        for number, thing in enumerate(self.scene.things):
            x, y, z = (float(value) for value in thing.at(now))
            sides = (float(value) for value in thing.size)
            length_m, width, height = sides
            yield replace(
                self._row(number, now, length),
                frame=robot.FIXED,
                x=x + self.number * _APART,
                y=y,
                z=z,
                length=length_m,
                width=width,
                height=height,
                yaw=float(np.arctan2(np.sin(thing.yaw), np.cos(thing.yaw))),
            )

    def _row(self, number: int, now: float, length: float) -> truth.Row:
        start = self._begin_s + now
        label = self.scene.things[number].built.label
        return truth.Row(round(start, 4), round(start + length, 4), str(self.first + number), label)

    def _pose(self, sensor: str, seconds: float) -> Transform:
        return self.motion.pose(seconds) @ robot.MOUNTS[sensor].pose

    def _ns(self, seconds: float) -> int:
        return self._begin_ns + round(seconds * 1e9)

    def _write(self, sensor: str, content: dict[str, Any], stamp_ns: int, time_ns: int) -> None:
        of = SENSORS[sensor]
        message = types.message(of.type, content, stamp_ns, robot.MOUNTS[sensor].frame)
        self.writer.write(of.topic, of.type, time_ns, message)

    def _static(self) -> None:
        found = [transform_fields(robot.BASE, mount.frame, mount.pose, self._ns(0)) for mount in robot.MOUNTS.values()]
        self.writer.write("/tf_static", TF, self._ns(0), types.message(TF, {"transforms": found}), latched=True)

    def _moved(self, seconds: float) -> None:
        away = Transform(np.eye(3), np.array([self.number * _APART, 0, 0]))
        stamp = self._ns(seconds)
        found = transform_fields(robot.FIXED, robot.BASE, away @ self.motion.pose(seconds), stamp)
        self.writer.write("/tf", TF, stamp, types.message(TF, {"transforms": [found]}))


def info_topic(sensor: str) -> str:
    """Where the calibration of a sensor is told: beside its data."""
    return SENSORS[sensor].topic.rpartition("/")[0] + "/camera_info"


def camera_info_fields(camera: Camera) -> dict[str, Any]:
    """Fields of a ``sensor_msgs/CameraInfo`` without its header."""
    matrix = camera.matrix
    region = types.typestore().types["sensor_msgs/msg/RegionOfInterest"]
    return {
        "height": camera.height,
        "width": camera.width,
        "distortion_model": camera.model,
        "d": np.array(camera.distortion, np.float64),
        "k": matrix.ravel(),
        "r": np.eye(3).ravel(),
        "p": np.hstack([matrix, np.zeros((3, 1))]).ravel(),
        "binning_x": 0,
        "binning_y": 0,
        "roi": region(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    }


def transform_fields(parent: str, child: str, transform: Transform, stamp_ns: int) -> Any:
    """A ``geometry_msgs/TransformStamped``, from child to parent."""
    known = types.typestore().types
    x, y, z = (float(value) for value in transform.translation)
    turn = [float(value) for value in Rotation.from_matrix(transform.rotation).as_quat()]
    content = {
        "child_frame_id": child,
        "transform": known["geometry_msgs/msg/Transform"](
            translation=known["geometry_msgs/msg/Vector3"](x, y, z),
            rotation=known["geometry_msgs/msg/Quaternion"](*turn),
        ),
    }
    return types.message("geometry_msgs/msg/TransformStamped", content, stamp_ns, parent)
