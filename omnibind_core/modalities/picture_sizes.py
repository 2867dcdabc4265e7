"""How large a picture will be, by its header: a file of a few bytes can claim gigabytes of pixels."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from omnibind_core.errors import InvalidInputError

MOST_PIXELS = 1 << 26
"""Of a compressed picture, 8192 x 8192: more than cameras of robots have, and decoded in about a second."""
MOST_SCANNED = 1 << 29
"""Pixels of a progressive JPEG times its scans, each of which goes over all of them: 8 scans of the largest picture."""

MOST_PACKED = 1 << 24
"""Pixels of a picture whose file may be of any size. Of a larger one, other than JPEG,"""
DENSEST = 16
"""pixels for each byte of its file: a few bytes of a plain colour would take seconds and a gigabyte."""

Size = tuple[int, int]  # width, height
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # those that begin a segment, and the picture's start and end
_JPEG_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers SOF0 to SOF15
_TIFF_SIDES = ((256, 322), (257, 323))  # tags of the picture's and the tiles' width and height
_TIFF_VALUES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
_PNM = re.compile(rb"P[1-6]\s(?:\s|#[^\n]*\n)*(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_PAM = re.compile(rb"P7\s.{0,256}?WIDTH\s+(\d{1,9})\s.{0,256}?HEIGHT\s+(\d{1,9})\s", re.DOTALL)


def check_size(data: bytes, source: str, most: int = MOST_PIXELS) -> bool:
    """Checks what the header of a picture claims, before anything is allocated for it.

    Args:
        data: The bytes of the file.
        source: Sensor name or file path, for the error message.
        most: Pixels that it may have.

    Returns:
        Whether the header could be read. Nothing else should decode a picture of which this is not known.

    Raises:
        InvalidInputError: More than that, than :data:`MOST_SCANNED`, or than :data:`DENSEST` says.
    """
    found = size_of(data)
    if found is None:
        return False
    check_pixels(*found, source, most)
    if data[:2] != b"\xff\xd8" and found[0] * found[1] > max(MOST_PACKED, DENSEST * len(data)):
        value = f"a picture of {found[0]} x {found[1]} pixels in {len(data)} bytes"
        raise InvalidInputError(source, value, f"at most {MOST_PACKED} pixels, or {DENSEST} in a byte")
    scans = sum(marker == 0xDA for marker, _ in _segments(data)) if data[:2] == b"\xff\xd8" else 1
    if found[0] * found[1] * scans > MOST_SCANNED:
        value = f"a JPEG of {found[0]} x {found[1]} pixels in {scans} scans"
        raise InvalidInputError(source, value, f"at most {MOST_SCANNED} pixels in all its scans")
    return True


def check_pixels(width: int, height: int, source: str, most: int = MOST_PIXELS) -> None:
    """Refuses a picture of more pixels.

    Raises:
        InvalidInputError: It is larger.
    """
    if width * height > most:
        raise InvalidInputError(source, f"a picture of {width} x {height} pixels", f"at most {most} pixels")


def size_of(data: bytes) -> Size | None:
    """Width and height that a picture claims, if it is of a kind that can be decoded."""
    for begins, read in _READERS:
        if data.startswith(begins):
            try:
                return read(data)
            except struct.error:
                return None
    return _boxes(data) if data[4:8] == b"ftyp" else None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment of a JPEG's first picture, without those in what is embedded in it."""
    at = 2
    while found := _MARKER.search(data, at):
        at = found.start()
        if data[at + 1] == 0xD9:  # end of the picture
            return
        yield data[at + 1], at
        at += 2 if data[at + 1] == 0xD8 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _jpeg(data: bytes) -> Size | None:
    at = next((at for marker, at in _segments(data) if marker in _JPEG_FRAME), None)
    if at is None:
        return None
    height, width = struct.unpack_from(">HH", data, at + 5)
    return width, height


def _png(data: bytes) -> Size | None:
    at = 8
    while data[at + 4 : at + 8] not in (b"IEND", b""):  # the decoder makes room for what a chunk claims to hold
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    if at > len(data):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> Size:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> Size | None:
    if data[8:12] != b"WEBP":
        return None
    if data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return width, height
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff(data: bytes) -> Size | None:
    order = "<" if data[:1] == b"I" else ">"
    big = 43 in data[2:4]
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    first, length, value = (start + 8, 20, 12) if big else (start + 2, 12, 8)
    tags: dict[int, int] = {}
    for at in range(first, min(first + count * length, len(data)), length):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if kind in _TIFF_VALUES:
            (number,) = struct.unpack_from(f"{order}{_TIFF_VALUES[kind]}", data, at + value)
            tags[tag] = max(number, tags.get(tag, 0))
    width, height = (max(tags.get(tag, 0) for tag in side) for side in _TIFF_SIDES)
    return (width, height) if width and height else None


def _pnm(data: bytes) -> Size | None:
    found = _PNM.match(data[:4096]) or _PAM.match(data[:4096])
    return (int(found[1]), int(found[2])) if found else None


def _jpeg_2000(data: bytes) -> Size | None:
    at = data.find(b"\xff\x4f\xff\x51")  # the code stream, whatever the boxes around it say
    if at == -1:
        return None
    width, height, left, top = struct.unpack_from(">IIII", data, at + 8)
    return width - left, height - top


def _boxes(data: bytes) -> Size | None:
    """The largest of the sizes in an AVIF or HEIF: of the picture, its tiles and its preview."""
    sizes: list[Size] = []
    at = -1
    while (at := data.find(b"ispe", at + 1)) != -1 and at + 16 <= len(data):
        width, height = struct.unpack_from(">II", data, at + 8)
        sizes.append((width, height))
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


_READERS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes], Size | None]], ...] = (
    (b"\xff\xd8", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    ((b"GIF87a", b"GIF89a"), _gif),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    (tuple(b"P%d" % kind for kind in range(1, 8)), _pnm),
    ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), _jpeg_2000),
)
