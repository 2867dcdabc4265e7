"""The loss of stage II (paper Eq. 8) and its negatives (CLS)."""

from __future__ import annotations

import torch
from torch import Tensor


def fusion_loss(fused: Tensor, positive: Tensor, negatives: Tensor, present: Tensor, tau: float) -> Tensor:
    """Contrastive loss of stage II (paper Eq. 8): the label's text against the texts that single modalities confused.

    Args:
        fused: ``[B, D]`` unified embeddings, unit length.
        positive: ``[B, D]`` text embedding of the label.
        negatives: ``[B, K, D]`` text embeddings of wrong labels.
        present: ``bool [B, K]``, which negatives count; at least one in each row.
        tau: Temperature.

    Returns:
        Scalar, the mean over the batch.
    """
    right = (fused * positive).sum(dim=-1, keepdim=True)
    wrong = torch.einsum("bd,bkd->bk", fused, negatives).masked_fill(~present, float("-inf"))
    return -(torch.cat([right, wrong], dim=1) / tau).log_softmax(dim=1)[:, 0].mean()


def wrong_predictions(scores: Tensor, mask: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """CLS: the wrong labels that single modalities predict, or one random wrong label where all are right.

    Args:
        scores: ``[B, M, C]`` cosines of every token to every label; of one label none is wrong.
        mask: ``bool [B, M]`` present tokens.
        label: ``int64 [B]`` true label.
        generator: Source of the random wrong label.

    Returns:
        ``int64 [B, M + 1]`` label indices and ``bool [B, M + 1]`` which of them count.
    """
    predicted = scores.argmax(dim=-1)
    wrong = (predicted != label[:, None]) & mask
    count = scores.shape[-1]
    shift = torch.randint(1, max(count, 2), label.shape, generator=generator).to(label.device)
    chance = (label + shift) % count
    none = ~wrong.any(dim=1, keepdim=True) & (count > 1)
    return torch.cat([predicted, chance[:, None]], dim=1), torch.cat([wrong, none], dim=1)
