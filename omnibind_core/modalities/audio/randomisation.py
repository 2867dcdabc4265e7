"""Sound as other microphones in other rooms would have heard it: domain randomisation (Tobin et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Sound

Samples = NDArray[np.float32]


def randomise(raw: Sound, rng: np.random.Generator) -> Sound:
    """Another pitch, distance, room, microphone, background and length.

    Played 0.8 to 1.25 times as fast; the echo of a room of 0.1 to 1 s; a microphone that hears from 30 to 600 Hz up to
    2 to 8 kHz; coloured noise and a hum 3 to 40 dB below; cut to a fifth of the length or more; -30 to 0 dB, clipped
    now and then.
    """
    samples = raw.samples
    if rng.random() < 0.5:
        samples = _faster(samples, np.exp(rng.uniform(-0.22, 0.22)))
    if rng.random() < 0.5:
        keep = max(min(len(samples), raw.sample_rate // 4), int(len(samples) * rng.uniform(0.2, 1.0)))
        start = int(rng.integers(len(samples) - keep + 1))
        samples = samples[start : start + keep]
    else:
        samples = np.roll(samples, rng.integers(len(samples)))
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    if rng.random() < 0.5:
        samples = _in_room(samples, raw.sample_rate, rng)
    if rng.random() < 0.5:
        samples = _through_microphone(samples, raw.sample_rate, rng)
    if rng.random() < 0.7:
        samples = samples + level * 10 ** (-rng.uniform(3, 40) / 20) * _background(len(samples), raw.sample_rate, rng)
    loudest = max(float(np.abs(samples).max()), 1e-9)
    gain = 10 ** (rng.uniform(-30, 0) / 20) * (rng.uniform(1, 5) if rng.random() < 0.15 else 1.0)
    return Sound(np.clip(samples * (gain / loudest), -1, 1).astype(np.float32), raw.sample_rate)


def _faster(samples: Samples, speed: float) -> Samples:
    """Pitch and tempo changed together."""
    places = np.arange(0, len(samples) - 1, speed)
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


def _in_room(samples: Samples, rate: int, rng: np.random.Generator) -> Samples:
    """Convolved with decaying noise, the direct sound in front of it."""
    seconds = rng.uniform(0.1, 1.0)
    length = min(int(seconds * rate), len(samples))
    echo = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / (seconds * rate))
    echo *= rng.uniform(0.2, 1.5) / max(float(np.sqrt(np.square(echo).sum())), 1e-9)
    echo[0] = 1.0
    size = len(samples) + length - 1
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(echo, size), size)
    return wet[: len(samples)].astype(np.float32)


def _through_microphone(samples: Samples, rate: int, rng: np.random.Generator) -> Samples:
    """A band that falls by 12 dB an octave beside it, and a tilt of up to 4 dB an octave."""
    hertz = np.fft.rfftfreq(len(samples), 1 / rate)
    low, high = np.exp(rng.uniform(np.log(30), np.log(600))), np.exp(rng.uniform(np.log(2000), np.log(8000)))
    ratio = np.maximum(hertz, 1.0)
    response = 1 / np.sqrt(1 + (low / ratio) ** 4) / np.sqrt(1 + (ratio / high) ** 4)
    response *= (ratio / 1000) ** (rng.uniform(-4, 4) / 6.02)
    heard = np.fft.irfft(np.fft.rfft(samples) * np.minimum(response, 10), len(samples))
    return heard.astype(np.float32)


def _background(count: int, rate: int, rng: np.random.Generator) -> Samples:
    """Noise from white to brown, and the hum of the mains in one of four; its level is 1."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum *= np.maximum(np.fft.rfftfreq(count, 1 / rate), 20) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, count)
    noise /= max(float(np.sqrt(np.mean(np.square(noise)))), 1e-9)
    if rng.random() < 0.25:
        base, time = rng.choice((50.0, 60.0)), np.arange(count) / rate
        noise = (noise + sum(np.sin(2 * np.pi * base * k * time) / k for k in (1, 2, 3))) / 2
    return noise.astype(np.float32)
