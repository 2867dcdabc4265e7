"""Augmentation and damage of radar points."""

from __future__ import annotations

import numpy as np

from omnibind_core.modalities import Corruptions

from .processing import Points

_MIN_POINTS = 3  # never fewer than this are left
_NOISE = np.array([0.3, 0.3, 0.3, 0.3, 3.0], np.float32)  # m, m, m, m/s, dB: a poor sensor's standard deviations


def augment(raw: Points, rng: np.random.Generator) -> Points:
    """Another bearing (up to 45 degrees), mirrored half of the time, up to half of the points missing, some noise."""
    points = _thinned(raw, rng.uniform(0.5, 1.0), rng)
    angle = rng.uniform(-np.pi / 4, np.pi / 4)  # about the sensor: distances and radial velocities stay
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    points[:, :2] = points[:, :2] @ turn
    if rng.random() < 0.5:
        points[:, 1] *= -1
    return points + np.float32(rng.uniform(0, 0.3)) * _NOISE * rng.standard_normal(points.shape, np.float32)


def _thinned(raw: Points, share: float, rng: np.random.Generator) -> Points:
    keep = max(_MIN_POINTS, round(share * len(raw)))
    return raw[np.sort(rng.choice(len(raw), min(keep, len(raw)), replace=False))]


def _gaussian(raw: Points, rng: np.random.Generator) -> Points:
    """Noise of a poor sensor."""
    return raw + _NOISE * rng.standard_normal(raw.shape, np.float32)


def _sparse(raw: Points, rng: np.random.Generator) -> Points:
    """One point in five is left."""
    return _thinned(raw, 0.2, rng)


def _ghosts(raw: Points, rng: np.random.Generator) -> Points:
    """Half of the points are seen again at twice the distance and velocity: their echo went to and fro twice."""
    ghosts = _thinned(raw, 0.5, rng) * np.array([2, 2, 2, 2, 1], np.float32)
    return np.concatenate([raw, ghosts - np.array([0, 0, 0, 0, 6], np.float32)])


def _clutter(raw: Points, rng: np.random.Generator) -> Points:
    """As many points of things that stand still, within 5 m."""
    still = rng.uniform([-5, -5, -1, 0, 0], [5, 5, 1, 0, 0], raw.shape)
    still[:, :3] += np.median(raw[:, :3], axis=0)
    still[:, 4] = rng.choice(raw[:, 4], len(raw))
    return np.concatenate([raw, still.astype(np.float32)])


CORRUPTIONS: Corruptions[Points] = {
    "gaussian": _gaussian,
    "sparse": _sparse,
    "ghosts": _ghosts,
    "clutter": _clutter,
}


def noise_only(raw: Points, rng: np.random.Generator) -> Points:
    """As many points, each value anywhere between its lowest and highest."""
    return rng.uniform(raw.min(axis=0), raw.max(axis=0), raw.shape).astype(np.float32)
