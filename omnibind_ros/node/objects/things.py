"""Things beside the scene: what they need is heard, computed after each prediction, and told."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus

from omnibind_core.errors import ConfigError
from omnibind_core.geometry.frames import SECOND
from omnibind_core.objects.engine import ObjectEngine
from omnibind_core.objects.rig import PICTURES, Rig
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.runtime.encoding import Recogniser, Token
from omnibind_core.runtime.engine import Selection
from omnibind_core.runtime.types import SensorReport
from omnibind_ros.graph.topics import CameraInfos, SubscriptionPool, TopicLink
from omnibind_ros.messages import STRING, stamp_ns
from omnibind_ros.messages.objects import (
    DETECTIONS,
    DETECTIONS_2D,
    DETECTIONS_3D,
    TF_MESSAGE,
    Calibration,
    DetectionReader,
    TransformReader,
)
from omnibind_ros.node.parameters import Parameters, Sensor, detector

if TYPE_CHECKING:
    from rclpy.node import Node

_DEPTH, _TF_DEPTH = 5, 100  # messages that may wait
_INERTIA = 0.9  # of the mean time of a tick

_log = logging.getLogger(__name__)


class Things:
    """Hears where frames are and what detectors find, and computes things; exists while they are asked for.

    What is heard comes on the executor's thread; :meth:`perceive` is for the worker's.

    Args:
        node: The node.
        pool: Its subscriptions.
        parameters: Its parameters.
        infos: What is heard of cameras.

    Attributes:
        told: The things of the last tick.

    Raises:
        OmniBindError: A transform or a description that parameters give is unusable.
    """

    def __init__(self, node: Node, pool: SubscriptionPool, parameters: Parameters, infos: CameraInfos) -> None:
        settings = parameters.objects
        assert settings is not None
        self.told: list[ObjectPrediction] = []
        self.rig = Rig("")
        self._node = node
        self._infos = infos
        self._settings = settings
        self._calibration = Calibration(self.rig, parameters["objects.fixed_frame"])
        self._transforms = TransformReader(self.rig.tree)
        self._detections = DetectionReader(self.rig, lambda: self._calibration.pictures, self._moment)
        self._parameters = parameters
        self._shifts: dict[str, int] = {}  # ns from header to item, of the newest of each sensor
        self._engine: ObjectEngine | None = None
        self._cost = 0.0
        self._errors, self._error = 0, ""
        self._reported, self._reported_errors = 0, 0
        self._epoch = self._heard_epoch = 0
        self._read_parameters(parameters)
        link = partial(TopicLink, node, pool)
        static, moving, robot = "/tf_static", "/tf", "robot_description"
        self._links = [
            link(static, (TF_MESSAGE,), "latched", _TF_DEPTH, partial(self._on_transforms, static, True), True),
            link(moving, (TF_MESSAGE,), "auto", _TF_DEPTH, partial(self._on_transforms, moving, False)),
            link(robot, (STRING,), "latched", 1, partial(self._on_description, robot), True),
        ]
        kinds = (DETECTIONS_2D, DETECTIONS_3D, DETECTIONS)
        self._detectors = [
            link(topic, kinds, "auto", _DEPTH, partial(self._on_detections, topic, sensor))
            for topic, sensor in map(detector, parameters["objects.detections"])
        ]

    def _read_parameters(self, parameters: Parameters) -> None:
        file = parameters["objects.urdf"]
        if file:
            try:
                text = Path(file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"parameter 'objects.urdf' is '{file}', expected a file: {error}") from error
            self._transforms.read_urdf(text, f"objects.urdf: {file}")
        self._transforms.read_lines(parameters["objects.transforms"], "objects.transforms")

    # Messages, on the executor's thread -----------------------------------------------------------------------------

    def poll(self, sensors: Mapping[str, Sensor], links: Mapping[str, TopicLink]) -> None:
        """Follows publishers; call it now and then."""
        for link in (*self._links, *self._detectors):
            link.poll()
        for name, sensor in sensors.items():
            if sensor.config.modality in PICTURES and name in links and not sensor.placement.field_of_view:
                self._infos.follow(sensor.placement.info, links[name].ros_type)

    def close(self) -> None:
        """Stops receiving."""
        for link in (*self._links, *self._detectors):
            link.close()

    def on_selection(self, selection: Selection) -> None:
        """Forgets frames that move where time has gone backwards."""
        if selection.epoch != self._heard_epoch:
            self._heard_epoch = selection.epoch
            self.rig.tree.clear()

    def _on_transforms(self, topic: str, static: bool, _: str, message: Any) -> None:
        self._transforms.read(message, topic, static, self._now_ns or None)

    def _on_description(self, topic: str, _: str, message: Any) -> None:
        self._transforms.read_description(message, topic)

    def _on_detections(self, topic: str, sensor: str, _: str, message: Any) -> None:
        engine = self._engine
        if engine is not None:  # else the node is inactive
            engine.detect(self._detections.read(message, topic, self._now_ns, sensor))

    def _moment(self, stamp_ns: int | None, receive_ns: int, sensor: str) -> int:
        """When the data were taken that a detector looked at: as the sensor's own items are dated."""
        if stamp_ns is None:
            return receive_ns
        if f"{sensor}.stamp" not in self._parameters:
            return stamp_ns
        if self._parameters[f"{sensor}.stamp"] == "header":
            return stamp_ns + round(self._parameters[f"{sensor}.time_offset"] * SECOND)
        shift = self._shifts.get(sensor)
        return receive_ns if shift is None else min(stamp_ns + shift, receive_ns)

    @property
    def _now_ns(self) -> int:
        now: int = self._node.get_clock().now().nanoseconds
        return now

    # Ticks, on the worker's thread ----------------------------------------------------------------------------------

    def start(self, model: Recogniser) -> None:
        """Begins anew, as the node is activated."""
        self._detections.rejections.clear()
        self._shifts.clear()
        self._engine = ObjectEngine(model, self.rig, self._settings)
        self.told, self._cost, self._errors, self._reported_errors = [], 0.0, 0, 0
        self._epoch = self._heard_epoch = 0

    def stop(self) -> None:
        """Ends what :meth:`start` began, as the node is deactivated; where frames are is heard all the same."""
        self._engine = None
        self.told, self._reported = [], 0
        self._transforms.rejections.count = 0  # the reasons hold: what is latched is not said again

    def perceive(
        self,
        selection: Selection,
        tokens: Sequence[Token],
        reports: Sequence[SensorReport],
        sensors: Mapping[str, Sensor],
        links: Mapping[str, TopicLink],
    ) -> list[ObjectPrediction] | None:
        """The things of a tick; ``None`` if that failed, which is counted.

        Args:
            selection: The tick.
            tokens: What the scene was recognised by.
            reports: State of every sensor.
            sensors: All sensors.
            links: Their topics.
        """
        assert self._engine is not None
        begin = time.perf_counter()
        try:
            if selection.epoch != self._epoch:
                self._epoch = selection.epoch
                self._engine.clear()
            self.told = self._perceive(self._engine, selection.now_ns, tokens, reports, sensors, links)
        except Exception as error:  # what is perceived of the scene goes on
            self.told = []
            self._errors, self._error = self._errors + 1, f"{type(error).__name__}: {error}"
            _log.log(logging.ERROR if self._errors == 1 else logging.DEBUG, "things failed", exc_info=True)
            return None
        finally:
            took = time.perf_counter() - begin
            self._cost = took + _INERTIA * ((self._cost or took) - took)
        return self.told

    def _perceive(
        self,
        engine: ObjectEngine,
        now_ns: int,
        tokens: Sequence[Token],
        reports: Sequence[SensorReport],
        sensors: Mapping[str, Sensor],
        links: Mapping[str, TopicLink],
    ) -> list[ObjectPrediction]:
        for token in tokens:
            stamp = stamp_ns(token.newest) if hasattr(token.newest.header, "stamp") else None
            if stamp is not None:
                self._shifts[token.sensor.name] = token.newest.stamp_ns - stamp
        placements = {name: sensor.placement for name, sensor in tuple(sensors.items())}
        types = {name: link.ros_type for name, link in tuple(links.items())}
        readings, why = self._calibration.place(tokens, placements, types, self._infos.newest)
        if self._calibration.choose_frame():
            engine.clear()
        for name, reason in why.items():
            engine.reject(name, reason)
        absent = {
            report.name: f"{report.state.name.lower()}: {report.reason}"
            for report in reports
            if report.name not in readings
        }
        return engine.perceive(now_ns, readings, {**absent, **why})

    @property
    def cost(self) -> float:
        """Mean s that a tick's things take."""
        return self._cost

    # Status ---------------------------------------------------------------------------------------------------------

    def entry(self, missing: Sequence[str]) -> tuple[bytes, str, dict[str, Any]]:
        """Level, message and values of the diagnostics.

        Args:
            missing: Packages without which something is not published.
        """
        if self._engine is None:
            return DiagnosticStatus.OK, "inactive", {}
        counters = dict(self._engine.counters)
        counters["rejected_detections"] = self._detections.rejections.count
        counters["rejected_transforms"] = self._transforms.rejections.count
        read = {**self._detections.rejections.reasons, **self._transforms.rejections.reasons}
        reasons = {  # the engine has its own of a detector, which may be older or newer
            **{f"regions of {name}" if name in read else name: why for name, why in self._engine.rejections.items()},
            **read,
            **{link.topic: link.obstacle[1] for link in (*self._links, *self._detectors) if link.obstacle},
        }
        rejected = sum(number for name, number in counters.items() if name.startswith("rejected"))
        news, self._reported = rejected - self._reported, rejected
        level, message = DiagnosticStatus.OK, f"{len(self.told)} things in the frame '{self.rig.fixed}'"
        failed, self._reported_errors = self._errors > self._reported_errors, self._errors
        if failed:
            level, message = DiagnosticStatus.ERROR, f"{self._errors} ticks failed, the last by {self._error}"
        elif news > 0:
            level, message = DiagnosticStatus.WARN, f"{message}; {news} rejections since the last report"
        values: dict[str, Any] = {**counters, "errors": self._errors, "cost": f"{self._cost:.4f} s"}
        if self._errors:
            values["last error"] = self._error
        if missing:
            values["not published, for lack of the packages"] = ", ".join(missing)
        return level, message, {**values, **reasons}
