"""Which topics of a bag are sensors, and with which parameters: as the fusion node would have it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omnibind_core import modalities, resources
from omnibind_core.config import from_yaml
from omnibind_core.errors import ConfigError, DataError, InvalidInputError
from omnibind_ros import messages
from omnibind_ros.bags import read
from omnibind_ros.bags import types as bag_types
from omnibind_ros.graph.discovery import Discovery, name_of
from omnibind_ros.graph.judging import Look, Offer, explain_type, look_of, substitute, wants_look
from omnibind_ros.node.parameters import FUSION_NODE, Parameters, Sensor, Spec

NODE = "fusion_node"
_MOST_SKIPPED = 5  # topics that are told one by one


class GivenParameters(Parameters):
    """The parameters of a fusion node that does not run.

    Args:
        given: Values by full name, for example ``"camera.timeout"``; the rest are defaults.

    Raises:
        ConfigError: A value is unusable.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._values: dict[str, Any] = {}
        super().__init__(None, FUSION_NODE)

    def _offer(self, spec: Spec, name: str) -> None:
        self._values[name] = self._given.get(name, spec.default)

    def _value(self, name: str) -> Any:
        return self._values[name]

    def _withdraw(self, name: str) -> None:
        self._values.pop(name, None)


@dataclass(frozen=True)
class Setup:
    """Sensors and parameters for one bag.

    Attributes:
        parameters: Of the fusion node.
        sensors: All sensors, by name; those without a topic in the bag are silent.
        topics: Full name of each sensor's topic.
        types: ROS type of the topics that are in the bag and can be used.
        refused: Why the topic of a sensor cannot be used, by sensor.
        notes: What a person should know, in sentences.
    """

    parameters: Parameters
    sensors: Mapping[str, Sensor]
    topics: Mapping[str, str]
    types: Mapping[str, str]
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[str, ...]:
        """Sensors that have messages in the bag which can be used."""
        return tuple(name for name in self.sensors if self.topics[name] in self.types and name not in self.refused)

    @property
    def modalities(self) -> set[str]:
        """Modalities of :attr:`present`."""
        return {self.sensors[name].config.modality for name in self.present}


