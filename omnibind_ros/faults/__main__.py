"""``make soak``: the fusion node under random faults. Prints a report; exit status 1 if a promise was broken."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from omnibind_core.errors import OmniBindError
from omnibind_ros.faults import vitals
from omnibind_ros.faults.fleet import Fleet
from omnibind_ros.faults.hostile import LABELS, PARAMETERS, TARGETS
from omnibind_ros.faults.observer import Observer
from omnibind_ros.faults.publisher import FAULTS, STREAMS
from omnibind_ros.faults.trial import SLACK, NodeProcess, longest_gap
from omnibind_ros.faults.vitals import is_flat

_TIMEOUT, _RATE = 0.6, 5.0
_SPARED = 20.0  # s for which one sensor is left in peace, then another
_VOCABULARY = 6  # of these times from one change of the vocabulary to the next
_SETTLE = 5.0  # s for which every sensor is heard in each QoS at the start: subscriptions are kept
_PATIENCE = 60.0  # s that the first vocabulary is waited for
_GRAPH = 5.0  # s between looks at the graph
_LINE = 30.0  # s between lines


@dataclass
class Report:
    """What came of the time.

    Attributes:
        minutes: How long it took.
        seed: Made the faults.
        predictions: Number of predictions.
        combinations: Sets of sensors that they were made of.
        longest_gap: s without a prediction.
        longest_gap_while_sent: s without the times in which no driver had got a message out for its timeout.
        overruns: Ticks that were skipped because the one before was still computed.
        exceptions: Tracebacks in the node's output, and ticks that failed.
        longest_gap_of_vocabularies: The same, while a vocabulary was embedded.
        vocabularies: Vocabularies of 1500 labels that answered.
        vitals: Of the node, after the warm-up and at the end: see :mod:`omnibind_ros.faults.vitals`.
        peak: The most memory that it had, MiB.
        load: Mean number of processes that wanted a core of the machine, and its cores.
        kills: Publishers killed.
        faults: Publishers started, by what was wrong with them.
        hostile: Hostile messages that were sent to a subscription, by sensor, and requests.
        blows: The same, by what they were.
        rejected: Messages that the node refused, by sensor.
        complaints: Promises that were broken, in words.
    """

    minutes: float
    seed: int
    predictions: int = 0
    combinations: int = 0
    longest_gap: float = 0.0
    longest_gap_while_sent: float = 0.0
    overruns: int = 0
    exceptions: int = 0
    longest_gap_of_vocabularies: float = 0.0
    vocabularies: int = 0
    vitals: dict[str, tuple[float, float]] = field(default_factory=dict)
    peak: float = 0.0
    load: tuple[float, int] = (0.0, 0)
    kills: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    hostile: dict[str, int] = field(default_factory=dict)
    blows: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Fills the complaints."""
        asked = any("labels" in blow for blow in self.blows)
        checks = {
            f"{self.exceptions} exceptions": self.exceptions > 0,
            **{
                f"{name} grew from {first:.1f} to {last:.1f}": not is_flat(name, first, last)
                for name, (first, last) in self.vitals.items()
            },
            "no vocabulary that was asked for has answered": asked and not self.vocabularies,
            "nothing hostile was refused": bool(self.blows) and not any(self.rejected.values()),
            f"no prediction for {self.longest_gap_while_sent:.2f} s while drivers sent": self.longest_gap_while_sent
            > 1 / _RATE + _TIMEOUT + 2 * SLACK,
            "no prediction at all": self.predictions == 0,
        }
        self.complaints += [sentence for sentence, broken in checks.items() if broken]


def soak(minutes: float, seed: int, model: str, out: Path) -> Report:
    """Runs the node and torments it.

    Args:
        minutes: How long.
        seed: Makes the faults.
        model: Shipped model, or folder.
        out: Folder for the node's output.

    Raises:
        OmniBindError: The node does not start.
    """
    out.mkdir(parents=True, exist_ok=True)
    domain = random.SystemRandom().randint(1, 230)
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    parameters = {
        "model": model,
        "rate": _RATE,
        "sensors": list(TARGETS),
        **{name: {"timeout": _TIMEOUT} for name in STREAMS},
        **PARAMETERS,
    }
    node = NodeProcess(out, parameters, environment)
    observer = Observer(domain)
    fleet = Fleet(environment)
    try:
        try:
            observer.wait(lambda: observer.status is not None and observer.status.ticks > 0, "the node", 120)
        except TimeoutError as error:
            raise OmniBindError(f"{error}; its output: {node.log[-1000:]}") from error
        return _Torment(Report(minutes, seed), node, observer, fleet, out).run()
    finally:
        fleet.close()
        observer.close()
        node.close()


