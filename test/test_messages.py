"""Decoding of sensor messages, with rclpy's and with rosbags' message classes."""

from __future__ import annotations

import array
import functools
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Events, Sound
from omnibind_core.runtime.types import Encoded
from omnibind_ros import messages
from omnibind_ros.messages import DecodeOptions


@functools.cache
def rosbags_store():
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    for path in (Path(__file__).parent.parent / "msg").glob("*.msg"):
        definition = path.read_text(encoding="utf-8")
        store.register(typesys.get_types_from_msg(definition, f"omnibind_ros/msg/{path.stem}"))
    return store.types


def of_rosbags(ros_type, fields):
    types = rosbags_store()
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](3, 5), "frame")
    if "fields" in fields:
        fields = {**fields, "fields": [types["sensor_msgs/msg/PointField"](**field) for field in fields["fields"]]}
    return types[ros_type](header=header, **fields)


def of_rclpy(ros_type, fields):
    message_class = pytest.importorskip("omnibind_ros.topics").message_class
    message = message_class(ros_type)()
    message.header.stamp.sec, message.header.stamp.nanosec = 3, 5
    if "fields" in fields:
        point_field = message_class("sensor_msgs/msg/PointField")
        fields = {**fields, "fields": [point_field(**field) for field in fields["fields"]]}
    return messages.fill(message, fields)


def plain(fields):
    if "fields" in fields:
        fields = {**fields, "fields": [SimpleNamespace(**field) for field in fields["fields"]]}
    return SimpleNamespace(**fields)


@pytest.fixture(params=[of_rosbags, pytest.param(of_rclpy, marks=pytest.mark.ros)])
def message_of(request):
    return request.param


def decode(ros_type, message, modality, **options):
    return messages.decode(ros_type, message, modality, DecodeOptions(**options), "front")


def image(pixels, encoding, /, **changes):
    fields = {**messages.image_fields(pixels, encoding), **changes}
    return plain(fields)


# Pictures -------------------------------------------------------------------------------------------------------------


def test_image_of_every_library_is_decoded_and_viewed_in_place(message_of, rng):
    pixels = rng.integers(0, 256, (7, 5, 3), np.uint8)
    message = message_of(messages.IMAGE, messages.image_fields(pixels, "rgb8"))
    decoded = decode(messages.IMAGE, message, "image")
    assert np.array_equal(decoded, pixels)
    assert np.shares_memory(decoded, np.frombuffer(message.data, np.uint8))
    assert messages.stamp_ns(message) == 3_000_000_005


@pytest.mark.parametrize(
    ("encoding", "order"), [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("8UC3", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]),
                            ("bgra8", [2, 1, 0, 0])]
)  # fmt: skip
@pytest.mark.parametrize("padding", [0, 3])
def test_colour_orders_and_padded_step(encoding, order, padding, rng):
    rgb = rng.integers(0, 256, (4, 6, 3), np.uint8)
    rows = np.ascontiguousarray(rgb[..., order]).reshape(4, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    message = image(rgb[..., order], encoding, step=padded.shape[1], data=padded.tobytes())
    assert np.array_equal(decode(messages.IMAGE, message, "image"), rgb)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "32FC1"])
def test_thermal_values_are_scaled(encoding, endian):
    values = np.array([[29315, 30315, 27315]], (endian + "f4") if encoding == "32FC1" else (endian + "u2"))
    message = SimpleNamespace(
        encoding=encoding, height=1, width=3, step=values.nbytes, is_bigendian=endian == ">", data=values.tobytes()
    )
    celsius = decode(messages.IMAGE, message, "thermal", scale=0.01, offset=-273.15)
    assert celsius.dtype == np.float32
    assert np.allclose(celsius, [[20, 30, 0]], atol=1e-3)


def test_thermal_8_bit_stays_as_it_is_and_touch_values_become_8_bit():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert decode(messages.IMAGE, image(grey, "mono8"), "thermal", scale=9.0).tolist() == grey.tolist()
    pressure = image(np.array([[0, 512, 65535]], np.uint16), "16UC1")
    assert decode(messages.IMAGE, pressure, "touch", scale=0.25).tolist() == [[0, 128, 255]]


