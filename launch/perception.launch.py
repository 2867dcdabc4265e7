"""Starts the perception of a robot: the fusion node alone, or one node per sensor and the fusion node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = "omnibind_ros"
BOOLEANS = ["true", "false"]


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    default_file = str(Path(get_package_share_directory(PACKAGE)) / "config" / "perception.yaml")
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of all nodes and relative topics"),
        DeclareLaunchArgument("params_file", default_value=default_file, description="YAML file with the parameters"),
        DeclareLaunchArgument("model", default_value="", description="model; empty: as in params_file"),
        DeclareLaunchArgument(
            "labels", default_value="", description="what can be recognised, a,b,c; empty: as in params_file"
        ),
        DeclareLaunchArgument(
            "processes",
            default_value="one",
            choices=["one", "per_sensor"],
            description="one: all sensors in the process of the fusion node; per_sensor: one more per sensor",
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=BOOLEANS, description="take the time from /clock"
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=BOOLEANS,
            description="configure and activate at once; false: a lifecycle manager does it",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="least severity that is logged",
        ),
        DeclareLaunchArgument(
            "shared_memory",
            default_value="false",
            choices=BOOLEANS,
            description="true: Fast DDS's default transports; false: UDP, which no dying driver can halt",
        ),
        DeclareLaunchArgument(
            "enclaves",
            default_value="false",
            choices=BOOLEANS,
            description="true: each node in the enclave of its full name, as omnibind policy writes them",
        ),
        DeclareLaunchArgument(
            "respawn", default_value="false", choices=BOOLEANS, description="start a node again when it dies"
        ),
        DeclareLaunchArgument(
            "composition",
            default_value="",
            choices=["", "true", "false"],
            description="old name, goes with the next version: true is processes:=one, false is processes:=per_sensor",
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[Node]:
    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    common: dict[str, Any] = {name: value(name) == "true" for name in ("use_sim_time", "autostart")}
    if value("model"):
        common["model"] = value("model")
    fusion: dict[str, Any] = dict(common)
    labels = [label.strip() for label in value("labels").split(",") if label.strip()]
    if labels:
        fusion["labels"] = labels
    blocks = _blocks(Path(value("params_file")))
    nodes = []
    processes = value("processes")
    if value("composition"):
        processes = "one" if value("composition") == "true" else "per_sensor"
        get_logger("perception.launch").warning(f"composition:= is an old name; use processes:={processes}")
    if processes == "per_sensor":
        for sensor in _sensors(blocks):
            fusion |= {
                f"{sensor}.topic": f"omnibind/{sensor}",
                f"{sensor}.message_type": f"{PACKAGE}/msg/ModalityFrame",
            }
            nodes.append(_node("sensor_node", f"{sensor}_node", {**common, "sensor": sensor}, value))
    return [*nodes, _node("fusion_node", "fusion_node", fusion, value)]


def _node(executable: str, name: str, parameters: dict[str, Any], value: Any) -> Node:
    enclave = "/" + "/".join(word for word in (*value("namespace").split("/"), name) if word)
    enclaves = ["--enclave", enclave] if value("enclaves") == "true" else []
    return Node(
        package=PACKAGE,
        executable=executable,
        name=name,
        namespace=value("namespace"),
        parameters=[value("params_file"), parameters],
        arguments=["--ros-args", "--log-level", value("log_level"), *enclaves],
        output="screen",
        emulate_tty=True,
        additional_env={"OMNIBIND_SHARED_MEMORY": "1"} if value("shared_memory") == "true" else {},
        respawn=value("respawn") == "true",
        respawn_delay=2.0,
    )


def _blocks(path: Path) -> list[dict[str, Any]]:
    """The parameters in a file, whatever nodes they are for. Without this launch would leave out what it cannot read.

    Raises:
        RuntimeError: It is no parameter file.
    """
    from omnibind_core.config import forms_of_yaml

    try:
        waiting: list[Any] = forms_of_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RuntimeError(f"params_file:={path} cannot be used: {' '.join(str(error).split())}") from error
    blocks: list[dict[str, Any]] = []
    while waiting:
        mapping = waiting.pop()
        for key, value in mapping.items() if isinstance(mapping, dict) else ():
            if key == "ros__parameters" and (isinstance(value, dict) or not value):
                blocks.append(value or {})
            else:
                waiting.append(value)
    if not blocks:
        raise RuntimeError(f"params_file:={path} has no ros__parameters, expected parameters of a node below it")
    return blocks


def _sensors(blocks: list[dict[str, Any]]) -> list[str]:
    """Names of the sensors in the parameters of a file, checked."""
    from omnibind_ros.node.parameters import SENSOR_TYPES, check_sensor_names

    names = next((block["sensors"] for block in blocks if block.get("sensors")), list(SENSOR_TYPES))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RuntimeError(f"parameter 'sensors' is {names!r}, expected a list of strings")
    check_sensor_names(names, "sensors")
    return names
