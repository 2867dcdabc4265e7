#!/usr/bin/env python3
"""Measures what is claimed about speed and memory; `make bench`. Speeds are also given as a share of a yardstick.

The modality-free data set: one million samples and one million combinations of them, made up, are built, streamed and
read in random order. Each part runs in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from omnibind_core.data import sources
from omnibind_core.data.modality_free.build import BuildConfig, SourceConfig, build
from omnibind_core.data.modality_free.dataset import INDEX, ModalityFree, sensors
from omnibind_core.data.modality_free.match_groups import Towers
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources import Source

_CONCEPTS = 1000
_READS = 5000


@sources.register
class MadeUp(Source):
    """Any number of samples that are all the same file; six sensor modalities, 1,000 labels, groups of ten."""

    name = "made_up"
    title = "made-up samples"
    licence = citation = homepage = ""
    modalities = sensors()
    splits = ("train", "val")
    layout = "one file"
    count = 0

    def _scan(self) -> Iterator[Sample]:
        for i in range(self.count):
            label, group = f"label {i % _CONCEPTS}", i // (10 * _CONCEPTS)
            split = "val" if group % 5 == 0 else "train"
            modality = self.modalities[i // _CONCEPTS % len(self.modalities)]
            name = f"{modality}-{i:09d}"
            yield Sample(name, modality, self.name, "file.bin", label, split, f"group {group}-{i % _CONCEPTS}")


def build_index(folder: Path, rows: int) -> int:
    """Builds; returns the number of rows done."""
    MadeUp.count = rows
    (folder / "file.bin").write_bytes(b"0")
    table = folder / "labels.csv"
    table.write_text("source,label,canonical\n" + "".join(f"made_up,label {i},{i}\n" for i in range(_CONCEPTS)))
    config = BuildConfig(
        sources=(SourceConfig(source="made_up"),), labels=str(table), total=rows, read=False, sha256=False
    )
    nothing = np.zeros((0, 1), np.float32)
    build(config, folder, folder / "index", Towers(lambda _: nothing, lambda *_: nothing))
    return 2 * rows  # samples and combinations


def stream_index(folder: Path, rows: int) -> int:
    """Streams all combinations."""
    return sum(1 for _ in ModalityFree.open(folder / "index").combinations())


def stream_columns(folder: Path, rows: int) -> int:
    """Streams all combinations as Arrow tables."""
    return sum(len(table) for table in ModalityFree.open(folder / "index").tables())


def plain_parquet(folder: Path, rows: int) -> int:
    """The yardstick: the same file read by pyarrow alone, in batches of its row groups."""
    return sum(len(batch) for batch in pq.ParquetFile(folder / "index" / INDEX).iter_batches(4096))


def read_randomly(folder: Path, rows: int) -> int:
    """Combinations in random order, with the facts of all their samples."""
    data = ModalityFree.open(folder / "index")
    for number in np.random.default_rng(0).integers(len(data), size=_READS).tolist():
        for name in data[number].samples.values():
            data.sample(name)
    return _READS


PARTS: dict[str, Callable[[Path, int], int]] = {
    "build": build_index,
    "stream as Arrow tables": stream_columns,
    "stream as combinations": stream_index,
    "read in random order": read_randomly,
    "pyarrow alone": plain_parquet,
}


def measure(name: str, folder: Path, rows: int) -> dict[str, float]:
    """Runs one part; seconds, rows, and growth of the peak of memory in MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    done = PARTS[name](folder, rows)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rows": done, "seconds": seconds, "growth": (peak - before) / 1024}


def main() -> int:
    """Measures at two sizes, so that growth with the number of rows shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="samples, and combinations (default: %(default)s)")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(measure(args.part, args.folder, args.rows)))
        return 0
    print(f"{'rows':>9}  {'part':24}{'rows/s':>12}{'of pyarrow':>12}{'peak memory grew by':>22}")
    for rows in (args.rows // 10, args.rows):
        with tempfile.TemporaryDirectory() as folder:
            found = {}
            for name in PARTS:
                command = [sys.executable, __file__, "--part", name, "--folder", folder, "--rows", str(rows)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name] = json.loads(done.stdout)
        speeds = {name: value["rows"] / value["seconds"] for name, value in found.items()}
        for name, value in found.items():
            share = speeds[name] / speeds["pyarrow alone"]
            print(f"{rows:9}  {name:24}{speeds[name]:12,.0f}{share:12.4f}{value['growth']:18.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
