"""What the modalities that come as pictures share: decoding, checks, fitting to the encoder's size, damage."""

from __future__ import annotations

import logging
import re
import struct
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities import pillow_pictures
from omnibind_core.modalities.archives import check_array
from omnibind_core.modalities.base import Corruption, Corruptions, Modality, PicturePreset, PresetT, readable_file
from omnibind_core.modalities.picture_sizes import check_size, is_cut_jpeg

_log = logging.getLogger(__name__)

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".gif", ".avif",
    ".heic", ".heif", ".hif", ".jp2", ".j2k",
)  # fmt: skip
"""Endings of picture files. What is in a file, its first bytes say."""
NEEDS = {
    **dict.fromkeys((".gif", ".avif", ".jp2", ".j2k"), "PIL"),
    **dict.fromkeys((".heic", ".heif", ".hif"), "pillow_heif"),
}
"""Of those, what takes a package more than OpenCV."""
INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # grey stays grey, 16 bit stay 16 bit; EXIF orientation applied
_ANIMATED = tuple(bytes([flags]) for flags in range(64) if flags & 2)  # flags of a WebP
# OpenCV 4.6, which ROS 2 Jazzy's distribution has, names it in another place.
_SET_LOG_LEVEL: Callable[[int], int] = getattr(getattr(cv2.utils, "logging", cv2), "setLogLevel")  # noqa: B009
_SILENT = 0
_ROWS = 64  # of a picture that are put on white at once, in little memory
_GREY_WEIGHTS = np.array([[0.299, 0.587, 0.114]], np.float32)  # ITU-R BT.601 luma


class Measuring(Modality[NDArray[Any], PresetT]):
    """A modality whose pictures hold measured values, which may be in another unit than that of the raw form."""

    @abstractmethod
    def read(self, path: Path) -> NDArray[Any]:
        """Reads one file, without checks of its values.

        Raises:
            InvalidInputError: The file is missing, of another format, or truncated.
        """

    def load(self, path: Path) -> NDArray[Any]:
        """Reads one file of values in the unit of the raw form and checks them."""
        return self.check(self.read(path), str(path))

    def load_scaled(self, path: Path, scale: float, offset: float = 0.0) -> NDArray[Any]:
        """Reads one file of values in another unit and checks them.

        Args:
            path: The file.
            scale: Value * scale + offset is in °C, or on 0..255 where that is the sensor's full scale (touch); as the
                node's parameters of these names.
            offset: See there.

        Raises:
            InvalidInputError: The file cannot be read, or has more than one value a pixel.
        """
        return self.convert(self.read(path), str(path), scale=scale, offset=offset)


def parse_scale(text: str) -> tuple[float, float]:
    """Scale and offset for :meth:`Measuring.load_scaled` from ``0.01,-273.15``, or from a scale alone.

    Raises:
        ValueError: It is neither one number nor two, or the scale is 0; says what was expected.
    """
    try:
        scale, offset = [*map(float, text.replace(",", " ").split()), 0.0][:2]
        number = len(text.replace(",", " ").split())
    except ValueError:
        number = 0
    if number not in (1, 2) or not np.isfinite((scale, offset)).all() or not scale:
        raise ValueError(f"'{text}', expected a number, or two with a comma between: scale and offset")
    return scale, offset


def decode_picture(data: NDArray[np.uint8], source: str, flags: int = cv2.IMREAD_COLOR) -> NDArray[Any]:
    """Decodes a compressed picture held in memory: the first one, where there are several.

    JPEG, PNG, BMP, WebP, PPM and TIFF of measured values are OpenCV's; GIF, AVIF, HEIF, JPEG 2000 and TIFF photos take
    Pillow. Colour (``IMREAD_COLOR``) stands on white where the picture is transparent; otherwise transparency is no
    part of what was measured, and is dropped.

    Args:
        data: The bytes of the file.
        source: Sensor name or file path, for the error message.
        flags: OpenCV's ``IMREAD_*``. The EXIF orientation is applied in any case but ``IMREAD_UNCHANGED``.

    Returns:
        ``[H, W, 3]`` in RGB, or ``[H, W]`` if the flags keep grey pictures grey.

    Raises:
        InvalidInputError: No picture, a truncated one, or one that is larger than
            :func:`omnibind_core.modalities.picture_sizes.check_size` allows.
        MissingDependencyError: Pillow or pillow-heif is needed and not installed.
    """
    what = "a complete JPEG, PNG, BMP, WebP, PPM, TIFF, GIF, AVIF, HEIF or JPEG 2000 picture"
    if data.size == 0:
        raise InvalidInputError(source, "0 bytes", what)
    content = data.tobytes()
    if is_cut_jpeg(content):
        raise InvalidInputError(source, f"a JPEG that ends early ({data.size} bytes)", what)
    colour = flags != cv2.IMREAD_UNCHANGED and bool(flags & cv2.IMREAD_COLOR)
    picture = None
    start = content[:64]
    kind = pillow_pictures.format_of(start)
    if kind and (colour or kind != "TIFF"):
        picture = pillow_pictures.decode(content, kind, source, what)
        if picture is None:  # of more bits than 8, which OpenCV refuses as colour
            picture = _by_opencv(content, source, AS_STORED, what)
    elif _is_animated(start):
        _log.info("[%s] the first of several pictures in the file is used", source)
    if picture is None and not kind and colour and _may_be_transparent(content):
        stored = _by_opencv(content, source, cv2.IMREAD_UNCHANGED, what)
        if stored.ndim == 3 and stored.shape[2] == 4:
            picture = upright(stored, exif_orientation(content))
    if picture is None:
        picture = _by_opencv(content, source, flags, what)
    if not colour:
        drops = picture.ndim == 3 and flags != cv2.IMREAD_UNCHANGED
        return np.ascontiguousarray(picture[:, :, :3]) if drops else picture
    if picture.dtype == np.uint16 and not flags & cv2.IMREAD_ANYDEPTH:
        picture = (picture >> 8).astype(np.uint8)
    if picture.ndim == 2:
        return cv2.merge([picture] * 3)
    return on_white(picture) if picture.shape[2] == 4 else picture


