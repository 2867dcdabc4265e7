"""One sensor: a bounded buffer of its newest items, and the state machine that says whether it takes part.

Nothing here is thread-safe; the engine holds its lock around every call. All decisions fall when time is looked at
(:meth:`Sensor.update`, :meth:`Sensor.select`), never when a message arrives, so the order of arrival does not matter.
"""

from __future__ import annotations

import functools
import logging
import math
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from omnibind_core.modalities import Doubt
from omnibind_core.runtime.types import EngineSettings, SensorConfig, SensorReport, SensorState

SECOND = 1_000_000_000
"""Nanoseconds."""

_CLOCK_HINT = "check use_sim_time and clock synchronisation"
_RATE_MESSAGES = 16  # the rate is the mean over this many messages
_AHEAD = 0.05  # s; stamps further ahead of their receipt are pointed out: no network delivers before it was sent
_PERCEPTIONS = 100  # predictions that a familiarity is averaged over, more than one thing takes
_TRIGGER_LAG = 0.5  # s of a stream kept beyond its window, because a trigger's item lies in the past

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Item:
    """One message of a sensor.

    Attributes:
        stamp_ns: Its stamp, or the time of its receipt (``stamp: receive``), ``time_offset`` added.
        receive_ns: When it was received.
        payload: What was pushed; ``None`` once it is decoded.
        header: Its opaque header.
        raw: The decoded item, or ``None`` before and if it is unusable.
        decoded: Whether decoding was tried.
        picked: Whether a tick has used it.
        doubt: What its decoder says against it.
        size: Bytes that it takes.
    """

    stamp_ns: int
    receive_ns: int
    payload: Any = field(repr=False)
    header: Any = field(repr=False)
    raw: Any = field(default=None, repr=False)
    decoded: bool = False
    picked: bool = False
    doubt: Doubt | None = None
    size: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """Sort key in the buffer."""
        return self.stamp_ns, self.receive_ns


