#!/usr/bin/env python3
"""Measures the fusion node over DDS with six sensors at usual rates, in each engine; `make bench`.

The sensors are a process, the node is another, and this one listens. All engines take turns, several times, so that
what else the machine does meets them alike. Events are sent as `omnibind_ros/EventArray`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities import Events, Sound
from omnibind_ros import messages
from omnibind_ros.bags.scene_bag import THERMAL_OFFSET, THERMAL_SCALE
from omnibind_ros.faults.trial import NodeProcess

ENGINES = ("torch", "onnxruntime", "openvino")
RATES = {"camera": 30.0, "thermal": 30.0, "event_camera": 100.0, "tactile": 30.0, "lidar": 10.0, "microphone": 50.0}
_VARIANTS = 8  # messages of a sensor that differ
_POINTS, _EVENTS_PER_SECOND = 60_000, 400_000
_PATIENCE = 120.0  # s for the first prediction
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


# The sensors ---------------------------------------------------------------------------------------------------------


def contents(sensor: str, rng: np.random.Generator, sound_rate: int) -> dict[str, Any]:
    """Fields of a made-up message of a sensor in a usual size."""
    import cv2
    from sensor_msgs.msg import PointField

    def picture(height: int, width: int, channels: int) -> NDArray[np.float32]:
        coarse = rng.random((8, 10, channels), dtype=np.float32)
        return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32).clip(0, 1)

    if sensor == "camera":
        return messages.image_fields((255 * picture(480, 640, 3)).astype(np.uint8), "rgb8")
    if sensor == "tactile":
        return messages.image_fields((255 * picture(240, 320, 3)).astype(np.uint8), "rgb8")
    if sensor == "thermal":
        kelvin = 100 * (288 + 20 * picture(120, 160, 1).reshape(120, 160))
        return messages.image_fields(kelvin.astype(np.uint16), "mono16")
    if sensor == "lidar":
        plane = rng.uniform(-1, 1, (_POINTS, 2))
        height = np.sin(rng.uniform(1, 4) * plane[:, :1]) * plane[:, 1:]
        return messages.point_cloud_fields(np.hstack([plane, height]), PointField)
    if sensor == "microphone":
        moments = np.arange(round(sound_rate / RATES[sensor])) / sound_rate
        tones = sum(np.sin(2 * np.pi * pitch * moments) for pitch in (440.0, 1000.0, 3000.0)) / 6
        noise = 0.02 * rng.standard_normal(len(moments))
        return messages.audio_chunk_fields(Sound((tones + noise).astype(np.float32), sound_rate))
    count = round(_EVENTS_PER_SECOND / RATES[sensor])
    x = rng.integers(200, 440, count).astype(np.uint16)
    y = np.clip(x + rng.integers(-20, 20, count), 0, 479).astype(np.uint16)
    times = np.sort(rng.integers(0, round(1e6 / RATES[sensor]), count))
    return messages.event_array_fields(Events(x, y, times, (x % 2).astype(np.uint8), 640, 480))


def send(sound_rate: int) -> None:
    """Publishes all sensors at their rates, until the process is ended. Messages are made before: that costs little."""
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.serialization import serialize_message

    from omnibind_ros.demo.player import moved
    from omnibind_ros.faults.publisher import STREAMS
    from omnibind_ros.graph.topics import message_class

    rclpy.init()
    node = rclpy.create_node("drivers")
    rng = np.random.default_rng(0)
    publishers, ready = {}, {}
    for sensor in RATES:
        kind = message_class(STREAMS[sensor].type)
        publishers[sensor] = node.create_publisher(kind, STREAMS[sensor].topic, qos_profile_sensor_data)
        made = (messages.fill(kind(), contents(sensor, rng, sound_rate)) for _ in range(_VARIANTS))
        ready[sensor] = [serialize_message(message) for message in made]
    counts = dict.fromkeys(RATES, 0)
    begin = time.monotonic()
    while True:
        sensor = min(RATES, key=lambda name: counts[name] / RATES[name])
        time.sleep(max(begin + counts[sensor] / RATES[sensor] - time.monotonic(), 0))
        publishers[sensor].publish(moved(ready[sensor][counts[sensor] % _VARIANTS], time.time_ns()))
        counts[sensor] += 1


# One round -----------------------------------------------------------------------------------------------------------


@dataclass
class Round:
    """What one run of the node gave.

    Attributes:
        engine: What ran its trunks.
        busy: Neighbours that took all processor time they got.
        rate: Predictions a second.
        gaps: s between one prediction and the next.
        latencies: s from the stamp of the newest item of a prediction to its receipt.
        cpu: Processor time of the node, s, of each prediction.
        working: That of its worker and of the engine's threads: decoding, encoding, fusing.
        receiving: Processor time of its other threads, s a second: messages arrive however often it ticks.
        start_cpu: The same from its launch to the first prediction.
        start: s of that.
        memory: MiB resident after the first prediction, and at the end.
        skipped: Ticks that were skipped because the one before was still computed.
        planned: Ticks that the node planned, a share of those that were asked for.
        sensors: The least number of sensors that took part.
        words: What its status said at the end.
    """

    engine: str
    busy: int
    rate: float = 0.0
    gaps: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    cpu: float = 0.0
    working: float = 0.0
    receiving: float = 0.0
    start_cpu: float = 0.0
    start: float = 0.0
    memory: tuple[float, float] = (0.0, 0.0)
    skipped: int = 0
    planned: float = 0.0
    sensors: int = 0
    words: str = ""


class Listener:
    """Predictions and states of the node, as they come.

    Attributes:
        seen: Of each prediction: when it was received (s, monotonic), its latency, s, and its number of sensors.
        status: The last.
    """

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from omnibind_ros import msg
        from omnibind_ros.graph.topics import LATCHED

        self.seen: list[tuple[float, float, int]] = []
        self.status: Any = None
        self._node = rclpy.create_node("listener")
        self._node.create_subscription(msg.Prediction, "omnibind/prediction", self._on_prediction, 100)
        self._node.create_subscription(msg.FusionStatus, "fusion_node/status", self._on_status, LATCHED)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)

    def listen(self, seconds: float, until: int = sys.maxsize) -> None:
        """Listens for a while, or until there are so many predictions."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and len(self.seen) < until:
            self._executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        """Stops listening."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _on_prediction(self, message: Any) -> None:
        now = time.time_ns()
        newest = (messages.stamp_ns(message) or 0) / 1e9
        self.seen.append((time.monotonic(), now / 1e9 - newest, len(message.sensors)))

    def _on_status(self, message: Any) -> None:
        self.status = message


def processor_time(pid: int) -> float:
    """User and system time of a process so far, s."""
    return _time_of(Path(f"/proc/{pid}/stat"))


def receiving_time(pid: int) -> float:
    """That of its main thread, which takes messages, and of the middleware's threads, s."""
    names = {task: (task / "comm").read_text(encoding="utf-8") for task in Path(f"/proc/{pid}/task").iterdir()}
    threads = [task for task, name in names.items() if task.name == str(pid) or name.startswith("dds.")]
    return sum(_time_of(task / "stat") for task in threads)


