"""The modality-free data set: combinations of samples that show one concept each, in any set of modalities.

A built folder holds

* ``labels.csv``: which labels of which sources are one concept;
* ``samples.parquet``: one row per sample, ordered by id, with the size and SHA-256 of its file;
* ``index.parquet``: one row per combination, split after split: a column per modality with the sample's id (for text
  the words themselves), null where it is absent, then ``concept``, ``split``, ``score`` and ``kind`` ("image+audio");
* ``build.yaml``: the settings it was made with, and where the sources are.

An exported folder (:mod:`omnibind_core.data.modality_free.shards`) holds the same and the samples' data in tar files.
"""

from __future__ import annotations

import bisect
import dataclasses
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core import modalities
from omnibind_core.config import read_mapping
from omnibind_core.data import sources
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import SPLITS
from omnibind_core.errors import ConfigError, DataError, InvalidInputError
from omnibind_core.files import LINKS_VARIABLE, allowed, inside, leads_out
from omnibind_core.optional import require

LABELS, SAMPLES, INDEX, BUILD = "labels.csv", "samples.parquet", "index.parquet", "build.yaml"
FILES = (LABELS, SAMPLES, INDEX, BUILD)
CAPTIONS = "captions.csv"
"""What the captioning model said, where one was used."""
REPLACED = (*FILES, f"{LABELS}.bak", CAPTIONS, "*.tar", "*.png")
"""What such a folder may hold when it is written anew."""
SAMPLE_FIELDS = tuple(field.name for field in dataclasses.fields(Sample))
MODALITY_SET = "kind"
"""Column of the index with the modalities of a combination in one word, ``"image+audio"``."""
COMBINATION_COLUMNS = (*modalities.NAMES, "concept", "split", "score", MODALITY_SET)
"""What every index has; one with samples of plug-ins has their columns, too."""

# Rows per row group, the unit that is read at a time: small enough for random access, large enough to compress.
SAMPLES_PER_GROUP, COMBINATIONS_PER_GROUP = 512, 1024
_CACHED_GROUPS = 64
_SUFFIX = re.compile(r"(\.\w{1,16})+")


@dataclass(frozen=True)
class Combination:
    """One concept as several modalities show it.

    Attributes:
        concept: What it is.
        split: ``"train"``, ``"val"`` or ``"test"``; that of all its samples.
        samples: Sample id by sensor modality, in the order of :func:`omnibind_core.modalities.names`.
        text: Words for it, or None if text is not among its modalities.
        score: How sure it is that the parts belong together, 0..1.
    """

    concept: str
    split: str
    samples: Mapping[str, str]
    text: str | None
    score: float

    @property
    def modalities(self) -> tuple[str, ...]:
        """Its modalities, text included."""
        present = {*self.samples, *(() if self.text is None else ("text",))}
        return tuple(name for name in modalities.names() if name in present)

    @property
    def modality_set(self) -> str:
        """Its modalities as one word: ``"image+audio"``."""
        return "+".join(self.modalities)


