"""``sensor_msgs/Image`` and ``CompressedImage``."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError, MissingDependencyError
from omnibind_core.modalities import Doubt
from omnibind_core.modalities.image.plausibility import depth_doubt
from omnibind_core.modalities.image.processing import to_8_bit
from omnibind_core.modalities.picture_sizes import is_cut_jpeg, size_of
from omnibind_core.modalities.pictures import decode_bounded
from omnibind_core.optional import require
from omnibind_core.runtime.types import Doubted
from omnibind_ros.messages.fields import DecodeOptions, as_bytes, flat_bytes
from omnibind_ros.messages.registry import decodes

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class Encoding:
    """Layout of one pixel encoding of ``sensor_msgs/Image``.

    Attributes:
        dtype: NumPy type of one value.
        channels: Values per pixel that lie side by side.
        to_rgb: OpenCV conversion to RGB; ``None`` if it is RGB already.
        chroma: Rows of colour below the rows of brightness, in halves of the height, each as long as those.
    """

    dtype: str
    channels: int
    to_rgb: int | None
    chroma: int = 0


_GREY = cv2.COLOR_GRAY2RGB

# Names from sensor_msgs/image_encodings.hpp. OpenCV names a Bayer pattern by its second row and column, ROS by its
# first pixels. 8UC3 and the like name no order: OpenCV's is taken, as the drivers that send them use OpenCV.
ENCODINGS: Mapping[str, Encoding] = {
    "mono8": Encoding("u1", 1, _GREY),
    "8UC1": Encoding("u1", 1, _GREY),
    "mono16": Encoding("u2", 1, _GREY),
    "16UC1": Encoding("u2", 1, _GREY),
    "16SC1": Encoding("i2", 1, _GREY),
    "32SC1": Encoding("i4", 1, _GREY),
    "32FC1": Encoding("f4", 1, _GREY),
    "64FC1": Encoding("f8", 1, _GREY),
    "rgb8": Encoding("u1", 3, None),
    "rgba8": Encoding("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgr8": Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC3": Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "bgra8": Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "8UC4": Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "rgb16": Encoding("u2", 3, None),
    "rgba16": Encoding("u2", 4, cv2.COLOR_RGBA2RGB),
    "bgr16": Encoding("u2", 3, cv2.COLOR_BGR2RGB),
    "16UC3": Encoding("u2", 3, cv2.COLOR_BGR2RGB),
    "bgra16": Encoding("u2", 4, cv2.COLOR_BGRA2RGB),
    "16UC4": Encoding("u2", 4, cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": Encoding("u1", 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": Encoding("u1", 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": Encoding("u1", 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": Encoding("u1", 1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": Encoding("u2", 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": Encoding("u2", 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": Encoding("u2", 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": Encoding("u2", 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "nv12": Encoding("u1", 1, cv2.COLOR_YUV2RGB_NV12, 1),
    "nv21": Encoding("u1", 1, cv2.COLOR_YUV2RGB_NV21, 1),
    "nv24": Encoding("u1", 1, None, 4),
}

# ITU-R BT.601 from the limited range of video, as OpenCV converts the other YUV encodings.
_BT601 = np.array([[1.164, 0, 1.596], [1.164, -0.391, -0.813], [1.164, 2.018, 0]])
_YUV_TO_RGB = np.column_stack([_BT601, _BT601 @ [-16, -128, -128]])


class _Levels:
    """The range of a sensor's 16-bit pictures: cameras of 10, 12 and 14 bits send them as if they had 16."""

    def __init__(self) -> None:
        self._highest = 0

    def to_8_bit(self, pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Stretched by the range of all so far: see :func:`omnibind_core.modalities.image.processing.to_8_bit`."""
        pixels = pixels.astype(np.uint16, copy=False)
        self._highest = max(self._highest, int(pixels.max()))
        return to_8_bit(pixels, self._highest)


@decodes(IMAGE, "image", "thermal", "touch")
class ImageDecoder:
    """``sensor_msgs/Image``; RGB or one channel, a view of the message where it holds that."""

    def __init__(self) -> None:
        self._levels = _Levels()

    def __call__(self, message: Any, modality: str, options: DecodeOptions, source: str) -> Any:
        """See the class; doubted where it is a picture of distances, not of light."""
        options.limits.check("pixels", message.width * message.height, source)
        encoding = ENCODINGS.get(message.encoding)
        bridge = _bridge(options.image_decoder, known=encoding is not None)
        if bridge is not None:
            return _by_cv_bridge(bridge, message, modality, options, source, self._levels)
        pixels = image_pixels(message, source)
        if message.encoding == "nv24":
            return pixels
        return _picture(pixels, message.encoding, modality, options, source, self._levels)


def image_pixels(message: Any, source: str) -> NDArray[Any]:
    """Pixels of a ``sensor_msgs/Image`` as they were sent, viewed in place.

    Args:
        message: The message.
        source: Sensor name, for error messages.

    Returns:
        ``[H, W]`` or ``[H, W, C]`` in the type, byte order and channel order of the encoding; of ``nv12`` and ``nv21``
        the rows of colour below those of brightness, ``nv24`` as RGB.

    Raises:
        InvalidInputError: The encoding is unknown, or the data are too short for it.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise InvalidInputError(source, f"encoding '{message.encoding}'", f"one of {', '.join(ENCODINGS)}")
    height, width, step, data = message.height, message.width, message.step, as_bytes(message.data)
    if height == 0 or width == 0:
        raise InvalidInputError(source, f"an image of {width} x {height} pixels", "at least 1 x 1")
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    row = width * encoding.channels * dtype.itemsize
    if step < row:
        raise InvalidInputError(source, f"step {step}", f"at least {row} bytes for {width} pixels {message.encoding}")
    rows = height + height * encoding.chroma // 2
    if data.size < rows * step:
        below = f" and {rows - height} rows of colour" if rows > height else ""
        raise InvalidInputError(source, f"{data.size} bytes of data", f"height {height} x step {step} bytes{below}")
    if message.encoding == "nv24":  # rows of interleaved U and V, each as long as two of brightness
        chroma: NDArray[np.uint8] = np.ndarray((height, width, 2), np.uint8, data, height * step, (2 * step, 2, 1))
        brightness: NDArray[np.uint8] = np.ndarray((height, width), np.uint8, data, strides=(step, 1))
        return cv2.transform(np.dstack([brightness, chroma]), _YUV_TO_RGB)
    pixel = encoding.channels * dtype.itemsize
    shape = (rows, width) if encoding.channels == 1 else (rows, width, encoding.channels)
    strides = (step, pixel) if encoding.channels == 1 else (step, pixel, dtype.itemsize)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, buffer=data, strides=strides)
    return pixels


