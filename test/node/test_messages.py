"""Decoding of sensor messages, with rclpy's and with rosbags' message classes."""

from __future__ import annotations

import array
import dataclasses
import functools
import importlib
import io
import itertools
import math
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnibind_core import modalities
from omnibind_core.errors import ConfigError, InvalidInputError, MissingDependencyError
from omnibind_core.modalities import Events, Sound
from omnibind_core.modalities.event.evt3 import Evt3Decoder
from omnibind_core.runtime import PerceptionEngine, SensorConfig
from omnibind_core.runtime.types import Encoded, Prediction, SensorReport, SensorShare, SensorState
from omnibind_ros import messages
from omnibind_ros.messages import DecodeOptions, Decoder, PacketDecoder, registry


@functools.cache
def rosbags_store():
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    for path in (Path(__file__).parents[2] / "msg").glob("*.msg"):
        definition = path.read_text(encoding="utf-8")
        store.register(typesys.get_types_from_msg(definition, f"omnibind_ros/msg/{path.stem}"))
    return store.types


def of_rosbags(ros_type, fields):
    types = rosbags_store()
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](3, 5), "frame")
    if "fields" in fields:
        fields = {**fields, "fields": [types["sensor_msgs/msg/PointField"](**field) for field in fields["fields"]]}
    if "sensors" in fields:
        fields = {**fields, "sensors": [types["omnibind_ros/msg/SensorShare"](**share) for share in fields["sensors"]]}
    return types[ros_type](header=header, **fields)


@pytest.mark.parametrize(
    "ros_type",
    ["evil/msg/Path", "os/msg/path", "evil/msg/Image", "sensor_msgs/msg/Nothing", "sensor_msgs/srv/SetCameraInfo",
     "std_msgs/msg/__name__", "a/b/msg/C", "../msg/Image", "sensor_msgs/Image", "std_msgs.msg/msg/String", "", "x"],
)  # fmt: skip
def test_a_type_imports_no_module_but_of_interfaces(ros_type, tmp_path, monkeypatch):
    message_class = pytest.importorskip("omnibind_ros.graph.topics").message_class
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "evil" / "msg.py").write_text("Path = Image = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    with pytest.raises(MissingDependencyError, match=r"the message type"):
        message_class(ros_type)
    assert set(sys.modules) == before
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    with pytest.raises(MissingDependencyError):
        message_class("std_msgs/msg/String")


def of_rclpy(ros_type, fields):
    message_class = pytest.importorskip("omnibind_ros.graph.topics").message_class
    message = message_class(ros_type)()
    message.header.stamp.sec, message.header.stamp.nanosec = 3, 5
    if "fields" in fields:
        point_field = message_class("sensor_msgs/msg/PointField")
        fields = {**fields, "fields": [point_field(**field) for field in fields["fields"]]}
    if "sensors" in fields:
        sensor_share = message_class("omnibind_ros/msg/SensorShare")
        fields = {**fields, "sensors": [sensor_share(**share) for share in fields["sensors"]]}
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


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "rgb16", "bgr16", "rgba16", "16UC4"])
def test_16_bit_camera_pictures_become_8_bit(encoding):
    channels = messages.pictures.ENCODINGS[encoding].channels
    pixels = np.array([[0, 257, 0x1234, 0xFFFF]], np.uint16)
    pixels = pixels if channels == 1 else np.repeat(pixels[..., None], channels, axis=2)
    decoded = decode(messages.IMAGE, image(pixels, encoding), "image")
    assert decoded.dtype == np.uint8
    assert decoded.tolist() == [[[0] * 3, [1] * 3, [18] * 3, [255] * 3]]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_by_their_first_pixels(pattern, bits):
    colour = {"r": 200, "g": 120, "b": 40}
    mosaic = np.tile(np.array([colour[c] for c in pattern], f"u{bits // 8}").reshape(2, 2), (8, 8))
    decoded = decode(messages.IMAGE, image(mosaic * (257 if bits == 16 else 1), f"bayer_{pattern}{bits}"), "image")
    assert np.all(decoded[4:-4, 4:-4] == [200, 120, 40])


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv")])
def test_yuv_422(encoding, order):
    value = {"y": 81, "u": 90, "v": 240}  # ITU-R BT.601: pure red
    row = np.array([value[c] for c in order] * 4, np.uint8)
    message = SimpleNamespace(encoding=encoding, height=2, width=8, step=16, is_bigendian=0, data=np.tile(row, 2))
    decoded = decode(messages.IMAGE, message, "image").astype(int)
    assert np.abs(decoded - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize(("encoding", "order", "chroma"), [("nv12", "uv", 0.5), ("nv21", "vu", 0.5), ("nv24", "uv", 2)])
def test_yuv_with_colour_below_the_brightness(encoding, order, chroma, padding):
    value = {"y": 81, "u": 90, "v": 240}  # ITU-R BT.601: pure red
    height, width = 4, 6
    brightness = np.full((height, width), value["y"], np.uint8)
    length = width if chroma < 1 else 2 * width  # of a row of colour
    colour = np.tile(
        np.array([value[c] for c in order], np.uint8), (round(height * chroma * width / length), length // 2)
    )
    pad = padding * length // width
    rows = [np.pad(brightness, ((0, 0), (0, padding))), np.pad(colour, ((0, 0), (0, pad)))]
    message = SimpleNamespace(
        encoding=encoding, height=height, width=width, step=width + padding, is_bigendian=0,
        data=b"".join(part.tobytes() for part in rows),
    )  # fmt: skip
    decoded = decode(messages.IMAGE, message, "image").astype(int)
    assert decoded.shape == (height, width, 3)
    assert np.abs(decoded - [255, 0, 0]).max() <= 4
    message.data = message.data[:-1]
    with pytest.raises(InvalidInputError, match="rows of colour"):
        decode(messages.IMAGE, message, "image")


def test_all_yuv_encodings_agree_on_the_colours():
    levels = [16, 90, 128, 200, 235]
    colours = np.array(list(itertools.product(levels, repeat=3)), np.uint8)
    y, u, v = np.repeat(np.repeat(colours, 2, axis=0)[None], 2, axis=0).transpose(2, 0, 1)  # blocks of 2 x 2
    nv24 = np.concatenate([y, np.stack([u, v], axis=2).reshape(4, -1)])
    nv12 = np.concatenate([y, np.stack([u[0, ::2], v[0, ::2]], axis=1).reshape(1, -1)])
    uyvy = np.stack([np.where(np.arange(y.shape[1]) % 2, v, u), y], axis=2)
    layout = {"height": 2, "width": y.shape[1], "is_bigendian": False}
    found = {
        name: decode(
            messages.IMAGE,
            SimpleNamespace(encoding=name, step=step * y.shape[1], data=data.tobytes(), **layout),
            "image",
        ).astype(int)
        for name, step, data in [
            ("nv24", 1, nv24),
            ("nv12", 1, nv12),
            ("uyvy", 2, uyvy),
            ("yuyv", 2, uyvy[..., ::-1]),
        ]
    }
    for name, pixels in found.items():
        assert np.abs(pixels - found["nv12"]).max() <= 2, name
    brightest, darkest = y[0] == 235, y[0] == 16
    grey = (u[0] == 128) & (v[0] == 128)
    assert (found["nv24"][0, brightest & grey] >= 253).all() and (found["nv24"][0, darkest & grey] <= 2).all()


@pytest.mark.parametrize(
    ("encoding", "same"),
    [("8UC1", "mono8"), ("16UC1", "mono16"), ("8UC3", "bgr8"), ("16UC3", "bgr16"), ("8UC4", "bgra8"),
     ("16UC4", "bgra16"), ("rgb8", "rgba8"), ("rgb16", "rgba16"), ("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv")],
)  # fmt: skip
def test_two_names_of_one_encoding(encoding, same, rng):
    layouts = [messages.pictures.ENCODINGS[name] for name in (encoding, same)]
    channels = layouts[0].channels
    pixels = rng.integers(0, 1 << 8 * np.dtype(layouts[0].dtype).itemsize, (4, 6, channels)).astype(layouts[0].dtype)
    other = pixels if layouts[1].channels == channels else np.dstack([pixels, pixels[..., :1]])
    decoded = [decode(messages.IMAGE, image(one, name), "image") for one, name in ((pixels, encoding), (other, same))]
    assert np.array_equal(*decoded)
    assert decoded[0].shape == (4, 6, 3)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2)), np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8)]
)
def test_pixels_that_do_not_fit_an_encoding_are_refused(pixels):
    with pytest.raises(InvalidInputError, match="expected uint8 with 3 channels for rgb8"):
        messages.image_fields(pixels, "rgb8")


def test_values_without_options_stay_as_they_are():
    values = np.array([[1, 700], [-3, 9000]], np.int16)
    assert decode(messages.IMAGE, image(values, "16SC1"), "thermal").tolist() == values.tolist()


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize(("encoding", "kind"), [("16SC1", "i2"), ("32SC1", "i4"), ("64FC1", "f8")])
def test_signed_and_wide_values_are_for_sensors_that_measure(encoding, kind, endian):
    values = np.array([[-20, 300]], endian + kind)
    message = SimpleNamespace(
        encoding=encoding, height=1, width=2, step=values.nbytes, is_bigendian=endian == ">", data=values.tobytes()
    )
    assert decode(messages.IMAGE, message, "thermal", scale=0.1, offset=1)[0].tolist() == pytest.approx([-1, 31])
    with pytest.raises(InvalidInputError, match="8 or 16 bit"):
        decode(messages.IMAGE, message, "image")


