"""A fusion with the labels as a network of fixed inputs, for engines other than torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.fusion.base import Fusion

INPUTS = ("tokens", "mask", "modality_ids", "doubted", "labels")
OUTPUTS = ("embedding", "weights", "familiarity", "similarities")
DYNAMIC = {
    **{name: {0: "sets", 1: "tokens"} for name in INPUTS[:-1]},
    "labels": {0: "labels"},
    "embedding": {0: "sets"},
    "weights": {0: "sets", 1: "tokens"},
    "familiarity": {0: "sets", 1: "tokens"},
    "similarities": {0: "sets", 1: "labels"},
}
"""Axes that may have any size, by input and output, with their names."""


class LabelledFusion(nn.Module):
    """Fuses sets of tokens and compares them with labels, which are an input, so that a vocabulary can be swapped.

    Args:
        fusion: The fusion, in eval mode.
    """

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(
        self, tokens: Tensor, mask: Tensor, modality_ids: Tensor, doubted: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embedding, weights, familiarity and cosines ``[B, C]`` to labels ``[C, D]``.

        The others as of :meth:`Fusion.forward`, but that no padding is cut away: absent tokens are masked alone.
        """
        fused = self.fusion.fuse_doubted(tokens.masked_fill(~mask[..., None], 0.0), mask, modality_ids, doubted)
        familiarity = fused.weights * torch.nan if fused.familiarity is None else fused.familiarity
        return fused.embedding, fused.weights, familiarity, fused.embedding @ labels.T


def samples(dim: int, slots: int, labels: Tensor) -> Iterator[dict[str, Tensor]]:
    """Made-up inputs: sets of each size up to one token more than there are modalities, all present, and some.

    Args:
        dim: Embedding width D.
        slots: Number of modalities.
        labels: ``float32 [C, D]``, unit length.
    """
    generator = torch.Generator().manual_seed(0)
    for count in range(1, slots + 2):
        tokens = F.normalize(torch.randn(6, count, dim, generator=generator), dim=-1)
        mask = torch.rand(6, count, generator=generator) < 0.7
        mask[:3] = True
        mask[:, 0] = True
        ids = torch.randint(slots, (6, count), generator=generator)
        doubted = torch.rand(6, count, generator=generator) < 0.2
        yield {"tokens": tokens, "mask": mask, "modality_ids": ids, "doubted": doubted, "labels": labels}
