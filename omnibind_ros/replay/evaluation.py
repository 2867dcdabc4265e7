"""Evaluation of one bag: what would have been perceived, beside what was there, also with sensors lost or damaged."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core.errors import ConfigError, OmniBindError
from omnibind_core.modalities.drawing import Picture, fit
from omnibind_core.parallel import cores
from omnibind_core.runtime.encoding import Token
from omnibind_core.runtime.lookahead import Known
from omnibind_core.runtime.ranking import rank
from omnibind_core.runtime.types import SensorReport, SensorState
from omnibind_ros.bags import read
from omnibind_ros.node import overlay
from omnibind_ros.replay import scoring, truth
from omnibind_ros.replay.changes import AS_RECORDED, Scenario, parse, scenarios
from omnibind_ros.replay.engine import Replay, Step, load_model
from omnibind_ros.replay.objects import truth as objects_truth
from omnibind_ros.replay.objects.driver import Driver, Perceived, Remembering, Volumes
from omnibind_ros.replay.objects.truth import Things
from omnibind_ros.replay.scoring import Row, Vocabulary
from omnibind_ros.replay.setup import Setup, read_parameters, resolve
from omnibind_ros.replay.truth import Truth

LABELS = "truth.csv"
"""Where labels are looked for in a bag's folder if none are named."""
_WORST = 6  # moments that are shown
_MOST_ABLATED = 8  # sensors, which are 255 combinations
_SIDE = 144  # pixels of a thumbnail

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Options:
    """How bags are evaluated.

    Attributes:
        model: Name or folder; ``None`` takes the parameters' one.
        params: Parameter file of the node; ``None`` takes the package's, and topics that look like a sensor's.
        namespace: Of the node, for relative topic names.
        labels: Table of what was there; ``None`` looks for :data:`LABELS` in the bag.
        truth_topic: Topic that tells it instead; ``""``: none.
        changes: ``(action, text)`` of each change, see :mod:`omnibind_ros.replay.changes`.
        ablate: Whether every combination of sensors is scored.
        settle: s after a change of what was there that are left out in the figures named ``settled``.
        device: Where the model runs.
        threads: CPU threads that encode, 0 for one on each core; they change no figure.
        engine: What runs trunks on a CPU; ``None`` takes the parameters' one.
        providers: What that runs on; ``None`` takes the parameters' ones, of their engine.
        objects: Table of which things were where, by its path, or by its name in the bag's folder; ``None``: nothing is
            asked of things.
    """

    model: str | None = None
    params: Path | None = None
    namespace: str = "/"
    labels: Path | None = None
    truth_topic: str = ""
    changes: tuple[tuple[str, str], ...] = ()
    ablate: bool = False
    settle: float = 1.0
    device: str = "cpu"
    threads: int = 0
    engine: str | None = None
    providers: tuple[str, ...] | None = None
    objects: Path | None = None


@dataclass(frozen=True)
class Mistake:
    """A confident mistake.

    Attributes:
        row: The tick.
        thumbnails: What each sensor saw, RGB, by its name and what it alone would have said.
    """

    row: Row
    thumbnails: Mapping[str, Picture] = field(repr=False)


