"""Contact sheet of a data set: a few samples of every modality as one picture, to see what one has before training."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import chain, zip_longest

import numpy as np

from omnibind_core import modalities
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source
from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.modalities.drawing import Picture, caption, fit, write

_WIDTH, _CAPTION, _GAP, _TITLE = 1206, 30, 6, 34  # pixels
_SQUARE, _WIDE = (144, 144), (98, 294)  # height and width of a tile: eight or four in a row
_PER_LABEL = 4  # samples kept of each label, to choose from
_GREY = (120, 120, 120)


def contact_sheet(source: Source, *, per_modality: int = 24, seed: int = 0) -> Picture:
    """Draws samples of every modality, of as many labels as fit, with label and split.

    Every modality draws its samples itself: see :meth:`omnibind_core.modalities.Modality.draw`.

    Args:
        source: The data set. All its samples are gone through once, a few of each label are kept in memory.
        per_modality: Most samples of a modality.
        seed: Of the choice.

    Returns:
        RGB ``uint8 [H, 1206, 3]``.

    Raises:
        DataError: There are no samples.
    """
    chosen, counts = _choose(source, per_modality, np.random.default_rng(seed))
    if not chosen:
        raise DataError(f"{source.root} holds no samples to draw")
    return np.concatenate([_section(source, name, counts[name], items) for name, items in sorted(chosen.items())])


def _choose(
    source: Source, count: int, rng: np.random.Generator
) -> tuple[dict[str, list[Sample]], dict[str, Counter[str]]]:
    """By modality: samples in turns from all labels, labels in random order; and the number of samples per label."""
    kept: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in source.samples():
        pile = kept[sample.modality][sample.label]
        seen[sample.modality][sample.label] += 1
        if len(pile) < _PER_LABEL:
            pile.append(sample)
        elif (place := int(rng.integers(seen[sample.modality][sample.label]))) < _PER_LABEL:  # reservoir sampling
            pile[place] = sample
    chosen = {}
    for modality, piles in kept.items():
        order = [piles[label] for label in rng.permutation(sorted(piles))]
        turns = [sample for sample in chain.from_iterable(zip_longest(*order)) if sample is not None]
        chosen[modality] = sorted(turns[:count], key=lambda sample: (sample.label, sample.split, sample.id))
    return chosen, seen


def _section(source: Source, modality: str, counts: Counter[str], items: list[Sample]) -> Picture:
    title = f"{source.title}: {modality}, {counts.total()} samples, {len(counts)} labels"
    tiles = [_tile(source, sample) for sample in items]
    height, width = (_GAP + max(sides) for sides in zip(*(tile.shape[:2] for tile in tiles), strict=True))
    columns = max(1, (_WIDTH - _GAP) // width)
    rows = -(-len(tiles) // columns)
    section = np.full((_TITLE + rows * height + _GAP, _WIDTH, 3), 255, np.uint8)
    write(section, title, (_GAP, 23), 0.6)
    for i, tile in enumerate(tiles):
        top, left = _TITLE + i // columns * height, _GAP + i % columns * width
        section[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return section


def _tile(source: Source, sample: Sample) -> Picture:
    try:
        picture = modalities.get(sample.modality).draw(source.load(sample), _SQUARE[0])
    except (InvalidInputError, DataError):
        picture = caption("cannot be read", _SQUARE)
    size = _SQUARE if picture.shape[1] < 2 * picture.shape[0] else _WIDE
    tile = np.full((size[0] + _CAPTION, size[1], 3), 255, np.uint8)
    tile[: size[0]] = fit(picture, size, margin=255)
    write(tile, sample.label, (2, size[0] + 13), 0.4)
    write(tile, sample.split, (2, size[0] + 26), 0.35, _GREY)
    return tile
