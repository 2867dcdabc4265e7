"""A folder with a ``samples.csv``: the form in which users bring their own data."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from omnibind_core import modalities
from omnibind_core.data.samples import Sample
from omnibind_core.errors import DataError, InvalidInputError

COLUMNS = ("id", "modality", "source", "path", "label", "split", "group")
SPLITS = ("train", "val", "test")
_SHOWN = 5


@dataclass
class Inspection:
    """What :meth:`FolderSource.inspect` found.

    Attributes:
        samples: Number of samples by (modality, source, split).
        labels: Number of labels by (modality, source).
        broken: Why, by path, for each file that is missing or cannot be read.
    """

    samples: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    labels: dict[tuple[str, str], int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


class FolderSource:
    """Samples listed in ``samples.csv``; files are read when they are asked for.

    Args:
        root: Folder of ``samples.csv``; its ``path`` column is relative to it. ``group`` may be empty: the sample then
            is a group of its own.

    Raises:
        DataError: The table is missing or contradicts itself; names the lines, what was expected, and how many other
            rows are fine.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._table = root / "samples.csv"
        self._samples = self._read()

    def __len__(self) -> int:
        return len(self._samples)

    def samples(self, *, split: str | None = None, modality: str | None = None) -> list[Sample]:
        """All samples in the order of the table, or those of one split and modality."""
        return [
            sample for sample in self._samples if split in (None, sample.split) and modality in (None, sample.modality)
        ]

    def path(self, sample: Sample) -> Path:
        """Where the sample's file is."""
        return self.root / sample.path

    def load(self, sample: Sample) -> Any:
        """Reads and checks a sample's file; the type is that of its modality.

        Raises:
            InvalidInputError: The file is missing or cannot be used.
            DataError: The path leads out of the folder through a link.
        """
        path = self.path(sample)
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"sample '{sample.id}': {sample.path} leads out of {self.root}")
        return modalities.get(sample.modality).load(path)

    def inspect(self, *, read: bool = False) -> Inspection:
        """Counts samples and looks for missing files.

        Args:
            read: Also reads every file.
        """
        found = Inspection()
        labels: dict[tuple[str, str], set[str]] = defaultdict(set)
        for sample in self._samples:
            found.samples[sample.modality, sample.source, sample.split] += 1
            labels[sample.modality, sample.source].add(sample.label)
            try:
                if read:
                    self.load(sample)
                elif not self.path(sample).is_file():
                    found.broken[sample.path] = "no such file"
            except (InvalidInputError, DataError) as error:
                found.broken[sample.path] = str(error)
        found.labels = {key: len(names) for key, names in sorted(labels.items())}
        return found

    def _read(self) -> tuple[Sample, ...]:
        if not self._table.is_file():
            raise DataError(f"{self._table} is missing: expected a table with the columns {','.join(COLUMNS)}")
        samples: list[Sample] = []
        problems: list[str] = []
        with self._table.open(newline="", encoding="utf-8-sig") as file:
            try:
                reader = csv.DictReader(file)
                _check_columns(reader.fieldnames or (), self._table)
                for row in reader:
                    values = {column: (row[column] or "").strip() for column in COLUMNS}
                    problem = _problem(values)
                    if problem:
                        problems.append(f"line {reader.line_num}: {problem}")
                    else:
                        samples.append(Sample(**{**values, "group": values["group"] or values["id"]}))
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(f"{self._table} is no CSV table in UTF-8: {error}") from error
        contradictions, fine = _contradictions(samples)
        problems += contradictions
        if problems:
            more = f" and {len(problems) - _SHOWN} more problems" if len(problems) > _SHOWN else ""
            raise DataError(f"{self._table}: {'; '.join(problems[:_SHOWN])}{more}; {fine} other rows are fine")
        if not samples:
            raise DataError(f"{self._table} lists no samples")
        return tuple(samples)


def _problem(row: dict[str, str]) -> str:
    """What is wrong with a row, or nothing."""
    empty = [column for column in COLUMNS if column != "group" and not row[column]]
    if empty:
        return f"{', '.join(empty)} is empty"
    if row["modality"] not in modalities.NAMES:
        return f"unknown modality '{row['modality']}', expected one of {', '.join(modalities.NAMES)}"
    if row["split"] not in SPLITS:
        return f"unknown split '{row['split']}', expected one of {', '.join(SPLITS)}"
    path = PurePosixPath(row["path"].replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        return f"path '{row['path']}' leads out of the folder"
    return ""


def _check_columns(columns: Sequence[str], table: Path) -> None:
    missing = sorted(set(COLUMNS) - set(columns))
    if missing:
        raise DataError(
            f"{table} lacks the column(s) {', '.join(missing)}: expected {','.join(COLUMNS)}, "
            f"found {','.join(columns) or 'nothing'}"
        )


def _contradictions(samples: Sequence[Sample]) -> tuple[list[str], int]:
    """Ids that occur twice and groups that are in two splits; and how many samples have neither."""
    ids = Counter(sample.id for sample in samples)
    splits: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        splits[sample.group].add(sample.split)
    problems = [f"id '{name}' occurs {count} times" for name, count in sorted(ids.items()) if count > 1]
    problems += [
        f"group '{name}' is in the splits {' and '.join(sorted(found))}"
        for name, found in sorted(splits.items())
        if len(found) > 1
    ]
    return problems, sum(ids[sample.id] == 1 and len(splits[sample.group]) == 1 for sample in samples)
