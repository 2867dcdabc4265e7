"""The timers that drive a node's stream, and the thread that works on what it selects."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node

from omnibind_core.runtime.engine import Selection
from omnibind_core.runtime.load import LoadPlan
from omnibind_core.runtime.stream import PerceptionStream
from omnibind_core.runtime.worker import LatestWorker


class Tick(NamedTuple):
    """One tick on its way through the worker: what was selected, and when (monotonic, s)."""

    selection: Selection
    started: float


class TickLoop:
    """Ticks of a stream while there is one. All but ``compute`` and ``publish`` runs on the executor's thread.

    Args:
        node: The node.
        rate: Hz.
        on_selection: Called at every tick.
        compute: Works on a selection, on the worker's thread.
        publish: Publishes what ``compute`` returned, on the worker's thread.
        costs: Gives the mean s of a tick that is spent on something else than a sensor, by name.

    Attributes:
        stream: The stream; ``None`` while nothing ticks.
        ticks: Number of ticks since the start.
        load: How many of the ticks that are asked for are planned.
    """

    def __init__(
        self,
        node: Node,
        rate: float,
        on_selection: Callable[[Selection], None],
        compute: Callable[[Selection], Any],
        publish: Callable[[Tick, Any], None],
        costs: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.stream: PerceptionStream | None = None
        self.ticks = 0
        self.load = LoadPlan()
        self._rate = rate
        self._node = node
        self._on_selection = on_selection
        self._compute = compute
        self._publish = publish
        self._costs = costs
        self._worker: LatestWorker[Tick, tuple[Tick, Any]] | None = None
        self._work_began = self._ended = 0.0
        self._rate_timer = node.create_timer(1.0 / rate, self._period)
        self._rate_timer.cancel()
        self._wait_timer = node.create_timer(1.0, self._end_of_wait)
        self._wait_timer.cancel()
        self._waits = False
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jumps = node.get_clock().create_jump_callback(backward, post_callback=self._on_time_jump)

    def start(self, stream: PerceptionStream) -> None:
        """Ticks from now on, counters at zero."""
        self.ticks = 0
        self.load = LoadPlan()
        self.stream = stream
        self._worker = LatestWorker(self._work, self._done)
        self._set_period()
        self._rate_timer.reset()

    def stop(self, patience: float | None = None) -> None:
        """Lets the running computation finish, for ``patience`` s at most, and lets the stream go."""
        self._rate_timer.cancel()
        self._end_wait()
        if self._worker is not None:
            self._worker.close(patience)
        self._worker = self.stream = None

    def set_rate(self, rate: float) -> None:
        """Changes the rate, Hz."""
        self.load.asks(rate / self._rate)
        self._rate = rate
        self._set_period()

    def _set_period(self) -> None:
        self._rate_timer.timer_period_ns = round(1e9 / (self._rate * self.load.share))

    def advance(self, now_ns: int | None = None) -> None:
        """Does the ticks that need not wait any longer, and sets the timer for one that must.

        Args:
            now_ns: The time, if it was just looked at: this is called for every message.
        """
        if self.stream is None or self._worker is None:
            return
        now_ns = self._now_ns if now_ns is None else now_ns
        while (selection := self.stream.next(now_ns)) is not None:
            if not self.load.admits(selection):
                continue
            self.ticks += 1
            self._on_selection(selection)
            now = time.monotonic()
            self._worker.submit(Tick(selection, now))
            self.load.begun(now)
            engine = self.stream.engine
            if self.load.look(now, {**engine.costs, **self._costs()}, engine.minor):
                self._set_period()
                engine.spare(self.load.spared)
        deadline = self.stream.deadline_ns
        if deadline is None:
            self._end_wait()
        elif not self._waits:
            self._waits = True
            self._wait_timer.timer_period_ns = max(deadline - self._now_ns, 1_000_000)
            self._wait_timer.reset()

    def idle(self, timeout: float) -> bool:
        """Waits on any thread until no tick is being computed.

        Args:
            timeout: s to wait at most.

        Returns:
            Whether that is so.
        """
        worker = self._worker
        return worker is None or worker.wait(timeout)

    @property
    def overruns(self) -> int:
        """Ticks since the start that were skipped because the one before was still being computed."""
        return self._worker.overruns if self._worker is not None else 0

    @property
    def errors(self) -> int:
        """Ticks since the start that ended in an unexpected error."""
        return self._worker.errors if self._worker is not None else 0

    @property
    def failure(self) -> str:
        """What the last of these errors was; empty if there was none."""
        return self._worker.failure if self._worker is not None else ""

    @property
    def _now_ns(self) -> int:
        now: int = self._node.get_clock().now().nanoseconds
        return now

    def _period(self) -> None:
        if self.stream is not None:
            self.stream.on_timer(self._now_ns)
            self.advance()

    def _end_of_wait(self) -> None:
        self._end_wait()
        self.advance()

    def _end_wait(self) -> None:
        if self._waits:
            self._waits = False
            self._wait_timer.cancel()

    def _on_time_jump(self, jump: Any) -> None:
        """Clears for any step back of simulated time, however small, and for another clock: rclpy tells of both."""
        if self.stream is not None:
            self._node.get_logger().warning("time went backwards or the clock was changed: buffers cleared")
            self.stream.clear()

    def _work(self, tick: Tick) -> tuple[Tick, Any]:
        now = self._work_began = time.monotonic()
        stream, selection = self.stream, tick.selection
        if stream is not None and tick.started < self._ended:  # it has waited, and the sensors have gone on
            selection = stream.engine.renewed(selection, self._now_ns)
        return (tick if selection is tick.selection else Tick(selection, now)), self._compute(selection)

    def _done(self, result: tuple[Tick, Any]) -> None:
        if self._node.context.ok():
            self._publish(*result)
        self._ended = time.monotonic()
        self.load.finished(self._ended - self._work_began)
