"""Stage II, Adaptive Fusion (AF): any set of present modalities to one unified embedding (paper Sec. 3.3, Eq. 9).

Absent modalities are masked, never filled with zeros. The set has no order and no fixed size, and several sensors of
one modality are several tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.config import Config
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.fusion.base import Fused, Fusion, LeftOut, equal_shares, mix, summed, sums_left_out
from omnibind_core.fusion.familiarity import LEAST, Familiarity
from omnibind_core.fusion.registry import register

PRESETS: dict[str, dict[str, Any]] = {
    # The listing of App. B: self-attention over the tokens, mean, L2 norm; nothing else.
    "paper": {"layers": 1, "residual": False, "norm": False, "ffn": 0},
    # Starts as plain mean fusion and learns the difference.
    "residual": {"layers": 1, "residual": True, "norm": True, "ffn": 0},
    # A mean of the tokens themselves, weighted by how much each can be trusted.
    "reliability": {"layers": 0, "pool": "reliability"},
    # The same, which also asks what the encoders were trained with, and what the other tokens say.
    "familiarity": {"layers": 0, "pool": "reliability", "centres": 64, "agreement": True},
}


class FusionConfig(Config):
    """Architecture of AF. The paper leaves the number of heads open; eight is ours.

    Attributes:
        type: ``"attention"``; other types are other fusions (:mod:`omnibind_core.fusion.registry`).
        heads: Attention heads; divides the embedding width.
        layers: Attention layers; 0 leaves the tokens as they are.
        residual: Adds the layer's input to its output; the layer then starts as the identity.
        norm: LayerNorm before attention and feed-forward.
        ffn: Width of the feed-forward block as a multiple of the embedding width; 0 for none.
        pool: ``"mean"`` as in the paper, or ``"reliability"``: each token counts as much as a small network trusts it.
        hidden: Width of that network.
        dropout: On its first layer, so that it does not learn labels by heart.
        centres: Of the training tokens of each modality, near to which a token is familiar; 0 does not ask for it.
        agreement: Whether a token counts more that is like the others.
    """

    type: str = Field("attention", pattern="^attention$")
    heads: int = Field(8, ge=1)
    layers: int = Field(1, ge=0)
    residual: bool = False
    norm: bool = False
    ffn: int = Field(0, ge=0)
    pool: Literal["mean", "reliability"] = "mean"
    hidden: int = Field(32, ge=1)
    dropout: float = Field(0.7, ge=0, lt=1)
    centres: int = Field(0, ge=0)
    agreement: bool = False


class AdaptiveFusion(Fusion):
    """Self-attention over the present tokens, masked mean, L2 norm (paper Eq. 9 and App. B).

    The reported weights are the attention rollout (Abnar and Zuidema 2020): how much of each token flows into the mean.

    With ``pool: reliability`` the mean is weighted, and without attention layers the unified embedding lies between the
    tokens. What a token says is then never rewritten, so labels that no training combination had are recognised as
    well as by the plain mean (docs/experiments.md), while damaged sensors are left out.

    Args:
        dim: Embedding width D.
        config: Architecture.
        slots: Number of modalities of the model; needed for ``centres``.

    Raises:
        ConfigError: ``heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, config: FusionConfig, slots: int = 0) -> None:
        super().__init__()
        if dim % config.heads:
            raise ConfigError(f"fusion.heads is {config.heads}, expected a divisor of the embedding width {dim}")
        self.layers = nn.ModuleList(AttentionLayer(dim, config) for _ in range(config.layers))
        self.reliability = Reliability(dim, config, slots) if config.pool == "reliability" else None

    @property
    def gains(self) -> nn.Parameter | None:  # type: ignore[override]
        """See :class:`Fusion`: how much the network, familiarity and agreement count."""
        return None if self.reliability is None else self.reliability.gains

    def extend(self, slots: int) -> None:
        """See :meth:`Fusion.extend`."""
        if self.reliability is not None and self.reliability.familiarity is not None:
            self.reliability.familiarity.extend(slots)

    def learn(self, slot: int, train: Tensor, held_out: Tensor, seed: int) -> None:
        """See :meth:`Fusion.learn`."""
        if self.reliability is not None and self.reliability.familiarity is not None:
            self.reliability.familiarity.learn(slot, train, held_out, seed)

    def add(self, slot: int, tokens: Tensor) -> dict[str, Any]:
        """See :meth:`Fusion.add`."""
        if self.reliability is None or self.reliability.familiarity is None:
            return {}
        self.reliability.familiarity.add(slot, tokens)
        return {"centres": self.reliability.familiarity.centres.shape[1]}

    def fuse_doubted(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None, doubted: Tensor) -> Fused:
        """See :meth:`Fusion.fuse_doubted`."""
        return self.fuse(tokens, mask, modality_ids, doubted)

    def fuse(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None, doubted: Tensor | None = None) -> Fused:
        """See :meth:`Fusion.fuse`; the modalities are looked at for ``centres`` only.

        Raises:
            InvalidInputError: There are ``centres``, and ``modality_ids`` is missing.
        """
        flow = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
        hidden = tokens
        for layer in self.layers:
            hidden, attention = layer(hidden, mask)
            flow = attention @ flow
        if self.reliability is None:
            shares, familiarity = equal_shares(mask, tokens.dtype), None
        else:
            shares, familiarity = self.reliability(tokens, mask, modality_ids, doubted)
        return Fused(F.normalize(mix(shares, hidden), dim=-1), mix(shares, flow), familiarity)

    def leave_one_out(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor, doubted: Tensor) -> LeftOut:
        """See :meth:`Fusion.leave_one_out`."""
        if self.layers:
            return super().leave_one_out(tokens, mask, modality_ids, doubted)
        if self.reliability is None:
            return summed(equal_shares(mask, tokens.dtype), tokens)
        return summed(*self.reliability.leave_one_out(tokens, mask, modality_ids, doubted))


