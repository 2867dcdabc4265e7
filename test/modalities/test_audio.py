"""Audio: the two front ends against straightforward references, checks, windows cut out of a stream."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Sound
from omnibind_core.modalities.audio import processing

AUDIO = modalities.get("audio")
RATE = 16000


def tone(hertz: float, seconds: float, rate: int = RATE) -> Sound:
    return Sound(np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32) / 2, rate)


def test_log_mel_equals_a_plain_loop(rng: np.random.Generator) -> None:
    samples = rng.uniform(-1, 1, 4000).astype(np.float32)

    def mel(hertz: float) -> float:
        return 1127 * np.log(1 + hertz / 700)

    edges = [mel(125) + i * (mel(7500) - mel(125)) / 65 for i in range(66)]
    expected = []
    for start in range(0, len(samples) - 400 + 1, 160):
        frame = [samples[start + i] * (0.5 - 0.5 * np.cos(2 * np.pi * i / 400)) for i in range(400)]
        magnitude = np.abs(np.fft.rfft(np.array(frame + [0] * 112)))
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k, value in enumerate(magnitude):
                at = mel(k * 8000 / 256)
                if low < at < high:
                    total += value * ((at - low) / (centre - low) if at < centre else (high - at) / (high - centre))
            row.append(np.log(total + 0.001))
        expected.append(row)
    assert processing.log_mel(samples) == pytest.approx(np.array(expected), abs=1e-3)


def test_kaldi_filter_bank_equals_the_library(rng: np.random.Generator) -> None:
    knf = pytest.importorskip("kaldi_native_fbank")
    samples = rng.uniform(-0.5, 0.5, RATE).astype(np.float32)
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = 40
    options.mel_opts.low_freq = 20
    options.mel_opts.high_freq = 0
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(RATE, samples)
    bank.input_finished()
    expected = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])
    assert processing.kaldi_filter_bank(samples, 40) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("seconds", "patches"), [(0.1, 1), (0.975, 1), (0.98, 2), (1.455, 2), (5.0, 10)])
def test_yamnet_patches(seconds: float, patches: int) -> None:
    sound = tone(440, seconds)
    views = AUDIO.process(sound, AUDIO.preset("yamnet"))
    assert views.shape == (patches, 96, 64)
    mel = processing.log_mel(sound.samples)[:96]
    whole = len(mel) if seconds >= 0.96 else len(mel) - 2  # the last frames of a short sound reach into its padding
    assert np.array_equal(views[0, :whole], mel[:whole])
    assert views[-1].dtype == np.float32
    if seconds == 0.1:
        assert views[0, 20:] == pytest.approx(np.log(0.001))
    if patches > 2:
        assert np.array_equal(views[1, :48], views[0, 48:])


def test_imagebind_clips() -> None:
    preset = AUDIO.preset("imagebind")
    floor = (0 + 4.268) / 9.138
    clips = AUDIO.process(tone(1000, 1.0), preset)
    assert np.array_equal(clips[0], clips[2])  # shorter than a clip
    assert clips[:, :, :, 98:] == pytest.approx(floor)
    sound = tone(1000, 5.0)
    clips = AUDIO.process(sound, preset)
    assert clips[:, :, :, 198:] == pytest.approx(floor)
    middle = AUDIO.process(Sound(sound.samples[24000:56000], RATE), preset)[0]
    assert np.array_equal(clips[1], middle)
    loudest = clips[0, 0, :, 100].argmax()
    centre = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 130)[1:-1]
    assert abs(700 * (np.exp(centre[loudest] / 1127) - 1) - 1000) < 40


@pytest.mark.parametrize("preset", ["yamnet", "imagebind"])
@pytest.mark.parametrize("samples", [np.zeros(32000), np.zeros(1), np.full(100, 0.5), np.zeros(1600)])
def test_silent_and_short_sounds(preset: str, samples: np.ndarray) -> None:
    sound = AUDIO.check(Sound(samples.astype(np.float32), RATE), "microphone")
    views = AUDIO.process(sound, AUDIO.preset(preset))
    assert np.isfinite(views).all() and len(views) >= 1


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_the_tone(rate: int) -> None:
    at_16k, at_rate = (
        processing.resample(tone(700, 0.5).samples, RATE),
        processing.resample(tone(700, 0.5, rate).samples, rate),
    )
    assert len(at_rate) == pytest.approx(8000, abs=1)
    assert at_rate[500:7500] == pytest.approx(at_16k[500:7500], abs=0.01)


def test_check_makes_mono_float() -> None:
    stereo = np.stack([np.full(10, 16384), np.zeros(10)], axis=1).astype(np.int16)
    sound = AUDIO.check(Sound(stereo, 8000), "microphone")
    assert sound.samples.dtype == np.float32 and sound.samples == pytest.approx(np.full(10, 0.25))
    good = tone(100, 0.1)
    assert AUDIO.check(good, "microphone") is good
    assert AUDIO.check(Sound(np.array([1.5, -1.2, 0.5]), RATE), "microphone").samples.tolist() == [1, -1, 0.5]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0, np.float32), RATE, r"shape \[0\]"),
        (np.zeros((4, 4, 4), np.float32), RATE, r"shape \[4, 4, 4\]"),
        (np.zeros((2, 32000), np.float32), RATE, r"shape \[2, 32000\]"),
        (np.array([0, np.nan], np.float32), RATE, "reach nan"),
        (np.array([0, -np.inf], np.float32), RATE, "reach inf"),
        (np.array([0, 12000], np.float32), RATE, "reach 12000"),
        (np.zeros(5, np.int64), RATE, "dtype int64"),
        (np.zeros(5, np.float32), 0, "sample rate 0"),
        (np.zeros(5, np.float32), 999, "sample rate 999"),
        (np.zeros(5, np.float32), 16000.5, "sample rate 16000.5"),
    ],
)
def test_bad_sounds_are_refused(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"\[microphone\].*{message}"):
        AUDIO.check(Sound(samples, rate), "microphone")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_files(suffix: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    sound = tone(440, 0.5, 22050)
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, np.stack([sound.samples, sound.samples], axis=1), 22050)
    loaded = AUDIO.load(path)
    assert loaded.sample_rate == 22050 and loaded.duration == pytest.approx(0.5)
    assert loaded.samples[200:-200] == pytest.approx(sound.samples[200:-200], abs=0.03 if suffix == ".ogg" else 1e-4)


def chunks(sound: Sound, start_ns: int, size: int) -> list[tuple[int, Sound]]:
    return [
        (start_ns + round(i * 1e9 / sound.sample_rate), Sound(sound.samples[i : i + size], sound.sample_rate))
        for i in range(0, len(sound.samples), size)
    ]


def test_join_restores_a_chunked_sound(rng: np.random.Generator) -> None:
    sound, start = tone(300, 1.0), 1_700_000_000_000_000_000
    parts = chunks(sound, start, 500)
    jittered = [
        (stamp + int(rng.integers(-5_000_000, 5_000_000)) * (i > 0), part) for i, (stamp, part) in enumerate(parts)
    ]
    for given in (parts, jittered):
        joined = AUDIO.join(given, start + 1_000_000_000, 1.0)
        assert np.array_equal(joined.samples, sound.samples) and joined.sample_rate == RATE
    middle = AUDIO.join(parts, start + 600_000_000, 0.25)
    assert np.array_equal(middle.samples, sound.samples[5600:9600])
    assert len(AUDIO.join(parts, start + 500_000_000, 2.0).samples) == 8000  # no more than there is
    assert len(AUDIO.join(parts, start + 1_500_000_000, 2.0).samples) == 16000


def test_join_gaps_overlaps_and_errors() -> None:
    one = Sound(np.ones(1600, np.float32), RATE)  # 0.1 s
    gap = AUDIO.join([(0, one), (300_000_000, one)], 400_000_000, 1.0).samples
    assert gap.tolist() == [1] * 1600 + [0] * 3200 + [1] * 1600
    half = Sound(one.samples / 2, RATE)
    overlap = AUDIO.join([(0, one), (50_000_000, half)], 150_000_000, 1.0).samples
    assert overlap.tolist() == [1] * 800 + [0.5] * 1600
    with pytest.raises(InvalidInputError, match=r"sample rates \[8000, 16000\] Hz"):
        AUDIO.join([(0, one), (100_000_000, Sound(one.samples, 8000))], 200_000_000, 1.0)
    with pytest.raises(InvalidInputError, match="no samples in the window"):
        AUDIO.join([(0, one)], 10_000_000_000, 1.0)
    with pytest.raises(InvalidInputError, match="no samples in the window"):
        AUDIO.join([], 0, 1.0)


def test_padding_with_silence_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    loud = rng.standard_normal(15600).astype(np.float32) * 0.1
    padded = np.concatenate([loud, np.zeros(5 * 16000, np.float32)])
    patches = processing.yamnet_patches(padded)
    np.testing.assert_array_equal(patches[0], processing.yamnet_patches(loud)[0])
    assert len(patches) == 3  # those that reach into the sound


def test_silence_is_still_one_view() -> None:
    patches = processing.yamnet_patches(np.zeros(32000, np.float32))
    assert patches.shape[1:] == (96, 64) and len(patches) >= 1 and np.isfinite(patches).all()


@pytest.mark.parametrize("rate", [1000, 8000, 11025, 44_100, 48_000, 96_000, 44_056])
@pytest.mark.parametrize("seconds", [0.0001, 0.11, 0.5])
def test_resampling_is_that_of_scipy(rate: int, seconds: float, rng: np.random.Generator) -> None:
    signal = pytest.importorskip("scipy.signal")
    samples = rng.standard_normal(max(1, round(seconds * rate))).astype(np.float32)
    common = math.gcd(rate, 16_000)
    expected = signal.resample_poly(samples, 16_000 // common, rate // common)
    found = processing.resample(samples, rate)
    unsigned: Any = np.uint32(rate)  # as a header read by NumPy has it
    np.testing.assert_array_equal(processing.resample(samples, unsigned), found)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert found == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("rate", [767_999, 191_999, 700_001])
def test_a_rate_without_a_common_divisor_takes_no_long_filter(rate: int) -> None:
    pytest.importorskip("scipy.signal")
    samples = np.sin(2 * np.pi * 440 * np.arange(rate // 5) / rate).astype(np.float32)
    tracemalloc.start()
    try:
        found = processing.resample(samples, rate)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()
    assert len(found) == pytest.approx(3200, abs=1)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16_000)
    assert found[100:-100] == pytest.approx(expected[100:-100], abs=0.04)  # 0.006 % of 440 Hz after 0.2 s


def test_sound_of_usual_rates_needs_no_scipy() -> None:
    """Its import takes seconds, which the first tick with sound would wait for."""
    code = """
import sys
import numpy as np
from omnibind_core.modalities.audio import processing
for rate in (8000, 11025, 22050, 44100, 48000, 96000):
    processing.resample(np.ones(100, np.float32), rate)
assert not [name for name in sys.modules if name.partition(".")[0] == "scipy"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 5, 3), (8, 257, 64), (13, 462, 640), (200, 40_000, 9)])
def test_products_are_so_small_that_openblas_wakes_no_threads(
    rows: int, inner: int, columns: int, rng: np.random.Generator
) -> None:
    class Watched(np.ndarray):
        largest = 0

        def __matmul__(self, other: np.ndarray) -> np.ndarray:
            Watched.largest = max(Watched.largest, len(self) * other.size)
            return np.asarray(self) @ other

    left, right = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, inner), (inner, columns)))
    found = processing._product(left.view(Watched), right)
    assert found == pytest.approx(left @ right, rel=1e-4, abs=1e-3)
    assert 0 < Watched.largest <= max(1 << 18, 8 * inner)
