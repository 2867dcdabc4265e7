"""Reading ROS 1 recordings (``.bag``) by rosbags: messages are those of ROS 2 when they leave :mod:`read`."""

from __future__ import annotations

import bz2
import functools
import io
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from omnibind_core.optional import require
from omnibind_ros.bags.storage import MOST_UNPACKED, Connection, Losses, Raw, UnreadableError, unpacked


class _Bounded:
    """The path of a file that gives no more bytes at once than it has: rosbags asks for what a damaged length says."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def exists(self) -> bool:
        return self._path.exists()

    def open(self, mode: str) -> io.BufferedReader:
        return _File(io.FileIO(self._path, mode))


class _File(io.BufferedReader):
    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(-1 if size is None else size, self._size))


class Ros1File:
    """A ROS 1 bag; see :class:`omnibind_ros.bags.storage.Storage`.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        UnreadableError: It is no ROS 1 bag of version 2.0, or its index is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        reader = require("rosbags.rosbag1.reader", "Reading a ROS 1 bag")
        self._reader = reader.Reader(_Bounded(path))
        try:
            self._reader.open()
            self._bound(reader)
        except OSError:
            raise
        except Exception as error:  # the index is trusted unchecked: whatever damaged bytes lead to
            text = str(error).rstrip(".") or type(error).__name__
            hint = "" if "magic" in text else f"; restore its index in ROS 1 by: rosbag reindex {path.name}"
            raise UnreadableError(f"{path.name}: {text}{hint}") from error
        self._known = {one.id: one for one in self._reader.connections}
        self.connections = [
            Connection(
                number,
                f"/{one.topic.lstrip('/')}",
                one.msgtype,
                "msg",
                one.msgdef.data,
                "ros1",
                bool(one.ext.latching),
            )
            for number, one in self._known.items()
        ]
        self.span_ns = (self._reader.start_time, self._reader.end_time - 1) if self._reader.message_count else None
        self.losses = Losses()

    def _bound(self, reader: Any) -> None:
        """Has each chunk unpacked to no more than its header says, and no more than those of other formats."""
        for place, chunk in self._reader.chunks.items():
            if chunk.decompressor is reader.decompressors["none"]:
                continue
            self._reader.bio.seek(place)
            size = reader.Header.read(self._reader.bio, reader.RecordType.CHUNK).get_uint32("size")
            by_lz4 = chunk.decompressor is reader.decompressors["lz4"]
            bounded = functools.partial(_unpacked, most=min(size, MOST_UNPACKED), by_lz4=by_lz4)
            self._reader.chunks[place] = chunk._replace(decompressor=bounded)

    def count(self, number: int) -> int:
        """Messages of a connection."""
        return int(self._known[number].msgcount)

    def messages(self, wanted: Collection[int], start_ns: int) -> Iterator[Raw]:
        """Messages of connections since a time, in the order of their times, up to the first damaged chunk."""
        connections = [one for number, one in self._known.items() if number in wanted]
        try:
            for one, time_ns, data in self._reader.messages(connections, start=start_ns):
                yield Raw(one.id, time_ns, data)
        except Exception:  # bz2, lz4, struct, ...: whatever damaged bytes lead to
            self.losses.add(None)
            self.losses.cut = True

    def close(self) -> None:
        """Closes the file."""
        self._reader.close()


def _unpacked(data: bytes, most: int, by_lz4: bool) -> bytes:
    """What is in a chunk, of no more bytes than that."""
    return unpacked(
        data,
        most,
        require("lz4.frame", "Reading compressed bags").LZ4FrameDecompressor if by_lz4 else bz2.BZ2Decompressor,
    )
