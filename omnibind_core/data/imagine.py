"""What a student's sensor would have seen of a photograph: samples of labels of which it has few, or none."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.data.rendering.events import simulate
from omnibind_core.data.samples import Loads, Sample
from omnibind_core.modalities import Events

MIN_EVENTS = 100
"""A photograph that gives fewer shows nothing to an event camera."""
_MAX_TURN = 30.0  # degrees
_SCALE = (0.8, 1.1)
_AMPLITUDE = (1.0, 4.0)  # pixels that each saccade is long


def event(photo: NDArray[np.uint8], rng: np.random.Generator) -> Events | None:
    """Events of a camera that is turned by up to 30 degrees, near or far, and shakes; then augmented as real ones are.

    Args:
        photo: RGB ``uint8 [H, W, 3]``.
        rng: Source of randomness.

    Returns:
        None if there are fewer than :data:`MIN_EVENTS`.
    """
    height, width = photo.shape[:2]
    move = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-_MAX_TURN, _MAX_TURN), rng.uniform(*_SCALE))
    seen = cv2.warpAffine(photo, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
    events = simulate(seen.astype(np.uint8, copy=False), rng, amplitude=rng.uniform(*_AMPLITUDE))
    return modalities.get("event").augment(events, rng) if len(events) >= MIN_EVENTS else None


IMAGINE: Mapping[str, Callable[[NDArray[np.uint8], np.random.Generator], Any]] = {"event": event}
"""By modality: a raw item of it from a photo, RGB ``uint8 [H, W, 3]``; None if the photo is no good for it."""


@dataclasses.dataclass(frozen=True)
class Imagined:
    """The photos of a source as another modality would have seen them.

    Its samples are those of the photos, with the name of the modality. What is imagined of one depends on its id and
    the seed only.

    Attributes:
        source: Has the photos.
        seed: Of what is random.
    """

    source: Loads
    seed: int

    def path(self, sample: Sample) -> Path:
        """The file of the photo."""
        return self.source.path(_photo(sample))

    def load(self, sample: Sample) -> Any:
        """A raw item of the sample's modality; None if the photo is no good for it.

        Raises:
            InvalidInputError: The photo cannot be read.
        """
        rng = np.random.default_rng((self.seed, zlib.crc32(sample.id.encode())))
        return IMAGINE[sample.modality](self.source.load(_photo(sample)), rng)


def _photo(sample: Sample) -> Sample:
    return dataclasses.replace(sample, modality="image")
