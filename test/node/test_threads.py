"""How the threads of a process wait is settled before torch is imported."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SHOW = "import torch; torch.ones(1) @ torch.ones(1)"
CASES = {
    "node": f"import omnibind_ros.node.threads; {SHOW}",
    "predict": f"""
import sys
from omnibind_core import cli
from omnibind_core.commands import predict
def run(args):
    {SHOW}
    return 0
predict.run = run
cli.main(["predict"])
""",
}


@pytest.mark.parametrize(("case", "given"), [("node", None), ("predict", None), ("node", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(case, given):
    if case == "node":
        pytest.importorskip("omnibind_ros")
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "TRUE", **({} if given is None else {"OMP_WAIT_POLICY": given})}
    done = subprocess.run([sys.executable, "-c", CASES[case]], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("torch computes with another OpenMP than GNU's or LLVM's")
    assert f"OMP_WAIT_POLICY = '{given or 'PASSIVE'}'" in done.stderr


LARGE = """
import resource
{start}
import numpy as np
for _ in range(3):
    np.ones(10_000_000)  # 80 MB, which malloc maps anew each time by itself
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
STARTS = {
    "node": "import omnibind_ros.node.threads",
    "predict": CASES["predict"].replace(SHOW, "pass").replace("cli.main", "cli.sys.exit = print\ncli.main"),
}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize("case", list(STARTS))
def test_large_blocks_are_used_again(case):
    if case == "node":
        pytest.importorskip("omnibind_ros")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"  # which would make the pages few
    command = [sys.executable, "-c", LARGE.format(start=STARTS[case])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 1000  # of 20,000 pages of 4 KiB


PEAK = """
import omnibind_ros.node.threads
import numpy as np
from omnibind_core.allocation import Spare, resident
spare = Spare()
begin = resident()
parts = [np.ones(4_000_000) for _ in range(8)]  # 256 MB in blocks that are taken from the heap
last = np.ones(1000)  # above them, so that the heap cannot shrink by itself
spare.look()  # what is in use is not spare, nor the measure of it
del parts
held = resident() - begin
spare.look()
print(held >> 20, (resident() - begin) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_memory_goes_back_to_the_system_after_a_peak():
    pytest.importorskip("omnibind_ros")
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    held, kept = map(int, done.stdout.split())
    assert held > 200 and kept < 20, done.stdout
