"""From the raw items of the modalities to what can be shown of them: pictures, points, waveforms. NumPy only."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities import Sound
from omnibind_core.modalities.drawing import Picture, coloured, fit
from omnibind_ros.node import overlay

WIDEST = 640  # pixels; larger pictures are shrunk, for the network and the file
NARROWEST = 160  # pixels; smaller ones are enlarged
MOST_POINTS = 20_000  # larger clouds are thinned
ENVELOPE_RATE = 100  # Hz, resolution of a waveform; finer than a screen shows
QUIETEST = -100.0  # dBFS; what silence is shown as


class Envelope(NamedTuple):
    """A waveform as its limits in short intervals.

    Attributes:
        times_ns: ``int64 [T]``, beginnings of the intervals, ns.
        low: ``float32 [T]``, smallest sample in each, -1..1.
        high: ``float32 [T]``, largest one.
        level: Level of the whole piece, dBFS: 0 is a full-scale square wave.
    """

    times_ns: NDArray[np.int64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    level: float


def picture(modality: str, raw: Any) -> Picture | None:
    """What a sensor sees, as RGB ``uint8 [H, W, 3]``; ``None`` if it is nothing to look at."""
    image = overlay.picture(modality, raw)
    if image is None:
        return None
    height, width = image.shape[:2]
    if width < NARROWEST:  # a pressure array of 28 x 50 elements: the elements stay visible
        factor = -(-NARROWEST // width)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    return image if width <= WIDEST else fit(image, (max(round(height * WIDEST / width), 1), WIDEST))


def blank(size: tuple[int, int], word: str) -> Picture:
    """A dark picture of a size ``(height, width)`` with a word in it."""
    image = np.full((*size, 3), 24, np.uint8)
    height, width = size
    (wide, high), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.6 * width / wide, 0.2 * height / high)
    place = round((width - wide * scale) / 2), round((height + high * scale) / 2)
    cv2.putText(image, word, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (120, 120, 120), 1, cv2.LINE_AA)
    return image


def points(cloud: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points ``float32 [N, 3]`` and their colours ``uint8 [N, 3]``, by height; at most :data:`MOST_POINTS`."""
    cloud = cloud[:: -(-len(cloud) // MOST_POINTS)]
    height = cloud[:, 2]
    low, high = np.percentile(height, (2, 98))
    scaled = np.clip((height - low) / max(float(high - low), 1e-6), 0, 1)
    return cloud, coloured(np.round(scaled * 255).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0]


def envelope(sound: Sound, stamp_ns: int) -> Envelope:
    """The limits of a piece of sound.

    Args:
        sound: At least one sample.
        stamp_ns: Time of the first sample, ns.
    """
    samples = sound.samples
    count = max(round(sound.duration * ENVELOPE_RATE), 1)
    starts = np.linspace(0, len(samples), count, endpoint=False).astype(np.int64)
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    level = 10 * np.log10(power) if power > 0 else QUIETEST
    return Envelope(stamp_ns + starts * 1_000_000_000 // sound.sample_rate, low, high, max(float(level), QUIETEST))
