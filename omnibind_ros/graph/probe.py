"""Looks at the first messages of topics, beside everything else that the node does."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from omnibind_ros.graph.judging import Look, Offer, look_of
from omnibind_ros.graph.topics import SubscriptionPool, TopicLink

_PATIENCE = 2.0  # s that a look takes at most
_POLL_PERIOD = 0.1  # s between looks at the graph
_ENOUGH = 3  # messages of a topic, for its rate
_AGAIN = 5.0  # s after which a topic that was silent is looked at again
_AT_ONCE = 8  # topics: more would be more data than the node itself takes


class Prober:
    """Looks at topics in a thread of its own, by a node that is there for one look only.

    No executor spins any more when its subscriptions are destroyed, and what is found to be no sensor's costs nothing
    from then on, which a muted subscription of the node itself would.

    Args:
        node: The node that it looks for.

    Attributes:
        silent: Topics that said nothing when they were looked at last, and what is known of that.
    """

    def __init__(self, node: Node) -> None:
        self.silent: dict[str, str] = {}
        self._node = node
        self._looks: dict[tuple[str, str], Look] = {}
        self._tried: dict[str, float] = {}  # when the look at a topic ended, s
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether it looks at something now."""
        return self._thread is not None and self._thread.is_alive()

    def seen(self, topic: str, ros_type: str) -> Look | None:
        """What a topic's messages say; ``None`` if they have not been seen."""
        return self._looks.get((topic, ros_type))

    def forget(self, live: Iterable[str]) -> None:
        """Forgets all topics but these: another publisher may send something else."""
        kept = set(live)
        for key in [key for key in tuple(self._looks) if key[0] not in kept]:
            del self._looks[key]
        for topic in self._tried.keys() - kept:
            del self._tried[topic]
            self.silent.pop(topic, None)

    def look(self, offers: Iterable[Offer]) -> None:
        """Looks at topics, the first ones first, unless it is busy. It returns at once."""
        now = time.monotonic()
        due = [offer for offer in offers if now - self._tried.get(offer.topic, -math.inf) > _AGAIN][:_AT_ONCE]
        if due and not self.busy and not self._closing.is_set():
            self._tried.update(dict.fromkeys((offer.topic for offer in due), now))
            self._thread = threading.Thread(target=self._run, args=(due,), name="probe", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends a look that goes on."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _run(self, offers: Sequence[Offer]) -> None:
        try:
            self._listen(offers)
        except Exception:
            if self._node.context.ok():  # otherwise the process ends, whatever the middleware says about that
                raise

    def _listen(self, offers: Sequence[Offer]) -> None:
        context = self._node.context
        probe = rclpy.create_node(
            f"_{self._node.get_name()}_probe",
            context=context,
            namespace=self._node.get_namespace(),
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(probe)
        heard: dict[str, list[tuple[float, str, Any]]] = {offer.topic: [] for offer in offers}
        try:
            pool = SubscriptionPool(probe)
            links = {
                offer.topic: TopicLink(
                    probe, pool, offer.topic, offer.types[:1], "auto", 1, partial(_keep, heard[offer.topic])
                )
                for offer in offers
            }
            now = due = time.monotonic()
            end = now + _PATIENCE
            while links and now < end and not self._closing.is_set():
                for topic in [topic for topic in links if len(heard[topic]) >= _ENOUGH]:
                    link = links.pop(topic)
                    self._conclude(link, heard[topic])
                    link.close()
                for link in links.values() if now >= due else ():
                    link.poll()
                    due = now + _POLL_PERIOD
                executor.spin_once(timeout_sec=0.05)
                now = time.monotonic()
            for topic, link in links.items():
                self._conclude(link, heard[topic])
        finally:
            executor.shutdown()
            if context.ok():
                probe.destroy_node()

    def _conclude(self, link: TopicLink, rows: list[tuple[float, str, Any]]) -> None:
        topic = link.topic
        self._tried[topic] = time.monotonic()
        if not rows:
            lost = "its messages were lost on their way; docs/transport.md" if link.lost else link.note
            self.silent[topic] = link.obstacle[1] if link.obstacle is not None else lost
            return
        (begin, ros_type, message), (end, *_) = rows[0], rows[-1]
        rate = (len(rows) - 1) / (end - begin) if end > begin else math.nan
        self._looks[topic, ros_type] = look_of(ros_type, message, rate)
        self.silent.pop(topic, None)


def _keep(rows: list[tuple[float, str, Any]], ros_type: str, message: Any) -> None:
    """Notes when a message came; the first one is kept."""
    rows.append((time.monotonic(), ros_type, message if not rows else None))