def read_parameters(path: Path | None) -> dict[str, Any]:
    """Parameters that a file gives to the fusion node, by full name.

    Args:
        path: A ROS 2 parameter file; ``None`` takes the package's own ``config/perception.yaml``.

    Raises:
        ConfigError: It is no parameter file.
        DataError: It cannot be read.
    """
    path = resources.shared("config/perception.yaml", "omnibind_ros") if path is None else path
    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable parameter file: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of node names, got {type(content).__name__}")
    given: dict[str, Any] = {}
    fitting = [key for key in content if str(key) in ("/**", "/*") or str(key).rpartition("/")[2] == NODE]
    for key in sorted(fitting, key=lambda key: not str(key).startswith("/*")):  # what names the node counts more
        block = content[key].get("ros__parameters") if isinstance(content[key], dict) else None
        if not isinstance(block, dict):
            raise ConfigError(f"{path}: '{key}' has no ros__parameters, expected a mapping of parameters")
        given.update(_flat(block))
    if not fitting:
        found = ", ".join(map(str, content)) or "nothing"
        raise ConfigError(f"{path} has parameters of {found}, expected some of '/**' or '{NODE}'")
    return given


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in block.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def resolve(
    topics: Mapping[str, str],
    given: Mapping[str, Any],
    namespace: str = "/",
    adopt: bool = False,
    *,
    bag: Path | None = None,
) -> Setup:
    """Finds the sensors of a bag.

    Args:
        topics: Types of the bag's topics, by topic.
        given: Parameters, see :func:`read_parameters`.
        namespace: Of the node, for relative topic names.
        adopt: Also take topics that look like a sensor's and are none's, as ``discover: true`` does.
        bag: The bag, for what only it says: which topics cannot be read, which pictures are a camera's, and how a
            depth camera sees; ``None`` goes by types and names.

    Raises:
        ConfigError: A parameter is unusable.
        DataError: There is no sensor in the bag.
    """
    parameters = GivenParameters({**given, "discover": True} if adopt else given)
    skipped = {} if bag is None else read.skipped(bag)
    sensors = {sensor.name: sensor for sensor in parameters.sensors}
    full = {name: _resolved(sensor.topic, namespace) for name, sensor in sensors.items()}
    notes = parameters.unknown(given)
    if parameters["sync"] == "approximate":
        notes.append("parameter 'sync' is 'approximate': bags are always evaluated with 'adaptive'")
    if parameters["discover"]:
        discovery = Discovery(parameters.discovery)
        offers = [Offer(topic, (ros_type,), look=_look(bag, topic, ros_type)) for topic, ros_type in topics.items()]
        for judgement in discovery.choose(offers, modalities.sensors(), set(full.values())):
            topic, ros_type = judgement.offer.topic, judgement.offer.types[0]
            name = name_of(topic, namespace, set(sensors))
            sensors[name] = parameters.add(name, type=judgement.modality, topic=topic, message_type=ros_type)
            full[name] = topic
            notes.append(f"{topic} is taken for sensor '{name}': {judgement.modality} {judgement.reason}")
        left_out = {**discovery.excluded, **discovery.refused}
        notes += [f"{topic} is not taken for a sensor: {reason}" for topic, reason in left_out.items()]
    for name, sensor in sensors.items():
        info = _resolved(sensor.options.camera_info, namespace)
        sensors[name] = replace(sensor, options=replace(sensor.options, camera_info=info))
    refused = {
        name: f"{full[name]} has messages of type {topics[full[name]]}, expected {' or '.join(sensor.message_types)}"
        + (f": {told}" if (told := explain_type(topics[full[name]])) else "")
        for name, sensor in sensors.items()
        if full[name] in topics and topics[full[name]] not in sensor.message_types
    }
    for name in [name for name, topic in full.items() if topic in topics and name not in refused]:
        sensor, ros_type = sensors[name], topics[full[name]]
        if sensor.config.modality == "point_cloud" and ros_type in (messages.IMAGE, messages.COMPRESSED_IMAGE):
            info = sensor.options.camera_info
            if topics.get(info) != messages.CAMERA_INFO:
                clouds = " or ".join(kind for kind in sensor.message_types if kind != ros_type)
                lacks = f"depth is a cloud by its camera, and the bag has no {messages.CAMERA_INFO} on {info}"
                refused[name] = f"{full[name]} has messages of type {ros_type}: {lacks}; expected {clouds}"
                continue
            sensors[name] = replace(sensor, options=replace(sensor.options, intrinsics=_first(bag, info)))
    refused |= {
        name: f"{topic} cannot be read: {skipped[topic].reason}" for name, topic in full.items() if topic in skipped
    }
    types = {topic: topics[topic] for name, topic in full.items() if topic in topics and name not in refused}
    notes += [f"[{name}] {reason}" for name, reason in refused.items()]
    absent = [
        f"{name} ({topic}{f', {other}' if (other := substitute(topic, topics.__contains__)) else ''})"
        for name, topic in full.items()
        if topic not in {*topics, *skipped}
    ]
    notes += [f"the bag has no topic of {', '.join(absent)}"] if absent else []
    others = [f"{topic} is left out: {one.reason}" for topic, one in skipped.items() if topic not in full.values()]
    notes += others[:_MOST_SKIPPED]
    if len(others) > _MOST_SKIPPED:
        notes.append(f"{len(others) - _MOST_SKIPPED} other topics are left out: omnibind bag inspect --all says why")
    if not types:
        held = ", ".join(f"{topic} ({ros_type})" for topic, ros_type in sorted(topics.items())) or "no topics"
        raise DataError(f"no sensor has a usable topic in the bag; it holds {held}; {'; '.join(notes)}")
    return Setup(parameters, sensors, full, types, refused, tuple(notes))


def _look(bag: Path | None, topic: str, ros_type: str) -> Look:
    """What the first message of a topic says, if it says more than the topic's name."""
    unseen = Offer(topic, (ros_type,), look=None)
    message = _first(bag, topic) if wants_look(unseen) else None
    return Look() if message is None else look_of(ros_type, message)


def _first(bag: Path | None, topic: str) -> Any:
    """The first message of a topic; ``None`` if there is none that can be read, which the replay tells."""
    if bag is None:
        return None
    try:
        item = next(read.messages(bag, [topic]), None)
        return None if item is None else bag_types.decode(item)
    except (DataError, InvalidInputError):
        return None


def _resolved(topic: str, namespace: str) -> str:
    return topic if topic.startswith("/") else f"/{namespace.strip('/')}/{topic}".replace("//", "/")


def named(text: str, names: Collection[str], what: str) -> str:
    """The name that is meant: itself, or the only one that begins so.

    Raises:
        ConfigError: None is, or several are.
    """
    fitting = [text] if text in names else [name for name in names if name.startswith(text)] if text else []
    if len(fitting) == 1:
        return fitting[0]
    problem = f"may be {' or '.join(fitting)}" if fitting else f"expected one of {', '.join(names) or 'none'}"
    raise ConfigError(f"{what}: sensor '{text}' {problem}")
