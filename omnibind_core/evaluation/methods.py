"""What is compared: the model's own fusion, mean fusion, Probes, and baselines trained on the spot."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core import fusion, modalities
from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.evaluation.probes import Probes, shape_features
from omnibind_core.features.combinations import Combinations, EmbeddedSplit, Index, gather, late_fusion, similarities
from omnibind_core.features.sets import learns
from omnibind_core.fusion import Evidence, Fusion, evidence
from omnibind_core.labels import LabelBank
from omnibind_core.model import OmniBind
from omnibind_core.training.config import FuseConfig
from omnibind_core.training.engine import Trainer, be_deterministic
from omnibind_core.training.fuse import Fuse

Negatives = Literal["wrong", "all"]
"""As ``fuse.negatives``."""
AF, MEAN, PROBES, PROBES_DAMAGED = "AF", "Mean", "Probes", "Probes with damage"
PAPER_FUSION: dict[str, Any] = {"type": "attention", "preset": "paper"}
"""The ``fusion`` part of a model config that builds AF as the paper has it."""
PLAIN, NO_CLS = "AF, preset paper", "AF, preset paper, without CLS negatives"
"""AF as the paper has it, trained on the spot; and the same with all labels as negatives (Table 12)."""
PAPER_AF: dict[str, Negatives] = {PLAIN: "wrong", NO_CLS: "all"}
"""Their ``fuse.negatives``."""
_BATCH = 4096  # combinations at a time


def threshold(model: OmniBind, count: int) -> float:
    """Confidence below which the model's answer to so many tokens is unknown."""
    return model.threshold


class Method(ABC):
    """A way to answer a combination.

    Attributes:
        name: In the tables.
        tokens: What it sees of each sample, ``[N, 1, F]`` by modality.
        fold: ``int64 [C]``, what each label counts as in an answer, itself or another.
        seeds: Trained modules that its figures are the mean of; 1 if nothing was trained here.
    """

    name: str
    tokens: dict[str, Tensor]
    fold: Index
    seeds: int = 1

    @abstractmethod
    def scores(self, combos: Combinations) -> list[Tensor]:
        """``[B, C]``, of all labels of the model, the answer is where it is largest; one for each seed."""

    def answers(self, scores: Tensor, among: Index | None = None) -> Index:
        """The numbers of the answers, ``[B]``, folded.

        Args:
            scores: ``[B, C]``, of :meth:`scores`, or probabilities.
            among: Numbers of the labels to choose from; None takes all.
        """
        chosen = np.arange(scores.shape[1]) if among is None else among
        out: Index = self.fold[chosen[scores[:, torch.from_numpy(chosen)].argmax(dim=1).cpu().numpy()]]
        return out

    def right(self, combos: Combinations) -> NDArray[np.float64]:
        """Whether each answer is right, ``[B]``; with several seeds the share of those that are."""
        found = [self.answers(scores) == combos.label for scores in self.scores(combos)]
        out: NDArray[np.float64] = np.mean(found, axis=0, dtype=np.float64)
        return out


class FusionMethod(Method):
    """A fusion of embeddings, and the label nearest to the result.

    Args:
        name: In the tables.
        tokens: Embeddings ``[N, 1, D]`` of every sample by modality.
        modules: One for each seed.
        labels: The vocabulary.
        slots: The model's modalities as the fusions count them.
        fold: See :class:`Method`; None if each label is its own.
        certain: Whether the model's certainty was fitted for it.
    """

    def __init__(
        self,
        name: str,
        tokens: dict[str, Tensor],
        modules: list[Fusion],
        labels: LabelBank,
        slots: tuple[str, ...],
        fold: Index | None = None,
        certain: bool = False,
    ) -> None:
        self.name, self.tokens, self.seeds = name, tokens, len(modules)
        self.modules, self.labels, self.slots, self.certain = modules, labels, slots, certain
        self.fold = np.arange(len(labels)) if fold is None else fold

    def of(self, name: str, modules: list[Fusion]) -> FusionMethod:
        """Other fusions of the same tokens, asked in the same way."""
        other = copy.copy(self)
        other.name, other.modules, other.seeds, other.certain = name, modules, len(modules), False
        return other

    def evidence(self, combos: Combinations) -> Evidence | None:
        """The evidence for the answers of the first module, ``[B]`` each; None if the certainty is not for it."""
        if not self.certain:
            return None
        parts = []
        for some in _batches(combos):
            sets = gather(self.tokens, some, self.slots)
            with torch.inference_mode():
                parts.append(evidence(self.modules[0](*sets), sets.tokens, sets.mask))
        return Evidence(*(torch.cat(rows) for rows in zip(*parts, strict=True)))

    def scores(self, combos: Combinations) -> list[Tensor]:
        """See :meth:`Method.scores`: cosines to the labels."""
        found: list[list[Tensor]] = [[] for _ in self.modules]
        for some in _batches(combos):
            sets = gather(self.tokens, some, self.slots)
            for module, parts in zip(self.modules, found, strict=True):
                parts.append(similarities(module, self.labels, sets))
        return [torch.cat(parts) for parts in found]


