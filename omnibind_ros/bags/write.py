"""Writing rosbag2 recordings (MCAP) without ROS: messages by their fields or in CDR, in one file or several."""

from __future__ import annotations

import contextlib
import io
import struct
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from omnibind_core.errors import DataError
from omnibind_core.files import recover, write_folder_atomically
from omnibind_core.optional import require
from omnibind_ros.bags.storage import zstd
from omnibind_ros.bags.types import typestore

_VERSION = 9  # of metadata.yaml
_BUFFER = 1 << 21  # bytes; more than most chunks have, so that each is written at once
_END = struct.pack("<BQIBQQQI", 15, 4, 0, 2, 20, 0, 0, 0) + b"\x89MCAP0\r\n"
"""Of an MCAP file that has no index: end of the data, footer, magic. Every other record that is written is longer."""


class BagWriter:
    """Writes a rosbag2 in MCAP with compressed chunks. A context manager; the bag appears when it is whole.

    Args:
        path: Folder of the bag; must not exist.

    Raises:
        DataError: The folder exists, or another process writes it.
        MissingDependencyError: rosbags is not installed.
    """

    def __init__(self, path: Path) -> None:
        require("rosbags.rosbag2", "Writing a bag")
        recover(path)
        _refuse_existing(path)
        self._path = path
        self._folder = path
        self._file: Any = None
        self._connections: dict[str, Any] = {}
        self._whole = self._writing()

    def __enter__(self) -> BagWriter:
        self._whole.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole.__exit__(exc_type, error, trace)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with write_folder_atomically(self._path, (), alone=True) as self._folder:
            inner = self._folder / self._path.name  # which the name of the file is taken from
            with _new(inner) as self._file:
                self._file.storage.compressor = _compressed
                yield
            for file in inner.iterdir():
                file.rename(self._folder / file.name)
            inner.rmdir()

    def place(self, path: Path) -> Path:
        """Where to write a file so that it is at ``path`` when the bag is there; it may lie in the bag's folder."""
        return self._folder / path.relative_to(self._path) if path.is_relative_to(self._path) else path

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
        _write(self._file, self._connections, topic, ros_type, time_ns, data, latched)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise DataError(f"{path} exists already; bags are not overwritten")


def _new(path: Path) -> Any:
    """A writer of a bag of one file."""
    rosbag2 = require("rosbags.rosbag2", "Writing a bag")
    writer = rosbag2.Writer(path, version=_VERSION, storage_plugin=rosbag2.StoragePlugin.MCAP)
    writer.set_compression(rosbag2.CompressionMode.STORAGE, rosbag2.CompressionFormat.ZSTD)
    return writer


def _compressed(data: bytes) -> bytes:
    """With a checksum, which rosbags leaves out, so that whoever reads it notices damage."""
    module = zstd()
    packed: bytes = module.compress(data, options={module.CompressionParameter.checksum_flag: 1})
    return packed


def _write(
    writer: Any, connections: dict[str, Any], topic: str, ros_type: str, time_ns: int, data: bytes, latched: bool
) -> None:
    if topic not in connections:
        profiles = [_latched()] if latched else []
        connections[topic] = writer.add_connection(
            topic, ros_type, typestore=typestore(), offered_qos_profiles=profiles
        )
    writer.write(connections[topic], time_ns, data)


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

    After each :meth:`flush` the bag is whole, with its metadata, and each file ends as one must, so that what was
    recorded before a failure can be read by anyone; what is written next takes the place of that end.

    Args:
        path: Folder of the bag; must not exist.
        size: Bytes of messages in a file; 0: one file only.

    Raises:
        DataError: The folder exists.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        _refuse_existing(path)
        self._path = path
        self._size = size
        self._parts: list[_Part] = []
        self._written = 0

    def __enter__(self) -> SplitBagWriter:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._parts:
            return
        if isinstance(error, OSError):  # there may be no room
            self._parts[-1].give_up()
        else:
            self._close()

    def write_raw(self, topic: str, ros_type: str, time_ns: int, data: bytes) -> None:
        """Appends one message in CDR; see :meth:`BagWriter.write_raw`."""
        if not self._parts or (self._size and self._written >= self._size):
            self._begin(time_ns)
        self._parts[-1].write(topic, ros_type, time_ns, data)
        self._written += len(data)

    def flush(self) -> None:
        """Hands all messages to the system, which keeps them if this process is killed."""
        if self._parts and self._parts[-1].flush():
            self._describe()

    def _begin(self, time_ns: int) -> None:
        if self._parts:
            self._close()
        else:
            try:
                self._path.mkdir(parents=True)
            except FileExistsError:
                _refuse_existing(self._path)
                raise
        self._parts.append(_Part(self._path, f"{self._path.name}_{len(self._parts)}", time_ns))
        self._written = 0
        self._describe()

    def _close(self) -> None:
        self._parts[-1].close()
        self._describe()

    def _describe(self) -> None:
        temporary = self._path / "metadata.yaml.tmp"
        about = _metadata(self._parts)
        del about["relative_file_paths"], about["files"]  # as text, of which all but the last part's is known
        paths, files = zip(*(part.described() for part in self._parts), strict=True)
        text = _as_yaml({"rosbag2_bagfile_information": about})
        try:
            temporary.write_text(
                f"{text}  relative_file_paths:\n{''.join(paths)}  files:\n{''.join(files)}", encoding="utf-8"
            )
            temporary.replace(self._path / "metadata.yaml")
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


