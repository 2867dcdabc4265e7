"""Measured values as text: what the software of thermal cameras and pressure mats exports."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError

SUFFIXES = (".csv", ".tsv", ".txt")
_LARGEST = 64 << 20  # bytes of a file
_LEAST = 3  # rows and columns: less is a list
_LONGEST = 16  # times its width: more is a log
_LOOKED_AT = 64  # lines, to find out how numbers are written
_DELIMITERS, _MARKS = "\t;, ", ".,"


def read_table(path: Path, what: str) -> NDArray[np.float32]:
    """Reads the largest block of numbers in a text file, a row of pixels a line.

    Columns are separated by tabs, semicolons, commas or spaces, decimals by a point or a comma, which is found out.
    Lines before and after, a label at the start of a line, and numbers of rows and columns are left out.

    Args:
        path: The file, in UTF-8, UTF-16 or Latin-1.
        what: What is expected, for the error message.

    Returns:
        ``float32 [H, W]``; NaN where a cell is empty.

    Raises:
        InvalidInputError: It is too large, no text, or holds no picture.
    """
    what = f"{what} as text: at least {_LEAST} lines of as many numbers, of one picture"
    size = path.stat().st_size
    if size > _LARGEST:
        raise InvalidInputError(str(path), f"{size >> 20} MB of text", what)
    data = path.read_bytes()
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    if b"\0" in data and not wide:
        raise InvalidInputError(str(path), "a file that is no text", what)
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    lines = text.replace("\r\r\n", "\n").splitlines()
    some = lines[:: 1 + len(lines) // _LOOKED_AT]
    forms = itertools.product(_DELIMITERS, _MARKS)
    delimiter, mark = max(forms, key=lambda form: sum(map(len, _cells(some, *form))))
    table = _without_numbering(_block(lines, delimiter, mark))
    rows, columns = table.shape
    if min(rows, columns) < _LEAST or rows > _LONGEST * columns or columns > _LONGEST * rows:
        raise InvalidInputError(str(path), f"a block of {rows} lines of {columns} numbers", what)
    return table.astype(np.float32)


def _block(lines: list[str], delimiter: str, mark: str) -> NDArray[np.float64]:
    """The largest block of lines that have equally many numbers, the first one of those where there are several."""
    best: list[list[str]] = []
    rows: list[list[str]] = []
    for cells in (*_cells(lines, delimiter, mark), []):
        if rows and len(cells) != len(rows[0]):
            best = rows if len(rows) * len(rows[0]) > len(best) * len(best[0] if best else ()) else best
            rows = []
        if cells:
            rows.append(cells)
    if delimiter == ",":
        best = _with_decimal_commas(best)
    if not best:
        return np.zeros((0, 0))
    table = np.array([[_number(cell) for cell in row] for row in best], np.float64)
    return table[:, np.isfinite(table).any(axis=0)]


def _cells(lines: list[str], delimiter: str, mark: str) -> Any:
    """The cells of each line with a point for decimals; none if they are not numbers, but for the first."""
    quoted = any('"' in line for line in lines)
    split = csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if quoted else None
    for cells in split or (line.strip(" ").split(None if delimiter == " " else delimiter) for line in lines):
        cells = [cell.strip() for cell in cells]
        if cells and not cells[-1]:
            cells.pop()
        if mark == ",":
            cells = [cell.replace(",", ".") if "." not in cell else "?" for cell in cells]
        yield cells if len(cells) > 1 and all(not cell or _is_number(cell) for cell in cells[1:]) else []


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> float:
    return float(cell) if _is_number(cell) else math.nan


def _with_decimal_commas(rows: list[list[str]]) -> list[list[str]]:
    """Joins pairs of cells, where commas stand for decimals as well as between columns (``21,4,21,6`` of Optris).

    Sure signs of that are a second cell like ``05``, and one digit beside two or more throughout.
    """
    if not rows or len(rows[0]) % 2 or not all(cell.lstrip("-").isdecimal() for row in rows for cell in row):
        return rows
    wholes = [cell.lstrip("-") for row in rows for cell in row[::2]]
    decimals = [cell for row in rows for cell in row[1::2]]
    widths = {len(cell) for cell in decimals}
    if len(widths) != 1:
        return rows
    if widths == {1}:
        sure = min(map(len, wholes)) > 1
    else:
        sure = any(cell[0] == "0" for cell in decimals) and not any(cell[0] == "0" < cell for cell in wholes)
    return [[".".join(pair) for pair in zip(row[::2], row[1::2], strict=True)] for row in rows] if sure else rows


def _without_numbering(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leaves out a first line and a first column that only count."""
    for _ in range(2):
        rows, columns = table.shape
        if rows > 1 and columns > _LEAST and _counts(table[0]):
            table = table[1:]
        if rows > _LEAST and columns > 1 and _counts(table[:, 0]):
            table = table[:, 1:]
    return table


def _counts(values: NDArray[np.float64]) -> bool:
    values = values[1:] if np.isnan(values[0]) else values
    return bool(len(values) > 1 and values[0] in (0, 1) and (np.diff(values) == 1).all())
