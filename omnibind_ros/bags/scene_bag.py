"""Composes recordings of six sensors, the demo's among them: scenes one after the other, each one object seen by the
sensors that have data of it.

A scene's samples are repeated in the rhythm of real sensors. A sensor without a sample of the object publishes nothing
during the scene: nothing in contact, nothing in range, no sound. A table says what was there when, by which sensors,
and which of these streams are recorded and which are rendered.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core import resources
from omnibind_core.config import read_mapping
from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.matching.wordnet import WordNet
from omnibind_core.data.rendering import demo_objects
from omnibind_core.data.samples import Sample
from omnibind_core.data.scenes import Scene, compose_scenes
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.errors import DataError
from omnibind_core.evaluation.labelling import find_labels
from omnibind_core.labels import clean
from omnibind_core.modalities import Events, Sound
from omnibind_core.modalities.audio.processing import SAMPLE_RATE, resample
from omnibind_ros.bags import types
from omnibind_ros.bags.write import BagWriter
from omnibind_ros.messages import (
    AUDIO_CHUNK,
    EVENT_ARRAY,
    IMAGE,
    POINT_CLOUD,
    STRING,
    audio_chunk_fields,
    event_array_fields,
    image_fields,
    point_cloud_fields,
)

_logger = logging.getLogger(__name__)

# Recordings begin at this time, ns, so that the same data give the same file: 2025-01-01 00:00 UTC.
EPOCH_NS = 1_735_689_600_000_000_000
# Thermal pictures in degrees Celsius are stored as 16UC1 in 0.01 K: value * scale + offset is in degrees Celsius.
THERMAL_SCALE, THERMAL_OFFSET = 0.01, -273.15


@dataclass(frozen=True)
class Sensor:
    """One sensor of the recording.

    Attributes:
        modality: One of :data:`omnibind_core.modalities.NAMES`.
        topic: Topic name, the default of ``config/perception.yaml``.
        type: ROS type.
        period: s between messages; for streams the length of one message.
    """

    modality: str
    topic: str
    type: str
    period: float


SENSORS: Mapping[str, Sensor] = {
    "camera": Sensor("image", "/camera/image_raw", IMAGE, 0.1),
    "thermal": Sensor("thermal", "/thermal/image_raw", IMAGE, 0.125),
    "event_camera": Sensor("event", "/event_camera/events", EVENT_ARRAY, 0.05),
    "tactile": Sensor("touch", "/tactile/image_raw", IMAGE, 0.1),
    "lidar": Sensor("point_cloud", "/lidar/points", POINT_CLOUD, 0.2),
    "microphone": Sensor("audio", "/microphone/audio", AUDIO_CHUNK, 0.2),
}
CAPTIONER = "captioner"
"""Sensor of words, in recordings that are made with them: :func:`with_words`."""
WITH_WORDS: Mapping[str, Sensor] = {**SENSORS, CAPTIONER: Sensor("text", "/captioner/text", STRING, 1.0)}
_EVENT_WINDOW_US = 200_000  # the event stream repeats after this time


@dataclass(frozen=True)
class SceneData:
    """What the sensors give in one scene.

    Attributes:
        label: What is there.
        raw: Raw item by modality, as the modality's ``check`` returns it.
        rendered: Modalities of ``raw`` that were computed, not recorded.
        origin: Where each item comes from, by modality, for the sidecar.
    """

    label: str
    raw: Mapping[str, Any]
    rendered: frozenset[str]
    origin: Mapping[str, str]


@dataclass(frozen=True)
class SceneLabel:
    """One row of ``labels.csv``; the lists are joined by blanks there.

    Attributes:
        start_s: Beginning, s from the beginning of the recording.
        end_s: End, s.
        label: What is there.
        recorded: Sensors whose data were recorded from a real sensor.
        rendered: Sensors whose data were computed from a mesh or a photograph.
        origin: ``sensor=file`` for each sensor.
    """

    start_s: float
    end_s: float
    label: str
    recorded: tuple[str, ...]
    rendered: tuple[str, ...]
    origin: tuple[str, ...]

    @property
    def sensors(self) -> tuple[str, ...]:
        """Sensors that publish during the scene, in the order of :data:`WITH_WORDS`."""
        return tuple(name for name in WITH_WORDS if name in self.recorded + self.rendered)


def sensors_of(scenes: Sequence[SceneLabel]) -> tuple[str, ...]:
    """Sensors of a recording: the six, and the captioner where there is one."""
    return tuple(name for name in WITH_WORDS if name in SENSORS or any(name in scene.sensors for scene in scenes))


def scenes_of_packages(
    cache: Path | None, seed: int = 0, scenes: int = 16, known: Collection[str] | None = None
) -> Iterator[SceneData]:
    """Scenes made of Debian packages: photographs and sounds as they are, the other sensors rendered.

    Two thirds of the scenes have as many sensors as possible, the others lack the sound or the mesh.

    Args:
        cache: Where packages are unpacked, None for the default.
        seed: Of the choice of objects and of all rendering.
        scenes: Number of scenes.
        known: Only objects with one of these names, if given.

    Raises:
        DataError: The packages cannot be fetched, or hold too few of the objects.
    """
    rng = np.random.default_rng(seed)
    objects = [one for one in demo_objects.find_objects(cache) if known is None or one.name in known]
    both = [one for one in objects if one.sound and one.mesh]
    silent = [one for one in objects if not one.sound]
    without_mesh = [one for one in objects if not one.mesh]
    first = _pick(both, scenes - scenes // 3, rng)
    rest = scenes - len(first)
    chosen = first + _pick(without_mesh, (rest + 1) // 2, rng) + _pick(silent, rest // 2, rng)
    if len(chosen) < 2:
        raise DataError(f"the packages hold {len(chosen)} usable objects, expected at least 2")

    def scene(one: demo_objects.PackagedObject) -> SceneData:
        raw = one.items(rng)
        mesh = f"{one.mesh.archive.name}:{one.mesh.member}" if one.mesh else ""
        paths = {"audio": str(one.sound and one.sound.name), "touch": mesh, "point_cloud": mesh}
        origin = {name: paths.get(name, one.photo.name) for name in raw}
        return SceneData(one.name, raw, frozenset(demo_objects.RENDERED) & raw.keys(), origin)

    return (scene(chosen[i]) for i in rng.permutation(len(chosen)))


def scenes_of_samples(
    root: Path, concepts: Concepts, split: str = "val", seed: int = 0, scenes: int = 16
) -> Iterator[SceneData]:
    """Scenes made of a folder with ``samples.csv``: every stream is a real sensor's.

    Samples of one concept are put together, from different sources: no two sensors looked at the same thing.

    Args:
        root: Folder of ``samples.csv``.
        concepts: Which labels mean the same; see ``omnibind data match``.
        split: Split that the samples are taken from.
        seed: Of the choice.
        scenes: Number of scenes, each with two sensors or more.

    Raises:
        DataError: The folder or the table cannot be used, or no concept was seen by two sensors.
        InvalidInputError: A file cannot be used.
    """
    source = FolderSource(root)
    names = {sensor.modality: name for name, sensor in SENSORS.items()}
    samples = [sample for sample in source.samples(split=split) if sample.modality in names]
    chosen = _balanced(compose_scenes(samples, concepts, seed, 4 * scenes), scenes)
    return (
        SceneData(
            scene.concept,
            {modality: source.load(items[0]) for modality, items in scene.samples.items()},
            frozenset(),
            {modality: items[0].path for modality, items in scene.samples.items()},
        )
        for scene in chosen
    )


def with_words(scenes: Iterable[SceneData], words: str) -> Iterator[SceneData]:
    """Adds a captioner to every second scene, as if one were there: its words are made of the scene's own label.

    Args:
        scenes: The scenes.
        words: ``"name"``: it names what is there; ``"description"``: WordNet's definition of it, in which words of the
            name are left out. Where there is no definition it says nothing.

    Raises:
        DataError: WordNet is needed and cannot be had.
        MissingDependencyError: It needs a package that is not installed.
    """
    wordnet = WordNet() if words == "description" else None
    for number, scene in enumerate(scenes):
        text = f"a {scene.label}" if wordnet is None else _described(scene.label, wordnet)
        if number % 2 or not text:
            yield scene
            continue
        made = frozenset({*scene.rendered, "text"})
        origin = {**scene.origin, "text": "label" if wordnet is None else "WordNet"}
        yield replace(scene, raw={**scene.raw, "text": text}, rendered=made, origin=origin)


def _described(label: str, wordnet: WordNet) -> str:
    """A definition of what is meant, without the words of its name; empty if there is none."""
    for sense in wordnet.things(label):
        names = tuple(word for word in re.findall(r"\w{3,}", " ".join((label, *wordnet.names(sense))).lower()))
        words = re.findall(r"[\w-]+", wordnet.definition(sense))
        return " ".join(word for word in words if not word.lower().startswith(names))
    return ""


def scenes_for(
    model: str,
    data: Path | None = None,
    split: str = "val",
    labels: Path | None = None,
    cache: Path | None = None,
    seed: int = 0,
    scenes: int = 16,
) -> Iterator[SceneData]:
    """Scenes for a model, of a folder with ``samples.csv`` or of Debian packages.

    Labels of the folder that are in no row of the table are matched with the model's words, as ``omnibind eval`` does.
    What the model has no label for keeps its own name, which the log tells.

    Args:
        model: Name of a model that comes with the package, or its folder.
        data: Folder of ``samples.csv``; ``None`` takes the packages.
        split: Split of ``data`` that the samples are taken from.
        labels: Which labels of ``data`` mean the same; ``None`` takes the model's ``labels.csv``.
        cache: Where packages are unpacked; ``None`` for the default.
        seed: Of the choice of objects and of all rendering.
        scenes: Number of scenes.

    Raises:
        DataError: See :func:`scenes_of_samples` and :func:`scenes_of_packages`.
    """
    if data is not None:
        table = _model_folder(model) / "labels.csv"
        given = Concepts.read(labels or table)
        own = Concepts.read(table) if table.is_file() else Concepts([])
        concepts = _completed(given, own, vocabulary(model), FolderSource(data).samples(split=split))
        return scenes_of_samples(data, concepts, split, seed, scenes)
    return scenes_of_packages(cache, seed, scenes, vocabulary(model))


def _completed(given: Concepts, own: Concepts, vocabulary: Collection[str] | None, samples: list[Sample]) -> Concepts:
    """The given table with a row more for every label that it lacks."""
    names = own.names if vocabulary is None else sorted(vocabulary)
    found = find_labels([sample for sample in samples if given.get(sample.source, sample.label) is None], names, own)
    counts = Counter((sample.source, sample.label) for sample in samples)
    unknown = [f"{of.concept} ({counts[key]} samples)" for key, of in sorted(found.items()) if of.concept not in names]
    if unknown:
        _logger.warning("the model has no label for %s: unknown things in the recording", ", ".join(unknown))
    return Concepts([*given, *(Match(*key, of.concept, 0.0, of.how) for key, of in found.items())])


def _model_folder(model: str) -> Path:
    """Folder of a model that comes with the package, or the folder itself. Found without loading torch."""
    shipped = resources.path(f"weights/{model}")
    return shipped if shipped.is_dir() else Path(model)


def vocabulary(model: str) -> set[str] | None:
    """Names that a model can recognise; None if its folder does not tell."""
    path = _model_folder(model) / "labels.json"
    if not path.is_file():
        return None
    names = read_mapping(path).get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} has no list of names, expected the labels of a model")
    return set(names)


def _balanced(scenes: Sequence[Scene], number: int) -> list[Scene]:
    """Scenes in which every modality comes about equally often, and no concept again before all others have come."""
    left = list(scenes)
    chosen: list[Scene] = []
    used: Counter[str] = Counter()
    while left and len(chosen) < number:
        best = min(left, key=lambda scene: (used[scene.concept], -sum(1 / (1 + used[m]) for m in scene.samples)))
        left.remove(best)
        chosen.append(best)
        used.update([best.concept, *best.samples])
    return chosen


def _pick(items: Sequence[Any], number: int, rng: np.random.Generator) -> list[Any]:
    return [items[i] for i in rng.permutation(len(items))[:number]]


def write(
    path: Path, table: Path, scenes: Iterable[SceneData], seed: int = 0, duration: float = 5.0, away: float = 0.0
) -> list[SceneLabel]:
    """Writes a bag (rosbag2, MCAP) and the table of what is in it. Same scenes and seed, same messages.

    Args:
        path: Folder of the bag.
        table: File of the table; it may lie in the bag's folder.
        scenes: The scenes, in order.
        seed: Of the jitter between pictures, and of the sensors that go away.
        duration: Length of each scene, s.
        away: Share of the scenes in the middle of which one of several sensors is silent for half of the scene.

    Raises:
        DataError: There is a bag already.
    """
    rng = np.random.default_rng(seed)
    fate = np.random.default_rng((seed, 1))
    labels: list[SceneLabel] = []
    with BagWriter(path) as writer:
        for number, scene in enumerate(scenes):
            start_ns = EPOCH_NS + int(number * duration * 1e9)
            present = {name: sensor for name, sensor in WITH_WORDS.items() if sensor.modality in scene.raw}
            items = [
                (time_ns, sensor, stamp_ns, content, name)
                for name, sensor in present.items()
                for time_ns, stamp_ns, content in _messages(sensor, scene.raw[sensor.modality], start_ns, duration, rng)
            ]
            lost = str(fate.choice(sorted(present))) if len(present) > 1 and fate.random() < away else ""
            silence = range(start_ns + int(duration * 0.35e9), start_ns + int(duration * 0.85e9))
            for time_ns, sensor, stamp_ns, content, name in sorted(items, key=lambda item: item[0]):
                if name == lost and time_ns in silence:
                    continue
                message = types.message(sensor.type, content, None if sensor.type == STRING else stamp_ns, name)
                writer.write(sensor.topic, sensor.type, time_ns, message)
            rendered = tuple(name for name, sensor in present.items() if sensor.modality in scene.rendered)
            recorded = tuple(name for name in present if name not in rendered)
            origin = tuple(f"{name}={scene.origin[sensor.modality]}" for name, sensor in present.items())
            labels.append(
                SceneLabel(number * duration, (number + 1) * duration, scene.label, recorded, rendered, origin)
            )
        write_labels(writer.place(table), labels)
    return labels


def write_labels(path: Path, labels: Sequence[SceneLabel]) -> None:
    """Writes the sidecar."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([field.name for field in fields(SceneLabel)])
        for row in labels:
            lists = (" ".join(part.replace(" ", "_") for part in row_list) for row_list in _lists(row))
            table.writerow([f"{row.start_s:.3f}", f"{row.end_s:.3f}", row.label, *lists])