def test_big_endian_colour(rng):
    pixels = rng.integers(0, 65536, (4, 4, 3)).astype(np.uint16)
    little = decode(messages.IMAGE, image(pixels, "bgr16"), "image")
    big = image(pixels, "bgr16", is_bigendian=1, data=pixels.astype(">u2").tobytes())
    assert np.array_equal(decode(messages.IMAGE, big, "image"), little)


@pytest.mark.parametrize("kept", ["mono8", "16UC1", "rgb8"])
@pytest.mark.parametrize("padding", [0, 6])
def test_pictures_are_viewed_in_place(kept, padding, rng):
    encoding = messages.pictures.ENCODINGS[kept]
    pixels = rng.integers(0, 256, (4, 6, encoding.channels)).astype(encoding.dtype)
    rows = np.pad(pixels.reshape(4, -1).view(np.uint8), ((0, 0), (0, padding)))
    data = array.array("B", rows.tobytes())
    message = SimpleNamespace(encoding=kept, height=4, width=6, step=rows.shape[1], is_bigendian=0, data=data)
    decoded = decode(messages.IMAGE, message, "touch" if kept == "mono8" else "image")
    shared = np.shares_memory(decoded, np.frombuffer(data, np.uint8))
    assert shared == (kept != "16UC1"), "8 bit stays where it is"
    assert np.array_equal(decoded, pixels.squeeze()) or kept == "16UC1"


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
    ("format", "expected"),
    [("bgr8; jpeg compressed bgr8", [255, 255, 10]), ("rgb8; png compressed bgr8", [255, 255, 10]),
     ("rgb8; jpeg compressed rgb8", [10, 255, 255]), ("bgra8; jpeg compressed ", [10, 255, 255]),
     ("png", [255, 255, 10]), ("bayer_rggb8; jpeg compressed bgr8", [255, 255, 10])],
)  # fmt: skip
def test_compressed_pictures_in_the_colour_order_that_image_transport_tells(format, expected):
    bgr = np.full((16, 16, 3), 255, np.uint8)
    bgr[..., 0] = 10
    message = SimpleNamespace(format=format, data=cv2.imencode(".png", bgr)[1])
    assert np.all(decode(messages.COMPRESSED_IMAGE, message, "image") == expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_bayer_pictures_get_their_colours(dtype):
    mosaic = np.tile(np.array([[200, 120], [120, 40]]), (8, 8)).astype(dtype) * (257 if dtype == np.uint16 else 1)
    data = cv2.imencode(".png", mosaic.astype(dtype))[1]
    message = SimpleNamespace(format=f"bayer_rggb{8 * np.dtype(dtype).itemsize}; png compressed ", data=data)
    assert np.all(decode(messages.COMPRESSED_IMAGE, message, "image")[4:-4, 4:-4] == [200, 120, 40])
    message.format = "bayer_rggb12; png compressed "
    with pytest.raises(InvalidInputError, match="bayer_rggb12"):
        decode(messages.COMPRESSED_IMAGE, message, "image")


def decoded(decoder, ros_type, message):
    return decoder.decode(ros_type, message, DecodeOptions()), decoder.doubt


@pytest.mark.parametrize(("bits", "encoding"), [(10, "mono16"), (12, "mono16"), (12, "rgb16"), (14, "mono16")])
def test_fewer_bits_in_16_are_stretched_by_the_range_of_the_stream(bits, encoding, rng):
    decoder = messages.Decoder("image", "front")
    top = (1 << bits) - 1
    channels = messages.pictures.ENCODINGS[encoding].channels
    bright = rng.integers(0, top + 1, (20, 30) if channels == 1 else (20, 30, channels)).astype(np.uint16)
    bright.flat[:channels] = top
    picture, doubt = decoded(decoder, messages.IMAGE, image(bright, encoding))
    assert doubt is None and picture.max() == 255
    np.testing.assert_allclose(picture[..., 0], bright.reshape(20, 30, -1)[..., 0] * (255 / top), atol=0.51)
    dark, _ = decoded(decoder, messages.IMAGE, image(bright // 8, encoding))
    assert dark.max() == 32, "a dark picture of the same camera is not made bright"
    png = cv2.imencode(".png", bright if channels == 1 else bright[..., ::-1])[1]
    packed = SimpleNamespace(format=f"{encoding}; png compressed ", data=png)
    again, _ = decoded(messages.Decoder("image", "front"), messages.COMPRESSED_IMAGE, packed)
    assert again.max() == 255


def test_a_depth_picture_is_no_camera(rng):
    distance = rng.integers(900, 4000, (60, 80)).astype(np.uint16)
    distance[:20] = 0
    for encoding, excludes in (("16UC1", True), ("mono16", False)):
        picture, doubt = decoded(messages.Decoder("image", "front"), messages.IMAGE, image(distance, encoding))
        assert picture.shape == (60, 80, 3) and picture.dtype == np.uint8
        assert doubt.excludes == excludes
        assert re.search("values 9.. to 39.. and 33% zeros: distances in mm, expected light", doubt.reason)
    for coding, header in (("png compressed ", b""), ("compressedDepth png", bytes(12))):
        data = header + cv2.imencode(".png", distance)[1].tobytes()
        packed = SimpleNamespace(format=f"16UC1; {coding}", data=data)
        assert decoded(messages.Decoder("image", "front"), messages.COMPRESSED_IMAGE, packed)[1].excludes
    decoder = messages.Decoder("thermal", "front")
    assert decoded(decoder, messages.IMAGE, image(distance, "16UC1"))[1] is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("modality", ["image", "thermal", "touch"])
def test_a_jpeg_that_ends_early_is_refused_by_every_opencv(rng, share, modality):
    data = cv2.imencode(".jpg", rng.integers(0, 255, (60, 80), np.uint8))[1]
    assert decode(messages.COMPRESSED_IMAGE, SimpleNamespace(format="jpeg", data=data), modality) is not None
    cut = SimpleNamespace(format="jpeg", data=data[: int(share * len(data))])
    with pytest.raises(InvalidInputError, match="a JPEG that ends early"):
        decode(messages.COMPRESSED_IMAGE, cut, modality)


def test_a_jpeg_of_16_bits_is_doubted(rng):
    cut = np.minimum(rng.integers(0, 1024, (60, 80)), 255).astype(np.uint8)  # what OpenCV makes of 16 bits
    data = cv2.imencode(".jpg", cut, [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
    for modality in ("image", "thermal", "touch"):
        decoder = messages.Decoder(modality, "front")
        message = SimpleNamespace(format="mono16; jpeg compressed ", data=data)
        doubt = decoded(decoder, messages.COMPRESSED_IMAGE, message)[1]
        assert doubt.excludes and re.search("JPEG of mono16.*[67].% of the pixels at 255.*png", doubt.reason)
        for format in ("mono8; jpeg compressed ", "jpeg", "mono16; png compressed "):
            message.format = format
            assert decoded(decoder, messages.COMPRESSED_IMAGE, message)[1] is None
    good = cv2.imencode(".jpg", rng.integers(0, 256, (60, 80), np.uint8))[1]
    message = SimpleNamespace(format="rgb16; jpeg compressed bgr8", data=good)
    doubt = decoded(messages.Decoder("image", "front"), messages.COMPRESSED_IMAGE, message)[1]
    assert not doubt.excludes and "0% of the pixels at 255" in doubt.reason


def test_compressed_16_bit_of_the_depth_plug_in():
    png = cv2.imencode(".png", np.array([[1000, 2000]], np.uint16))[1].tobytes()
    message = SimpleNamespace(format="16UC1; compressedDepth png", data=bytes(12) + png)
    assert decode(messages.COMPRESSED_IMAGE, message, "thermal", scale=0.01).tolist() == [[10.0, 20.0]]
    for format in ("32FC1; compressedDepth png", "16UC1; compressedDepth rvl"):
        with pytest.raises(InvalidInputError, match="compressedDepth of 16UC1 as PNG"):
            decode(messages.COMPRESSED_IMAGE, SimpleNamespace(format=format, data=bytes(12) + png), "thermal")


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
        decode(messages.IMAGE, message, "image", image_decoder="native")
    assert caught.value.source == "front"
    assert value in caught.value.value
    assert expected in caught.value.expected


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff nothing"])
def test_broken_compressed_image_is_refused(data):
    with pytest.raises(InvalidInputError, match=r"\[front\].*'jpeg'"):
        decode(messages.COMPRESSED_IMAGE, SimpleNamespace(format="jpeg", data=data), "image")


# cv_bridge ------------------------------------------------------------------------------------------------------------


class StandInBridge:
    """Unpacks nothing, and says what it was asked for."""

    asked: list[str]

    def __init__(self):
        StandInBridge.asked = []

    def imgmsg_to_cv2(self, message, wanted):
        self.asked.append(wanted)
        if message.encoding == "broken":
            raise RuntimeError("Unrecognized image encoding [broken]")
        one = np.full((message.height, message.width), 1000, np.uint16)
        return one if wanted == "passthrough" else np.full((message.height, message.width, 3), 7, np.uint8)


@pytest.fixture
def bridge(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=StandInBridge))
    messages.pictures._installed_bridge.cache_clear()
    yield StandInBridge
    messages.pictures._installed_bridge.cache_clear()


def test_cv_bridge_decodes_if_it_is_chosen(bridge):
    colour = image(np.zeros((2, 2, 3), np.uint8), "rgb8")
    assert np.all(decode(messages.IMAGE, colour, "image", image_decoder="cv_bridge") == 7)
    assert bridge.asked == ["rgb8"]
    warm = image(np.zeros((2, 2), np.uint16), "mono16")
    assert np.all(decode(messages.IMAGE, warm, "thermal", image_decoder="cv_bridge", scale=0.01) == 10)
    assert bridge.asked == ["passthrough"]


def test_cv_bridge_is_left_alone_where_the_encoding_is_known(bridge):
    colour = image(np.zeros((2, 2, 3), np.uint8), "rgb8")
    for choice in ("auto", "native"):
        assert not decode(messages.IMAGE, colour, "image", image_decoder=choice).any()


def test_cv_bridge_is_asked_for_unknown_encodings(bridge):
    unknown = image(np.zeros((2, 2, 3), np.uint8), "rgb8", encoding="rgb565")
    assert np.all(decode(messages.IMAGE, unknown, "image") == 7)
    with pytest.raises(InvalidInputError, match="rgb565"):
        decode(messages.IMAGE, unknown, "image", image_decoder="native")
    unknown.encoding = "broken"
    with pytest.raises(InvalidInputError, match=r"\[front\] .*'broken', expected .*cv_bridge.*Unrecognized"):
        decode(messages.IMAGE, unknown, "image")


def test_cv_bridge_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    with pytest.raises(MissingDependencyError, match=r"apt install ros-.*-cv-bridge"):
        decode(messages.IMAGE, image(np.zeros((2, 2), np.uint8), "mono8"), "image", image_decoder="cv_bridge")


@pytest.mark.parametrize("modality", ["image", "thermal"])
def test_cv_bridge_gives_the_same(modality, rng):
    pytest.importorskip("cv_bridge.boost.cv_bridge_boost", reason="cv_bridge comes with a ROS installation only")
    for encoding, layout in messages.pictures.ENCODINGS.items():
        if layout.chroma or encoding in ("uyvy", "yuyv"):
            continue  # cv_bridge does not know it
        if modality == "image" and layout.dtype not in ("u1", "u2"):
            continue  # refused by both
        values = rng.integers(0, 1 << min(8 * np.dtype(layout.dtype).itemsize, 15), (8, 10, layout.channels))
        pixels = values.astype(layout.dtype).squeeze()
        rows = np.pad(pixels.reshape(8, -1).view(np.uint8), ((0, 0), (0, 2 * layout.channels * pixels.itemsize)))
        message = image(pixels, encoding, step=rows.shape[1], data=rows.tobytes())
        native, bridged = (
            decode(messages.IMAGE, message, modality, image_decoder=choice, scale=0.1)
            for choice in ("native", "cv_bridge")
        )
        assert np.array_equal(bridged, native), encoding


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


def test_cloud_in_map_coordinates_keeps_its_shape(rng):
    points = rng.random((50, 3))
    places = [{"name": name, "offset": 8 * at, "datatype": 8} for at, name in enumerate("xyz")]
    data = (points + np.array([5e5, 5.4e6, 300])).tobytes()
    message = cloud(points, fields=places, point_step=24, row_step=1200, data=data, is_bigendian=False)
    decoded = decode(messages.POINT_CLOUD, message, "point_cloud")
    assert decoded.dtype == np.float32
    assert decoded - decoded[0] == pytest.approx(points - points[0], abs=1e-6)


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


@pytest.mark.parametrize("layout", ["xyz", "xyzi", "organised", "padded"])
def test_clouds_are_viewed_in_place(layout, rng):
    columns = {"xyz": 3, "organised": 3}.get(layout, 5)
    points = rng.normal(size=(2, 3, columns)).astype(np.float32)
    rows = points.reshape(2, -1).view(np.uint8)
    if layout in ("organised", "padded"):
        rows = np.pad(rows, ((0, 0), (0, 8)))
    data = array.array("B", rows.tobytes())
    fields = [{"name": name, "offset": 4 * at, "datatype": 7} for at, name in enumerate("xyz")]
    message = cloud(points[0, :, :3], height=2, width=3, point_step=4 * columns, row_step=rows.shape[1], data=data,
                    fields=fields)  # fmt: skip
    if layout in ("xyz", "xyzi"):
        message.height, message.width, message.row_step = 1, 6, 0
    decoded = decode(messages.POINT_CLOUD, message, "point_cloud")
    assert np.array_equal(decoded, points.reshape(-1, columns)[:, :3])
    # Rows with a gap between them are no [N, 3].
    assert np.shares_memory(decoded, np.frombuffer(data, np.uint8)) == (layout in ("xyz", "xyzi"))


def test_cloud_whose_fields_lie_across_words():
    points = np.arange(30, dtype=np.float32).reshape(10, 3) + 1
    packed = np.zeros(10, np.dtype({"names": ["p"], "formats": ["3f4"], "offsets": [1], "itemsize": 15}))
    packed["p"] = points
    fields = [{"name": name, "offset": 1 + 4 * at, "datatype": 7} for at, name in enumerate("xyz")]
    message = cloud(points, point_step=15, data=packed.tobytes(), fields=fields)
    decoded = decode(messages.POINT_CLOUD, message, "point_cloud")
    assert np.array_equal(decoded, points)
    assert decoded.flags.aligned


@pytest.mark.ros
def test_sensor_msgs_py_reads_the_same(rng):
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS installation only"
    )
    points = rng.normal(size=(20, 3)).astype(np.float32)
    points[3] = np.nan
    message = of_rclpy(messages.POINT_CLOUD, messages.point_cloud_fields(points))
    read = point_cloud2.read_points_numpy(message, ["x", "y", "z"], skip_nans=True)
    assert np.array_equal(decode(messages.POINT_CLOUD, message, "point_cloud"), read)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"width": 0}, "at least one point"),
        ({"point_step": 0}, "point_step 0"),
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


def test_laser_scan_in_range_includes_its_limits():
    scan = SimpleNamespace(
        ranges=[0.5, 0.49, 8.0, 8.01], angle_min=np.pi, angle_increment=-np.pi / 2, range_min=0.5, range_max=8.0
    )
    decoded = decode(messages.LASER_SCAN, scan, "point_cloud")
    assert np.allclose(decoded, [[-0.5, 0, 0], [8, 0, 0]], atol=1e-5)


def test_fields_of_a_cloud_by_name_are_all_points_as_they_were_sent():
    values = np.array([[1, 2, 3, 40], [np.nan, 0, 0, 50], [0, 0, 0, 60]], "<f4")
    places = [{"name": name, "offset": 4 * i, "datatype": 7} for i, name in enumerate([*"xyz", "intensity"])]
    message = cloud(np.ones((3, 3)), fields=places, point_step=16, data=values.tobytes(), is_bigendian=False)
    found = messages.clouds.point_fields(message, ["intensity", "x"], "front")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values[:, [3, 0]])
    with pytest.raises(InvalidInputError, match=r"\[front\].*fields x and ring"):
        messages.clouds.point_fields(message, ["x", "ring"], "front")


