#!/usr/bin/env python3
"""Measures what a busy neighbour costs, and memory, by engine and policy of threads; `make bench`.

A tick is the views of six sensors to embeddings. Each trial is a process of its own, and all ways take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

VIEWS = {"image": 1, "touch": 1, "thermal": 1, "event": 1, "point_cloud": 3, "audio": 4}
POLICIES = {"spin": {"OMP_WAIT_POLICY": ""}, "sleep": {"OMP_WAIT_POLICY": "PASSIVE"}}
WAYS = [("torch", 1, "spin"), ("torch", 2, "spin"), ("torch", 2, "sleep"), ("torch", 1, "sleep")]
WAYS += [(engine, threads, "sleep") for engine in ("onnxruntime", "openvino") for threads in (1, 2)]


def trial(engine: str, threads: int, count: int) -> dict[str, float]:
    """Ticks of one model in this process: median ms of each, of all processors together, and MiB at the end."""
    import torch

    from omnibind_core import OmniBind, modalities

    torch.set_num_threads(threads)
    start = time.process_time()
    model = OmniBind.from_pretrained("lite", modalities=set(VIEWS), engine=engine)
    model.warm_up(VIEWS)
    ready = time.process_time() - start
    rng = np.random.default_rng(0)
    tick = []
    for name, views in VIEWS.items():
        preset = modalities.get(name).preset(model.config.modalities[name].preset)
        made = (
            rng.integers(0, 256, (views, *preset.shape))
            if preset.dtype == "uint8"
            else rng.standard_normal((views, *preset.shape))
        )
        tick.append((name, made.astype(preset.dtype)))
    model.embed(tick)
    seconds, used = [], []
    for _ in range(count):
        began, before = time.perf_counter(), time.process_time()
        model.embed(tick)
        seconds.append(time.perf_counter() - began)
        used.append(time.process_time() - before)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "tick_ms": 1e3 * float(np.median(seconds)),
        "used_ms": 1e3 * float(np.median(used)),
        "ready_s": ready,
        "resident_mib": int(status["VmRSS"].split()[0]) / 1024,
        "most_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    """Measures, prints a table, and writes bench_threads.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=10, metavar="N", help="of each trial (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="trials of each way (default: %(default)s)")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder to write (default: %(default)s)")
    parser.add_argument("--trial", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trial:
        print(json.dumps(trial(args.trial[0], int(args.trial[1]), args.ticks)))
        return 0
    found: dict[tuple[Any, ...], list[dict[str, float]]] = defaultdict(list)
    for _ in range(args.rounds):
        for busy in args.busy:
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                for engine, threads, policy in WAYS:
                    command = [sys.executable, __file__, "--trial", engine, str(threads), "--ticks", str(args.ticks)]
                    environment = {**os.environ, **POLICIES[policy]}
                    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                    found[engine, threads, policy, busy].append(json.loads(done.stdout))
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    rows = [
        dict(zip(("engine", "threads", "waiting", "busy"), way, strict=True))
        | {key: float(np.median([one[key] for one in trials])) for key in trials[0]}
        | {"tick_ms_from_to": [min(one["tick_ms"] for one in trials), max(one["tick_ms"] for one in trials)]}
        for way, trials in found.items()
    ]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, {args.rounds} trials of each")
    print("| busy neighbours | engine | threads | waiting | tick, ms | processors, ms | ready, s | MiB | most MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row["busy"]):
        print(
            f"| {row['busy']} | {row['engine']} | {row['threads']} | {row['waiting']} | {row['tick_ms']:.0f} | "
            f"{row['used_ms']:.0f} | {row['ready_s']:.1f} | {row['resident_mib']:.0f} | {row['most_mib']:.0f} |"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_threads.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
