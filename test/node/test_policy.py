"""The policy of SROS2 against what living nodes have, and as a document."""

from __future__ import annotations

import importlib.util
import time
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from domains import any_domain

from omnibind_core import cli
from omnibind_core.modalities import NAMES
from omnibind_core.optional import require
from omnibind_ros.commands.policy import OPERATOR, RECORDER, VIEW, Profile, profiles
from omnibind_ros.messages import CAMERA_INFO, IMAGE, STRING
from omnibind_ros.messages.objects import TF_MESSAGE
from omnibind_ros.replay.setup import GivenParameters, read_parameters

PATIENCE = 20.0  # s
NAMESPACE = "/robot"
GIVEN = {
    "sensors": ["camera", "tactile", "lidar", "words"],
    "camera.topic": "/front/image_raw",
    "words.type": "text",
    "objects.enabled": True,
    "use_sim_time": True,
}
TYPES = {"camera": IMAGE, "tactile": IMAGE, "lidar": IMAGE, "words": STRING}  # a depth camera, for its CameraInfo
ELSEWHERE = {  # what needs packages that may not be installed
    "vision_msgs.msg": {"omnibind/classification", "omnibind/label_info", "omnibind/detections"},
    "visualization_msgs.msg": {"omnibind/object_markers"},
    "tf2_msgs.msg": {"/tf", "/tf_static"},
}
RIGHTS = {
    "publish": "get_publisher_names_and_types_by_node",
    "subscribe": "get_subscriber_names_and_types_by_node",
    "reply": "get_service_names_and_types_by_node",
    "request": "get_client_names_and_types_by_node",
}


def missing() -> set[str]:
    names: set[str] = set()
    for module, topics in ELSEWHERE.items():
        try:
            require(module, "")
        except ImportError:
            names |= Profile(NAMESPACE, "").full(topics)
    return names


class Model:
    """Says that all is a cat."""

    identity, modalities, threshold = "stand_in@1", NAMES, 0.1
    labels = SimpleNamespace(names=("cat", "dog"))

    def warm_up(self, modalities):
        pass


@pytest.fixture
def nodes(monkeypatch, tmp_path):
    """Gives a function that starts the nodes, by name, and publishers of all that they may hear; and what they have."""
    rclpy = pytest.importorskip("rclpy")
    pytest.importorskip("omnibind_ros.msg")
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter

    from omnibind_ros.bags.record import Recorder
    from omnibind_ros.graph.topics import message_class
    from omnibind_ros.node.fusion_node import FusionNode
    from omnibind_ros.node.sensor_node import SensorNode
    from omnibind_ros.view.live import LiveView

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setattr("omnibind_ros.node.lifecycle.load_model", lambda *given: Model())
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=any_domain())
    executor = SingleThreadedExecutor(context=context)
    drivers = rclpy.create_node("drivers", context=context)
    made = [drivers]
    clock = Parameter("use_sim_time", value=True)

    def publish(kind, *topics):
        for topic in topics:
            drivers.create_publisher(message_class(kind), topic, 1)

    def perception(kind, name, **given):
        overrides = [Parameter(key, value=value) for key, value in {**GIVEN, **given}.items()]
        options = {"namespace": NAMESPACE, "cli_args": ["--ros-args", "-r", f"__node:={name}"]}
        node = kind(context=context, parameter_overrides=overrides, **options)
        made.append(node)
        assert node.start()
        return node

    def start(apart):
        parameters = GivenParameters(GIVEN)
        for sensor in parameters.sensors:
            publish(TYPES[sensor.name], Profile(NAMESPACE, "").name(sensor.topic))
            if sensor.name != "words":
                publish(CAMERA_INFO, Profile(NAMESPACE, "").name(sensor.placement.info))
        publish(STRING, f"{NAMESPACE}/robot_description", "/robot_description")
        if not {"/tf"} & missing():
            publish(TF_MESSAGE, "/tf", "/tf_static")
        frames = {}
        if apart:
            for sensor in parameters.sensors:
                perception(SensorNode, f"{sensor.name}_node", sensor=sensor.name)
                frames |= {
                    f"{sensor.name}.topic": f"omnibind/{sensor.name}",
                    f"{sensor.name}.message_type": "omnibind_ros/msg/ModalityFrame",
                }
        perception(FusionNode, "fusion_node", **frames)
        view = LiveView(MagicMock(), 10, context=context, namespace=NAMESPACE, parameter_overrides=[clock])
        recording = rclpy.create_node("bag_recorder", context=context, parameter_overrides=[clock])
        made.extend([view, recording])
        Recorder(recording, tmp_path / "bag")._look()
        for node in made:
            if node is not recording:
                executor.add_node(node)

    def living(profile, right):
        found = getattr(drivers, RIGHTS[right])(profile.node, profile.namespace)
        return {name for name, _ in found}

    yield start, living, lambda: executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    for node in made[1:]:
        if hasattr(node, "stop"):
            node.stop()
    for node in made:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.ros
@pytest.mark.parametrize("apart", [False, True], ids=["one", "per_sensor"])
def test_the_policy_allows_what_living_nodes_have_and_no_more(nodes, apart):
    start, living, spin = nodes
    start(apart)
    wanted = profiles(GivenParameters(GIVEN), NAMESPACE, "per_sensor" if apart else "one")
    wanted = [one for one in wanted if one.node != OPERATOR]
    assert [one.node for one in wanted if one.node.endswith("_node")] == [
        "fusion_node", *([f"{name}_node" for name in GIVEN["sensors"]] if apart else []),
    ]  # fmt: skip
    absent = {one.node: missing() for one in wanted}
    if importlib.util.find_spec("rclpy.type_description_service") is None:  # Humble
        for one in wanted:
            absent[one.node].add(one.name("~/get_type_description"))
    absent[RECORDER].add(f"{NAMESPACE}/words/text")  # which it takes only if it is named

    def differences():
        found = {}
        for one in wanted:
            for right in RIGHTS:
                has, may = living(one, right), getattr(one, right)
                if more := has - may:
                    found[one.node, right] = f"has what the policy lacks: {sorted(more)}"
                elif less := may - has - absent[one.node]:
                    found[one.node, right] = f"has not, and may: {sorted(less)}"
        return found

    deadline = time.monotonic() + PATIENCE
    while differences() and time.monotonic() < deadline:
        spin()
    assert differences() == {}


