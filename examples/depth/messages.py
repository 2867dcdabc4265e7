"""How ROS messages become depth pictures. Read by the ROS nodes only."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_ros.messages import IMAGE, DecodeOptions, decodes, image_pixels

_ENCODINGS = ("16UC1", "mono16", "32FC1")  # REP 118; drivers without it send mono16


@decodes(IMAGE, "depth")
def image(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[Any]:
    """``sensor_msgs/Image`` of a depth camera: mm in 16 bits, or m as floats."""
    if message.encoding not in _ENCODINGS:
        raise InvalidInputError(source, f"encoding '{message.encoding}'", f"for depth one of {', '.join(_ENCODINGS)}")
    return image_pixels(message, source)
