"""The demo of things: what is where, while publishers are killed in turn."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rclpy.node import Node

from omnibind_core.data.rendering.scenes.robot import Motion
from omnibind_core.objects.regions import Rectangle
from omnibind_core.objects.types import ObjectPrediction
from omnibind_ros.bags import read, scene_bag, types
from omnibind_ros.bags.rendered import object_bag, things
from omnibind_ros.bags.rendered.calibration import info_topic
from omnibind_ros.bags.scene_bag import SENSORS, THERMAL_OFFSET, THERMAL_SCALE
from omnibind_ros.demo import things_picture
from omnibind_ros.demo.course import NODE, running
from omnibind_ros.demo.monitor import Console, Monitor
from omnibind_ros.demo.schedule import Outage
from omnibind_ros.demo.summary import failures, follow
from omnibind_ros.demo.things_picture import Told
from omnibind_ros.messages import stamp_ns
from omnibind_ros.messages.objects import objects_of
from omnibind_ros.replay.objects import pairing, scoring, truth
from omnibind_ros.replay.objects.scoring import Found
from omnibind_ros.replay.objects.truth import Things
from omnibind_ros.replay.scoring import Vocabulary

SECONDS = 16.0
"""Length of the recording."""
OUTAGES = (Outage("camera", 3.0, 6.0), Outage("lidar", 8.0, 11.0))
"""What is killed and started again."""
LEAST = 3
"""Things that have to keep their ids."""
_STATIC, _BASE = "/tf_static", "base_link"
_STILL = Motion(turn=0.0, nod=0.0, speed=0.0)  # its own frame, which things are told of in, is then a fixed one
_RATE = 2.0  # ticks per second, which two cores sustain
_HEARTBEAT = 2.0  # s after which a line is printed at the latest
_ENOUGH = 0.3  # intersection over union of a box and the thing it is of: things are partly hidden, and found whole
_LATE = 0.1  # s that a picture is older than its tick, in the mean


class ThingsMonitor(Monitor):
    """Hears of things, too.

    Args:
        node: Where the subscriptions live.

    Attributes:
        told: All that was told since the recording began.
    """

    def __init__(self, node: Node) -> None:
        from omnibind_ros import msg

        super().__init__(node)
        self.told: list[Told] = []
        node.create_subscription(msg.ObjectPredictions, "omnibind/objects", self._on_objects, 50)

    def begin(self, start_at: float) -> None:
        """See :meth:`Monitor.begin`."""
        super().begin(start_at)
        self.told.clear()

    def _on_objects(self, message: Any) -> None:
        self.told.append(Told((stamp_ns(message) or 0) / 1e9 - self.start_at, objects_of(message)))


class ThingsConsole(Console):
    """Prints a line for all things whenever one comes, goes or is taken for something else."""

    def heading(self) -> None:
        """Explains the lines."""
        self.line(f"{'time':>6}  {'dead':<8}  id label confidence (share of each sensor, %); ? below threshold")

    def things(self, told: Told, dead: Collection[str]) -> None:
        """Prints what is told, if it says something new, or if nothing was printed for a while."""
        key = ([(one.id, _label(one)) for one in told.things], frozenset(dead))
        if key == self._last and told.time_s - self._last_time < _HEARTBEAT:
            return
        self._last, self._last_time = key, told.time_s
        parts = []
        for one in told.things:
            shares = " ".join(f"{share.name} {100 * share.weight:.0f}" for share in one.prediction.sensors)
            mark = "?" if one.prediction.unknown else ""
            parts.append(f"#{one.id} {_label(one)}{mark} {one.prediction.confidence:.2f} ({shares or 'nobody now'})")
        self.line(f"{told.time_s:6.1f}  {', '.join(sorted(dead)):<8}  {'; '.join(parts) or 'nothing'}")


def _label(thing: ObjectPrediction) -> str:
    return next(iter(thing.prediction.labels), "nothing yet")


def run(options: argparse.Namespace) -> int:
    """Makes the recording if need be, plays it, and writes the summary and a picture. Returns the exit status."""
    out: Path = options.out / "objects"
    out.mkdir(parents=True, exist_ok=True)
    console = ThingsConsole(tuple(SENSORS))
    recording = _recording(options, out, console)
    topics = read.topics(recording)
    played = {
        name: [sensor.topic, *(one for one in (info_topic(name),) if one in topics)]
        for name, sensor in SENSORS.items()
        if sensor.topic in topics
    }
    _write_parameters(options, out / "parameters.yaml", recording, played)
    with running(out, console, ThingsMonitor) as (course, monitor):
        printed = 0

        def show(dead: Collection[str]) -> None:
            nonlocal printed
            for told in monitor.told[printed:]:
                console.things(told, dead)
            printed = len(monitor.told)

        course.wait_for_model()
        outages = course.play(recording, played, OUTAGES, min(SECONDS, options.duration), show)
    return _report(out, recording, monitor, console, outages)


def _recording(options: argparse.Namespace, out: Path, console: Console) -> Path:
    """The recording, which is made unless it is there already."""
    made_of = "packages" if options.data is None else f"{options.data.resolve().name}_{options.split}"
    recording = out / f"{made_of}_{options.seed}"
    if not (recording / "metadata.yaml").is_file():
        begin = time.monotonic()
        console.line("rendering a room with several things ...")
        if options.data is None:
            furniture = things.of_packages("rooms", scene_bag.vocabulary(options.model), options.cache)
        else:
            asked = (options.model, options.data, options.split, options.labels, options.cache, options.seed)
            furniture = things.of_samples(scene_bag.scenes_for(*asked))
        table = recording / truth.NAME
        labels = object_bag.write(recording, table, "rooms", furniture, 1, SECONDS, options.seed, _STILL)
        console.line(f"made in {time.monotonic() - begin:.1f} s: {', '.join(labels)}")
    return recording


def _write_parameters(options: argparse.Namespace, path: Path, recording: Path, sensors: Collection[str]) -> None:
    """The node's. Where sensors are is told by a parameter, as tf2_msgs may be missing, so things are told of in the
    robot's own frame.
    """
    parameters: dict[str, Any] = {
        "model": options.model,
        "rate": _RATE,
        "sensors": list(sensors),
        **{name: {"timeout": 0.6} for name in sensors},
        "objects": {"enabled": True, "fixed_frame": _BASE, "transforms": static_transforms(recording)},
    }
    if options.engine is not None:
        parameters["engine"] = options.engine
    parameters["thermal"].update(scale=THERMAL_SCALE, offset=THERMAL_OFFSET)
    path.write_text(yaml.safe_dump({NODE: {"ros__parameters": parameters}}, sort_keys=False))


def static_transforms(recording: Path) -> list[str]:
    """What a bag's ``/tf_static`` says, in the form of the parameter ``objects.transforms``."""
    from scipy.spatial.transform import Rotation

    lines = []
    for item in read.messages(recording, [_STATIC]):
        for one in types.decode(item).transforms:
            moved, turned = one.transform.translation, one.transform.rotation
            angles = Rotation.from_quat((turned.x, turned.y, turned.z, turned.w)).as_euler("xyz")
            numbers = " ".join(f"{float(value):.9g}" for value in (moved.x, moved.y, moved.z, *angles))
            lines.append(f"{one.header.frame_id} {one.child_frame_id} {numbers}")
    return lines


