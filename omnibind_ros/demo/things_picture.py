"""The picture of the demo of things: who had which id when, as what, and what it looked like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core import modalities
from omnibind_core.modalities.drawing import Picture
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.optional import require
from omnibind_ros import messages
from omnibind_ros.bags import read, types
from omnibind_ros.bags.scene_bag import SENSORS, THERMAL_OFFSET, THERMAL_SCALE
from omnibind_ros.demo.schedule import Outage
from omnibind_ros.replay.objects import drawing
from omnibind_ros.replay.objects.scoring import Found
from omnibind_ros.replay.objects.truth import Things

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#B8A000", "#8C8C8C")
_KILLED = "#D55E00"
_SHOWN = ("camera", "thermal")  # sensors whose pictures are shown
_GAP = 1.6  # s between two ticks that are drawn as one piece
_DIM = 0.35  # of the brightness, for a picture that the node does not get


@dataclass(frozen=True)
class Told:
    """What was told of things at one tick.

    Attributes:
        time_s: Its time, s from the beginning of the recording.
        things: The things.
    """

    time_s: float
    things: Sequence[ObjectPrediction]


def draw(
    path: Path,
    recording: Path,
    told: Sequence[Told],
    found: Sequence[Found],
    things: Things,
    outages: Sequence[Outage],
) -> None:
    """Writes the picture as PNG.

    Args:
        path: The file.
        recording: The bag.
        told: What was told at every tick.
        found: Which of it is which thing.
        things: What was where.
        outages: As they were.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "Drawing things").Figure(figsize=(16, 12), layout="constrained", dpi=90)
    grid = figure.add_gridspec(1 + len(_SHOWN), 1 + len(outages), height_ratios=(1.1, *[1.3] * len(_SHOWN)))
    _lanes(figure.add_subplot(grid[0, :]), told, found, things, outages)
    moments = [max(outages[0].kill_s - 1.0, 0.0), *((one.kill_s + one.restart_s) / 2 + 1 for one in outages)]
    for column, moment in enumerate(moments):
        if not told:
            break
        tick = min(told, key=lambda one: abs(one.time_s - moment))
        dead = [one.sensor for one in outages if one.kill_s <= tick.time_s < one.restart_s]
        for row, name in enumerate(_SHOWN, 1):
            axes = figure.add_subplot(grid[row, column])
            axes.set_axis_off()
            picture = _picture(recording, name, tick, things)
            if picture is None:
                continue
            lost = name in dead
            axes.imshow((picture * _DIM).astype(np.uint8) if lost else picture)
            state = (
                "killed: the node does not get this" if lost else f"{' and '.join(dead)} dead" if dead else "all alive"
            )
            axes.set_title(f"{name} at {tick.time_s:.1f} s ({state})", fontsize=11, color=_KILLED if lost else "black")
    figure.savefig(path)


def _lanes(axes: Any, told: Sequence[Told], found: Sequence[Found], things: Things, outages: Sequence[Outage]) -> None:
    """A lane for each thing: its id as colour, what was said of it as text."""
    ids = sorted({int(own) for one in found for own in one.pairs.values()})
    colours = {str(own): _COLOURS[place % len(_COLOURS)] for place, own in enumerate(ids)}
    lanes = _seen(found)
    for place, seen in enumerate(lanes.values()):
        for (own, said), group in groupby(seen, key=lambda one: one[1:]):
            times = [time_s for time_s, *_ in group]
            axes.broken_barh([(times[0], times[-1] - times[0] + 0.45)], (place - 0.36, 0.72), color=colours[own])
            if times[-1] - times[0] > 1.5:
                axes.text(times[0] + 0.1, place, f"#{own} {said}", va="center", fontsize=9, color="white")
    for outage in outages:
        axes.axvspan(outage.kill_s, outage.restart_s, facecolor="none", edgecolor=_KILLED, hatch="//", alpha=0.5)
        axes.text(outage.kill_s, -0.62, f"{outage.sensor} killed", color=_KILLED, fontsize=10, va="bottom")
        axes.text(outage.restart_s, -0.62, "started again", color="#009E73", fontsize=10, va="bottom")
    names = [f"{things.labels[thing]} ({thing})" for thing in lanes]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, max((one.time_s for one in told), default=1.0) + 0.5)
    axes.set_xlabel("time in the recording, s")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("What is there (left), its id (colour) and what it is taken for (text)", loc="left", pad=22)


def _seen(found: Sequence[Found]) -> Mapping[str, list[tuple[float, str, str]]]:
    """By thing: time, id and label, in the first picture of a tick that it is found in."""
    lanes: dict[str, dict[float, tuple[str, str]]] = {}
    for one in found:
        for thing, own in one.pairs.items():
            lanes.setdefault(thing, {}).setdefault(one.time_s, (own, one.labels[own]))
    return {thing: [(time_s, *told) for time_s, told in sorted(own.items())] for thing, own in sorted(lanes.items())}


def _picture(recording: Path, name: str, tick: Told, things: Things) -> Picture | None:
    """The recording's picture of a sensor at a tick, with boxes."""
    sensor = SENSORS[name]
    begin_ns = read.span_ns(recording)[0]
    now_ns = begin_ns + round(tick.time_s * 1e9)
    last = None
    for item in read.messages(recording, [sensor.topic]):
        if item.time_ns > now_ns:
            break
        last = item
    if last is None:
        return None
    options = messages.DecodeOptions(scale=THERMAL_SCALE, offset=THERMAL_OFFSET)
    if sensor.modality != "thermal":
        options = messages.DecodeOptions()
    raw = messages.Decoder(sensor.modality, name).decode(last.type, types.decode(last), options)
    raw = modalities.get(sensor.modality).check(raw, name)
    size = int(raw.shape[1]), int(raw.shape[0])
    return drawing.drawn(sensor.modality, raw, size, name, tick.things, things.boxes(name, last.time_ns))
