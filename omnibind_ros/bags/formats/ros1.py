"""Reading ROS 1 recordings (``.bag``) by rosbags: messages are those of ROS 2 when they leave :mod:`read`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from omnibind_core.optional import require
from omnibind_ros.bags.storage import Connection, Losses, Raw, UnreadableError


class Ros1File:
    """A ROS 1 bag; see :class:`omnibind_ros.bags.storage.Storage`.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        UnreadableError: It is no ROS 1 bag of version 2.0, or its index is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._reader = require("rosbags.rosbag1", "Reading a ROS 1 bag").Reader(path)
        try:
            self._reader.open()
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
