"""Combinations of the samples of a split: drawn as numbers, gathered as the tokens that a fusion takes, and answered.

Stage II learns on them, its calibration is fitted on them, and every figure of an evaluation is measured on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations as subsets_of
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core.data.scenes import CombinationSampler, GivenCombinations
from omnibind_core.errors import DataError
from omnibind_core.features.sets import FeatureSet, embed_all
from omnibind_core.fusion import Fusion, MeanFusion
from omnibind_core.labels import LabelBank
from omnibind_core.model import OmniBind

Index = NDArray[np.int64]
TEXT = "text"


@dataclass(frozen=True)
class Combinations:
    """Combinations of samples that show one thing each.

    Attributes:
        columns: Modality of each column; one that occurs twice is two sensors of that modality.
        rows: ``int64 [B, M]`` numbers of samples, -1 where a modality is absent.
        label: ``int64 [B]``, number of the true label.
        variants: ``int64 [B, M]``, which variant of each sample; None for the samples themselves, which are variant 0.
    """

    columns: tuple[str, ...]
    rows: Index
    label: Index
    variants: Index | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``bool [B, M]``, where a modality is present."""
        found: NDArray[np.bool_] = self.rows >= 0
        return found

    @property
    def names(self) -> list[list[str]]:
        """Modalities of each combination."""
        return [[self.columns[int(column)] for column in np.flatnonzero(row)] for row in self.mask]

    def take(self, chosen: NDArray[np.generic]) -> Combinations:
        """Some of the combinations."""
        variants = None if self.variants is None else self.variants[chosen]
        return Combinations(self.columns, self.rows[chosen], self.label[chosen], variants)

    @classmethod
    def joined(cls, several: Sequence[Combinations]) -> Combinations:
        """All of several with the same columns, none of them with variants."""
        rows, label = np.concatenate([one.rows for one in several]), np.concatenate([one.label for one in several])
        return cls(several[0].columns, rows, label)

    def replaced(self, column: Index, row: Index) -> Combinations:
        """The same with one sample of each exchanged: in ``column[b]`` stands the sample ``row[b]``, or none for -1."""
        place = np.arange(len(self)), column
        rows, variants = self.rows.copy(), None if self.variants is None else self.variants.copy()
        rows[place] = row
        if variants is not None:
            variants[place] = 0
        return dataclasses.replace(self, rows=rows, variants=variants)


