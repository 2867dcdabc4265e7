"""What is reported of things: chapters of a bag's report, and lines for the console."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from omnibind_core.evaluation.report.document import Column, Plot, Section, Table
from omnibind_ros.replay.evaluation import Evaluation, Run
from omnibind_ros.replay.objects import scoring
from omnibind_ros.replay.objects.driver import Perceived, Shown
from omnibind_ros.replay.objects.pairing import ENOUGH
from omnibind_ros.replay.objects.scoring import FEW, FUSED, NOW, SCENE, TOGETHER, Asked

_WORDS = {
    FUSED: "all sensors, with what they said before",
    NOW: "all sensors, at the tick alone",
    SCENE: "the scene's one label",
}
_MOST = 100  # reasons that are listed
_RESTS = (Column("things", "things", "count"), Column("few", f"fewer than {FEW}", "flag"))
_SHARE = Column("share", "right, %", "share", "interval")
_GAIN = Column("share", "gain, points", "points", "interval")


def sections(evaluation: Evaluation) -> list[Section]:
    """The chapters of the report; none if nobody asked of things."""
    perceived = evaluation.runs[0].objects
    if perceived is None:
        return []
    sensors = evaluation.setup.present
    found = [_given(perceived, sensors), _worth(perceived, sensors), _found(perceived)]
    if len(evaluation.runs) > 1:
        found.append(_what_if(evaluation))
    return found


def summary(evaluation: Evaluation) -> Iterator[str]:
    """The most important of it, line by line."""
    perceived = evaluation.runs[0].objects
    if perceived is None:
        return
    rows = {row["answer"]: row for row in scoring.answers(perceived.asked, evaluation.setup.present)}
    whole = rows[FUSED]
    few = f", fewer than {FEW}: take the figures for what they are" if whole["few"] else ""
    yield f"things, boxes given: {whole['asked']} times asked of {whole['things']} things{few}"
    told = ", ".join(f"{name} {_percent(row['share'])}" for name, row in rows.items() if name not in TOGETHER)
    yield (
        f"  fused {_spread(whole)} right, at the tick alone {_percent(rows[NOW]['share'])}, the scene's label "
        f"{_percent(rows[SCENE]['share'])}; alone {told or 'none'}"
    )
    for row in scoring.finding(perceived.found):
        yield (
            f"  found, {row['where']}: precision {_percent(row['precision'])}, recall {_spread(row, 'recall')} "
            f"of {row['true']} boxes at IoU {ENOUGH:g}"
        )
    tracks = scoring.tracks(perceived.found, perceived.meant)
    switches = sum(row["switches"] for row in tracks)
    yield f"  ids: {switches} switches of {len(tracks)} things"
    for run in evaluation.runs[1:]:
        one = _figures(run, evaluation)
        yield (
            f"  {run.scenario.name} -> fused {_spread(one)}, scene {_percent(one['scene'])}, "
            f"recall {_percent(one['recall'])}, {one['switches']} switches"
        )


def together(evaluations: Sequence[Evaluation]) -> list[Table]:
    """The figures of several bags as one; none if nobody asked of things. Things of two bags are two things."""
    asked: list[Asked] = []
    for number, evaluation in enumerate(evaluations):
        perceived = evaluation.runs[0].objects
        if perceived is not None:
            asked += [replace(one, thing=f"{number} {one.thing}") for one in perceived.asked]
    sensors = tuple(dict.fromkeys(name for evaluation in evaluations for name in evaluation.setup.present))
    return _answers(asked, sensors) if asked else []


def _given(perceived: Perceived, sensors: tuple[str, ...]) -> Section:
    labels = (
        Column("label", "label"),
        Column("asked", "asked", "count"),
        *_RESTS,
        *(Column(name, _WORDS.get(name, name), "share") for name in (*TOGETHER, *sensors)),
    )
    unseen = (Column("sensor", "sensor"), Column("reason", "why it took no part"), Column("asked", "times", "count"))
    parts = [
        *_answers(perceived.asked, sensors),
        Table("objects_labels", "By label, %", scoring.by_label(perceived.asked, sensors), labels, folded=True),
        Table(
            "objects_unseen", "Why sensors took no part", scoring.unseen(perceived.asked)[:_MOST], unseen, folded=True
        ),
    ]
    return Section("Things", "", parts)


def _answers(asked: Sequence[Asked], sensors: tuple[str, ...]) -> list[Table]:
    """Who was right how often, and what is gained."""
    rows = [{**row, "whose": _WORDS.get(row["answer"], row["answer"])} for row in scoring.answers(asked, sensors)]
    who = (
        Column("whose", "whose answer"),
        Column("asked", "asked", "count"),
        *_RESTS,
        _SHARE,
        Column("spoke", "answered", "count"),
        Column("spoken", "of answers, %", "share"),
        Column("together", "all sensors then, %", "share"),
    )
    note = (
        "Every thing is asked of at every tick that it is there, with its box given; who says nothing is wrong. All "
        "sensors then: those of the tick alone, where this one answered. Intervals: what other things might have given."
    )
    gains = (
        Column("against", "fused, against"),
        *_RESTS,
        _GAIN,
        Column("now", "of the tick alone, points", "points"),
    )
    return [
        Table("objects_given", "First label right, boxes given", rows, who, note),
        Table("objects_gain", "What is gained", scoring.margins(asked, sensors), gains),
    ]


def _worth(perceived: Perceived, sensors: tuple[str, ...]) -> Section:
    shares = (
        Column("alone", "alone, %", "share"),
        Column("with", "all, %", "share"),
        Column("without", "all others, %", "share"),
    )
    asked = Column("asked", "took part", "count")
    whole = (Column("sensor", "sensor"), asked, *_RESTS, *shares, _GAIN)
    each = (
        Column("thing", "thing"),
        Column("label", "label"),
        Column("sensor", "sensor"),
        asked,
        *shares,
        Column("share", "gain, points", "points"),
    )
    text = "Where a sensor took part: how often the first label of a tick was right with it, and without it."
    parts = [
        Table("objects_worth", "What each sensor is worth", scoring.worth(perceived.asked, sensors), whole),
        Table(
            "objects_worth_each",
            "The same of every thing",
            scoring.worth_each(perceived.asked, sensors),
            each,
            folded=True,
        ),
    ]
    return Section("Things: what each sensor is worth", text, parts)


def _found(perceived: Perceived) -> Section:
    boxes = (
        Column("where", "where"),
        Column("ticks", "ticks", "count"),
        *_RESTS,
        Column("true", "boxes there", "count"),
        Column("told", "boxes told", "count"),
        Column("precision", "precision, %", "share"),
        Column("recall", "recall, %", "share", "interval"),
        Column("overlap", "mean IoU", "number"),
    )
    tracks = (
        Column("thing", "thing"),
        Column("label", "label"),
        Column("ticks", "ticks", "count"),
        Column("found", "found, %", "share"),
        Column("ids", "ids", "count"),
        Column("switches", "switches", "count"),
        Column("right", "right where found, %", "share"),
    )
    counters = [{"what": name, "number": number} for name, number in sorted(perceived.counters.items())]
    parts: list[Table | Plot] = [
        Table(
            "objects_found",
            f"Found by detectors and proposals, IoU {ENOUGH:g}",
            scoring.finding(perceived.found),
            boxes,
        ),
        Table("objects_tracks", "Every thing", scoring.tracks(perceived.found, perceived.meant), tracks),
        Table("objects_counters", "What was done", counters, folded=True),
        *map(_picture, perceived.shown),
    ]
    text = (
        "Without given boxes. What is told counts as wrong where the table has no thing: precision is that of a table "
        "which names everything in view."
    )
    return Section("Things: found and followed", text, parts)


def _picture(shown: Shown) -> Plot:
    data = bytes(cv2.imencode(".png", np.ascontiguousarray(shown.picture[..., ::-1]))[1].tobytes())
    title = f"{shown.sensor} at {shown.time_s:.1f} s: {shown.found} of {shown.things} things found"
    note = "White: what is there; in colours: what is told, with id and label."
    return Plot(f"objects_picture_{shown.sensor}", title, data, note)


def _what_if(evaluation: Evaluation) -> Section:
    rows = [{"scenario": run.scenario.name, **_figures(run, evaluation)} for run in evaluation.runs]
    columns = (
        Column("scenario", "what is different"),
        Column("asked", "asked", "count"),
        *_RESTS,
        Column("share", "fused, %", "share", "interval"),
        Column("now", "at the tick alone, %", "share"),
        Column("scene", "the scene's label, %", "share"),
        Column("best", "best sensor"),
        Column("alone", "that alone, %", "share"),
        Column("precision", "precision, %", "share"),
        Column("recall", "recall, %", "share"),
        Column("switches", "switches", "count"),
    )
    note = "Precision and recall: mean of the pictures, and of space, that there are."
    return Section("Things: what if", "", [Table("objects_what_if", "What if", rows, columns, note)])


def _figures(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """The figures of one replay in one row."""
    assert run.objects is not None
    rows = {row["answer"]: row for row in scoring.answers(run.objects.asked, evaluation.setup.present)}
    single = max(
        (name for name in rows if name not in TOGETHER), key=lambda name: rows[name]["share"] or 0.0, default=""
    )
    found = scoring.finding(run.objects.found)
    whole = rows[FUSED]
    return {
        **{key: whole[key] for key in ("asked", "things", "few", "share", "interval")},
        "now": rows[NOW]["share"],
        "scene": rows[SCENE]["share"],
        "best": single,
        "alone": rows[single]["share"] if single else None,
        **{key: _mean([row[key] for row in found if row[key] is not None]) for key in ("precision", "recall")},
        "switches": sum(row["switches"] for row in scoring.tracks(run.objects.found, run.objects.meant)),
    }


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _spread(row: dict[str, Any], key: str = "share") -> str:
    bounds = row["interval"]
    told = "" if bounds is None else f" ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})"
    return _percent(row[key]) + told
