"""How ROS messages become depth pictures. Read by the ROS nodes only."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_ros.messages import IMAGE, DecodeOptions, image_pixels

_ENCODINGS = ("16UC1", "mono16", "32FC1")  # REP 118; drivers without it send mono16


def _image(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[Any]:
    if message.encoding not in _ENCODINGS:
        raise InvalidInputError(source, f"encoding '{message.encoding}'", f"for depth one of {', '.join(_ENCODINGS)}")
    return image_pixels(message, source)


DECODERS = {IMAGE: _image}
