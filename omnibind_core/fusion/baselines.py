"""What AF is compared with (paper Tables 3, 8 and 9), behind the same interface and trained by the same loss.

Mean and Linear take any set of tokens. Cat, OuterProduct and Unseen have a place ("slot") for each modality of the
model: several tokens of one modality are averaged there, and they have to be told the modality of each token.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.config import Config
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.fusion.attention import AttentionLayer, FusionConfig
from omnibind_core.fusion.base import Fused, Fusion, LeftOut, equal_shares, mix, summed
from omnibind_core.fusion.registry import register


class MeanConfig(Config):
    """Plain mean.

    Attributes:
        type: ``"mean"``.
    """

    type: Literal["mean"] = "mean"


class LinearConfig(Config):
    """A linear layer on the mean.

    Attributes:
        type: ``"linear"``.
    """

    type: Literal["linear"] = "linear"


class CatConfig(Config):
    """A linear layer on all slots side by side.

    Attributes:
        type: ``"cat"``.
    """

    type: Literal["cat"] = "cat"


class OuterProductConfig(Config):
    """Outer products of pairs of slots.

    Attributes:
        type: ``"outer_product"``.
        rank: Width to which each slot is projected before the products.
    """

    type: Literal["outer_product"] = "outer_product"
    rank: int = Field(16, ge=1)


class UnseenConfig(Config):
    """Feature reorganisation. Its authors use width 256, 512 positions and 6 layers, for token sequences.

    Attributes:
        type: ``"unseen"``.
        width: Width of the common space.
        positions: Positions over which each modality's feature is spread.
        heads: Attention heads; divides the width.
        layers: Transformer layers of each modality's reorganisation, and again of the fusion.
        ffn: Width of the feed-forward blocks as a multiple of the width.
        branches: Class tokens, whose outputs are averaged.
    """

    type: Literal["unseen"] = "unseen"
    width: int = Field(128, ge=1)
    positions: int = Field(8, ge=1)
    heads: int = Field(4, ge=1)
    layers: int = Field(1, ge=1)
    ffn: int = Field(2, ge=1)
    branches: int = Field(2, ge=1)


class MeanFusion(Fusion):
    """The normalised mean of the present tokens: what fusion by hand does."""

    def fuse(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None) -> Fused:
        """See :meth:`omnibind_core.fusion.base.Fusion.fuse`."""
        weights = equal_shares(mask, tokens.dtype)
        return Fused(F.normalize(mix(weights, tokens), dim=-1), weights)

    def leave_one_out(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor, doubted: Tensor) -> LeftOut:
        """See :meth:`omnibind_core.fusion.base.Fusion.leave_one_out`."""
        return summed(equal_shares(mask, tokens.dtype), tokens)


class LinearFusion(Fusion):
    """A linear layer on the mean of the present tokens (paper Table 9, "Linear").

    Args:
        dim: Embedding width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def fuse(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None) -> Fused:
        """See :meth:`omnibind_core.fusion.base.Fusion.fuse`."""
        weights = equal_shares(mask, tokens.dtype)
        return Fused(F.normalize(self.linear(mix(weights, tokens)), dim=-1), weights)


class Slots(NamedTuple):
    """Sets of tokens, sorted by modality.

    Attributes:
        tokens: ``float32 [B, S, D]``, the mean of the tokens of each modality, zeros where there is none.
        present: ``bool [B, S]``.
    """

    tokens: Tensor
    present: Tensor


class SlotFusion(Fusion):
    """A fusion with a part for each modality. The share of every modality present is the same.

    Args:
        slots: Modalities of the model, in the order that ``modality_ids`` counts them.

    Raises:
        ConfigError: There are fewer than two.
    """

    def __init__(self, slots: Sequence[str]) -> None:
        super().__init__()
        if len(slots) < 2:
            raise ConfigError(f"this fusion.type needs the model's modalities, got {', '.join(slots) or 'none'}")
        self.slots = tuple(slots)

    def fuse(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None) -> Fused:
        """See :meth:`omnibind_core.fusion.base.Fusion.fuse`.

        Raises:
            InvalidInputError: ``modality_ids`` is missing.
        """
        if modality_ids is None:
            raise InvalidInputError(type(self).__name__, "no modality_ids", "the modality of each token, int64 [B, M]")
        member = (modality_ids[..., None] == torch.arange(len(self.slots), device=modality_ids.device)) & mask[
            ..., None
        ]
        present = member.any(dim=1)
        share = member.to(tokens.dtype) / member.sum(dim=1, keepdim=True).clamp(min=1)
        out = self.fuse_slots(Slots(torch.einsum("bms,bmd->bsd", share, tokens), present))
        weights = torch.einsum("bms,bs->bm", share, equal_shares(present, tokens.dtype))
        return Fused(F.normalize(out, dim=-1), weights)

    @abstractmethod
    def fuse_slots(self, slots: Slots) -> Tensor:
        """What a subclass defines: the fused embedding ``[B, D]``, of any length."""


class CatFusion(SlotFusion):
    """All slots side by side, absent ones zero, and a linear layer (paper Tables 8 and 9, "Cat").

    Args:
        dim: Embedding width D.
        slots: See :class:`SlotFusion`.
    """

    def __init__(self, dim: int, slots: Sequence[str]) -> None:
        super().__init__(slots)
        self.linear = nn.Linear(len(slots) * dim, dim)

    def fuse_slots(self, slots: Slots) -> Tensor:
        """See :meth:`SlotFusion.fuse_slots`."""
        out: Tensor = self.linear(slots.tokens.flatten(1))
        return out


