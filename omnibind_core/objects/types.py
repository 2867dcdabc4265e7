"""What is told of each thing, and the settings of how things are found, followed and recognised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError
from omnibind_core.objects.regions import Volume
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.types import Prediction

PROPOSERS = ("clusters", "warm", "moving")
"""Own proposers: clusters of clouds, warm blobs of thermal pictures, moving blobs of events."""


@dataclass(frozen=True, eq=False)
class ObjectPrediction:
    """One thing at one tick.

    Attributes:
        id: Counted up from 1, never used again.
        volume: Where, at the tick.
        velocity: ``float64 [3]``, m/s in the fixed frame.
        seen_ns: Stamp of the newest evidence that it is there.
        prediction: What it is. ``label``, ``confidence``, ``labels`` and ``scores`` are those of its evidence so far
            (:mod:`omnibind_core.objects.evidence`); ``sensors``, ``embedding`` and ``similarities`` are of this tick.
            Without a sensor that says anything now, ``sensors`` is empty and the rest as it was last; if nobody has
            said anything yet it is unknown, without labels.
        sights: By sensor, all that the robot has: where it sees the thing, or why it takes no part. One that sees it
            and has no share yet waits for its turn to be encoded.
        proposers: Who found it at this tick; nobody if it only goes on.
        given: Its name, if boxes were given; else ``""``.
    """

    id: int
    volume: Volume
    velocity: NDArray[np.float64]
    seen_ns: int
    prediction: Prediction
    sights: Mapping[str, Sight] = field(repr=False)
    proposers: tuple[str, ...] = ()
    given: str = ""


@dataclass(frozen=True)
class ObjectSettings:
    """How things are found, followed and recognised.

    Attributes:
        propose: Own proposers that are asked, of :data:`PROPOSERS`.
        max_regions: Regions of a tick that are looked at, the surest; each proposer has its share.
        detection_age: s by which a detection may be older, or newer, than the tick.
        overlap: Intersection over union from which on two regions are of one thing.
        confirm: Ticks that a thing must have been found in before it is told of.
        forget: s without any evidence that a thing is there after which it is forgotten.
        max_objects: Things of which something is encoded at one tick.
        max_crops: Pictures that go through the encoders at one tick; a crop of a cloud makes several.
        refresh: s after which a sensor's view of a thing is encoded again.
        moved: The same, when it has moved or grown in the picture by this share of its size.
        memory: s within which something else wins over what a thing was taken for.
        touch_margin: m around a thing within which a hand touches it.
        top_k: Number of labels of a thing.
    """

    propose: tuple[str, ...] = PROPOSERS
    max_regions: int = 100
    detection_age: float = 0.5
    overlap: float = 0.3
    confirm: int = 2
    forget: float = 2.0
    max_objects: int = 10
    max_crops: int = 12
    refresh: float = 2.0
    moved: float = 0.5
    memory: float = 4.0
    touch_margin: float = 0.05
    top_k: int = 5

    def __post_init__(self) -> None:
        wrong = sorted(set(self.propose) - set(PROPOSERS))
        if wrong:
            raise ConfigError(f"objects: no proposer '{wrong[0]}', expected some of {', '.join(PROPOSERS)}")
        for key in ("max_regions", "confirm", "max_objects", "max_crops", "top_k"):
            if getattr(self, key) < 1:
                raise ConfigError(f"objects: {key} is {getattr(self, key)}, expected 1 or more")
        for key in ("detection_age", "forget", "refresh", "moved", "memory"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"objects: {key} is {value}, expected a positive number")
        if not 0 < self.overlap <= 1:
            raise ConfigError(f"objects: overlap is {self.overlap}, expected more than 0 and at most 1")
        if not (math.isfinite(self.touch_margin) and self.touch_margin >= 0):
            raise ConfigError(f"objects: touch_margin is {self.touch_margin}, expected 0 or more metres")
