"""Which combinations of samples a modality-free data set holds: as many as asked for, all different, evenly spread."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MANY = 2.0**62
"""More combinations than can be counted in 64 bits are treated as this many."""


@dataclass(frozen=True)
class Pools:
    """What can be combined: the items of every modality, by cell. Items of one cell fit together.

    A cell is a concept, or a set of samples of a concept that were matched with each other.

    Attributes:
        items: By column, item numbers ``int32 [N_c]`` ordered by cell.
        start: ``int64 [C, M]``, where a cell begins in ``items``.
        count: ``int64 [C, M]``, number of items of a cell.
        weight: ``float64 [C]``, how often cells are wanted, compared with each other.
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
        """Sorts items by cell.

        Args:
            columns: By column, item numbers ``int32 [N]`` and their cells ``int32 [N]``, 0 to C - 1.
            weight: ``float64 [C]``, see the attribute.
            sensors: By column, whether it is a sensor.
        """
        items = tuple(item[np.argsort(cell, kind="stable")] for item, cell in columns)
        count = np.stack([np.bincount(cell, minlength=len(weight)) for _, cell in columns], axis=1)
        return cls(items, np.cumsum(count, axis=0) - count, count, weight, np.array(sensors, bool))

    @property
    def largest(self) -> int:
        """Most modalities that a combination can have; 0 if there are no samples."""
        possible = self.count[:, self.sensors].any(axis=1)
        return int((self.count > 0).sum(axis=1)[possible].max(initial=0))

    def kinds(self, size: int) -> list[tuple[int, ...]]:
        """Sets of columns of that size with a sensor among them."""
        return [kind for kind in itertools.combinations(range(len(self.items)), size) if self.sensors[list(kind)].any()]

    def capacity(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Cells with so many modalities ``int64 [K]``, and their number of different combinations ``[K, kinds]``."""
        cells = np.flatnonzero((self.count > 0).sum(axis=1) >= size)
        products = [self.count[cells][:, kind].astype(float).prod(axis=1) for kind in self.kinds(size)]
        return cells, np.minimum(np.stack(products, axis=1), _MANY)


def spread(
    total: int, capacity: NDArray[np.float64], rng: np.random.Generator, weight: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Shares a number among cells as evenly as their capacities allow; what one cannot hold goes to the others.

    Args:
        total: What is shared; less is given out if all capacities together are less.
        capacity: ``float64 [N]``, most that each cell can hold, 0 or more.
        rng: Decides which cells get the odd ones.
        weight: ``float64 [N]``, shares in proportion to this instead of evenly.

    Returns:
        ``int64 [N]``, the share of each cell.
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
    """Draws different combinations: evenly over cells (by their weight) within a size, and over kinds within a cell.

    Args:
        pools: What can be combined.
        total: Number of combinations; fewer if no more exist.
        sizes: Share of each number of modalities, in any unit; sizes that the data do not have leave theirs to the
            others. None draws cells alike, and the sizes from 2 up alike within each.
        rng: Source of randomness.

    Returns:
        Item numbers ``int32 [N, M]``, -1 where a modality is absent, and cells ``int32 [N]``, in random order.
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
    of_cell = np.empty(len(rows), np.int32)
    at = 0
    for size, count in zip(shares, counts, strict=True):
        for cell, kind, number, capacity in _quotas(pools, size, *capacities[size], weight, int(count), rng):
            part = slice(at, at + number)
            # A combination as a number: one digit per modality, whose base is how many items that has.
            _fill(rows[part], pools, cell, kind, rng.choice(capacity, number, replace=False))
            of_cell[part] = cell
            at += number
    order = rng.permutation(len(rows))
    return rows[order], of_cell[order]


def _quotas(
    pools: Pools,
    size: int,
    cells: NDArray[np.int64],
    capacity: NDArray[np.float64],
    weight: NDArray[np.float64],
    total: int,
    rng: np.random.Generator,
) -> Iterator[tuple[int, tuple[int, ...], int, int]]:
    """(cell, kind, combinations wanted, combinations that exist) of one size."""
    kinds = pools.kinds(size)
    by_cell = spread(total, capacity.sum(axis=1), rng, weight[cells])
    for place in np.flatnonzero(by_cell):
        by_kind = spread(int(by_cell[place]), capacity[place], rng)
        for kind in np.flatnonzero(by_kind):
            yield int(cells[place]), kinds[kind], int(by_kind[kind]), int(capacity[place, kind])


def _fill(rows: NDArray[np.int32], pools: Pools, cell: int, kind: tuple[int, ...], code: NDArray[np.int64]) -> None:
    for column in kind:
        count = pools.count[cell, column]
        rows[:, column] = pools.items[column][pools.start[cell, column] + code % count]
        code = code // count
