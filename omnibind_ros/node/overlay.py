"""The debug picture: what one sensor sees, what was recognised, and what each sensor contributed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities import Events
from omnibind_core.runtime.types import Prediction

_WIDTH, _LINE, _MARGIN = 640, 22, 8
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5
_WHITE, _BAR, _FAINT = (255, 255, 255), (86, 180, 233), (70, 70, 70)


def picture(raw: Any) -> NDArray[np.uint8] | None:
    """A raw item as RGB ``uint8 [H, W, 3]``; ``None`` if it is nothing to look at.

    Args:
        raw: Picture, temperatures, events, or the encoder input ``uint8 [views, 3, H, W]`` of another node.
    """
    array = getattr(raw, "array", raw)  # of an Encoded
    if isinstance(array, Events):
        image = np.full((array.height, array.width, 3), 128, np.uint8)
        image[array.y, array.x] = np.where(array.p[:, None] > 0, np.uint8(255), np.uint8(0))
        return image
    if not isinstance(array, np.ndarray):
        return None
    if array.ndim == 4 and array.shape[1] == 3 and array.dtype == np.uint8:
        return np.ascontiguousarray(array[0].transpose(1, 2, 0))
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        return np.array(array)
    if array.ndim != 2 or min(array.shape) < 2 or array.shape[1] < 4:  # a cloud is [N, 3]
        return None
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        array = ((array - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return np.repeat(array[:, :, None], 3, axis=2)


def draw(view: NDArray[np.uint8] | None, prediction: Prediction) -> NDArray[np.uint8]:
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
    height = round(view.shape[0] * _WIDTH / view.shape[1])
    return np.concatenate([cv2.resize(view, (_WIDTH, height), interpolation=cv2.INTER_AREA), panel])


def _write(image: NDArray[np.uint8], row: int, text: str, left: int) -> None:
    place = (left + _MARGIN, _MARGIN + row * _LINE + 16)
    cv2.putText(image, text, place, _FONT, _SCALE, _WHITE, 1, cv2.LINE_AA)
