"""What rendered places are furnished with: things of packages, or samples of recorded ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from omnibind_core.data.rendering.scenes import catalogue, composites
from omnibind_core.data.rendering.scenes.layout import Built
from omnibind_core.data.rendering.scenes.places import Kind
from omnibind_core.errors import DataError
from omnibind_ros.bags.scene_bag import SceneData

Things = Callable[[np.random.Generator], Iterator[Built]]
"""What a scene can be furnished with, drawn from a generator."""
_FEWEST = 5  # as many as there can be in a scene


def of_packages(kind: Kind, known: Collection[str] | None = None, cache: Path | None = None) -> Things:
    """Things of Debian packages; see :mod:`omnibind_core.data.rendering.scenes.catalogue`.

    Args:
        kind: What kind of place.
        known: Only things with one of these labels, if given.
        cache: Where packages are unpacked, ``None`` for the default.

    Raises:
        DataError: The packages cannot be had.
    """
    kept = catalogue.find(kind, known, cache)
    return lambda rng: catalogue.pick(kept, rng)


def of_samples(scenes: Iterable[SceneData]) -> Things:
    """Things of which each sensor shows a recorded sample; see :mod:`omnibind_core.data.rendering.scenes.composites`.

    Args:
        scenes: Samples of one label each; those that fewer than two of the sensors have samples of are left out.

    Raises:
        DataError: Fewer than five can be used.
    """
    usable = [scene for scene in scenes if sum(name in composites.SEEN for name in scene.raw) > 1]
    if len(usable) < _FEWEST:
        found = f"{len(usable)} things of which two of {', '.join(composites.SEEN)} have samples"
        raise DataError(f"the samples hold {found}, expected at least {_FEWEST}")
    turn = itertools.count()

    def things(rng: np.random.Generator) -> Iterator[Built]:
        """Each once before one comes again."""
        labels: set[str] = set()
        for _ in usable:
            one = usable[next(turn) % len(usable)]
            if one.label not in labels:
                labels.add(one.label)
                yield composites.build(one.label, one.raw, rng)

    return things
