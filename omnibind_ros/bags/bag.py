"""rosbag2 recordings without ROS: writing messages by their fields (MCAP), reading topics lazily (MCAP, sqlite3)."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from omnibind_core import resources
from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.optional import require
from omnibind_ros.bags.definitions import DEFINITIONS, SAME_NAME
from omnibind_ros.bags.recovery import MendedPath, is_cut

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
        defined: Whether the bag says how the type is defined; otherwise it is taken as it is defined here.
    """

    topic: str
    type: str
    time_ns: int
    data: bytes
    types: Any = field(repr=False, compare=False)
    defined: bool = field(default=True, repr=False, compare=False)


@functools.cache
def typestore() -> Any:
    """Message types of ROS 2 Jazzy and of this package, as a ``rosbags`` type store.

    Raises:
        DataError: This package's message definitions are not found.
        MissingDependencyError: rosbags is not installed.
    """
    return _new_typestore()


def _new_typestore(others: Collection[str] = ()) -> Any:
    """A store of its own, without those types of this package that are to be defined otherwise."""
    typesys = require("rosbags.typesys", "Reading and writing bags")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    store.register({name: fields for name, fields in _own_definitions().items() if name not in others})
    return store


@functools.cache
def _own_definitions() -> Mapping[str, Any]:
    """The parsed definitions of this package's message types."""
    parse = require("rosbags.typesys", "Reading and writing bags").get_types_from_msg
    found: dict[str, Any] = {}
    for path in sorted(resources.shared("msg", PACKAGE).glob("*.msg")):
        found.update(parse(path.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{path.stem}"))
    return found


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
        self.write_raw(topic, ros_type, time_ns, typestore().serialize_cdr(item, ros_type))

    def write_raw(self, topic: str, ros_type: str, time_ns: int, data: bytes) -> None:
        """Appends one message that is in CDR already; see :meth:`write`, and :func:`learn` for foreign types."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, ros_type, typestore=typestore())
        self._writer.write(self._connections[topic], time_ns, data)


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
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._parts:
            _join(self._path, self._parts)


def _join(path: Path, parts: Sequence[Path]) -> None:
    """Makes one bag of several files out of bags that lie in its folder."""
    infos = [_read_metadata(part) for part in parts]
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


def _read_metadata(path: Path) -> dict[str, Any]:
    content = yaml.safe_load((path / "metadata.yaml").read_text(encoding="utf-8"))
    info: dict[str, Any] = content["rosbag2_bagfile_information"]
    return info


def learn(ros_type: str) -> None:
    """Makes a message type known that is installed on this machine, so that it can be written.

    Raises:
        DataError: Its definition is not found.
    """
    if ros_type in typestore().types:
        return
    parse = require("rosbags.typesys", "Writing a bag").get_types_from_msg
    found: dict[str, Any] = {}
    missing = [ros_type]
    while missing:
        name = missing.pop()
        text = _installed_definition(name) or DEFINITIONS.get(name)
        if text is None:
            raise DataError(f"the definition of the message type {name} is not installed")
        found.update(parse(text, name))
        known = {*found, *typestore().types}
        missing = [*missing, *(one for one in _referred(found[name]) if one not in known)]
    typestore().register(found)


def _installed_definition(ros_type: str) -> str | None:
    package, _, name = ros_type.partition("/msg/")
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix, "share", package, "msg", f"{name}.msg")
        if prefix and path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def _referred(definition: Any) -> Iterator[str]:
    """Message types that the fields of a parsed definition have."""
    for _, field_type in definition[1]:
        inner = field_type[1]
        while isinstance(inner, tuple) and isinstance(inner[0], tuple):  # arrays and sequences of something
            inner = inner[0][1]
        if isinstance(inner, str) and "/msg/" in inner:
            yield inner


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
        own = [connection for connection in reader.connections if connection.msgtype in _own_definitions()]
        return {connection.topic for connection in own if _changed(_parsed(connection.msgtype, connection.msgdef))}


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
            defined = connection.msgdef.format.name != "NONE"
            yield RecordedMessage(connection.topic, connection.msgtype, time_ns, data, types, defined)
    if is_cut(path):
        raise DataError(f"{path} is cut off: what was written last is missing")


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
        expected = (
            "a whole message" if item.defined else "a whole message as defined here, for the bag does not define it"
        )
        raise InvalidInputError(item.topic, found, f"{expected} ({error})") from error


def span_ns(path: Path) -> tuple[int, int]:
    """Times of the first and the last message, ns.

    Raises:
        DataError: There is no readable bag.
    """
    with _open(path) as reader:
        return reader.start_time, max(reader.end_time - 1, 0)  # rosbags counts to the ns behind the last one


def _types_of(connections: Collection[Any]) -> Any:
    """A type store that knows the types of a bag, by its own definition where a type is unknown here or has changed."""
    others: dict[str, Any] = {}
    for ros_type, definition in {c.msgtype: c.msgdef for c in connections}.items():
        if ros_type not in typestore().types or ros_type in _own_definitions():
            parsed = _parsed(ros_type, definition)
            new = {name: fields for name, fields in parsed.items() if name not in typestore().types}
            others = {**new, **_changed(parsed), **others}
    if not others:
        return typestore()
    store = _new_typestore(others)
    store.register(others)
    return store


def _changed(parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Those of parsed definitions that are of types of this package, with other fields than here."""
    own = _own_definitions()
    return {name: definition for name, definition in parsed.items() if name in own and definition[1] != own[name][1]}


@functools.lru_cache(maxsize=64)
def _parsed(ros_type: str, definition: Any) -> Mapping[str, Any]:
    """A type's definition in a bag, or else the one that is known of it, and those of all types in it."""
    typesys = require("rosbags.typesys", "Reading bags")
    if definition.format.name == "MSG":
        return dict(typesys.get_types_from_msg(definition.data, ros_type))
    if definition.format.name == "IDL":
        return dict(typesys.get_types_from_idl(definition.data))
    texts = {**DEFINITIONS, **SAME_NAME.get(ros_type, {})}  # bags of Humble hold no definitions
    found: dict[str, Any] = {}
    for name in _needed(ros_type, texts):
        found.update(typesys.get_types_from_msg(texts[name], name))
    return found


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
        hint = f"it has no metadata.yaml; restore it by: ros2 bag reindex {path}, or name its .mcap or .db3 file"
        raise DataError(f"{path} is not a readable rosbag2: {hint}")
    try:
        with rosbag2.Reader(MendedPath(path) if is_cut(path) else path) as reader:
            yield reader
    except (rosbag2.ReaderError, OSError, sqlite3.Error, struct.error, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable rosbag2: {error}") from error
