"""Sensors of other sources: what each part of the answer to them is worth, at home and away."""

from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.concepts import Concepts
from omnibind_core.evaluation import methods, samples
from omnibind_core.evaluation.bench import Bench
from omnibind_core.evaluation.bootstrap import auroc
from omnibind_core.evaluation.comparison.summary import CONFIDENCE_OF, ERROR, UNKNOWN, Measurement
from omnibind_core.evaluation.comparison.ways import Way, ways
from omnibind_core.evaluation.methods import AF, MEAN, PROBES, FusionMethod, LateFusion, Method, Training
from omnibind_core.evaluation.samples import TestData, embeddings
from omnibind_core.evaluation.tables.accuracy import BEST, best_single
from omnibind_core.evaluation.tables.trust import answers, error
from omnibind_core.features.combinations import Combinations, EmbeddedSplit, Split
from omnibind_core.fusion import MeanFusion
from omnibind_core.training import dataset

if TYPE_CHECKING:
    from omnibind_core.evaluation.comparison.experiments import Comparison, Settings

_logger = logging.getLogger(__name__)

_ONE = "one sensor"
_SIZES = {1: _ONE, 2: "pairs", 3: "three"}


def away(comparison: Comparison, settings: Settings, root: Path, table: Path | None) -> Iterator[Measurement]:
    """What the fusion and the certainty are worth, each alone and both, on validation samples and on another folder.

    The fusion is settled, and all calibrated, on half of the validation samples, divided by group; the other half is
    asked as "home".

    Args:
        comparison: The experiment.
        settings: Seeds and combinations.
        root: Folder with ``samples.csv`` of other sources; the split ``val`` is asked.
        table: Its labels; None matches them by name and meaning.
    """
    given = None if table is None else Concepts.read(table)
    for seed in settings.seeds:
        model = comparison.aligned(comparison.data, seed)
        train = dataset.embed(comparison.data, model, "train")
        held_out, _ = _half(dataset.embed(comparison.data, model, "shifted"), seed)
        clean, asked = _half(dataset.embed(comparison.data, model, "val"), seed)
        found = ways(comparison.fused, model, train, held_out, clean, settings.count, seed)
        files = samples.load(root, "val", model, comparison.data.concepts, given)
        home = TestData(
            "home", "val", Split(asked.names, asked.sets), Split(files.known.names, {}), {}, {}, files.source
        )
        for place, data in (("home", home), ("away", files)):
            for figure, condition, method, value in _figures(comparison, found, data, settings.count, seed):
                yield Measurement(f"{place}, {figure}" if figure else place, condition, method, seed, value)
        _logger.info("away: seed %d done", seed)


def _half(split: EmbeddedSplit, seed: int) -> tuple[EmbeddedSplit, EmbeddedSplit]:
    """A split in two, no group in both."""
    halves: list[EmbeddedSplit] = []
    for second in (False, True):
        rows = {
            name: np.array([_second(one.group or one.id, seed) == second for one in found.samples], bool)
            for name, found in split.sets.items()
        }
        sets = {name: found.take(rows[name]) for name, found in split.sets.items() if rows[name].any()}
        tokens = {name: split.tokens[name][np.flatnonzero(rows[name])] for name in sets}
        rest = {name: found for name, found in split.tokens.items() if name not in split.sets}
        halves.append(dataclasses.replace(split, sets=sets, tokens={**tokens, **rest}))
    return halves[0], halves[1]


def _second(group: str, seed: int) -> bool:
    return bool(zlib.crc32(f"{seed}|{group}".encode()) & 1)


def _figures(
    comparison: Comparison, found: list[Way], data: TestData, count: int, seed: int
) -> Iterator[tuple[str, str, str, float]]:
    """Kind of figure, condition, method, value."""
    model = found[0].model
    slots = tuple(model.config.modalities)
    tokens, unknown = embeddings(model, data.known), embeddings(model, data.unknown)
    probes = comparison.probes(comparison.data, variants=False)
    late = {name: methods.probed(probes, model, name, of.inputs) for name, of in data.known.sets.items()}
    for way in found:
        own = FusionMethod(way.name, tokens, [way.model.fusion], model.labels, slots, data.fold, way.certain)
        mean = own.of(MEAN, [MeanFusion()])
        bench = Bench(
            way.model, data, {AF: own, MEAN: mean}, None, Training(comparison.config.fuse, ()), count, 0, seed
        )
        last = way is found[-1]
        asked: list[Method] = [own, *([mean, LateFusion(PROBES, late, probes, data.fold)] if last else [])]
        for size, condition in _SIZES.items():
            if size not in data.known.sizes:
                continue
            combos = data.known.draw(count, bench.rng("size", size), size)
            for method in asked:
                row = error(bench, method, combos)
                yield "", condition, method.name, row["accuracy"]
                yield ERROR, condition, method.name, row["ece"]
                yield CONFIDENCE_OF, condition, method.name, row["confidence"]
            if size > 1 and last:
                yield "", condition, BEST, float(best_single(bench, combos).mean())
        for name in data.known.sets:
            sure = answers(bench, own, data.known.single(name)).confidence
            yield CONFIDENCE_OF, name, way.name, float(sure.mean())
        if data.unknown.sets:
            other = FusionMethod(way.name, unknown, [way.model.fusion], model.labels, slots, data.fold, way.certain)
            known, outside = (of.draw(count, bench.rng("unknown"), 1) for of in (data.known, data.unknown))
            yield UNKNOWN, _ONE, way.name, _told(bench, own, known, other, outside)


def _told(bench: Bench, own: Method, known: Combinations, other: Method, unknown: Combinations) -> float:
    score = np.concatenate([answers(bench, own, known).confidence, answers(bench, other, unknown).confidence])
    positive: NDArray[np.bool_] = np.arange(len(score)) < len(known)
    return float(auroc(score, positive)[0])
