"""Where sensors are and look: what messages and parameters tell, together."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from omnibind_core.geometry import Transform
from omnibind_core.objects.rig import Rig
from omnibind_core.runtime.encoding import Token
from omnibind_core.runtime.sensor import Item
from omnibind_core.runtime.types import Encoded, SensorConfig
from omnibind_ros.messages.objects import Calibration, Placement

PICTURE = np.zeros((480, 640, 3), np.uint8)
POINTS = np.zeros((9, 3), np.float32)
IMAGE = "sensor_msgs/msg/Image"


def info(k=(400.0, 0, 330, 0, 410, 250, 0, 0, 1), binning=(0, 0)):
    p = (380.0, 0, 320, 0, 0, 380, 240, 0, 0, 0, 1, 0)
    return SimpleNamespace(
        width=640, height=480, distortion_model="plumb_bob", d=(), k=k, p=p, binning_x=binning[0], binning_y=binning[1]
    )


def token(name="camera", modality="image", raw=PICTURE, frame="eye"):
    item = Item(1, 1, None, SimpleNamespace(frame_id=frame), raw, True)
    return Token(SensorConfig(name, modality), (item,))


@pytest.fixture
def rig():
    return Rig("")


def place(calibration, *tokens, infos=(), types=(), **placements):
    return calibration.place(tokens, placements, dict(types), dict(infos).get)


def test_a_camera_is_that_of_its_camera_info_and_follows_it(rig):
    calibration, where = Calibration(rig), Placement("a/image_raw", "a/camera_info")
    first = info()
    found, why = place(calibration, token(), infos={"a/camera_info": first}, camera=where)
    camera = rig.cameras["camera"]
    assert found["camera"].frame == "eye" and not why and camera.focal == (400, 410)
    place(calibration, token(), infos={"a/camera_info": info()}, camera=where)
    assert rig.cameras["camera"] is camera, "the same is said again"
    place(calibration, token(raw=PICTURE[::2, ::2]), infos={"a/camera_info": info(binning=(2, 2))}, camera=where)
    assert rig.cameras["camera"].width == 320


@pytest.mark.parametrize(
    ("topic", "picture", "focal"),
    [("a/image_rect", "auto", 380), ("a/image_raw", "rectified", 380), ("a/image_rect", "raw", 400)],
)
def test_the_topic_or_a_parameter_says_whether_it_is_rectified(rig, topic, picture, focal):
    place(Calibration(rig), token(), infos={"i": info()}, camera=Placement(topic, "i", picture=picture))
    assert rig.cameras["camera"].focal[0] == focal


def test_parameters_alone_do_for_aligned_pictures(rig):
    calibration, like = Calibration(rig), Placement(frame="head", field_of_view=90.0)
    pair = token(), token("thermal", "thermal", np.zeros((60, 80), np.float32), "other")
    found, why = place(calibration, *pair, camera=like, thermal=like)
    calibration.choose_frame()
    assert not why and rig.fixed == "head"
    assert calibration.pictures == {"camera": ("eye", "head"), "thermal": ("other", "head")}
    views, missing = rig.views(found)
    assert not missing and np.allclose(views["camera"].pose.rotation, np.eye(3))
    ray = np.array([[math.tan(math.radians(45)), 0, 1.0]])
    assert np.allclose(views["camera"].project(ray)[0], (639.5, 239.5))
    assert np.allclose(views["thermal"].project(ray)[0], (79.5, 29.5))


def test_what_lacks_a_camera_is_told_and_the_others_go_on(rig):
    calibration = Calibration(rig)
    tokens = token(), token("lidar", "point_cloud", POINTS, "/mast"), token("front")
    found, why = place(
        calibration, *tokens, infos={"f": info(k=[0.0] * 9)},
        camera=Placement(info="a/camera_info"), front=Placement(info="f"),
    )  # fmt: skip
    assert list(found) == ["lidar"] and found["lidar"].frame == "mast" and not rig.cameras
    assert "expected a sensor_msgs/msg/CameraInfo on a/camera_info, or its field_of_view" in why["camera"]
    assert "focal lengths 0 and 0, expected a calibrated camera, whose k or p are filled in, on f" in why["front"]


def test_a_depth_picture_looks_along_its_optical_axis_and_frames_of_a_sensor_node_have_no_pixels(rig):
    tokens = token("lidar", "point_cloud", POINTS), token(raw=Encoded("embedding", np.zeros(4, np.float32)))
    found, why = place(Calibration(rig), *tokens, types={"lidar": IMAGE})
    assert found["lidar"].optical and not why and not rig.cameras


def test_the_fixed_frame_is_odom_if_it_is_known_and_else_what_most_hang_on(rig):
    calibration = Calibration(rig)
    place(calibration, token(), token("lidar", "point_cloud", POINTS, "mast"), token("b", "touch", PICTURE, "alone"),
          camera=Placement(field_of_view=90.0))  # fmt: skip
    rig.tree.add("base", "eye", Transform.identity())
    rig.tree.add("base", "mast", Transform.identity())
    assert calibration.choose_frame() and rig.fixed == "base"
    assert not calibration.choose_frame()
    rig.tree.add("odom", "base", Transform.identity(), 1)
    rig.tree.add("map", "odom", Transform.identity(), 1)
    assert calibration.choose_frame() and rig.fixed == "odom"
    assert Calibration(rig, "map").choose_frame() and rig.fixed == "map"