def unpack(content: bytes, options: DecodeOptions, source: str) -> NDArray[Any] | None:
    """Pixels of a compressed picture, ``[H, W]`` or ``[H, W, C]``, blue first; None if OpenCV cannot decode it.

    Raises:
        InvalidInputError: It is too large, by its header.
    """
    claim = size_of(content)
    if claim is not None:
        options.limits.check("pixels", claim.pixels, source)
    return decode_bounded(content, source, cv2.IMREAD_UNCHANGED)


@decodes(COMPRESSED_IMAGE, "image", "thermal", "touch")
class CompressedImageDecoder:
    """``sensor_msgs/CompressedImage``, as image_transport's compressed and (16 bit) compressedDepth plug-ins send."""

    def __init__(self) -> None:
        self._levels = _Levels()

    def __call__(self, message: Any, modality: str, options: DecodeOptions, source: str) -> Any:
        """See the class; doubted where it is a picture of distances, or of 16 bits in 8."""
        data = as_bytes(message.data)
        kept, _, coding = message.format.partition(";")  # "bgr8; jpeg compressed bgr8", or only "jpeg"
        if "compressedDepth" in coding:
            if ("16UC1" not in kept and "mono16" not in kept) or "rvl" in coding:
                raise InvalidInputError(source, f"format '{message.format}'", "compressedDepth of 16UC1 as PNG")
            data = data[_DEPTH_HEADER:]
        content = data.tobytes()
        if is_cut_jpeg(content):
            found = f"a JPEG that ends early ({data.size} bytes of format '{message.format}')"
            raise InvalidInputError(source, found, "a complete picture")
        pixels = unpack(content, options, source)
        if pixels is None:
            found = f"{data.size} bytes of format '{message.format}' that OpenCV cannot decode"
            raise InvalidInputError(source, found, "a JPEG, PNG, WebP, BMP or TIFF picture")
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        encoding = _DECODED.get((channels, pixels.dtype.name))
        if encoding is None:
            raise InvalidInputError(
                source, f"a picture of {channels} channels {pixels.dtype}", "grey or colour, 8 or 16 bit"
            )
        if channels == 1 and kept.startswith("bayer_"):
            if kept not in ENCODINGS or ENCODINGS[kept].dtype != ENCODINGS[encoding].dtype:
                raise InvalidInputError(
                    source, f"format '{message.format}' of {pixels.dtype}", "8 or 16 bit, as it says"
                )
            encoding = kept
        elif (
            channels == 3 and re.match("(rgb|bgr)", kept) and "compressed" in coding and "compressed bgr" not in coding
        ):
            encoding = encoding.replace("bgr", "rgb")  # old plug-ins compressed red as if it were blue
        if channels == 1 and "16UC1" in kept:
            encoding = "16UC1" if pixels.dtype == np.uint16 else encoding
        made = _picture(pixels, encoding, modality, options, source, self._levels)
        if "jpeg" in coding and re.search("16|32", kept):
            white = float((pixels == 255).mean())
            found = f"a JPEG of {kept}, which holds 8 of its bits, {white:.0%} of the pixels at 255"
            return Doubted(_raw(made), Doubt(f"{found}: set the publisher's format to png", excludes=white > _CUT))
        return made


