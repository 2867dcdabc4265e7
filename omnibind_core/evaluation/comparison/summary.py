"""Figures of repeated experiments as tables: mean and 95 % interval over seeds, and differences within each seed."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from omnibind_core.evaluation.report.document import neutral
from omnibind_core.files import write_atomically

CONFIDENCE = 0.95
ERROR, CONFIDENCE_OF, UNKNOWN = "ECE", "confidence", "unknown things"
"""End the names of tables of the expected calibration error, of which less is better; of the mean confidence, which is
better nearer to what is right; and of the area under the ROC curve."""
_FIGURES = {
    ERROR: "Calibration error (ECE)",
    CONFIDENCE_OF: "Mean confidence",
    UNKNOWN: "Area under the ROC curve of the confidence",
}


@dataclass(frozen=True)
class Measurement:
    """One figure of one experiment.

    Attributes:
        table: Which comparison it belongs to.
        condition: What was asked, a column of the table: "2 modalities".
        method: What answered, a row of the table: "AF".
        seed: Of the experiment; figures of one seed are compared in pairs.
        value: Share of right answers, 0..1.
    """

    table: str
    condition: str
    method: str
    seed: int
    value: float


@dataclass(frozen=True)
class Summary:
    """One cell of a table.

    Attributes:
        table: As in :class:`Measurement`.
        condition: As in :class:`Measurement`.
        method: As in :class:`Measurement`.
        seeds: How many figures it is the mean of.
        mean: Over the seeds.
        interval: Half the width of the 95 % interval of the mean; NaN for one seed.
        ahead: Mean over the seeds of the first method's figure less this one's; NaN for the first method itself.
        ahead_interval: Half the width of the 95 % interval of that difference; NaN for one seed.
    """

    table: str
    condition: str
    method: str
    seeds: int
    mean: float
    interval: float
    ahead: float
    ahead_interval: float


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval, by Student's t; the half width of one value is NaN."""
    count = len(values)
    if count < 2:
        return float(np.mean(values)), math.nan
    spread = float(np.std(values, ddof=1)) / math.sqrt(count)
    return float(np.mean(values)), float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread


def summarise(measurements: Sequence[Measurement]) -> list[Summary]:
    """Means over seeds. The first method that was measured in a condition is what the others are compared with."""
    cells: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for one in measurements:
        cells.setdefault((one.table, one.condition), {}).setdefault(one.method, {})[one.seed] = one.value
    rows = []
    for (table, condition), methods in cells.items():
        first = next(iter(methods))
        for method, figures in methods.items():
            both = [methods[first][seed] - value for seed, value in figures.items() if seed in methods[first]]
            ahead = (math.nan, math.nan) if method == first or not both else mean_interval(both)
            rows.append(Summary(table, condition, method, len(figures), *mean_interval([*figures.values()]), *ahead))
    return rows


def markdown(summaries: Sequence[Summary]) -> str:
    """Tables of percentages: methods as rows, conditions as columns; below each how far the first method is ahead."""
    lines: list[str] = []
    for table in dict.fromkeys(row.table for row in summaries):
        part = [row for row in summaries if row.table == table]
        counts = sorted({row.seeds for row in part})
        seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        how = "one seed" if counts == [1] else f"mean ± 95 % interval over {seeds} seeds"
        ending = table.rpartition(", ")[2]
        error, what = ending == ERROR, _FIGURES.get(ending, "Top-1")
        lines += [f"### {table}", "", f"{what} in percent, {how}:", ""]
        lines += _grid(part, {(r.method, r.condition): _cell(r.mean, r.interval) for r in part})
        compared = [row for row in part if not math.isnan(row.ahead) and ending != CONFIDENCE_OF]
        if compared:
            ahead = (
                "How much larger the error of the first method of each column is"
                if error
                else ("How far the first method of each column is ahead")
            )
            lines += ["", f"{ahead}, in points, paired by seed:", ""]
            cells = {(r.method, r.condition): _cell(r.ahead, r.ahead_interval, "+") for r in compared}
            lines += _grid(compared, cells)
        lines.append("")
    return "\n".join(lines)


def write(
    folder: Path, name: str, measurements: Sequence[Measurement], settings: Mapping[str, Any], notes: Sequence[str] = ()
) -> str:
    """Writes ``name.json`` (all figures, their means, the settings), ``name.csv`` (means) and ``name.md`` (tables).

    The notes stand below the tables.

    Returns:
        The tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summaries = summarise(measurements)
    rows = [{key: _plain(value) for key, value in asdict(row).items()} for row in summaries]
    everything = {
        "settings": dict(settings),
        "notes": [*notes],
        "summary": rows,
        "measurements": [asdict(one) for one in measurements],
    }
    with write_atomically(folder / f"{name}.json") as path:
        path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    with write_atomically(folder / f"{name}.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Summary.__dataclass_fields__))
        writer.writeheader()
        writer.writerows({key: neutral(value) for key, value in row.items()} for row in rows)
    text = markdown(summaries) + "".join(f"* {note}\n" for note in notes)
    with write_atomically(folder / f"{name}.md") as path:
        path.write_text(text, encoding="utf-8")
    return text


def _grid(rows: Sequence[Summary], cells: Mapping[tuple[str, str], str]) -> list[str]:
    conditions = list(dict.fromkeys(row.condition for row in rows))
    lines = ["| method | " + " | ".join(conditions) + " |", "|---" * (1 + len(conditions)) + "|"]
    for method in dict.fromkeys(row.method for row in rows):
        lines.append(f"| {method} | " + " | ".join(cells.get((method, one), "") for one in conditions) + " |")
    return lines


def _cell(mean: float, interval: float, sign: str = "") -> str:
    text = f"{100 * mean:{sign}.1f}"
    return text if math.isnan(interval) else f"{text} ± {100 * interval:.1f}"


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 5)