@pytest.mark.parametrize("datatype", range(1, 9))
def test_every_type_of_a_point_field_is_read_as_it_is_written(datatype):
    dtype = np.dtype(["i1", "u1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8"][datatype - 1])
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    points = np.array([[1, 2, 3], [limits.max // 3, limits.min // 3, 9]], dtype)
    if dtype.itemsize == 8:
        points[1] = [1e30, -1e30, 0.1]
    places = [{"name": name, "offset": i * dtype.itemsize, "datatype": datatype} for i, name in enumerate("xyz")]
    step = 3 * dtype.itemsize
    message = cloud(np.ones((2, 3)), fields=places, point_step=step, row_step=0, data=points.tobytes(),
                    is_bigendian=False)  # fmt: skip
    assert np.array_equal(decode(messages.POINT_CLOUD, message, "point_cloud"), points.astype(np.float32))


def test_laser_scan_without_an_echo_is_refused():
    scan = SimpleNamespace(ranges=[], angle_min=np.inf, angle_increment=np.nan, range_min=0.1, range_max=10.0)
    with pytest.raises(InvalidInputError, match="0 points"):
        decode(messages.LASER_SCAN, scan, "point_cloud")


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


def test_events_are_viewed_in_place():
    message = SimpleNamespace(**{name: messages.to_ros(value) for name, value in
                                 messages.event_array_fields(events()).items()})  # fmt: skip
    decoded = decode(messages.EVENT_ARRAY, message, "event")
    for name in "xyp":
        assert np.shares_memory(getattr(decoded, name), np.asarray(getattr(message, name)))


@pytest.mark.parametrize("ros_type", [messages.DVS_EVENTS, messages.PROPHESEE_EVENTS])
def test_events_of_older_drivers(ros_type):
    when = [SimpleNamespace(sec=2, nanosec=1500), SimpleNamespace(sec=3, nanosec=999)]
    items = [SimpleNamespace(x=1 + i, y=5, ts=ts, polarity=bool(i)) for i, ts in enumerate(when)]
    decoded = decode(ros_type, SimpleNamespace(width=10, height=8, events=items), "event")
    assert (decoded.x.tolist(), decoded.y.tolist(), decoded.p.tolist()) == ([1, 2], [5, 5], [0, 1])
    assert decoded.t.tolist() == [2_000_001, 3_000_000]
    modalities.get("event").check(decoded, "front")


def packet(words, seq=0, encoding="evt3", width=640, height=480, **changes):
    fields = {"encoding": encoding, "width": width, "height": height, "seq": seq, "time_base": 0, "is_bigendian": False}
    return SimpleNamespace(**{**fields, "events": np.array(words, "<u2").view(np.uint8), **changes})


START = [0x8001, 0x6005, 0x0007]  # time 4101, row 7


@pytest.fixture(params=["native", "event_camera_py"])
def packets(request, monkeypatch):
    """Decoder of packets, with and without event_camera_py."""
    messages.events._event_camera_py.cache_clear()
    if request.param == "native":
        monkeypatch.setitem(sys.modules, "event_camera_py", None)
    else:
        pytest.importorskip("event_camera_py", reason="event_camera_py comes with a ROS installation only")
    yield PacketDecoder()
    messages.events._event_camera_py.cache_clear()


def test_packets_build_on_one_another(packets):
    first, triggers = packets.decode(packet([*START, 0x2803, 0xA601], 4), "front")
    second, _ = packets.decode(packet([0x2004], 5), "front")
    assert [list(getattr(first, name)) for name in "xytp"] == [[3], [7], [4101], [1]]
    assert [list(getattr(second, name)) for name in "xytp"] == [[4], [7], [4101], [0]]
    assert [triggers.t.tolist(), triggers.p.tolist(), triggers.channel.tolist()] == [[4101], [1], [6]]
    assert (packets.gaps, packets.unplaced, packets.malformed) == (0, 0, 0)


@pytest.mark.parametrize("seq", [7, 4, 0], ids=["lost", "repeated", "driver restarted or bag looped"])
def test_after_a_gap_nothing_is_misplaced(packets, seq):
    packets.decode(packet([*START, 0x3010, 0x4001], 4), "front")
    found, triggers = packets.decode(packet([0x2803, 0x4001, 0x5001, 0xA601], seq), "front")
    assert len(found) == len(triggers) == 0
    found, _ = packets.decode(packet([0x8009, 0x6001, 0x2003, 0x4001, 0x0001, 0x2005, 0x5001], seq + 1), "front")
    assert [list(getattr(found, name)) for name in "xyt"] == [[5], [1], [9 * 4096 + 1]]
    assert packets.gaps == 1


@pytest.mark.parametrize("packets", ["native"], indirect=True)
def test_a_sensor_tells_what_it_lost(packets):
    decoder = Decoder("event", "front")
    assert decoder.losses == {}
    for words, seq in (([*START, 0x2803], 4), ([0x2803, 0xD123], 6)):
        decoder.decode(messages.EVENT_PACKET, packet(words, seq), DecodeOptions())
    assert decoder.losses == {"packet_gaps": 1, "unplaced_events": 1, "malformed_words": 1}


def test_undefined_words_are_counted_and_the_others_used(packets):
    found, _ = packets.decode(packet([0x1000, *START, 0xD123, 0x2003]), "front")
    assert found.x.tolist() == [3]
    assert packets.malformed == 2


def test_after_a_malformed_packet_it_begins_anew(packets):
    packets.decode(packet(START, 0), "front")
    with pytest.raises(InvalidInputError, match=r"\[front\] got 3 bytes of EVT3"):
        packets.decode(packet([], 1, events=np.zeros(3, np.uint8)), "front")
    found, _ = packets.decode(packet([0x2003], 2), "front")
    assert len(found) == 0


@pytest.mark.parametrize("big", [False, True])
def test_packets_of_single_events(packets, big):
    values = np.array([1 << 63 | 5 << 48 | 9 << 32 | 1_500, 6 << 48 | 8 << 32 | 2_000_000], ">u8" if big else "<u8")
    message = packet([], encoding="mono", time_base=7_000_700, is_bigendian=big, events=values.view(np.uint8))
    found, triggers = packets.decode(message, "front")
    assert [getattr(found, name).tolist() for name in "xytp"] == [[9, 8], [5, 6], [7_002, 9_000], [1, 0]]
    assert len(triggers) == 0


def test_a_sensor_may_change_its_size_and_encoding(packets):
    assert (packets.gaps, packets.unplaced, packets.malformed) == (0, 0, 0)
    wide, _ = packets.decode(packet([0x8001, 0x6005, 479, 0x2000 | 639], 0), "front")
    assert (wide.x.tolist(), wide.y.tolist(), wide.width, wide.height) == ([639], [479], 640, 480)
    small, _ = packets.decode(packet([0x2000 | 5, *START, 0x2000 | 639, 0x2004], 1, width=64, height=48), "front")
    assert (small.x.tolist(), small.y.tolist(), small.width, small.height) == ([4], [7], 64, 48)
    values = np.array([5 << 48 | 9 << 32 | 1_000], "<u8").view(np.uint8)
    plain_events, _ = packets.decode(packet([], 2, encoding="mono", events=values), "front")
    assert (plain_events.x.tolist(), plain_events.y.tolist()) == ([9], [5])


def test_packets_of_triggers(packets):
    values = np.array([1 << 63 | 3 << 48 | 1_000, 2 << 48 | 5_000], "<u8")
    found, triggers = packets.decode(packet([], encoding="trigger", events=values.view(np.uint8)), "front")
    assert len(found) == 0
    assert [triggers.t.tolist(), triggers.p.tolist(), triggers.channel.tolist()] == [[1, 5], [1, 0], [3, 2]]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"encoding": "evt9"}, "'evt9', expected one of evt3, mono, trigger, and with event_camera_py libcaer"),
        ({"encoding": "libcaer_cmp"}, "expected one of evt3, .*apt install ros-.*event-camera-py"),
        ({"width": 0}, "0 x 480 pixels"),
        ({"height": 0}, "640 x 0 pixels"),
        ({"width": 65536}, "65536 x 480 pixels"),
        ({"height": 65536}, "640 x 65536 pixels"),
        ({"encoding": "mono"}, "6 bytes of 'mono'"),
    ],
)
def test_bad_packets_are_refused(changes, complaint, monkeypatch):
    monkeypatch.setitem(sys.modules, "event_camera_py", None)
    messages.events._event_camera_py.cache_clear()
    with pytest.raises(InvalidInputError, match=rf"\[front\].*{complaint}"):
        decode(messages.EVENT_PACKET, packet(START, **changes), "event")
    messages.events._event_camera_py.cache_clear()


