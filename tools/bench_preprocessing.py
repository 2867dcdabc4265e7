#!/usr/bin/env python3
"""Measures what a tick costs before the encoders, sensor by sensor: from messages to the encoder's input; `make bench`.

Each sensor sends made-up messages to the streaming engine, which decodes, checks, judges and preprocesses what a tick
of 10 Hz asks for. Time is that of all processors. With `--against` another checkout does the same in turn, in a
process of its own, and what encoders would see of either is compared.
"""

from __future__ import annotations

import argparse
import array
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SECOND = 1_000_000_000
RATE = 10  # ticks a second
_AFTER = 0.03  # s after a tick that count, too: threads may spin for some time
REPO = Path(__file__).resolve().parents[1]

Stream = Iterator[list[tuple[float, Any]]]  # of each tick the new messages, and s from its begin to each


@dataclass(frozen=True)
class Case:
    """A sensor: what it sends for a tick."""

    modality: str
    ros_type: str
    ticks: Callable[[np.random.Generator], Stream]
    scale: float = 1.0
    offset: float = 0.0


def scene(rng: np.random.Generator, height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Something with edges, gradients and grain."""
    rough = rng.integers(0, 256, (height // 40 + 2, width // 40 + 2, channels)).astype(np.uint8)
    smooth = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    grain = rng.normal(0, 4, smooth.shape)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def ros(values: NDArray[Any]) -> array.array[int]:
    """Bytes as messages of rclpy hold them."""
    return array.array("B", np.ascontiguousarray(values).tobytes())


def image(pixels: NDArray[Any], encoding: str) -> Message:
    """A ``sensor_msgs/Image``."""
    data = ros(pixels)
    height, width = pixels.shape[:2]
    return Message(height=height, width=width, encoding=encoding, is_bigendian=0, step=len(data) // height, data=data)


def pictures(height: int, width: int) -> Callable[[np.random.Generator], Stream]:
    """A camera's raw pictures."""
    return lambda rng: ([(0.05, image(scene(rng, height, width), "bgr8"))] for _ in iter(int, 1))


def jpegs(height: int, width: int) -> Callable[[np.random.Generator], Stream]:
    """A camera's compressed pictures."""

    def ticks(rng: np.random.Generator) -> Stream:
        while True:
            data = cv2.imencode(".jpg", scene(rng, height, width), [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
            yield [(0.05, Message(format="bgr8; jpeg compressed bgr8", data=ros(data)))]

    return ticks


def thermal(rng: np.random.Generator) -> Stream:
    """Counts of a radiometric camera."""
    while True:
        counts = (scene(rng, 512, 640, 1)[..., 0].astype(np.uint16) * 12 + 27_000).astype(np.uint16)
        yield [(0.05, image(counts, "mono16"))]


def skin(rng: np.random.Generator) -> Stream:
    """A pressure array."""
    while True:
        yield [(0.05, image(scene(rng, 64, 64, 1)[..., 0], "mono8"))]


def gel(rng: np.random.Generator) -> Stream:
    """A skin that is seen by a camera."""
    while True:
        yield [(0.05, image(scene(rng, 240, 320), "bgr8"))]


def cloud(points: NDArray[np.float32]) -> Message:
    """As LiDARs send it: x, y, z, intensity, 32 bytes a point."""
    rows = np.zeros((len(points), 8), np.float32)
    rows[:, :3] = points
    fields = [Message(name=name, offset=4 * at, datatype=7, count=1) for at, name in enumerate("xyz")]
    step = 4 * rows.shape[1]
    size = {"height": 1, "width": len(points), "point_step": step, "row_step": step * len(points)}
    return Message(fields=fields, is_bigendian=False, data=ros(rows), is_dense=True, **size)


def clouds(missing: float) -> Callable[[np.random.Generator], Stream]:
    """A thing of 60,000 points on boxes; a share of them was not measured."""

    def ticks(rng: np.random.Generator) -> Stream:
        while True:
            corners, sizes = rng.uniform(-0.4, 0.2, (6, 3)), rng.uniform(0.1, 0.5, (6, 3))
            box = rng.integers(6, size=60_000)
            place = rng.random((60_000, 3))
            place[np.arange(60_000), rng.integers(3, size=60_000)] = rng.integers(2, size=60_000)
            points = (corners[box] + place * sizes[box] + (1.5, 0, 0.3)).astype(np.float32)
            points[rng.random(60_000) < missing] = np.nan
            yield [(0.05, cloud(points))]

    return ticks


def evt3(rng: np.random.Generator, start: int, count: int, duration: int) -> NDArray[np.uint16]:
    """Words of a packet from ``start`` µs on: edges that move, as rows of single events and of vectors, and noise."""
    t = np.sort(rng.integers(start, start + duration, count // 3))  # three events a group
    y = np.clip(rng.normal(360, 120, len(t)), 0, 719).astype(int)
    x = np.clip(rng.normal(640, 160, len(t)), 0, 1267).astype(int)
    p, vector = rng.integers(2, size=len(t)), rng.random(len(t)) < 0.4
    bits = rng.integers(1, 1 << 12, len(t))
    words: list[int] = []
    high = low = row = -1
    for now, line, column, bright, many, mask in zip(*(a.tolist() for a in (t, y, x, p, vector, bits)), strict=True):
        if now >> 12 != high:
            high, low = now >> 12, -1
            words.append(0x8000 | (high & 0xFFF))
        if now & 0xFFF != low:
            low = now & 0xFFF
            words.append(0x6000 | low)
        if line != row:
            row = line
            words.append(line)
        if many:
            words += [0x3000 | bright << 11 | column, 0x4000 | mask]
        else:
            words.append(0x2000 | bright << 11 | column)
    return np.array(words, "<u2")


def packets(rng: np.random.Generator) -> Stream:
    """A 1280x720 event camera at a million events a second, ten packets of 10 ms in a tick."""
    number = 0
    made = [evt3(rng, 10_000 * at, 10_000, 10_000) for at in range(400)]  # of 4 s; then they come again
    while True:
        tick = []
        for at in range(10):
            size = {"width": 1280, "height": 720, "is_bigendian": False, "time_base": 0}
            events = ros(made[number % len(made)])
            tick.append((0.01 * at, Message(encoding="evt3", seq=number, events=events, **size)))
            number += 1
        yield tick


def sound(hertz: int) -> Callable[[np.random.Generator], Stream]:
    """A microphone, ten chunks of 100 ms a second."""

    def ticks(rng: np.random.Generator) -> Stream:
        phase = 0
        while True:
            at = (phase + np.arange(hertz // RATE)) / hertz
            wave = 0.2 * np.sin(2 * np.pi * (300 + 200 * np.sin(2 * np.pi * at)) * at) + rng.normal(0, 0.02, len(at))
            phase += len(at)
            samples = array.array("f", wave.astype(np.float32).tobytes())
            yield [(0.0, Message(samples=samples, sample_rate=hertz, channels=1))]

    return ticks


IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
CASES = {
    "camera 640x480 bgr8": Case("image", IMAGE, pictures(480, 640)),
    "camera 1920x1080 bgr8": Case("image", IMAGE, pictures(1080, 1920)),
    "camera 640x480 JPEG": Case("image", COMPRESSED, jpegs(480, 640)),
    "camera 1920x1080 JPEG": Case("image", COMPRESSED, jpegs(1080, 1920)),
    "thermal 640x512 mono16": Case("thermal", IMAGE, thermal, 0.01, -273.15),
    "touch 64x64 mono8": Case("touch", IMAGE, skin),
    "touch 320x240 bgr8": Case("touch", IMAGE, gel),
    "events 1280x720 EVT3": Case("event", "event_camera_msgs/msg/EventPacket", packets),
    "cloud 60,000 points": Case("point_cloud", POINT_CLOUD, clouds(0)),
    "cloud 60,000, 5 % NaN": Case("point_cloud", POINT_CLOUD, clouds(0.05)),
    "sound 16 kHz": Case("audio", "omnibind_ros/msg/AudioChunk", sound(16_000)),
    "sound 44.1 kHz": Case("audio", "omnibind_ros/msg/AudioChunk", sound(44_100)),
}
TICK = (
    "camera 640x480 bgr8",
    "thermal 640x512 mono16",
    "touch 64x64 mono8",
    "events 1280x720 EVT3",
    "cloud 60,000 points",
    "sound 44.1 kHz",
)
"""The six sensors of a tick."""


def trial(names: list[str], count: int, out: Path | None, profile: bool) -> dict[str, Any]:
    """Ticks of each sensor in this process: µs of preprocessing, of pushing a message, and page faults."""
    from omnibind_core import modalities
    from omnibind_core.encoders.base import EncoderSet
    from omnibind_core.encoders.config import load_config
    from omnibind_core.fusion.baselines import MeanFusion
    from omnibind_core.model import OmniBind, model_folder
    from omnibind_core.runtime.engine import PerceptionEngine
    from omnibind_core.runtime.types import SensorConfig
    from omnibind_ros.messages import DecodeOptions, Decoder

    config = load_config(model_folder("lite") / "config.json")
    model = OmniBind(config, EncoderSet({}, {}, {}, config.embed_dim), MeanFusion())  # nothing is encoded
    found: dict[str, Any] = {}
    seen: dict[str, NDArray[Any]] = {}
    for name in names:
        case, profiler = CASES[name], cProfile.Profile()
        decoder, options = Decoder(case.modality, name), DecodeOptions(scale=case.scale, offset=case.offset)
        decode = lambda _, payload, decoder=decoder, options=options: decoder.decode(*payload, options)  # noqa: E731
        modality = modalities.get(case.modality)
        sensor = SensorConfig(name, case.modality, window=modality.default_window or 1.0)
        engine = PerceptionEngine(model, [sensor], decode)
        used, pushed, faults, made = [], [], [], []
        start = 10**18
        for number, tick in zip(range(count + 5), case.ticks(np.random.default_rng(0)), strict=False):
            now = start + number * SECOND // RATE
            for ago, message in tick:
                stamp = now + round(ago * SECOND)
                begin = time.process_time_ns()
                engine.push(name, stamp, stamp + SECOND // 1000, (case.ros_type, message))
                pushed.append((time.process_time_ns() - begin) / 1e3)
            selection = engine.select(now + SECOND // RATE)
            before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time_ns()
            if profile and number >= 5:
                profiler.enable()
            tokens = engine.tokens(selection, embed=False)
            profiler.disable()
            time.sleep(_AFTER)
            used.append((time.process_time_ns() - begin) / 1e3)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
            if number >= count:
                made.append(np.asarray(tokens[0].views))
        seen[name] = np.concatenate(made)
        # The first ticks import and fill what is kept, and streams have no whole window yet.
        found[name] = {
            "us": float(np.median(used[5:])),
            "most_us": float(max(used[5:])),
            "first_us": float(used[0]),
            "push_us": float(np.median(pushed)),
            "faults": float(np.median(faults[5:])),
        }
        if profile:
            print(f"\n{name}, {count} ticks")
            pstats.Stats(profiler).sort_stats("tottime").print_stats(12)
    if out is not None:
        np.savez(out, **seen)  # type: ignore[arg-type]
    return found


def difference(one: NDArray[Any], other: NDArray[Any]) -> str:
    """How unlike the views of the last ticks are, in words."""
    if one.shape != other.shape:
        return f"{list(one.shape)}, {list(other.shape)}"
    apart = np.abs(one.astype(np.float64) - other)
    return "same" if not apart.any() else f"{(apart > 0).mean():.2%} of the values, at most {apart.max():.3g}"


def main() -> int:
    """Measures, prints a table, and writes bench_preprocessing.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=30, metavar="N", help="of each trial (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="trials of each (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="SENSOR")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of this repository")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, and measure nothing")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder to write (default: %(default)s)")
    parser.add_argument("--trial", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial or args.profile:
        print(json.dumps(trial(args.only, args.ticks, args.trial, args.profile)))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    folders = {"here": REPO} | ({"there": args.against.resolve()} if args.against else {})
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    views: dict[str, Any] = {}
    for _ in range(args.rounds):
        for where, folder in folders.items():
            path = args.out / f"views_{where}.npz"
            command = [sys.executable, __file__, "--trial", str(path), "--ticks", str(args.ticks), "--only", *args.only]
            # Of the other checkout the packages, not this tool.
            environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            for name, figures in json.loads(done.stdout.splitlines()[-1]).items():
                found[name, where].append(figures)
            with np.load(path) as file:
                views[where] = {name: file[name] for name in file.files}
            path.unlink()
    medians = {
        way: {key: float(np.median([one[key] for one in trials])) for key in trials[0]} for way, trials in found.items()
    }
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} at the end, {args.rounds} trials of {args.ticks} ticks")
    print("| sensor | | tick, ms | first, ms | page faults | push, µs | times less | encoder's input |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.only:
        for where in folders:
            row = medians[name, where]
            compared = where == "here" and args.against
            less = f"{medians[name, 'there']['us'] / row['us']:.1f}" if compared else ""
            alike = difference(views["here"][name], views["there"][name]) if compared else ""
            print(
                f"| {name} | {where} | {row['us'] / 1e3:.2f} | {row['first_us'] / 1e3:.1f} | {row['faults']:.0f} | "
                f"{row['push_us']:.0f} | {less} | {alike} |"
            )
    for where in folders:
        if set(TICK) <= set(args.only):
            print(f"{', '.join(TICK)}, {where}: {sum(medians[name, where]['us'] for name in TICK) / 1e3:.1f} ms")
    rows = [
        {
            "sensor": name,
            "where": where,
            **row,
            "us_from_to": [extreme(one["us"] for one in trials) for extreme in (min, max)],
        }
        for ((name, where), row), trials in zip(medians.items(), found.values(), strict=True)
    ]
    (args.out / "bench_preprocessing.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
