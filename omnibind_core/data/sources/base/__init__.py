"""What a source is: a data set in the layout in which it is published, as a stream of samples.

A source is one file with a class derived from :class:`Source` under the decorator :func:`register`.
"""

from __future__ import annotations

import hashlib
import os
import pkgutil
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from omnibind_core import modalities
from omnibind_core.data.samples import Sample
from omnibind_core.errors import ConfigError, DataError, InvalidInputError
from omnibind_core.files import inside
from omnibind_core.modalities.pictures import Measuring

SPLITS = ("train", "val", "test")
_SHOWN = 5
_PACKAGE = __name__.rpartition(".")[0]
BUILT_IN: tuple[str, ...] = tuple(
    sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parents[1])]) if not module.ispkg)
)
"""Names of the sources that come with the package, each of a module named like it."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REQUIRED = ("name", "title", "licence", "citation", "homepage", "modalities", "splits", "layout")


@dataclass
class Inspection:
    """What :meth:`Source.inspect` found.

    Attributes:
        counts: Number of samples by (modality, source, label, split).
        broken: Why, by file, for each file that is missing or cannot be read.
        unusable: Number of samples in those files.
        doubted: What speaks against it, by id, for each sample that was read and cannot be what its modality measures:
            see :func:`omnibind_core.modalities.doubt`.
        problems: Contradictions: ids that occur twice, groups in two splits.
        notes: What to know about the data set or its split before using it.
    """

    counts: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    unusable: int = 0
    doubted: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def samples(self) -> Counter[tuple[str, str, str]]:
        """Number of samples by (modality, source, split)."""
        found: Counter[tuple[str, str, str]] = Counter()
        for (modality, source, _, split), count in self.counts.items():
            found[modality, source, split] += count
        return found

    @property
    def labels(self) -> dict[tuple[str, str], int]:
        """Number of labels by (modality, source)."""
        pairs = {(modality, source, label) for modality, source, label, _ in self.counts}
        return dict(sorted(Counter((modality, source) for modality, source, _ in pairs).items()))


class Ledger:
    """Notices ids that occur twice, and groups that are in two splits, in a stream of samples."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._split_of: dict[str, str] = {}
        self._twice: Counter[str] = Counter()
        self._straddling: dict[str, set[str]] = {}

    def add(self, sample: Sample) -> None:
        """Takes down one sample."""
        if sample.id in self._ids:
            self._twice[sample.id] += 1
        self._ids.add(sample.id)
        split = self._split_of.setdefault(sample.group, sample.split)
        if split != sample.split:
            self._straddling.setdefault(sample.group, {split}).add(sample.split)

    def is_fine(self, sample: Sample) -> bool:
        """Whether nothing is wrong with the id and the group of a sample."""
        return sample.id not in self._twice and sample.group not in self._straddling

    def problems(self) -> list[str]:
        """What is wrong, in words."""
        twice = [f"id '{name}' occurs {count + 1} times" for name, count in sorted(self._twice.items())]
        return twice + [
            f"group '{name}' is in the splits {' and '.join(sorted(splits))}"
            for name, splits in sorted(self._straddling.items())
        ]


