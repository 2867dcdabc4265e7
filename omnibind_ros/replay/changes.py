"""What if: a sensor is lost, delivers noise, is late or slow. Changes of what the engine gets from a bag."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omnibind_core.data import damage
from omnibind_core.errors import ConfigError
from omnibind_ros.replay.setup import Setup, named

ACTIONS = ("drop", "noise", "delay", "rate", "only")
_SYNTAX: Mapping[str, str] = {
    "drop": "SENSOR[@START:END]",
    "noise": "SENSOR[=KIND][@START:END]",
    "delay": "SENSOR=SECONDS[@START:END]",
    "rate": "SENSOR=HZ[@START:END]",
    "only": "SENSOR,SENSOR,...[@START:END]",
}
_TEXT = re.compile(r"(?P<sensor>[^=@]+)(=(?P<value>[^@]+))?(@(?P<start>[^:]*):(?P<end>.*))?")


@dataclass(frozen=True)
class Change:
    """One thing that is different from the recording.

    Attributes:
        action: One of :data:`ACTIONS`: ``drop`` loses messages, ``noise`` damages them, ``delay`` delivers them later,
            ``rate`` thins them out, ``only`` loses those of all other sensors.
        sensors: Sensors whose messages are changed (``only``: those that stay).
        value: s of delay, or Hz.
        damage: Kind of damage, see :func:`omnibind_core.data.damage.damages`.
        start_s: When it begins, s from the beginning of the bag.
        end_s: When it ends, s.
    """

    action: str
    sensors: tuple[str, ...]
    value: float = 0.0
    damage: str = ""
    start_s: float = 0.0
    end_s: float = math.inf

    def __str__(self) -> str:
        value = f"={self.damage}" if self.damage not in ("", damage.NOISE) else f"={self.value:g}" if self.value else ""
        whole = self.start_s == 0 and math.isinf(self.end_s)
        end = "" if math.isinf(self.end_s) else f"{self.end_s:g}"
        return f"{self.action} {','.join(self.sensors)}{value}" + ("" if whole else f"@{self.start_s:g}:{end}")

    def concerns(self, sensor: str, time_s: float) -> bool:
        """Whether a message of a sensor, recorded at that time, is changed."""
        hit = (sensor in self.sensors) != (self.action == "only")
        return hit and self.start_s <= time_s < self.end_s


def parse(action: str, text: str, setup: Setup) -> Change:
    """Reads a change as the command line has it, for example ``camera@10:20``.

    Args:
        action: One of :data:`ACTIONS`.
        text: What stands behind the option; sensors may be shortened.
        setup: Knows the sensors.

    Raises:
        ConfigError: It does not follow the syntax, or names a sensor or kind of damage that does not exist.
    """
    what = f"--{action} {text}"
    match = _TEXT.fullmatch(text)
    valued = action in ("delay", "rate")
    if match is None or (match["value"] is not None) > (valued or action == "noise") or (valued and not match["value"]):
        raise ConfigError(f"{what}: expected {_SYNTAX[action]}")
    words = match["sensor"].split(",") if action == "only" else [match["sensor"]]
    sensors = tuple(named(word.strip(), setup.present, what) for word in words)
    start, end = _seconds(match["start"], 0.0, what), _seconds(match["end"], math.inf, what)
    if end <= start:
        raise ConfigError(
            f"{what}: it ends at {end:g} s and begins at {start:g} s, expected an end after the beginning"
        )
    if action == "noise":
        return Change(action, sensors, 0.0, _damage(match["value"], sensors[0], setup, what), start, end)
    value = _seconds(match["value"], 0.0, what)
    if valued and not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{what}: got {match['value']}, expected a positive number")
    return Change(action, sensors, value, "", start, end)


def _seconds(text: str | None, default: float, what: str) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        raise ConfigError(f"{what}: '{text}' is no number") from None


def _damage(kind: str | None, sensor: str, setup: Setup, what: str) -> str:
    modality = setup.sensors[sensor].config.modality
    known = damage.damages(modality)
    kind = known[-1] if kind is None and known else kind  # noise alone, where the modality has it
    if kind not in known:
        raise ConfigError(f"{what}: {modality} has no damage '{kind}'; it has {', '.join(known) or 'none'}")
    return kind


@dataclass(frozen=True)
class Scenario:
    """The recording with some changes.

    Attributes:
        name: What it is called in the report.
        changes: What is different; nothing: as recorded.
    """

    name: str
    changes: tuple[Change, ...] = ()


AS_RECORDED = Scenario("as recorded")


def scenarios(changes: Sequence[Change]) -> list[Scenario]:
    """The recording as it is, with each change alone, and with all of them if there are several."""
    alone = [Scenario(str(change), (change,)) for change in changes]
    return [AS_RECORDED, *alone, *([Scenario("all of these together", tuple(changes))] if len(changes) > 1 else [])]
