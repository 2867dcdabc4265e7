"""What a wrong, a missing and a second sensor do to the answer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnibind_core.data.damage import NOISE
from omnibind_core.errors import DataError
from omnibind_core.evaluation import methods
from omnibind_core.evaluation.bench import CONFLICTING, STUCK, Bench, Row, cost
from omnibind_core.evaluation.methods import AF, MEAN, PROBES, PROBES_DAMAGED, FusionMethod, Method
from omnibind_core.features.combinations import Combinations, EmbeddedSplit, Index

_COMPARED = (AF, MEAN, PROBES, PROBES_DAMAGED)
_BATCH = 256  # combinations that a fusion is taught an absence with; four are trained
ANY = "any one"
"""Which modality is wrong, where it is a random one."""


def noise(bench: Bench, only: Collection[str] | None = None, *, each: bool = True) -> Iterator[Row]:
    """One sensor is wrong: a random one (Table 12), then each in turn, by fault and number of modalities.

    Args:
        bench: What is measured, and with what.
        only: These faults; None for all of ``bench.faults``.
        each: Whether each sensor in turn is wrong, too.
    """
    known = bench.data.known
    for size in bench.sizes[1:]:
        for modality in (None, *(known.modalities if each else ())):
            rng = bench.rng("noise", size, modality)
            try:
                combos = known.draw(max(1, bench.count // 2), rng, size, among=bench.subset, having=modality)
            except DataError:  # no label of this modality has so many
                continue
            if modality is None:
                order = np.where(combos.mask, rng.random(combos.rows.shape), -1.0)
                column = order.argmax(axis=1)
                faults = tuple(dict.fromkeys(fault for name in known.modalities for fault in bench.faults(name)))
            else:
                column = np.full(len(combos), combos.columns.index(modality))
                faults = bench.faults(modality)
            if only is not None:
                faults = tuple(fault for fault in faults if fault in only)
            compared = bench.some(*_COMPARED) if modality else [*bench.methods.values()]
            yield from wrong(
                compared, bench, combos, column, faults, {"modalities": size, "wrong": modality or ANY}, rng
            )


def wrong(
    compared: Sequence[Method],
    bench: Bench,
    combos: Combinations,
    column: Index,
    faults: tuple[str, ...],
    head: Row,
    rng: np.random.Generator,
) -> Iterator[Row]:
    """What methods answer before and after the sensor in ``column[b]`` of each combination goes wrong, by fault.

    Args:
        compared: The methods.
        bench: Makes the faults.
        combos: Where nothing is wrong; those that change are of samples in ``bench.subset``.
        column: ``int64 [B]``.
        faults: Some of ``bench.faults``.
        head: What each row begins with.
        rng: Source of randomness.
    """
    clean = {method.name: method.right(combos) for method in compared}
    for fault in faults:
        changed, possible = bench.wrong(combos, column, fault, rng)
        if not len(possible):
            continue
        before = combos.take(possible)
        weights = bench.boot.weights(before)
        for method in compared:
            right = method.right(changed)
            was = clean[method.name][possible]
            row = {**head, "kind": fault, "method": method.name, "clean": float(was.mean())}
            yield {**row, **bench.row(before, right, weights), **cost(bench, before, was, right)}


@dataclass(frozen=True, kw_only=True)
class LabelledAbsence(EmbeddedSplit):
    """A split in which one modality of every label is always missing.

    Attributes:
        missing: ``int64 [C]``, column that is missing in combinations of each label; -1 for none.
    """

    missing: Index

    def draw(self, *args: Any, **kwargs: Any) -> Combinations:
        """See :meth:`Split.draw`; a combination that would be left empty stays as it is."""
        combos = super().draw(*args, **kwargs)
        column = self.missing[combos.label]
        gone = (column >= 0) & (combos.mask.sum(axis=1) > 1)
        rows = combos.rows.copy()
        rows[gone, column[gone]] = -1
        return dataclasses.replace(combos, rows=rows)


def missing(bench: Bench) -> Iterator[Row]:
    """Which modality is absent depends on the label, in training too (the setting of MultiModN, Swamy et al. 2023).

    In a pattern of absences every label lacks one modality. A fusion that is trained so may learn which label an
    absence stands for. It is then asked with all modalities that a label has but one: that of the pattern, that of
    another pattern, or a random one. There are two patterns, and each figure is the mean of both ways round, so that
    all ask the same. The model's own fusion and Mean, which never saw such training, are asked the same.
    """
    rng = bench.rng("missing")
    first = _assign(bench, rng)
    patterns = first, _assign(bench, rng, first)
    full = _everything(bench, rng)
    if full is None:
        return
    random = _without(full, np.where(full.mask, rng.random(full.rows.shape), -1.0).argmax(axis=1))
    lacking = [_without(full, pattern[full.label]) for pattern in patterns]
    both = Combinations.joined(lacking)
    for method in bench.some(AF, MEAN):
        for pattern, combos in (("depends on the label", both), ("at random", random)):
            row = {"method": method.name, "trained_with": "at random", "absence": pattern, "seeds": 1}
            yield {**row, **bench.row(combos, method.right(combos))}
    for name, ways in _taught(bench, patterns):
        same = np.concatenate([way.right(combos) for way, combos in zip(ways, lacking, strict=True)])
        other = np.concatenate([way.right(combos) for way, combos in zip(ways[::-1], lacking, strict=True)])
        chance = np.mean([way.right(random) for way in ways], axis=0)
        row = {"method": name, "trained_with": "depends on the label", "seeds": ways[0].seeds}
        yield {**row, "absence": "as in training", **bench.row(both, same)}
        yield {**row, "absence": "another than in training", **bench.row(both, other)}
        yield {**row, "absence": "at random", **bench.row(random, chance)}


def _assign(bench: Bench, rng: np.random.Generator, taken: Index | None = None) -> Index:
    """A random modality of each label that has two or more, another than the one that is ``taken``; -1 for others."""
    sets = list(bench.data.known.sets.values())
    found = np.full(len(bench.data.known.names), -1, np.int64)
    has = np.stack([np.isin(np.arange(len(found)), samples.concept) for samples in sets], axis=1)
    for label in np.flatnonzero(has.sum(axis=1) > 1):
        columns = [column for column in np.flatnonzero(has[label]) if taken is None or column != taken[label]]
        found[label] = rng.choice(columns)
    return found


def _everything(bench: Bench, rng: np.random.Generator) -> Combinations | None:
    """Combinations of all modalities that their labels have, two or more; None if no label has two."""
    known = bench.data.known
    several = np.bincount(np.concatenate([np.unique(samples.concept) for samples in known.sets.values()]))
    total = (several > 1).sum()
    drawn = []
    for size in np.unique(several[several > 1]).tolist():
        labels = np.flatnonzero(several == size)
        among = {name: np.flatnonzero(np.isin(x.concept, labels)) for name, x in known.sets.items()}
        drawn.append(known.draw(math.ceil(bench.count * len(labels) / total), rng, size, among=among))
    return Combinations.joined(drawn) if drawn else None


def _without(combos: Combinations, column: Index) -> Combinations:
    """The combinations without the sample in ``column[b]``."""
    return combos.replaced(column, np.full(len(combos), -1))


def _taught(bench: Bench, patterns: Sequence[Index]) -> Iterator[tuple[str, list[FusionMethod]]]:
    """AF and Cat, trained with each pattern of absences; the other baselines would take as long again."""
    if bench.train is None or not bench.training.names:
        return
    embedded = bench.embedded()
    own = {field.name: getattr(embedded, field.name) for field in dataclasses.fields(embedded)}
    batch = min(bench.training.fuse.batch, _BATCH)
    training = dataclasses.replace(bench.training, fuse=bench.training.fuse.model_copy(update={"batch": batch}))
    place = np.array([embedded.modalities.index(name) for name in bench.data.known.modalities], np.int64)
    for name, part in ((AF, bench.model.config.fusion), ("Cat", {"type": "cat"})):
        ways = []
        for pattern in patterns:
            column = pattern[bench.fold]
            taught = LabelledAbsence(**own, missing=np.where(column >= 0, place[column], -1))
            modules = [methods.trained(bench.model, taught, part, seed, training) for seed in training.seeds]
            ways.append(bench.af.of(name, modules))
        yield name, ways


def several(bench: Bench) -> Iterator[Row]:
    """Two sensors of one modality: both good, or the second one noisy or conflicting; against one sensor alone."""
    known = bench.data.known
    for name in known.modalities:
        for beside in ((), *((other,) for other in known.modalities if other != name)):
            columns = (name, *beside, name)
            for second in ("good", NOISE, CONFLICTING):
                if second != "good" and second not in bench.faults(name):
                    continue
                last = bench.subset[name] if second == NOISE else None
                try:
                    combos = known.draw_of(columns, max(1, bench.count // 2), bench.rng(second, *columns), last)
                except DataError:  # no label has both
                    continue
                # A label with one sample of the modality cannot be seen twice.
                combos = combos.take(np.flatnonzero(combos.rows[:, 0] != combos.rows[:, -1]))
                if len(combos):
                    yield from _second(bench, combos, second)


def _second(bench: Bench, combos: Combinations, second: str) -> Iterator[Row]:
    """What the sensor in the last column adds."""
    column = np.full(len(combos), len(combos.columns) - 1)
    two, possible = combos, np.arange(len(combos))
    if second != "good":
        two, possible = bench.wrong(combos, column, second, bench.rng("second", second, *combos.columns))
    before = combos.take(possible)
    one = Combinations(combos.columns[:-1], before.rows[:, :-1], before.label)
    for method in bench.some(AF, MEAN) if len(possible) else ():
        alone, right = method.right(one), method.right(two)
        row: Row = {"modalities": "+".join(combos.columns[:-1]), "second": combos.columns[-1], "second_is": second}
        row |= {"method": method.name, "one": float(alone.mean()), **bench.row(before, right)}
        gained = cost(bench, before, alone, right)
        yield {**row, "gain": gained["cost"], "gain_interval": gained["cost_interval"]}


__all__ = ["ANY", "CONFLICTING", "STUCK", "LabelledAbsence", "missing", "noise", "several", "wrong"]
