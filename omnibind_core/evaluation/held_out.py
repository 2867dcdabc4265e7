"""Noise of another family than any that fusions are trained with, so that what was learned of the one is not measured.

The damage of training (:mod:`omnibind_core.data.damage`) is white: every pixel, point, event and sample by itself. This
one is correlated: it has shapes, clusters and low frequencies, as what sensors see has.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.samples import Changed, Sample
from omnibind_core.modalities.base import Events, Sound

HELD_OUT = "unseen noise"
"""Replaces the sample as ``"noise only"`` does, by noise that no training has."""
_SPOTS = 5  # of events, clusters of points


def _picture(raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Clouds over the picture's range: random grids of 3, 6, 12 and 24 cells, each half as strong as the last."""
    height, width = raw.shape[:2]
    total = np.zeros((height, width, *raw.shape[2:]), np.float64)
    for octave in range(4):
        cells = 3 * 2**octave
        coarse = rng.standard_normal((cells, cells, *raw.shape[2:]))
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(total.shape) / 2**octave
    total = (total - total.min()) / max(float(np.ptp(total)), 1e-9)
    low, high = float(np.min(raw)), float(np.max(raw))
    out: NDArray[Any] = (low + (high - low) * total).astype(raw.dtype)
    return out


def _sound(raw: Sound, rng: np.random.Generator) -> Sound:
    """Brown noise, 20 dB below full scale: a random walk without its drift."""
    walk = np.cumsum(rng.standard_normal(len(raw.samples)))
    walk -= np.linspace(walk[0], walk[-1], len(walk))
    level = float(np.sqrt(np.mean(np.square(walk))))
    return Sound(np.clip(0.1 * walk / max(level, 1e-9), -1, 1).astype(np.float32), raw.sample_rate)


def _events(raw: Events, rng: np.random.Generator) -> Events:
    """As many events at the same times, in a few flickering spots."""
    which = rng.integers(_SPOTS, size=len(raw))
    centre = rng.uniform(0, (raw.width, raw.height), (_SPOTS, 2))[which]
    place = np.rint(centre + rng.normal(0, 0.05 * max(raw.width, raw.height), centre.shape))
    x, y = place[:, 0].clip(0, raw.width - 1), place[:, 1].clip(0, raw.height - 1)
    polarity = rng.integers(0, 2, len(raw), np.uint8)
    return dataclasses.replace(raw, x=x.astype(np.uint16), y=y.astype(np.uint16), p=polarity)


def _cloud(raw: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """As many points, in a few blobs inside of the bounding box."""
    low, high = raw.min(axis=0), raw.max(axis=0)
    centre = rng.uniform(low, high, (_SPOTS, 3))[rng.integers(_SPOTS, size=len(raw))]
    return (centre + rng.normal(0, 0.08, centre.shape) * (high - low)).astype(np.float32)


NOISES: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "image": _picture,
    "touch": _picture,
    "thermal": _picture,
    "event": _events,
    "point_cloud": _cloud,
    "audio": _sound,
}
"""By modality; one of another plug-in has none, and is left out."""


@dataclasses.dataclass(frozen=True)
class HeldOut(Changed):
    """The samples of a source replaced by such noise; it depends on id and seed only.

    Attributes:
        seed: Of what is random.
    """

    seed: int

    def load(self, sample: Sample) -> Any:
        """The raw item that stands for the sample.

        Raises:
            InvalidInputError: The sample cannot be read.
        """
        rng = np.random.default_rng((self.seed, zlib.crc32(f"{sample.id}|{HELD_OUT}".encode())))
        return NOISES[sample.modality](self.source.load(sample), rng)
