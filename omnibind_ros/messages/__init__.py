"""Sensor messages to NumPy and back, one function per ROS message type, and our own messages to objects and back.

Duck-typed: the functions read attributes only, so that messages of rclpy (``array.array`` fields) and of ``rosbags``
(NumPy fields) both work, and this package imports no ROS. Data are viewed in place where their layout allows; a decoded
array may share memory with its message and must not be written to.
"""

from omnibind_ros.messages.camera_info import CAMERA_INFO, camera_of, is_rectified
from omnibind_ros.messages.clouds import LASER_SCAN, POINT_CLOUD, point_cloud_fields, point_fields
from omnibind_ros.messages.decoder import Decoder, decode
from omnibind_ros.messages.events import (
    DVS_EVENTS,
    EVENT_ARRAY,
    EVENT_PACKET,
    OLD_EVENT_PACKET,
    PROPHESEE_EVENTS,
    PacketDecoder,
    event_array_fields,
)
from omnibind_ros.messages.fields import IMAGE_DECODERS, DecodeOptions, Limits, fill, size_of, stamp_ns, to_ros
from omnibind_ros.messages.frames import MODALITY_FRAME, STRING, modality_frame_fields
from omnibind_ros.messages.pictures import COMPRESSED_IMAGE, IMAGE, image_fields, image_pixels
from omnibind_ros.messages.prediction import prediction_fields, prediction_of, reports_of, sensor_status_fields, tick_of
from omnibind_ros.messages.pressure import MULTI_ARRAYS
from omnibind_ros.messages.registry import decodes, types_for
from omnibind_ros.messages.sound import (
    AUDIO_CHUNK,
    AUDIO_DATA,
    AUDIO_DATA_STAMPED,
    AUDIO_INFO,
    AUDIO_STAMPED,
    SAMPLE_FORMATS,
    audio_chunk_fields,
)

__all__ = [
    "AUDIO_CHUNK",
    "AUDIO_DATA",
    "AUDIO_DATA_STAMPED",
    "AUDIO_INFO",
    "AUDIO_STAMPED",
    "CAMERA_INFO",
    "COMPRESSED_IMAGE",
    "DVS_EVENTS",
    "EVENT_ARRAY",
    "EVENT_PACKET",
    "IMAGE",
    "IMAGE_DECODERS",
    "LASER_SCAN",
    "MODALITY_FRAME",
    "MULTI_ARRAYS",
    "OLD_EVENT_PACKET",
    "POINT_CLOUD",
    "PROPHESEE_EVENTS",
    "SAMPLE_FORMATS",
    "STRING",
    "DecodeOptions",
    "Decoder",
    "Limits",
    "PacketDecoder",
    "audio_chunk_fields",
    "camera_of",
    "decode",
    "decodes",
    "event_array_fields",
    "fill",
    "image_fields",
    "image_pixels",
    "is_rectified",
    "modality_frame_fields",
    "point_cloud_fields",
    "point_fields",
    "prediction_fields",
    "prediction_of",
    "reports_of",
    "sensor_status_fields",
    "size_of",
    "stamp_ns",
    "tick_of",
    "to_ros",
    "types_for",
]
