"""Augmentation and damage of events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Corruptions, Events

_MAX_SHIFT = 20  # pixels, as EventCLIP's augmentation
_MAX_TURN = 30.0  # degrees
_MIN_EVENTS = 100  # never fewer than this are left
_HOT_PIXELS = 10


def augment(raw: Events, rng: np.random.Generator) -> Events:
    """A shorter slice, missing events, mirror, turn, shift, background noise; polarity swapped half of the time.

    Swapping polarity is what moving the other way does to most edges.
    """
    keep = max(min(len(raw), _MIN_EVENTS), int(len(raw) * rng.uniform(0.4, 1.0)))
    start = int(rng.integers(len(raw) - keep + 1))
    events = _thin(_select(raw, slice(start, start + keep)), rng.uniform(0.5, 1.0), rng)
    if rng.random() < 0.5:
        events = replace(events, x=(events.width - 1 - events.x).astype(np.uint16))
    if rng.random() < 0.5:
        events = replace(events, p=1 - events.p)
    events = _shift(_turn(events, np.radians(rng.uniform(-_MAX_TURN, _MAX_TURN))), rng)
    return _merge(events, _background(events, round(rng.uniform(0, 0.1) * len(events)), rng))


def _select(events: Events, which: slice | NDArray[Any]) -> Events:
    return replace(events, x=events.x[which], y=events.y[which], t=events.t[which], p=events.p[which])


def _thin(events: Events, share: float, rng: np.random.Generator) -> Events:
    """Keeps a random share of the events, in time order."""
    keep = max(min(len(events), _MIN_EVENTS), int(len(events) * share))
    return _select(events, np.sort(rng.choice(len(events), keep, replace=False)))


def _turn(events: Events, angle: float) -> Events:
    """Turns the events about their middle; those that leave the sensor are dropped, unless all would."""
    x, y = events.x.astype(np.float32), events.y.astype(np.float32)
    x, y = x - x.mean(), y - y.mean()
    sin, cos = np.sin(angle), np.cos(angle)
    turned_x = cos * x - sin * y + np.mean(events.x)
    turned_y = sin * x + cos * y + np.mean(events.y)
    return _placed(events, np.rint(turned_x).astype(np.int32), np.rint(turned_y).astype(np.int32))


def _shift(events: Events, rng: np.random.Generator) -> Events:
    """Moves the events; those that leave the sensor are dropped, unless all would."""
    x = events.x.astype(np.int32) + rng.integers(-_MAX_SHIFT, _MAX_SHIFT + 1)
    y = events.y.astype(np.int32) + rng.integers(-_MAX_SHIFT, _MAX_SHIFT + 1)
    return _placed(events, x, y)


def _placed(events: Events, x: NDArray[np.int32], y: NDArray[np.int32]) -> Events:
    inside = (x >= 0) & (x < events.width) & (y >= 0) & (y < events.height)
    if not inside.any():
        return events
    return _select(replace(events, x=x.astype(np.uint16), y=y.astype(np.uint16)), inside)


def _background(events: Events, number: int, rng: np.random.Generator) -> Events:
    """Background activity: that many events, uniform over the sensor and over the time of the given ones."""
    x = rng.integers(0, events.width, number, np.uint16)
    y = rng.integers(0, events.height, number, np.uint16)
    t = np.sort(rng.integers(events.t[0], events.t[-1] + 1, number, np.int64))
    return Events(x, y, t, rng.integers(0, 2, number, np.uint8), events.width, events.height)


def _merge(first: Events, second: Events) -> Events:
    t = np.concatenate([first.t, second.t])
    order = np.argsort(t, kind="stable")
    x, y = np.concatenate([first.x, second.x]), np.concatenate([first.y, second.y])
    p = np.concatenate([first.p, second.p])
    return Events(x[order], y[order], t[order], p[order], first.width, first.height)


def _noise(events: Events, rng: np.random.Generator) -> Events:
    """Background activity of twice as many events."""
    return _merge(events, _background(events, 2 * len(events), rng))


def _blank(events: Events, rng: np.random.Generator) -> Events:
    """Lens covered: only background activity."""
    return _background(events, max(1, len(events) // 10), rng)


def _sparse(events: Events, rng: np.random.Generator) -> Events:
    """One event in twenty is left."""
    return _thin(events, 0.05, rng)


def _hot_pixels(events: Events, rng: np.random.Generator) -> Events:
    """Ten stuck pixels that fire as often as all others together."""
    stuck = _background(events, len(events), rng)
    spots = rng.integers(0, len(events), _HOT_PIXELS)
    which = spots[rng.integers(0, _HOT_PIXELS, len(events))]
    return _merge(events, replace(stuck, x=stuck.x[which], y=stuck.y[which]))


CORRUPTIONS: Corruptions[Events] = {
    "noise": _noise,
    "blank": _blank,
    "sparse": _sparse,
    "hot_pixels": _hot_pixels,
}


def noise_only(events: Events, rng: np.random.Generator) -> Events:
    """As many events, anywhere."""
    x = rng.integers(0, events.width, len(events), np.uint16)
    y = rng.integers(0, events.height, len(events), np.uint16)
    return replace(events, x=x, y=y, p=rng.integers(0, 2, len(events), np.uint8))
