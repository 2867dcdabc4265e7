"""Which combinations of samples a modality-free data set holds: as many as asked for, all different, evenly spread."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_COUNTED = 2.0**62
"""More combinations than can be counted in 64 bits are treated as this many."""


@dataclass(frozen=True)
class Pools:
    """What can be combined: the items of every modality, by match group. Items of one group fit together.

    A match group is a concept, or a set of samples of a concept that were matched with each other.

    Attributes:
        items: By column, item numbers ``int32 [N_c]`` ordered by match group.
        start: ``int64 [G, M]``, where a match group begins in ``items``.
        count: ``int64 [G, M]``, number of items of a match group.
        weight: ``float64 [G]``, how often match groups are wanted, compared with each other.
        sensors: ``bool [M]``; a combination needs at least one sensor (text alone is none).
    """

    items: tuple[NDArray[np.int32], ...]
    start: NDArray[np.int64]
    count: NDArray[np.int64]
    weight: NDArray[np.float64]
    sensors: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        columns: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]],
        weight: NDArray[np.float64],
        sensors: Sequence[bool],
    ) -> Pools:
        """Sorts items by match group.

        Args:
            columns: By column, item numbers ``int32 [N]`` and their match groups ``int32 [N]``, 0 to G - 1.
            weight: ``float64 [G]``, see the attribute.
            sensors: By column, whether it is a sensor.
        """
        items = tuple(item[np.argsort(group, kind="stable")] for item, group in columns)
        count = np.stack([np.bincount(group, minlength=len(weight)) for _, group in columns], axis=1)
        return cls(items, np.cumsum(count, axis=0) - count, count, weight, np.array(sensors, bool))

    @property
    def largest(self) -> int:
        """Most modalities that a combination can have; 0 if there are no samples."""
        possible = self.count[:, self.sensors].any(axis=1)
        return int((self.count > 0).sum(axis=1)[possible].max(initial=0))

    def modality_sets(self, size: int) -> list[tuple[int, ...]]:
        """Sets of columns of that size with a sensor among them."""
        return [
            columns
            for columns in itertools.combinations(range(len(self.items)), size)
            if self.sensors[list(columns)].any()
        ]

    def capacity(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Match groups with so many modalities ``int64 [K]``, and their number of combinations by set ``[K, sets]``."""
        groups = np.flatnonzero((self.count > 0).sum(axis=1) >= size)
        products = [self.count[groups][:, columns].astype(float).prod(axis=1) for columns in self.modality_sets(size)]
        return groups, np.minimum(np.stack(products, axis=1), _MOST_COUNTED)


def spread(
    total: int, capacity: NDArray[np.float64], rng: np.random.Generator, weight: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Shares a number as evenly as capacities allow; what one cannot hold goes to the others.

    Args:
        total: What is shared; less is given out if all capacities together are less.
        capacity: ``float64 [N]``, most that each can hold, 0 or more.
        rng: Decides who gets the odd ones.
        weight: ``float64 [N]``, shares in proportion to this instead of evenly.

    Returns:
        ``int64 [N]``, the share of each.
    """
    weight = np.ones(len(capacity)) if weight is None else weight
    capacity = np.where(weight > 0, capacity, 0.0)
    total = int(min(total, capacity.sum()))
    share = np.zeros(len(capacity), np.int64)
    while total > share.sum():
        left = total - int(share.sum())
        open_ = np.flatnonzero(share < capacity)
        ideal = left * weight[open_] / weight[open_].sum()
        more = np.minimum(np.floor(ideal), capacity[open_] - share[open_]).astype(np.int64)
        if not more.any():  # fewer than one each: the largest fractions first, ties by chance
            rank = np.lexsort((rng.random(len(open_)), -ideal))
            more[rank[:left]] = 1
        share[open_] += more
    return share


def combine(
    pools: Pools, total: int, sizes: Mapping[int, float] | None, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draws different combinations: evenly over match groups by weight, and over the sets of modalities in each.

    Args:
        pools: What can be combined.
        total: Number of combinations; fewer if no more exist.
        sizes: Share of each number of modalities, in any unit; sizes that the data do not have leave theirs to the
            others. None draws match groups alike, and the sizes from 2 up alike within each.
        rng: Source of randomness.

    Returns:
        Item numbers ``int32 [N, M]``, -1 where a modality is absent, and match groups ``int32 [N]``, in random order.
    """
    weight = pools.weight
    if sizes is None:
        most = (pools.count > 0).sum(axis=1)
        weight = weight / np.maximum(most - 1, 1)
        sizes = {size: float(weight[most >= size].sum()) for size in range(2, pools.largest + 1)}
    shares = {size: share for size, share in sizes.items() if share > 0 and size <= pools.largest}
    capacities = {size: pools.capacity(size) for size in shares}
    room = np.array([capacity.sum() for _, capacity in capacities.values()])
    counts = spread(total, room, rng, np.array(list(shares.values()), float))
    rows = np.full((int(counts.sum()), len(pools.items)), -1, np.int32)
    match_group = np.empty(len(rows), np.int32)
    at = 0
    for size, count in zip(shares, counts, strict=True):
        for group, modality_set, number, capacity in _quotas(pools, size, *capacities[size], weight, int(count), rng):
            span = slice(at, at + number)
            # A combination as a number: one digit per modality, whose base is how many items that has.
            _fill(rows[span], pools, group, modality_set, rng.choice(capacity, number, replace=False))
            match_group[span] = group
            at += number
    order = rng.permutation(len(rows))
    return rows[order], match_group[order]


def _quotas(
    pools: Pools,
    size: int,
    groups: NDArray[np.int64],
    capacity: NDArray[np.float64],
    weight: NDArray[np.float64],
    total: int,
    rng: np.random.Generator,
) -> Iterator[tuple[int, tuple[int, ...], int, int]]:
    """(match group, set of modalities, combinations wanted, combinations that exist) of one size."""
    modality_sets = pools.modality_sets(size)
    by_group = spread(total, capacity.sum(axis=1), rng, weight[groups])
    for place in np.flatnonzero(by_group):
        by_set = spread(int(by_group[place]), capacity[place], rng)
        for number in np.flatnonzero(by_set):
            yield int(groups[place]), modality_sets[number], int(by_set[number]), int(capacity[place, number])


def _fill(
    rows: NDArray[np.int32], pools: Pools, group: int, modality_set: tuple[int, ...], code: NDArray[np.int64]
) -> None:
    for column in modality_set:
        count = pools.count[group, column]
        rows[:, column] = pools.items[column][pools.start[group, column] + code % count]
        code = code // count
