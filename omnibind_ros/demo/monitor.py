"""What the demo hears from the fusion node, and the lines that it prints of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from omnibind_core.runtime.types import Prediction
from omnibind_ros.bags.scene_bag import SceneLabel
from omnibind_ros.messages import prediction_of, reports_of, stamp_ns
from omnibind_ros.replay.scoring import same

if TYPE_CHECKING:
    from rclpy.node import Node

# A line is printed at the latest after so many seconds.
_HEARTBEAT = 2.0


@dataclass(frozen=True)
class Observation:
    """One prediction.

    Attributes:
        time_s: When it was received, s from the beginning of the recording.
        prediction: What was said; without similarities if the node does not publish them.
        latency: s from the tick to publication.
    """

    time_s: float
    prediction: Prediction
    latency: float

    @property
    def label(self) -> str:
        """Most probable label, also if it is below the threshold."""
        return next(iter(self.prediction.labels), self.prediction.label)

    @property
    def sensors(self) -> tuple[str, ...]:
        """Sensors that took part."""
        return tuple(share.name for share in self.prediction.sensors)


@dataclass(frozen=True)
class Status:
    """One report of the node's state.

    Attributes:
        time_s: Its stamp, s from the beginning of the recording.
        states: Per sensor its state (``SensorStatus.STATE_*``) and the seconds since its last accepted message.
    """

    time_s: float
    states: Mapping[str, tuple[int, float]]


class Monitor:
    """Subscribes to predictions and states.

    Args:
        node: Where the subscriptions live.

    Attributes:
        labels: The node's label bank; empty until its first report.
        model: Name and hash of its model.
        predictions: All received since the recording began, in order.
        reports: The same for reports.
    """

    def __init__(self, node: Node) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from rclpy.qos import qos_profile_system_default as default

        from omnibind_ros import msg

        self.start_at = time.time()
        self.labels: tuple[str, ...] = ()
        self.model = ""
        self.predictions: list[Observation] = []
        self.reports: list[Status] = []
        self.fresh: list[Observation] = []
        node.create_subscription(msg.Prediction, "omnibind/prediction", self._on_prediction, 50)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=default.reliability)
        node.create_subscription(msg.FusionStatus, "fusion_node/status", self._on_status, latched)

    def begin(self, start_at: float) -> None:
        """Forgets what came before and counts time from then (Unix time) on."""
        self.start_at = start_at
        for held in (self.predictions, self.reports, self.fresh):
            held.clear()

    def _on_prediction(self, message: Any) -> None:
        seen = Observation(time.time() - self.start_at, prediction_of(message), message.latency)
        self.predictions.append(seen)
        self.fresh.append(seen)

    def _on_status(self, message: Any) -> None:
        self.labels, self.model = tuple(message.labels), message.model
        time_s = (stamp_ns(message) or 0) / 1e9 - self.start_at
        self.reports.append(Status(time_s, {one.name: (one.state, one.age) for one in reports_of(message)}))


class Console:
    """Prints one line whenever what is recognised or who takes part changes, and now and then in between.

    Args:
        sensors: All sensors, in the order of the columns.
    """

    _COLOURS: ClassVar = {"good": "32", "bad": "31", "faint": "2", "strong": "1"}

    def __init__(self, sensors: Sequence[str]) -> None:
        self._sensors = sensors
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._last: tuple[Any, ...] = ()
        self._last_time = -np.inf

    def heading(self) -> None:
        """Explains the columns."""
        names = " ".join(f"{name:>12}" for name in self._sensors)
        self.line(self._paint(f"{'time':>6}  {'there is':<18} {'recognised':<18} conf.   {names}", "strong"))
        note = "share of each sensor in the fused embedding, %; · takes no part; ✗ its publisher was killed"
        self.line(self._paint(f"{'':>6}  {'':<18} {'(? below threshold)':<27}{note}", "faint"))

    def prediction(self, seen: Observation, scene: SceneLabel | None, dead: Collection[str]) -> None:
        """Prints a prediction if it says something new, or if nothing was printed for a while."""
        truth = scene.label if scene else ""
        key = (seen.label, frozenset(seen.sensors), truth, frozenset(dead))
        if key == self._last and seen.time_s - self._last_time < _HEARTBEAT:
            return
        self._last, self._last_time = key, seen.time_s
        shares = {share.name: share.weight for share in seen.prediction.sensors}
        cells = " ".join(self._cell(name, shares, dead) for name in self._sensors)
        verdict = "good" if same(seen.label, truth) else "bad"
        mark = {"good": "✓", "bad": "✗"}[verdict] if truth else " "
        said = self._paint(
            f"{seen.label[:17] + ('?' if seen.prediction.unknown else ''):<18} {seen.prediction.confidence:.2f} {mark}",
            verdict,
        )
        self.line(f"{seen.time_s:6.1f}  {truth[:18]:<18} {said}  {cells}")

    def _cell(self, name: str, shares: Mapping[str, float], dead: Collection[str]) -> str:
        if name in shares:
            text = f"{100 * shares[name]:.0f}" + ("✗" if name in dead else "")
            return f"{text:>12}"
        return self._paint(f"{'✗':>12}", "bad") if name in dead else self._paint(f"{'·':>12}", "faint")

    def event(self, time_s: float, text: str) -> None:
        """Prints something that happened."""
        self.line(self._paint(f"{time_s:6.1f}  >> {text}", "strong"))

    def line(self, text: str = "") -> None:
        """Prints a line at once."""
        print(text, flush=True)

    def _paint(self, text: str, kind: str) -> str:
        return f"\033[{self._COLOURS[kind]}m{text}\033[0m" if self._coloured else text
