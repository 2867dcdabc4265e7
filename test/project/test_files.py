"""Folders that are written as one, whatever happens meanwhile. What is killed is a child process."""

import atexit
import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from omnibind_core import cli, files
from omnibind_core.errors import DataError
from omnibind_core.files import write_atomically, write_folder_atomically

OURS = ("a", "b*", "parts")

# Writes once for each thing that the system is asked for, and is killed there, until nothing is left to be killed at.
KILLED = """
import os, signal, sys, traceback
from pathlib import Path
from omnibind_core import files

root, how = Path(sys.argv[1]), sys.argv[2]
if how != "exchange":
    files._exchange = lambda one, other: False
if how == "inside":
    files.os.path.ismount = lambda path: str(path).endswith("model")
files.ctypes.CDLL(None)


def fill(folder, text):
    for name in ("a", "b1", "parts/c"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def state(path):
    return {(path / name).read_text() for name in ("a", "b1", "parts/c")}


def write(path, text):
    with files.write_folder_atomically(path, ("a", "b*", "parts"), keep=True) as fresh:
        with files.write_folder_atomically(fresh, ("parts",), keep=True) as inner:
            (inner / "parts").mkdir()
            (inner / "parts" / "c").write_text(text)
        with files.write_atomically(fresh / "a") as temporary:
            temporary.write_text(text)
        (fresh / "b1").write_text(text)


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
    (path / "b2").write_text("old")
    (path / "notes").mkdir()
    (path / "notes" / "mine").write_text("mine")
    killed = killed_at(step, lambda: write(path, "new"))
    found = state(path)
    seen.add("".join(sorted(found)))
    assert len(found) == 1 or (how != "exchange" and (path / "a").read_text() == "new"), (step, found)
    assert (path / "notes" / "mine").read_text() == "mine", step
    if step % 3:  # whoever reads it next
        files.recover(path)
        assert os.listdir(place) == ["model"] and len(state(path)) == 1, (step, os.listdir(place), state(path))
        assert (path / "b2").exists() == (state(path) == {"old"}), step
    again = step % 2
    try:  # the next run, which fails itself every other time
        with files.write_folder_atomically(path, ("a", "b*", "parts"), keep=True) as fresh:
            whole = state(path)
            assert whole == {"new"} or whole == found == {"old"}, (step, found, whole)
            fill(fresh, "third")
            assert not again
    except AssertionError:
        pass
    assert state(path) == (whole if again else {"third"}), step
    assert sorted(os.listdir(path)) == ["a", "b1", *["b2"] * (state(path) == {"old"}), "notes", "parts"], step
    assert (path / "notes" / "mine").read_text() == "mine", step
    assert os.listdir(place) == ["model"], (step, os.listdir(place))
    if not killed:
        break
    step += 1
print(step, seen)
assert step > 15 and {"old", "new"} <= seen and ("newold" in seen) != (how == "exchange")
"""


# The same for a single file, which a library may write as another one that it gives the name.
KILLED_FILE = """
import os, signal, sys, traceback
from pathlib import Path
from omnibind_core import files

root, step = Path(sys.argv[1]), 0
path = root / "a.txt"


def write(text):
    with files.write_atomically(path) as temporary:
        temporary.with_suffix(".part").write_text(text)
        temporary.with_suffix(".part").replace(temporary)


def killed_at(step):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    left = [step]

    def hook(event, arguments):
        if event.startswith(("os.", "shutil.")) or event == "open":
            left[0] -= 1
            if left[0] == -1:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        write("new")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


seen = set()
while True:
    write("old")
    assert os.listdir(root) == ["a.txt"], (step, os.listdir(root))
    killed = killed_at(step)
    seen.add(path.read_text())
    if not killed:
        break
    step += 1
assert seen == {"old", "new"} and step > 8, (seen, step)
"""

# Runs as one who may write only what the modes of files allow, root or not.
AS_ANYBODY = """
import sys
from pathlib import Path
import numpy as np
from omnibind_core import cli
from omnibind_core.blocks import Blocks
from omnibind_core.files import write_atomically

root = Path(sys.argv[1])
rows = np.ones((2, 3), np.float32)
known = Blocks(root / "cache")
known.add(["00" * 16, "11" * 16], rows)
known.flush()
(root / "cache").chmod(0o500)
assert (Blocks(root / "cache").gather(["11" * 16]) == 1).all()  # of another user, but all is known
(root / "data").chmod(0o500)
for out in (root / "data" / "built", root / "file" / "built"):
    try:
        cli.main(["data", "build", "--config", "mini", "--root", str(root), "--out", str(out)])
    except SystemExit as end:
        print("status", end.code, file=sys.stderr)
with write_atomically(root / "data" / "labels.csv"):
    pass
"""

