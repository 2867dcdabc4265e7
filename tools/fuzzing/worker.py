"""A process of its own that reads inputs one by one, under limits of memory and time, and tells what came of each."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import resource
import struct
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from random import Random
from typing import IO, Any, NamedTuple

from tools.fuzzing import seeds
from tools.fuzzing.targets import TARGETS, Target, changed

BOUND = 1 << 30
"""Bytes that a process may grow by while it reads an input (docs/messages.md, "Bounds")."""
LONGEST = 1.0
"""S of one core that an input of less than 1 MB may take."""
_HARD = 3 * BOUND  # where the system refuses
_TRIES = 200  # to make a failing input smaller
_PATIENCE = 3.0  # s of the same
_REPOSITORY = Path(__file__).resolve().parents[2]
COUNTS = ("runs", "accepted", "refused", "failures", "slowest", "peak", "kept")
PROGRESS = struct.Struct(f"<q{len(COUNTS)}d")
"""What stands in the shared memory: number of the input that is being read, and what was counted before."""


class Failure(NamedTuple):
    """Why an input fails: a word, what tells it from others, and the whole story."""

    kind: str
    mark: str
    story: str


@dataclass
class Slice:
    """Inputs of one target that one process reads.

    Attributes:
        name: Of the target.
        base: Inputs that are read first, and that all others are made of.
        seed: Of all that is random.
        start: Number of the first input.
        inputs: How many; none: until the time is over.
        seconds: S until it is over.
        out: Folder for failing inputs.
    """

    name: str
    base: seeds.Seeds
    seed: int
    start: int
    inputs: int | None
    seconds: float
    out: Path


def made(part: Slice, number: int) -> tuple[str, bytes]:
    """Name and content of an input by its number."""
    if number < len(part.base):
        return part.base[number]
    rng = Random(f"{part.seed}/{part.name}/{number}")
    name, data = rng.choice(part.base)
    return name, changed(data, name, rng, [other for _, other in part.base])


def run(part: Slice, progress: mmap, report: IO[str]) -> None:
    """Reads the inputs of a slice; counts in the shared memory, and tells each failure of a new kind in a line."""
    target = TARGETS[part.name]
    _quieten(part)
    counts = dict.fromkeys(COUNTS, 0.0)
    known: set[str] = set()
    end = time.monotonic() + part.seconds
    number, kept = part.start, 0
    with tempfile.TemporaryDirectory(prefix="omnibind-fuzz-") as folder:
        while time.monotonic() < end if part.inputs is None else number < part.inputs:
            progress[: PROGRESS.size] = PROGRESS.pack(number, *counts.values())
            name, data = made(part, number)
            accepted, failure, spent, grown = judged(target, Path(folder, name), data)
            counts["runs"] += 1
            counts["accepted"] += accepted and failure is None
            counts["refused"] += not accepted and failure is None
            counts["slowest"], counts["peak"] = max(counts["slowest"], spent), max(counts["peak"], grown)
            if failure is not None:
                counts["failures"] += 1
                if failure.mark not in known:
                    known.add(failure.mark)
                    if failure.kind == "error":
                        data = _smaller(target, Path(folder, name), data, failure)
                    keep(part, number, name, data, failure)
                    print(failure.mark, file=report, flush=True)
            number += 1
            if number == len(part.base):
                gc.collect()
                kept = _status("VmRSS")
    gc.collect()
    counts["kept"] = max(0, _status("VmRSS") - kept) if kept else 0
    progress[: PROGRESS.size] = PROGRESS.pack(number, *counts.values())


def judged(target: Target, path: Path, data: bytes) -> tuple[bool, Failure | None, float, int]:
    """Whether an input is accepted, why it fails, s of one core, and bytes that the process grew by."""
    path.write_bytes(data)
    accepted, failure, spent, grown = _read(target, path)
    if failure is None and spent > LONGEST and len(data) < 1_000_000:
        again = _read(target, path)[2]  # what is imported once counts once
        spent = min(spent, again)
        if spent > LONGEST:
            failure = Failure("slow", f"slow {path.suffix}", f"{spent:.2f} s for {len(data)} bytes")
    with contextlib.suppress(OSError):
        path.unlink()
    return accepted, failure, spent, grown


def _read(target: Target, path: Path) -> tuple[bool, Failure | None, float, int]:
    size, peak = _status("VmSize"), _status("VmPeak")
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + _HARD, resource.RLIM_INFINITY))
    begin = time.process_time()
    accepted, failure = False, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
        accepted = True
    except target.refuses as error:
        if any(isinstance(one, MemoryError) for one in _chain(error)):
            failure = _failure("memory", error)
    except BaseException as error:
        failure = _failure("memory" if isinstance(error, MemoryError) else "error", error)
    spent, after = time.process_time() - begin, _status("VmPeak")
    grown = after - size if after > peak else 0
    if failure is None and grown > BOUND:
        failure = Failure("memory", f"memory {path.suffix}", f"{grown} bytes for {path.stat().st_size}")
    return accepted, failure, spent, grown


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _failure(kind: str, error: BaseException) -> Failure:
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if "/omnibind_" in one.filename] or list(frames)
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
    story = "".join(traceback.format_exception(error))
    return Failure(kind, f"{kind} {type(error).__name__} {place}", story)


def _smaller(target: Target, path: Path, data: bytes, failure: Failure) -> bytes:
    """The input without blocks that it fails without, too."""
    end, tries, block = time.monotonic() + _PATIENCE, _TRIES, len(data) // 2
    while block and tries and time.monotonic() < end:
        at = 0
        while at < len(data) and tries and time.monotonic() < end:
            shorter = data[:at] + data[at + block :]
            tries -= 1
            path.write_bytes(shorter)
            found = _read(target, path)[1]
            if found is not None and found.mark == failure.mark:
                data = shorter
            else:
                at += block
        block //= 2
    return data


def keep(part: Slice, number: int, name: str, data: bytes, failure: Failure) -> None:
    """Writes a failing input and why it fails."""
    folder = part.out / part.name / f"{number}-{failure.kind}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    (folder / "why.txt").write_text(f"{failure.mark}\n\n{failure.story}\n", encoding="utf-8", errors="replace")


def _status(name: str) -> int:
    """One of the sizes in /proc/self/status, bytes."""
    with open("/proc/self/status", "rb") as file:  # noqa: PTH123  # many times a second
        text = file.read()
    at = text.index(name.encode() + b":")
    return int(text[at:].split(None, 2)[1]) << 10


def _quieten(part: Slice) -> None:
    """What libraries print goes to a file, as does where a process was when it was killed."""
    part.out.mkdir(parents=True, exist_ok=True)
    log = os.open(part.out / f"{part.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(2)
    logging.disable(logging.CRITICAL)


def tried(name: str, path: Path) -> dict[str, Any]:
    """What comes of one input."""
    with tempfile.TemporaryDirectory(prefix="omnibind-fuzz-") as folder:
        data = path.read_bytes()
        accepted, failure, spent, grown = judged(TARGETS[name], Path(folder, path.name), data)
    return {"accepted": accepted, "failure": failure and failure.story, "seconds": spent, "grown": grown}


def corpus(folder: Path, name: str) -> Sequence[tuple[str, bytes]]:
    """Inputs that are kept, by name."""
    paths = sorted(path for path in (folder / name).rglob("*") if path.is_file())
    return [(path.name.partition("=")[2] or path.name, path.read_bytes()) for path in paths]
