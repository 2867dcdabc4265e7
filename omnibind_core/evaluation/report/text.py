"""What a report says in a terminal: the facts, accuracy, the paper's tables, the targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omnibind_core.data.damage import NOISE
from omnibind_core.evaluation.methods import AF
from omnibind_core.evaluation.report.document import Report, Row

Grid = list[list[str]]


def summary(report: Report) -> str:
    """The facts and the tables of :data:`GRIDS` that the report has, for people."""
    tables = report.tables()
    lines = [report.title, ""]
    for key, value in report.facts.items():
        lines.append(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for name, make in GRIDS.items():
        grid = make(tables[name].rows) if name in tables else []
        if len(grid) > 1:
            widths = [max(len(row[column]) for row in grid) for column in range(len(grid[0]))]
            lines += ["", f"{tables[name].title}:"]
            lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in grid]
    return "\n".join(lines)


def _by_size(rows: Sequence[Row]) -> Grid:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    sizes = {row["modalities"]: row["labels"] for row in rows}
    share = {(row["method"], row["modalities"]): f"{100 * row['accuracy']:.1f}" for row in rows}
    head = [f"{size} (one label)" if labels == 1 else str(size) for size, labels in sizes.items()]
    return [["accuracy, %", *head], *([m, *(share.get((m, s), "") for s in sizes)] for m in methods)]


def _random_noise(rows: Sequence[Row]) -> Grid:
    return _by_size([row for row in rows if row["kind"] == NOISE])


def _combinations(rows: Sequence[Row]) -> Grid:
    """A line for each combination and text, a column for each method; the line says if the data have no such label."""
    methods = list(dict.fromkeys(row["method"] for row in rows if row["n"]))
    lines: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row.get("paper", ""), row["modalities"], row["text"]), {})[row["method"]] = row
    grid = [["", "modalities", "the text", "labels", *(f"{method}, %" for method in methods)]]
    for head, found in lines.items():
        count = next(iter(found.values()))["labels"]
        labels = {0: "none in these data", 1: "one label"}.get(count, str(count))
        shown = [f"{100 * found[m]['accuracy']:.1f}" if count and m in found else "" for m in methods]
        grid.append([*head, labels, *shown])
    return grid


def _noise(rows: Sequence[Row]) -> Grid:
    """What noise in each modality costs the model's own fusion: a line for each combination and text."""
    rows = [row for row in rows if row["kind"] == NOISE and row["method"] == AF]
    wrong = list(dict.fromkeys(row["wrong"] for row in rows))
    lines: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row["paper"], row["modalities"], row["text"]), {})[row["wrong"]] = row
    grid = [["", "modalities", "the text", "labels", *(f"{name}, points" for name in wrong)]]
    for head, found in lines.items():
        count = next(iter(found.values()))["labels"]
        costs = [f"{100 * found[name]['cost']:+.1f}" if name in found else "" for name in wrong]
        grid.append([*head, "one label" if count == 1 else str(count), *costs])
    return grid


def _by_source(rows: Sequence[Row]) -> Grid:
    def percent(row: Row, key: str) -> str:
        return "" if row[key] is None else f"{100 * row[key]:.1f}"

    head = ["data", "modality", "source", "number", "n", "labels", "AF, %", "interval", "Mean", "Probes", "best"]
    grid = [[*head, "confidence", "ECE"]]
    for row in rows:
        low, high = row["interval"]
        grid.append(
            [
                *(str(row[key]) for key in ("data", "modalities", "source", "size", "n")),
                "one label" if row["labels"] == 1 else str(row["labels"]),
                percent(row, "accuracy"),
                f"{100 * low:.1f} to {100 * high:.1f}",
                *(percent(row, key) for key in ("mean", "probes")),
                row["best"],
                percent(row, "confidence"),
                f"{row['ece']:.3f}",
            ]
        )
    return grid


def _targets(rows: Sequence[Row]) -> Grid:
    keys = ("goal", "condition", "target", "measured", "mean", "probes", "verdict")
    head = ["goal", "where", "target", "measured", "Mean", "Probes", "met"]
    return [head, *([str(row[key] or "") for key in keys] for row in rows)]


GRIDS: dict[str, Callable[[Sequence[Row]], Grid]] = {
    "paper_pairs": _combinations,
    "paper_combinations": _combinations,
    "paper_noise": _noise,
    "af_parts": _by_size,
    "noise_any": _random_noise,
    "by_size": _by_size,
    "by_source": _by_source,
    "targets": _targets,
}
"""Tables that are shown, and how; the shortest and most wanted come last, where a terminal ends."""
