"""Message types of bags without ROS: their definitions, messages by their fields, CDR to messages and back."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnibind_core import resources
from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.optional import require
from omnibind_ros.bags.definitions import DEFINITIONS, SAME_NAME
from omnibind_ros.bags.storage import Connection

PACKAGE = "omnibind_ros"
ROS1 = "ros1"
"""Encoding of messages as ROS 1 sends them."""
_RULE = "=" * 80 + "\n"  # stands between the definitions of a type and of the types in it
_INCLUDE = re.compile(r"^[ \t]*#.*$", re.MULTILINE)  # the parser knows no preprocessor; what is meant stands beside
_BASE, _ARRAY = 1, 3  # rosbags' numbers of a single value and of an array of a fixed length
_SERVICE = re.compile(r"^---$", re.MULTILINE)  # stands between what is asked and what is answered
# Neither is looked for in a text.
_COMMENT = re.compile(r"^[ \t]*#.*\n|^(?![ \t]*w?string[^=#\n]*=)([^#'\"\n]+)#.*$", re.MULTILINE)
_IDL_COMMENT = re.compile(r"""("(?:[^"\\]|\\.)*"?|'(?:\\.|[^'\\])')|//[^\n]*|/\*.*?(?:\*/|\Z)""", re.DOTALL)
_MOST_WORDS = 200  # letters of a parser's complaint
MOST_LETTERS = 1 << 15
"""Of a definition without its comments: it takes half a second to parse as many."""
MOST_PARTS = 1000
"""Fields of a definition, and strings and messages in arrays of a fixed length, as each becomes lines of code."""


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
    """A store of its own, without those types that are to be defined otherwise."""
    typesys = require("rosbags.typesys", "Reading and writing bags")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    if any(name in store.types for name in others):
        kept = {name: fields for name, fields in store.fielddefs.items() if name not in others}
        store = typesys.get_typestore(typesys.Stores.EMPTY)
        store.register(kept)
    store.register({name: fields for name, fields in own_definitions().items() if name not in others})
    return store


