"""What the paper claims, measured: the fusions, the terms of the loss, few samples, labels that a student never saw.

Every table repeats its experiment with several seeds (initial weights, batches, drawn samples) on the same cached
features. The methods of one seed share everything but what is compared.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core import encoders, fusion, modalities
from omnibind_core.data.damage import NOISE
from omnibind_core.data.matching.label_descriptions import describe_labels
from omnibind_core.data.samples import Loads
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import ModelConfig, load_config
from omnibind_core.errors import ConfigError, DataError
from omnibind_core.evaluation.bench import CONFLICTING, Bench
from omnibind_core.evaluation.comparison.summary import ERROR, Measurement
from omnibind_core.evaluation.comparison.ways import BOTH, ways
from omnibind_core.evaluation.held_out import HELD_OUT
from omnibind_core.evaluation.methods import (
    AF,
    MEAN,
    PAPER_AF,
    PAPER_FUSION,
    PROBES,
    PROBES_DAMAGED,
    FusionMethod,
    LateFusion,
    Method,
    Negatives,
    Training,
    probe_rows,
    probed,
)
from omnibind_core.evaluation.probes import Probes
from omnibind_core.evaluation.report.document import ONE_LABEL
from omnibind_core.evaluation.samples import TestData, embeddings
from omnibind_core.evaluation.tables.accuracy import BEST, best_single
from omnibind_core.evaluation.tables.robustness import noise
from omnibind_core.evaluation.tables.trust import error
from omnibind_core.features.calibration import calibrate, settle
from omnibind_core.features.combinations import (
    Combinations,
    EmbeddedSplit,
    Index,
    Split,
    TokenSets,
    late_fusion,
    learn_familiarity,
    similarities,
    top1,
)
from omnibind_core.features.sets import FeatureSet, embed_all, learns, top1_by_text
from omnibind_core.labels import LabelBank
from omnibind_core.modalities import Role
from omnibind_core.model import OmniBind
from omnibind_core.training import dataset, subsets
from omnibind_core.training.align import Align
from omnibind_core.training.config import AlignConfig, StageConfig, TrainConfig
from omnibind_core.training.dataset import TrainingData
from omnibind_core.training.engine import Trainer, be_deterministic, launch
from omnibind_core.training.fuse import Fuse
from omnibind_core.training.image_text import ImageText

_logger = logging.getLogger(__name__)

TERMS: dict[str, dict[str, float]] = {
    "L_in + L_cr + L_se": {},
    "L_in": {"w_cr": 0.0, "w_se": 0.0},
    "L_in + L_cr": {"w_se": 0.0},
    "L_in + L_se": {"w_cr": 0.0},
}
"""Rows of the paper's Table 7: what is taken from the loss."""
FAULTS = (NOISE, HELD_OUT, CONFLICTING)
"""What a sensor shows in :meth:`Comparison.robustness`: noise as in training, noise as in none, something else."""
DAMAGED = 64
"""Validation samples of each modality that faults are made of."""
BESIDE_LEFT_OUT, BESIDE_VALIDATION = "beside samples of left-out sources", "beside validation samples"
"""What a sample of a left-out source is paired with: the former where its label has any."""
TOP1 = "top-1"
WAYS = 10
"""Labels that a sample of a label never seen is to be told from, its own among them."""


