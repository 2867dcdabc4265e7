"""Boxes of detectors as regions, in the layouts of every vision_msgs, and what is wrong with some."""

from __future__ import annotations

from types import SimpleNamespace as Record

import numpy as np
import pytest

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import Camera
from omnibind_core.geometry.frames import SECOND, Transform
from omnibind_core.objects.rig import Rig
from omnibind_ros.messages.objects import DetectionReader, Rejections

STAMP = Record(sec=5, nanosec=0)
NEW, OLD = "of Humble and later", "of Galactic and earlier"


def header(frame="camera_optical", stamp=STAMP):
    return Record(frame_id=frame, stamp=stamp)


def flat(x=100.0, y=80.0, wide=40.0, high=20.0, theta=0.0, score=0.7, layout=NEW):
    """A Detection2D."""
    center = Record(position=Record(x=x, y=y), theta=theta) if layout == NEW else Record(x=x, y=y, theta=theta)
    results = [] if score is None else [_result(score - 0.1, layout), _result(score, layout)]
    return Record(header=header(), results=results, bbox=Record(center=center, size_x=wide, size_y=high))


def _result(score, layout):
    return Record(hypothesis=Record(class_id="cup", score=score)) if layout == NEW else Record(id="cup", score=score)


def solid(x=1.0, y=0.0, z=0.0, size=(1.0, 2.0, 3.0), score=0.7, turned=(0.0, 0.0, 0.0, 1.0)):
    """A Detection3D."""
    box = Record(center=pose(x, y, z, turned), size=vector(*size))
    return Record(header=header(), results=[_result(score, NEW)], bbox=box)


def pose(x, y, z, turned=(0.0, 0.0, 0.0, 1.0)):
    return Record(position=vector(x, y, z), orientation=Record(**dict(zip("xyzw", turned, strict=True))))


def vector(x, y, z):
    return Record(x=x, y=y, z=z)


def own(box=(0.0, 0.0, 0.0, 0.0), sensor="", mask=b"", at=(0.0, 0.0, 0.0), size=(0.0, 0.0, 0.0), score=0.5):
    """One of our own."""
    sides = dict(zip(("left", "top", "right", "bottom"), box, strict=True))
    return Record(sensor=sensor, score=score, mask=mask, pose=pose(*at), size=vector(*size), **sides)


def message(*detections, frame="camera_optical", stamp=STAMP):
    return Record(header=header(frame, stamp), detections=[*detections])


@pytest.fixture
def reader():
    rig = Rig("odom")
    rig.cameras["camera"] = Camera(160, 120, (100, 100), (79.5, 59.5))
    rig.tree.add("odom", "lidar_link", Transform.of((0, 0, 2), (0, 0, 0.5**0.5, 0.5**0.5)))
    frames = {"camera": ("camera_optical",), "thermal": ("thermal_optical", "camera_optical", "eye")}
    return DetectionReader(rig, lambda: frames)


@pytest.mark.parametrize("layout", [NEW, OLD])
def test_a_box_in_a_picture(reader, layout):
    (region,) = reader.read(message(flat(layout=layout)), "/yolo", 9 * SECOND)
    assert region.sensor == "camera" and region.box == (80, 70, 120, 90)
    assert (region.score, region.proposer, region.stamp_ns) == (0.7, "/yolo", 5 * SECOND)


def test_a_box_that_is_turned_or_partly_outside_is_what_it_lies_in_of_the_picture(reader):
    turned, cut = reader.read(message(flat(theta=np.pi / 2), flat(x=150, layout=OLD)), "/yolo", 0)
    assert np.allclose(turned.box, (90, 60, 110, 100)) and cut.box == (130, 70, 160, 90)


def test_a_box_is_of_the_sensor_of_its_frame_or_of_the_parameter(reader):
    (of_frame,) = reader.read(message(flat(), frame="/thermal_optical"), "/yolo", 0)
    (named,) = reader.read(message(flat(), frame="elsewhere"), "/yolo", 0, sensor="thermal")
    (other,) = reader.read(message(flat(), frame="eye"), "/yolo", 0)
    assert of_frame.sensor == named.sensor == other.sensor == "thermal"
    none = Record(sec=0, nanosec=0)
    unnamed = flat(score=None)
    unnamed.header.stamp = none
    (late,) = reader.read(message(unnamed, frame="", stamp=none), "/yolo", 9 * SECOND)
    assert (late.sensor, late.stamp_ns, late.score) == ("camera", 9 * SECOND, 1.0)


