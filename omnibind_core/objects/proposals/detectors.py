"""What detectors outside have found, until a tick takes it."""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Callable, Sequence

from omnibind_core.geometry.frames import SECOND
from omnibind_core.objects.regions import Region2D, Region3D

_MOST = 64  # detectors, by picture


class Inbox:
    """The newest regions of every detector in every sensor. Thread-safe, and bounded.

    Args:
        most: Regions of one detector that are kept, the surest.
        count: Called with what happened, and how often.
        reject: Called with who proposed a region and why it cannot be used.
    """

    def __init__(self, most: int, count: Callable[[str, int], None], reject: Callable[[str, str], None]) -> None:
        self._most = most
        self._count = count
        self._reject = reject
        self._lock = threading.Lock()
        self._newest: dict[tuple[str, str], list[Region2D | Region3D]] = {}

    def put(self, regions: Sequence[Region2D | Region3D]) -> None:
        """Takes in regions: of each detector and sensor those of the newest stamp, in the place of what there was."""
        found: dict[tuple[str, str], list[Region2D | Region3D]] = {}
        for region in regions:
            if math.isfinite(region.score):
                found.setdefault((region.proposer, region.sensor), []).append(region)
            else:
                self._reject(region.proposer, f"[{region.proposer}] a score of {region.score}, expected 0 to 1")
        dropped = 0
        with self._lock:
            for key, news in found.items():
                stamp_ns = max(region.stamp_ns for region in news)
                olds = self._newest.get(key, [])
                if olds and olds[0].stamp_ns > stamp_ns:
                    dropped += len(news)
                    continue
                news = [region for region in news if region.stamp_ns == stamp_ns]
                if key in self._newest or len(self._newest) < _MOST:
                    self._newest[key] = heapq.nlargest(self._most, news, key=lambda region: region.score)
                    dropped += len(news) - len(self._newest[key])
                else:
                    dropped += len(news)
        if dropped:
            self._count("dropped", dropped)

    def take(self, now_ns: int, age: float) -> list[Region2D | Region3D]:
        """All of them, but those that are so many s older or newer than the tick."""
        with self._lock:
            newest, self._newest = self._newest, {}
        found = []
        for (proposer, sensor), regions in newest.items():
            old = (now_ns - regions[0].stamp_ns) / SECOND
            if abs(old) <= age:
                found += regions
            else:
                of = f" in {sensor}" if sensor else ""
                what = f"regions{of} stamped {abs(old):.2f} s {'before' if old > 0 else 'after'} the tick"
                self._reject(proposer, f"[{proposer}] {what}, expected at most {age:g} s: two clocks?")
        return found

    def clear(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._newest = {}