@dataclass(frozen=True)
class Settings:
    """What is compared, and how often.

    Attributes:
        seeds: One experiment each.
        count: Combinations of each size that are drawn from the validation split.
        shots: Numbers of training samples per label; none measures the terms of the loss on all samples.
        folds: Parts into which the labels of each student are divided, one of them left out at a time.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    count: int = 3000
    shots: tuple[int, ...] = ()
    folds: int = 5


_SETTLED = 2000  # combinations of every kind


class Comparison:
    """Trains and measures.

    Args:
        config: The experiment; data and settings of all stages are taken from it.
        names: Modalities that take part, beside image and text; None for all of the model's.
        trained: Name or folder of a model whose encoders are used as they are; None trains stage I for every seed.

    Raises:
        ConfigError: A modality is not in the model, or a setting is wrong.
        DataError: There are no usable samples.
    """

    def __init__(self, config: TrainConfig, names: Collection[str] | None = None, trained: str | None = None) -> None:
        if config.start is not None:
            raise ConfigError("a comparison trains stage I anew: start must be null (a trained model is given apart)")
        self.config = config
        self.fabric = launch(config.device, precision=config.precision)
        wanted = None if names is None else {"image", "text", *names}
        self.trained = None if trained is None else OmniBind.from_pretrained(trained, self.fabric.device, wanted)
        if self.trained is None:
            self.architecture: ModelConfig = load_config(config.model or "lite")
            self.base = encoders.build(self.architecture, wanted).to(self.fabric.device)
        else:
            self.architecture, self.base = self.trained.config, self.trained.encoders
        concepts = dataset.match(config, self.base)
        descriptions = describe_labels(config.descriptions, concepts)
        fuse = config.fuse
        self.data = dataset.load(
            config, self.architecture, self.base, concepts, None, descriptions, fuse.damage, fuse.shifts
        )
        self.students = [name for name in self.data.val if _is_student(name) and name in self.data.train]
        self._aligned: tuple[int, EncoderSet] | None = None

    def fusions(self, settings: Settings) -> Iterator[Measurement]:
        """AF, the baselines and Probes by the number of modalities, all on the same embeddings and combinations."""
        probes = {
            "Probes": self.probes(self.data, variants=False),
            "Probes with variants": self.probes(self.data, variants=True),
        }
        if self._harmed:
            probes["Probes with variants and damage"] = self.probes(self.data, variants=True, damage=True)
        for seed in settings.seeds:
            model = self.aligned(self.data, seed)
            train, val, held_out = (dataset.embed(self.data, model, split) for split in ("train", "val", self.held_out))
            asked = _asked(val, settings.count, seed)
            for method, (part, negatives) in self.methods().items():
                module = self.fused(train, held_out, model.labels, part, seed, negatives)
                for size, (sets, label) in asked.items():
                    value = top1(similarities(module, model.labels, sets), label)
                    yield Measurement("Fusions", _sized(size), method, seed, value)
                _logger.info("fusions: seed %d, %s done", seed, method)
            for method, probe in probes.items():
                for size, (sets, label) in _asked(self.probed(probe, val), settings.count, seed).items():
                    yield Measurement("Fusions", _sized(size), method, seed, top1(late_fusion(sets), label))

    def robustness(self, settings: Settings) -> Iterator[Measurement]:
        """One random sensor of a combination is noise, of the kind of training and of another, or shows something else.

        All fusions learn with the same damaged and conflicting samples; the seed is that of the initial weights, the
        batches, the drawn combinations and the faults. Probes are fitted without and with the damaged samples.
        """
        probes = {PROBES: self.probes(self.data, variants=False)}
        if self._harmed:
            probes[PROBES_DAMAGED] = self.probes(self.data, variants=False, damage=True)
        known, slots = Split(self.data.vocabulary, self.data.val), tuple(self.architecture.modalities)
        nothing = Split(self.data.vocabulary, {})
        asked = TestData("", "val", known, nothing, {}, {}, self.files())
        for seed in settings.seeds:
            model = self.aligned(self.data, seed)
            train, held_out = (dataset.embed(self.data, model, split) for split in ("train", self.held_out))
            tokens = embeddings(model, known)
            methods: dict[str, Method] = {}
            for name, (part, negatives) in self.methods().items():
                title = MEAN if name == "mean" else name
                module = self.fused(train, held_out, model.labels, part, seed, negatives)
                methods[title] = FusionMethod(title, tokens, [module], model.labels, slots)
            for name, fitted in probes.items():
                rows = {key: probed(fitted, model, key, x.inputs) for key, x in known.sets.items()}
                methods[name] = LateFusion(name, rows, fitted)
            bench = Bench(model, asked, methods, None, Training(self.config.fuse, ()), settings.count, DAMAGED, seed)
            for row in noise(bench, FAULTS, each=False):
                where = _sized(row["modalities"])
                yield Measurement(f"One random sensor: {row['kind']}", where, row["method"], seed, row["accuracy"])
            _logger.info("robustness: seed %d done", seed)

    def ablation(self, settings: Settings) -> Iterator[Measurement]:
        """The terms of the loss, for both centres (paper Table 7): every student alone among the labels it was taught.

        With several terms missing or not, the batches and initial weights of one seed are the same.
        """
        for seed in settings.seeds:
            for shots in settings.shots or (0,):
                data = subsets.few_shot(self.data, shots, seed) if shots else self.data
                for center in ("text", "image"):
                    for terms, change in TERMS.items():
                        loss = {**self.config.align.loss, **change, "align_center": center}
                        model = self.aligned(data, seed, self.config.align.model_copy(update={"loss": loss}))
                        table = "Loss terms" + (f", {_shot(shots)}" if shots else "")
                        figures = {name: self.single(data, model, name, own=True) for name in self.students}
                        figures["mean of students"] = float(np.mean([*figures.values()]))
                        for name, value in figures.items():
                            yield Measurement(table, name, f"centre {center}: {terms}", seed, value)
                        _logger.info("ablation: seed %d, %s, %s done", seed, center, terms)

    def few_shot(self, settings: Settings) -> Iterator[Measurement]:
        """Students with few samples of each label, against Probes on the same samples; alone, then in pairs.

        Alone, the answers are among the labels that the modality was taught, since a probe knows no others; "among all
        labels" is the student against the whole vocabulary.
        """
        for seed in settings.seeds:
            for shots in settings.shots:
                data = subsets.few_shot(self.data, shots, seed)
                model = self.aligned(data, seed)
                probes = {
                    "Probes": self.probes(data, variants=False),
                    "Probes with variants": self.probes(data, variants=True),
                }
                for name in self.students:
                    table, condition = f"Few samples, {name}", _shot(shots)
                    yield Measurement(table, condition, "CAD", seed, self.single(data, model, name, own=True))
                    whole = self.single(data, model, name, own=False)
                    yield Measurement(table, condition, "CAD among all labels", seed, whole)
                    rows, concept = self.probe_inputs(name, data.val[name])[:, 0], data.val[name].concept
                    for method, probe in probes.items():
                        right = probe.predict({name: rows}) == concept
                        yield Measurement(table, condition, method, seed, float(right.mean()))
                yield from self._pairs(data, model, probes, settings, shots, seed)
                _logger.info("few samples: seed %d, %s done", seed, _shot(shots))

    def left_out(self, settings: Settings) -> Iterator[Measurement]:
        """Labels that a student never saw, which it is to tell from others that it never saw either.

        The labels of each student are divided into folds. For each fold the student is aligned without its labels (the
        teachers keep them); then every validation sample of these labels is one of :data:`WAYS` candidates: the labels
        of the fold, filled up with random labels of the vocabulary that the modality has no training samples of. The
        figure is the mean over the folds.
        """
        for seed in settings.seeds:
            folds = {name: self._folds(name, settings.folds, seed) for name in self.students}
            values: dict[str, dict[str, list[float]]] = {name: {} for name in self.students}
            for number in range(max((len(parts) for parts in folds.values()), default=0)):
                now = {name: parts[number] for name, parts in folds.items() if number < len(parts)}
                labels = {name: [self.data.vocabulary[index] for index in fold] for name, fold in now.items()}
                model = self.aligned(subsets.without_labels(self.data, labels), seed)
                for name, fold in now.items():
                    for method, value in self._never_seen(model, name, fold, seed).items():
                        values[name].setdefault(method, []).append(value)
                _logger.info("left out: seed %d, fold %d done", seed, number)
            means = {name: {key: float(np.mean(v)) for key, v in methods.items()} for name, methods in values.items()}
            for method in dict.fromkeys(key for methods in means.values() for key in methods):
                figures = {name: methods[method] for name, methods in means.items() if method in methods}
                if len(figures) == len(self.students):
                    figures["mean of students"] = float(np.mean([*figures.values()]))
                for name, value in figures.items():
                    yield Measurement(f"Labels never seen, {WAYS} candidates", name, method, seed, value)

    def sources(self) -> dict[str, dict[str, str]]:
        """By modality and source, why the source cannot be left out; empty if it can.

        It can be if training samples of other sources of the modality, and of other groups, have one of its labels.
        """
        found: dict[str, dict[str, str]] = {}
        for name, samples in self.data.train.items():
            every = [*samples.samples, *(self.data.val[name].samples if name in self.data.val else ())]
            names = sorted({sample.source for sample in every})
            found[name] = dict.fromkeys(names, f"the only source of {name}")
            for source in names if len(names) > 1 else ():
                why = (
                    ""
                    if len(self._shared(name, source))
                    else f"no other source of {name} has any of its labels in other groups"
                )
                found[name][source] = why
        return found

    def left_out_source(self, settings: Settings) -> Iterator[Measurement]:
        """Whole sources out of both stages and of the calibration, and asked: sensors that the model has not seen.

        In each round a source of every modality is left out, each once. Asked are all of its samples with labels that
        the other sources of the modality teach: alone, and beside a sample of another modality. That is of a left-out
        source where the label has one, else a validation sample of the others. ``AF at home`` is the same model on
        validation samples of the sources that were kept. AF's fusion and certainty are measured alone, too, and an AF
        that has neither (:data:`~omnibind_core.evaluation.comparison.ways.WAYS`).

        Raises:
            DataError: No source can be left out.
        """
        possible = {name: [of for of, why in found.items() if not why] for name, found in self.sources().items()}
        rounds = max((len(names) for names in possible.values()), default=0)
        if not rounds:
            raise DataError(
                "the table left-out-source needs sources of one modality that share a label; there are none"
            )
        for seed in settings.seeds:
            cells: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
            for number in range(rounds):
                now = {name: names[number] for name, names in possible.items() if number < len(names)}
                for table, where, method, figures in self._without(now, settings, seed):
                    for key, value in figures.items():
                        cells.setdefault((table, key), {}).setdefault(where, {})[method] = value
                _logger.info("left-out sources: seed %d, without %s done", seed, ", ".join(now.values()))
            for (table, key), wheres in cells.items():
                title = f"Sources left out, {table}" + (f", {key}" if key == ERROR else "")
                for where, figures in wheres.items():
                    for method, value in figures.items():
                        yield Measurement(title, where, method, seed, value)
                for method in dict.fromkeys(method for figures in wheres.values() for method in figures):
                    mean = [figures[method] for figures in wheres.values() if method in figures]
                    if len(mean) == len(wheres):
                        yield Measurement(title, "mean of sources", method, seed, float(np.mean(mean)))

    def zero_shot(self, settings: Settings) -> Iterator[Measurement]:
        """Photos of labels that image-text alignment saw no photo of, told from each other; no student learns.

        The labels are those of all validation photos, the alignment sees the training photos of all others. For
        comparison, the vote of the trunk's own classes without it, and the alignment on all photos. If the experiment
        has descriptions of labels, once without and once with them.

        Raises:
            DataError: There are no validation photos, or no training photos of other labels.
        """
        if "image" not in self.data.val or "image" not in self.data.train:
            raise DataError("the table zero-shot needs photos: expected training and validation samples of 'image'")
        among = np.unique(self.data.val["image"].concept)
        others = subsets.without_labels(self.data, {"image": [self.data.vocabulary[index] for index in among]})
        photos = {"aligned on other labels": others, "class vote alone": None, "aligned on all photos": self.data}
        texts: dict[str, Mapping[str, Sequence[str]]] = {"prompt": {}}
        if self.data.descriptions:
            texts["prompt and descriptions"] = self.data.descriptions
        for seed in settings.seeds:
            fresh = self._fresh(seed)
            for condition, descriptions in texts.items():
                for method, data in photos.items():
                    told = dataclasses.replace(data or self.data, descriptions=descriptions)
                    built = _copy(fresh)
                    if data is not None:
                        self._align_image(told, built, seed)
                    text = dataset.prompts(told, built)
                    value = top1_by_text(told.val["image"], "image", self.architecture, built, text, among)
                    yield Measurement(f"Zero-shot photos, {len(among)} labels", condition, method, seed, value)
            _logger.info("zero-shot: seed %d done", seed)

    def aligned(
        self, data: TrainingData, seed: int, settings: AlignConfig | None = None, *, own_photos: bool = False
    ) -> OmniBind:
        """A model after stage I on some data; its image teacher is aligned to text on all photos.

        Args:
            data: What the students learn from.
            seed: Of the initial weights and the batches.
            settings: Of stage I; None takes the experiment's.
            own_photos: Whether the image teacher is aligned on the photos of these data only.
        """
        if self.trained is None:
            built = self._fresh(seed) if own_photos else _copy(self._teachers(seed))
            if own_photos:
                self._align_image(data, built, seed)
            stage = Align(data, self.architecture, built, _unwatched(settings or self.config.align), seed)
            Trainer(seed, self.fabric).run(stage)
        else:
            built = self.base
        slots = tuple(self.architecture.modalities)
        untrained = fusion.build(self.architecture.embed_dim, self.architecture.fusion, slots)
        model = OmniBind(self.architecture, built, untrained.to(self.fabric.device))
        model.labels = data.bank(model.encoders.encode_text_once)
        return model

    def fused(
        self,
        train: EmbeddedSplit,
        held_out: EmbeddedSplit,
        labels: LabelBank,
        part: Mapping[str, Any],
        seed: int,
        negatives: Negatives | None = None,
        known: EmbeddedSplit | None = None,
    ) -> fusion.Fusion:
        """A fusion after stage II.

        Args:
            train: What it learns on.
            held_out: What it is settled on.
            labels: The vocabulary.
            part: The ``fusion`` part of a model config.
            seed: Of the initial weights and the combinations.
            negatives: Other ``fuse.negatives`` than the experiment's.
            known: What the encoders were trained with; None if it is ``train``.
        """
        be_deterministic(seed)
        settings = _unwatched(self.config.fuse)
        if negatives is not None:
            settings = settings.model_copy(update={"negatives": negatives})
        module = fusion.build(self.architecture.embed_dim, part, tuple(self.architecture.modalities))
        module = module.to(self.fabric.device).eval()
        learn_familiarity(module, train if known is None else known, held_out, seed)
        Trainer(seed, self.fabric).run(Fuse(train, None, labels, module, settings))
        settle(module, held_out, labels, settings.tau, _SETTLED, seed)
        return module

    def methods(self) -> dict[str, tuple[dict[str, Any], Negatives | None]]:
        """By the name of the method, the ``fusion`` part of a config, and ``fuse.negatives`` if not the experiment's.

        AF comes first, then the paper's own form with CLS negatives and without, then the baselines.
        """
        af = fusion.changed(self.architecture.fusion, self.config.fuse.fusion)
        if af.get("type", "attention") != "attention":
            raise ConfigError(
                f"fuse.fusion.type is '{af['type']}': a comparison needs AF, and adds the baselines itself"
            )
        other = af.get("preset", "paper") != "paper"
        return {
            AF: (af, None),
            **{name: (PAPER_FUSION, negatives) for name, negatives in PAPER_AF.items() if other},
            **{found.name: ({"type": found.name}, None) for found in fusion.baselines()},
        }

    @property
    def held_out(self) -> str:
        """The split that a fusion is settled on."""
        return "shifted" if self.data.shifted else "val"

    def files(self) -> Loads:
        """What loads the samples."""
        return FolderSource(Path(str(self.config.data))) if self.data.index is None else self.data.index

    @property
    def _harmed(self) -> bool:
        """Whether there are training samples with a damaged sensor."""
        return any(samples.damaged is not None for samples in self.data.train.values())

    def probes(self, data: TrainingData, *, variants: bool, damage: bool = False) -> Probes:
        """Probes on the training samples, or on their augmented or damaged variants, too."""
        inputs = {
            name: self.probe_inputs(name, samples, variants=variants, damage=damage)
            for name, samples in data.train.items()
        }
        concept = {name: samples.concept for name, samples in data.train.items()}
        return Probes.fit(inputs, concept, len(data.vocabulary))

    def probe_inputs(
        self, name: str, samples: FeatureSet, *, variants: bool = False, damage: bool = False
    ) -> NDArray[np.float32]:
        """What a probe sees of samples, ``[N, A, F]``: frozen features, or shape features where the trunk learns."""
        damaged = samples.damaged if damage else None
        return probe_rows(self.base, self.architecture, name, samples.inputs, variants=variants, damaged=damaged)

    def probed(self, probes: Probes, val: EmbeddedSplit) -> EmbeddedSplit:
        """The validation split with the probes' probabilities as tokens, so that the same draws can be fused late."""
        tokens = {}
        for name, samples in val.sets.items():
            rows = probes.probabilities(name, self.probe_inputs(name, samples)[:, 0])
            tokens[name] = torch.from_numpy(rows)[:, None]
        return dataclasses.replace(val, tokens=tokens, texts=None, slots=())

    def single(self, data: TrainingData, model: OmniBind, name: str, *, own: bool) -> float:
        """Top-1 of one modality's validation samples, among the labels it was taught or among all."""
        among = np.unique(data.train[name].concept) if own else None
        return top1_by_text(data.val[name], name, self.architecture, model.encoders, model.labels.prototypes(), among)

    def _teachers(self, seed: int) -> EncoderSet:
        """Fresh encoders, the image teacher aligned to text; kept, since all runs of a seed begin with them."""
        if self._aligned is None or self._aligned[0] != seed:
            fresh = self._fresh(seed)
            self._align_image(self.data, fresh, seed)
            self._aligned = seed, fresh
        return self._aligned[1]

    def _align_image(self, data: TrainingData, encoder_set: EncoderSet, seed: int) -> None:
        Trainer(seed, self.fabric).run(
            ImageText(data, self.architecture, encoder_set, _unwatched(self.config.image_text))
        )

    def _fresh(self, seed: int) -> EncoderSet:
        """Encoders with the initial weights of a seed."""
        names = set(self.base.heads)
        fresh = encoders.build(self.architecture.model_copy(update={"seed": seed}), names).to(self.fabric.device)
        encoders.own_state(self.base)  # makes what a head gets from text, which takes seconds
        buffers = dict(self.base.heads.named_buffers())
        for key, buffer in fresh.heads.named_buffers():
            buffer.copy_(buffers[key])
        return fresh

    def _pairs(
        self,
        data: TrainingData,
        model: OmniBind,
        probes: Mapping[str, Probes],
        settings: Settings,
        shots: int,
        seed: int,
    ) -> Iterator[Measurement]:
        train, val, held_out = (dataset.embed(data, model, split) for split in ("train", "val", self.held_out))
        if 2 not in val.sizes:
            return
        module = self.fused(train, held_out, model.labels, self.methods()[AF][0], seed)
        sets, label = _asked(val, settings.count, seed)[2]
        figures = {
            "CAD and AF": top1(similarities(module, model.labels, sets), label),
            "CAD and Mean": top1(similarities(fusion.MeanFusion(), model.labels, sets), label),
        }
        for method, probe in probes.items():
            sets, label = _asked(self.probed(probe, val), settings.count, seed)[2]
            figures[method] = top1(late_fusion(sets), label)
        for method, value in figures.items():
            yield Measurement("Few samples, pairs", _shot(shots), method, seed, value)

    def _shared(self, name: str, source: str) -> NDArray[np.int64]:
        """Labels of a source that training samples of the others of its modality have, too."""
        try:
            rest = subsets.without_sources(self.data, {name: source}).train[name]
        except DataError:
            return np.zeros(0, np.int64)
        own = np.concatenate([samples.concept for samples in subsets.of_source(self.data, name, source)])
        return np.intersect1d(own, rest.concept)

    def _without(
        self, left_out: Mapping[str, str], settings: Settings, seed: int
    ) -> Iterator[tuple[str, str, str, dict[str, float]]]:
        """Trains without some sources; table, condition, method and figures of what is asked of them."""
        data = subsets.without_sources(self.data, left_out)
        model = self.aligned(data, seed, own_photos=True)
        train, kept, held_out = (dataset.embed(data, model, split) for split in ("train", "val", self.held_out))
        module = self.fused(train, held_out, model.labels, self.methods()[AF][0], seed)
        shifted = held_out if data.shifted else None
        model.calibration = calibrate(kept, model.labels, module, settings.count, seed, shifted)
        sets, first = {}, {}
        for name in data.train:
            parts = subsets.of_source(self.data, name, left_out[name]) if name in left_out else []
            if name in left_out:
                shared = self._shared(name, left_out[name])
                parts = [samples.take(np.isin(samples.concept, shared)) for samples in parts]
            first[name] = sum(map(len, parts))
            if name in data.val:
                parts.append(data.val[name])
            if parts:
                sets[name] = FeatureSet.joined(parts)
        known = Split(self.data.vocabulary, sets)
        tokens, slots = embeddings(model, known), tuple(self.architecture.modalities)
        probes = self.probes(data, variants=False)
        own = FusionMethod(AF, tokens, [module], model.labels, slots, certain=True)
        late = {name: probed(probes, model, name, samples.inputs) for name, samples in sets.items()}
        compared: dict[str, Method] = {
            AF: own,
            MEAN: own.of(MEAN, [fusion.MeanFusion()]),
            PROBES: LateFusion(PROBES, late, probes),
        }
        asked = TestData("", "", known, Split(self.data.vocabulary, {}), {}, {}, self.files())
        bench = Bench(model, asked, compared, None, Training(self.config.fuse, ()), settings.count, DAMAGED, seed)
        every = [(bench, method) for method in compared.values()]
        for way in ways(self.fused, model, train, held_out, kept, settings.count, seed):
            if way.name != BOTH:
                other = FusionMethod(way.name, tokens, [way.model.fusion], model.labels, slots, certain=way.certain)
                every.append((dataclasses.replace(bench, model=way.model, methods={AF: other}), other))
        for name, source in left_out.items():
            where, alone = f"{name}: {source}", known.single(name)
            away, home = (alone.take(rows) for rows in np.split(np.arange(len(alone)), [first[name]]))
            for by, method in every:
                yield "one sensor", _on(where, away, len(away)), method.name, _figures(by, method, away)
            if len(home):
                yield "one sensor", _on(where, away, len(away)), f"{AF} at home", _figures(bench, own, home)
            for how, combos in _pairs_of(bench, name, first, settings.count):
                for by, method in every:
                    yield "pairs", _on(f"{where}, {how}", combos), method.name, _figures(by, method, combos)
                best = float(best_single(bench, combos).mean())
                yield "pairs", _on(f"{where}, {how}", combos), BEST, {TOP1: best}

    def _folds(self, name: str, folds: int, seed: int) -> list[NDArray[np.int64]]:
        """Labels of a student with validation samples, in parts of at most :data:`WAYS`."""
        taught = np.intersect1d(self.data.train[name].concept, self.data.val[name].concept)
        if len(taught) < 2:
            return []
        order = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(taught)
        return np.array_split(order, min(len(taught), max(folds, 2, math.ceil(len(taught) / WAYS))))

    def _never_seen(self, model: OmniBind, name: str, fold: NDArray[np.int64], seed: int) -> dict[str, float]:
        """Top-1 of validation samples of the left-out labels, by method."""
        untaught = np.setdiff1d(np.arange(len(self.data.vocabulary)), self.data.train[name].concept)
        rng = np.random.default_rng((seed, zlib.crc32(name.encode()), int(fold[0])))
        filled = rng.permutation(untaught)[: max(0, WAYS - len(fold))]
        candidates = torch.from_numpy(np.concatenate([fold, filled]))
        val = self.data.val[name]
        chosen = val.take(np.isin(val.concept, fold))
        right = torch.from_numpy(chosen.concept)
        text = model.labels.prototypes().cpu()

        def share(embeddings: Tensor) -> float:
            answer = candidates[(embeddings[:, 0].cpu() @ text[candidates].T).argmax(dim=1)]
            return (answer == right).float().mean().item()

        figures = {"CAD": share(embed_all(model.encoders, self.architecture, name, chosen.inputs))}
        if model.encoders.trunk_of[name] == model.encoders.trunk_of["image"]:
            # The untrained way: the student's features through the image teacher's head.
            figures["image head"] = share(embed_all(model.encoders, self.architecture, "image", chosen.inputs))
        figures["chance"] = 1 / len(candidates)
        return figures


