"""Command line and course of the demo."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from omnibind_core.config import from_json
from omnibind_core.data.rendering import demo_objects
from omnibind_core.errors import OmniBindError
from omnibind_ros.bags import scene_bag
from omnibind_ros.bags.scene_bag import CAPTIONER, THERMAL_OFFSET, THERMAL_SCALE, WITH_WORDS, SceneLabel
from omnibind_ros.demo import timeline
from omnibind_ros.demo.course import NODE, running
from omnibind_ros.demo.monitor import Console, Monitor
from omnibind_ros.demo.schedule import Outage, plan
from omnibind_ros.demo.summary import scene_at, summarise, table

# Fusion ticks per second: what two cores sustain with six sensors alive.
_RATE = 4.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns 0 if every sensor that was killed left and returned and predictions went on."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except OmniBindError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omnibind_ros.demo", description="Shows the fusion of sensors that come and go."
    )
    parser.add_argument(
        "--data", type=Path, help="folder with samples.csv; without it the recording is made from Debian packages"
    )
    parser.add_argument("--split", default="val", help="split of --data to take scenes from (default: val)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for everything written (default: out/demo)"
    )
    parser.add_argument("--seed", type=int, default=0, help="choice of scenes and rendering (default: 0)")
    parser.add_argument("--scenes", type=int, default=16, help="number of scenes, 5 s each (default: 16)")
    parser.add_argument(
        "--labels",
        type=Path,
        help="with --data: which of its labels mean the same (omnibind data match; default: the model's labels.csv)",
    )
    parser.add_argument(
        "--text",
        choices=("name", "description"),
        help="a captioner speaks in every second scene; its words are made of the label, so they show how words are "
        "fused, not how good a captioner is (default: none)",
    )
    parser.add_argument(
        "--objects", action="store_true", help="show what is where instead: a rendered room with several things"
    )
    parser.add_argument("--model", default="lite", help="shipped model or folder (default: lite)")
    parser.add_argument("--engine", help="what runs trunks on a CPU (default: the node's own)")
    parser.add_argument("--cache", type=Path, help="where Debian packages are unpacked")
    parser.add_argument("--duration", type=float, default=math.inf, help="stop after so many seconds of the recording")
    return parser


def run(options: argparse.Namespace) -> int:
    """Makes the recording if need be, plays it, and writes the summary. Returns the exit status."""
    if options.objects:
        from omnibind_ros.demo import things  # renders with open3d, which is not needed otherwise

        return things.run(options)
    console = Console(sensors_asked(options))
    options.out.mkdir(parents=True, exist_ok=True)
    scenes = [scene for scene in _recording(options, console) if scene.end_s <= options.duration]
    outages = plan(scenes)
    _write_parameters(options)

    published = {name for scene in scenes for name in scene.sensors}
    topics = {name: (sensor.topic,) for name, sensor in WITH_WORDS.items() if name in published}
    with running(options.out, console, Monitor) as (course, monitor):

        def show(dead: Collection[str]) -> None:
            for seen in monitor.fresh:
                if seen.time_s >= 0:
                    console.prediction(seen, scene_at(scenes, seen.time_s), dead)
            monitor.fresh.clear()

        course.wait_for_model()
        done = course.play(options.out / "recording", topics, outages, scenes[-1].end_s, show)
    return _report(options, monitor, console, scenes, done)


def _recording(options: argparse.Namespace, console: Console) -> list[SceneLabel]:
    """Labels of the recording in the output folder, which is made unless it is there already."""
    keys = ("data", "split", "seed", "scenes", "labels", "model") if options.data else ("seed", "scenes", "model")
    source = {key: str(getattr(options, key)) for key in (*keys, *(("text",) if options.text else ()))}
    if not options.data:
        source["rendering"] = str(demo_objects.RENDERING)
    made_of, sidecar = options.out / "source.json", options.out / "labels.csv"
    try:
        made = from_json(made_of.read_bytes())
    except (OSError, ValueError):  # none, or one that was cut off
        made = None
    if made == source:
        return scene_bag.read_labels(sidecar)
    made_of.unlink(missing_ok=True)
    shutil.rmtree(options.out / "recording", ignore_errors=True)
    begin = time.monotonic()
    if not options.data:
        console.line("making the recording from Debian packages (the first time they are downloaded: 280 MB) ...")
    scenes = scene_bag.scenes_for(
        options.model, options.data, options.split, options.labels, options.cache, options.seed, options.scenes
    )
    if options.text:
        scenes = scene_bag.with_words(scenes, options.text)
    labels = scene_bag.write(options.out / "recording", sidecar, scenes, options.seed)
    made_of.write_text(json.dumps(source))
    size = sum(path.stat().st_size for path in (options.out / "recording").iterdir()) / 1e6
    console.line(f"recording made in {time.monotonic() - begin:.1f} s: {len(labels)} scenes, {size:.1f} MB")
    return labels


def sensors_asked(options: argparse.Namespace) -> tuple[str, ...]:
    """Names of the sensors of a demo with these options."""
    return tuple(name for name in WITH_WORDS if name != CAPTIONER or options.text)


def _write_parameters(options: argparse.Namespace) -> None:
    sensors = sensors_asked(options)
    parameters: dict[str, Any] = {
        "model": options.model,
        "rate": _RATE,
        "publish_similarities": True,
        "sensors": list(sensors),
        # Short, so that little of a scene is left in the next one.
        **{name: {"timeout": 0.6} for name in sensors},
    }
    if CAPTIONER in sensors:
        parameters[CAPTIONER] = {"type": "text", "timeout": 1.5}  # it speaks once a second
    if options.engine is not None:
        parameters["engine"] = options.engine
    parameters["thermal"].update(scale=THERMAL_SCALE, offset=THERMAL_OFFSET)
    content = {NODE: {"ros__parameters": parameters}}
    (options.out / "parameters.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _report(
    options: argparse.Namespace, monitor: Monitor, console: Console, scenes: Sequence[SceneLabel], outages: list[Outage]
) -> int:
    predictions = [seen for seen in monitor.predictions if seen.time_s >= 0]
    summary = summarise(scenes, predictions, monitor.reports, outages, monitor.labels)
    summary["model"] = monitor.model
    summary["data"] = f"recorded samples, split {options.split}" if options.data else "Debian packages"
    (options.out / "summary.json").write_text(
        json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    title = f"{summary['data']}, {len(monitor.labels)} labels, model {monitor.model}"
    timeline.draw(options.out / "timeline.png", scenes, predictions, outages, title)
    console.line()
    console.line(table(summary))
    console.line(f"wrote {options.out / 'summary.json'} and {options.out / 'timeline.png'}")
    return 0 if summary["success"] else 1


if __name__ == "__main__":
    sys.exit(main())
