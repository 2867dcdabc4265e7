"""Sound: our ``AudioChunk``, and the two unlike packages named ``audio_common_msgs``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Sound
from omnibind_ros.messages.fields import DecodeOptions, as_bytes
from omnibind_ros.messages.registry import decodes

AUDIO_CHUNK = "omnibind_ros/msg/AudioChunk"
AUDIO_STAMPED = "audio_common_msgs/msg/AudioStamped"
AUDIO_DATA_STAMPED = "audio_common_msgs/msg/AudioDataStamped"
AUDIO_DATA = "audio_common_msgs/msg/AudioData"
AUDIO_INFO = "audio_common_msgs/msg/AudioInfo"

# By GStreamer's names, as in the AudioInfo of ros-drivers.
SAMPLE_FORMATS: Mapping[str, str] = {
    "S8": "i1",
    "U8": "u1",
    "S16LE": "<i2",
    "S16BE": ">i2",
    "U16LE": "<u2",
    "U16BE": ">u2",
    "S32LE": "<i4",
    "S32BE": ">i4",
    "U32LE": "<u4",
    "U32BE": ">u4",
    "F32LE": "<f4",
    "F32BE": ">f4",
    "F64LE": "<f8",
    "F64BE": ">f8",
}
_RAW = ("wave", "raw", "pcm", "")


@decodes(AUDIO_CHUNK, "audio")
def audio_chunk(message: Any, modality: str, options: DecodeOptions, source: str) -> Sound:
    """Our own message; a view of it if it has one channel."""
    return _sound(np.asarray(message.samples), message.sample_rate, message.channels, options, source)


@decodes(AUDIO_STAMPED, "audio")
def audio_stamped(message: Any, modality: str, options: DecodeOptions, source: str) -> Sound:
    """The package of mgonzs13: one array per sample type, of which one is filled."""
    audio = message.audio
    arrays = (getattr(audio.audio_data, f"{t}_data") for t in ("float32", "int32", "int16", "int8", "uint8"))
    samples = next((np.asarray(values) for values in arrays if len(values)), np.zeros(0, np.float32))
    return _sound(samples, audio.info.rate, audio.info.channels, options, source)


@decodes(AUDIO_DATA_STAMPED, "audio")
def audio_data_stamped(message: Any, modality: str, options: DecodeOptions, source: str) -> Sound:
    """The package of ros-drivers, with a header."""
    return audio_data(message.audio, modality, options, source)


@decodes(AUDIO_DATA, "audio")
def audio_data(message: Any, modality: str, options: DecodeOptions, source: str) -> Sound:
    """The package of ros-drivers: bytes, whose meaning the parameters tell.

    Its ``AudioInfo`` is no help to a node: the capture node sends it once, when it starts, and does not latch it.
    """
    data = as_bytes(message.data)
    if options.coding_format.lower() not in _RAW or _is_mp3(data):
        found = "MP3" if _is_mp3(data) else f"sound coded as '{options.coding_format}'"
        raise InvalidInputError(source, found, "raw samples: start the capture with format 'wave'")
    kind = SAMPLE_FORMATS.get(options.sample_format.upper())
    if kind is None:
        expected = f"one of {', '.join(SAMPLE_FORMATS)}"
        raise InvalidInputError(source, f"sample format '{options.sample_format}'", expected)
    dtype = np.dtype(kind)
    if data.size % dtype.itemsize:
        raise InvalidInputError(source, f"{data.size} bytes of sound", f"whole samples of {options.sample_format}")
    return _sound(data.view(dtype), options.sample_rate, options.channels, options, source)


def _sound(samples: NDArray[Any], sample_rate: int, channels: int, options: DecodeOptions, source: str) -> Sound:
    """Interleaved samples of any integer or float type to mono in -1..1."""
    if channels < 1 or samples.size == 0 or samples.size % channels:
        found = f"{samples.size} samples in {channels} channels"
        raise InvalidInputError(source, found, "at least one sample in each of 1 or more channels")
    if sample_rate < 1:
        raise InvalidInputError(source, f"sample rate {sample_rate}", "1 Hz or more")
    options.limits.check("sound", samples.size / channels / sample_rate, source)
    if samples.dtype.kind == "u":
        middle = 1 << (8 * samples.dtype.itemsize - 1)
        samples = (samples.astype(np.float32) - middle) / middle
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / (1 << (8 * samples.dtype.itemsize - 1))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by the modality
        if channels > 1:
            samples = samples.reshape(-1, channels).mean(axis=1)
        return Sound(samples.astype(np.float32, copy=False), int(sample_rate))


# Headers of MPEG audio layer III: kbit/s by index for version 1 and for versions 2 and 2.5, Hz of version 1 by index.
_BITRATES = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
_SLOWER = {3: 1, 2: 2, 0: 4}  # version's code -> how much slower than version 1


def _is_mp3(data: NDArray[np.uint8]) -> bool:
    """Whether the bytes are whole frames of MP3, one after the other. Raw samples are that by chance one time in 1e6.

    Capture nodes send MP3 by default, and nothing in ``AudioData`` says so: read as samples it would be loud noise.
    """
    at, size = 0, data.size
    while at + 4 <= size:
        sync, code, rates = (int(value) for value in data[at : at + 3])
        version, bitrate, rate = code >> 3 & 3, rates >> 4, rates >> 2 & 3
        if sync != 0xFF or code >> 5 != 7 or version == 1 or code >> 1 & 3 != 1 or bitrate in (0, 15) or rate == 3:
            return False
        first = version == 3
        hertz = _RATES[rate] // _SLOWER[version]
        at += (144 if first else 72) * 1000 * _BITRATES[first][bitrate - 1] // hertz + (rates >> 1 & 1)
    return at == size and size > 0


def audio_chunk_fields(sound: Sound) -> dict[str, Any]:
    """Fields of ``omnibind_ros/AudioChunk``, without the header, whose stamp is the time of the first sample."""
    return {"sample_rate": sound.sample_rate, "channels": 1, "samples": sound.samples.astype(np.float32, copy=False)}