def _pairs_of(bench: Bench, name: str, first: Mapping[str, int], count: int) -> Iterator[tuple[str, Combinations]]:
    """Pairs of a modality's left-out samples, by what they stand beside.

    Args:
        bench: Its known samples are those of left-out sources, then validation samples of the others.
        name: The modality.
        first: How many samples of each modality are of a left-out source.
        count: Of pairs.
    """
    sets = bench.data.known.sets
    left_out = {other: np.arange(first[other]) for other in sets}
    validation = {other: np.arange(first[other], len(samples)) for other, samples in sets.items()}
    own, done = left_out[name], np.zeros(0, np.int64)
    for how, beside in ((BESIDE_LEFT_OUT, left_out), (BESIDE_VALIDATION, validation)):
        labels = [sets[other].concept[rows] for other, rows in beside.items() if other != name]
        several = np.setdiff1d(np.concatenate([*labels, done]), done)
        rows = own[np.isin(sets[name].concept[own], several)]
        if len(rows):
            among = {**beside, name: rows}
            yield how, bench.data.known.draw(count, bench.rng(how, name), 2, among=among, having=name)
        done = np.union1d(done, several)


def _figures(bench: Bench, method: Method, combos: Combinations) -> dict[str, float]:
    found = error(bench, method, combos)
    return {TOP1: found["accuracy"], ERROR: found["ece"]}


