"""The figures in the report of a bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.evaluation.report import plots
from omnibind_core.evaluation.report.document import Plot
from omnibind_core.runtime.types import SensorState
from omnibind_ros.replay.evaluation import Evaluation, Mistake
from omnibind_ros.replay.scoring import OUT_OF_VOCABULARY, RIGHT, SILENT, UNKNOWN, UNLABELLED, WRONG, Row

OUTCOME_COLOURS = {
    RIGHT: plots.COLOURS[2],
    WRONG: plots.COLOURS[4],
    UNKNOWN: plots.COLOURS[1],
    SILENT: plots.COLOURS[6],
    OUT_OF_VOCABULARY: plots.COLOURS[3],
    UNLABELLED: "#CFCFCF",
}
"""Colour of each outcome."""
_STATE_COLOURS = {
    "fused": plots.COLOURS[0],
    "late": plots.COLOURS[1],
    "rejected": plots.COLOURS[4],
    "silent": "#CFCFCF",
}
_LINE = "#7F7F7F"
_MAX_CONFUSED = 24  # labels in the figure of the confusion
_MAX_COMBINATIONS = 63  # combinations in the figure


def spans(rows: Sequence[Row], what: Sequence[str]) -> list[tuple[float, float, str]]:
    """Times of equal words, one word for each tick: ``(start, end, word)``; each tick reaches to the next."""
    if not rows:
        return []
    times = [row.time_s for row in rows]
    period = median(b - a for a, b in pairwise(times)) if len(times) > 1 else 1.0
    pieces = []
    for word, group in groupby(range(len(rows)), key=lambda place: what[place]):
        places = list(group)
        after = times[places[-1] + 1] if places[-1] + 1 < len(times) else times[places[-1]] + period
        pieces.append((times[places[0]], min(after, times[places[-1]] + 4 * period), word))
    return pieces


def timeline(evaluation: Evaluation) -> Plot:
    """What was there, what was said of it, and what each sensor did."""
    run, rows = evaluation.runs[0], evaluation.rows
    lanes = {}
    for place, name in enumerate(evaluation.setup.sensors):
        if name in evaluation.setup.present:
            states = [_state(row, name, states[place]) for row, states in zip(rows, run.states, strict=True)]
            lanes[name] = spans(rows, states)
    colours = {
        **_STATE_COLOURS,
        **{word: OUTCOME_COLOURS[word] for word in OUTCOME_COLOURS if any(row.outcome == word for row in rows)},
    }
    scored = evaluation.truth is not None
    if scored:
        lanes = {"answer": spans(rows, [row.outcome for row in rows]), **lanes}
    else:
        colours = dict(_STATE_COLOURS)

    def draw(axes: Any) -> None:
        _lanes(axes, lanes, colours)
        _annotate_truth(axes, evaluation)

    return plots.plot(
        "timeline",
        "Sensors and answers over time",
        draw,
        size=(12.0, 2.2 + 0.36 * len(lanes)),
        note="Above the lanes: what was there. Fused: the sensor took part; late: alive, but its data were too old; "
        "rejected: its data were unusable; silent: no messages for longer than its timeout.",
    )


def scenarios(evaluation: Evaluation) -> Plot:
    """Answers of each replay over time."""
    lanes = {run.scenario.name: spans(run.rows, [row.outcome for row in run.rows]) for run in evaluation.runs}

    def draw(axes: Any) -> None:
        _lanes(axes, lanes, OUTCOME_COLOURS)
        _annotate_truth(axes, evaluation)

    return plots.plot("what_if_timeline", "Answers over time", draw, size=(12.0, 2.2 + 0.36 * len(lanes)))


def combinations(
    rows: Mapping[tuple[str, ...], Sequence[Row]], tallies: Mapping[tuple[str, ...], Mapping[str, Any]]
) -> Plot:
    """Answers of the best combinations over time."""
    best = sorted(tallies, key=lambda names: -(tallies[names]["top1"] or 0.0))[:_MAX_COMBINATIONS]
    lanes = {" + ".join(names): spans(rows[names], [row.outcome for row in rows[names]]) for names in best}
    size = (12.0, 1.2 + 0.2 * len(lanes))

    def draw(axes: Any) -> None:
        _lanes(axes, lanes, OUTCOME_COLOURS)
        axes.margins(x=0)
        axes.tick_params(axis="y", labelsize=7)

    return plots.plot("ablation_picture", "Answers of every combination over time", draw, size=size)


def confusion(confused: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Shares of each truth, for the labels that were confused most."""
    totals: dict[str, int] = {}
    for one in confused:
        totals[one["truth"]] = totals.get(one["truth"], 0) + one["ticks"]
    if not totals:
        return None
    rows = sorted(sorted(totals, key=lambda name: -totals[name])[:_MAX_CONFUSED])
    answers: dict[str, int] = {}
    for one in confused:
        if one["truth"] in rows:
            answers[one["said"]] = answers.get(one["said"], 0) + one["ticks"]
    extra = [name for name in sorted(answers, key=lambda name: -answers[name]) if name not in rows]
    special = [name for name in (UNKNOWN, SILENT) if name in answers]
    columns = [*rows, *[name for name in extra if name not in special][:12], *special]
    values = np.full((len(rows), len(columns)), np.nan)
    for one in confused:
        if one["truth"] in rows and one["said"] in columns:
            values[rows.index(one["truth"]), columns.index(one["said"])] = one["ticks"] / totals[one["truth"]]
    note = "Rows: what was there; columns: what was said; % of the ticks of the row. Rarer answers are in the table."
    return plots.heat_map("confusion_picture", "Confusion", rows, columns, values, "%", limits=(0, 100), note=note)


