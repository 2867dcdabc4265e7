"""The paper's tables with its own combinations: pairs (Table 2), named ones (3, 9, 11), noise in each part (13)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations as subsets_of

from omnibind_core.data.damage import NOISE
from omnibind_core.errors import DataError
from omnibind_core.evaluation.bench import Bench, Row
from omnibind_core.evaluation.held_out import HELD_OUT
from omnibind_core.evaluation.methods import AF
from omnibind_core.evaluation.tables import robustness
from omnibind_core.evaluation.tables.accuracy import PAPER, by_method
from omnibind_core.features.combinations import TEXT, Combinations

Benches = Mapping[str, Bench]
"""Benches by what their text says (:mod:`omnibind_core.evaluation.texts`); ``""`` has none, and is always there."""


def pairs(benches: Benches) -> Iterator[Row]:
    """Every pair of the model's modalities (Table 2), and text alone."""
    names = [name for name in benches[""].model.modalities if name in benches[""].model.config.modalities]
    asked = [(TEXT,), *subsets_of(names, 2)] if TEXT in names else [*subsets_of(names, 2)]
    for columns in asked:
        yield from _accuracy(benches, columns, {})


def named(benches: Benches) -> Iterator[Row]:
    """The combinations that the paper names (Tables 3, 9 and 11)."""
    for key, columns in PAPER.items():
        yield from _accuracy(benches, columns, {"paper": key})


def noise(benches: Benches) -> Iterator[Row]:
    """The same with each of their modalities in turn replaced by noise (Table 13); text with all that can befall it."""
    for key, columns in PAPER.items():
        for text, bench in _asked(benches, columns).items():
            for wrong in columns:
                last = (*(name for name in columns if name != wrong), wrong)
                combos = _drawn(bench, last, "noise", max(1, bench.count // 2), among_subset=True)
                if combos is None:
                    continue
                head = {"modalities": "+".join(columns), "paper": key, "text": text, "wrong": wrong}
                column, rng = combos.label * 0 + len(columns) - 1, bench.rng("paper", key, wrong)
                compared = [*bench.methods.values()]
                every = bench.faults(wrong)
                faults = every if wrong == TEXT else tuple(fault for fault in (NOISE, HELD_OUT) if fault in every)
                yield from robustness.wrong(compared, bench, combos, column, faults, head, rng)


def absent(rows: Sequence[Row]) -> list[str]:
    """What the data have no label for, as ``"C5 (text, event, ...)"``, or ``"touch and audio"`` for a pair."""
    return [_called(row) for row in rows if not row["n"]]


def few(rows: Sequence[Row]) -> list[str]:
    """The combinations of :func:`named` that rest on one label."""
    return list(dict.fromkeys(row["paper"] for row in rows if row["labels"] == 1))


def _called(row: Row) -> str:
    names = row["modalities"].split("+")
    return f"{row['paper']} ({', '.join(names)})" if "paper" in row else " and ".join(names)


def _accuracy(benches: Benches, columns: tuple[str, ...], head: Row) -> Iterator[Row]:
    found = False
    for text, bench in _asked(benches, columns).items():
        combos = _drawn(bench, columns, "paper", bench.count)
        if combos is not None:
            found = True
            for row in by_method(bench, combos):
                if columns == (TEXT,):  # one text a label: drawing samples again changes nothing
                    row["interval"] = None
                yield {"modalities": "+".join(columns), **head, "text": text, **row}
    if not found:
        none = {"method": AF, "seeds": 0, "n": 0, "labels": 0, "accuracy": None, "interval": None, "macro": None}
        yield {"modalities": "+".join(columns), **head, "text": "", **none}


def _asked(benches: Benches, columns: Sequence[str]) -> Benches:
    """The benches that a combination is asked of: those with text, if it has text."""
    return {text: bench for text, bench in benches.items() if bool(text) == (TEXT in columns)}


def _drawn(
    bench: Bench, columns: tuple[str, ...], what: str, count: int, among_subset: bool = False
) -> Combinations | None:
    """Combinations of these modalities, the last from the samples that can be damaged; None if no label has all."""
    known = bench.data.known
    if not {*columns} <= {*known.modalities}:
        return None
    try:
        last = bench.subset[columns[-1]] if among_subset else None
        return known.draw_of(columns, count, bench.rng(what, *columns), last)
    except DataError:
        return None