@functools.cache
def own_definitions() -> Mapping[str, Any]:
    """The parsed definitions of this package's message types."""
    parse = require("rosbags.typesys", "Reading and writing bags").get_types_from_msg
    found: dict[str, Any] = {}
    for path in sorted(resources.shared("msg", PACKAGE).glob("*.msg")):
        found.update(parse(path.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{path.stem}"))
    return found


def to_cdr(item_type: str, data: bytes, store: Any) -> bytes:
    """A message of ROS 1 in CDR; nothing if its bytes are not of that type."""
    try:
        return bytes(store.ros1_to_cdr(data, item_type))
    except Exception:  # rosbags unpacks unchecked: whatever damaged bytes lead to
        return b""


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
        expected = (
            "a whole message" if item.defined else "a whole message as defined here, for the bag does not define it"
        )
        raise InvalidInputError(item.topic, found, f"{expected} ({error})") from error


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


def store_of(connections: Collection[Connection]) -> Any:
    """A type store that knows the types of a bag, by its own definition where a type is unknown here or has changed."""
    others: dict[str, Any] = {}
    for one in {(c.type, c.format, c.definition): c for c in connections}.values():
        if one.type not in typestore().types or one.type in own_definitions() or one.encoding == ROS1:
            parsed = parsed_definition(one.type, one.format, one.definition)
            new = {name: fields for name, fields in parsed.items() if name not in typestore().types}
            others = {**new, **changed(one), **others}
    if not others:
        return typestore()
    store = _new_typestore(others)
    store.register(others)
    return store


def changed(connection: Connection) -> dict[str, Any]:
    """Definitions in a bag that differ from those here: of types of this package, and of ROS 1 of any."""
    parsed = parsed_definition(connection.type, connection.format, connection.definition)
    known = typestore().fielddefs if connection.encoding == ROS1 else own_definitions()
    # ROS 1 has a number in each header, which is left out on the way.
    names = (name for name in parsed if name in known and name != "std_msgs/msg/Header")
    return {name: parsed[name] for name in names if _fields(parsed[name]) != _fields(known[name])}


def _fields(definition: Any) -> list[tuple[str, Any]]:
    return [(name.lower(), kind) for name, kind in definition[1]]


def unreadable(connection: Connection) -> str:
    """Why nobody here can read the messages of a topic; ``""``: they can be read, or rejected one by one."""
    if connection.encoding not in ("cdr", ROS1):
        return f"its messages are encoded as '{connection.encoding}', expected cdr"
    if not connection.type:
        return "its messages have no type"
    try:
        parsed = parsed_definition(connection.type, connection.format, connection.definition)
    except Exception as error:  # of the parser, whatever foreign text leads to
        text = " ".join(str(error).split()) or type(error).__name__
        if _SERVICE.search(connection.definition):
            text = "it is that of a service or an action"
        return f"the definition of {connection.type} in the bag cannot be parsed: {text[:_MOST_WORDS]}"
    known = {*parsed, *typestore().types}
    lacking = sorted({inner for one in parsed.values() for inner in _referred(one) if inner not in known})
    return f"the definition of {connection.type} in the bag lacks {', '.join(lacking)}" if lacking else ""


@functools.lru_cache(maxsize=256)
def parsed_definition(ros_type: str, kind: str, text: str) -> Mapping[str, Any]:
    """A type's definition in a bag, or else the one that is known of it, and those of all types in it.

    Raises:
        Exception: It cannot be parsed, and is known from nowhere else.
    """
    typesys = require("rosbags.typesys", "Reading bags")
    texts = {**DEFINITIONS, **SAME_NAME.get(ros_type, {})}  # bags of Humble hold no definitions
    found: dict[str, Any] = {}
    if kind and text:
        try:
            text = _without_comments(text, kind)
            if len(text) > MOST_LETTERS:
                raise ValueError(f"it has {len(text)} letters, expected at most {MOST_LETTERS}")
            if kind == "idl":
                parts = [part.partition("\n")[2] if part.startswith("IDL: ") else part for part in text.split(_RULE)]
                for part in filter(str.strip, parts):
                    found.update(typesys.get_types_from_idl(part))
            else:
                found.update(typesys.get_types_from_msg(text, ros_type))
            if ros_type not in found:
                raise ValueError(f"it defines {', '.join(found) or 'nothing'}")
            _check_parts(found)
            typesys.get_typestore(typesys.Stores.EMPTY).register(found)  # two fields of one name get through the parser
        except Exception:
            if ros_type not in {**texts, **typestore().types}:
                raise
        else:
            return found
    for name in _needed(ros_type, texts):
        found.update(typesys.get_types_from_msg(texts[name], name))
    return found


def _without_comments(text: str, kind: str) -> str:
    if kind == "idl":
        return _IDL_COMMENT.sub(lambda found: found[1] or " ", _INCLUDE.sub("", text))
    return _COMMENT.sub(lambda found: found[1] or "", text)


def _check_parts(found: Mapping[str, Any]) -> None:
    """Refuses definitions that would be unrolled to too much code.

    Raises:
        ValueError: They have more than :data:`MOST_PARTS`.
    """
    parts = 0
    for _, fields in found.values():
        for _, (node, inner) in fields:
            array = node == _ARRAY and (inner[0][0] != _BASE or inner[0][1][0] == "string")
            parts += inner[1] if array else 1
    if parts > MOST_PARTS:
        raise ValueError(f"it has {parts} fields and elements of arrays, expected at most {MOST_PARTS}")


def _needed(ros_type: str, texts: Mapping[str, str]) -> list[str]:
    """Those of the definitions that a type is made of, itself included; none if it is not among them."""
    if ros_type not in texts:
        return []
    inner = [line.split("[")[0].split()[0].replace("/", "/msg/") for line in texts[ros_type].splitlines()]
    return [ros_type, *(name for one in inner for name in _needed(one, texts))]
