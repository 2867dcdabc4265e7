"""How large a picture will be, by its header: a file of a few bytes can claim gigabytes of pixels."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

from omnibind_core.errors import InvalidInputError

MOST_PIXELS = 1 << 26
"""Of a compressed picture, 8192 x 8192: more than cameras of robots have."""
MOST_BYTES = 6 * MOST_PIXELS
"""Of its pixels when decoded: the largest picture in three colours of 16 bits."""
FREE_BYTES = 144 << 20
"""Of the pixels that any picture may hold, however few bytes it comes in: 50 million of three colours of 8 bits.
Of JPEG 2000 half of it: 25 million are decoded in 1.3 s."""
MOST_RATIO = 80
"""Bytes of pixels for each compressed byte, beyond :data:`FREE_BYTES`: 1 MB is decoded in about a second. Of AVIF and
HEIF a third, of JPEG 2000 a fifth: as they take as many times as long."""
MOST_SCANNED = 10 * MOST_PIXELS
"""Pixels of a progressive JPEG times its scans, each of which goes over all of them: usual encoders write 10."""
MOST_SEGMENTS = 4096
"""Of a JPEG, and entries of a TIFF: real ones have some hundreds."""
MOST_CHUNKS = 1 << 16
"""Of a PNG, and boxes of an AVIF, HEIF or JPEG 2000: real ones have some thousands."""

_SLOWNESS = {"AVIF": 3, "HEIF": 3, "JPEG2000": 5}  # how often the time of other kinds decoding takes
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # those that begin a segment, and the picture's start and end
_JPEG_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers SOF0 to SOF15
_SEQUENTIAL = (0xC0, 0xC1)  # of these, those whose one scan may hold all
_PNG_CHANNELS = {4: 4, 6: 4}  # by kind of colour, where they are not three
_TIFF_SIDES = ((256, 322), (257, 323))  # tags of the picture's and the tiles' width and height
_TIFF_BITS, _TIFF_CHANNELS = 258, 277
_TIFF_VALUES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
_GAP = rb"(?:\s|#[^\n]*\n)"
_PNM = re.compile(rb"P[1-6]\s%b*(\d{1,9})%b+(\d{1,9})\s(?:%b*(\d{1,9})\s)?" % (_GAP, _GAP, _GAP))
_PAM = re.compile(rb"^\s*(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d{1,9})\s", re.MULTILINE)
_NESTED = (b"meta", b"iprp", b"ipco")  # boxes in which those with the sizes of an AVIF or HEIF lie


class Claim(NamedTuple):
    """What the header of a picture claims.

    Attributes:
        width: Pixels.
        height: Pixels.
        depth: Bytes of a pixel when decoded; grey becomes three colours.
        kind: Name of the format.
    """

    width: int
    height: int
    depth: int
    kind: str

    @property
    def pixels(self) -> int:
        """Of all rows."""
        return self.width * self.height


def check_size(data: bytes, source: str) -> bool:
    """Checks what the header of a picture claims, before anything is allocated for it.

    Args:
        data: The bytes of the file.
        source: Sensor name or file path, for the error message.

    Returns:
        Whether the header could be read. Nothing else should decode a picture of which this is not known.

    Raises:
        InvalidInputError: More than :data:`MOST_PIXELS`, :data:`MOST_BYTES` or :data:`MOST_SCANNED`; more than
            :data:`FREE_BYTES` in so few bytes.
    """
    claim = size_of(data)
    if claim is None:
        return False
    check_claim(claim, len(data), source)
    try:
        scans = _scans(data)
    except OverflowError:
        return False
    if claim.pixels * scans > MOST_SCANNED:
        value = f"a JPEG of {claim.width} x {claim.height} pixels in {scans} scans"
        raise InvalidInputError(source, value, f"at most {MOST_SCANNED} pixels in all its scans")
    return True


def check_claim(claim: Claim, size: int, source: str) -> None:
    """Refuses a picture that claims too much.

    Args:
        claim: What it claims.
        size: Bytes that it came in.
        source: Sensor name or file path, for the error message.

    Raises:
        InvalidInputError: It does.
    """
    found = f"a {claim.kind} picture of {claim.width} x {claim.height} pixels"
    if claim.pixels > MOST_PIXELS:
        raise InvalidInputError(source, found, f"at most {MOST_PIXELS} pixels")
    held = claim.pixels * claim.depth
    if held > MOST_BYTES:
        raise InvalidInputError(source, f"{found} of {claim.depth} bytes", f"at most {MOST_BYTES} bytes")
    free = FREE_BYTES // 2 if claim.kind == "JPEG2000" else FREE_BYTES
    most = free + MOST_RATIO * size // _SLOWNESS.get(claim.kind, 1)
    if held > most:
        expected = f"at most {most} bytes in a {claim.kind} picture of so few"
        raise InvalidInputError(source, f"{found}, {held} bytes in {size}", expected)


def size_of(data: bytes) -> Claim | None:
    """What a picture claims, if it is of a kind that can be decoded."""
    for begins, kind, read in _READERS:
        if data.startswith(begins) if begins else data[4:8] == b"ftyp":
            try:
                found = read(data)
            except (struct.error, OverflowError):  # the latter for too many parts, and places beyond any memory
                return None
            return Claim(*found, kind) if found else None
    return None


def is_cut_jpeg(data: bytes) -> bool:
    """Whether a picture is a JPEG without its end, as far as it is one that :func:`check_size` does not refuse.

    Older OpenCV fills the missing rows of one with grey and reports nothing, so it is to be asked before.
    """
    if data[:2] != b"\xff\xd8":
        return False
    try:
        scan = next((at for marker, at in _segments(data) if marker == 0xDA), None)  # a thumbnail has its own end
    except OverflowError:
        return False
    return scan is None or data.rfind(b"\xff\xd9") < scan


_PartT = TypeVar("_PartT")


def _bounded(parts: Iterator[_PartT], most: int) -> Iterator[_PartT]:
    """The parts of a picture, each of which may be a few bytes long.

    Raises:
        OverflowError: There are more.
    """
    yield from islice(parts, most)
    if next(parts, None) is not None:
        raise OverflowError


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment of a JPEG's first picture, without those in what is embedded in it.

    Raises:
        OverflowError: There are more than :data:`MOST_SEGMENTS`.
    """
    return _bounded(_all_segments(data), MOST_SEGMENTS)


