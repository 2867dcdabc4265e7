"""The table of all benchmarks: each figure under its name, with its spread and what it is compared with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_table.py"
NODE = {
    "machine": {"cpus": 2},
    "rows": [
        {
            "engine": engine,
            "busy": 0,
            "predictions_per_s": rate,
            "slowest_and_fastest_round": [rate - 1, rate + 1],
            "latency_p50_s": 0.2,
            "latency_p99_s": 0.3,
            "cpu_s_per_prediction": 0.1,
            "resident_mib": [400, 410],
            "late": 1,
            "predictions": 60,
        }
        for engine, rate in (("torch", 2.0), ("openvino", 5.0))
    ],
}
THREADS = [
    {"engine": "torch", "threads": 2, "waiting": "sleep", "busy": busy, "tick_ms": ms, "tick_ms_from_to": [ms, ms]}
    for busy, ms in ((0, 100.0), (1, 150.0))
]


def test_the_table_has_what_was_measured_and_says_what_was_not(tmp_path: Path) -> None:
    (tmp_path / "bench_node.json").write_text(json.dumps(NODE))
    (tmp_path / "bench_threads.json").write_text(json.dumps(THREADS))
    done = subprocess.run(
        [sys.executable, TOOL, "--folder", tmp_path], capture_output=True, text=True, check=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "bench_node: cpus 2"
    assert "| node over DDS, openvino, 0 neighbours | 5 | a second | 4 to 6 | 2.50 times torch |" in lines
    assert "| node over DDS, torch, 0 neighbours, latency p99 | 0.3 | s |  | 1.50 times its median |" in lines
    what = "tick, torch, 2 threads that sleep, 1 neighbours"
    assert f"| {what} | 150 | ms | 150 to 150 | 1.50 times without neighbours |" in lines
    assert "bench_start.json: not measured" in done.stderr
    figures = json.loads((tmp_path / "bench.json").read_text())["figures"]
    assert {"of": "bench_threads", "value": 150.0, "times": 1.5}.items() <= figures[-1].items()