_CUT = 0.5  # share of the pixels of a JPEG of 16 bits at 255, above which what they show is lost
_DEPTH_HEADER = 12  # bytes of compressed_depth_image_transport's header: kind and two parameters for 32FC1
_DECODED: Mapping[tuple[int, str], str] = {
    (1, "uint8"): "mono8",
    (1, "uint16"): "mono16",
    (1, "float32"): "32FC1",
    (3, "uint8"): "bgr8",
    (3, "uint16"): "bgr16",
    (4, "uint8"): "bgra8",
    (4, "uint16"): "bgra16",
}


def _raw(made: Any) -> Any:
    return made.raw if isinstance(made, Doubted) else made


def _picture(
    pixels: NDArray[Any], name: str, modality: str, options: DecodeOptions, source: str, levels: _Levels
) -> Any:
    """Interprets pixels: RGB for colour, values for a modality that measures them with one channel.

    Doubted where distances stand for light.
    """
    encoding = ENCODINGS[name]
    measured = modalities.get(modality).measured
    if encoding.to_rgb == _GREY and measured:
        if encoding.dtype == "u1":
            return pixels
        values = pixels.astype(np.float32)
        values *= options.scale
        values += options.offset
        return values if measured == "float32" else np.clip(values, 0, 255).astype(np.uint8)
    if encoding.dtype not in ("u1", "u2"):
        raise InvalidInputError(source, f"encoding '{name}'", f"8 or 16 bit grey or colour for {modality}")
    try:
        if encoding.to_rgb is not None:
            pixels = cv2.cvtColor(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), encoding.to_rgb)
    except cv2.error as error:  # for example YUV 4:2:2 of odd width
        found = f"{pixels.shape[1]} x {pixels.shape[0]} pixels {name}"
        raise InvalidInputError(source, found, f"a size that this encoding allows ({error.err})") from error
    if encoding.dtype == "u1":
        return pixels
    picture = levels.to_8_bit(pixels)
    if encoding.to_rgb != _GREY:
        return picture
    doubt = depth_doubt(pixels[:, :, 0], named=name == "16UC1")
    return picture if doubt is None else Doubted(picture, doubt)


def _bridge(choice: str, known: bool) -> Any:
    """cv_bridge where it is to be used, else ``None``."""
    if choice == "cv_bridge":
        return require("cv_bridge", "image_decoder: cv_bridge").CvBridge()
    return None if known or choice == "native" else _installed_bridge()


@functools.cache
def _installed_bridge() -> Any:
    try:
        return require("cv_bridge", "an unknown encoding").CvBridge()
    except MissingDependencyError:
        return None


def _by_cv_bridge(
    bridge: Any, message: Any, modality: str, options: DecodeOptions, source: str, levels: _Levels
) -> Any:
    """The picture by cv_bridge, which unpacks all and converts what names its colours."""
    encoding = ENCODINGS.get(message.encoding)
    values = encoding is not None and encoding.to_rgb == _GREY and bool(modalities.get(modality).measured)
    unnamed = re.fullmatch(r"\d+[USF]C\d*", message.encoding) is not None and encoding is not None
    wanted = "passthrough" if values or unnamed else "rgb8"
    try:
        pixels: NDArray[Any] = bridge.imgmsg_to_cv2(message, wanted)
    except Exception as error:  # CvBridgeError, and what NumPy and Boost raise through it
        found = f"{message.width} x {message.height} pixels '{message.encoding}'"
        raise InvalidInputError(source, found, f"an image that cv_bridge can convert ({error})") from error
    return _picture(pixels, message.encoding if wanted == "passthrough" else "rgb8", modality, options, source, levels)


def image_fields(pixels: NDArray[Any], encoding: str) -> dict[str, Any]:
    """Fields of ``sensor_msgs/Image``, without the header.

    Args:
        pixels: ``[H, W]`` or ``[H, W, C]``, of the type and channels of the encoding.
        encoding: For example ``"rgb8"``.

    Raises:
        InvalidInputError: The pixels do not fit the encoding.
    """
    layout = ENCODINGS[encoding]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.dtype(layout.dtype) or channels != layout.channels:
        expected = f"{np.dtype(layout.dtype)} with {layout.channels} channels for {encoding}"
        raise InvalidInputError("image_fields", f"{pixels.dtype} {list(pixels.shape)}", expected)
    data = flat_bytes(pixels)
    return {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": int(sys.byteorder == "big"),
        "step": data.size // pixels.shape[0],
        "data": data,
    }
