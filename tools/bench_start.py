#!/usr/bin/env python3
"""Measures what a start costs: from launch to the first prediction, and memory, by engine; `make bench`.

Each trial is a process of its own, and all ways take turns. `predict` is `omnibind predict` on one picture, `runtime`
six sensors through the streaming engine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SENSORS = ("image", "touch", "thermal", "event", "point_cloud", "audio")


def raw(rng: np.random.Generator) -> dict[str, Any]:
    """A made-up item of each sensor, in its raw form."""
    from omnibind_core.modalities import Events, Sound

    x, y = rng.integers(0, 128, (2, 20_000)).astype(np.uint16)
    times, signs = np.sort(rng.integers(0, 200_000, 20_000)), rng.integers(0, 2, 20_000).astype(np.uint8)
    return {
        "image": rng.integers(0, 256, (480, 640, 3), np.uint8),
        "touch": rng.integers(0, 256, (28, 50), np.uint8),
        "thermal": rng.uniform(20, 35, (120, 160)).astype(np.float32),
        "event": Events(x, y, times, signs, 128, 128),
        "point_cloud": rng.standard_normal((4096, 3)).astype(np.float32),
        "audio": Sound(rng.uniform(-0.5, 0.5, 32_000).astype(np.float32), 16_000),
    }


def runtime(model_name: str, engine: str, ticks: int) -> dict[str, float]:
    """Six sensors through the streaming engine: CPU s from launch to the first prediction, and MiB."""
    from omnibind_core.model.loading import load_model
    from omnibind_core.runtime.engine import PerceptionEngine
    from omnibind_core.runtime.sensor import SECOND
    from omnibind_core.runtime.stream import PerceptionStream
    from omnibind_core.runtime.trigger import Trigger
    from omnibind_core.runtime.types import EngineSettings, SensorConfig

    model = load_model(model_name, "cpu", SENSORS, engine=engine)
    perception = PerceptionEngine(
        model, [SensorConfig(name, name) for name in SENSORS], lambda name, payload: payload, EngineSettings()
    )
    stream = PerceptionStream(perception, Trigger(perception))
    rng = np.random.default_rng(0)
    now, first, used, early = SECOND, 0.0, [], 0.0
    for tick in range(1 + ticks):
        now += SECOND // 5
        for name, item in raw(rng).items():
            stream.on_message(name, now, now, item)
        stream.on_timer(now + 1)
        selection = stream.next(now + 1)
        before = time.process_time()
        assert selection is not None and perception.compute(selection) is not None
        if tick:
            used.append(time.process_time() - before)
        else:
            first = _used()
        if tick == ticks // 2:
            early = _memory()["VmRSS"]
    return {
        "first_s": first,
        "tick_ms": 1e3 * float(np.median(used)) if used else 0.0,
        "resident": _memory()["VmRSS"],
        "grown": _memory()["VmRSS"] - early,
        "peak": _memory()["VmHWM"],
    }


def predict(model_name: str, engine: str) -> dict[str, float]:
    """``omnibind predict`` on one picture: CPU s from launch to its end, and MiB."""
    import cv2

    from omnibind_core import cli

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        cv2.imwrite(str(picture), raw(np.random.default_rng(0))["image"])
        arguments = ["predict", "--json", "--model", model_name, "--engine", engine, "--image", str(picture)]
        args = cli.parser().parse_args(arguments)
        if args.run(args):
            raise SystemExit("predict failed")
    return {"first_s": _used(), "peak": _memory()["VmHWM"]}


def compare(model_name: str, engine: str, data: Path, count: int) -> None:
    """Prints how far answers of exported parts are from those of torch, on samples of the split ``val``."""
    from omnibind_core import OmniBind, modalities
    from omnibind_core.model.loading import load_model

    wanted, exported = OmniBind.from_pretrained(model_name), load_model(model_name, engine=engine)
    with (data / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    for name in SENSORS:
        found = [row for row in rows if row["modality"] == name]
        step = max(1, len(found) // count)
        readings = [modalities.load(name, data / row["path"]) for row in found[::step][:count]]
        if not readings:
            continue
        ours, theirs = (model.encode(readings, 8) for model in (exported, wanted))
        pairs = [
            (exported.recognise([name], a[None], [reading.doubt]), wanted.recognise([name], b[None], [reading.doubt]))
            for a, b, reading in zip(ours, theirs, readings, strict=True)
        ]
        same = sum(a.probabilities[0].argmax() == b.probabilities[0].argmax() for a, b in pairs)
        most = max(float(np.abs(a.probabilities - b.probabilities).max()) for a, b in pairs)
        least = float((ours * theirs).sum(axis=1).min())
        print(
            f"{type(exported).__name__} {engine} {name}: {len(readings)} samples, least cosine {least:.7f}, greatest "
            f"difference of a probability {most:.1e}, the same label {same}",
            flush=True,
        )


def _used() -> float:
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime


def _memory() -> dict[str, float]:
    """MiB of this process by the name of the kernel."""
    rows = (line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(value.split()[0]) / 1024 for name, value in rows if name in ("VmRSS", "VmHWM")}


def main() -> None:
    """Runs all trials, or one of them; writes bench_start.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lite", help="name, or folder; also of an export")
    parser.add_argument("--engines", nargs="+", default=["torch", "onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=3, help="trials of each way (default: %(default)s)")
    parser.add_argument("--ticks", type=int, default=10, help="after the first (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder to write (default: %(default)s)")
    parser.add_argument("--trial", choices=("predict", "runtime"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with samples.csv: compare answers with torch's"
    )
    parser.add_argument("--samples", type=int, default=100, metavar="N", help="of a modality (default: %(default)s)")
    args = parser.parse_args()
    if args.data:
        for engine in args.engines:
            compare(args.model, engine, args.data, args.samples)
        return
    if args.trial:
        (engine,) = args.engines
        row = predict(args.model, engine) if args.trial == "predict" else runtime(args.model, engine, args.ticks)
        print(json.dumps(row), file=sys.stderr)
        return
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(args.rounds + 1):  # the first exports what is not exported yet
        for way in ("predict", "runtime"):
            for engine in args.engines:
                command = [sys.executable, __file__, "--trial", way, "--model", args.model, "--engines", engine]
                command += ["--ticks", str(args.ticks)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                if number:
                    row = json.loads(done.stderr.strip().splitlines()[-1])
                    found.setdefault((way, engine), []).append(row)
    names = ("first_s", "tick_ms", "resident", "grown", "peak")
    print(f"load {os.getloadavg()[0]:.1f}; medians of {args.rounds}; CPU s, CPU ms, MiB")
    print(f"{'way':10}{'engine':14}" + "".join(f"{name:>10}" for name in names))
    for (way, engine), rows in found.items():
        cells = (f"{np.median([row[name] for row in rows]):10.2f}" if name in rows[0] else " " * 10 for name in names)
        print(f"{way:10}{engine:14}" + "".join(cells))
    figures: list[dict[str, Any]] = [
        {"way": way, "engine": engine, **{name: float(np.median([row[name] for row in trials])) for name in trials[0]}}
        | {"first_s_from_to": [min(row["first_s"] for row in trials), max(row["first_s"] for row in trials)]}
        for (way, engine), trials in found.items()
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_start.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
