"""Trunk features computed once for each sample, and kept in blocks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.blocks import Blocks, address, unwritable
from omnibind_core.data.samples import Loads, Sample
from omnibind_core.errors import DataError
from omnibind_core.files import cache_folder
from omnibind_core.parallel import in_order

Extractor = Callable[[Sequence[Any]], NDArray[np.float32]]
"""Turns checked raw items of one modality into features ``float32 [len(items), F]``."""


def features(
    source: Loads,
    samples: Sequence[Sample],
    modality: str,
    extractor: Extractor,
    key: str,
    augmentations: int,
    seed: int,
    *,
    folder: Path | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Frozen trunk features of all samples, each also in seeded random variants; computed once, then memory-mapped.

    Variant 0 is the sample itself, variants 1 to ``augmentations`` come from the modality's ``augment`` with a
    generator that depends on ``seed``, the sample's id and the variant only: neither order nor batch size changes them.
    What is known of a sample is found by its id and the name and content of its file, whatever else is in the data set.

    Args:
        source: Loads the samples.
        samples: All of ``modality``.
        modality: Modality name.
        extractor: The trunk.
        key: Identity of everything in the extractor that shapes the features: preset, weights.
        augmentations: Random variants per sample, 0 or more.
        seed: Seed of the variants.
        folder: Cache folder; ``None`` is ``cache_folder() / "features"``.
        batch_size: Items per call of ``extractor``, but never less than a sample and its variants. Blocks hold whole
            batches, so what a killed run left out is computed in the same ones.
        progress: Told after each batch: samples done, and samples that were not known.
        threads: On which batches are loaded and extracted; what is in them does not depend on it.

    Returns:
        Read-only ``float32 [len(samples), 1 + augmentations, F]``.

    Raises:
        DataError: No samples, one of another modality, a file is gone, or the cache cannot be written.
        InvalidInputError: A file cannot be read.
    """
    if not samples:
        raise DataError(f"there are no {modality} samples to compute features of")
    other = next((sample for sample in samples if sample.modality != modality), None)
    if other is not None:
        raise DataError(f"sample '{other.id}' is of modality {other.modality}, expected {modality}")
    folder = cache_folder() / "features" if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    blocks = Blocks(folder / f"{modality}-{address(json.dumps([modality, key, augmentations, seed]))}")
    addresses = [_address(source, sample) for sample in samples]
    missing = blocks.missing(addresses)
    variants = 1 + augmentations
    step = max(1, batch_size // variants)

    def extracted(part: Sequence[int]) -> NDArray[np.float32]:
        items = [item for row in part for item in _variants(source, samples[row], augmentations, seed)]
        rows = np.asarray(extractor(items), np.float32)
        if rows.ndim != 2 or rows.shape[0] != len(items):
            raise DataError(f"the {modality} extractor returned {rows.shape} for {len(items)} items, expected [N, F]")
        return rows.reshape(len(part), variants, -1)

    parts = [missing[start : start + step] for start in range(0, len(missing), step)]
    done = 0
    for part, rows in zip(parts, in_order(extracted, parts, threads), strict=True):
        blocks.add([addresses[row] for row in part], rows)
        done += len(part)
        if progress is not None:
            progress(done, len(missing))
    return blocks.gather(addresses)


def _address(source: Loads, sample: Sample) -> str:
    """Of everything in a sample that its features depend on; not of the folder that its file lies in."""
    try:
        content = hashlib.sha256(source.path(sample).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"the file of sample '{sample.id}' is gone: {source.path(sample)}") from error
    return address(sample.id, sample.path.rpartition("/")[2], content)


def _variants(source: Loads, sample: Sample, augmentations: int, seed: int) -> Iterator[Any]:
    raw = source.load(sample)
    yield raw
    identity = int.from_bytes(hashlib.sha256(sample.id.encode()).digest()[:8], "big")
    modality = modalities.get(sample.modality)
    for variant in range(1, 1 + augmentations):
        yield modality.augment(raw, np.random.default_rng((seed, identity, variant)))