class StandInDecoder:
    """Answers as event_camera_py does: 32-bit times that roll over, and nothing kept but what it was given."""

    packets: list[tuple] = []  # noqa: RUF012
    times: list[list[int]] = []  # noqa: RUF012

    def decode_array(self, encoding, width, height, time_base, data):
        if encoding == "libcaer":
            raise RuntimeError("cannot")
        self.packets.append((encoding, width, height, time_base, data.view("<u2").tolist()))

    def get_cd_events(self):
        t = np.array(self.times.pop(0), np.int64).astype(np.int32)
        place = np.arange(len(t), dtype=np.uint16)
        return {"x": place, "y": place + 1, "t": t, "p": place % 2 == 1}

    def get_ext_trig_events(self):
        return {"t": np.array([8], np.int32), "p": np.array([True]), "id": np.array([3], np.int16)}


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "event_camera_py", SimpleNamespace(Decoder=StandInDecoder))
    monkeypatch.setattr(StandInDecoder, "packets", [])
    messages.events._event_camera_py.cache_clear()
    yield StandInDecoder
    messages.events._event_camera_py.cache_clear()


def test_event_camera_py_gets_clean_words_and_its_times_go_on(stand_in, monkeypatch):
    wrap = (1 << 31) - 2
    monkeypatch.setattr(stand_in, "times", [[5, 9], [10, 9, wrap], [], [wrap + 5, wrap + 4]])
    packets = PacketDecoder()
    found = [
        packets.decode(packet([*words, 0xD000], number), "front")
        for number, words in enumerate([START, [0x2003], [], [0x2004]])
    ]
    assert stand_in.packets[0] == ("evt3", 640, 480, 0, START)  # the undefined word is left out and counted
    assert packets.malformed == 4 and packets.losses["malformed_words"] == 4
    times = [events.t for events, _ in found]
    assert all(t.dtype == np.int64 for t in times)
    assert [t.tolist() for t in times] == [[5, 9], [10, 10, wrap], [], [wrap + 5, wrap + 5]]
    events, triggers = found[0]
    assert [getattr(events, name).tolist() for name in "xyp"] == [[0, 1], [1, 2], [0, 1]]
    assert (events.width, events.height, events.p.dtype) == (640, 480, np.uint8)
    assert [getattr(triggers, name).tolist() for name in ("t", "p", "channel")] == [[8], [1], [3]]
    assert triggers.t.dtype == np.int64 and triggers.channel.dtype == np.uint8


def test_event_camera_py_begins_anew_after_a_gap(stand_in, monkeypatch):
    monkeypatch.setattr(stand_in, "times", [[900], [4]])
    packets = PacketDecoder()
    packets.decode(packet(START, 0), "front")
    found, _ = packets.decode(packet([0x2003, *START], 5), "front")
    assert found.t.tolist() == [4]
    assert stand_in.packets[1][-1] == START and packets.unplaced == 1 and packets.gaps == 1


