"""Sound to encoder input."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from omnibind_core.modalities.base import Preset, Sound
from omnibind_core.optional import require

SAMPLE_RATE = 16000  # Hz, of both trunks


@dataclass(frozen=True)
class AudioPreset(Preset):
    """A log-mel preset at 16 kHz; frames of 25 ms every 10 ms.

    Attributes:
        front_end: ``"yamnet"`` (patches) or ``"kaldi"`` (clips).
        bands: Number of mel bands.
        frames: Frames in one view.
    """

    front_end: str = "yamnet"
    bands: int = 64
    frames: int = 96


PRESETS = {
    preset.name: preset
    for preset in (
        AudioPreset("yamnet", (96, 64)),
        AudioPreset("imagebind", (1, 128, 204), front_end="kaldi", bands=128, frames=204),
    )
}

# YAMNet (TensorFlow models, research/audioset/yamnet, params and features).
_WINDOW, _HOP, _FFT = 400, 160, 512  # samples
_BANDS, _LOW_HZ, _HIGH_HZ = 64, 125.0, 7500.0
_LOG_OFFSET = 0.001
_PATCH, _PATCH_HOP = 96, 48  # frames
_QUIET_DB = 30.0  # patches this far below the loudest are left out: clips are often padded with silence

# ImageBind (imagebind/data.py): three clips of two seconds, normalised by AudioSet's mean and std.
_CLIPS, _CLIP_SECONDS = 3, 2.0
_AUDIOSET_MEAN, _AUDIOSET_STD = -4.268, 9.138
_PRE_EMPHASIS = 0.97  # Kaldi's default
_LOG_FLOOR = np.finfo(np.float32).eps  # Kaldi's smallest energy


def process(raw: Sound, preset: AudioPreset) -> NDArray[np.float32]:
    """Sound of any rate to ``float32 [P, 96, 64]`` (``yamnet``) or ``[3, 1, 128, 204]`` (``imagebind``)."""
    samples = resample(raw.samples, raw.sample_rate)
    if preset.front_end == "yamnet":
        return yamnet_patches(samples)
    return kaldi_clips(samples, preset.bands, preset.frames)


_ZEROS = 10  # crossings of the low-pass filter on each side
_KAISER = 5.0  # its window
_ROWS, _BLOCK = 8, 1 << 18  # rows and multiplications of a product that is too small for OpenBLAS to share it out
_GROUP = 64  # samples that are made at once, at least
MOST_PERIOD = 1 << 16
"""Samples after which the two rates meet again, at most."""
NEAR_PERIOD = 1 << 14
"""The same of the rate that is taken instead."""
_LARGEST = 1 << 20  # values of the filter by samples in and out; rates that need more have nearly no common divisor


def resample(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Brings ``[T]`` to 16 kHz by a polyphase filter; the same memory if it is there already.

    The filter is that of ``scipy.signal.resample_poly``, whose import takes two seconds: SciPy is asked only for rates
    for which the filter, as a product of matrices, would be too large. Of high rates without a common divisor, such
    as 767,999 Hz, the filter alone would take seconds: they are taken for one that is at most 0.006 % away.
    """
    if sample_rate == SAMPLE_RATE:
        return samples
    sample_rate = int(sample_rate)  # of NumPy's types, unsigned ones have no negative numbers
    ratio = Fraction(SAMPLE_RATE, sample_rate)
    if ratio.denominator > MOST_PERIOD:
        ratio = ratio.limit_denominator(NEAR_PERIOD)
    up, down = ratio.as_integer_ratio()
    groups = -(-_GROUP // up)  # periods of the two rates
    reach = _ZEROS * max(up, down) // up  # samples of the input on each side of one of the output
    width = groups * down + 2 * reach + 1
    if groups * up * width > _LARGEST:
        signal = require("scipy.signal", f"Resampling sound from {sample_rate} Hz")
        return signal.resample_poly(samples, up, down).astype(np.float32, copy=False)
    count = -(-len(samples) * up // down)
    rows = -(-count // (groups * up))
    padded = np.zeros((rows - 1) * groups * down + width, np.float32)
    padded[reach : reach + len(samples)] = samples[: len(padded) - reach]
    made = _product(sliding_window_view(padded, width)[:: groups * down], _filter(up, down, groups))
    return made.reshape(-1)[:count]


@functools.lru_cache(maxsize=8)
def _filter(up: int, down: int, groups: int) -> NDArray[np.float32]:
    """What each sample in adds to each sample out, ``[in, out]``: a windowed sinc."""
    half = _ZEROS * max(up, down)
    at = np.arange(-half, half + 1)
    taps = np.sinc(at / max(up, down)) * np.kaiser(2 * half + 1, _KAISER)
    taps *= up / taps.sum()
    reach = half // up
    place = np.arange(groups * up) * down - (np.arange(groups * down + 2 * reach + 1)[:, None] - reach) * up + half
    found: NDArray[np.float32] = np.where((place >= 0) & (place <= 2 * half), taps[place.clip(0, 2 * half)], 0)
    return found.astype(np.float32)


def yamnet_patches(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patches of 0.96 s every 0.48 s of log-mel frames, without those that are much quieter than the loudest.

    The end is padded with zeros to whole patches, as YAMNet does: 0.975 s for the first, 0.48 s for each further one.

    Args:
        samples: ``float32 [T]`` at 16 kHz.

    Returns:
        ``float32 [P, 96, 64]``, P at least 1.
    """
    first = (_PATCH - 1) * _HOP + _WINDOW  # samples
    step = _PATCH_HOP * _HOP
    patches = 1 + max(0, math.ceil((len(samples) - first) / step))
    padded = np.pad(samples, (0, first + (patches - 1) * step - len(samples)))
    mel = log_mel(padded)
    energy = np.square(sliding_window_view(padded, first)[::step]).sum(axis=1)
    heard = energy >= energy.max() * np.float32(10 ** (-_QUIET_DB / 10))
    return np.ascontiguousarray(sliding_window_view(mel, _PATCH, axis=0)[::_PATCH_HOP][heard].transpose(0, 2, 1))


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """YAMNet's log-mel spectrogram of ``[T]``: ``float32 [1 + (T - 400) // 160, 64]``."""
    frames = sliding_window_view(samples, _WINDOW)[::_HOP]
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)  # periodic
    magnitude = np.abs(np.fft.rfft(frames * window, _FFT)).astype(np.float32, copy=False)
    return np.log(_product(magnitude, mel_filters(_BANDS, _LOW_HZ, _HIGH_HZ)) + np.float32(_LOG_OFFSET))


def _product(rows: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """``rows @ matrix`` in blocks that OpenBLAS computes on one thread: those it wakes spin for 25 ms afterwards."""
    height = min(_ROWS, len(rows))
    width = max(1, _BLOCK // (height * len(matrix)))
    out = np.empty((len(rows), matrix.shape[1]), np.float32)
    for left in range(0, matrix.shape[1], width):
        columns = matrix[:, left : left + width]
        for top in range(0, len(rows), height):
            first = min(top, len(rows) - height)  # one row alone would be another kind of product
            out[first : first + height, left : left + width] = rows[first : first + height] @ columns
    return out


@functools.cache
def mel_filters(bands: int, low_hz: float, high_hz: float) -> NDArray[np.float32]:
    """HTK mel filters ``[257, bands]``: triangles in mel with peak 1."""
    bins = _mel(np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(_mel(low_hz), _mel(high_hz), bands + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre))
    return np.maximum(0, triangles).astype(np.float32)


def _mel(hertz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """HTK's mel scale."""
    return 1127 * np.log1p(np.asarray(hertz) / 700)


def kaldi_clips(samples: NDArray[np.float32], bands: int, frames: int) -> NDArray[np.float32]:
    """ImageBind's clips: Kaldi filter banks of the start, the middle and the end of a sound.

    Args:
        samples: ``float32 [T]`` at 16 kHz.
        bands: Mel bands.
        frames: Frames that a clip is padded with zeros, or cut, to (a clip of 2 s has 198).

    Returns:
        ``float32 [3, 1, bands, frames]``.
    """
    length = round(_CLIP_SECONDS * SAMPLE_RATE)
    last_start = max(len(samples) - length, 0)
    clips = np.zeros((_CLIPS, 1, bands, frames), np.float32)
    for i in range(_CLIPS):
        start = round(i * last_start / (_CLIPS - 1))
        if i > 0 and last_start == 0:  # shorter than a clip: all are the same
            clips[i] = clips[0]
            continue
        clip = samples[start : start + length]
        clip = np.pad(clip - clip.mean(), (0, max(0, _WINDOW - len(clip))))
        bank = kaldi_filter_bank(clip, bands)[:frames]
        clips[i, 0, :, : len(bank)] = bank.T
    return (clips - np.float32(_AUDIOSET_MEAN)) / np.float32(_AUDIOSET_STD)


def kaldi_filter_bank(samples: NDArray[np.float32], bands: int) -> NDArray[np.float32]:
    """Kaldi's log-mel filter bank of ``[T]``, T at least 400: ``float32 [1 + (T - 400) // 160, bands]``.

    No dither, no energy, Hanning window, 20 Hz to Nyquist. The library kaldi-native-fbank refuses 128 bands at 16 kHz,
    because the lowest ones fall between two FFT bins; ImageBind was trained with them, at the floor.
    """
    frames = sliding_window_view(samples, _WINDOW)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    emphasised = frames - np.float32(_PRE_EMPHASIS) * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    spectrum = np.fft.rfft(emphasised * np.hanning(_WINDOW).astype(np.float32), _FFT)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)
    return np.log(np.maximum(_product(power, mel_filters(bands, 20.0, SAMPLE_RATE / 2)), _LOG_FLOOR))
