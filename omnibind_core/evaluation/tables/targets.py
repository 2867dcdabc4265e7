"""What the project wants to reach, beside what a report measured.

A target that Mean meets as well, which learns nothing, is no success of AF: its verdict is :data:`MEAN_TOO`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from omnibind_core.data.damage import NOISE
from omnibind_core.evaluation.bench import CONFLICTING
from omnibind_core.evaluation.methods import AF, MEAN, PROBES
from omnibind_core.evaluation.report.document import ONE_LABEL, Row

NOISE_COST = -0.05
"""Most that any single modality replaced by noise may cost, in combinations of three or more."""
CONFLICT = {3: 0.90, 4: 0.97}
"""Accuracy that is left, by the number of modalities, when one of them shows something of another label."""
ECE = 0.03
AUROC = 0.95

MEAN_TOO = "Mean too"
"""Verdict on a target that AF meets, and Mean as well."""

Tables = Mapping[str, Sequence[Row]]


def check(tables: Tables) -> Iterator[Row]:
    """The targets that can be judged by the tables of a report.

    Args:
        tables: Rows by the name of the table.
    """
    yield from _clean(tables.get("by_size", ()))
    yield from _noise(tables.get("noise_each", ()))
    yield from _conflict(tables.get("noise_any", ()))
    for row in tables.get("calibration", ()):
        if row["modalities"] == "any" and row["method"] == AF:
            others = _others(tables["calibration"], row)
            where = _rests(row, _sized(row["size"]))
            yield _goal("calibration error (ECE)", where, "at most 0.03", row, "ece", ECE, others, most=True)
    for row in tables.get("unknown", ()):
        if row["method"] == AF:
            things = row["labels_unknown"]
            where = f"{_sized(row['modalities'])}, {row['unknown']} ({things} thing{'' if things == 1 else 's'})"
            others = _others(tables["unknown"], row)
            yield _goal("unknown things (AUROC)", _rests(row, where), "at least 0.95", row, "auroc", AUROC, others)
    yield from _several(tables.get("several", ()))


def _clean(rows: Sequence[Row]) -> Iterator[Row]:
    """AF against Mean without anything wrong."""
    for row in rows:
        if row["method"] == AF and row["modalities"] > 1:
            mean, probes = _same(rows, row, MEAN), _same(rows, row, PROBES)
            assert mean is not None
            yield {
                "goal": "nothing wrong: AF loses nothing",
                "condition": _rests(row, _sized(row["modalities"])),
                "target": f"{100 * mean['accuracy']:.1f} % (Mean)",
                "measured": f"{100 * row['accuracy']:.1f} %{_bounds(row['interval'], 100)}",
                "mean": f"{100 * mean['accuracy']:.1f} %",
                "probes": None if probes is None else f"{100 * probes['accuracy']:.1f} %",
                "value": row["accuracy"],
                "interval": row["interval"],
                **_met(row["accuracy"] >= mean["accuracy"], row["accuracy"] == mean["accuracy"]),
            }


def _noise(rows: Sequence[Row]) -> Iterator[Row]:
    """The worst modality at every size; that of Mean may be another, and Probes are asked with AF's."""
    worst: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row["kind"] == NOISE and row["method"] in (AF, MEAN) and row["modalities"] >= 3:
            old = worst.get((row["method"], row["modalities"]))
            worst[row["method"], row["modalities"]] = row if old is None or row["cost"] < old["cost"] else old
    for size in sorted(size for method, size in worst if method == AF):
        row, mean = worst[AF, size], worst.get((MEAN, size))
        other = _same(rows, row, PROBES)
        most, least = row["cost_interval"]
        yield {
            "goal": "one modality replaced by noise: cost",
            "condition": _rests(row, f"{_sized(size)}, worst: {row['wrong'].replace('_', ' ')}"),
            "target": "at most 5 points",
            "measured": f"{-100 * row['cost'] + 0.0:.1f} points{_bounds((-least, -most), 100)}",
            "mean": None
            if mean is None
            else f"{-100 * mean['cost'] + 0.0:.1f} points ({mean['wrong'].replace('_', ' ')})",
            "probes": None if other is None else f"{-100 * other['cost'] + 0.0:.1f} points",
            "value": row["cost"],
            "interval": row["cost_interval"],
            **_met(row["cost"] >= NOISE_COST, mean is not None and mean["cost"] >= NOISE_COST),
        }


