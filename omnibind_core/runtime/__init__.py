"""The streaming runtime, without ROS: :class:`PerceptionEngine` and what goes in and out of it. Imports no torch."""

from omnibind_core.runtime.encoding import Recogniser
from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.trigger import Trigger
from omnibind_core.runtime.types import (
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
    "Encoded",
    "EngineSettings",
    "LatestWorker",
    "PerceptionEngine",
    "Prediction",
    "Recogniser",
    "Selection",
    "SensorConfig",
    "SensorReport",
    "SensorShare",
    "SensorState",
    "Trigger",
]
