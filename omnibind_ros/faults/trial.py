"""Kills and restarts publishers by a random schedule, and checks what the fusion node promises."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from omnibind_ros.faults.fleet import Fleet
from omnibind_ros.faults.observer import Observer
from omnibind_ros.faults.publisher import STREAMS

SLACK = 0.75
"""s that a busy machine may delay the receipt of a message, or a tick."""


class NodeProcess:
    """The fusion node as a process.

    Args:
        folder: Where its parameters and its output go.
        parameters: Its parameters.
        environment: Its environment.
        command: Put before the command line.
        module: Another node.
        remap: ROS arguments, for example ``-r __ns:=/robot``.
    """

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, object],
        environment: Mapping[str, str],
        command: Sequence[str] = (),
        module: str = "omnibind_ros.node.fusion_node",
        remap: Sequence[str] = (),
    ) -> None:
        name = module.rpartition(".")[2]
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters)}}))
        self._log_path = folder / f"{name}.log"
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, sys.executable, "-m", module, "--ros-args", "--params-file", str(file), *remap],
                env=dict(environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What it printed."""
        return self._log_path.read_text(errors="replace")

    @property
    def exceptions(self) -> int:
        """Tracebacks that it printed."""
        return self.log.count("Traceback")

    @property
    def memory(self) -> float:
        """Resident memory, MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    def close(self) -> int:
        """Ends it by SIGTERM, and by SIGKILL if it does not listen. Returns its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@dataclass(frozen=True)
class Outage:
    """One publisher killed, and started again.

    Attributes:
        sensor: Its sensor.
        kill: When it is killed, s from the beginning.
        restart: When it is started again, s.
    """

    sensor: str
    kill: float
    restart: float


def plan(seed: int, length: float, timeout: float, sensors: Sequence[str] = tuple(STREAMS)) -> list[Outage]:
    """A schedule in which each sensor but one dies once and returns, in random order.

    Another sensor is spared each time, so that one is alive at any moment.

    Args:
        seed: Makes the schedule.
        length: s; everybody is back by then.
        timeout: s that a sensor is given before it is out.
        sensors: The sensors.
    """
    rng = random.Random(seed)
    order = rng.sample(list(sensors), len(sensors))[1:]
    latest = length - timeout - 2 * SLACK
    outages = []
    for sensor in order:
        kill = rng.uniform(0.0, max(latest - timeout, 0.1))
        outages.append(Outage(sensor, kill, rng.uniform(kill + timeout + SLACK, length)))
    return sorted(outages, key=lambda outage: outage.kill)


@dataclass
class Result:
    """What came of a schedule.

    Attributes:
        predictions: Number of predictions.
        held: The longest time for which no driver got a message out though one was alive, s.
        complaints: Promises that were broken, in words.
    """

    predictions: int = 0
    held: float = 0.0
    complaints: list[str] = field(default_factory=list)


def longest_gap(ticks: Sequence[int], fleet: Fleet, timeout: float) -> tuple[float, float]:
    """The longest time without a prediction, as it was and as far as the node answers for it.

    From the timeout after the last message to the next one no sensor is alive to it: that time is not counted.

    Args:
        ticks: Times of the predictions, between the beginning and the end of the time looked at; ns, in order.
        fleet: Has run the publishers.
        timeout: The sensors' ``timeout``, s.

    Returns:
        s, and s without the times in which no driver had got a message out for the timeout.
    """
    longest = answered = 0.0
    for begin, end in itertools.pairwise(ticks):
        gap = (end - begin) / 1e9
        longest = max(longest, gap)
        if gap > max(answered, timeout):
            answered = max(answered, gap - sum(max(pause - timeout, 0) for pause in fleet.pauses(begin, end)))
    return longest, answered


def run(fleet: Fleet, observer: Observer, outages: Sequence[Outage], timeout: float, rate: float) -> Result:
    """Runs a schedule on living publishers of all its sensors, and checks it.

    Args:
        fleet: Runs the publishers.
        observer: Listens to the node.
        outages: The schedule.
        timeout: The sensors' ``timeout``, s.
        rate: The node's ``rate``, Hz.

    Returns:
        The result; everybody is alive and taking part again.
    """
    begin, begin_ns, first = time.monotonic(), time.time_ns(), len(observer.predictions)
    steps = sorted([(o.kill, "kill", o.sensor) for o in outages] + [(o.restart, "start", o.sensor) for o in outages])
    killed: dict[str, int] = {}
    started: dict[str, int] = {}
    for at, what, sensor in steps:
        time.sleep(max(begin + at - time.monotonic(), 0))
        if what == "kill":
            killed[sensor] = fleet.kill(sensor)
        else:
            started[sensor] = time.time_ns()
            fleet.start(sensor)
    result = Result()
    try:
        observer.wait_for(*fleet.running)
    except TimeoutError as error:
        states = "; ".join(f"{row.name}: {row.reason}" for row in observer.status.sensors)
        result.complaints.append(f"not everybody is back: {error} ({states})")
    seen = observer.predictions[first:]
    result.predictions = len(seen)
    for sensor, at in killed.items():
        out = at + round((timeout + 1 / rate + SLACK) * 1e9)
        late = [p for p in seen if out < p.tick_ns < started[sensor] and sensor in p.sensors]
        if late:
            result.complaints.append(f"{sensor} still took part {(late[-1].tick_ns - at) / 1e9:.2f} s after its death")
    ticks = [p.tick_ns for p in seen]
    if ticks != sorted(ticks):
        result.complaints.append("predictions out of order")
    end_ns = time.time_ns()
    longest, answered = longest_gap([begin_ns, *ticks, end_ns], fleet, timeout)
    if answered > 1 / rate + 2 * SLACK:
        result.complaints.append(f"no prediction for {longest:.2f} s, and for {answered:.2f} s while drivers sent")
    result.held = max(fleet.pauses(begin_ns, end_ns))
    return result
