"""Subscriptions that follow their publishers: message type and QoS are taken from the graph.

A subscription is never destroyed while the node lives: destroying one under a spinning executor ends the process on
Humble (ros2/rclpy#1206). What is not wanted any more is muted, and used again when it is.
"""

from __future__ import annotations

import importlib
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ament_index_python import get_resource
from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

from omnibind_core.errors import ConfigError, MissingDependencyError
from omnibind_core.runtime.types import SensorState
from omnibind_ros.graph.judging import explain_type, substitute
from omnibind_ros.graph.transport import buffer_warning
from omnibind_ros.messages import CAMERA_INFO, LASER_SCAN, MODALITY_FRAME, POINT_CLOUD, DecodeOptions

Key = tuple[str, str, ReliabilityPolicy, DurabilityPolicy]
"""What makes a subscription: topic, message type, QoS."""

_SILENCE = 3.0  # s after which a publisher that was found should have sent something
_INFO_DEPTH = 1  # messages of a CameraInfo that may wait

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""QoS of topics whose last message a late subscriber gets."""


def message_class(ros_type: str) -> Any:
    """The Python class of a message type.

    Args:
        ros_type: For example ``"sensor_msgs/msg/Image"``.

    Raises:
        MissingDependencyError: Its package is not installed, or another one of the same name is.
    """
    package, _, name = ros_type.partition("/msg/")
    try:
        # Anyone on the network, and any bag, can name a type: no module is imported but of packages of interfaces.
        if not re.fullmatch(r"\w+/msg/\w+", ros_type, re.ASCII):
            raise ImportError("no name of a message type, expected PACKAGE/msg/NAME")
        if not {f"msg/{name}.msg", f"msg/{name}.idl"} & {*get_resource("rosidl_interfaces", package)[0].split()}:
            raise ImportError(f"{package} has no such message")
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError, LookupError, OSError) as error:
        install = f"apt install ros-$ROS_DISTRO-{package.replace('_', '-')} ({error})"
        raise MissingDependencyError(package, f"the message type {ros_type}", install) from error


def node_name(info: Any) -> str:
    """Full name of the node behind an endpoint; middlewares know it a little later than the endpoint."""
    if "UNKNOWN" in info.node_name:
        return "an unknown node"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


class SubscriptionPool:
    """All subscriptions of a node; the receiver of each can be changed or taken away.

    Args:
        node: The node.
        raw: Whether messages are given as they came over the wire, in CDR.
    """

    def __init__(self, node: Node, raw: bool = False) -> None:
        self._node = node
        self._raw = raw
        self._receivers: dict[Key, Callable[[Any], None] | None] = {}
        self._kept: dict[Key, deque[Any]] = {}
        self._lost: dict[Key, int] = {}

    def use(
        self,
        key: Key,
        depth: int,
        receive: Callable[[Any], None],
        changed: Callable[[], None],
        keep: bool = False,
    ) -> None:
        """Gives the messages of a subscription to ``receive``, and makes the subscription if there is none.

        Args:
            key: What to subscribe to.
            depth: Messages that may wait.
            receive: Gets every message.
            changed: Called when the middleware finds a publisher of incompatible QoS.
            keep: Whether the last ``depth`` messages are kept for the next receiver, if the subscription is latched:
                the middleware sends them once, and not again to a subscription that was muted.

        Raises:
            MissingDependencyError: The message type is not installed.
            ConfigError: This process has used the topic with another type, or the middleware refuses, as by a policy
                of SROS2.
        """
        if key not in self._receivers:
            topic, ros_type, reliability, durability = key
            type_class = message_class(ros_type)
            qos = QoSProfile(depth=depth, reliability=reliability, durability=durability)

            def deliver(message: Any) -> None:
                if key in self._kept:
                    self._kept[key].append(message)
                receiver = self._receivers[key]
                if receiver is not None:
                    receiver(message)

            others = {other[1] for other in self._receivers if other[0] == topic} - {ros_type}
            if others:  # middlewares keep the type of a topic as long as the process lives, and fail otherwise
                raise ConfigError(
                    f"messages of type {ros_type}, which were {', '.join(sorted(others))} before: "
                    "a topic keeps its type until the node is started again"
                )
            self._receivers[key] = None

            def lose(event: Any) -> None:
                self._lost[key] = event.total_count

            events = SubscriptionEventCallbacks(
                incompatible_qos=lambda event: changed(), message_lost=lose, use_default_callbacks=False
            )
            try:
                self._subscribe(type_class, topic, deliver, qos, events)
            except RuntimeError as error:  # of rcl, whose words come with its source files
                del self._receivers[key]
                why = " ".join(re.sub(r", at /\S+?:\d+", "", str(error)).split())
                raise ConfigError(
                    f"messages of type {ros_type}, and the middleware refuses to subscribe to them: {why}"
                ) from error
        self._receivers[key] = receive
        if keep and key[3] == DurabilityPolicy.TRANSIENT_LOCAL:
            for message in tuple(self._kept.setdefault(key, deque(maxlen=depth))):
                receive(message)

    def _subscribe(self, kind: Any, topic: str, deliver: Any, qos: QoSProfile, events: Any) -> None:
        try:
            self._node.create_subscription(kind, topic, deliver, qos, event_callbacks=events, raw=self._raw)
        except UnsupportedEventTypeError:  # not every middleware tells; polling finds it, too
            silent = SubscriptionEventCallbacks(use_default_callbacks=False)
            self._node.create_subscription(kind, topic, deliver, qos, event_callbacks=silent, raw=self._raw)

    def lost(self, key: Key) -> int:
        """Messages that the middleware knows to have been lost on their way, where it tells."""
        return self._lost.get(key, 0)

    def mute(self, key: Key) -> None:
        """Drops what the subscription receives from now on."""
        self._receivers[key] = None


class TopicLink:
    """The topic of one sensor, whatever publishes on it.

    Args:
        node: The node.
        pool: Its subscriptions.
        topic: Topic name, before remapping.
        types: Accepted message types, preferred ones first.
        qos: ``auto`` copies the publishers' QoS as far as all can be heard, ``sensor_data`` is best effort,
            ``reliable`` is reliable, ``latched`` is that and hears what was sent before.
        depth: Messages that may wait.
        receive: Called with ``(ros_type, message)``; it must be fast.
        keep: Whether what was latched is kept for the next link to the topic; images would take much memory.

    Attributes:
        topic: Resolved topic name.
        ros_type: Type of the messages; ``""`` while none is known.
        wrong_type: Why the publishers' type cannot be used; ``""`` if it can.
        incompatible: Why a publisher cannot be heard, with the policy's name; ``""`` if all is well.
        publishers: Names of the nodes that publish on it.
    """

    def __init__(
        self,
        node: Node,
        pool: SubscriptionPool,
        topic: str,
        types: Sequence[str],
        qos: str,
        depth: int,
        receive: Callable[[str, Any], None],
        keep: bool = False,
    ) -> None:
        self.topic = node.resolve_topic_name(topic)
        self.ros_type = ""
        self.wrong_type = ""
        self.incompatible = ""
        self.publishers: tuple[str, ...] = ()
        self._node = node
        self._pool = pool
        self._requested = topic
        self._types = tuple(types)
        self._qos = qos
        self._depth = depth
        self._receive = receive
        self._keep = keep
        self._key: Key | None = None
        self._heard = False
        self._since: float | None = None  # when publishers were seen that have sent nothing, s
        self._instead = ""
        if len(self._types) == 1 and qos != "auto":  # nothing has to be found out
            self._subscribe(self._types[0], [])

    def poll(self) -> None:
        """Looks at the publishers and follows them; call it now and then."""
        publishers = self._node.get_publishers_info_by_topic(self._requested)
        self.publishers = tuple(sorted(node_name(info) for info in publishers))
        self.wrong_type = self.incompatible = self._instead = ""
        if not publishers:
            self._since = None
            self._instead = substitute(self.topic, lambda topic: bool(self._node.count_publishers(topic)))
            return  # a publisher that returns is heard by the subscription there is
        offered = {info.topic_type for info in publishers}
        # What the topic has had is kept: two types on one topic are one too many.
        known = (self.ros_type, *self._types) if self.ros_type else self._types
        ros_type = next((name for name in known if name in offered), None)
        if ros_type is None:
            self.wrong_type = f"messages of type {', '.join(sorted(offered))}, expected {' or '.join(self._types)}"
            told = next(filter(None, map(explain_type, sorted(offered))), "")
            self.wrong_type += f": {told}" if told else ""
            return
        self._since = time.monotonic() if self._since is None else self._since
        profiles = [info.qos_profile for info in publishers if info.topic_type == ros_type]
        self._subscribe(ros_type, profiles)
        self.incompatible = self._unheard(profiles)

    @property
    def obstacle(self) -> tuple[SensorState, str] | None:
        """Why the publishers cannot be heard; ``None`` if they can, or if there are none."""
        if self.wrong_type:
            return SensorState.REJECTED, f"{self.topic} has {self.wrong_type}"
        if self.incompatible:
            return SensorState.INCOMPATIBLE_QOS, self.incompatible
        return None

    @property
    def note(self) -> str:
        """Who publishes, in words."""
        if not self.publishers:
            return f"nobody publishes on {self.topic}" + (f", {self._instead}" if self._instead else "")
        told = f"{' and '.join(dict.fromkeys(self.publishers))} should publish on {self.topic}"
        hint = f"{buffer_warning() or 'large ones need a large receive buffer and a good link'}; docs/transport.md"
        if self.lost:
            return f"{told}; {self.lost} messages were lost on their way ({hint})"
        waited = self._since is not None and time.monotonic() - self._since > _SILENCE
        if waited and not self._heard and self._key is not None and self._key[2] == ReliabilityPolicy.BEST_EFFORT:
            return f"{told}, which is connected: it sends nothing, or all is lost on its way as best effort ({hint})"
        return told

    @property
    def lost(self) -> int:
        """Messages that were lost on their way, as far as the middleware tells."""
        return self._pool.lost(self._key) if self._key is not None else 0

    def rest(self) -> None:
        """What was not taken until now is not held against the publishers: nobody looked."""
        self._since = None

    def close(self) -> None:
        """Stops receiving."""
        if self._key is not None:
            self._pool.mute(self._key)
            self._key = None
        self.ros_type = ""

    def _subscribe(self, ros_type: str, profiles: Sequence[QoSProfile]) -> None:
        """Hears what the publishers offer; does nothing if that is so already."""
        latched = self._qos == "latched"
        reliable = latched or self._qos == "reliable"
        if self._qos == "auto":
            reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in profiles)
            latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
        key = (
            self._requested,
            ros_type,
            ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        if key == self._key:
            return
        try:
            self._pool.use(key, self._depth, partial(self._take, ros_type), self.poll, self._keep)
        except (MissingDependencyError, ConfigError) as error:
            self.wrong_type = str(error)
            return
        if self._key is not None:
            self._pool.mute(self._key)
        self._key, self.ros_type = key, ros_type

    def _take(self, ros_type: str, message: Any) -> None:
        self._heard = True
        self._receive(ros_type, message)

    def _unheard(self, profiles: Sequence[QoSProfile]) -> str:
        """Why a publisher is not heard; empty if all are."""
        if self._key is None:
            return ""
        own = QoSProfile(depth=self._depth, reliability=self._key[2], durability=self._key[3])
        for profile in profiles:
            compatible, reason = qos_check_compatible(profile, own)
            if compatible == QoSCompatibility.ERROR:
                return f"a publisher's QoS does not match: {reason.strip('; ')}; use qos: auto or sensor_data"
        return ""


class CameraInfos:
    """The newest ``CameraInfo`` beside each topic of pictures.

    Args:
        node: The node.
        pool: Its subscriptions.
    """

    def __init__(self, node: Node, pool: SubscriptionPool) -> None:
        self._node = node
        self._pool = pool
        self._links: dict[str, TopicLink] = {}  # by topic: several sensors may have one
        self._newest: dict[str, Any] = {}

    def follow(self, topic: str, ros_type: str) -> None:
        """Looks at a publisher and follows it; call it now and then.

        Args:
            topic: That of the ``CameraInfo``.
            ros_type: Message type of the sensor's own topic: clouds, and what is encoded, need nothing beside them.
        """
        if ros_type in ("", POINT_CLOUD, LASER_SCAN, MODALITY_FRAME):
            return
        if topic not in self._links:

            def keep(_: str, message: Any) -> None:
                self._newest[topic] = message

            self._links[topic] = TopicLink(
                self._node, self._pool, topic, (CAMERA_INFO,), "auto", _INFO_DEPTH, keep, keep=True
            )
        self._links[topic].poll()

    def newest(self, topic: str) -> Any:
        """The newest message of a topic that is followed, by the name that :meth:`follow` was given; else ``None``."""
        return self._newest.get(topic)

    def complete(self, options: DecodeOptions) -> DecodeOptions:
        """The options of a sensor with what its ``CameraInfo`` says. Safe to call from another thread."""
        link = self._links.get(options.camera_info)
        if link is None:
            return options
        return replace(options, camera_info=link.topic, intrinsics=self._newest.get(options.camera_info))

    def close(self) -> None:
        """Stops receiving, and forgets all."""
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._newest.clear()
