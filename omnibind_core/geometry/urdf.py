"""Fixed frames of a robot, from its URDF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry.frames import Transform, rpy

_XACRO = re.compile(r"\{[^}]*/xacro/?\}(\w+)")  # an element of it, as ElementTree tells it


def fixed_frames(text: str, source: str) -> Iterator[tuple[str, str, Transform]]:
    """Parent, child and transform of every fixed joint; those that move are known from ``/tf`` alone.

    Args:
        text: The URDF, xacro already expanded.
        source: File or parameter that it is from, for error messages.

    Raises:
        InvalidInputError: It is no URDF, or not expanded, or a joint lacks a link or has an origin that is no six
            finite numbers.
    """
    try:
        robot = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InvalidInputError(source, f"no XML: {error}", "a URDF") from error
    if robot.tag != "robot":
        raise InvalidInputError(source, f"XML of a <{robot.tag}>", "a URDF, which is a <robot>")
    for macro in filter(None, (_XACRO.fullmatch(part.tag) for part in robot.iter() if isinstance(part.tag, str))):
        expected = "a URDF: what the program xacro makes of it"
        raise InvalidInputError(source, f"a xacro that is not expanded: <xacro:{macro[1]}>", expected)
    for joint in robot.findall("joint"):
        if joint.get("type") != "fixed":
            continue
        name = joint.get("name", "")
        ends = [None if part is None else part.get("link") for part in (joint.find("parent"), joint.find("child"))]
        if not ends[0] or not ends[1]:
            raise InvalidInputError(source, f"joint '{name}' without the link of its parent or child", "both")
        origin = joint.find("origin")
        moved, turned = ("", "") if origin is None else (origin.get("xyz", ""), origin.get("rpy", ""))
        place, angles = _three(moved, name, source), _three(turned, name, source)
        try:
            transform = Transform.of(place, rpy(*angles))
        except InvalidInputError as error:
            raise InvalidInputError(source, f"joint '{name}' with {error.value}", error.expected) from None
        yield ends[0], ends[1], transform


def _three(text: str, joint: str, source: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split() or "000")
    except ValueError:
        raise InvalidInputError(source, f"the origin '{text}' of joint '{joint}'", "three numbers") from None
    return x, y, z
