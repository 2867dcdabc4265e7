"""What the node tells of things, without DDS: standard messages, boxes in the debug picture, parameters, failures."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("omnibind_ros.msg")

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from domains import any_domain
from geometry_msgs.msg import Pose, PoseWithCovariance, Vector3
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import ColorRGBA, Header

from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.geometry import Transform
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.encoding import Token
from omnibind_core.runtime.load import LoadPlan
from omnibind_core.runtime.sensor import Item
from omnibind_core.runtime.types import Prediction, SensorReport, SensorState
from omnibind_ros.messages.objects import Placement
from omnibind_ros.node import overlay, parameters
from omnibind_ros.node.fusion_node import FusionNode, Perceived
from omnibind_ros.node.lifecycle import PerceptionNode
from omnibind_ros.node.objects import outputs
from omnibind_ros.node.objects.things import Things
from omnibind_ros.node.objects.words import colour, words
from omnibind_ros.node.tick_loop import Tick

BOX = Rectangle(10, 20, 50, 60)


def thing(id=1, unknown=False, box=BOX):
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
    assert words(thing(2, unknown=True)) == "2 cup?"


def test_boxes_are_drawn_where_things_are_in_the_picture_that_is_shown():
    view = np.zeros((60, 80, 3), np.uint8)  # of a picture of 160 x 120
    drawn = overlay.boxes(view, (160, 120), "camera", [thing(), thing(2, box=None)])
    assert drawn.shape == (480, 640, 3) and not view.any()
    red = tuple(round(255 * part) for part in colour(1))
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

    def _withdraw(self, name):
        pass

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
        (
            {"objects__detections": ["/yolo camera", "/boxes", "/yolo"]},
            "'objects.detections' has 2 entries of '/yolo', expected each topic once",
        ),
        (
            {"objects__propose": ["guesses"]},
            "parameter 'objects.propose': no proposer 'guesses', expected some of clusters",
        ),
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
    _, message, values = things.entry(["vision_msgs"])
    assert message == "2 ticks failed, the last by ZeroDivisionError: division by zero" and values["errors"] == 2
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 1
    assert "vision_msgs" in values["not published, for lack of the packages"]
    assert things.cost > 0
    level, message, values = things.entry([])
    assert level == DiagnosticStatus.OK and message.startswith("0 things"), "news of the last report"
    assert (values["errors"], values["last error"]) == (2, "ZeroDivisionError: division by zero")
    things.perceive(selection, [], [], {}, {})
    assert things.entry([])[0] == DiagnosticStatus.ERROR


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
    with pytest.raises(ConfigError, match=r"parameter 'objects\.urdf' is '/none\.urdf', expected a file"):
        made(objects__urdf="/none.urdf")
    (tmp_path / "robot.urdf").write_text("<robot")
    with pytest.raises(InvalidInputError, match=r"\[objects\.urdf: /.*/robot\.urdf\] got no XML"):
        made(objects__urdf=str(tmp_path / "robot.urdf"))


def test_the_plan_of_the_load_names_things():
    plan = LoadPlan()
    for tick in range(20):
        plan.begun(tick * 0.2)
        plan.finished(0.4)
        plan.look(tick * 0.2, {"camera": 0.1, "objects": 0.3})
    assert plan.share < 1 and "objects 0.300 s, camera 0.100 s" in plan.words and plan.spared == ()


def test_a_node_that_tells_of_no_things_does_without_what_they_need():
    needed = ("scipy", "omnibind_ros.node.objects.outputs")
    code = f"import sys, omnibind_ros.node.fusion_node; print([name for name in sys.modules if name in {needed}])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("enabled", [False, True])
def test_things_are_advertised_when_they_are_asked_for_and_once(monkeypatch, enabled):
    monkeypatch.setattr(PerceptionNode, "on_configure", lambda self, state: TransitionCallbackReturn.SUCCESS)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=any_domain())
    given = {"sensors": ["camera"], "model": "none", "objects.enabled": enabled}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = FusionNode(context=context, parameter_overrides=overrides)
    try:
        named = [[one.topic_name for one in node.publishers].count("/omnibind/objects")]
        for _ in range(2):
            node.on_configure(None)
            node._free()
            named.append([one.topic_name for one in node.publishers].count("/omnibind/objects"))
        assert named == [0, enabled, enabled]
    finally:
        node.stop()
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_the_prediction_is_published_before_things_are_looked_for(monkeypatch):
    order = []
    node = SimpleNamespace(
        _message=lambda said, latency: SimpleNamespace(header=None),
        _publisher=SimpleNamespace(publish=lambda message: order.append("prediction")),
        _publish_things=lambda things, selection, tokens: order.append(f"things of {len(tokens)} tokens"),
        _debug=SimpleNamespace(publish=lambda *given: order.append("picture")),
        _predictions=0, _vision=None, _things=object(), _answers=True, _alive=("camera",), engine=object(),
        inference=SimpleNamespace(times=SimpleNamespace(add=lambda times: None)),
    )  # fmt: skip
    FusionNode.publish(node, Tick(None, 0.0), Perceived(thing().prediction, [1, 2]))
    assert order == ["prediction", "things of 2 tokens", "picture"] and node._predictions == 1
    FusionNode.publish(node, Tick(None, 0.0), Perceived(None, []))
    assert order[3:] == ["things of 0 tokens"] and node._alive == (), "things go on while too few sensors are alive"


def test_time_that_goes_back_clears_what_moves_and_all_things(monkeypatch):
    things = made(objects__transforms=["base mast 0 0 1 0 0 0"])
    cleared = []
    monkeypatch.setattr("omnibind_ros.node.objects.things.ObjectEngine.clear", lambda self: cleared.append(1))
    monkeypatch.setattr("omnibind_ros.node.objects.things.ObjectEngine.perceive", lambda *given: [])
    things.start(SimpleNamespace())
    things.rig.tree.add("odom", "base", Transform.identity(), 50)
    for epoch in (0, 1, 1):
        selection = SimpleNamespace(now_ns=10, epoch=epoch)
        things.on_selection(selection)
        assert things.perceive(selection, [], [], {}, {}) == []
    assert cleared == [1] and "odom" not in things.rig.tree and "mast" in things.rig.tree


def test_sensors_that_take_no_part_are_told_with_their_state(monkeypatch):
    things, given = made(), []
    monkeypatch.setattr(
        "omnibind_ros.node.objects.things.ObjectEngine.perceive", lambda *args: given.append(args) or []
    )
    things.start(SimpleNamespace())
    report = SensorReport("camera", "image", SensorState.STALE, "silent for 2.0 s", 2.0, 1.0, 9, 0, 0)
    things.perceive(SimpleNamespace(now_ns=10, epoch=0), [], [report], {}, {})
    assert given[0][2:] == ({}, {"camera": "stale: silent for 2.0 s"})


class Model:
    """Says that everything is a cup."""

    labels = SimpleNamespace(names=("cup", "dog"))
    threshold = 0.3

    def process(self, modality, raw):
        return np.zeros((1, 2), np.float32)

    def embed(self, items):
        return np.tile(np.array([0.6, 0.8], np.float32), (len(items), 1))

    def recognise(self, kinds, embeddings, doubts=None):
        rows = np.tile(np.array([0.8, 0.2], np.float32), (1 + len(kinds), 1))
        shares = np.full(len(kinds), 1 / len(kinds), np.float32)
        return SimpleNamespace(
            embedding=embeddings[0], weights=shares, similarities=rows, probabilities=rows, without=rows[1:],
            familiarity=0 * shares,
        )  # fmt: skip


def test_aligned_pictures_need_no_more_than_a_frame_and_a_field_of_view(rng):
    """A detector sees a thing in the camera, and so does a thermal camera behind the same lens; no CameraInfo."""
    aligned = {"camera__frame": "eye", "thermal__frame": "eye"}
    aligned |= {"camera__field_of_view": 60.0, "thermal__field_of_view": 60.0}
    things = made(sensors=["camera", "thermal"], objects__propose=[""], **aligned)
    things.start(Model())
    sensors = {name: things_parameters(aligned).sensor(name) for name in ("camera", "thermal")}
    raws = {
        "camera": rng.integers(0, 255, (480, 640, 3), np.uint8),
        "thermal": rng.normal(20, 5, (240, 320)).astype(np.float32),
    }
    told = []
    for tick in range(3):
        now = (10 + tick) * 10**8
        tokens = [
            Token(sensors[name].config, (Item(now, now, None, SimpleNamespace(frame_id=f"{name}_optical"), raw, True),))
            for name, raw in raws.items()
        ]
        box = SimpleNamespace(sensor="", left=200, top=100, right=400, bottom=300, score=1, mask=b"",
                              size=SimpleNamespace(x=0, y=0, z=0))  # fmt: skip
        stamp = SimpleNamespace(sec=now // 10**9, nanosec=now % 10**9)
        things._on_detections("/yolo", "camera", "", SimpleNamespace(
            header=SimpleNamespace(frame_id="camera_optical", stamp=stamp), detections=[box]
        ))  # fmt: skip
        told = things.perceive(SimpleNamespace(now_ns=now, epoch=0), tokens, [], sensors, {})
    assert told, things.entry([])
    (one,) = told
    assert one.prediction.label == "cup" and {share.name for share in one.prediction.sensors} == {"camera", "thermal"}
    assert np.allclose(one.sights["camera"].box, (200, 100, 400, 300), atol=25)
    assert np.allclose(one.sights["thermal"].box, (100, 50, 200, 150), atol=25)
    assert things.rig.fixed == "eye" and np.sqrt(np.linalg.eigvalsh(one.volume.spread)[-1]) > 0.5


def things_parameters(values):
    return Kept(sensors=["camera", "thermal"], **values)


def test_a_reason_of_the_engine_hides_none_of_the_reader_nor_the_other_way_round():
    things = made()
    things.start(SimpleNamespace())
    things._detections.rejections.add("/yolo", InvalidInputError("/yolo", "a score of 7", "0 to 1"))
    things._engine.reject("/yolo", "[/yolo] got a box of no sensor")
    things._engine.reject("camera", "too dark")
    values = things.entry([])[2]
    assert "a score of 7" in values["/yolo"] and "no sensor" in values["regions of /yolo"]
    assert values["camera"] == "too dark"


def boxes(stamp_ns):
    """A message of a detector: one box of our own kind."""
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    box = SimpleNamespace(sensor="", left=0, top=0, right=9, bottom=9, score=1, mask=b"",
                          size=SimpleNamespace(x=0, y=0, z=0))  # fmt: skip
    return SimpleNamespace(header=SimpleNamespace(frame_id="eye", stamp=stamp), detections=[box])


@pytest.mark.parametrize(
    ("given", "late", "expected"),
    [
        ({"camera__time_offset": -0.25}, False, 1_750_000_000),
        ({"camera__stamp": "receive"}, False, 8_500_000_000),  # its clock is 6.5 s behind, by the newest picture
        ({"camera__stamp": "receive"}, True, 9_000_000_000),  # not after it was received
    ],
)
def test_boxes_are_dated_as_the_pictures_of_their_sensor(monkeypatch, given, late, expected):
    clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=9 * 10**9))
    monkeypatch.setattr(Node, "get_clock", lambda self: clock)
    monkeypatch.setattr("omnibind_ros.node.objects.things.ObjectEngine.perceive", lambda *given: [])
    found = []
    monkeypatch.setattr("omnibind_ros.node.objects.things.ObjectEngine.detect", lambda self, given: found.extend(given))
    things = made(**given)
    things.start(SimpleNamespace())
    picture = boxes(2 * 10**9)  # of which no more than the header counts
    item = Item(8_500_000_000, 8_500_000_000, None, picture.header, np.zeros((9, 9, 3), np.uint8), True)
    sensors = {"camera": things_parameters(given).sensor("camera")}
    token = Token(sensors["camera"].config, (item,))
    things.perceive(SimpleNamespace(now_ns=9 * 10**9, epoch=0), [token], [], sensors, {})
    things._on_detections("/yolo", "camera", "", boxes((4 if late else 2) * 10**9))
    assert [one.stamp_ns for one in found] == [expected]


def test_nothing_is_read_or_said_of_things_while_the_node_is_inactive():
    things = made()
    things._on_detections("/yolo", "", "", boxes(10**9))
    things.start(SimpleNamespace())
    assert things.entry([])[2]["rejected_detections"] == 0
    things._on_detections("/yolo", "", "", boxes(10**9))
    things._on_description("robot_description", "", SimpleNamespace(data="<robot"))
    values = things.entry([])[2]
    assert values["rejected_detections"] == values["rejected_transforms"] == 1
    things.stop()
    assert things.entry([])[1:] == ("inactive", {})
    things._on_detections("/yolo", "", "", boxes(10**9))
    things.start(SimpleNamespace())
    _, message, values = things.entry([])
    assert values["rejected_detections"] == values["rejected_transforms"] == 0 and "rejections" not in message
    assert "/yolo" not in values and "no XML" in values["robot_description"], "that is not sent again"


def test_a_node_that_is_deactivated_stops_its_things(monkeypatch):
    done = []
    parent = FusionNode.__mro__[1]
    monkeypatch.setattr(parent, "on_deactivate", lambda self, state: done.append("ticks end") or "success")
    things = SimpleNamespace(stop=lambda: done.append("things end"))
    node = FusionNode.__new__(FusionNode)
    node._things = things
    assert FusionNode.on_deactivate(node, None) == "success" and done == ["ticks end", "things end"]
