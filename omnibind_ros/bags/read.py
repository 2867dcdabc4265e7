"""Reading rosbag2 recordings (MCAP, sqlite3) without ROS: topics, times, and messages one by one, as raw CDR."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from omnibind_core.errors import DataError
from omnibind_core.optional import require
from omnibind_ros.bags.recover import RecoveredPath, is_truncated
from omnibind_ros.bags.types import RecordedMessage, changed, own_definitions, parsed_definition, store_of


def is_bag(path: Path) -> bool:
    """Whether a folder looks like a rosbag2, or a file like its only one."""
    return (path / "metadata.yaml").is_file() if path.is_dir() else path.suffix in (".mcap", ".db3")


def topics(path: Path) -> dict[str, str]:
    """Types of the topics in a bag, by topic.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as reader:
        return {connection.topic: connection.msgtype for connection in reader.connections}


def latched(path: Path) -> set[str]:
    """Topics whose publishers kept messages for late subscribers (durability transient local).

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as reader:
        profiles = {connection.topic: connection.ext.offered_qos_profiles for connection in reader.connections}
    return {
        name for name, kept in profiles.items() if kept and all(p.durability.name == "TRANSIENT_LOCAL" for p in kept)
    }


def outdated(path: Path) -> set[str]:
    """Topics whose type is of this package, but has other fields in the bag: nobody here understands their bytes.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as reader:
        own = [connection for connection in reader.connections if connection.msgtype in own_definitions()]
        return {
            connection.topic for connection in own if changed(parsed_definition(connection.msgtype, connection.msgdef))
        }


def messages(path: Path, only: Collection[str] | None = None, start_ns: int | None = None) -> Iterator[RecordedMessage]:
    """Reads messages one by one, in the order of their times, as raw CDR.

    Args:
        path: Folder of the bag, or its only file.
        only: Topics to read; None reads all.
        start_ns: Skip messages recorded before this time, ns.

    Raises:
        DataError: There is no readable bag, or it lacks a topic, or is damaged further on.
    """
    with _open(path) as reader:
        wanted = [c for c in reader.connections if only is None or c.topic in only]
        missing = set(only or ()) - {c.topic for c in wanted}
        if missing:
            held = ", ".join(sorted(c.topic for c in reader.connections))
            raise DataError(f"{path} has no topic {', '.join(sorted(missing))}; it has {held}")
        if not wanted:
            return
        types = store_of(reader.connections)
        for connection, time_ns, data in reader.messages(wanted, start=start_ns):
            defined = connection.msgdef.format.name != "NONE"
            yield RecordedMessage(connection.topic, connection.msgtype, time_ns, data, types, defined)
    if is_truncated(path):
        raise DataError(f"{path} is cut off: what was written last is missing")


def span_ns(path: Path) -> tuple[int, int]:
    """Times of the first and the last message, ns.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as reader:
        return reader.start_time, max(reader.end_time - 1, 0)  # rosbags counts to the ns behind the last one


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    rosbag2 = require("rosbags.rosbag2", "Reading a bag")
    if not path.exists():
        raise DataError(f"{path} is not a readable rosbag2: there is no such folder or file")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        hint = f"it has no metadata.yaml; restore it by: ros2 bag reindex {path}, or name its .mcap or .db3 file"
        raise DataError(f"{path} is not a readable rosbag2: {hint}")
    try:
        with rosbag2.Reader(RecoveredPath(path) if is_truncated(path) else path) as reader:
            yield reader
    except (rosbag2.ReaderError, OSError, sqlite3.Error, struct.error, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable rosbag2: {error}") from error
