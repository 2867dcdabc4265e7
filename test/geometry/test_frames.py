"""Frames: the arithmetic of tf2 by homogeneous matrices and slerp, trees that are none, times that are not known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import FrameTree, Transform
from omnibind_core.geometry.frames import MOST_FRAMES, MOST_LEVELS, MOST_TIMES, SECOND, rpy
from omnibind_core.geometry.urdf import fixed_frames


def quaternion_matrix(q: np.ndarray) -> np.ndarray:
    """As in the books: not the library that the transforms use."""
    x, y, z, w = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def homogeneous(q: np.ndarray, t: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = quaternion_matrix(q), t
    return out


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """tf2's: of quaternions."""
    if a @ b < 0:
        b = -b
    angle = np.arccos(min(1.0, a @ b))
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def random_quaternion(rng: np.random.Generator) -> np.ndarray:
    q = rng.normal(size=4)
    return q / np.linalg.norm(q)


def test_chains_are_products_of_matrices_at_the_time_asked_for(rng: np.random.Generator) -> None:
    for _ in range(200):
        tree, poses, chain = FrameTree(), {}, ["map", "odom", "base", "mast", "camera"]
        for parent, child in itertools.pairwise(chain):
            moving = child in ("odom", "mast")
            poses[child] = [(random_quaternion(rng), rng.normal(size=3)) for _ in range(2 if moving else 1)]
            for stamp, (q, t) in zip((SECOND, 3 * SECOND), poses[child], strict=False):
                tree.add(parent, child, Transform.of(t, q), stamp if moving else None)
        arm = (random_quaternion(rng), rng.normal(size=3))
        tree.add("base", "/hand", Transform.of(arm[1], arm[0]))
        share = float(rng.uniform(0.05, 0.95))
        stamp = round((1 + 2 * share) * SECOND)

        def at(child: str, share: float = share, poses: dict = poses) -> np.ndarray:
            pairs = poses[child]
            if len(pairs) == 1:
                return homogeneous(*pairs[0])
            (qa, ta), (qb, tb) = pairs
            return homogeneous(slerp(qa, qb, share), (1 - share) * ta + share * tb)

        to_map = at("odom") @ at("base") @ at("mast") @ at("camera")
        points = rng.normal(size=(5, 3))
        padded = np.concatenate([points, np.ones((5, 1))], axis=1)
        np.testing.assert_allclose(tree.lookup("map", "camera", stamp)(points), (padded @ to_map.T)[:, :3], atol=1e-6)
        to_hand = np.linalg.inv(homogeneous(*arm)) @ at("mast") @ at("camera")
        np.testing.assert_allclose(tree.lookup("hand", "camera", stamp)(points), (padded @ to_hand.T)[:, :3], atol=1e-6)
        there = tree.lookup("camera", "map", stamp)(tree.lookup("map", "camera", stamp)(points))
        np.testing.assert_allclose(there, points, atol=1e-9)


def still() -> Transform:
    return Transform.of((1, 0, 0), (0, 0, 0, 1))


def test_a_loop_is_refused_and_the_tree_stays() -> None:
    tree = FrameTree()
    tree.add("a", "b", still())
    tree.add("b", "c", still())
    with pytest.raises(InvalidInputError, match="a loop: a -> c -> b -> a"):
        tree.add("c", "a", still())
    with pytest.raises(InvalidInputError, match="a loop: a -> a"):
        tree.add("a", "a", still())
    np.testing.assert_allclose(tree.lookup("a", "c", 0)(np.zeros((1, 3))), [[2, 0, 0]])


@pytest.mark.parametrize(
    ("target", "source", "told"),
    [
        ("base", "lidar", "no frame 'lidar', for a transform from 'lidar' to 'base'"),
        ("base", "far", "no way from 'far' to 'base'.*they hang on 'other' and 'base'"),
        ("base", "turret", r"from 'turret' to 'base'"),
    ],
)
def test_what_is_missing_is_named_with_both_frames(target: str, source: str, told: str) -> None:
    tree = FrameTree()
    tree.add("base", "turret", still(), 5 * SECOND)
    tree.add("other", "far", still())
    with pytest.raises(InvalidInputError, match=told):
        tree.lookup(target, source, 9 * SECOND)


def test_a_time_too_late_too_early_or_forgotten_is_refused_with_the_seconds() -> None:
    tree = FrameTree(keep=10, reach=0.2)
    for second in range(30):
        tree.add("base", "turret", Transform.of((second, 0, 0), (0, 0, 0, 1)), second * SECOND)
    assert tree.lookup("base", "turret", round(28.5 * SECOND)).translation[0] == pytest.approx(28.5)
    assert tree.lookup("base", "turret", round(29.1 * SECOND)).translation[0] == 29  # within reach
    for stamp, told in ((29.5, "0.500 s after the newest"), (3, "16.000 s before the oldest")):
        with pytest.raises(InvalidInputError, match=told):
            tree.lookup("base", "turret", round(stamp * SECOND))
    tree.clear()
    with pytest.raises(InvalidInputError, match="no frame"):
        tree.lookup("base", "turret", 29 * SECOND)