def _batches(combos: Combinations) -> Iterator[Combinations]:
    for start in range(0, len(combos), _BATCH):
        yield combos.take(np.arange(start, min(start + _BATCH, len(combos))))


class LateFusion(Method):
    """Probes: the mean of the probabilities that one classifier for each modality gives.

    Args:
        name: In the tables.
        tokens: Probabilities ``[N, 1, C]`` of every sample by modality.
        probes: What gave them.
        fold: See :class:`Method`; None if each label is its own.
    """

    def __init__(self, name: str, tokens: dict[str, Tensor], probes: Probes, fold: Index | None = None) -> None:
        self.name, self.tokens, self.probes = name, tokens, probes
        self.fold = np.arange(probes.classes) if fold is None else fold

    def scores(self, combos: Combinations) -> list[Tensor]:
        """See :meth:`Method.scores`: mean probabilities."""
        return [late_fusion(gather(self.tokens, combos))]


@dataclass(frozen=True)
class Training:
    """How baselines are trained.

    Attributes:
        fuse: Settings of stage II.
        names: Titles of the baselines to train, of :func:`trainable`.
        seeds: One module each.
    """

    fuse: FuseConfig
    names: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)


def trainable() -> dict[str, str]:
    """Baselines that are trained on the spot: ``fusion.type`` by title."""
    return {found.title: found.name for found in fusion.baselines() if found.learns}


def trained(
    model: OmniBind, split: EmbeddedSplit, config: str | Mapping[str, Any], seed: int, settings: Training
) -> Fusion:
    """A fusion after stage II.

    Args:
        model: Gives the labels and the widths.
        split: What it learns on.
        config: ``fusion.type``, or the whole ``fusion`` part of a model config.
        seed: Of the initial weights and the combinations.
        settings: How.
    """
    be_deterministic(seed)
    part = {"type": config} if isinstance(config, str) else config
    module = fusion.build(model.config.embed_dim, part, tuple(model.config.modalities)).to(model.device).eval()
    quiet = settings.fuse.model_copy(update={"validate_every": 0, "patience": 0, "keep": "last", "fusion": {}})
    Trainer(seed).run(Fuse(split, None, model.labels, module, quiet))
    return module


def probe_rows(
    encoder_set: EncoderSet,
    architecture: ModelConfig,
    name: str,
    inputs: NDArray[np.float32],
    *,
    variants: bool = False,
    damaged: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """What a probe sees of samples, ``[N, A, F]``: frozen features, or shape features where a trunk for points learns.

    Args:
        encoder_set: Tells which trunks learn.
        architecture: Tells the preset.
        name: The modality.
        inputs: ``[N, A, F]`` as in :attr:`~omnibind_core.features.sets.FeatureSet.inputs`.
        variants: Whether augmented variants count, too.
        damaged: ``[N, K, F]``, variants with a damaged sensor that count, too; None for none.
    """
    inputs = inputs if variants else inputs[:, :1]
    if damaged is not None:
        inputs = np.concatenate([inputs, damaged], axis=1)
    if not learns(encoder_set.trunks[encoder_set.trunk_of[name]]) or name != "point_cloud":
        return inputs
    points = modalities.get(name).preset(architecture.modalities[name].preset).shape
    flat = inputs.reshape(-1, *points)
    rows = np.concatenate([shape_features(flat[start : start + 512]) for start in range(0, len(flat), 512)])
    return rows.reshape(*inputs.shape[:2], -1)


def probed(probes: Probes, model: OmniBind, name: str, inputs: NDArray[np.float32]) -> Tensor:
    """Probabilities ``[N, 1, C]`` that a probe gives samples with the trunk features ``[N, A, F]``."""
    rows = probe_rows(model.encoders, model.config, name, inputs)[:, 0]
    return torch.from_numpy(probes.probabilities(name, rows).astype(np.float32))[:, None]
