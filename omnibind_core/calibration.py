"""How cosines become probabilities: temperatures, and how certain an answer is for the evidence that there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from omnibind_core.config import Config
from omnibind_core.fusion.base import Evidence

# That nothing of a vocabulary of the user's fits: how much a label of the model counts beside those of the vocabulary.
# docs/own_labels.md has the trial that chose it.
_NOTHING = 3e-5
_EDGE = 1e-4  # least distance of a confidence from 0 and 1 whose logit is taken


class Certainty(Config):
    """How certain an answer is: the logit of the chance that it is right.

    ``bias + slope logit(p) + familiarity f + agreement a``, for the probability ``p`` of the answer after the
    temperature, the familiarity ``f`` and the agreement ``a`` of :class:`~omnibind_core.fusion.base.Evidence`: Platt
    scaling (Platt 1999), with what tells a sensor that the model was not trained with. It never falls with any of them.

    Attributes:
        bias: See above, as all others.
        slope: Of the logit of the probability.
        familiarity: Of the familiarity.
        agreement: Of the agreement.
    """

    bias: float = 0.0
    slope: float = Field(1.0, ge=0)
    familiarity: float = Field(0.0, ge=0)
    agreement: float = Field(0.0, ge=0)

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """The four numbers, in the order of :func:`certainty_inputs`."""
        return self.bias, self.slope, self.familiarity, self.agreement


def certainty_inputs(probability: Tensor, evidence: Evidence) -> Tensor:
    """What the numbers of a :class:`Certainty` weigh, ``[B, 4]``, for the probabilities ``[B]`` of the answers."""
    logit = torch.logit(probability.clamp(_EDGE, 1 - _EDGE))
    return torch.stack([torch.ones_like(logit), logit, *evidence], dim=1)


class Calibration(Config):
    """How cosines become probabilities; fitted on validation data at the end of stage II.

    Attributes:
        temperatures: Divide the cosines of the fused embedding before the softmax: of one, two, ... tokens; the last
            one holds for more.
        single: By modality, the same for the embedding of one token alone, instead of the first of these.
        certainty: How certain the answer then is: of two, three, ... tokens; the last one holds for more. Empty takes
            the probabilities as they are.
        certainty_single: By modality, the same of one token alone; of a modality that is not here, its probabilities
            are taken as they are.
        threshold: Confidence below which a prediction is unknown, 0..1.
    """

    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.05,), min_length=1)
    single: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    certainty: tuple[Certainty, ...] = ()
    certainty_single: dict[str, Certainty] = Field(default_factory=dict)
    threshold: float = Field(0.0, ge=0, le=1)

    def temperature(self, modalities: Sequence[str]) -> float:
        """Of the embedding of tokens of these modalities, at least one, fused."""
        if len(modalities) == 1:
            return self.single.get(modalities[0], self.temperatures[0])
        return self.temperatures[min(len(modalities), len(self.temperatures)) - 1]

    def probabilities(self, cosines: Tensor, sets: Sequence[Sequence[str]], evidence: Evidence | None = None) -> Tensor:
        """Probabilities of the labels.

        Args:
            cosines: ``float32 [B, C]``, of embeddings to the labels.
            sets: Modalities of the tokens, at least one, that each was fused from.
            evidence: Of each; None takes the probabilities after the temperature.

        Returns:
            ``float32 [B, C]``, rows sum to 1.
        """
        slots = tuple(dict.fromkeys(name for names in sets for name in names))
        place = {name: index for index, name in enumerate(slots)}
        count = torch.tensor([len(names) for names in sets], dtype=torch.int64, device=cosines.device)
        first = torch.tensor([place[names[0]] for names in sets], dtype=torch.int64, device=cosines.device)
        found: Tensor = Calibrator(self, slots).to(cosines.device)(cosines, count, first, evidence)
        return found


class Calibrator(nn.Module):
    """A calibration as a network of tensors alone, which another engine can run.

    Args:
        calibration: The numbers.
        slots: Modalities, in the order that they are counted in.
    """

    temperatures: Tensor
    single: Tensor
    certainty: Tensor
    certainty_single: Tensor

    def __init__(self, calibration: Calibration, slots: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("temperatures", torch.tensor(calibration.temperatures))
        self.register_buffer("single", torch.tensor([calibration.temperature([name]) for name in slots]))
        self.register_buffer("certainty", _table(calibration.certainty or (None,)))
        self.register_buffer("certainty_single", _table([calibration.certainty_single.get(name) for name in slots]))

    def forward(
        self,
        cosines: Tensor,
        count: Tensor,
        modality_ids: Tensor,
        evidence: Evidence | None = None,
        others: Tensor | None = None,
        silent: Tensor | None = None,
    ) -> Tensor:
        """Probabilities of the labels.

        Args:
            cosines: ``float32 [B, C]``, of embeddings to the labels.
            count: ``int64 [B]``, of tokens that each was fused from, at least one.
            modality_ids: ``int64 [B]``, modality of the token where it is one.
            evidence: Of each; None takes the probabilities after the temperature.
            others: ``float32 [B]``, greatest cosine to what the model knows beside these labels; None if that is
                nothing. Probabilities are lowered by the chance that it fits better.
            silent: ``bool [B]``, of what nothing is said: all labels are as probable; None if something is of each.

        Returns:
            ``float32 [B, C]``; rows sum to 1, or less with ``others``.
        """
        temperature = _looked_up(self.single, self.temperatures, count, modality_ids, 1)[:, None]
        # After the softmax all is one scale and one shift for each row, in place: there may be many labels.
        found = (cosines / temperature).softmax(dim=-1)
        place = cosines.argmax(dim=-1, keepdim=True)
        top = found.gather(-1, place)
        wanted = top
        if evidence is not None:
            row = _looked_up(self.certainty_single, self.certainty, count, modality_ids, 2)
            confidence = torch.sigmoid((certainty_inputs(top[:, 0], evidence) * row[:, 1:]).sum(dim=1))
            wanted = torch.where(row[:, 0] > 0, confidence, top[:, 0])[:, None]
        chance = 1.0 / cosines.shape[-1]
        wanted = wanted.clamp(min=chance)
        # What is taken from the most probable label goes to all alike; what it gains, the others lose by one share.
        keep = ((wanted - chance) / (top - chance).clamp(min=1e-9)).clamp(max=1)
        higher = wanted > top
        scale = torch.where(higher, (1 - wanted) / (1 - top).clamp(min=1e-9), keep)
        shift = torch.where(higher, torch.zeros_like(keep), (1 - keep) * chance)
        wanted = torch.where(higher, wanted, top * scale + shift)
        if others is not None:
            said = cosines.gather(-1, place) / temperature - top.log()
            fits = torch.sigmoid(said - others[:, None] / temperature - math.log(_NOTHING))
            scale, shift, wanted = scale * fits, shift * fits, wanted * fits
        if silent is not None:
            scale = scale.masked_fill(silent[:, None], 0.0)
            shift, wanted = (torch.where(silent[:, None], chance, numbers) for numbers in (shift, wanted))
        return found.mul_(scale).add_(shift).scatter_(-1, place, wanted)


def _table(rows: Sequence[Certainty | None]) -> Tensor:
    """``float32 [K, 5]``: whether there is one, and its four numbers."""
    return torch.tensor([(0.0,) * 5 if row is None else (1.0, *row.weights) for row in rows])


def _looked_up(single: Tensor, several: Tensor, count: Tensor, modality_ids: Tensor, least: int) -> Tensor:
    """Rows of tables: of one token by its modality, of more by their number, counted from ``least``."""
    alone = count == 1
    by_count = several[(count - least).clamp(min=0, max=several.shape[0] - 1)]
    return torch.where(alone if several.ndim == 1 else alone[:, None], single[modality_ids], by_count)