def _time_of(file: Path) -> float:
    fields = file.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def run(engine: str, busy: int, args: argparse.Namespace) -> Round:
    """Starts a node, waits until it has settled, and measures for a while.

    Raises:
        TimeoutError: There was no prediction.
    """
    result = Round(engine, busy)
    listener = Listener()
    celsius = {"scale": THERMAL_SCALE, "offset": THERMAL_OFFSET}
    parameters = {"model": args.model, "rate": args.rate, "engine": engine, "device": "cpu", "thermal": celsius}
    with tempfile.TemporaryDirectory(prefix="omnibind_bench_") as folder:
        begin = time.monotonic()
        node = NodeProcess(Path(folder), parameters, os.environ)
        try:
            listener.listen(_PATIENCE, 1)
            if not listener.seen:
                raise TimeoutError(f"no prediction with {engine}; the node's output: {node.log[-1000:]}")
            result.start, result.start_cpu = time.monotonic() - begin, processor_time(node.pid)
            listener.listen(args.settle)
            status, memory, first = listener.status, node.memory, len(listener.seen)
            before = processor_time(node.pid), receiving_time(node.pid)
            listener.listen(args.seconds)
            used, received = processor_time(node.pid) - before[0], receiving_time(node.pid) - before[1]
            seen = listener.seen[first:]
            times = np.array([at for at, _, _ in listener.seen[first - 1 :]])
            result.rate, result.cpu = len(seen) / args.seconds, used / max(len(seen), 1)
            result.working, result.receiving = (used - received) / max(len(seen), 1), received / args.seconds
            result.gaps, result.latencies = np.diff(times).tolist(), [latency for _, latency, _ in seen]
            result.memory = memory, node.memory
            result.sensors = min((count for _, _, count in seen), default=0)
            if listener.status is not None and status is not None:
                result.skipped = listener.status.overruns - status.overruns
                result.words = listener.status.message
                spent = messages.stamp_ns(listener.status), messages.stamp_ns(status)
                asked = args.rate * ((spent[0] or 0) - (spent[1] or 0)) / 1e9
                result.planned = (listener.status.ticks - status.ticks) / asked if asked else 0.0
        finally:
            node.close()
            listener.close()
    return result


# All rounds ----------------------------------------------------------------------------------------------------------