def test_16_bit_grey_as_camera_picture_keeps_its_upper_byte():
    decoded = decode(messages.IMAGE, image(np.array([[0x1234, 0xFF00]], np.uint16), "mono16"), "image")
    assert decoded.tolist() == [[[0x12] * 3, [0xFF] * 3]]


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_by_their_first_pixels(pattern):
    colour = {"r": 200, "g": 120, "b": 40}
    mosaic = np.tile(np.array([colour[c] for c in pattern], np.uint8).reshape(2, 2), (8, 8))
    decoded = decode(messages.IMAGE, image(mosaic, f"bayer_{pattern}8"), "image")
    assert np.all(decoded[4:-4, 4:-4] == [200, 120, 40])


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv")])
def test_yuv_422(encoding, order):
    value = {"y": 81, "u": 90, "v": 240}  # ITU-R BT.601: pure red
    row = np.array([value[c] for c in order] * 4, np.uint8)
    message = SimpleNamespace(encoding=encoding, height=2, width=8, step=16, is_bigendian=0, data=np.tile(row, 2))
    decoded = decode(messages.IMAGE, message, "image").astype(int)
    assert np.abs(decoded - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 1), (".png", 3), (".png", 4), (".jpg", 3)])
def test_compressed_pictures(message_of, suffix, channels):
    bgr = np.full((16, 16, channels), 255, np.uint8)
    bgr[..., 0] = 10
    data = cv2.imencode(suffix, bgr)[1]
    message = message_of(messages.COMPRESSED_IMAGE, {"format": suffix[1:], "data": data})
    decoded = decode(messages.COMPRESSED_IMAGE, message, "image").astype(int)
    assert decoded.shape == (16, 16, 3)
    assert np.abs(decoded - ([10] * 3 if channels == 1 else [255, 255, 10])).max() <= 8


def test_compressed_16_bit_thermal():
    data = cv2.imencode(".png", np.array([[1000, 2000]], np.uint16))[1]
    message = SimpleNamespace(format="16UC1; png compressed", data=data)
    assert decode(messages.COMPRESSED_IMAGE, message, "thermal", scale=0.01).tolist() == [[10.0, 20.0]]


@pytest.mark.parametrize(
    ("changes", "value", "expected"),
    [
        ({"step": 5}, "step 5", "6 bytes"),
        ({"step": 0}, "step 0", "6 bytes"),
        ({"encoding": "rgb565"}, "rgb565", "bgr8"),
        ({"height": 0}, "2 x 0", "1 x 1"),
        ({"width": 0}, "0 x 2", "1 x 1"),
        ({"data": bytes(11)}, "11 bytes", "height 2 x step 6"),
        ({"data": b""}, "0 bytes", "height 2 x step 6"),
        ({"encoding": "32FC1", "width": 1, "step": 6}, "32FC1", "8 or 16 bit"),
        ({"encoding": "yuv422", "width": 1, "step": 6}, "yuv422", "size"),
    ],
)
def test_bad_images_are_refused_by_name_value_and_expectation(changes, value, expected):
    message = image(np.zeros((2, 2, 3), np.uint8), "rgb8", **changes)
    with pytest.raises(InvalidInputError) as caught:
        decode(messages.IMAGE, message, "image")
    assert caught.value.source == "front"
    assert value in caught.value.value
    assert expected in caught.value.expected


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff nothing"])
def test_broken_compressed_image_is_refused(data):
    with pytest.raises(InvalidInputError, match=r"\[front\].*'jpeg'"):
        decode(messages.COMPRESSED_IMAGE, SimpleNamespace(format="jpeg", data=data), "image")


# Clouds ---------------------------------------------------------------------------------------------------------------


def cloud(points, **changes):
    return plain({**messages.point_cloud_fields(points), **changes})


def test_cloud_of_every_library(message_of, rng):
    points = rng.normal(size=(9, 3)).astype(np.float32)
    message = message_of(messages.POINT_CLOUD, messages.point_cloud_fields(points))
    assert np.array_equal(decode(messages.POINT_CLOUD, message, "point_cloud"), points)


def test_what_saw_nothing_is_dropped():
    points = np.array([[1, 2, 3], [np.nan, 0, 0], [0, 0, 0], [0, np.inf, 1], [4, 0, 0]], np.float32)
    assert decode(messages.POINT_CLOUD, cloud(points), "point_cloud").tolist() == [[1, 2, 3], [4, 0, 0]]


