"""How cosines become probabilities: temperatures, and how certain an answer is for the evidence that there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from omnibind_core.config import Config
from omnibind_core.fusion.base import Evidence

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
        temperature = cosines.new_tensor([self.temperature(names) for names in sets])
        found = (cosines / temperature[:, None]).softmax(dim=-1)
        if evidence is None:
            return found
        # All rows at once, each with its own numbers: this is a part of every tick.
        certain = [self._certainty(names) for names in sets]
        if not any(certain):
            return found
        top = found.amax(dim=-1)
        weights = top.new_tensor([(0.0,) * 4 if one is None else one.weights for one in certain])
        confidence = torch.sigmoid((certainty_inputs(top, evidence) * weights).sum(dim=1))
        known = torch.tensor([one is not None for one in certain], device=top.device)
        return _with_confidence(found, torch.where(known, confidence, top))

    def _certainty(self, modalities: Sequence[str]) -> Certainty | None:
        """Of tokens of these modalities, fused; None takes the probabilities as they are."""
        if len(modalities) == 1:
            return self.certainty_single.get(modalities[0])
        return self.certainty[min(len(modalities) - 1, len(self.certainty)) - 1] if self.certainty else None


def _with_confidence(probabilities: Tensor, confidence: Tensor) -> Tensor:
    """Probabilities ``[B, C]`` in the same order of labels, the largest of which is the confidence, ``[B]``.

    What is taken from the largest goes to all labels alike; what it gains, the others lose by the same share.
    """
    labels = probabilities.shape[-1]
    top, place = probabilities.max(dim=-1, keepdim=True)
    wanted = confidence[:, None].clamp(min=1 / labels)
    keep = ((wanted - 1 / labels) / (top - 1 / labels).clamp(min=1e-9)).clamp(max=1)
    lower = keep * probabilities + (1 - keep) / labels
    higher = (probabilities * (1 - wanted) / (1 - top).clamp(min=1e-9)).scatter(-1, place, wanted)
    return torch.where(wanted > top, higher, lower)
