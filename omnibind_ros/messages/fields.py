"""What all decoders share: options, stamps, views of a message's bytes, and filling messages of rclpy."""

from __future__ import annotations

import array
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_DECODERS = ("auto", "native", "cv_bridge")


@dataclass(frozen=True)
class DecodeOptions:
    """What a message does not say about itself, and how to decode it.

    Attributes:
        scale: Thermal and touch with 16-bit or float pixels, and arrays of numbers: ``value * scale + offset``, in °C
            for thermal and 0..255 for touch.
        offset: See ``scale``.
        sample_rate: Hz, for sound messages that carry none (``audio_common_msgs/AudioData``).
        channels: Interleaved channels of the same messages.
        sample_format: How the same messages store a sample, by GStreamer's name, for example ``S16LE``.
        coding_format: How they are coded; only ``wave`` (raw samples) is decoded.
        image_decoder: ``native``; ``cv_bridge`` for all of ``sensor_msgs/Image``; or ``auto``, which leaves to
            cv_bridge, where it is installed, the encodings that ``native`` does not know.
        rows: Of a pressure array whose message does not say it; 0: it does.
        camera_info: Topic of the ``CameraInfo`` of a depth camera.
        intrinsics: The newest message from there; ``None`` before the first.
        model: Identity that a ``ModalityFrame`` must have been made for, ``name@hash``; ``""`` accepts any.
    """

    scale: float = 1.0
    offset: float = 0.0
    sample_rate: int = 16000
    channels: int = 1
    sample_format: str = "S16LE"
    coding_format: str = "wave"
    image_decoder: str = "auto"
    rows: int = 0
    camera_info: str = ""
    intrinsics: Any = None
    model: str = ""


def stamp_ns(message: Any) -> int | None:
    """Stamp of a message's header in nanoseconds; ``None`` if it has no header or the stamp was left at zero."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec or None


_SOUND = {f"{kind}_data": 1 for kind in ("float32", "int32", "int16", "int8", "uint8")}
_LARGE = {"data": 1, "samples": 1, "x": 6, "events": 200, **_SOUND}  # with what lies beside each value, or in it
_NESTED = ("audio", "audio_data")


def size_of(message: Any) -> int:
    """Bytes that a message takes, roughly: by the lengths of its arrays."""
    size = sum(size_of(getattr(message, name)) for name in _NESTED if hasattr(message, name))
    for name, weight in _LARGE.items():
        values = getattr(message, name, None)
        if isinstance(values, Sized):
            size += len(values) * getattr(values, "itemsize", 1) * weight
    return size


_TYPECODES: Mapping[str, str] = {
    "u1": "B",
    "i1": "b",
    "u2": "H",
    "i2": "h",
    "u4": "I",
    "i4": "i",
    "u8": "Q",
    "i8": "q",
    "f4": "f",
    "f8": "d",
}


def to_ros(value: Any) -> Any:
    """A NumPy array as ``array.array`` in one copy, anything else unchanged.

    rclpy takes an ``array.array`` as it is, but walks through every element of any other sequence.
    """
    if not isinstance(value, np.ndarray):
        return value
    result = array.array(_TYPECODES[value.dtype.str[1:]])
    result.frombytes(flat_bytes(value).data)
    return result


def fill(message: Any, fields: Mapping[str, Any]) -> Any:
    """Sets fields of an rclpy message, arrays without a pass over their elements, and returns the message."""
    for name, value in fields.items():
        setattr(message, name, to_ros(value))
    return message


def as_bytes(data: Any) -> NDArray[np.uint8]:
    """Views ``bytes``, ``array.array`` or a NumPy array as bytes."""
    return np.frombuffer(data, np.uint8)


def flat_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of an array, row by row, without a copy if it is contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
