"""Reading the tables and lists that come with data sets, with errors that name the line and count what is fine."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Ledger
from omnibind_core.errors import DataError

_SHOWN = 5


def read_rows(
    table: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Streams the rows of a CSV table.

    Args:
        table: The file.
        columns: Columns that it must have; others are left out.
        optional: Columns that it may have; empty where it has not.

    Yields:
        Line number and stripped values by column.

    Raises:
        DataError: The file is missing, no CSV in UTF-8, or lacks columns.
    """
    if not table.is_file():
        raise DataError(f"{table} is missing: expected a table with the columns {','.join(columns)}")
    with table.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file)
            found = reader.fieldnames or ()
            missing = sorted(set(columns) - set(found))
            if missing:
                raise DataError(
                    f"{table} lacks the column(s) {', '.join(missing)}: expected {','.join(columns)}, "
                    f"found {','.join(found) or 'nothing'}"
                )
            for row in reader:
                yield reader.line_num, {column: (row.get(column) or "").strip() for column in (*columns, *optional)}
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{table} is no CSV table in UTF-8: {error}") from error


def read_lines(path: Path) -> Iterator[str]:
    """Streams the lines of a list file, stripped, the empty ones left out.

    Raises:
        DataError: The file is missing or no text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from filter(None, map(str.strip, file))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: {error}") from error


def accept(table: Path, samples: Sequence[Sample], problems: Sequence[str] = ()) -> tuple[Sample, ...]:
    """The samples of a table, if nothing is wrong with it.

    Args:
        table: The file that they were read from, for the error message.
        samples: Of its good rows.
        problems: What is wrong with the others, with line numbers.

    Raises:
        DataError: There are problems, ids occur twice, a group is in two splits, or there are no samples.
    """
    ledger = Ledger()
    for sample in samples:
        ledger.add(sample)
    problems = [*problems, *ledger.problems()]
    if problems:
        refuse(table, problems, sum(map(ledger.is_fine, samples)))
    if not samples:
        raise DataError(f"{table} lists no samples")
    return tuple(samples)


def refuse(table: Path, problems: Sequence[str], fine: int, what: str = "rows") -> NoReturn:
    """Raises the first few problems of a table or folder, and how many others of it are fine.

    Raises:
        DataError: Always.
    """
    more = f" and {len(problems) - _SHOWN} more problems" if len(problems) > _SHOWN else ""
    raise DataError(f"{table}: {'; '.join(problems[:_SHOWN])}{more}; {fine} other {what} are fine")
