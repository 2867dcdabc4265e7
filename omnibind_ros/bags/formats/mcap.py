"""Reading MCAP files, damaged ones included: every chunk that is whole is read, what is lost is counted.

``rosbags`` refuses a file without footer, with one damaged chunk or one foreign channel. What a record is, says the
MCAP specification: an opcode, a length, a content. Where a record is no record the next one is looked for.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import mmap
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from omnibind_core.optional import require
from omnibind_ros.bags.storage import (
    MOST_UNPACKED,
    Connection,
    Losses,
    Raw,
    UnreadableError,
    full_type,
    is_latched,
    unpacked,
)

_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _CHUNK_INDEX = range(1, 9)
_STATISTICS, _DATA_END = 0x0B, 0x0F
_RECORD = struct.Struct("<BQ")  # opcode and length of the content
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, time of the recording, time of publishing
_CHUNK_HEAD = struct.Struct("<QQQI")  # times of the first and last message, size, checksum
_STATISTICS_HEAD = struct.Struct("<QHIIIIQQ")
_MOST_BEFORE_RECORDS = _RECORD.size + _CHUNK_HEAD.size + 12  # bytes of a chunk before the records in it
_FOOTER_SIZE = _RECORD.size + 20
_LEAST = {1: 8, 2: 20, 3: 14, 4: 16, 5: 22, 6: 40, 7: 6, 8: 56, 9: 30, 10: 48, 11: 46, 12: 8, 13: 20, 14: 17, 15: 4}
"""Least length of each record's content."""
_LIKE_A_RECORD = re.compile(rb"(?=[\x03-\x0f].{4}\0\0\0\0)", re.DOTALL)
_IN_A_ROW = 3  # so many records make a place where records go on after damage
_LONG = 10**9 * 86400 * 366  # ns within which all messages of a file lie
_FORMATS = {"ros2msg": "msg", "ros1msg": "msg", "ros2idl": "idl", "omgidl": "idl"}


class _Chunk(NamedTuple):
    place: int
    start_ns: int
    end_ns: int
    length: int


@dataclass
class _Index:
    """Where everything is in a file."""

    connections: dict[int, Connection] = field(default_factory=dict)
    chunks: list[_Chunk] = field(default_factory=list)
    loose: list[tuple[int, int, int]] = field(default_factory=list)  # time, place and channel outside of chunks
    counts: Counter[int] = field(default_factory=Counter)
    start_ns: int | None = None
    end_ns: int = 0
    losses: Losses = field(default_factory=Losses)
    schemas: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    compressed: bool = False  # whether there are compressed chunks, so that what looks like a message is their content


class _DamagedError(UnreadableError):
    """A summary is not as it was written."""


