"""The fusion node: any set of sensors in, ``omnibind/prediction`` out."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from omnibind_core.errors import ConfigError
from omnibind_core.labels import LabelBank
from omnibind_core.runtime.engine import Selection
from omnibind_core.runtime.types import EngineSettings, Prediction, SensorReport
from omnibind_ros import msg
from omnibind_ros.messages import fill
from omnibind_ros.node import PerceptionNode, Tick, run
from omnibind_ros.parameters import FUSION_NODE
from omnibind_ros.topics import LATCHED

_LATENCIES = 50  # predictions over which the latency in the status is averaged


class FusionNode(PerceptionNode):
    """Fuses every sensor that is alive and publishes what is perceived.

    Topics, services and parameters: docs/topics.md, docs/parameters.md.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__("fusion_node", FUSION_NODE, **node_options)
        self._predictions = 0
        self._alive: tuple[str, ...] = ()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._reported: Any = None
        self._own_labels: LabelBank | None = None
        self._own_threshold = 0.0
        self._publisher = self.create_lifecycle_publisher(msg.Prediction, "omnibind/prediction", 10)
        self._status = self.create_publisher(msg.FusionStatus, "~/status", LATCHED)
        for name in self.parameters.sensor_names:
            self.create_service(SetBool, f"~/{name}/set_enabled", partial(self._on_set_enabled, name))

    def settings(self) -> EngineSettings:
        """Settings of the engine, from the parameters."""
        return self.parameters.settings

    def on_model(self) -> None:
        """Gives the model the labels and the threshold of the parameters."""
        assert self.model is not None
        self._own_labels, self._own_threshold = self.model.labels, self.model.threshold
        labels = self.parameters["labels"]
        self.apply({"threshold": self.parameters["threshold"], **({"labels": labels} if labels else {})})

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts the ticks, with all counters at zero."""
        self._predictions = 0
        self._alive = ()
        self._latencies.clear()
        return super().on_activate(state)

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Applies changed labels, threshold and rate.

        Raises:
            ConfigError: A label is given twice.
        """
        labels = changes.get("labels")
        if labels and len(set(labels)) < len(labels):
            raise ConfigError(f"parameter 'labels' has one twice: {', '.join(labels)}")
        super().apply(changes)
        if self.model is None:
            return
        if labels:
            self.model.set_labels(labels)
        elif labels is not None and self._own_labels is not None:
            self.model.labels = self._own_labels
        if "threshold" in changes:
            threshold = changes["threshold"]
            self.model.threshold = self._own_threshold if threshold < 0 else threshold

    def _on_set_enabled(self, sensor: str, request: Any, response: Any) -> Any:
        parameter = Parameter(f"{sensor}.enabled", Parameter.Type.BOOL, request.data)
        result = self.set_parameters([parameter])[0]
        response.success, response.message = result.successful, result.reason
        return response

    # Predictions ----------------------------------------------------------------------------------------------------

    def compute(self, selection: Selection) -> Prediction | None:
        """The prediction of a tick, or ``None`` if too few sensors offer something usable."""
        assert self.engine is not None
        return self.engine.compute(selection)

    def publish(self, tick: Tick, prediction: Prediction | None) -> None:
        """Publishes a prediction."""
        if prediction is None:
            self._alive = ()
            return
        latency = time.monotonic() - tick.started
        self._publisher.publish(self._message(prediction, latency))
        self._predictions += 1
        self._latencies.append(latency)
        self._alive = tuple(share.name for share in prediction.sensors)

    def _message(self, prediction: Prediction, latency: float) -> msg.Prediction:
        shares = prediction.sensors
        fields = {
            "label": prediction.label,
            "confidence": prediction.confidence,
            "unknown": prediction.unknown,
            "entropy": prediction.entropy,
            "labels": list(prediction.labels),
            "scores": np.array(prediction.scores, np.float32),
            "sensors": [share.name for share in shares],
            "modalities": [share.modality for share in shares],
            "weights": np.array([share.weight for share in shares], np.float32),
            "ages": np.array([share.age for share in shares], np.float32),
            "sensor_labels": [share.label for share in shares],
            "sensor_confidences": np.array([share.confidence for share in shares], np.float32),
            "latency": latency,
        }
        if prediction.header is not None:  # of a message type without a header otherwise
            fields["header"] = prediction.header
        if self.parameters["publish_embedding"]:
            fields["embedding"] = prediction.embedding
        if self.parameters["publish_similarities"]:
            fields["similarities"] = prediction.similarities
        return fill(msg.Prediction(), fields)

    # Status ---------------------------------------------------------------------------------------------------------

    def on_selection(self, selection: Selection) -> None:
        """Publishes the status at once if a sensor's state, the sensors alive or the labels have changed."""
        assert self.engine is not None
        reports = self.engine.reports(selection.now_ns)
        if self._key(reports) != self._reported:
            self.on_report(reports)

    def on_report(self, reports: Sequence[SensorReport]) -> None:
        """Publishes the status."""
        assert self.model is not None
        self._reported = self._key(reports)
        latencies = tuple(self._latencies)
        self._status.publish(
            msg.FusionStatus(
                header=self.header(),
                model=self.model.identity,
                labels=list(self.model.labels.names),
                threshold=self.model.threshold,
                sensors=[self._sensor_status(report) for report in reports],
                alive=list(self._alive),
                message=self._sentence(reports),
                ticks=self.ticks,
                predictions=self._predictions,
                overruns=self.overruns,
                latency_mean=sum(latencies) / len(latencies) if latencies else math.nan,
                latency_max=max(latencies, default=math.nan),
            )
        )

    def _key(self, reports: Sequence[SensorReport]) -> Any:
        labels = self.model.labels.names if self.model is not None else ()
        return [report.state for report in reports], self._alive, labels

    def _sentence(self, reports: Sequence[SensorReport]) -> str:
        if self.engine is None:
            return "inactive"
        if self._alive:
            return f"perceiving by {', '.join(self._alive)}"
        return "no sensor alive: " + "; ".join(f"{r.name} {r.state.name.lower()}: {r.reason}" for r in reports)

    def _sensor_status(self, report: SensorReport) -> msg.SensorStatus:
        link = self.link(report.name)
        return msg.SensorStatus(
            name=report.name,
            modality=report.modality,
            topic=link.topic,
            type=link.ros_type,
            state=int(report.state),
            reason=report.reason,
            age=report.age,
            rate=report.rate,
            received=report.received,
            rejected=report.rejected,
            dropped=report.dropped,
        )

    def inference_diagnostic(self) -> DiagnosticStatus:
        """The worker's entry in /diagnostics, with the latency."""
        from diagnostic_msgs.msg import KeyValue

        status = super().inference_diagnostic()
        latencies = tuple(self._latencies)
        if latencies:
            status.values = [
                *status.values,
                KeyValue(key="predictions", value=str(self._predictions)),
                KeyValue(key="latency_mean", value=f"{sum(latencies) / len(latencies):.4f} s"),
                KeyValue(key="latency_max", value=f"{max(latencies):.4f} s"),
            ]
        return status


def main() -> None:
    """Runs the node."""
    sys.exit(run(FusionNode))


if __name__ == "__main__":
    main()
