"""The live view of a running fusion node. It asks that node which sensors there are and how their messages are read."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Any

import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python

from omnibind_core import modalities
from omnibind_ros import messages, msg
from omnibind_ros.graph.judging import camera_info_topic
from omnibind_ros.graph.topics import LATCHED, CameraInfos, SubscriptionPool, TopicLink
from omnibind_ros.messages import DecodeOptions, prediction_of, reports_of
from omnibind_ros.messages.objects import objects_of
from omnibind_ros.view.canvas import Canvas
from omnibind_ros.view.feed import Feed

_POLL_PERIOD = 0.25  # s between looks at the graph
_PATIENCE = 5.0  # s without a report of the fusion node, after which the user is told
_UNANSWERED = 3  # reports after which the node's parameters are not waited for any longer
_STREAM_DEPTH, _FRAME_DEPTH = 100, 1
_OPTIONS = tuple(field.name for field in dataclasses.fields(DecodeOptions) if field.name not in ("model", "intrinsics"))


class LiveView(Node):
    """Shows what a fusion node's sensors publish and what it makes of it.

    Args:
        canvas: Where to.
        rate: Pictures a second of each sensor at most.
        node: Name of the fusion node.
        options: Of :class:`rclpy.node.Node`: namespace, context, ...
    """

    def __init__(self, canvas: Canvas, rate: float, node: str = "fusion_node", **options: Any) -> None:
        super().__init__("omnibind_view", **options)
        self._canvas = canvas
        self._rate = rate
        self._pool = SubscriptionPool(self)
        self._links: dict[str, TopicLink] = {}
        self._cameras = CameraInfos(self, self._pool)
        self._infos: dict[str, str] = {}  # topics of depth cameras' CameraInfo, by sensor
        self._reported: dict[str, int] = {}  # how often each sensor was reported before it was connected
        self._asked: set[str] = set()
        # No AsyncParameterClient: it would need leave to set them, too.
        self._client = self.create_client(GetParameters, f"{node}/get_parameters")
        self.create_subscription(msg.Prediction, "omnibind/prediction", self._on_prediction, 10)
        self.create_subscription(msg.ObjectPredictions, "omnibind/objects", self._on_objects, 10)
        status = self.create_subscription(msg.FusionStatus, f"{node}/status", self._on_status, LATCHED)
        self._status_topic = status.topic_name
        self._begun: float | None = time.monotonic()
        self.create_timer(_POLL_PERIOD, self._poll, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def _now_ns(self) -> int:
        now: int = self.get_clock().now().nanoseconds
        return now

    def _on_prediction(self, message: Any) -> None:
        self._canvas.prediction(prediction_of(message, self._now_ns - round(message.latency * 1e9)))

    def _on_objects(self, message: Any) -> None:
        self._canvas.things(messages.stamp_ns(message) or self._now_ns, objects_of(message))

    def _on_status(self, message: Any) -> None:
        self._begun = None
        reports = reports_of(message)
        known = {report.name: report.modality for report in reports}
        for name in set(self._links) - set(known):  # the node has let an adopted topic go
            self._links.pop(name).close()
            self._asked.discard(name)
        self._canvas.arrange(known)
        self._canvas.states(self._now_ns, reports)
        if not message.alive:
            self._canvas.nothing(self._now_ns)
        for row in message.sensors:
            if row.name not in self._asked:
                self._ask(row)

    def _ask(self, row: Any) -> None:
        """Asks how the messages of a sensor are read, and connects it then."""
        if self._client.service_is_ready():
            self._asked.add(row.name)
            names = [f"{row.name}.{option}" for option in _OPTIONS]
            self._client.call_async(GetParameters.Request(names=names)).add_done_callback(
                partial(self._on_parameters, row)
            )
            return
        self._reported[row.name] = self._reported.get(row.name, 0) + 1
        if self._reported[row.name] >= _UNANSWERED:  # no node behind the status: it is played from a recording
            self._asked.add(row.name)
            self._connect(row, DecodeOptions())

    def _on_parameters(self, row: Any, future: Any) -> None:
        values: list[Any] = [parameter_value_to_python(value) for value in future.result().values]
        given = {name: value for name, value in zip(_OPTIONS, values, strict=False) if value is not None}
        self._connect(row, DecodeOptions(**given))

    def _connect(self, row: Any, options: DecodeOptions) -> None:
        options = dataclasses.replace(options, camera_info=options.camera_info or camera_info_topic(row.topic))
        feed = Feed(self._canvas, row.name, row.modality, options, self._rate)
        if row.modality == "point_cloud":
            self._infos[row.name] = options.camera_info
        depth = _STREAM_DEPTH if modalities.get(row.modality).is_stream else _FRAME_DEPTH

        def receive(ros_type: str, message: Any) -> None:
            feed.options = self._cameras.complete(options)
            feed.push(self._now_ns, ros_type, message)

        types = messages.types_for(row.modality)
        self._links[row.name] = TopicLink(self, self._pool, row.topic, types, "auto", depth, receive)
        self.get_logger().info(f"[{row.name}] {row.topic}")

    def _poll(self) -> None:
        for name, link in self._links.items():
            link.poll()
            if name in self._infos:
                self._cameras.follow(self._infos[name], link.ros_type)
        if self._begun is not None and time.monotonic() - self._begun > _PATIENCE:
            self._begun = None
            self.get_logger().warning(
                f"nothing on {self._status_topic} for {_PATIENCE:.0f} s: is a fusion node running, in the same "
                "ROS_DOMAIN_ID, and with this namespace and name (--namespace, --node)?"
            )


def run(canvas: Canvas, rate: float, namespace: str, node: str, use_sim_time: bool) -> None:
    """Shows a running fusion node until SIGINT or SIGTERM."""
    rclpy.init()
    view = LiveView(
        canvas,
        rate,
        node,
        namespace=namespace,
        parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)],
    )
    executor = SingleThreadedExecutor()
    executor.add_node(view)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        view.destroy_node()
        rclpy.try_shutdown()
