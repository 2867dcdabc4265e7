"""A robot that looks around: its calibrated sensors, where they are on it, and how it moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnibind_core.geometry import Camera, Transform
from omnibind_core.geometry.frames import rpy

FIXED, BASE = "odom", "base_link"
"""Frames: what things are told in, and the robot's own."""


@dataclass(frozen=True)
class Mount:
    """One sensor on the robot.

    Attributes:
        frame: Its frame; a camera's is optical.
        camera: Its lens; ``None`` of a LiDAR.
        place: ``(x, y, z)`` in the robot's frame, metres.
        pitch: By which it looks down, degrees.
    """

    frame: str
    camera: Camera | None
    place: tuple[float, float, float]
    pitch: float = 0.0

    @property
    def pose(self) -> Transform:
        """From its own frame to the robot's."""
        quaternion = rpy(0.0, math.radians(self.pitch), 0.0)
        forward = Transform.of(self.place, quaternion)
        return forward if self.camera is None else forward @ OPTICAL


OPTICAL = Transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))
"""From x right, y down, z forward to x forward, y left, z up (REP 103)."""


def _lens(width: int, height: int, across: float, bend: tuple[float, ...], source: str) -> Camera:
    focal = width / 2 / math.tan(math.radians(across) / 2)
    # No camera's axis is in the middle of its picture.
    centre = ((width - 1) / 2 + 0.0035 * width, (height - 1) / 2 - 0.002 * height)
    return Camera(width, height, (focal, 1.002 * focal), centre, "plumb_bob", bend, source)


MOUNTS: Mapping[str, Mount] = {
    "camera": Mount(
        "camera_optical_frame",
        _lens(640, 480, 70.0, (-0.16, 0.05, 0.0006, -0.0004, -0.008), "camera"),
        (0.1, 0.0, 1.15),
        9.0,
    ),
    "thermal": Mount(
        "thermal_optical_frame", _lens(160, 120, 62.0, (-0.08, 0.01, 0.0, 0.0, 0.0), "thermal"), (0.1, 0.06, 1.15), 9.0
    ),
    "event_camera": Mount(
        "event_camera_optical_frame",
        _lens(480, 360, 66.0, (-0.1, 0.02, 0.0, 0.0, 0.0), "event_camera"),
        (0.1, -0.06, 1.15),
        9.0,
    ),
    "lidar": Mount("lidar", None, (0.05, 0.0, 1.3)),
}
"""By name of the sensor, as in :mod:`omnibind_ros.bags.scene_bag`."""


@dataclass(frozen=True)
class Beams:
    """What a LiDAR sends out, each time anew.

    Attributes:
        rings: Beams above each other.
        elevation: Lowest and highest, degrees.
        across: Degrees to the sides, together.
        step: Degrees between two.
        range: Nearest and furthest metre that is measured.
        noise: Standard deviation of the range, m.
        lost: Share of the beams that nothing comes back of.
    """

    rings: int = 64
    elevation: tuple[float, float] = (-35.0, 8.0)
    across: float = 120.0
    step: float = 0.35
    range: tuple[float, float] = (0.4, 80.0)
    noise: float = 0.01
    lost: float = 0.02

    @property
    def directions(self) -> NDArray[np.float32]:
        """``float32 [N, 3]``, of unit length, in the LiDAR's frame."""
        azimuth = np.radians(np.arange(-self.across / 2, self.across / 2, self.step))[:, None]
        elevation = np.radians(np.linspace(*self.elevation, self.rings))[None]
        rays = np.stack(
            [
                np.cos(azimuth) * np.cos(elevation),
                np.sin(azimuth) * np.cos(elevation),
                np.sin(elevation) + 0 * azimuth,
            ],
            axis=-1,
        )
        return np.asarray(rays.reshape(-1, 3), np.float32)


@dataclass(frozen=True)
class Motion:
    """The robot turns to and fro, nods a little and rolls slowly forward.

    Attributes:
        turn: To each side, degrees.
        period: Of turning, s.
        nod: Up and down, degrees.
        speed: Forward, m/s.
        phase: Where it begins, rad.
    """

    turn: float = 5.0
    period: float = 5.0
    nod: float = 0.8
    speed: float = 0.05
    phase: float = 0.0

    def pose(self, seconds: float) -> Transform:
        """From the robot's frame to that of the scene."""
        angle = 2 * math.pi * seconds / self.period + self.phase
        yaw = math.radians(self.turn) * math.sin(angle)
        pitch = math.radians(self.nod) * math.sin(3.7 * angle)
        return Transform.of((self.speed * seconds, 0.0, 0.0), rpy(0.0, pitch, yaw))