def _conflict(rows: Sequence[Row]) -> Iterator[Row]:
    for row in rows:
        if row["kind"] == CONFLICTING and row["method"] == AF and row["modalities"] in CONFLICT:
            goal = CONFLICT[row["modalities"]]
            mean, probes = _others(rows, row)
            yield {
                "goal": "one modality shows another label: accuracy",
                "condition": _rests(row, f"{_sized(row['modalities'])}, a random one"),
                "target": f"at least {100 * goal:.0f} %",
                "measured": f"{100 * row['accuracy']:.1f} %{_bounds(row['interval'], 100)}",
                "mean": None if mean is None else f"{100 * mean['accuracy']:.1f} %",
                "probes": None if probes is None else f"{100 * probes['accuracy']:.1f} %",
                "value": row["accuracy"],
                "interval": row["interval"],
                **_met(row["accuracy"] >= goal, mean is not None and mean["accuracy"] >= goal),
            }


def _several(rows: Sequence[Row]) -> Iterator[Row]:
    good, mean = (
        min((r for r in rows if (r["method"], r["second_is"]) == (name, "good")), key=lambda r: r["gain"], default=None)
        for name in (AF, MEAN)
    )
    if good is not None:
        row = good
        yield {
            "goal": "a second sensor of one modality never hurts",
            "condition": _rests(row, f"worst: {row['modalities'].replace('_', ' ')}"),
            "target": "gain of 0 points or more",
            "measured": f"{100 * row['gain']:+.1f} points{_bounds(row['gain_interval'], 100)}",
            "mean": None
            if mean is None
            else f"{100 * mean['gain']:+.1f} points ({mean['modalities'].replace('_', ' ')})",
            "probes": None,
            "value": row["gain"],
            "interval": row["gain_interval"],
            **_met(row["gain"] >= 0, mean is not None and mean["gain"] >= 0),
        }


def _goal(
    goal: str,
    where: str,
    target: str,
    row: Row,
    key: str,
    limit: float,
    others: tuple[Row | None, Row | None],
    most: bool = False,
) -> Row:
    mean, probes = others
    reached = [one is not None and (one[key] <= limit if most else one[key] >= limit) for one in (row, mean)]
    bounds = row["ece_interval" if key == "ece" else "interval"]
    return {
        "goal": goal,
        "condition": where,
        "target": target,
        "measured": f"{row[key]:.3f}{_bounds(bounds)}",
        "mean": None if mean is None else f"{mean[key]:.3f}",
        "probes": None if probes is None else f"{probes[key]:.3f}",
        "value": row[key],
        "interval": bounds,
        **_met(*reached),
    }


def _met(reached: bool, mean: bool) -> Row:
    """Whether AF meets a target, and the verdict, which says whether Mean does, too."""
    return {"met": reached, "verdict": "no" if not reached else MEAN_TOO if mean else "yes"}


def _others(rows: Sequence[Row], row: Row) -> tuple[Row | None, Row | None]:
    """The rows of Mean and of Probes that are otherwise the same."""
    return _same(rows, row, MEAN), _same(rows, row, PROBES)


def _rests(row: Row, where: str) -> str:
    """The condition, which says so if the figure rests on one label."""
    return f"{where} ({ONE_LABEL})" if row.get("labels") == 1 else where


def _same(rows: Sequence[Row], row: Row, method: str) -> Row | None:
    """The row of another method that is otherwise the same."""
    keys = [key for key in ("size", "modalities", "wrong", "kind", "unknown") if key in row]
    return next((o for o in rows if o["method"] == method and all(o[key] == row[key] for key in keys)), None)


def _bounds(bounds: Sequence[float], scale: float = 1.0) -> str:
    digits = 1 if scale > 1 else 3
    low, high = (f"{scale * bound + 0.0:.{digits}f}" for bound in bounds)
    return f" ({low} to {high})"


def _sized(size: int) -> str:
    return f"{size} modalit{'y' if size == 1 else 'ies'}"
