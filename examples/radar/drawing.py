"""Radar points as a picture for people."""

from __future__ import annotations

import numpy as np

from omnibind_core.modalities.drawing import Picture

from .processing import Points, colours, dots


def draw(raw: Points, height: int) -> Picture:
    """All points from above: the sensor is in the middle of the lower edge, forward is up; colours as encoded."""
    reach = 1.1 * max(float(raw[:, 0].max()), 2 * float(np.abs(raw[:, 1]).max()), 1.0)  # m
    place = np.stack([0.5 - raw[:, 1] / reach, raw[:, 0] / reach], axis=1)
    return dots(place, colours(raw), height)
