"""A model, data, and everything that all tables of an evaluation share: methods, draws, intervals, damaged samples."""

from __future__ import annotations

import dataclasses
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omnibind_core.data.damage import damages
from omnibind_core.evaluation import bootstrap, methods, samples
from omnibind_core.evaluation.bootstrap import Bootstrap, interval, macro, weighted_mean
from omnibind_core.evaluation.held_out import HELD_OUT, NOISES
from omnibind_core.evaluation.methods import (
    AF,
    MEAN,
    PROBES,
    PROBES_DAMAGED,
    FusionMethod,
    LateFusion,
    Method,
    Training,
)
from omnibind_core.evaluation.probes import Probes
from omnibind_core.evaluation.samples import TestData
from omnibind_core.features.combinations import Combinations, EmbeddedSplit, Index, Split, embed
from omnibind_core.features.sets import embed_all
from omnibind_core.fusion import Fusion, MeanFusion
from omnibind_core.model import OmniBind
from omnibind_core.training.config import TrainConfig

_logger = logging.getLogger(__name__)

Row = dict[str, Any]
CONFLICTING, STUCK = "another label", "stuck frame"
"""What a sensor shows that is not damaged but wrong: something else, or what was there before."""


@dataclass(frozen=True)
class OutOfDistribution:
    """Samples of things that the model has no label for.

    Attributes:
        split: The samples.
        methods: AF and Mean, and Probes if there are any.
        boot: Their bootstrap.
    """

    split: Split
    methods: dict[str, Method]
    boot: Bootstrap


@dataclass
class Extras:
    """What a report can have besides.

    Attributes:
        compared: Rows of ``omnibind train compare`` by table.
        retrain: Train what only training can tell.
        config: Experiment to train; None where there is none.
        why_no_train: Why there are no Probes and trained baselines; empty if there are.
        others: Benches of other data, which are asked by source, too.
    """

    compared: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    retrain: bool = False
    config: TrainConfig | None = None
    why_no_train: str = ""
    others: Sequence[Bench] = ()


