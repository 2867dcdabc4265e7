"""Playing a bag over DDS, with ``/clock``: messages as they are, at the times of the bag. Needs ROS, but no torch.

One process plays all topics, since there is one ``/clock``. The demo's players (:mod:`omnibind_ros.demo.player`) are
one process per sensor without it: they move the stamps to the present instead, and skip what is past.
"""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omnibind_core.errors import DataError
from omnibind_ros.bags import read
from omnibind_ros.graph.topics import message_class

_CLOCK_PERIOD = 0.01  # s between messages on /clock
_DEPTH = 100  # messages that may wait for a slow subscriber


class Player:
    """Publishes the topics of a bag, and its time on ``/clock``.

    All publishers are reliable, so that subscribers of either kind hear them; what was recorded as latched stays so.
    ``~/pause`` (``std_srvs/SetBool``) halts and goes on.

    Args:
        node: Where the publishers live; it must not use simulated time itself.
        path: Folder of the bag, or its only file.
        topics: Topics to play; empty plays all.
        rate: Seconds of the bag in a second.
        start: s from the beginning of the bag at which to begin.

    Attributes:
        node: As given.
        paused: Whether it is halted.
        published: Messages published so far, by topic.
        missing: Why topics cannot be played, by topic.

    Raises:
        DataError: There is no readable bag, it lacks a topic, or none can be played.
    """

    def __init__(
        self, node: Any, path: Path, topics: Sequence[str] = (), rate: float = 1.0, start: float = 0.0
    ) -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from rosgraph_msgs.msg import Clock
        from std_srvs.srv import SetBool

        self.node = node
        self.paused = False
        self.published: dict[str, int] = {}
        self.missing: dict[str, str] = {}
        self._path = path
        self._rate = rate
        types, latched, outdated = read.topics(path), read.latched(path), read.outdated(path)
        skipped = read.skipped(path)
        absent = [name for name in topics if name not in {*types, *skipped}]
        if absent:
            raise DataError(f"{path} has no topic {', '.join(absent)}; it has {', '.join(sorted(types))}")
        self._publishers: dict[str, Any] = {}
        for name in topics or sorted({*types, *skipped}):
            if name in skipped:
                self.missing[name] = skipped[name].reason
                continue
            if name in outdated:
                self.missing[name] = f"{types[name]} had other fields when it was recorded"
                continue
            durability = DurabilityPolicy.TRANSIENT_LOCAL if name in latched else DurabilityPolicy.VOLATILE
            try:
                type_class = message_class(types[name])
            except ImportError as error:
                self.missing[name] = str(error)
                continue
            self._publishers[name] = node.create_publisher(
                type_class, name, QoSProfile(depth=_DEPTH, durability=durability)
            )
            self.published[name] = 0
        if not self._publishers:
            raise DataError(f"{path}: no topic can be played: {'; '.join(self.missing.values()) or 'there is none'}")
        begin_ns, self._end_ns = read.span_ns(path)
        self._start_ns = begin_ns + round(start * 1e9)
        if self._start_ns > self._end_ns:
            length = (self._end_ns - begin_ns) / 1e9
            raise DataError(f"{path} is {length:.1f} s long, and playing should begin at {start:g} s")
        self._clock_type = Clock
        self._clock = node.create_publisher(Clock, "/clock", QoSProfile(depth=10))
        self._told_ns = -1
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        node.create_service(SetBool, "~/pause", self._on_pause)

    def _on_pause(self, request: Any, response: Any) -> Any:
        self.paused = request.data
        response.success = True
        return response

    def spin(self, seconds: float) -> None:
        """Handles services and subscriptions for a while."""
        end = time.monotonic() + seconds
        while True:
            self._executor.spin_once(timeout_sec=max(end - time.monotonic(), 0))
            if time.monotonic() >= end:
                return

    def wait(self, wanted: Callable[[], bool], patience: float) -> bool:
        """Waits until something is so. Returns whether it is, after ``patience`` s at the latest."""
        end = time.monotonic() + patience
        while not wanted() and time.monotonic() < end:
            self.spin(0.05)
        return wanted()

    def heard(self, topic: str) -> bool:
        """Whether somebody subscribes to a topic; ``/clock`` is one, too."""
        publisher = self._clock if topic == "/clock" else self._publishers.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def play(self, go_on: Callable[[], bool] = lambda: True, tell: Callable[[float], None] = lambda s: None) -> None:
        """Plays from the start to the end, once.

        Args:
            go_on: Asked again and again; playing ends when it is false.
            tell: Called with the s of the bag that have been played.
        """
        started, self._told_ns = time.monotonic(), -1
        for item in read.messages(self._path, list(self._publishers), self._start_ns):
            while True:
                if not go_on():
                    return
                if self.paused:
                    halted = time.monotonic()
                    while self.paused and go_on():
                        self.spin(0.05)
                    started += time.monotonic() - halted
                now_ns = self._start_ns + round((time.monotonic() - started) * self._rate * 1e9)
                ahead = (item.time_ns - now_ns) / 1e9 / self._rate
                if ahead <= 0:
                    break
                self._tell_time(now_ns)
                self.spin(min(ahead, _CLOCK_PERIOD))
            self._tell_time(item.time_ns)
            self._publishers[item.topic].publish(item.data)
            self.published[item.topic] += 1
            tell((item.time_ns - self._start_ns) / 1e9)

    def deliver(self, patience: float) -> None:
        """Waits until reliable subscribers have all that was published, ``patience`` s at most."""
        from rclpy.duration import Duration

        end = time.monotonic() + patience
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(end - time.monotonic(), 0)))

    def _tell_time(self, now_ns: int) -> None:
        if now_ns <= self._told_ns:
            return
        self._told_ns = now_ns
        message = self._clock_type()
        message.clock.sec, message.clock.nanosec = divmod(now_ns, 1_000_000_000)
        self._clock.publish(message)

    def close(self) -> None:
        """Ends the executor."""
        self._executor.shutdown()


@contextlib.contextmanager
def space_bar() -> Iterator[Callable[[], bool]]:
    """A function that says whether the space bar was pressed since it was asked last; never without a terminal."""
    if not sys.stdin.isatty():
        yield lambda: False
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)

    def pressed() -> bool:
        found = False
        while select.select([sys.stdin], [], [], 0)[0]:
            key = sys.stdin.read(1)
            if not key:
                break
            found ^= key == " "
        return found

    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
