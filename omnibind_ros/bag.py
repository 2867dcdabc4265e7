"""rosbag2 recordings without ROS: writing messages by their fields (MCAP), reading topics lazily (MCAP, sqlite3)."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.optional import require
from omnibind_ros.definitions import DEFINITIONS, SAME_NAME

PACKAGE = "omnibind_ros"


@dataclass(frozen=True)
class RecordedMessage:
    """One message of a bag.

    Attributes:
        topic: Topic name.
        type: ROS type, for example ``"sensor_msgs/msg/Image"``.
        time_ns: When it was recorded, ns.
        data: The message in CDR, as it goes over the wire.
        types: Type store that knows its type.
    """

    topic: str
    type: str
    time_ns: int
    data: bytes
    types: Any = field(repr=False, compare=False)


@functools.cache
def typestore() -> Any:
    """Message types of ROS 2 Jazzy and of this package, as a ``rosbags`` type store.

    Raises:
        DataError: This package's message definitions are not found.
        MissingDependencyError: rosbags is not installed.
    """
    return _new_typestore()


def _new_typestore() -> Any:
    typesys = require("rosbags.typesys", "Reading and writing bags")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    for path in sorted(_message_folder().glob("*.msg")):
        store.register(typesys.get_types_from_msg(path.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{path.stem}"))
    return store


def _message_folder() -> Path:
    """``msg/`` of the source tree, or of the installed package."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    installed = [Path(prefix, "share", PACKAGE, "msg") for prefix in prefixes if prefix]
    for folder in (Path(__file__).resolve().parent.parent / "msg", *installed):
        if (folder / "Prediction.msg").is_file():
            return folder
    raise DataError(f"the message definitions of {PACKAGE} are in none of: {', '.join(map(str, installed))}")


def message(ros_type: str, fields: Mapping[str, Any], stamp_ns: int | None = None, frame_id: str = "") -> Any:
    """A message of a ``rosbags`` type.

    Args:
        ros_type: For example ``"sensor_msgs/msg/Image"``.
        fields: Its fields without the header, arrays as NumPy arrays; see :mod:`omnibind_ros.messages`.
        stamp_ns: Time in the header, ns; None if the type has no header.
        frame_id: Coordinate frame in the header.
    """
    types = typestore().types
    if stamp_ns is None:
        return types[ros_type](**fields)
    stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000))
    return types[ros_type](header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id), **fields)


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
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, topic: str, ros_type: str, time_ns: int, item: Any) -> None:
        """Appends one message.

        Args:
            topic: Topic; always the same type on one topic.
            ros_type: Its type.
            time_ns: When it was received, ns.
            item: From :func:`message`.
        """
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, ros_type, typestore=typestore())
        self._writer.write(self._connections[topic], time_ns, typestore().serialize_cdr(item, ros_type))


def topics(path: Path) -> dict[str, str]:
    """Types of the topics in a bag, by topic.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as reader:
        return {connection.topic: connection.msgtype for connection in reader.connections}


def read(path: Path, only: Collection[str] | None = None, start_ns: int | None = None) -> Iterator[RecordedMessage]:
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
        types = _types_of(reader.connections)
        for connection, time_ns, data in reader.messages(wanted, start=start_ns):
            yield RecordedMessage(connection.topic, connection.msgtype, time_ns, data, types)


def decode(item: RecordedMessage) -> Any:
    """The message as an object of ``rosbags``; its arrays are NumPy arrays.

    Raises:
        InvalidInputError: Its type is defined nowhere, or the bytes are not of that type.
    """
    if item.type not in item.types.types:
        raise InvalidInputError(item.topic, f"a message of type {item.type}", "a type that the bag defines")
    try:
        return item.types.deserialize_cdr(item.data, item.type)
    except Exception as error:  # rosbags unpacks unchecked: whatever damaged bytes lead to
        found = f"{len(item.data)} bytes that are no {item.type}"
        raise InvalidInputError(item.topic, found, f"a whole message ({error})") from error


def span_ns(path: Path) -> tuple[int, int]:
    """Times of the first and the last message, ns.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as reader:
        return reader.start_time, reader.end_time


def _types_of(connections: Collection[Any]) -> Any:
    """A type store that knows the types of a bag: where the bag defines a type unknown here, by its definition."""
    unknown = {c.msgtype: c.msgdef for c in connections if c.msgtype not in typestore().types}
    if not unknown:
        return typestore()
    typesys = require("rosbags.typesys", "Reading bags")
    store = _new_typestore()
    parsers = {"MSG": typesys.get_types_from_msg, "IDL": typesys.get_types_from_idl}
    for ros_type, definition in unknown.items():
        parse = parsers.get(definition.format.name)
        if parse is typesys.get_types_from_msg:
            found = parse(definition.data, ros_type)
        elif parse is not None:
            found = parse(definition.data)
        else:  # bags of Humble hold no definitions
            texts = {**DEFINITIONS, **SAME_NAME.get(ros_type, {})}
            found = {}
            for name in _needed(ros_type, texts):
                found.update(typesys.get_types_from_msg(texts[name], name))
        store.register({name: fields for name, fields in found.items() if name not in store.types})
    return store


def _needed(ros_type: str, texts: Mapping[str, str]) -> list[str]:
    """Those of the definitions that a type is made of, itself included; none if it is not among them."""
    if ros_type not in texts:
        return []
    inner = [line.split("[")[0].split()[0].replace("/", "/msg/") for line in texts[ros_type].splitlines()]
    return [ros_type, *(name for one in inner for name in _needed(one, texts))]


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    rosbag2 = require("rosbags.rosbag2", "Reading a bag")
    if not path.exists():
        raise DataError(f"{path} is not a readable rosbag2: there is no such folder or file")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        hint = f"it has no metadata.yaml; restore it by: ros2 bag reindex {path}"
        raise DataError(f"{path} is not a readable rosbag2: {hint}")
    try:
        with rosbag2.Reader(path) as reader:
            yield reader
    except (rosbag2.ReaderError, OSError, sqlite3.Error, struct.error, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable rosbag2: {error}") from error
