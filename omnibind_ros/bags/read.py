"""Reading recordings without ROS: topics, times, and messages one by one, as raw CDR.

rosbag2 in MCAP and SQLite, files or messages compressed with Zstandard, ROS 1 bags. One topic that cannot be read stops
no other, nor does damage: what is whole is given, and then an error says what was lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from omnibind_core.config import from_yaml
from omnibind_core.errors import DataError, PartlyReadError
from omnibind_core.files import inside
from omnibind_ros.bags import storage
from omnibind_ros.bags.formats.mcap import McapFile
from omnibind_ros.bags.formats.ros1 import Ros1File
from omnibind_ros.bags.formats.sqlite import SqliteFile
from omnibind_ros.bags.storage import Losses, Storage, UnreadableError
from omnibind_ros.bags.types import ROS1, RecordedMessage, changed, store_of, to_cdr, unreadable

MOST_METADATA = 1_000_000
"""Values in the metadata of a bag: 14 of each file, and more of each topic."""


class Skipped(NamedTuple):
    """A topic that cannot be read.

    Attributes:
        type: ROS type of its messages; ``""`` if it has none.
        messages: How many; 0 if unknown.
        reason: Why.
    """

    type: str
    messages: int
    reason: str


def extent(damage: str, partly: bool) -> str:
    """How far a damaged bag was read, and why.

    Args:
        damage: Text of the error.
        partly: Whether it was a :class:`PartlyReadError`.
    """
    return f"{'all that is whole was read' if partly else 'read up to there only'}: {damage}"


def is_bag(path: Path) -> bool:
    """Whether a folder looks like a rosbag2, or a file like a recording."""
    return (path / "metadata.yaml").is_file() if path.is_dir() else path.name.endswith(storage.SUFFIXES)


def topics(path: Path) -> dict[str, str]:
    """Types of the topics in a bag that can be read, by topic.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as bag:
        return {one.topic: one.type for one in bag.readable}


def skipped(path: Path) -> dict[str, Skipped]:
    """The topics that cannot be read.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as bag:
        known = {one.topic for one in bag.readable}
        unknown = [(one, reason) for one, reason in bag.unreadable if one.topic not in known]
        return {one.topic: Skipped(one.type, bag.count(one.topic), reason) for one, reason in unknown}


def latched(path: Path) -> set[str]:
    """Topics whose publishers kept messages for late subscribers (durability transient local).

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as bag:
        return {one.topic for one in bag.readable} - {one.topic for one in bag.readable if not one.latched}


