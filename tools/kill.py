"""``make kill``: ends commands with ``kill -9`` while they write, and looks at what is left.

    python tools/kill.py --kills 200 --seed 1   # of all commands
    python tools/kill.py --kills 10 --only export "bag make"

Each command is a process of its own, forked from one that has imported what it needs, with small made-up data and a
small model. It is killed when its folders change for the n-th time, or some time after they first did; the seed chooses
which. Then what is there must be what was there before, or what an undisturbed run writes, byte for byte; our own
loaders must read it; the command, run again, must end in the same bytes, and leave nothing behind. Files of others must
still be there. Of a recording, at most the last second may be missing. Prints a table of counts; exit status 1 if a
promise was broken.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # processes are forked

import argparse
import contextlib
import csv
import fnmatch
import hashlib
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import lightning_fabric  # noqa: F401  so that children have it
import matplotlib.pyplot  # noqa: F401
import numpy as np
import torch
import yaml

from omnibind_core import OmniBind, cli
from omnibind_core.data.modality_free.dataset import ModalityFree
from omnibind_core.data.modality_free.verify import verify
from omnibind_core.evaluation.report.check import faults
from omnibind_core.evaluation.report.document import digest
from omnibind_core.features.adaptation import read_homes

WORDS = ("cup", "dog", "car")
TOPIC = "/kill/words"
RATE = 5.0  # Hz
MOST_LOST = 1.0  # s
_PATIENCE = 300.0  # s for a command that is not killed
_OTHERS = "mine.txt"
_SKIPPED = (_OTHERS, "figures.json", "log/*", "checkpoints/*", "earlier-*/*")  # has times, or is not a result


class BrokenError(Exception):
    """A promise was broken."""


@dataclass
class Count:
    """What came of the kills of one command."""

    kills: int = 0
    found: Counter[str] = field(default_factory=Counter)
    left: int = 0
    lost: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


@dataclass
class Place:
    """Folders of a trial; they have the same names in all, since some files name them.

    Attributes:
        shared: What no trial changes: data, models, features.
        own: Is made anew for each trial.
    """

    shared: Path
    own: Path

    @property
    def data(self) -> Path:
        """What is learned from."""
        return self.shared / "data"


# --- processes --------------------------------------------------------------------------------------------------------


def begin(words: Sequence[str], log: Path, cache: Path) -> int:
    """Runs the command line in a process of its own.

    Returns:
        Its id.
    """
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setpgid(0, 0)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w"), write_through=True) for number in (1, 2))
        os.environ["OMNIBIND_CACHE"] = str(cache)
        try:
            cli.main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def look(folders: Sequence[Path]) -> tuple[Any, ...]:
    """Everything that changes when something is written into folders."""
    found = []
    waiting = [str(folder) for folder in folders]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((entry.path, status.st_ino, status.st_size, status.st_mtime_ns))
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return tuple(sorted(found))


@dataclass
class Moment:
    """When to kill: at a change of the folders, or some time after the first one; by default never."""

    change: int = 0
    after: float = 0.0
    delay: float = 0.0


@dataclass
class Ended:
    """How a process ended, how often its folders changed and for how long."""

    status: int
    changes: int
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.status == -signal.SIGKILL


def watch(process: int, folders: Sequence[Path], moment: Moment) -> Ended:
    """Kills a process at a moment, if it lives until then."""
    before, changes, first, last = look(folders), 0, 0.0, 0.0
    deadline = time.monotonic() + _PATIENCE
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        now = time.monotonic()
        if ended:
            return Ended(os.waitstatus_to_exitcode(status), changes, last - first)
        seen = look(folders)
        if seen != before:
            before, changes, last = seen, changes + 1, now
            first = first or now
        due = moment.change and changes >= moment.change
        if due or (moment.after and first and now - first >= moment.after):
            time.sleep(moment.delay)
            os.kill(process, signal.SIGKILL)
            return Ended(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), changes, now - first)
        if now > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise BrokenError(f"it did not end within {_PATIENCE:.0f} s")
        time.sleep(0.0002)


# --- what is there ----------------------------------------------------------------------------------------------------


def content(folder: Path) -> str:
    """A hash of the files of a result and of their names; "none" if there is none."""
    whole = hashlib.sha256()
    found = False
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(fnmatch.fnmatch(name, pattern) for pattern in _SKIPPED):
            whole.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
            found = True
    return whole.hexdigest() if found else "none"


def left(folder: Path) -> list[Path]:
    """What is there only while something is written."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith(".tmp")]