class OuterProductFusion(SlotFusion):
    """Outer products of all pairs of slots, and a linear layer (paper Table 9, "OuterProduct").

    Every slot is projected to a low rank, zero if absent, with a 1 appended, so that the product with an absent slot
    leaves the other one (tensor fusion, Zadeh et al. 2017). The product of all slots at once would be too wide.

    Args:
        dim: Embedding width D.
        slots: See :class:`SlotFusion`.
        config: Sizes.
    """

    def __init__(self, dim: int, slots: Sequence[str], config: OuterProductConfig) -> None:
        super().__init__(slots)
        count = len(slots)
        self.down = nn.ModuleList(nn.Linear(dim, config.rank) for _ in slots)
        self.pairs = tuple(itertools.combinations(range(count), 2))
        self.up = nn.Linear(len(self.pairs) * (config.rank + 1) ** 2, dim)

    def fuse_slots(self, slots: Slots) -> Tensor:
        """See :meth:`SlotFusion.fuse_slots`."""
        low = torch.stack([down(row) for down, row in zip(self.down, slots.tokens.unbind(1), strict=True)], dim=1)
        low = F.pad(low.masked_fill(~slots.present[..., None], 0.0), (0, 1), value=1.0)
        first, second = zip(*self.pairs, strict=True)
        products = torch.einsum("bpi,bpj->bpij", low[:, list(first)], low[:, list(second)])
        out: Tensor = self.up(products.flatten(1))
        return out


class UnseenFusion(SlotFusion):
    """Feature reorganisation (Zhang et al. 2023, "Learning Unseen Modality Interaction"; paper Table 3, "Unseen").

    Each modality's feature goes to a common space and through a transformer of its own; learned scores then spread it
    over a number of positions that all modalities share, where the features of the present modalities are added up. A
    second transformer reads the sum with class tokens, whose outputs are averaged. The original works on sequences;
    here, as the paper must have done, every modality is a sequence of one embedding. Its classifiers and losses of its
    own (pseudo-labels of single modalities, prototypes) give way to the loss that all fusions here share.

    Args:
        dim: Embedding width D.
        slots: See :class:`SlotFusion`.
        config: Sizes.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(self, dim: int, slots: Sequence[str], config: UnseenConfig) -> None:
        super().__init__(slots)
        if config.width % config.heads:
            raise ConfigError(f"fusion.heads is {config.heads}, expected a divisor of fusion.width {config.width}")
        self.spread = nn.ModuleList(_Reorganisation(dim, config) for _ in slots)
        self.place = nn.Parameter(0.02 * torch.randn(config.positions, config.width))
        self.readers = nn.Parameter(0.02 * torch.randn(config.branches, config.width))
        self.transformer = _transformer(config)
        self.norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, dim)

    def fuse_slots(self, slots: Slots) -> Tensor:
        """See :meth:`SlotFusion.fuse_slots`."""
        total = self.place.expand(len(slots.tokens), -1, -1)
        for column, spread in enumerate(self.spread):
            rows = slots.present[:, column].nonzero()[:, 0]
            total = total.index_add(0, rows, spread(slots.tokens[rows, column]))
        readers = self.readers.expand(len(total), -1, -1)
        hidden = _run(self.transformer, torch.cat([readers, total], dim=1))
        out: Tensor = self.up(self.norm(hidden[:, : readers.shape[1]])).mean(dim=1)
        return out


class _Reorganisation(nn.Module):
    """One modality's embedding ``[B, D]`` to features at the common positions ``[B, P, W]``."""

    def __init__(self, dim: int, config: UnseenConfig) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, config.width), nn.LayerNorm(config.width))
        self.place = nn.Parameter(0.02 * torch.randn(1, config.width))
        self.transformer = _transformer(config)
        self.scores = nn.Linear(config.width, config.positions)

    def forward(self, tokens: Tensor) -> Tensor:
        feature = self.project(tokens)[:, None]
        scores = self.scores(_run(self.transformer, feature + self.place)).softmax(dim=-1)
        return torch.einsum("btp,btw->bpw", scores, feature)


def _transformer(config: UnseenConfig) -> nn.ModuleList:
    settings = FusionConfig(type="attention", heads=config.heads, residual=True, norm=True, ffn=config.ffn)
    layers = nn.ModuleList(AttentionLayer(config.width, settings) for _ in range(config.layers))
    for weight in layers.parameters():
        if weight.ndim == 2:  # AF starts as the identity, an ordinary transformer does not
            nn.init.xavier_uniform_(weight)
    return layers


def _run(layers: nn.ModuleList, hidden: Tensor) -> Tensor:
    for layer in layers:
        hidden, _ = layer(hidden)
    return hidden


@register("mean", "Mean", MeanConfig, learns=False)
def _mean(dim: int, config: MeanConfig, slots: Sequence[str]) -> Fusion:
    return MeanFusion()


@register("linear", "Linear", LinearConfig)
def _linear(dim: int, config: LinearConfig, slots: Sequence[str]) -> Fusion:
    return LinearFusion(dim)


@register("unseen", "Unseen", UnseenConfig)
def _unseen(dim: int, config: UnseenConfig, slots: Sequence[str]) -> Fusion:
    return UnseenFusion(dim, slots, config)


@register("cat", "Cat", CatConfig)
def _cat(dim: int, config: CatConfig, slots: Sequence[str]) -> Fusion:
    return CatFusion(dim, slots)


@register("outer_product", "OuterProduct", OuterProductConfig)
def _outer_product(dim: int, config: OuterProductConfig, slots: Sequence[str]) -> Fusion:
    return OuterProductFusion(dim, slots, config)
