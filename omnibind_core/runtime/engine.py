"""The streaming engine: messages in, predictions out, whatever subset of the sensors is alive.

Messages are only buffered when they come. A tick is two steps, so that they may run on two threads: :meth:`select`
looks at the time, updates the states and picks items (microseconds); :meth:`compute` decodes, encodes and fuses them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omnibind_core import modalities
from omnibind_core.errors import ConfigError
from omnibind_core.modalities import Doubt
from omnibind_core.runtime.encoding import Recognised, Recogniser, Token, TokenCache, recognised
from omnibind_core.runtime.ranking import rank
from omnibind_core.runtime.sensor import SECOND, Pick, Sensor
from omnibind_core.runtime.types import EngineSettings, Prediction, SensorConfig, SensorReport, SensorShare, SensorState

REFRESH = 4
"""A sensor that is spared is encoded at every so many ticks."""

_LITTLE = 0.5  # of an even share of the weight: a sensor whose mean is below says little
_STILL = 0.05  # 1 - cosine: tokens that change by less from one to the next say nothing new
_INERTIA = 0.9  # of a sensor's mean share of the weight, each tick


@dataclass(frozen=True)
class Selection:
    """What one tick will be computed from.

    Attributes:
        now_ns: Time of the tick.
        picks: One per sensor that offers something, in the order of the configuration.
        epoch: How often time had gone backwards before.
        reference_ns: Stamp of the trigger sensor's item that this tick is for; ``None`` if it is for none.
        by_rate: Whether the rate made this tick, not a message.
    """

    now_ns: int
    picks: tuple[Pick, ...]
    epoch: int
    reference_ns: int | None = None
    by_rate: bool = True

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of the sensors that offer something."""
        return tuple(pick.sensor.name for pick in self.picks)


