"""iniVation's files: AEDAT 2.0, 3.x and 4.0.

Facts of the formats: iniVation's documentation, "AEDAT file formats", and for the mirrored columns and the polarity of
AEDAT 2.0, which it does not tell, jAER. Of a long recording the end is read, of AEDAT 4.0 after all of it was unpacked.
"""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ElementTree
from collections import deque
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Events
from omnibind_core.modalities.event.headers import (
    LAST,
    TAIL,
    guessed_sensor,
    named_sensor,
    read_header,
    read_tail,
    unwrapped,
    warn_of_cut,
)
from omnibind_core.optional import require

_PACKET = struct.Struct(
    "<hhiiiiii"
)  # kind, source, bytes per event, ..., overflows of the clock, capacity, number, valid
_POLARITY = 1  # kind of a packet
_DESCRIPTION = 1 << 20  # bytes in which the description of the streams ends
_EVENT_SIZE = 8  # bytes
_START = len("#!AER-DAT4.0\r\n")
_HEADER = 1 << 10  # bytes in which the fields of the header stand
_MOST_PACKED = 1 << 26  # bytes of a packet; cameras send some ten thousand
_CHIP = re.compile(r"AEChip: *(?:\w+\.)*(\w+)")


def read(path: Path) -> Events:
    """Reads any of them, told by its first line.

    Raises:
        InvalidInputError: Another format, a camera whose addresses are not known, or nothing in it.
        MissingDependencyError: It is AEDAT 4.0, and the package that reads it is not installed.
    """
    with path.open("rb") as file:
        first = file.read(12)
        if first.startswith(b"#!AER-DAT4"):
            return _read_4(path)
        if not first.startswith((b"#!AER-DAT2", b"#!AER-DAT3")):
            raise InvalidInputError(str(path), "a file without the header of AEDAT", "AEDAT 2.0, 3.x or 4.0")
        file.seek(0)
        header = read_header(file, b"#")
        return _read_2(file, path, header) if first[9:10] == b"2" else _read_3(file, path, header)


def _read_2(file: BinaryIO, path: Path, header: list[str]) -> Events:
    """Address and time, big-endian; the origin is at the bottom, and columns are counted from the right."""
    data, _ = read_tail(file, path, _EVENT_SIZE)
    address, t = data.view(">u4").reshape(-1, 2).T.astype(np.int64)
    chip = _CHIP.search("\n".join(header))
    size = named_sensor(chip[1]) if chip else None
    if size is None and chip and "davis" not in chip[1].lower():
        raise InvalidInputError(str(path), f"AEDAT 2.0 of the chip {chip[1]}", "a DVS128 or a DAVIS")
    if size == (128, 128) or (size is None and not (address >> 16).any()):
        size, is_event = (128, 128), address >> 15 & 1 == 0
        x, y, p = address >> 1 & 0x7F, address >> 8 & 0x7F, ~address & 1
    else:
        is_event = address & 0x80000400 == 0  # no pixel of the frame camera, no acceleration, no trigger
        x, y, p = address >> 12 & 0x3FF, address >> 22 & 0x1FF, address >> 11 & 1
    x, y, p, t = x[is_event], y[is_event], p[is_event], unwrapped(t, 32)[is_event]
    width, height = size or guessed_sensor(x, y, str(path))
    return Events(width - 1 - x, height - 1 - y, t, p, width, height)


