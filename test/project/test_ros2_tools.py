"""The script that drives the node with the real ``ros2`` commands, where none or made-up ones are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "ros2_tools.py"
FAKE = """#!/bin/sh
case "$*" in
  *--help) case "$1" in {verbs}) exit 0;; *) echo "ros2: error: argument: invalid choice: '$1'" >&2; exit 2;; esac;;
  *) exit 3;;
esac
"""


def run(folder: Path, verbs: str | None) -> subprocess.CompletedProcess[str]:
    if verbs is not None:
        fake = folder / "ros2"
        fake.write_text(FAKE.format(verbs=verbs))
        fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:/bin"}
    return subprocess.run([sys.executable, str(TOOL)], env=environment, capture_output=True, text=True, check=False)


def test_without_ros2_it_says_what_it_skipped(tmp_path: Path) -> None:
    if any((Path(folder) / "ros2").exists() for folder in ("/bin", "/usr/bin")):
        pytest.skip("ros2 is installed system-wide")
    done = run(tmp_path, None)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("skipped  everything: there is no ros2 on the PATH")


def test_commands_that_are_not_installed_are_skipped(tmp_path: Path) -> None:
    done = run(tmp_path, "param|interface")
    assert done.returncode == 0, done.stderr
    assert "skipped  ros2 lifecycle" in done.stdout
    assert "not installed: apt install ros-$ROS_DISTRO-ros2lifecycle" in done.stdout
    assert "neither ros2 launch nor ros2 run is installed" in done.stdout
    assert done.stdout.rstrip().endswith("0 passed, 0 failed, 8 skipped")


def test_a_step_that_fails_fails_the_script(tmp_path: Path) -> None:
    done = run(tmp_path, "run|node")
    assert done.returncode == 1, done.stderr
    assert "FAILED   ros2 run omnibind_ros fusion_node" in done.stdout
    assert "it ended with status 3" in done.stdout
