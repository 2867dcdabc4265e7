"""Augmentation and damage of sound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Corruption, Corruptions, Sound

Samples = NDArray[np.float32]


def augment(raw: Sound, rng: np.random.Generator) -> Sound:
    """Another start (rotated in time), loudness (-12 to 6 dB) and background noise (25 to 50 dB below)."""
    samples = np.roll(raw.samples, rng.integers(len(raw.samples)))
    noisy = samples + _noise(samples, rng.uniform(25, 50), rng)
    gain = 10 ** (rng.uniform(-12, 6) / 20)
    return Sound(np.clip(noisy * np.float32(gain), -1, 1), raw.sample_rate)


def _noise(samples: Samples, ratio_db: float, rng: np.random.Generator) -> Samples:
    """White noise that lies ``ratio_db`` below the sound."""
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) * 10 ** (-ratio_db / 20)
    return np.float32(level) * rng.standard_normal(samples.shape, np.float32)


def _gaussian(samples: Samples, rng: np.random.Generator) -> Samples:
    """White noise as loud as the sound."""
    return samples + _noise(samples, 0.0, rng)


def _blank(samples: Samples, rng: np.random.Generator) -> Samples:
    """Microphone off."""
    return np.zeros_like(samples)


def _clipped(samples: Samples, rng: np.random.Generator) -> Samples:
    """26 dB too loud."""
    return samples * np.float32(20)


def _sparse(samples: Samples, rng: np.random.Generator) -> Samples:
    """Packets lost: 14 of 20 stretches are zero."""
    blocks = np.array_split(samples.copy(), 20)
    for i in rng.choice(len(blocks), 14, replace=False):
        blocks[i][:] = 0
    return np.concatenate(blocks)


def _of_sound(damage: Callable[[Samples, np.random.Generator], Samples]) -> Corruption[Sound]:
    return lambda raw, rng: Sound(np.clip(damage(raw.samples, rng), -1, 1), raw.sample_rate)


CORRUPTIONS: Corruptions[Sound] = {
    "gaussian": _of_sound(_gaussian),
    "blank": _of_sound(_blank),
    "clipped": _of_sound(_clipped),
    "sparse": _of_sound(_sparse),
}


def noise_only(raw: Sound, rng: np.random.Generator) -> Sound:
    """White noise, 20 dB below full scale."""
    return Sound(np.float32(0.1) * rng.standard_normal(raw.samples.shape, np.float32).clip(-9, 9), raw.sample_rate)
