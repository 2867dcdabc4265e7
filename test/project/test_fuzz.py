"""Hostile inputs: those that are kept and a short row of made ones fail nowhere, and what fails is noticed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rosbags")

# Readers that fail in every way in which one can, each by its own input.
FAILING = """
import os, signal, sys, time
from pathlib import Path
sys.argv[0] = sys.argv[1]
sys.path.insert(0, str(Path(sys.argv[1]).parent))
import fuzz
from tools.fuzzing import targets, worker
from omnibind_core.errors import DataError

fuzz._STUCK = 4.0


def read(path):
    word = path.read_bytes()
    if word == b"foreign":
        raise KeyError("a")
    if word == b"ours":
        raise DataError("no")
    if word == b"memory":
        bytearray(worker.BOUND + 2_000_000)
    if word == b"hidden":
        try:
            bytearray(1 << 45)
        except MemoryError as error:
            raise DataError("no") from error
    if word == b"death":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word in (b"slow", b"stuck"):
        end = time.process_time() + (1.1 if word == b"slow" else 60)
        while time.process_time() < end:
            pass


words = ("good", "ours", "foreign", "memory", "hidden", "death", "slow", "stuck", "good")
made = lambda: [(f"{n}.{word}", word.encode()) for n, word in enumerate(words)]
targets.TARGETS["each"] = targets.Target(made, read)
sys.exit(fuzz.main(["--only", "each", "--inputs", "0", "--jobs", "1", "--out", sys.argv[2]]))
"""


def test_every_way_to_fail_is_noticed(repo: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", FAILING, str(repo / "tools" / "fuzz.py"), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^each +9 +2 +1 +6 ", done.stdout, re.M), done.stdout
    kinds = {path.name: (path / "why.txt").read_text().split()[0] for path in (tmp_path / "each").iterdir()}
    assert sorted(kinds.values()) == ["death", "error", "memory", "memory", "slow", "stuck"]
    assert "KeyError" in (tmp_path / "each" / "2-error" / "why.txt").read_text()
    assert (tmp_path / "each" / "5-death" / "5.death").read_bytes() == b"death"


@pytest.mark.timeout(600)  # on a machine that is busy
def test_no_input_fails(repo: Path, tmp_path: Path) -> None:
    arguments = ["--inputs", "15", "--jobs", "1", "--seed", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        ["nice", sys.executable, str(repo / "tools" / "fuzz.py"), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^([\w.]+) +(\d+) +(\d+) +(\d+) +0 ", done.stdout, re.M)
    counts = {name: [int(number) for number in numbers] for name, *numbers in rows}
    assert len(counts) == 21
    assert all(runs == accepted + refused for runs, accepted, refused in counts.values())
    assert all(accepted > 1 for _, accepted, _ in counts.values())  # what is right is read: the rest says something