@dataclass(frozen=True)
class Run:
    """One replay.

    Attributes:
        scenario: What was different from the recording.
        rows: One per tick.
        states: Per tick and sensor its state, in the order of the sensors.
        reports: The sensors at the end.
        sensors: Sensors that the combinations are made of.
        combinations: Per set of sensors, its rows at the same ticks.
        worst: Confident mistakes, the worst first.
        objects: What was said of things; ``None`` if nobody asked.
    """

    scenario: Scenario
    rows: tuple[Row, ...] = field(repr=False)
    states: tuple[tuple[SensorState, ...], ...] = field(repr=False)
    reports: tuple[SensorReport, ...]
    combinations: Mapping[tuple[str, ...], Sequence[Row]] = field(default_factory=dict, repr=False)
    worst: tuple[Mistake, ...] = field(default=(), repr=False)
    objects: Perceived | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Evaluation:
    """Everything found out about one bag.

    Attributes:
        bag: The bag, as it was named.
        model: Identity of the model.
        labels: Number of labels it can say.
        threshold: Confidence below which it says ``unknown``.
        start_ns: Time of the first message.
        span_s: s from the first message to the last.
        setup: Sensors and parameters.
        truth: What was there; ``None`` if nobody told.
        runs: The replay as recorded, then one for each scenario.
        options: How it was evaluated.
        damage: Why the bag could not be read to its end; ``""`` if it could.
        notes: What a person should know, in sentences.
        things: Which things were where; ``None`` if nobody asked.
    """

    bag: str
    model: str
    labels: int
    threshold: float
    start_ns: int
    span_s: float
    setup: Setup
    truth: Truth | None
    runs: tuple[Run, ...]
    options: Options
    damage: str = ""
    notes: tuple[str, ...] = ()
    things: Things | None = field(default=None, repr=False)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The ticks as recorded."""
        return self.runs[0].rows

    @property
    def segments(self) -> list[tuple[float, float, tuple[str, ...]]]:
        """Beginning and end, s, and labels of the times between two changes of what was there."""
        return _segments(self.truth, self.start_ns)

    def settled(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are long enough after a change."""
        return scoring.settled(rows, self.options.settle)


def evaluate(path: Path, options: Options, progress: Progress = lambda share: None) -> Evaluation:
    """Replays a bag once as recorded and once for each scenario.

    Args:
        path: Folder of the bag, or its only file.
        options: How.
        progress: Called with the share that is done, 0 to 1.

    Raises:
        OmniBindError: The bag cannot be read, or an option does not fit it.
    """
    threads = options.threads or cores()
    given = read_parameters(options.params)
    if options.objects is not None:
        given["objects.enabled"] = True
    topics = read.topics(path)
    setup = resolve(topics, given, options.namespace, adopt=options.params is None, bag=path)
    start_ns, end_ns = read.span_ns(path)
    ground_truth = _truth(path, options, start_ns, end_ns)
    things = _things(path, options, start_ns, end_ns)
    plan = scenarios([parse(action, text, setup) for action, text in options.changes])
    if options.ablate and len(setup.present) > _MOST_ABLATED:
        raise ConfigError(
            f"--ablate all: the bag has {len(setup.present)} sensors, at most {_MOST_ABLATED} are combined"
        )
    # One thread of each that encodes.
    model = load_model(setup, options.model, options.device, options.engine, 1, options.providers)
    vocabulary = Vocabulary(model.labels.names, model.labels.aliases)
    known: Known = {}
    begin = None if things is None else partial(Driver, Remembering(model), setup, topics, things, vocabulary)
    placed: Volumes = {}
    runs, notes, damage = [], [], ""
    for number, scenario in enumerate(plan):
        driver = None if begin is None else begin(placed)
        hears = None if driver is None else driver.listeners
        replay = Replay(path, setup, model, scenario, 0, model.identity, threads, known, hears)
        ablate = options.ablate and scenario is AS_RECORDED
        collector = _Collector(replay, ground_truth, vocabulary, model, options.settle, ablate)
        for step in replay.steps(partial(_tell, progress, number, len(plan), (end_ns - start_ns) / 1e9)):
            collector.add(step)
            if driver is not None:
                driver.add(step)
        perceived = None if driver is None else driver.perceived
        runs.append(collector.run(scenario, perceived))
        if not number:
            damage = replay.damage
            extent = "is damaged, and all that is whole of it is evaluated"
            extent = extent if replay.partly else "could not be read to its end, and is evaluated up to there"
            notes = [f"the bag {extent}: {damage}"] if damage else []
            notes += [f"no message at all from {a:.1f} to {b:.1f} s: no ticks were made there" for a, b in replay.gaps]
            notes += collector.doubts()
            if driver is not None and perceived is not None:
                notes += driver.notes
                placed = perceived.volumes
    progress(1.0)
    return Evaluation(
        str(path),
        model.identity,
        len(model.labels.names),
        model.threshold,
        start_ns,
        (end_ns - start_ns) / 1e9,
        setup,
        ground_truth,
        tuple(runs),
        options,
        damage,
        (*_notes(setup, ground_truth, vocabulary), *notes),
        things,
    )


