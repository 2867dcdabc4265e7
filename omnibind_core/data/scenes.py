"""Combinations of modalities that show one concept: drawn on the fly for training, composed as scenes for the demo."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.errors import DataError

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Scene:
    """One thing seen by several sensors.

    Attributes:
        concept: What it is.
        samples: By modality, at least one each; in the order of the modality's frames.
    """

    concept: str
    samples: dict[str, list[Sample]]


def compose_scenes(
    samples: Iterable[Sample],
    concepts: Concepts,
    seed: int,
    count: int,
    *,
    split: str | None = None,
    min_modalities: int = 2,
    max_modalities: int | None = None,
    per_modality: int = 1,
) -> list[Scene]:
    """Draws scenes; no concept comes again before all others have come, no sample before its modality has no other.

    Args:
        samples: Of any modalities and sources.
        concepts: The label table.
        seed: Same seed and samples, same scenes; the order of ``samples`` does not matter.
        count: Number of scenes.
        split: Take only samples of this split.
        min_modalities: Fewest modalities in a scene.
        max_modalities: Most modalities in a scene; None takes all that there are of its concept.
        per_modality: Samples of each modality in a scene, fewer if there are fewer.

    Raises:
        DataError: No concept has ``min_modalities`` modalities, or a label is in no row of the table.
    """
    pools: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in sorted(samples, key=lambda sample: (sample.source, sample.id)):
        if split is not None and sample.split != split:
            continue
        concept = concepts.of(sample)
        if concept:
            pools[concept][sample.modality].append(sample)
    names = sorted(name for name, pool in pools.items() if len(pool) >= min_modalities)
    if not names:
        raise DataError(
            f"no concept has samples of {min_modalities} modalities"
            + (f" in the split '{split}'" if split else "")
            + f"; {len(pools)} concepts were looked at"
        )
    rng = np.random.default_rng(seed)
    piles = {name: {modality: _Pile(items, rng) for modality, items in sorted(pools[name].items())} for name in names}
    turns = _Pile(names, rng)
    scenes = []
    for _ in range(count):
        name = turns.take(1)[0]
        present = sorted(piles[name])
        most = min(max_modalities or len(present), len(present))
        size = int(rng.integers(min(min_modalities, most), most, endpoint=True))
        chosen = sorted(rng.permutation(len(present))[:size])
        scenes.append(Scene(name, {present[i]: piles[name][present[i]].take(per_modality) for i in chosen}))
    return scenes


class _Pile(Generic[_Item]):
    """Items taken in random order; shuffled again when all were taken."""

    def __init__(self, items: Sequence[_Item], rng: np.random.Generator) -> None:
        self._items = items
        self._rng = rng
        self._left: list[int] = []

    def take(self, count: int) -> list[_Item]:
        taken = []
        for _ in range(min(count, len(self._items))):
            if not self._left:
                self._left = self._rng.permutation(len(self._items)).tolist()
            taken.append(self._items[self._left.pop()])
        return taken


class CombinationSampler:
    """Draws combinations of modalities of one concept each, any size, from an index of samples.

    Args:
        concept: ``int64 [N]`` concept number of every sample, by modality; negative numbers are left out.

    Attributes:
        modalities: Columns of a draw.
        sizes: Numbers of modalities that a combination can have.
    """

    def __init__(self, concept: Mapping[str, NDArray[np.int64]]) -> None:
        self.modalities = tuple(concept)
        number = 1 + max((int(rows.max()) for rows in concept.values() if len(rows)), default=-1)
        self._count = np.zeros((number, len(concept)), np.int64)
        self._order: list[NDArray[np.int64]] = []
        for column, rows in enumerate(concept.values()):
            kept = np.flatnonzero(np.asarray(rows) >= 0)
            self._order.append(kept[np.argsort(rows[kept], kind="stable")])
            self._count[:, column] = np.bincount(rows[kept], minlength=number)
        if not self._count.any():
            raise DataError("there are no samples to combine")
        self._start = np.cumsum(self._count, axis=0) - self._count
        self._modalities_of = (self._count > 0).sum(axis=1)
        self.sizes = tuple(range(1, int(self._modalities_of.max()) + 1))

    def draw(
        self, batch: int, rng: np.random.Generator, *, size: int | None = None, min_size: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draws combinations: concept uniform, then number of modalities, then which, then one sample of each.

        Args:
            batch: Number of combinations B.
            rng: Source of randomness.
            size: Number of modalities in every combination; None draws it too.
            min_size: Least number of modalities where ``size`` is None.

        Returns:
            Sample numbers ``int64 [B, M]``, -1 where a modality is absent, and concept numbers ``int64 [B]``.

        Raises:
            DataError: No concept has so many modalities.
        """
        least = min_size if size is None else size
        candidates = np.flatnonzero(self._modalities_of >= max(least, 1))
        if not len(candidates):
            raise DataError(f"no concept has {least} modalities, the most is {self.sizes[-1]}")
        concept = rng.choice(candidates, size=batch)
        most = self._modalities_of[concept]
        sizes = rng.integers(least, most, endpoint=True) if size is None else np.full(batch, size)
        count, start = self._count[concept], self._start[concept]
        # random ranks of the present modalities; the first `sizes` of them are taken
        keys = np.where(count > 0, rng.random(count.shape), np.inf)
        taken = keys.argsort(axis=1).argsort(axis=1) < sizes[:, None]
        place = start + (rng.random(count.shape) * count).astype(np.int64)
        rows = np.full(count.shape, -1, np.int64)
        for column, order in enumerate(self._order):
            rows[taken[:, column], column] = order[place[taken[:, column], column]]
        return rows, concept


@dataclass(frozen=True)
class GivenCombinations:
    """Combinations that are drawn from as they are, instead of being made on the fly.

    Attributes:
        rows: ``int32 [N, M]`` sample numbers, one column per sensor modality, -1 where it is absent.
        concept: ``int64 [N]`` concept numbers.
        text: ``int64 [N]`` numbers of their words, -1 where they have none.
    """

    rows: NDArray[np.int32]
    concept: NDArray[np.int64]
    text: NDArray[np.int64]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of sensor modalities that occur."""
        return tuple(np.unique((self.rows >= 0).sum(axis=1)).tolist())

    def pick(self, batch: int, rng: np.random.Generator, size: int | None = None) -> NDArray[np.int64]:
        """Draws combinations, or those of a number of sensor modalities, as numbers ``int64 [batch]``.

        Raises:
            DataError: There are none of that size.
        """
        if size is None:
            return rng.integers(len(self.rows), size=batch)
        candidates = np.flatnonzero((self.rows >= 0).sum(axis=1) == size)
        if not len(candidates):
            raise DataError(f"no combination has {size} sensor modalities, expected one of {self.sizes}")
        return rng.choice(candidates, size=batch)
