"""Renders recordings of rooms and streets with several things at once, by the calibrated sensors of one robot.

Beside pictures, events and points there are what is needed to put them together, ``CameraInfo``, ``/tf`` and
``/tf_static``, and a table of where each thing was (:mod:`omnibind_core.data.rendering.scenes.truth`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core.data.rendering.scenes import layout, robot, truth, views
from omnibind_core.data.rendering.scenes.layout import Scene
from omnibind_core.data.rendering.scenes.places import Kind
from omnibind_core.geometry import Transform
from omnibind_ros.bags import types
from omnibind_ros.bags.rendered.calibration import TF, camera_info_fields, info_topic, transform_fields
from omnibind_ros.bags.rendered.things import Things
from omnibind_ros.bags.scene_bag import EPOCH_NS, SENSORS, THERMAL_OFFSET, THERMAL_SCALE
from omnibind_ros.bags.write import BagWriter
from omnibind_ros.messages import CAMERA_INFO, event_array_fields, image_fields, point_cloud_fields

_THINGS = (3, 5)  # in a scene
_PART = 0.05  # s of events in a message, and between transforms
_PICTURES = 4  # parts between pictures and clouds
_APART = 60.0  # m between the beginnings of two scenes
_LAST = 1_000_000  # ns before the end of a scene, of its last transform


def write(
    path: Path,
    table: Path,
    kind: Kind,
    things: Things,
    scenes: int,
    seconds: float = 5.0,
    seed: int = 0,
    motion: robot.Motion | None = None,
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
        motion: How the robot moves; ``None`` looks around, from another side in each scene.

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
            phase = float(rng.uniform(0, 2 * np.pi))
            moves = robot.Motion(phase=phase) if motion is None else motion
            recording = Recording(writer, scene, moves, number, len(labels), rng)
            rows += recording.run(seconds)
            labels += [thing.built.label for thing in scene.things]
        truth.write(writer.place(table), sorted(rows, key=lambda row: (row.start_s, int(row.id), row.sensor)))
    return labels


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