def outdated(path: Path) -> set[str]:
    """Topics whose type has other fields in the bag than here: of this package, or of ROS 1.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as bag:
        return {one.topic for one in bag.readable if changed(one)}


def messages(path: Path, only: Collection[str] | None = None, start_ns: int | None = None) -> Iterator[RecordedMessage]:
    """Reads messages one by one, in the order of their times, as raw CDR.

    Args:
        path: Folder of the bag, or its only file.
        only: Topics to read; None reads all.
        start_ns: Skip messages recorded before this time, ns.

    Raises:
        DataError: There is no readable bag, it lacks a topic, or it is cut off after what was given.
        PartlyReadError: All that is whole was given, and something between is lost.
    """
    with _open(path) as bag:
        held = {one.topic for one in bag.readable}
        missing = set(only or ()) - held
        if missing:
            names = ", ".join(sorted(missing))
            raise DataError(f"{path} has no topic {names}; it has {', '.join(sorted(held)) or 'none'}")
        store = store_of(bag.readable)
        for part in bag.parts:
            wanted = {one.id: one for one in part.connections if only is None or one.topic in only}
            wanted = {number: one for number, one in wanted.items() if not unreadable(one)}
            if not wanted:
                continue
            for number, time_ns, raw in part.messages(wanted, start_ns or 0):
                one = wanted[number]
                data = storage.decompressed(raw)
                if one.encoding == ROS1:
                    data = to_cdr(one.type, data, store)
                yield RecordedMessage(one.topic, one.type, time_ns, data, store, bool(one.format))
        bag.check()


def span_ns(path: Path) -> tuple[int, int]:
    """Times of the first and the last message, ns.

    Raises:
        DataError: There is no readable bag, or no message in it.
    """
    with _open(path) as bag:
        spans = [part.span_ns for part in bag.parts if part.span_ns is not None]
    if not spans:
        raise DataError(f"{path} holds no message")
    return min(start for start, _ in spans), max(end for _, end in spans)


class _Bag:
    """The files of a bag, in the order of their times.

    Attributes:
        parts: Those that can be read.
        broken: Why others cannot.
    """

    def __init__(self, path: Path, parts: Sequence[Storage], broken: Sequence[str]) -> None:
        self._path = path
        self.parts = sorted(parts, key=lambda part: part.span_ns or (0, 0))
        self.broken = broken
        found = [(one, unreadable(one)) for part in self.parts for one in part.connections]
        self.readable = [one for one, reason in found if not reason]
        self.unreadable = [(one, reason) for one, reason in found if reason]

    def count(self, topic: str) -> int:
        """Messages of a topic."""
        return sum(part.count(one.id) for part in self.parts for one in part.connections if one.topic == topic)

    def check(self) -> None:
        """Tells what was lost.

        Raises:
            DataError: See :func:`messages`.
        """
        losses = Losses()
        for part in self.parts:
            losses.take(part.losses)
        between = losses.cut and len(self.parts) > 1  # and other files were read behind it
        if losses.parts or self.broken or between:
            reasons = [str(losses)] if losses.parts else []
            reasons += [*self.broken, *(["what was written last into a file is missing"] if losses.cut else [])]
            raise PartlyReadError(f"{self._path} is damaged: {'; '.join(reasons)}")
        if losses.cut:
            raise DataError(f"{self._path} is cut off: what was written last is missing")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[_Bag]:
    with contextlib.ExitStack() as stack:
        parts: list[Storage] = []
        broken: list[str] = []
        try:
            for file in _files(path):
                try:
                    parts.append(_opened(file))
                    stack.callback(parts[-1].close)
                except (OSError, ValueError) as error:  # the latter of names with a NUL, too
                    broken.append(_reason(error, file))
            if broken and not parts:
                raise UnreadableError("; ".join(broken))
            bag = _Bag(path, parts, broken)
            if any(part.losses.cut for part in parts) and not any(part.span_ns for part in parts):
                raise UnreadableError("it is cut off, and no message before is whole")
        except (OSError, UnreadableError) as error:
            raise DataError(f"{path} is not a readable rosbag2: {_reason(error, path)}") from error
        yield bag


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {path.name}"
    return f"{path.name}: {error.strerror}" if isinstance(error, OSError) else " ".join(str(error).split())


def _opened(path: Path) -> Storage:
    whole, cut = storage.uncompressed_file(path)
    kinds: dict[str, Any] = {".mcap": McapFile, ".db3": SqliteFile, ".bag": Ros1File}
    kind = kinds.get(whole.suffix)
    if kind is None:
        raise UnreadableError(f"'{path.name}' ends like no recording, expected {', '.join(storage.SUFFIXES)}")
    part: Storage = kind(whole)
    part.losses.cut |= cut
    return part


def _files(path: Path) -> list[Path]:
    """The files of a bag.

    Raises:
        UnreadableError: It is none.
        OSError: It cannot be read.
    """
    if not path.exists():
        raise UnreadableError("there is no such folder or file")
    if not path.is_dir():
        return [path]
    metadata = path / "metadata.yaml"
    if not metadata.is_file():
        hint = f"restore it by: ros2 bag reindex {path}, or name its .mcap or .db3 file"
        raise UnreadableError(f"it has no metadata.yaml; {hint}")
    try:
        content = from_yaml(metadata.read_bytes(), MOST_METADATA)
        names = [str(name) for name in content["rosbag2_bagfile_information"]["relative_file_paths"]]
    except (ValueError, TypeError, KeyError) as error:
        text = " ".join(str(error).split())
        raise UnreadableError(f"its metadata.yaml names no files ({type(error).__name__}: {text})") from error
    try:
        return [inside(path, PurePath(name).name, metadata.name) for name in names]  # older ones name the folder, too
    except DataError as error:
        raise UnreadableError(f"its {error}") from error
