"""What is evaluated on: the samples of one split as features and embeddings, and combinations of them."""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core.data.concepts import Concepts
from omnibind_core.data.damage import Damaged
from omnibind_core.data.samples import Sample
from omnibind_core.data.scenes import CombinationSampler
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.errors import DataError
from omnibind_core.evaluation.labelling import Key, Labelled, find_labels
from omnibind_core.features.sets import FeatureSet, embed_all, sample_features
from omnibind_core.model import OmniBind
from omnibind_core.training.config import TrainConfig

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Combos:
    """Combinations of samples.

    Attributes:
        columns: Modality of each column; one that occurs twice is two sensors of that kind.
        rows: ``int64 [B, M]`` numbers of samples, -1 where a modality is absent.
        label: ``int64 [B]``, number of the true label.
    """

    columns: tuple[str, ...]
    rows: Index
    label: Index

    def __len__(self) -> int:
        return len(self.label)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``bool [B, M]``, where a modality is present."""
        found: NDArray[np.bool_] = self.rows >= 0
        return found

    def take(self, chosen: NDArray[np.generic]) -> Combos:
        """Some of the combinations."""
        return Combos(self.columns, self.rows[chosen], self.label[chosen])

    def replaced(self, column: Index, row: Index) -> Combos:
        """The same with one sample of each exchanged: in ``column[b]`` stands the sample ``row[b]``."""
        rows = self.rows.copy()
        rows[np.arange(len(rows)), column] = row
        return dataclasses.replace(self, rows=rows)


@dataclass(frozen=True)
class Split:
    """The samples of one split whose labels the model can give, or those whose it cannot.

    Attributes:
        names: Labels; those of the model first.
        parts: By modality; ``inputs`` have variants where there are any, variant 0 is the sample itself.
    """

    names: tuple[str, ...]
    parts: Mapping[str, FeatureSet]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that there are samples of."""
        return tuple(self.parts)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples by modality."""
        return {name: len(part) for name, part in self.parts.items()}

    def labels_of(self, names: Sequence[str]) -> Index:
        """Labels that have samples of all these modalities."""
        found = np.unique(self.parts[names[0]].concept)
        for name in names[1:]:
            found = np.intersect1d(found, self.parts[name].concept)
        return found

    def subsets(self, size: int) -> Iterator[tuple[str, ...]]:
        """All combinations of so many modalities that at least one label has."""
        for names in combinations(self.modalities, size):
            if len(self.labels_of(names)):
                yield names

    def single(self, name: str) -> Combos:
        """All samples of one modality."""
        part = self.parts[name]
        return Combos((name,), np.arange(len(part))[:, None], part.concept)

    def draw(
        self,
        count: int,
        rng: np.random.Generator,
        size: int,
        *,
        among: Mapping[str, Index] | None = None,
        having: str | None = None,
    ) -> Combos:
        """Draws combinations of a number of modalities: a label, then which modalities, then a sample of each.

        Args:
            count: Number of combinations.
            rng: Source of randomness.
            size: Number of modalities in each.
            among: By modality, the samples to draw from; None takes all.
            having: A modality that every combination has to have.

        Raises:
            DataError: No label has so many modalities.
        """
        concept = {}
        for name, part in self.parts.items():
            concept[name] = np.full(len(part), -1, np.int64)
            rows = np.arange(len(part)) if among is None else among[name]
            concept[name][rows] = part.concept[rows]
        if having is not None:
            for name in concept:
                concept[name][~np.isin(concept[name], concept[having])] = -1
        if not any((rows >= 0).any() for rows in concept.values()):
            raise DataError(f"no label has {size} modalities")
        sampler = CombinationSampler(concept)
        if having is None:
            return Combos(self.modalities, *sampler.draw(count, rng, size=size))
        column = self.modalities.index(having)
        kept: list[tuple[Index, Index]] = []
        while sum(len(label) for _, label in kept) < count:
            rows, label = sampler.draw(count, rng, size=size)
            has = rows[:, column] >= 0
            kept.append((rows[has], label[has]))
        rows, label = (np.concatenate(part)[:count] for part in zip(*kept, strict=True))
        return Combos(self.modalities, rows, label)

    def draw_of(self, names: Sequence[str], count: int, rng: np.random.Generator, last: Index | None = None) -> Combos:
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
            labels = np.intersect1d(labels, self.parts[names[-1]].concept[last])
        if not len(labels):
            raise DataError(f"no label has samples of {', '.join(names)}")
        label = rng.choice(labels, size=count)
        rows = np.empty((count, len(names)), np.int64)
        for column, name in enumerate(names):
            pool = np.arange(len(self.parts[name])) if last is None or column < len(names) - 1 else last
            order = pool[np.argsort(self.parts[name].concept[pool], kind="stable")]
            concept = self.parts[name].concept[order]
            start, end = np.searchsorted(concept, label), np.searchsorted(concept, label, side="right")
            place = (rng.random(count) * (end - start)).astype(np.int64)
            rows[:, column] = order[start + place]
            if name in names[:column]:
                same = rows[:, column] == rows[:, names.index(name)]
                rows[same, column] = order[start + (place + 1) % (end - start)][same]
        return Combos(tuple(names), rows, label)

    def others(self, combos: Combos, column: Index, rng: np.random.Generator) -> Index:
        """For each combination a sample of the modality of ``column[b]`` with another label; -1 if there is none."""
        found = np.full(len(combos), -1, np.int64)
        for index, name in enumerate(combos.columns):
            concept = self.parts[name].concept
            order = np.argsort(concept, kind="stable")
            here = np.flatnonzero(column == index)
            start = np.searchsorted(concept[order], combos.label[here])
            end = np.searchsorted(concept[order], combos.label[here], side="right")
            left = len(concept) - (end - start)
            place = (rng.random(len(here)) * left).astype(np.int64)
            place += np.where(place >= start, end - start, 0)  # jumps over those of the same label
            has = left > 0
            found[here[has]] = order[place[has]]
        return found


@dataclass(frozen=True)
class TestData:
    """Everything that a model is evaluated on.

    Attributes:
        name: Name of the folder.
        split: Which split of it.
        known: Samples whose label the model has.
        unknown: Samples of things that the model has no label for.
        labels: What each label of the data became.
        counts: Samples by what became of their label: ``known``, ``unknown``, ``left out``, ``not encoded``.
        source: Loads them.
    """

    __test__ = False  # no test class for pytest

    name: str
    split: str
    known: Split
    unknown: Split
    labels: Mapping[Key, Labelled]
    counts: Mapping[str, int]
    source: FolderSource
    samples: Sequence[Sample] = dataclasses.field(repr=False, default=())


def load(
    root: Path,
    split: str,
    model: OmniBind,
    own: Concepts,
    given: Concepts | None = None,
    augmentations: TrainConfig | None = None,
) -> TestData:
    """Reads the samples of one split; trunk features that are not cached yet are computed.

    Args:
        root: Folder with ``samples.csv``.
        split: Which split.
        model: Gives the encoders and the vocabulary.
        own: The label table that the model was trained with.
        given: The label table of these data.
        augmentations: Take as many augmented variants of each sample as this experiment; None takes none.

    Raises:
        DataError: The folder has no such split, or the model has no label for any of its samples.
    """
    source = FolderSource(root)
    samples = source.samples(split=split)
    if not samples:
        splits = sorted({sample.split for sample in source.samples()})
        raise DataError(f"{root} has no samples of the split '{split}'; it has {', '.join(splits) or 'none at all'}")
    names = model.labels.names

    def embed(sentences: Sequence[str]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.embed_text(sentences).cpu().numpy()
        return found

    labels = find_labels(samples, names, own, given, embed)
    concept = {sample.id: labels[sample.source, sample.label].concept for sample in samples}
    strange = sorted({name for name in concept.values() if name and name not in names})
    number = {name: index for index, name in enumerate((*names, *strange))}
    usable = [name for name in model.modalities if name != "text"]
    parts: dict[bool, dict[str, FeatureSet]] = {True: {}, False: {}}
    for modality in usable:
        items = [sample for sample in samples if sample.modality == modality]
        if not any(concept[sample.id] for sample in items):
            continue
        variants, seed = 0, 0
        if augmentations is not None:
            variants = augmentations.more_augmentations.get(modality, augmentations.augmentations)
            seed = augmentations.features_seed
        inputs = sample_features(source, items, modality, model.config, model.encoders, variants, seed)
        of = np.array([number.get(concept[sample.id], -1) for sample in items], np.int64)
        for known, rows in ((True, (of >= 0) & (of < len(names))), (False, of >= len(names))):
            if rows.any():
                chosen = tuple(sample for sample, kept in zip(items, rows, strict=True) if kept)
                parts[known][modality] = FeatureSet(chosen, inputs if rows.all() else inputs[rows], of[rows])
    counts = Counter(_fate(concept[sample.id], sample.modality in usable, names) for sample in samples)
    if not parts[True]:
        found = ", ".join(sorted(set(concept.values()))[:8])
        raise DataError(
            f"{root}, split '{split}': the model has no label for any sample; expected some of its {len(names)} "
            f"labels, found {found or 'labels that are left out'}. A label table (--labels) can say which is which"
        )
    every = tuple(number)
    return TestData(
        root.resolve().name,
        split,
        Split(every, parts[True]),
        Split(every, parts[False]),
        labels,
        counts,
        source,
        samples,
    )


def embeddings(model: OmniBind, split: Split) -> dict[str, Tensor]:
    """Unit-length embeddings ``[N, D]`` of all samples by modality, without augmented variants."""
    return {
        name: embed_all(model.encoders, model.config, name, part.inputs[:, :1])[:, 0].clone()
        for name, part in split.parts.items()
    }


def gather(rows: Mapping[str, Tensor], combos: Combos) -> tuple[Tensor, Tensor]:
    """Tokens ``[B, M, F]``, zeros where a modality is absent, and the mask ``bool [B, M]``.

    Args:
        rows: ``[N, F]`` by modality.
        combos: Which.
    """
    mask = torch.from_numpy(combos.mask)
    tokens = [rows[name][combos.rows[:, column].clip(0)] for column, name in enumerate(combos.columns)]
    stacked = torch.stack(tokens, dim=1)
    mask = mask.to(stacked.device)
    return stacked.masked_fill(~mask[..., None], 0.0), mask


def spread(split: Split, count: int, seed: int) -> dict[str, Index]:
    """At most ``count`` samples of each modality, in turn of every label; labels of several modalities come first."""
    several = Counter(int(label) for part in split.parts.values() for label in np.unique(part.concept))
    chosen = {}
    for name, part in split.parts.items():
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        order = rng.permutation(len(part))
        order = order[np.argsort(part.concept[order], kind="stable")]
        concept = part.concept[order]
        turn = np.arange(len(part)) - np.searchsorted(concept, concept)
        alone = np.array([several[int(label)] < 2 for label in concept])
        chosen[name] = np.sort(order[np.lexsort((concept, turn, alone))[:count]])
    return chosen


def damaged(data: TestData, model: OmniBind, name: str, rows: Index, kind: str, seed: int) -> NDArray[np.float32]:
    """Trunk features ``[K, 1, F]`` of some known samples of a modality with their sensor damaged."""
    part = data.known.parts[name]
    source = Damaged(data.source, kind, seed)
    chosen = [part.samples[row] for row in rows]
    what = f"{kind}, seed {seed}, "
    return sample_features(source, chosen, name, model.config, model.encoders, 0, 0, what)


def _fate(concept: str, encoded: bool, names: Sequence[str]) -> str:
    if not concept:
        return "left out"
    if not encoded:
        return "not encoded"
    return "known" if concept in names else "unknown"