class Reliability(nn.Module):
    """How much each token can be trusted. Starts as equal shares.

    Noise, a covered lens or a dead sensor look the same whatever is in front of them: a small network sees them in the
    token alone. It knows nothing of sensors that it was not trained with; those are far from the ``centres``. That a
    sensor shows something else than the others is seen in neither, but in how like their tokens are.

    Args:
        dim: Embedding width D.
        config: Its ``hidden``, ``dropout``, ``centres`` and ``agreement``.
        slots: Number of modalities of the model.
    """

    def __init__(self, dim: int, config: FusionConfig, slots: int = 0) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, 1, bias=False),  # shares do not change if all scores do
        )
        last = self.score[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        self.familiarity = Familiarity(slots, config.centres, dim) if config.centres else None
        self.agreement = config.agreement
        # Of the network, the familiarity and the agreement; the last two stay 0 where they are not asked for.
        self.gains = nn.Parameter(torch.tensor([1.0, 0.0, 0.0])) if config.centres or config.agreement else None

    def forward(
        self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None, doubted: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Shares ``float32 [B, M]`` of the tokens ``[B, M, D]``, and their familiarity.

        Each row of the shares sums to 1, absent tokens have 0. The familiarity is None where it is not asked for, and
        NaN where it is not known or no token is.
        """
        scores, familiarity = self._alone(tokens, modality_ids, doubted)
        if self.gains is not None and self.agreement:
            others = tokens.sum(dim=1, keepdim=True) - tokens  # absent tokens are zeros
            scores = scores + self._agreement((tokens * others).sum(dim=-1), mask.sum(dim=1, keepdim=True))
        return _shares(scores, familiarity, mask)

    def leave_one_out(
        self, tokens: Tensor, mask: Tensor, modality_ids: Tensor, doubted: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Shares of one set of tokens ``[n, D]``, and without each, ``float32 [1 + n, n]``; the tokens; familiarity.

        Each token is looked at once, and each pair: without a token, the others lack its part of their agreement.
        """
        scores, familiarity = self._alone(tokens, modality_ids, doubted)
        if self.gains is not None and self.agreement:
            pairs = tokens @ tokens.T
            total = sums_left_out(torch.cat([pairs, torch.ones_like(pairs[:, :1])], dim=1), mask)
            scores = scores + self._agreement(total[:, :-1] - pairs.diagonal(), total[:, -1:])
        rows = None if familiarity is None else familiarity.expand(mask.shape)
        weights, rows = _shares(scores.expand(mask.shape), rows, mask)
        return weights, tokens, rows

    def _alone(
        self, tokens: Tensor, modality_ids: Tensor | None, doubted: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What speaks for each token ``[..., D]`` by itself, and its familiarity."""
        scores: Tensor = self.score(tokens).squeeze(-1)
        if self.gains is None:
            return scores, None
        scores = self.gains[0] * scores
        if self.familiarity is None:
            return scores, None
        if modality_ids is None:
            raise InvalidInputError("AF with centres", "no modality_ids", "the modality of each token, int64 [B, M]")
        familiarity: Tensor = self.familiarity(tokens, modality_ids)
        if doubted is not None:
            familiarity = familiarity.masked_fill(doubted, LEAST)
        return scores + self.gains[1] * familiarity.nan_to_num(0.0), familiarity

    def _agreement(self, cosines: Tensor, count: Tensor) -> Tensor:
        """What speaks for tokens because of the others, by the sum of cosines to them, ``[B, M]``, of ``count``."""
        assert self.gains is not None
        return self.gains[2] * cosines / (count - 1).clamp(min=1)


def _shares(scores: Tensor, familiarity: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Shares of the present tokens ``[B, M]``, and their familiarity, by the scores of all."""
    known = None if familiarity is None else familiarity.masked_fill(~mask, torch.nan)
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1), known


class AttentionLayer(nn.Module):
    """One masked multi-head self-attention, with optional pre-LayerNorm, residual and feed-forward."""

    def __init__(self, dim: int, config: FusionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.residual = config.residual
        self.norm = nn.LayerNorm(dim) if config.norm else nn.Identity()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)
        if config.residual:
            nn.init.zeros_(self.out.weight)
        self.ffn: nn.Module | None = None
        if config.ffn:
            last = nn.Linear(config.ffn * dim, dim)
            if config.residual:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            norm = nn.LayerNorm(dim) if config.norm else nn.Identity()
            self.ffn = nn.Sequential(norm, nn.Linear(dim, config.ffn * dim), nn.GELU(), last)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the new tokens ``[B, M, D]`` and how they mix the old ones, ``[B, M, M]``, rows summing to 1.

        Args:
            tokens: ``float32 [B, M, D]``.
            mask: ``bool [B, M]``, True where a token is present; None if all are.
        """
        batch, count, dim = tokens.shape
        q, k, v = (
            self._on_present(nn.Sequential(self.norm, self.qkv), tokens, mask)
            .view(batch, count, 3, self.heads, dim // self.heads)
            .unbind(dim=2)
        )
        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(dim // self.heads)
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None, :], float("-inf"))
        attention = logits.softmax(dim=-1)
        mixed = self._on_present(
            self.out, torch.einsum("bhqk,bkhd->bqhd", attention, v).reshape(batch, count, dim), mask
        )
        flow = attention.mean(dim=1)
        if self.residual:
            mixed = tokens + mixed
            flow = (flow + torch.eye(count, dtype=flow.dtype, device=flow.device)) / 2
        if self.ffn is not None:
            after = self._on_present(self.ffn, mixed, mask)
            mixed = mixed + after if self.residual else after
        return mixed, flow

    def _on_present(self, layer: nn.Module, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Applies a layer to each token; in training to the present ones alone, which are a third of a batch."""
        if not self.training or mask is None:
            out: Tensor = layer(tokens)
            return out
        rows = layer(tokens[mask])
        return rows.new_zeros(*mask.shape, rows.shape[-1]).index_put((mask,), rows)


@register("attention", "AF", FusionConfig, presets=PRESETS)
def _attention(dim: int, config: FusionConfig, slots: Sequence[str]) -> Fusion:
    return AdaptiveFusion(dim, config, len(slots))