def model_is_whole(folder: Path) -> None:
    """By its loader, and checkpoints, if there are some."""
    OmniBind.from_pretrained(folder)
    read_homes(folder)
    json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    for path in folder.glob("checkpoints/*.ckpt"):
        torch.load(path, weights_only=True)


def report_is_whole(folder: Path) -> None:
    """By its digest and its files."""
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if digest(told) != told["digest"] or faults(told):
        raise BrokenError("the report contradicts itself")
    tables = {path.stem for path in (folder / "tables").glob("*.csv")}
    if tables != set(told["tables"]) or "</html>" not in (folder / "report.html").read_text(encoding="utf-8"):
        raise BrokenError("the report has not all of its files")


def build_is_whole(folder: Path) -> None:
    """By its own check."""
    ModalityFree.open(folder)
    found = verify(folder)
    if found.problems:
        raise BrokenError("; ".join(found.problems))


def export_is_whole(folder: Path) -> None:
    """By its manifest."""
    told = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    for name in (one["file"] for one in told["parts"].values()):
        if not (folder / name).stat().st_size:
            raise BrokenError(f"{name} is empty")


def bag_is_whole(folder: Path) -> None:
    """By its messages and its table."""
    from omnibind_ros.bags import read, scene_bag

    if not [*read.messages(folder)] or not scene_bag.read_labels(folder / "truth.csv"):
        raise BrokenError("the bag is empty")


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass
class Command:
    """A command that is killed.

    Attributes:
        words: Its arguments, with a seed that makes the result another one.
        result: Folder of the result, in the trial's own.
        whole: Raises if that is not whole.
        replaces: Whether it replaces an older result.
        shares: Whether others may have files in the folder of the result.
        statuses: That mean that it was done.
        cache: Folder of the cache, if features are what is watched.
    """

    words: Callable[[Place, int], list[str]]
    result: str
    whole: Callable[[Path], None]
    replaces: bool = True
    shares: bool = False
    statuses: tuple[int, ...] = (0,)
    cache: str = ""


def _train(stage: str) -> Callable[[Place, int], list[str]]:
    def words(place: Place, seed: int) -> list[str]:
        sets = (f"seed={seed}", f"out={place.own / 'out'}")
        return ["train", stage, "--config", str(place.shared / "train.yaml"), *(w for s in sets for w in ("--set", s))]

    return words


def _build(place: Place, seed: int) -> list[str]:
    config, root, out = str(place.shared / "build.yaml"), str(place.data), str(place.own / "built")
    return ["data", "build", "--config", config, "--root", root, "--out", out, "--set", f"seed={seed}"]


def _eval(place: Place, seed: int) -> list[str]:
    model, out = str(place.shared / "old" / "out" / "model"), str(place.own / "report")
    given = ["--data", str(place.data), "--labels", str(place.data / "labels.csv"), "--tables", "single", "sources"]
    return ["eval", "--model", model, *given, "--baselines", "--count", "20", "--seed", str(seed), "--out", out]


def _export(place: Place, seed: int) -> list[str]:
    model = place.shared / "old" / "out" / ("align" if seed == 1 else "model")
    return ["export", str(model), "--out", str(place.own / "exported")]


def _make(place: Place, seed: int) -> list[str]:
    labels, model = str(place.data / "labels.csv"), str(place.shared / "old" / "out" / "model")
    given = ["--data", str(place.data), "--labels", labels, "--model", model, "--seed", str(seed)]
    return ["bag", "make", *given, "--scenes", "3", "--seconds", "1", "--out", str(place.own / "made")]


COMMANDS = {
    "train align": Command(_train("align"), "out/align", model_is_whole, shares=True),
    "train fuse": Command(_train("fuse"), "out/model", model_is_whole, shares=True),
    "features": Command(_train("align"), "out/align", model_is_whole, replaces=False, cache="cache"),
    "data build": Command(_build, "built", build_is_whole),
    "eval": Command(_eval, "report", report_is_whole, shares=True),
    "bag make": Command(_make, "made", bag_is_whole, replaces=False),
    "export": Command(_export, "exported", export_is_whole, statuses=(0, 1)),
}
RECORD = "bag record"


