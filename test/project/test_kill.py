"""The tool that kills commands while they write: it sees what is broken, and nothing of ours is."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omnibind_core import cli, files


@pytest.fixture
def kill(repo, monkeypatch):
    pytest.importorskip("lightning_fabric")
    pytest.importorskip("matplotlib")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    spec = importlib.util.spec_from_file_location("kill", repo / "tools" / "kill.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill", module)
    spec.loader.exec_module(module)
    return module


def write(folder, text):
    for number in range(10):
        (folder / str(number)).write_text(text)
        time.sleep(0.002)


def whole(words):
    """A command that keeps what is promised."""
    with files.write_folder_atomically(Path(words[0]), ("*",)) as fresh:
        write(fresh, words[1])


def in_place(words):
    """One that does not."""
    Path(words[0]).mkdir(exist_ok=True)
    write(Path(words[0]), words[1])


def untidy(words):
    """One that leaves something behind."""
    Path(words[0]).with_name(".left").touch()
    whole(words)


@pytest.mark.parametrize(
    ("command", "broken"),
    [(whole, ""), (in_place, "is neither the old nor the new one"), (untidy, "left behind: .left")],
    ids=["whole", "in place", "untidy"],
)
def test_broken_promises_are_seen(command, broken, kill, tmp_path, monkeypatch):
    def main(words):
        command(words)
        sys.exit(0)

    place = kill.Place(tmp_path / "shared", tmp_path / "own")
    (place.shared / "old" / "out").mkdir(parents=True)
    write(place.shared / "old" / "out", "1")
    monkeypatch.setattr(cli, "main", main)
    toy = kill.Command(lambda place, seed: [str(place.own / "out"), str(seed)], "out", lambda folder: None)
    monkeypatch.setitem(kill.COMMANDS, "toy", toy)
    trials = kill.Trials("toy", place, random.Random(1))
    for _ in range(40):  # some are done before their moment comes
        if trials.count.kills < 8:
            trials.kill()
    assert trials.count.kills == 8
    assert bool(trials.count.broken) == bool(broken)
    if broken:
        assert any(broken in sentence for sentence in trials.count.broken)
    else:
        assert trials.count.found["old"] > 0 and sum(trials.count.found.values()) == trials.count.kills
        assert trials.count.left > 0
    assert f"toy          {trials.count.kills:5}" in kill.table({"toy": trials.count})


@pytest.mark.slow
@pytest.mark.ros
def test_every_command_survives_kills(repo):
    pytest.importorskip("rclpy")
    pytest.importorskip("lightning_fabric")
    command = [sys.executable, str(repo / "tools" / "kill.py"), "--kills", "16"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 kills, 0 promises broken" in done.stdout
