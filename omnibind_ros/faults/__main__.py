"""``make soak``: the fusion node under random faults. Prints a report; exit status 1 if a promise was broken."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from omnibind_core.errors import OmniBindError
from omnibind_ros.faults.fleet import Fleet
from omnibind_ros.faults.observer import Observer
from omnibind_ros.faults.publisher import FAULTS, STREAMS
from omnibind_ros.faults.trial import SLACK, NodeProcess, longest_gap

_TIMEOUT, _RATE = 0.6, 5.0
_SPARED = 20.0  # s for which one sensor is left in peace, then another
_WARM_UP = 0.2  # share of the time after which memory should not grow any more
_MOST_GROWTH = 0.02
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
        memory: Resident memory of the node after the warm-up and at the end, MiB.
        growth: From the one to the other, a share.
        kills: Publishers killed.
        faults: Publishers started, by what was wrong with them.
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
    memory: tuple[float, float] = (0.0, 0.0)
    growth: float = 0.0
    kills: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Fills the complaints."""
        checks = {
            f"{self.exceptions} exceptions": self.exceptions > 0,
            f"memory grew by {100 * self.growth:.1f} %": self.growth > _MOST_GROWTH,
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
        "sensors": list(STREAMS),
        **{name: {"timeout": _TIMEOUT} for name in STREAMS},
    }
    node = NodeProcess(out, parameters, environment)
    observer = Observer(domain)
    fleet = Fleet(environment)
    try:
        try:
            observer.wait(lambda: observer.status is not None and observer.status.ticks > 0, "the node", 120)
        except TimeoutError as error:
            raise OmniBindError(f"{error}; its output: {node.log[-1000:]}") from error
        return _torment(Report(minutes, seed), node, observer, fleet)
    finally:
        fleet.close()
        observer.close()
        node.close()


def _torment(report: Report, node: NodeProcess, observer: Observer, fleet: Fleet) -> Report:
    rng, sensors = random.Random(report.seed), list(STREAMS)
    begin = time.monotonic()
    end = begin + 60 * report.minutes
    spared, change, line = sensors[0], begin + _SPARED, begin
    fleet.start(spared)
    observer.wait_for(spared)
    begin_ns, first = time.time_ns(), len(observer.predictions)
    faults: Counter[str] = Counter()
    memory: list[float] = []
    while (now := time.monotonic()) < end and node.alive:
        if now >= change:  # the new one first has to be there and well
            spared, change = rng.choice([sensor for sensor in sensors if sensor != spared]), now + _SPARED
            if spared in fleet.running:
                fleet.kill(spared)
            fleet.start(spared)
            _wait_for(observer, spared)
        sensor = rng.choice([sensor for sensor in sensors if sensor != spared])
        if sensor in fleet.running:
            fleet.kill(sensor)
            report.kills += 1
        else:
            # Not another type: a middleware keeps the first one that it met as long as a process lives.
            fault = rng.choice(["none"] * 5 + sorted(set(FAULTS) - {"none", "type"}))
            fleet.start(sensor, fault=fault, qos=rng.choice(["best_effort", "reliable", "latched"]))
            faults[fault] += 1
        memory.append(node.memory)
        if now >= line:
            line = now + _LINE
            print(
                f"{(now - begin) / 60:5.1f} min  {len(observer.predictions) - first:6d} predictions  "
                f"{memory[-1]:7.1f} MiB  {observer.status.message}",
                flush=True,
            )
        time.sleep(rng.uniform(0.2, 1.0))
    return _finish(report, node, observer, fleet, begin_ns, first, memory, faults)


def _wait_for(observer: Observer, sensor: str) -> None:
    observer.wait(lambda: sensor in observer.predictions[-1].sensors, f"{sensor} in a prediction")


def _finish(
    report: Report,
    node: NodeProcess,
    observer: Observer,
    fleet: Fleet,
    begin_ns: int,
    first: int,
    memory: Sequence[float],
    faults: Counter[str],
) -> Report:
    seen = observer.predictions[first:]
    report.predictions = len(seen)
    report.combinations = len({prediction.sensors for prediction in seen})
    ticks = [begin_ns, *sorted(prediction.tick_ns for prediction in seen), time.time_ns()]
    report.longest_gap, report.longest_gap_while_sent = longest_gap(ticks, fleet, _TIMEOUT)
    report.overruns = observer.status.overruns
    inference = observer.diagnostic("fusion_node: inference")
    failed = {value.key: value.value for value in inference.values}.get("errors", "0") if inference else "0"
    report.exceptions = node.exceptions + int(failed)
    settled = memory[round(_WARM_UP * len(memory)) :]
    tenth = max(len(settled) // 10, 1)
    if settled:
        report.memory = statistics.median(settled[:tenth]), statistics.median(settled[-tenth:])
        report.growth = report.memory[1] / report.memory[0] - 1
    report.faults = dict(faults)
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
        print(f"{name:22} {value}")
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
