"""Live predictions of a fusion node that hears a played bag, beside those of the replay of the same bag."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core.runtime.types import Prediction, SensorConfig
from omnibind_ros.messages import prediction_of, tick_of
from omnibind_ros.replay.engine import Replay, load_model
from omnibind_ros.replay.setup import Setup

NODE = "fusion_node"


@dataclass(frozen=True)
class Heard:
    """One live prediction.

    Attributes:
        tick_ns: Time of its tick, worked out from its header and ages; ``None`` if its header has no stamp.
        label: Most probable label, also below the threshold.
        unknown: Whether it is below.
        confidence: Its probability.
        sensors: Sensors that took part.
        latency: s from the tick to publication, by the node's own measure.
    """

    tick_ns: int | None
    label: str
    unknown: bool
    confidence: float
    sensors: tuple[str, ...]
    latency: float


@dataclass
class Listener:
    """Subscribes to the predictions and the status of a fusion node.

    Attributes:
        heard: All predictions, in order.
        first: The first status; ``None`` before.
        last: The newest status.
    """

    heard: list[Heard] = field(default_factory=list)
    first: Any = None
    last: Any = None

    def subscribe(self, node: Any, sensors: Mapping[str, SensorConfig], trigger: str) -> None:
        """Begins to listen.

        Args:
            node: Where the subscriptions live.
            sensors: Of the node that is listened to.
            trigger: Its trigger sensor; ``""``: the rate.
        """
        from omnibind_ros.graph.topics import LATCHED
        from omnibind_ros.msg import FusionStatus
        from omnibind_ros.msg import Prediction as Message

        def on_prediction(message: Any) -> None:
            self.heard.append(heard(message, sensors, trigger))

        def on_status(message: Any) -> None:
            self.first = message if self.first is None else self.first
            self.last = message

        node.create_subscription(Message, "omnibind/prediction", on_prediction, 100)
        node.create_subscription(FusionStatus, f"{NODE}/status", on_status, LATCHED)


def heard(message: Any, sensors: Mapping[str, SensorConfig], trigger: str) -> Heard:
    """What a ``Prediction`` message of a node with these sensors and that trigger says."""
    said = prediction_of(message)
    counted = {name: c.time_offset if c.stamp == "header" else None for name, c in sensors.items()}
    return Heard(
        tick_ns=tick_of(message, trigger, counted),
        label=said.labels[0] if said.labels else said.label,
        unknown=said.unknown,
        confidence=said.confidence,
        sensors=tuple(share.name for share in said.sensors),
        latency=message.latency,
    )


@dataclass(frozen=True)
class Pair:
    """One tick, live and replayed.

    Attributes:
        tick_ns: Time of the replayed tick.
        live: The live prediction; ``None`` if there is none of this tick.
        replayed: The replayed one; ``None`` if nothing was perceived.
    """

    tick_ns: int
    live: Heard | None
    replayed: Prediction | None

    @property
    def agrees(self) -> bool:
        """Whether both say the same: label, and whether it is unknown."""
        if self.live is None or self.replayed is None:
            return False
        return (self.live.label, self.live.unknown) == (self.replayed.labels[0], self.replayed.unknown)


@dataclass(frozen=True)
class Comparison:
    """Live beside replayed.

    Attributes:
        pairs: Every tick of the replay within the time that was played.
        extra: Live predictions of no tick of the replay.
        unstamped: Live predictions whose header has no stamp, which cannot be compared.
        phase_s: s by which the node's ticks lie behind the multiples of its period.
        start_ns: Beginning of the bag, ns.
    """

    pairs: tuple[Pair, ...]
    extra: int
    unstamped: int
    phase_s: float
    start_ns: int

    def summary(self) -> dict[str, Any]:
        """Figures: of the ticks with both predictions the share that agrees, and what is missing."""
        both = [pair for pair in self.pairs if pair.live is not None and pair.replayed is not None]
        latencies = [pair.live.latency for pair in self.pairs if pair.live is not None]
        gaps = [abs(p.live.confidence - p.replayed.confidence) for p in both if p.live and p.replayed and p.agrees]
        same_sensors = sum(
            set(p.live.sensors) == {share.name for share in p.replayed.sensors} for p in both if p.live and p.replayed
        )
        return {
            "ticks_replayed": sum(pair.replayed is not None for pair in self.pairs),
            "ticks_live": sum(pair.live is not None for pair in self.pairs) + self.extra,
            "compared": len(both),
            "agree": sum(pair.agrees for pair in both),
            "agreement": round(sum(pair.agrees for pair in both) / len(both), 4) if both else None,
            "same_sensors": round(same_sensors / len(both), 4) if both else None,
            "confidence_difference_max": round(max(gaps), 4) if gaps else None,
            "missing_live": sum(pair.live is None and pair.replayed is not None for pair in self.pairs),
            "only_live": sum(pair.live is not None and pair.replayed is None for pair in self.pairs) + self.extra,
            "unstamped": self.unstamped,
            "phase_s": round(self.phase_s, 4),
            **{f"latency_{name}_s": _percentile(latencies, share) for name, share in _PERCENTILES.items()},
            "disagreements": [self._told(pair) for pair in both if not pair.agrees],
        }

    def _told(self, pair: Pair) -> dict[str, Any]:
        assert pair.live is not None
        assert pair.replayed is not None
        return {
            "time_s": round((pair.tick_ns - self.start_ns) / 1e9, 3),
            "live": {"label": pair.live.label, "unknown": pair.live.unknown, "sensors": list(pair.live.sensors)},
            "replayed": {
                "label": pair.replayed.labels[0],
                "unknown": pair.replayed.unknown,
                "sensors": [share.name for share in pair.replayed.sensors],
            },
        }


_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


def _percentile(values: Sequence[float], share: float) -> float | None:
    return round(float(np.percentile(values, share)), 4) if values else None


def phase_of(ticks: Sequence[int], period_ns: int) -> int:
    """How far ticks lie behind the multiples of their period, ns; 0 if that is less than a tenth of it.

    A tick may be late by its waiting and by the steps of the clock, but never early: so the phase is where the ticks
    begin, behind the widest part of the period in which there are none.
    """
    rest = sorted(tick % period_ns for tick in ticks)
    if not rest:
        return 0
    gaps = [(after - before, after) for before, after in zip([rest[-1] - period_ns, *rest], rest, strict=False)]
    phase = max(gaps)[1]
    return 0 if min(phase, period_ns - phase) < period_ns // 10 else phase


def compare(
    path: Path,
    setup: Setup,
    live: Sequence[Heard],
    source: str | Path | None = None,
    start_s: float = 0.0,
    progress: Callable[[float], None] = lambda s: None,
) -> Comparison:
    """Replays the bag with the phase of the live ticks, and puts both side by side, tick by tick.

    Args:
        path: The bag.
        setup: Its sensors and the node's parameters.
        live: What the node said.
        source: Name or folder of the model; ``None`` takes the parameters' one.
        start_s: s from the beginning of the bag at which playing began.
        progress: Called with the s of the bag that have been replayed.
    """
    period_ns = round(1e9 / setup.parameters["rate"])
    by_rate = setup.parameters["trigger"] == "rate"
    stamped = [one for one in live if one.tick_ns is not None]
    phase_ns = phase_of([one.tick_ns for one in stamped if one.tick_ns is not None], period_ns) if by_rate else 0
    model = load_model(setup, source)
    replay = Replay(path, setup, model, phase_ns=phase_ns, identity=model.identity)
    steps = [(step.selection.now_ns, step.prediction) for step in replay.steps(progress) if step.time_s >= start_s]
    times = [now_ns for now_ns, _ in steps]
    nearest: dict[int, Heard] = {}
    extra = 0
    for one in stamped:
        place = _nearest(times, one.tick_ns or 0, period_ns // 2)
        if place is None or place in nearest:
            extra += 1
        else:
            nearest[place] = one
    pairs = tuple(Pair(now, nearest.get(place), said) for place, (now, said) in enumerate(steps))
    return Comparison(pairs, extra, len(live) - len(stamped), phase_ns / 1e9, replay.start_ns)


def _nearest(times: Sequence[int], time_ns: int, most_ns: int) -> int | None:
    """Place of the nearest time, if it is no further away than that."""
    place = bisect_left(times, time_ns)
    near = [one for one in (place - 1, place) if 0 <= one < len(times) and abs(times[one] - time_ns) <= most_ns]
    return min(near, key=lambda one: abs(times[one] - time_ns), default=None)


def drops(listener: Listener, published: Mapping[str, int], setup: Setup) -> dict[str, Any]:
    """What was lost on the way: ticks that the node skipped, and messages that it did not receive, by sensor."""
    if listener.last is None:
        return {"overruns": None, "lost": {}}
    before = {one.name: one.received for one in listener.first.sensors}
    lost = {
        one.name: published[setup.topics[one.name]] - (one.received - before.get(one.name, 0))
        for one in listener.last.sensors
        if one.name in setup.topics and setup.topics[one.name] in published
    }
    return {"overruns": int(listener.last.overruns - listener.first.overruns), "lost": lost}
