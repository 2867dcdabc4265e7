"""What the modalities that come as pictures share: decoding, checks, fitting to the encoder's size, damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities.base import Corruption, Corruptions, PicturePreset, readable_file

INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # grey stays grey, 16 bit stay 16 bit; EXIF orientation applied
_GREY_WEIGHTS = np.array([[0.299, 0.587, 0.114]], np.float32)  # ITU-R BT.601 luma


def decode_picture(data: NDArray[np.uint8], source: str, flags: int = cv2.IMREAD_COLOR) -> NDArray[Any]:
    """Decodes a compressed picture (JPEG, PNG, BMP, WebP, PPM, TIFF) held in memory.

    Args:
        data: ``uint8 [N]``, the bytes of the file.
        source: Sensor name or file path, for the error message.
        flags: OpenCV's ``IMREAD_*``. The EXIF orientation is applied in any case but ``IMREAD_UNCHANGED``.

    Returns:
        ``[H, W, 3]`` in RGB, or ``[H, W]`` if the flags keep grey pictures grey.

    Raises:
        InvalidInputError: No picture, or a truncated one.
    """
    what = "a complete JPEG, PNG, BMP, WebP, PPM or TIFF picture"
    if data.size == 0:
        raise InvalidInputError(source, "0 bytes", what)
    # Older OpenCV fills the missing rows of a cut JPEG with grey and reports nothing.
    if data[:2].tobytes() == b"\xff\xd8" and not _jpeg_is_complete(data.tobytes()):
        raise InvalidInputError(source, f"a JPEG that ends early ({data.size} bytes)", what)
    try:
        picture = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise InvalidInputError(source, f"{data.size} bytes that cannot be decoded ({error.err})", what) from error
    if picture is None:
        raise InvalidInputError(source, f"{data.size} bytes that cannot be decoded", what)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if picture.ndim == 3 else picture


def _jpeg_is_complete(data: bytes) -> bool:
    """Whether an end-of-image marker follows the first scan of the main picture (an EXIF thumbnail has its own)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # padding before a marker
            at += 1
            continue
        if data[at + 1] == 0xDA:  # start of scan
            return data.find(b"\xff\xd9", at) != -1
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def read_picture(path: Path, suffixes: tuple[str, ...], what: str, flags: int = cv2.IMREAD_COLOR) -> NDArray[Any]:
    """Reads a picture file, or a NumPy array (``.npy``) if the suffixes have it.

    Raises:
        InvalidInputError: Missing, of another ending, truncated or no picture.
    """
    readable_file(path, suffixes, what)
    if path.suffix.lower() == ".npy":
        return read_array(path, what)
    return decode_picture(np.fromfile(path, np.uint8), str(path), flags)


def read_array(path: Path, what: str) -> NDArray[Any]:
    """Reads a ``.npy`` file without running pickled code.

    Raises:
        InvalidInputError: It is not one, truncated, or holds Python objects.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInputError(str(path), f"a file that NumPy cannot read ({error})", what) from error
    if not isinstance(array, np.ndarray):
        raise InvalidInputError(str(path), "an archive of several arrays", what)
    return array


def check_layout(raw: object, source: str, expected: str) -> NDArray[Any]:
    """Checks that an item is a non-empty ``[H, W]`` or ``[H, W, C]`` array of numbers.

    Args:
        raw: The item.
        source: Sensor name or file path, for the error message.
        expected: What is accepted, for the error message.

    Returns:
        The same memory: ``[H, W]`` for one channel, ``[H, W, 3]`` for three or four (alpha is dropped).

    Raises:
        InvalidInputError: Anything else.
    """
    if not isinstance(raw, np.ndarray) or raw.dtype.kind not in "uif":
        found = f"dtype {raw.dtype}" if isinstance(raw, np.ndarray) else type(raw).__name__
        raise InvalidInputError(source, found, expected)
    if raw.size == 0:
        raise InvalidInputError(source, f"an empty picture of shape {list(raw.shape)}", expected)
    if raw.ndim == 2:
        return raw
    if raw.ndim == 3 and raw.shape[2] == 1:
        return raw[:, :, 0]
    if raw.ndim == 3 and raw.shape[2] in (3, 4):
        return raw[:, :, :3]
    raise InvalidInputError(source, f"shape {list(raw.shape)}", expected)


def to_grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance ``uint8 [H, W]`` of ``uint8 [H, W]`` or RGB ``uint8 [H, W, 3]``."""
    if picture.ndim == 2:
        return picture
    grey: NDArray[Any] = cv2.transform(picture, _GREY_WEIGHTS)
    return grey


