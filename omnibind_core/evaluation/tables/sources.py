"""How right the answers are by where the samples come from: a sensor is of one source, what stands beside it of any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from omnibind_core.errors import DataError
from omnibind_core.evaluation.bench import Bench, Row
from omnibind_core.evaluation.bootstrap import interval, weighted_mean
from omnibind_core.evaluation.methods import AF, MEAN, PROBES
from omnibind_core.evaluation.tables.trust import error
from omnibind_core.features.combinations import Combinations, Index


def by_source(benches: Sequence[Bench]) -> Iterator[Row]:
    """Accuracy, confidence and calibration error by modality, source of its samples and number of modalities.

    Alone, every sample of the source is asked once. In a combination the sample of this modality is of the source, and
    the others are of any.

    Args:
        benches: One for each data set.
    """
    for bench in benches:
        known = bench.data.known
        for name in known.modalities:
            source = np.array([sample.source for sample in known.sets[name].samples])
            for of in np.unique(source).tolist():
                for size in bench.sizes:
                    combos = _asked(bench, name, np.flatnonzero(source == of), size, of)
                    if combos is not None:
                        head = {"data": bench.data.name, "modalities": name, "source": of, "size": size}
                        yield {**head, **_figures(bench, combos)}


def _asked(bench: Bench, name: str, rows: Index, size: int, source: str) -> Combinations | None:
    """Combinations of so many modalities with these samples of one of them; None if no label has so many."""
    known = bench.data.known
    if size == 1:
        return known.single(name).take(rows)
    among = {other: rows if other == name else np.arange(count) for other, count in known.counts.items()}
    try:
        return known.draw(bench.count, bench.rng("source", name, source, size), size, among=among, having=name)
    except DataError:
        return None


def _figures(bench: Bench, combos: Combinations) -> Row:
    """AF's figures, and the accuracy of Mean and Probes beside it."""
    weights = bench.boot.weights(combos)
    right = {method.name: method.right(combos) for method in bench.some(AF, MEAN, PROBES)}
    share = {name: float(found.mean()) for name, found in right.items()}
    calibration = error(bench, bench.af, combos)
    row = bench.row(combos, right[AF], weights)
    row |= {key: calibration[key] for key in ("confidence", "ece", "ece_interval")}
    for name, key in ((MEAN, "mean"), (PROBES, "probes")):
        row[key] = share.get(name)
        row[f"{key}_interval"] = interval(weighted_mean(right[name], weights)) if name in right else None
    most = max(share.values())
    return {**row, "best": ", ".join(name for name in share if share[name] == most) if most else "none"}
