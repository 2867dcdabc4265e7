"""Pictures of what was found: boxes of ours in colours, those of the truth white."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from omnibind_core.modalities.drawing import Picture
from omnibind_core.objects.regions import Rectangle
from omnibind_core.objects.types import ObjectPrediction
from omnibind_ros.node import overlay

_WHITE = (255, 255, 255)


def drawn(
    modality: str,
    raw: Any,
    size: tuple[int, int],
    sensor: str,
    things: Sequence[ObjectPrediction],
    true: Mapping[str, Rectangle],
) -> Picture | None:
    """A picture of a sensor with boxes, RGB ``uint8 [H, 640, 3]``; ``None`` if it cannot be shown.

    Args:
        modality: Of the sensor.
        raw: Its checked item.
        size: Width and height that the boxes are in pixels of.
        sensor: The sensor.
        things: What is told.
        true: What is there.
    """
    picture = overlay.picture(modality, raw)
    if picture is None:
        return None
    found = overlay.boxes(picture, size, sensor, things)
    scale = np.array([found.shape[1] / size[0], found.shape[0] / size[1]] * 2)
    for box in true.values():
        left, top, right, bottom = (np.array(box) * scale).round().astype(int).tolist()
        cv2.rectangle(found, (left, top), (right, bottom), _WHITE, 1)
    return found
