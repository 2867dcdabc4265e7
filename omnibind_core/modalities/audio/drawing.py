"""Sound as a picture for people."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from omnibind_core.modalities.base import Sound
from omnibind_core.modalities.drawing import Picture, coloured

_LONGEST = 5.0  # s that are shown
_HIGHEST = 8000.0  # Hz
_RANGE = 80.0  # dB below the loudest
_WINDOW = 0.025  # s


def draw(sound: Sound, height: int) -> Picture:
    """A spectrogram ``[height, height, 3]``: time to the right (5 s at most), frequency upwards (up to 8 kHz)."""
    window = max(16, round(_WINDOW * sound.sample_rate))
    samples = sound.samples[: round(_LONGEST * sound.sample_rate)]
    samples = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[:: max(1, window // 2)]
    power = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1)).T ** 2
    power = power[: max(2, round(_HIGHEST * window / sound.sample_rate))]
    decibels = 10 * np.log10(power + 1e-10)
    loudness = np.clip((decibels - decibels.max()) / _RANGE + 1, 0, 1)
    picture = coloured((loudness[::-1] * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    resized: Any = cv2.resize(picture, (height, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)
