"""The tables in docs/ against the code, and the launch and parameter files against both."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest
import yaml
from domains import any_domain

from omnibind_core.errors import ConfigError
from omnibind_ros.commands import policy
from omnibind_ros.node import parameters
from omnibind_ros.replay.setup import GivenParameters, read_parameters

DOMAIN = any_domain()


def sections(text):
    """Text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text, columns):
    """The first cells of all rows of all tables with so many columns, without backticks."""
    rows = [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in text.splitlines()
            if line.startswith("| `")]  # fmt: skip
    return [tuple(row[:columns]) for row in rows]


@pytest.mark.parametrize(
    ("specs", "prefix"),
    [(parameters.FUSION_NODE, ""), (parameters.SENSOR_NODE, ""), (parameters.SENSOR, "<sensor>.")],
    ids=["fusion_node", "sensor_node", "sensor"],
)
def test_parameters(repo, specs, prefix):
    expected = parameters.table(specs, prefix)
    text = (repo / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert expected in text, f"docs/parameters.md should have:\n{expected}"


@pytest.mark.parametrize(
    "name",
    [
        "Prediction",
        "SensorShare",
        "ObjectPredictions",
        "ObjectPrediction",
        "ObjectView",
        "Detections",
        "Detection",
        "FusionStatus",
        "SensorStatus",
        "ModalityFrame",
        "EventArray",
        "AudioChunk",
    ],
)
def test_messages(repo, name):
    definition = (repo / "msg" / f"{name}.msg").read_text(encoding="utf-8")
    fields = [(field, kind) for kind, field in re.findall(r"^(\S+) ([a-z_0-9]+)\s+# ", definition, re.M)]
    constants = [(constant, value) for constant, value in re.findall(r"^\S+ ([A-Z_0-9]+)=(\S+)\s+# ", definition, re.M)]
    code = [line for line in definition.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(fields) + len(constants) == len(code), "every field and constant has a comment"
    section = sections((repo / "docs" / "messages.md").read_text(encoding="utf-8"))[name]
    assert table(section, 2) == constants + fields


def test_every_message_is_documented(repo):
    documented = sections((repo / "docs" / "messages.md").read_text(encoding="utf-8"))
    assert {path.stem for path in (repo / "msg").glob("*.msg")} == set(documented) - {"Accepted sensor messages"}


def documented_topics(repo, node):
    text = sections((repo / "docs" / "topics.md").read_text(encoding="utf-8"))[node]
    rows = re.findall(r"^\| (in|out|service) \| `(.+?)` \| (\S+)", text, re.M)
    packages = {name for name in ("vision_msgs", "visualization_msgs") if not importlib.util.find_spec(name)}
    return [row for row in rows if row[2].partition("/")[0] not in packages]


def created_topics(kind):
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    try:
        node = kind(context=context)
        publishers = node.get_publisher_names_and_types_by_node(node.get_name(), "/")
        services = node.get_service_names_and_types_by_node(node.get_name(), "/")
        sensors = {sensor.name: sensor.topic for sensor in node.parameters.sensors}
        own = {"/rosout", "/parameter_events", f"/{node.get_name()}/transition_event"}
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    rows = {("out", name, types[0]) for name, types in publishers if name not in own}
    return rows | {("service", name, types[0]) for name, types in services if "std_srvs" in types[0]}, sensors


def test_environment_variables_are_documented(repo):
    sources = [path for folder in ("omnibind_core", "omnibind_ros") for path in (repo / folder).rglob("*.py")]
    used = {name for path in sources for name in re.findall(r'"(OMNIBIND_[A-Z_]+)"', path.read_text(encoding="utf-8"))}
    text = sections((repo / "docs" / "parameters.md").read_text(encoding="utf-8"))["Environment variables"]
    assert used == set(re.findall(r"^\| `(\w+)`", text, re.M))


@pytest.mark.ros
def test_topics_of_the_fusion_node(repo, monkeypatch):
    fusion_node = pytest.importorskip("omnibind_ros.node.fusion_node")
    from rclpy.parameter import Parameter

    def configured(context):  # what is told of things is advertised then; no model is needed for that
        node = fusion_node.FusionNode(context=context, parameter_overrides=[Parameter("objects.enabled", value=True)])
        monkeypatch.setattr(fusion_node.PerceptionNode, "on_configure", lambda self, state: None)
        node.on_configure(None)
        return node

    created, sensors = created_topics(configured)
    documented = documented_topics(repo, "fusion_node")
    assert {name for way, name, _ in documented if way == "in"} == set(sensors.values())
    expected = set()
    for way, name, kind in documented:
        if way == "in":
            continue
        for sensor in sensors if "<sensor>" in name else [""]:
            resolved = name.replace("<sensor>", sensor).replace("~", "/fusion_node")
            expected.add((way, resolved if resolved.startswith("/") else f"/{resolved}", kind))
    assert created == expected


@pytest.mark.ros
def test_topics_of_the_sensor_node(repo):
    sensor_node = pytest.importorskip("omnibind_ros.node.sensor_node")
    created, _ = created_topics(sensor_node.SensorNode)
    documented = {
        (way, name.replace("<sensor>", "camera"), kind) for way, name, kind in documented_topics(repo, "sensor_node")
    }
    assert created == {(way, name if name.startswith("/") else f"/{name}", kind) for way, name, kind in documented}


def named(dotted):
    """What a dotted name stands for.

    Raises:
        AttributeError: Nothing.
    """
    package, *parts = dotted.split(".")
    found = importlib.import_module(package)
    for part in parts:
        package = f"{package}.{part}"
        if isinstance(found, ModuleType) and not hasattr(found, part) and importlib.util.find_spec(package):
            importlib.import_module(package)
        found = getattr(found, part)
    return found


@pytest.mark.ros
def test_the_way_of_a_message_is_that_of_the_code(repo):
    pytest.importorskip("omnibind_ros.node.fusion_node")
    text = (repo / "docs" / "message_to_prediction.md").read_text(encoding="utf-8")
    things = {name: named(name) for name in re.findall(r"`(omnibind_\w+(?:\.\w+)+)`", text)}
    assert len(things) > 25
    classes = {part: named(name.partition(part)[0] + part) for name in things for part in name.split(".")
               if part[0].isupper()}  # fmt: skip
    diagram = text.partition("```mermaid\n")[2].partition("```")[0]
    participants = re.findall(r"^ *participant (\w+)$", diagram, re.M)
    assert len(participants) > 5 and set(participants) <= set(classes)
    calls = re.findall(r"^ *(\w+)->>(\w+): (\w+)\(\)$", diagram, re.M)
    assert len(calls) == diagram.count("->>") - 1  # and the message
    assert {(which, call) for _, which, call in calls if not hasattr(classes[which], call)} == set()
    assert {end for pair in calls for end in pair[:2]} == set(participants)
    with pytest.raises(AttributeError):
        named("omnibind_core.runtime.stream.PerceptionStream.on_massage")


@pytest.mark.ros
def test_the_parameter_file_is_accepted_whole(repo):
    fusion_node = pytest.importorskip("omnibind_ros.node.fusion_node")
    rclpy = pytest.importorskip("rclpy")
    path = repo / "config" / "perception.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(content) == ["/**"]
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    try:
        node = fusion_node.FusionNode(context=context, cli_args=["--ros-args", "--params-file", str(path)])
        assert node.parameters.unknown(node._parameter_overrides) == []
        assert node.parameters.sensor_names == list(parameters.SENSOR_TYPES)
        assert node.parameters["thermal.scale"] == 0.01
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def launch_arguments(repo):
    text = (repo / "launch" / "perception.launch.py").read_text(encoding="utf-8")
    return re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text)


ARGUMENTS = [
    "namespace", "params_file", "model", "labels", "processes", "use_sim_time", "autostart", "log_level",
    "shared_memory", "enclaves", "respawn", "composition",
]  # fmt: skip


def test_the_launch_file_compiles_and_has_all_arguments(repo):
    path = repo / "launch" / "perception.launch.py"
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
    assert launch_arguments(repo) == ARGUMENTS


@pytest.mark.ros
@pytest.mark.parametrize(
    ("arguments", "nodes"),
    [({}, 1), ({"processes": "per_sensor"}, 7), ({"composition": "true"}, 1), ({"composition": "false"}, 7)],
)
def test_the_launch_file_makes_its_nodes(repo, arguments, nodes):
    reason = "launch and launch_ros come with a ROS installation only"
    launch_ros = pytest.importorskip("launch_ros.actions", reason=reason)
    launch = pytest.importorskip("launch", reason=reason)
    sources = pytest.importorskip("launch.launch_description_sources", reason=reason)
    description = sources.PythonLaunchDescriptionSource(str(repo / "launch" / "perception.launch.py"))
    context = launch.LaunchContext()
    context.launch_configurations.update(arguments, labels="cup, dog")
    made = []
    for entity in description.get_launch_description(context).entities:
        if isinstance(entity, launch.actions.DeclareLaunchArgument):
            assert entity.description
            assert entity.name in ("namespace", "params_file", "model", "labels") or entity.choices
        made += entity.visit(context) or []
    assert len(made) == nodes
    assert all(isinstance(node, launch_ros.Node) for node in made)


def launch_file(repo, monkeypatch):
    """With stand-ins for launch, which comes with a ROS installation only."""
    modules = ["launch", "launch.actions", "launch.logging", "launch.substitutions", "launch_ros", "launch_ros.actions"]
    fakes = {name: MagicMock() for name in (*modules, "ament_index_python", "ament_index_python.packages")}
    fakes["launch.substitutions"].LaunchConfiguration = lambda name: SimpleNamespace(perform=lambda given: given[name])
    fakes["launch_ros.actions"].Node = lambda **settings: settings
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    defaults = {**dict.fromkeys(ARGUMENTS, ""), "params_file": str(repo / "config" / "perception.yaml")}
    nodes_of = runpy.run_path(str(repo / "launch" / "perception.launch.py"))["_nodes"]
    return lambda **given: nodes_of({**defaults, **given}), fakes["launch.logging"].get_logger()


@pytest.mark.parametrize(
    ("arguments", "nodes", "named"),
    [
        ({"processes": "one"}, 1, ""),
        ({"processes": "per_sensor"}, 7, ""),
        ({"processes": "one", "composition": "false"}, 7, "processes:=per_sensor"),
        ({"processes": "one", "composition": "true"}, 1, "processes:=one"),
    ],
)
def test_the_old_name_of_processes_is_understood_and_warned_of(repo, monkeypatch, arguments, nodes, named):
    nodes_of, log = launch_file(repo, monkeypatch)
    made = nodes_of(**arguments)
    assert len(made) == nodes
    warnings = [str(call.args[0]) for call in log.warning.call_args_list]
    assert [named in warning for warning in warnings] == ([True] if named else [])


@pytest.mark.parametrize("processes", ["one", "per_sensor"])
def test_the_launch_file_gives_nodes_the_enclaves_of_the_policy(repo, monkeypatch, processes):
    nodes_of, _ = launch_file(repo, monkeypatch)
    assert not any("--enclave" in made["arguments"] for made in nodes_of(processes=processes))
    made = nodes_of(processes=processes, namespace="robot/one", enclaves="true")
    wanted = policy.profiles(GivenParameters(read_parameters(None)), "/robot/one", processes)
    assert {one["arguments"][-1] for one in made} == {one.enclave for one in wanted if one.node.endswith("_node")}
    assert all(one["arguments"][-2] == "--enclave" for one in made)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "params_file:=.*robot.yaml cannot be used: .*No such file"),
        ("/**:\n  ros__parameters:\n    rate: [1\n", "params_file:=.*robot.yaml cannot be used: .*line 3"),
        ("fusion_node:\n  rate: 3.0\n", "has no ros__parameters"),
        ("", "has no ros__parameters"),
        ("/**:\n  ros__parameters:\n    sensors: camera\n", "'sensors' is 'camera', expected a list of strings"),
        ("a:\n  b:\n    ros__parameters:\n      sensors: [2cam]\n", "'sensors' has '2cam', .*'sensor_2cam' would do"),
    ],
)
def test_the_launch_file_names_what_is_wrong_with_the_parameter_file(repo, monkeypatch, tmp_path, content, complaint):
    nodes_of, _ = launch_file(repo, monkeypatch)
    path = tmp_path / "robot.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises((RuntimeError, ConfigError), match=complaint) as caught:
        nodes_of(params_file=str(path), processes="per_sensor")
    assert "\n" not in str(caught.value)


def test_the_launch_file_takes_a_parameter_file_with_the_tags_of_launch(repo, monkeypatch, tmp_path):
    nodes_of, _ = launch_file(repo, monkeypatch)
    path = tmp_path / "robot.yaml"
    text = "/**:\n  ros__parameters:\n    sensors: !!python/tuple [camera, lidar]\n    model: 2024-13-45\n"
    path.write_text(text, encoding="utf-8")
    assert len(nodes_of(params_file=str(path), processes="per_sensor")) == 3


def test_the_tests_that_hold_promises_are_there(repo):
    text = (repo / "docs" / "reliability.md").read_text(encoding="utf-8")
    names = re.findall(r"`(?:([\w/]+\.py))?::(test_\w+)`", text)
    assert len(names) > 40 and "KILLTABLE" not in text
    file = ""
    for given, name in names:
        file = given or file  # `::test_x` is of the file before
        source = (repo / "test" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), (file, name)
