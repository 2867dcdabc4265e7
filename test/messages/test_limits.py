"""What one message may hold at most, and what may wait of all: rejected, or let go, with value and limit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities import Events, Sound
from omnibind_core.runtime.sensor import Sensor
from omnibind_core.runtime.types import EngineSettings, SensorConfig
from omnibind_core.runtime.vocabulary import MOST_LABELS, check_labels
from omnibind_ros import messages
from omnibind_ros.bags import types
from omnibind_ros.messages import DecodeOptions, Limits, decode, size_of
from omnibind_ros.node.parameters import FUSION_NODE, LIMITS, MOST_SENSORS, Parameters, Spec, check_sensor_names

pytest.importorskip("rosbags")
FEW = Limits(pixels=99, points=9, events=9, sound=0.5, text=9)
PICTURE = np.full((10, 10, 3), 90, np.uint8)
EVENTS = Events(*(np.zeros(10, kind) for kind in (np.uint16, np.uint16, np.int64, np.uint8)), 8, 6)
HELD = [
    ("image", messages.IMAGE, messages.image_fields(PICTURE, "rgb8"), "100 pixels", "99 pixels"),
    (
        "touch",
        messages.COMPRESSED_IMAGE,
        {"format": "png", "data": cv2.imencode(".png", PICTURE)[1].reshape(-1)},
        "100 pixels",
        "99 pixels",
    ),
    ("point_cloud", messages.POINT_CLOUD, messages.point_cloud_fields(np.ones((10, 3))), "10 points", "limits.points"),
    ("event", messages.EVENT_ARRAY, messages.event_array_fields(EVENTS), "10 events", "limits.events"),
    ("audio", messages.AUDIO_CHUNK, messages.audio_chunk_fields(Sound(np.zeros(16000, "f4"), 16000)), "1 s", "0.5 s"),
    ("text", messages.STRING, {"data": "ten letter"}, "10 characters", "limits.text"),
]


def _message(ros_type: str, fields: Any) -> Any:
    if ros_type == messages.POINT_CLOUD:
        field = types.typestore().types["sensor_msgs/msg/PointField"]
        fields = {**fields, "fields": [field(**one) for one in fields["fields"]]}
    return types.message(ros_type, fields, None if ros_type == messages.STRING else 1)


@pytest.mark.parametrize(
    ("modality", "ros_type", "fields", "value", "limit"), HELD, ids=[one[1].rpartition("/")[2] for one in HELD]
)
def test_a_message_that_holds_more_is_rejected(
    modality: str, ros_type: str, fields: Any, value: str, limit: str
) -> None:
    message = _message(ros_type, fields)
    decode(ros_type, message, modality, DecodeOptions(), "sensor")
    with pytest.raises(InvalidInputError, match=rf"\[sensor\].*{value}.*at most.*{limit}"):
        decode(ros_type, message, modality, DecodeOptions(limits=FEW), "sensor")


def test_vectors_of_events_count_as_what_they_may_hold() -> None:
    words = np.array([0x4FFF], "<u2").view(np.uint8)  # twelve columns of EVT3
    packet = SimpleNamespace(encoding="evt3", width=640, height=480, seq=0, events=words)
    with pytest.raises(InvalidInputError, match=r"12 events, expected at most 9 events \(limits\.events\)"):
        messages.PacketDecoder()(packet, "event", DecodeOptions(limits=FEW), "sensor")


def test_what_waits_is_bounded_by_its_bytes() -> None:
    message = _message(messages.IMAGE, messages.image_fields(np.zeros((1000, 1000, 3), np.uint8), "rgb8"))
    size = size_of(message)
    assert 3_000_000 <= size < 3_001_000
    sensor = Sensor(SensorConfig("camera", "image"), EngineSettings(max_bytes=10_000_000), is_stream=False)
    for number in range(8):
        sensor.push(number, number, message, None, size)
    assert len(sensor._items) == 3 and sensor._bytes == 3 * size
    assert sensor.report(8).dropped == 5
    sensor.push(9, 9, message, None, 20_000_000)  # the newest is kept, however large
    assert [item.stamp_ns for item in sensor._items] == [9]
    sensor.update(10**12)  # silent for too long
    assert not sensor._items and sensor._bytes == 0


def test_the_size_of_a_message_is_that_of_what_it_holds() -> None:
    store = types.typestore().types
    assert size_of(store[messages.STRING]("word")) == 4
    box = store["geometry_msgs/msg/Point32"](0.0, 0.0, 0.0)
    assert size_of(store["geometry_msgs/msg/Polygon"]([box] * 100)) == 20_000
    rclpy = pytest.importorskip("sensor_msgs.msg")
    message = rclpy.Image()
    message.data = bytes(5000)
    assert 5000 <= size_of(message) < 5100


class _Given(Parameters):
    """Parameters without a node."""

    def __init__(self, **given: Any) -> None:
        self._given = given
        super().__init__(None, FUSION_NODE)

    def _offer(self, spec: Spec, name: str) -> None:
        self._given.setdefault(name, spec.default)

    def _value(self, name: str) -> Any:
        return self._given[name]


def test_limits_are_parameters() -> None:
    assert _Given().limits == Limits()
    given = _Given(**{"limits.pixels": 7, "limits.queued": 3})
    assert given.sensor("camera").options.limits == Limits(pixels=7, queued=3)
    assert given.settings.max_bytes == 3_000_000
    assert {spec.name for spec in LIMITS} == {f"limits.{name}" for name in Limits.__dataclass_fields__}
    with pytest.raises(ConfigError, match=r"limits\.text.*3000"):
        _Given(**{"limits.text": 3000})


def test_vocabularies_and_sensors_are_bounded() -> None:
    check_labels([f"label {n}" for n in range(MOST_LABELS)])
    with pytest.raises(ConfigError, match=f"has 60000, expected at most {MOST_LABELS}"):
        check_labels([f"label {n}" for n in range(60_000)])
    check_sensor_names([f"sensor{n}" for n in range(MOST_SENSORS)], "sensors")
    with pytest.raises(ConfigError, match=f"1000 names, expected at most {MOST_SENSORS}"):
        check_sensor_names([f"sensor{n}" for n in range(1000)], "sensors")
