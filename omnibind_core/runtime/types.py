"""Plain data that the streaming runtime takes and gives. Times are integer nanoseconds on the sensors' clock (ROS time
on a robot, the bag's own time in a replay); durations and ages are float seconds.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError
from omnibind_core.modalities import Doubt
from omnibind_core.runtime.ranking import conflict


class SensorState(enum.IntEnum):
    """State of one sensor. The numbers are those of ``SensorStatus.msg``."""

    DISABLED = 0
    WAITING = 1
    ACTIVE = 2
    LATE = 3
    STALE = 4
    REJECTED = 5
    INCOMPATIBLE_QOS = 6


@dataclass(frozen=True)
class SensorConfig:
    """What the runtime knows of one sensor.

    Attributes:
        name: Unique name.
        modality: One of :func:`omnibind_core.modalities.names`.
        enabled: Whether it may take part.
        timeout: s without an accepted item after which the sensor is stale and leaves the fusion.
        time_offset: s added to the item's stamp, for a sensor whose clock or exposure is known to be off.
        stamp: Whose clock counts: ``"header"`` takes the stamp of the item, ``"receive"`` the time of its receipt, for
            a sensor with a clock of its own, such as one that counts from when it was switched on.
        window: s; an item older than this at the tick is not used. For streams the length of the window that is cut.
        readmit_after: Good items in a row after which a stale or rejected sensor is back.
    """

    name: str
    modality: str
    enabled: bool = True
    timeout: float = 1.0
    time_offset: float = 0.0
    window: float = 1.0
    readmit_after: int = 1
    stamp: Literal["header", "receive"] = "header"

    def __post_init__(self) -> None:
        for key in ("timeout", "window"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"sensor '{self.name}': {key} is {value}, expected a positive number of seconds")
        if not math.isfinite(self.time_offset):
            raise ConfigError(f"sensor '{self.name}': time_offset is {self.time_offset}, expected finite seconds")
        if self.stamp not in ("header", "receive"):
            raise ConfigError(f"sensor '{self.name}': stamp is '{self.stamp}', expected header or receive")
        if self.readmit_after < 1:
            raise ConfigError(f"sensor '{self.name}': readmit_after is {self.readmit_after}, expected 1 or more")


@dataclass(frozen=True)
class EngineSettings:
    """Settings of the whole runtime.

    Attributes:
        top_k: Number of labels in a prediction.
        max_future: s by which a stamp may lie ahead of the receive time; later ones are rejected.
        min_sensors: Fewer living sensors than this give no prediction.
        trigger: Name of the sensor whose messages are the ticks; ``""`` if they come at a fixed rate. While that sensor
            is not alive they come at the rate, too.
        max_wait: s that a tick waits at most for what living sensors have measured, but not yet delivered.
        reject_after: Unusable messages in a row after which a sensor is rejected.
        max_frames: Frames kept per sensor that comes in frames.
        max_parts: Parts kept per sensor that comes as a stream, however long its window.
        max_bytes: Bytes of either that are kept per sensor; the newest is kept, however large.
    """

    top_k: int = 5
    max_future: float = 0.5
    min_sensors: int = 1
    trigger: str = ""
    max_wait: float = 0.0
    reject_after: int = 3
    max_frames: int = 8
    max_parts: int = 1024
    max_bytes: int = 256_000_000

    def __post_init__(self) -> None:
        for key in ("top_k", "min_sensors", "reject_after", "max_frames", "max_parts", "max_bytes"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} is {getattr(self, key)}, expected 1 or more")
        for key in ("max_future", "max_wait"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{key} is {value}, expected 0 or more seconds")


@dataclass(frozen=True)
class Encoded:
    """A payload that another process has already preprocessed or encoded (``ModalityFrame.msg``).

    Attributes:
        kind: ``"preprocessed"``: ``array`` is encoder input ``[views, ...]``; ``"embedding"``: it is a unit-length
            embedding ``float32 [D]`` in the shared space.
        array: The values.
    """

    kind: Literal["preprocessed", "embedding"]
    array: NDArray[Any] = field(repr=False)


@dataclass(frozen=True)
class Doubted:
    """A raw item that its decoder doubts, for what only the message tells.

    Attributes:
        raw: The item.
        doubt: What speaks against it.
    """

    raw: Any = field(repr=False)
    doubt: Doubt


@dataclass(frozen=True)
class SensorReport:
    """State of one sensor at one moment; the fields of ``SensorStatus.msg`` that do not depend on ROS.

    Beside them, ``familiarity``: that of :class:`SensorShare`, averaged over a hundred predictions; NaN if not known.
    And ``doubt``: what speaks against its newest reading, which the reason says, too; ``None`` if nothing does.
    """

    name: str
    modality: str
    state: SensorState
    reason: str
    age: float
    rate: float
    received: int
    rejected: int
    dropped: int
    familiarity: float = math.nan
    doubt: Doubt | None = None


@dataclass(frozen=True)
class SensorShare:
    """What one sensor contributed to a prediction.

    Attributes:
        name: Sensor name.
        modality: Its modality.
        weight: Share of the fused embedding, 0..1; 0 of a sensor whose reading says nothing.
        age: s from the item's stamp to the tick.
        label: What this sensor alone would have said; ``""`` if its reading says nothing.
        confidence: Calibrated probability of that label.
        label_without: What the others would have said without this sensor; ``""`` if no other says anything.
        confidence_without: Calibrated probability of that label; 0 if it is the only one.
        stamp_ns: Stamp of the item, after ``time_offset``.
        familiarity: How like it is to what the sensor's encoder was trained with, -6..1: 0 as half of other samples of
            the same sensors, -1 as the least like 5 % of them; NaN if that is not known.
        doubt: What speaks against its reading, see :func:`omnibind_core.modalities.doubt`; ``None`` if nothing does.
    """

    name: str
    modality: str
    weight: float
    age: float
    label: str
    confidence: float
    label_without: str
    confidence_without: float
    stamp_ns: int
    familiarity: float = math.nan
    doubt: Doubt | None = None


@dataclass(frozen=True)
class Prediction:
    """What was perceived at one tick; the fields of ``Prediction.msg``.

    Attributes:
        tick_ns: Time of the tick.
        header: Opaque header, as it was pushed, of the trigger's item; without a trigger, of the newest item used.
        label: Most probable label, or ``""`` if unknown.
        confidence: Its calibrated probability.
        unknown: Whether the confidence is below the threshold.
        entropy: Of the label distribution, nat.
        labels: Top labels, most probable first.
        scores: Their probabilities.
        sensors: One entry per sensor that took part.
        embedding: ``float32 [D]``, unit length.
        similarities: ``float32 [1 + S, C]`` cosines to every label; row 0 fused, then one per sensor.
        stages: s that each stage took: ``decode`` (and preprocess), ``encode``, ``fuse``.
    """

    tick_ns: int
    header: Any
    label: str
    confidence: float
    unknown: bool
    entropy: float
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    sensors: tuple[SensorShare, ...]
    embedding: NDArray[np.float32] = field(repr=False)
    similarities: NDArray[np.float32] = field(repr=False)
    stages: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def conflict(self) -> float:
        """How much the sensors contradict each other, 0..1, see :func:`omnibind_core.runtime.ranking.conflict`."""
        return conflict((share.label, share.confidence) for share in self.sensors)