def write_data(shared: Path) -> None:
    """Three things by three modalities, and the settings."""
    root, rng, rows = shared / "data", np.random.default_rng(0), []
    root.mkdir(parents=True)
    for split, count in (("train", 5), ("val", 2)):
        for index, word in enumerate(WORDS):
            for number in range(count):
                stem = f"{split}-{word}-{number}"
                image = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
                image[..., index] = 220
                cv2.imwrite(str(root / f"{stem}.png"), image)
                cloud = rng.uniform(-1, 1, (64, 3)) * [(1, 1, 1), (1, 1, 0.1), (1, 0.1, 0.1)][index]
                np.savez(root / f"{stem}.npz", points=cloud.astype(np.float32))
                for modality, suffix in (("image", "png"), ("thermal", "png"), ("point_cloud", "npz")):
                    rows.append((f"{modality}-{stem}", modality, "made", f"{stem}.{suffix}", word, split, stem))
    with (root / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("id", "modality", "source", "path", "label", "split", "group"))
        table.writerows(rows)
    lines = "".join(f"made,{word},{word},1.0,same word\n" for word in WORDS)
    (root / "labels.csv").write_text(f"source,label,canonical,score,reason\n{lines}", encoding="utf-8")
    stage = {"steps": 10, "batch": 9, "checkpoint_every": 2}
    train: dict[str, Any] = {"model": "tiny", "data": str(root), "labels": str(root / "labels.csv"), "device": "cpu"}
    train |= {"augmentations": 1, "image_text": {**stage, "steps": 4}, "align": stage, "fuse": stage}
    (shared / "train.yaml").write_text(yaml.safe_dump(train), encoding="utf-8")
    build: dict[str, Any] = {"sources": [{"source": "folder"}], "total": 60, "splits": {"train": 2, "val": 1}}
    build["labels"] = str(root / "labels.csv")
    (shared / "build.yaml").write_text(yaml.safe_dump(build), encoding="utf-8")


class Trials:
    """Kills one command again and again.

    Args:
        name: Of the command.
        place: Where.
        rng: Chooses the moments.
    """

    def __init__(self, name: str, place: Place, rng: random.Random) -> None:
        self.name, self.place, self.rng = name, place, rng
        self.command = COMMANDS[name]
        self.count = Count()
        self.result = place.own / self.command.result
        self.cache = place.own / self.command.cache if self.command.cache else place.shared / "cache"
        self.watched = [self.cache] if self.command.cache else [self.result.parent]
        self._reset()
        self.old = content(self.result)
        runs = [self._whole_run() for _ in range(2)]
        self.new = content(self.result)
        self.changes, self.seconds = runs[0].changes, max(run.seconds for run in runs)

    def _whole_run(self) -> Ended:
        self._reset()
        ended = watch(self._begin(), self.watched, Moment())
        if ended.status not in self.command.statuses:
            raise BrokenError(f"it ended with status {ended.status}: {self._told()}")
        self.command.whole(self.result)
        return ended

    def _begin(self, *more: str) -> int:
        words = [*self.command.words(self.place, 2), *more]
        return begin(words, self.place.shared / "log.txt", self.cache)

    def _told(self) -> str:
        return (self.place.shared / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:].strip()

    def _reset(self) -> None:
        """The folders of a trial, with a result of another seed in them if it is one that is replaced."""
        shutil.rmtree(self.place.own, ignore_errors=True)
        self.place.own.mkdir()
        if self.command.replaces:
            source = self.place.shared / "old" / self.command.result.split("/")[0]
            shutil.copytree(source, self.place.own / source.name)
        if self.command.shares:
            (self.result / _OTHERS).write_text("mine", encoding="utf-8")

    def kill(self) -> None:
        """One kill, and what is promised of it."""
        moment = Moment(after=self.rng.uniform(0.001, self.seconds))
        if self.rng.random() < 0.75:
            moment = Moment(self.rng.randint(1, max(1, self.changes)), delay=self.rng.uniform(0, 0.003))
        self._reset()
        ended = watch(self._begin(), self.watched, moment)
        if not ended.killed:
            if ended.status not in self.command.statuses:
                raise BrokenError(f"it ended with status {ended.status}: {self._told()}")
            return
        self.count.kills += 1
        try:
            self._judge()
        except BrokenError as error:
            self.count.broken.append(f"{self.name}, {moment}: {error}")
        except Exception as error:
            self.count.broken.append(f"{self.name}, {moment}: {type(error).__name__}: {error}")

    def _judge(self) -> None:
        found = {self.old: "old", self.new: "new", "none": "none"}.get(content(self.result))
        if found is None or (found == "none" and self.command.replaces):
            raise BrokenError(f"{self.result} is neither the old nor the new one" if found is None else "it is gone")
        self.count.found[found] += 1
        self.count.left += bool(left(self.place.own))
        if found != "none":
            self.command.whole(self.result)
        self._again(found)
        if content(self.result) != self.new:
            raise BrokenError("the command, run again, ended in something else")
        self.command.whole(self.result)
        if kept := left(self.place.own):
            raise BrokenError(f"left behind: {', '.join(str(path.relative_to(self.place.own)) for path in kept[:3])}")
        if self.command.shares and (self.result / _OTHERS).read_text(encoding="utf-8") != "mine":
            raise BrokenError("a file of others is gone")

    def _again(self, found: str) -> None:
        if found == "new" and not self.command.replaces and not self.command.cache:  # bags are not overwritten
            status = watch(self._begin(), (), Moment()).status
            if status != 2 or "exists already" not in self._told():
                raise BrokenError(f"run again, it ended with status {status}: {self._told()}")
            return
        resumes = self.name.startswith("train") and self.rng.random() < 0.7
        status = watch(self._begin(*(["--resume"] if resumes else [])), (), Moment()).status
        if resumes:
            told = self._told()
            self.count.others["resumed"] += "continuing" in told
            if status == 2 and "is of another experiment" in told:  # it was killed before it put those aside
                status = watch(self._begin(), (), Moment()).status
        told = self._told()
        if status not in self.command.statuses or "is damaged" in told or "Traceback" in told:
            raise BrokenError(f"run again, it ended with status {status}: {told}")