@dataclass(frozen=True)
class Split:
    """The samples of one split, from which combinations are drawn.

    Attributes:
        names: Labels, which the samples' concepts number.
        sets: Samples by modality.
        texts: ``int64 [N]``, number of the label that each of the sources' own words stands for; None without words.
        given: Combinations to draw from, with samples and words numbered as here; None makes them on the fly.
    """

    names: tuple[str, ...]
    sets: Mapping[str, FeatureSet]
    texts: Index | None = None
    given: GivenCombinations | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that there are samples of."""
        return tuple(self.sets)

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples by modality."""
        return {name: len(samples) for name, samples in self.sets.items()}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of sensor modalities that a combination can have."""
        return self._sampler.sizes if self.given is None else self.given.sizes

    def labels_of(self, names: Sequence[str]) -> Index:
        """Labels that have samples of all these modalities."""
        found = np.unique(self.sets[names[0]].concept)
        for name in names[1:]:
            found = np.intersect1d(found, self.sets[name].concept)
        return found

    def subsets(self, size: int) -> Iterator[tuple[str, ...]]:
        """All combinations of so many modalities that at least one label has."""
        for names in subsets_of(self.modalities, size):
            if len(self.labels_of(names)):
                yield names

    def single(self, name: str) -> Combinations:
        """All samples of one modality."""
        samples = self.sets[name]
        return Combinations((name,), np.arange(len(samples))[:, None], samples.concept)

    def draw(
        self,
        count: int,
        rng: np.random.Generator,
        size: int | None = None,
        *,
        text: float = 0.0,
        among: Mapping[str, Index] | None = None,
        having: str | None = None,
    ) -> Combinations:
        """Draws combinations: a label, then which of its modalities, then a variant of a sample of each.

        Args:
            count: Number of combinations.
            rng: Source of randomness.
            size: Number of sensor modalities in each; None draws it, too.
            text: Chance of words beside the sensors: any of the label's, or a given combination's own.
            among: By modality, the samples to draw from; None takes all.
            having: A modality that every combination has to have.

        Raises:
            DataError: No label has so many modalities.
        """
        picked = None
        if self.given is not None:
            picked = self.given.pick(count, rng, size)
            rows, label = self.given.rows[picked].astype(np.int64), self.given.concept[picked]
        elif among is None and having is None:
            rows, label = self._sampler.draw(count, rng, size=size)
        else:
            rows, label = self._draw_some(count, rng, size, among, having)
        variants = None
        if any(samples.variants > 1 for samples in self.sets.values()):
            variants = np.zeros_like(rows)
            for column, samples in enumerate(self.sets.values()):
                present = np.flatnonzero(rows[:, column] >= 0)
                variants[present, column] = rng.integers(samples.variants, size=len(present))
        if self.texts is None:
            return Combinations(self.modalities, rows, label, variants)
        words = np.full((count, 1), -1)
        for row in np.flatnonzero(rng.random(count) < text):
            if picked is not None and self.given is not None:
                words[row] = self.given.text[picked[row]]
            elif (own := self._words.get(int(label[row]))) is not None:
                words[row] = rng.choice(own)
        if variants is not None:
            variants = np.concatenate([variants, np.zeros_like(words)], axis=1)
        return Combinations((*self.modalities, TEXT), np.concatenate([rows, words], axis=1), label, variants)

    def draw_of(
        self, names: Sequence[str], count: int, rng: np.random.Generator, last: Index | None = None
    ) -> Combinations:
        """Draws combinations of exactly these modalities; named twice, it gives two different samples if it can.

        Args:
            names: Modality of each column.
            count: Number of combinations.
            rng: Source of randomness.
            last: Samples that the last column is drawn from; None takes all.

        Raises:
            DataError: No label has all of them.
        """
        labels = self.labels_of(names)
        if last is not None:
            labels = np.intersect1d(labels, self.sets[names[-1]].concept[last])
        if not len(labels):
            raise DataError(f"no label has samples of {', '.join(names)}")
        label = rng.choice(labels, size=count)
        rows = np.empty((count, len(names)), np.int64)
        for column, name in enumerate(names):
            pool = np.arange(len(self.sets[name])) if last is None or column < len(names) - 1 else last
            order = pool[np.argsort(self.sets[name].concept[pool], kind="stable")]
            concept = self.sets[name].concept[order]
            start, end = np.searchsorted(concept, label), np.searchsorted(concept, label, side="right")
            place = (rng.random(count) * (end - start)).astype(np.int64)
            rows[:, column] = order[start + place]
            if name in names[:column]:
                same = rows[:, column] == rows[:, names.index(name)]
                rows[same, column] = order[start + (place + 1) % (end - start)][same]
        return Combinations(tuple(names), rows, label)

    def others(self, combinations: Combinations, column: Index, rng: np.random.Generator) -> Index:
        """For each combination a sample of the modality of ``column[b]`` with another label; -1 if there is none."""
        found = np.full(len(combinations), -1, np.int64)
        for index, name in enumerate(combinations.columns):
            concept = self.sets[name].concept
            order = np.argsort(concept, kind="stable")
            here = np.flatnonzero(column == index)
            start = np.searchsorted(concept[order], combinations.label[here])
            end = np.searchsorted(concept[order], combinations.label[here], side="right")
            left = len(concept) - (end - start)
            place = (rng.random(len(here)) * left).astype(np.int64)
            place += np.where(place >= start, end - start, 0)  # jumps over those of the same label
            has = left > 0
            found[here[has]] = order[place[has]]
        return found

    @cached_property
    def _sampler(self) -> CombinationSampler:
        return CombinationSampler({name: samples.concept for name, samples in self.sets.items()})

    @cached_property
    def _words(self) -> dict[int, Index]:
        """Words of each label."""
        texts = np.zeros(0, np.int64) if self.texts is None else self.texts
        return {int(label): np.flatnonzero(texts == label) for label in np.unique(texts)}

    def _draw_some(
        self,
        count: int,
        rng: np.random.Generator,
        size: int | None,
        among: Mapping[str, Index] | None,
        having: str | None,
    ) -> tuple[Index, Index]:
        concept = {}
        for name, samples in self.sets.items():
            concept[name] = np.full(len(samples), -1, np.int64)
            rows = np.arange(len(samples)) if among is None else among[name]
            concept[name][rows] = samples.concept[rows]
        if having is not None:
            for name in concept:
                concept[name][~np.isin(concept[name], concept[having])] = -1
        if not any((rows >= 0).any() for rows in concept.values()):
            raise DataError(f"no label has {size} modalities")
        sampler = CombinationSampler(concept)
        if having is None:
            return sampler.draw(count, rng, size=size)
        column = self.modalities.index(having)
        kept: list[tuple[Index, Index]] = []
        while sum(len(label) for _, label in kept) < count:
            rows, label = sampler.draw(count, rng, size=size)
            has = rows[:, column] >= 0
            kept.append((rows[has], label[has]))
        rows, label = (np.concatenate(drawn)[:count] for drawn in zip(*kept, strict=True))
        return rows, label


def with_conflicts(combinations: Combinations, chance: float, rng: np.random.Generator) -> Combinations:
    """Lets one sensor of some combinations show something else: the sample of another combination with another label.

    Args:
        combinations: Of any modalities.
        chance: Of a conflict, in combinations of two or more.
        rng: Source of randomness.
    """
    count, mask = len(combinations), combinations.mask
    column = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)  # a random one that is present
    donor = rng.permutation(count)
    conflicting = rng.random(count) < chance
    conflicting &= (mask.sum(axis=1) > 1) & mask[donor, column]
    conflicting &= combinations.label[donor] != combinations.label
    here, there = (conflicting, column[conflicting]), (donor[conflicting], column[conflicting])

    def exchanged(numbers: Index) -> Index:
        new = numbers.copy()
        new[here] = numbers[there]
        return new

    variants = None if combinations.variants is None else exchanged(combinations.variants)
    return dataclasses.replace(combinations, rows=exchanged(combinations.rows), variants=variants)


class TokenSets(NamedTuple):
    """Sets of tokens, as :meth:`Fusion.forward` takes them.

    Attributes:
        tokens: ``float32 [B, M, D]``, zeros where a modality is absent.
        mask: ``bool [B, M]``, where one is present.
        modality_ids: ``int64 [B, M]``, modality of each token as the model counts them; None if that was not told.
    """

    tokens: Tensor
    mask: Tensor
    modality_ids: Tensor | None = None


def gather(tokens: Mapping[str, Tensor], combinations: Combinations, slots: Sequence[str] = ()) -> TokenSets:
    """The tokens of combinations.

    Args:
        tokens: ``float32 [N, A, D]`` of all samples and their variants by modality.
        combinations: Which.
        slots: The model's modalities in its config's order; needed by fusions with a part for each.
    """
    ids = torch.tensor([slots.index(name) for name in combinations.columns]) if slots else None
    columns = []
    for column, name in enumerate(combinations.columns):
        row = torch.from_numpy(combinations.rows[:, column].clip(0))
        variant = 0 if combinations.variants is None else torch.from_numpy(combinations.variants[:, column])
        columns.append(tokens[name][row, variant])
    stacked = torch.stack(columns, dim=1)
    mask = torch.from_numpy(combinations.mask).to(stacked.device)
    if ids is not None:
        ids = ids.to(stacked.device).expand(len(mask), -1)
    return TokenSets(stacked.masked_fill(~mask[..., None], 0.0), mask, ids)


@dataclass(frozen=True)
class EmbeddedSplit(Split):
    """A split with the tokens of its samples: what a fusion learns on.

    Attributes:
        tokens: ``float32 [N, A, D]`` by modality, all variants included, those of the words as ``"text"``.
        slots: The model's modalities in its config's order; empty if no fusion needs them.
    """

    tokens: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    slots: tuple[str, ...] = ()

    def gather(self, combinations: Combinations) -> TokenSets:
        """The tokens of combinations that were drawn from this split."""
        return gather(self.tokens, combinations, self.slots)


def embed(split: Split, model: OmniBind, words: Sequence[tuple[int, str]] | None = None) -> EmbeddedSplit:
    """Embeddings of a split, those of variants included, and of the sources' own words for the labels.

    Args:
        split: Samples whose label has a name in :attr:`Split.names`.
        model: Has the encoders.
        words: Number of the label, and words; None takes the labels that the samples have in their sources.
    """
    if words is None:
        told = {(int(c), s.label) for x in split.sets.values() for s, c in zip(x.samples, x.concept, strict=True)}
        words = sorted(told)
    tokens = {}
    for name, samples in split.sets.items():
        parts = [rows for rows in (samples.inputs, samples.damaged) if rows is not None]
        tokens[name] = torch.cat([embed_all(model.encoders, model.config, name, rows) for rows in parts], dim=1).clone()
    tokens[TEXT] = model.encoders.encode_text_once([word for _, word in words]).clone()[:, None]
    texts = np.array([number for number, _ in words], np.int64)
    return EmbeddedSplit(split.names, split.sets, texts, split.given, tokens, tuple(model.config.modalities))


def learn_familiarity(fusion: Fusion, train: EmbeddedSplit, held_out: EmbeddedSplit, seed: int) -> None:
    """Tells a fusion what tokens of each modality are like; a fusion that does not ask for it stays as it is.

    Args:
        fusion: The fusion, in place.
        train: What the encoders were trained with; variants do not count.
        held_out: Samples of the same sources that they were not trained with.
        seed: Of where the centres start.
    """
    for slot, name in enumerate(train.slots):
        if name in train.tokens and len(train.tokens[name]) and len(held_out.tokens.get(name, ())):
            fusion.learn(slot, train.tokens[name][:, 0], held_out.tokens[name][:, 0], seed)


def similarities(fusion: Fusion, labels: LabelBank, sets: TokenSets) -> Tensor:
    """Cosines ``[B, C]`` of fused embeddings to the labels; the largest is the answer."""
    with torch.inference_mode():
        return labels.similarities(fusion(*sets).embedding)


def top1(scores: Tensor, label: Index) -> float:
    """Share of the rows of ``scores``, ``[B, C]``, that are largest at the right label, ``int64 [B]``."""
    return (scores.argmax(dim=-1) == torch.from_numpy(label).to(scores.device)).float().mean().item()


def late_fusion(sets: TokenSets) -> Tensor:
    """Mean ``[B, C]`` of the probabilities that are the tokens."""
    return sets.tokens.sum(dim=1) / sets.mask.sum(dim=1, keepdim=True)


def best_alone(right: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What is answered right by that modality of each combination which is right most often in all of them.

    Args:
        right: ``[B, M]``, what each modality answers right alone, 0 or 1.
        mask: ``bool [B, M]``, where a modality is present.
    """
    share = np.where(mask, right, 0).sum(axis=0) / mask.sum(axis=0).clip(1)
    best = np.where(mask, share, -1.0).argmax(axis=1)
    out: NDArray[np.float64] = right[np.arange(len(right)), best].astype(np.float64)
    return out


