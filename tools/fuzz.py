"""Feeds every reader with damaged, lying and hostile inputs, in processes with limits, and counts what comes of it.

    python tools/fuzz.py --minutes 10 --seed 1
    python tools/fuzz.py --try files.image out/fuzz/files.image/123-error/a.png

An input fails if it ends in an error that is not ours, kills the process, makes it grow by more than
the bound of docs/messages.md, or, of less than 1 MB, takes longer than a second. The same seed makes the same inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import mmap
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY))

os.environ.update(OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="1", OPENBLAS_NUM_THREADS="1")

from tools.fuzzing import worker  # noqa: E402
from tools.fuzzing.targets import TARGETS  # noqa: E402

_IMPORTED = ("open3d", "trimesh", "laspy", "h5py", "soundfile", "av", "aedat", "scipy.signal")  # once for all processes
_STUCK = 8.0  # s of one core after which an input is given up
_WAITING = 240.0  # s after which it is, even if it computes nothing


class _Child:
    """A process that reads a slice; another one goes on where it was killed."""

    def __init__(self, part: worker.Slice) -> None:
        self.part = part
        self.failures: dict[str, int] = {}
        self.deaths = 0
        self._ended = dict.fromkeys(worker.COUNTS, 0.0)
        self._end = time.monotonic() + part.seconds
        self._progress = mmap.mmap(-1, worker.PROGRESS.size)
        self._start()

    def _start(self) -> None:
        read, write = os.pipe()
        self._progress[:] = worker.PROGRESS.pack(self.part.start, *[0.0] * len(worker.COUNTS))
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            status = 1
            try:
                with os.fdopen(write, "w") as report:
                    worker.run(self.part, self._progress, report)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(write)
        self.pipe, self._text, self.done = read, b"", False
        self._number, self._spent, self._since = -1, 0.0, time.monotonic()

    @property
    def counts(self) -> dict[str, float]:
        """What was counted, with what processes counted that were killed."""
        peaks = ("slowest", "peak", "kept")
        one, other = self._ended, dict(zip(worker.COUNTS, self._told[1], strict=True))
        return {key: max(one[key], other[key]) if key in peaks else one[key] + other[key] for key in one}

    @property
    def _told(self) -> tuple[int, Sequence[float]]:
        """Number of the input, and what this process has counted."""
        number, *counts = worker.PROGRESS.unpack(self._progress[:])
        return number, counts

    def look(self) -> None:
        """Takes what the process tells; ends it if it is stuck; starts another if it has died."""
        if select.select([self.pipe], [], [], 0)[0]:
            block = os.read(self.pipe, 1 << 16)
            self._text += block
            *lines, self._text = self._text.split(b"\n")
            for line in lines:
                self._failed(line.decode())
            if not block:
                os.close(self.pipe)
                _, status = os.waitpid(self.pid, 0)
                self.done = status == 0
                if not self.done:
                    self._died(status)
                return
        self._watch()

    def _watch(self) -> None:
        number, _ = self._told
        spent = _cpu(self.pid)
        if number != self._number:
            self._number, self._spent, self._since = number, spent, time.monotonic()
        elif spent - self._spent > _STUCK or time.monotonic() - self._since > _WAITING:
            os.kill(self.pid, signal.SIGKILL)

    def _failed(self, mark: str) -> None:
        self.failures[mark] = self.failures.get(mark, 0) + 1
        print(f"  {self.part.name}: {mark}", flush=True)

    def _died(self, status: int) -> None:
        number, _ = self._told
        name, data = worker.made(self.part, number)
        code = os.waitstatus_to_exitcode(status)
        stuck = code == -signal.SIGKILL
        mark = f"{'stuck' if stuck else 'death'} {Path(name).suffix} {code}"
        log = (self.part.out / f"{self.part.name}.log").read_text(encoding="utf-8", errors="replace")[-5000:]
        worker.keep(self.part, number, name, data, worker.Failure("stuck" if stuck else "death", mark, log))
        self._failed(mark)
        self._ended = {**self.counts, "runs": self.counts["runs"] + 1, "failures": self.counts["failures"] + 1}
        self._progress[:] = worker.PROGRESS.pack(number, *[0.0] * len(worker.COUNTS))
        left = self._end - time.monotonic()
        self.part = replace(self.part, start=number + 1, seconds=left)
        self.done = left <= 0 if self.part.inputs is None else number + 1 >= self.part.inputs
        if not self.done:
            self._start()


def _cpu(pid: int) -> float:
    """S of one core that a process has taken."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if an input failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, help="so many changed inputs of each target, however long they take")
    parser.add_argument("--only", nargs="*", default=list(TARGETS), help="targets")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--corpus", type=Path, default=REPOSITORY / "test" / "corpus")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out" / "fuzz")
    parser.add_argument("--try", dest="tried", nargs=2, metavar=("TARGET", "FILE"), help="reads one input")
    options = parser.parse_args(arguments)
    if options.tried:
        told = worker.tried(options.tried[0], Path(options.tried[1]))
        print("\n".join(f"{key}: {value}" for key, value in told.items()))
        return int(told["failure"] is not None)
    import cv2
    import torch

    for module in _IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    begin = time.monotonic()
    bases = {name: [*TARGETS[name].seeds(), *worker.corpus(options.corpus, name)] for name in options.only}
    for name, base in bases.items():
        print(f"{name}: {len(base)} inputs to begin with, {sum(len(data) for _, data in base)} bytes", flush=True)
    left = options.minutes * 60 - (time.monotonic() - begin)
    seconds = max(1.0, left * options.jobs / len(bases))
    waiting = [
        worker.Slice(
            name,
            base,
            options.seed,
            0,
            None if options.inputs is None else len(base) + options.inputs,
            seconds,
            options.out,
        )
        for name, base in bases.items()
    ]
    running: list[_Child] = []
    ended: list[_Child] = []
    while waiting or running:
        while waiting and len(running) < options.jobs:
            running.append(_Child(waiting.pop(0)))
        select.select([child.pipe for child in running], [], [], 0.5)
        for child in [*running]:
            child.look()
            if child.done:
                running.remove(child)
                ended.append(child)
    return _tell(ended, time.monotonic() - begin)


def _tell(ended: Sequence[_Child], seconds: float) -> int:
    """Prints what was counted."""
    columns = ("runs", "accepted", "refused", "failures")
    print(f"{'target':22}{''.join(f'{one:>10}' for one in columns)}{'slowest s':>11}{'peak MB':>9}{'kept MB':>9}")
    total = dict.fromkeys(columns, 0.0)
    for child in ended:
        counts = child.counts
        for key in columns:
            total[key] += counts[key]
        row = "".join(f"{counts[key]:10.0f}" for key in columns)
        memory = f"{counts['peak'] / 1e6:9.0f}{counts['kept'] / 1e6:9.0f}"
        print(f"{child.part.name:22}{row}{counts['slowest']:11.2f}{memory}")
    print(f"{'all':22}{''.join(f'{total[key]:10.0f}' for key in columns)}   in {seconds:.0f} s")
    for child in ended:
        for mark in child.failures:
            print(f"FAILED {child.part.name}: {mark}: {child.part.out / child.part.name}")
    return int(total["failures"] > 0)


if __name__ == "__main__":
    sys.exit(main())
