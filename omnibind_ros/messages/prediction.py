"""What the fusion node says, ``Prediction.msg`` and ``SensorStatus.msg``, to the runtime's own types and back.

Messages from before ``SensorShare.msg``, which recordings hold, have an array of each of its fields instead; they are
read, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from omnibind_core.errors import InvalidInputError
from omnibind_core.runtime.types import Prediction, SensorReport, SensorShare, SensorState
from omnibind_ros.messages.fields import stamp_ns

_NOTHING = np.zeros(0, np.float32)
_SOURCE = "prediction"  # in errors
# Fields of SensorShare.msg, by the arrays that older messages have instead of them.
_ARRAYS: Mapping[str, str] = {
    "sensors": "name",
    "modalities": "modality",
    "weights": "weight",
    "ages": "age",
    "sensor_labels": "label",
    "sensor_confidences": "confidence",
    "labels_without": "label_without",
    "confidences_without": "confidence_without",
}
# All of its fields; older messages lack the last.
_FIELDS = (*_ARRAYS.values(), "familiarity")


def prediction_fields(
    prediction: Prediction,
    latency: float,
    share: Callable[..., Any] = dict,
    embedding: bool = True,
    similarities: bool = True,
) -> dict[str, Any]:
    """Fields of ``omnibind_ros/Prediction``, without the header.

    Args:
        prediction: What was perceived.
        latency: s from the tick to publication.
        share: Class of ``omnibind_ros/SensorShare``, called with its fields as keywords.
        embedding: Whether the message holds the fused embedding.
        similarities: Whether it holds the similarities.
    """
    return {
        "label": prediction.label,
        "confidence": prediction.confidence,
        "unknown": prediction.unknown,
        "entropy": prediction.entropy,
        "conflict": prediction.conflict,
        "labels": list(prediction.labels),
        "scores": np.array(prediction.scores, np.float32),
        "sensors": [share(**{name: getattr(one, name) for name in _FIELDS}) for one in prediction.sensors],
        "embedding": prediction.embedding if embedding else _NOTHING,
        "similarities": prediction.similarities.ravel() if similarities else _NOTHING,
        "latency": latency,
    }


def prediction_of(message: Any, tick_ns: int | None = None) -> Prediction:
    """A ``Prediction`` message as the runtime's own type; ``float32`` numbers, and no ``stages``.

    Args:
        message: The message, of rclpy or rosbags.
        tick_ns: Time of its tick, ns; ``None`` takes that of :func:`tick_of`, or 0 if there is none.

    Raises:
        InvalidInputError: Its arrays do not fit each other.
    """
    shares = _shares(message)
    tick_ns = tick_of(message) or 0 if tick_ns is None else tick_ns
    similarities = np.asarray(message.similarities, np.float32)
    if similarities.size % (1 + len(shares)):
        found = f"{similarities.size} similarities"
        raise InvalidInputError(_SOURCE, found, f"equally many for each of {len(shares)} sensors and all of them")
    return Prediction(
        tick_ns=tick_ns,
        header=message.header,
        label=message.label,
        confidence=message.confidence,
        unknown=message.unknown,
        entropy=message.entropy,
        labels=tuple(message.labels),
        scores=tuple(map(float, message.scores)),
        sensors=tuple(_with_stamp(share, tick_ns) for share in shares),
        embedding=np.asarray(message.embedding, np.float32),
        similarities=similarities.reshape(1 + len(shares), -1),
    )


def tick_of(message: Any, trigger: str = "", offsets: Mapping[str, float | None] | None = None) -> int | None:
    """Time of a ``Prediction`` message's tick, ns: when the item of its header was as old as its age says.

    That item is of the trigger sensor, or else the newest.

    Args:
        message: The message, of rclpy or rosbags.
        trigger: The node's trigger sensor; ``""``: ticks come at the rate.
        offsets: The node's ``time_offset`` by sensor, s; ``None`` of one with ``stamp: receive``.

    Returns:
        ``None`` if the header has no stamp, or one that does not count, or if no sensor took part.
    """
    ages = {share.name: float(share.age) for share in _shares(message)}
    stamp = stamp_ns(message)
    if stamp is None or not ages:
        return None
    name = trigger if trigger in ages else min(ages, key=lambda name: ages[name])
    offset = (offsets or {}).get(name, 0.0)
    return None if offset is None else stamp + round((offset + ages[name]) * 1e9)


def _with_stamp(share: Any, tick_ns: int) -> SensorShare:
    familiarity = float(getattr(share, "familiarity", math.nan))  # recordings from before it have none
    return SensorShare(
        name=share.name,
        modality=share.modality,
        weight=float(share.weight),
        age=float(share.age),
        label=share.label,
        confidence=float(share.confidence),
        label_without=share.label_without,
        confidence_without=float(share.confidence_without),
        familiarity=math.nan if math.isnan(familiarity) else familiarity,  # one NaN: shares are compared
        stamp_ns=tick_ns - round(float(share.age) * 1e9),
    )


def _shares(message: Any) -> Sequence[Any]:
    """Objects with the fields of ``SensorShare.msg``, one per sensor that took part."""
    if not hasattr(message, "modalities"):
        shares: Sequence[Any] = message.sensors
        return shares
    arrays = {name: list(getattr(message, array)) for array, name in _ARRAYS.items()}
    if len({len(values) for values in arrays.values()}) > 1:
        found = ", ".join(f"{len(arrays[name])} {array}" for array, name in _ARRAYS.items())
        raise InvalidInputError(_SOURCE, found, "equally many of each")
    return [SimpleNamespace(**dict(zip(arrays, row, strict=True))) for row in zip(*arrays.values(), strict=True)]


def sensor_status_fields(report: SensorReport, topic: str, ros_type: str) -> dict[str, Any]:
    """Fields of ``omnibind_ros/SensorStatus``.

    Args:
        report: State of the sensor.
        topic: Its fully resolved topic.
        ros_type: Message type of that; ``""`` while no publisher is known.
    """
    return {
        "name": report.name,
        "modality": report.modality,
        "topic": topic,
        "type": ros_type,
        "state": int(report.state),
        "reason": report.reason,
        "age": report.age,
        "rate": report.rate,
        "received": report.received,
        "rejected": report.rejected,
        "dropped": report.dropped,
    }


def reports_of(message: Any) -> list[SensorReport]:
    """The sensors of a ``FusionStatus`` message, of rclpy or rosbags."""
    return [
        SensorReport(
            name=row.name,
            modality=row.modality,
            state=SensorState(row.state),
            reason=row.reason,
            age=row.age,
            rate=row.rate,
            received=row.received,
            rejected=row.rejected,
            dropped=row.dropped,
        )
        for row in message.sensors
    ]
