"""``sync: approximate``: complete sets by ``message_filters``, for those who want its rules, and for comparison."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from omnibind_core.optional import require
from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.sensor import SECOND
from omnibind_core.runtime.types import SensorState

_QUEUE = 5  # messages per sensor; the search takes time in the power of the number of sensors


class ApproximateSync:
    """Ticks for each set that ``ApproximateTimeSynchronizer`` makes of the living sensors.

    It knows a fixed set of inputs only, and stops for ever when one dies: so it is made anew whenever a sensor comes or
    goes. A :class:`~omnibind_core.runtime.trigger.TickSource`; periods and ``max_wait`` do not count.

    Args:
        engine: The engine.
        slop: s between the first and the last message of a set.

    Raises:
        MissingDependencyError: message_filters is not installed.
    """

    deadline_ns: int | None = None

    def __init__(self, engine: PerceptionEngine, slop: float) -> None:
        self._filters = require("message_filters", "sync: approximate")
        self._engine = engine
        self._slop = slop
        self.clear()

    def clear(self) -> None:
        """Forgets what waits, because time went backwards."""
        self._inputs: dict[str, Any] = {}
        self._synchroniser: Any = None
        self._sets: list[dict[str, int]] = []

    @property
    def living(self) -> tuple[str, ...]:
        """The sensors of which sets are made."""
        return tuple(self._inputs)

    def due(self, now_ns: int) -> None:
        """A period has passed: looks who is alive."""
        usable = (SensorState.ACTIVE, SensorState.LATE)
        living = [report.name for report in self._engine.reports(now_ns) if report.state in usable]
        if living != list(self._inputs):
            self._rebuild(living)

    def heard(self, sensor: str, stamp_ns: int, receive_ns: int) -> None:
        """A message was accepted; see :meth:`omnibind_core.runtime.trigger.TickSource.heard`."""
        if sensor not in self._inputs:
            self.due(receive_ns)
        if sensor in self._inputs:
            from builtin_interfaces.msg import Time

            header = SimpleNamespace(stamp=Time(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND))
            self._inputs[sensor].signalMessage(SimpleNamespace(header=header, ns=stamp_ns))

    def poll(self, now_ns: int) -> Selection | None:
        """The selection of the next complete set; call it until there is none."""
        return self._engine.select_set(now_ns, self._sets.pop(0)) if self._sets else None

    def _rebuild(self, living: Sequence[str]) -> None:
        self._inputs = {name: self._filters.SimpleFilter() for name in living}
        if not living:
            return
        inputs = list(self._inputs.values())
        self._synchroniser = self._filters.ApproximateTimeSynchronizer(inputs, _QUEUE, self._slop)
        self._synchroniser.registerCallback(functools.partial(self._complete, tuple(living)))

    def _complete(self, names: Sequence[str], *messages: Any) -> None:
        self._sets.append({name: message.ns for name, message in zip(names, messages, strict=True)})
