"""How like a token is to those that its encoder made of the training samples."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST, MOST = -6.0, 1.0
"""Range of a familiarity."""
_ROUNDS = 10  # of k-means
_TAIL = 0.05  # share of held-out samples that are less familiar than -1


class Familiarity(nn.Module):
    """The familiarity of tokens: their cosine to the nearest of some centres of the training tokens of their modality.

    Every modality has a scale of its own: 0 is what half of held-out samples at home exceed, -1 what all but one in
    twenty do. Another camera, another place or a damaged sensor makes tokens that are far from all of them.

    Args:
        slots: Number of modalities of the model.
        centres: Of each modality.
        dim: Embedding width D.
    """

    NOT_FINITE: ClassVar = {"usual": math.nan}  # of what was never learnt

    centres: Tensor
    usual: Tensor
    spread: Tensor

    def __init__(self, slots: int, centres: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(slots, centres, dim))
        self.register_buffer("usual", torch.full((slots,), torch.nan))
        self.register_buffer("spread", torch.ones(slots))

    @torch.no_grad()
    def learn(self, slot: int, train: Tensor, held_out: Tensor, seed: int) -> None:
        """Learns one modality.

        Args:
            slot: Its number.
            train: ``float32 [N, D]``, tokens of training samples, unit length; at least one.
            held_out: ``float32 [V, D]``, tokens of samples that its encoder was not trained with; at least one.
            seed: Of where the centres start.
        """
        centres = spherical_k_means(train, self.centres.shape[1], seed)
        nearest = (held_out @ centres.T).amax(dim=1)
        usual = nearest.median()
        self.centres[slot] = centres
        self.usual[slot] = usual
        self.spread[slot] = (usual - nearest.quantile(_TAIL)).clamp(min=1e-3)

    def extend(self, slots: int) -> None:
        """Makes room for so many modalities; further ones have to be learnt."""
        more = slots - len(self.usual)
        self.centres = torch.cat([self.centres, self.centres.new_zeros(more, *self.centres.shape[1:])])
        self.usual = torch.cat([self.usual, self.usual.new_full((more,), torch.nan)])
        self.spread = torch.cat([self.spread, self.spread.new_ones(more)])

    def add(self, slot: int, tokens: Tensor) -> None:
        """Makes further tokens ``[N, D]`` of one modality familiar, each as a centre of its own."""
        more = self.centres[:, :1].repeat(1, len(tokens), 1)  # further modalities get no new centre, but one twice
        more[slot] = tokens
        self.centres = torch.cat([self.centres, more], dim=1)

    def forward(self, tokens: Tensor, modality_ids: Tensor) -> Tensor:
        """Familiarity ``float32 [B, M]``, -6..1, of tokens ``[B, M, D]``; NaN of modalities that were never learnt."""
        slots, count, dim = self.centres.shape
        nearest = (tokens @ self.centres.reshape(slots * count, dim).T).unflatten(-1, (slots, count)).amax(dim=-1)
        own = nearest.gather(-1, modality_ids[..., None]).squeeze(-1)
        usual = self.usual[modality_ids]
        scaled = ((own - usual) / self.spread[modality_ids]).clamp(LEAST, MOST)
        return torch.where(usual.isnan(), usual, scaled)  # not every engine lets NaN through a clamp


def spherical_k_means(rows: Tensor, count: int, seed: int) -> Tensor:
    """Centres by cosine.

    Args:
        rows: ``float32 [N, D]``, unit length, at least one.
        count: Number of centres.
        seed: Of where they start.

    Returns:
        ``float32 [count, D]``, unit length; some are alike where there are fewer rows.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.device)
    centres = rows[order.repeat(-(-count // len(rows)))[:count]]
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(centres).index_add_(0, (rows @ centres.T).argmax(dim=1), rows)
        empty = sums.norm(dim=1, keepdim=True) < 1e-6
        centres = torch.where(empty, centres, F.normalize(sums, dim=1))
    return centres
