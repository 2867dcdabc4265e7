"""What a bag tells of where sensors are and what detectors found, beside the sensors' own messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.objects.proposals.finding import Region
from omnibind_core.objects.rig import PICTURES, Reading, Rig
from omnibind_core.runtime.encoding import Token
from omnibind_ros import messages
from omnibind_ros.bags import types
from omnibind_ros.bags.types import RecordedMessage
from omnibind_ros.messages.camera_info import CAMERA_INFO
from omnibind_ros.messages.objects import (
    DETECTIONS,
    DETECTIONS_2D,
    DETECTIONS_3D,
    TF_MESSAGE,
    Calibration,
    DetectionReader,
    Rejections,
    TransformReader,
)
from omnibind_ros.node.parameters import detector
from omnibind_ros.replay.setup import Setup

_STATIC, _DESCRIPTION = "/tf_static", "/robot_description"
_DETECTIONS = (DETECTIONS, DETECTIONS_2D, DETECTIONS_3D)


class Told(NamedTuple):
    """What is known of a tick.

    Attributes:
        readings: By sensor.
        why: Why sensors with pictures have no camera, by sensor.
        detected: What detectors found since the last tick.
        moved: Whether the fixed frame is another one than before.
    """

    readings: dict[str, Reading]
    why: dict[str, str]
    detected: list[Region]
    moved: bool


class Surroundings:
    """Fills a rig from the messages of a bag, each at its time, as the node does.

    Args:
        setup: Sensors and parameters.
        topics: Types of the bag's topics, by topic.

    Attributes:
        rig: What is known by the last :meth:`advance`.
        notes: What a person should know, in sentences.

    Raises:
        ConfigError: A parameter of the geometry is unusable.
    """

    def __init__(self, setup: Setup, topics: Mapping[str, str]) -> None:
        values = setup.parameters
        self.rig = Rig(values["objects.fixed_frame"])
        self._now_ns = 0
        self._rejections = Rejections()
        self._transforms = TransformReader(self.rig.tree)
        self._calibration = Calibration(self.rig, values["objects.fixed_frame"])
        self._reader = DetectionReader(self.rig, lambda: self._calibration.pictures)
        self._pending: deque[RecordedMessage] = deque()
        self._infos: dict[str, Any] = {}
        self._types = {name: topics.get(topic, "") for name, topic in setup.topics.items()}
        self._placements = {
            name: replace(sensor.placement, topic=setup.topics[name], info=sensor.options.camera_info)
            for name, sensor in setup.sensors.items()
        }
        pictures = {name for name, sensor in setup.sensors.items() if sensor.config.modality in PICTURES}
        cameras = {self._placements[name].info for name in pictures}
        self._detectors = dict(map(detector, filter(None, values["objects.detections"])))
        self._heard = [topic for topic, kind in topics.items() if self._hears(topic, kind, cameras)]
        self.notes = [
            f"objects.detections: the bag has no detections on {topic}, which is {topics.get(topic, 'not in it')}"
            for topic in self._detectors
            if topic not in self._heard
        ]
        try:
            self._transforms.read_lines([*filter(None, values["objects.transforms"])], "objects.transforms")
            if path := values["objects.urdf"]:
                self._transforms.read_urdf(Path(path).read_text(encoding="utf-8"), path)
        except (InvalidInputError, OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the frames of the sensors cannot be read: {error}") from error

    def _hears(self, topic: str, kind: str, cameras: set[str]) -> bool:
        if kind == CAMERA_INFO:
            return topic in cameras
        if kind in _DETECTIONS:
            return topic in self._detectors
        return kind == TF_MESSAGE or (kind == messages.STRING and topic.endswith(_DESCRIPTION))

    @property
    def listeners(self) -> dict[str, Callable[[RecordedMessage], None]]:
        """Who hears the messages of which topic, for :class:`~omnibind_ros.replay.engine.Replay`."""
        return dict.fromkeys(self._heard, self._pending.append)

    @property
    def reasons(self) -> dict[str, str]:
        """Why something could not be used, the last of each source."""
        parts = (self._rejections, self._transforms.rejections, self._reader.rejections)
        return {source: why for part in parts for source, why in part.reasons.items()}

    def advance(self, now_ns: int, tokens: Sequence[Token]) -> Told:
        """Takes in what was received by a tick.

        Args:
            now_ns: Time of the tick.
            tokens: What the sensors offer to it.
        """
        if now_ns < self._now_ns:
            self.rig.tree.clear()
        self._now_ns = now_ns
        detected: list[RecordedMessage] = []
        while self._pending and self._pending[0].time_ns <= now_ns:
            item = self._pending.popleft()
            if item.type in _DETECTIONS:
                detected.append(item)
            else:
                self._take(item)
        readings, why = self._calibration.place(tokens, self._placements, self._types, self._infos.get)
        moved = self._calibration.choose_frame()
        return Told(readings, why, [region for item in detected for region in self._regions(item)], moved)

    def _take(self, item: RecordedMessage) -> None:
        message = self._decoded(item)
        if message is None:
            return
        if item.type == TF_MESSAGE:
            self._transforms.read(message, item.topic, item.topic.endswith(_STATIC), item.time_ns)
        elif item.type == CAMERA_INFO:
            self._infos[item.topic] = message
        else:
            self._transforms.read_description(message, item.topic)

    def _regions(self, item: RecordedMessage) -> list[Region]:
        message = self._decoded(item)
        sensor = self._detectors[item.topic]
        return [] if message is None else [*self._reader.read(message, item.topic, item.time_ns, sensor)]

    def _decoded(self, item: RecordedMessage) -> Any:
        """The message; ``None`` if it cannot be read, which is counted."""
        try:
            return types.decode(item)
        except InvalidInputError as error:
            self._rejections.add(item.topic, error)
            return None
