"""What a user of the fusion node sees: predictions, states, diagnostics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omnibind_ros.messages import prediction_of


@dataclass(frozen=True)
class Seen:
    """One prediction.

    Attributes:
        tick_ns: Time of its tick.
        sensors: Sensors that took part.
        label: The label; ``""`` if unknown.
        frame_id: Of its header.
    """

    tick_ns: int
    sensors: tuple[str, ...]
    label: str
    frame_id: str


class Observer:
    """Listens on a thread of its own until :meth:`close`.

    Args:
        domain: ROS domain.
        namespace: Namespace of the fusion node.

    Attributes:
        predictions: All so far.
        node: The listening node, for more subscriptions.
    """

    def __init__(self, domain: int, namespace: str = "") -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor

        from omnibind_ros.graph.topics import LATCHED
        from omnibind_ros.msg import FusionStatus, Prediction

        self.predictions: list[Seen] = []
        self.status: Any = None
        self._diagnostics: dict[str, Any] = {}
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("observer", context=self._context, namespace=namespace)
        self.node.create_subscription(Prediction, "omnibind/prediction", self._on_prediction, 100)
        self.node.create_subscription(FusionStatus, "fusion_node/status", self._on_status, LATCHED)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        import rclpy

        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def sensor(self, name: str) -> Any:
        """The newest state of a sensor; ``None`` before the first report."""
        rows = self.status.sensors if self.status is not None else ()
        return next((row for row in rows if row.name == name), None)

    def diagnostic(self, name: str) -> Any:
        """The newest entry of /diagnostics of that name; ``None`` if there is none."""
        return self._diagnostics.get(name)

    def wait(self, condition: Callable[[], Any], what: str, patience: float = 30.0) -> Any:
        """Waits until a condition holds and returns its value.

        Raises:
            TimeoutError: It did not in time.
        """
        deadline = time.monotonic() + patience
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {patience} s for {what}")
            time.sleep(0.01)
        return value

    def wait_for(self, *sensors: str, patience: float = 30.0) -> Seen:
        """Waits for a prediction, from now on, by exactly these sensors."""
        begin = len(self.predictions)

        def found() -> Seen | None:
            return next((seen for seen in self.predictions[begin:] if set(seen.sensors) == set(sensors)), None)

        seen: Seen = self.wait(found, f"a prediction by {', '.join(sensors)}", patience)
        return seen

    def wait_for_state(self, sensor: str, state: int, patience: float = 30.0) -> Any:
        """Waits until a sensor is in a state, and returns its ``SensorStatus``."""

        def found() -> Any:
            row = self.sensor(sensor)
            return row if row is not None and row.state == state else None

        return self.wait(found, f"state {state} of {sensor}, which is {self.sensor(sensor)}", patience)

    def _on_prediction(self, message: Any) -> None:
        prediction = prediction_of(message)
        sensors = tuple(share.name for share in prediction.sensors)
        self.predictions.append(Seen(prediction.tick_ns, sensors, prediction.label, message.header.frame_id))

    def _on_status(self, message: Any) -> None:
        self.status = message

    def _on_diagnostics(self, message: Any) -> None:
        self._diagnostics.update((entry.name, entry) for entry in message.status)