class ModalityFree(Sequence[Combination]):
    """Reads a built or exported data set: by number, or streaming. Holds a few row groups in memory, whatever its size.

    Get it by :meth:`open`. It can be sent to other processes.

    Attributes:
        folder: Where it is.
        settings: What it was built with.
        sensors: Sensor modalities that it has columns of.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.folder = folder
        self.settings = _settings(folder)
        self.root = Path(self.settings["root"]) if root is None else root
        self._reading = threading.Lock()  # files of pyarrow are for one thread at a time
        self._index = _parquet(folder / INDEX, COMBINATION_COLUMNS)
        self._samples = _parquet(folder / SAMPLES, (*SAMPLE_FIELDS, "concept", "collection", "size", "sha256"))
        self.sensors = tuple(name for name in sensors() if name in self._index.schema_arrow.names)
        self._starts = _starts(self._index)
        self._first_ids = [group[0] for group in _limits(self._samples, "id")]
        self._group = lru_cache(_CACHED_GROUPS)(self._read_group)
        self._sample_group = lru_cache(_CACHED_GROUPS)(self._read_sample_group)
        self._opened: dict[int, sources.Source] = {}

    @classmethod
    def open(cls, folder: Path | str, root: Path | str | None = None) -> ModalityFree:
        """Opens a folder that ``omnibind data build`` or ``omnibind data export`` wrote.

        Args:
            folder: The folder.
            root: Where the sources are, if they are not where they were when it was built.

        Raises:
            DataError: A file of it is missing or no such table.
            MissingDependencyError: pyarrow is not installed.
        """
        return cls(Path(folder), None if root is None else Path(root))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self.folder, self.root)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        """The combination of that number, or a list of those of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"combination {index} of {len(self)}")
        group = bisect.bisect_right(self._starts, number) - 1
        row: dict[str, Any] = self._group(group).slice(number - self._starts[group], 1).to_pylist()[0]
        return self._combination(row)

    def combinations(self, split: str | None = None) -> Iterator[Combination]:
        """Streams all combinations, or those of one split, in the order of the index, which is random in a split."""
        for table in self.tables(split):
            yield from map(self._combination, table.to_pylist())

    def tables(self, split: str | None = None, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Streams the index as Arrow tables, one row group each; columnar work on millions of rows goes by this.

        Args:
            split: Only this one.
            columns: Only these; None takes all.
        """
        for group, (first, last) in enumerate(_limits(self._index, "split")):
            if split is None or first == last == split:
                yield self._index.read_row_group(group, columns=columns)

    @cached_property
    def concepts(self) -> Concepts:
        """The label table."""
        return Concepts.read(self.folder / LABELS)

    def sample(self, name: str) -> Sample:
        """The sample of an id.

        Raises:
            DataError: There is none.
        """
        return as_sample(self.row(name))

    def samples(self, *, split: str | None = None, modality: str | None = None) -> Iterator[Sample]:
        """Streams the samples, combined or not, in the order of their ids."""
        for table in self.sample_tables():
            for row in table.to_pylist():
                if split in (None, row["split"]) and modality in (None, row["modality"]):
                    yield as_sample(row)

    def sample_tables(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Streams the sample table as Arrow tables, one row group each; ``columns`` as in :meth:`tables`."""
        for group in range(self._samples.num_row_groups):
            yield self._samples.read_row_group(group, columns=columns)

    def path(self, sample: Sample) -> Path:
        """The file that a sample's data are in: its own, or a tar file."""
        return self.place(self.row(sample.id))[0]

    def place(self, row: Mapping[str, Any]) -> tuple[Path, int, int | None]:
        """Where the data of a row of the sample table are: file, first byte, number of bytes (None: to the end).

        Raises:
            DataError: Not in the folder of the data set or of the source, or the row is none of such a table.
        """
        sample = as_sample(row)
        if not row.get("shard"):
            return self.source(row["collection"]).path(sample), 0, None
        where = f"{self.folder / SAMPLES}, sample '{sample.id}'"
        words = {name: row.get(name) for name in ("offset", "size", "suffix")}
        offset, size, suffix = words.values()
        if not (isinstance(offset, int) and isinstance(size, int) and _SUFFIX.fullmatch(str(suffix))):
            raise DataError(f"{where}: {words}, expected numbers, and the ending of a file's name")
        return inside(self.folder, str(row["shard"]), where), offset, size

    def load(self, sample: Sample | str) -> Any:
        """Reads and checks a sample, given as such or by its id; the type is that of its modality.

        Raises:
            DataError: There is no such sample, or its source is not where it should be.
            InvalidInputError: Its file is missing or cannot be used.
        """
        row = self.row(sample if isinstance(sample, str) else sample.id)
        if row.get("shard"):
            return self._load_from_shard(row)
        return self.source(row["collection"]).load(as_sample(row))

    def items(self, combination: Combination) -> dict[str, Any]:
        """Loads everything of a combination: raw items by modality, text as a string."""
        loaded = {name: self.load(combination.samples[name]) for name in combination.samples}
        return loaded if combination.text is None else {**loaded, "text": combination.text}

    def source(self, collection: int) -> sources.Source:
        """The source of that number, opened when first asked for.

        Raises:
            DataError: It is not where it should be.
        """
        if collection not in self._opened:
            where = f"{self.folder / BUILD}, source {collection}"
            try:
                settings = self.settings["sources"][collection]
                name, root, values = str(settings["source"]), str(settings["root"]), settings["options"]
            except (LookupError, TypeError) as error:
                raise DataError(f"{where}: there is none with source, root and options") from error
            self._opened[collection] = sources.create(name, source_folder(self.root, root, where), values)
        return self._opened[collection]

    def _load_from_shard(self, row: Mapping[str, Any]) -> Any:
        data = read_part(*self.place(row))
        # Readers of sounds and clouds want files; a temporary one stays in the page cache.
        with tempfile.NamedTemporaryFile(prefix=f"{row['modality']}-", suffix=row["suffix"]) as temporary:
            temporary.write(data)
            temporary.flush()
            return modalities.get(row["modality"]).load(Path(temporary.name))

    def row(self, name: str) -> dict[str, Any]:
        """The row of the sample table of an id.

        Raises:
            DataError: There is none.
        """
        group = bisect.bisect_right(self._first_ids, name) - 1
        if group >= 0:
            names, table = self._sample_group(group)
            place = bisect.bisect_left(names, name)
            if place < len(names) and names[place] == name:
                row: dict[str, Any] = table.slice(place, 1).to_pylist()[0]
                return row
        raise DataError(f"{self.folder / SAMPLES} has no sample '{name}'")

    def _combination(self, row: Mapping[str, Any]) -> Combination:
        if row["split"] not in SPLITS:  # a file is named after it
            raise DataError(f"{self.folder / INDEX}: split {row['split']!r}, expected {', '.join(SPLITS)}")
        present = {name: row[name] for name in self.sensors if row[name] is not None}
        return Combination(row["concept"], row["split"], present, row["text"], row["score"])

    def _read_group(self, group: int) -> Any:
        with self._reading:
            return self._index.read_row_group(group)

    def _read_sample_group(self, group: int) -> tuple[list[str], Any]:
        with self._reading:
            table = self._samples.read_row_group(group)
        return table["id"].to_pylist(), table


def sensors() -> tuple[str, ...]:
    """All modalities but text, which needs no samples."""
    return tuple(name for name in modalities.names() if name != "text")


def as_sample(row: Mapping[str, Any]) -> Sample:
    """The sample of a row of a sample table, whose other columns are left out.

    Raises:
        DataError: A field is no text, or the modality is not known.
    """
    fields = {name: row[name] for name in SAMPLE_FIELDS}
    if not all(isinstance(value, str) for value in fields.values()) or fields["modality"] not in modalities.names():
        raise DataError(f"{SAMPLES}: a row with {fields}, expected texts, and a modality that is known")
    return Sample(**fields)


def source_folder(root: Path, name: str, where: str) -> Path:
    """The folder of a source in that of all sources, or in one of ``$OMNIBIND_LINKS``; it may be a link to anywhere.

    Args:
        root: Where the sources are.
        name: What the settings call the folder.
        where: Who says so, for the error.

    Raises:
        DataError: It is a folder elsewhere.
    """
    if name not in ("", ".") and (problem := leads_out(name)) and not allowed(root / name):
        expected = f"expected one in it, or in a folder of ${LINKS_VARIABLE}"
        raise DataError(f"{where}: root: {problem} of all sources, {root}, {expected}")
    return root / name


def read_part(path: Path, start: int, size: int | None) -> bytes:
    """A part of a file.

    Args:
        path: The file.
        start: First byte.
        size: Number of bytes; None: to the end.

    Raises:
        InvalidInputError: It cannot be read, or does not have that part.
    """
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - start
            if not 0 <= start <= start + (left if size is None else size) <= start + left:
                raise InvalidInputError(str(path), f"{size} bytes from byte {start} on", "a part of the file")
            file.seek(start)
            return file.read(left if size is None else size)
    except OSError as error:
        raise InvalidInputError(str(path), f"a file that cannot be read ({error.strerror})", "a whole one") from error


def _settings(folder: Path) -> dict[str, Any]:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} is no modality-free data set: {', '.join(missing)} is missing; expected the folder that "
            "'omnibind data build' or 'omnibind data export' wrote"
        )
    try:
        settings = read_mapping(folder / BUILD)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if not (isinstance(settings.get("root"), str) and isinstance(settings.get("sources"), list)):
        raise DataError(f"{folder / BUILD}: expected the keys root and sources")
    return settings


def _parquet(path: Path, columns: Sequence[str]) -> Any:
    """Opens a Parquet file that must have these columns."""
    parquet = require("pyarrow.parquet", "The modality-free data set")
    try:
        # Read from memory that the kernel maps: pyarrow's own buffers would keep every row group that was read.
        file = parquet.ParquetFile(path, memory_map=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no Parquet file: {error}") from error
    missing = [column for column in columns if column not in file.schema_arrow.names]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}")
    return file


def _starts(file: Any) -> list[int]:
    """Number of the first row of every row group, and of all rows at the end."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return [0, *np.cumsum(sizes).tolist()]


def _limits(file: Any, column: str) -> list[tuple[Any, Any]]:
    """Least and greatest value of a column in every row group."""
    place = file.schema_arrow.names.index(column)
    found = []
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(place).statistics
        found.append((statistics.min, statistics.max))
    return found