@dataclass(frozen=True, eq=False)
class Pick:
    """What one sensor offers to one tick.

    Attributes:
        sensor: Its configuration.
        parts: One frame alone, or the parts of a stream that cover its window, oldest first.
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
        self._obstacle: tuple[SensorState, str] | None = None
        self._note = ""
        self._received = self._rejected = self._dropped = 0
        self._state = SensorState.WAITING if config.enabled else SensorState.DISABLED
        self._reason = ""
        self._forget()

    def _forget(self) -> None:
        """Starts over as a sensor that was never heard, counters kept."""
        self._items: deque[Item] = deque()
        self._bytes = 0  # that they take
        self._receipts: list[int] = []  # of the last accepted messages, in order
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
        self._doubt: Doubt | None = None  # what speaks against the newest reading
        self._doubt_told = False
        self._plausible_row = 0  # readings
        self.familiarity = math.nan  # mean of the last predictions
        self._perceptions = 0
        self._floor: tuple[int, int] | None = None  # order of the frame that was picked last

    # Messages ----------------------------------------------------------------------------------------------------

    def push(self, stamp_ns: int, receive_ns: int, payload: Any, header: Any, size: int = 0) -> Item | None:
        """Takes one message; only its stamp is checked. Returns the item, ``None`` if it was refused."""
        if not self._enabled:
            self._received += 1
            return None
        measured_ns = receive_ns if self.config.stamp == "receive" else stamp_ns
        item = Item(measured_ns + _ns(self.config.time_offset), receive_ns, payload, header, size=size)
        ahead = item.stamp_ns - receive_ns
        if ahead > _ns(self._settings.max_future):
            self.refuse(
                f"[{self.config.name}] got a stamp {ahead / SECOND:.3f} s ahead of the time of receipt, expected at "
                f"most {self._settings.max_future:.3f} s: {self._remedy}",
                receive_ns,
            )
            return None
        self._received += 1
        self._accepted += 1
        if self._stale and not self._returned:
            self._receipts.clear()  # the rate is that of now, without the gap
        self._returned += self._stale
        insort(self._receipts, receive_ns)
        del self._receipts[:-_RATE_MESSAGES]
        self._hear(receive_ns)
        if self._last is None or (receive_ns, item.stamp_ns) >= (self._last.receive_ns, self._last.stamp_ns):
            self._last = item
        self._insert(item)
        return item

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

    def judge(self, usable: bool, doubt: Doubt | None = None) -> None:
        """Draws the conclusion after new items were tried.

        A doubt is logged once, and again after as many readings without one as reject a sensor.

        Args:
            usable: Whether the newest of them could be encoded.
            doubt: What speaks against it; ``None`` if nothing does.
        """
        self._doubt = doubt
        self._plausible_row = 0 if doubt else self._plausible_row + usable
        self._doubt_told = self._doubt_told and self._plausible_row < self._settings.reject_after
        if doubt and not self._doubt_told:
            self._doubt_told = True
            _log.log(logging.INFO if doubt.empty else logging.WARNING, "[%s] %s", self.config.name, doubt)
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
        if self._floor is not None and item.order < self._floor:
            self._dropped += 1  # a tick has used a newer frame: there is no way back
            return
        items, index = self._items, len(self._items)
        while index and items[index - 1].order > item.order:  # messages come nearly in order
            index -= 1
        items.insert(index, item)
        self._bytes += item.size
        while self._bytes > self._settings.max_bytes and len(items) > 1:
            self._drop_oldest()
        if not self._is_stream:
            if len(items) > self._settings.max_frames:
                self._drop_oldest()
            return
        # A part ends where the next begins, so of those before the window only the last can reach into it.
        lag = _TRIGGER_LAG if self._settings.trigger else 0.0
        start = items[-1].stamp_ns - _ns(self.config.window + lag)
        while len(items) > self._settings.max_parts or (len(items) > 1 and items[1].stamp_ns <= start):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        item = self._items.popleft()
        self._bytes -= item.size
        self._dropped += not item.picked

    # Decisions ---------------------------------------------------------------------------------------------------

    @property
    def takes_part(self) -> bool:
        """Whether its items are fused now."""
        return self._enabled and self._last is not None and not self._stale and not self._out

    def select(self, now_ns: int, reference_ns: int | None = None) -> Pick | None:
        """Picks for a tick what is nearest to the reference, or the newest without one, and updates the state.

        A rejected sensor's items are picked too: that is how it is found to be usable again.
        """
        self._advance(now_ns)
        pick = None
        if self._enabled and self._last is not None and not self._stale:
            pick = self._pick(now_ns, reference_ns)
            self._late = "" if pick else self._explain_late(now_ns, reference_ns)
        self._transition(*self._evaluate(now_ns))
        return pick

    def awaited(self, reference_ns: int, deadline_ns: int, now_ns: int) -> bool:
        """Whether it has measured something by the reference that should arrive by the deadline, but has not yet.

        Only a sensor whose rhythm is known is waited for, and none whose items lie outside its window anyway.
        """
        self._advance(now_ns)
        period = self._period
        if not self.takes_part or self._late or self._last is None or math.isnan(period):
            return False
        step = _ns(period)
        return self._last.stamp_ns + step <= reference_ns and self._last.receive_ns + step <= deadline_ns

    def leads(self, now_ns: int) -> bool:
        """Whether its items can be the reference of ticks: it is alive, and its stamps are of now."""
        self._advance(now_ns)
        last = self._last
        return self.takes_part and last is not None and now_ns - last.stamp_ns <= self._max_age_ns

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
            1 / self._period,
            self._received,
            self._rejected,
            self._dropped,
            self.familiarity,
            self._doubt if self._state == SensorState.ACTIVE else None,
        )

    def perceived(self, familiarity: float) -> None:
        """Notes how familiar what it offered to a prediction was; NaN if that is not known."""
        if math.isnan(familiarity):
            return
        self._perceptions = min(self._perceptions + 1, _PERCEPTIONS)
        before = 0.0 if self._perceptions == 1 else self.familiarity
        self.familiarity = before + (familiarity - before) / self._perceptions

    def configure(self, config: SensorConfig) -> bool:
        """Takes other settings. Returns whether they are of another time, so that what it had was forgotten."""
        before, self.config = self.config, config
        retimed = (before.stamp, before.time_offset) != (config.stamp, config.time_offset)
        if retimed:
            self.clear()
        self.set_enabled(config.enabled)
        return retimed

    def set_enabled(self, enabled: bool) -> None:
        """Lets the sensor take part or not; what it had is forgotten."""
        if enabled == self._enabled:
            return
        self._enabled = enabled
        self._forget()
        self._transition(*self._evaluate(0))

    def set_obstacle(self, obstacle: tuple[SensorState, str] | None) -> None:
        """Notes the state and the reason of a sensor whose publisher cannot be heard, or that this is over."""
        self._obstacle = obstacle

    def set_note(self, note: str) -> None:
        """Adds something to the reason while the sensor is silent."""
        self._note = f"; {note}" if note else ""

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
        if self._heard_ns is not None and now_ns - self._heard_ns > _ns(self.config.timeout):
            self._out = False  # what it was rejected for is past; when it returns it is judged anew
            self._refused_row = self._unusable_row = 0
            self._last_rejection = ""
        if self._last is None:
            return
        if now_ns - self._last.receive_ns > _ns(self.config.timeout):
            self._stale, self._returned = True, 0
            while self._items:  # a dead sensor holds no memory
                self._drop_oldest()
            self._last = Item(self._last.stamp_ns, self._last.receive_ns, None, None, decoded=True)
        elif self._stale and self._returned >= self.config.readmit_after:
            self._stale = False

    def _pick(self, now_ns: int, reference_ns: int | None) -> Pick | None:
        items, stream = self._items, self._is_stream
        target_ns = now_ns if reference_ns is None else reference_ns
        latest_ns = now_ns + _ns(self._settings.max_future)
        if reference_ns is not None:  # of a stream what came after the reference is not of its moment
            latest_ns = min(latest_ns, target_ns + (0 if stream else _ns(self.config.window)))
        last = len(items) - 1
        while last >= 0 and items[last].stamp_ns > latest_ns:
            last -= 1
        if reference_ns is not None and not stream:
            while last > 0 and abs(items[last - 1].stamp_ns - target_ns) < abs(items[last].stamp_ns - target_ns):
                last -= 1
        oldest_ns = target_ns - self._max_age_ns
        fresh = last >= 0 and items[last].stamp_ns >= oldest_ns
        if not fresh or not stream:  # later ticks will want nothing older than this one does
            for _ in range(last + (not fresh)):
                self._drop_oldest()
        if not fresh:
            return None
        parts = tuple(islice(items, last + 1)) if stream else (items[0],)
        for part in parts:
            part.picked = True
        if not stream:
            self._floor = parts[0].order
        return Pick(self.config, parts, oldest_ns)

    @property
    def _remedy(self) -> str:
        """What may help against stamps that are out of range."""
        offer = f", or set {self.config.name}.stamp: receive" if self.config.stamp == "header" else ""
        return _CLOCK_HINT + offer

    @property
    def _max_age_ns(self) -> int:
        # A part of a stream is stamped when it begins: it may be a window long and have arrived a timeout ago.
        return _ns(self.config.window + (self.config.timeout if self._is_stream else 0.0))

    def _evaluate(self, now_ns: int) -> tuple[SensorState, str]:
        """State and reason, from what is known."""
        timeout = self.config.timeout
        if not self._enabled:
            return SensorState.DISABLED, "switched off"
        silence = math.inf if self._heard_ns is None else now_ns - self._heard_ns
        if silence > _ns(timeout):
            if self._obstacle is not None:
                return self._obstacle
            if self._heard_ns is None:
                return SensorState.WAITING, f"no message yet{self._note}"
            reason = f"silent for {silence / SECOND:.1f} s, timeout {timeout:.1f} s"
            if self._period > timeout:
                reason += f"; it used to come every {self._period:.1f} s: raise its timeout"
            return SensorState.STALE, reason + self._note
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
        ahead = (self._last.stamp_ns - self._last.receive_ns) / SECOND
        if ahead > _AHEAD:
            reason += f"; stamped {ahead:.2f} s ahead of the time of receipt: {_CLOCK_HINT}"
        if self._doubt:
            reason += f"; {self._doubt}"
        if self._last_rejection:
            reason += f"; {self._rejected} messages rejected, the last: {self._last_rejection}"
        return SensorState.ACTIVE, reason

    def _explain_late(self, now_ns: int, reference_ns: int | None) -> str:
        if self._last is None:
            return ""
        limit = self._max_age_ns
        if reference_ns is not None and now_ns - self._last.stamp_ns <= limit:
            away = (self._last.stamp_ns - reference_ns) / SECOND
            return f"newest item {away:+.2f} s from the trigger's, nothing of its moment"
        age, lag = now_ns - self._last.stamp_ns, self._last.receive_ns - self._last.stamp_ns
        reason = f"newest item {age / SECOND:.2f} s old by its stamp, limit {limit / SECOND:.2f} s"
        if lag > limit:
            reason += f"; it was stamped {lag / SECOND:.2f} s before it was received: {self._remedy}"
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

    @property
    def _period(self) -> float:
        """Mean s between accepted messages, NaN if fewer than two were received at different times."""
        receipts = self._receipts
        span = receipts[-1] - receipts[0] if receipts else 0
        return span / SECOND / (len(receipts) - 1) if span > 0 else math.nan


@functools.lru_cache(maxsize=1024)  # few settings, asked many times a tick
def _ns(seconds: float) -> int:
    return round(seconds * SECOND)