def _tell(progress: Progress, number: int, runs: int, span_s: float, time_s: float) -> None:
    progress((number + min(time_s / max(span_s, 1e-9), 1.0)) / runs)


def _truth(path: Path, options: Options, start_ns: int, end_ns: int) -> Truth | None:
    if options.truth_topic:
        return truth.from_topic(path, options.truth_topic, start_ns, end_ns)
    table = options.labels if options.labels is not None else path / LABELS
    if options.labels is None and not table.is_file():
        return None
    return truth.from_table(table, start_ns, end_ns, path.stem)


def _things(path: Path, options: Options, start_ns: int, end_ns: int) -> Things | None:
    if options.objects is None:
        return None
    beside = path / options.objects
    named = len(options.objects.parts) == 1 and not options.objects.is_file() and beside.is_file()
    return objects_truth.read(beside if named else options.objects, start_ns, end_ns, path.stem)


def _notes(setup: Setup, ground_truth: Truth | None, vocabulary: Vocabulary) -> list[str]:
    notes = list(setup.notes)
    if ground_truth is None:
        notes.append(f"nobody told what was there (--labels, --truth-topic, or {LABELS} in the bag): nothing is scored")
        return notes
    notes += ground_truth.notes
    missing = [label for label in ground_truth.labels if vocabulary.of(label) is None]
    if missing:
        notes.append(f"the model has no label for {', '.join(missing)}: ticks with nothing else are not scored")
    return notes


def _segments(ground_truth: Truth | None, start_ns: int) -> list[tuple[float, float, tuple[str, ...]]]:
    if ground_truth is None:
        return []
    return [((a - start_ns) / 1e9, (b - start_ns) / 1e9, labels) for a, b, labels in ground_truth.segments()]


