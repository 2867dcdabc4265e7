"""The interface that AF and the fusions it is compared with have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_ENTRIES = 2**22
"""Numbers of tokens and of one head's attention that a batch of masks may have at a time: 16 MB."""


class Fused(NamedTuple):
    """Result of a fusion.

    Attributes:
        embedding: ``float32 [B, D]``, unit length.
        weights: ``float32 [B, M]``, share of each token in the embedding; each row sums to 1, absent tokens have 0.
        familiarity: ``float32 [B, M]``, see :class:`omnibind_core.fusion.familiarity.Familiarity`; NaN where it is not
            known or no token is. None for fusions that have none.
    """

    embedding: Tensor
    weights: Tensor
    familiarity: Tensor | None = None


class LeftOut(NamedTuple):
    """A set of ``n`` tokens fused as a whole, row 0, and then without each of them.

    Attributes:
        embedding: ``float32 [1 + n, D]``, unit length.
        weights: ``float32 [1 + n, n]``, as of :class:`Fused`.
        familiarity: ``float32 [1 + n, n]`` or None, as of :class:`Fused`.
        parts: ``float32 [1 + n, n]``, how much of each token the embeddings are the sum of, which therefore hold for
            cosines as well; None if they are more than such a sum.
    """

    embedding: Tensor
    weights: Tensor
    familiarity: Tensor | None = None
    parts: Tensor | None = None