@dataclass
class Bench:
    """What all tables are measured with.

    Attributes:
        model: What is evaluated.
        data: What it is evaluated on.
        methods: By name, AF and Mean first; Probes and the trained ones where there are training samples.
        train: Training samples; None if there are none of every modality.
        training: How baselines are trained.
        count: Combinations per figure.
        damage: Samples per modality and damage; 0 for all.
        seed: Of everything drawn.
        ood: The samples of things that the model has no label for; None if there are none.
    """

    model: OmniBind
    data: TestData
    methods: dict[str, Method]
    train: Split | None
    training: Training
    count: int = 2000
    damage: int = 64
    seed: int = 0
    ood: OutOfDistribution | None = None
    _fusions: dict[str, list[Fusion]] = dataclasses.field(default_factory=dict, repr=False)
    _damaged: dict[tuple[str, str], Index] = dataclasses.field(default_factory=dict, repr=False)
    _embedded: EmbeddedSplit | None = None

    def __post_init__(self) -> None:
        self.boot = Bootstrap(self.data.known.counts, self.seed)
        known = self.data.known
        self.subset = samples.spread(known, self.damage or max(known.counts.values()), self.seed)

    @property
    def af(self) -> FusionMethod:
        """The model's own fusion."""
        method = self.methods[AF]
        assert isinstance(method, FusionMethod)
        return method

    @property
    def fold(self) -> Index:
        """``int64 [C]``, what each label of the model counts as, itself or another."""
        return self.af.fold

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of modalities that a label has."""
        return self.data.known.sizes

    def some(self, *names: str) -> list[Method]:
        """Those methods of these that there are."""
        return [self.methods[name] for name in names if name in self.methods]

    def rng(self, *what: object) -> np.random.Generator:
        """A generator of its own for everything that is drawn."""
        return np.random.default_rng((self.seed, zlib.crc32("|".join(map(str, what)).encode())))

    def row(self, combos: Combinations, right: NDArray[np.float64], weights: NDArray[np.float32] | None = None) -> Row:
        """What every table says of an accuracy.

        Args:
            combos: What was asked.
            right: ``[B]``, what was answered right.
            weights: Of the bootstrap, if they are there already.
        """
        weights = self.boot.weights(combos) if weights is None else weights
        return {
            "n": len(combos),
            "labels": len(np.unique(combos.label)),
            "accuracy": float(right.mean()),
            "interval": interval(weighted_mean(right, weights)),
            "macro": macro(right, combos.label),
        }

    def embedded(self) -> EmbeddedSplit:
        """The training samples, for stage II."""
        assert self.train is not None
        if self._embedded is None:
            self._embedded = embed(self.train, self.model)
        return self._embedded

    def fusions(self, part: Mapping[str, Any], negatives: str) -> list[Fusion]:
        """A fusion trained here on the training samples, one for each seed; kept, since several tables ask for it.

        Args:
            part: The ``fusion`` part of a model config.
            negatives: ``fuse.negatives`` of the training.
        """
        key = json.dumps([part, negatives], sort_keys=True)
        if key not in self._fusions:
            settings = self.training.fuse.model_copy(update={"negatives": negatives})
            training = dataclasses.replace(self.training, fuse=settings)
            split = self.embedded()
            self._fusions[key] = [methods.trained(self.model, split, part, seed, training) for seed in training.seeds]
        return self._fusions[key]

    def faults(self, name: str) -> tuple[str, ...]:
        """Everything that can be wrong with a sensor of a modality."""
        return (*damages(name), *([HELD_OUT] if name in NOISES else []), CONFLICTING, STUCK)

    def wrong(
        self, combos: Combinations, column: Index, fault: str, rng: np.random.Generator
    ) -> tuple[Combinations, Index]:
        """The combinations with something wrong with the sensor in ``column[b]``.

        Args:
            combos: Of samples in :attr:`subset`.
            column: ``int64 [B]``.
            fault: One of :meth:`faults`.
            rng: Source of randomness.

        Returns:
            Those where it is possible, and their numbers.
        """
        if fault == CONFLICTING:
            row = self.data.known.others(combos, column, rng)
        elif fault == STUCK:
            row = _before(combos, column)
        else:
            row = np.full(len(combos), -1, np.int64)
            for index, name in enumerate(combos.columns):
                here = np.flatnonzero(column == index)
                if len(here) and fault in self.faults(name):
                    row[here] = self._damaged_rows(name, fault)[combos.rows[here, index]]
        possible = np.flatnonzero(row >= 0)
        return combos.take(possible).replaced(column[possible], row[possible]), possible

    def _damaged_rows(self, name: str, damage: str) -> Index:
        """Row of each sample with its sensor damaged; -1 for those that are not in :attr:`subset`."""
        if (name, damage) not in self._damaged:
            chosen = self.subset[name]
            first = self._add(name, samples.damaged(self.data, self.model, name, chosen, damage, self.seed))
            place = np.full(len(self.data.known.sets[name]), -1, np.int64)
            place[chosen] = first + np.arange(len(chosen))
            self._damaged[name, damage] = place
        return self._damaged[name, damage]

    def _add(self, name: str, inputs: NDArray[np.float32]) -> int:
        """Adds rows of a modality to what the methods see, and returns the number of the first."""
        first = len(self.af.tokens[name])
        embedded = embed_all(self.model.encoders, self.model.config, name, inputs[:, :1]).clone()
        for method in {id(method.tokens): method for method in self.methods.values()}.values():
            more = embedded
            if isinstance(method, LateFusion):
                more = methods.probed(method.probes, self.model, name, inputs)
            method.tokens[name] = torch.cat([method.tokens[name], more])
        return first


def make(
    model: OmniBind,
    data: TestData,
    train: Split | None,
    training: Training,
    *,
    count: int = 2000,
    damage: int = 64,
    seed: int = 0,
) -> Bench:
    """A bench with all methods that the data allow.

    Args:
        model: What is evaluated.
        data: What it is evaluated on.
        train: Training samples, for Probes and trained baselines; None leaves them out.
        training: How baselines are trained.
        count: See :class:`Bench`.
        damage: See :class:`Bench`.
        seed: See :class:`Bench`.
    """
    slots = tuple(model.config.modalities)
    known, tokens = data.known, samples.embeddings(model, data.known)
    if train is not None and set(known.sets) - set(train.sets):
        train = None
    own = FusionMethod(AF, tokens, [model.fusion], model.labels, slots, data.fold, certain=True)
    found: dict[str, Method] = {AF: own, MEAN: own.of(MEAN, [MeanFusion()])}
    bench = Bench(model, data, found, train, training, count, damage, seed)
    if data.unknown.sets:
        outside = samples.embeddings(model, data.unknown)
        asked = FusionMethod(AF, outside, [model.fusion], model.labels, slots, data.fold, certain=True)
        both: dict[str, Method] = {AF: asked, MEAN: asked.of(MEAN, [MeanFusion()])}
        bench.ood = OutOfDistribution(data.unknown, both, Bootstrap(data.unknown.counts, seed))
    if train is None:
        return bench
    probes = _fit(model, train, known)
    found[PROBES] = _late(PROBES, probes, bench, known)
    if any(samples.damaged is not None for samples in train.sets.values()):
        found[PROBES_DAMAGED] = _late(PROBES_DAMAGED, _fit(model, train, known, damage=True), bench, known)
    if bench.ood is not None and not set(data.unknown.sets) - set(probes.probes):
        bench.ood.methods[PROBES] = _late(PROBES, probes, bench, data.unknown)
    types = methods.trainable()
    for name in training.names:
        modules = [methods.trained(model, bench.embedded(), types[name], seed, training) for seed in training.seeds]
        found[name] = own.of(name, modules)
        _logger.info("%s trained", name)
    if training.names:
        for name, negatives in methods.PAPER_AF.items():
            found[name] = own.of(name, bench.fusions(methods.PAPER_FUSION, negatives))
            _logger.info("%s trained", name)
    return bench


def cost(bench: Bench, combos: Combinations, before: NDArray[np.float64], after: NDArray[np.float64]) -> Row:
    """What is lost between two answers to the same combinations, and its interval.

    Args:
        bench: Has the bootstrap.
        combos: Before anything was replaced.
        before: ``[B]``, what was right then.
        after: ``[B]``, what is right now.
    """
    lost = bootstrap.weighted_mean(after - before, bench.boot.weights(combos))
    return {"cost": float((after - before).mean()), "cost_interval": interval(lost)}


def _before(combos: Combinations, column: Index) -> Index:
    """The last sample of the same modality that had another label in the combinations before; -1 if there is none."""
    found = np.full(len(combos), -1, np.int64)
    for index in range(len(combos.columns)):
        last: list[tuple[int, int]] = []  # (label, row) of the last two labels that differ
        for number, (row, label) in enumerate(zip(combos.rows[:, index], combos.label, strict=True)):
            if row < 0:
                continue
            if column[number] == index:
                found[number] = next((old for of, old in reversed(last) if of != label), -1)
            last = [*[entry for entry in last if entry[0] != label], (int(label), int(row))][-2:]
    return found


def _fit(model: OmniBind, train: Split, known: Split, *, damage: bool = False) -> Probes:
    """Probes on the training samples of all modalities that are asked, or on their damaged variants, too."""
    inputs = {}
    for name in known.sets:
        rows, harmed = train.sets[name].inputs, train.sets[name].damaged if damage else None
        inputs[name] = methods.probe_rows(model.encoders, model.config, name, rows, damaged=harmed)
    return Probes.fit(inputs, {name: train.sets[name].concept for name in known.sets}, len(model.labels))


def _late(name: str, probes: Probes, bench: Bench, split: Split) -> LateFusion:
    tokens = {key: methods.probed(probes, bench.model, key, samples.inputs) for key, samples in split.sets.items()}
    return LateFusion(name, tokens, probes, bench.fold)