def test_event_camera_py_is_left_alone_with_what_can_be_viewed(stand_in):
    values = np.array([1 << 63 | 5 << 48 | 9 << 32 | 1_000], "<u8")
    found, _ = PacketDecoder().decode(packet([], encoding="mono", events=values.view(np.uint8)), "front")
    assert (found.x.tolist(), stand_in.packets) == ([9], [])
    with pytest.raises(InvalidInputError, match=r"\[front\] got 2 bytes of 'libcaer'.*whole events \(cannot\)"):
        PacketDecoder().decode(packet([7], encoding="libcaer"), "front")


def recorded_packets(shared_data):
    pytest.importorskip("rosbags")
    from omnibind_ros.bags import read, types

    path = shared_data / "bags" / "event_camera_evt3"
    if not path.is_dir():
        pytest.skip(f"no recording of an event camera: {path} is missing")
    return [(item.time_ns, types.decode(item)) for item in read.messages(path)]


def test_a_real_recording_is_the_same_with_and_without_event_camera_py(packets, shared_data):
    plain = Evt3Decoder(640, 480)
    for _, message in recorded_packets(shared_data):
        expected, expected_triggers = plain.decode(message.events)
        found, triggers = packets.decode(message, "front")
        assert all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in "xytp")
        assert all(
            np.array_equal(getattr(triggers, name), getattr(expected_triggers, name)) for name in ("t", "p", "channel")
        )
    assert packets.gaps == 0


class CountingModel:
    """Takes any events and fuses nothing."""

    labels = SimpleNamespace(names=("a",))
    threshold = 0.0

    def process(self, modality, raw):
        return np.zeros((1, 1), np.float32)

    def embed(self, items):
        return np.ones((len(items), 1), np.float32)

    def recognise(self, kinds, embeddings, doubts=None):
        rows = np.ones((1 + len(kinds), 1), np.float32)
        weights = np.full(len(kinds), 1 / len(kinds))
        return SimpleNamespace(
            embedding=rows[0],
            weights=weights,
            similarities=rows,
            probabilities=rows,
            without=rows[1:],
            familiarity=weights,
        )


def test_the_engine_decodes_every_packet_once_and_in_order(shared_data):
    decoder, found, seen = Decoder("event", "front"), [], []

    def decode_next(sensor, payload):
        seen.append(payload.seq)
        found.append(decoder.decode(messages.EVENT_PACKET, payload, DecodeOptions()))
        return found[-1]

    recorded = recorded_packets(shared_data)
    engine = PerceptionEngine(CountingModel(), [SensorConfig("front", "event", window=0.2)], decode_next)
    tick = recorded[0][0]
    for time_ns, message in recorded:
        while tick + 100_000_000 < time_ns:
            tick += 100_000_000
            engine.tick(tick)
        engine.push("front", messages.stamp_ns(message), time_ns, message)
    engine.tick(recorded[-1][0])
    assert seen == [message.seq for _, message in recorded]
    assert sum(map(len, found)) == 343_474


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
    ("sample_format", "values"),
    [("S8", np.array([64, -128], "i1")), ("U8", np.array([192, 0], "u1")), ("S16BE", np.array([16384, -32768], ">i2")),
     ("U16LE", np.array([49152, 0], "<u2")), ("S32LE", np.array([1 << 30, -(1 << 31)], "<i4")),
     ("F32LE", np.array([0.5, -1], "<f4")), ("F64BE", np.array([0.5, -1], ">f8"))],
)  # fmt: skip
def test_sample_formats(sample_format, values):
    message = SimpleNamespace(data=array.array("B", values.tobytes()))
    decoded = decode(messages.AUDIO_DATA, message, "audio", sample_format=sample_format, sample_rate=48000)
    assert decoded.sample_rate == 48000
    assert decoded.samples.dtype == np.float32
    assert decoded.samples.tolist() == [0.5, -1.0]


def test_no_sound_is_no_mp3():
    with pytest.raises(InvalidInputError, match="0 samples in 1 channels"):
        decode(messages.AUDIO_DATA, SimpleNamespace(data=b""), "audio")


def test_sound_of_the_plain_audio_package_without_options_is_mono_of_16_bits():
    found = decode(messages.AUDIO_DATA, SimpleNamespace(data=np.array([16384, -32768], "<i2").tobytes()), "audio")
    assert (found.sample_rate, found.samples.tolist()) == (16000, [0.5, -1.0])


def test_a_chunk_of_sound_is_viewed_in_place():
    message = SimpleNamespace(samples=array.array("f", [0.5, 0.25]), sample_rate=8000, channels=1)
    assert np.shares_memory(decode(messages.AUDIO_CHUNK, message, "audio").samples, np.asarray(message.samples))


def mp3(version, bitrate, rate, padded=0, frames=3):
    """Frames without sound: the standard's header and length, zeros for the rest."""
    kilobits = {
        3: [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        2: [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    }[3 if version == 3 else 2][bitrate]
    hertz = {3: [44100, 48000, 32000], 2: [22050, 24000, 16000], 0: [11025, 12000, 8000]}[version][rate]
    length = (1152 if version == 3 else 576) * kilobits * 1000 // 8 // hertz + padded
    frame = bytes([0xFF, 0xE2 | version << 3, bitrate << 4 | rate << 2 | padded << 1, 0])
    return frame.ljust(length, b"\0") * frames


@pytest.mark.parametrize("padded", [0, 1])
@pytest.mark.parametrize("version", [3, 2, 0])
def test_mp3_of_every_rate_is_known(version, padded):
    for bitrate, rate in itertools.product(range(1, 15), range(3)):
        data = mp3(version, bitrate, rate, padded)
        with pytest.raises(InvalidInputError, match="got MP3"):
            decode(messages.AUDIO_DATA, SimpleNamespace(data=data), "audio")
        cut = data[:-2]
        assert decode(messages.AUDIO_DATA, SimpleNamespace(data=cut[: len(cut) // 2 * 2]), "audio").samples.size


@pytest.mark.parametrize(
    "header",
    [(0xFE, 0xFB, 0x90), (0xFF, 0xDB, 0x90), (0xFF, 0xEB, 0x90), (0xFF, 0xFD, 0x90), (0xFF, 0xF9, 0x90),
     (0xFF, 0xFB, 0x00), (0xFF, 0xFB, 0xF0), (0xFF, 0xFB, 0x9C)],
    ids=["sync", "sync below", "version", "layer", "no layer", "free rate", "no rate", "no hertz"],
)  # fmt: skip
def test_what_is_no_header_of_mp3_is_sound(header):
    data = bytes(header) + bytes(417 - 3) + bytes([0xFF, 0xFB, 0x90, 0])
    assert len(decode(messages.AUDIO_DATA, SimpleNamespace(data=data + b"\0"), "audio").samples) == 211
    assert len(decode(messages.AUDIO_DATA, SimpleNamespace(data=bytes(header) + b"\0"), "audio").samples) == 2


def test_mp3_is_not_taken_for_samples(rng):
    soundfile = pytest.importorskip("soundfile")
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile cannot write MP3")
    for rate, channels in ((16000, 1), (44100, 2)):
        file = io.BytesIO()
        soundfile.write(file, rng.uniform(-0.5, 0.5, (rate, channels)), rate, format="MP3")
        data = file.getvalue()
        start = data.index(b"\xff\xf3" if rate < 32000 else b"\xff\xfb")
        with pytest.raises(InvalidInputError, match=r"\[front\] got MP3, expected raw samples"):
            decode(messages.AUDIO_DATA, SimpleNamespace(data=data[start:]), "audio")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"coding_format": "mp3"}, "coded as 'mp3'"), ({"sample_format": "S24LE"}, "'S24LE', expected one of S8"),
     ({"sample_format": "S32LE"}, "6 bytes of sound"), ({"sample_rate": 0}, "sample rate 0"),
     ({"channels": 0}, "0 channels"), ({"channels": 2}, "3 samples in 2 channels")],
)  # fmt: skip
def test_bad_sound_of_the_plain_audio_package_is_refused(options, complaint):
    with pytest.raises(InvalidInputError, match=rf"\[front\].*{complaint}"):
        decode(messages.AUDIO_DATA, SimpleNamespace(data=bytes(6)), "audio", **options)


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
        ({"shape": [0], "data": b""}, r"0 bytes for the shape \[0\]"),
        ({"data": b""}, r"0 bytes for the shape \[2\]"),
        ({"data": np.array([np.nan, 1], np.float32).tobytes()}, "not finite"),
    ],
)
def test_bad_modality_frames_are_refused(changes, complaint):
    encoded = Encoded("embedding", np.array([0.6, 0.8], np.float32))
    fields = {**messages.modality_frame_fields("front", "image", "tiny@1", encoded), **changes}
    with pytest.raises(InvalidInputError, match=complaint):
        decode(messages.MODALITY_FRAME, SimpleNamespace(**fields), "image", model="tiny@1")


# What the fusion node says --------------------------------------------------------------------------------------------


def said(*shares):
    """A prediction of sensors ``(name, age)`` at 7 s; all numbers are exact in float32."""
    return Prediction(
        tick_ns=7_000_000_000,
        header=None,
        label="",
        confidence=0.25,
        unknown=True,
        entropy=1.5,
        labels=("dog", "cat"),
        scores=(0.25, 0.125),
        sensors=tuple(
            SensorShare(
                name, "image", 1 / len(shares), age, "cat", 0.5, "dog", 0.75, 7_000_000_000 - round(age * 1e9), -1.5
            )
            for name, age in shares
        ),
        embedding=np.array([0.6, 0.8], np.float32),
        similarities=np.arange(2 + 2 * len(shares), dtype=np.float32).reshape(-1, 2),
    )


