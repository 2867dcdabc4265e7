#!/usr/bin/env python3
"""Predictions that one schedule of messages gives through ApproximateTimeSynchronizer and through our own alignment.

Prints the table of docs/synchronisation.md. Needs rclpy and message_filters; no message goes over DDS, and time is
simulated, so the numbers of predictions are the same on every machine.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from omnibind_core.errors import MissingDependencyError
from omnibind_core.optional import require
from omnibind_core.runtime import EngineSettings, PerceptionEngine, PerceptionStream, SensorConfig, Trigger
from omnibind_core.runtime.sensor import SECOND
from omnibind_ros.node.sync import ApproximateSync

LENGTH, RATE, SLOP, QUEUE = 60.0, 5.0, 0.1, 10
SENSORS = {  # modality, Hz, s from measurement to receipt
    "camera": ("image", 20.0, 0.03),
    "thermal": ("thermal", 9.0, 0.05),
    "event_camera": ("event", 20.0, 0.01),
    "tactile": ("touch", 20.0, 0.02),
    "lidar": ("point_cloud", 10.0, 0.1),
    "microphone": ("audio", 10.0, 0.02),
}
Dead = Callable[[str, float], bool]
SCHEDULES: dict[str, tuple[int, Dead]] = {  # loops, who is dead when
    "all six alive": (1, lambda sensor, at: False),
    "the LiDAR dies after 20 s": (1, lambda sensor, at: sensor == "lidar" and at > 20),
    "the LiDAR is away from 20 to 40 s": (1, lambda sensor, at: sensor == "lidar" and 20 < at < 40),
    "one after the other away for 5 s": (
        1,
        lambda s, at: 10 + 8 * list(SENSORS).index(s) < at < 15 + 8 * list(SENSORS).index(s),
    ),
    "camera and microphone only": (1, lambda sensor, at: sensor not in ("camera", "microphone")),
    "a bag of 30 s, played twice": (2, lambda sensor, at: at > 30),
}


@dataclass
class Outcome:
    """What one method made of one schedule: moments of its predictions, and the time that it took, s."""

    moments: list[float] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def longest_gap(self) -> float:
        """Longest time without a prediction, s."""
        ends = [0.0, *self.moments, LENGTH]
        return max(b - a for a, b in itertools.pairwise(ends))


def messages(dead: Dead, loops: int) -> Iterator[tuple[float, float, str, float]]:
    """``(wall time, time, sensor, stamp)``, s, in the order of receipt."""
    length = LENGTH / loops
    for loop in range(loops):
        rng = random.Random(0)
        rows = []
        for sensor, (_, rate, latency) in SENSORS.items():
            for index in range(round(length * rate)):
                stamp = (index + rng.uniform(-0.1, 0.1)) / rate + 0.1
                receipt = stamp + latency * rng.uniform(0.8, 1.4)
                if not dead(sensor, stamp):
                    rows.append((loop * length + receipt, receipt, sensor, stamp))
        yield from sorted(rows)


def engine(trigger: str = "") -> PerceptionEngine:
    """An engine that only selects."""
    configs = [SensorConfig(name, modality) for name, (modality, _, _) in SENSORS.items()]
    settings = EngineSettings(trigger=trigger, max_wait=0.05)
    return PerceptionEngine(SimpleNamespace(), configs, lambda name, payload: payload, settings)


def ours(rows: Iterable[tuple[float, float, str, float]], stream: PerceptionStream) -> Outcome:
    """Runs a stream, at a rate that begins anew when time does."""
    outcome, next_tick, before = Outcome(), 0.0, -math.inf
    for wall, now, sensor, stamp in rows:
        if now < before - 1:
            next_tick = 0.0
        before = now
        begin = time.perf_counter()
        while next_tick <= now:
            stream.on_timer(_ns(next_tick))
            _poll(stream, next_tick, wall - now + next_tick, outcome)
            next_tick += 1 / RATE
        deadline = stream.deadline_ns
        if deadline is not None and deadline <= _ns(now):
            _poll(stream, deadline / SECOND, wall - now + deadline / SECOND, outcome)
        stream.on_message(sensor, _ns(stamp), _ns(now), None)
        _poll(stream, now, wall, outcome)
        outcome.slowest = max(outcome.slowest, time.perf_counter() - begin)
    return outcome


def _poll(stream: PerceptionStream, now: float, wall: float, outcome: Outcome) -> None:
    while (selection := stream.next(_ns(now))) is not None:
        if selection.picks:
            outcome.moments.append(wall)


def plain(rows: Iterable[tuple[float, float, str, float]], filters: Any) -> Outcome:
    """Runs one ``ApproximateTimeSynchronizer`` over all six topics, as its documentation shows."""
    from builtin_interfaces.msg import Time

    outcome, wall_now = Outcome(), [0.0]
    inputs = {name: filters.SimpleFilter() for name in SENSORS}
    synchroniser = filters.ApproximateTimeSynchronizer(list(inputs.values()), QUEUE, SLOP)
    synchroniser.registerCallback(lambda *_: outcome.moments.append(wall_now[0]))
    for wall, _, sensor, stamp in rows:
        wall_now[0] = wall
        seconds, nanoseconds = divmod(_ns(stamp), SECOND)
        header = SimpleNamespace(stamp=Time(sec=seconds, nanosec=nanoseconds))
        begin = time.perf_counter()
        inputs[sensor].signalMessage(SimpleNamespace(header=header))
        outcome.slowest = max(outcome.slowest, time.perf_counter() - begin)
    return outcome


def _ns(seconds: float) -> int:
    return round(seconds * SECOND)


def table() -> Iterator[str]:
    """Rows of the table.

    Raises:
        MissingDependencyError: message_filters is not installed.
    """
    filters = require("message_filters", "The comparison")
    ways = ("ApproximateTimeSynchronizer", "`sync: approximate`", "adaptive, 5 Hz", "adaptive, `trigger: camera`")
    yield f"| schedule | {' | '.join(ways)} |"
    yield "|---|---|---|---|---|"
    slowest = [0.0] * 4
    for name, (loops, dead) in SCHEDULES.items():
        outcomes = [plain(messages(dead, loops), filters)]
        core = engine()
        outcomes.append(ours(messages(dead, loops), PerceptionStream(core, ApproximateSync(core, SLOP))))
        for trigger in ("", "camera"):
            core = engine(trigger)
            outcomes.append(ours(messages(dead, loops), PerceptionStream(core, Trigger(core))))
        slowest = [max(pair) for pair in zip(slowest, (outcome.slowest for outcome in outcomes), strict=True)]
        cells = (f"{len(outcome.moments)}, gap {outcome.longest_gap:.1f} s" for outcome in outcomes)
        yield f"| {name} | {' | '.join(cells)} |"
    yield f"| slowest single message | {' | '.join(f'{1000 * seconds:.1f} ms' for seconds in slowest)} |"


def main() -> int:
    """Prints the table."""
    try:
        print("\n".join(table()))
    except MissingDependencyError as error:
        print(f"compare_sync: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
