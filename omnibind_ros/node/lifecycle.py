"""What the fusion node and the sensor node have in common: parameters, topics, the engine, ticks and diagnostics."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import logging
import os
import signal
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger as TriggerService

from omnibind_core.errors import InvalidInputError, OmniBindError
from omnibind_core.modalities.touch.processing import subtract_reference
from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.trigger import Trigger
from omnibind_core.runtime.types import Encoded, EngineSettings, SensorReport
from omnibind_core.runtime.worker import LatestWorker
from omnibind_ros import messages
from omnibind_ros.node import diagnostics
from omnibind_ros.node.parameters import UNCONFIGURED, Parameters, Sensor, Spec
from omnibind_ros.node.sync import ApproximateSync
from omnibind_ros.node.topics import SubscriptionPool, TopicLink
from omnibind_ros.node.transport import avoid_shared_memory, buffer_warning, share_folder

if TYPE_CHECKING:
    from omnibind_core.model import OmniBind

_POLL_PERIOD = 0.25  # s between looks at the graph
_REPORT_PERIOD = 1.0  # s between diagnostics
_END_PATIENCE = 1.0  # s that a computation may go on when the process ends


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
        self._trigger: Trigger | ApproximateSync | None = None
        self._decoders: dict[str, messages.Decoder] = {}
        self._newest_touch: dict[str, tuple[int, tuple[str, Any]]] = {}  # when received, ns, and the payload
        self._touch_references: dict[str, NDArray[np.uint8]] = {}
        self.inference = diagnostics.Inference("decode", "encode", "fuse", "latency")
        self._tick_timer = self.create_timer(1.0 / self.parameters["rate"], self._period)
        self._tick_timer.cancel()
        self._wait_timer = self.create_timer(1.0, self._end_of_wait)
        self._wait_timer.cancel()
        # These go on when simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_POLL_PERIOD, self._poll, clock=steady)
        self.create_timer(_REPORT_PERIOD, self._report, clock=steady)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jumps = self.get_clock().create_jump_callback(backward, post_callback=self._on_time_jump)
        self.add_on_set_parameters_callback(self._on_parameters)
        if self.has_touch:
            self.create_service(TriggerService, "~/set_tactile_reference", self._on_set_tactile_reference)

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

    @property
    def wanted(self) -> set[str]:
        """Modalities whose encoders are needed."""
        return {sensor.config.modality for sensor in self.sensors.values()}

    @property
    def has_touch(self) -> bool:
        """Whether there may be a tactile sensor."""
        return any(sensor.config.modality == "touch" for sensor in self.parameters.sensors)

    def make_trigger(self, engine: PerceptionEngine) -> Trigger | ApproximateSync:
        """What says when to tick.

        Raises:
            MissingDependencyError: It needs a package that is not installed.
        """
        return Trigger(engine)

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
            started = time.monotonic()
            self.model = OmniBind.from_pretrained(self.parameters["model"], self._device(), self.wanted)
            self.on_model()
            self.model.warm_up(self.wanted)
        except OmniBindError as error:
            self.get_logger().error(f"cannot configure: {error}")
            self._free()
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(f"model {self.model.identity} loaded in {time.monotonic() - started:.1f} s")
        for sensor in self.sensors.values():
            self.connect(sensor)
        self._poll()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts the ticks, with empty buffers and counters at zero."""
        assert self.model is not None
        self.ticks = 0
        self.inference.clear()
        configs = [self.parameters.sensor(name).config for name in self.sensors]
        engine = PerceptionEngine(self.model, configs, self._decode, self.settings())
        try:
            self._trigger = self.make_trigger(engine)
        except OmniBindError as error:
            self.get_logger().error(f"cannot activate: {error}")
            return TransitionCallbackReturn.FAILURE
        self.engine = engine
        self._worker = LatestWorker(self._work, self._done)
        self._tick_timer.reset()
        self._poll()
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
        self._halt(_END_PATIENCE)

    def _halt(self, patience: float | None = None) -> None:
        self._tick_timer.cancel()
        self._wait_timer.cancel()
        if self._worker is not None:
            self._worker.close(patience)
        self._worker = self.engine = self._trigger = None
        self._decoders.clear()

    def _free(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()
        self.sensors = {}
        self._newest_touch.clear()
        self._touch_references.clear()
        self.model = None
        _give_memory_back()

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

    def _receiver(self, sensor: Sensor) -> Callable[[str, Any], None]:
        name, touch = sensor.name, sensor.config.modality == "touch"

        def receive(ros_type: str, message: Any) -> None:
            engine, trigger = self.engine, self._trigger
            if engine is None or trigger is None or name not in self.sensors:
                return
            now = self.now_ns
            stamp = messages.stamp_ns(message)
            header = getattr(message, "header", None)
            if touch:
                self._newest_touch[name] = now, (ros_type, message)
            accepted = engine.push(name, now if stamp is None else stamp, now, (ros_type, message), header)
            trigger.heard(name, accepted, now)
            self._tick()

        return receive

    def _decode(self, name: str, payload: tuple[str, Any]) -> Any:
        """Decodes a message, on the worker's thread."""
        raw = self._decode_plain(name, payload)
        reference = self._touch_references.get(name)
        return raw if reference is None or isinstance(raw, Encoded) else subtract_reference(raw, reference)

    def _decode_plain(self, name: str, payload: tuple[str, Any]) -> Any:
        sensor, model = self.sensors.get(name), self.model
        if sensor is None or model is None:
            raise InvalidInputError(name, "a message of a sensor that was let go", "one that is still there")
        if name not in self._decoders:
            self._decoders[name] = messages.Decoder(sensor.config.modality, name)
        options = dataclasses.replace(sensor.options, model=model.identity)
        return self._decoders[name].decode(*payload, options)

    def _period(self) -> None:
        if self._trigger is not None:
            self._trigger.due(self.now_ns)
            self._tick()

    def _end_of_wait(self) -> None:
        self._wait_timer.cancel()
        self._tick()

    def _tick(self) -> None:
        """Does the ticks that need not wait any longer, and sets the timer for one that must."""
        if self._trigger is None or self._worker is None:
            return
        while (selection := self._trigger.poll(self.now_ns)) is not None:
            self.ticks += 1
            self.on_selection(selection)
            self._worker.submit(Tick(selection, time.monotonic()))
        deadline = self._trigger.deadline_ns
        if deadline is None:
            self._wait_timer.cancel()
        elif self._wait_timer.is_canceled():
            self._wait_timer.timer_period_ns = max(deadline - self.now_ns, 1_000_000)
            self._wait_timer.reset()

    def _work(self, tick: Tick) -> tuple[Tick, Any]:
        return tick, self.compute(tick.selection)

    def _done(self, result: tuple[Tick, Any]) -> None:
        if self.context.ok():
            self.publish(*result)

    def _on_time_jump(self, jump: Any) -> None:
        if self.engine is not None:
            self.get_logger().warning("time went backwards or the clock was changed: buffers cleared")
            self.engine.clear()
        if self._trigger is not None:
            self._trigger.clear()

    @property
    def overruns(self) -> int:
        """Ticks since activation that were skipped because the one before was still being computed."""
        return self._worker.overruns if self._worker is not None else 0

    @property
    def errors(self) -> int:
        """Ticks since activation that ended in an unexpected error."""
        return self._worker.errors if self._worker is not None else 0

    # Topics, parameters, diagnostics --------------------------------------------------------------------------------

    def connect(self, sensor: Sensor) -> None:
        """Subscribes to the topic of a sensor as soon as it has a publisher."""
        receive = self._receiver(sensor)
        types, qos, depth = sensor.message_types, sensor.qos, sensor.queue_depth
        self._links[sensor.name] = TopicLink(self, self._pool, sensor.topic, types, qos, depth, receive)

    def disconnect(self, sensor: str) -> None:
        """Mutes the topic of a sensor."""
        self._links.pop(sensor).close()

    def link(self, sensor: str) -> TopicLink:
        """The topic of a sensor."""
        return self._links[sensor]

    def _poll(self) -> None:
        for name, link in self._links.items():
            link.poll()
            if self.engine is None:
                continue
            self.engine.set_obstacle(name, link.obstacle)
            self.engine.set_note(name, link.note)

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
            touched = {name.partition(".")[0] for name in changes} & set(self.sensors or self.parameters.sensor_names)
            configs = [self.parameters.sensor(name, changes).config for name in touched]
            self.apply(changes)
        except OmniBindError as error:
            return _refusal(str(error))
        if self.engine is not None:
            for config in configs:
                self.engine.configure(config)
        return SetParametersResult(successful=True)

    def _on_set_tactile_reference(self, request: Any, response: Any) -> Any:
        """Takes what every tactile sensor shows now for its look without contact."""
        taken, failed = [], []
        for sensor in list(self.sensors.values()):
            if sensor.config.modality != "touch":
                continue
            try:
                taken.append(self._take_reference(sensor.name))
            except OmniBindError as error:
                failed.append(str(error))
        response.success = bool(taken) and not failed
        response.message = "; ".join((*taken, *failed)) or "there is no tactile sensor"
        return response

    def _take_reference(self, name: str) -> str:
        receive_ns, payload = self._newest_touch.get(name, (None, ("", None)))
        timeout = self.sensors[name].config.timeout
        if receive_ns is None or self.now_ns - receive_ns > timeout * 1e9:
            raise InvalidInputError(name, "no message now", "one that shows the sensor without contact")
        raw = self._decode_plain(name, payload)
        if isinstance(raw, Encoded):
            raise InvalidInputError(name, "frames of a sensor node", "the reference to be set there")
        self._touch_references[name] = np.array(raw)
        return f"[{name}] reference of {raw.shape[1]} x {raw.shape[0]} pixels taken"

    def _report(self) -> None:
        if self.model is None:
            return
        reports = self.engine.reports(self.now_ns) if self.engine is not None else []
        self.on_report(reports)
        entries = [(f"sensor {r.name}", self._sensor_entry(r)) for r in reports]
        entries.append(("inference", self._inference_entry()))
        entries += self.further_diagnostics()
        hardware = self.get_fully_qualified_name()
        make = partial(diagnostics.status, hardware=hardware)
        rows = [
            make(name=f"{self.get_name()}: {name}", level=level, message=message, values=values)
            for name, (level, message, values) in entries
        ]
        self._diagnostics.publish(DiagnosticArray(header=self.header(), status=rows))

    def _sensor_entry(self, report: SensorReport) -> tuple[bytes, str, dict[str, Any]]:
        decoder = self._decoders.get(report.name)
        return diagnostics.sensor_entry(report, self._links[report.name], decoder.losses if decoder else {})

    def further_diagnostics(self) -> list[tuple[str, tuple[bytes, str, dict[str, Any]]]]:
        """More entries: name, and level, message and values."""
        return []

    def _inference_entry(self) -> tuple[bytes, str, dict[str, Any]]:
        if self.engine is None:
            return DiagnosticStatus.OK, "inactive", {}
        level, message, values = self.inference.entry(self.ticks, self.overruns, self.errors)
        if self.ticks == 0 and self.now_ns == 0:
            level, message = DiagnosticStatus.WARN, "use_sim_time is true and nothing publishes /clock"
        return level, message, values

    def header(self) -> Any:
        """A header of now."""
        from std_msgs.msg import Header

        return Header(stamp=self.get_clock().now().to_msg())


def _give_memory_back() -> None:
    """Returns what is free to the system and to other users of the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what was freed, of the lite model 100 MB
    if trim is not None:
        trim(0)


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
    # While the model is loaded, too; rclpy's own handling comes on top.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    transport = avoid_shared_memory(os.environ, rclpy.get_rmw_implementation_identifier(), share_folder() / "config")
    rclpy.init()
    log = rclpy.logging.get_logger("omnibind")
    log.info(f"transport: {transport.words}")
    warning = buffer_warning() if transport.udp else None
    if warning:
        log.warning(warning)
    try:
        node = make()
    except OmniBindError as error:
        log.fatal(str(error))
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