@pytest.mark.parametrize("shares", [[("front", 0.25), ("rear", 0.125)], [("front", -0.5)], []])
def test_predictions_round_trip(message_of, shares):
    prediction = said(*shares)
    message = message_of("omnibind_ros/msg/Prediction", messages.prediction_fields(prediction, 0.0625))
    assert message.latency == 0.0625
    assert message.conflict == 0  # all say the same
    found = messages.prediction_of(message, prediction.tick_ns)
    assert type(found.sensors[0].weight) is float if shares else not found.sensors
    for name in ("embedding", "similarities"):
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(found, name), getattr(prediction, name))
    nothing = {"header": None, "embedding": None, "similarities": None}
    assert dataclasses.replace(found, **nothing) == dataclasses.replace(prediction, **nothing)


def test_conflict_goes_with_a_prediction_and_follows_from_its_sensors(message_of):
    both = said(("front", 0.25), ("rear", 0.125))
    torn = dataclasses.replace(both, sensors=(both.sensors[0], dataclasses.replace(both.sensors[1], label="dog")))
    message = message_of("omnibind_ros/msg/Prediction", messages.prediction_fields(torn, 0.0625))
    assert message.conflict == messages.prediction_of(message).conflict == 0.25


def test_a_prediction_without_the_large_arrays(message_of):
    fields = messages.prediction_fields(said(("front", 0.25)), 0.0625, embedding=False, similarities=False)
    found = messages.prediction_of(message_of("omnibind_ros/msg/Prediction", fields))
    assert (found.embedding.shape, found.similarities.shape) == ((0,), (2, 0))


def test_the_tick_follows_from_header_and_ages(message_of):
    fields = messages.prediction_fields(said(("front", 0.25), ("rear", 0.125)), 0.0625)
    message = message_of("omnibind_ros/msg/Prediction", fields)
    assert messages.tick_of(message) == 3_125_000_005
    assert messages.tick_of(message, "front", {"front": 1.0}) == 4_250_000_005
    found = messages.prediction_of(message)
    assert (found.tick_ns, [share.stamp_ns for share in found.sensors]) == (
        3_125_000_005,
        [2_875_000_005, 3_000_000_005],
    )


def test_a_prediction_without_a_stamp_and_without_sensors_is_of_time_zero():
    fields = messages.prediction_fields(said(), 0.0625)
    found = messages.prediction_of(SimpleNamespace(header=None, **fields))
    assert (found.tick_ns, found.sensors) == (0, ())


def test_a_prediction_whose_arrays_do_not_fit_is_refused():
    fields = messages.prediction_fields(said(("front", 0.25)), 0.0625, share=SimpleNamespace)
    message = SimpleNamespace(header=None, **{**fields, "similarities": np.zeros(3, np.float32)})
    with pytest.raises(InvalidInputError, match="got 3 similarities, expected equally many for each of 1 sensors"):
        messages.prediction_of(message)


def test_a_prediction_of_parallel_arrays_is_read_too():
    """As the messages of a recording from before ``SensorShare.msg`` are."""
    prediction = said(("front", 0.25), ("rear", 0.125))
    fields = messages.prediction_fields(prediction, 0.0625, share=dict)
    shares = fields.pop("sensors")
    names = messages.prediction._ARRAYS
    fields |= {array: [share[name] for share in shares] for array, name in names.items()}
    found = messages.prediction_of(SimpleNamespace(header=None, **fields), prediction.tick_ns)
    assert all(math.isnan(share.familiarity) for share in found.sensors)  # which they did not have
    assert [dataclasses.replace(share, familiarity=-1.5) for share in found.sensors] == list(prediction.sensors)
    fields["modalities"] = ["image"]
    with pytest.raises(InvalidInputError, match=r"1 modalities.*equally many of each"):
        messages.prediction_of(SimpleNamespace(header=None, **fields))


def test_the_state_of_a_sensor_round_trips():
    report = SensorReport("front", "image", SensorState.LATE, "why", 0.25, 12.5, 9, 2, 1)
    fields = messages.sensor_status_fields(report, "/front", "sensor_msgs/msg/Image")
    assert (fields["topic"], fields["type"], fields["state"]) == ("/front", "sensor_msgs/msg/Image", 3)
    assert messages.reports_of(SimpleNamespace(sensors=[SimpleNamespace(**fields)])) == [report]


# Pressure arrays ------------------------------------------------------------------------------------------------------


def multi_array(kind, values, *sizes, strides=(), data_offset=0):
    """A ``std_msgs`` array of rclpy, where that is installed, with everything that its layout says."""
    strides = strides or [0] * len(sizes)
    try:
        classes = importlib.import_module("std_msgs.msg")
    except ImportError:
        dims = [SimpleNamespace(label="", size=size, stride=s) for size, s in zip(sizes, strides, strict=True)]
        return SimpleNamespace(layout=SimpleNamespace(dim=dims, data_offset=data_offset), data=np.asarray(values))
    dims = [classes.MultiArrayDimension(size=size, stride=s) for size, s in zip(sizes, strides, strict=True)]
    layout = classes.MultiArrayLayout(dim=dims, data_offset=data_offset)
    return getattr(classes, f"{kind}MultiArray")(layout=layout, data=values)


@pytest.mark.parametrize(
    ("kind", "sizes", "strides", "offset", "rows", "values", "expected"),
    [
        ("Float32", (2, 3), (), 0, 0, [0, 0.5, 1, 0.25, 0, 1], [[0, 50, 100], [25, 0, 100]]),
        ("UInt16", (2, 2), (4, 2), 0, 0, [0, 1, 2, 3], [[0, 100], [200, 255]]),
        ("UInt16", (2, 2), (6, 3), 0, 0, [0, 1, 9, 2, 3, 9], [[0, 100], [200, 255]]),  # a padded row
        ("UInt16", (2, 2), (2, 1), 1, 0, [9, 0, 1, 2, 0], [[0, 100], [200, 0]]),  # strides in a publisher's own way
        ("Int16", (1, 2, 2), (), 0, 0, [0, -5, 2, 1], [[0, 0], [200, 100]]),
        ("UInt8", (), (), 0, 2, [0, 1, 2, 0, 1, 2], [[0, 100, 200], [0, 100, 200]]),
        ("Float64", (4,), (), 0, 2, [0, 1, math.nan, math.inf], [[0, 100], [0, 255]]),
    ],
)
def test_arrays_of_pressure_have_the_shape_that_they_or_the_parameters_say(
    kind, sizes, strides, offset, rows, values, expected
):
    message = multi_array(kind, values, *sizes, strides=strides, data_offset=offset)
    decoded = decode(f"std_msgs/msg/{kind}MultiArray", message, "touch", scale=100.0, rows=rows)
    assert decoded.dtype == np.uint8 and decoded.tolist() == expected
    assert messages.stamp_ns(message) is None, "no header: the time of receipt"


@pytest.mark.parametrize(
    ("sizes", "rows", "values", "complaint"),
    [
        ((), 0, [1.0] * 6, "6 values with the layout none, expected rows and columns: set the sensor's parameter rows"),
        ((6,), 0, [1.0] * 6, "6 values with the layout 6, expected rows and columns: set"),
        ((6,), 4, [1.0] * 6, r"6 values, expected whole columns in 4 rows \(rows\)"),
        ((2, 4), 0, [1.0] * 6, "6 values for 2 rows and 4 columns, expected one for each taxel"),
        ((2, 2, 3), 0, [1.0] * 12, "12 values with the layout 2x2x3, expected rows and columns"),
        ((1, 2), 0, [math.nan, math.nan], "pressures of which none is finite"),
        ((0, 2), 0, [], "0 values for 0 rows"),
    ],
)
def test_arrays_of_pressure_that_fit_no_skin_are_refused(sizes, rows, values, complaint):
    with pytest.raises(InvalidInputError, match=rf"\[front\] got {complaint}"):
        decode("std_msgs/msg/Float32MultiArray", multi_array("Float32", values, *sizes), "touch", rows=rows)


@pytest.mark.parametrize(
    ("kind", "values", "options", "told"),
    [
        ("Float32", [0.0, 0.9, 0.5, 0.0], {}, "nothing to say: no contact, .* 0 to 0.9 .*set scale: 255"),
        ("UInt16", [200, 3900, 1800, 4095], {}, "pressures 200 to 4095 by scale 1 and offset 0, 75 % of them beyond"),
        ("UInt16", [0, 700, 10, 0], {}, "0 to 700 .* 25 % of them beyond .*expected 0 to 255: scale is 255 / "),
        ("Float64", [101325.0, 101425.0, 101300.0, 101310.0], {}, "1.013e.05 to 1.014e.05 .* 100 % of them beyond"),
        ("Int16", [-900, -500, -800, 3], {"scale": 0.5}, "-450 to 1.5 by scale 0.5 and offset 0, 75 % of them beyond"),
        ("UInt16", [0, 700, 10, 0], {"scale": 0.5}, None),  # pressed harder than it can measure
        ("Float32", [0.0, 12.0, 0.5, 255.0], {}, None),
        ("Float32", [0.0, 0.9, 0.5, 0.0], {"scale": 255.0}, None),
        ("UInt8", [0, 1, 0, 1], {}, None),
    ],
)
def test_arrays_of_pressure_of_another_scale_are_doubted_with_what_to_set(kind, values, options, told):
    decoder = Decoder("touch", "skin")
    decoder.decode(f"std_msgs/msg/{kind}MultiArray", multi_array(kind, values, 2, 2), DecodeOptions(**options))
    assert (decoder.doubt is None) == (told is None)
    assert told is None or re.search(told, str(decoder.doubt)), str(decoder.doubt)


