"""Sensor messages to NumPy and back, one function per ROS message type.

Duck-typed: the functions read attributes only, so that messages of rclpy (``array.array`` fields) and of ``rosbags``
(NumPy fields) both work, and this package imports no ROS. Data are viewed in place where their layout allows; a decoded
array may share memory with its message and must not be written to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_ros.messages import clouds, events, frames, pictures, sound
from omnibind_ros.messages.clouds import point_cloud_fields, point_fields
from omnibind_ros.messages.events import PacketDecoder, event_array_fields
from omnibind_ros.messages.fields import IMAGE_DECODERS, DecodeOptions, fill, to_ros
from omnibind_ros.messages.frames import modality_frame_fields
from omnibind_ros.messages.pictures import image_fields, image_pixels
from omnibind_ros.messages.sound import SAMPLE_FORMATS, audio_chunk_fields

__all__ = [
    "IMAGE_DECODERS",
    "SAMPLE_FORMATS",
    "DecodeOptions",
    "Decoder",
    "PacketDecoder",
    "audio_chunk_fields",
    "decode",
    "event_array_fields",
    "fill",
    "image_fields",
    "image_pixels",
    "modality_frame_fields",
    "point_cloud_fields",
    "point_fields",
    "stamp_ns",
    "to_ros",
    "types_for",
]

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
LASER_SCAN = "sensor_msgs/msg/LaserScan"
EVENT_ARRAY = "omnibind_ros/msg/EventArray"
EVENT_PACKET = "event_camera_msgs/msg/EventPacket"
OLD_EVENT_PACKET = "event_array_msgs/msg/EventArray"  # what event_camera_msgs was called before 2023
DVS_EVENTS = "dvs_msgs/msg/EventArray"
PROPHESEE_EVENTS = "prophesee_event_msgs/msg/EventArray"
AUDIO_CHUNK = "omnibind_ros/msg/AudioChunk"
AUDIO_STAMPED = "audio_common_msgs/msg/AudioStamped"
AUDIO_DATA_STAMPED = "audio_common_msgs/msg/AudioDataStamped"
AUDIO_DATA = "audio_common_msgs/msg/AudioData"
AUDIO_INFO = "audio_common_msgs/msg/AudioInfo"
STRING = "std_msgs/msg/String"
MODALITY_FRAME = "omnibind_ros/msg/ModalityFrame"

# Accepted message types of each modality, preferred ones first; MODALITY_FRAME is accepted for all.
_TYPES: Mapping[str, tuple[str, ...]] = {
    "image": (IMAGE, COMPRESSED_IMAGE),
    "thermal": (IMAGE, COMPRESSED_IMAGE),
    "touch": (IMAGE, COMPRESSED_IMAGE),
    "event": (EVENT_PACKET, OLD_EVENT_PACKET, EVENT_ARRAY, PROPHESEE_EVENTS, DVS_EVENTS),
    "point_cloud": (POINT_CLOUD, LASER_SCAN),
    "audio": (AUDIO_CHUNK, AUDIO_STAMPED, AUDIO_DATA_STAMPED, AUDIO_DATA),
    "text": (STRING,),
}

Function = Callable[[Any, str, DecodeOptions, str], Any]

# A class is made once per sensor: its instance remembers what later messages build on.
_DECODERS: Mapping[str, Function | Callable[[], Function]] = {
    IMAGE: pictures.image,
    COMPRESSED_IMAGE: pictures.compressed_image,
    POINT_CLOUD: clouds.point_cloud,
    LASER_SCAN: clouds.laser_scan,
    EVENT_ARRAY: events.event_array,
    EVENT_PACKET: PacketDecoder,
    OLD_EVENT_PACKET: PacketDecoder,
    DVS_EVENTS: events.event_list,
    PROPHESEE_EVENTS: events.event_list,
    AUDIO_CHUNK: sound.audio_chunk,
    AUDIO_STAMPED: sound.audio_stamped,
    AUDIO_DATA_STAMPED: sound.audio_data_stamped,
    AUDIO_DATA: sound.audio_data,
    STRING: frames.string,
    MODALITY_FRAME: frames.modality_frame,
}


def types_for(modality: str) -> tuple[str, ...]:
    """ROS message types accepted for a modality, preferred ones first."""
    return (*(_TYPES.get(modality) or _plugin_decoders(modality)), MODALITY_FRAME)


def _plugin_decoders(modality: str) -> Mapping[str, Function]:
    """Decoders by ROS type: ``DECODERS`` of a plug-in's ``messages.py``."""
    decoders: Mapping[str, Function] = getattr(modalities.plugin_module(modality, "messages"), "DECODERS", {})
    return decoders


class Decoder:
    """Turns the messages of one sensor into the raw form of its modality.

    Some encodings say only what has changed since the message before: so one decoder for each sensor, and its messages
    in the order in which they were sent. Where messages were lost, such a decoder begins anew by itself.

    Args:
        modality: One of :func:`omnibind_core.modalities.names`.
        source: Sensor name, for error messages.
    """

    def __init__(self, modality: str, source: str) -> None:
        self._modality = modality
        self._source = source
        self._accepted = types_for(modality)
        self._functions: dict[str, Function] = {}

    @property
    def losses(self) -> dict[str, int]:
        """What was lost between or inside of messages so far, by name; empty where the encoding cannot tell."""
        losses: dict[str, int] = {}
        for function in tuple(self._functions.values()):
            losses.update(getattr(function, "losses", {}))
        return losses

    def decode(self, ros_type: str, message: Any, options: DecodeOptions) -> Any:
        """Decodes the next message.

        Args:
            ros_type: For example ``"sensor_msgs/msg/Image"``; one of :func:`types_for` the modality.
            message: The message, of rclpy or rosbags.
            options: What the message does not say.

        Returns:
            The raw item, which the modality's ``check`` has still to accept, or
            :class:`~omnibind_core.runtime.types.Encoded` for a ``ModalityFrame``.

        Raises:
            InvalidInputError: The message is malformed, or its type is not accepted for the modality.
        """
        if ros_type not in self._accepted:
            expected = f"for {self._modality} one of {', '.join(self._accepted)}"
            raise InvalidInputError(self._source, f"a message of type {ros_type}", expected)
        if ros_type not in self._functions:
            own = {} if self._modality in _TYPES else _plugin_decoders(self._modality)
            entry: Any = own.get(ros_type) or _DECODERS[ros_type]
            self._functions[ros_type] = entry() if isinstance(entry, type) else entry
        try:
            return self._functions[ros_type](message, self._modality, options, self._source)
        except AttributeError as error:
            if isinstance(error.obj, np.ndarray | ModuleType):  # our own mistake
                raise
            raise InvalidInputError(
                self._source, f"a message without '{error.name}'", f"the fields of {ros_type}"
            ) from error


def decode(ros_type: str, message: Any, modality: str, options: DecodeOptions, source: str) -> Any:
    """Decodes a message that stands alone; see :meth:`Decoder.decode`."""
    return Decoder(modality, source).decode(ros_type, message, options)


def stamp_ns(message: Any) -> int | None:
    """Stamp of a message's header in nanoseconds; ``None`` if it has no header or the stamp was left at zero."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec or None
