"""All parameters of the nodes, in one table: declaration, checks and docs/parameters.md come from it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any, NamedTuple

from omnibind_core import modalities
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities import Modality
from omnibind_core.objects.types import PROPOSERS, ObjectSettings
from omnibind_core.runtime.types import EngineSettings, SensorConfig
from omnibind_core.runtime.vocabulary import check_labels
from omnibind_ros.graph.discovery import DiscoveryRules
from omnibind_ros.graph.judging import camera_info_topic
from omnibind_ros.messages import IMAGE_DECODERS, SAMPLE_FORMATS, DecodeOptions, Limits, types_for
from omnibind_ros.messages.objects import PICTURE_KINDS, Placement, transform_of

if TYPE_CHECKING:
    from rclpy.node import Node

SENSOR_TYPES: Mapping[str, str] = {
    "camera": "image",
    "thermal": "thermal",
    "event_camera": "event",
    "tactile": "touch",
    "lidar": "point_cloud",
    "microphone": "audio",
}
"""Modality of each sensor type; the name of a modality is accepted as a type, too."""

DISCOVER_EXCLUDE = ("omnibind",)
"""What the nodes of this package publish."""

MOST_SENSORS = 100
"""Of a node."""

NEVER, UNCONFIGURED, ALWAYS = "never", "unconfigured", "always"

_OF_ROS = frozenset(("use_sim_time", "qos_overrides", "start_type_description_service"))
"""Parameters that every node has, or may be given, and the first words of such ones."""

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_WORD = f"(?:[A-Za-z_]|{{{_NAME}}})(?:[A-Za-z0-9_]|{{{_NAME}}})*"


class Form(NamedTuple):
    """What a text has to look like.

    Attributes:
        pattern: Regular expression for all of it.
        words: The same for people.
    """

    pattern: str
    words: str


DEVICE = Form(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", "auto, cpu, cuda, cuda:1, ...")
TOPIC = Form(f"|(~?/)?{_WORD}(/{_WORD})*", "words of letters, digits and _, no digit first, with / between")


def good_name(text: str) -> str:
    """The valid name of a topic or sensor that is most like this one."""
    words = (re.sub("[^A-Za-z0-9_]+", "_", word.strip()) for word in text.strip(" /~").split("/"))
    good = "/".join(
        word if re.fullmatch(_NAME, word) else f"sensor_{word.strip('_')}" for word in words if word.strip("_")
    )
    return f"/{good}" if text.strip().startswith("/") else good


def check_sensor_names(names: Sequence[str], parameter: str, taken: Collection[str] = ()) -> None:
    """Checks the names of sensors, which become parts of topics and parameters.

    Args:
        names: The names.
        parameter: Where they were given.
        taken: Names that mean something else.

    Raises:
        ConfigError: One cannot be used.
    """
    for name in names:
        if not re.fullmatch(_NAME, name):
            good = good_name(name.replace("/", "_"))
            found = f"parameter '{parameter}' has '{name}', expected letters, digits and _, with no digit first"
            raise ConfigError(f"{found}; '{good}' would do" if good else found)
        if name in taken:
            raise ConfigError(f"parameter '{parameter}' has '{name}', expected a name that no other parameter has")
    if len(set(names)) < len(names):
        raise ConfigError(f"parameter '{parameter}' names one twice: {', '.join(names)}")
    if len(names) > MOST_SENSORS:  # what each sensor adds is told by the fusion of all others
        raise ConfigError(f"parameter '{parameter}' has {len(names)} names, expected at most {MOST_SENSORS}")


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        name: Its name; inside a sensor's block without the sensor's name.
        default: Its default, which also gives its type.
        description: One line, with the unit.
        changeable: When it can be changed: ``never`` after the start, while the node is ``unconfigured``, or
            ``always``.
        minimum: Smallest value.
        maximum: Largest value.
        choices: Accepted values, if only some are.
        form: What a text has to look like.
    """

    name: str
    default: Any
    description: str
    changeable: str = UNCONFIGURED
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()
    form: Form | None = None

    def check(self, value: Any, name: str) -> Any:
        """Returns the value in the type of the default (an integer where a float is wanted becomes one).

        Raises:
            ConfigError: Of another type, out of range, or not among the choices; names the parameter.
        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if value is None and isinstance(self.default, list):
            return []  # what ROS makes of an empty list in a file
        if isinstance(self.default, list):
            if not isinstance(value, Sequence) or isinstance(value, str) or any(type(v) is not str for v in value):
                raise ConfigError(f"parameter '{name}' is {value!r}, expected a list of strings")
            return [v for v in value if v]
        if type(value) is not type(self.default):
            raise ConfigError(f"parameter '{name}' is {value!r}, expected a {_TYPE_NAMES[type(self.default)]}")
        if isinstance(value, float | int) and not (self.minimum <= value <= self.maximum and math.isfinite(value)):
            raise ConfigError(f"parameter '{name}' is {value}, expected {self.range or 'a finite number'}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"parameter '{name}' is '{value}', expected one of {', '.join(self.choices)}")
        if self.form is not None and not re.fullmatch(self.form.pattern, value):
            good = good_name(value) if self.form is TOPIC else ""
            offer = f"; '{good}' would do" if good.strip("/") else ""
            raise ConfigError(f"parameter '{name}' is '{value}', expected {self.form.words}{offer}")
        return value

    @property
    def range(self) -> str:
        """Accepted values in words; empty if all are."""
        if self.choices:
            return ", ".join(self.choices)
        if self.form is not None:
            return self.form.words
        if math.isinf(self.minimum) and math.isinf(self.maximum):
            return ""
        if math.isinf(self.maximum):
            return f"{self.minimum:g} or more"
        return f"{self.minimum:g} to {self.maximum:g}"


_TYPE_NAMES = {bool: "bool", int: "integer", float: "number", str: "string", list: "list of strings"}

_MODEL = Spec("model", "lite", "name of a shipped model, or folder of a saved one")
_DEVICE = Spec("device", "auto", "torch device; auto takes cuda where there is one", form=DEVICE)
_PRECISION = Spec(
    "precision",
    "float32",
    "what trunks compute in, where made-up input gives what float32 gives; auto: float16, else bfloat16, on a GPU",
    choices=("auto", "float32", "bfloat16", "float16"),
)
_ENGINE = Spec(
    "engine",
    "auto",
    "what runs trunks while device is cpu; auto: the fastest that is installed and gives what torch gives",
    choices=("auto", "torch", "onnxruntime", "openvino", "tensorrt"),
)
_PROVIDERS = Spec(
    "providers",
    [""],
    "what the engine onnxruntime runs on, in turn, by its names; empty: the CPU (tensorrt: TensorRT, CUDA, the CPU)",
)
_AUTOSTART = Spec("autostart", True, "configure and activate at the start; false leaves it to a manager", NEVER)

_THINGS = ObjectSettings()

OBJECTS: tuple[Spec, ...] = (
    Spec("objects.enabled", False, "tell what is where: one prediction for each thing (docs/objects.md)"),
    Spec(
        "objects.fixed_frame", "", "frame that things are told in; empty: odom, else what most sensors' frames hang on"
    ),
    Spec(
        "objects.detections",
        [""],
        "topics of detectors, each with a sensor's name after a space where its frame does not tell whose pictures",
    ),
    Spec("objects.transforms", [""], "where frames are, beside tf: parent child x y z roll pitch yaw, m and rad"),
    Spec("objects.urdf", "", "file of a robot's description, of which the fixed joints are taken"),
    Spec("objects.propose", list(_THINGS.propose), f"own proposers: {', '.join(PROPOSERS)}; empty: detectors alone"),
    Spec("objects.max_objects", _THINGS.max_objects, "things of which something is encoded at a tick", minimum=1),
    Spec("objects.max_crops", _THINGS.max_crops, "pictures encoded of things at a tick; a cloud is several", minimum=1),
    Spec("objects.max_regions", _THINGS.max_regions, "regions looked at at a tick, the surest", minimum=1),
    Spec(
        "objects.detection_age",
        _THINGS.detection_age,
        "s by which a detection may be older, or newer, than the tick",
        UNCONFIGURED,
        0.01,
        10.0,
    ),
    Spec("objects.confirm", _THINGS.confirm, "ticks that a thing must be found in before it is told", minimum=1),
    Spec(
        "objects.forget", _THINGS.forget, "s without evidence after which a thing is forgotten", UNCONFIGURED, 0.1, 60.0
    ),
    Spec(
        "objects.refresh", _THINGS.refresh, "s after which a thing's view is encoded again", UNCONFIGURED, 0.01, 3600.0
    ),
    Spec(
        "objects.moved",
        _THINGS.moved,
        "the same, when it has moved or grown by this share of its size",
        UNCONFIGURED,
        0.01,
        100.0,
    ),
    Spec(
        "objects.memory",
        _THINGS.memory,
        "s within which other evidence wins over a thing's label",
        UNCONFIGURED,
        0.1,
        600.0,
    ),
)
"""What is where; of :class:`~omnibind_core.objects.types.ObjectSettings`, and how it is told to."""

_MOST = Limits()

LIMITS: tuple[Spec, ...] = (
    Spec("limits.pixels", _MOST.pixels, "pixels of a picture in a message", minimum=1, maximum=1 << 28),
    Spec("limits.points", _MOST.points, "points of a cloud or scan in a message", minimum=1, maximum=1 << 28),
    Spec("limits.events", _MOST.events, "events, or words of a packet, in a message", minimum=1, maximum=1 << 28),
    Spec("limits.sound", _MOST.sound, "s of sound in a message", minimum=0.01, maximum=3600.0),
    Spec("limits.text", _MOST.text, "characters of a text", minimum=1, maximum=_MOST.text),
    Spec("limits.queued", _MOST.queued, "MB of messages of a sensor that wait for a tick", minimum=1, maximum=100_000),
)
"""Of :class:`~omnibind_ros.messages.Limits`: what holds more is rejected, and of what waits the oldest goes."""

FUSION_NODE: tuple[Spec, ...] = (
    _MODEL,
    _DEVICE,
    _PRECISION,
    _ENGINE,
    _PROVIDERS,
    _AUTOSTART,
    Spec("sensors", list(SENSOR_TYPES), "names of the sensors; each has a block of parameters of its name", NEVER),
    Spec("rate", 5.0, "fusion ticks per second, Hz; fewer while there is no time for all", ALWAYS, 0.1, 100.0),
    Spec(
        "labels", [""], "what can be recognised, embedded while the ones before answer; empty: the model's own", ALWAYS
    ),
    Spec("threshold", -1.0, "confidence below which a prediction is unknown; -1: the model's own", ALWAYS, -1.0, 1.0),
    Spec("top_k", 5, "number of labels in a prediction", UNCONFIGURED, 1, 1000),
    Spec("min_sensors", 1, "fewer living sensors than this give no prediction", UNCONFIGURED, 1, 100),
    Spec(
        "trigger",
        "rate",
        "rate, or the name of a sensor: a tick for each of its messages, and at the rate only while it is dead",
    ),
    Spec(
        "max_wait",
        0.05,
        "s that a tick waits at most for what living sensors have measured, but not yet delivered",
        UNCONFIGURED,
        0.0,
        10.0,
    ),
    Spec(
        "max_future", 0.5, "s by which a stamp may lie ahead of now; later ones are rejected", UNCONFIGURED, 0.0, 3600.0
    ),
    Spec(
        "sync",
        "adaptive",
        "adaptive: whatever is alive; approximate: complete sets of message_filters, for comparison",
        choices=("adaptive", "approximate"),
    ),
    Spec("slop", 0.1, "s between the first and the last message of a set (sync: approximate)", UNCONFIGURED, 0.0, 10.0),
    Spec("discover", False, "adopt the topics that are sensors', by what they say, as they appear, and let them go"),
    Spec(
        "discover_include",
        [""],
        "regular expressions, one of which the topic must contain; what they spell out is a sensor's; empty: any",
    ),
    Spec("discover_exclude", list(DISCOVER_EXCLUDE), "regular expressions, none of which it may contain"),
    Spec("discover_limit", 8, "topics adopted at most, the best ones", UNCONFIGURED, 1, 100),
    Spec("discover_forget", 10.0, "s without a publisher after which a topic is let go", UNCONFIGURED, 0.0, 3600.0),
    Spec("publish_embedding", False, "fill Prediction.embedding", ALWAYS),
    Spec("publish_similarities", False, "fill Prediction.similarities", ALWAYS),
    *LIMITS,
    *OBJECTS,
)

SENSOR_NODE: tuple[Spec, ...] = (
    _MODEL,
    _DEVICE,
    _PRECISION,
    _ENGINE,
    _PROVIDERS,
    _AUTOSTART,
    Spec("sensor", "camera", "name of the sensor; its block of parameters has the same name", NEVER),
    Spec("rate", 10.0, "frames per second that are sent at most, Hz", ALWAYS, 0.1, 100.0),
    Spec(
        "send",
        "preprocessed",
        "preprocessed: the encoder runs in the fusion node; embedding: here",
        choices=("preprocessed", "embedding"),
    ),
    *LIMITS,
)

SENSOR: tuple[Spec, ...] = (
    Spec("type", "", f"{', '.join(SENSOR_TYPES)}, or a modality, as text; empty: the sensor's name"),
    Spec("topic", "", "empty: the name of the sensor and /image_raw, /events, /points, /audio or /text", form=TOPIC),
    Spec("message_type", "", "accepted message type; empty: every type of the modality, as found on the topic"),
    Spec("enabled", True, "whether the sensor may take part", ALWAYS),
    Spec("timeout", 1.0, "s of silence after which the sensor leaves the fusion; text: 5", ALWAYS, 0.01, 3600.0),
    Spec("time_offset", 0.0, "s added to the stamps of the sensor", ALWAYS, -3600.0, 3600.0),
    Spec(
        "stamp",
        "header",
        "header: items are timed by their stamp; receive: by their receipt, for a clock of its own, as since boot",
        ALWAYS,
        choices=("header", "receive"),
    ),
    Spec("window", 0.0, "s; older items are not used, streams are cut to it; 0: the modality's own", minimum=0.0),
    Spec(
        "readmit_after", 2, "good messages in a row after which a lost sensor is back; text: 1", minimum=1, maximum=1000
    ),
    Spec("qos", "auto", "auto copies the publisher's", choices=("auto", "sensor_data", "reliable")),
    Spec("queue_depth", 0, "messages that may wait; 0: 5 for frames, 100 for streams", minimum=0, maximum=10000),
    Spec("scale", 1.0, "16-bit or float pixels, arrays: value * scale + offset, °C (thermal) or 0..255 (tactile)"),
    Spec("offset", 0.0, "see scale"),
    Spec("rows", 0, "rows of a pressure array whose messages do not say it; 0: they do", minimum=0, maximum=65535),
    Spec(
        "camera_info",
        "",
        "topic of the CameraInfo of pictures, and of a depth camera (lidar); empty: camera_info beside its topic",
        form=TOPIC,
    ),
    Spec("frame", "", "frame that it looks from; empty: that of its messages"),
    Spec(
        "field_of_view",
        0.0,
        "degrees across its pictures, without distortion; 0: its CameraInfo tells",
        minimum=0.0,
        maximum=170.0,
    ),
    Spec(
        "picture",
        "auto",
        "which matrices of the CameraInfo count: of raw or rectified pictures; auto: rectified with rect in the topic",
        choices=PICTURE_KINDS,
    ),
    Spec("sample_rate", 16000, "Hz, for sound messages that carry none", minimum=1, maximum=768000),
    Spec("channels", 1, "channels of the same messages", minimum=1, maximum=64),
    Spec("sample_format", "S16LE", "how the same messages store a sample", choices=tuple(SAMPLE_FORMATS)),
    Spec("coding_format", "wave", "how the same messages are coded; only wave, raw samples, is decoded"),
    Spec(
        "image_decoder",
        "auto",
        "native, cv_bridge, or auto: cv_bridge, where installed, for what native does not know",
        choices=IMAGE_DECODERS,
    ),
)
"""The block of every sensor: ``<sensor>.type`` and so on."""


@dataclass(frozen=True)
class Sensor:
    """All settings of one sensor.

    Attributes:
        config: What the runtime knows of it.
        topic: Topic name as configured, before remapping.
        message_types: Accepted ROS types, preferred ones first.
        qos: ``auto``, ``sensor_data`` or ``reliable``.
        queue_depth: Messages that may wait.
        options: What the messages do not say.
        placement: Where it is and looks, as far as parameters tell.
    """

    config: SensorConfig
    topic: str
    message_types: tuple[str, ...]
    qos: str
    queue_depth: int
    options: DecodeOptions
    placement: Placement

    @property
    def name(self) -> str:
        """Name of the sensor."""
        return self.config.name


class Parameters:
    """Declares the parameters of a node and reads them.

    Args:
        node: The node; ``None`` in a subclass that keeps the values elsewhere.
        specs: Its own parameters; the blocks of its sensors come on top.

    Raises:
        ConfigError: A value given at the start is unusable.
    """

    def __init__(self, node: Node | None, specs: Sequence[Spec]) -> None:
        self._node: Any = node
        self._specs: dict[str, Spec] = {}
        for spec in specs:
            self._declare(spec, spec.name)
        if not self.sensor_names and not ("discover" in self._specs and self["discover"]):
            raise ConfigError("parameter 'sensors' is empty, expected at least one name, or discover: true")
        check_sensor_names(self.sensor_names, "sensor" if "sensor" in self else "sensors", self.taken)
        for sensor in self.sensor_names:
            self.add(sensor)

    def add(self, sensor: str, **defaults: Any) -> Sensor:
        """Declares the block of a sensor.

        What its modality has other defaults for, it has them by the type that is given at the start.

        Args:
            sensor: Name of the sensor.
            **defaults: Other defaults of this sensor's parameters.

        Raises:
            ConfigError: A value given at the start is unusable.
        """
        before = set(self._specs)
        try:
            for spec in SENSOR:  # the type is the first
                self._declare(replace(spec, default=defaults.get(spec.name, spec.default)), f"{sensor}.{spec.name}")
                if spec.name == "type":
                    defaults = {**self._modality(sensor, self[f"{sensor}.type"]).sensor_defaults, **defaults}
            return self.sensor(sensor)
        except ConfigError:
            self._remove(set(self._specs) - before)
            raise

    def remove(self, sensor: str) -> None:
        """Takes the block of a sensor back."""
        self._remove(f"{sensor}.{spec.name}" for spec in SENSOR)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._withdraw(name)
            self._specs.pop(name, None)

    @property
    def taken(self) -> set[str]:
        """What no further sensor can be called: the beginnings of all names there are."""
        return {name.partition(".")[0] for name in self._specs} | _OF_ROS

    def _declare(self, spec: Spec, name: str) -> None:
        if name in self._specs:
            raise ConfigError(f"parameter '{name}' is there already, expected another name of a sensor")
        self._offer(spec, name)
        self._specs[name] = spec
        self[name]

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _resolve(self, name: str, topic: str) -> None:
        """Has ROS resolve a topic: it may be too long, or stand for something that does not exist."""
        from rclpy.exceptions import NameValidationException

        try:
            self._node.resolve_topic_name(topic)
        except (NameValidationException, RuntimeError) as error:  # the latter is rcl's
            why = " ".join(str(error).partition(", at /")[0].split())
            raise ConfigError(f"parameter '{name}' is '{topic}', expected one that ROS can resolve: {why}") from error

    def _withdraw(self, name: str) -> None:
        if self._node.has_parameter(name):
            self._node.undeclare_parameter(name)

    def _offer(self, spec: Spec, name: str) -> None:
        from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
        from rclpy.exceptions import ParameterException

        # Dynamically typed, so that "timeout: 1" is as good as "timeout: 1.0" and errors are ours.
        descriptor = ParameterDescriptor(
            description=spec.description,
            dynamic_typing=True,
            read_only=spec.changeable == NEVER,
            additional_constraints=", ".join(spec.choices),
        )
        if math.isfinite(spec.minimum) and math.isfinite(spec.maximum):
            if isinstance(spec.default, float):
                descriptor.floating_point_range = [FloatingPointRange(from_value=spec.minimum, to_value=spec.maximum)]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(spec.minimum), to_value=int(spec.maximum))]
        try:
            self._node.declare_parameter(name, spec.default, descriptor)
        except ParameterException as error:  # a value given at the start is out of range
            given = self._node._parameter_overrides.get(name)
            if given is not None:
                spec.check(given.value, name)
            raise ConfigError(f"parameter '{name}': {error}, expected {spec.range}") from error

    def __getitem__(self, name: str) -> Any:
        return self.check(name, self._value(name))

    def check(self, name: str, value: Any) -> Any:
        """Returns the value as the parameter's type.

        Raises:
            ConfigError: It is unusable.
        """
        value = self._specs[name].check(value, name)
        if name == "trigger" and value not in ("rate", *self.sensor_names):
            known = ", ".join(("rate", *self.sensor_names))
            raise ConfigError(f"parameter 'trigger' is '{value}', expected one of {known}")
        if name in ("discover_include", "discover_exclude"):
            for text in value:
                try:
                    re.compile(text)
                except re.error as error:
                    raise ConfigError(f"parameter '{name}': {text!r} is no regular expression: {error}") from error
        if name == "labels":
            check_labels(value)
        if name.startswith("objects."):
            self._check_objects(name, value)
        if value and self._specs[name].form is TOPIC and self._node is not None:
            self._resolve(name, value)
        return value

    def _check_objects(self, name: str, value: Any) -> None:
        if name == "objects.propose":
            try:
                ObjectSettings(propose=tuple(value))
            except ConfigError as error:
                raise ConfigError(f"parameter '{name}': {str(error).removeprefix('objects: ')}") from None
        if name == "objects.transforms":
            for text in value:
                try:
                    transform_of(text, name)
                except InvalidInputError as error:
                    raise ConfigError(f"parameter '{name}' has {error.value}, expected {error.expected}") from error
        if name == "objects.detections":
            topics = [detector(text)[0] for text in value]
            for topic, sensor in map(detector, value):
                if not re.fullmatch(TOPIC.pattern, topic) or (sensor and sensor not in self.sensor_names):
                    found = f"parameter '{name}' has '{' '.join((topic, sensor)).strip()}'"
                    raise ConfigError(f"{found}, expected a topic, or one and a sensor: {', '.join(self.sensor_names)}")
                if topics.count(topic) > 1:
                    expected = "each topic once: boxes of several sensors name theirs, or are told apart by their frame"
                    raise ConfigError(
                        f"parameter '{name}' has {topics.count(topic)} entries of '{topic}', expected {expected}"
                    )

    def changeable(self, name: str) -> str:
        """When the parameter can be changed; parameters that are not ours always can."""
        return self._specs[name].changeable if name in self._specs else ALWAYS

    def __contains__(self, name: str) -> bool:
        return name in self._specs

    @property
    def sensor_names(self) -> list[str]:
        """Names of the sensors of this node."""
        return [self["sensor"]] if "sensor" in self else self["sensors"]

    @property
    def sensors(self) -> list[Sensor]:
        """All sensors of this node."""
        return [self.sensor(name) for name in self.sensor_names]

    @property
    def settings(self) -> EngineSettings:
        """Settings of the runtime; a sensor node has the bound of what waits only."""
        most = self.limits.queued * 1_000_000
        if "trigger" not in self:
            return EngineSettings(max_bytes=most)
        names = ("top_k", "max_future", "min_sensors", "max_wait")
        trigger = "" if self["trigger"] == "rate" else self["trigger"]
        return EngineSettings(trigger=trigger, max_bytes=most, **{name: self[name] for name in names})

    @property
    def limits(self) -> Limits:
        """What one message may hold at most."""
        return Limits(**{spec.name.removeprefix("limits."): self[spec.name] for spec in LIMITS})

    @property
    def objects(self) -> ObjectSettings | None:
        """How things are found, followed and recognised (fusion node); ``None`` if they are not."""
        if not self["objects.enabled"]:
            return None
        fields = (field.name for field in dataclass_fields(ObjectSettings))
        values = {name: self[f"objects.{name}"] for name in fields if f"objects.{name}" in self}
        return ObjectSettings(**{**values, "propose": tuple(values["propose"]), "top_k": self["top_k"]})

    @property
    def discovery(self) -> DiscoveryRules:
        """Which topics are adopted (fusion node)."""
        patterns = {
            name: tuple(re.compile(text, re.IGNORECASE) for text in self[name])
            for name in ("discover_include", "discover_exclude")
        }
        return DiscoveryRules(
            patterns["discover_include"], patterns["discover_exclude"], self["discover_limit"], self["discover_forget"]
        )

    def sensor(self, name: str, changes: Mapping[str, Any] | None = None) -> Sensor:
        """Settings of one sensor.

        Args:
            name: Its name.
            changes: Values that are about to be set, by full parameter name.

        Raises:
            ConfigError: A value is unusable.
        """
        changes = changes or {}
        values = {
            spec.name: self.check(full, changes[full]) if (full := f"{name}.{spec.name}") in changes else self[full]
            for spec in SENSOR
        }
        definition = self._modality(name, values["type"])
        modality = definition.name
        types = types_for(modality)
        if values["message_type"] and values["message_type"] not in types:
            found = f"parameter '{name}.message_type' is '{values['message_type']}'"
            raise ConfigError(f"{found}, expected for {modality} one of {', '.join(types)}")
        topic = values["topic"] or f"{name}/{definition.topic_ending}"
        info = values["camera_info"] or camera_info_topic(topic)
        return Sensor(
            config=SensorConfig(
                name=name,
                modality=modality,
                enabled=values["enabled"],
                timeout=values["timeout"],
                time_offset=values["time_offset"],
                stamp=values["stamp"],
                window=values["window"] or definition.default_window or values["timeout"],
                readmit_after=values["readmit_after"],
            ),
            topic=topic,
            message_types=(values["message_type"],) if values["message_type"] else types,
            qos=values["qos"],
            queue_depth=values["queue_depth"] or (100 if definition.is_stream else 5),
            options=DecodeOptions(
                scale=values["scale"],
                offset=values["offset"],
                rows=values["rows"],
                camera_info=info,
                sample_rate=values["sample_rate"],
                channels=values["channels"],
                sample_format=values["sample_format"],
                coding_format=values["coding_format"],
                image_decoder=values["image_decoder"],
                limits=self.limits,
            ),
            placement=Placement(topic, info, values["frame"], values["field_of_view"], values["picture"]),
        )

    @staticmethod
    def _modality(name: str, given: str) -> Modality[Any, Any]:
        """Modality of a sensor with this type, or of this name."""
        modality = SENSOR_TYPES.get(given or name, given or name)
        if modality not in modalities.names():
            known = ", ".join(dict.fromkeys((*SENSOR_TYPES, *modalities.names())))
            raise ConfigError(f"parameter '{name}.type' is '{given}', expected one of {known}")
        return modalities.get(modality)

    def unknown(self, given: Iterable[str]) -> list[str]:
        """One sentence for each given parameter that no node reads, with the nearest one that exists.

        One file may hold the parameters of all nodes, so a sensor node leaves the blocks of other sensors alone.
        """
        foreign = {spec.name for spec in (*FUSION_NODE, *SENSOR_NODE)} | _OF_ROS
        sentences = []
        for name in sorted(set(given) - set(self._specs) - foreign):
            block = name.partition(".")[0]
            if block == "qos_overrides" or ("sensor" in self and block != self["sensor"]):
                continue
            if "discover" in self and self["discover"] and name.removeprefix(f"{block}.") in {s.name for s in SENSOR}:
                continue  # of a sensor that may come
            near = difflib.get_close_matches(name, self._specs, 1, cutoff=0.8)
            sentences.append(f"parameter '{name}' is unknown" + (f"; did you mean '{near[0]}'?" if near else ""))
        return sentences


def detector(text: str) -> tuple[str, str]:
    """Topic and sensor of a text of the parameter ``objects.detections``; ``""`` without a sensor."""
    topic, _, sensor = text.strip().partition(" ")
    return topic, sensor.strip()


def table(specs: Sequence[Spec], prefix: str = "") -> str:
    """Markdown table of parameters, as in docs/parameters.md."""
    rows = ["| parameter | type | default | accepted | changeable | meaning |", "|---|---|---|---|---|---|"]
    for spec in specs:
        default = ", ".join(spec.default) if isinstance(spec.default, list) else str(spec.default).lower()
        cells = (f"`{prefix}{spec.name}`", _TYPE_NAMES[type(spec.default)], default, spec.range, spec.changeable)
        rows.append("| " + " | ".join((*cells, spec.description)) + " |")
    return "\n".join(rows)
