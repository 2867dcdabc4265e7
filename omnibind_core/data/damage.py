"""Samples whose sensor is damaged, or delivers nothing but noise: what robustness is trained and measured on."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.data.samples import Loads, Sample
from omnibind_core.modalities import Events, Sound

NOISE = "noise only"
"""Kind of damage that leaves nothing of the sample: noise of its shape and range. All sensor modalities have it."""
ANY = "any"
"""Any of a modality's kinds of damage, drawn anew for every sample."""


def kinds(modality: str) -> tuple[str, ...]:
    """Kinds of damage of a modality: its own corruptions, then :data:`NOISE` if it has that."""
    own = modalities.get(modality).corruptions
    return (*own, NOISE) if modality in _NOISE else own


@dataclasses.dataclass(frozen=True)
class Damaged:
    """The samples of a source with their sensor damaged. What happens to one depends on its id, kind and seed only.

    Attributes:
        source: Has the samples.
        kind: One of :func:`kinds`, or :data:`ANY`.
        seed: Of what is random.
    """

    source: Loads
    kind: str
    seed: int

    def path(self, sample: Sample) -> Path:
        """The file of the sample."""
        return self.source.path(sample)

    def load(self, sample: Sample) -> Any:
        """The damaged raw item.

        Raises:
            ConfigError: The modality has no such kind of damage.
            InvalidInputError: The sample cannot be read.
        """
        return damaged(sample.modality, self.source.load(sample), self.kind, sample.id, self.seed)


def damaged(modality: str, raw: Any, kind: str, identity: str, seed: int = 0) -> Any:
    """A damaged variant of a checked raw item.

    Args:
        modality: Its modality.
        raw: The item.
        kind: One of :func:`kinds`, or :data:`ANY`.
        identity: Name of the item; what is random depends on it, on the kind and on the seed.
        seed: Of what is random.

    Raises:
        ConfigError: The modality has no such kind of damage.
    """
    rng = np.random.default_rng((seed, zlib.crc32(f"{identity}|{kind}".encode())))
    chosen = str(rng.choice(kinds(modality))) if kind == ANY else kind
    if chosen == NOISE and modality in _NOISE:
        return _NOISE[modality](raw, rng)
    return modalities.get(modality).corrupt(raw, chosen, rng)


def _picture(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Every pixel is random between the lowest and the highest value: 8-bit pictures 0..255, others as this one."""
    low, high = (0.0, 255.0) if raw.dtype == np.uint8 else (float(raw.min()), float(raw.max()))
    noise = rng.uniform(low, high, raw.shape)
    return (np.rint(noise) if raw.dtype.kind in "ui" else noise).astype(raw.dtype)


def _sound(raw: Sound, rng: np.random.Generator) -> Sound:
    """White noise, 20 dB below full scale."""
    return Sound(np.float32(0.1) * rng.standard_normal(raw.samples.shape, np.float32).clip(-9, 9), raw.sample_rate)


def _events(raw: Events, rng: np.random.Generator) -> Events:
    """As many events, anywhere."""
    x = rng.integers(0, raw.width, len(raw), np.uint16)
    y = rng.integers(0, raw.height, len(raw), np.uint16)
    return dataclasses.replace(raw, x=x, y=y, p=rng.integers(0, 2, len(raw), np.uint8))


def _cloud(raw: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """As many points, anywhere in the bounding box."""
    return rng.uniform(raw.min(axis=0), raw.max(axis=0), raw.shape).astype(np.float32)


_NOISE: Mapping[str, Callable[[Any, np.random.Generator], Any]] = {
    "image": _picture,
    "touch": _picture,
    "thermal": _picture,
    "event": _events,
    "point_cloud": _cloud,
    "audio": _sound,
}
