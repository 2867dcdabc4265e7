"""Messages and the time in, selections out: what the nodes, the replay and the tools drive, each by its own clock."""

from __future__ import annotations

import logging
from typing import Any

from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.sensor import SECOND
from omnibind_core.runtime.trigger import TickSource
from omnibind_core.runtime.types import SensorConfig

_log = logging.getLogger(__name__)


class PerceptionStream:
    """An engine and what says when it ticks, driven as one.

    If time goes backwards by more than the engine's ``max_future`` from one call to the next, both are cleared. For one
    thread; it looks at no clock.

    Args:
        engine: The engine; :meth:`PerceptionEngine.compute` makes predictions of the selections.
        trigger: What says when to tick.
    """

    def __init__(self, engine: PerceptionEngine, trigger: TickSource) -> None:
        self.engine = engine
        self._trigger = trigger
        self._now_ns: int | None = None

    def on_message(
        self, sensor: str, stamp_ns: int, receive_ns: int, payload: Any, header: Any = None, size: int = 0
    ) -> None:
        """A message was received; see :meth:`PerceptionEngine.push`.

        Raises:
            ConfigError: No such sensor.
        """
        self._look(receive_ns)
        accepted_ns = self.engine.push(sensor, stamp_ns, receive_ns, payload, header, size)
        if accepted_ns is not None:
            self._trigger.heard(sensor, accepted_ns, receive_ns)

    def configure(self, config: SensorConfig) -> None:
        """Gives a sensor other settings; see :meth:`PerceptionEngine.configure`.

        Raises:
            ConfigError: No such sensor.
        """
        if self.engine.configure(config):
            self._trigger.clear()  # stamps of a trigger sensor that go back are no references otherwise

    def on_rejected(self, sensor: str, reason: str, receive_ns: int) -> None:
        """A message was received that is none; see :meth:`PerceptionEngine.reject`.

        Raises:
            ConfigError: No such sensor.
        """
        self._look(receive_ns)
        self.engine.reject(sensor, reason, receive_ns)

    def on_timer(self, now_ns: int) -> None:
        """A period of the rate has passed."""
        self._look(now_ns)
        self._trigger.due(now_ns)

    def next(self, now_ns: int) -> Selection | None:
        """The selection of a tick that need not wait any longer; call it until there is none.

        Args:
            now_ns: The time.
        """
        self._look(now_ns)
        return self._trigger.poll(now_ns)

    @property
    def deadline_ns(self) -> int | None:
        """When the tick that waits will wait no longer; ``None`` if none waits."""
        return self._trigger.deadline_ns

    def clear(self) -> None:
        """Empties buffers and forgets what waits, because time went backwards; counters are kept."""
        self._now_ns = None
        self.engine.clear()
        self._trigger.clear()

    def _look(self, now_ns: int) -> None:
        if self._now_ns is not None and now_ns < self._now_ns - self.engine.settings.max_future * SECOND:
            _log.warning("time went back by %.3f s; buffers cleared", (self._now_ns - now_ns) / SECOND)
            self.clear()
        self._now_ns = now_ns
