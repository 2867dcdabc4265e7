"""Random batches of one modality's samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.encoders import EncoderSet
from omnibind_core.encoders.config import ModelConfig
from omnibind_core.features.sets import FeatureSet, trunk_features


@dataclass(frozen=True)
class Batch:
    """Some samples of one modality, each in one of its variants.

    Attributes:
        modality: Whose.
        inputs: ``float32 [B, F]``, rows of :attr:`FeatureSet.inputs`.
        concept: ``int64 [B]``, index into the vocabulary.
    """

    modality: str
    inputs: NDArray[np.float32]
    concept: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.concept)

    def embed(self, share: slice, encoder_set: EncoderSet, model: ModelConfig) -> Tensor:
        """Unit-length embeddings ``[len(share), D]`` of a share of the batch, with gradient."""
        device = next(encoder_set.parameters()).device
        inputs = torch.from_numpy(self.inputs[share]).to(device)
        features = trunk_features(encoder_set, model, self.modality, inputs)
        return F.normalize(encoder_set.heads[self.modality](features), dim=-1)


class Batches:
    """Draws batches of one modality, with replacement.

    Args:
        modality: Whose.
        shares: Samples, and how many of them are in a batch.
        balance: 0 draws samples as often as they occur, 1 draws every concept of a share equally often.
    """

    def __init__(self, modality: str, shares: Sequence[tuple[FeatureSet, int]], balance: float) -> None:
        self.modality = modality
        self._shares = [(samples, size, _cumulative(samples.concept, balance)) for samples, size in shares]

    def draw(self, rng: np.random.Generator) -> Batch:
        """The next batch, share after share."""
        inputs, concept = [], []
        for samples, size, cumulative in self._shares:
            rows = np.searchsorted(cumulative, rng.random(size), side="right")
            inputs.append(samples.inputs[rows, rng.integers(samples.inputs.shape[1], size=size)])
            concept.append(samples.concept[rows])
        return Batch(self.modality, np.concatenate(inputs), np.concatenate(concept))


def _cumulative(concept: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    weight = np.bincount(concept).astype(np.float64)[concept] ** -balance
    cumulative = np.cumsum(weight) / weight.sum()
    cumulative[-1] = 1.0
    return cumulative
