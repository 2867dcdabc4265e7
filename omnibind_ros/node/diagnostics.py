"""Entries of /diagnostics. They are made on a steady timer and from the node's own clock, so that they come when the
sensors are dead and are right under simulated time (diagnostic_updater's rates are on another clock).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from omnibind_core.runtime.types import SensorReport, SensorState
from omnibind_ros.graph.topics import TopicLink

_LEVELS = {
    SensorState.ACTIVE: DiagnosticStatus.OK,
    SensorState.DISABLED: DiagnosticStatus.OK,
    SensorState.REJECTED: DiagnosticStatus.ERROR,
    SensorState.INCOMPATIBLE_QOS: DiagnosticStatus.ERROR,
}
_RESULTS = 50  # over which times are averaged
UNFAMILIAR = -0.5
"""A sensor whose mean familiarity is below this is told: at home it is -0.2, of foreign sensors -0.75 and less
(docs/experiments.md)."""


class StageTimes:
    """What the stages of inference took, over the last results. Safe to read while another thread adds."""

    def __init__(self) -> None:
        self._rows: deque[Mapping[str, float]] = deque(maxlen=_RESULTS)

    def add(self, stages: Mapping[str, float]) -> None:
        """Takes the times of one result, s."""
        self._rows.append(stages)

    def clear(self) -> None:
        """Forgets all."""
        self._rows.clear()

    def mean(self, stage: str) -> float:
        """Mean of a stage, s; NaN before the first result."""
        values = [row[stage] for row in tuple(self._rows) if stage in row]
        return sum(values) / len(values) if values else math.nan

    def maximum(self, stage: str) -> float:
        """Maximum of a stage, s; NaN before the first result."""
        return max((row[stage] for row in tuple(self._rows) if stage in row), default=math.nan)


class Inference:
    """The entry of the worker: stage times, ticks that were skipped, errors.

    Args:
        stages: Names of the stages that are shown.
    """

    def __init__(self, *stages: str) -> None:
        self._stages = stages
        self.times = StageTimes()
        self._overruns = self._errors = 0

    def clear(self) -> None:
        """Forgets all, at activation."""
        self.times.clear()
        self._overruns = self._errors = 0

    def entry(self, ticks: int, overruns: int, errors: int, failure: str = "") -> tuple[bytes, str, dict[str, Any]]:
        """Level, message and values, for what happened since the last call; ``failure`` is the last error in words."""
        late, failed = overruns - self._overruns, errors - self._errors
        self._overruns, self._errors = overruns, errors
        level, message = DiagnosticStatus.OK, "running"
        if late > 0:
            level = DiagnosticStatus.WARN
            message = f"too slow: {late} ticks were skipped since the last report; lower the rate"
        if failed > 0:
            level, message = DiagnosticStatus.ERROR, f"{failed} ticks failed since the last report, see the log"
            message += f"; the last: {failure}" if failure else ""
        values: dict[str, Any] = {"ticks": ticks, "overruns": overruns, "errors": errors}
        for stage in self._stages:
            for key, value in (("mean", self.times.mean(stage)), ("max", self.times.maximum(stage))):
                values[f"{stage}_{key}"] = "n/a" if math.isnan(value) else f"{value:.4f} s"
        return level, message, values


def sensor_entry(report: SensorReport, link: TopicLink, losses: Mapping[str, int]) -> tuple[bytes, str, dict[str, Any]]:
    """Level, message and values of one sensor.

    Args:
        report: Its state.
        link: Its topic.
        losses: More values: what was lost between or inside of its messages.
    """
    values = {
        "topic": link.topic,
        "type": link.ros_type or "n/a",
        "publishers": ", ".join(link.publishers) or "none",
        "age": "n/a" if math.isnan(report.age) else f"{report.age:.3f} s",
        "rate": "n/a" if math.isnan(report.rate) else f"{report.rate:.2f} Hz",
        "received": report.received,
        "rejected": report.rejected,
        "dropped": report.dropped,
        "lost": link.lost,
        "familiarity": "n/a" if math.isnan(report.familiarity) else f"{report.familiarity:.2f}",
        **losses,
    }
    level, message = _LEVELS.get(report.state, DiagnosticStatus.WARN), f"{report.state.name}: {report.reason}"
    if report.doubt is not None:
        level = level if report.doubt.empty else max(level, DiagnosticStatus.WARN)
    elif level == DiagnosticStatus.OK and report.familiarity < UNFAMILIAR:
        level = DiagnosticStatus.WARN
        message += (
            f"; not like any {report.modality} the model was trained with (familiarity {report.familiarity:.1f}), so "
            "its answers are doubted: 'omnibind adapt' teaches it (docs/adapt.md)"
        )
    return level, message, values


def status(node: str, name: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """One entry. Its name begins with the node's, so that an aggregator tells two robots apart.

    Args:
        node: Full name of the node, which is the hardware, too; without a namespace the entry shows its plain name.
        name: Of the entry.
        level: How bad it is.
        message: What it says.
        values: And in detail.
    """
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    full = f"{node.lstrip('/')}: {name}"
    return DiagnosticStatus(level=level, name=full, message=message, hardware_id=node, values=pairs)
