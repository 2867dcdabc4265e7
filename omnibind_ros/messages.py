"""Sensor messages to NumPy and back, one function per ROS message type.

Duck-typed: the functions read attributes only, so that messages of rclpy (``array.array`` fields) and of ``rosbags``
(NumPy fields) both work, and this module imports no ROS. Data are viewed in place where their layout allows; a decoded
array may share memory with its message and must not be written to.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Events, Sound
from omnibind_core.runtime.types import Encoded

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
LASER_SCAN = "sensor_msgs/msg/LaserScan"
EVENT_ARRAY = "omnibind_ros/msg/EventArray"
AUDIO_CHUNK = "omnibind_ros/msg/AudioChunk"
AUDIO_STAMPED = "audio_common_msgs/msg/AudioStamped"
AUDIO_DATA_STAMPED = "audio_common_msgs/msg/AudioDataStamped"
AUDIO_DATA = "audio_common_msgs/msg/AudioData"
STRING = "std_msgs/msg/String"
MODALITY_FRAME = "omnibind_ros/msg/ModalityFrame"

# Accepted message types of each modality, preferred ones first; MODALITY_FRAME is accepted for all.
_TYPES: Mapping[str, tuple[str, ...]] = {
    "image": (IMAGE, COMPRESSED_IMAGE),
    "thermal": (IMAGE, COMPRESSED_IMAGE),
    "touch": (IMAGE, COMPRESSED_IMAGE),
    "event": (EVENT_ARRAY,),
    "point_cloud": (POINT_CLOUD, LASER_SCAN),
    "audio": (AUDIO_CHUNK, AUDIO_STAMPED, AUDIO_DATA_STAMPED, AUDIO_DATA),
    "text": (STRING,),
}


@dataclass(frozen=True)
class DecodeOptions:
    """What a message does not say about itself.

    Attributes:
        scale: Thermal and touch with 16-bit or float pixels: ``value * scale + offset``, in °C for thermal and
            0..255 for touch.
        offset: See ``scale``.
        sample_rate: Hz, for sound messages that carry none (``audio_common_msgs/AudioData``).
        channels: Interleaved channels of the same messages.
        model: Identity that a ``ModalityFrame`` must have been made for, ``name@hash``; ``""`` accepts any.
    """

    scale: float = 1.0
    offset: float = 0.0
    sample_rate: int = 16000
    channels: int = 1
    model: str = ""


Decoder = Callable[[Any, str, DecodeOptions, str], Any]


def types_for(modality: str) -> tuple[str, ...]:
    """ROS message types accepted for a modality, preferred ones first."""
    return (*(_TYPES.get(modality) or _plugin_decoders(modality)), MODALITY_FRAME)


def decode(ros_type: str, message: Any, modality: str, options: DecodeOptions, source: str) -> Any:
    """Turns a message into the raw form of a modality.

    Args:
        ros_type: For example ``"sensor_msgs/msg/Image"``; one of :func:`types_for` the modality.
        message: The message, of rclpy or rosbags.
        modality: One of :func:`omnibind_core.modalities.names`.
        options: What the message does not say.
        source: Sensor name, for error messages.

    Returns:
        The raw item, which the modality's ``check`` has still to accept, or
        :class:`~omnibind_core.runtime.types.Encoded` for a ``ModalityFrame``.

    Raises:
        InvalidInputError: The message is malformed, or its type is not accepted for the modality.
    """
    accepted = types_for(modality)
    if ros_type not in accepted:
        raise InvalidInputError(source, f"a message of type {ros_type}", f"for {modality} one of {', '.join(accepted)}")
    own = {} if modality in _TYPES else _plugin_decoders(modality)
    return (own.get(ros_type) or _DECODERS[ros_type])(message, modality, options, source)


def _plugin_decoders(modality: str) -> Mapping[str, Decoder]:
    """Decoders by ROS type: ``DECODERS`` of a plug-in's ``messages.py``."""
    decoders: Mapping[str, Decoder] = getattr(modalities.plugin_module(modality, "messages"), "DECODERS", {})
    return decoders


