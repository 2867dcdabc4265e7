"""When which sensor's publisher is killed and started again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from omnibind_core.errors import DataError
from omnibind_ros.bags.scene_bag import SENSORS, SceneLabel

# Whose publisher is killed, the first of these for which it can be shown: those that a robot leans on most.
_PREFERRED = ("camera", "lidar", "microphone", "event_camera", "tactile", "thermal")
# s into a scene at which a publisher is killed, so that its sensor is at work, and at which it is started again, so
# that it has the rest of the scene to come back.
_KILL, _RESTART = 1.5, 0.5
# Scenes that a sensor is away, at least.
_AWAY = 2


@dataclass(frozen=True)
class Outage:
    """One sensor's publisher process is killed, and started again later.

    Attributes:
        sensor: Sensor name.
        kill_s: When it is killed, s from the beginning of the recording.
        restart_s: When it is started again, s.
    """

    sensor: str
    kill_s: float
    restart_s: float


def plan(scenes: Sequence[SceneLabel]) -> list[Outage]:
    """Two outages that overlap: the camera's first (if it can be shown), then that of another sensor.

    Both sensors publish in the scenes in which they are killed and started again, so that their leaving and returning
    can be seen, and wherever one is away at least one other sensor publishes.

    Raises:
        DataError: The recording is too short or too poor for it.
    """
    held = {name: [scene for scene in scenes if name in scene.sensors] for name in SENSORS}
    for first, second in itertools.permutations(_PREFERRED, 2):
        candidates = [
            (early[1] - early[0] + late[1] - late[0], abs(early[0] - len(scenes) / 4), early, late)
            for early in _spans(scenes, first, {first, second})
            for late in _spans(scenes, second, {first, second})
            if early[0] < late[0] < early[1] < late[1]
        ]
        if candidates:
            *_, early, late = min(candidates)
            return [
                Outage(name, scenes[begin].start_s + _KILL, scenes[end].start_s + _RESTART)
                for name, (begin, end) in ((first, early), (second, late))
            ]
    raise DataError(
        f"no two sensors of the recording can be killed in turn: {len(scenes)} scenes with "
        f"{', '.join(f'{len(rows)} of {name}' for name, rows in held.items())}"
    )


def _spans(scenes: Sequence[SceneLabel], sensor: str, away: set[str]) -> list[tuple[int, int]]:
    """Pairs of scenes with the sensor between which others always publish."""
    places = [number for number, scene in enumerate(scenes) if sensor in scene.sensors]
    return [
        (begin, end)
        for begin, end in itertools.combinations(places, 2)
        if begin > 0
        and end - begin >= _AWAY
        and all(set(scenes[number].sensors) - away for number in range(begin, end + 1))
    ]