# --- recording --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def publisher(told: Path) -> Iterator[None]:
    """Small messages, numbered, at a rate, by a process that writes down when it sent them."""
    process = os.fork()
    if not process:
        try:
            import rclpy
            from std_msgs.msg import String

            rclpy.init()
            node = rclpy.create_node("kill_publisher")
            topic = node.create_publisher(String, TOPIC, 10)
            with told.open("w", encoding="utf-8", buffering=1) as file:
                number = 0
                while os.getppid() != 1:
                    topic.publish(String(data=str(number)))
                    file.write(f"{number} {time.time_ns()}\n")
                    number += 1
                    time.sleep(1 / RATE)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


class Recordings:
    """Kills a recorder again and again; see :class:`Trials`."""

    def __init__(self, place: Place, rng: random.Random) -> None:
        self.place, self.rng = place, rng
        self.count = Count()
        self.sent = place.shared / "sent.txt"

    def kill(self) -> None:
        """One kill, and what is promised of it."""
        shutil.rmtree(self.place.own, ignore_errors=True)
        self.place.own.mkdir()
        bag, log = self.place.own / "bag", self.place.shared / "log.txt"
        words = ["bag", "record", "--out", str(bag), "--topic", TOPIC]
        split = ["--split", "0.0001"] if self.rng.random() < 0.5 else []
        process = begin([*words, *split], log, self.place.shared / "cache")
        try:
            deadline = time.monotonic() + 60
            while not (bag / "metadata.yaml").exists():
                if time.monotonic() > deadline:
                    raise BrokenError(f"nothing was recorded: {log.read_text(encoding='utf-8')}")
                time.sleep(0.001)
            time.sleep(self.rng.uniform(0, 2.5))
            if self.rng.random() < 0.5:  # while it writes
                before = look([bag])
                while look([bag]) == before:
                    pass
                time.sleep(self.rng.uniform(0, 0.002))
        finally:
            os.kill(process, signal.SIGKILL)
            killed_ns = time.time_ns()
            os.waitpid(process, 0)
        self.count.kills += 1
        time.sleep(0.01)
        try:
            self._judge(bag, killed_ns)
        except Exception as error:
            self.count.broken.append(f"{RECORD} {split}: {type(error).__name__}: {error}")

    def _judge(self, bag: Path, killed_ns: int) -> None:
        from omnibind_core.errors import DataError
        from omnibind_ros.bags import read, types

        numbers = []
        try:
            for item in read.messages(bag):
                numbers.append(int(types.decode(item).data))
            self.count.found["whole"] += 1
        except DataError:  # it was killed amid a chunk
            self.count.found["cut"] += 1
        rows = [line.split() for line in self.sent.read_text(encoding="utf-8").splitlines()]
        sent = {int(row[0]): int(row[1]) for row in rows if len(row) == 2 and int(row[1]) < killed_ns}
        first = numbers[0] if numbers else min(sent)
        if numbers != [*range(first, first + len(numbers))]:
            raise BrokenError(f"numbers {numbers}")
        missing = [time_ns for number, time_ns in sent.items() if number >= first + len(numbers)]
        begun = bag.stat().st_ctime_ns if not numbers else 0
        lost = max((killed_ns - max(time_ns, begun)) / 1e9 for time_ns in missing) if missing else 0.0
        self.count.lost.append(lost)
        if lost > MOST_LOST:
            raise BrokenError(f"{lost:.2f} s are lost")
        self.count.others["also read by rosbags"] += _read_by_rosbags(bag) == numbers
        log = self.place.shared / "log.txt"
        status = watch(begin(["bag", "inspect", str(bag)], log, self.place.shared / "cache"), (), Moment()).status
        if status not in (0, 1) or "Traceback" in log.read_text(encoding="utf-8"):
            raise BrokenError(f"bag inspect ended with status {status}")