def stamp_ns(message: Any) -> int | None:
    """Stamp of a message's header in nanoseconds; ``None`` if it has no header or the stamp was left at zero."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec or None


# --- pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Encoding:
    """Layout of one pixel encoding of ``sensor_msgs/Image``.

    Attributes:
        dtype: NumPy type of one channel.
        channels: Values per pixel.
        to_rgb: OpenCV conversion to RGB; ``None`` if it is RGB already.
    """

    dtype: str
    channels: int
    to_rgb: int | None


# Names from sensor_msgs/image_encodings.hpp. OpenCV names a Bayer pattern by its second row and column, ROS by its
# first pixels. 8UC3 and 8UC4 name no order: OpenCV's is taken, as the drivers that send them use OpenCV.
_ENCODINGS: Mapping[str, _Encoding] = {
    "mono8": _Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "mono16": _Encoding("u2", 1, cv2.COLOR_GRAY2RGB),
    "16UC1": _Encoding("u2", 1, cv2.COLOR_GRAY2RGB),
    "32FC1": _Encoding("f4", 1, cv2.COLOR_GRAY2RGB),
    "rgb8": _Encoding("u1", 3, None),
    "rgba8": _Encoding("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgr8": _Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC3": _Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "bgra8": _Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "8UC4": _Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "rgb16": _Encoding("u2", 3, None),
    "bgr16": _Encoding("u2", 3, cv2.COLOR_BGR2RGB),
    "bgra16": _Encoding("u2", 4, cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": _Encoding("u1", 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Encoding("u1", 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Encoding("u1", 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Encoding("u1", 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": _Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
}


def _image(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[Any]:
    return _picture(image_pixels(message, source), message.encoding, modality, options, source)


def image_pixels(message: Any, source: str) -> NDArray[Any]:
    """Pixels of a ``sensor_msgs/Image`` as they were sent, viewed in place.

    Args:
        message: The message.
        source: Sensor name, for error messages.

    Returns:
        ``[H, W]`` or ``[H, W, C]`` in the type, byte order and channel order of the encoding.

    Raises:
        InvalidInputError: The encoding is unknown, or the data are too short for it.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise InvalidInputError(source, f"encoding '{message.encoding}'", f"one of {', '.join(_ENCODINGS)}")
    height, width, step, data = message.height, message.width, message.step, _bytes(message.data)
    if height == 0 or width == 0:
        raise InvalidInputError(source, f"an image of {width} x {height} pixels", "at least 1 x 1")
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    row = width * encoding.channels * dtype.itemsize
    if step < row:
        raise InvalidInputError(source, f"step {step}", f"at least {row} bytes for {width} pixels {message.encoding}")
    if data.size < height * step:
        raise InvalidInputError(source, f"{data.size} bytes of data", f"height {height} x step {step} bytes")
    pixel = encoding.channels * dtype.itemsize
    shape = (height, width) if encoding.channels == 1 else (height, width, encoding.channels)
    strides = (step, pixel) if encoding.channels == 1 else (step, pixel, dtype.itemsize)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, buffer=data, strides=strides)
    return pixels