class _Torment:
    """One run.

    Args:
        report: To be filled.
        node: The node.
        observer: Listens to it.
        fleet: Runs the publishers.
        out: Folder for what was hostile and for the samples.
    """

    def __init__(self, report: Report, node: NodeProcess, observer: Observer, fleet: Fleet, out: Path) -> None:
        self._report, self._node, self._observer, self._fleet = report, node, observer, fleet
        self._rng = random.Random(report.seed)
        self._told, self._out = out / "hostile.txt", out
        self._told.unlink(missing_ok=True)
        self._spared = next(iter(STREAMS))
        self._turns = 0
        self._faults: Counter[str] = Counter()
        self._samples: list[dict[str, float]] = []
        self._embedding: list[list[int]] = []  # ns from and to which vocabularies were embedded
        self._begin = 0.0
        self._new = False  # whether the new vocabulary answers

    def run(self) -> Report:
        """Torments the node for as long as it takes. Returns the report."""
        report, node, observer, fleet, rng = self._report, self._node, self._observer, self._fleet, self._rng
        fleet.start(self._spared)
        observer.wait_for(self._spared)
        begin_ns, first = time.time_ns(), len(observer.predictions)
        self._settle()
        begin = self._begin = time.monotonic()
        end, change, line, graph = begin + 60 * report.minutes, begin + _SPARED, begin, begin
        while (now := time.monotonic()) < end and node.alive:
            if now >= change:
                change = now + _SPARED
                self._spare()
            sensor = rng.choice([sensor for sensor in STREAMS if sensor != self._spared])
            if sensor in fleet.running:
                fleet.kill(sensor)
                report.kills += 1
            else:
                # Not another type: a middleware keeps the first one that it met as long as a process lives.
                fault = rng.choice(["none"] * 5 + sorted(set(FAULTS) - {"none", "type"}))
                fleet.start(sensor, fault=fault, qos=rng.choice(["best_effort", "reliable", "latched"]))
                self._faults[fault] += 1
            graph = self._sample(now, graph)
            if now >= line and self._samples:
                line = now + _LINE
                print(
                    f"{(now - begin) / 60:5.1f} min  {len(observer.predictions) - first:6d} predictions  "
                    f"{self._samples[-1]['memory']:7.1f} MiB  {observer.status.message}",
                    flush=True,
                )
            time.sleep(rng.uniform(0.2, 1.0))
        return self._finish(begin_ns, first)

    def _settle(self) -> None:
        """Has every sensor heard in each QoS, and a vocabulary embedded: what is made for them stays."""
        others = [sensor for sensor in STREAMS if sensor != self._spared]
        for qos in ("best_effort", "reliable", "latched"):
            for sensor in others:
                self._fleet.start(sensor, qos=qos)
            time.sleep(_SETTLE)
            for sensor in others:
                self._fleet.kill(sensor)
        self._attack()
        with contextlib.suppress(TimeoutError):  # on a busy machine it takes longer, and memory settles later
            self._observer.wait(self._look, "a vocabulary", _PATIENCE)

    def _spare(self) -> None:
        """Leaves another sensor in peace; it first has to be there and well."""
        self._fleet.kill("hostile")
        spared = self._rng.choice([sensor for sensor in STREAMS if sensor != self._spared])
        if spared in self._fleet.running:
            self._fleet.kill(spared)
        self._fleet.start(spared)
        self._observer.wait(lambda: spared in self._observer.predictions[-1].sensors, f"{spared} in a prediction")
        self._spared = spared
        self._turns += 1
        self._attack()

    def _attack(self) -> None:
        """Starts who is hostile; now and then it asks for other labels, or for the model's own again."""
        status, labels = self._observer.status, -1
        if self._turns % _VOCABULARY == 0 and "embedding a vocabulary" not in status.message:
            labels = 0 if len(status.labels) == LABELS else LABELS
        self._fleet.start(
            "hostile",
            hostile=True,
            targets=[target for target in TARGETS if target != self._spared],
            model=status.model,
            labels=labels,
            seed=self._rng.randrange(1 << 30),
            told=str(self._told),
        )

    def _sample(self, now: float, graph: float) -> float:
        """Takes a sample; with the graph where it is time for that. Returns when that is next."""
        with contextlib.suppress(OSError):
            sample = vitals.of_process(self._node.pid)
            if now >= graph:
                graph = now + _GRAPH
                sample |= vitals.of_graph(self._observer.node, "fusion_node")
            self._samples.append({**sample, "load": os.getloadavg()[0], "s": time.monotonic() - self._begin})
        self._look()
        return graph

    def _look(self) -> bool:
        """Notes what the status says of the vocabulary. Returns whether the new one answers."""
        status, now_ns = self._observer.status, time.time_ns()
        if "embedding a vocabulary" in status.message:
            if not self._embedding or self._embedding[-1][1]:
                self._embedding.append([now_ns, 0])
        elif self._embedding and not self._embedding[-1][1]:
            self._embedding[-1][1] = now_ns
        new = len(status.labels) == LABELS
        self._report.vocabularies += new and not self._new
        self._new = new
        return new

    def _finish(self, begin_ns: int, first: int) -> Report:
        report, node, observer, samples = self._report, self._node, self._observer, self._samples
        seen = observer.predictions[first:]
        report.predictions = len(seen)
        report.combinations = len({prediction.sensors for prediction in seen})
        end_ns = time.time_ns()  # a tick is told by the stamp of a message, which the hostile ones may leave at zero
        told = sorted(prediction.tick_ns for prediction in seen if begin_ns < prediction.tick_ns < end_ns)
        ticks = [begin_ns, *told, end_ns]
        report.longest_gap, report.longest_gap_while_sent = longest_gap(ticks, self._fleet, _TIMEOUT)
        for begin, end in self._embedding:
            inside = [begin, *(tick for tick in ticks if begin < tick < (end or ticks[-1])), end or ticks[-1]]
            gap = longest_gap(inside, self._fleet, _TIMEOUT)[1]
            report.longest_gap_of_vocabularies = max(report.longest_gap_of_vocabularies, gap)
        report.overruns = observer.status.overruns
        inference = observer.diagnostic("fusion_node: inference")
        failed = {value.key: value.value for value in inference.values}.get("errors", "0") if inference else "0"
        report.exceptions = node.exceptions + int(failed)
        names = {name: None for sample in samples for name in sample if name not in ("peak", "load", "s")}
        report.vitals = {name: vitals.trend(samples, name) for name in names}
        report.peak = samples[-1]["peak"] if samples else 0.0
        report.load = round(sum(sample["load"] for sample in samples) / max(len(samples), 1), 2), os.cpu_count() or 0
        (self._out / "samples.json").write_text(json.dumps(samples))
        report.faults = dict(self._faults)
        lines = self._told.read_text(encoding="utf-8").splitlines() if self._told.exists() else []
        report.blows = dict(sorted(Counter(lines).items()))
        report.hostile = dict(sorted(Counter(line.partition(":")[0] for line in lines).items()))
        report.rejected = {row.name: row.rejected for row in observer.status.sensors}
        if not node.alive:
            report.complaints.append(f"the node ended: {node.log[-500:]}")
        report.judge()
        return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="omnibind_ros.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="makes the faults (default: %(default)s)")
    parser.add_argument("--model", default="lite", help="shipped model or folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="for report.json and the node's output")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = soak(options.minutes, options.seed, options.model, options.out)
    except KeyboardInterrupt:
        return 130
    except (OmniBindError, TimeoutError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    (options.out / "report.json").write_text(json.dumps(asdict(report), indent=2))
    for name, value in asdict(report).items():
        if name != "blows":  # they are in report.json
            print(f"{name:28} {value}")
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
