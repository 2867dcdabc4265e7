#!/usr/bin/env python3
"""Prints what the benchmarks of the CPU found as one table, and writes it as bench.json beside theirs; `make bench`.

Each figure is a median, with the spread of its rounds where a benchmark has some, and so many times that of the way it
is compared with, in the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_PLAIN, _TRUNKS = "plain loop, float32", "a pass for each trunk, float32"


class Figure(NamedTuple):
    """One row.

    Attributes:
        what: What was measured.
        value: The figure.
        unit: Its unit.
        spread: Least and greatest of the rounds, or quartiles; empty if there is only one.
        times: So many times what it is compared with; None if with nothing.
        against: What that is.
    """

    what: str
    value: float
    unit: str
    spread: tuple[float, ...] = ()
    times: float | None = None
    against: str = ""


def ticks(found: Any) -> Iterator[Figure]:
    """Of bench_gpu.json: ticks from views to answers, and the trunk's share of the processor's peak."""
    for name, model in found["models"].items():
        ways = model.get("ways", {})
        for way, row in ways.items():
            tick = row["tick_ms"]
            times = ways[_TRUNKS]["tick_ms"]["p50"] / tick["p50"] if _TRUNKS in ways and way != _TRUNKS else None
            spread = (tick["turns_25"], tick["turns_75"])
            yield Figure(f"{name}, tick, {way}", tick["p50"], "ms", spread, times, f"faster than {_TRUNKS}")
            yield Figure(f"{name}, tick, {way}, p99", tick["p99"], "ms", (), tick["p99"] / tick["p50"], "its median")
        for way, parts in model.get("parts", {}).items():
            for part, row in parts.items():
                share = row.get("share_of_peak")
                yield Figure(f"{name}, {part} alone, {way}", row["ms"], "ms", (), share, "the peak of a product")
        if {_PLAIN, _TRUNKS} <= ways.keys():
            ratio = ways[_PLAIN]["tick_ms"]["p50"] / ways[_TRUNKS]["tick_ms"]["p50"]
            yield Figure(
                f"{name}, one pass for each trunk", ratio, "times", (), ratio, "faster than each modality alone"
            )


def node(found: Any) -> Iterator[Figure]:
    """Of bench_node.json: predictions over DDS."""
    first = {row["busy"]: row for row in found["rows"] if row["engine"] == "torch"}
    for row in found["rows"]:
        what = f"node over DDS, {row['engine']}, {row['busy']} neighbours"
        base, rate = first.get(row["busy"]), row["predictions_per_s"]
        times = None if base is None else rate / base["predictions_per_s"]
        yield Figure(what, rate, "a second", tuple(row["slowest_and_fastest_round"]), times, "torch")
        yield Figure(
            f"{what}, latency p99",
            row["latency_p99_s"],
            "s",
            (),
            row["latency_p99_s"] / row["latency_p50_s"],
            "its median",
        )
        yield Figure(f"{what}, each", row["cpu_s_per_prediction"], "CPU s")
        yield Figure(f"{what}, memory at the end", row["resident_mib"][1], "MiB")
        yield Figure(f"{what}, late", row["late"], f"of {row['predictions']}")


def threads(found: Any) -> Iterator[Figure]:
    """Of bench_threads.json: what busy neighbours cost."""
    alone = {(row["engine"], row["threads"], row["waiting"]): row["tick_ms"] for row in found if not row["busy"]}
    for row in found:
        way = row["engine"], row["threads"], row["waiting"]
        what = f"tick, {way[0]}, {way[1]} threads that {way[2] or 'do not wait'}, {row['busy']} neighbours"
        times = row["tick_ms"] / alone[way] if row["busy"] and way in alone else None
        yield Figure(what, row["tick_ms"], "ms", tuple(row["tick_ms_from_to"]), times, "without neighbours")


def preprocessing(found: Any) -> Iterator[Figure]:
    """Of bench_preprocessing.json: from messages to the encoders' input."""
    there = {row["sensor"]: row["us"] for row in found if row["where"] == "there"}
    for row in found:
        if row["where"] == "here":
            before = there.get(row["sensor"])
            spread = tuple(value / 1e3 for value in row["us_from_to"])
            times = None if before is None else before / row["us"]
            yield Figure(f"preprocessing, {row['sensor']}", row["us"] / 1e3, "CPU ms", spread, times, "less than there")
            yield Figure(f"push, {row['sensor']}", row["push_us"], "µs")


def recognition(found: Any) -> Iterator[Figure]:
    """Of bench_recognise.json: from embeddings to the answer."""
    for row in found:
        what, masks = f"{row['sensors']} sensors, {row['labels']} labels", row.get("recognise by masks")
        times = None if masks is None else masks / row["recognise"]
        yield Figure(f"recognise, {what}", row["recognise"], "CPU ms", (), times, "less than a batch of masks")
        yield Figure(f"select, {what}", row["select"], "CPU ms")


def things(found: Any) -> Iterator[Figure]:
    """Of bench_objects.json: things beside the scene."""
    for row in found:
        what = f"{row['things']} things, {row['when']}, {row['engine']}"
        yield Figure(what, row["CPU ms"], "CPU ms", (), row["CPU ratio"], "one scene prediction")


def start(found: Any) -> Iterator[Figure]:
    """Of bench_start.json: from launch to the first prediction."""
    base = {row["way"]: row["first_s"] for row in found if row["engine"] == "torch"}
    for row in found:
        what, first = f"{row['way']}, {row['engine']}", row["first_s"]
        times = base[row["way"]] / first if row["way"] in base else None
        yield Figure(
            f"first prediction, {what}", first, "CPU s", tuple(row["first_s_from_to"]), times, "less than torch"
        )
        yield Figure(f"memory, {what}", row["peak"], "MiB")


PARTS: dict[str, Callable[[Any], Iterator[Figure]]] = {
    "bench_gpu": ticks,
    "bench_node": node,
    "bench_threads": threads,
    "bench_preprocessing": preprocessing,
    "bench_recognise": recognition,
    "bench_objects": things,
    "bench_start": start,
}


def main() -> int:
    """Prints the table, and writes bench.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/bench"), help="(default: %(default)s)")
    folder = parser.parse_args().folder
    report: dict[str, Any] = {"machine": {}, "figures": []}
    rows = []
    for name, of in PARTS.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            print(f"{path}: not measured", file=sys.stderr)
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            report["machine"][name] = found["machine"]
        figures = list(of(found))
        report["figures"] += [{"of": name, **figure._asdict()} for figure in figures]
        rows += figures
    print(
        "; ".join(
            f"{name}: {', '.join(f'{key} {value}' for key, value in facts.items())}"
            for name, facts in report["machine"].items()
        )
    )
    print("| what | median | | of the rounds | compared with |")
    print("|---|---|---|---|---|")
    for row in rows:
        spread = " to ".join(f"{value:.3g}" for value in row.spread)
        compared = "" if row.times is None else f"{row.times:.2f} times {row.against}"
        print(f"| {row.what} | {row.value:.4g} | {row.unit} | {spread} | {compared} |")
    (folder / "bench.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
