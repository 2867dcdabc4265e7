"""The streaming engine: messages in, predictions out, whatever subset of the sensors is alive.

Messages are only buffered when they come. A tick is two steps, so that they may run on two threads: :meth:`select`
looks at the time, updates the states and picks items (microseconds); :meth:`compute` decodes, encodes and fuses them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnibind_core import modalities
from omnibind_core.errors import ConfigError
from omnibind_core.runtime.encoding import Recognised, Recogniser, Token, TokenCache
from omnibind_core.runtime.ranking import rank
from omnibind_core.runtime.sensor import SECOND, Pick, Sensor
from omnibind_core.runtime.types import EngineSettings, Prediction, SensorConfig, SensorReport, SensorShare

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """What one tick will be computed from.

    Attributes:
        now_ns: Time of the tick.
        picks: One per sensor that offers something, in the order of the configuration.
        epoch: How often time had gone backwards before.
    """

    now_ns: int
    picks: tuple[Pick, ...]
    epoch: int

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of the sensors that offer something."""
        return tuple(pick.sensor.name for pick in self.picks)


class PerceptionEngine:
    """Buffers, states and fusion of any number of sensors.

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
            if config.name in self._sensors:
                raise ConfigError(f"two sensors are named '{config.name}', expected unique names")
            self._sensors[config.name] = Sensor(config, self.settings, modalities.get(config.modality).is_stream)
        self._tokens = TokenCache(model, decode, self._mark_unusable, self._judge)
        self._epoch = 0
        self._last_tick_ns: int | None = None

    # Messages ----------------------------------------------------------------------------------------------------

    def push(self, sensor: str, stamp_ns: int, receive_ns: int, payload: Any, header: Any = None) -> None:
        """Takes one message in constant time. Nothing is decoded; only the stamp is checked.

        Args:
            sensor: Name of the sensor.
            stamp_ns: When it was measured (streams: when its first sample or event was).
            receive_ns: When it was received, on the clock of the ticks.
            payload: What ``decode`` will get, if the item is used.
            header: Comes back in :attr:`Prediction.header` if this is the newest item used.

        Raises:
            ConfigError: No such sensor.
        """
        with self._lock:
            self._sensor(sensor).push(stamp_ns, receive_ns, payload, header)

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

    def select(self, now_ns: int) -> Selection:
        """Updates the states and picks what every living sensor offers.

        Clears all buffers if time went backwards by more than ``max_future`` since the last tick.
        """
        with self._lock:
            if self._last_tick_ns is not None and now_ns < self._last_tick_ns - self.settings.max_future * SECOND:
                _log.warning("time went back by %.3f s; buffers cleared", (self._last_tick_ns - now_ns) / SECOND)
                self._clear()
            self._last_tick_ns = now_ns
            picks = [sensor.select(now_ns) for sensor in self._sensors.values()]
            return Selection(now_ns, tuple(pick for pick in picks if pick is not None), self._epoch)

    def compute(self, selection: Selection) -> Prediction | None:
        """Decodes, encodes and fuses a selection.

        Returns:
            The prediction; ``None`` if fewer than ``min_sensors`` sensors offer something usable, or if time has gone
            backwards meanwhile.
        """
        tokens = self.tokens(selection)
        if len(tokens) < self.settings.min_sensors:
            return None
        kinds = [token.sensor.modality for token in tokens]
        embeddings = np.stack([token.embedding for token in tokens if token.embedding is not None])
        while True:
            names = self.model.labels.names
            recognised = self.model.recognise(kinds, embeddings)
            if names == self.model.labels.names:  # else another thread swapped the vocabulary
                break
        if selection.epoch != self._epoch:
            return None
        return self._predict(selection.now_ns, tokens, recognised, names)

    def tokens(self, selection: Selection, embed: bool = True) -> list[Token]:
        """Decodes and encodes a selection without fusing it: for a node that sends its items to another.

        Args:
            selection: The selection.
            embed: Whether to encode; otherwise tokens are only preprocessed, and hold ``views``.

        Returns:
            One token per sensor that offers something usable and takes part; none if time has gone backwards.
        """
        tokens = self._tokens.encode(selection.picks, embed) if selection.epoch == self._epoch else []
        with self._lock:
            return [token for token in tokens if self._sensors[token.sensor.name].takes_part]

    def _predict(
        self, now_ns: int, tokens: Sequence[Token], recognised: Recognised, names: Sequence[str]
    ) -> Prediction:
        fused = rank(recognised.probabilities[0], names, self.settings.top_k, self.model.threshold)
        shares = tuple(
            SensorShare(
                name=token.sensor.name,
                modality=token.sensor.modality,
                weight=float(weight),
                age=(now_ns - token.newest.stamp_ns) / SECOND,
                label=names[int(row.argmax())],
                confidence=float(row.max()),
                stamp_ns=token.newest.stamp_ns,
            )
            for token, weight, row in zip(tokens, recognised.weights, recognised.probabilities[1:], strict=True)
        )
        return Prediction(
            tick_ns=now_ns,
            header=max((token.newest for token in tokens), key=lambda item: item.stamp_ns).header,
            label=fused.label,
            confidence=fused.confidence,
            unknown=fused.unknown,
            entropy=fused.entropy,
            labels=fused.labels,
            scores=fused.scores,
            sensors=shares,
            embedding=recognised.embedding,
            similarities=recognised.similarities,
        )

    # Control -----------------------------------------------------------------------------------------------------

    def reports(self, now_ns: int) -> list[SensorReport]:
        """The state of every sensor now, in the order of the configuration."""
        with self._lock:
            return [sensor.report(now_ns) for sensor in self._sensors.values()]

    def configure(self, config: SensorConfig) -> None:
        """Gives a sensor other settings of the same name and modality, effective at once."""
        with self._lock:
            sensor = self._sensor(config.name)
            sensor.config = config
            sensor.set_enabled(config.enabled)

    def set_enabled(self, sensor: str, enabled: bool) -> None:
        """Lets a sensor take part or not."""
        with self._lock:
            self._sensor(sensor).set_enabled(enabled)

    def mark_incompatible(self, sensor: str, reason: str) -> None:
        """Notes that a publisher of the sensor cannot be heard because of its QoS; shown while the sensor is silent."""
        with self._lock:
            self._sensor(sensor).set_incompatible(reason)

    def clear_incompatible(self, sensor: str) -> None:
        """Notes that no publisher of the sensor is incompatible any more."""
        with self._lock:
            self._sensor(sensor).set_incompatible(None)

    def clear(self) -> None:
        """Empties all buffers, because time went backwards; counters are kept, and running computations are void."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._epoch += 1
        self._last_tick_ns = None
        self._tokens.clear()
        for sensor in self._sensors.values():
            sensor.clear()

    def _sensor(self, name: str) -> Sensor:
        try:
            return self._sensors[name]
        except KeyError:
            raise ConfigError(f"no sensor '{name}'; there are {', '.join(self._sensors) or 'none'}") from None

    def _mark_unusable(self, sensor: str, reason: str) -> None:
        with self._lock:
            self._sensors[sensor].mark_unusable(reason)

    def _judge(self, sensor: str, usable: bool) -> None:
        with self._lock:
            self._sensors[sensor].judge(usable)
