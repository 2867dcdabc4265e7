"""The engine of things at the ticks of a replay: with given boxes, and with boxes of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Doubt
from omnibind_core.modalities.drawing import Picture
from omnibind_core.objects.engine import ObjectEngine
from omnibind_core.objects.proposals.finding import Region
from omnibind_core.objects.regions import Rectangle, Region2D, Region3D, Volume
from omnibind_core.objects.rig import Reading
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.runtime.encoding import Labels, Recognised, Recogniser, embedded
from omnibind_core.runtime.lookahead import digest
from omnibind_core.runtime.types import Encoded
from omnibind_ros.bags.types import RecordedMessage
from omnibind_ros.replay import scoring
from omnibind_ros.replay.engine import Step
from omnibind_ros.replay.objects import drawing, pairing
from omnibind_ros.replay.objects.following import Following
from omnibind_ros.replay.objects.scoring import SPACE, Asked, Found
from omnibind_ros.replay.objects.truth import Things
from omnibind_ros.replay.scoring import Vocabulary
from omnibind_ros.replay.setup import Setup

GIVEN = "truth"
"""Who proposed a given box."""
_MOST_KNOWN = 50_000  # embeddings that are remembered, 2 kB each
Volumes = dict[tuple[int, str], Volume]
"""Where things were, by tick and thing."""


@dataclass(frozen=True)
class Shown:
    """A picture of one tick, with what was found in it.

    Attributes:
        sensor: Whose picture.
        time_s: s from the beginning of the bag.
        things: How many things are in it.
        found: How many of these were found.
        picture: RGB, boxes of ours in colours, with ids and labels; those of the things white.
    """

    sensor: str
    time_s: float
    things: int
    found: int
    picture: Picture = field(repr=False)


@dataclass(frozen=True)
class Perceived:
    """What one replay said of things.

    Attributes:
        asked: Of those whose boxes were given.
        found: Boxes of ours beside the things.
        shown: By sensor, the picture in which most was found.
        counters: Of the engine that found them.
        reasons: Why something could not be used, the last of each source.
        volumes: Where the given things were.
        meant: Label of every thing in the model's words; ``""`` if it has none.
    """

    asked: tuple[Asked, ...] = field(repr=False)
    found: tuple[Found, ...] = field(repr=False)
    shown: tuple[Shown, ...] = field(repr=False)
    counters: Mapping[str, int]
    reasons: Mapping[str, str]
    volumes: Volumes = field(repr=False)
    meant: Mapping[str, str]


class Remembering:
    """A model that encodes the same input once: given boxes and our own often are of the same part of a picture.

    Args:
        model: The model.
    """

    def __init__(self, model: Recogniser) -> None:
        self._model = model
        self._known: dict[bytes, NDArray[Any]] = {}

    @property
    def labels(self) -> Labels:
        """See :class:`~omnibind_core.runtime.encoding.Recogniser`, as for all others."""
        return self._model.labels

    @property
    def threshold(self) -> float:
        """Confidence below which a prediction is unknown."""
        return self._model.threshold

    def process(self, modality: str, raw: Any) -> NDArray[Any]:
        """Encoder input of one item."""
        return self._model.process(modality, raw)

    def recognise(
        self, modalities: Sequence[str], embeddings: NDArray[np.float32], doubts: Sequence[Doubt | None] | None = None
    ) -> Recognised:
        """Fuses and classifies."""
        return self._model.recognise(modalities, embeddings, doubts)

    def embed(self, items: Sequence[tuple[str, NDArray[Any]]]) -> NDArray[Any]:
        """Embeddings of what is new, and of what is not."""
        keys = [digest(*item) for item in items]
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in self._known}
        if new:
            self._known.update(zip(new, embedded(self._model, list(new.values())), strict=True))
        rows = np.stack([self._known[key] for key in keys])
        for key in list(itertools.islice(self._known, max(len(self._known) - _MOST_KNOWN, 0))):
            del self._known[key]
        return rows


class Driver:
    """Follows one replay.

    Args:
        model: The model.
        setup: Sensors and parameters.
        topics: Types of the bag's topics, by topic.
        things: What was where.
        vocabulary: The model's labels.
        placed: Where given things were in the replay as recorded: a box in the picture of a sensor that is lost now
            says nothing of where the thing is for others.

    Raises:
        ConfigError: A parameter of the sensors' geometry is unusable.
    """

    def __init__(
        self,
        model: Recogniser,
        setup: Setup,
        topics: Mapping[str, str],
        things: Things,
        vocabulary: Vocabulary,
        placed: Volumes,
    ) -> None:
        self._model = model
        self._own = Following(model, setup, topics)
        self._around = self._own.around
        self._sensors = setup.present
        self._things = things
        self._vocabulary = vocabulary
        self._placed = placed
        self._given = ObjectEngine(model, self._around.rig, setup.parameters.objects)
        self._asked: list[Asked] = []
        self._found: list[Found] = []
        self._shown: dict[str, Shown] = {}
        self._volumes: Volumes = {}

    @property
    def listeners(self) -> Mapping[str, Callable[[RecordedMessage], None]]:
        """Who hears the messages of which topic, for :class:`~omnibind_ros.replay.engine.Replay`."""
        return self._own.listeners

    @property
    def notes(self) -> list[str]:
        """What a person should know, in sentences."""
        found = [*self._things.notes, *self._around.notes]
        found += [
            f"objects: boxes in pictures of '{name}' are left out, the bag has no such sensor"
            for name in self._things.sensors
            if name not in self._sensors
        ]
        missing = sorted({label for label in self._things.labels.values() if label and not self._vocabulary.of(label)})
        if missing:
            found.append(f"objects: the model has no label for {', '.join(missing)}: these things are only looked for")
        reasons = self.perceived.reasons
        return found + [f"objects: {why}" for _, why in sorted(reasons.items())]

    def add(self, step: Step) -> None:
        """Takes one tick."""
        now_ns = step.selection.now_ns
        tick = self._own.add(step)
        if tick.moved:
            self._given.clear()
        there = self._things.at(now_ns)
        if not there:
            return
        boxes = self._boxes(now_ns, there, tick.readings)
        answers = {one.given: one for one in self._given.perceive(now_ns, tick.readings, tick.absent, boxes)}
        for thing, label in there.items():
            self._ask(step, thing, label, answers.get(thing), tick.absent)
        self._find(step.time_s, now_ns, tick.readings, tick.things)

    @property
    def perceived(self) -> Perceived:
        """What was said."""
        return Perceived(
            tuple(self._asked),
            tuple(self._found),
            tuple(self._shown.values()),
            self._own.engine.counters,
            {**self._around.reasons, **self._given.rejections, **self._own.engine.rejections},
            dict(self._volumes),
            {thing: self._vocabulary.of(label) or "" for thing, label in self._things.labels.items()},
        )

    # Given boxes ----------------------------------------------------------------------------------------------------

    def _boxes(self, now_ns: int, there: Iterable[str], readings: Mapping[str, Reading]) -> dict[str, list[Region]]:
        """The regions of the things, by thing; a thing without any is left out."""
        found: dict[str, list[Region]] = {thing: [] for thing in there}
        for name in self._things.sensors:
            if name in readings and name in self._around.rig.cameras:
                whole = Rectangle(0, 0, *readings[name].size)
                for thing, box in self._things.boxes(name, readings[name].stamp_ns).items():
                    inside = box.within(whole)
                    if thing in found and inside.area:
                        found[thing].append(Region2D(name, inside, readings[name].stamp_ns, proposer=GIVEN))
        for thing, volume in self._places(now_ns).items():
            found[thing].append(Region3D(volume, now_ns, proposer=GIVEN))
        for thing, regions in found.items():
            if not regions and (now_ns, thing) in self._placed:
                regions.append(Region3D(self._placed[now_ns, thing], now_ns, proposer=GIVEN))
        return {thing: regions for thing, regions in found.items() if regions}

    def _places(self, now_ns: int) -> dict[str, Volume]:
        found = {}
        rig = self._around.rig
        for thing, place in self._things.places(now_ns).items():
            try:
                found[thing] = place.volume(rig.tree.lookup(rig.fixed, place.frame, now_ns))
            except InvalidInputError as error:
                self._given.reject(thing, str(error))
        return found

    def _ask(
        self, step: Step, thing: str, label: str, answer: ObjectPrediction | None, absent: Mapping[str, str]
    ) -> None:
        now_ns = step.selection.now_ns
        scene = "" if step.prediction is None or not step.prediction.labels else step.prediction.labels[0]
        truth = (label,) if label else ()
        if answer is None:
            row = scoring.row(None, step.time_s, now_ns, truth, self._vocabulary)
            self._asked.append(Asked(thing, row, "", scene, unseen=absent))
            return
        self._volumes[now_ns, thing] = answer.volume
        said = answer.prediction
        row = scoring.row(said, step.time_s, now_ns, truth, self._vocabulary)
        # What it was taken for stays while nobody sees it; that is an answer, too.
        row = row if row.labels else replace(row, labels=said.labels)
        without = {share.name: share.label_without for share in said.sensors}
        unseen = {name: sight.reason for name, sight in answer.sights.items() if not sight.seen}
        self._asked.append(Asked(thing, row, self._now(answer), scene, without, unseen))

    def _now(self, answer: ObjectPrediction) -> str:
        """What is said of a thing by this tick alone; ``""`` if no sensor says anything."""
        cosines = answer.prediction.similarities
        names: Sequence[str] = self._model.labels.names
        if not any(share.weight for share in answer.prediction.sensors) or cosines.shape[-1] != len(names):
            return ""
        return names[int(np.argmax(cosines[0]))]

    # Boxes of our own -----------------------------------------------------------------------------------------------

    def _find(
        self, time_s: float, now_ns: int, readings: Mapping[str, Reading], told: Sequence[ObjectPrediction]
    ) -> None:
        labels = {str(one.id): next(iter(one.prediction.labels), "") for one in told}
        for name in self._things.sensors:
            if name not in readings:
                continue
            true = self._things.boxes(name, readings[name].stamp_ns)
            boxes = {str(one.id): sight.box for one in told if (sight := one.sights.get(name)) and sight.box}
            found = pairing.found(time_s, name, true, boxes, labels, Rectangle.overlap)
            self._found.append(found)
            self._show(found, readings[name], true, told)
        if self._things.placed:
            volumes = {str(one.id): one.volume for one in told}
            self._found.append(pairing.found(time_s, SPACE, self._places(now_ns), volumes, labels, pairing.in_space))

    def _show(
        self, found: Found, reading: Reading, true: Mapping[str, Rectangle], told: Sequence[ObjectPrediction]
    ) -> None:
        """Keeps the picture in which most was found, the first of several."""
        best = self._shown.get(found.where)
        if isinstance(reading.raw, Encoded) or (best is not None and best.found >= len(found.pairs)):
            return
        picture = drawing.drawn(reading.modality, reading.raw, reading.size, reading.sensor, told, true)
        if picture is not None:
            self._shown[found.where] = Shown(found.where, found.time_s, len(true), len(found.pairs), picture)