class PerceptionEngine:
    """Buffers, states and fusion of any number of sensors.

    Time should not go backwards: :class:`~omnibind_core.runtime.stream.PerceptionStream` notices it, and clears.

    Thread-safe; the lock is never held while something is decoded or encoded. Only :meth:`compute` is for one thread
    at a time.

    Args:
        model: The model.
        sensors: The sensors; several may have the same modality.
        decode: Turns ``(sensor name, payload)`` into a raw item of the sensor's modality or
            :class:`~omnibind_core.runtime.types.Encoded`; raises ``InvalidInputError`` for what it cannot use.
        settings: Settings of the whole runtime.

    Raises:
        ConfigError: Two sensors have one name, or a modality is unknown.
    """

    def __init__(
        self,
        model: Recogniser,
        sensors: Sequence[SensorConfig],
        decode: Callable[[str, Any], Any],
        settings: EngineSettings | None = None,
    ) -> None:
        self.model = model
        self.settings = settings or EngineSettings()
        self._lock = threading.Lock()
        self._sensors: dict[str, Sensor] = {}
        for config in sensors:
            self._add(config)
        self._tokens = TokenCache(model, decode, self._mark_unusable, self._judge)
        self._says: dict[str, float] = {}  # mean weight of each sensor, of an even share
        self._spared: tuple[str, ...] = ()
        self._encoded = 0  # ticks
        self._epoch = 0

    # Messages ----------------------------------------------------------------------------------------------------

    def push(
        self, sensor: str, stamp_ns: int, receive_ns: int, payload: Any, header: Any = None, size: int = 0
    ) -> int | None:
        """Takes one message in constant time. Nothing is decoded; only the stamp is checked.

        Args:
            sensor: Name of the sensor.
            stamp_ns: When it was measured (streams: when its first sample or event was).
            receive_ns: When it was received, on the clock of the ticks.
            payload: What ``decode`` will get, if the item is used.
            header: Comes back in :attr:`Prediction.header` if this is the trigger's item, or the newest one used.
            size: Bytes that the payload takes, for :attr:`EngineSettings.max_bytes`.

        Returns:
            The stamp with ``time_offset``; ``None`` if the message was refused.

        Raises:
            ConfigError: No such sensor.
        """
        with self._lock:
            item = self._sensor(sensor).push(stamp_ns, receive_ns, payload, header, size)
            return None if item is None else item.stamp_ns

    def reject(self, sensor: str, reason: str, receive_ns: int | None = None) -> None:
        """Counts a message that was received, but found unusable before it could be pushed (a wrong type).

        Args:
            sensor: Name of the sensor.
            reason: What is wrong, with the value and the expectation.
            receive_ns: When it was received; by default the time of the next tick or report.
        """
        with self._lock:
            self._sensor(sensor).refuse(reason, receive_ns)

    # Ticks -------------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> Prediction | None:
        """Perceives now: :meth:`compute` of :meth:`select`."""
        return self.compute(self.select(now_ns))

    def select(self, now_ns: int, reference_ns: int | None = None) -> Selection:
        """Updates the states and picks what every living sensor offers.

        Args:
            now_ns: Time of the tick.
            reference_ns: Stamp of the trigger's item; what is nearest to it is picked, without it the newest.
        """
        with self._lock:
            picks = [sensor.select(now_ns, reference_ns) for sensor in self._sensors.values()]
            found = tuple(pick for pick in picks if pick is not None)
            return Selection(now_ns, found, self._epoch, reference_ns, reference_ns is None)

    def select_set(self, now_ns: int, stamps: Mapping[str, int]) -> Selection:
        """Like :meth:`select`, but picks the items of given stamps, of these sensors only.

        Args:
            now_ns: Time of the tick.
            stamps: Stamp of the wanted item of each sensor; the nearest is taken if it is gone.
        """
        with self._lock:
            picks = []
            for name, sensor in self._sensors.items():
                if name in stamps:
                    picks.append(sensor.select(now_ns, stamps[name]))
                else:
                    sensor.update(now_ns)
            found = tuple(pick for pick in picks if pick is not None)
            return Selection(now_ns, found, self._epoch, by_rate=False)

    def renewed(self, selection: Selection, now_ns: int) -> Selection:
        """A selection that has waited, made again: what is newest now. One of an item's moment, or of a set, stays.

        One of nothing stays, too: that a sensor has come is seen at the next tick, and told before it is used.

        Args:
            selection: The selection.
            now_ns: The time.
        """
        if not (selection.by_rate and selection.picks) or selection.epoch != self._epoch:
            return selection
        return self.select(now_ns)

    def awaited(self, reference_ns: int, deadline_ns: int, now_ns: int) -> tuple[str, ...]:
        """Living sensors that have measured something by the reference, which should arrive by the deadline."""
        with self._lock:
            return tuple(
                name for name, sensor in self._sensors.items() if sensor.awaited(reference_ns, deadline_ns, now_ns)
            )

    def leads(self, sensor: str, now_ns: int) -> bool:
        """Whether a sensor is there and alive, and has stamps of now, so that its items can be references."""
        with self._lock:
            return sensor in self._sensors and self._sensors[sensor].leads(now_ns)

    def compute(self, selection: Selection) -> Prediction | None:
        """Decodes, encodes and fuses a selection.

        Returns:
            The prediction; ``None`` if fewer than ``min_sensors`` sensors offer something usable, or if time has gone
            backwards meanwhile.
        """
        return self.perceive(selection)[0]

    def perceive(self, selection: Selection) -> tuple[Prediction | None, list[Token]]:
        """Like :meth:`compute`; gives the tokens of the prediction, too, for who asks more of them."""
        tokens = self.tokens(selection)
        prediction = self.fuse(selection, tokens, self._tokens.seconds)
        return prediction, [token for token in tokens if token.embedding is not None]

    def fuse(
        self, selection: Selection, tokens: Sequence[Token], seconds: Mapping[str, float] | None = None
    ) -> Prediction | None:
        """The second half of :meth:`compute`.

        Args:
            selection: The selection.
            tokens: What was encoded of it, see :meth:`tokens`.
            seconds: What that took, for :attr:`Prediction.stages`.
        """
        if len(tokens) < self.settings.min_sensors:
            return None
        begin = time.perf_counter()
        found = self._recognised(tokens)
        if found is None:
            return None
        tokens, answer, names = found
        if selection.epoch != self._epoch:
            return None
        stages = {**(seconds or {}), "fuse": time.perf_counter() - begin}
        return self._predict(selection, tokens, answer, names, stages)

    def _recognised(self, tokens: Sequence[Token]) -> tuple[Sequence[Token], Recognised, Sequence[str]] | None:
        """What tokens are recognised as, without those that alone make it fail; those are counted, and come no more.

        What fails with each of them, or with none, is no matter of one sensor, and is raised.

        Returns:
            The tokens that are left, the answer and the labels; None if fewer than ``min_sensors`` are left.
        """
        try:
            return tokens, *recognised(self.model, tokens)
        except Exception:
            bad = [token for token in tokens if not self._is_recognised(token)]
            if len(bad) in (0, len(tokens)):
                raise
            for token in bad:
                self._tokens.attempt(token.sensor.name, recognised, self.model, [token])  # says what it is
                token.embedding = None
                self._judge(token.sensor.name, False, token.doubt)
            good = [token for token in tokens if token.embedding is not None]
        return None if len(good) < self.settings.min_sensors else (good, *recognised(self.model, good))

    def _is_recognised(self, token: Token) -> bool:
        try:
            recognised(self.model, [token])
        except Exception:
            return False
        return True

    def tokens(self, selection: Selection, embed: bool = True, later: bool = False) -> list[Token]:
        """Decodes and encodes a selection without fusing it: for a node that sends its items to another.

        Args:
            selection: The selection.
            embed: Whether to encode; otherwise tokens are only preprocessed, and hold ``views``.
            later: What is preprocessed here is to be encoded by the caller, see :meth:`TokenCache.encode`.

        Returns:
            One token per sensor that offers something usable and takes part; none if time has gone backwards.
        """
        minor, self._encoded = self.minor, self._encoded + 1
        # Not all at one tick, which would be a long one; and who has something to say is heard at once.
        held = {name for i, name in enumerate(self._spared) if name in minor and (self._encoded + i) % REFRESH}
        tokens = self._tokens.encode(selection.picks, embed, held, later) if selection.epoch == self._epoch else []
        with self._lock:
            return [token for token in tokens if self._takes_part(token.sensor.name)]

    def embed(self, tokens: Sequence[Token]) -> None:
        """Encodes tokens that were left for later; what fails is counted, and stays without an embedding."""
        self._tokens.embed(tokens)

    def newest(self, sensor: str) -> Any:
        """The raw item of a sensor that was decoded last, for showing it; ``None`` if there is none.

        To be called on the thread of :meth:`compute`.
        """
        return self._tokens.newest(sensor)

    @property
    def costs(self) -> dict[str, float]:
        """Mean s of a tick that each sensor takes; see :attr:`TokenCache.costs`."""
        return {name: cost for name, cost in self._tokens.costs.items() if name in self._sensors}

    @property
    def minor(self) -> frozenset[str]:
        """Sensors that say little: less than half of an even share of the weight, in tokens that hardly change."""
        says, changes = self._says, self._tokens.changes
        little = {name for name, share in says.items() if share < _LITTLE and changes.get(name, 1.0) < _STILL}
        return frozenset(little & self._sensors.keys() - {self.settings.trigger})

    def spare(self, sensors: Collection[str]) -> None:
        """Encodes these at every fourth tick only, while they are :attr:`minor`; else their last token is used again.

        A token is used no longer than its item would be. The age that a prediction tells is that of the item.
        """
        self._spared = tuple(sensors)

    def _predict(
        self,
        selection: Selection,
        tokens: Sequence[Token],
        answer: Recognised,
        names: Sequence[str],
        stages: Mapping[str, float],
    ) -> Prediction:
        now_ns = selection.now_ns
        newest = max((token.newest for token in tokens), key=lambda item: item.stamp_ns)
        leaders = (token.newest for token in tokens if token.sensor.name == self.settings.trigger)
        leader = next((item for item in leaders if item.stamp_ns == selection.reference_ns), newest)
        # Nothing said is unknown, whatever the threshold.
        threshold = self.model.threshold if answer.weights.any() else math.inf
        fused = rank(answer.probabilities[0], names, self.settings.top_k, threshold)
        shares = shares_of(tokens, answer, names, now_ns)
        says = self._says
        self._says = {
            share.name: even + _INERTIA * (says.get(share.name, even) - even)
            for share in shares
            if not math.isnan(even := share.weight * len(shares))
        }
        with self._lock:
            for share in shares:
                if share.name in self._sensors and not share.doubt:
                    self._sensors[share.name].perceived(share.familiarity)
        return Prediction(
            tick_ns=now_ns,
            header=leader.header,
            label=fused.label,
            confidence=fused.confidence,
            unknown=fused.unknown,
            entropy=fused.entropy,
            labels=fused.labels,
            scores=fused.scores,
            sensors=shares,
            embedding=answer.embedding,
            similarities=answer.similarities,
            stages=stages,
        )

    # Control -----------------------------------------------------------------------------------------------------

    def reports(self, now_ns: int) -> list[SensorReport]:
        """The state of every sensor now, in the order of the configuration."""
        with self._lock:
            return [sensor.report(now_ns) for sensor in self._sensors.values()]

    def brought_up(self, reports: Sequence[SensorReport]) -> list[SensorReport]:
        """Earlier reports, with the familiarity of now: of a tick that was fused after them."""
        with self._lock:
            known = self._sensors
            return [
                replace(one, familiarity=known[one.name].familiarity) if one.name in known else one for one in reports
            ]

    def configure(self, config: SensorConfig) -> bool:
        """Gives a sensor other settings of the same name and modality, effective at once.

        Returns:
            Whether its items have other times from now on (``stamp``, ``time_offset``); what it had is forgotten then.
        """
        with self._lock:
            changed = self._sensor(config.name).configure(config)
            if changed or not config.enabled:
                self._tokens.forget(config.name)
            return changed

    def set_enabled(self, sensor: str, enabled: bool) -> None:
        """Lets a sensor take part or not."""
        with self._lock:
            self._sensor(sensor).set_enabled(enabled)
            if not enabled:
                self._tokens.forget(sensor)

    def add(self, config: SensorConfig) -> None:
        """Takes in another sensor.

        Raises:
            ConfigError: There is one of that name, or its modality is unknown.
        """
        with self._lock:
            self._add(config)

    def remove(self, sensor: str) -> None:
        """Forgets a sensor."""
        with self._lock:
            self._sensor(sensor)
            del self._sensors[sensor]
            self._tokens.forget(sensor)

    def set_obstacle(self, sensor: str, obstacle: tuple[SensorState, str] | None) -> None:
        """Notes that the publishers of a sensor cannot be heard, or that this is over; shown while it is silent.

        Args:
            sensor: Name of the sensor.
            obstacle: ``INCOMPATIBLE_QOS`` or ``REJECTED``, and the reason.
        """
        with self._lock:
            self._sensor(sensor).set_obstacle(obstacle)

    def set_note(self, sensor: str, note: str) -> None:
        """Adds something to the reason of a sensor while it is silent: who publishes, if anybody."""
        with self._lock:
            self._sensor(sensor).set_note(note)

    def clear(self) -> None:
        """Empties all buffers, because time went backwards; counters are kept, and running computations are void."""
        with self._lock:
            self._epoch += 1
            self._tokens.clear()
            for sensor in self._sensors.values():
                sensor.clear()

    def _sensor(self, name: str) -> Sensor:
        try:
            return self._sensors[name]
        except KeyError:
            raise ConfigError(f"no sensor '{name}'; there are {', '.join(self._sensors) or 'none'}") from None

    def _add(self, config: SensorConfig) -> None:
        if config.name in self._sensors:
            raise ConfigError(f"two sensors are named '{config.name}', expected unique names")
        self._sensors[config.name] = Sensor(config, self.settings, modalities.get(config.modality).is_stream)

    def _takes_part(self, sensor: str) -> bool:
        return sensor in self._sensors and self._sensors[sensor].takes_part

    # The worker's thread may speak of a sensor that has just been removed.

    def _mark_unusable(self, sensor: str, reason: str) -> None:
        with self._lock:
            if sensor in self._sensors:
                self._sensors[sensor].mark_unusable(reason)

    def _judge(self, sensor: str, usable: bool, doubt: Doubt | None) -> None:
        with self._lock:
            if sensor in self._sensors:
                self._sensors[sensor].judge(usable, doubt)


def shares_of(
    tokens: Sequence[Token], answer: Recognised, names: Sequence[str], now_ns: int
) -> tuple[SensorShare, ...]:
    """What each token contributed.

    Args:
        tokens: What was fused.
        answer: What it was recognised as.
        names: The labels.
        now_ns: Time of the tick.
    """
    speaks = [bool(weight) for weight in answer.weights]
    return tuple(
        SensorShare(
            name=token.sensor.name,
            modality=token.sensor.modality,
            weight=float(weight),
            age=(now_ns - token.newest.stamp_ns) / SECOND,
            label=names[int(row.argmax())] if said else "",
            confidence=float(row.max()),
            label_without=names[int(others.argmax())] if sum(speaks) > said else "",
            confidence_without=float(others.max()) if sum(speaks) > said else 0.0,
            stamp_ns=token.newest.stamp_ns,
            familiarity=math.nan if math.isnan(familiarity) else float(familiarity),  # one NaN: shares are compared
            doubt=token.doubt,
        )
        for token, said, weight, row, others, familiarity in zip(
            tokens,
            speaks,
            answer.weights,
            answer.probabilities[1:],
            answer.without,
            answer.familiarity,
            strict=True,
        )
    )
