"""``sensor_msgs/CameraInfo``: the camera of a sensor's pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import Camera
from omnibind_core.geometry.camera import Model

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"

# Names of lens models that drivers use; the first are those of sensor_msgs/distortion_models.hpp.
_MODELS: Mapping[str, Model] = {
    "plumb_bob": "plumb_bob",
    "rational_polynomial": "rational_polynomial",
    "equidistant": "equidistant",
    "radtan": "plumb_bob",
    "fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
}
_BENT = {0: 0, 4: 4, 5: 5, 8: 8, 12: 12, 14: 12}  # coefficients that are used, of so many: the last two of 14 tilt


def is_rectified(topic: str) -> bool:
    """Whether a topic's name says that its pictures are rectified: ``image_rect``, ``image_rect_color``, ``rect``."""
    return not {"rect", "rectified"}.isdisjoint(re.split("[/_]", topic))


def camera_of(
    info: Any,
    source: str,
    size: tuple[int, int] | None = None,
    rectified: bool = False,
    topic: str = "",
    picture: str = "picture",
) -> Camera:
    """The camera that took a picture.

    Its matrices are those of the full resolution, of which a picture may be a part (``roi``), with pixels put together
    (``binning_x``, ``binning_y``). ``R``, and what ``P`` tells of a second camera, are not used: a picture is seen from
    the frame that its own header names.

    Args:
        info: The message, of rclpy or rosbags.
        source: Sensor name, for error messages.
        size: Width and height of the picture, pixels; ``None``: that of which the message tells.
        rectified: Whether its pictures are rectified, so that ``P`` counts (``K`` where that is empty) and no
            distortion; else ``K`` and ``D``.
        topic: That of the message, for error messages.
        picture: What is of that size, for the same.

    Raises:
        InvalidInputError: The camera is not calibrated, its lens model is unknown, or the picture has another size.
    """
    p, k = _floats(info, "p"), _floats(info, "k")
    if rectified and p[0] > 0:
        focal, centre = (p[0], p[5]), (p[2], p[6])
    else:
        focal, centre = (k[0], k[4]), (k[2], k[5])
    where = f", on {topic}" if topic else ""
    if frame := getattr(getattr(info, "header", None), "frame_id", ""):
        where += f", of the frame '{frame}'"
    if not all(0 < length < math.inf for length in focal):  # NaN, too
        found = f"a CameraInfo with focal lengths {focal[0]:g} and {focal[1]:g}"
        raise InvalidInputError(source, found, f"a calibrated camera, whose k or p are filled in{where}")
    if not all(map(math.isfinite, centre)):
        found = f"a CameraInfo with the centre {centre[0]:g}, {centre[1]:g}"
        raise InvalidInputError(source, found, f"a calibrated one, whose k or p are finite{where}")
    model, distortion = ("plumb_bob", ()) if rectified else _lens(info, source, where)
    told = int(info.width), int(info.height)
    if not all(told):
        if size is None:
            raise InvalidInputError(source, f"a CameraInfo of {told[0]} x {told[1]} pixels", f"its resolution{where}")
        told = size
    whole = Camera(*told, focal, centre, model, distortion, source)
    return _seen(whole, info, size, where, picture)


def _seen(whole: Camera, info: Any, size: tuple[int, int] | None, where: str, picture: str) -> Camera:
    """The camera of a picture of this size: of the full resolution, or of what was cut out of that and binned."""
    roi = getattr(info, "roi", None)
    left, top, wide, high = (0, 0, 0, 0) if roi is None else (roi.x_offset, roi.y_offset, roi.width, roi.height)
    wide, high = int(wide) or whole.width, int(high) or whole.height
    across, down = (max(int(getattr(info, name, 0)), 1) for name in ("binning_x", "binning_y"))
    expected = max(wide // across, 1), max(high // down, 1)
    size = size or expected
    if size == (whole.width, whole.height):  # neither cut nor binned, whatever else it says
        return whole
    if size not in (expected, (wide, high)):
        parts = [f"{wide} x {high} of them"] if (wide, high) != (whole.width, whole.height) else []
        parts += [f"binned by {across} x {down}"] if (across, down) != (1, 1) else []
        full = f" ({whole.width} x {whole.height}; {', '.join(parts)})" if parts else ""
        told = f"a CameraInfo of as many, not of {expected[0]} x {expected[1]}{full}{where}"
        raise InvalidInputError(whole.source, f"a {picture} of {size[0]} x {size[1]} pixels", told)
    centre = whole.centre[0] - left, whole.centre[1] - top
    if size == (wide, high):
        return replace(whole, width=wide, height=high, centre=centre)
    used = expected[0] * across, expected[1] * down  # what is over at the right and below was left out
    return replace(whole, width=used[0], height=used[1], centre=centre).resized(*size)


def _lens(info: Any, source: str, where: str) -> tuple[Model, tuple[float, ...]]:
    """Lens model and coefficients of a raw picture."""
    name, values = str(info.distortion_model), tuple(_floats(info, "d"))
    model = _MODELS.get(name.lower())
    if not all(map(math.isfinite, values)):
        found = f"the coefficients of distortion {', '.join(f'{value:g}' for value in values)}"
        raise InvalidInputError(source, found, f"finite ones in d{where}")
    if model == "equidistant":
        return model, values[:4] or (0.0,) * 4  # without coefficients it is a fisheye all the same
    if not any(values):  # drivers of pictures without distortion name any model, or none
        return "plumb_bob", ()
    if model is None:
        expected = f"one of {', '.join(_MODELS)}{where}"
        raise InvalidInputError(source, f"the lens model '{name}'", expected)
    if len(values) not in _BENT or any(values[_BENT[len(values)] :]):
        found = f"{len(values)} coefficients of distortion"
        if len(values) in _BENT:
            found += f", of which the last two tilt the sensor by {values[12]:g}, {values[13]:g}"
        raise InvalidInputError(source, found, f"4, 5, 8 or 12 of them{where}")
    return ("rational_polynomial" if len(values) > 5 else "plumb_bob"), values[: _BENT[len(values)]]


def _floats(info: Any, name: str) -> list[float]:
    """A matrix or coefficients; ROS 1 spells them with capitals."""
    return [float(value) for value in getattr(info, name if hasattr(info, name) else name.upper())]
