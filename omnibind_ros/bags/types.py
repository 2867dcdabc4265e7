"""Message types of bags without ROS: their definitions, messages by their fields, CDR to messages and back."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.optional import require
from omnibind_ros.bags.definitions import DEFINITIONS, SAME_NAME

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
    for folder in (Path(__file__).resolve().parent.parent.parent / "msg", *installed):
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


def store_of(connections: Collection[Any]) -> Any:
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