def fit_picture(picture: NDArray[np.uint8], preset: PicturePreset) -> NDArray[np.uint8]:
    """Brings a picture to the size and layout of a preset.

    Args:
        picture: ``uint8 [H, W]`` or RGB ``uint8 [H, W, 3]``.
        preset: Size, way of fitting and interpolation. Its shape has three channels (grey is repeated) or one (colour
            becomes luminance).

    Returns:
        ``uint8 [1, channels, height, width]``, C-contiguous.
    """
    channels, height, width = preset.shape
    if channels == 1:
        picture = to_grey(picture)
    if preset.fit == "crop":
        # The largest centred square first: the same pixels, and a picture of any aspect ratio stays small.
        scale = preset.resize / min(height, width)
        square = _resize(centre_square(picture), round(scale * height), round(scale * width), preset.interpolation)
        top, left = (square.shape[0] - height) // 2, (square.shape[1] - width) // 2
        fitted = square[top : top + height, left : left + width]
    elif preset.fit == "letterbox":
        scale = min(height / picture.shape[0], width / picture.shape[1])
        rows, columns = max(1, round(scale * picture.shape[0])), max(1, round(scale * picture.shape[1]))
        fitted = np.zeros((height, width, *picture.shape[2:]), np.uint8)
        top, left = (height - rows) // 2, (width - columns) // 2
        fitted[top : top + rows, left : left + columns] = _resize(picture, rows, columns, preset.interpolation)
    elif preset.fit == "stretch":
        fitted = _resize(picture, height, width, preset.interpolation)
    else:
        raise ConfigError(f"preset '{preset.name}': fit is '{preset.fit}', expected crop, letterbox or stretch")
    planes = fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(planes, (channels, height, width)))[None]


def centre_square(picture: NDArray[Any]) -> NDArray[Any]:
    """The largest centred square, as a view."""
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return picture[top : top + side, left : left + side]


def _resize(picture: NDArray[np.uint8], rows: int, columns: int, interpolation: str) -> NDArray[np.uint8]:
    if picture.shape[:2] == (rows, columns):
        return picture
    shrinks = rows <= picture.shape[0] and columns <= picture.shape[1]
    method = cv2.INTER_AREA if shrinks else INTERPOLATIONS[interpolation]
    resized: NDArray[Any] = cv2.resize(picture, (columns, rows), interpolation=method)
    return resized


def random_crop(
    picture: NDArray[Any], rng: np.random.Generator, min_area: float = 0.5, mirror: bool = True
) -> NDArray[Any]:
    """A random part of a picture, mirrored half of the time, at its own resolution.

    Args:
        picture: ``[H, W, ...]``.
        rng: Source of randomness.
        min_area: Smallest share of the area to keep, 0..1.
        mirror: Whether left and right may be swapped.
    """
    height, width = picture.shape[:2]
    side = np.sqrt(rng.uniform(min_area, 1.0))
    stretch = np.sqrt(rng.uniform(0.8, 1.25))
    rows = int(np.clip(round(height * side * stretch), 1, height))
    columns = int(np.clip(round(width * side / stretch), 1, width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    part = picture[top : top + rows, left : left + columns]
    return part[:, ::-1] if mirror and rng.random() < 0.5 else part


# (picture, lowest value, highest value, rng); the values span what the sensor can deliver.
_Damage = Callable[[NDArray[np.float32], float, float, np.random.Generator], NDArray[np.float32]]


def _gaussian(picture: NDArray[np.float32], low: float, high: float, rng: np.random.Generator) -> NDArray[np.float32]:
    return picture + (0.3 * (high - low)) * rng.standard_normal(picture.shape, np.float32)


def _blank(picture: NDArray[np.float32], low: float, high: float, rng: np.random.Generator) -> NDArray[np.float32]:
    return np.full_like(picture, low)


def _saturated(picture: NDArray[np.float32], low: float, high: float, rng: np.random.Generator) -> NDArray[np.float32]:
    return low + (picture - low) * 4.0 + 0.3 * (high - low)


def _blurred(picture: NDArray[np.float32], low: float, high: float, rng: np.random.Generator) -> NDArray[np.float32]:
    blurred: NDArray[Any] = cv2.GaussianBlur(picture, (0, 0), max(0.5, 0.05 * min(picture.shape[:2])))
    return blurred


def _occluded(picture: NDArray[np.float32], low: float, high: float, rng: np.random.Generator) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    rows, columns = -(-height * 7 // 10), -(-width * 7 // 10)  # 0.7 * 0.7: half of the area
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    picture[top : top + rows, left : left + columns] = low
    return picture


_DAMAGE: dict[str, _Damage] = {
    "gaussian": _gaussian,
    "blank": _blank,
    "saturated": _saturated,
    "blurred": _blurred,
    "occluded": _occluded,
}


def picture_corruptions(limits: Callable[[NDArray[Any]], tuple[float, float]]) -> Corruptions[NDArray[Any]]:
    """All that :func:`corrupt_picture` can do, by name.

    Args:
        limits: Gives the lowest and the highest value that the sensor of a picture delivers.
    """

    def corruption(name: str) -> Corruption[NDArray[Any]]:
        return lambda picture, rng: corrupt_picture(picture, name, rng, *limits(picture))

    return {name: corruption(name) for name in _DAMAGE}


def corrupt_picture(
    picture: NDArray[Any], name: str, rng: np.random.Generator, low: float, high: float
) -> NDArray[Any]:
    """Damages a picture; shape and dtype stay.

    Args:
        picture: ``[H, W]`` or ``[H, W, C]``, any numeric dtype.
        name: ``"gaussian"`` noise with a standard deviation of 0.3 of the range, ``"blank"`` (lens covered: all
            ``low``), ``"saturated"`` (over-exposed four times), ``"blurred"`` (standard deviation of 5 % of the short
            side) or ``"occluded"`` (half of the area ``low``).
        rng: Source of randomness.
        low: Lowest value that the sensor delivers.
        high: Highest value.
    """
    damaged = _DAMAGE[name](picture.astype(np.float32), low, high, rng)
    damaged = np.clip(damaged, low, high)
    return (np.rint(damaged) if picture.dtype.kind in "ui" else damaged).astype(picture.dtype)
