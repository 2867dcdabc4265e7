"""The report of a bag: tables and figures of an evaluation, for :mod:`omnibind_core.evaluation.report.document`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnibind_core.evaluation.report import plots
from omnibind_core.evaluation.report.document import Column, Plot, Report, Section, Table
from omnibind_core.runtime.types import SensorState
from omnibind_ros.replay import figures, scoring
from omnibind_ros.replay.batch import Outcome
from omnibind_ros.replay.evaluation import Evaluation, Run
from omnibind_ros.replay.objects import sections as objects
from omnibind_ros.replay.scoring import OUTCOMES, Row

_SENSOR_NOTE = (
    "Alone, fused: how often the first label was right at the ticks that the sensor took part in and had something to "
    "say."
)

TALLY: tuple[Column, ...] = (
    Column("ticks", "ticks", "count"),
    Column("accuracy", "right, %", "share"),
    Column("accuracy_said", "of answers, %", "share"),
    Column("top1", "first label, %", "share"),
    Column("top5", "first five, %", "share"),
    Column("wrong", "wrong", "count"),
    Column("unknown", "unknown", "count"),
    Column("silent", "silent", "count"),
)


def report(evaluation: Evaluation) -> Report:
    """The report of one bag."""
    sections = [_overview(evaluation), _sensors(evaluation)]
    if evaluation.truth is not None:
        sections += [_scores(evaluation), _mistakes(evaluation)]
    if len(evaluation.runs) > 1:
        sections.insert(2, _what_if(evaluation))
    if evaluation.runs[0].combinations:
        sections.insert(2, _ablation(evaluation))
    sections += objects.sections(evaluation)
    sections.append(Section("Every tick", "", [_ticks(evaluation)]))
    return Report("bag", f"Bag {evaluation.bag}", _facts(evaluation), sections)


def _facts(evaluation: Evaluation) -> dict[str, Any]:
    values = evaluation.setup.parameters
    return {
        "bag": evaluation.bag,
        "start_ns": evaluation.start_ns,
        "seconds": evaluation.span_s,
        "model": evaluation.model,
        "labels": evaluation.labels,
        "threshold": evaluation.threshold,
        "sensors": ", ".join(evaluation.setup.present),
        "rate": values["rate"],
        "trigger": values["trigger"],
        "max_wait": values["max_wait"],
        "ticks": len(evaluation.rows),
        "complete": not evaluation.damage,
    }


def summary(evaluation: Evaluation, run: Run | None = None) -> dict[str, Any]:
    """The figures of one replay in one row."""
    rows = (run or evaluation.runs[0]).rows
    first = scoring.summary_of_times(scoring.first_right(rows, evaluation.segments))
    again = scoring.summary_of_times(scoring.losses(rows))
    return {
        **scoring.tally(rows),
        "accuracy_settled": scoring.tally(evaluation.settled(rows))["accuracy"],
        "changes": first["number"],
        "changes_recognised": first["reached"],
        "first_right_s": first["median_s"],
        "losses": again["number"],
        "losses_recovered": again["reached"],
        "recovery_s": again["median_s"],
    }


SUMMARY: tuple[Column, ...] = (
    *TALLY,
    Column("accuracy_settled", "settled, %", "share"),
    Column("first_right_s", "first right, s", "seconds"),
    Column("recovery_s", "after a loss, s", "seconds"),
)


def _overview(evaluation: Evaluation) -> Section:
    rows = evaluation.rows
    parts: list[Table | Plot] = []
    text = f"{len(rows)} ticks in {evaluation.span_s:.1f} s. "
    if evaluation.truth is None:
        text += "Nobody told what was there, so nothing is scored: what was said is in the last chapter."
    else:
        tally = scoring.tally(rows)
        counts = ", ".join(f"{tally[key]} {key}" for key in OUTCOMES)
        left = len(rows) - tally["ticks"]
        text += (
            f"{tally['ticks']} of them count: {counts}; {left} have no label that the model knows. "
            "A tick is right if the label said is one of those that hold; it is unknown if the confidence is below the "
            f"model's threshold of {evaluation.threshold:.2f}, and silent if no sensor had anything to say. "
            f"Settled are the ticks from {evaluation.options.settle:g} s after a change on: before that, frames and "
            "windows of sound still show what was there before."
        )
        parts.append(Table("summary", "As recorded", [summary(evaluation)], SUMMARY))
    parts.append(figures.timeline(evaluation))
    if evaluation.notes:
        parts.append(Table("notes", "What should be known", [{"note": note} for note in evaluation.notes]))
    return Section("Overview", text, parts)


def _sensors(evaluation: Evaluation) -> Section:
    rows, run = evaluation.rows, evaluation.runs[0]
    reports = {one.name: one for one in run.reports}
    table = []
    for place, (name, sensor) in enumerate(evaluation.setup.sensors.items()):
        states = [states[place] for states in run.states]
        one = reports.get(name)
        share = {state.name.lower(): scoring.share(states.count(state), len(states)) for state in SensorState}
        table.append(
            {
                "sensor": name,
                "modality": sensor.config.modality,
                "topic": evaluation.setup.topics[name],
                "messages": one.received if one else 0,
                "rejected": one.rejected if one else 0,
                **scoring.of_sensor(rows, name),
                **{f"share_{key}": value for key, value in share.items()},
                "last_state": one.state.name.lower() if one else "",
                "last_reason": one.reason if one else "",
            }
        )
    columns = (
        Column("sensor", "sensor"),
        Column("modality", "modality"),
        Column("topic", "topic"),
        Column("messages", "messages", "count"),
        Column("rejected", "rejected", "count"),
        Column("ticks", "ticks fused", "count"),
        Column("nothing_to_say", "nothing to say", "count"),
        Column("mean_weight", "mean weight, %", "share"),
        Column("median_age_s", "median age, s", "seconds"),
        Column("top1_alone", "alone, %", "share"),
        Column("top1_fused_same_ticks", "fused, %", "share"),
    )
    parts: list[Table | Plot] = [Table("sensors", "What each sensor contributed", table, columns, _SENSOR_NOTE)]
    parts += _losses(scoring.losses(rows))
    return Section("Sensors", "", parts)


def _losses(losses: Sequence[Mapping[str, Any]]) -> list[Table | Plot]:
    if not losses:
        return []
    rows = []
    for name in dict.fromkeys(one["sensor"] for one in losses):
        own = [one for one in losses if one["sensor"] == name]
        rows.append({"sensor": name, "kept": sum(one["kept"] for one in own), **scoring.summary_of_times(own)})
    columns = (
        Column("sensor", "sensor lost"),
        Column("number", "times", "count"),
        Column("kept", "right at once", "count"),
        Column("reached", "right again", "count"),
        Column("median_s", "median, s", "seconds"),
        Column("max_s", "longest, s", "seconds"),
    )
    note = (
        "Losses of a sensor at which the answer was right before: from the last tick with it to the first right one "
        "without it, unless what was there changed before."
    )
    return [
        Table("losses", "Time to recover after losing a sensor", rows, columns, note),
        Table("losses_each", "Every loss", losses, folded=True),
    ]


def _scores(evaluation: Evaluation) -> Section:
    rows = evaluation.rows
    living = [{**row, "sensors": " + ".join(row["sensors"]) or "none"} for row in scoring.by_combination(rows)]
    changes = [{**one, "labels": " / ".join(one["labels"])} for one in scoring.first_right(rows, evaluation.segments)]
    binned = scoring.over_time(rows)
    parts: list[Table | Plot] = [
        Table(
            "combinations",
            "By the sensors that took part",
            living,
            (Column("sensors", "sensors"), *TALLY),
            "Each set was alive at other times, before other things: --ablate all compares them at the same ticks.",
        )
    ]
    series = {
        name: [((one["start_s"] + one["end_s"]) / 2, one[key], None) for one in binned if one[key] is not None]
        for name, key in (("right", "accuracy"), ("first label right", "top1"))
    }
    if any(series.values()):
        labels = ("time in the bag, s", "share of ticks, %")
        parts.append(plots.lines("accuracy_over_time", "Over time", series, labels))
    parts += [
        Table("over_time", "Over time", binned, (Column("start_s", "from, s", "count"), *TALLY), folded=True),
        Table(
            "changes",
            "Time to the first right answer after each change",
            changes,
            (
                Column("time_s", "at, s", "seconds"),
                Column("labels", "what came"),
                Column("seconds", "first right answer after, s", "seconds"),
            ),
            "– : there was none before the next change.",
            folded=len(changes) > 20,
        ),
    ]
    return Section("Accuracy", "", parts)


def _mistakes(evaluation: Evaluation) -> Section:
    confused = scoring.confusion(evaluation.rows)
    parts: list[Table | Plot] = []
    figure = figures.confusion(confused)
    if figure is not None:
        parts.append(figure)
    parts.append(Table("confusion", "What was said for what was there", confused, folded=True))
    worst = evaluation.runs[0].worst
    listed = [
        {
            "time_s": mistake.row.time_s,
            "truth": " / ".join(mistake.row.truth),
            "said": mistake.row.label,
            "confidence": mistake.row.confidence,
            "below_threshold": mistake.row.unknown,
            **{"sensors": " + ".join(mistake.row.sensors)},
        }
        for mistake in worst
    ]
    parts.append(
        Table(
            "worst",
            "Most confident mistakes",
            listed,
            note="The worst tick of each kind of mistake, at most six; only ticks that are settled.",
        )
    )
    parts += [figures.worst(number, mistake) for number, mistake in enumerate(worst, 1)]
    return Section("Mistakes", "", parts)


def _what_if(evaluation: Evaluation) -> Section:
    base = summary(evaluation)
    table = []
    for run in evaluation.runs:
        measured = summary(evaluation, run)
        costs = {
            f"{key}_change": None if measured[key] is None or base[key] is None else measured[key] - base[key]
            for key in ("accuracy", "top1")
        }
        table.append({"scenario": run.scenario.name, **measured, **costs})
    columns = (
        Column("scenario", "what is different"),
        Column("accuracy", "right, %", "share"),
        Column("accuracy_change", "change, points", "points"),
        Column("top1", "first label right, %", "share"),
        Column("top1_change", "change, points", "points"),
        *(column for column in SUMMARY if column.key in ("unknown", "silent", "first_right_s", "recovery_s")),
    )
    parts: list[Table | Plot] = []
    if evaluation.truth is not None:
        parts = [
            Table("what_if", "What if", table, columns),
            figures.scenarios(evaluation),
        ]
    ticks = [{"scenario": run.scenario.name, **_tick(row)} for run in evaluation.runs[1:] for row in run.rows]
    parts.append(Table("what_if_ticks", "Every tick of every change", ticks, folded=True))
    return Section("What if", "The same bag with something changed; times are s from its beginning.", parts)


def _ablation(evaluation: Evaluation) -> Section:
    combinations = evaluation.runs[0].combinations
    tallies = {names: scoring.tally(rows) for names, rows in combinations.items()}
    whole = tallies[evaluation.setup.present]

    def change(names: tuple[str, ...], key: str = "top1") -> float | None:
        return None if whole[key] is None or tallies[names][key] is None else tallies[names][key] - whole[key]

    table = [
        {
            "sensors": " + ".join(names),
            **tally,
            "accuracy_change": change(names, "accuracy"),
            "top1_change": change(names),
        }
        for names, tally in sorted(tallies.items(), key=lambda pair: -(pair[1]["top1"] or 0.0))
    ]
    singles = []
    for name in evaluation.setup.present:
        rest = tuple(other for other in evaluation.setup.present if other != name)
        singles.append(
            {
                "sensor": name,
                "top1_alone": tallies[(name,)]["top1"],
                "top1_without": tallies[rest]["top1"] if rest else None,
                "accuracy_change": change(rest, "accuracy") if rest else None,
                "top1_change": change(rest) if rest else None,
            }
        )
    columns = (
        Column("sensors", "sensors"),
        *TALLY,
        Column("accuracy_change", "right, points", "points"),
        Column("top1_change", "first label, points", "points"),
    )
    parts: list[Table | Plot] = [
        Table(
            "cost_of_loss",
            "Cost of losing each sensor",
            singles,
            (
                Column("sensor", "sensor"),
                Column("top1_alone", "alone: first label right, %", "share"),
                Column("top1_without", "all others: first label right, %", "share"),
                Column("accuracy_change", "loss: right, points", "points"),
                Column("top1_change", "loss: first label right, points", "points"),
            ),
            "Alone, a sensor is wrong where it is silent.",
        ),
        figures.combinations(combinations, tallies),
        Table("ablation", "Every combination of sensors", table, columns, folded=True),
    ]
    text = (
        "Every combination, at the same ticks, from the same data: only the fusion is made anew. A combination is "
        "silent at ticks where none of its sensors is alive; the best stands first."
    )
    return Section("Every combination", text, parts)


def _tick(row: Row) -> dict[str, Any]:
    return {
        "time_s": round(row.time_s, 6),
        "truth": " / ".join(row.truth),
        "outcome": row.outcome,
        "label": row.label,
        "confidence": row.confidence,
        "conflict": row.conflict,
        "sensors": " + ".join(row.sensors),
        "weights": " + ".join(f"{weight:.3f}" for weight in row.weights),
        "alone": " + ".join(row.said),
    }


def _ticks(evaluation: Evaluation) -> Table:
    columns = (
        Column("time_s", "time, s", "seconds"),
        Column("truth", "what was there"),
        Column("outcome", "answer"),
        Column("label", "first label"),
        Column("confidence", "confidence, %", "share"),
        Column("conflict", "conflict, %", "share"),
        Column("sensors", "sensors"),
        Column("alone", "each alone"),
    )
    return Table("ticks", "Every tick", [_tick(row) for row in evaluation.rows], columns, folded=True)


def overview(outcomes: Sequence[Outcome], names: Sequence[str]) -> Report:
    """The report of several bags; the ones that failed are named.

    Args:
        outcomes: One per bag.
        names: Folder of each bag's own report.
    """
    done = [
        (outcome.evaluation, name)
        for outcome, name in zip(outcomes, names, strict=True)
        if outcome.evaluation is not None
    ]
    rows = [
        {"bag": evaluation.bag, "report": name, "seconds": evaluation.span_s, **summary(evaluation)}
        for evaluation, name in done
    ]
    everything = [row for evaluation, _ in done for row in evaluation.rows]
    columns = (Column("bag", "bag"), Column("seconds", "length, s", "seconds"), *SUMMARY)
    parts: list[Table | Plot] = [
        Table("bags", "Every bag", rows, columns, "The report of each lies in the folder of its name.")
    ]
    if scoring.tally(everything)["ticks"]:
        parts.append(Table("all", "All ticks together", [scoring.tally(everything)], TALLY))
        scored = [row for row in rows if row["ticks"]]
        series = {
            name: [(row[key], None) for row in scored]
            for name, key in (("right", "accuracy"), ("first label right", "top1"))
        }
        parts.append(
            plots.bars("accuracy_by_bag", "Accuracy by bag", [row["report"] for row in scored], series, "share, %")
        )
    parts += objects.together([evaluation for evaluation, _ in done])
    failed = [{"bag": str(outcome.path), "error": outcome.error} for outcome in outcomes if outcome.evaluation is None]
    if failed:
        parts.append(Table("failed", "Bags that could not be evaluated", failed))
    notes = [{"bag": evaluation.bag, "note": note} for evaluation, _ in done for note in evaluation.notes]
    if notes:
        parts.append(Table("notes", "What should be known", notes))
    models = ", ".join(sorted({evaluation.model for evaluation, _ in done}))
    facts = {"bags": len(outcomes), "failed": len(failed), "model": models, "ticks": len(everything)}
    return Report("bag", f"{len(outcomes)} bags", facts, [Section("Bags", "", parts)])


def write(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Writes the report of one bag, or of several: then also one of each, in a folder of the bag's name.

    Args:
        outcomes: One per bag, one at least.
        out: Folder of the report.

    Returns:
        The page to look at.
    """
    if len(outcomes) == 1 and outcomes[0].evaluation is not None:
        return report(outcomes[0].evaluation).write(out)
    names = _folder_names([outcome.path for outcome in outcomes])
    for outcome, name in zip(outcomes, names, strict=True):
        if outcome.evaluation is not None:
            report(outcome.evaluation).write(out / name)
    return overview(outcomes, names).write(out)


def _folder_names(paths: Sequence[Path]) -> list[str]:
    """A name for each bag's report: the bag's, with a number where two are alike."""
    names: list[str] = []
    for path in paths:
        stem = path.stem or "bag"
        names.append(next(n for n in (stem, *(f"{stem}_{i}" for i in range(2, len(paths) + 2))) if n not in names))
    return names
