"""Recognition as one network of tensors alone: torch runs it, and so does any engine, without torch.

From the tokens of one moment to the answer: fusion of all and without each, familiarity, evidence, calibration, and the
rule of tokens that say nothing. Labels are an input, so that a vocabulary can be swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.calibration import Calibration, Calibrator
from omnibind_core.fusion import Evidence, Fusion, evidence_left_out, left_out, sums_left_out

INPUTS = ("tokens", "modality_ids", "speaks", "doubted", "labels", "others")
DYNAMIC = {
    **{name: {0: "tokens"} for name in INPUTS[:4]},
    "labels": {0: "labels"},
    "others": {0: "others"},
    "weights": {0: "tokens"},
    "similarities": {0: "rows", 1: "labels"},
    "probabilities": {0: "rows", 1: "labels"},
    "without": {0: "tokens", 1: "labels"},
    "familiarity": {0: "tokens"},
}
"""Axes that may have any size, by input and output, with their names."""
_NO_COSINE = -1e9


class Answer(NamedTuple):
    """What one set of ``n`` tokens was recognised as, as tensors; see :class:`omnibind_core.model.Recognition`."""

    embedding: Tensor
    weights: Tensor
    similarities: Tensor
    probabilities: Tensor
    without: Tensor
    familiarity: Tensor


OUTPUTS = Answer._fields


class Recogniser(nn.Module):
    """Fuses the tokens of one moment and classifies the result, what is left without each token, and every token alone.

    Args:
        fusion: The fusion, whose mode it takes.
        calibration: From cosines to probabilities.
        slots: Modalities of the model, in the order that ``modality_ids`` counts them.
    """

    def __init__(self, fusion: Fusion, calibration: Calibration, slots: Sequence[str]) -> None:
        super().__init__()
        self.fusion = fusion
        self.calibrator = Calibrator(calibration, slots)
        self.train(fusion.training)

    def forward(
        self, tokens: Tensor, modality_ids: Tensor, speaks: Tensor, doubted: Tensor, labels: Tensor, others: Tensor
    ) -> Answer:
        """The answer, by labels with one embedding each.

        Args:
            tokens: ``float32 [n, D]``, unit length, at least one.
            modality_ids: ``int64 [n]``, modality of each.
            speaks: ``bool [n]``, False where nothing can be said from a token.
            doubted: ``bool [n]``, True where its reading is implausible.
            labels: ``float32 [C, D]``, unit length, at least one.
            others: ``float32 [O, D]``, what the model knows beside these labels; none if they are its own.
        """
        return self.by_cosines(tokens, modality_ids, speaks, doubted, lambda rows: rows @ labels.T, others, True)

    def by_cosines(
        self,
        tokens: Tensor,
        modality_ids: Tensor,
        speaks: Tensor,
        doubted: Tensor,
        cosines: Callable[[Tensor], Tensor],
        others: Tensor,
        linear: bool = False,
    ) -> Answer:
        """The same by a function of embeddings ``[..., D]`` to cosines ``[..., C]``.

        A label of several rows, the nearest of which counts, is no input of :meth:`forward`: ONNX has no such
        scattering in the opset that is exported, so those stay in torch.

        Args:
            tokens: See :meth:`forward`, as all others.
            modality_ids: As above.
            speaks: As above.
            doubted: As above.
            cosines: The function.
            others: As above.
            linear: Whether cosines of a sum are the sum of the cosines.
        """
        mask = left_out(speaks)
        # What is not asked may hold anything, even NaN, which a weight of zero would not remove.
        tokens = tokens.masked_fill(~(speaks[:, None] | (tokens.abs() < torch.inf)), 0.0)
        fused = self.fusion.leave_one_out(tokens, mask, modality_ids, doubted)
        familiarity = tokens.new_full(tokens.shape[:1], torch.nan)
        if fused.familiarity is not None:
            familiarity = fused.familiarity[0]
        parts = None if fused.parts is None else _rows(fused.parts, _unit(modality_ids).to(tokens.dtype))

        def compared(cosines: Callable[[Tensor], Tensor], linear: bool) -> Tensor:
            if linear and parts is not None:
                return parts @ cosines(tokens)
            return cosines(_rows(fused.embedding, tokens))

        similarities = compared(cosines, linear)
        # Beside them stands one that nothing is like, since there need not be any.
        beside = torch.cat([others.new_zeros(1, others.shape[1]), others])
        never = torch.cat([others.new_full((1,), _NO_COSINE), torch.zeros_like(others[:, 0])])
        greatest = (compared(lambda rows: rows @ beside.T, True) + never).amax(dim=1)
        of_sets = evidence_left_out(fused, tokens, mask)
        evidence = Evidence(
            _rows(of_sets.familiarity, familiarity.nan_to_num(0.0)),
            _rows(of_sets.agreement, torch.zeros_like(familiarity)),
        )
        one = torch.ones_like(modality_ids)
        total = sums_left_out(torch.stack([one, modality_ids], dim=1), mask)
        counted, first = (_rows(sets, alone) for sets, alone in ((total[:, 0], one), (total[:, 1], modality_ids)))
        first = first * (counted == 1)  # asked of sets of one token only, whose modality this is
        left = speaks.sum() - torch.cat([torch.zeros_like(one[:1]), speaks.to(one.dtype)])
        silent = _rows(left == 0, ~speaks)
        probabilities = self.calibrator(similarities, counted, first, evidence, greatest, silent)
        count = tokens.shape[0]
        return Answer(
            fused.embedding[0],
            fused.weights[0].masked_fill(silent[0], 0.0),
            similarities[: 1 + count],
            probabilities[: 1 + count],
            probabilities[1 + count :],
            familiarity,
        )


def _rows(sets: Tensor, alone: Tensor) -> Tensor:
    """In the order of all rows of an answer: the whole set, each token alone, and the sets without each."""
    return torch.cat([sets[:1], alone, sets[1:]])


def _unit(rows: Tensor) -> Tensor:
    """``bool [n, n]``, True on the diagonal; ONNX Runtime knows no unit matrix of any size."""
    place = torch.arange(rows.shape[0], device=rows.device)
    return place[:, None] == place


def samples(dim: int, slots: int, labels: Tensor, most: int = 12) -> Iterator[dict[str, Tensor]]:
    """Made-up inputs: sets of each size, with and without doubts, and with several vocabularies.

    Args:
        dim: Embedding width D.
        slots: Number of modalities.
        labels: ``float32 [C, D]``, unit length, at least one.
        most: Tokens of the largest set.
    """
    generator = torch.Generator().manual_seed(0)
    for count in range(most, 0, -1):  # traced with several tokens
        none_of_them = F.normalize(torch.randn(3 + count, dim, generator=generator), dim=-1)
        for vocabulary, others in ((labels, labels[:0]), (labels[: 1 + count], none_of_them)):
            speaks, doubted = (torch.rand(2, count, generator=generator) < torch.tensor([[0.8], [0.2]])).unbind()
            yield {
                "tokens": F.normalize(torch.randn(count, dim, generator=generator), dim=-1),
                "modality_ids": torch.randint(slots, (count,), generator=generator),
                "speaks": speaks,
                "doubted": doubted,
                "labels": vocabulary,
                "others": others,
            }
