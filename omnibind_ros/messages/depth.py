"""Pictures of a depth camera as point clouds, by the ``CameraInfo`` that comes beside them."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_ros.messages.camera_info import CAMERA_INFO, camera_of
from omnibind_ros.messages.fields import DecodeOptions, as_bytes
from omnibind_ros.messages.pictures import COMPRESSED_IMAGE, IMAGE, image_pixels, unpack
from omnibind_ros.messages.registry import decodes

_MILLIMETRES = ("16UC1", "mono16")  # REP 118; drivers without it send mono16
_MOST = 100_000  # pixels that become points: of larger pictures every second or third of a row and column
_HEADER = np.dtype([("kind", "<i4"), ("a", "<f4"), ("b", "<f4")])  # of compressed_depth_image_transport


@decodes(IMAGE, "point_cloud")
def depth_image(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.float32]:
    """``sensor_msgs/Image`` of a depth camera: mm in 16 bits, or m as floats (REP 118).

    Returns:
        ``float32 [N, 3]``, metres: x forward, y left, z up (REP 103), as seen from the camera; what it did not measure
        is left out.

    Raises:
        InvalidInputError: It is no depth picture, or nothing is known of its camera.
    """
    if message.encoding not in (*_MILLIMETRES, "32FC1"):
        expected = f"for a point cloud a depth picture: {', '.join(_MILLIMETRES)} or 32FC1"
        raise InvalidInputError(source, f"encoding '{message.encoding}'", expected)
    options.limits.check("pixels", message.width * message.height, source)
    return _cloud(image_pixels(message, source), options, source)


@decodes(COMPRESSED_IMAGE, "point_cloud")
def compressed_depth(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.float32]:
    """``sensor_msgs/CompressedImage`` of a depth camera: image_transport's compressedDepth, or a 16-bit PNG.

    Floats come as their reciprocals in 16 bits; RVL is not decoded.
    """
    kept, _, coding = message.format.partition(";")
    data = as_bytes(message.data)
    deep = "compressedDepth" in coding
    if "rvl" in coding.lower() or data.size <= _HEADER.itemsize:
        raise InvalidInputError(source, f"{data.size} bytes of format '{message.format}'", "compressedDepth as PNG")
    pixels = unpack((data[_HEADER.itemsize :] if deep else data).tobytes(), options, source)
    if pixels is None or pixels.ndim != 2 or pixels.dtype != np.uint16:
        found = "nothing that OpenCV can decode" if pixels is None else f"{pixels.dtype} of shape {list(pixels.shape)}"
        raise InvalidInputError(source, f"{found} in format '{message.format}'", "depth in 16 bits, as PNG")
    if not deep or "32FC1" not in kept:
        return _cloud(pixels, options, source)
    header = data[: _HEADER.itemsize].view(_HEADER)[0]
    return _cloud(pixels, options, source, (header["a"], header["b"]))


def _cloud(
    depth: NDArray[Any], options: DecodeOptions, source: str, inverse: tuple[np.float32, np.float32] | None = None
) -> NDArray[np.float32]:
    """Points of the pixels; with ``inverse`` these are ``a / metres + b``, and 0 where nothing was measured."""
    if options.intrinsics is None:
        where = options.camera_info or "camera_info beside its topic"
        raise InvalidInputError(
            source, "a depth picture whose camera is not known yet", f"a {CAMERA_INFO} on {where} (camera_info)"
        )
    step = math.ceil(math.sqrt(depth.size / _MOST))
    rays = _rays(*depth.shape, step, *_pinhole(options, depth.shape, source))
    metres = depth[::step, ::step].astype(np.float32).reshape(-1)
    if inverse is not None:
        with np.errstate(all="ignore"):  # what is not finite was not measured
            metres = np.where(metres > 0, inverse[0] / (metres - inverse[1]), np.float32(np.nan))
    elif depth.dtype.kind == "u":
        metres *= np.float32(1e-3)
    measured = np.flatnonzero(np.isfinite(metres) & (metres > 0))
    if not measured.size:
        raise InvalidInputError(source, "a depth picture in which nothing was measured", "distances above 0")
    return rays[measured] * metres[measured, None]


def _pinhole(options: DecodeOptions, shape: tuple[int, ...], source: str) -> tuple[float, float, float, float]:
    """Focal lengths and centre, pixels, as of a rectified picture: the drivers' are, or nearly so."""
    size = shape[1], shape[0]
    camera = camera_of(options.intrinsics, source, size, True, options.camera_info, "depth picture")
    return *camera.focal, *camera.centre


@functools.lru_cache(maxsize=4)
def _rays(height: int, width: int, step: int, fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float32]:
    """Where the points of every ``step``-th pixel are, a metre along the optical axis: ``[N, 3]`` forward, left, up."""
    across = (np.arange(0, width, step, dtype=np.float32) - np.float32(cx)) / np.float32(fx)
    down = (np.arange(0, height, step, dtype=np.float32) - np.float32(cy)) / np.float32(fy)
    rays = np.ones((down.size, across.size, 3), np.float32)
    rays[..., 1] = -across
    rays[..., 2] = -down[:, None]
    return rays.reshape(-1, 3)