class _Part:
    """A file of a bag.

    Args:
        folder: Of the bag.
        name: Of the file, without its ending.
        time_ns: Of the message for which it is begun.

    Attributes:
        name: Of the file.
        of: What rosbags knows of it.
    """

    def __init__(self, folder: Path, name: str, time_ns: int) -> None:
        self._time_ns = time_ns
        self._described: tuple[str, str] | None = None
        self.of = _new(folder / name)
        self.of.open()
        self.name = f"{name}.mcap"
        (folder / name / self.name).rename(folder / self.name)  # out of a folder of its own
        (folder / name).rmdir()
        self._storage = self.of.storage
        self._storage.compressor = _compressed
        self._storage.bio = io.BufferedWriter(self._storage.bio.detach(), _BUFFER)
        self._connections: dict[str, Any] = {}
        self._whole = 0  # bytes of the file before its end
        self.flush()

    def write(self, topic: str, ros_type: str, time_ns: int, data: bytes) -> None:
        chunks = len(self._storage.chunks)
        _write(self.of, self._connections, topic, ros_type, time_ns, data, False)
        if len(self._storage.chunks) > chunks:
            self.flush()

    def flush(self) -> bool:
        """Hands over what was written; False if there is nothing."""
        file = self._storage.bio
        if self._storage.chunk.msgs:
            self._storage.close_chunk()
        whole = file.tell()
        if whole == self._whole:
            return False
        file.write(_END)
        file.flush()
        file.seek(whole)
        self._whole = whole
        return True

    def close(self) -> None:
        """Ends the file with an index."""
        self._storage.close(_VERSION, _as_yaml(_metadata([self])))
        self._described = self.described()

    def span_ns(self) -> tuple[int, int]:
        """Times of the first and the last message."""
        if not any(self.of.counts.values()):
            return self._time_ns, self._time_ns
        return self.of.min_timestamp, self.of.max_timestamp

    def row(self) -> dict[str, Any]:
        """What ``metadata.yaml`` says of it."""
        start, end = self.span_ns()
        return {
            "path": self.name,
            "starting_time": {"nanoseconds_since_epoch": start},
            "duration": {"nanoseconds": max(0, end - start)},
            "message_count": sum(self.of.counts.values()),
        }

    def described(self) -> tuple[str, str]:
        """Items of ``relative_file_paths`` and ``files`` in ``metadata.yaml``."""
        if self._described is not None:
            return self._described
        return _item(self.name), _item(self.row())

    def give_up(self) -> None:
        """Leaves of the file what is whole."""
        raw = self._storage.bio.raw
        with contextlib.suppress(OSError):
            raw.truncate(self._whole)
            raw.seek(self._whole)
            raw.write(_END)
        raw.close()  # without what waits to be written


def _metadata(parts: list[_Part]) -> dict[str, Any]:
    """What ``metadata.yaml`` says of a bag."""
    topics: dict[str, dict[str, Any]] = {}
    for part in parts:
        for one in part.of.connections:
            about = {
                "name": one.topic,
                "type": one.msgtype,
                "serialization_format": one.ext.serialization_format,
                "offered_qos_profiles": [],
                "type_description_hash": one.digest,
            }
            row = topics.setdefault(one.topic, {"topic_metadata": about, "message_count": 0})
            row["message_count"] += part.of.counts[one.id]
    files = [part.row() for part in parts]
    starts, ends = zip(*(part.span_ns() for part in parts), strict=True)
    return {
        "version": _VERSION,
        "storage_identifier": "mcap",
        "relative_file_paths": [part.name for part in parts],
        "duration": {"nanoseconds": max(ends) - min(starts)},
        "starting_time": {"nanoseconds_since_epoch": min(starts)},
        "message_count": sum(file["message_count"] for file in files),
        "topics_with_message_count": list(topics.values()),
        "compression_format": "",
        "compression_mode": "",
        "files": files,
        "custom_data": None,
        "ros_distro": "rosbags",
    }


def _item(content: Any) -> str:
    """Of a list in ``metadata.yaml``."""
    return textwrap.indent(_as_yaml([content]), "  ")


def _as_yaml(content: Any) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # many times as fast
    text: str = yaml.dump(content, Dumper=dumper, sort_keys=False)
    return text
