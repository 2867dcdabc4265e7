"""How often to tick, and to encode what says little, where there is too little time for all: by plan, not by chance."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping

from omnibind_core.runtime.engine import REFRESH, Selection

LEAST = 0.1
"""Smallest share of the asked ticks that is planned."""

_WINDOW = 2.0  # s between two looks at least
_TICKS = 8  # that a look is made of at least
_FEWEST, _FAR = 3, 4  # and where more than four times as many come as are computed
_FULL = 1.0  # ticks that take more of the time than this cannot be kept up
_AIM = 0.8  # share of the time that planned ticks take: the rest is for ticks that take longer
_SPARE = 0.7  # ticks that take less of the time than this may come more often
_RISE = 2.0  # by which they do at once at most
_FEW = 0.5  # of the asked ticks: if fewer would be left, sensors that say little are spared
_LEFT = 0.5  # of the cost of the last look: if less is left, sensors have gone

_log = logging.getLogger(__name__)


class LoadPlan:
    """Lowers the rate of ticks when they take more time than there is, and raises it again when there is.

    Without it ticks are skipped where a computation happens to be under way, and what is computed is as old as the
    computation before took. Every two seconds or eight ticks (three, where it is far too much), whatever is longer, it
    looks what ticks took, the longest left out, and how often they came: if that is more than all time, so many are
    left out that it is 80 % of it; if it is less than 70 %, they come more often again, up to every one that is asked
    for. Where sensors leave that took half of the time or more, it does not wait for the next look.

    If less than half of the ticks would be left, sensors that say little are spared: they are encoded at every fourth
    tick only, until all ticks are back and would be without that, too.

    It looks at no clock. Thread-safe, as ticks begin on one thread and end on another.

    Attributes:
        share: Of the ticks that are asked for, 0.1..1: those that are planned.
        asked: Ticks per second that were asked for at the last look; 0 before.
        took: Mean s that a tick took then.
        spared: Sensors to be encoded at every fourth tick only.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self.spared: tuple[str, ...] = ()
        self.asked = self.took = 0.0
        self._costs: Mapping[str, float] = {}
        self._expected = 0.0  # s that all sensors are to take from then on
        self._credit = 0.0
        self._lock = threading.Lock()
        self._start: float | None = None
        self._begun = 0  # since the tick that the look began with
        self._offered = 0.0
        self._busy: list[float] = []

    def admits(self, selection: Selection) -> bool:
        """Whether a tick is planned. Those of the rate are: it is the rate that is lowered."""
        self._offered += 1 / self.share if selection.by_rate else 1
        if selection.by_rate:
            return True
        self._credit += self.share
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def begun(self, now: float) -> None:
        """A planned tick has begun, or waits for the one before.

        Args:
            now: The time, s, of a clock that only goes forward.
        """
        with self._lock:
            self._begun += 1
            if self._start is None:
                self._start, self._begun, self._offered = now, 0, 0.0

    def finished(self, took: float) -> None:
        """A tick was computed, which took so many s."""
        with self._lock:
            self._busy.append(took)

    def look(self, now: float, costs: Mapping[str, float], minor: Collection[str] = ()) -> bool:
        """Changes the plan if that is due.

        Args:
            now: The time, s.
            costs: Mean s of a tick that each sensor takes.
            minor: Sensors that say little.

        Returns:
            Whether :attr:`share` or :attr:`spared` has changed.
        """
        with self._lock:
            cost = sum(costs.values())
            if self.share < 1 and cost < _LEFT * self._expected:
                self.share = min(1.0, self.share * self._expected / max(cost, 1e-9))
                self._costs, self._expected, self._start = dict(costs), cost, None
                self._busy.clear()
                return True
            ticks = _FEWEST if self._begun > _FAR * len(self._busy) else _TICKS
            if self._start is None or now - self._start < _WINDOW or len(self._busy) < ticks:
                return False
            seconds, busy, got = now - self._start, sorted(self._busy)[:-1], len(self._busy)
            self._start = None
            self._busy.clear()
        before, spared = self.share, self.spared
        self._expected = sum(costs.values())
        self.took, self.asked, self._costs = sum(busy) / len(busy), self._offered / seconds, costs
        load = self.took * self._begun / seconds
        if load > _FULL and before * _AIM / load < _FEW:
            self.spared = tuple(name for name in costs if name in minor or name in spared)
            saved = sum(costs[name] for name in self.spared if name not in spared) * (1 - 1 / REFRESH)
            self._expected -= saved
            self.share = min(1.0, max(LEAST, before * _AIM / (load * max(1 - saved / self.took, _AIM / REFRESH))))
        elif load > _FULL:
            self.share = max(LEAST, before * _AIM / load)
        elif before < 1 and load < _SPARE:
            self.share = min(1.0, before * min(_AIM / max(load, 1e-9), _RISE))
        elif before == 1 and spared:
            held = (name for name in spared if name in minor)  # who says more is encoded at every tick already
            whole = self.took + sum(costs.get(name, 0.0) for name in held) * (REFRESH - 1)
            self.spared = spared if whole * self._begun / seconds > _SPARE else ()
        self._tell(before, spared, got / seconds)
        return (self.share, self.spared) != (before, spared)

    def _tell(self, share: float, spared: Collection[str], got: float) -> None:
        """Logs that the plan has begun or ended, or that it spares other sensors than before."""
        whole = share == 1 and not spared
        if self.words and (whole or self.spared != spared):
            _log.warning("%s; got %.1f a second", self.words, got)
        elif not (whole or self.words):
            _log.info("all of %.1f ticks a second again: one takes %.3f s", self.asked, self.took)

    def asks(self, factor: float) -> None:
        """So many times as many ticks are asked for from now on; those that are planned stay as many."""
        self.share = min(1.0, max(LEAST, self.share / factor))

    @property
    def words(self) -> str:
        """The plan in words; empty if all ticks are planned."""
        if self.share == 1 and not self.spared:
            return ""
        dear = sorted(self._costs.items(), key=lambda pair: -pair[1])
        parts = ", ".join(f"{name} {cost:.3f} s" for name, cost in dear)
        planned = f"too slow for {self.asked:.1f} ticks a second, {self.asked * self.share:.1f} are planned"
        spared = f"; {', '.join(self.spared)} encoded at every {REFRESH}th" if self.spared else ""
        return f"{planned}; one takes {self.took:.3f} s" + (f" ({parts})" if parts else "") + spared
