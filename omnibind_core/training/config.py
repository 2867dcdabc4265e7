"""Settings of a training experiment: one YAML per experiment, every key overridable on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from omnibind_core import alignment
from omnibind_core.alignment import CADConfig
from omnibind_core.config import Config, load_named, parse


class AlignConfig(Config):
    """Stage I. The batch size and the weight decay are those of the paper's Table 10 and listing.

    Attributes:
        loss: Settings of :class:`omnibind_core.alignment.CADConfig`, with ``preset``.
        tie_steps: Optimiser steps of the image teacher's tie to text, before the students; only for families whose
            image head learns.
        steps: Optimiser steps for each student.
        more_steps: Other numbers of steps for single students.
        batch: Samples per step, all of one student.
        more_batch: Other batch sizes for single students.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW.
        warmup: Share of the steps over which the learning rate rises; it falls linearly to 0 after that.
        clip: Largest norm of the gradient.
        balance: 0 draws samples as often as they occur, 1 draws every concept equally often.
    """

    loss: dict[str, Any] = Field(default_factory=lambda: {"preset": "equation"})
    tie_steps: int = Field(400, ge=0)
    steps: int = Field(1000, ge=1)
    more_steps: dict[str, int] = Field(default_factory=dict)
    batch: int = Field(256, ge=2)
    more_batch: dict[str, int] = Field(default_factory=dict)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    clip: float = Field(1.0, gt=0)
    balance: float = Field(0.5, ge=0, le=1)

    @property
    def cad(self) -> CADConfig:
        """The validated loss settings.

        Raises:
            ConfigError: Names the key.
        """
        return parse(CADConfig, self.loss, "align.loss", alignment.PRESETS)


class FuseConfig(Config):
    """Stage II. Batch size, learning rate and number of epochs (as steps) follow the paper's Table 10.

    Attributes:
        fusion: Changes to the ``fusion`` part of the model config; empty keeps it.
        steps: Optimiser steps (10 epochs of the paper's 50,080 combinations at its batch size are 978).
        batch: Combinations per step.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW.
        warmup: As in stage I.
        clip: Largest norm of the gradient.
        tau: Temperature of the contrastive loss.
        negatives: ``"wrong"`` (the wrong labels that single modalities predict, as in the paper) or ``"all"`` labels.
        text: Chance that the text of a combination is used: with an index the text that the combination has there,
            else any of the sources' own words for the concept.
        lie: Chance that one token of a combination of two or more shows something else (not in the paper).
    """

    fusion: dict[str, Any] = Field(default_factory=dict)
    steps: int = Field(978, ge=1)
    batch: int = Field(512, ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    clip: float = Field(1.0, gt=0)
    tau: float = Field(0.07, gt=0)
    negatives: str = Field("wrong", pattern="^(wrong|all)$")
    text: float = Field(0.1, ge=0, le=1)
    lie: float = Field(0.0, ge=0, le=1)


class TrainConfig(Config):
    """A whole experiment.

    Attributes:
        model: Name or file of a model config.
        data: Folder with ``samples.csv``; not read when there is an index.
        index: Folder that ``omnibind data build`` or ``export`` wrote: its samples, label table and combinations are
            used. Null takes those of ``data`` and draws the combinations on the fly.
        labels: ``labels.csv`` that maps the sources' labels to concepts; null matches them anew.
        vocabulary: Least number of training samples of a concept, over all modalities, to be in the label bank.
        out: Folder that ``align/`` (after stage I) and ``model/`` (after stage II) are written to.
        seed: Of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.
        augmentations: Random variants of each training sample in the feature cache, beside the sample itself.
        more_augmentations: Other numbers for single modalities.
        align: Stage I.
        fuse: Stage II.
    """

    model: str = "lite"
    data: str | None = None
    index: str | None = None
    labels: str | None = None
    vocabulary: int = Field(2, ge=1)
    out: str = "out/train"
    seed: int = Field(0, ge=0)
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$")
    augmentations: int = Field(4, ge=0)
    more_augmentations: dict[str, int] = Field(default_factory=dict)
    align: AlignConfig = Field(default_factory=AlignConfig)
    fuse: FuseConfig = Field(default_factory=FuseConfig)

    @model_validator(mode="after")
    def _check_data(self) -> TrainConfig:
        if self.data is None and self.index is None:
            raise ValueError("data (a folder with samples.csv) or index (a built data set) is needed")
        if self.labels is not None and self.index is not None:
            raise ValueError("labels and index exclude each other: an index has its own label table")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> TrainConfig:
        _ = self.align.cad
        return self


def load(name: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads an experiment.

    Args:
        name: A file, or the name of one in ``config/train/``.
        overrides: ``key=value`` with dots between levels; values are YAML.

    Raises:
        ConfigError: The file is missing, or a key or value is wrong; names the key.
    """
    return load_named(TrainConfig, "train", name, overrides)


def dump(config: TrainConfig, path: Path) -> None:
    """Writes the resolved settings, so that the experiment can be run again."""
    path.write_text(yaml.safe_dump(config.model_dump(), sort_keys=False), encoding="utf-8")