class _Content:
    """Reads the content of a record from its beginning on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        if self._place + size > len(self._data):
            raise UnreadableError("a record that is too short")
        self._place += size
        return self._data[self._place - size : self._place]

    def block(self) -> bytes:
        return self.take(self.number(4))

    def text(self) -> str:
        return self.block().decode("utf-8", "replace")

    def pairs(self) -> dict[str, str]:
        inner = _Content(self.block())
        found: dict[str, str] = {}
        while inner._place < len(inner._data):
            key = inner.text()
            found[key] = inner.text()
        return found


class McapFile:
    """An MCAP file; see :class:`omnibind_ros.bags.storage.Storage`.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        UnreadableError: It is no MCAP file.
    """

    def __init__(self, path: Path) -> None:
        status = path.stat()
        if status.st_size <= len(_MAGIC):
            raise UnreadableError(f"{path.name} has {status.st_size} bytes, less than any MCAP file")
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            if self._data[: len(_MAGIC)] != _MAGIC:
                raise UnreadableError(f"{path.name} does not begin like an MCAP file")
            self._index = _index(path.absolute(), status.st_mtime_ns, status.st_size)
        except BaseException:
            self._data.close()
            raise
        self.connections = list(self._index.connections.values())
        start_ns = self._index.start_ns
        self.span_ns = None if start_ns is None else (start_ns, self._index.end_ns)
        self.losses = dataclasses.replace(self._index.losses)  # what is in the index was found once for all

    def count(self, number: int) -> int:
        """Messages of a channel; 0 if unknown."""
        return self._index.counts[number]

    def messages(self, wanted: Collection[int], start_ns: int) -> Iterator[Raw]:
        """Messages of channels since a time, in the order of their times; a damaged chunk is counted and left out."""
        loose = (
            Raw(channel, time_ns, _content(self._data, place)[_MESSAGE_HEAD.size :])
            for time_ns, place, channel in self._index.loose
            if channel in wanted and time_ns >= start_ns
        )
        yield from heapq.merge(self._of_chunks(wanted, start_ns), loose, key=lambda one: one.time_ns)

    def _of_chunks(self, wanted: Collection[int], start_ns: int) -> Iterator[Raw]:
        waiting = sorted((one for one in self._index.chunks if one.end_ns >= start_ns), key=lambda one: -one.start_ns)
        held: list[tuple[int, int, Raw]] = []  # of chunks that overlap in time
        number = 0
        while waiting or held:
            while waiting and (not held or waiting[-1].start_ns <= held[0][0]):
                for opcode, content in self._records(waiting.pop()):
                    if opcode != _MESSAGE or len(content) < _MESSAGE_HEAD.size:
                        continue
                    channel, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(content)
                    if channel in wanted and time_ns >= start_ns:
                        number += 1
                        heapq.heappush(held, (time_ns, number, Raw(channel, time_ns, content[_MESSAGE_HEAD.size :])))
            if held:
                yield heapq.heappop(held)[2]

    def _records(self, chunk: _Chunk) -> list[tuple[int, bytes]]:
        try:
            return _records_of(self._data, chunk.place)
        except UnreadableError:
            self.losses.add(_messages_in(self._data, chunk), chunk.length)
            return []

    def close(self) -> None:
        """Closes the file."""
        self._data.close()


def _content(data: mmap.mmap, place: int) -> bytes:
    """Content of the record at a place."""
    if place + _RECORD.size > len(data):
        raise UnreadableError("no record")
    length = _RECORD.unpack_from(data, place)[1]
    begin = place + _RECORD.size
    if begin + length > len(data):
        raise UnreadableError("a record that is cut off")
    return data[begin : begin + length]


@functools.cache
def _decompressors() -> Mapping[str, Callable[[bytes, int], bytes]]:
    lz4 = require("lz4.frame", "Reading compressed bags")
    by_lz4 = functools.partial(unpacked, open_frame=lz4.LZ4FrameDecompressor)
    return {"": lambda packed, size: packed, "zstd": unpacked, "lz4": by_lz4}


def _records_of(data: mmap.mmap, place: int) -> list[tuple[int, bytes]]:
    """Opcodes and contents of the records in the chunk at a place.

    Raises:
        UnreadableError: It is damaged.
    """
    if place >= len(data) or data[place] != _CHUNK:
        raise UnreadableError("no chunk where the index says")
    content = _Content(_content(data, place))
    _, _, size, checksum = _CHUNK_HEAD.unpack(content.take(_CHUNK_HEAD.size))
    compression = content.text()
    packed = content.take(content.number(8))
    decompress = _decompressors().get(compression)
    if decompress is None:
        raise UnreadableError(f"a chunk compressed with '{compression}'")
    if compression and size > MOST_UNPACKED:
        raise UnreadableError(f"a chunk of {size} bytes unpacked, expected at most {MOST_UNPACKED}")
    try:
        raw = decompress(packed, size)
    except Exception as error:  # of either library, whatever damaged bytes lead to
        raise UnreadableError(str(error)) from error
    if len(raw) != size or (checksum and zlib.crc32(raw) != checksum):
        raise UnreadableError("a chunk whose checksum is another")
    found = []
    begin = 0
    while begin + _RECORD.size <= size:
        opcode, length = _RECORD.unpack_from(raw, begin)
        begin += _RECORD.size
        found.append((opcode, raw[begin : begin + length]))
        begin += length
    if begin != size:
        raise UnreadableError("a chunk whose records do not fill it")
    return found


def _messages_in(data: mmap.mmap, chunk: _Chunk) -> int | None:
    """How many messages a chunk has, by the index behind it; None without one."""
    count = None
    place = chunk.place + chunk.length
    while place + _RECORD.size + 6 <= len(data) and data[place] == _MESSAGE_INDEX:
        size = struct.unpack_from("<I", data, place + _RECORD.size + 2)[0]
        count = (count or 0) + size // 16
        place += _RECORD.size + _RECORD.unpack_from(data, place)[1]
    return count


# --- the index of a file ----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _index(path: Path, modified_ns: int, size: int) -> _Index:
    """Of a file as it was at a time, from its summary if that is whole and complete, or else by reading it all."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            index = _from_summary(data)
        except (_DamagedError, struct.error):  # no message is lost by it
            index = _from_records(data)
            index.losses.add(0)
        except UnreadableError:
            index = _from_records(data)
    index.loose.sort()
    return index


