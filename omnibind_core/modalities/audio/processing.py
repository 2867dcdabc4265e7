"""Sound to encoder input."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

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
_LOW_HZ, _HIGH_HZ = 125.0, 7500.0
_LOG_OFFSET = 0.001
_PATCH, _PATCH_HOP = 96, 48  # frames

# ImageBind (imagebind/data.py): three clips of two seconds, normalised by AudioSet's mean and std.
_CLIPS, _CLIP_SECONDS = 3, 2.0
_AUDIOSET_MEAN, _AUDIOSET_STD = -4.268, 9.138


def process(raw: Sound, preset: AudioPreset) -> NDArray[np.float32]:
    """Sound of any rate to ``float32 [P, 96, 64]`` (``yamnet``) or ``[3, 1, 128, 204]`` (``imagebind``)."""
    samples = resample(raw.samples, raw.sample_rate)
    if preset.front_end == "yamnet":
        return yamnet_patches(samples)
    return kaldi_clips(samples, preset.bands, preset.frames)


def resample(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Brings ``[T]`` to 16 kHz by a polyphase filter; the same memory if it is there already."""
    if sample_rate == SAMPLE_RATE:
        return samples
    signal = require("scipy.signal", f"Resampling sound from {sample_rate} Hz")
    common = math.gcd(sample_rate, SAMPLE_RATE)
    resampled = signal.resample_poly(samples, SAMPLE_RATE // common, sample_rate // common)
    return resampled.astype(np.float32, copy=False)


def yamnet_patches(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patches of 0.96 s every 0.48 s of log-mel frames.

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
    return np.ascontiguousarray(sliding_window_view(mel, _PATCH, axis=0)[::_PATCH_HOP].transpose(0, 2, 1))


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """YAMNet's log-mel spectrogram of ``[T]``: ``float32 [1 + (T - 400) // 160, 64]``."""
    frames = sliding_window_view(samples, _WINDOW)[::_HOP]
    window, mel = _window_and_mel()
    magnitude = np.abs(np.fft.rfft(frames * window, _FFT)).astype(np.float32, copy=False)
    return np.log(magnitude @ mel + np.float32(_LOG_OFFSET))


@functools.cache
def _window_and_mel() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Periodic Hann window ``[400]`` and HTK mel filters ``[257, 64]``, triangles in mel without area norm."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    bins = _mel(np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    edges = np.linspace(_mel(_LOW_HZ), _mel(_HIGH_HZ), 66)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    mel = np.maximum(0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    return window.astype(np.float32), mel.astype(np.float32)


def _mel(hertz: float | NDArray[np.float64]) -> NDArray[np.float64]:
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
        bank = _kaldi_filter_bank(samples[start : start + length], bands)[:frames]
        clips[i, 0, :, : len(bank)] = bank.T
    return (clips - np.float32(_AUDIOSET_MEAN)) / np.float32(_AUDIOSET_STD)


def _kaldi_filter_bank(clip: NDArray[np.float32], bands: int) -> NDArray[np.float32]:
    """Log-mel energies ``[1 + (T - 400) // 160, bands]`` of a clip without its mean; at least one frame."""
    knf = require("kaldi_native_fbank", "The audio preset 'imagebind'")
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.frame_length_ms = 25.0
    options.frame_opts.frame_shift_ms = 10.0
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = bands
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = 0.0  # Nyquist
    options.use_energy = False
    options.htk_compat = True
    extractor = knf.OnlineFbank(options)
    centred = np.pad(clip - clip.mean(), (0, max(0, _WINDOW - len(clip))))
    extractor.accept_waveform(SAMPLE_RATE, centred)
    extractor.input_finished()
    return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])
