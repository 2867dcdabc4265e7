"""Folders that are written as one, whatever happens meanwhile. What is killed is a child process."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from omnibind_core import files
from omnibind_core.errors import DataError
from omnibind_core.files import write_folder_atomically

OURS = ("a", "b*", "parts")

# Writes once for each thing that the system is asked for, and is killed there, until nothing is left to be killed at.
KILLED = """
import os, signal, sys, traceback
from pathlib import Path
from omnibind_core import files

root, exchanges = Path(sys.argv[1]), sys.argv[2] == "exchange"
if not exchanges:
    files._exchange = lambda one, other: False
files.ctypes.CDLL(None)


def fill(folder, text):
    for name in ("a", "b1", "parts/c"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def state(path):
    return {(path / name).read_text() for name in ("a", "b1", "parts/c")} if path.exists() else None


def write(path, text):
    with files.write_folder_atomically(path, ("a", "b*", "parts"), keep=True) as fresh:
        fill(fresh, text)


def killed_at(step, work):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    left = [step]

    def hook(event, arguments):
        if event.startswith(("os.", "shutil.", "ctypes.dlsym")) or event == "open":
            left[0] -= 1
            if left[0] == -1:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


step, seen = 0, set()
while True:
    place = root / str(step)
    path = place / "model"
    path.mkdir(parents=True)
    fill(path, "old")
    (path / "notes").mkdir()
    (path / "notes" / "mine").write_text("mine")
    killed = killed_at(step, lambda: write(path, "new"))
    found = state(path)
    seen.add(None if found is None else min(found))
    assert found in ({"old"}, {"new"}) or (found is None and not exchanges), (step, found)
    assert found is None or (path / "notes" / "mine").read_text() == "mine", step
    again = step % 2
    try:  # the next run, which fails itself every other time
        with files.write_folder_atomically(path, ("a", "b*", "parts"), keep=True) as fresh:
            fill(fresh, "third")
            assert not again
    except AssertionError:
        pass
    assert state(path) == ((found or {"old"}) if again else {"third"}), step
    assert (path / "notes" / "mine").read_text() == "mine", step
    assert os.listdir(place) == ["model"], (step, os.listdir(place))
    if not killed:
        break
    step += 1
print(step, seen)
assert step > 15 and {"old", "new"} <= seen and (None in seen) != exchanges
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fill(folder: Path, text: str) -> None:
    (folder / "a").write_text(text)
    (folder / "b1").write_text(text)


@pytest.mark.parametrize("how", ["exchange", "rename"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_folder(tmp_path, how):
    if how == "exchange":
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        if not files._exchange(tmp_path / "one", tmp_path / "two"):
            pytest.skip("this file system cannot exchange folders")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), how], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_failing_rename_leaves_what_was_there(tmp_path, monkeypatch, failing):
    path = tmp_path / "model"
    path.mkdir()
    fill(path, "old")
    rename, calls = Path.rename, []

    def fails(self, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output"), write_folder_atomically(path, OURS) as fresh:
        fill(fresh, "new")
    assert (path / "a").read_text() == (path / "b1").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    fill(path, "old")
    text = """
import resource, signal, sys
from pathlib import Path
from omnibind_core.files import write_folder_atomically

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with write_folder_atomically(Path(sys.argv[1]), ("a", "b*")) as fresh:
    (fresh / "a").write_text("new")
    (fresh / "b1").write_text("new" * 1000)
"""
    done = subprocess.run([sys.executable, "-c", text, str(path)], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert (path / "a").read_text() == (path / "b1").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_what_others_put_into_a_folder_meanwhile_survives(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    path = tmp_path / "model"
    path.mkdir()
    fill(path, "old")
    path.chmod(0o750)
    with write_folder_atomically(path, OURS) as fresh:
        fill(fresh, "new")
        (path / "mine").write_text("mine")
        (path / "b2").write_text("old")
    assert names(path) == ["a", "b1", "mine"]
    assert (path / "a").read_text() == "new" and (path / "mine").read_text() == "mine"
    assert path.stat().st_mode & 0o777 == 0o750
    with pytest.raises(DataError, match="holds mine, which would be lost"), write_folder_atomically(path, OURS):
        pass
    with write_folder_atomically(path, OURS, keep=True) as fresh:
        fill(fresh, "newer")
    assert (path / "a").read_text() == "newer" and (path / "mine").read_text() == "mine"


def test_what_a_running_process_writes_is_no_left_over(tmp_path):
    path, begun, ended = tmp_path / "model", threading.Event(), threading.Event()

    def slow() -> None:
        with write_folder_atomically(path, OURS) as fresh:
            begun.set()
            ended.wait(10)
            fill(fresh, "slow")

    thread = threading.Thread(target=slow)
    thread.start()
    begun.wait(10)
    with write_folder_atomically(path, OURS) as fresh:
        fill(fresh, "quick")
    assert (path / "a").read_text() == "quick"
    ended.set()
    thread.join()
    assert (path / "a").read_text() == "slow" and names(tmp_path) == ["model"]


def test_folders_of_others_are_no_left_overs(tmp_path):
    for name in (".model-abcdefgh", ".model-2-abcdefgh/old", ".model-notours/old"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".model-abcdefgh" / "mine").write_text("mine")
    with write_folder_atomically(tmp_path / "model", OURS) as fresh:
        fill(fresh, "new")
    assert names(tmp_path) == [".model-2-abcdefgh", ".model-abcdefgh", ".model-notours", "model"]


def test_a_link_to_a_folder_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    fill(tmp_path / "disk", "old")
    (tmp_path / "model").symlink_to("disk")
    with write_folder_atomically(tmp_path / "model", OURS) as fresh:
        fill(fresh, "new")
    assert (tmp_path / "model").is_symlink() and (tmp_path / "disk" / "a").read_text() == "new"
