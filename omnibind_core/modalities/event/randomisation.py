"""Events as other event cameras would have delivered them: domain randomisation (Tobin et al. 2017)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from omnibind_core.modalities.base import Events
from omnibind_core.modalities.event import corruption

_SENSORS = ((128, 128), (240, 180), (346, 260), (640, 480), (304, 240))  # DVS128, DAVIS240, DAVIS346, DVXplorer, ATIS
_LEAST = 100


def randomise(raw: Events, rng: np.random.Generator) -> Events:
    """Another sensor size, distance, contrast threshold, bias, rate and noise, beside what augmentation does.

    A larger sensor sees the thing in more pixels or smaller, each event on one of the pixels that the old one spans. A
    higher threshold keeps down to a tenth of the events, edges of less contrast first; one polarity may fire less.
    """
    events = corruption.augment(raw, rng)
    width, height = _SENSORS[int(rng.integers(len(_SENSORS)))]
    scale = rng.uniform(0.5, 1.2) * min(width / events.width, height / events.height)
    times = max(1, round(scale * rng.uniform(0.5, 1.5)))  # a longer edge moves over more pixels
    events = corruption._select(events, np.repeat(np.arange(len(events)), times))
    spread = rng.uniform(0, 1, (2, len(events)))
    x = (events.x + spread[0] - events.width / 2) * scale + width / 2
    y = (events.y + spread[1] - events.height / 2) * scale + height / 2
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # Pixels on strong edges fire often: they are the last that a higher threshold silences.
    pixel = events.y.astype(np.int64) * events.width + events.x
    busy = np.bincount(pixel, minlength=events.width * events.height)[pixel].astype(np.float64)
    chance = np.exp(rng.uniform(np.log(0.1), 0)) * (busy / busy.mean()) ** rng.uniform(0, 1)
    if rng.random() < 0.3:
        chance = chance * np.where(events.p == int(rng.integers(2)), rng.uniform(0.1, 1), 1.0)
    kept = inside & (rng.random(len(events)) < chance)
    if kept.sum() < min(_LEAST, inside.sum()):
        kept = inside
    if not kept.any():
        return events
    t = np.rint((events.t[kept] - events.t[kept][0]) * np.exp(rng.uniform(-0.7, 0.7))).astype(events.t.dtype)
    seen = replace(
        events,
        x=x[kept].astype(np.uint16),
        y=y[kept].astype(np.uint16),
        t=t,
        p=events.p[kept],
        width=width,
        height=height,
    )
    noise = corruption._background(seen, round(np.exp(rng.uniform(np.log(0.01), np.log(0.5))) * len(seen)), rng)
    return corruption._merge(seen, noise)