def test_a_box_in_space_is_told_in_the_fixed_frame(reader):
    (region,) = reader.read(message(solid(), frame="lidar_link"), "/pillars", 0)
    assert np.allclose(region.volume.centre, (0, 1, 2)) and np.allclose(region.volume.size, (1, 2, 3))
    assert np.allclose(region.volume.rotation @ (1, 0, 0), (0, 1, 0))
    assert np.allclose(np.diag(region.volume.spread), (0.04, 0.01, 0.09))


def test_our_own_message_says_both_and_has_masks(reader):
    mask = np.zeros((20, 40), np.uint8)
    mask[5:, 10:] = 255
    found = reader.read(message(own((140, 70, 179.5, 90), "camera", mask.tobytes())), "/mine", 0)
    assert found[0].box == (140, 70, 160, 90) and found[0].mask.shape == (20, 20)
    assert np.array_equal(found[0].mask, mask[:, :20] > 0)
    both = reader.read(
        message(own((0, 0, 9, 9), at=(1, 0, 0), size=(1, 1, 1)), frame="lidar_link"), "/mine", 0, "camera"
    )
    assert [type(one).__name__ for one in both] == ["Region2D", "Region3D"]


@pytest.mark.parametrize(
    ("wrong", "frame", "complaint"),
    [
        (flat(x=np.nan), "camera_optical", "got a box from /yolo of nan, 70, nan, 90, expected one with an area"),
        (flat(wide=0.0), "camera_optical", "got a box of 0 x 20 pixels, expected finite sides above 0"),
        (flat(wide=np.nan), "camera_optical", "got a box of nan x 20 pixels"),
        (flat(theta=np.inf), "camera_optical", "got a box turned by inf rad"),
        (flat(x=300.0), "camera_optical",
         "got a box 280, 70, 320, 90 outside of the picture of 'camera', expected one inside of its 160 x 120 pixels"),
        (flat(score=7.0), "camera_optical", "got a detection with a score of 7, expected 0 to 1"),
        (flat(score=np.nan), "camera_optical", "a score of nan"),
        (flat(), "rear_optical", "got boxes in the frame 'rear_optical', expected that of a sensor with pictures: "
         "'camera_optical' (camera), 'thermal_optical' (thermal), 'camera_optical' (thermal), 'eye' (thermal)"),
        (solid(size=(1.0, 0.0, 1.0)), "lidar_link", "got a box of [1.0, 0.0, 1.0] m, expected finite sides above 0"),
        (solid(x=1e300), "lidar_link", "m at [1e+300, 0.0, 0.0] m, expected 1e+06 m or less"),
        (solid(size=(1.0, 1e300, 1.0)), "lidar_link", "got a box of [1.0, 1e+300, 1.0] m at [1.0, 0.0, 0.0] m"),
        (solid(x=np.nan), "lidar_link", "translation [nan, 0.0, 0.0]"),
        (solid(turned=(0.0, 0.0, 0.0, 0.0)), "lidar_link", "a quaternion of length 0"),
        (solid(), "radar", "got no frame 'radar', for a transform from 'radar' to 'odom', expected one of: lidar_link"),
        (own(), "camera_optical", "got a detection without a box, expected one in a picture, in space, or both"),
        (own((0, 0, 9, 9), "camera", b"123"), "camera_optical", "got a mask of 3 bytes, expected 9 x 9"),
        (own((9, 0, 3, 9), "camera"), "camera_optical", "got a box from /yolo of 9, 0, 3, 9"),
    ],
)  # fmt: skip
def test_a_box_that_cannot_be_is_counted_and_the_next_one_is_used(reader, wrong, frame, complaint):
    good = solid() if frame in ("lidar_link", "radar") else flat()
    found = reader.read(message(wrong, good, frame=frame), "/yolo", 0, "")
    assert len(found) == (frame in ("lidar_link", "camera_optical"))
    assert reader.rejections.count == 2 - len(found)
    assert complaint in reader.rejections.reasons["/yolo"] and reader.rejections.reasons["/yolo"].startswith("[/yolo]")


