"""Fusions that learn from samples, and whole sources, that were held back from their encoders."""

from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from omnibind_core import fusion
from omnibind_core.errors import DataError
from omnibind_core.evaluation.bench import CONFLICTING, Bench
from omnibind_core.evaluation.comparison.summary import Measurement
from omnibind_core.evaluation.methods import AF, MEAN, PAPER_AF, PAPER_FUSION, FusionMethod, Training
from omnibind_core.evaluation.samples import TestData, embeddings
from omnibind_core.features.combinations import Combinations, Split
from omnibind_core.features.sets import FeatureSet
from omnibind_core.training import dataset, subsets
from omnibind_core.training.dataset import TrainingData

if TYPE_CHECKING:
    from omnibind_core.evaluation.comparison.experiments import Comparison, Settings

_logger = logging.getLogger(__name__)

SEEN, AS_MANY = "trained on what stage I saw", "trained on as many of them as were held back"
HELD_BACK, BOTH = "trained on what was held back", "trained on both"
"""What a fusion was trained on."""
CLEAN = "clean"
_RELIABILITY = {"preset": "reliability"}
_SHARE = 5  # of so many groups one is held back from stage I


def held_back(comparison: Comparison, settings: Settings) -> Iterator[Measurement]:
    """The same fusions, trained on samples that stage I saw, and on samples that were held back from it.

    For every seed, one source of every modality that has several is left out and asked, and where three or more can be
    spared, the next one is held back from stage I; of all other sources, a fifth of the groups is. Every fusion learns
    from what stage I saw, from as many of these samples as were held back, from what was held back, and from all. All
    have the same encoders.
    Asked are combinations of two and three with a sample of a left-out source: as they are, and with one of their
    sensors showing something else.

    Args:
        comparison: The experiment.
        settings: Seeds and combinations; another seed leaves out the next sources.

    Raises:
        DataError: No source can be left out.
    """
    possible = {name: [of for of, why in found.items() if not why] for name, found in comparison.sources().items()}
    possible = {name: names for name, names in possible.items() if names}
    if not possible:
        raise DataError("the table held-back needs sources of one modality that share a label; there are none")
    for number, seed in enumerate(settings.seeds):
        asked = {name: names[number % len(names)] for name, names in possible.items()}
        spared = {name: names[(number + 1) % len(names)] for name, names in possible.items() if len(names) > 2}
        values: dict[tuple[str, str], list[float]] = {}
        for condition, method, value in _round(comparison, asked, spared, settings, seed):
            values.setdefault((condition, method), []).append(value)
        for (condition, method), found in values.items():
            yield Measurement("Samples held back", condition, method, seed, float(np.mean(found)))
        _logger.info("held back: seed %d, without %s done", seed, ", ".join(asked.values()))


def _round(
    comparison: Comparison, asked: Mapping[str, str], spared: Mapping[str, str], settings: Settings, seed: int
) -> Iterator[tuple[str, str, float]]:
    """Condition, method, accuracy for each modality that has a source left out."""
    data = subsets.without_sources(comparison.data, asked)
    taught, back = _parted(data, spared, seed)
    model = comparison.aligned(taught, seed, own_photos=True)
    parts = {SEEN: taught, AS_MANY: _as_many(taught, back, seed), HELD_BACK: back, BOTH: data}
    splits = {how: dataset.embed(part, model, "train") for how, part in parts.items()}
    held_out = dataset.embed(data, model, comparison.held_out)
    sets = dict(data.val)
    for name, source in asked.items():
        of = [
            part.take(np.isin(part.concept, taught.train[name].concept))
            for part in subsets.of_source(comparison.data, name, source)
        ]
        sets[name] = FeatureSet.joined(of)
    known, slots = Split(comparison.data.vocabulary, sets), tuple(comparison.architecture.modalities)
    tokens = embeddings(model, known)
    methods = {MEAN: FusionMethod(MEAN, tokens, [fusion.MeanFusion()], model.labels, slots)}
    forms = {AF: (comparison.methods()[AF][0], None), f"{AF}, preset reliability": (_RELIABILITY, None)}
    for name, (part, negatives) in {**forms, **{name: (PAPER_FUSION, of) for name, of in PAPER_AF.items()}}.items():
        for how, split in splits.items():
            module = comparison.fused(split, held_out, model.labels, part, seed, negatives, splits[SEEN])
            title = f"{name}, {how}"
            methods[title] = FusionMethod(title, tokens, [module], model.labels, slots)
    files = TestData("", "", known, Split(comparison.data.vocabulary, {}), {}, {}, comparison.files())
    training = Training(comparison.config.fuse, ())
    bench = Bench(model, files, {AF: methods[MEAN], **methods}, None, training, settings.count, 1, seed)
    for name in asked:
        for size in (2, 3):
            try:
                combos = known.draw(settings.count, bench.rng("held back", name, size), size, having=name)
            except DataError:  # no label of this modality has so many
                continue
            for condition, found in _conditions(bench, combos, name, size):
                for method in methods.values():
                    yield condition, method.name, float(method.right(found).mean())


def _parted(data: TrainingData, spared: Mapping[str, str], seed: int) -> tuple[TrainingData, TrainingData]:
    """Training samples for stage I, and those that are held back: some sources, and a fifth of all other groups."""
    parts: list[dict[str, FeatureSet]] = [{}, {}]
    for name, samples in data.train.items():
        new = np.array(
            [
                one.source == spared.get(name) or zlib.crc32(f"{seed}|{one.group or one.id}".encode()) % _SHARE == 0
                for one in samples.samples
            ],
            bool,
        )
        for part, rows in zip(parts, (~new, new), strict=True):
            if rows.any():
                part[name] = samples.take(rows)
    photos = {one.id for one in parts[0]["image"].samples} if "image" in parts[0] else set()
    imagined = {
        student: samples.take(np.array([one.id in photos for one in samples.samples], bool))
        for student, samples in data.imagined.items()
    }
    first, second = (dataclasses.replace(data, train=part, imagined=imagined) for part in parts)
    return first, second


def _as_many(data: TrainingData, other: TrainingData, seed: int) -> TrainingData:
    """As many training samples of each modality as other data have."""
    rng = np.random.default_rng((seed, 11))
    train = {}
    for name, samples in data.train.items():
        if name in other.train:
            train[name] = samples.take(np.sort(rng.permutation(len(samples))[: len(other.train[name])]))
    return dataclasses.replace(data, train=train)


def _conditions(bench: Bench, combos: Combinations, name: str, size: int) -> Iterator[tuple[str, Combinations]]:
    yield f"{size} modalities, {CLEAN}", combos
    rng = bench.rng("lie", name, size)
    column = np.where(combos.mask, rng.random(combos.rows.shape), -1.0).argmax(axis=1)
    yield f"{size} modalities, {CONFLICTING}", bench.wrong(combos, column, CONFLICTING, rng)[0]
