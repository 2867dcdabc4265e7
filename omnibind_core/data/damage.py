"""Samples whose sensor is damaged, or delivers nothing but noise: what robustness is trained and measured on."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np

from omnibind_core import modalities
from omnibind_core.data.samples import Changed, Sample

NOISE = "noise only"
"""Damage that leaves nothing of the sample: noise of its shape and range. All sensor modalities have it."""
ANY = "any"
"""Any of a modality's damages, drawn anew for every sample."""


def damages(modality: str) -> tuple[str, ...]:
    """What can happen to a modality's sensor: its own corruptions, then :data:`NOISE` if it is a sensor's at all."""
    known = modalities.get(modality)
    return (*known.corruptions, NOISE) if known.is_sensor else (*known.corruptions,)


@dataclasses.dataclass(frozen=True)
class Damaged(Changed):
    """The samples of a source with their sensor damaged. What happens to one depends on id, damage and seed only.

    Attributes:
        damage: One of :func:`damages`, or :data:`ANY`.
        seed: Of what is random.
    """

    damage: str
    seed: int

    def load(self, sample: Sample) -> Any:
        """The damaged raw item.

        Raises:
            ConfigError: The modality has no such damage.
            InvalidInputError: The sample cannot be read.
        """
        return damaged(sample.modality, self.source.load(sample), self.damage, sample.id, self.seed)


def damaged(modality: str, raw: Any, damage: str, identity: str, seed: int = 0) -> Any:
    """A damaged variant of a checked raw item.

    Args:
        modality: Its modality.
        raw: The item.
        damage: One of :func:`damages`, or :data:`ANY`.
        identity: Name of the item; what is random depends on it, on the damage and on the seed.
        seed: Of what is random.

    Raises:
        ConfigError: The modality has no such damage.
    """
    known = modalities.get(modality)
    rng = np.random.default_rng((seed, zlib.crc32(f"{identity}|{damage}".encode())))
    chosen = str(rng.choice(damages(modality))) if damage == ANY else damage
    if chosen == NOISE and known.is_sensor:
        return known.noise_only(raw, rng)
    return known.corrupt(raw, chosen, rng)
