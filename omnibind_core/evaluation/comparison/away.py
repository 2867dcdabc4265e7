"""Sensors of other sources: what each part of the answer to them is worth, at home and away."""

from __future__ import annotations

import copy
import dataclasses
import logging
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.concepts import Concepts
from omnibind_core.evaluation import methods, samples
from omnibind_core.evaluation.bench import Bench
from omnibind_core.evaluation.bootstrap import auroc
from omnibind_core.evaluation.comparison.summary import ERROR, Measurement
from omnibind_core.evaluation.methods import MEAN, PROBES, FusionMethod, LateFusion, Method, Training
from omnibind_core.evaluation.samples import TestData, embeddings
from omnibind_core.evaluation.tables.accuracy import BEST, best_single
from omnibind_core.evaluation.tables.trust import answers, error
from omnibind_core.features.calibration import calibrate
from omnibind_core.features.combinations import Combinations, EmbeddedSplit, Split
from omnibind_core.fusion import Fusion, MeanFusion
from omnibind_core.model import OmniBind
from omnibind_core.training import dataset

if TYPE_CHECKING:
    from omnibind_core.evaluation.comparison.experiments import Comparison, Settings

_logger = logging.getLogger(__name__)

RELIABILITY, FAMILIARITY = {"preset": "reliability"}, {"preset": "familiarity"}
WAYS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "both": (FAMILIARITY, True),
    "the fusion alone": (FAMILIARITY, False),
    "the certainty alone": ({**FAMILIARITY, "agreement": False}, True),
    "neither": (RELIABILITY, False),
}
"""By name: the fusion, and whether its answers have a certainty or only temperatures. The certainty alone has a
familiarity to ask, but weighs the tokens as without."""
_ONE, _PAIRS, _THREE = "one sensor", "pairs", "three"
_SIZES = {1: _ONE, 2: _PAIRS, 3: _THREE}


@dataclass(frozen=True)
class _Way:
    """A fusion with its calibration.

    Attributes:
        name: Of :data:`WAYS`.
        model: The encoders with it, and its calibration.
        certain: Whether its answers have a certainty.
    """

    name: str
    model: OmniBind
    certain: bool


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
        fitted, asked = (_half(dataset.embed(comparison.data, model, name), seed) for name in ("shifted", "val"))
        clean = dataclasses.replace(fitted[0], tokens={name: rows[:, :1] for name, rows in fitted[0].tokens.items()})
        ways = []
        for name, (part, certain) in WAYS.items():
            module = comparison.fused(train, fitted[0], model.labels, part, seed)
            shifted = fitted[0] if certain else None
            own = copy.copy(model)
            own.fusion = module
            if name == "the certainty alone":
                _leave_out_familiarity(module)
            own.calibration = calibrate(clean, model.labels, module, settings.count, seed, shifted)
            ways.append(_Way(name, own, certain))
        files = samples.load(root, "val", model, comparison.data.concepts, given)
        home = TestData(
            "home", "val", Split(asked[1].names, asked[1].sets), Split(files.known.names, {}), {}, {}, files.source
        )
        for place, data in (("home", home), ("away", files)):
            for condition, method, value, is_error in _figures(comparison, ways, data, settings.count, seed):
                yield Measurement(f"{place}{f', {ERROR}' if is_error else ''}", condition, method, seed, value)
        _logger.info("away: seed %d done", seed)


def _leave_out_familiarity(module: Fusion) -> None:
    gains = module.gains
    assert gains is not None
    gains.data[1:] = 0.0


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
    comparison: Comparison, ways: list[_Way], data: TestData, count: int, seed: int
) -> Iterator[tuple[str, str, float, bool]]:
    """Condition, method, value, and whether the value is an error."""
    model = ways[0].model
    slots = tuple(model.config.modalities)
    tokens = embeddings(model, data.known)
    unknown = embeddings(model, data.unknown)
    probes = comparison.probes(comparison.data, variants=False)
    for way in ways:
        own = FusionMethod(way.name, tokens, [way.model.fusion], model.labels, slots, data.fold, way.certain)
        found: dict[str, Method] = {way.name: own}
        if way is ways[-1]:
            late = {name: methods.probed(probes, model, name, of.inputs) for name, of in data.known.sets.items()}
            found |= {MEAN: own.of(MEAN, [MeanFusion()]), PROBES: LateFusion(PROBES, late, probes, data.fold)}
        bench = Bench(
            way.model,
            data,
            {**found, MEAN: own.of(MEAN, [MeanFusion()])},
            None,
            Training(comparison.config.fuse, ()),
            count,
            0,
            seed,
        )
        for size in data.known.sizes:
            if size not in _SIZES:
                continue
            combos = data.known.draw(count, bench.rng("size", size), size)
            for name, method in found.items():
                row = error(bench, method, combos)
                yield f"{_SIZES[size]}, right", name, row["accuracy"], False
                yield f"{_SIZES[size]}, confidence", name, row["confidence"], False
                yield _SIZES[size], name, row["ece"], True
            if size > 1 and way is ways[-1]:
                yield f"{_SIZES[size]}, right", BEST, float(best_single(bench, combos).mean()), False
        if data.unknown.sets:
            other = FusionMethod(way.name, unknown, [way.model.fusion], model.labels, slots, data.fold, way.certain)
            drawn = data.unknown.draw(count, bench.rng("unknown"), 1)
            asked = data.known.draw(count, bench.rng("size", 1), 1)
            yield "unknown things, AUROC", way.name, _told(bench, own, asked, other, drawn), False
        for name in data.known.sets if data.unknown.sets else ():
            sure = answers(bench, own, data.known.single(name)).confidence
            yield f"confidence of {name}", way.name, float(sure.mean()), False


def _told(bench: Bench, own: Method, known: Combinations, other: Method, unknown: Combinations) -> float:
    score = np.concatenate([answers(bench, own, known).confidence, answers(bench, other, unknown).confidence])
    positive: NDArray[np.bool_] = np.arange(len(score)) < len(known)
    return float(auroc(score, positive)[0])