def _on(where: str, combos: Combinations, samples: int = 0) -> str:
    """The condition, which says how many labels it rests on, and how many samples if they are not drawn."""
    labels = len(np.unique(combos.label))
    rests = ONE_LABEL if labels == 1 else f"{labels} labels"
    return f"{where} ({rests}{f', n {samples}' if samples else ''})"


TABLES = {
    "fusions": Comparison.fusions,
    "robustness": Comparison.robustness,
    "ablation": Comparison.ablation,
    "few-shot": Comparison.few_shot,
    "left-out": Comparison.left_out,
    "left-out-source": Comparison.left_out_source,
    "zero-shot": Comparison.zero_shot,
}
"""The comparisons by name."""


def _is_student(name: str) -> bool:
    return modalities.get(name).role is Role.STUDENT


def _copy(encoder_set: EncoderSet) -> EncoderSet:
    """A copy that can be trained; frozen trunks are shared."""
    frozen = [trunk for trunk in encoder_set.trunks.values() if not learns(trunk)]
    return copy.deepcopy(encoder_set, {id(trunk): trunk for trunk in frozen})


def _unwatched(settings: Any) -> Any:
    """The same settings of a stage without looks at validation data that decide nothing."""
    assert isinstance(settings, StageConfig)
    if settings.patience or settings.keep == "best":
        return settings
    return settings.model_copy(update={"validate_every": 0})


def _asked(split: EmbeddedSplit, count: int, seed: int) -> dict[int, tuple[TokenSets, Index]]:
    """Tokens and labels of drawn combinations, by the number of modalities."""
    drawn = {size: split.draw(count, np.random.default_rng((seed, size)), size) for size in split.sizes}
    return {size: (split.gather(combinations), combinations.label) for size, combinations in drawn.items()}


def _sized(size: int) -> str:
    return f"{size} modalit{'y' if size == 1 else 'ies'}"


def _shot(shots: int) -> str:
    return f"{shots} sample{'' if shots == 1 else 's'} per label"
