"""The table of which labels of which sources mean the same concept: ``labels.csv``, made to be edited by hand."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from omnibind_core.data.samples import Sample
from omnibind_core.errors import DataError
from omnibind_core.files import write_atomically
from omnibind_core.labels import clean

COLUMNS = ("source", "label", "canonical", "score", "reason", "meaning")


@dataclass(frozen=True)
class Match:
    """One row: a label of a source and its concept.

    Attributes:
        source: Name of the data set.
        label: Its own word.
        canonical: The concept; empty leaves the label out of everything that is built from the table.
        score: How sure the matcher is, 0..1; 1 for rows made by hand.
        reason: Why, in words.
        meaning: What the concept means, in words; empty if nobody says.
    """

    source: str
    label: str
    canonical: str
    score: float
    reason: str
    meaning: str = ""


class Concepts:
    """All matches, by source and label.

    Args:
        matches: The rows.

    Raises:
        DataError: A label of one source occurs twice.
    """

    def __init__(self, matches: Iterable[Match]) -> None:
        self._matches: dict[tuple[str, str], Match] = {}
        for match in matches:
            key = (match.source, match.label)
            if key in self._matches:
                raise DataError(f"label '{match.label}' of source '{match.source}' is matched twice")
            self._matches[key] = match

    def __iter__(self) -> Iterator[Match]:
        return iter(self._matches.values())

    def __len__(self) -> int:
        return len(self._matches)

    @property
    def names(self) -> tuple[str, ...]:
        """All concepts, in alphabetical order."""
        return tuple(sorted({match.canonical for match in self if match.canonical}))

    def get(self, source: str, label: str) -> str | None:
        """The concept of a label, or None if the label is not in the table."""
        match = self._matches.get((source, label))
        return None if match is None else match.canonical

    def of(self, sample: Sample) -> str:
        """The concept of a sample; empty if its label is left out.

        Raises:
            DataError: Its label is not in the table.
        """
        concept = self.get(sample.source, sample.label)
        if concept is None:
            raise DataError(
                f"label '{sample.label}' of source '{sample.source}' (sample '{sample.id}') is in no row of the label "
                f"table; {len(self)} other labels are. omnibind data match DIR makes a table of a folder's labels"
            )
        return concept

    @classmethod
    def read(cls, path: Path) -> Concepts:
        """Reads ``labels.csv``; ``score``, ``reason`` and ``meaning`` may be left empty or out.

        Raises:
            DataError: The file is missing, columns are missing or unknown, or a row is incomplete; names the line.
        """
        if not path.is_file():
            raise DataError(f"no label table {path}: expected a CSV with the columns {','.join(COLUMNS)}")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                columns = tuple(reader.fieldnames or ())
                if not set(COLUMNS[:3]) <= set(columns) <= set(COLUMNS):
                    found = ",".join(columns) or "(none)"
                    raise DataError(f"{path} has the columns {found}, expected {','.join(COLUMNS)}")
                return cls([_match(row, f"{path}, line {reader.line_num}") for row in reader])
        except (OSError, csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no CSV table in UTF-8: {error}") from error

    def write(self, path: Path) -> None:
        """Writes ``labels.csv``, ordered by concept, so that what was merged stands together."""
        with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for match in sorted(self, key=lambda match: (match.canonical, match.source, match.label)):
                told = (match.source, match.label, match.canonical, f"{match.score:.2f}", match.reason, match.meaning)
                writer.writerow(told)


def _match(row: dict[str, str | None], where: str) -> Match:
    source, label, canonical = (clean(row.get(column) or "") for column in COLUMNS[:3])
    if not (source and label):
        raise DataError(f"{where}: source and label must not be empty")
    text = (row.get("score") or "1").strip()
    try:
        score = float(text)
    except ValueError:
        raise DataError(f"{where}: score is '{text}', expected a number from 0 to 1") from None
    if not 0 <= score <= 1:
        raise DataError(f"{where}: score is {text}, expected a number from 0 to 1")
    reason, meaning = ((row.get(column) or "").strip() for column in COLUMNS[4:])
    return Match(source, label, canonical, score, reason, clean(meaning))
