"""Writing rosbag2 recordings (MCAP) without ROS: messages by their fields or in CDR, in one file or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from omnibind_core.config import from_yaml
from omnibind_core.errors import DataError
from omnibind_core.optional import require
from omnibind_ros.bags.types import typestore


class BagWriter:
    """Writes a rosbag2 in MCAP with compressed chunks. A context manager.

    Args:
        path: Folder of the bag; must not exist.

    Raises:
        DataError: The folder exists.
        MissingDependencyError: rosbags is not installed.
    """

    def __init__(self, path: Path) -> None:
        rosbag2 = require("rosbags.rosbag2", "Writing a bag")
        if path.exists():
            raise DataError(f"{path} exists already; bags are not overwritten")
        self._writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        self._writer.set_compression(rosbag2.CompressionMode.STORAGE, rosbag2.CompressionFormat.ZSTD)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, topic: str, ros_type: str, time_ns: int, item: Any, latched: bool = False) -> None:
        """Appends one message.

        Args:
            topic: Topic; always the same type on one topic.
            ros_type: Its type.
            time_ns: When it was received, ns.
            item: From :func:`omnibind_ros.bags.types.message`.
            latched: Whether the topic tells its last message to who comes late, as ``/tf_static`` does.
        """
        self.write_raw(topic, ros_type, time_ns, typestore().serialize_cdr(item, ros_type), latched)

    def write_raw(self, topic: str, ros_type: str, time_ns: int, data: bytes, latched: bool = False) -> None:
        """Appends one message that is in CDR already, of a type that is known; see
        :func:`omnibind_ros.bags.types.learn`.
        """
        if topic not in self._connections:
            profiles = [_latched()] if latched else []
            self._connections[topic] = self._writer.add_connection(
                topic, ros_type, typestore=typestore(), offered_qos_profiles=profiles
            )
        self._writer.write(self._connections[topic], time_ns, data)


def _latched() -> Any:
    """The quality of service of ``/tf_static``."""
    of = require("rosbags.interfaces", "Writing a bag")
    never = of.QosTime(0, 0)
    return of.Qos(
        history=of.QosHistory.KEEP_LAST,
        depth=1,
        reliability=of.QosReliability.RELIABLE,
        durability=of.QosDurability.TRANSIENT_LOCAL,
        deadline=never,
        lifespan=never,
        liveliness=of.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=never,
        avoid_ros_namespace_conventions=False,
    )


class SplitBagWriter:
    """Writes a rosbag2 whose files are no longer than wanted. A context manager with the ``write_raw`` of a bag.

    Until it is closed, each file is a bag of its own in the folder; so what was recorded before a failure can be read.

    Args:
        path: Folder of the bag; must not exist.
        size: Bytes of messages in a file; 0: one file only.

    Raises:
        DataError: The folder exists.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        if path.exists():
            raise DataError(f"{path} exists already; bags are not overwritten")
        self._path = path
        self._size = size
        self._parts: list[Path] = []
        self._written = 0
        self._writer: BagWriter | None = None

    def __enter__(self) -> SplitBagWriter:
        return self

    def write_raw(self, topic: str, ros_type: str, time_ns: int, data: bytes) -> None:
        """Appends one message in CDR; see :meth:`BagWriter.write_raw`."""
        if self._writer is None or (self._size and self._written >= self._size):
            self._begin()
        assert self._writer is not None
        self._writer.write_raw(topic, ros_type, time_ns, data)
        self._written += len(data)

    def _begin(self) -> None:
        self._end()
        self._parts.append(self._path / f"{self._path.name}_{len(self._parts)}")
        self._writer = BagWriter(self._parts[-1]).__enter__()
        self._written = 0

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
        self._writer = None

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._parts:
            _join(self._path, self._parts)


def _join(path: Path, parts: Sequence[Path]) -> None:
    """Makes one bag of several files out of bags that lie in its folder."""
    infos = [_metadata(part) for part in parts]
    whole = dict(infos[0])
    topics_of: dict[str, Any] = {}
    for info in infos:
        for row in info["topics_with_message_count"]:
            known = topics_of.setdefault(row["topic_metadata"]["name"], {**row, "message_count": 0})
            known["message_count"] += row["message_count"]
    files = [file for info in infos for file in info["files"]]
    starts = [file["starting_time"]["nanoseconds_since_epoch"] for file in files]
    end = max(start + file["duration"]["nanoseconds"] for start, file in zip(starts, files, strict=True))
    whole.update(
        relative_file_paths=[file["path"] for file in files],
        starting_time={"nanoseconds_since_epoch": min(starts)},
        duration={"nanoseconds": end - min(starts)},
        message_count=sum(info["message_count"] for info in infos),
        topics_with_message_count=list(topics_of.values()),
        files=files,
    )
    for part, info in zip(parts, infos, strict=True):
        for name in info["relative_file_paths"]:
            (part / name).replace(path / name)
        (part / "metadata.yaml").unlink()
        part.rmdir()
    text = yaml.safe_dump({"rosbag2_bagfile_information": whole}, sort_keys=False)
    (path / "metadata.yaml").write_text(text, encoding="utf-8")


def _metadata(path: Path) -> dict[str, Any]:
    content = from_yaml((path / "metadata.yaml").read_text(encoding="utf-8"))
    info: dict[str, Any] = content["rosbag2_bagfile_information"]
    return info