def _all_segments(data: bytes) -> Iterator[tuple[int, int]]:
    at = 2
    while found := _MARKER.search(data, at):
        at = found.start()
        if data[at + 1] == 0xD9:  # end of the picture
            return
        yield data[at + 1], at
        at += 2 if data[at + 1] == 0xD8 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _scans(data: bytes) -> int:
    """Times that decoding a picture goes over all pixels: of a JPEG's scans, if one alone does not hold all."""
    if data[:2] != b"\xff\xd8":
        return 1
    scans, frame = 0, b""
    for marker, at in _segments(data):
        if marker in _JPEG_FRAME:
            frame = data[at : at + 10]
        scans += marker == 0xDA
        if marker == 0xDA and frame and frame[1] in _SEQUENTIAL and data[at + 4 : at + 5] == frame[9:]:
            return 1
    return scans


_Found = tuple[int, int, int]  # width, height, bytes of a pixel


def _jpeg(data: bytes) -> _Found | None:
    at = next((at for marker, at in _segments(data) if marker in _JPEG_FRAME), None)
    if at is None:
        return None
    height, width, channels = struct.unpack_from(">HHB", data, at + 5)
    return width, height, max(channels, 3)


def _png(data: bytes) -> _Found | None:
    at, chunks = 8, 0
    while data[at + 4 : at + 8] not in (b"IEND", b""):  # the decoder makes room for what a chunk claims to hold
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        chunks += 1
        if at > len(data) or chunks > MOST_CHUNKS:
            return None
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    transparent = data.find(b"tRNS", 33, max(data.find(b"IDAT", 33), 33)) != -1
    return width, height, (4 if transparent else _PNG_CHANNELS.get(colour, 3)) * (2 if bits == 16 else 1)


def _gif(data: bytes) -> _Found:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height, 4


def _bmp(data: bytes) -> _Found:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height, 3
    width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    return abs(width), abs(height), 4 if bits == 32 else 3


def _webp(data: bytes) -> _Found | None:
    if data[8:12] != b"WEBP":
        return None
    if data[12:16] == b"VP8X":
        (flags,) = struct.unpack_from("<B", data, 20)
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return width, height, 4 if flags & 0x10 else 3
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 4 if bits & 1 << 28 else 3
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF, 3


