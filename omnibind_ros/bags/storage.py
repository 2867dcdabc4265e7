"""What the formats of recordings have in common: connections, what was lost, files that are compressed as a whole."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from omnibind_core.config import from_yaml
from omnibind_core.optional import require

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SUFFIXES = (".mcap", ".db3", ".bag", ".mcap.zstd", ".db3.zstd")
"""Of files that are recordings."""
MOST_UNPACKED = 1 << 28
"""Bytes that a compressed chunk or message of a recording may hold; recorders begin a new chunk after some MB."""
MOST_RATIO = 100
"""Bytes that a recording compressed as a whole may hold for each compressed one, beyond :data:`MOST_UNPACKED`."""
_PIECE = 1 << 24  # bytes of a compressed file that are unpacked at once
_TRANSIENT_LOCAL = ("transient_local", "1")  # as a name since Jazzy, as DDS's number before


class UnreadableError(ValueError):
    """A file is none of its format, or nothing of it is whole."""


@dataclass(frozen=True)
class Connection:
    """A topic in one file.

    Attributes:
        id: Its number there.
        topic: Topic name.
        type: ROS type, with ``/msg/`` whatever wrote the bag.
        format: Of the definition: ``"msg"``, ``"idl"``, another word, or ``""`` if there is none.
        definition: How the type is defined.
        encoding: Of the messages; ``"cdr"`` in ROS 2.
        latched: Whether its publishers kept messages for late subscribers.
    """

    id: int
    topic: str
    type: str
    format: str = ""
    definition: str = ""
    encoding: str = "cdr"
    latched: bool = False


@dataclass
class Losses:
    """What could not be read of a file, as far as it was read.

    Attributes:
        messages: Messages that are known to be lost.
        unknown: Whether there may be more.
        parts: Damaged places.
        bytes: Their size; 0 if unknown.
        cut: Whether the file ends before it was finished.
    """

    messages: int = 0
    unknown: bool = False
    parts: int = 0
    bytes: int = 0
    cut: bool = False

    def add(self, messages: int | None, size: int = 0) -> None:
        """Counts a damaged place; ``None``: nobody knows how many messages were there."""
        self.parts += 1
        self.messages += messages or 0
        self.unknown |= messages is None
        self.bytes += size

    def take(self, other: Losses) -> None:
        """Adds those of another file."""
        self.parts += other.parts
        self.messages += other.messages
        self.unknown |= other.unknown
        self.bytes += other.bytes
        self.cut |= other.cut

    def __str__(self) -> str:
        """In words."""
        least = f"at least {self.messages}" if self.messages else "an unknown number of"
        places = f"{self.parts} damaged place{'s' * (self.parts != 1)}"
        size = f" of {self.bytes} bytes" if self.bytes else ""
        return f"{least if self.unknown else self.messages} messages are lost in {places}{size}"


class Raw(NamedTuple):
    """A message as it is stored: number of its connection, ns, content."""

    id: int
    time_ns: int
    data: bytes


class Storage(Protocol):
    """An open file of a recording."""

    connections: list[Connection]
    span_ns: tuple[int, int] | None
    """Times of the first and the last message; None without any."""
    losses: Losses

    def count(self, number: int) -> int:
        """Messages of a connection; 0 if unknown."""

    def messages(self, wanted: Collection[int], start_ns: int) -> Iterator[Raw]:
        """Messages of connections since a time, in the order of their times."""

    def close(self) -> None:
        """Closes the file."""


def full_type(name: str) -> str:
    """The name of a type as it is since Dashing: ``sensor_msgs/msg/Image`` for ``sensor_msgs/Image``, too."""
    package, _, rest = name.partition("/")
    return name if "/" in rest or not rest else f"{package}/msg/{rest}"


def is_latched(profiles: str) -> bool:
    """Whether all QoS profiles of a topic, YAML as rosbag2 stores it, say so."""
    try:
        found = from_yaml(profiles) or []
        return bool(found) and all(str(one["durability"]).lower() in _TRANSIENT_LOCAL for one in found)
    except (ValueError, TypeError, KeyError):
        return False


def zstd() -> Any:
    """The module that decompresses Zstandard; rosbags brings it."""
    return require("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "Reading compressed bags")


def unpacked(data: bytes, most: int | None = None, open_frame: Callable[[], Any] | None = None) -> bytes:
    """Decompresses one or more frames, and stops where they hold more than they may.

    Args:
        data: The frames.
        most: Bytes that they may hold; :data:`MOST_UNPACKED` if not given.
        open_frame: Makes a decompressor of a frame, as Python's modules have them; Zstandard's if not given.

    Raises:
        UnreadableError: They hold more, or the last one is cut off.
        Exception: Of the library, for damaged bytes.
    """
    most = MOST_UNPACKED if most is None else most
    parts: list[bytes] = []
    left = most
    while data:
        frame = (open_frame or zstd().ZstdDecompressor)()
        parts.append(frame.decompress(data, max_length=left + 1))
        left -= len(parts[-1])
        if left < 0:
            raise UnreadableError(f"{len(data)} bytes that unpack to more than {most}, expected at most these")
        if not frame.eof:
            raise UnreadableError("compressed bytes that are cut off")
        data = frame.unused_data or b""
    return b"".join(parts)


def decompressed(data: bytes) -> bytes:
    """A message without the compression of rosbag2's mode ``message``; CDR never begins like Zstandard."""
    if not data.startswith(ZSTD_MAGIC):
        return data
    try:
        return unpacked(data)
    except (zstd().ZstdError, UnreadableError):
        return data  # whoever decodes it says that it is no message


def uncompressed_file(path: Path) -> tuple[Path, bool]:
    """A file that can be read at any place, and whether it is cut off: itself, or of a ``.zstd`` what is in it.

    Raises:
        OSError: It cannot be read, or there is no room for what is in it.
        UnreadableError: Nothing of it can be decompressed, or it holds more than it may.
    """
    if path.suffix != ".zstd":
        return path, False
    status = path.stat()
    folder, cut = _decompress(path.absolute(), status.st_mtime_ns, status.st_size)
    return Path(folder.name, path.stem), cut


@functools.lru_cache(maxsize=4)
def _decompress(path: Path, modified_ns: int, size: int) -> tuple[tempfile.TemporaryDirectory[str], bool]:
    """Decompresses into a folder that goes with this process; what of a damaged file comes before the damage."""
    module = zstd()
    folder = tempfile.TemporaryDirectory(prefix="omnibind-bag-")
    target, frame = Path(folder.name, path.stem), module.ZstdDecompressor()
    damaged = False
    left = MOST_UNPACKED + MOST_RATIO * size
    with path.open("rb") as source, target.open("wb") as sink:
        while not damaged and (block := source.read(1 << 16)):
            while block:
                if frame.eof:
                    frame = module.ZstdDecompressor()
                try:
                    left -= sink.write(frame.decompress(block, _PIECE))
                    while left >= 0 and not (frame.eof or frame.needs_input):
                        left -= sink.write(frame.decompress(b"", _PIECE))
                except module.ZstdError:
                    damaged = True
                    break
                if left < 0:
                    most = MOST_UNPACKED + MOST_RATIO * size
                    raise UnreadableError(f"{path.name}: {size} bytes that unpack to more than {most}")
                block = frame.unused_data
    cut = damaged or not frame.eof
    if cut and not target.stat().st_size:
        raise UnreadableError(f"{path.name} is not compressed with Zstandard, or damaged from its beginning on")
    return folder, cut
