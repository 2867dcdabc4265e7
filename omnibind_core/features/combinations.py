"""Random combinations of embedded samples: what stage II trains on, and accuracy by the size of the combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core.data.scenes import CombinationSampler, GivenCombinations
from omnibind_core.fusion import Fusion, MeanFusion
from omnibind_core.labels import LabelBank


@dataclass(frozen=True)
class Draw:
    """A batch of combinations.

    Attributes:
        tokens: ``float32 [B, M, D]``, embeddings at present places, zeros elsewhere; one column per modality.
        mask: ``bool [B, M]``.
        label: ``int64 [B]``, true concept.
        kind: ``int64 [B, M]``, modality of each column as the fusions count them; None if they were not told.
    """

    tokens: Tensor
    mask: Tensor
    label: Tensor
    kind: Tensor | None = None

    def copy(self) -> Draw:
        """The same with tokens of its own."""
        return replace(self, tokens=self.tokens.clone())


class Embedded:
    """Embeddings of one split, ready to be combined.

    Args:
        embeddings: ``float32 [N, A, D]`` by modality; A variants of each sample.
        concept: ``int64 [N]`` by modality.
        text: ``float32 [N_t, D]`` embeddings of the sources' own words for the concepts; None leaves text out.
        text_concept: ``int64 [N_t]``.
        given: Combinations to draw from, with samples and texts numbered as above; None makes them on the fly.
        slots: All modalities of the model, in its config's order; needed by fusions with a part for each modality.
    """

    def __init__(
        self,
        embeddings: Mapping[str, Tensor],
        concept: Mapping[str, NDArray[np.int64]],
        text: Tensor | None = None,
        text_concept: NDArray[np.int64] | None = None,
        given: GivenCombinations | None = None,
        slots: Sequence[str] = (),
    ) -> None:
        self.modalities = tuple(embeddings)
        self.embeddings = dict(embeddings)
        self.given = given
        self.concept = dict(concept)
        self.sampler = CombinationSampler(concept)
        self.text = text
        columns = (*self.modalities, *([] if text is None else ["text"]))
        self._kind = torch.tensor([slots.index(name) for name in columns]) if slots else None
        self.words: dict[int, NDArray[np.int64]] = {}
        if text_concept is not None:
            self.words = {int(c): np.flatnonzero(text_concept == c) for c in np.unique(text_concept)}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of sensor modalities that a combination can have."""
        return self.sampler.sizes if self.given is None else self.given.sizes

    def draw(
        self,
        batch: int,
        rng: np.random.Generator,
        *,
        text: float = 0.0,
        size: int | None = None,
    ) -> Draw:
        """Draws combinations of samples of one concept each.

        Args:
            batch: Number of combinations B.
            rng: Source of randomness.
            text: Chance of a text token beside the sensors': any of the concept's words, or a given combination's own.
            size: Number of sensor modalities in every combination; None draws it too.
        """
        if self.given is None:
            rows, concept = self.sampler.draw(batch, rng, size=size)
        else:
            picked = self.given.pick(batch, rng, size)
            rows, concept = self.given.rows[picked].astype(np.int64), self.given.concept[picked]
        first = next(iter(self.embeddings.values()))
        columns = len(self.modalities) + (self.text is not None)
        tokens = first.new_zeros(batch, columns, first.shape[-1])
        mask = torch.zeros(batch, columns, dtype=torch.bool, device=first.device)
        for column, name in enumerate(self.modalities):
            present = np.flatnonzero(rows[:, column] >= 0)
            bank = self.embeddings[name]
            variant = rng.integers(bank.shape[1], size=len(present))
            tokens[present, column] = bank[rows[present, column], variant]
            mask[present, column] = True
        if self.text is not None:
            for row in np.flatnonzero(rng.random(batch) < text):
                if self.given is None:
                    words = self.words.get(int(concept[row]))
                    word = -1 if words is None else int(rng.choice(words))
                else:
                    word = int(self.given.text[picked[row]])
                if word >= 0:
                    tokens[row, -1] = self.text[word]
                    mask[row, -1] = True
        kind = None if self._kind is None else self._kind.to(first.device).expand(batch, -1)
        return Draw(tokens, mask, torch.from_numpy(concept).to(first.device), kind)


def with_lies(draw: Draw, chance: float, rng: np.random.Generator) -> Draw:
    """Lets one sensor in some combinations lie: its token becomes that of another combination with another label.

    Args:
        draw: Combinations; changed in place.
        chance: Of a lie, in combinations of two or more tokens.
        rng: Source of randomness.
    """
    count = len(draw.label)
    order = torch.from_numpy(rng.random(draw.mask.shape)).masked_fill(~draw.mask.cpu(), -1)
    column = order.argmax(dim=1).to(draw.mask.device)  # a random present token
    donor = torch.from_numpy(rng.permutation(count)).to(draw.mask.device)
    lying = torch.from_numpy(rng.random(count) < chance).to(draw.mask.device)
    lying &= (draw.mask.sum(dim=1) > 1) & draw.mask[donor, column] & (draw.label[donor] != draw.label)
    rows = lying.nonzero()[:, 0]
    draw.tokens[rows, column[rows]] = draw.tokens[donor[rows], column[rows]]
    return draw


def accuracy_by_size(
    embedded: Embedded, labels: LabelBank, fusion: Fusion, count: int, seed: int
) -> list[dict[str, Any]]:
    """Top-1 against the whole vocabulary for every size of combination that the data allow.

    Args:
        embedded: One split, without augmented variants.
        labels: The vocabulary.
        fusion: What is measured.
        count: Combinations per size.
        seed: Of the draws.

    Returns:
        One row per size: ``modalities``, ``n``, ``fused``, ``mean`` (mean fusion) and ``best_single`` (each combination
        answered by that of its modalities which is right most often at this size).
    """
    rows = []
    for size in embedded.sizes:
        draw = embedded.draw(count, np.random.default_rng((seed, size)), size=size)
        with torch.inference_mode():
            right = (labels.similarities(draw.tokens).argmax(-1) == draw.label[:, None]) & draw.mask
            share = right.sum(dim=0) / draw.mask.sum(dim=0).clamp(min=1)
            # The answer of the best modality that each combination has.
            best = share.expand_as(draw.mask).masked_fill(~draw.mask, -1).argmax(dim=1, keepdim=True)
            row: dict[str, Any] = {"modalities": size, "n": count}
            row["fused"] = round(top1(labels, fusion, draw), 4)
            row["mean"] = round(top1(labels, MeanFusion(), draw), 4)
            row["best_single"] = round(right.gather(1, best).float().mean().item(), 4)
        rows.append(row)
    return rows


def top1(labels: LabelBank, fusion: Fusion, draw: Draw) -> float:
    """Share of combinations whose fused embedding is nearest to the right label of the whole vocabulary."""
    with torch.inference_mode():
        scores = labels.similarities(fusion(draw.tokens, draw.mask, draw.kind).embedding)
        return (scores.argmax(-1) == draw.label).float().mean().item()
