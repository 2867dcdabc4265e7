"""What speaks against a camera picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Doubt
from omnibind_core.modalities.pictures import AS_STORED, decode_picture

_PIXELS = 32  # rows and columns of the grid that is looked at
_CONSTANT = 2.0  # of 255, standard deviation; training and validation pictures have 12 and more
_BLACK, _DARK = 8, 32  # of 255, that 99 % of the values are below; in those pictures 92 and more
_LIGHT = 0.999  # share of the values, whose highest is below _DARK where there is no light at all

_HOLES = 0.02  # share of the pixels that a depth camera could not measure, at least
_NEAREST = 0.05  # of the farthest distance; between it and the holes is nothing
_DEEP = 100  # mm that the farthest distance is at least: less is noise on black
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*")


def depth_doubt(pixels: NDArray[np.uint16], named: bool = False) -> Doubt | None:
    """The doubt about a 16-bit picture of one channel that it is of distances, not of light.

    Args:
        pixels: ``uint16 [H, W]``.
        named: Whether its encoding is that of distances (``16UC1``, ROS REP 118). Otherwise the values tell: there are
            holes, which are 0, and nothing else is near 0. A picture of a thing on black is like that, too, so such a
            one is not excluded.
    """
    row, column = (-(-side // (4 * _PIXELS)) for side in pixels.shape[:2])
    values = pixels[::row, ::column]
    measured = values[values > 0]
    if not measured.size:
        return None
    low, high = (int(value) for value in np.percentile(measured, (1, 99)))
    holes = 1 - measured.size / values.size
    if not named and not (holes > _HOLES and low > _NEAREST * high and high > max(low, _DEEP)):
        return None
    found = f"{'16UC1, ' if named else ''}values {low} to {high} and {holes:.0%} zeros: distances in mm, expected light"
    return Doubt(f"{found}. Depth is no camera; as a cloud it is type: lidar", excludes=named)


def file_doubt(path: Path) -> Doubt | None:
    """The doubt about a file: of a PNG or TIFF of 16 bits and one channel, see :func:`depth_doubt`."""
    with path.open("rb") as file:
        header = file.read(26)
    is_png = header[:8] == _PNG and header[24:26] == b"\x10\x00"  # bits of a value, kind of colour
    if not is_png and header[:4] not in _TIFF:
        return None
    try:
        pixels = decode_picture(np.fromfile(path, np.uint8), str(path), AS_STORED)
    except InvalidInputError:  # a kind of TIFF that is no grey one of 16 bits
        return None
    return depth_doubt(pixels) if pixels.ndim == 2 and pixels.dtype == np.uint16 else None


def doubt(raw: NDArray[np.uint8]) -> Doubt | None:
    """The doubt about a checked picture ``uint8 [H, W, 3]``: a constant one says nothing, a dark one little."""
    pixels = _grid(raw, _PIXELS)
    means, deviations = cv2.meanStdDev(pixels)
    if deviations.max() >= _CONSTANT and means.mean() >= _DARK:
        return None
    pixels = _grid(raw, 8 * _PIXELS)  # that one misses what is small
    spread = float(cv2.meanStdDev(pixels)[1].max())
    values = np.cumsum(cv2.calcHist([pixels.reshape(-1, 1)], [0], None, [256], [0, 256]))
    bright, peak = (int(np.searchsorted(values, share * pixels.size)) for share in (0.99, _LIGHT))
    if bright < _BLACK and peak < _DARK:
        return Doubt(f"a black picture, 99 % of its values at most {bright} of 255: is the lens covered?")
    if spread < _CONSTANT:
        found = f"a constant picture, standard deviation {spread:.1f} of 255"
        return Doubt(f"{found}, expected {_CONSTANT:.0f} and more: does the camera see anything?")
    if bright < _DARK:
        found = f"an almost black picture, 99 % of its values at most {bright} of 255"
        return Doubt(f"{found}, expected {_DARK} and more: light, exposure or gain", excludes=False)
    return None


def _grid(raw: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Pixels of at most so many rows and columns, evenly spaced."""
    row, column = (-(-side // count) for side in raw.shape[:2])
    return np.ascontiguousarray(raw[::row, ::column])