# Holds a folder until it is killed.
HOLDS = """
import contextlib, sys, time
from pathlib import Path
from omnibind_core import files

path = Path(sys.argv[2])
with contextlib.ExitStack() as stack:
    if sys.argv[1] == "only_one":
        stack.enter_context(files.only_one(path))
    else:
        fresh = stack.enter_context(files.write_folder_atomically(path, ("a", "b*")))
    if sys.argv[1] == "nested":
        stack.enter_context(files.write_folder_atomically(fresh, ("a",), keep=True))
    print("held", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fill(folder: Path, text: str) -> None:
    (folder / "a").write_text(text)
    (folder / "b1").write_text(text)


@pytest.mark.parametrize("how", ["exchange", "beside", "inside"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_folder(tmp_path, how):
    if how == "exchange":
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        if not files._exchange(tmp_path / "one", tmp_path / "two"):
            pytest.skip("this file system cannot exchange folders")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), how], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_file_that_cannot_be_put_in_place_is_so_later(tmp_path, monkeypatch, failing):
    path = tmp_path / "model"
    path.mkdir()
    for name in ("a", "b1", "b2"):
        (path / name).write_text("old")
    replace, calls = Path.replace, []

    def fails(self, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(Path, "replace", fails)
        with write_folder_atomically(path, OURS) as fresh:
            for name in ("a", "b1", "b2"):
                (fresh / name).write_text("new")
    assert [(path / name).read_text() for name in ("a", "b1", "b2")] == ["new"] * (failing - 1) + ["old"] * (
        4 - failing
    )
    assert not files.recover(path)
    assert {(path / name).read_text() for name in ("a", "b1", "b2")} == {"new"}
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


def test_folders_of_others_are_no_left_overs(tmp_path, monkeypatch):
    mine = [".model-abcdefgh/new", ".omnibind-model-2-abcdefgh/new", ".omnibind-model-ownfiles/new"]
    for name in mine:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".omnibind-model-ownfiles" / "thesis.txt").write_text("mine")
    with write_folder_atomically(tmp_path / "model", OURS) as fresh:
        fill(fresh, "new")
    assert names(tmp_path) == [*(name.removesuffix("/new") for name in mine), "model"]
    (tmp_path / ".omnibind-model-abcdefgh").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "geteuid", lambda: os.getuid() + 1)  # another user's
        files.recover(tmp_path / "model")
    assert ".omnibind-model-abcdefgh" in names(tmp_path)
    files.recover(tmp_path / "model")
    assert names(tmp_path) == [*(name.removesuffix("/new") for name in mine), "model"]


def test_a_folder_that_is_taken_for_a_left_over_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    path, made = tmp_path / "model", []
    mkdtemp = files.tempfile.mkdtemp

    def raced(**kwargs):
        made.append(mkdtemp(**kwargs))
        if len(made) == 1:
            files.recover(path)  # by a process that starts just now
            assert not Path(made[0]).exists()
        return made[-1]

    monkeypatch.setattr(files.tempfile, "mkdtemp", raced)
    with write_folder_atomically(path, OURS) as fresh:
        fill(fresh, "new")
    assert len(made) == 2 and (path / "a").read_text() == "new" and names(tmp_path) == ["model"]


def test_where_nothing_can_be_locked_left_overs_go_when_they_are_old(tmp_path, monkeypatch):
    path = tmp_path / "model"
    monkeypatch.setattr(files, "_lock", lambda handle: False)
    with write_folder_atomically(path, OURS) as fresh:
        fill(fresh, "newer")
    left = tmp_path / ".omnibind-model-abcdefgh"
    (left / "new").mkdir(parents=True)
    fill(left / "new", "killed")
    files._plan(left, path, ["a", "b1"], OURS)
    assert not files.recover(path)  # it may be at work
    assert left.exists()
    os.utime(left, (0, 0))
    files.recover(path)
    assert names(tmp_path) == ["model"] and (path / "a").read_text() == "newer"


@pytest.mark.parametrize("exchanges", [True, False])
def test_what_others_replace_in_a_folder_meanwhile_stays_replaced(tmp_path, monkeypatch, exchanges):
    path = tmp_path / "model"
    for name in ("mine", "notes/mine"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("1")
    exchange = files._exchange

    def late(one, other):
        for name in ("mine", "notes/mine"):
            (path / "other").write_text("2")
            (path / "other").replace(path / name)
        return exchanges and exchange(one, other)

    monkeypatch.setattr(files, "_exchange", late)
    with write_folder_atomically(path, OURS, keep=True) as fresh:
        fill(fresh, "new")
    assert (path / "mine").read_text() == (path / "notes" / "mine").read_text() == "2"
    assert (path / "a").read_text() == "new" and names(path) == ["a", "b1", "mine", "notes"]


def test_what_cannot_be_removed_fails_nothing(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    fill(path, "old")

    def fails(self):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", fails)
        with write_folder_atomically(path, OURS) as fresh:
            fill(fresh, "new")
    assert (path / "a").read_text() == (path / "b1").read_text() == "new" and len(names(tmp_path)) == 2
    files.recover(path)
    assert names(tmp_path) == ["model"]


def test_a_folder_is_replaced_though_nothing_may_be_written_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    fill(path, "old")
    access, inode = os.access, path.stat().st_ino
    monkeypatch.setattr(files.os, "access", lambda place, mode: Path(place) != tmp_path and access(place, mode))
    with write_folder_atomically(path, OURS) as fresh:
        assert names(tmp_path) == ["model"] and fresh.is_relative_to(path)
        (fresh / "a").write_text("new")
    assert (path / "a").read_text() == "new" and names(path) == ["a"] and path.stat().st_ino == inode
    with pytest.raises(PermissionError, match="another"):
        files.check_replaceable(tmp_path / "another", OURS)


def test_a_link_to_a_folder_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    fill(tmp_path / "disk", "old")
    (tmp_path / "model").symlink_to("disk")
    with write_folder_atomically(tmp_path / "model", OURS) as fresh:
        fill(fresh, "new")
    assert (tmp_path / "model").is_symlink() and (tmp_path / "disk" / "a").read_text() == "new"


def test_a_kill_at_any_step_leaves_the_old_or_the_new_file(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED_FILE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, done = tmp_path / "a.txt", []
    to_disk = files._to_disk

    def noted(place):
        done.append((place.name, place.read_text() if place.is_file() else "", path.exists()))
        to_disk(place)

    monkeypatch.setattr(files, "_to_disk", noted)
    with write_atomically(path) as temporary:
        temporary.write_text("new")
    assert done == [("a.txt", "new", False), (tmp_path.name, "", True)]


@pytest.mark.parametrize("how", ["syncfs", "sync", "neither"])
def test_many_files_are_on_the_disk_by_one_call(tmp_path, monkeypatch, how):
    done, to_disk, sync = [], files._to_disk, os.sync
    monkeypatch.setattr(files, "_to_disk", lambda place: done.append(place.name) or to_disk(place))
    monkeypatch.setattr(files.os, "sync", lambda: done.append("sync") or sync())
    if how != "syncfs":
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    if how == "neither":
        monkeypatch.delattr(files.os, "sync")
    with write_folder_atomically(tmp_path / "many", ["*"]) as fresh:
        for number in range(files._MANY):
            (fresh / f"{number}.txt").write_text("x")
    assert len(names(tmp_path / "many")) == files._MANY and done.count("sync") == (how == "sync")
    assert ("7.txt" in done) == (how == "neither")


def test_what_syncfs_cannot_write_fails(tmp_path, monkeypatch):
    class Full:
        @staticmethod
        def syncfs(handle):
            ctypes.set_errno(28)
            return -1

    monkeypatch.setattr(files, "_MANY", 1)
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: Full)
    with pytest.raises(OSError, match="No space left"), write_folder_atomically(tmp_path / "model", OURS) as fresh:
        fill(fresh, "new")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["m" * 237, "m" * 255, "ü" * 127], ids=["237", "255", "wide"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, monkeypatch, name):
    """What a killed one left of it is found, and finished at that name."""
    path, twin = tmp_path / name, tmp_path / (name[:-1] + "x")
    with write_atomically(path) as temporary:
        temporary.write_text("a file")
    path.unlink()
    twin.mkdir()
    fill(twin, "twin")
    with write_folder_atomically(path, OURS) as fresh:
        fill(fresh, "old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(files, "_exchange", lambda one, other: False)
        patch.setattr(Path, "replace", lambda self, to: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with write_folder_atomically(path, OURS) as fresh:
            fill(fresh, "new")
    assert len(names(tmp_path)) == 3 and not files.clear(tmp_path, twin.name) and len(names(tmp_path)) == 3
    assert not files.recover(path)
    assert names(tmp_path) == sorted([path.name, twin.name]) and (path / "a").read_text() == "new"
    assert (twin / "a").read_text() == "twin"


def test_files_that_another_process_writes_are_no_left_overs(tmp_path):
    (tmp_path / ".omnibind-a.txt-notours1").mkdir()
    (tmp_path / ".omnibind-a.txt-notours1" / "mine").touch()
    with write_atomically(tmp_path / "a.txt") as slow:
        slow.write_text("slow")
        with write_atomically(tmp_path / "a.txt") as quick:
            quick.write_text("quick")
        assert files.clear(tmp_path)
        assert (tmp_path / "a.txt").read_text() == "quick"
    assert (tmp_path / "a.txt").read_text() == "slow" and names(tmp_path) == [".omnibind-a.txt-notours1", "a.txt"]


@pytest.mark.parametrize("how", ["only_one", "alone", "nested"])
def test_a_folder_that_a_process_holds_is_refused_until_it_ends(tmp_path, how):
    path = tmp_path / "out"

    def begin():
        return files.only_one(path) if how == "only_one" else write_folder_atomically(path, OURS, alone=True)

    with subprocess.Popen([sys.executable, "-c", HOLDS, how, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=r"another process writes .*out"), begin():
            pass
        holder.kill()
    with begin():
        pass
    assert names(tmp_path) == ["out"] and names(path) == []


def test_the_folder_that_is_worked_in_stays_the_same(tmp_path, monkeypatch):
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "deep")
    for number, path in enumerate((Path(), tmp_path / "work", Path(), tmp_path / "work")):
        with write_folder_atomically(path, OURS, keep=True) as fresh:
            fill(fresh, str(number))
        assert (path / "a").read_text() == str(number)
        assert Path.cwd() == tmp_path / "work" / "deep" and names(Path()) == ["a", "b1"]


def _without_root() -> None:
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP of CAP_DAC_OVERRIDE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the capabilities of Linux")
def test_where_one_may_not_write_is_said_in_a_sentence(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "samples.csv").write_text("id,modality,source,path,label,split,group\n1,image,s,a.png,dog,train,\n")
    command = [sys.executable, "-c", AS_ANYBODY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_without_root)
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith(("omnibind:", "status", "Traceback"))] == [
        f"omnibind: {tmp_path / 'data' / 'built'}: Permission denied",
        "status 2",
        f"omnibind: {tmp_path / 'file'}: File exists",
        "status 2",
        "Traceback (most recent call last):",  # this is not through the command line
        "Traceback (most recent call last):",
    ], done.stderr
    assert lines[-1] == f"PermissionError: [Errno 13] Permission denied: '{tmp_path / 'data' / 'labels.csv'}'"
    assert not list((tmp_path / "data").iterdir())


def test_a_user_without_name_and_home_gets_one_for_the_time(monkeypatch, capsys):
    for name in ("HOME", "OMNIBIND_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    kept = []
    monkeypatch.setattr(atexit, "register", lambda *call, **named: kept.append((call, named)))
    with pytest.raises(OSError, match="no home folder"):
        files.cache_folder()
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert files.cache_folder().is_relative_to(os.environ["HOME"]) and os.access(os.environ["HOME"], os.W_OK)
    assert capsys.readouterr().err.startswith("omnibind: this user has no home folder")
    ((remove, home), named) = kept.pop()
    remove(home, **named)
    assert not Path(os.environ["HOME"]).exists()
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("OMNIBIND_CACHE", "/somewhere")
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert not capsys.readouterr().err
    kept[0][0][0](kept[0][0][1])
