"""The streaming runtime, without ROS: :class:`PerceptionStream` and what goes in and out of it. Imports no torch."""

from omnibind_core.runtime.encoding import Recogniser
from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.stream import PerceptionStream
from omnibind_core.runtime.trigger import TickSource, Trigger
from omnibind_core.runtime.types import (
    Doubted,
    Encoded,
    EngineSettings,
    Prediction,
    SensorConfig,
    SensorReport,
    SensorShare,
    SensorState,
)
from omnibind_core.runtime.worker import LatestWorker

__all__ = [
    "Doubted",
    "Encoded",
    "EngineSettings",
    "LatestWorker",
    "PerceptionEngine",
    "PerceptionStream",
    "Prediction",
    "Recogniser",
    "Selection",
    "SensorConfig",
    "SensorReport",
    "SensorShare",
    "SensorState",
    "TickSource",
    "Trigger",
]