def pairs(told: Sequence[Told], things: Things, begin_ns: int) -> list[Found]:
    """Which boxes that were told are which things, in the pictures that are alive."""
    found = []
    for one in told:
        labels = {str(thing.id): _label(thing) for thing in one.things}
        for name in things.sensors:
            true = things.boxes(name, begin_ns + round((one.time_s - _LATE) * 1e9))
            boxes = {str(t.id): sight.box for t in one.things if (sight := t.sights.get(name)) and sight.box}
            if boxes:
                found.append(pairing.found(one.time_s, name, true, boxes, labels, Rectangle.overlap, _ENOUGH))
    return found


def kept(found: Sequence[Found], outages: Sequence[Outage]) -> dict[str, str]:
    """Things that had one and the same id before, in and after every outage, with that id."""
    edges = [0.0, *(edge for outage in outages for edge in (outage.kill_s, outage.restart_s)), float("inf")]
    times: dict[str, dict[str, set[int]]] = {}
    for one in found:
        phase = sum(edge <= one.time_s for edge in edges[1:-1])
        for thing, own in one.pairs.items():
            times.setdefault(thing, {}).setdefault(own, set()).add(phase)
    every = set(range(len(edges) - 1))
    return {thing: own for thing, ids in sorted(times.items()) for own, phases in ids.items() if phases == every}


def _report(out: Path, recording: Path, monitor: ThingsMonitor, console: Console, outages: Sequence[Outage]) -> int:
    begin_ns, end_ns = read.span_ns(recording)
    things = truth.read(recording / truth.NAME, begin_ns, end_ns)
    vocabulary = Vocabulary(monitor.labels)
    told = [one for one in monitor.told if one.time_s >= 0]
    found = pairs(told, things, begin_ns)
    meant = {thing: vocabulary.of(label) or "" for thing, label in things.labels.items()}
    tracks = scoring.tracks(found, meant)
    same = kept(found, outages)
    followed = follow(outages, monitor.predictions, monitor.reports)
    problems = failures(monitor.predictions, followed)
    if len(same) < LEAST:
        problems.append(f"{len(same)} things kept one id through all outages, expected {LEAST} or more")
    summary = {
        "success": not problems,
        "failures": problems,
        "model": monitor.model,
        "ticks": len(told),
        "outages": [{"sensor": one.sensor, "killed_s": one.kill_s, "restarted_s": one.restart_s} for one in outages],
        "things": [{**row, "kept": same.get(row["thing"])} for row in tracks],
        "found": scoring.finding(found),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    things_picture.draw(out.parent / "objects.png", recording, told, found, things, outages)
    console.line()
    console.line(_table(tracks, same))
    for problem in problems:
        console.line(f"failed: {problem}")
    console.line(f"wrote {out / 'summary.json'} and {out.parent / 'objects.png'}")
    return 1 if problems else 0


def _table(tracks: Sequence[Mapping[str, Any]], same: Mapping[str, str]) -> str:
    lines = [f"{'thing':<6} {'there is':<18} {'found':>7} {'ids':>4} {'switches':>9} {'right':>7}  one id throughout"]
    for row in tracks:
        right = "–" if row["right"] is None else f"{100 * row['right']:.0f} %"
        own = f"#{same[row['thing']]}" if row["thing"] in same else "no"
        lines.append(
            f"{row['thing']:<6} {row['label']:<18} {100 * row['found']:5.0f} % {row['ids']:>4} {row['switches']:>9} "
            f"{right:>7}  {own}"
        )
    return "\n".join(lines)
