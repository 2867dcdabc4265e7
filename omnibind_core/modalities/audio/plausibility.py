"""What speaks against sound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Doubt, Sound

_SAMPLES = 8192  # that are looked at; of a longer sound as many stretches of a part of it
_STRETCH = 1024
_SILENCE = 1e-3  # of the full scale, of the loudest sample (-60 dB); training and validation clips have 0.02 and more
# Hiss of a microphone that hears nothing: steady, and white or very quiet. What is recorded is steady and white only
# from 0.047 (rain) on, and steady whatever its colour from 0.0055 (a ceiling fan) on.
_HISS, _WHITE_HISS = 0.003, 0.02  # of the full scale, root mean square
_WHITE = 0.7  # see _surprise; of white noise 1
_CREST = 7.0  # of the loudest sample by the root mean square; of normal noise 4 to 5, of a click 10 and more
_STEADY = 2.0  # of the loudest stretch by the quietest
# What sound read in a wrong sample format exceeds, and no window of those clips, whose highest stand beside.
_LEVEL = 0.6  # root mean square; 0.54
_OFFSET = 0.4  # mean; 0.23
_JUMPS = ((1.0, 0.04), (0.5, 0.32))  # step from one sample to the next, and share of steps above it; 0.014 and 0.19
_SURPRISE = 0.1  # energy that the two samples before do not tell; of sound in a wrong format 0.105 and more, of tones 0
_SMALL = 0.05  # share of samples below half of the full scale, of sound that is only loud


def doubt(raw: Sound) -> Doubt | None:
    """The doubt about a checked window: silence and hiss say nothing, nor does noise of samples in a wrong format."""
    samples = raw.samples
    if len(samples) > _SAMPLES:  # stretches, for steps between neighbours
        starts = np.linspace(0, len(samples) - _STRETCH, _SAMPLES // _STRETCH).astype(int)
        pieces = np.stack([samples[start : start + _STRETCH] for start in starts.tolist()])
    else:
        pieces = samples[None]
    level = float(np.sqrt(np.vdot(pieces, pieces) / pieces.size))
    mean = float(pieces.mean())
    if abs(mean) <= _OFFSET and level**2 - mean**2 < _WHITE_HISS**2:  # cheap microphones have an offset of their own
        moved = pieces - np.float32(mean)
        noise = float(np.sqrt(np.vdot(moved, moved) / moved.size))
        peak = max(float(samples.max()) - mean, mean - float(samples.min()))
        if peak < _SILENCE:
            return Doubt(f"silence, the loudest sample {peak:.1g} of the full scale, expected {_SILENCE:g}", empty=True)
        if peak < _CREST * noise and _is_hiss(moved, noise):
            return Doubt(f"hiss of the microphone alone, steady noise at {noise:.1g} of the full scale", empty=True)
    found = []
    if level > _LEVEL:
        found.append(f"a level of {level:.2f} of the full scale")
    if abs(mean) > _OFFSET:
        found.append(f"a mean of {mean:+.2f}")
    steps = np.abs(np.diff(pieces))
    for step, most in _JUMPS:
        share = np.count_nonzero(steps > step) / max(steps.size, 1)
        if share > most:
            found.append(f"{share:.0%} of the steps between samples above {step:g}")
    if not found:
        return None
    small = np.count_nonzero(np.abs(pieces) < 0.5) / pieces.size  # an unsigned sample read as signed is near -1 or 1
    if abs(mean) <= _OFFSET and small > _SMALL and _surprise(pieces) < _SURPRISE:
        return Doubt(f"{', '.join(found)}: clipped? gain, or else sample_format", excludes=False)
    return Doubt(f"{', '.join(found)}: samples in another format? sample_format, byte order, channels")


def _is_hiss(pieces: NDArray[np.float32], level: float) -> bool:
    """Whether stretches ``[n, T]`` are steady noise, and very quiet or white."""
    loudness = np.sqrt((pieces**2).mean(axis=1))
    steady = float(loudness.max()) < _STEADY * float(loudness.min())
    return steady and (level < _HISS or _surprise(pieces) > _WHITE)


def _surprise(pieces: NDArray[np.float32]) -> float:
    """Share of the energy that a linear prediction from the two samples before leaves: an alarm has little, too."""
    after = pieces[:, 2:].ravel()
    before = np.stack([pieces[:, 1:-1].ravel(), pieces[:, :-2].ravel()], axis=1)
    if not len(after):
        return 1.0
    left = after - before @ np.linalg.lstsq(before, after, rcond=None)[0]
    return float(np.vdot(left, left) / max(float(np.vdot(after, after)), 1e-30))
