"""What the fusion node and the sensor node have in common: parameters, topics, the engine, ticks and diagnostics."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import sys
import time
import traceback
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time

from omnibind_core.errors import ConfigError, InvalidInputError, OmniBindError
from omnibind_core.model.folders import is_export
from omnibind_core.model.loading import load_model, may_have_gpu
from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.stream import PerceptionStream
from omnibind_core.runtime.trigger import TickSource, Trigger
from omnibind_core.runtime.types import Doubted, EngineSettings, SensorReport
from omnibind_ros import messages
from omnibind_ros.graph.topics import CameraInfos, SubscriptionPool, TopicLink
from omnibind_ros.node import diagnostics
from omnibind_ros.node.parameters import UNCONFIGURED, Parameters, Sensor, Spec
from omnibind_ros.node.tactile import TactileReferences
from omnibind_ros.node.tick_loop import Tick, TickLoop

if TYPE_CHECKING:
    from omnibind_core.model import AnsweringModel

_POLL_PERIOD = 0.25  # s between looks at the graph
_REPORT_PERIOD = 1.0  # s between diagnostics
_END_PATIENCE = 0.5  # s that a computation may go on when the process ends


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
        self.model: AnsweringModel | None = None
        self.sensors: dict[str, Sensor] = {}
        self._pool = SubscriptionPool(self)
        self._links: dict[str, TopicLink] = {}
        self._cameras = CameraInfos(self, self._pool)
        self._decoders: dict[str, messages.Decoder] = {}
        self._tactile = TactileReferences(self, lambda: self.sensors.values(), self._decode_plain)
        self.inference = diagnostics.Inference("decode", "encode", "fuse", "latency")
        work = self.on_selection, self.compute, self.publish, self.further_costs
        self._loop = TickLoop(self, self.parameters["rate"], *work)
        # These go on when simulated time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_POLL_PERIOD, self._poll, clock=steady)
        self.create_timer(_REPORT_PERIOD, self._report, clock=steady)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.add_on_set_parameters_callback(self._on_parameters)
        # rclpy drops the exceptions of these (rclpy#1673).
        self._callbacks = {state: partial(self._guarded, callback) for state, callback in self._callbacks.items()}
        service = self._service_change_state
        service.callback = partial(self._on_change_state, service.callback)
        if self.has_touch:
            self._tactile.offer_service()

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

    def make_trigger(self, engine: PerceptionEngine) -> TickSource:
        """What says when to tick.

        Raises:
            MissingDependencyError: It needs a package that is not installed.
        """
        return Trigger(engine)

    def on_model(self) -> None:
        """Called when the model is there."""

    def on_selection(self, selection: Selection) -> None:
        """Called at every tick, on the executor's thread."""

    def further_costs(self) -> Mapping[str, float]:
        """Mean s of a tick that is spent on something else than a sensor, by name."""
        return {}

    def on_report(self, reports: Sequence[SensorReport]) -> None:
        """Called once a second while the node is configured."""

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Applies changed parameters that are not of a sensor, with checked values.

        Raises:
            OmniBindError: A value is unusable.
        """
        if "rate" in changes:
            self._loop.set_rate(changes["rate"])

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes and loads the model. What comes meanwhile waits in the middleware, as much as its queues hold."""
        try:
            self.sensors = {sensor.name: sensor for sensor in self.parameters.sensors}
            for sensor in self.sensors.values():
                if sensor.config.stamp == "header":  # others get their times when they are taken, after the load
                    self.connect(sensor)
            self._poll()
            started = time.monotonic()
            how = self.parameters["precision"], self.parameters["engine"], None, self.parameters["providers"]
            self.model = load_model(self.parameters["model"], self._device(), self.wanted, *how)
            self.on_model()
            self.model.warm_up(self.wanted)
        except OmniBindError as error:
            self.get_logger().error(f"cannot configure: {error}")
            self._free()
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(f"model {self.model.identity} loaded in {time.monotonic() - started:.1f} s")
        for name, sensor in self.sensors.items():
            if name in self._links:
                self._links[name].rest()
            else:
                self.connect(sensor)
        self._poll()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts the ticks, with empty buffers and counters at zero."""
        assert self.model is not None
        self.inference.clear()
        configs = [self.parameters.sensor(name).config for name in self.sensors]
        engine = PerceptionEngine(self.model, configs, self._decode, self.settings())
        try:
            trigger = self.make_trigger(engine)
        except OmniBindError as error:
            self.get_logger().error(f"cannot activate: {error}")
            return TransitionCallbackReturn.FAILURE
        self._loop.start(PerceptionStream(engine, trigger))
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

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees what a transition left that failed by an unexpected error: the node is unconfigured again."""
        self._halt()
        self._free()
        return super().on_error(state)

    def _guarded(
        self, callback: Callable[[LifecycleState], TransitionCallbackReturn], state: LifecycleState
    ) -> TransitionCallbackReturn:
        """Does a step of the lifecycle, and says why where it cannot be done."""
        step = callback.__name__.removeprefix("on_")
        try:
            return callback(state)
        except OmniBindError as error:
            self.get_logger().error(f"cannot {step}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().debug(traceback.format_exc())
            self.get_logger().error(f"cannot {step}: {type(error).__name__}: {' '.join(str(error).split())}")
            return TransitionCallbackReturn.ERROR

    def _on_change_state(self, change: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        """Refuses what the state does not allow: rclpy raises, which would end the process (rclpy#1209)."""
        asked = request.transition
        known = {number: label for number, label, *_ in self._state_machine.available_transitions}
        if (asked.label in known.values()) if asked.label else (asked.id in known):
            return change(request, response)
        state = self._state_machine.current_state[1]
        allowed = ", ".join(f"{label} ({number})" for number, label in known.items()) or "nothing"
        self.get_logger().error(
            f"transition {asked.label or asked.id} is refused: the node is {state}, expected {allowed}"
        )
        response.success = False
        return response

    def start(self) -> bool:
        """Configures and activates. Returns whether both succeeded."""
        steps: tuple[Callable[[], TransitionCallbackReturn], ...] = (self.trigger_configure, self.trigger_activate)
        return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)

    def stop(self) -> None:
        """Ends the worker and leaves the rest to the end of the process."""
        self._halt(_END_PATIENCE)

    def _halt(self, patience: float | None = None) -> None:
        self._loop.stop(patience)
        self._decoders.clear()

    def _free(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._cameras.close()
        self.sensors = {}
        self._tactile.clear()
        self.model = None
        _give_memory_back()

    def _device(self) -> str:
        """The torch device of the parameter.

        Raises:
            ConfigError: This machine has none of that name.
        """
        device: str = self.parameters["device"]
        if device == "cpu" or (device == "auto" and (is_export(self.parameters["model"]) or not may_have_gpu())):
            return "cpu"  # whatever answers there may do so without torch
        import torch

        if device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
            found = ", ".join(["auto", "cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))])
            why = str(error).partition("\n")[0]
            raise ConfigError(f"parameter 'device' is '{device}', expected one of {found}: {why}") from error
        return device

    # Messages -------------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> PerceptionEngine | None:
        """The engine; ``None`` while the node is not active."""
        stream = self._loop.stream
        return None if stream is None else stream.engine

    @property
    def now_ns(self) -> int:
        """ROS time."""
        now: int = self.get_clock().now().nanoseconds
        return now

    def _receiver(self, sensor: Sensor) -> Callable[[str, Any], None]:
        name = sensor.name

        def receive(ros_type: str, message: Any) -> None:
            stream = self._loop.stream
            if stream is None or name not in self.sensors:
                return
            now, payload = self.now_ns, (ros_type, message)
            stamp = messages.stamp_ns(message)
            self._tactile.heard(sensor, now)
            header = message.header if hasattr(message, "header") else self.header(now)
            stream.on_message(name, now if stamp is None else stamp, now, payload, header, messages.size_of(message))
            self._loop.advance(now)

        return receive

    def _decode(self, name: str, payload: tuple[str, Any]) -> Any:
        """Decodes a message, on the worker's thread."""
        raw = self._tactile.decode(name, payload)
        doubt = self._decoders[name].doubt
        return raw if doubt is None else Doubted(raw, doubt)

    def _decode_plain(self, name: str, payload: tuple[str, Any]) -> Any:
        sensor, model = self.sensors.get(name), self.model
        if sensor is None or model is None:
            raise InvalidInputError(name, "a message of a sensor that was let go", "one that is still there")
        if name not in self._decoders:
            self._decoders[name] = messages.Decoder(sensor.config.modality, name)
        options = self._cameras.complete(dataclasses.replace(sensor.options, model=model.identity))
        return self._decoders[name].decode(*payload, options)

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
            if self.sensors[name].config.modality == "point_cloud":
                self._cameras.follow(self.sensors[name].options.camera_info, link.ros_type)
            if self.engine is None:
                continue
            self.engine.set_obstacle(name, link.obstacle)
            self.engine.set_note(name, link.note)

    def _on_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        try:
            for parameter in parameters:
                if parameter.name in self.parameters and parameter.type_ == Parameter.Type.NOT_SET:
                    return _refusal(f"parameter '{parameter.name}' cannot be deleted, expected a value")
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
        if self._loop.stream is not None:
            for config in configs:
                self._loop.stream.configure(config)
        return SetParametersResult(successful=True)

    def _report(self) -> None:
        if self.model is None:
            return
        reports = self.engine.reports(self.now_ns) if self.engine is not None else []
        self.on_report(reports)
        entries = [(f"sensor {r.name}", self._sensor_entry(r)) for r in reports]
        entries.append(("inference", self._inference_entry()))
        entries += self.further_diagnostics()
        rows = [
            diagnostics.status(self.get_fully_qualified_name(), name, level, message, values)
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
        loop, load = self._loop, self._loop.load
        level, message, values = self.inference.entry(loop.ticks, loop.overruns, loop.errors, loop.failure)
        if load.words and level != DiagnosticStatus.ERROR:
            level, message = DiagnosticStatus.WARN, load.words
        values |= {"asked": f"{load.asked:.1f} Hz", "planned": f"{load.asked * load.share:.1f} Hz"}
        costs = {**self.engine.costs, **self.further_costs()}
        values |= {f"cost_{name}": f"{cost:.4f} s" for name, cost in costs.items()}
        if self._loop.ticks == 0 and self.now_ns == 0:
            level, message = DiagnosticStatus.WARN, "use_sim_time is true and nothing publishes /clock"
        return level, message, values

    def header(self, time_ns: int | None = None) -> Any:
        """A header of a moment on the node's clock, ns, or of now."""
        from std_msgs.msg import Header

        now = self.now_ns if time_ns is None else time_ns
        return Header(stamp=Time(nanoseconds=now).to_msg())


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
