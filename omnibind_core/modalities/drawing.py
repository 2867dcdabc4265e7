"""What the modalities share to show an item to a person. Pictures are RGB ``uint8 [H, W, 3]``."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

INK = (30, 30, 30)
"""Colour of what is written on light ground."""


def rgb(grey: Picture) -> Picture:
    """A grey picture ``uint8 [H, W]`` with three equal channels."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The lowest to the highest value as 0..255, in the same shape; 0 if all are equal."""
    low, high = float(values.min()), float(values.max())
    scale = 255 / (high - low) if high > low else 0.0
    return np.asarray((values - low) * scale, np.uint8)


def coloured(grey: NDArray[np.uint8], colour_map: int) -> Picture:
    """Grey ``uint8 [H, W]`` in the colours of one of OpenCV's ``COLORMAP_*``."""
    bgr: Any = cv2.applyColorMap(np.ascontiguousarray(grey), colour_map)
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


def view_picture(view: NDArray[Any]) -> Picture:
    """One view of encoder input as a picture: colour where it is one, else grey from its lowest to its highest value.

    Args:
        view: Numbers, ``[3, H, W]`` in RGB or any other shape; of that all but the last axis are drawn as rows.
    """
    if view.ndim == 3 and view.shape[0] == 3:
        return np.ascontiguousarray((view if view.dtype == np.uint8 else stretched(view)).transpose(1, 2, 0))
    return rgb(stretched(view.reshape(-1, view.shape[-1] if view.ndim else 1)))


def fit(picture: Picture, size: tuple[int, int], margin: int = 0) -> Picture:
    """The whole picture in another size ``(height, width)``, as large as it gets.

    Args:
        picture: RGB ``uint8 [H, W, 3]``.
        size: Height and width in pixels.
        margin: Brightness of what is left beside it, 0..255.
    """
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    scale = min(size[0] / height, size[1] / width)
    rows, columns = max(round(height * scale), 1), max(round(width * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    framed = np.full((*size, 3), margin, np.uint8)
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    resized: Any = cv2.resize(np.ascontiguousarray(picture), (columns, rows), interpolation=method)
    framed[top : top + rows, left : left + columns] = resized
    return framed


def caption(text: str, size: tuple[int, int]) -> Picture:
    """A text on light ground, in lines of 20 letters, cut where it does not fit in ``(height, width)`` pixels."""
    picture = np.full((*size, 3), 235, np.uint8)
    for line in range(min((size[0] - 20) // 16 + 1, -(-len(text) // 20))):
        write(picture, text[20 * line : 20 * (line + 1)], (4, 20 + 16 * line), 0.38)
    return picture


def write(
    picture: Picture, text: str, place: tuple[int, int], scale: float, colour: tuple[int, int, int] = INK
) -> None:
    """Writes a line into a picture, cut at its edge; OpenCV's font has ASCII only.

    Args:
        picture: Is changed.
        text: The line.
        place: ``(x, y)`` of its lower left corner, pixels.
        scale: Of the font; 1 is about 20 pixels high.
        colour: RGB.
    """
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
