"""When to tick: at a rate, or when one sensor speaks; and how long to wait for the others."""

from __future__ import annotations

from bisect import insort
from typing import Protocol

from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.sensor import SECOND

_MOST_WAITING = 8  # references of a trigger that may wait; then the oldest is decided at once


class TickSource(Protocol):
    """What says when to tick, and picks the items of a tick. For one thread; it looks at no clock."""

    @property
    def deadline_ns(self) -> int | None:
        """When the tick that waits will wait no longer; ``None`` if none waits."""

    def due(self, now_ns: int) -> None:
        """A period of the rate has passed."""

    def heard(self, sensor: str, stamp_ns: int, receive_ns: int) -> None:
        """A message was accepted.

        Args:
            sensor: Name of the sensor.
            stamp_ns: What :meth:`PerceptionEngine.push` returned.
            receive_ns: When it was received.
        """

    def poll(self, now_ns: int) -> Selection | None:
        """The selection of a tick that need not wait any longer; call it until there is none.

        Args:
            now_ns: The time.
        """

    def clear(self) -> None:
        """Forgets what waits, because time went backwards."""


class Trigger:
    """Ticks at a rate, or for each message of the trigger sensor while it is alive: a :class:`TickSource`.

    A tick waits for living sensors that have measured something by then which has not arrived yet, at most the
    engine's ``max_wait``. Ticks come in the order of time: a message of the trigger sensor that is stamped before one
    that was used already is no reference any more.

    Args:
        engine: The engine, whose settings name the trigger sensor and ``max_wait``.
    """

    def __init__(self, engine: PerceptionEngine) -> None:
        self._engine = engine
        self._sensor = engine.settings.trigger
        self._max_wait_ns = round(engine.settings.max_wait * SECOND)
        self.clear()

    def clear(self) -> None:
        """Forgets what waits, because time went backwards."""
        self._begun_ns: int | None = None  # when the tick of the rate that waits began
        self._references: list[tuple[int, int]] = []  # (stamp, receipt) of the trigger's messages, in order
        self._last_ns: int | None = None  # stamp of the last reference that was used

    def due(self, now_ns: int) -> None:
        """A period of the rate has passed. It counts unless the trigger sensor is alive."""
        if self._begun_ns is None and not self._leads(now_ns):
            self._begun_ns = now_ns

    def heard(self, sensor: str, stamp_ns: int, receive_ns: int) -> None:
        """A message was accepted; see :meth:`TickSource.heard`."""
        if sensor == self._sensor:
            insort(self._references, (stamp_ns, receive_ns))

    def poll(self, now_ns: int) -> Selection | None:
        """The selection of a tick that need not wait any longer; call it until there is none."""
        while self._references and self._last_ns is not None and self._references[0][0] <= self._last_ns:
            self._references.pop(0)
        if self._references and not self._leads(now_ns):
            self._references.clear()  # its stamps are of another time, or it was refused: the rate goes on
        if self._references:
            stamp_ns, begin_ns = self._references[0]
            if len(self._references) <= _MOST_WAITING and self._waits(stamp_ns, begin_ns, now_ns):
                return None
            self._references.pop(0)
            self._last_ns, self._begun_ns = stamp_ns, None
            return self._engine.select(now_ns, stamp_ns)
        if self._begun_ns is None or self._waits(self._begun_ns, self._begun_ns, now_ns):
            return None
        self._begun_ns = None
        return self._engine.select(now_ns)

    @property
    def deadline_ns(self) -> int | None:
        """When the tick that waits will wait no longer; ``None`` if none waits."""
        begins = [begin for _, begin in self._references[:1]]
        if self._begun_ns is not None:
            begins.append(self._begun_ns)
        return min(begins) + self._max_wait_ns if begins else None

    def _leads(self, now_ns: int) -> bool:
        return bool(self._sensor) and self._engine.leads(self._sensor, now_ns)

    def _waits(self, reference_ns: int, begin_ns: int, now_ns: int) -> bool:
        deadline_ns = begin_ns + self._max_wait_ns
        return begin_ns <= now_ns < deadline_ns and bool(self._engine.awaited(reference_ns, deadline_ns, now_ns))
