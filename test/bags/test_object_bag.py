"""Bags of rendered rooms: what is in them, and that calibration, transforms and boxes belong together."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("open3d")
pytest.importorskip("rosbags")

from omnibind_core.cli import parser
from omnibind_core.data.rendering.scenes import robot, surfaces
from omnibind_core.data.rendering.scenes.layout import Built
from omnibind_core.data.rendering.scenes.surfaces import Paint
from omnibind_core.errors import ConfigError
from omnibind_core.geometry import Camera, FrameTree, Transform
from omnibind_core.objects.rig import Reading, Rig
from omnibind_ros.bags import object_bag, read, types
from omnibind_ros.bags.scene_bag import EPOCH_NS
from omnibind_ros.messages import CAMERA_INFO, DecodeOptions, decode

SIZES = {"camera": (96, 72), "thermal": (32, 24), "event_camera": (64, 48)}
"""Small pictures, so that a test is quick."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes instead of packages, and small pictures."""
    mounts = {
        name: mount if mount.camera is None else replace(mount, camera=mount.camera.resized(*SIZES[name]))
        for name, mount in robot.MOUNTS.items()
    }
    monkeypatch.setattr(robot, "MOUNTS", mounts)
    monkeypatch.setattr(object_bag, "of_packages", lambda kind, known, cache: things)


def things(rng: np.random.Generator) -> Iterator[Built]:
    box = surfaces.box((0, 0, 0), (0.6, 0.5, 0.9), Paint((0.9, 0.2, 0.1))).standing((0.6, 0.5, 0.9))
    for number in rng.permutation(6):
        warm = number == 1
        yield Built(f"crate {number}", box, box, 34.0 if warm else 20.5, False, bool(warm))


def write(path: Path, seconds: float = 0.6) -> list[str]:
    return object_bag.write(path, path / "objects.csv", "rooms", things, 2, seconds, seed=4)


def contents(path: Path) -> Iterator[tuple[str, int, Any]]:
    for item in read.messages(path):
        yield item.topic, item.time_ns, types.decode(item)


def transform(message: Any) -> Transform:
    moved, turned = message.transform.translation, message.transform.rotation
    return Transform.of((moved.x, moved.y, moved.z), (turned.x, turned.y, turned.z, turned.w))


def stamp(message: Any) -> int:
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


def rig_of(path: Path) -> Rig:
    """Made of nothing but what the bag tells."""
    rig = Rig("odom", FrameTree(keep=100.0))
    for topic, _, message in contents(path):
        for one in message.transforms if topic.startswith("/tf") else ():
            at = None if topic == "/tf_static" else stamp(one)
            rig.tree.add(one.header.frame_id, one.child_frame_id, transform(one), at)
        if topic.endswith("camera_info"):
            lens = Camera(
                message.width,
                message.height,
                (message.k[0], message.k[4]),
                (message.k[2], message.k[5]),
                message.distortion_model,
                tuple(message.d),
            )
            rig.cameras[topic.split("/")[1].replace("camera_info", "")] = lens
    return rig