@pytest.mark.parametrize("endian", ["<", ">"])
def test_organised_cloud_of_mixed_types_in_any_byte_order(endian):
    layout = np.dtype(
        {"names": ["ring", "z", "x", "y"], "formats": ["u1", endian + "f8", endian + "f4", endian + "i2"],
         "offsets": [0, 3, 11, 15], "itemsize": 20}
    )  # fmt: skip
    rows = np.zeros((2, 3), layout)
    rows["x"], rows["y"], rows["z"] = 1.5, np.arange(6).reshape(2, 3), -2.5
    padded = np.pad(rows.view(np.uint8).reshape(2, 60), ((0, 0), (0, 5)))
    kinds = {"ring": 2, "z": 8, "x": 7, "y": 3}
    fields = [
        SimpleNamespace(name=name, offset=layout.fields[name][1], datatype=kinds[name], count=1)
        for name in layout.names
    ]
    message = SimpleNamespace(
        height=2, width=3, point_step=20, row_step=65, is_bigendian=endian == ">", data=padded.tobytes(), fields=fields
    )
    decoded = decode(messages.POINT_CLOUD, message, "point_cloud")
    assert decoded.dtype == np.float32
    assert decoded.tolist() == [[1.5, y, -2.5] for y in range(6)]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"width": 0}, "at least one point"),
        ({"width": 3}, "24 bytes of data"),
        ({"height": 2, "row_step": 8}, "row_step 8"),
        ({"fields": []}, "fields x, y and z"),
        ({"fields": [{"name": "x", "offset": 10, "datatype": 7}]}, "point_step 12"),
    ],
)
def test_bad_clouds_are_refused(changes, complaint):
    with pytest.raises(InvalidInputError, match=r"\[front\]") as caught:
        decode(messages.POINT_CLOUD, cloud(np.ones((2, 3)), **changes), "point_cloud")
    assert complaint in str(caught.value)


def test_cloud_without_any_valid_point_is_refused():
    with pytest.raises(InvalidInputError, match="3 points of which none is finite"):
        decode(messages.POINT_CLOUD, cloud(np.full((3, 3), np.nan)), "point_cloud")


def test_laser_scan_becomes_a_flat_cloud():
    scan = SimpleNamespace(
        ranges=array.array("f", [1.0, 2.0, np.inf, 0.01, np.nan]), angle_min=0.0, angle_increment=np.pi / 2,
        range_min=0.1, range_max=10.0,
    )  # fmt: skip
    decoded = decode(messages.LASER_SCAN, scan, "point_cloud")
    assert np.allclose(decoded, [[1, 0, 0], [0, 2, 0]], atol=1e-6)


# Events, sound, text --------------------------------------------------------------------------------------------------


def events(n=4, width=10, height=8):
    index = np.arange(n)
    x, y = (index % width).astype(np.uint16), (index % height).astype(np.uint16)
    return Events(x, y, index * 100 + 7, (index % 2).astype(np.uint8), width, height)


def test_events_of_every_library(message_of):
    sent = events()
    decoded = decode(messages.EVENT_ARRAY, message_of(messages.EVENT_ARRAY, messages.event_array_fields(sent)), "event")
    assert (decoded.width, decoded.height) == (10, 8)
    assert decoded.t.dtype == np.int64
    assert decoded.t.tolist() == [0, 100, 200, 300]
    for name in "xyp":
        assert np.array_equal(getattr(decoded, name), getattr(sent, name))


@pytest.mark.parametrize(
    "changes", [{"x": np.arange(3, dtype=np.uint16)}, {"width": 3}, {"height": 0}, {"t": np.array([3, 2, 1, 0], "u4")}]
)
def test_bad_events_are_refused_by_the_decoder_or_the_check(changes):
    message = SimpleNamespace(**{**messages.event_array_fields(events()), **changes})
    with pytest.raises(InvalidInputError, match=r"\[front\]"):
        modalities.get("event").check(decode(messages.EVENT_ARRAY, message, "event"), "front")


def test_sound_of_every_library(message_of):
    sound = Sound(np.array([0.5, -0.5, 0.25], np.float32), 8000)
    message = message_of(messages.AUDIO_CHUNK, messages.audio_chunk_fields(sound))
    decoded = decode(messages.AUDIO_CHUNK, message, "audio")
    assert decoded.sample_rate == 8000
    assert decoded.samples.tolist() == [0.5, -0.5, 0.25]


def test_channels_are_averaged():
    message = SimpleNamespace(samples=array.array("f", [1.0, 0.0, 0.5, -0.5]), sample_rate=8000, channels=2)
    assert decode(messages.AUDIO_CHUNK, message, "audio").samples.tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("name", "values"),
    [("int16", np.array([16384, -32768], "i2")), ("int8", np.array([64, -128], "i1")),
     ("uint8", np.array([192, 0], "u1")), ("int32", np.array([1 << 30, -(1 << 31)], "i4")),
     ("float32", np.array([0.5, -1], "f4"))],
)  # fmt: skip
def test_sound_of_the_stamped_audio_package(name, values):
    arrays = {f"{kind}_data": [] for kind in ("float32", "int32", "int16", "int8", "uint8")}
    data = SimpleNamespace(**{**arrays, f"{name}_data": messages.to_ros(values)})
    message = SimpleNamespace(audio=SimpleNamespace(audio_data=data, info=SimpleNamespace(rate=44100, channels=1)))
    decoded = decode(messages.AUDIO_STAMPED, message, "audio")
    assert decoded.sample_rate == 44100
    assert decoded.samples.dtype == np.float32
    assert decoded.samples.tolist() == [0.5, -1.0]


