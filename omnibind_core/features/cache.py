"""Trunk features computed once and kept as memory-mapped arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.data.samples import Loads, Sample
from omnibind_core.errors import DataError
from omnibind_core.files import cache_folder, write_atomically

Extractor = Callable[[Sequence[Any]], NDArray[np.float32]]
"""Turns checked raw items of one modality into features ``float32 [len(items), F]``."""

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


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
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Frozen trunk features of all samples, each also in seeded random variants; computed once, then memory-mapped.

    Variant 0 is the sample itself, variants 1 to ``augmentations`` come from the modality's ``augment`` with a
    generator that depends on ``seed``, the sample's id and the variant only: neither order nor batch size changes them.

    Args:
        source: Loads the samples.
        samples: All of ``modality``.
        modality: Modality name.
        extractor: The trunk.
        key: Identity of everything in the extractor that shapes the features: preset, weights.
        augmentations: Random variants per sample, 0 or more.
        seed: Seed of the variants.
        folder: Cache folder; ``None`` is ``cache_folder() / "features"``.
        batch_size: Items per call of ``extractor``.
        progress: Told after each batch.

    Returns:
        Read-only ``float32 [len(samples), 1 + augmentations, F]``.

    Raises:
        DataError: No samples, one of another modality, or a file is gone.
        InvalidInputError: A file cannot be read.
    """
    if not samples:
        raise DataError(f"there are no {modality} samples to compute features of")
    other = next((sample for sample in samples if sample.modality != modality), None)
    if other is not None:
        raise DataError(f"sample '{other.id}' is of modality {other.modality}, expected {modality}")
    folder = cache_folder() / "features" if folder is None else folder
    address = _address(source, samples, modality, key, augmentations, seed)
    path = folder / f"{modality}-{address}.npy"
    if not path.is_file():
        with write_atomically(path) as temporary:
            _compute(temporary, source, samples, modality, extractor, augmentations, seed, batch_size, progress)
    array: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return array


def _address(source: Loads, samples: Sequence[Sample], modality: str, key: str, augmentations: int, seed: int) -> str:
    """Hash of everything that the features depend on, the content of the files included."""
    digest = hashlib.sha256(json.dumps([modality, key, augmentations, seed]).encode())
    for sample in samples:
        try:
            content = hashlib.sha256(source.path(sample).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"the file of sample '{sample.id}' is gone: {source.path(sample)}") from error
        digest.update(f"\n{sample.id}\t{sample.path}\t{content}".encode())
    return digest.hexdigest()[:20]


def _compute(
    path: Path,
    source: Loads,
    samples: Sequence[Sample],
    modality: str,
    extractor: Extractor,
    augmentations: int,
    seed: int,
    batch_size: int,
    progress: Progress | None,
) -> None:
    array: NDArray[np.float32] | None = None
    variants = 1 + augmentations
    step = max(1, batch_size // variants)
    for start in range(0, len(samples), step):
        part = samples[start : start + step]
        items = [item for sample in part for item in _variants(source, sample, augmentations, seed)]
        rows = np.asarray(extractor(items), np.float32)
        if rows.ndim != 2 or rows.shape[0] != len(items):
            raise DataError(f"the {modality} extractor returned {rows.shape} for {len(items)} items, expected [N, F]")
        if array is None:
            shape = (len(samples), variants, rows.shape[1])
            array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        array[start : start + len(part)] = rows.reshape(len(part), variants, -1)
        if progress is not None:
            progress(start + len(part), len(samples))
    assert isinstance(array, np.memmap)
    array.flush()


def _variants(source: Loads, sample: Sample, augmentations: int, seed: int) -> Iterator[Any]:
    raw = source.load(sample)
    yield raw
    identity = int.from_bytes(hashlib.sha256(sample.id.encode()).digest()[:8], "big")
    modality = modalities.get(sample.modality)
    for variant in range(1, 1 + augmentations):
        yield modality.augment(raw, np.random.default_rng((seed, identity, variant)))
