"""What an event camera sees of a photograph while it moves, as N-Caltech101 was made (Orchard et al. 2015)."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Events

# Contrast threshold in log intensity and its spread between pixels, the nominal values of v2e (Hu et al. 2021).
THRESHOLD, THRESHOLD_SPREAD = 0.2, 0.03
# Intensity added before the logarithm: dark current, and no infinite contrast at black.
DARK = 0.05
# Longest way in pixels between two intensity samples, so that no edge is jumped over.
STEP = 0.25


def simulate(
    photo: NDArray[np.uint8],
    rng: np.random.Generator,
    size: tuple[int, int] = (128, 128),
    duration_us: int = 200_000,
    amplitude: float = 2.0,
) -> Events:
    """Simulates three saccades along a triangle that ends where it began, so that the window can be repeated.

    A pixel fires whenever its log intensity has moved by its threshold since its last event.

    Args:
        photo: ``uint8 [H, W, 3]`` (RGB) or ``[H, W]``.
        rng: Source of the direction of the first saccade and of the pixels' thresholds.
        size: Width and height of the sensor, pixels; the photograph is fitted into it.
        duration_us: Length, microseconds.
        amplitude: Length of each saccade, pixels.

    Returns:
        The events, in time order.
    """
    width, height = size
    brightness = _log_intensity(photo, width, height)
    angle = rng.uniform(0, 2 * np.pi)
    corners = amplitude / np.sqrt(3) * np.exp(1j * (angle + 2 * np.pi / 3 * np.arange(4)))
    corners -= corners[0]
    steps = int(np.ceil(amplitude / STEP))
    path = np.concatenate([np.linspace(a, b, steps, endpoint=False) for a, b in itertools.pairwise(corners)])
    path = np.append(path, corners[-1])
    times = np.linspace(0, duration_us, len(path), endpoint=True)
    threshold = thresholds(width, height, rng)
    reference = brightness.copy()
    before: NDArray[Any] = brightness
    found: list[NDArray[np.int64]] = []
    for place, start, end in zip(path[1:], times, times[1:], strict=False):
        move = np.array([[1, 0, place.real], [0, 1, place.imag]], dtype=np.float64)
        now: NDArray[Any] = cv2.warpAffine(
            brightness, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        found.extend(crossings(reference, before, now, threshold, start, end))
        before = now
    return gathered(found, width, height)


def thresholds(width: int, height: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Change of log intensity at which each pixel fires, ``float32 [H, W]``."""
    return np.clip(rng.normal(THRESHOLD, THRESHOLD_SPREAD, (height, width)), 0.05, None).astype(np.float32)


def gathered(parts: list[NDArray[np.int64]], width: int, height: int) -> Events:
    """What :func:`crossings` found, in time order."""
    x, y, t, p = np.concatenate(parts, axis=1) if parts else np.zeros((4, 0), dtype=np.int64)
    order = np.argsort(t, kind="stable")
    return Events(
        x[order].astype(np.uint16), y[order].astype(np.uint16), t[order], p[order].astype(np.uint8), width, height
    )


def _log_intensity(photo: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) if photo.ndim == 3 else photo
    scale = min(width / grey.shape[1], height / grey.shape[0])
    fitted = cv2.resize(
        grey,
        (max(round(grey.shape[1] * scale), 1), max(round(grey.shape[0] * scale), 1)),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    left, top = (width - fitted.shape[1]) // 2, (height - fitted.shape[0]) // 2
    canvas = cv2.copyMakeBorder(
        fitted, top, height - fitted.shape[0] - top, left, width - fitted.shape[1] - left, cv2.BORDER_REPLICATE
    )
    return log_intensity(np.asarray(canvas, np.float32) / np.float32(255))


def log_intensity(brightness: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a pixel compares, of its brightness, 0..1."""
    return np.asarray(np.log(brightness + DARK), np.float32)


def crossings(
    reference: NDArray[np.float32],
    before: NDArray[np.float32],
    now: NDArray[np.float32],
    threshold: NDArray[np.float32],
    start: float,
    end: float,
) -> list[NDArray[np.int64]]:
    """Events between two samples of log intensity; moves ``reference`` to each pixel's last event.

    Args:
        reference: ``float32 [H, W]``, log intensity at each pixel's last event; changed in place.
        before: ``float32 [H, W]``, first sample.
        now: ``float32 [H, W]``, second sample.
        threshold: ``float32 [H, W]``, of each pixel; see :func:`thresholds`.
        start: When the first sample was taken, microseconds.
        end: The second.

    Returns:
        ``int64 [4, N]`` each: x, y, t, p.
    """
    found: list[NDArray[np.int64]] = []
    while True:
        change = now - reference
        fires = np.abs(change) >= threshold
        if not fires.any():
            return found
        y, x = np.nonzero(fires)
        sign = np.sign(change[y, x])
        reference[y, x] += sign * threshold[y, x]
        slope = now[y, x] - before[y, x]
        share = np.divide(reference[y, x] - before[y, x], slope, out=np.zeros_like(slope), where=slope != 0)
        t = np.clip(start + np.clip(share, 0, 1) * (end - start), start, end - 1)
        found.append(np.stack([x, y, t.astype(np.int64), (sign > 0).astype(np.int64)]))