class Fusion(nn.Module):
    """A fusion: any set of tokens to one unified embedding. The set has no order and no fixed size.

    Attributes:
        gains: Few numbers that are fitted once more on held-out samples after stage II; None for none.
    """

    gains: nn.Parameter | None = None

    def forward(
        self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None = None, doubted: Tensor | None = None
    ) -> Fused:
        """Fuses sets of tokens.

        In eval mode padding is cut away first, so a padded batch gives exactly what the unpadded one gives.

        Args:
            tokens: ``float32 [B, M, D]``, unit length; what stands at absent places does not matter, not even NaN.
            mask: ``bool [B, M]``, True where a token is present; at least one in each row.
            modality_ids: ``int64 [B, M]`` modality of each token, an index into the model config's modalities. Mean,
                Linear and AF without ``centres`` do not need it.
            doubted: ``bool [B, M]``, True where a token is of an implausible reading: AF with ``centres`` takes it for
                the least familiar. None if none is.
        """
        if self.training:
            # Absent places may hold anything, even NaN, which an attention weight of zero would not remove.
            return self._fused(tokens.masked_fill(~mask[..., None], 0.0), mask, modality_ids, doubted)
        order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(dim=1).max())]
        mask = mask.gather(1, order)
        packed = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[-1])).masked_fill(~mask[..., None], 0.0)
        ids, doubted = (None if rows is None else rows.gather(1, order) for rows in (modality_ids, doubted))
        fused = self._fused(packed, mask, ids, doubted)

        def placed(rows: Tensor, absent: float) -> Tensor:
            return rows.new_full(tokens.shape[:2], absent).scatter(1, order, rows)

        familiarity = None if fused.familiarity is None else placed(fused.familiarity, torch.nan)
        return Fused(fused.embedding, placed(fused.weights, 0.0), familiarity)

    def _fused(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None, doubted: Tensor | None) -> Fused:
        if doubted is None:
            return self.fuse(tokens, mask, modality_ids)
        return self.fuse_doubted(tokens, mask, modality_ids, doubted)

    def leave_one_out(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor, doubted: Tensor) -> LeftOut:
        """Fuses one set of tokens, and the same without each of them.

        Made for eval mode: as :meth:`forward` gives it for a batch of masks, but that no padding is cut away. A fusion
        whose embedding is a sum of its tokens has a shorter way.

        Args:
            tokens: ``float32 [n, D]``, unit length, finite.
            mask: ``bool [1 + n, n]`` of :func:`left_out`.
            modality_ids: ``int64 [n]``, see :meth:`forward`.
            doubted: ``bool [n]``, see :meth:`forward`.
        """
        # Memory for some rows at a time; a trace has to hold for any number.
        rows, (count, dim) = mask.shape[0], tokens.shape
        traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
        step = rows if traced else max(1, _ENTRIES // (count * (dim + count)))
        fused = []
        for start in range(0, rows, step):
            some = mask[start : start + step]
            shown = tokens.expand(some.shape[0], -1, -1).masked_fill(~some[..., None], 0.0)
            ids, doubts = (row.expand(some.shape[0], -1) for row in (modality_ids, doubted))
            fused.append(self.fuse_doubted(shown, some, ids, doubts))
        embedding, weights, familiarity = zip(*fused, strict=True)
        return LeftOut(
            torch.cat(embedding), torch.cat(weights), None if familiarity[0] is None else torch.cat(familiarity)
        )

    def extend(self, slots: int) -> None:
        """Makes room for so many modalities, in place; nothing to do for a fusion that does not know their number."""

    def learn(self, slot: int, train: Tensor, held_out: Tensor, seed: int) -> None:
        """Learns what tokens of one modality are like; see :meth:`omnibind_core.fusion.familiarity.Familiarity.learn`.

        Nothing to do for a fusion that does not ask for it.
        """

    def add(self, slot: int, tokens: Tensor) -> dict[str, Any]:
        """Makes further tokens ``[N, D]`` of one modality familiar, in place.

        Returns:
            What changes in the ``fusion`` part of the model config; nothing for a fusion that does not ask for it.
        """
        return {}

    @abstractmethod
    def fuse(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None) -> Fused:
        """What a fusion defines: as :meth:`forward`, with zeros at absent places."""

    def fuse_doubted(self, tokens: Tensor, mask: Tensor, modality_ids: Tensor | None, doubted: Tensor) -> Fused:
        """As :meth:`fuse`, where some tokens are of implausible readings; ignored by a fusion without a use for it."""
        return self.fuse(tokens, mask, modality_ids)


def left_out(speaks: Tensor) -> Tensor:
    """Masks of a set of tokens, ``bool [1 + n, n]``: row 0 has all that speak, row ``1 + i`` the same without token i.

    Where nothing is left all are there, since nothing can be fused of none; whoever asks has to see to it.

    Args:
        speaks: ``bool [n]``, of each token, whether it takes part.
    """
    place = torch.arange(speaks.shape[0], device=speaks.device)
    mask = torch.cat([speaks[None], speaks & (place[:, None] != place)])
    return mask | ~mask.any(dim=1, keepdim=True)


def sums_left_out(rows: Tensor, mask: Tensor) -> Tensor:
    """``mask @ rows``, ``[1 + n, K]``, for a mask of :func:`left_out` and rows ``[n, K]``, in one pass."""
    own = rows * mask[0, :, None]
    total = own.sum(dim=0, keepdim=True)
    return torch.where(mask.all(dim=1, keepdim=True), rows.sum(dim=0), torch.cat([total, total - own]))


def summed(weights: Tensor, tokens: Tensor, familiarity: Tensor | None = None) -> LeftOut:
    """What a fusion leaves whose embeddings are sums of the tokens ``[n, D]``, by weights ``[1 + n, n]``."""
    total = weights @ tokens
    length = total.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return LeftOut(total / length, weights, familiarity, weights / length)


def equal_shares(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """``[B, M]``: the same share for every present token of a row, 0 for absent ones."""
    return mask.to(dtype) / mask.sum(dim=1, keepdim=True)


def mix(weights: Tensor, rows: Tensor) -> Tensor:
    """Sums ``[B, M, D]`` rows, weighted by ``[B, M]``, to ``[B, D]``."""
    return (weights.unsqueeze(1) @ rows).squeeze(1)


class Evidence(NamedTuple):
    """What speaks for the answer of a fusion, beside its confidence.

    Attributes:
        familiarity: ``float32 [B]``, mean of the tokens' familiarities, weighted as the tokens are; 0 where unknown.
        agreement: ``float32 [B]``, mean cosine of two tokens; 0 of one alone.
    """

    familiarity: Tensor
    agreement: Tensor


def evidence(fused: Fused, tokens: Tensor, mask: Tensor) -> Evidence:
    """The evidence of a fusion of sets of tokens ``[B, M, D]``, present where ``mask``, ``bool [B, M]``, says so."""
    shown = tokens.masked_fill(~mask[..., None], 0.0)
    count = mask.sum(dim=1).to(tokens.dtype)
    return _evidence(fused, shown.sum(dim=1), shown.square().sum(dim=(1, 2)), count)


def evidence_left_out(fused: LeftOut, tokens: Tensor, mask: Tensor) -> Evidence:
    """The same of one set of tokens ``[n, D]``, and without each, by the mask of :func:`left_out`."""
    squares = tokens.square().sum(dim=1, keepdim=True)
    total = sums_left_out(torch.cat([tokens, squares, torch.ones_like(squares)], dim=1), mask)
    return _evidence(fused, total[:, :-2], total[:, -2], total[:, -1])


def _evidence(fused: Fused | LeftOut, total: Tensor, squares: Tensor, count: Tensor) -> Evidence:
    """By the sum of the tokens of each set, ``[B, D]``, of their squared lengths, and their number, both ``[B]``."""
    weights = fused.weights
    familiar = torch.zeros_like(weights) if fused.familiarity is None else fused.familiarity.nan_to_num(0.0)
    agreement = (total.square().sum(dim=1) - squares) / (count * (count - 1)).clamp(min=1)
    return Evidence((weights * familiar).sum(dim=1), agreement)
