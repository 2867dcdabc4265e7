"""Sound files: by libsndfile, and through PyAV (FFmpeg) what it does not know, such as the sound track of a video.

A file is read block by block, so what its header claims allocates nothing. Of a file that was cut off, what is whole is
used, and a warning says how much that is.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError, MissingDependencyError
from omnibind_core.modalities.base import Sound
from omnibind_core.optional import require

_log = logging.getLogger(__name__)

BY_SNDFILE = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au", ".snd",
    ".voc",
)  # fmt: skip
BY_AV = (".m4a", ".aac", ".mp4", ".mov", ".mkv", ".webm", ".avi", ".wma", ".3gp")
MAX_CHANNELS = 64
LONGEST = 600.0  # s that are used of a longer file

_BLOCK = 1 << 14  # samples of all channels that are read at once; of a damaged FLAC file the last block is lost
# What libsndfile found of the sizes in the header: "data : 88200 (should be 44100)".
_SIZES = re.compile(r"(?:data|SSND|riff|Data Size)\s*: (\d+) \(should be (\d+)\)")
_CUT = re.compile(r"truncated|does not match value from 'ds64'")
_UNKNOWN_SIZE = 0x7FFFFFFF  # and above stands in the header of what was recorded without knowing its length
_GUESSED = ("aac", "mp3")  # FFmpeg's names of formats without a length: it guesses one by the rate of bits
_SHORT = 0.98  # of the length that the header claims; encoders pad it by some ms
_LARGEST_PAGE = 27 + 255 + 255 * 255  # bytes of an Ogg page
_LAST_PAGE = 4  # flag of it


def read(path: Path) -> Sound:
    """Reads a file at its own sample rate; channels are averaged.

    Raises:
        InvalidInputError: Nothing in it can be decoded, or it has no sound.
        MissingDependencyError: It takes PyAV, which is not installed.
    """
    if path.suffix.lower() in BY_AV:
        return _read_av(path)
    try:
        return _read_sndfile(path)
    except InvalidInputError as error:
        try:
            sound = _read_av(path)
        except (InvalidInputError, MissingDependencyError):
            raise error from None
        _log.warning("[%s] damaged, or in another format than its name says: used %.2f s", path, sound.duration)
        return sound


def _read_sndfile(path: Path) -> Sound:
    soundfile = require("soundfile", "Reading sound files")
    errors = (soundfile.SoundFileError, RuntimeError, OSError)
    try:
        file = soundfile.SoundFile(path)
    except errors as error:
        raise _undecodable(path, error) from error
    with file:
        if file.format == "RAW":  # it takes any bytes for µ-law if the name ends in .au or .snd
            raise InvalidInputError(str(path), "a file without a header", "a sound file")
        blocks = _Blocks(path, file.samplerate, file.channels)
        with contextlib.suppress(*errors):  # the end of what is whole
            while blocks.wants_more and len(block := file.read(_BLOCK // file.channels, "float32", always_2d=True)):
                blocks.add(block)
        claimed = file.frames / file.samplerate
        sizes = _SIZES.search(file.extra_info)
        if sizes and int(sizes[2]) < int(sizes[1]) < _UNKNOWN_SIZE:
            claimed *= int(sizes[1]) / int(sizes[2])
        cut = _CUT.search(file.extra_info) is not None or (file.format == "OGG" and not _ends_whole(path))
    return blocks.sound(claimed, cut)


def _read_av(path: Path) -> Sound:
    av = require("av", f"Reading sound from {path.suffix or path.name}")
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise InvalidInputError(str(path), "no sound track", "a sound file, or a video with sound")
            stream = container.streams.audio[0]
            claimed = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
            claimed = 0.0 if container.format.name in _GUESSED else claimed
            blocks = None
            with contextlib.suppress(av.FFmpegError):  # the end of what is whole
                planar = av.AudioResampler(format="fltp")  # channels and rate stay
                for block in _planes(container, stream, planar):
                    blocks = blocks or _Blocks(path, planar.rate, len(block))
                    blocks.add(block.T)
                    if not blocks.wants_more:
                        break
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise _undecodable(path, error) from error
    if blocks is None:
        raise InvalidInputError(str(path), "a sound track in which nothing can be decoded", "a sound file")
    return blocks.sound(claimed)


def _planes(container: Any, stream: Any, planar: Any) -> Iterator[NDArray[np.float32]]:
    """Blocks ``[channels, T]``."""
    for frame in container.decode(stream):
        for block in planar.resample(frame):
            yield block.to_ndarray()


class _Blocks:
    """Gathers blocks ``[T, channels]`` as mono sound."""

    def __init__(self, path: Path, rate: int, channels: int) -> None:
        if channels > MAX_CHANNELS:
            raise InvalidInputError(str(path), f"{channels} channels", f"at most {MAX_CHANNELS}")
        self._path = path
        self._rate = rate
        self._parts: list[NDArray[np.float32]] = []
        self._frames = 0

    @property
    def wants_more(self) -> bool:
        return self._frames < LONGEST * self._rate

    def add(self, block: NDArray[np.float32]) -> None:
        self._parts.append(block.mean(axis=1))
        self._frames += len(block)

    def sound(self, claimed: float, cut: bool = False) -> Sound:
        """All of them; warns if the file claims more seconds, or is known to be cut off."""
        if not self._parts:
            raise InvalidInputError(str(self._path), "no samples that can be decoded", "a sound file")
        samples = np.concatenate(self._parts)[: int(LONGEST * self._rate)]
        seconds = len(samples) / self._rate
        if not self.wants_more:
            if claimed > seconds / _SHORT:
                _log.warning("[%s] long: used the first %.0f s of %.0f s", self._path, seconds, claimed)
        elif cut or seconds < _SHORT * claimed:
            of = f" of {claimed:.2f} s" if seconds < _SHORT * claimed else ""
            _log.warning("[%s] cut off: used %.2f s%s, as far as it is whole", self._path, seconds, of)
        return Sound(samples, self._rate)


def _ends_whole(path: Path) -> bool:
    """Whether an Ogg file ends with a whole page that is marked as the last."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _LARGEST_PAGE, 0))
        tail = file.read()
    page = tail[max(tail.rfind(b"OggS"), 0) :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return bool(segments) and bool(page[5] & _LAST_PAGE) and len(page) >= 27 + len(segments) + sum(segments)


def _undecodable(path: Path, error: Exception) -> InvalidInputError:
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None)  # without the path
    return InvalidInputError(str(path), f"a file that cannot be decoded ({reason or error})", "a sound file")
