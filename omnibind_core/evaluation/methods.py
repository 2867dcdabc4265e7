"""What is compared: the model's own fusion, mean fusion, Probes, and baselines trained on the spot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core import fusion, modalities
from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.evaluation.probes import Probes, shape_features
from omnibind_core.evaluation.samples import Combos, Split, gather
from omnibind_core.features.combinations import Embedded
from omnibind_core.features.sets import learns
from omnibind_core.fusion import Fusion
from omnibind_core.labels import LabelBank
from omnibind_core.model import OmniBind
from omnibind_core.training import dataset
from omnibind_core.training.config import FuseConfig
from omnibind_core.training.engine import Trainer, be_deterministic
from omnibind_core.training.fuse import Fuse

AF, MEAN, PROBES = "AF", "Mean", "Probes"
_BATCH = 4096  # combinations at a time


def probabilities(model: OmniBind, similarities: Tensor, columns: Sequence[str], mask: NDArray[np.bool_]) -> Tensor:
    """Calibrated probabilities ``[B, C]`` of fused embeddings, as the model itself gives them.

    Args:
        model: Has the calibration.
        similarities: ``[B, C]`` cosines of fused embeddings to the labels.
        columns: Modality of each column of the combinations.
        mask: ``bool [B, M]``, which of them were fused.
    """
    sets, place = np.unique(mask, axis=0, return_inverse=True)
    found = [model.calibration.temperature([columns[int(column)] for column in np.flatnonzero(row)]) for row in sets]
    temperature = similarities.new_tensor(found)[torch.from_numpy(place.reshape(-1)).to(similarities.device)]
    return (similarities / temperature[:, None]).softmax(dim=-1)


def threshold(model: OmniBind, count: int) -> float:
    """Confidence below which the model's answer to so many tokens is unknown."""
    return model.threshold


class Method(ABC):
    """A way to answer a combination.

    Attributes:
        name: In the tables.
        rows: What it sees of each sample, ``[N, F]`` by modality.
        seeds: Trained modules that its figures are the mean of; 1 if nothing was trained here.
    """

    name: str
    rows: dict[str, Tensor]
    seeds: int = 1

    @abstractmethod
    def scores(self, combos: Combos) -> list[Tensor]:
        """``[B, C]``, the answer is where it is largest; one for each seed."""

    def right(self, combos: Combos) -> NDArray[np.float64]:
        """Whether each answer is right, ``[B]``; with several seeds the share of those that are."""
        label = torch.from_numpy(combos.label)
        found = [(scores.argmax(dim=1).cpu() == label).double() for scores in self.scores(combos)]
        out: NDArray[np.float64] = torch.stack(found).mean(dim=0).numpy()
        return out


class FusionMethod(Method):
    """A fusion of embeddings, and the label nearest to the result.

    Args:
        name: In the tables.
        rows: Embeddings ``[N, D]`` of every sample by modality.
        modules: One for each seed.
        labels: The vocabulary.
        slots: The model's modalities as the fusions count them.
    """

    def __init__(
        self, name: str, rows: dict[str, Tensor], modules: list[Fusion], labels: LabelBank, slots: tuple[str, ...]
    ) -> None:
        self.name, self.rows, self.seeds = name, rows, len(modules)
        self.modules, self.labels, self.slots = modules, labels, slots

    def scores(self, combos: Combos) -> list[Tensor]:
        """See :meth:`Method.scores`: cosines to the labels."""
        kind = torch.tensor([self.slots.index(name) for name in combos.columns])
        found: list[list[Tensor]] = [[] for _ in self.modules]
        for start in range(0, len(combos), _BATCH):
            tokens, mask = gather(self.rows, combos.take(np.arange(start, min(start + _BATCH, len(combos)))))
            kinds = kind.to(tokens.device).expand(len(tokens), -1)
            with torch.inference_mode():
                for module, parts in zip(self.modules, found, strict=True):
                    parts.append(self.labels.similarities(module(tokens, mask, kinds).embedding))
        return [torch.cat(parts) for parts in found]


class LateFusion(Method):
    """Probes: the mean of the probabilities that one classifier for each modality gives.

    Args:
        rows: Probabilities ``[N, C]`` of every sample by modality.
    """

    def __init__(self, rows: dict[str, Tensor]) -> None:
        self.name, self.rows = PROBES, rows

    def scores(self, combos: Combos) -> list[Tensor]:
        """See :meth:`Method.scores`: mean probabilities."""
        tokens, mask = gather(self.rows, combos)
        return [tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)]


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
    model: OmniBind, embedded: Embedded, kind: str | Mapping[str, Any], seed: int, settings: Training
) -> Fusion:
    """A fusion after stage II.

    Args:
        model: Gives the labels and the widths.
        embedded: What it learns on.
        kind: ``fusion.type``, or the whole ``fusion`` part of a model config.
        seed: Of the initial weights and the combinations.
        settings: How.
    """
    be_deterministic(seed)
    part = {"type": kind} if isinstance(kind, str) else kind
    module = fusion.build(model.config.embed_dim, part, tuple(model.config.modalities)).to(model.device).eval()
    quiet = settings.fuse.model_copy(update={"validate_every": 0, "patience": 0, "keep": "last", "fusion": {}})
    Trainer(seed).run(Fuse(embedded, None, model.labels, module, quiet))
    return module


def embed(model: OmniBind, split: Split) -> Embedded:
    """A split with all its variants, and the data's own words, for stage II."""
    data = dataset.TrainingData(model.labels.names, dataset.Concepts([]), dict(split.parts), {}, known=model.labels)
    return dataset.embed(data, model, "train")


def probe_rows(
    encoder_set: EncoderSet,
    architecture: ModelConfig,
    name: str,
    inputs: NDArray[np.float32],
    *,
    variants: bool = False,
) -> NDArray[np.float32]:
    """What a probe sees of samples, ``[N, A, F]``: frozen features, or shape features where a trunk for points learns.

    Args:
        encoder_set: Tells which trunks learn.
        architecture: Tells the preset.
        name: The modality.
        inputs: ``[N, A, F]`` as in :attr:`~omnibind_core.features.sets.FeatureSet.inputs`.
        variants: Whether augmented variants count, too.
    """
    inputs = inputs if variants else inputs[:, :1]
    if not learns(encoder_set.trunks[encoder_set.trunk_of[name]]) or name != "point_cloud":
        return inputs
    points = modalities.get(name).preset(architecture.modalities[name].preset).shape
    flat = inputs.reshape(-1, *points)
    rows = np.concatenate([shape_features(flat[start : start + 512]) for start in range(0, len(flat), 512)])
    return rows.reshape(*inputs.shape[:2], -1)


def probed(probes: Probes, model: OmniBind, name: str, inputs: NDArray[np.float32]) -> Tensor:
    """Probabilities ``[N, C]`` that a probe gives samples with the trunk features ``[N, A, F]``."""
    rows = probe_rows(model.encoders, model.config, name, inputs)[:, 0]
    return torch.from_numpy(probes.probabilities(name, rows).astype(np.float32))