def _by_opencv(data: bytes, source: str, flags: int, what: str) -> NDArray[Any]:
    """``[H, W]``, RGB or RGBA."""
    picture = decode_bounded(data, source, flags)
    if picture is None:
        raise InvalidInputError(source, f"{len(data)} bytes that cannot be decoded", what)
    if picture.ndim == 2:
        return picture
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB if picture.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def decode_bounded(data: bytes, source: str, flags: int) -> NDArray[Any] | None:
    """Decodes a picture by OpenCV if its header says that it is not too large.

    Args:
        data: The bytes of the file.
        source: Sensor name or file path, for the error message.
        flags: OpenCV's ``IMREAD_*``.

    Returns:
        ``[H, W]`` or ``[H, W, C]``, blue first; None if it cannot be decoded.

    Raises:
        InvalidInputError: It is larger than :func:`omnibind_core.modalities.picture_sizes.check_size` allows.
    """
    if not check_size(data, source):
        return None
    level = _SET_LOG_LEVEL(_SILENT)  # our error says it, in one sentence
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    finally:
        _SET_LOG_LEVEL(level)


def _is_animated(start: bytes) -> bool:
    """Whether the header of a PNG or a WebP says so."""
    return (start[:4] == b"\x89PNG" and b"acTL" in start) or (start[12:16] == b"VP8X" and start[20:21] in _ANIMATED)


def _may_be_transparent(data: bytes) -> bool:
    """Whether the header of a PNG, WebP or BMP leaves room for transparency; JPEG and PPM have none."""
    start = data[:64]
    if start[:2] == b"BM":
        return start[28:30] == b"\x20\0"  # bits of a pixel
    if start[:4] == b"\x89PNG":
        return start[25:26] in (b"\x04", b"\x06") or b"tRNS" in data.partition(b"IDAT")[0]
    return start[8:12] == b"WEBP" and start[12:16] in (b"VP8L", b"VP8X")


def on_white(picture: NDArray[Any]) -> NDArray[Any]:
    """``uint8`` or ``uint16`` RGBA ``[H, W, 4]`` as RGB ``[H, W, 3]`` on a white ground."""
    white = int(np.iinfo(picture.dtype).max)
    found = np.ascontiguousarray(picture[:, :, :3])
    if (picture[:, :, 3] == white).all():
        return found
    wide = np.uint16 if picture.dtype == np.uint8 else np.uint32  # which hold the square of white, and half of it more
    for top in range(0, len(found), _ROWS):  # the whole of a large picture would take gigabytes
        strip: NDArray[Any] = picture[top : top + _ROWS].astype(wide)
        alpha = strip[:, :, 3:]
        if not alpha.any():
            found[top : top + _ROWS] = white
            continue
        found[top : top + _ROWS] = (strip[:, :, :3] * alpha + white * (white - alpha) + white // 2) // white
    return found


def exif_orientation(data: bytes) -> int:
    """How a JPEG, PNG or WebP is to be turned, by its EXIF: 1 (not at all) to 8."""
    found = re.search(rb"(?:Exif\0\0|eXIf|EXIF.{4})(?=II\*\0|MM\0\*)", data, re.DOTALL)
    if found is None:
        return 1
    exif = memoryview(data)[found.end() :]
    order = "<" if exif[0] == ord("I") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        entries = [struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry) for entry in range(count)]
    except struct.error:
        return 1
    return next((value for tag, _, _, value in entries if tag == 0x0112), 1)


def upright(picture: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns a picture by its EXIF orientation; one that is none changes nothing."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(picture[::rows, ::columns])


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
    check_array(path, what)
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # almost anything is raised for damaged bytes
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
