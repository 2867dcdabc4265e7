"""Samples to learn from, cut out of bags: what each sensor saw at some moments of the intervals of a table."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.data.modality_free.shards import encode
from omnibind_core.data.sources.folder import COLUMNS, OPTIONAL
from omnibind_core.errors import DataError
from omnibind_core.files import inside, write_folder_atomically
from omnibind_core.runtime.encoding import Token
from omnibind_core.runtime.sensor import SECOND
from omnibind_core.runtime.types import Encoded
from omnibind_ros.bags import read
from omnibind_ros.replay.engine import Replay
from omnibind_ros.replay.evaluation import LABELS
from omnibind_ros.replay.setup import read_parameters, resolve
from omnibind_ros.replay.truth import from_table

TABLE, FILES = "samples.csv", "files"


@dataclass(frozen=True)
class Cut:
    """What was written.

    Attributes:
        counts: Number of samples by modality and label.
        notes: What a person should know, in sentences.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Looking:
    """Stands where the replay has a model: nothing is encoded, the raw items are wanted."""

    names: tuple[str, ...] = ("",)
    threshold: float = 0.0
    embedding: NDArray[np.float32] = field(default_factory=lambda: np.ones(1, np.float32))

    @property
    def labels(self) -> _Looking:
        return self

    def process(self, modality: str, raw: Any) -> NDArray[Any]:
        return np.zeros((1, 1), np.float32)

    def embed(self, items: Sequence[Any]) -> NDArray[np.float32]:
        return np.ones((len(items), 1), np.float32)

    def recognise(self, modalities: Sequence[str], embeddings: NDArray[np.float32], doubts: Any = None) -> _Recognised:
        return _Recognised(len(modalities))


class _Recognised:
    """Nothing, of so many tokens."""

    def __init__(self, count: int) -> None:
        self.embedding = np.ones(1, np.float32)
        self.weights = np.full(count, 1 / count, np.float32)
        self.similarities = self.probabilities = np.ones((1 + count, 1), np.float32)
        self.without = np.ones((count, 1), np.float32)
        self.familiarity = np.full(count, np.nan, np.float32)


def write(
    bags: Sequence[Path],
    out: Path,
    table: Path | None = None,
    params: Path | None = None,
    moments: int = 4,
    settle: float = 1.0,
    parts: int = 1,
) -> Cut:
    """Writes a folder with ``samples.csv``: moments of each interval, seen by all sensors that were alive.

    An interval, or each part of it, is a group, a moment a pair, a bag a source; all are of the split ``train``.

    Args:
        bags: Folders of bags, or their only files.
        out: Folder to write; one that this has written before is replaced.
        table: ``start_s``, ``end_s``, ``label``, see :func:`~omnibind_ros.replay.truth.from_table`; None takes the one
            in each bag's folder.
        params: Parameter file of the fusion node; None takes the package's, and topics that look like a sensor's.
        moments: In each interval, evenly spaced.
        settle: s after the beginning of an interval that are left out.
        parts: Of each interval, one after another, that are groups of their own.

    Raises:
        ConfigError: A parameter is unusable.
        DataError: A bag or a table cannot be read, or no sample is in any interval.
    """
    cut = Cut()
    names = [bag.stem for bag in bags]
    if len({*names}) < len(names):
        raise DataError(f"two bags have the same name, expected different ones: {', '.join(names)}")
    with write_folder_atomically(out, (TABLE, FILES), alone=True) as fresh:
        (fresh / FILES).mkdir()
        with (fresh / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, (*COLUMNS, *OPTIONAL), lineterminator="\n")
            writer.writeheader()
            for bag, name in zip(bags, names, strict=True):
                doubts: dict[str, list[str]] = {}
                for label, group, pair, token in _moments(bag, table, params, moments, settle, parts, cut):
                    modality, sensor = token.sensor.modality, token.sensor.name
                    data, suffix = encode(modality, token.content)
                    row = {"modality": modality, "source": name, "label": label, "split": "train"}
                    row |= {"id": f"{name}-{pair}-{sensor}", "group": f"{name}-{group}", "pair": f"{name}-{pair}"}
                    row["path"] = f"{FILES}/{row['id']}{suffix}"
                    inside(fresh, row["path"], f"{bag}, sensor '{sensor}'").write_bytes(data)
                    writer.writerow(row)
                    cut.counts[modality, label] += 1
                    if token.doubt is not None:
                        doubts.setdefault(sensor, []).append(str(token.doubt))
                for sensor, said in doubts.items():
                    cut.notes.append(f"{name}: {len(said)} samples of {sensor} are doubted, the first: {said[0]}")
        if not cut.counts:
            raise DataError(f"no sensor has usable data in any interval of {', '.join(names)}; " + "; ".join(cut.notes))
    return cut


def _moments(
    bag: Path, table: Path | None, params: Path | None, moments: int, settle: float, parts: int, cut: Cut
) -> Iterator[tuple[str, str, str, Token]]:
    """Label, interval, moment and what a sensor offers then."""
    setup = resolve(read.topics(bag), read_parameters(params), adopt=params is None, bag=bag)
    replay = Replay(bag, setup, _Looking())
    truth = from_table(bag / LABELS if table is None else table, replay.start_ns, replay.end_ns, bag.stem)
    cut.notes.extend(f"{bag.stem}: {note}" for note in (*setup.notes, *truth.notes))
    wanted = []
    for number, (begin, end, labels) in enumerate(truth.segments()):
        end = min(end, replay.end_ns)
        if len(labels) == 1 and begin < end:
            first = min(begin + round(settle * SECOND), end)
            times = np.linspace(first, end, moments, endpoint=False).astype(np.int64).tolist()
            for place, time in enumerate(times):
                part = f"{number}.{place * parts // moments}" if parts > 1 else f"{number}"
                wanted.append((time, end, begin, labels[0], part, place))
    for step in replay.steps():
        now_ns = step.selection.now_ns
        while wanted and wanted[0][1] <= now_ns:
            wanted.pop(0)
        if not wanted or now_ns < wanted[0][0]:
            continue
        _, _, begin, label, group, place = wanted.pop(0)
        for token in step.tokens:
            raw = token.newest.raw
            if token.sensor.modality == "text" or isinstance(raw, Encoded):
                continue
            start_ns = token.newest.stamp_ns
            if modalities.get(token.sensor.modality).is_stream:
                start_ns += round((raw.duration - token.sensor.window) * SECOND)
            if start_ns >= begin:  # all of it lies in the interval
                yield label, group, f"{group}-{place}", token
    if replay.damage:
        cut.notes.append(f"{bag.stem}: {read.extent(replay.damage, replay.partly)}")
