"""Changes to an input: of bytes, of numbers in a text, and of what a format is made of, so that it is still read.

The same generator state makes the same change.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import PurePath
from random import Random
from typing import Any

MOST = 1_000_000
"""Bytes of an input."""
NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 16, 32, 64, 100, 127, 128, 255, 256, 1000, 1024, 4096, 8192, 16384, 30000, 32767, 32768, 65535,
    65536, 100_000, 767_999, 1 << 20, 1 << 24, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40,
    1 << 62,
    (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
"""Integers that claim much, or that other widths do not hold."""
_WORDS = (
    b"nan", b"inf", b"-inf", b"-1", b"1e38", b"1e308", b"1e400", b"-0", b"0x10", b"", b"1_0", b"\xd9\xa3", b"null",
    b"true",
    b"''", b"[]", b"{}", b"9" * 5000, b"3000000", b"2001-99-99", b"\0", b"\xff", b"..", b".", b"/etc/passwd", b"$",
    b"=1+1",
    b"&a", b"*a", b"!!int ''", b"!!binary x", b"\xe2\x80\xae", b"0", b"-9223372036854775808", b"18446744073709551615",
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_TEXT = frozenset((".json", ".yaml", ".csv", ".txt", ".xyz", ".pts", ".ptx", ".off", ".obj", ".msg", ".gltf", ".urdf"))

Change = Callable[[bytes, Random, Sequence[bytes]], bytes]
"""``(input, generator, other inputs of the target) -> input``."""


def changed(data: bytes, name: str, rng: Random, others: Sequence[bytes]) -> bytes:
    """One to some changes, more often of what the format is made of than of single bytes.

    Args:
        data: The input.
        name: File name; its ending says what the format is.
        rng: Source of randomness.
        others: Inputs to take parts from.
    """
    suffix = PurePath(name).suffix.lower()
    formed = FORMS.get(suffix)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        if formed is not None and rng.random() < 0.6:
            try:
                data = formed(data, rng, others)
            except Exception:  # after changes before, it may be of that format no longer
                data = _bytes(data, rng, others)
        elif suffix in _TEXT and rng.random() < 0.8:
            data = text(data, rng, others)
        else:
            data = _bytes(data, rng, others)
    return data[:MOST]


def _place(size: int, rng: Random) -> int:
    """Somewhere, at the beginning half of the time: headers stand there."""
    return rng.randrange(min(size, 128) if rng.random() < 0.5 else size) if size else 0


def _bytes(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """A change that knows of no format."""
    changing = bytearray(data)
    at = _place(len(data), rng)
    length = 1 << rng.randrange(11)
    kind = rng.randrange(9)
    if kind == 0 and data:
        changing[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and data:
        changing[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind in (2, 3):
        width = rng.choice((2, 4, 4, 8))
        number = rng.choice(NUMBERS) & ((1 << 8 * width) - 1)
        changing[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
    elif kind == 4:
        del changing[at : None if rng.random() < 0.5 else at + length]
    elif kind == 5:
        changing[at:at] = changing[at : at + length] * rng.choice((1, 1, 2, 10, 1000))
        del changing[MOST:]
    elif kind == 6:
        changing[at : at + length] = rng.randbytes(length) if rng.random() < 0.5 else bytes(length)
    elif kind == 7 and others:
        other = rng.choice(others)
        begin = _place(len(other), rng)
        changing[at : at + rng.choice((0, length))] = other[begin : begin + length]
    else:
        return text(data, rng, others)
    return bytes(changing)


def text(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """A change of a number, a cell or a line."""
    kind = rng.randrange(5)
    numbers = list(_NUMBER.finditer(data[:20_000]))
    if kind < 2 and numbers:
        found = rng.choice(numbers)
        word = rng.choice(_WORDS) if rng.random() < 0.5 else str(rng.choice(NUMBERS)).encode()
        return data[: found.start()] + word + data[found.end() :]
    if kind == 2:
        cells = re.split(rb"([,;:\s]+)", data)
        at = rng.randrange(len(cells))
        cells[at] = rng.choice((*_WORDS, rng.choice(cells), cells[at][:1000] * rng.choice((2, 1000))))
        return b"".join(cells)
    lines = data.splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    if kind == 3:
        line = rng.choice(lines)
        lines[at:at] = [line] * min(rng.choice((1, 2, 100, 8000)), MOST // (len(line) or 1))
    else:
        del lines[at : at + rng.choice((1, 1, 3))]
    return b"".join(lines)[:MOST]


def json_(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Another value somewhere in JSON."""
    return json.dumps(value(json.loads(data), rng)).encode()


def value(found: Any, rng: Random) -> Any:
    """What JSON or YAML holds, with another value somewhere."""
    if isinstance(found, dict) and found and rng.random() < 0.85:
        key = rng.choice(list(found))
        changing = dict(found)
        kind = rng.randrange(8)
        if kind == 0:
            del changing[key]
        elif kind == 1:
            changing[rng.choice(("", "a", key + "x"))] = changing[key]
        else:
            changing[key] = value(changing[key], rng)
        return changing
    if isinstance(found, list) and found and rng.random() < 0.85:
        at = rng.randrange(len(found))
        kind = rng.randrange(6)
        if kind == 0:
            return found[:at]
        if kind == 1:
            return found + [found[at]] * rng.choice((1, 1000))
        return [*found[:at], value(found[at], rng), *found[at + 1 :]]
    return rng.choice((
        None, True, "", "a", "\0", "nan", [], {}, [[]], {"a": 1}, -1, 0.5, 1e308, float("nan"), float("inf"), 10**30,
        rng.choice(NUMBERS), [1, 2, 3], "a" * 10_000, found, str(found), [found],
    ))  # fmt: skip


