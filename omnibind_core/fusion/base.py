"""The interface that AF and the fusions it is compared with have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Fused(NamedTuple):
    """Result of a fusion.

    Attributes:
        embedding: ``float32 [B, D]``, unit length.
        weights: ``float32 [B, M]``, share of each token in the embedding; each row sums to 1, absent tokens have 0.
    """

    embedding: Tensor
    weights: Tensor


class Fusion(nn.Module):
    """A fusion: any set of tokens to one unified embedding. The set has no order and no fixed size."""

    def forward(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None = None) -> Fused:
        """Fuses sets of tokens.

        In eval mode padding is cut away first, so a padded batch gives exactly what the unpadded one gives.

        Args:
            tokens: ``float32 [B, M, D]``, unit length; what stands at absent places does not matter, not even NaN.
            mask: ``bool [B, M]``, True where a token is present; at least one in each row.
            modality_ids: ``int64 [B, M]`` modality of each token, an index into the model config's modalities. AF, Mean
                and Linear do not need it.
        """
        if self.training:
            # Absent places may hold anything, even NaN, which an attention weight of zero would not remove.
            return self.fuse(tokens.masked_fill(~mask[..., None], 0.0), mask, modality_ids)
        order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(dim=1).max())]
        mask = mask.gather(1, order)
        packed = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[-1])).masked_fill(~mask[..., None], 0.0)
        fused = self.fuse(packed, mask, None if modality_ids is None else modality_ids.gather(1, order))
        return Fused(fused.embedding, fused.weights.new_zeros(tokens.shape[:2]).scatter(1, order, fused.weights))

    @abstractmethod
    def fuse(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None) -> Fused:
        """What a fusion defines: as :meth:`forward`, with zeros at absent places."""


def equal_shares(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """``[B, M]``: the same share for every present token of a row, 0 for absent ones."""
    return mask.to(dtype) / mask.sum(dim=1, keepdim=True)


def mix(weights: Tensor, rows: Tensor) -> Tensor:
    """Sums ``[B, M, D]`` rows, weighted by ``[B, M]``, to ``[B, D]``."""
    return (weights.unsqueeze(1) @ rows).squeeze(1)
