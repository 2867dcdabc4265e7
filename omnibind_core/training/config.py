"""Settings of a training experiment: one YAML per experiment, every key overridable on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from omnibind_core import alignment
from omnibind_core.alignment import CADConfig
from omnibind_core.config import Config, load_named, parse
from omnibind_core.data.imagine import IMAGINE

OWN = "own"
"""The value of ``labels`` that takes each label as it is written."""
RENAMED = {"tie": "image_text", "fuse.lie": "fuse.conflict"}
"""Keys by the name that they had in former versions, whose experiments and checkpoints are refused."""


class StageConfig(Config):
    """What the optimisation of every stage needs.

    Attributes:
        steps: Optimiser steps.
        epochs: If given, counts instead of ``steps``: passes over the training samples (fusion: over the index's
            combinations, or without one over as many as there are samples).
        batch: Samples per step. All of them are contrasted with each other, however many processes share the work.
        accumulate: Batches whose gradients are averaged for one step, each contrasted in itself.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW.
        warmup: Share of the steps over which the learning rate rises; it falls linearly to 0 after that.
        clip: Largest norm of the gradient.
        validate_every: Steps between looks at the validation split; null looks ten times, 0 never.
        checkpoint_every: Steps between checkpoints; null writes one a minute, 0 only the last one.
        patience: Looks at the validation split without a better figure after which training stops; 0 never stops early.
        keep: Which weights are the result: those of the ``"last"`` step, or of the ``"best"`` look at validation data.
    """

    steps: int = Field(1000, ge=0)
    epochs: float | None = Field(None, gt=0)
    batch: int = Field(256, ge=2)
    accumulate: PositiveInt = 1
    lr: PositiveFloat = 1e-3
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    clip: PositiveFloat = 1.0
    validate_every: int | None = Field(None, ge=0)
    checkpoint_every: int | None = Field(None, ge=0)
    patience: int = Field(0, ge=0)
    keep: Literal["last", "best"] = "last"

    @model_validator(mode="after")
    def _check_validation(self) -> StageConfig:
        if self.validate_every == 0 and (self.patience or self.keep == "best"):
            raise ValueError("patience and keep: best need looks at the validation split, validate_every is 0")
        return self

    def steps_over(self, samples: int) -> int:
        """Number of steps, with :attr:`epochs` of that many samples."""
        return _steps(self.steps, self.epochs, self.batch * self.accumulate, samples)


class ImageTextConfig(StageConfig):
    """Step 0, image-text alignment of the image teacher; only for families whose image head learns.

    Attributes:
        steps: Optimiser steps; 0 leaves the image teacher as it is.
        tau: Temperature of the contrast with the labels.
        balance: As in stage I.
    """

    steps: int = Field(400, ge=0)
    tau: PositiveFloat = 0.07
    balance: float = Field(0.5, ge=0, le=1)


class StudentConfig(Config):
    """Settings of one student; null is that of the whole stage.

    Attributes:
        steps: Optimiser steps.
        epochs: Passes over its samples, instead of ``steps``.
        batch: Samples per step.
        lr: Peak learning rate.
    """

    steps: int | None = Field(None, ge=0)
    epochs: float | None = Field(None, gt=0)
    batch: int | None = Field(None, ge=2)
    lr: float | None = Field(None, gt=0)


class AlignConfig(StageConfig):
    """Stage I. The weight decay is that of the paper's Table 10; its other values are in ``paper_table10.yaml``.

    Attributes:
        steps: Optimiser steps for each student.
        students: Which students learn; null are all that have training samples.
        per_student: Other settings of single students, by name.
        loss: Settings of :class:`omnibind_core.alignment.CADConfig`, with ``preset``.
        balance: 0 draws samples as often as they occur, 1 draws every concept equally often.
        order: ``"interleaved"`` (students take turns in random order, under one learning rate schedule) or
            ``"sequential"`` (one after the other, each under a schedule of its own, as in the paper).
        imagined: By student, the share of a batch that is imagined from the training photos, 0 to 1 exclusive (not in
            the paper).
        randomised: By student, the share of a batch that is of the randomised variants, whose number ``randomised`` and
            ``more_randomised`` of the experiment give; without a share they are drawn as often as any other variant
            (not in the paper).
    """

    students: list[str] | None = Field(None, min_length=1)
    per_student: dict[str, StudentConfig] = Field(default_factory=dict)
    loss: dict[str, Any] = Field(default_factory=lambda: {"preset": "equation"})
    balance: float = Field(0.5, ge=0, le=1)
    order: Literal["interleaved", "sequential"] = "interleaved"
    imagined: dict[str, float] = Field(default_factory=dict)
    randomised: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_shares(self) -> AlignConfig:
        for name, share in self.randomised.items():
            if share < 0 or share + self.imagined.get(name, 0.0) >= 1:
                raise ValueError(f"the share of {name} is {share}, expected 0 or more, with imagined ones below 1")
        return self

    @field_validator("imagined")
    @classmethod
    def _check_imagined(cls, imagined: dict[str, float]) -> dict[str, float]:
        for name, share in imagined.items():
            if name not in IMAGINE:
                raise ValueError(f"'{name}' cannot be imagined from photos, expected some of: {', '.join(IMAGINE)}")
            if not 0 <= share < 1:
                raise ValueError(f"the share of {name} is {share}, expected 0 to below 1")
        return imagined

    @property
    def cad(self) -> CADConfig:
        """The validated loss settings.

        Raises:
            ConfigError: Names the key.
        """
        return parse(CADConfig, self.loss, "align.loss", alignment.PRESETS)

    def batch_of(self, student: str, samples: int) -> int:
        """Batch size of a student that has that many samples."""
        return min(self.per_student.get(student, StudentConfig()).batch or self.batch, samples)

    def lr_of(self, student: str) -> float:
        """Peak learning rate of a student."""
        return self.per_student.get(student, StudentConfig()).lr or self.lr

    def steps_of(self, student: str, samples: int) -> int:
        """Optimiser steps of a student that has that many samples; its own settings count first, then epochs."""
        own = self.per_student.get(student, StudentConfig())
        batch = self.batch_of(student, samples) * self.accumulate
        if own.steps is not None or own.epochs is not None:
            return _steps(own.steps or 0, own.epochs, batch, samples)
        return _steps(self.steps, self.epochs, batch, samples)


class FuseConfig(StageConfig):
    """Stage II. Batch size, learning rate and number of epochs (as steps) follow the paper's Table 10.

    Attributes:
        steps: Optimiser steps (10 epochs of the paper's 50,080 combinations at its batch size are 978).
        batch: Combinations per step.
        fusion: Changes to the ``fusion`` part of the model config; empty keeps it.
        tau: Temperature of the contrastive loss.
        negatives: ``"wrong"`` (the wrong labels that single modalities predict, as in the paper) or ``"all"`` labels.
        text: Chance that the text of a combination is used: with an index the text that the combination has there,
            else any of the sources' own words for the concept.
        conflict: Chance that one token of a combination of two or more shows something else (not in the paper).
        damage: Variants of each training sample with a damaged sensor that are drawn beside the others (not in the
            paper).
        shifts: Variants of each validation sample as another sensor of the kind would have made it, and as many of a
            damaged one, that the certainty is fitted on; 0 leaves the certainty out (not in the paper).
    """

    steps: int = Field(978, ge=0)
    batch: int = Field(512, ge=2)
    fusion: dict[str, Any] = Field(default_factory=dict)
    tau: PositiveFloat = 0.07
    negatives: Literal["wrong", "all"] = "wrong"
    text: float = Field(0.1, ge=0, le=1)
    conflict: float = Field(0.0, ge=0, le=1)
    damage: int = Field(0, ge=0)
    shifts: int = Field(0, ge=0)


class TrainConfig(Config):
    """A whole experiment.

    Attributes:
        model: Name or file of a model config; null is that of ``start``, without it ``lite``.
        weights: File or folder with the weights of the model's trunks, for model configs that need one
            (docs/weights.md); null is what the model config says.
        start: Name or folder of a trained model whose encoders, fusion, labels and calibration stage I begins with;
            ``model`` may add modalities to it. Null begins from nothing.
        plugins: Folders of further modalities.
        data: Folder with ``samples.csv``; not read when there is an index.
        index: Folder that ``omnibind data build`` or ``export`` wrote: its samples, label table and combinations are
            used. Null takes those of ``data`` and draws the combinations on the fly.
        labels: ``labels.csv`` that maps the sources' labels to concepts; ``own`` takes each label as it is written, in
            any language; null matches them anew.
        holdout: Share of the groups of each label and modality that becomes the split ``val``, if the data have none.
        descriptions: Sentences on what labels mean, beside the prompt: ``none``, ``wordnet`` (its definitions),
            ``meaning`` (what the column of the label table says), or a YAML or JSON file that maps labels to lists of
            sentences.
        vocabulary: Least number of training samples of a concept, over all modalities, to be in the label bank.
        out: Folder that ``align/`` (after stage I) and ``model/`` (after stage II) are written to.
        seed: Of everything random in training.
        features_seed: Of the random variants in the feature cache; another one computes all features anew.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: Processes on this machine, one GPU each; ``torchrun`` and ``fabric run`` say it themselves.
        precision: ``32-true``, or ``bf16-mixed``: encoders and fusion in bfloat16, losses and weights in float32.
        logger: Where every step is logged under ``log/``: ``csv``, ``tensorboard``, ``both`` or ``none``.
        augmentations: Random variants of each training sample in the feature cache, beside the sample itself.
        more_augmentations: Other numbers for single modalities.
        randomised: Further variants, each as another sensor of the kind would have made it (domain randomisation).
        more_randomised: Other numbers for single modalities.
        image_text: Step 0, image-text alignment.
        align: Stage I.
        fuse: Stage II.
    """

    model: str | dict[str, Any] | None = None
    weights: str | None = None
    start: str | None = None
    plugins: list[str] = Field(default_factory=list)
    data: str | None = None
    index: str | None = None
    labels: str | None = None
    holdout: float = Field(0.0, ge=0, lt=1)
    descriptions: str = "none"
    vocabulary: PositiveInt = 2
    out: str = "out/train"
    seed: int = Field(0, ge=0)
    features_seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    logger: Literal["csv", "tensorboard", "both", "none"] = "both"
    augmentations: int = Field(4, ge=0)
    more_augmentations: dict[str, int] = Field(default_factory=dict)
    randomised: int = Field(0, ge=0)
    more_randomised: dict[str, int] = Field(default_factory=dict)
    image_text: ImageTextConfig = Field(default_factory=ImageTextConfig)
    align: AlignConfig = Field(default_factory=AlignConfig)
    fuse: FuseConfig = Field(default_factory=FuseConfig)

    def randomised_of(self, modality: str) -> int:
        """Number of variants by domain randomisation of each training sample of a modality."""
        return self.more_randomised.get(modality, self.randomised)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: dict[str, Any]) -> dict[str, Any]:
        fuse = data.get("fuse")
        former = former_names([*data, *(f"fuse.{key}" for key in (fuse if isinstance(fuse, dict) else ()))])
        if former:
            raise ValueError(f"{former}: rename what the experiment has under the former name")
        return data

    @model_validator(mode="after")
    def _check_data(self) -> TrainConfig:
        if self.data is None and self.index is None:
            raise ValueError("data (a folder with samples.csv) or index (a built data set) is needed")
        if self.labels is not None and self.index is not None:
            raise ValueError("labels and index exclude each other: an index has its own label table")
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> TrainConfig:
        if self.weights is not None and self.start is not None:
            raise ValueError("weights and start exclude each other: a trained model names its own weights")
        return self

    @model_validator(mode="after")
    def _check_randomised(self) -> TrainConfig:
        for name, share in self.align.randomised.items():
            if share and not self.randomised_of(name):
                raise ValueError(f"align.randomised.{name} is {share}, but more_randomised gives {name} no variants")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> TrainConfig:
        _ = self.align.cad
        return self


def load(name: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads an experiment.

    Args:
        name: A file, or the name of one in ``configs/train/``.
        overrides: ``key=value`` with dots between levels; values are YAML.

    Raises:
        ConfigError: The file is missing, or a key or value is wrong; names the key.
    """
    return load_named(TrainConfig, "train", name, overrides)


def former_names(keys: Iterable[str]) -> str:
    """What those of some dotted keys that have another name now are called, in words; empty if there are none."""
    found = [key for key in RENAMED if any(key == one or str(one).startswith(f"{key}.") for one in keys)]
    return ", ".join(f"'{key}' is now '{RENAMED[key]}'" for key in found)


def dump(config: TrainConfig, path: Path) -> None:
    """Writes the resolved settings, so that the experiment can be run again."""
    path.write_text(yaml.safe_dump(config.model_dump(), sort_keys=False), encoding="utf-8")


def _steps(steps: int, epochs: float | None, batch: int, samples: int) -> int:
    return steps if epochs is None else max(1, round(epochs * samples / batch))