@pytest.mark.ros
def test_a_topic_that_the_policy_denies_is_told_and_tried_again(monkeypatch):
    rclpy = pytest.importorskip("rclpy")
    from omnibind_ros.graph.topics import SubscriptionPool, TopicLink, message_class

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=any_domain())
    node = rclpy.create_node("listener", context=context)
    allowed = node.create_subscription
    try:
        node.create_publisher(message_class(STRING), "words/text", 1)

        def deny(*given, **options):
            raise RuntimeError("failed to create subscription:\n denied by access control, at /src/subscription.cpp:9")

        monkeypatch.setattr(node, "create_subscription", deny)
        link = TopicLink(node, SubscriptionPool(node), "words/text", (STRING,), "auto", 1, lambda *_: None)
        deadline = time.monotonic() + PATIENCE
        while link.obstacle is None and time.monotonic() < deadline:
            link.poll()
        assert link.obstacle is not None and link.obstacle[1] == (
            "/words/text has messages of type std_msgs/msg/String, and the middleware refuses to subscribe to them: "
            "failed to create subscription: denied by access control"
        )
        link.poll()
        assert link.obstacle is not None, "not taken for subscribed"
        monkeypatch.setattr(node, "create_subscription", allowed)
        link.poll()
        assert link.obstacle is None and link.ros_type == STRING
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.ros
def test_a_node_that_the_middleware_refuses_ends_with_a_sentence(capfd, monkeypatch):
    rclpy = pytest.importorskip("rclpy")
    from rclpy.impl.implementation_singleton import rclpy_implementation

    from omnibind_ros.node import process

    monkeypatch.setattr(rclpy, "ok", lambda: True)

    def refuse():
        raise rclpy_implementation.RCLError("error creating node: no security libraries, at /src/participant.cpp:364")

    assert process._spin(refuse) == 1
    assert "cannot start: error creating node: no security libraries" in capfd.readouterr().err


def test_the_policy_in_config_is_that_of_the_parameters_in_config(repo, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["policy"])
    assert ended.value.code == 0
    path = "config/security/policies/omnibind.policy.xml"
    assert capsys.readouterr().out == (repo / path).read_text(), f"omnibind policy --out {path} writes it anew"


def test_a_policy_is_made_for_a_parameter_file(tmp_path):
    file, out = tmp_path / "robot --- mine.yaml", tmp_path / "policy.xml"
    file.write_text(
        "/**: {ros__parameters: {sensors: [a, b], a: {type: camera, topic: '~/{node}/x'}, b: {type: lidar},"
        " objects.enabled: true, objects.detections: [/boxes a]}}"
    )
    with pytest.raises(SystemExit):
        given = "--params", str(file), "--namespace", "robot/", "--processes", "per_sensor"
        cli.main(["policy", *given, "--out", str(out)])
    root = ElementTree.parse(out).getroot()
    assert (root.tag, root.get("version")) == ("policy", "0.2.0")
    enclaves = {row.get("path"): row.find("profiles/profile") for row in root.iterfind("enclaves/enclave")}
    assert [*enclaves] == [
        "/robot/fusion_node", "/robot/a_node", "/robot/b_node", f"/robot/{VIEW}", f"/{RECORDER}", f"/robot/{OPERATOR}",
    ]  # fmt: skip

    def rights(path, kind, right):
        return {row.text for row in enclaves[path].iterfind(f"{kind}s[@{right}='ALLOW']/{kind}")}

    heard = rights("/robot/fusion_node", "topic", "subscribe")
    assert {"/boxes", "/tf", "/robot/robot_description", "/robot/omnibind/a", "/robot/omnibind/b"} < heard
    assert {"/robot/a_node/a_node/x", "/clock"} == rights("/robot/a_node", "topic", "subscribe")
    assert {"/robot/b/points", "/robot/b/camera_info", "/clock"} == rights("/robot/b_node", "topic", "subscribe")
    setting = "/robot/fusion_node/set_parameters"
    may_set = [path for path in enclaves if setting in rights(path, "service", "request")]
    assert may_set == [f"/robot/{OPERATOR}"]
    assert not any("set" in name for name in rights(f"/robot/{VIEW}", "service", "request"))


def test_who_adopts_topics_may_hear_all_and_that_is_said(tmp_path):
    file, out = tmp_path / "robot.yaml", tmp_path / "policy.xml"
    file.write_text("/**: {ros__parameters: {sensors: [''], discover: true}}")
    with pytest.raises(SystemExit):
        cli.main(["policy", "--params", str(file), "--out", str(out)])
    node = profiles(GivenParameters(read_parameters(file)))[0]
    assert "/*" in node.subscribe and "/fusion_node/*" in node.reply and "/*" not in node.publish
    assert "may hear all" in out.read_text()


@pytest.mark.parametrize(
    ("given", "words"),
    [(["--namespace", "my robot"], "--namespace is 'my robot'"), (["--out", "/nowhere/a.xml"], "No such file")],
)
def test_wrong_use_is_told(given, words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["policy", *given])
    assert ended.value.code == 2 and words in capsys.readouterr().err