def test_bad_numbers_and_names_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="length 2"):
        Transform.of((0, 0, 0), (0, 0, 0, 2))
    with pytest.raises(InvalidInputError, match="nan"):
        Transform.of((np.nan, 0, 0), (0, 0, 0, 1))
    with pytest.raises(InvalidInputError, match="names of two frames"):
        FrameTree().add("/", "a", still())
    tree = FrameTree()
    tree.add("a", "b", still())
    with pytest.raises(InvalidInputError, match="both on /tf and on /tf_static"):
        tree.add("a", "b", still(), 1)


URDF = """<robot name="r">
  <joint name="mast" type="fixed"><parent link="base"/><child link="camera"/>
    <origin xyz="0 0 1.5" rpy="0 0 {}"/></joint>
  <joint name="wheel" type="continuous"><parent link="base"/><child link="wheel"/></joint>
  <joint name="plain" type="fixed"><parent link="camera"/><child link="lens"/></joint>
</robot>"""

XACRO = '<robot xmlns:xacro="http://www.ros.org/wiki/xacro">{}<!-- what expands it leaves comments --></robot>'


def test_what_xacro_expanded_may_still_name_it_and_joints_of_a_simulator_are_none_of_the_robot() -> None:
    inner = '<gazebo><joint name="sdf" type="fixed"><parent>base</parent><child>wheel</child></joint></gazebo>'
    text = URDF.format(0).replace("</robot>", f"{inner}</robot>").replace("<robot", XACRO.partition(">")[0])
    assert [child for _, child, _ in fixed_frames(text, "robot_description")] == ["camera", "lens"]


def test_fixed_joints_of_a_urdf_are_frames() -> None:
    tree = FrameTree()
    for parent, child, transform in fixed_frames(URDF.format(np.pi / 2), "robot_description"):
        tree.add(parent, child, transform)
    np.testing.assert_allclose(tree.lookup("base", "lens", 0)(np.array([[1.0, 0, 0]])), [[0, 1, 1.5]], atol=1e-12)
    with pytest.raises(InvalidInputError, match="no frame 'wheel'"):
        tree.lookup("base", "wheel", 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing", "no XML"),
        ("<sdf/>", "XML of a <sdf>"),
        (URDF.format("left"), "the origin '0 0 left' of joint 'mast'"),
        (URDF.format("inf"), r"\[robot_description\] got joint 'mast' with angles 0, 0, inf, expected finite radians"),
        (XACRO.format("<xacro:include filename='arm.xacro'/>"), "a xacro that is not expanded: <xacro:include>"),
        (
            XACRO.format("<link><xacro:box_inertia m='1'/></link>"),
            "expected a URDF: what the program xacro makes of it",
        ),
        (URDF.format(0).replace('<parent link="base"/>', "", 1), "joint 'mast' without the link"),
    ],
)
def test_what_is_no_urdf_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        list(fixed_frames(text, "robot_description"))


def test_angles_turn_about_fixed_axes() -> None:
    turned = Transform.of((0, 0, 0), rpy(0.1, 0.2, 0.3)).rotation
    c, s = np.cos, np.sin
    z = np.array([[c(0.3), -s(0.3), 0], [s(0.3), c(0.3), 0], [0, 0, 1]])
    y = np.array([[c(0.2), 0, s(0.2)], [0, 1, 0], [-s(0.2), 0, c(0.2)]])
    x = np.array([[1, 0, 0], [0, c(0.1), -s(0.1)], [0, s(0.1), c(0.1)]])
    np.testing.assert_allclose(turned, z @ y @ x, atol=1e-12)


def test_a_tree_is_bounded_whatever_messages_name() -> None:
    tree, here = FrameTree(), Transform.identity()
    for number in range(MOST_LEVELS):
        tree.add(f"level {number}", f"level {number + 1}", here)
    with pytest.raises(InvalidInputError, match=rf"below {MOST_LEVELS + 1} others, expected at most {MOST_LEVELS}"):
        tree.add(f"level {MOST_LEVELS}", "deeper", here)
    for number in range(MOST_LEVELS, MOST_FRAMES):
        tree.add("level 0", f"frame {number}", here)
    with pytest.raises(InvalidInputError, match=rf"beside {MOST_FRAMES} others, expected at most {MOST_FRAMES}"):
        tree.add("level 0", "one more", here)
    tree.add("level 0", f"frame {MOST_LEVELS}", here)  # one that is known may change
    with pytest.raises(InvalidInputError, match=r"frame 1019 and 2029 more$"):
        tree.lookup("level 0", "nobody", 0)


def test_frames_of_things_that_are_gone_make_room() -> None:
    tree, here = FrameTree(), Transform.identity()
    tree.add("base", "camera", here)
    for second in range(1, MOST_FRAMES + 1000):
        tree.add("base", f"track {second}", here, second * SECOND)
    tree.add("base", "lidar", here)
    assert "camera" in tree and "lidar" in tree and f"track {MOST_FRAMES + 999}" in tree and "track 1" not in tree


def test_transforms_of_a_frame_are_bounded_however_many_come_in_a_second() -> None:
    tree = FrameTree()
    for stamp in range(MOST_TIMES + 10):
        tree.add("map", "odom", Transform(np.eye(3), np.full(3, stamp)), SECOND + stamp)
    assert tree.lookup("map", "odom", SECOND + MOST_TIMES).translation[0] == MOST_TIMES
    with pytest.raises(InvalidInputError, match="before the oldest"):
        tree.lookup("map", "odom", SECOND + 9)
