"""What all decoders share: options, stamps, views of a message's bytes, and filling messages of rclpy."""

from __future__ import annotations

import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.picture_sizes import MOST_PIXELS
from omnibind_core.modalities.text.modality import MOST_CHARACTERS

IMAGE_DECODERS = ("auto", "native", "cv_bridge")


@dataclass(frozen=True)
class Limits:
    """What one message may hold at most. More is rejected before anything is made of it; parameters ``limits.*``.

    Attributes:
        pixels: Of a picture.
        points: Of a cloud or a scan.
        events: Events, or words of a packet.
        sound: s of sound in a message.
        text: Characters.
        queued: MB of messages that wait for their tick, of one sensor.
    """

    pixels: int = MOST_PIXELS
    points: int = 1 << 23
    events: int = 1 << 22
    sound: float = 60.0
    text: int = MOST_CHARACTERS
    queued: int = 256

    def check(self, limit: str, found: float, source: str) -> None:
        """Refuses a message that holds more.

        Args:
            limit: One of the attributes.
            found: What the message says that it holds.
            source: Sensor name, for the error message.

        Raises:
            InvalidInputError: It is more; names value and limit.
        """
        most = getattr(self, limit)
        if found > most:
            what = {"sound": "s of sound", "text": "characters"}.get(limit, limit)
            raise InvalidInputError(source, f"{found:.10g} {what}", f"at most {most:.10g} {what} (limits.{limit})")


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
        limits: What one message may hold at most.
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
    limits: Limits = Limits()
    model: str = ""


def stamp_ns(message: Any) -> int | None:
    """Stamp of a message's header in nanoseconds; ``None`` if it has no header or the stamp was left at zero."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec or None


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


def size_of(message: Any) -> int:
    """Bytes of the arrays and texts of a message, and of the messages in it, about: what it holds in memory.

    Args:
        message: Of rclpy or rosbags.
    """
    if isinstance(message, str | bytes):
        return len(message)
    if isinstance(message, np.ndarray):
        return message.nbytes
    if isinstance(message, array.array):
        return len(message) * message.itemsize
    if isinstance(message, list | tuple):  # of messages, which are all of one type
        return len(message) * (_OBJECT + size_of(message[0])) if message else 0
    names: Iterable[str] = getattr(message, "__dataclass_fields__", getattr(message, "__slots__", ()))
    sizes: list[int] = [size_of(getattr(message, name, None)) for name in names if name[:2] != "__"]
    return sum(sizes)


_OBJECT = 200  # bytes of a message within a list, beside its arrays


def flat_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of an array, row by row, without a copy if it is contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
