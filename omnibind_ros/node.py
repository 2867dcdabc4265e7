"""What the fusion node and the sensor node have in common: parameters, topics, the engine, ticks and diagnostics."""

from __future__ import annotations

import dataclasses
import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from omnibind_core.errors import OmniBindError
from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.types import EngineSettings, SensorReport, SensorState
from omnibind_core.runtime.worker import LatestWorker
from omnibind_ros import messages
from omnibind_ros.parameters import UNCONFIGURED, Parameters, Sensor, Spec
from omnibind_ros.topics import SubscriptionPool, TopicLink

if TYPE_CHECKING:
    from omnibind_core.model import OmniBind

_POLL_PERIOD = 0.25  # s between looks at the graph
_REPORT_PERIOD = 1.0  # s between diagnostics

_LEVELS = {
    SensorState.ACTIVE: DiagnosticStatus.OK,
    SensorState.DISABLED: DiagnosticStatus.OK,
    SensorState.REJECTED: DiagnosticStatus.ERROR,
    SensorState.INCOMPATIBLE_QOS: DiagnosticStatus.ERROR,
}


class Tick(NamedTuple):
    """One tick on its way through the worker: what was selected, and when it began (monotonic, s)."""

    selection: Selection
    started: float


class PerceptionNode(LifecycleNode):
    """A lifecycle node with sensors, an engine and a worker.

    Configuring loads the model and subscribes, activating starts the ticks, deactivating stops them (messages are then
    dropped), cleaning up frees the model. The executor only takes messages; all work is done by one worker thread.

    Args:
        name: Name of the node.
        specs: Its parameters.
        node_options: Passed to ``rclpy``.

    Raises:
        ConfigError: A parameter given at the start is unusable.
    """

    def __init__(self, name: str, specs: Sequence[Spec], **node_options: Any) -> None:
        super().__init__(name, **node_options)
        self.parameters = Parameters(self, specs)
        for sentence in self.parameters.unknown(self._parameter_overrides):
            self.get_logger().warning(sentence)
        self.model: OmniBind | None = None
        self.engine: PerceptionEngine | None = None
        self.sensors: dict[str, Sensor] = {}
        self.ticks = 0
        self._pool = SubscriptionPool(self)
        self._links: dict[str, TopicLink] = {}
        self._worker: LatestWorker[Tick, tuple[Tick, Any]] | None = None
        self._tick_timer = self.create_timer(1.0 / self.parameters["rate"], self._tick)
        self._tick_timer.cancel()
        # These go on when simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_POLL_PERIOD, self._poll, clock=steady)
        self.create_timer(_REPORT_PERIOD, self._report, clock=steady)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jumps = self.get_clock().create_jump_callback(backward, post_callback=self._on_time_jump)
        self.add_on_set_parameters_callback(self._on_parameters)

    # What the two nodes do differently ------------------------------------------------------------------------------

    @abstractmethod
    def settings(self) -> EngineSettings:
        """Settings of the engine."""

    @abstractmethod
    def compute(self, selection: Selection) -> Any:
        """Works on one selection, on the worker's thread."""

    @abstractmethod
    def publish(self, tick: Tick, result: Any) -> None:
        """Publishes what :meth:`compute` returned, on the worker's thread."""

    def on_model(self) -> None:
        """Called when the model is there."""

    def on_selection(self, selection: Selection) -> None:
        """Called at every tick, on the executor's thread."""

    def on_report(self, reports: Sequence[SensorReport]) -> None:
        """Called once a second while the node is configured."""

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Applies changed parameters that are not of a sensor, with checked values.

        Raises:
            OmniBindError: A value is unusable.
        """
        if "rate" in changes:
            self._tick_timer.timer_period_ns = round(1e9 / changes["rate"])

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and subscribes."""
        from omnibind_core.model import OmniBind  # takes seconds; wrong parameters should be told at once

        try:
            self.sensors = {sensor.name: sensor for sensor in self.parameters.sensors}
            wanted = {sensor.config.modality for sensor in self.sensors.values()}
            started = time.monotonic()
            self.model = OmniBind.from_pretrained(self.parameters["model"], self._device(), wanted)
            self.on_model()
            self.model.warm_up(wanted)
        except OmniBindError as error:
            self.get_logger().error(f"cannot configure: {error}")
            self._free()
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(f"model {self.model.identity} loaded in {time.monotonic() - started:.1f} s")
        for sensor in self.sensors.values():
            self._links[sensor.name] = TopicLink(
                self,
                self._pool,
                sensor.topic,
                sensor.message_types,
                sensor.qos,
                sensor.queue_depth,
                self._receiver(sensor.name),
            )
        self._poll()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts the ticks, with empty buffers and counters at zero."""
        assert self.model is not None
        self.ticks = 0
        configs = [self.parameters.sensor(name).config for name in self.sensors]
        self.engine = PerceptionEngine(self.model, configs, self._decode, self.settings())
        self._worker = LatestWorker(self._work, self._done)
        self._tick_timer.reset()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the ticks; messages are dropped from now on."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the model. Subscriptions stay, muted."""
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops and frees everything."""
        self._halt()
        self._free()
        return super().on_shutdown(state)

    def start(self) -> bool:
        """Configures and activates. Returns whether both succeeded."""
        steps: tuple[Callable[[], TransitionCallbackReturn], ...] = (self.trigger_configure, self.trigger_activate)
        return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)

    def stop(self) -> None:
        """Ends the worker and leaves the rest to the end of the process."""
        self._halt()

    def _halt(self) -> None:
        self._tick_timer.cancel()
        if self._worker is not None:
            self._worker.close()
        self._worker = self.engine = None

    def _free(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()
        self.sensors = {}
        self.model = None

    def _device(self) -> str:
        device: str = self.parameters["device"]
        if device != "auto":
            return device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    # Messages and ticks ---------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """ROS time."""
        now: int = self.get_clock().now().nanoseconds
        return now

    def _receiver(self, sensor: str) -> Callable[[str, Any], None]:
        def receive(ros_type: str, message: Any) -> None:
            engine = self.engine
            if engine is not None:
                now = self.now_ns
                stamp = messages.stamp_ns(message)
                header = getattr(message, "header", None)
                engine.push(sensor, now if stamp is None else stamp, now, (ros_type, message), header)

        return receive

    def _decode(self, name: str, payload: tuple[str, Any]) -> Any:
        sensor, model = self.sensors[name], self.model
        options = dataclasses.replace(sensor.options, model=model.identity if model else "")
        return messages.decode(*payload, sensor.config.modality, options, name)

    def _tick(self) -> None:
        if self.engine is None or self._worker is None:
            return
        tick = Tick(self.engine.select(self.now_ns), time.monotonic())
        self.ticks += 1
        self.on_selection(tick.selection)
        self._worker.submit(tick)

    def _work(self, tick: Tick) -> tuple[Tick, Any]:
        return tick, self.compute(tick.selection)

    def _done(self, result: tuple[Tick, Any]) -> None:
        if self.context.ok():
            self.publish(*result)

    def _on_time_jump(self, jump: Any) -> None:
        if self.engine is not None:
            self.get_logger().warning("time went backwards or the clock was changed: buffers cleared")
            self.engine.clear()

    @property
    def overruns(self) -> int:
        """Ticks since activation that were skipped because the one before was still being computed."""
        return self._worker.overruns if self._worker is not None else 0

    @property
    def errors(self) -> int:
        """Ticks since activation that ended in an unexpected error."""
        return self._worker.errors if self._worker is not None else 0

    # Topics, parameters, diagnostics --------------------------------------------------------------------------------

    def link(self, sensor: str) -> TopicLink:
        """The topic of a sensor."""
        return self._links[sensor]

    def _poll(self) -> None:
        for name, link in self._links.items():
            link.poll()
            if self.engine is None:
                continue
            if link.wrong_type:
                self.engine.reject(name, f"[{name}] {link.topic} has {link.wrong_type}")
            if link.incompatible:
                self.engine.mark_incompatible(name, link.incompatible)
            else:
                self.engine.clear_incompatible(name)

    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        try:
            changes = {
                parameter.name: self.parameters.check(parameter.name, parameter.value)
                for parameter in parameters
                if parameter.name in self.parameters
            }
            for name in changes:
                if self.model is not None and self.parameters.changeable(name) == UNCONFIGURED:
                    return _refusal(f"parameter '{name}' can only be changed while the node is unconfigured")
            touched = {name.partition(".")[0] for name in changes} & set(self.parameters.sensor_names)
            configs = [self.parameters.sensor(name, changes).config for name in touched]
            self.apply(changes)
        except OmniBindError as error:
            return _refusal(str(error))
        if self.engine is not None:
            for config in configs:
                self.engine.configure(config)
        return SetParametersResult(successful=True)

    def _report(self) -> None:
        if self.model is None:
            return
        reports = self.engine.reports(self.now_ns) if self.engine is not None else []
        self.on_report(reports)
        statuses = [self._sensor_diagnostic(report) for report in reports]
        statuses.append(self.inference_diagnostic())
        self._diagnostics.publish(DiagnosticArray(header=self.header(), status=statuses))

    def header(self) -> Any:
        """A header of now."""
        from std_msgs.msg import Header

        return Header(stamp=self.get_clock().now().to_msg())

    def _sensor_diagnostic(self, report: SensorReport) -> DiagnosticStatus:
        link = self._links[report.name]
        values = {
            "topic": link.topic,
            "type": link.ros_type,
            "age": f"{report.age:.3f} s",
            "rate": f"{report.rate:.2f} Hz",
            "received": report.received,
            "rejected": report.rejected,
            "dropped": report.dropped,
        }
        level = _LEVELS.get(report.state, DiagnosticStatus.WARN)
        return self.diagnostic(f"sensor {report.name}", level, f"{report.state.name}: {report.reason}", values)

    def inference_diagnostic(self) -> DiagnosticStatus:
        """The worker's entry in /diagnostics."""
        level = DiagnosticStatus.ERROR if self.errors else DiagnosticStatus.OK
        if self.engine is None:
            return self.diagnostic("inference", DiagnosticStatus.OK, "inactive", {})
        values = {"ticks": self.ticks, "overruns": self.overruns, "errors": self.errors}
        message = "a tick failed, see the log" if self.errors else "running"
        if self.ticks == 0 and self.now_ns == 0:
            level, message = DiagnosticStatus.WARN, "use_sim_time is true and nothing publishes /clock"
        return self.diagnostic("inference", level, message, values)

    def diagnostic(self, name: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
        """One entry of /diagnostics."""
        return DiagnosticStatus(
            level=level,
            name=f"{self.get_name()}: {name}",
            message=message,
            hardware_id=self.get_fully_qualified_name(),
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )


def _refusal(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=reason)


class _ToRos(logging.Handler):
    """Sends what the ROS-free parts log to the node's logger."""

    def __init__(self, node: PerceptionNode) -> None:
        super().__init__()
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy ties a line of code to one severity, hence one line each.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def run(make: Callable[[], PerceptionNode]) -> int:
    """Runs a node until SIGINT or SIGTERM. Returns the exit status: 1 if it could not start.

    The executor is rclpy's plain one: callbacks only buffer messages, and the events executor of Jazzy does not end
    its spinning when the context is shut down by a signal.
    """
    rclpy.init()
    try:
        node = make()
    except OmniBindError as error:
        rclpy.logging.get_logger("omnibind").fatal(str(error))
        rclpy.try_shutdown()
        return 1
    handler = _ToRos(node)
    logger = logging.getLogger("omnibind_core")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.parameters["autostart"] and not node.start():
            return 1
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        logger.removeHandler(handler)
        node.stop()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