def _compressed_image(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[Any]:
    data = _bytes(message.data)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size and "compressedDepth" not in message.format else None
    if pixels is None:
        found = f"{data.size} bytes of format '{message.format}' that OpenCV cannot decode"
        raise InvalidInputError(source, found, "a JPEG, PNG, WebP, BMP or TIFF picture")
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    encoding = {
        (1, "uint8"): "mono8",
        (1, "uint16"): "mono16",
        (1, "float32"): "32FC1",
        (3, "uint8"): "bgr8",
        (3, "uint16"): "bgr16",
        (4, "uint8"): "bgra8",
        (4, "uint16"): "bgra16",
    }.get((channels, pixels.dtype.name))
    if encoding is None:
        raise InvalidInputError(
            source, f"a picture of {channels} channels {pixels.dtype}", "grey or colour, 8 or 16 bit"
        )
    return _picture(pixels, encoding, modality, options, source)


def _picture(pixels: NDArray[Any], name: str, modality: str, options: DecodeOptions, source: str) -> NDArray[Any]:
    """Interprets pixels: RGB for colour, values for a thermal or touch sensor with one channel."""
    encoding = _ENCODINGS[name]
    if encoding.to_rgb == cv2.COLOR_GRAY2RGB and modality in ("thermal", "touch"):
        if encoding.dtype == "u1":
            return pixels
        values = pixels.astype(np.float32)
        values *= options.scale
        values += options.offset
        return values if modality == "thermal" else np.clip(values, 0, 255).astype(np.uint8)
    if encoding.dtype == "f4":
        raise InvalidInputError(source, f"encoding '{name}'", f"8 or 16 bit grey or colour for {modality}")
    if encoding.dtype == "u2":
        pixels = (pixels >> 8).astype(np.uint8)
    if encoding.to_rgb is None:
        return pixels
    try:
        return cv2.cvtColor(pixels, encoding.to_rgb)
    except cv2.error as error:  # for example YUV 4:2:2 of odd width
        found = f"{pixels.shape[1]} x {pixels.shape[0]} pixels {name}"
        raise InvalidInputError(source, found, f"a size that this encoding allows ({error.err})") from error


def image_fields(pixels: NDArray[Any], encoding: str) -> dict[str, Any]:
    """Fields of ``sensor_msgs/Image``, without the header.

    Args:
        pixels: ``[H, W]`` or ``[H, W, C]``, of the type and channels of the encoding.
        encoding: For example ``"rgb8"``.

    Raises:
        InvalidInputError: The pixels do not fit the encoding.
    """
    layout = _ENCODINGS[encoding]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.dtype(layout.dtype) or channels != layout.channels:
        expected = f"{np.dtype(layout.dtype)} with {layout.channels} channels for {encoding}"
        raise InvalidInputError("image_fields", f"{pixels.dtype} {list(pixels.shape)}", expected)
    data = _flat_bytes(pixels)
    return {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": int(sys.byteorder == "big"),
        "step": data.size // pixels.shape[0],
        "data": data,
    }


# --- clouds -----------------------------------------------------------------------------------------------------------

# Constants of sensor_msgs/PointField.
_POINT_TYPES: Mapping[int, str] = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_FLOAT32 = 7


def _point_cloud(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.float32]:
    height, width, point_step = message.height, message.width, message.point_step
    # row_step only matters where there are rows, and drivers of unorganised clouds leave it at zero.
    row_step = message.row_step if height > 1 else width * point_step
    data = _bytes(message.data)
    if height * width == 0:
        raise InvalidInputError(source, f"a cloud of {width} x {height} points", "at least one point")
    if row_step < width * point_step:
        raise InvalidInputError(source, f"row_step {row_step}", f"at least {width} points x {point_step} bytes")
    if data.size < height * row_step:
        raise InvalidInputError(source, f"{data.size} bytes of data", f"{height} rows of {row_step} bytes")
    fields = {field.name: field for field in message.fields}
    axes = np.empty((3, height, width), np.float32)
    for axis, name in zip(axes, "xyz", strict=True):
        field = fields.get(name)
        if field is None or field.datatype not in _POINT_TYPES:
            raise InvalidInputError(
                source, f"a cloud with the fields {', '.join(fields) or 'none'}", "fields x, y and z"
            )
        dtype = np.dtype(_POINT_TYPES[field.datatype]).newbyteorder(">" if message.is_bigendian else "<")
        if field.offset + dtype.itemsize > point_step:
            raise InvalidInputError(source, f"field {name} at byte {field.offset}", f"inside point_step {point_step}")
        axis[:] = np.ndarray((height, width), dtype, buffer=data, offset=field.offset, strides=(row_step, point_step))
    return _valid_points(axes.reshape(3, -1), source)


def _laser_scan(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.float32]:
    ranges = np.asarray(message.ranges, np.float32)
    angles = message.angle_min + message.angle_increment * np.arange(ranges.size)
    ranges = np.where((ranges >= message.range_min) & (ranges <= message.range_max), ranges, np.nan)
    axes = np.stack([ranges * np.cos(angles), ranges * np.sin(angles), np.zeros_like(ranges)]).astype(np.float32)
    return _valid_points(axes, source)


def _valid_points(axes: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    """``[3, N]`` to ``[M, 3]`` without the pixels that saw nothing: NaN, infinity, or exactly the sensor's origin."""
    valid = np.isfinite(axes).all(axis=0) & axes.any(axis=0)
    if not valid.any():
        raise InvalidInputError(source, f"a cloud of {valid.size} points of which none is finite", "finite points")
    return np.ascontiguousarray((axes if valid.all() else axes[:, valid]).T)


def point_cloud_fields(points: NDArray[Any], point_field: Callable[..., Any] = dict) -> dict[str, Any]:
    """Fields of an unorganised ``sensor_msgs/PointCloud2``, without the header.

    Args:
        points: ``[N, 3]`` x, y, z in metres.
        point_field: Class of ``sensor_msgs/PointField``, called with its fields as keywords.
    """
    data = _flat_bytes(np.asarray(points, np.float32))
    return {
        "height": 1,
        "width": len(points),
        "fields": [point_field(name=n, offset=4 * i, datatype=_FLOAT32, count=1) for i, n in enumerate("xyz")],
        "is_bigendian": sys.byteorder == "big",
        "point_step": 12,
        "row_step": data.size,
        "data": data,
        "is_dense": bool(np.isfinite(points).all()),
    }


# --- events -----------------------------------------------------------------------------------------------------------


def _event_array(message: Any, modality: str, options: DecodeOptions, source: str) -> Events:
    x, y, t, p = (np.asarray(getattr(message, name)) for name in "xytp")
    if not x.size == y.size == t.size == p.size:
        raise InvalidInputError(source, f"{x.size} x, {y.size} y, {t.size} t, {p.size} p", "equally many of each")
    return Events(x, y, t.astype(np.int64), p, message.width, message.height)


def event_array_fields(events: Events) -> dict[str, Any]:
    """Fields of ``omnibind_ros/EventArray``, without the header, whose stamp is the time of the first event."""
    start = events.t[0] if len(events) else 0
    return {
        "width": events.width,
        "height": events.height,
        "x": events.x.astype(np.uint16, copy=False),
        "y": events.y.astype(np.uint16, copy=False),
        "t": (events.t - start).astype(np.uint32),
        "p": events.p.astype(np.uint8, copy=False),
    }


# --- sound ------------------------------------------------------------------------------------------------------------


def _audio_chunk(message: Any, modality: str, options: DecodeOptions, source: str) -> Sound:
    return _sound(np.asarray(message.samples), message.sample_rate, message.channels, source)


def _audio_stamped(message: Any, modality: str, options: DecodeOptions, source: str) -> Sound:
    """The package of mgonzs13: one array per sample type, of which one is filled."""
    audio = message.audio
    arrays = (getattr(audio.audio_data, f"{t}_data") for t in ("float32", "int32", "int16", "int8", "uint8"))
    samples = next((np.asarray(values) for values in arrays if len(values)), np.zeros(0, np.float32))
    return _sound(samples, audio.info.rate, audio.info.channels, source)


def _audio_data_stamped(message: Any, modality: str, options: DecodeOptions, source: str) -> Sound:
    return _audio_data(message.audio, modality, options, source)


def _audio_data(message: Any, modality: str, options: DecodeOptions, source: str) -> Sound:
    """The package of ros-drivers: bytes whose meaning its AudioInfo topic tells; here 16-bit little-endian PCM."""
    data = _bytes(message.data)
    if data.size % 2:
        raise InvalidInputError(source, f"{data.size} bytes of sound", "raw 16-bit samples (format 'wave')")
    return _sound(data.view("<i2"), options.sample_rate, options.channels, source)


def _sound(samples: NDArray[Any], sample_rate: int, channels: int, source: str) -> Sound:
    """Interleaved samples of any integer or float type to mono in -1..1."""
    if channels < 1 or samples.size == 0 or samples.size % channels:
        found = f"{samples.size} samples in {channels} channels"
        raise InvalidInputError(source, found, "at least one sample in each of 1 or more channels")
    if samples.dtype.kind == "u":
        middle = 1 << (8 * samples.dtype.itemsize - 1)
        samples = (samples.astype(np.float32) - middle) / middle
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / (1 << (8 * samples.dtype.itemsize - 1))
    if channels > 1:
        samples = samples.reshape(-1, channels).mean(axis=1)
    return Sound(samples.astype(np.float32, copy=False), sample_rate)


def audio_chunk_fields(sound: Sound) -> dict[str, Any]:
    """Fields of ``omnibind_ros/AudioChunk``, without the header, whose stamp is the time of the first sample."""
    return {"sample_rate": sound.sample_rate, "channels": 1, "samples": sound.samples.astype(np.float32, copy=False)}


# --- words and frames of other nodes ----------------------------------------------------------------------------------


def _string(message: Any, modality: str, options: DecodeOptions, source: str) -> str:
    text: str = message.data
    return text


# Constants of ModalityFrame.msg.
_KINDS: tuple[Literal["preprocessed"], Literal["embedding"]] = ("preprocessed", "embedding")
_DTYPES = ("<u1", "<f4")


def _modality_frame(message: Any, modality: str, options: DecodeOptions, source: str) -> Encoded:
    if message.modality != modality:
        raise InvalidInputError(source, f"a frame of modality '{message.modality}'", modality)
    if options.model and message.model != options.model:
        raise InvalidInputError(source, f"a frame made for model '{message.model}'", f"'{options.model}'")
    if message.kind >= len(_KINDS) or message.dtype >= len(_DTYPES):
        raise InvalidInputError(source, f"kind {message.kind}, dtype {message.dtype}", "each 0 or 1")
    dtype, shape, data = np.dtype(_DTYPES[message.dtype]), tuple(map(int, message.shape)), _bytes(message.data)
    if not shape or data.size != np.prod(shape) * dtype.itemsize or data.size == 0:
        raise InvalidInputError(source, f"{data.size} bytes for the shape {list(shape)}", f"all its values as {dtype}")
    values: NDArray[Any] = data.view(dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise InvalidInputError(source, "values that are not finite", "finite values")
    return Encoded(_KINDS[message.kind], values)


def modality_frame_fields(sensor: str, modality: str, model: str, encoded: Encoded) -> dict[str, Any]:
    """Fields of ``omnibind_ros/ModalityFrame``, without the header.

    Raises:
        InvalidInputError: The values are neither ``uint8`` nor ``float32``.
    """
    dtype = encoded.array.dtype.newbyteorder("<").str.lstrip("<|")
    if dtype not in ("u1", "f4"):
        raise InvalidInputError(sensor, f"values of type {encoded.array.dtype}", "uint8 or float32")
    return {
        "sensor": sensor,
        "modality": modality,
        "model": model,
        "kind": _KINDS.index(encoded.kind),
        "dtype": _DTYPES.index(f"<{dtype}"),
        "shape": np.array(encoded.array.shape, np.uint32),
        "data": _flat_bytes(encoded.array),
    }


# --- fields of messages -----------------------------------------------------------------------------------------------

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
    result.frombytes(_flat_bytes(value).data)
    return result


def fill(message: Any, fields: Mapping[str, Any]) -> Any:
    """Sets fields of an rclpy message, arrays without a pass over their elements, and returns the message."""
    for name, value in fields.items():
        setattr(message, name, to_ros(value))
    return message


def _bytes(data: Any) -> NDArray[np.uint8]:
    """Views ``bytes``, ``array.array`` or a NumPy array as bytes."""
    return np.frombuffer(data, np.uint8)


def _flat_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


_DECODERS: Mapping[str, Decoder] = {
    IMAGE: _image,
    COMPRESSED_IMAGE: _compressed_image,
    POINT_CLOUD: _point_cloud,
    LASER_SCAN: _laser_scan,
    EVENT_ARRAY: _event_array,
    AUDIO_CHUNK: _audio_chunk,
    AUDIO_STAMPED: _audio_stamped,
    AUDIO_DATA_STAMPED: _audio_data_stamped,
    AUDIO_DATA: _audio_data,
    STRING: _string,
    MODALITY_FRAME: _modality_frame,
}