class Source(ABC):
    """A data set on disk. Nothing is read but small tables until a sample is loaded.

    Iterating streams the samples from the disk; ``len(source)`` and ``source[i]`` list them once and keep the list.
    The order is that of the data set's table, or of sorted file names, and the same on every machine.

    Args:
        root: Its folder.
        val_share: Share of the training groups that becomes ``val``, 0 to below 1: for data sets without a validation
            split of their own. Whole groups are drawn.
        exclude: Ids and groups to leave out: broken files, recordings that another data set has in another split.
        seed: Of everything that is drawn: validation groups, splits that are not official, random crops.

    Attributes:
        name: By which it is chosen, and the ``source`` of its samples.
        title: As it is known.
        licence: What it may be used for.
        citation: Authors, title, venue, year; the start is usable as a BibTeX key.
        homepage: Where to get it.
        modalities: Of its samples.
        splits: Of its samples, before ``val_share``.
        layout: What is expected in the folder, in words.

    Raises:
        ConfigError: An option has an impossible value.
        DataError: The folder is missing or laid out otherwise; names the file and what was expected.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    homepage: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]]
    splits: ClassVar[tuple[str, ...]]
    layout: ClassVar[str]

    def __init__(self, root: Path, *, val_share: float = 0.0, exclude: Collection[str] = (), seed: int = 0) -> None:
        self.root = Path(root)
        self._exclude = frozenset(exclude)
        self.seed = seed
        if not 0 <= val_share < 1:
            raise ConfigError(f"source '{self.name}': val_share is {val_share}, expected 0 to below 1")
        self._val_share = val_share
        self._picture: tuple[tuple[Any, ...], Any] | None = None  # the last one that a part was cut from
        if not self.root.is_dir():
            raise DataError(f"{self.root} is no folder: {self.title} is expected there as {self.layout}")

    @abstractmethod
    def _scan(self) -> Iterator[Sample]:
        """All samples, from the disk, in a fixed order."""

    def _labels(self) -> Collection[str]:
        """Labels that the data set declares, if it does."""
        return ()

    def _notes(self) -> Iterable[str]:
        """What to know about the chosen split, and files that belong to none."""
        return ()

    def samples(self, *, split: str | None = None, modality: str | None = None) -> Iterable[Sample]:
        """Streams all samples, or those of one split and modality.

        Raises:
            DataError: A table contradicts itself, or a label is none of the data set's.
        """
        for sample in self._scan():
            if sample.id in self._exclude or sample.group in self._exclude:
                continue
            if self._val_share and sample.split == "train" and self._is_drawn(sample.group):
                sample = replace(sample, split="val")
            if split in (None, sample.split) and modality in (None, sample.modality):
                yield sample

    def _is_drawn(self, group: str) -> bool:
        digest = hashlib.sha256(f"{self.seed}/{group}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self._val_share * 2**64

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples())

    @cached_property
    def _listed(self) -> tuple[Sample, ...]:
        return tuple(self.samples())

    def __len__(self) -> int:
        return len(self._listed)

    def __getitem__(self, index: int) -> Sample:
        return self._listed[index]

    def path(self, sample: Sample) -> Path:
        """Where the sample's file is.

        Raises:
            DataError: It is not in the source's folder.
        """
        return inside(self.root, sample.file, f"{self.root}, sample '{sample.id}'")

    def load(self, sample: Sample) -> Any:
        """Reads and checks a sample; the type is that of its modality.

        Raises:
            InvalidInputError: The file is missing or cannot be used, or the part of it lies outside of the picture.
            DataError: It is not in the source's folder.
        """
        box = sample.box
        if box is None:
            return self._read(sample)
        key = (sample.modality, sample.file, sample.scale)
        last = self._picture
        if last is None or last[0] != key:
            last = self._picture = (key, self._read(sample))
        left, top, width, height = box
        rows, columns = last[1].shape[:2]
        if not (width and height and left + width <= columns and top + height <= rows):
            expected = f"a box inside of its {columns} x {rows} pixels"
            raise InvalidInputError(str(self.path(sample)), f"the box {box} (x, y, width, height)", expected)
        return last[1][top : top + height, left : left + width].copy()  # lets go of the whole picture

    def is_plain(self, sample: Sample) -> bool:
        """Whether the whole file is the sample, read like any other of its modality: without this class."""
        return sample.box is None and sample.scale is None and type(self)._read is Source._read

    def _read(self, sample: Sample) -> Any:
        """Reads the whole file of a sample, in the form of its modality."""
        modality, path = modalities.get(sample.modality), self.path(sample)
        if sample.scale is None or not isinstance(modality, Measuring):
            return modality.load(path)
        return modality.load_scaled(path, *sample.scale)

    def inspect(self, *, read: bool = False) -> Inspection:
        """Counts samples and looks for missing and empty files, contradictions, and labels without samples.

        Args:
            read: Also reads every file.
        """
        found = Inspection()
        ledger = Ledger()
        for sample in self.samples():
            found.counts[sample.modality, sample.source, sample.label, sample.split] += 1
            ledger.add(sample)
            reason = self._defect(sample, found if read else None)
            if reason:
                found.broken[sample.file] = reason
                found.unusable += 1
        found.problems = ledger.problems()
        found.notes = [*self._notes(), *_gaps(found, self._labels())]
        return found

    def _defect(self, sample: Sample, read: Inspection | None) -> str:
        try:
            if read is not None:
                doubt = modalities.doubt(sample.modality, self.load(sample))
                if doubt is not None:
                    read.doubted[sample.id] = str(doubt)
            elif not self.path(sample).stat().st_size:
                return "an empty file (0 bytes)"
        except OSError:
            return "no such file"
        except (InvalidInputError, DataError) as error:
            return str(error)
        return ""

    def _find(self, *places: str) -> Path:
        """The first of the places in the folder that exists.

        Raises:
            DataError: None does; names them, the layout and what is there instead.
        """
        for place in places:
            if (self.root / place).exists():
                return self.root / place
        there = sorted(path.name for path in self.root.iterdir())
        raise DataError(
            f"{self.root / places[0]} is missing: {self.title} is expected as {self.layout}; "
            f"the folder holds {shorten(there) or 'nothing'}"
        )

    def _choice(self, option: str, value: str, known: Collection[str]) -> str:
        """The value of an option.

        Raises:
            ConfigError: It is none of those known.
        """
        if value not in known:
            raise ConfigError(f"source '{self.name}': {option} is '{value}', expected {' or '.join(known)}")
        return value


SourceT = TypeVar("SourceT", bound=type[Source])

registered: dict[str, type[Source]] = {}
"""Every source whose module was imported, by name."""


def register(source: SourceT) -> SourceT:
    """Makes a source known in this process by its name; a decorator of classes. Doing it twice changes nothing.

    Raises:
        ConfigError: The class lacks an attribute or method, or its name is none for a source or is taken.
    """
    where = f"the source {source.__module__}.{source.__qualname__}"
    lacks = [name for name in _REQUIRED if not hasattr(source, name)] + sorted(source.__abstractmethods__)
    if lacks:
        raise ConfigError(f"{where} lacks {', '.join(lacks)}")
    if not _NAME.fullmatch(source.name):
        raise ConfigError(f"{where}: name is '{source.name}', expected small letters, digits and _")
    if source.name in BUILT_IN and source.__module__ != f"{_PACKAGE}.{source.name}":
        raise ConfigError(f"{where}: the source '{source.name}' is built in, expected another name")
    other = registered.setdefault(source.name, source)
    if (other.__module__, other.__qualname__) != (source.__module__, source.__qualname__):
        raise ConfigError(f"{where}: the source '{source.name}' is already {other.__module__}.{other.__qualname__}")
    registered[source.name] = source
    return source


def shorten(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    first = ", ".join(list(names)[:_SHOWN])
    return first + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def words(name: str) -> str:
    """A folder's or table's label as plain words: ``Faces_easy`` is "faces easy"."""
    return " ".join(name.replace("_", " ").lower().split())


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, hidden ones left out, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def file_names(folder: Path, *suffixes: str) -> list[str]:
    """Names of the files in a folder that end in one of the suffixes (lower-case), hidden ones left out, in order."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return sorted(name for name in names if name.lower().endswith(suffixes) and not name.startswith("."))


def _gaps(found: Inspection, declared: Collection[str]) -> Iterator[str]:
    """Declared labels without samples, and labels that are evaluated but never trained."""
    by_split: dict[str, set[str]] = defaultdict(set)
    for _, _, label, split in found.counts:
        by_split[split].add(label)
    absent = sorted(set(declared).difference(*by_split.values()))
    if absent:
        verb = "are" if len(absent) > 1 else "is"
        yield f"{len(absent)} of {len(set(declared))} labels {verb} in no split: {shorten(absent)}"
    for split in ("val", "test"):
        untrained = sorted(by_split[split] - by_split["train"])
        if untrained and by_split["train"]:
            yield f"{len(untrained)} of {len(by_split[split])} labels of {split} are not in train: {shorten(untrained)}"
