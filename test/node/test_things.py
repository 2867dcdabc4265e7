"""What the node tells of things, without DDS: standard messages, boxes in the debug picture, parameters, failures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("omnibind_ros.msg")

from geometry_msgs.msg import Pose, PoseWithCovariance, Vector3
from std_msgs.msg import ColorRGBA, Header

from omnibind_core.errors import ConfigError
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.load import LoadPlan
from omnibind_core.runtime.types import Prediction
from omnibind_ros.messages.objects import Placement
from omnibind_ros.node import overlay, parameters
from omnibind_ros.node.objects import outputs
from omnibind_ros.node.objects.things import Things


def thing(id=1, unknown=False, box=Rectangle(10, 20, 50, 60)):
    rotation = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    volume = Volume(np.array([1.0, 2, 3]), np.array([0.5, 0.25, 1]), rotation, np.eye(3))
    nothing = np.zeros(0, np.float32)
    said = Prediction(
        5, None, "" if unknown else "cup", 0.75, unknown, 0.5, ("cup", "mug"), (0.75, 0.25), (), nothing, nothing
    )
    return ObjectPrediction(id, volume, np.zeros(3), 5, said, {"camera": Sight(box), "lidar": Sight(reason="behind")})


# Layouts of packages that are not everywhere.


class Box:
    def __init__(self):
        self.center, self.size = Pose(), Vector3()


class Detection3D:
    def __init__(self, header, id):
        self.header, self.id, self.bbox, self.results = header, id, Box(), []


class Hypothesis:
    def __init__(self):
        self.hypothesis, self.pose = SimpleNamespace(class_id="", score=0.0), PoseWithCovariance()


class Marker:
    def __init__(self, header, ns="", action=0):
        self.header, self.ns, self.action, self.id, self.type, self.text = header, ns, action, 0, 0, ""
        self.pose, self.scale, self.color = Pose(), Vector3(), ColorRGBA()


VISION = SimpleNamespace(
    Detection3DArray=lambda header: SimpleNamespace(header=header, detections=[]),
    Detection3D=Detection3D,
    ObjectHypothesisWithPose=Hypothesis,
)
VISUAL = SimpleNamespace(MarkerArray=lambda: SimpleNamespace(markers=[]), Marker=Marker)


def test_standard_detections_say_the_same_as_ours():
    array = outputs.detections(VISION, Header(frame_id="odom"), [thing(), thing(2, unknown=True)])
    first, second = array.detections
    assert (array.header.frame_id, first.id, second.id) == ("odom", "1", "2")
    assert [(one.hypothesis.class_id, one.hypothesis.score) for one in first.results] == [("cup", 0.75), ("mug", 0.25)]
    assert second.results == [] and first.bbox.center.position.z == 3 and first.bbox.size.x == 0.5
    assert np.isclose(first.bbox.center.orientation.z, 0.5**0.5) and first.results[0].pose.pose.position.y == 2


def test_markers_are_a_box_and_its_words_above():
    clear, box, text = outputs.markers(VISUAL, Header(frame_id="odom"), [thing(7)]).markers
    assert clear.action == 3 and (box.type, box.id, box.scale.y, box.color.a > 0) == (1, 7, 0.25, True)
    assert (text.type, text.text) == (9, "7 cup 0.75") and text.pose.position.z > 3.5 and text.color.a == 1
    assert outputs.words(thing(2, unknown=True)) == "2 cup?"


def test_boxes_are_drawn_where_things_are_in_the_picture_that_is_shown():
    view = np.zeros((60, 80, 3), np.uint8)  # of a picture of 160 x 120
    drawn = overlay.boxes(view, (160, 120), "camera", [thing(), thing(2, box=None)])
    assert drawn.shape == (480, 640, 3) and not view.any()
    red = tuple(round(255 * part) for part in outputs.colour(1))
    assert tuple(drawn[160, 200]) == red, "its lower edge"  # 4 times (10, 20) to (50, 60) is (40, 80) to (200, 240)
    assert not drawn[250:].any() and not drawn[:, 300:].any()
    assert not overlay.boxes(view, (160, 120), "lidar", [thing()]).any()


class Kept(parameters.Parameters):
    """Parameters that are given here."""

    def __init__(self, **values):
        self._given = {name.replace("__", "."): value for name, value in values.items()}
        self._defaults = {}
        super().__init__(None, parameters.FUSION_NODE)

    def _offer(self, spec, name):
        self._defaults[name] = spec.default

    def _value(self, name):
        return self._given.get(name, self._defaults[name])


def test_parameters_become_settings_and_placements():
    assert Kept().objects is None
    kept = Kept(
        objects__enabled=True, objects__propose=["clusters"], objects__max_objects=3, top_k=2,
        camera__topic="eye/image_rect", camera__frame="head", camera__field_of_view=70,
    )  # fmt: skip
    assert (kept.objects.propose, kept.objects.max_objects, kept.objects.top_k) == (("clusters",), 3, 2)
    assert kept.sensor("camera").placement == Placement("eye/image_rect", "eye/camera_info", "head", 70.0)
    assert kept.sensor("camera").placement.rectified
    assert [parameters.detector(text) for text in ("/yolo camera", "boxes")] == [("/yolo", "camera"), ("boxes", "")]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"objects__transforms": ["base camera 1 2"]}, "'objects.transforms' has 'base camera 1 2', expected 'parent"),
        (
            {"objects__detections": ["/yolo nose"]},
            "'objects.detections' has '/yolo nose', expected a topic, or one and",
        ),
        ({"objects__propose": ["guesses"]}, "no proposer 'guesses', expected some of clusters"),
        ({"objects__max_objects": 0}, "'objects.max_objects' is 0, expected 1 or more"),
        ({"camera__picture": "flat"}, "'camera.picture' is 'flat', expected one of auto, raw, rectified"),
        ({"camera__field_of_view": 180.0}, "'camera.field_of_view' is 180.0, expected 0 to 170"),
        ({"sensors": ["objects"]}, "'sensors' has 'objects', expected a name that no other parameter has"),
    ],
)
def test_parameters_that_cannot_be_are_refused(given, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Kept(**given)


class Node:
    """As much of a node as things need."""

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=0))

    def resolve_topic_name(self, topic):
        return topic

    def get_publishers_info_by_topic(self, topic):
        return []

    def count_publishers(self, topic):
        return 0


class Pool:
    def use(self, *given):
        pass

    def mute(self, key):
        pass


def made(**values):
    infos = SimpleNamespace(newest=lambda topic: None)
    return Things(Node(), Pool(), Kept(objects__enabled=True, **values), infos)


def test_what_fails_of_things_is_counted_and_told_and_raises_nothing(monkeypatch, caplog):
    things = made()
    things.start(SimpleNamespace())
    selection = SimpleNamespace(now_ns=10, epoch=0)
    monkeypatch.setattr("omnibind_ros.node.objects.things.ObjectEngine.perceive", lambda *given: 1 / 0)
    for _ in range(2):
        assert things.perceive(selection, [], [], {}, {}) is None
    level, message, values = things.entry(["vision_msgs"])
    assert message == "2 ticks failed, the last by ZeroDivisionError: division by zero" and values["errors"] == 2
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 1
    assert "vision_msgs" in values["not published, for lack of the packages"]
    assert things.cost > 0


def test_rejections_warn_once_and_their_reasons_stay(tmp_path):
    robot = tmp_path / "robot.urdf"
    robot.write_text('<robot><joint name="j" type="fixed"><parent link="base"/><child link="eye"/></joint></robot>')
    things = made(objects__urdf=str(robot), objects__transforms=["base mast 0 0 1 0 0 0"])
    things.start(SimpleNamespace())
    assert things.rig.tree.lookup("eye", "mast", 0).translation[2] == 1
    assert things.entry([])[1:2] == ("0 things in the frame ''",)
    things._on_detections("/yolo", "", "", SimpleNamespace(
        header=SimpleNamespace(frame_id="rear", stamp=SimpleNamespace(sec=1, nanosec=0)),
        detections=[SimpleNamespace(sensor="", left=0, top=0, right=9, bottom=9, score=1, mask=b"",
                                    size=SimpleNamespace(x=0, y=0, z=0))],
    ))  # fmt: skip
    assert "1 rejections since the last report" in things.entry([])[1]
    _, message, values = things.entry([])
    assert "rejections" not in message and "boxes in the frame 'rear'" in values["/yolo"]


def test_a_description_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="parameter 'objects.urdf' is '/none.urdf', expected a file"):
        made(objects__urdf="/none.urdf")


def test_the_plan_of_the_load_names_things():
    plan = LoadPlan()
    for tick in range(20):
        plan.begun(tick * 0.2)
        plan.finished(0.4)
        plan.look(tick * 0.2, {"camera": 0.1, "objects": 0.3})
    assert plan.share < 1 and "objects 0.300 s, camera 0.100 s" in plan.words and plan.spared == ()
