"""Sensors and surroundings that the tests of things share."""

from __future__ import annotations

from typing import Any

import numpy as np

from omnibind_core.geometry import Camera, Transform
from omnibind_core.objects.rig import BODY, Reading, View

AHEAD = BODY.inverse().rotation
"""Turns a camera to look along x."""
Place = tuple[float, float, float]


def camera_view(raw: Any, name: str = "camera", modality: str = "image", at: Place = (0, 0, 0)) -> View:
    """A camera of 90 degrees across that looks along x."""
    reading = Reading(name, modality, raw, 0, name)
    width, height = reading.size
    camera = Camera(width, height, (width / 2, width / 2), (width / 2 - 0.5, height / 2 - 0.5))
    return View(reading, Transform(AHEAD, np.array(at, float)), camera)


def cloud_view(points: Any, name: str = "lidar", at: Place = (0, 0, 0)) -> View:
    pose = Transform(np.eye(3), np.array(at, float))
    return View(Reading(name, "point_cloud", np.asarray(points, np.float32), 0, name), pose)


def picture(width: int = 640, height: int = 480) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=2).astype(np.uint8)


def plane(x: float, half: float = 2.0, step: float = 0.05) -> np.ndarray:
    """A square across the view of the sensors."""
    y, z = np.meshgrid(np.arange(-half, half, step), np.arange(-half, half, step))
    return np.stack([np.full(y.size, x), y.ravel(), z.ravel()], axis=1)


def block(at: Place, size: Place, yaw: float = 0.0, step: float = 0.05) -> np.ndarray:
    """Points on the faces of a box about z."""
    axes = [np.arange(-side / 2, side / 2 + step / 2, step) for side in size]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    reach = np.array([axis.max() for axis in axes])
    shell = grid[(np.abs(grid) >= reach - 1e-6).any(axis=1)]
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.asarray(shell @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + np.array(at))


def floor(z: float = -1.0, slope: float = 0.0, reach: float = 10.0, step: float = 0.15) -> np.ndarray:
    x, y = np.meshgrid(np.arange(-reach, reach, step), np.arange(-reach, reach, step))
    return np.stack([x.ravel(), y.ravel(), z + slope * x.ravel()], axis=1)