def npy(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Another shape or type in the header of an array, whose length is then right."""
    if data[:6] != b"\x93NUMPY" or data[6] != 1:
        raise ValueError("no array")
    (length,) = struct.unpack_from("<H", data, 8)
    header = data[10 : 10 + length].rstrip()
    kind = rng.randrange(4)
    if kind == 0:
        types = (
            b"<f8",
            b">f4",
            b"<i8",
            b"|u1",
            b"|O",
            b"<U9",
            b"<c16",
            b"|b1",
            b"<m8[s]",
            b"|V0",
            b"<f2",
            b"|S0",
            b"<u8",
        )
        header = re.sub(rb"'descr': ('[^']*'|\[.*?\])", b"'descr': '" + rng.choice(types) + b"'", header)
    elif kind == 1:
        shape = b", ".join(str(rng.choice((*NUMBERS[:12], *NUMBERS))).encode() for _ in range(rng.randrange(5)))
        header = re.sub(rb"'shape': \([^)]*\)", b"'shape': (" + shape + b",)", header)
    elif kind == 2:
        header = text(header, rng, ())
    body = data[10 + length :] if kind < 3 else _bytes(data[10 + length :], rng, others)
    header = header[:60_000] + b"\n"
    return data[:8] + struct.pack("<H", len(header)) + header + body


def archive(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """A change in a member of a ZIP file, which is packed again."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        members = {member.filename: packed.read(member) for member in packed.infolist() if member.file_size < MOST}
    name = rng.choice(list(members))
    kind = rng.randrange(8)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[rng.choice(("a.npy", "points.npy", "frame.npy", "../a", "x.npy", "t.npy"))] = members.pop(name)
    else:
        formed = npy if name.endswith(".npy") and rng.random() < 0.7 else _bytes
        members[name] = formed(members[name], rng, others)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return target.getvalue()


def png(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """A change in a chunk of a PNG, whose checksum is then right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    place = 0 if rng.random() < 0.4 else rng.randrange(len(chunks))
    kind, body = chunks[place]
    if kind == b"IHDR" and rng.random() < 0.8:
        header = list(struct.unpack(">IIBBBBB", body))
        which = rng.randrange(7)
        few = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        header[which] = rng.choice(NUMBERS) & 0xFFFFFFFF if which < 2 else few
        body = struct.pack(">IIBBBBB", *header)
    elif kind == b"IDAT" and rng.random() < 0.7:
        unpacked = zlib.decompress(body)
        more = rng.random() < 0.2
        body = zlib.compress(bytes(min(1 << 26, rng.choice(NUMBERS))) if more else _bytes(unpacked, rng, others), 1)
    elif rng.random() < 0.3:
        chunks.insert(place, (rng.choice((b"tRNS", b"PLTE", b"acTL", b"eXIf", b"iCCP", b"zTXt")), body))
    else:
        body = _bytes(body, rng, others)
    chunks[place] = (kind, body)
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return data[:8] + b"".join(parts)


def safetensors(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """A change in the header of safetensors, whose length is then right."""
    (length,) = struct.unpack_from("<Q", data)
    header = json_(data[8 : 8 + length], rng, others)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def mcap(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """A change in a record of an MCAP file, in those of chunks, too, whose lengths are then right."""
    records = _records(data[8:-8])
    place = rng.randrange(len(records))
    opcode, content = records[place]
    if opcode == 6 and content[32:36] == bytes(4):  # a chunk that is not compressed
        inner = _records(content[44:])
        at = rng.randrange(len(inner))
        inner[at] = (inner[at][0], _bytes(inner[at][1], rng, others))
        body = _joined(inner)
        start, end, _, _ = struct.unpack_from("<QQQI", content)
        content = struct.pack("<QQQIIQ", start, end, len(body), 0, 0, len(body)) + body
    else:
        content = _bytes(content, rng, others)
    records[place] = (opcode, content)
    if rng.random() < 0.3:
        records = [one for one in records if one[0] < 8]  # without a summary all is read
    return data[:8] + _joined(records) + data[-8:]


def _records(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, at)
        found.append((opcode, data[at + 9 : at + 9 + length]))
        at += 9 + length
    return found


def _joined(records: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("<BQ", opcode, len(content)) + content for opcode, content in records)


def yaml_(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Another value somewhere in YAML."""
    import yaml

    return yaml.safe_dump(value(yaml.safe_load(data), rng)).encode()


FORMS: dict[str, Change] = {
    ".png": png,
    ".npy": npy,
    ".npz": archive,
    ".pth": archive,
    ".json": json_,
    ".gltf": json_,
    ".yaml": yaml_,
    ".safetensors": safetensors,
    ".mcap": mcap,
}
"""What knows of a format, by ending; :mod:`.targets` adds messages."""
