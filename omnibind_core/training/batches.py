"""Random batches of one modality's samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.training.dataset import Part, trunk_features


@dataclass(frozen=True)
class Batch:
    """Some samples of one modality, each in one of its variants.

    Attributes:
        modality: Whose.
        part: What :attr:`rows` counts.
        rows: ``int64 [B]``, samples.
        variants: ``int64 [B]``.
    """

    modality: str
    part: Part
    rows: NDArray[np.int64]
    variants: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def concept(self) -> NDArray[np.int64]:
        """``int64 [B]``, index into the vocabulary."""
        return self.part.concept[self.rows]

    def embed(self, share: slice, encoder_set: EncoderSet, model: ModelConfig) -> Tensor:
        """Unit-length embeddings ``[len(share), D]`` of a share of the batch, with gradient."""
        device = next(encoder_set.parameters()).device
        inputs = torch.from_numpy(self.part.inputs[self.rows[share], self.variants[share]]).to(device)
        features = trunk_features(encoder_set, model, self.modality, inputs)
        return F.normalize(encoder_set.heads[self.modality](features), dim=-1)


class Batches:
    """Draws batches of one modality, with replacement.

    Args:
        modality: Whose.
        part: Its samples.
        size: Samples in a batch.
        balance: 0 draws samples as often as they occur, 1 draws every concept equally often.
    """

    def __init__(self, modality: str, part: Part, size: int, balance: float) -> None:
        self.modality = modality
        self.part = part
        self.size = size
        weight = np.bincount(part.concept).astype(np.float64)[part.concept] ** -balance
        self._cumulative = np.cumsum(weight) / weight.sum()
        self._cumulative[-1] = 1.0

    def draw(self, rng: np.random.Generator) -> Batch:
        """The next batch."""
        rows = np.searchsorted(self._cumulative, rng.random(self.size), side="right")
        variants = rng.integers(self.part.inputs.shape[1], size=self.size)
        return Batch(self.modality, self.part, rows, variants)