def _from_summary(data: mmap.mmap) -> _Index:
    begin = len(data) - len(_MAGIC) - _FOOTER_SIZE
    if begin < len(_MAGIC) or data[-len(_MAGIC) :] != _MAGIC:
        raise UnreadableError("it does not end as it should")
    if _RECORD.unpack_from(data, begin) != (_FOOTER, 20):
        raise _DamagedError("no footer")
    place, _, checksum = struct.unpack_from("<QQI", data, begin + _RECORD.size)
    if not place:
        raise UnreadableError("no summary")
    if not len(_MAGIC) < place < begin:
        raise _DamagedError("no summary where the footer says")
    if checksum and zlib.crc32(data[place : begin + _FOOTER_SIZE - 4]) != checksum:
        raise _DamagedError("a damaged summary")
    index, statistics = _Index(), (-1,) * 8
    while place < begin:
        opcode, length = _RECORD.unpack_from(data, place)
        content = _content(data, place)
        place += _RECORD.size + length
        if opcode in (_SCHEMA, _CHANNEL):
            _describe(index, opcode, content)
        elif opcode == _CHUNK_INDEX:
            start_ns, end_ns, chunk, whole = struct.unpack_from("<QQQQ", content)
            index.chunks.append(_Chunk(chunk, start_ns, end_ns, whole))
        elif opcode == _STATISTICS:
            statistics = _STATISTICS_HEAD.unpack_from(content)
            for number in range(struct.unpack_from("<I", content, _STATISTICS_HEAD.size)[0] // 10):
                channel, count = struct.unpack_from("<HQ", content, _STATISTICS_HEAD.size + 4 + 10 * number)
                index.counts[channel] = count
    messages, _, channels, _, _, chunks, start_ns, end_ns = statistics
    if channels != len(index.connections) or chunks != len(index.chunks) or (messages and not chunks):
        raise UnreadableError("an incomplete summary")
    if messages:
        index.start_ns, index.end_ns = start_ns, end_ns
    return index


def _from_records(data: mmap.mmap) -> _Index:
    index = _Index()
    place = len(_MAGIC)
    while place < len(data):
        if not _may_be_record(data, place):
            index.compressed |= _is_compressed(data, place)
            after = _next_record(index, data, place)
            if after is None:
                break
            if data[place] != _CHUNK or after - place > _MOST_BEFORE_RECORDS:  # else a chunk that was not finished
                index.losses.add(None, after - place)
            place = after
        opcode, length = _RECORD.unpack_from(data, place)
        if opcode == _DATA_END:
            index.losses.cut = data[-len(_MAGIC) :] != _MAGIC
            return index
        _note(index, data, place, opcode, length)
        place += _RECORD.size + length
    index.losses.cut = True
    return index


def _note(index: _Index, data: mmap.mmap, place: int, opcode: int, length: int) -> None:
    """Takes one record of the data section into the index."""
    try:
        if opcode in (_SCHEMA, _CHANNEL):
            _describe(index, opcode, _content(data, place))
        elif opcode == _MESSAGE:
            channel, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(data, place + _RECORD.size)
            index.loose.append((time_ns, place, channel))
            _count(index, channel, time_ns)
        elif opcode == _CHUNK:
            start_ns, end_ns, _, _ = _CHUNK_HEAD.unpack_from(data, place + _RECORD.size)
            chunk = _Chunk(place, start_ns, end_ns, _RECORD.size + length)
            index.chunks.append(chunk)
            index.compressed |= _is_compressed(data, place)
            times = []
            for inner, content in _records_of(data, place):
                if inner in (_SCHEMA, _CHANNEL):
                    _describe(index, inner, content)
                elif inner == _MESSAGE:
                    channel, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(content)
                    _count(index, channel, time_ns)
                    times.append(time_ns)
            if times:  # no checksum covers what the chunk says of them, which decides on the order
                index.chunks[-1] = chunk._replace(start_ns=min(times), end_ns=max(times))
    except (UnreadableError, struct.error):
        if opcode != _CHUNK:  # a chunk is counted when it is read
            index.losses.add(None, _RECORD.size + length)


def _count(index: _Index, channel: int, time_ns: int) -> None:
    index.counts[channel] += 1
    index.start_ns = time_ns if index.start_ns is None else min(index.start_ns, time_ns)
    index.end_ns = max(index.end_ns, time_ns)


def _describe(index: _Index, opcode: int, data: bytes) -> None:
    """A schema or a channel."""
    content = _Content(data)
    number = content.number(2)
    if opcode == _SCHEMA:
        index.schemas[number] = (content.text(), content.text(), content.text())
        return
    name, kind, definition = index.schemas.get(content.number(2), ("", "", ""))
    topic, encoding, metadata = content.text(), content.text(), content.pairs()
    latched = is_latched(metadata.get("offered_qos_profiles", "")) or metadata.get("latching") == "1"
    found = Connection(number, topic, full_type(name), _FORMATS.get(kind, kind), definition, encoding, latched)
    index.connections.setdefault(number, found)


def _may_be_record(data: mmap.mmap, place: int) -> bool:
    if place + _RECORD.size > len(data):
        return False
    opcode, length = _RECORD.unpack_from(data, place)
    least = _LEAST.get(opcode, 0 if opcode >= 0x80 else None)  # numbers from 0x80 on are for private use
    return least is not None and length >= least and place + _RECORD.size + length <= len(data)


def _is_compressed(data: mmap.mmap, place: int) -> bool:
    """Whether a record begins like that of a compressed chunk."""
    named = place + _RECORD.size + _CHUNK_HEAD.size + 4
    return data[place] == _CHUNK and data[named : named + 3] in (b"zst", b"lz4")


def _next_record(index: _Index, data: mmap.mmap, place: int) -> int | None:
    """Where records go on behind a place."""
    for found in _LIKE_A_RECORD.finditer(data, place + 1):
        begin = after = found.start()
        for _ in range(_IN_A_ROW):
            if not _may_be_record(data, after) or not _is_likely(index, data, after):
                break
            opcode, length = _RECORD.unpack_from(data, after)
            after += _RECORD.size + length
            if opcode == _DATA_END or after == len(data):
                return begin
        else:
            return begin
    return None


def _is_likely(index: _Index, data: mmap.mmap, place: int) -> bool:
    """Whether what may be a record is not content that looks like one."""
    opcode, length = _RECORD.unpack_from(data, place)
    if opcode == _MESSAGE:
        channel, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(data, place + _RECORD.size)
        near = index.start_ns is None or abs(time_ns - index.start_ns) < _LONG
        return not index.compressed and channel in index.connections and near
    if opcode == _CHUNK:
        start_ns, end_ns, _, _ = _CHUNK_HEAD.unpack_from(data, place + _RECORD.size)
        named = struct.unpack_from("<I", data, place + _RECORD.size + _CHUNK_HEAD.size)[0]
        return bool(start_ns <= end_ns and named in (0, 3, 4))  # length of the compression's name
    return bool(opcode < 0x80 and (opcode != _DATA_END or length == 4))
