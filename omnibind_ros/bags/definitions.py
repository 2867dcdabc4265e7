"""Message definitions of drivers, for bags that hold none (recorded before ROS 2 Iron in sqlite3)."""

from __future__ import annotations

from collections.abc import Mapping

_PACKET = """std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events"""


def _event_list(package: str) -> dict[str, str]:
    return {
        f"{package}/msg/Event": "uint16 x\nuint16 y\nbuiltin_interfaces/Time ts\nbool polarity",
        f"{package}/msg/EventArray": f"std_msgs/Header header\nuint32 height\nuint32 width\n{package}/Event[] events",
    }


DEFINITIONS: Mapping[str, str] = {
    "event_camera_msgs/msg/EventPacket": _PACKET,
    "event_array_msgs/msg/EventArray": _PACKET,
    **_event_list("dvs_msgs"),
    **_event_list("prophesee_event_msgs"),
    # The package of ros-drivers.
    "audio_common_msgs/msg/AudioData": "uint8[] data",
    "audio_common_msgs/msg/AudioDataStamped": "std_msgs/Header header\naudio_common_msgs/AudioData audio",
    "audio_common_msgs/msg/AudioInfo": "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\n"
    "string coding_format",
}
"""By ROS type."""

SAME_NAME: Mapping[str, Mapping[str, str]] = {
    "audio_common_msgs/msg/AudioStamped": {  # the package of mgonzs13, which only publishes this type
        "audio_common_msgs/msg/AudioStamped": "std_msgs/Header header\naudio_common_msgs/Audio audio",
        "audio_common_msgs/msg/Audio": "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info",
        "audio_common_msgs/msg/AudioData": "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\n"
        "int8[] int8_data\nuint8[] uint8_data",
        "audio_common_msgs/msg/AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk",
    }
}
"""Other definitions under names of the above, by the type that tells which are meant."""