def _tiff(data: bytes) -> _Found | None:
    order = "<" if data[:1] == b"I" else ">"
    big = 43 in data[2:4]
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    if count > MOST_SEGMENTS:
        return None
    first, length, value = (start + 8, 20, 12) if big else (start + 2, 12, 8)
    tags: dict[int, int] = {}
    for at in range(first, min(first + count * length, len(data)), length):
        tag, kind, values = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, at)
        if kind in _TIFF_VALUES:
            place = at + value
            if tag == _TIFF_BITS and values * struct.calcsize(_TIFF_VALUES[kind]) > length - value:
                (place,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, place)  # one of each channel
            (number,) = struct.unpack_from(f"{order}{_TIFF_VALUES[kind]}", data, place)
            tags[tag] = max(number, tags.get(tag, 0))
    width, height = (max(tags.get(tag, 0) for tag in side) for side in _TIFF_SIDES)
    depth = max(tags.get(_TIFF_CHANNELS, 1), 3) * max(-(-tags.get(_TIFF_BITS, 1) // 8), 1)
    return (width, height, depth) if width and height else None


def _pnm(data: bytes) -> _Found | None:
    start = data[:4096]
    if start[1:2] == b"7":
        told: dict[bytes, int] = {}
        for name, number in _PAM.findall(start.partition(b"ENDHDR")[0]):
            told[name] = max(int(number), told.get(name, 0))
        if b"WIDTH" not in told or b"HEIGHT" not in told:
            return None
        width, height, channels = told[b"WIDTH"], told[b"HEIGHT"], told.get(b"DEPTH", 1)
        most = told.get(b"MAXVAL", 255)
    elif found := _PNM.match(start):
        width, height, channels, most = int(found[1]), int(found[2]), 3, int(found[3] or 0)
    else:
        return None
    return width, height, max(channels, 3) * (2 if most > 255 else 1)


def _jpeg_2000(data: bytes) -> _Found | None:
    """What the code stream says, whatever the boxes around it do."""
    places = (start for name, start, _ in _boxes_of(data) if name == b"jp2c")
    at = 0 if data[:1] == b"\xff" else next(places, None)
    if at is None or data[at : at + 4] != b"\xff\x4f\xff\x51":
        return None
    width, height, left, top = struct.unpack_from(">IIII", data, at + 8)
    channels, bits = struct.unpack_from(">HB", data, at + 40)
    return width - left, height - top, max(channels, 3) * (1 if bits & 0x7F < 8 else 2)


def _avif(data: bytes) -> _Found | None:
    """The largest of the sizes in an AVIF or HEIF: of the picture, its tiles and its preview."""
    sizes = [
        struct.unpack_from(">II", data, start + 4) for name, start, _ in _boxes_of(data, _NESTED) if name == b"ispe"
    ]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    return (width, height, 3) if sizes else None


def _boxes_of(data: bytes, nested: tuple[bytes, ...] = ()) -> Iterator[tuple[bytes, int, int]]:
    """See :func:`_boxes`.

    Raises:
        OverflowError: There are more than :data:`MOST_CHUNKS`.
    """
    return _bounded(_boxes(data, 0, len(data), nested), MOST_CHUNKS)


def _boxes(data: bytes, at: int, end: int, nested: tuple[bytes, ...]) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of what each box of a JPEG 2000, AVIF or HEIF holds; also in ``nested``, one in the other."""
    while at + 8 <= end:
        size, name, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:  # it follows in 64 bits
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        stop = min(at + size, end) if size else end
        if stop < start:
            return
        yield name, start, stop
        if name in nested[:1]:
            yield from _boxes(data, start + (4 if name == b"meta" else 0), stop, nested[1:])
        at = stop


_READERS: tuple[tuple[tuple[bytes, ...], str, Callable[[bytes], _Found | None]], ...] = (
    ((b"\xff\xd8",), "JPEG", _jpeg),
    ((b"\x89PNG\r\n\x1a\n",), "PNG", _png),
    ((b"GIF87a", b"GIF89a"), "GIF", _gif),
    ((b"BM",), "BMP", _bmp),
    ((b"RIFF",), "WebP", _webp),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF", _tiff),
    (tuple(b"P%d" % kind for kind in range(1, 8)), "PNM", _pnm),
    ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "JPEG2000", _jpeg_2000),
    ((), "HEIF", _avif),  # whose name follows their first box's size
)