def test_sound_of_the_plain_audio_package_takes_rate_and_channels_from_the_options():
    inner = SimpleNamespace(data=array.array("B", np.array([16384, 0, -16384, 0], "<i2").tobytes()))
    for ros_type, message in [
        (messages.AUDIO_DATA, inner),
        (messages.AUDIO_DATA_STAMPED, SimpleNamespace(audio=inner)),
    ]:
        decoded = decode(ros_type, message, "audio", sample_rate=22050, channels=2)
        assert decoded.sample_rate == 22050
        assert decoded.samples.tolist() == [0.25, -0.25]
    assert messages.stamp_ns(inner) is None


@pytest.mark.parametrize(
    "message",
    [SimpleNamespace(samples=array.array("f"), sample_rate=8000, channels=1),
     SimpleNamespace(samples=array.array("f", [0, 0, 0]), sample_rate=8000, channels=2),
     SimpleNamespace(samples=array.array("f", [0]), sample_rate=8000, channels=0),
     SimpleNamespace(samples=array.array("f", [0]), sample_rate=0, channels=1)],
)  # fmt: skip
def test_bad_sound_is_refused_by_the_decoder_or_the_check(message):
    with pytest.raises(InvalidInputError, match=r"\[front\]"):
        modalities.get("audio").check(decode(messages.AUDIO_CHUNK, message, "audio"), "front")


def test_text():
    assert decode(messages.STRING, SimpleNamespace(data="a dog"), "text") == "a dog"


# Frames of other nodes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoded",
    [Encoded("preprocessed", np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)),
     Encoded("embedding", np.array([0.6, 0.8], np.float32))],
)  # fmt: skip
def test_modality_frames_round_trip(message_of, encoded):
    fields = messages.modality_frame_fields("front", "image", "tiny@1", encoded)
    decoded = decode(messages.MODALITY_FRAME, message_of(messages.MODALITY_FRAME, fields), "image", model="tiny@1")
    assert decoded.kind == encoded.kind
    assert decoded.array.dtype == encoded.array.dtype
    assert np.array_equal(decoded.array, encoded.array)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": "lite@2"}, "'lite@2', expected 'tiny@1'"),
        ({"modality": "touch"}, "'touch', expected image"),
        ({"kind": 2}, "kind 2"),
        ({"dtype": 7}, "dtype 7"),
        ({"shape": [3]}, r"8 bytes for the shape \[3\]"),
        ({"shape": []}, r"shape \[\]"),
        ({"data": np.array([np.nan, 1], np.float32).tobytes()}, "not finite"),
    ],
)
def test_bad_modality_frames_are_refused(changes, complaint):
    encoded = Encoded("embedding", np.array([0.6, 0.8], np.float32))
    fields = {**messages.modality_frame_fields("front", "image", "tiny@1", encoded), **changes}
    with pytest.raises(InvalidInputError, match=complaint):
        decode(messages.MODALITY_FRAME, SimpleNamespace(**fields), "image", model="tiny@1")


# The registry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", modalities.NAMES)
def test_every_accepted_type_has_a_decoder(modality):
    accepted = messages.types_for(modality)
    assert messages.MODALITY_FRAME in accepted
    assert set(accepted) <= set(messages._DECODERS)


def test_a_type_of_another_modality_is_refused():
    with pytest.raises(InvalidInputError, match=r"LaserScan, expected for image one of sensor_msgs/msg/Image"):
        decode(messages.LASER_SCAN, None, "image")


def test_a_stamp_left_at_zero_is_no_stamp():
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0))
    assert messages.stamp_ns(SimpleNamespace(header=header)) is None


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_arrays_for_ros_keep_type_and_values(dtype):
    values = np.array([[1, 2], [3, 4]], dtype)
    converted = messages.to_ros(values)
    assert isinstance(converted, array.array)
    assert np.asarray(converted).dtype == values.dtype
    assert converted.tolist() == [1, 2, 3, 4]
    assert messages.to_ros(["a"]) == ["a"]