class _Collector:
    """Collects the rows of one replay."""

    def __init__(
        self,
        replay: Replay,
        ground_truth: Truth | None,
        vocabulary: Vocabulary,
        model: Any,
        settle: float,
        ablate: bool,
    ) -> None:
        self._replay = replay
        self._truth = ground_truth
        self._vocabulary = vocabulary
        self._model = model
        self._settle = settle
        self._begins = [begin for begin, _, _ in _segments(ground_truth, replay.start_ns)]
        self._rows: list[Row] = []
        self._states: list[tuple[SensorState, ...]] = []
        self._reports: tuple[SensorReport, ...] = ()
        self._doubts: dict[str, list[str]] = {}
        self._worst: dict[tuple[Any, ...], Mistake] = {}
        self._combinations: dict[tuple[str, ...], list[Row]] = {}
        if ablate:
            names = replay.setup.present
            sizes = range(len(names), 0, -1)
            self._combinations = {c: [] for size in sizes for c in itertools.combinations(names, size)}

    def add(self, step: Step) -> None:
        """Takes one tick."""
        tick_ns = step.selection.now_ns
        labels = self._truth.at(tick_ns) if self._truth is not None else ()
        place = bisect_right(self._begins, step.time_s)
        since = step.time_s - self._begins[place - 1] if labels and place else math.nan
        row = scoring.row(step.prediction, step.time_s, tick_ns, labels, self._vocabulary, since)
        self._rows.append(row)
        self._states.append(tuple(report.state for report in step.reports))
        self._reports = step.reports
        for report in step.reports:
            if report.doubt is not None and not report.doubt.empty:
                self._doubts.setdefault(report.name, []).append(str(report.doubt))
        wrong = row.scored and bool(row.labels) and row.label not in row.meant and since >= self._settle
        if not (wrong or self._combinations):
            return
        tokens = step.tokens if step.prediction is not None else ()
        if wrong:
            self._remember(row, tokens)
        if self._combinations:
            self._combine(row, tokens)

    def run(self, scenario: Scenario, perceived: Perceived | None = None) -> Run:
        """What was collected, and what was said of things."""
        worst = sorted(self._worst.values(), key=lambda mistake: (-mistake.row.confidence, mistake.row.time_s))[:_WORST]
        return Run(
            scenario,
            tuple(self._rows),
            tuple(self._states),
            self._reports,
            self._combinations,
            tuple(worst),
            perceived,
        )

    def doubts(self) -> list[str]:
        """What spoke against sensors, a sentence each."""
        ticks = len(self._rows)
        return [f"{name} at {len(said)} of {ticks} ticks, at first: {said[0]}" for name, said in self._doubts.items()]

    def _remember(self, row: Row, tokens: Sequence[Token]) -> None:
        """Keeps the most confident mistake of a kind, at most twice as many as are shown."""
        key = (row.truth, row.label)
        if key in self._worst and self._worst[key].row.confidence >= row.confidence:
            return
        if key not in self._worst and len(self._worst) >= 2 * _WORST:
            least = min(self._worst, key=lambda known: self._worst[known].row.confidence)
            if self._worst[least].row.confidence >= row.confidence:
                return
            del self._worst[least]
        said = dict(zip(row.sensors, row.said, strict=True))
        views = {f"{token.sensor.name}: {said[token.sensor.name]}": _thumbnail(token) for token in tokens}
        self._worst[key] = Mistake(row, {name: view for name, view in views.items() if view is not None})

    def _combine(self, row: Row, tokens: Sequence[Token]) -> None:
        """Fuses what every combination of sensors has of this tick; nothing is encoded again."""
        known: dict[tuple[str, ...], Row] = {}
        for names, rows in self._combinations.items():
            chosen = [token for token in tokens if token.sensor.name in names]
            living = tuple(token.sensor.name for token in chosen)
            if living not in known:
                known[living] = self._alone(row, chosen)
            rows.append(known[living])

    def _alone(self, row: Row, tokens: Sequence[Token]) -> Row:
        blank = Row(row.time_s, row.tick_ns, row.truth, row.meant, row.since_s)
        settings = self._replay.engine.settings
        if len(tokens) < settings.min_sensors:
            return blank
        embeddings = np.stack([token.embedding for token in tokens if token.embedding is not None])
        doubts = [token.doubt for token in tokens]
        found = self._model.recognise([token.sensor.modality for token in tokens], embeddings, doubts)
        if not found.weights.any():  # nothing is said
            return replace(blank, sensors=tuple(token.sensor.name for token in tokens), weights=(0.0,) * len(tokens))
        ranking = rank(found.probabilities[0], self._model.labels.names, settings.top_k, self._model.threshold)
        names = tuple(token.sensor.name for token in tokens)
        weights = tuple(found.weights.tolist())
        return replace(
            blank,
            labels=ranking.labels,
            confidence=ranking.confidence,
            unknown=ranking.unknown,
            sensors=names,
            weights=weights,
        )


def _thumbnail(token: Token) -> Picture | None:
    """What a sensor saw, RGB ``uint8 [144, W, 3]``; ``None`` if it cannot be shown."""
    try:
        picture = overlay.picture(token.sensor.modality, token.content)
    except OmniBindError:  # it was good enough for a prediction; its picture is no reason to fail
        return None
    return (
        None if picture is None else fit(picture, (_SIDE, max(round(picture.shape[1] * _SIDE / picture.shape[0]), 1)))
    )
