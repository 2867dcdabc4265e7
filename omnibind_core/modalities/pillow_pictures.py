"""Pictures that OpenCV does not read, or not rightly: by Pillow and pillow-heif, which are optional."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.picture_sizes import Claim, check_claim, check_size, size_of
from omnibind_core.optional import require

_log = logging.getLogger(__name__)

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_AVIF = (b"avif", b"avis")
_EIGHT_BIT = ("CMYK", "LA", "RGBA")  # modes of a TIFF that OpenCV does not read, or without its transparency
_BITS = 258  # TIFF's tag
_MOST_PAGES = 100
_MOST_DEPTH = 8  # bytes of a pixel, where the header does not say it
_HEIF = (b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def format_of(start: bytes) -> str:
    """Which of Pillow's formats a file is in, by its first bytes.

    Args:
        start: 64 bytes or more.

    Returns:
        ``GIF``, ``TIFF``, ``JPEG2000``, ``AVIF`` or ``HEIF``; ``""`` for all others.
    """
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start.startswith(_TIFF):
        return "TIFF"
    if start.startswith(_JPEG_2000):
        return "JPEG2000"
    if start[4:8] != b"ftyp":
        return ""
    # Brands: the major one at byte 8, compatible ones to the end of the box. AVIF's has those of HEIF, too.
    brands = start[8 : int.from_bytes(start[:4], "big")]
    if any(brand in brands for brand in _AVIF):
        return "AVIF"
    return "HEIF" if any(brand in brands for brand in _HEIF) else ""


def decode(data: bytes, kind: str, source: str, what: str) -> NDArray[Any] | None:
    """Decodes the first picture of a file, turned upright.

    Args:
        data: The bytes of the file.
        kind: As :func:`format_of` gives it.
        source: File path, for messages.
        what: What is expected, for the error message.

    Returns:
        Grey ``[H, W]``, RGB ``[H, W, 3]`` or RGBA ``[H, W, 4]``, ``uint8``; grey also of 16 bits and more. None for a
        TIFF whose values Pillow would round to 8 bits, or cannot read.

    Raises:
        InvalidInputError: No picture, a truncated or a too large one.
        MissingDependencyError: Pillow or pillow-heif is not installed.
    """
    image, ops = (require(f"PIL.{name}", f"[{source}] A {kind} picture") for name in ("Image", "ImageOps"))
    if kind == "HEIF":
        require("pillow_heif", f"[{source}] A HEIF picture").register_heif_opener()
    check_size(data, source)
    claim = size_of(data) or Claim(0, 0, _MOST_DEPTH, kind)
    try:
        with image.open(io.BytesIO(data), formats=[kind]) as opened:
            width, height = opened.size  # which may not be what the header said to us
            check_claim(claim._replace(width=width, height=height), len(data), source)
            if kind == "TIFF" and max(opened.tag_v2.get(_BITS, (1,))) > 8 and opened.mode not in _EIGHT_BIT:
                return None
            count = _pages(opened) if kind == "TIFF" else getattr(opened, "n_frames", 1)
            ops.exif_transpose(opened, in_place=True)
            pixels = _pixels(opened)
    except image.UnidentifiedImageError as error:
        if kind == "TIFF":
            return None
        raise InvalidInputError(source, f"{len(data)} bytes that are no whole {kind} picture", what) from error
    except InvalidInputError:
        raise
    except Exception as error:  # each of Pillow's formats has its own ways to fail
        reason = " ".join(str(error).split())
        raise InvalidInputError(source, f"a {kind} picture that cannot be decoded ({reason})", what) from error
    if count > 1:
        least = "at least " if count == _MOST_PAGES else ""
        _log.info("[%s] the first of %s%d pictures in the file is used", source, least, count)
    return pixels


def _pages(opened: Any) -> int:
    """Pictures in a TIFF, of which Pillow would read all headers: up to as many as are counted."""
    count = 1
    try:
        while count < _MOST_PAGES:
            opened.seek(count)
            count += 1
    except EOFError:
        pass
    opened.seek(0)
    return count


def _pixels(opened: Any) -> NDArray[Any]:
    if opened.has_transparency_data:
        return np.asarray(opened.convert("RGBA"))
    if opened.mode in ("1", "L"):
        return np.asarray(opened.convert("L"))
    if opened.mode[0] in "IF":  # 16 or 32 bits
        return np.asarray(opened)
    return np.asarray(opened if opened.mode == "RGB" else opened.convert("RGB"))
