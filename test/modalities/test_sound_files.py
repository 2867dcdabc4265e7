"""Sound files as libsndfile and FFmpeg write them: whole, cut off, with headers that promise more than there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError, MissingDependencyError
from omnibind_core.modalities.audio import reading

soundfile = pytest.importorskip("soundfile")
AUDIO = modalities.get("audio")
RATE = 48000
SECONDS = 2.0
NOISE = np.random.default_rng(0).normal(0, 0.02, round(SECONDS * RATE))
TONE = (np.sin(2 * np.pi * 440 * np.arange(round(SECONDS * RATE)) / RATE) / 2 + NOISE).astype(np.float32)
STEREO = np.stack([TONE * 1.5, TONE * 0.5], axis=1)  # whose mean is the tone

SNDFILE = [
    ("a.wav", "WAV", "PCM_U8", 0.01),
    ("a.wav", "WAV", "PCM_24", 1e-6),
    ("a.wav", "WAV", "PCM_32", 1e-6),
    ("a.wav", "WAV", "FLOAT", 1e-6),
    ("a.wav", "WAV", "DOUBLE", 1e-6),
    ("a.wav", "WAV", "ULAW", 0.03),
    ("a.wav", "WAV", "MS_ADPCM", 0.1),
    ("a.wav", "WAVEX", "PCM_16", 1e-4),
    ("a.rf64", "RF64", "PCM_16", 1e-4),
    ("a.w64", "W64", "PCM_16", 1e-4),
    ("a.aif", "AIFF", "PCM_16", 1e-4),
    ("a.aifc", "AIFF", "FLOAT", 1e-6),
    ("a.caf", "CAF", "PCM_16", 1e-4),
    ("a.caf", "CAF", "ALAC_16", 1e-4),
    ("a.au", "AU", "PCM_16", 1e-4),
    ("a.voc", "VOC", "PCM_16", 1e-4),
    ("a.flac", "FLAC", "PCM_24", 1e-6),
    ("a.ogg", "OGG", "VORBIS", 0.1),
    ("a.opus", "OGG", "OPUS", 0.2),
    ("a.mp3", "MP3", "MPEG_LAYER_III", 0.1),
]
FFMPEG = [
    ("a.m4a", "aac", {"movflags": "faststart"}),
    ("a.aac", "aac", {}),
    ("a.mp4", "aac", {"movflags": "faststart"}),
    ("a.mkv", "aac", {}),
    ("a.webm", "libopus", {}),
]


def write(path: Path, kind: str, subtype: str) -> Path:
    soundfile.write(path, STEREO, RATE, format=kind, subtype=subtype)
    return path


def encode(path: Path, codec: str, options: dict[str, str] | None = None) -> Path:
    """Written by FFmpeg; ``.mp4`` and ``.mkv`` with a picture."""
    av = pytest.importorskip("av")
    with av.open(path, "w", format="adts" if path.suffix == ".aac" else None, options=options or {}) as container:
        video = path.suffix in (".mp4", ".mkv")
        if video:
            stream = container.add_stream("mpeg4", rate=1, width=16, height=16, pix_fmt="yuv420p")
        if codec:
            sound = container.add_stream(codec, rate=RATE, layout="stereo")
        if video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
            container.mux(stream.encode())
        if codec:
            resampler = av.AudioResampler(format=sound.format.name)
            for start in range(0, len(STEREO), 1024):
                block = np.ascontiguousarray(STEREO[start : start + 1024].T)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = RATE, start
                for part in resampler.resample(frame):
                    container.mux(sound.encode(part))
            container.mux(sound.encode())
    return path


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


def cut(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * share)])
    return path


@pytest.mark.parametrize(("name", "kind", "subtype", "error"), SNDFILE)
def test_what_libsndfile_writes(
    name: str, kind: str, subtype: str, error: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = AUDIO.load(write(tmp_path / name, kind, subtype))
    assert sound.sample_rate == RATE and sound.duration == pytest.approx(SECONDS, abs=0.04)
    assert np.abs(sound.samples[2000:-3000] - TONE[2000 : len(sound.samples) - 3000]).max() < error
    assert not caplog.records


@pytest.mark.parametrize(("name", "kind", "subtype", "error"), SNDFILE)
def test_what_was_cut_off_is_used_as_far_as_it_is_whole(
    name: str, kind: str, subtype: str, error: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = AUDIO.load(cut(write(tmp_path / name, kind, subtype)))
    assert 0.3 * SECONDS < sound.duration < 0.65 * SECONDS
    assert np.abs(sound.samples[2000:-3000] - TONE[2000 : len(sound.samples) - 3000]).max() < error
    assert f"used {sound.duration:.2f} s" in caplog.text and name in caplog.text


@pytest.mark.parametrize(("name", "codec", "options"), FFMPEG)
def test_what_ffmpeg_writes(
    name: str, codec: str, options: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = encode(tmp_path / name, codec, options)
    sound = AUDIO.load(path)
    assert sound.sample_rate == RATE and sound.duration == pytest.approx(SECONDS, abs=0.06)
    assert level(sound.samples) == pytest.approx(level(TONE), rel=0.05)
    spectrum = np.abs(np.fft.rfft(sound.samples[:RATE]))
    assert spectrum.argmax() == 440
    assert not caplog.records
    part = AUDIO.load(cut(path))
    assert 0.4 * SECONDS < part.duration < 0.7 * SECONDS
    if name != "a.aac":  # which has no length that it could fall short of
        assert f"used {part.duration:.2f} s of {SECONDS:.1f}" in caplog.text


def test_a_wrong_ending_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = encode(tmp_path / "a.m4a", "aac").rename(tmp_path / "a.wav")
    assert AUDIO.load(path).duration == pytest.approx(SECONDS, abs=0.06)
    assert "in another format than its name says" in caplog.text


def test_a_header_that_promises_years_allocates_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.flac", "FLAC", "PCM_16")
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F  # number of samples: 36 bits
    data[22:26] = b"\xff" * 4
    path.write_bytes(data)
    assert AUDIO.load(path).duration == pytest.approx(SECONDS, abs=0.4)
    assert "of 1431655.77 s" in caplog.text


def test_a_recording_without_a_length_in_its_header_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.wav", "WAV", "PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    assert AUDIO.load(path).duration == SECONDS
    assert not caplog.records


def test_of_a_long_file_the_start_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST", 0.5)
    for path in (write(tmp_path / "a.wav", "WAV", "PCM_16"), encode(tmp_path / "a.mkv", "aac")):
        caplog.clear()
        assert AUDIO.load(path).duration == 0.5
        assert "long: used the first 0 s of 2 s" in caplog.text


@pytest.mark.parametrize("name", ["a.wav", "a.opus", "a.m4a", "a.mkv"])
def test_what_is_no_sound_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("no sound at all " * 100)
    with pytest.raises(
        InvalidInputError, match=rf"{name}\] got a file that cannot be decoded \(.+\), expected a sound"
    ):
        AUDIO.load(tmp_path / name)


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="no sound track"):
        AUDIO.load(encode(tmp_path / "a.mp4", ""))
    with pytest.raises(InvalidInputError, match="cannot be decoded"):  # its table of contents is at the end
        AUDIO.load(cut(encode(tmp_path / "a.m4a", "aac")))
    np.save(tmp_path / "a.npy", np.zeros(9, np.int16))  # no rate stands in it
    with pytest.raises(InvalidInputError, match=r"ending in '\.npy', expected a sound file"):
        AUDIO.load(tmp_path / "a.npy")
    soundfile.write(tmp_path / "a.wav", np.zeros((9, 65)), RATE)
    with pytest.raises(InvalidInputError, match="65 channels, expected at most 64"):
        AUDIO.load(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 1)), RATE)
    with pytest.raises(InvalidInputError, match="no samples"):
        AUDIO.load(tmp_path / "a.wav")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"Reading sound from .m4a needs .*pip install av"):
        AUDIO.load(tmp_path / "a.m4a")
    (tmp_path / "a.wav").write_text("text")
    with pytest.raises(InvalidInputError, match="Format not recognised"):
        AUDIO.load(tmp_path / "a.wav")
