"""The demo's picture: who was alive when, what was there, what was recognised."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core.optional import require
from omnibind_ros.bags.scene_bag import SceneLabel, sensors_of
from omnibind_ros.demo.monitor import Observation
from omnibind_ros.demo.schedule import Outage
from omnibind_ros.demo.summary import scene_at
from omnibind_ros.replay.scoring import same

# Colours that differ in lightness too (Okabe and Ito).
_RIGHT, _WRONG, _ALIVE, _KILLED, _DATA = "#009E73", "#D55E00", "#0072B2", "#D55E00", "#DDE6EE"

# s; predictions further apart than this leave a gap in the bars.
_GAP = 1.0


def draw(
    path: Path,
    scenes: Sequence[SceneLabel],
    predictions: Sequence[Observation],
    outages: Sequence[Outage],
    title: str,
) -> None:
    """Writes the picture as PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure_type = require("matplotlib.figure", "Drawing the timeline").Figure
    end = max((scene.end_s for scene in scenes), default=1.0)
    figure = figure_type(figsize=(max(14.0, 0.24 * end), 7.2), layout="constrained", dpi=110)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2.4))
    _draw_sensors(upper, scenes, predictions, outages)
    _draw_labels(lower, scenes, predictions)
    for axes in (upper, lower):
        axes.set_xlim(0, end)
        axes.spines[["top", "right"]].set_visible(False)
        for scene in scenes:
            axes.axvline(scene.start_s, color="0.85", linewidth=0.8, zorder=0)
    upper.set_title(title, loc="left", fontsize=11)
    lower.set_xlabel("time in the recording, s")
    figure.savefig(path)


def _draw_sensors(
    axes: Any, scenes: Sequence[SceneLabel], predictions: Sequence[Observation], outages: Sequence[Outage]
) -> None:
    """One row per sensor: where the recording has data, where it took part, where its publisher was dead."""
    times = [0.0, *(seen.time_s for seen in predictions)]
    # A bar reaches back to the prediction before, if that is not long ago.
    spans = [(max(before, now - _GAP), now) for before, now in itertools.pairwise(times)]
    sensors = sensors_of(scenes)
    for row, name in enumerate(sensors):
        data = [(scene.start_s, scene.end_s - scene.start_s) for scene in scenes if name in scene.sensors]
        axes.broken_barh(data, (row - 0.4, 0.8), color=_DATA)
        alive = [
            (start, end - start) for (start, end), seen in zip(spans, predictions, strict=True) if name in seen.sensors
        ]
        axes.broken_barh(alive, (row - 0.25, 0.5), color=_ALIVE)
        for outage in outages:
            if outage.sensor == name:
                span = (outage.kill_s, outage.restart_s - outage.kill_s)
                axes.broken_barh(
                    [span], (row - 0.4, 0.8), facecolor="none", edgecolor=_KILLED, hatch="///", linewidth=1.5
                )
                axes.plot(
                    outage.kill_s, row, marker="X", color=_KILLED, markersize=10, markeredgecolor="white", zorder=5
                )
                axes.plot(
                    outage.restart_s, row, marker=">", color=_RIGHT, markersize=10, markeredgecolor="white", zorder=5
                )
    axes.set_yticks(range(len(sensors)), [name.replace("_", " ") for name in sensors])
    axes.invert_yaxis()
    patches = require("matplotlib.patches", "Drawing the timeline")
    lines = require("matplotlib.lines", "Drawing the timeline")
    axes.legend(
        handles=[
            patches.Patch(color=_ALIVE, label="takes part in the fusion"),
            patches.Patch(color=_DATA, label="the recording has data"),
            patches.Patch(facecolor="none", edgecolor=_KILLED, hatch="///", label="publisher dead"),
            lines.Line2D([], [], marker="X", color=_KILLED, linestyle="", label="killed (SIGKILL)"),
            lines.Line2D([], [], marker=">", color=_RIGHT, linestyle="", label="started again"),
        ],
        ncols=5,
        loc="lower left",
        bbox_to_anchor=(0, -0.16),
        frameon=False,
        fontsize=9,
    )


def _draw_labels(axes: Any, scenes: Sequence[SceneLabel], predictions: Sequence[Observation]) -> None:
    """Confidence of the prediction, green where it is right; above it what was there, what was said most."""
    times = np.array([seen.time_s for seen in predictions])
    confidence = np.array([seen.prediction.confidence for seen in predictions])
    right = np.array(
        [
            (scene := scene_at(scenes, seen.time_s)) is not None and same(seen.label, scene.label)
            for seen in predictions
        ],
        dtype=np.bool_,
    )
    axes.plot(times, confidence, color="0.6", linewidth=0.8, zorder=1)
    axes.scatter(times[right], confidence[right], s=14, color=_RIGHT, label="right", zorder=2)
    axes.scatter(times[~right], confidence[~right], s=14, color=_WRONG, marker="x", label="wrong", zorder=2)
    for scene in scenes:
        middle = (scene.start_s + scene.end_s) / 2
        axes.text(middle, 1.44, _short(scene.label), ha="center", va="center", fontsize=9, fontweight="bold")
        inside = [seen for seen in predictions if scene.start_s + 1 <= seen.time_s < scene.end_s]
        if inside:
            labels = [seen.label for seen in inside]
            said = max(set(labels), key=labels.count)
            colour = _RIGHT if same(said, scene.label) else _WRONG
            axes.text(middle, 1.2, _short(said), ha="center", va="center", fontsize=9, color=colour)
    axes.text(-0.005, 1.44, "there is", ha="right", va="center", fontsize=9, transform=axes.get_yaxis_transform())
    axes.text(-0.005, 1.2, "recognised", ha="right", va="center", fontsize=9, transform=axes.get_yaxis_transform())
    axes.set_ylim(0, 1.6)
    axes.set_yticks(np.arange(0, 1.01, 0.25))
    axes.set_ylabel("confidence", loc="bottom")
    axes.axhline(1.06, color="0.85", linewidth=0.8)
    axes.legend(loc="lower right", ncols=2, frameon=False, fontsize=9, bbox_to_anchor=(1.0, -0.24))


def _short(label: str, width: int = 11) -> str:
    """A label in lines that fit a scene's column."""
    words, lines = label.split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:2])
