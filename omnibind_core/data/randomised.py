"""Samples as other sensors of their kind would have made them: domain randomisation, from training data alone."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np

from omnibind_core import modalities
from omnibind_core.data.samples import Changed, Sample


@dataclasses.dataclass(frozen=True)
class Randomised(Changed):
    """The samples of a source, each changed by its modality's :func:`~omnibind_core.modalities.randomisation`.

    What becomes of one depends on its id and the seed only.

    Attributes:
        seed: Of what is random.
    """

    seed: int

    def load(self, sample: Sample) -> Any:
        """The changed raw item; the item as it is where the modality has no randomisation.

        Raises:
            InvalidInputError: The sample cannot be read.
        """
        raw, randomise = self.source.load(sample), modalities.randomisation(sample.modality)
        if randomise is None:
            return raw
        rng = np.random.default_rng((self.seed, zlib.crc32(f"{sample.id}|randomised".encode())))
        return modalities.get(sample.modality).check(randomise(raw, rng), sample.id)