def _read_3(file: BinaryIO, path: Path, header: list[str]) -> Events:
    """Packets with a header each; those of other kinds are passed over."""
    parts: deque[NDArray[np.int64]] = deque()
    held, end = 0, path.stat().st_size
    while len(head := file.read(_PACKET.size)) == _PACKET.size:
        kind, _, size, _, overflow, _, number, _ = _PACKET.unpack(head)
        if size <= 0 or number < 0:
            raise InvalidInputError(str(path), f"a packet of {number} events of {size} bytes", "a whole AEDAT 3 file")
        length = min(size * number, end - file.tell())
        if kind != _POLARITY or size != _EVENT_SIZE:
            file.seek(length, 1)
            continue
        if length < size * number:
            length = length // size * size
            warn_of_cut(path, (held + length) // size)
        rows = np.frombuffer(file.read(length), "<u4").reshape(-1, 2).astype(np.int64)
        rows[:, 1] += overflow << 31
        parts.append(rows)
        held += length
        while held - parts[0].size * 4 > TAIL:
            held -= parts.popleft().size * 4
    word, t = np.concatenate(parts).T if parts else np.zeros((2, 0), np.int64)
    valid = word & 1 == 1
    word, t = word[valid], t[valid]
    x, y, p = word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1
    width, height = named_sensor("\n".join(header)) or guessed_sensor(x, y, str(path))
    if header[0].startswith("!AER-DAT3.0"):  # its origin is at the bottom
        y = height - 1 - y
    return Events(x, y, np.maximum.accumulate(t), p, width, height)


def _read_4(path: Path) -> Events:
    aedat = require("aedat", "Reading AEDAT 4")
    with path.open("rb") as file:
        description = re.search(rb"<dv\b.*</dv>", file.read(_DESCRIPTION), re.DOTALL)
    try:  # one that is no XML makes the library end the process
        ElementTree.fromstring(description[0] if description else b"")
    except (ElementTree.ParseError, ValueError) as error:
        raise InvalidInputError(str(path), f"a header that cannot be read ({error})", "AEDAT 4") from error
    _check_packets(path)
    parts: deque[NDArray[np.void]] = deque()
    held = 0
    try:
        decoder = aedat.Decoder(path)
        streams = {key: stream for key, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
        if not streams:
            raise InvalidInputError(str(path), "a recording without events", "AEDAT 4 with events")
        wanted, stream = next(iter(streams.items()))
        for packet in decoder:
            if packet["stream_id"] == wanted and "events" in packet:
                parts.append(packet["events"])
                held += len(parts[-1])
                while held - len(parts[0]) > LAST:
                    held -= len(parts.popleft())
    except BaseException as error:  # a damaged file makes the library panic, which is no Exception
        if isinstance(error, (InvalidInputError, KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        if not parts:
            reason = str(error).partition("\n")[0]
            raise InvalidInputError(str(path), f"a file that cannot be read ({reason})", "AEDAT 4") from error
        warn_of_cut(path, held)
    if not parts:
        raise InvalidInputError(str(path), "no events", "AEDAT 4 with events")
    events = np.concatenate(parts)
    t = np.maximum.accumulate(events["t"].astype(np.int64))
    return Events(events["x"], events["y"], t, events["on"], stream["width"], stream["height"])


def _check_packets(path: Path) -> None:
    """Refuses a file of AEDAT 4 in which a packet is longer than any: the library makes room for what it claims.

    One that ends within a packet, as after a recording that was cut off, is for the library to read so far, and one
    whose header makes no sense to refuse.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER)
        try:
            length, root = struct.unpack_from("<iI", head, _START)
            root += _START + 4
            (vtable,) = struct.unpack_from("<i", head, root)
            (field,) = struct.unpack_from("<H", head, root - vtable + 6)
            (table,) = struct.unpack_from("<q", head, root + field)  # where packets end, -1 if that was not noted
        except struct.error:
            return
        place = _START + 4 + length
        while place < size and place != table and 0 <= length < _MOST_PACKED:
            file.seek(place)
            (length,) = struct.unpack("<4xi", file.read(8).ljust(8, b"\0"))
            place += 8 + length
    if not 0 <= length < _MOST_PACKED:
        found = f"a file that cannot be read (a packet of {length} bytes)"
        raise InvalidInputError(str(path), found, f"AEDAT 4 with packets of up to {_MOST_PACKED}")