def _lists(row: SceneLabel) -> tuple[tuple[str, ...], ...]:
    return row.recorded, row.rendered, row.origin


def read_labels(path: Path) -> list[SceneLabel]:
    """Reads the sidecar.

    Raises:
        DataError: It is missing, lacks a column, or a row cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: it says what was there when in the recording")
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        expected = [field.name for field in fields(SceneLabel)]
        rows: list[SceneLabel] = []
        try:
            if table.fieldnames != expected:
                raise DataError(f"{path} has the columns {table.fieldnames}, expected {expected}")
            for row in table:
                lists = (tuple(row[key].split()) for key in ("recorded", "rendered", "origin"))
                rows.append(SceneLabel(float(row["start_s"]), float(row["end_s"]), clean(row["label"]), *lists))
        except DataError:
            raise
        except (ValueError, TypeError, AttributeError, csv.Error) as error:
            raise DataError(f"{path}, line {table.line_num}: {error}, expected {','.join(expected)}") from error
    return rows


def _messages(
    sensor: Sensor, raw: Any, start_ns: int, duration: float, rng: np.random.Generator
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Messages of one sensor in one scene: time of arrival and stamp in ns, fields.

    Pictures and clouds arrive when they were taken; a part of a stream arrives at its end, stamped with its beginning.
    """
    period_ns = int(sensor.period * 1e9)
    times = range(start_ns, start_ns + int(duration * 1e9), period_ns)
    if isinstance(raw, Sound):
        raw = Sound(resample(raw.samples, raw.sample_rate), SAMPLE_RATE)  # one microphone has one rate
        for number, begin in enumerate(times):
            yield begin + period_ns - 1, begin, audio_chunk_fields(_sound_part(raw, number, sensor.period))
    elif isinstance(raw, Events):
        for number, begin in enumerate(times):
            part = _event_part(raw, number, round(sensor.period * 1e6))
            if len(part):
                yield begin + period_ns - 1, begin + int(part.t[0]) * 1000, event_array_fields(part)
    elif sensor.type == STRING:
        for time_ns in times:
            yield time_ns, time_ns, {"data": raw}
    elif sensor.modality == "point_cloud":
        point_field = types.typestore().types["sensor_msgs/msg/PointField"]
        for time_ns in times:
            yield time_ns, time_ns, point_cloud_fields(raw, point_field)
    else:
        for time_ns in times:
            yield time_ns, time_ns, image_fields(*_picture(raw if sensor.modality == "touch" else _jitter(raw, rng)))