def worst(number: int, mistake: Mistake) -> Plot:
    """What every sensor saw at a confident mistake."""
    row = mistake.row
    weights = dict(zip(row.sensors, row.weights, strict=True))
    said = f"said '{row.label}' ({row.confidence:.2f}{', below the threshold' if row.unknown else ''})"
    title = f"{row.time_s:.1f} s: {said}, there was {' / '.join(row.truth)}"
    note = "; ".join(f"{name} ({100 * weights[name.partition(':')[0]]:.0f} %)" for name in mistake.thumbnails)
    return Plot(
        f"worst_{number}",
        title,
        _png(_side_by_side(mistake.thumbnails)),
        f"From the left, what each says alone and its weight: {note}.",
    )


def _state(row: Row, name: str, state: SensorState) -> str:
    if name in row.sensors:
        return "fused"
    return {SensorState.LATE: "late", SensorState.REJECTED: "rejected", SensorState.ACTIVE: "late"}.get(state, "silent")


def _annotate_truth(axes: Any, evaluation: Evaluation) -> None:
    """Writes what was there above the lanes."""
    for start, _, labels in evaluation.segments:
        axes.axvline(start, color=_LINE, linewidth=0.7, alpha=0.5)
        axes.text(start, -0.66, " / ".join(labels)[:24], fontsize=8, rotation=35, ha="left", va="bottom")
    axes.set_xlim(0, max(evaluation.span_s, 1e-3))


def _lanes(axes: Any, lanes: Mapping[str, Sequence[tuple[float, float, str]]], colours: Mapping[str, str]) -> None:
    shown = dict.fromkeys(word for lane in lanes.values() for _, _, word in lane)
    for place, lane in enumerate(lanes.values()):
        for word in shown:
            pieces = [(start, end - start) for start, end, of in lane if of == word]
            axes.broken_barh(pieces, (place - 0.36, 0.72), color=colours[word], linewidth=0)
    axes.set_yticks(range(len(lanes)), [name.replace("_", " ") for name in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlabel("time in the bag, s")
    from matplotlib.patches import Patch

    handles = [Patch(color=colours[word], label=word) for word in colours if word in shown]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)


def _side_by_side(pictures: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if not pictures:
        return np.full((24, 144, 3), 235, np.uint8)
    height = max(picture.shape[0] for picture in pictures.values())
    gap = np.full((height, 6, 3), 255, np.uint8)
    row: list[NDArray[np.uint8]] = []
    for picture in pictures.values():
        framed = np.full((height, picture.shape[1], 3), 255, np.uint8)
        framed[: picture.shape[0]] = picture
        row += [framed, gap]
    return np.concatenate(row[:-1], axis=1)


def _png(picture: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes())
