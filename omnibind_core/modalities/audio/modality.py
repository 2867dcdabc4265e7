"""The audio modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.audio import corruption, drawing, processing, reading
from omnibind_core.modalities.audio.processing import AudioPreset
from omnibind_core.modalities.base import Corruptions, Modality, Role, Sound, positive, readable_file
from omnibind_core.modalities.drawing import Picture
from omnibind_core.modalities.objects import as_array

MIN_RATE, MAX_RATE = 1000, 768_000  # Hz
MAX_PEAK = 4.0  # resampling and lossy decoding overshoot 1; far more means another scale, such as 16-bit integers
JOIN_TOLERANCE = 0.02  # s by which a stamp may miss the end of the chunk before and still continue it


class Audio(Modality[Sound, AudioPreset]):
    """Sound. Raw form: :class:`~omnibind_core.modalities.base.Sound`, mono ``float32 [T]``, -1..1."""

    name: ClassVar[str] = "audio"
    role: ClassVar[Role] = Role.STUDENT
    is_stream: ClassVar[bool] = True
    default_window: ClassVar[float] = 2.0
    topic_ending: ClassVar[str] = "audio"
    suffixes: ClassVar[tuple[str, ...]] = reading.BY_SNDFILE + reading.BY_AV
    presets: ClassVar[dict[str, AudioPreset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[Sound]] = corruption.CORRUPTIONS
    needs: ClassVar[dict[str, str]] = dict.fromkeys(reading.BY_AV, "av")
    units: ClassVar[Mapping[str, str]] = {"sample_rate": "Hz; an array needs it"}

    def check(self, raw: Sound, source: str) -> Sound:
        """Accepts ``[T]`` or ``[T, channels]``, float on -1..1 or 16-bit integers; channels are averaged.

        Silence is valid: a quiet room is a fact. Values slightly beyond -1..1 are cut off.
        """
        if not isinstance(raw, Sound) or not isinstance(raw.samples, np.ndarray):
            raise InvalidInputError(source, type(raw).__name__, "a Sound with samples in a NumPy array")
        rate = raw.sample_rate
        if not (isinstance(rate, (int, np.integer)) and MIN_RATE <= rate <= MAX_RATE):
            raise InvalidInputError(source, f"sample rate {rate}", f"whole Hz from {MIN_RATE} to {MAX_RATE}")
        samples = raw.samples
        channels = samples.shape[1] if samples.ndim == 2 else 1
        if samples.ndim not in (1, 2) or samples.size == 0 or channels > reading.MAX_CHANNELS:
            raise InvalidInputError(source, f"samples of shape {list(samples.shape)}", "[T] or [T, channels], T > 0")
        if samples.dtype == np.int16:
            samples = samples / np.float32(32768)
        elif samples.dtype.kind != "f":
            raise InvalidInputError(source, f"samples of dtype {samples.dtype}", "float32 or int16")
        samples = samples.mean(axis=1) if samples.ndim == 2 else samples
        peak = float(max(samples.max(), -samples.min()))
        if not peak <= MAX_PEAK:  # also NaN
            raise InvalidInputError(source, f"samples that reach {peak}", "finite samples on -1..1")
        samples = samples.astype(np.float32, copy=False)
        if peak > 1:
            samples = np.clip(samples, -1, 1)
        return raw if samples is raw.samples else Sound(samples, int(rate))

    def load(self, path: Path) -> Sound:
        """Reads a sound file, or a video's sound track, at its own sample rate: see :mod:`.reading`."""
        readable_file(path, self.suffixes, "a sound file")
        return self.check(reading.read(path), str(path))

    def convert(self, given: Any, source: str, **units: Any) -> Sound:
        """Accepts a :class:`Sound`, or an array ``[T]``, ``[T, channels]`` or ``[channels, T]`` with ``sample_rate``.

        Floats are on -1..1, ``int16`` and ``int32`` of full scale, ``uint8`` around 128, as in WAV files.
        """
        rate = positive(units, "sample_rate", source)
        if rate is None and not isinstance(given, Sound):
            found = f"{type(given).__name__} without a sample rate"
            raise InvalidInputError(source, found, "a sound file, or an array with sample_rate= in Hz")
        samples = as_array(given.samples if isinstance(given, Sound) else given, source)
        if samples.ndim == 2 and samples.shape[0] <= reading.MAX_CHANNELS < samples.shape[1]:
            samples = samples.T
        if samples.dtype == np.uint8:
            samples = (samples.astype(np.float32) - 128) / 128
        elif samples.dtype == np.int32 and samples.size:
            peak = int(np.abs(samples.astype(np.int64)).max())
            if 0 < peak < 1 << 24:
                raise InvalidInputError(source, f"int32 samples up to {peak}, of 16, 24 or 32 bits", "int16 or float")
            samples = samples / np.float32(1 << 31)
        found_rate = given.sample_rate if rate is None else int(rate) if rate.is_integer() else rate
        return self.check(Sound(samples, found_rate), source)  # type: ignore[arg-type]  # the check refuses fractions

    def process(self, raw: Sound, preset: AudioPreset) -> NDArray[np.float32]:
        """Sound to log-mel patches or clips."""
        return processing.process(raw, preset)

    def augment(self, raw: Sound, rng: np.random.Generator) -> Sound:
        """Another start, loudness and background."""
        return corruption.augment(raw, rng)

    def noise_only(self, raw: Sound, rng: np.random.Generator) -> Sound:
        """White noise."""
        return corruption.noise_only(raw, rng)

    def draw(self, raw: Sound, height: int = 240) -> Picture:
        """A spectrogram: see :func:`.drawing.draw`."""
        return drawing.draw(raw, height)

    def join(self, chunks: Sequence[tuple[int, Sound]], end_ns: int, duration: float) -> Sound:
        """Puts chunks on one time line and cuts the window; see the base class.

        A chunk whose stamp misses the end of the one before by at most :data:`JOIN_TOLERANCE` continues it without a
        seam. Larger gaps are zeros; where chunks overlap, the later one counts.
        """
        rates = {chunk.sample_rate for _, chunk in chunks}
        if len(rates) > 1:
            raise InvalidInputError("audio stream", f"sample rates {sorted(rates)} Hz", "one rate")
        rate = rates.pop() if rates else processing.SAMPLE_RATE
        length = round(duration * rate)
        window_start = end_ns - round(duration * 1e9)
        timeline = np.zeros(length, np.float32)
        first, last, expected = length, 0, None
        for stamp, chunk in chunks:
            start = round((stamp - window_start) * rate / 1e9)
            if expected is not None and abs(start - expected) <= JOIN_TOLERANCE * rate:
                start = expected
            expected = start + len(chunk.samples)
            low, high = max(start, 0), min(expected, length)
            if low < high:
                timeline[low:high] = chunk.samples[low - start : high - start]
                first, last = min(first, low), max(last, high)
        if first >= last:
            raise InvalidInputError("audio stream", "no samples in the window", f"sound in the last {duration} s")
        return Sound(timeline[first:last], rate)


MODALITY = Audio()
