"""The debug picture: what one sensor sees, what was recognised, and what each sensor contributed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from omnibind_core import modalities
from omnibind_core.modalities.drawing import Picture, fit, view_picture
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.runtime.types import Encoded, Prediction
from omnibind_ros.node.objects.words import colour, words

_WIDTH, _HIGHEST, _LINE, _MARGIN = 640, 640, 22, 8  # pixels
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5
_WHITE, _BLACK, _BAR, _FAINT = (255, 255, 255), (0, 0, 0), (86, 180, 233), (70, 70, 70)


def picture(modality: str, raw: Any) -> Picture | None:
    """A raw item as RGB ``uint8 [H, W, 3]``; ``None`` if it is nothing to look at.

    Args:
        modality: Its modality.
        raw: A checked item, or the encoder input or embedding of another node.
    """
    if isinstance(raw, Encoded):
        seen = raw.array.ndim == 4 and raw.array.shape[1] == 3 and raw.array.dtype == np.uint8
        return view_picture(raw.array[0]) if seen else None
    return modalities.get(modality).draw(raw) if modality in modalities.names() else None


def boxes(view: Picture, size: tuple[int, int], sensor: str, things: Sequence[ObjectPrediction]) -> Picture:
    """A picture of a sensor with the boxes of things, their ids and labels.

    Args:
        view: The picture, RGB.
        size: Width and height that the boxes are in pixels of.
        sensor: The sensor.
        things: The things.
    """
    times = _WIDTH / view.shape[1]  # drawn at the size that it is shown in, so that letters can be read
    view = fit(view, (max(round(view.shape[0] * times), 1), _WIDTH)).copy()  # the sensor's own, if it is that wide
    scale = np.array([view.shape[1] / size[0], view.shape[0] / size[1]] * 2)
    for thing in things:
        box = thing.sights[sensor].box if sensor in thing.sights else None
        if box is None:
            continue
        left, top, right, bottom = (np.array(box) * scale).round().astype(int).tolist()
        red, green, blue = (round(255 * part) for part in colour(thing.id))
        cv2.rectangle(view, (left, top), (right, bottom), (red, green, blue), 2)
        (wide, high), below = cv2.getTextSize(words(thing), _FONT, _SCALE, 1)
        left, base = min(max(left, 0), max(_WIDTH - wide, 0)), max(top - below, high + 2)
        cv2.rectangle(view, (left, base - high - 2), (left + wide, base + below - 1), _BLACK, -1)
        cv2.putText(view, words(thing), (left, base), _FONT, _SCALE, (red, green, blue), 1, cv2.LINE_AA)
    return view


def draw(view: Picture | None, prediction: Prediction) -> Picture:
    """The debug picture, RGB ``uint8 [H, 640, 3]``.

    Args:
        view: What one sensor sees, if one sees anything.
        prediction: What was recognised.
    """
    panel = np.zeros((_LINE * (len(prediction.sensors) + 1) + 2 * _MARGIN, _WIDTH, 3), np.uint8)
    nearest = f"unknown ({prediction.labels[0]}?)" if prediction.unknown else prediction.label
    _write(panel, 0, f"{nearest}  {prediction.confidence:.2f}", 0)
    for row, share in enumerate(prediction.sensors, 1):
        top = _MARGIN + row * _LINE
        cv2.rectangle(panel, (180, top + 4), (380, top + _LINE - 4), _FAINT, -1)
        cv2.rectangle(panel, (180, top + 4), (180 + round(200 * share.weight), top + _LINE - 4), _BAR, -1)
        _write(panel, row, share.name, 0)
        _write(panel, row, f"{share.label} {share.confidence:.2f}, {share.age:.2f} s", 388)
    if view is None:
        return panel
    height = min(round(view.shape[0] * _WIDTH / view.shape[1]), _HIGHEST)
    return np.concatenate([fit(view, (height, _WIDTH)), panel])


def _write(image: Picture, row: int, text: str, left: int) -> None:
    place = (left + _MARGIN, _MARGIN + row * _LINE + 16)
    cv2.putText(image, text, place, _FONT, _SCALE, _WHITE, 1, cv2.LINE_AA)
