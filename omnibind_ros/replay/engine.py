"""The replay: messages of a bag into the engine of the fusion node, in the bag's own time.

Receive time is the time of recording; ticks come when the node's timer fires under simulated time, at the multiples of
its period, or when the trigger sensor speaks. Nothing looks at a clock, so the same bag gives the same predictions.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omnibind_core import modalities
from omnibind_core.data import damage
from omnibind_core.errors import ConfigError, DataError, InvalidInputError, PartlyReadError
from omnibind_core.model import loading
from omnibind_core.runtime.encoding import Recogniser
from omnibind_core.runtime.engine import PerceptionEngine
from omnibind_core.runtime.lookahead import Known, Lookahead, Tick
from omnibind_core.runtime.sensor import SECOND
from omnibind_core.runtime.stream import PerceptionStream
from omnibind_core.runtime.trigger import Trigger
from omnibind_core.runtime.types import Doubted, Encoded, SensorState
from omnibind_core.runtime.vocabulary import check_labels
from omnibind_ros import messages
from omnibind_ros.bags import read, types
from omnibind_ros.replay.changes import AS_RECORDED, Scenario
from omnibind_ros.replay.setup import Setup, read_parameters, resolve

if TYPE_CHECKING:
    from omnibind_core.model import AnsweringModel

LONGEST_GAP = 30.0
"""s without any message after which ticks are left out until the next one: a clock may have jumped by years."""


@dataclass(frozen=True)
class Step(Tick):
    """One tick of a replay.

    Attributes:
        time_s: s from the beginning of the bag.
    """

    time_s: float


class _Arrival(NamedTuple):
    """A message on its way to a sensor; sorted by when it arrives."""

    receive_ns: int
    number: int
    sensor: str
    item: types.RecordedMessage
    damage: str


class _Payload(NamedTuple):
    """What the engine keeps of a message until it is used."""

    ros_type: str
    message: Any
    damage: str
    identity: str  # of the item, for damage that is random


class Replay:
    """One bag, replayed into an engine. Iterate over :meth:`steps` once.

    Args:
        path: Folder of the bag, or its only file.
        setup: Its sensors and parameters.
        model: The model; see :func:`load_model`.
        scenario: What is different from the recording.
        phase_ns: Ticks of the rate come at the multiples of the period plus this, ns.
        identity: Of the model, which frames that a sensor node encoded must be of.
        threads: Threads that encode; see :class:`Lookahead`.
        known: What the model has encoded in other replays.
        listeners: Who else hears messages of a topic, whole and in the order in which they were recorded; some ticks
            ahead of the steps, as the engine is.

    Attributes:
        setup: As given.
        engine: The engine, which is some ticks ahead of the steps.
        start_ns: Time of the first message, ns.
        end_ns: Time of the last one.
        damage: Why the bag could not be read to its end; ``""`` if it could. Known after the last step.
        partly: Whether all that is whole was read, what lies behind the damage included.
        gaps: Beginning and end, s, of times without any message in which no ticks were made.

    Raises:
        DataError: There is no readable bag.
    """

    def __init__(
        self,
        path: Path,
        setup: Setup,
        model: Recogniser,
        scenario: Scenario = AS_RECORDED,
        phase_ns: int = 0,
        identity: str = "",
        threads: int = 1,
        known: Known | None = None,
        listeners: Mapping[str, Callable[[types.RecordedMessage], None]] | None = None,
    ) -> None:
        self.setup = setup
        self.start_ns, self.end_ns = read.span_ns(path)
        self.damage = ""
        self.partly = False
        self.gaps: list[tuple[float, float]] = []
        self._path = path
        self._scenario = scenario
        self._identity = identity
        self._threads = threads
        self._known = known
        self._listeners = listeners or {}
        self._sensors_of = {
            topic: [name for name in setup.present if setup.topics[name] == topic] for topic in setup.types
        }
        self._decoders = {
            name: messages.Decoder(sensor.config.modality, name) for name, sensor in setup.sensors.items()
        }
        configs = [sensor.config for sensor in setup.sensors.values()]
        self.engine = PerceptionEngine(model, configs, self._decode, setup.parameters.settings)
        for name, topic in setup.topics.items():
            if name in setup.refused:
                self.engine.set_obstacle(name, (SensorState.REJECTED, setup.refused[name]))
            elif topic not in setup.types:
                self.engine.set_note(name, f"the bag has no topic {topic}")
        self._stream = PerceptionStream(self.engine, Trigger(self.engine))
        self._period_ns = round(SECOND / setup.parameters["rate"])
        self._due_ns = -((phase_ns - self.start_ns) // self._period_ns) * self._period_ns + phase_ns
        self._kept: dict[tuple[str, int], int] = {}  # slot of the last message that a lower rate let through

    @classmethod
    def open(cls, path: Path, model: AnsweringModel | str | Path | None = None, params: Path | None = None) -> Replay:
        """A replay with the node's parameters, for looking at a bag.

        Args:
            path: Folder of the bag, or its only file.
            model: A loaded model, or its name or folder; ``None`` takes the parameters' one.
            params: Parameter file; ``None`` takes the package's, and topics that look like a sensor's.
        """
        given = read_parameters(params)
        setup = resolve(read.topics(path), given, adopt=params is None, bag=path)
        loaded = load_model(setup, model) if model is None or isinstance(model, str | Path) else model
        return cls(path, setup, loaded, identity=loaded.identity)

    def steps(self, progress: Callable[[float], None] = lambda seconds: None) -> Iterator[Step]:
        """The ticks, in order of time.

        A bag that is damaged is replayed as far as it can be read, see :attr:`damage`.

        Args:
            progress: Called with the s of the bag that have been replayed.
        """
        with Lookahead(self.engine, self._threads, self._known) as ahead:
            for tick in self._ticks(ahead, progress):
                time_s = (tick.selection.now_ns - self.start_ns) / SECOND
                yield Step(tick.selection, tick.tokens, tick.prediction, tick.reports, time_s)

    def _ticks(self, ahead: Lookahead, progress: Callable[[float], None]) -> Iterator[Tick]:
        heard_ns = self.start_ns
        for arrival in self._arrivals():
            if arrival.receive_ns < heard_ns:  # files of a bag that overlap
                yield from ahead.finish()
            yield from self._advance(ahead, arrival.receive_ns, heard_ns)
            heard_ns = arrival.receive_ns
            self._push(arrival)
            yield from self._poll(ahead, arrival.receive_ns)
            progress((arrival.receive_ns - self.start_ns) / SECOND)
        to_end = self.partly or not self.damage
        yield from self._advance(ahead, (max(heard_ns, self.end_ns) if to_end else heard_ns) + 1, heard_ns)
        yield from ahead.finish()

    # Messages -------------------------------------------------------------------------------------------------------

    def _arrivals(self) -> Iterator[_Arrival]:
        """All messages of sensors, changed as the scenario wants, in the order in which they arrive."""
        held: list[_Arrival] = []
        number = 0
        try:
            for item in read.messages(self._path, list({**self._sensors_of, **self._listeners})):
                while held and held[0].receive_ns <= item.time_ns:
                    yield heapq.heappop(held)
                if item.topic in self._listeners:
                    self._listeners[item.topic](item)
                for sensor in self._sensors_of.get(item.topic, ()):
                    number += 1
                    arrival = self._changed(_Arrival(item.time_ns, number, sensor, item, ""))
                    if arrival is None:
                        continue
                    if arrival.receive_ns > item.time_ns:
                        heapq.heappush(held, arrival)
                    else:
                        yield arrival
        except DataError as error:
            self.damage, self.partly = str(error), isinstance(error, PartlyReadError)
        while held and held[0].receive_ns <= self.end_ns:
            yield heapq.heappop(held)

    def _changed(self, arrival: _Arrival) -> _Arrival | None:
        """The message as the scenario wants it; ``None`` if it is lost."""
        time_s = (arrival.item.time_ns - self.start_ns) / SECOND
        for place, change in enumerate(self._scenario.changes):
            if not change.concerns(arrival.sensor, time_s):
                continue
            if change.action in ("drop", "only"):
                return None
            if change.action == "noise":
                arrival = arrival._replace(damage=change.damage)
            elif change.action == "delay":
                arrival = arrival._replace(receive_ns=arrival.receive_ns + round(change.value * SECOND))
            else:
                slot = int(time_s * change.value)
                if self._kept.get((arrival.sensor, place)) == slot:
                    return None
                self._kept[arrival.sensor, place] = slot
        return arrival

    def _push(self, arrival: _Arrival) -> None:
        receive_ns, _, name, item, kind = arrival
        try:
            message = types.decode(item)
        except InvalidInputError as error:
            self._stream.on_rejected(name, str(error), receive_ns)
            return
        stamp = messages.stamp_ns(message)
        stamp = receive_ns if stamp is None else stamp
        payload = _Payload(item.type, message, kind, f"{name}|{stamp}")
        header = getattr(message, "header", None)
        self._stream.on_message(name, stamp, receive_ns, payload, header, messages.size_of(message))

    def _decode(self, name: str, payload: _Payload) -> Any:
        sensor = self.setup.sensors[name]
        options = dataclasses.replace(sensor.options, model=self._identity)
        raw = self._decoders[name].decode(payload.ros_type, payload.message, options)
        doubt = self._decoders[name].doubt
        if not payload.damage:
            return raw if doubt is None else Doubted(raw, doubt)
        if isinstance(raw, Encoded):
            raise ConfigError(f"[{name}] frames of a sensor node cannot be damaged: they are encoded already")
        if isinstance(raw, Sized) and not len(raw):
            return raw  # a part of a stream without events
        modality = modalities.get(sensor.config.modality)
        return damage.damaged(modality.name, modality.check(raw, name), payload.damage, payload.identity)

    # Ticks ----------------------------------------------------------------------------------------------------------

    def _advance(self, ahead: Lookahead, until_ns: int, heard_ns: int) -> Iterator[Tick]:
        """The ticks before a time, after the last message was heard at another."""
        quiet_ns = heard_ns + round(LONGEST_GAP * SECOND)
        while True:
            deadline_ns = self._stream.deadline_ns
            due = deadline_ns is None or self._due_ns <= deadline_ns
            now_ns = self._due_ns if due or deadline_ns is None else max(deadline_ns, heard_ns)
            if now_ns >= until_ns:
                return
            if due:
                if now_ns > quiet_ns:
                    self._skip(until_ns, now_ns)
                    continue
                self._stream.on_timer(now_ns)
                self._due_ns += self._period_ns
            yield from self._poll(ahead, now_ns)

    def _skip(self, until_ns: int, now_ns: int) -> None:
        self._due_ns += -((now_ns - until_ns) // self._period_ns) * self._period_ns
        self.gaps.append(((now_ns - self.start_ns) / SECOND, (until_ns - self.start_ns) / SECOND))

    def _poll(self, ahead: Lookahead, now_ns: int) -> Iterator[Tick]:
        while (selection := self._stream.next(now_ns)) is not None:
            yield from ahead.add(selection)


def load_model(
    setup: Setup,
    source: str | Path | None = None,
    device: str = "cpu",
    engine: str | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> AnsweringModel:
    """The model with the labels and the threshold of the parameters, for the modalities of a bag.

    Args:
        setup: Parameters and sensors.
        source: Name or folder; ``None`` takes the parameters' one.
        device: Where it runs.
        engine: What runs its trunks on a CPU; ``None`` takes the parameters' one.
        threads: On a CPU; ``None`` for torch's choice.
        providers: What that runs on; ``None`` takes the parameters' ones, of their engine.

    Raises:
        OmniBindError: It cannot be loaded, or a parameter does not fit it.
    """
    parameters = setup.parameters
    precision = None if device == "cpu" else parameters["precision"]  # a robot's parameters may be of its GPU
    source = parameters["model"] if source is None else source
    if engine is None:
        engine, providers = parameters["engine"], parameters["providers"] if providers is None else providers
    model = loading.load_model(source, device, setup.modalities, precision, engine, threads, providers or ())
    labels = parameters["labels"]
    check_labels(labels)
    if labels:
        model.set_labels(labels)
    if parameters["threshold"] >= 0:
        model.threshold = parameters["threshold"]
    return model
