"""Things of a bag, as the node would tell of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from omnibind_core.errors import ConfigError
from omnibind_core.objects.engine import ObjectEngine
from omnibind_core.objects.rig import Reading
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.runtime.encoding import Recogniser
from omnibind_core.runtime.types import SensorReport, SensorState
from omnibind_ros.bags.types import RecordedMessage
from omnibind_ros.replay.engine import Step
from omnibind_ros.replay.objects.surroundings import Surroundings
from omnibind_ros.replay.setup import Setup


@dataclass(frozen=True)
class Tick:
    """One tick.

    Attributes:
        readings: What the sensors offer to it, by sensor.
        absent: Why others take no part, by sensor.
        things: What is told.
        moved: Whether the fixed frame is another one than before.
    """

    readings: Mapping[str, Reading]
    absent: Mapping[str, str]
    things: list[ObjectPrediction]
    moved: bool


class Following:
    """Finds, follows and recognises things along a replay.

    Args:
        model: The model.
        setup: Sensors and parameters, with ``objects.enabled``.
        topics: Types of the bag's topics, by topic.

    Attributes:
        around: Where sensors are.
        engine: Of the things.

    Raises:
        ConfigError: A parameter of the sensors' geometry is unusable, or things are not enabled.
    """

    def __init__(self, model: Recogniser, setup: Setup, topics: Mapping[str, str]) -> None:
        settings = setup.parameters.objects
        if settings is None:
            raise ConfigError("parameter 'objects.enabled' is false, expected true where things are asked for")
        self.around = Surroundings(setup, topics)
        self.engine = ObjectEngine(model, self.around.rig, settings)

    @property
    def listeners(self) -> Mapping[str, Callable[[RecordedMessage], None]]:
        """Who hears the messages of which topic, for :class:`~omnibind_ros.replay.engine.Replay`."""
        return self.around.listeners

    def add(self, step: Step) -> Tick:
        """Takes one tick."""
        now_ns = step.selection.now_ns
        here = self.around.advance(now_ns, step.tokens)
        if here.moved:
            self.engine.clear()
        for name, reason in here.why.items():
            self.engine.reject(name, reason)
        absent = {**_absent(step.reports, here.readings), **here.why}
        self.engine.detect(here.detected)
        return Tick(here.readings, absent, self.engine.perceive(now_ns, here.readings, absent), here.moved)


def _absent(reports: Iterable[SensorReport], readings: Mapping[str, Reading]) -> dict[str, str]:
    """Sensors that offer nothing to a tick, and why."""
    missing = (one for one in reports if one.name not in readings and one.state != SensorState.DISABLED)
    return {one.name: f"{one.state.name.lower()}: {one.reason}" for one in missing}