def _picture(raw: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Pixels and their encoding; temperatures in degrees Celsius become 16UC1 in 0.01 K."""
    if raw.dtype == np.uint8:
        return raw, "mono8" if raw.ndim == 2 else "rgb8"
    return ((raw - THERMAL_OFFSET) / THERMAL_SCALE).round().astype(np.uint16), "16UC1"


def _jitter(picture: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A crop that moves by up to 2 % of the picture, as if the camera were held by hand."""
    margin = np.array(picture.shape[:2]) // 50
    top, left = rng.integers(0, margin + 1)
    height, width = picture.shape[:2] - margin
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def _sound_part(sound: Sound, number: int, seconds: float) -> Sound:
    """The ``number``-th part of a sound that is repeated without end."""
    length = round(seconds * sound.sample_rate)
    places = np.arange(number * length, (number + 1) * length)
    return Sound(np.take(sound.samples, places, mode="wrap"), sound.sample_rate)


def _event_part(events: Events, number: int, length_us: int) -> Events:
    """The ``number``-th part of a window of events that is repeated without end; times from the part's beginning."""
    begin = number * length_us % _EVENT_WINDOW_US
    first, last = np.searchsorted(events.t, [begin, begin + length_us])
    part = slice(first, last)
    return Events(events.x[part], events.y[part], events.t[part] - begin, events.p[part], events.width, events.height)
