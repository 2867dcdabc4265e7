"""Recording of topics into a bag (MCAP), for machines without ``ros2 bag``. Needs ROS, but no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from omnibind_core import modalities
from omnibind_core.errors import DataError
from omnibind_ros.bags import types, write
from omnibind_ros.graph.discovery import Discovery, DiscoveryRules
from omnibind_ros.graph.judging import Offer, camera_info_topic
from omnibind_ros.graph.topics import SubscriptionPool, TopicLink
from omnibind_ros.node.parameters import DISCOVER_EXCLUDE

_POLL_PERIOD = 0.5  # s between looks at the graph, and at most before a message is out of this process's hands
_DEPTH = 100  # messages that may wait to be written
_MOST = 100  # topics found by themselves


class Recorder:
    """Writes messages as they come, in CDR, with the time of their receipt.

    Whatever ends the process, all but what came in its last second is in the bag, which anyone can read.

    Args:
        node: Where the subscriptions live.
        path: Folder of the bag; must not exist.
        topics: Topics to record as soon as they have publishers; empty: all that look like a sensor's.
        everything: Record all topics instead.
        split: Bytes after which a new file is begun; 0 never.

    Attributes:
        received: Messages written so far, by topic.
        refused: Why topics are not recorded, by topic.

    Raises:
        DataError: The bag exists.
    """

    def __init__(
        self, node: Any, path: Path, topics: Sequence[str] = (), everything: bool = False, split: int = 0
    ) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self.received: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._node = node
        self._topics = [node.resolve_topic_name(topic) for topic in topics]
        self._everything = everything
        self._writer = write.SplitBagWriter(path, split)
        self._links: dict[str, TopicLink] = {}
        self._pool = SubscriptionPool(node, raw=True)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)

    def run(self, go_on: Callable[[], bool], tell: Callable[[int], None] = lambda count: None) -> None:
        """Records until told to stop.

        Args:
            go_on: Asked again and again.
            tell: Called with the number of messages written.
        """
        with self._writer:
            due = time.monotonic()
            while go_on():
                if time.monotonic() >= due:
                    self._writer.flush()
                    self._look()
                    due = time.monotonic() + _POLL_PERIOD
                self._executor.spin_once(timeout_sec=0.05)
                tell(sum(self.received.values()))
            for link in self._links.values():
                link.close()
        self._executor.shutdown()

    @property
    def waiting(self) -> list[str]:
        """Topics asked for that nobody has published."""
        return [topic for topic in self._topics if topic not in self.received and topic not in self.refused]

    def _look(self) -> None:
        """Subscribes to new topics, and follows the QoS of known ones."""
        for topic, ros_type in self._wanted(dict(self._node.get_topic_names_and_types())).items():
            if topic in self._links or topic in self.refused:
                continue
            try:
                types.learn(ros_type)
            except DataError as error:
                self.refused[topic] = str(error)
                continue
            self._links[topic] = TopicLink(
                self._node, self._pool, topic, (ros_type,), "auto", _DEPTH, self._receiver(topic)
            )
        for topic, link in self._links.items():
            link.poll()
            if link.obstacle is not None:
                self.refused[topic] = link.obstacle[1]
            else:
                self.refused.pop(topic, None)

    def _wanted(self, graph: dict[str, Collection[str]]) -> dict[str, str]:
        single = {topic: next(iter(types)) for topic, types in graph.items() if len(types) == 1}
        if self._topics:
            return {topic: single[topic] for topic in self._topics if topic in single}
        if self._everything:
            return {topic: ros_type for topic, ros_type in single.items() if self._node.count_publishers(topic)}
        rules = DiscoveryRules((), _excluded(), _MOST)
        offers = [Offer(topic, (ros_type,)) for topic, ros_type in single.items()]
        found = {item.offer.topic for item in Discovery(rules).choose(offers, modalities.sensors(), ())}
        found |= {camera_info_topic(topic) for topic in found}  # a depth picture says nothing without it
        found |= _FRAMES
        return {topic: ros_type for topic, ros_type in single.items() if topic in found}

    def _receiver(self, topic: str) -> Callable[[str, Any], None]:
        def receive(ros_type: str, data: bytes) -> None:
            self._writer.write_raw(topic, ros_type, self._node.get_clock().now().nanoseconds, data)
            self.received[topic] = self.received.get(topic, 0) + 1

        return receive


_FRAMES = {"/tf", "/tf_static", "/robot_description"}  # where the sensors are


def _excluded() -> tuple[Any, ...]:
    import re

    return tuple(re.compile(text, re.IGNORECASE) for text in DISCOVER_EXCLUDE)
