"""Augmentation and damage of point clouds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Corruptions

Cloud = NDArray[np.float32]
_MIN_POINTS = 32  # never fewer than this are left


def augment(raw: Cloud, rng: np.random.Generator) -> Cloud:
    """Heading, small tilt, size per axis, range noise, missing points and, half of the time, a missing side."""
    cloud = raw[partial_view(raw, rng.uniform(0.0, 0.5), rng)] if rng.random() < 0.5 else raw
    keep = max(min(len(cloud), _MIN_POINTS), int(len(cloud) * rng.uniform(0.4, 1.0)))
    cloud = cloud[np.sort(rng.choice(len(cloud), keep, replace=False))]
    turn = rotation(rng.uniform(0, 2 * np.pi), rng.normal(0, np.radians(5)), rng.normal(0, np.radians(5)))
    cloud = ((cloud - cloud.mean(axis=0)) * rng.uniform(0.8, 1.25, 3).astype(np.float32)) @ turn.T
    return cloud + _noise(cloud, rng.uniform(0, 0.01), rng)


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float32]:
    """Rotation matrix ``[3, 3]``: first roll about x, then pitch about y, then yaw about z (up); radians."""
    (sy, sp, sr), (cy, cp, cr) = np.sin([yaw, pitch, roll]), np.cos([yaw, pitch, roll])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return (about_z @ about_y @ about_x).astype(np.float32)


def partial_view(cloud: Cloud, missing: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask ``[N]`` that drops the given share of points: those farthest along a random, mostly horizontal direction."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.6)
    direction = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    depth = cloud @ np.array(direction, np.float32)
    return depth <= np.quantile(depth, 1 - missing)


def _noise(cloud: Cloud, share: float, rng: np.random.Generator) -> Cloud:
    """Gaussian noise whose standard deviation is a share of the cloud's largest extent."""
    return np.float32(share * np.ptp(cloud, axis=0).max()) * rng.standard_normal(cloud.shape, np.float32)


def _gaussian(cloud: Cloud, rng: np.random.Generator) -> Cloud:
    """Range noise of 5 % of the extent."""
    return cloud + _noise(cloud, 0.05, rng)


def _sparse(cloud: Cloud, rng: np.random.Generator) -> Cloud:
    """One point in twenty is left."""
    keep = max(min(len(cloud), _MIN_POINTS), len(cloud) // 20)
    return cloud[np.sort(rng.choice(len(cloud), keep, replace=False))]


def _occluded(cloud: Cloud, rng: np.random.Generator) -> Cloud:
    """70 % missing on one side."""
    return cloud[partial_view(cloud, 0.7, rng)]


def _outliers(cloud: Cloud, rng: np.random.Generator) -> Cloud:
    """30 % scattered through twice the bounding box."""
    cloud = cloud.copy()
    hit = rng.random(len(cloud)) < 0.3
    low, high = cloud.min(axis=0), cloud.max(axis=0)
    cloud[hit] = (low + (high - low) * rng.uniform(-0.5, 1.5, (hit.sum(), 3))).astype(np.float32)
    return cloud


CORRUPTIONS: Corruptions[Cloud] = {
    "gaussian": _gaussian,
    "sparse": _sparse,
    "occluded": _occluded,
    "outliers": _outliers,
}


def noise_only(cloud: Cloud, rng: np.random.Generator) -> Cloud:
    """As many points, anywhere in the bounding box."""
    return rng.uniform(cloud.min(axis=0), cloud.max(axis=0), cloud.shape).astype(np.float32)
