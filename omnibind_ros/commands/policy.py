"""``omnibind policy``: what our nodes may say and hear, as a policy of SROS2. Needs no ROS."""

from __future__ import annotations

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from omnibind_core.errors import ConfigError
from omnibind_core.objects.rig import PICTURES
from omnibind_ros.node.parameters import Parameters, Sensor, detector
from omnibind_ros.replay.setup import NODE, GivenParameters, read_parameters

ONE, PER_SENSOR = "one", "per_sensor"
VIEW, RECORDER, OPERATOR = "omnibind_view", "bag_recorder", "omnibind_operator"

# What every node of rclpy has, and every lifecycle node besides.
_NODE_SERVICES = (
    "~/describe_parameters",
    "~/get_parameters",
    "~/list_parameters",
    "~/set_parameters",
    "~/get_parameter_types",
    "~/set_parameters_atomically",
    "~/get_type_description",
)
_LIFECYCLE_SERVICES = (
    "~/change_state",
    "~/get_state",
    "~/get_available_states",
    "~/get_available_transitions",
    "~/get_transition_graph",
)
_VISION = ("omnibind/classification", "omnibind/label_info")
_OBJECTS = ("omnibind/objects", "omnibind/detections", "omnibind/object_markers")
_BLIND = ("audio", "text")  # has no CameraInfo
_FRAMES = ("/tf", "/tf_static")

_HEAD = """
  What the nodes of omnibind may say and hear: {source}; processes:={processes}.
  Written by: omnibind policy. An enclave holds what a process may do; what is not in it is denied.
  omnibind_operator is for people and lifecycle managers: who has its key may set parameters and change states.
"""
_DISCOVERING = """
  discover: true lets the fusion node look at every topic, so it may hear all. List the sensors, to narrow that.
"""


@dataclass
class Profile:
    """What one node may do. Names are full.

    Attributes:
        namespace: Of the node, ``/`` or ``/robot``.
        node: Its name.
        publish: Topics that it may publish.
        subscribe: Topics that it may hear.
        reply: Services that it may offer.
        request: Services that it may call.
    """

    namespace: str
    node: str
    publish: set[str] = field(default_factory=set)
    subscribe: set[str] = field(default_factory=set)
    reply: set[str] = field(default_factory=set)
    request: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.publish |= {"/rosout", "/parameter_events"}
        self.subscribe.add("/clock")
        self.reply |= self.full(_NODE_SERVICES)

    @property
    def enclave(self) -> str:
        """Path of its enclave: the node's full name."""
        return self.name("~")

    def name(self, name: str) -> str:
        """The full name of a topic or service as the node's code has it."""
        namespace = self.namespace.rstrip("/")
        for word, value in (("node", self.node), ("ns", namespace), ("namespace", namespace)):
            name = name.replace(f"{{{word}}}", value)
        if name.startswith("~"):
            return f"{namespace}/{self.node}{name[1:]}"
        return name if name.startswith("/") else f"{namespace}/{name}"

    def full(self, names: Iterable[str]) -> set[str]:
        """The same of several."""
        return {self.name(name) for name in names}


def profiles(parameters: Parameters, namespace: str = "/", processes: str = ONE) -> list[Profile]:
    """What the nodes may do that parameters describe: our own, those of the commands, and an operator's.

    Args:
        parameters: Of the fusion node.
        namespace: Of the nodes.
        processes: As of the launch file: ``one``, or ``per_sensor``.
    """
    apart = processes == PER_SENSOR
    sensors = parameters.sensors
    nodes = [_fusion_node(parameters, namespace, apart)]
    if apart:
        nodes += [_sensor_node(sensor, namespace) for sensor in sensors]
    fusion = nodes[0]
    told = fusion.full(["omnibind/prediction", "omnibind/objects", "~/status"])
    view = Profile(namespace, VIEW, subscribe=told, request=fusion.full(["~/get_parameters"]))
    view.subscribe |= _heard(fusion, sensors, apart)
    recorder = Profile("/", RECORDER, subscribe={*_FRAMES, "/robot_description"})
    recorder.subscribe |= fusion.full(one.topic for one in sensors)
    recorder.subscribe |= fusion.full(one.placement.info for one in sensors if one.config.modality not in _BLIND)
    operator = Profile(namespace, OPERATOR)
    operator.request = {service for node in nodes for service in node.reply}
    operator.reply.add("/_ros2cli_*/get_type_description")  # nodes of the command ros2 have names of their own
    operator.subscribe |= {topic for node in nodes for topic in node.publish}
    return [*nodes, view, recorder, operator]


