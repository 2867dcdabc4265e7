"""One sensor: a bounded buffer of its newest items, and the state machine that says whether it takes part.

Nothing here is thread-safe; the engine holds its lock around every call. All decisions fall when time is looked at
(:meth:`Sensor.update`, :meth:`Sensor.select`), never when a message arrives, so the order of arrival does not matter.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from omnibind_core.runtime.types import EngineSettings, SensorConfig, SensorReport, SensorState

SECOND = 1_000_000_000
"""Nanoseconds."""

_CLOCK_HINT = "check use_sim_time and clock synchronisation"
_RATE_MESSAGES = 16  # the rate is the mean over this many messages

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Item:
    """One message of a sensor.

    Attributes:
        stamp_ns: Its stamp, ``time_offset`` added.
        receive_ns: When it was received.
        payload: What was pushed; ``None`` once it is decoded.
        header: Its opaque header.
        raw: The decoded item, or ``None`` before and if it is unusable.
        decoded: Whether decoding was tried.
        picked: Whether a tick has used it.
    """

    stamp_ns: int
    receive_ns: int
    payload: Any = field(repr=False)
    header: Any = field(repr=False)
    raw: Any = field(default=None, repr=False)
    decoded: bool = False
    picked: bool = False

    @property
    def order(self) -> tuple[int, int]:
        """Sort key in the buffer."""
        return self.stamp_ns, self.receive_ns


@dataclass(frozen=True, eq=False)
class Pick:
    """What one sensor offers to one tick.

    Attributes:
        sensor: Its configuration.
        parts: The newest frame alone, or the parts of a stream that cover its window, oldest first.
        oldest_ns: What was stamped before that is too old for the tick.
    """

    sensor: SensorConfig
    parts: tuple[Item, ...]
    oldest_ns: int

    @property
    def newest(self) -> Item:
        """The newest part."""
        return self.parts[-1]


class Sensor:
    """Buffer and state of one sensor.

    Args:
        config: What is known of the sensor.
        settings: Settings of the whole runtime.
        is_stream: Whether its items are parts of a stream.
    """

    def __init__(self, config: SensorConfig, settings: EngineSettings, is_stream: bool) -> None:
        self.config = config
        self._settings = settings
        self._is_stream = is_stream
        self._enabled = config.enabled
        self._incompatible: str | None = None
        self._received = self._rejected = self._dropped = 0
        self._state = SensorState.WAITING if config.enabled else SensorState.DISABLED
        self._reason = ""
        self._forget()

    def _forget(self) -> None:
        """Starts over as a sensor that was never heard, counters kept."""
        self._items: deque[Item] = deque()
        self._receipts: deque[int] = deque(maxlen=_RATE_MESSAGES)
        self._last: Item | None = None  # the accepted item that was received last
        self._heard_ns: int | None = None  # the last message of any kind
        self._refused_untimed = False
        self._stale = False
        self._returned = 0  # accepted messages since it went stale
        self._accepted = self._refused = 0  # messages since the last update
        self._refused_row = 0
        self._unusable = 0  # items since the last judgement
        self._unusable_row = self._usable_row = 0
        self._out = False  # too many messages in a row were of no use
        self._last_rejection = ""
        self._late = ""

    # Messages ----------------------------------------------------------------------------------------------------

    def push(self, stamp_ns: int, receive_ns: int, payload: Any, header: Any) -> None:
        """Takes one message; only its stamp is checked."""
        if not self._enabled:
            self._received += 1
            return
        item = Item(stamp_ns + _ns(self.config.time_offset), receive_ns, payload, header)
        ahead = item.stamp_ns - receive_ns
        if ahead > _ns(self._settings.max_future):
            self.refuse(
                f"[{self.config.name}] got a stamp {ahead / SECOND:.3f} s ahead of the time of receipt, expected at "
                f"most {self._settings.max_future:.3f} s: {_CLOCK_HINT}",
                receive_ns,
            )
            return
        self._received += 1
        self._accepted += 1
        self._returned += self._stale
        self._receipts.append(receive_ns)
        self._hear(receive_ns)
        if self._last is None or receive_ns >= self._last.receive_ns:
            self._last = item
        self._insert(item)

    def refuse(self, reason: str, receive_ns: int | None = None) -> None:
        """Counts a message that cannot even be buffered (stamp, type)."""
        self._received += 1
        self._rejected += 1
        if not self._enabled:
            return
        self._refused += 1
        self._last_rejection = reason
        if receive_ns is None:
            self._refused_untimed = True
        else:
            self._hear(receive_ns)
        _log.debug("%s", reason)

    def mark_unusable(self, reason: str) -> None:
        """Counts a buffered item that proved unusable when it was decoded or encoded."""
        self._rejected += 1
        self._unusable += 1
        self._last_rejection = reason
        _log.debug("%s", reason)

    def judge(self, usable: bool) -> None:
        """Draws the conclusion after new items were tried.

        Args:
            usable: Whether the newest of them could be encoded.
        """
        if usable:
            self._unusable_row = 0
            self._usable_row += 1
            self._out = self._out and self._usable_row < self.config.readmit_after
        elif self._unusable:
            self._unusable_row += self._unusable
            self._usable_row = 0
            self._out = self._out or self._unusable_row >= self._settings.reject_after
        self._unusable = 0

    def _hear(self, receive_ns: int) -> None:
        self._heard_ns = receive_ns if self._heard_ns is None else max(self._heard_ns, receive_ns)

    def _insert(self, item: Item) -> None:
        items, index = self._items, len(self._items)
        while index and items[index - 1].order > item.order:  # messages come nearly in order
            index -= 1
        items.insert(index, item)
        if not self._is_stream:
            if len(items) > self._settings.max_frames:
                self._drop_oldest()
            return
        # A part ends where the next begins, so of those before the window only the last can reach into it.
        start = items[-1].stamp_ns - _ns(self.config.window)
        while len(items) > self._settings.max_parts or (len(items) > 1 and items[1].stamp_ns <= start):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._dropped += not self._items.popleft().picked

    # Decisions ---------------------------------------------------------------------------------------------------

    @property
    def takes_part(self) -> bool:
        """Whether its items are fused now."""
        return self._enabled and self._last is not None and not self._stale and not self._out

    def select(self, now_ns: int) -> Pick | None:
        """Picks the newest item for a tick and updates the state.

        A rejected sensor's items are picked too: that is how it is found to be usable again.
        """
        self._advance(now_ns)
        pick = None
        if self._enabled and self._last is not None and not self._stale:
            pick = self._pick(now_ns)
            self._late = "" if pick else self._explain_late(now_ns)
        self._transition(*self._evaluate(now_ns))
        return pick

    def update(self, now_ns: int) -> None:
        """Updates the state."""
        self._advance(now_ns)
        self._transition(*self._evaluate(now_ns))

    def report(self, now_ns: int) -> SensorReport:
        """Its state now."""
        self.update(now_ns)
        age = math.nan if self._last is None else (now_ns - self._last.receive_ns) / SECOND
        return SensorReport(
            self.config.name,
            self.config.modality,
            self._state,
            self._reason,
            age,
            self._rate(),
            self._received,
            self._rejected,
            self._dropped,
        )

    def set_enabled(self, enabled: bool) -> None:
        """Lets the sensor take part or not; what it had is forgotten."""
        if enabled == self._enabled:
            return
        self._enabled = enabled
        self._forget()
        self._transition(*self._evaluate(0))

    def set_incompatible(self, reason: str | None) -> None:
        """Notes that a publisher cannot be heard because of its QoS, or that this is over."""
        self._incompatible = reason

    def clear(self) -> None:
        """Empties the buffer after time went backwards; counters are kept."""
        self._forget()
        self._transition(*self._evaluate(0))

    def _advance(self, now_ns: int) -> None:
        """Hysteresis: what the messages since the last look at the time mean."""
        if self._refused_untimed:
            self._hear(now_ns)
        # Any accepted message between two looks ends a row of refused ones, whatever their order.
        self._refused_row = 0 if self._accepted else self._refused_row + self._refused
        self._refused_untimed, self._accepted, self._refused = False, 0, 0
        if self._refused_row >= self._settings.reject_after:
            self._out, self._usable_row = True, 0
        if self._last is None:
            return
        if now_ns - self._last.receive_ns > _ns(self.config.timeout):
            self._stale, self._returned = True, 0
            while self._items:  # a dead sensor holds no memory
                self._drop_oldest()
        elif self._stale and self._returned >= self.config.readmit_after:
            self._stale = False

    def _pick(self, now_ns: int) -> Pick | None:
        items = self._items
        last = len(items) - 1
        while last >= 0 and items[last].stamp_ns > now_ns + _ns(self._settings.max_future):
            last -= 1
        oldest_ns = now_ns - self._max_age_ns
        fresh = last >= 0 and items[last].stamp_ns >= oldest_ns
        if not fresh or not self._is_stream:  # later ticks will want nothing older than this one does
            for _ in range(last + (not fresh)):
                self._drop_oldest()
        if not fresh:
            return None
        parts = tuple(islice(items, last + 1)) if self._is_stream else (items[0],)
        for part in parts:
            part.picked = True
        return Pick(self.config, parts, oldest_ns)

    @property
    def _max_age_ns(self) -> int:
        # A part of a stream is stamped when it begins: it may be a window long and have arrived a timeout ago.
        return _ns(self.config.window + (self.config.timeout if self._is_stream else 0.0))

    def _evaluate(self, now_ns: int) -> tuple[SensorState, str]:
        """State and reason, from what is known."""
        timeout = self.config.timeout
        if not self._enabled:
            return SensorState.DISABLED, "switched off"
        if self._heard_ns is None:
            if self._incompatible:
                return SensorState.INCOMPATIBLE_QOS, self._incompatible
            return SensorState.WAITING, "no message yet"
        silence = now_ns - self._heard_ns
        if silence > _ns(timeout):
            if self._incompatible:
                return SensorState.INCOMPATIBLE_QOS, self._incompatible
            return SensorState.STALE, f"silent for {silence / SECOND:.1f} s, timeout {timeout:.1f} s"
        if self._out or (self._stale and not self._returned):
            return SensorState.REJECTED, self._last_rejection
        if self._stale:
            return SensorState.STALE, f"back with {self._returned} of {self.config.readmit_after} good messages"
        if self._last is None:
            return SensorState.WAITING, f"no usable message yet: {self._last_rejection}"
        if self._late:
            return SensorState.LATE, self._late
        age = (now_ns - self._last.stamp_ns) / SECOND
        reason = f"newest item {age:.2f} s old, limit {self._max_age_ns / SECOND:.2f} s"
        if self._last_rejection:
            reason += f"; {self._rejected} messages rejected, the last: {self._last_rejection}"
        return SensorState.ACTIVE, reason

    def _explain_late(self, now_ns: int) -> str:
        if self._last is None:
            return ""
        limit = self._max_age_ns
        age, lag = now_ns - self._last.stamp_ns, self._last.receive_ns - self._last.stamp_ns
        reason = f"newest item {age / SECOND:.2f} s old by its stamp, limit {limit / SECOND:.2f} s"
        if lag > limit:
            reason += f"; it was stamped {lag / SECOND:.2f} s before it was received: {_CLOCK_HINT}"
        return reason

    def _transition(self, state: SensorState, reason: str) -> None:
        if state != self._state:
            calm = state in (SensorState.ACTIVE, SensorState.DISABLED, SensorState.WAITING)
            _log.log(
                logging.INFO if calm else logging.WARNING,
                "[%s] %s -> %s: %s",
                self.config.name,
                self._state.name,
                state.name,
                reason,
            )
        self._state, self._reason = state, reason

    def _rate(self) -> float:
        """Accepted messages in Hz, NaN if fewer than two were received at different times."""
        span = max(self._receipts) - min(self._receipts) if self._receipts else 0
        return (len(self._receipts) - 1) * SECOND / span if span > 0 else math.nan


def _ns(seconds: float) -> int:
    return round(seconds * SECOND)
