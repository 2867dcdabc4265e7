"""What the fusion node says, ``Prediction.msg`` and ``SensorStatus.msg``, to the runtime's own types and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omnibind_core.errors import InvalidInputError
from omnibind_core.runtime.types import Prediction, SensorReport, SensorShare, SensorState
from omnibind_ros.messages.fields import stamp_ns

_NOTHING = np.zeros(0, np.float32)
_SOURCE = "prediction"  # in errors
_ARRAYS = (
    "sensors",
    "modalities",
    "weights",
    "ages",
    "sensor_labels",
    "sensor_confidences",
    "labels_without",
    "confidences_without",
)


def prediction_fields(
    prediction: Prediction, latency: float, embedding: bool = True, similarities: bool = True
) -> dict[str, Any]:
    """Fields of ``omnibind_ros/Prediction``, without the header.

    Args:
        prediction: What was perceived.
        latency: s from the tick to publication.
        embedding: Whether the message holds the fused embedding.
        similarities: Whether it holds the similarities.
    """
    shares = prediction.sensors
    return {
        "label": prediction.label,
        "confidence": prediction.confidence,
        "unknown": prediction.unknown,
        "entropy": prediction.entropy,
        "labels": list(prediction.labels),
        "scores": np.array(prediction.scores, np.float32),
        "sensors": [share.name for share in shares],
        "modalities": [share.modality for share in shares],
        "weights": np.array([share.weight for share in shares], np.float32),
        "ages": np.array([share.age for share in shares], np.float32),
        "sensor_labels": [share.label for share in shares],
        "sensor_confidences": np.array([share.confidence for share in shares], np.float32),
        "labels_without": [share.label_without for share in shares],
        "confidences_without": np.array([share.confidence_without for share in shares], np.float32),
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
    rows = _rows(message)
    tick_ns = tick_of(message) or 0 if tick_ns is None else tick_ns
    similarities = np.asarray(message.similarities, np.float32)
    if similarities.size % (1 + len(rows)):
        found = f"{similarities.size} similarities"
        raise InvalidInputError(_SOURCE, found, f"equally many for each of {len(rows)} sensors and all of them")
    return Prediction(
        tick_ns=tick_ns,
        header=message.header,
        label=message.label,
        confidence=message.confidence,
        unknown=message.unknown,
        entropy=message.entropy,
        labels=tuple(message.labels),
        scores=tuple(map(float, message.scores)),
        sensors=tuple(SensorShare(*row, stamp_ns=tick_ns - round(row[3] * 1e9)) for row in rows),
        embedding=np.asarray(message.embedding, np.float32),
        similarities=similarities.reshape(1 + len(rows), -1),
    )


def tick_of(message: Any, trigger: str = "", offsets: Mapping[str, float] | None = None) -> int | None:
    """Time of a ``Prediction`` message's tick, ns: when the item of its header was as old as its age says.

    That item is of the trigger sensor, or else the newest.

    Args:
        message: The message, of rclpy or rosbags.
        trigger: The node's trigger sensor; ``""``: ticks come at the rate.
        offsets: The node's ``time_offset`` by sensor, s.

    Returns:
        ``None`` if the header has no stamp or no sensor took part.
    """
    ages = {name: age for name, _, _, age, *_ in _rows(message)}
    stamp = stamp_ns(message)
    if stamp is None or not ages:
        return None
    name = trigger if trigger in ages else min(ages, key=lambda name: ages[name])
    return stamp + round(((offsets or {}).get(name, 0.0) + ages[name]) * 1e9)


def _rows(message: Any) -> list[tuple[str, str, float, float, str, float, str, float]]:
    """The attributes of a :class:`SensorShare` but for its stamp, of each sensor that took part."""
    arrays = [list(getattr(message, name)) for name in _ARRAYS]
    if len({len(values) for values in arrays}) > 1:
        found = ", ".join(f"{len(values)} {name}" for name, values in zip(_ARRAYS, arrays, strict=True))
        raise InvalidInputError(_SOURCE, found, "equally many of each")
    return [
        (name, modality, float(weight), float(age), label, float(sure), others, float(others_sure))
        for name, modality, weight, age, label, sure, others, others_sure in zip(*arrays, strict=True)
    ]


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
