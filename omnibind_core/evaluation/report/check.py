"""Whether the figures of a report are those that it was written with, and fit each other.

The digest notices every later change, but not one by who makes a new digest, too; therefore what can be computed from
other figures of the same report is computed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omnibind_core.evaluation.report.document import digest
from omnibind_core.evaluation.tables import targets

_ROUNDED = 1.5e-5  # between two figures of five digits
_SOURCES = frozenset({"by_size", "noise_each", "noise_any", "calibration", "unknown", "several"})
"""Tables that the targets are computed from."""
_COUNTED = frozenset(
    {"by_size", "combinations", "single", "by_source", "calibration", "noise_any", "noise_each", "paper_noise"}
)
"""Tables whose accuracies of one seed are shares of ``n`` answers, not means of several shares."""


def faults(report: Mapping[str, Any]) -> list[str]:
    """What is wrong with the content of a ``report.json``, in words; empty if nothing is.

    Args:
        report: The whole, or some of its tables with a digest of their own. Targets whose tables are missing are
            believed.
    """
    found = []
    if report.get("digest") != digest(report):
        found.append("the digest is not that of the content")
    seeds = report["facts"].get("seeds of trained baselines")
    once = 1 if not isinstance(seeds, list) or len(seeds) == 1 else 0
    for name, table in report["tables"].items():
        for number, row in enumerate(table["rows"]):
            found += [
                f"{name}, row {number}: {fault}"
                for fault in _row(row, name in _COUNTED and row.get("seeds", once) == 1)
            ]
    return [*found, *_targets(report["tables"])]


def _row(row: Mapping[str, Any], counted: bool) -> Iterator[str]:
    accuracy, bounds, asked = row.get("accuracy"), row.get("interval"), row.get("n")
    for key in ("accuracy", "macro", "clean", "ece", "auroc", "one"):
        value = row.get(key)
        if value is not None and not 0 <= value <= 1:
            yield f"{key} is {value}, expected 0 to 1"
    if accuracy is None:
        return
    if bounds and None not in bounds and not bounds[0] - _ROUNDED <= accuracy <= bounds[1] + _ROUNDED:
        yield f"accuracy {accuracy} lies outside of its interval {bounds}"
    # With few answers a count of right ones can be told from five digits.
    if (
        counted
        and asked
        and asked < 0.4 / _ROUNDED
        and abs(accuracy * asked - round(accuracy * asked)) > (asked * _ROUNDED)
    ):
        yield f"accuracy {accuracy} is no share of {asked} answers"
    for key, before in (("cost", "clean"), ("gain", "one")):
        if row.get(key) is not None and abs(accuracy - row[before] - row[key]) > 2 * _ROUNDED:
            yield f"{key} {row[key]} is not {accuracy} less {row[before]}"


def _targets(tables: Mapping[str, Any]) -> Iterator[str]:
    if "targets" not in tables:
        return
    told = {(row["goal"], row["condition"]): row for row in tables["targets"]["rows"]}
    computed = {
        (row["goal"], row["condition"]): row
        for row in targets.check({name: table["rows"] for name, table in tables.items()})
    }
    if set(tables) >= _SOURCES and set(told) != set(computed):
        yield "the targets are not those that the tables give"
    for key, row in computed.items():
        where = f"target '{': '.join(key)}'"
        if key not in told:
            yield f"{where} is missing"
            continue
        for name in ("target", "measured", "mean", "probes", "verdict"):
            if not _alike(told[key].get(name), row[name]):
                yield f"{where}: {name} is {told[key].get(name)!r}, the tables give {row[name]!r}"
        if told[key]["met"] != row["met"] or abs(told[key]["value"] - row["value"]) > _ROUNDED:
            yield f"{where}: it is not met as the tables say"


def _alike(one: str | None, other: str | None) -> bool:
    """Whether two texts are the same, but for the last digit of their numbers: one was rounded twice."""
    number = r"-?\d+\.\d+"
    if one is None or other is None or re.sub(number, "", one) != re.sub(number, "", other):
        return one == other
    pairs = zip(re.findall(number, one), re.findall(number, other), strict=True)
    return all(abs(float(a) - float(b)) <= 1.001 * 10.0 ** -len(a.partition(".")[2]) for a, b in pairs)