def _lifecycle(profile: Profile, touch: bool) -> Profile:
    profile.publish |= profile.full(["/diagnostics", "~/transition_event"])
    profile.reply |= profile.full(_LIFECYCLE_SERVICES)
    if touch:
        profile.reply |= profile.full(["~/set_tactile_reference"])
    return profile


def _heard(node: Profile, sensors: Iterable[Sensor], apart: bool, things: bool = False) -> set[str]:
    """Topics that are heard of sensors, themselves or by their nodes."""
    sensors = list(sensors)
    if apart:
        return node.full(f"omnibind/{one.name}" for one in sensors)
    kinds = {"point_cloud", *(PICTURES if things else ())}  # a depth picture needs its camera's CameraInfo
    infos = [one.placement.info for one in sensors if one.config.modality in kinds]
    return node.full([*(one.topic for one in sensors), *infos])


def _fusion_node(parameters: Parameters, namespace: str, apart: bool) -> Profile:
    node, sensors = Profile(namespace, NODE), parameters.sensors
    discovering, things = parameters["discover"], parameters.objects is not None
    _lifecycle(node, discovering or any(one.config.modality == "touch" for one in sensors))
    outputs = ["omnibind/prediction", "~/status", "~/debug_image", *_VISION, *(_OBJECTS if things else ())]
    node.publish |= node.full(outputs)
    node.subscribe |= _heard(node, sensors, apart, things)
    node.reply |= node.full(f"~/{one.name}/set_enabled" for one in sensors)
    if things:
        detectors = [detector(text)[0] for text in parameters["objects.detections"]]
        node.subscribe |= node.full([*_FRAMES, "robot_description", *detectors])
    if discovering:
        node.subscribe.add("/*")
        node.reply.add(node.name("~/*"))
    return node


def _sensor_node(sensor: Sensor, namespace: str) -> Profile:
    node = Profile(namespace, f"{sensor.name}_node")
    _lifecycle(node, sensor.config.modality == "touch")
    node.publish |= node.full([f"omnibind/{sensor.name}"])
    node.subscribe |= _heard(node, [sensor], apart=False)
    return node


def policy(parameters: Parameters, source: str, namespace: str = "/", processes: str = ONE) -> str:
    """The policy as XML, as ``ros2 security create_permission`` reads it.

    Args:
        parameters: Of the fusion node.
        source: Where they come from, for people.
        namespace: Of the nodes.
        processes: ``one``, or ``per_sensor``.
    """
    root = ElementTree.Element("policy", version="0.2.0")
    head = _HEAD.format(source=re.sub("-+", "-", source), processes=processes)
    root.append(ElementTree.Comment(head + (_DISCOVERING if parameters["discover"] else "")))
    enclaves = ElementTree.SubElement(root, "enclaves")
    for one in profiles(parameters, namespace, processes):
        enclave = ElementTree.SubElement(enclaves, "enclave", path=one.enclave)
        parent = ElementTree.SubElement(enclave, "profiles")
        profile = ElementTree.SubElement(parent, "profile", ns=one.namespace, node=one.node)
        for kind, rights in (("topic", ("publish", "subscribe")), ("service", ("reply", "request"))):
            for right in rights:
                names = sorted(getattr(one, right))
                rows = ElementTree.SubElement(profile, f"{kind}s", {right: "ALLOW"}) if names else profile
                for name in names:
                    ElementTree.SubElement(rows, kind).text = name
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sub-command."""
    parser = subparsers.add_parser(
        "policy",
        help="write what the nodes may say and hear, as a policy of SROS2",
        description="Writes a policy of SROS2 with an enclave for each node that a parameter file describes, for "
        "omnibind view and omnibind bag record, and for whoever operates them: docs/security.md.",
    )
    parser.add_argument("--params", type=Path, metavar="FILE", help="parameter file (default: the package's own)")
    parser.add_argument("--namespace", default="/", metavar="NS", help="namespace of the nodes")
    parser.add_argument(
        "--processes", choices=[ONE, PER_SENSOR], default=ONE, help="as of the launch file (default: one)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: standard output)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command. Returns 0.

    Raises:
        ConfigError: The namespace, a parameter or the file to write is unusable.
        DataError: The parameter file cannot be read.
    """
    namespace = "/" + args.namespace.strip("/")
    if not re.fullmatch(r"/|(/[A-Za-z_][A-Za-z0-9_]*)+", namespace):
        raise ConfigError(f"--namespace is '{args.namespace}', expected words of letters, digits and _, with / between")
    source = "config/perception.yaml" if args.params is None else args.params.name
    text = policy(GivenParameters(read_parameters(args.params)), source, namespace, args.processes)
    if args.out is None:
        sys.stdout.write(text)
        return 0
    try:
        args.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out is '{args.out}', which cannot be written: {error.strerror}") from error
    return 0