def row(rounds: Sequence[Round], rate: float) -> dict[str, Any]:
    """Figures of all rounds of one engine: medians of the rounds, quantiles of all predictions."""

    def middle(name: str) -> float:
        return float(np.median([getattr(one, name) for one in rounds]))

    gaps, latencies = (np.concatenate([getattr(one, name) for one in rounds]) for name in ("gaps", "latencies"))
    return {
        "engine": rounds[0].engine,
        "busy": rounds[0].busy,
        "predictions_per_s": middle("rate"),
        "slowest_and_fastest_round": [min(one.rate for one in rounds), max(one.rate for one in rounds)],
        "latency_p50_s": float(np.median(latencies)),
        "latency_p99_s": float(np.quantile(latencies, 0.99)),
        "latency_max_s": float(latencies.max()),
        "cpu_s_per_prediction": middle("cpu"),
        "working_cpu_s_per_prediction": middle("working"),
        "receiving_cpu_s_per_s": middle("receiving"),
        "cpu_s_to_first_prediction": middle("start_cpu"),
        "s_to_first_prediction": middle("start"),
        "resident_mib": [float(np.median([one.memory[i] for one in rounds])) for i in (0, 1)],
        "predictions": len(latencies),
        "late": int((gaps > 2 / rate).sum()),  # by more than one tick
        "skipped": sum(one.skipped for one in rounds),
        "planned": middle("planned"),
        "least_sensors": min(one.sensors for one in rounds),
        "words": rounds[-1].words,
    }


def machine() -> dict[str, Any]:
    """What it is measured on."""
    facts: dict[str, Any] = {"cpus": len(os.sched_getaffinity(0)), "system": platform.platform()}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                facts["cpu"] = line.partition(":")[2].strip()
    return facts | {"load": os.getloadavg()[0], "threads": os.environ.get("OMP_NUM_THREADS", "as PyTorch chooses")}


def show(rows: Sequence[Mapping[str, Any]], rate: float) -> None:
    """Prints the table, in Markdown."""
    columns = (
        "busy neighbours | engine | predictions a second | latency, s: p50 | p99 | most | CPU, s, of each | "
        "of its worker | receiving, of a core | "
        "CPU, s, to the first | s to the first | MiB | MiB at the end | late | skipped | planned"
    )
    print(f"\n| {columns} |\n|{'---|' * (columns.count('|') + 1)}")
    for one in rows:
        low, high = one["slowest_and_fastest_round"]
        print(
            f"| {one['busy']} | {one['engine']} | {one['predictions_per_s']:.1f} ({low:.1f} to {high:.1f}) | "
            f"{one['latency_p50_s']:.3f} | {one['latency_p99_s']:.3f} | {one['latency_max_s']:.3f} | "
            f"{one['cpu_s_per_prediction']:.3f} | {one['working_cpu_s_per_prediction']:.3f} | "
            f"{100 * one['receiving_cpu_s_per_s']:.0f} % | {one['cpu_s_to_first_prediction']:.1f} | "
            f"{one['s_to_first_prediction']:.1f} | {one['resident_mib'][0]:.0f} | {one['resident_mib'][1]:.0f} | "
            f"{one['late']} of {one['predictions']} | {one['skipped']} | {100 * one['planned']:.0f} % |"
        )
    print(f"late: more than {2 / rate:.2f} s after the one before; planned: of {rate:g} ticks a second asked for")
    for one in rows:
        if one["least_sensors"] < len(RATES):
            print(f"with {one['engine']} a prediction had {one['least_sensors']} sensors: {one['words']}")


def main() -> int:
    """Measures, prints a table, and writes bench_node.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), metavar="NAME", help="(default: all)")
    parser.add_argument("--model", default="lite", help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, metavar="HZ", help="asked for (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each engine (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of a round (default: %(default)s)")
    parser.add_argument("--settle", type=float, default=5.0, metavar="S", help="before (default: %(default)s)")
    parser.add_argument("--busy", type=int, nargs="+", default=[0], metavar="N", help="neighbours (default: 0)")
    parser.add_argument("--sound-rate", type=int, default=16_000, metavar="HZ", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder to write (default: %(default)s)")
    parser.add_argument("--send", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.send:
        send(args.sound_rate)
    import rclpy

    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 230))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    begin, facts = time.monotonic(), machine()
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    rclpy.init()
    sender = subprocess.Popen([sys.executable, __file__, "--send", "--sound-rate", str(args.sound_rate)])
    found: dict[tuple[int, str], list[Round]] = defaultdict(list)
    try:
        for number in range(args.rounds):
            for busy in args.busy:
                others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
                try:
                    for i in range(len(args.engines)):  # each is once the first
                        engine = args.engines[(i + number) % len(args.engines)]
                        found[busy, engine].append(run(engine, busy, args))
                finally:
                    for other in others:
                        other.kill()
                        other.wait()
    finally:
        sender.kill()
        sender.wait()
        rclpy.try_shutdown()
    rows = [row(found[busy, engine], args.rate) for busy in args.busy for engine in args.engines]
    facts |= {"load_at_the_end": os.getloadavg()[0], "seconds": time.monotonic() - begin}
    show(rows, args.rate)
    print(f"load {facts['load_at_the_end']:.1f} at the end, after {facts['seconds']:.0f} s, {args.rounds} rounds")
    args.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": facts, "asked": args.rate, "rows": rows}
    (args.out / "bench_node.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