# Depth cameras --------------------------------------------------------------------------------------------------------


def camera_info(fx=100.0, cx=1.0, cy=0.5, width=3, height=2, projected=True):
    k = [fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0]
    p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0] if projected else [0.0] * 12
    return SimpleNamespace(width=width, height=height, k=k, p=p)


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize(("encoding", "unit"), [("16UC1", 1000), ("mono16", 1000), ("32FC1", 1)])
def test_a_depth_picture_is_a_cloud_that_looks_forward_with_z_up(encoding, unit, projected):
    depth = np.array([[1, 2, 0], [0, 0, 4]], np.float32) * unit
    if encoding == "32FC1":
        depth[1, :2] = np.nan, np.inf
    depth = depth.astype(messages.pictures.ENCODINGS[encoding].dtype)
    decoded = decode(messages.IMAGE, image(depth, encoding), "point_cloud", intrinsics=camera_info(projected=projected))
    assert decoded.dtype == np.float32
    assert np.allclose(decoded, [[1, 0.01, 0.005], [2, 0, 0.01], [4, -0.04, -0.02]])


def test_of_a_large_depth_picture_every_second_pixel_is_a_point():
    depth = np.full((480, 640), 1000, np.uint16)
    depth[::2, ::2] = 2000
    info = camera_info(fx=500.0, cx=320.0, cy=240.0, width=640, height=480)
    decoded = decode(messages.IMAGE, image(depth, "16UC1"), "point_cloud", intrinsics=info)
    assert decoded.shape == (320 * 240, 3) and (decoded[:, 0] == 2).all()
    assert np.allclose([decoded[0], decoded[-1]], [[2, 1.28, 0.96], [2, -1.272, -0.952]])


def compressed_depth(kept, png, header=b"\0" * 12):
    data = header + cv2.imencode(".png", png)[1].tobytes()
    return SimpleNamespace(format=f"{kept}; compressedDepth png", data=data)


def test_compressed_depth_is_a_cloud_too():
    info = camera_info()
    decoded = decode(
        messages.COMPRESSED_IMAGE, compressed_depth("16UC1", np.full((2, 3), 2000, np.uint16)), "point_cloud",
        intrinsics=info,
    )  # fmt: skip
    assert np.allclose(decoded[:, 0], 2)
    header = np.array([(0, 100.0, -10.0)], "<i4,<f4,<f4").tobytes()  # depth = 100 / (value + 10)
    png = np.array([[0, 10, 30], [0, 0, 0]], np.uint16)
    decoded = decode(messages.COMPRESSED_IMAGE, compressed_depth("32FC1", png, header), "point_cloud", intrinsics=info)
    assert np.allclose(decoded[:, 0], [5, 2.5])
    plain = SimpleNamespace(format="16UC1; png compressed", data=cv2.imencode(".png", png)[1].tobytes())
    assert np.allclose(decode(messages.COMPRESSED_IMAGE, plain, "point_cloud", intrinsics=info)[:, 0], [0.01, 0.03])


DEPTH = np.ones((2, 3), np.uint16)


@pytest.mark.parametrize(
    ("ros_type", "message", "options", "complaint"),
    [
        (messages.IMAGE, image(DEPTH, "16UC1"), {"camera_info": "/depth/camera_info"},
         r"a depth picture whose camera is not known yet, expected a sensor_msgs/msg/CameraInfo on /depth/camera_info"),
        (messages.IMAGE, image(DEPTH, "16UC1"), {"intrinsics": camera_info(width=9)},
         "a depth picture of 3 x 2 pixels, expected a CameraInfo of as many, not of 9 x 2"),
        (messages.IMAGE, image(DEPTH, "16UC1"), {"intrinsics": camera_info(fx=0.0)},
         "a CameraInfo with focal lengths 0 and 0, expected a calibrated camera"),
        (messages.IMAGE, image(DEPTH * 0, "16UC1"), {"intrinsics": camera_info()}, "in which nothing was measured"),
        (messages.IMAGE, image(np.zeros((2, 3), np.uint8), "mono8"), {}, "'mono8', expected for a point cloud"),
        (messages.COMPRESSED_IMAGE, SimpleNamespace(format="16UC1; compressedDepth rvl", data=b"0" * 20), {},
         "of format '16UC1; compressedDepth rvl', expected compressedDepth as PNG"),
        (messages.COMPRESSED_IMAGE, compressed_depth("16UC1", np.zeros((2, 3), np.uint8)), {},
         r"uint8 of shape \[2, 3\] in format"),
        (messages.COMPRESSED_IMAGE, SimpleNamespace(format="16UC1; compressedDepth png", data=b"0" * 20), {},
         "nothing that OpenCV can decode"),
    ],
)  # fmt: skip
def test_pictures_that_make_no_cloud_are_refused(ros_type, message, options, complaint):
    with pytest.raises(InvalidInputError, match=rf"\[front\] got .*{complaint}"):
        decode(ros_type, message, "point_cloud", **options)


# The registry ---------------------------------------------------------------------------------------------------------


PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
NUMBERS_OF = ("Float32", "Float64", "UInt8", "UInt16", "UInt32", "UInt64", "Int8", "Int16", "Int32", "Int64")
ACCEPTED = {
    "image": PICTURES,
    "text": ("std_msgs/msg/String",),
    "touch": (*PICTURES, *(f"std_msgs/msg/{kind}MultiArray" for kind in NUMBERS_OF)),
    "thermal": PICTURES,
    "event": (
        "event_camera_msgs/msg/EventPacket",
        "event_array_msgs/msg/EventArray",
        "omnibind_ros/msg/EventArray",
        "prophesee_event_msgs/msg/EventArray",
        "dvs_msgs/msg/EventArray",
    ),
    "point_cloud": ("sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/LaserScan", *PICTURES),
    "audio": (
        "omnibind_ros/msg/AudioChunk",
        "audio_common_msgs/msg/AudioStamped",
        "audio_common_msgs/msg/AudioDataStamped",
        "audio_common_msgs/msg/AudioData",
    ),
}


@pytest.mark.parametrize("modality", modalities.NAMES)
def test_accepted_types_in_the_order_of_preference(modality):
    assert messages.types_for(modality) == (*ACCEPTED[modality], messages.MODALITY_FRAME)
    assert all(callable(registry.make(modality, ros_type)) for ros_type in messages.types_for(modality))


def test_an_unknown_modality_has_no_types():
    with pytest.raises(ConfigError, match="unknown modality 'smell'; known are image"):
        messages.types_for("smell")


RADAR = "radar_msgs/msg/RadarScan"


@pytest.fixture
def decoders(monkeypatch):
    """What is registered in a test is forgotten after it."""
    monkeypatch.setattr(registry, "_decoders", {name: dict(known) for name, known in registry._decoders.items()})
    registry._load_modules.cache_clear()
    yield
    registry._load_modules.cache_clear()


def test_a_decorator_registers_a_decoder(decoders):
    @messages.decodes(RADAR, "point_cloud")
    def radar(message, modality, options, source):
        return [message, modality, options.scale, source]

    assert messages.types_for("point_cloud") == (*ACCEPTED["point_cloud"], RADAR, messages.MODALITY_FRAME)
    assert RADAR not in messages.types_for("image")
    assert decode(RADAR, "echo", "point_cloud", scale=2.0) == ["echo", "point_cloud", 2.0, "front"]


def test_a_decoder_class_is_made_once_per_sensor(decoders):
    @messages.decodes(RADAR, "point_cloud", "image")
    class Counter:
        def __init__(self):
            self.losses = {"lost": 0}

        def __call__(self, message, modality, options, source):
            self.losses["lost"] += 1
            return self.losses["lost"]

    front, rear = Decoder("point_cloud", "front"), Decoder("image", "rear")
    assert [front.decode(RADAR, None, DecodeOptions()) for _ in range(3)] == [1, 2, 3]
    assert rear.decode(RADAR, None, DecodeOptions()) == 1
    assert front.losses == {"lost": 3}


@pytest.mark.parametrize("ros_type", [messages.POINT_CLOUD, messages.MODALITY_FRAME])
def test_two_decoders_of_one_type_are_refused(decoders, ros_type):
    def another(message, modality, options, source): ...

    ours = {messages.POINT_CLOUD: r"clouds\.point_cloud", messages.MODALITY_FRAME: r"frames\.modality_frame"}[ros_type]
    with pytest.raises(ConfigError, match=rf"{ros_type} has two decoders for point_cloud: .*{ours} and .*another"):
        messages.decodes(ros_type, "point_cloud")(another)
    assert messages.types_for("point_cloud") == (*ACCEPTED["point_cloud"], messages.MODALITY_FRAME)


MODULE = f"""
from omnibind_ros.messages import decodes

@decodes("{RADAR}", "point_cloud")
def radar(message, modality, options, source):
    return message.points
"""


