"""Fixed frames of a robot, from its URDF."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry.frames import Transform, rpy


def fixed_frames(text: str, source: str) -> Iterator[tuple[str, str, Transform]]:
    """Parent, child and transform of every fixed joint; those that move are known from ``/tf`` alone.

    Args:
        text: The URDF, xacro already expanded.
        source: File or parameter that it is from, for error messages.

    Raises:
        InvalidInputError: It is no URDF, or a joint lacks a link or has an origin that is no six numbers.
    """
    try:
        robot = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InvalidInputError(source, f"no XML: {error}", "a URDF") from error
    if robot.tag != "robot":
        raise InvalidInputError(source, f"XML of a <{robot.tag}>", "a URDF, which is a <robot>")
    for joint in robot.iter("joint"):
        if joint.get("type") != "fixed":
            continue
        name = joint.get("name", "")
        ends = [None if part is None else part.get("link") for part in (joint.find("parent"), joint.find("child"))]
        if not ends[0] or not ends[1]:
            raise InvalidInputError(source, f"joint '{name}' without the link of its parent or child", "both")
        origin = joint.find("origin")
        moved, turned = ("", "") if origin is None else (origin.get("xyz", ""), origin.get("rpy", ""))
        yield ends[0], ends[1], Transform.of(_three(moved, name, source), rpy(*_three(turned, name, source)))


def _three(text: str, joint: str, source: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split() or "000")
    except ValueError:
        raise InvalidInputError(source, f"the origin '{text}' of joint '{joint}'", "three numbers") from None
    return x, y, z
