"""Transforms of messages, texts and descriptions, and what is wrong with some."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import FrameTree
from omnibind_core.geometry.frames import SECOND
from omnibind_ros.messages.objects import TransformReader, transform_of

NOW = 1_000 * SECOND


def transform(parent, child, moved=(0.0, 0.0, 0.0), turned=(0.0, 0.0, 0.0, 1.0), stamp_ns=NOW):
    stamp = SimpleNamespace(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    header = SimpleNamespace(frame_id=parent, stamp=stamp)
    inner = SimpleNamespace(
        translation=SimpleNamespace(**dict(zip("xyz", moved, strict=True))),
        rotation=SimpleNamespace(**dict(zip("xyzw", turned, strict=True))),
    )
    return SimpleNamespace(header=header, child_frame_id=child, transform=inner)


def message(*transforms):
    return SimpleNamespace(transforms=[*transforms])


@pytest.fixture
def tree():
    return FrameTree()


def test_frames_that_stand_still_and_frames_that_move(tree):
    reader = TransformReader(tree)
    reader.read(message(transform("base", "camera", (1, 2, 3), stamp_ns=0)), "/tf_static", True, NOW)
    reader.read(message(transform("odom", "base", (0, 0, 0))), "/tf", False, NOW)
    later = NOW + SECOND // 10
    reader.read(message(transform("odom", "base", (1, 0, 0), (0, 0, 1, 0), later)), "/tf", False, later)
    found = tree.lookup("odom", "camera", later)
    assert np.allclose(found.translation, (0, -2, 3)) and np.allclose(found.rotation, np.diag([-1, -1, 1]))
    assert np.allclose(tree.lookup("odom", "base", NOW + SECOND // 20).translation, (0.5, 0, 0))
    assert reader.rejections.count == 0


@pytest.mark.parametrize(
    ("wrong", "static", "complaint"),
    [
        (transform("base", "camera", (np.nan, 0, 0)), True, "translation [nan, 0.0, 0.0]"),
        (transform("base", "camera", turned=(0, 0, 0, 0)), True, "a quaternion of length 0, expected finite metres"),
        (transform("base", "odom"), True, "a loop: odom -> base -> odom, expected a tree"),
        (transform("", "camera"), True, "a transform from 'camera' to '', expected names of two frames"),
        (transform("odom", "base"), False, "'base' both on /tf and on /tf_static"),
        (transform("odom", "arm", stamp_ns=NOW + 3600 * SECOND), False,
         "a transform stamped 3600.000 s after now, expected 5 s after to 10 s before: one clock for all"),
        (transform("odom", "arm", stamp_ns=7 * SECOND), False, "a transform stamped 993.000 s before now"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_counted_with_its_frames_and_the_rest_goes_on(tree, wrong, static, complaint):
    reader = TransformReader(tree)
    reader.read_lines(["odom base 0 0 0 0 0 0"], "objects.transforms")
    topic = "/tf_static" if static else "/tf"
    reader.read(message(wrong, transform("base", "lidar", (0, 0, 1))), topic, static, NOW)
    assert reader.rejections.count == 1
    ((source, reason),) = reader.rejections.reasons.items()
    assert complaint in reason
    assert source == f"{topic}: '{wrong.child_frame_id}' in '{wrong.header.frame_id}'" and source in reason
    assert tree.lookup("odom", "lidar", NOW).translation[2] == 1


def test_a_text_is_a_transform(tree):
    parent, child, found = transform_of("base_link camera 0.1 -0.2 0.3 0 0 1.5707963", "objects.transforms")
    assert (parent, child) == ("base_link", "camera")
    assert np.allclose(found(np.array([[1.0, 0, 0]])), [[0.1, 0.8, 0.3]])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("base camera 0 0 0", "'base camera 0 0 0', expected 'parent child x y z roll pitch yaw', six numbers"),
        ("base camera 0 0 0 0 0 left", "'base camera 0 0 0 0 0 left', expected"),
        ("", "'', expected"),
        ("base camera 0 0 nan 0 0 0", r"'base camera 0 0 nan 0 0 0': translation \[0.0, 0.0, nan\]"),
        ("base camera 0 0 0 0 0 inf", "angles 0, 0, inf, expected finite radians"),
    ],
)
def test_a_text_that_is_none_is_refused(text, complaint):
    with pytest.raises(InvalidInputError, match=rf"\[objects.transforms\] got {complaint}|{complaint}"):
        transform_of(text, "objects.transforms")


ROBOT = """<robot name="r"><joint name="mast" type="fixed"><parent link="base"/><child link="camera"/>
<origin xyz="0 0 2"/></joint></robot>"""


def test_a_description_gives_the_fixed_frames_and_a_broken_one_is_counted(tree):
    reader = TransformReader(tree)
    reader.read_description(SimpleNamespace(data=ROBOT), "/robot_description")
    assert tree.lookup("base", "camera", NOW).translation[2] == 2
    reader.read_description(SimpleNamespace(data="<robot"), "/robot_description")
    assert "no XML" in reader.rejections.reasons["/robot_description"] and reader.rejections.count == 1


def test_a_loop_is_told_with_its_text(tree):
    complaint = r"\[objects.transforms\] got 'b a 0 0 0 0 0 0': a loop: a -> b -> a, expected a tree"
    with pytest.raises(InvalidInputError, match=complaint):
        TransformReader(tree).read_lines(["a b 0 0 0 0 0 0", "b a 0 0 0 0 0 0"], "objects.transforms")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ('<parent link="camera"/><child link="base"/>', r"\[/robot\] got a loop: base -> camera -> base"),
        ('<parent link="camera"/><child link="lens"/><origin xyz="0 0 left"/>', r"\[/robot\] got the origin"),
    ],
)
def test_of_a_description_that_cannot_be_nothing_is_taken(tree, more, complaint):
    joint = f'<joint name="lens" type="fixed">{more}</joint>'
    with pytest.raises(InvalidInputError, match=complaint):
        TransformReader(tree).read_urdf(ROBOT.replace("</robot>", f"{joint}</robot>"), "/robot")
    assert "camera" not in tree