def test_a_frame_of_two_sensors_is_told(reader):
    reader = DetectionReader(Rig("odom"), lambda: {"camera": ("eye",), "thermal": ("eye",)})
    assert reader.read(message(flat(), frame="eye"), "/yolo", 0) == []
    assert "which camera and thermal have, expected the sensor's name" in reader.rejections.reasons["/yolo"]


def test_of_ten_thousand_detections_the_surest_are_used(reader):
    many = [flat(x=40 + index % 80, score=0.1 + (index % 1000) / 2000) for index in range(10_000)]
    found = reader.read(message(*many), "/yolo", 0)
    assert len(found) == 256 and min(one.score for one in found) > 0.58
    assert reader.rejections.count == 10_000 - 256
    assert "got 10000 detections in one message, expected 256 or fewer" in reader.rejections.reasons["/yolo"]


@pytest.mark.parametrize(
    ("one", "kind", "complaint"),
    [
        (own((0, 0, 9, 9), "camera", size=(1, -1, 1)), "Region2D", "finite sides above 0"),
        (own((9, 0, 3, 9), "camera", size=(1, 1, 1)), "Region3D", "of 9, 0, 3, 9"),
    ],
)
def test_of_a_detection_the_half_that_is_good_is_used(reader, one, kind, complaint):
    assert [type(region).__name__ for region in reader.read(message(one, frame="lidar_link"), "/mine", 0)] == [kind]
    assert reader.rejections.count == 1 and complaint in reader.rejections.reasons["/mine"]
    bad = own((0, 0, 9, 9), "camera", size=(1, 1, 1), score=7.0)
    assert not reader.read(message(bad, frame="lidar_link"), "/mine", 0)
    assert reader.rejections.count == 2, "one score"


def test_a_box_is_dated_as_the_items_of_its_sensor(reader):
    late = {"camera": SECOND, "thermal": 2 * SECOND, "": 0}
    reader = DetectionReader(reader._rig, reader._frames, lambda stamp_ns, receive_ns, sensor: stamp_ns + late[sensor])
    for sensor, second in (("", 6), ("thermal", 7)):
        (one,) = reader.read(message(flat()), "/yolo", 0, sensor)
        assert one.stamp_ns == second * SECOND
    both = own((0, 0, 9, 9), "camera", at=(1, 0, 0), size=(1, 1, 1))
    found = reader.read(message(both, solid(), frame="lidar_link"), "/mine", 0)
    assert [one.stamp_ns // SECOND for one in found] == [6, 6, 5]


def test_of_ten_thousand_sources_the_newest_reasons_are_kept():
    rejections = Rejections()
    for number in range(10_000):
        rejections.add("first" if number % 50 == 0 else str(number), InvalidInputError("x", str(number), "none"))
    assert rejections.count == 10_000 and len(rejections.reasons) == 64
    assert "got 9950," in rejections.reasons["first"] and "9999" in rejections.reasons


def test_wild_numbers_in_any_combination_are_regions_that_can_be_or_are_counted(reader, rng):
    wild = (0.0, 1.0, 119.5, -1.0, 1e9, -1e9, 3e38, -3e38, np.nan, np.inf, -np.inf, 1e-40)
    told = 0
    for _ in range(2000):
        left, top, right, bottom, x, y, z, wide, deep, high, *turned = map(float, rng.choice(wild, 14))
        mask = bytes(int(rng.integers(0, 5)))
        one = own((left, top, right, bottom), "camera", mask, (x, y, z), (wide, deep, high))
        one.pose = pose(x, y, z, turned if rng.random() < 0.5 else (0.0, 0.0, 0.0, 1.0))
        found = reader.read(message(one, frame="lidar_link"), "/wild", 0)
        for region in found:
            sizes = region.box if hasattr(region, "box") else region.volume.size
            assert np.isfinite(sizes).all()
        told += len(found)
    assert told and reader.rejections.count > 1000