def accuracy_by_size(
    split: EmbeddedSplit, labels: LabelBank, fusion: Fusion, count: int, seed: int
) -> list[dict[str, Any]]:
    """Top-1 against the whole vocabulary for every size of combination that the data allow.

    Args:
        split: Without augmented variants.
        labels: The vocabulary.
        fusion: What is measured.
        count: Combinations per size.
        seed: Of the draws.

    Returns:
        One row per size: ``modalities``, ``n``, ``fused``, ``mean`` (mean fusion) and ``best_single`` (each combination
        answered by that of its modalities which is right most often at this size).
    """
    rows: list[dict[str, Any]] = []
    for size in split.sizes:
        drawn = split.draw(count, np.random.default_rng((seed, size)), size)
        sets = split.gather(drawn)
        with torch.inference_mode():
            alone = labels.similarities(sets.tokens).argmax(dim=-1).cpu().numpy() == drawn.label[:, None]
        figures = {
            "fused": top1(similarities(fusion, labels, sets), drawn.label),
            "mean": top1(similarities(MeanFusion(), labels, sets), drawn.label),
            "best_single": float(best_alone(alone.astype(np.float64), drawn.mask).mean()),
        }
        rows.append({"modalities": size, "n": count, **{key: round(value, 4) for key, value in figures.items()}})
    return rows