@pytest.fixture
def module(decoders, tmp_path, monkeypatch):
    """Writes an importable module."""

    def write(text):
        (tmp_path / "robot_messages.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "robot_messages", raising=False)
        return "robot_messages"

    yield write
    sys.modules.pop("robot_messages", None)


def test_a_module_that_the_environment_names_adds_a_type_to_a_built_in_modality(module, monkeypatch):
    monkeypatch.setenv("OMNIBIND_MESSAGES", module(MODULE) + os.pathsep)
    assert messages.types_for("point_cloud") == (*ACCEPTED["point_cloud"], RADAR, messages.MODALITY_FRAME)
    assert decode(RADAR, SimpleNamespace(points=[1, 2]), "point_cloud") == [1, 2]


def test_an_installed_package_adds_a_type_to_a_built_in_modality(module, tmp_path):
    module(MODULE)
    info = tmp_path / "robot-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robot\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[omnibind.messages]\nradar = robot_messages\n")
    assert decode(RADAR, SimpleNamespace(points=[1, 2]), "point_cloud") == [1, 2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(MODULE.replace(RADAR, "sensor_msgs/msg/PointCloud2"), "two decoders for point_cloud: .*and robot_messages.radar"),
     ("import nothing_of_that_name", "ModuleNotFoundError")],
)  # fmt: skip
def test_a_module_that_cannot_be_used_is_named(module, monkeypatch, text, complaint):
    monkeypatch.setenv("OMNIBIND_MESSAGES", module(text))
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"OMNIBIND_MESSAGES: module robot_messages cannot be imp.*{complaint}"):
            messages.types_for("point_cloud")


def test_a_type_of_another_modality_is_refused():
    with pytest.raises(InvalidInputError, match=r"LaserScan, expected for image one of sensor_msgs/msg/Image"):
        decode(messages.LASER_SCAN, None, "image")


def test_a_message_of_another_package_of_the_same_name_is_refused():
    other = SimpleNamespace(audio=SimpleNamespace(data=b"", info=None))
    with pytest.raises(InvalidInputError, match=r"\[front\] got a message without 'audio_data', expected the fields"):
        decode(messages.AUDIO_STAMPED, other, "audio")


def test_a_stamp_left_at_zero_is_no_stamp():
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0))
    assert messages.stamp_ns(SimpleNamespace(header=header)) is None


def test_a_message_is_filled_by_name():
    message = SimpleNamespace()
    assert messages.fill(message, {"data": np.array([1, 2], np.uint16), "step": 3}) is message
    assert message.step == 3 and message.data == array.array("H", [1, 2])


def test_values_that_no_frame_can_hold_are_refused():
    for dtype in (np.float64, np.int8, np.uint16):
        with pytest.raises(InvalidInputError, match=rf"\[front\] got values of type {np.dtype(dtype)}"):
            messages.modality_frame_fields("front", "image", "m", Encoded("preprocessed", np.zeros((1, 2), dtype)))


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_arrays_for_ros_keep_type_and_values(dtype):
    values = np.array([[1, 2], [3, 4]], dtype)
    converted = messages.to_ros(values)
    assert isinstance(converted, array.array)
    assert np.asarray(converted).dtype == values.dtype
    assert converted.tolist() == [1, 2, 3, 4]
    assert messages.to_ros(["a"]) == ["a"]


# Whatever comes, the answer is an item or a refusal -------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(0, 12), st.integers(0, (1 << 32) - 1))
FLOATS = st.floats(width=32)
BYTES = st.binary(max_size=200)
NAMES = st.one_of(st.sampled_from("xyz"), st.text(max_size=3))


def fake(**fields):
    return st.builds(SimpleNamespace, **fields)


def numbers(dtype, **limits):
    return st.lists(st.integers(0, np.iinfo(dtype).max), max_size=20).map(lambda values: np.array(values, dtype))


PICTURE = cv2.imencode(".png", np.zeros((2, 2), np.uint16))[1].tobytes()
FORMATS = ("jpeg", "bgr8; jpeg compressed bgr8", "16UC1; compressedDepth png", "bayer_rggb8; png compressed ", ";")
TIME = fake(sec=st.integers(-(1 << 31), (1 << 31) - 1), nanosec=NUMBERS)
ARBITRARY = {
    messages.IMAGE: fake(
        encoding=st.sampled_from([*messages.pictures.ENCODINGS, "8UC2", ""]),
        height=NUMBERS,
        width=NUMBERS,
        step=NUMBERS,
        is_bigendian=st.integers(0, 255),
        data=BYTES,
    ),
    messages.COMPRESSED_IMAGE: fake(
        format=st.one_of(st.sampled_from(FORMATS), st.text(max_size=8)),
        data=st.one_of(BYTES, BYTES.map(lambda tail: PICTURE[: len(tail)] + tail), st.just(PICTURE)),
    ),
    messages.POINT_CLOUD: fake(
        height=NUMBERS,
        width=NUMBERS,
        point_step=NUMBERS,
        row_step=NUMBERS,
        is_bigendian=st.booleans(),
        data=BYTES,
        fields=st.lists(fake(name=NAMES, offset=NUMBERS, datatype=st.integers(0, 255), count=NUMBERS), max_size=4),
    ),
    messages.LASER_SCAN: fake(
        ranges=st.lists(FLOATS, max_size=20).map(lambda values: array.array("f", values)),
        angle_min=FLOATS,
        angle_increment=FLOATS,
        range_min=FLOATS,
        range_max=FLOATS,
    ),
    messages.EVENT_ARRAY: fake(
        width=NUMBERS, height=NUMBERS, x=numbers("u2"), y=numbers("u2"), t=numbers("u4"), p=numbers("u1")
    ),
    messages.EVENT_PACKET: fake(
        encoding=st.sampled_from(["evt3", "mono", "trigger", "libcaer", ""]),
        width=NUMBERS,
        height=NUMBERS,
        seq=st.integers(0, (1 << 64) - 1),
        time_base=st.integers(0, (1 << 64) - 1),
        is_bigendian=st.booleans(),
        events=BYTES,
    ),
    messages.DVS_EVENTS: fake(
        width=NUMBERS,
        height=NUMBERS,
        events=st.lists(
            fake(x=st.integers(0, 65535), y=st.integers(0, 65535), ts=TIME, polarity=st.booleans()), max_size=5
        ),
    ),
    messages.AUDIO_CHUNK: fake(
        samples=st.lists(FLOATS, max_size=20).map(lambda values: array.array("f", values)),
        sample_rate=NUMBERS,
        channels=NUMBERS,
    ),
    messages.AUDIO_STAMPED: fake(
        audio=fake(
            audio_data=fake(
                float32_data=st.lists(FLOATS, max_size=4).map(lambda values: array.array("f", values)),
                int32_data=numbers("i4"),
                int16_data=numbers("i2"),
                int8_data=numbers("i1"),
                uint8_data=numbers("u1"),
            ),
            info=fake(rate=st.integers(-(1 << 31), (1 << 31) - 1), channels=st.integers(-(1 << 31), (1 << 31) - 1)),
        )
    ),
    messages.AUDIO_DATA: fake(data=BYTES),
    messages.AUDIO_DATA_STAMPED: fake(audio=fake(data=BYTES)),
    messages.STRING: fake(data=st.text(max_size=20)),
    messages.MODALITY_FRAME: fake(
        modality=st.sampled_from(modalities.NAMES),
        model=st.sampled_from(["", "tiny@1"]),
        kind=st.integers(0, 255),
        dtype=st.integers(0, 255),
        shape=st.lists(NUMBERS, max_size=4),
        data=BYTES,
    ),
}
DIMENSION = fake(label=st.just("rows"), size=NUMBERS, stride=NUMBERS)
ARBITRARY |= {
    ros_type: fake(
        layout=fake(dim=st.lists(DIMENSION, max_size=3), data_offset=NUMBERS),
        data=st.lists(FLOATS, max_size=20).map(lambda values: array.array("f", values)),
    )
    for ros_type in messages.MULTI_ARRAYS
}
ARBITRARY[messages.OLD_EVENT_PACKET] = ARBITRARY[messages.EVENT_PACKET]
ARBITRARY[messages.PROPHESEE_EVENTS] = ARBITRARY[messages.DVS_EVENTS]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("modality", modalities.NAMES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_message_is_decoded_or_refused_by_name(modality, data):
    decoder = Decoder(modality, "front")
    for _ in range(3):
        ros_type = data.draw(st.sampled_from(messages.types_for(modality)))
        message = data.draw(ARBITRARY[ros_type])
        try:
            raw = decoder.decode(ros_type, message, DecodeOptions())
            if not isinstance(raw, Encoded):
                modalities.get(modality).check(raw, "front")
        except InvalidInputError as error:
            assert error.source == "front"
            assert error.value
            assert error.expected


def test_what_a_message_says_of_itself_is_told_in_one_short_line_that_terminals_can_show():
    fields = {"height": 4, "width": 4, "step": 12, "is_bigendian": 0, "data": bytes(48)}
    message = SimpleNamespace(encoding="\x1b[2J\r\n\u202e" + "x" * 1_000_000, **fields)
    with pytest.raises(InvalidInputError) as caught:
        messages.decode("sensor_msgs/msg/Image", message, "image", DecodeOptions(), "camera")
    text = str(caught.value)
    assert text.startswith(r"[camera] got encoding '\x1b[2J\r\n\u202exxx") and text.isprintable()
    assert "xxx... (1000018 characters), expected one of mono8" in text and len(text) < 1200