def test_points_are_in_the_boxes_of_the_table(tmp_path: Path, small: None) -> None:
    labels = write(tmp_path / "bag")
    rig = rig_of(tmp_path / "bag")
    with (tmp_path / "bag" / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["id"], row["label"]) for row in rows} == {(str(n), label) for n, label in enumerate(labels)}
    assert rows == sorted(rows, key=lambda row: float(row["start_s"]))
    checked = Counter[str]()
    for topic, _, message in contents(tmp_path / "bag"):
        if topic != "/lidar/points":
            continue
        raw = decode("sensor_msgs/msg/PointCloud2", message, "point_cloud", DecodeOptions(), "lidar")
        at = stamp(message)
        cloud = rig.view(Reading("lidar", "point_cloud", raw, at, message.header.frame_id))
        points = cloud.pose(raw)
        now = (at - EPOCH_NS) / 1e9
        present = [row for row in rows if float(row["start_s"]) <= now < float(row["end_s"])]
        for row in (row for row in present if row["frame"]):
            x, y, z, length, width, height, yaw = (
                float(row[name]) for name in ("x", "y", "z", "length", "width", "height", "yaw")
            )
            turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
            local = (points - np.array([x, y, z])) @ turn
            # Not the floor that it stands on.
            own = points[(np.abs(local) < np.array([length, width, height - 0.1]) / 2 + 0.04).all(axis=1)]
            assert len(own) > 50
            for seen in (one for one in present if one["id"] == row["id"] and one["sensor"] in ("camera", "thermal")):
                name = seen["sensor"]
                frame = robot.MOUNTS[name].frame
                blank = np.zeros((*SIZES[name][::-1], 3), np.uint8)
                picture = rig.view(Reading(name, "image", blank, at, frame))
                pixels = picture.project(own)[0] + 0.5
                box = [float(seen[side]) for side in ("left", "top", "right", "bottom")]
                inside = (pixels >= np.array(box[:2]) - 2).all(axis=1) & (pixels <= np.array(box[2:]) + 2).all(axis=1)
                whole = (pixels >= 0).all(axis=1) & (pixels < np.array(SIZES[name])).all(axis=1)
                assert (inside | ~whole).mean() > 0.9, (row, seen)
                checked[name] += 1
    assert checked["camera"] > 10
    assert checked["thermal"] > 5


def test_messages_have_their_rates_and_calibration(tmp_path: Path, small: None) -> None:
    write(tmp_path / "bag")
    counts: Counter[str] = Counter()
    newest: dict[str, int] = {}
    for topic, time_ns, message in contents(tmp_path / "bag"):
        counts[topic] += 1
        assert time_ns >= newest.get(topic, 0)
        newest[topic] = time_ns
        if topic.startswith("/tf"):
            continue
        name = topic.split("/")[1]
        assert message.header.frame_id == robot.MOUNTS[name].frame
        assert stamp(message) <= time_ns
    pictures = dict.fromkeys(("/camera/image_raw", "/thermal/image_raw", "/lidar/points"), 6)
    infos = {f"/{name}/camera_info": 6 for name in SIZES}
    assert counts.pop("/event_camera/events") > 15
    assert counts == {**pictures, **infos, "/tf_static": 1, "/tf": 26}
    assert read.topics(tmp_path / "bag")["/camera/camera_info"] == CAMERA_INFO
    assert read.latched(tmp_path / "bag") == {"/tf_static"}
    celsius = next(m for topic, _, m in contents(tmp_path / "bag") if topic == "/thermal/image_raw")
    assert celsius.encoding == "16UC1"
    assert 285 < np.median(celsius.data.view("<u2")) / 100 < 310


def test_same_arguments_give_the_same_bag(tmp_path: Path, small: None) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, 0.2)
    first, second = (
        [(item.topic, item.time_ns, item.data) for item in read.messages(tmp_path / name)]
        for name in ("first", "second")
    )
    assert first == second
    tables = [(tmp_path / name / "objects.csv").read_bytes() for name in ("first", "second")]
    assert tables[0] == tables[1]


def test_command_line_takes_a_kind_of_place(tmp_path: Path, small: None, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> int:
        args = parser().parse_args(["bag", "make", *words])
        return int(args.run(args))

    assert run("--scenes", "streets:1", "--seconds", "0.5", "--out", str(tmp_path / "bag")) == 0
    assert "1 streets, " in capsys.readouterr().out
    assert (tmp_path / "bag" / "objects.csv").is_file()
    for wrong, told in (
        (["--scenes", "rooms:none"], "--scenes is 'rooms:none', expected a number, or rooms or streets"),
        (["--scenes", "houses"], "--scenes is 'houses'"),
        (["--scenes", "0"], "--scenes is 0, expected 1 to 100000"),
        (["--scenes", "rooms", "--text", "name"], "leave out --text"),
    ):
        with pytest.raises(ConfigError, match=told):
            run("--out", str(tmp_path / "other"), *wrong)
    assert not (tmp_path / "other").exists()