def _read_by_rosbags(bag: Path) -> list[int] | None:
    from rosbags.rosbag2 import Reader

    from omnibind_ros.bags.types import typestore

    try:
        with Reader(bag) as reader:
            return [int(typestore().deserialize_cdr(data, one.msgtype).data) for one, _, data in reader.messages()]
    except Exception:
        return None


# --- all of it --------------------------------------------------------------------------------------------------------


def prepare(place: Place) -> None:
    """Data, and a result of each command to be replaced."""
    place.shared.mkdir(parents=True)
    write_data(place.shared)
    old = Place(place.shared, place.own)
    place.own.mkdir()
    for name in ("train align", "train fuse"):
        _done(name, old)
    shutil.copytree(place.own / "out", place.shared / "old" / "out")
    for name in ("data build", "eval", "export"):
        _done(name, old)
        shutil.copytree(place.own / COMMANDS[name].result, place.shared / "old" / COMMANDS[name].result)


def _done(name: str, place: Place) -> None:
    log = place.shared / "log.txt"
    ended = watch(begin(COMMANDS[name].words(place, 1), log, place.shared / "cache"), (), Moment())
    if ended.status not in COMMANDS[name].statuses:
        raise BrokenError(f"{name} ended with status {ended.status}: {log.read_text(encoding='utf-8')}")


def table(counts: dict[str, Count]) -> str:
    """What came of it, a line for each command."""
    lines = [f"{'command':12} {'kills':>5} {'old':>5} {'new':>5} {'none':>5} {'left-overs':>10} {'broken':>6}  more"]
    for name, count in counts.items():
        more = [f"{number} {what}" for what, number in count.others.items() if number]
        if count.lost:
            more = [f"{count.found['whole']} whole, {count.found['cut']} cut", *more]
            more.append(f"lost {max(count.lost):.2f} s at most")
        old, new, none = (count.found[what] for what in ("old", "new", "none"))
        numbers = f"{count.kills:5} {old:5} {new:5} {none:5} {count.left:10} {len(count.broken):6}"
        lines.append(f"{name:12} {numbers}  {', '.join(more)}".rstrip())
    kills, broken = sum(one.kills for one in counts.values()), sum(len(one.broken) for one in counts.values())
    return "\n".join([*lines, f"{kills} kills, {broken} promises broken"])


def run(names: Sequence[str], kills: int, seed: int, folder: Path) -> dict[str, Count]:
    """Kills commands, about the same number of times each.

    Args:
        names: Of :data:`COMMANDS`, or :data:`RECORD`.
        kills: In all.
        seed: Of the moments.
        folder: To work in.
    """
    place = Place(folder / "shared", folder / "own")
    prepare(place)
    counts: dict[str, Count] = {}
    for index, name in enumerate(names):
        wanted = kills * (index + 1) // len(names) - kills * index // len(names)
        rng = random.Random(f"{seed} {name}")
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            trials: Trials | Recordings
            if name == RECORD:
                trials = Recordings(place, rng)
                stack.enter_context(publisher(trials.sent))
            else:
                trials = Trials(name, place, rng)
            counts[name] = trials.count
            for _ in range(5 * wanted):  # some are done before their moment comes
                if trials.count.kills == wanted:
                    break
                trials.kill()
                if trials.count.broken and len(trials.count.broken) > 5:
                    break
        told = f"{trials.count.kills} kills, {len(trials.count.broken)} broken, {time.monotonic() - started:.0f} s"
        print(f"{name}: {told}", flush=True)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    known = [*COMMANDS, RECORD]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=known, default=known, metavar="COMMAND", help="of: " + ", ".join(known)
    )
    options = parser.parse_args(argv)
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 230))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="omnibind-kill-") as folder:
        counts = run(options.only, options.kills, options.seed, Path(folder))
    print(table(counts))
    print(f"seed {options.seed}, {(time.monotonic() - started) / 60:.1f} minutes")
    broken = [sentence for count in counts.values() for sentence in count.broken]
    for sentence in broken:
        print(f"broken: {sentence}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
