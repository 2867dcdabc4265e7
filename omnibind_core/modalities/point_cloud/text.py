"""Point clouds as text: a point a line, as scanners, CAD programs and spreadsheets write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError

_COMMENTS = ("#", "//")
_EXPECTED = "lines of x, y, z with spaces, tabs, commas or semicolons between, below at most one line of names"
_AXIS = re.compile(r"([xyz])(\s*[\[(].*)?")  # also "x [m]"
_PTX_HEADER = 10  # lines: columns, rows, position and axes of the scanner, matrix of its pose


def read_text(path: Path) -> NDArray[np.float64]:
    """``.xyz``, ``.txt``, ``.csv`` and ``.pts``: ``float64 [N, 3]``, of the columns named x, y, z, or the first three.

    Raises:
        InvalidInputError: There are no such lines, they do not fit together, or ``.pts`` has fewer than it says.
    """
    names, rows = "", _lines(path)
    is_pts = path.suffix.lower() == ".pts"
    while rows and (rows[0].startswith(_COMMENTS) or sum(map(_is_number, _split(rows[0]))) < 3):
        names = rows.pop(0)
        if is_pts and names.isdecimal() and int(names) > len(rows):
            raise InvalidInputError(str(path), f"a header of {names} points above {len(rows)} lines", "as many lines")
    if not rows:
        raise InvalidInputError(str(path), "no line of three numbers", _EXPECTED)
    rows = [row for row in rows if not row.startswith(_COMMENTS) and not (is_pts and row.isdecimal())]
    return _table(rows, _places(path, names, rows[0]), path)


def read_ptx(path: Path) -> NDArray[np.float64]:
    """``.ptx``: the scans in it, each moved to where its header says, ``float64 [N, 3]``. Points that saw nothing stay.

    Raises:
        InvalidInputError: It is no such file, or holds fewer points than it says.
    """
    rows, scans = _lines(path), []
    while rows:
        header, size = rows[:_PTX_HEADER], rows[:2]
        if len(header) < _PTX_HEADER or not all(line.isdecimal() for line in size):
            raise InvalidInputError(
                str(path), f"a header of '{' '.join(size)[:40]}'", "the ten lines above a .ptx scan"
            )
        count = int(size[0]) * int(size[1])
        body, rows = rows[_PTX_HEADER : _PTX_HEADER + count], rows[_PTX_HEADER + count :]
        if len(body) < count or not body:
            raise InvalidInputError(str(path), f"a scan of {count} points above {len(body)} lines", "as many lines")
        pose = _table(header[6:], (0, 1, 2), path)  # points are rows: they are multiplied from the left
        points = _table(body, (0, 1, 2), path)
        scans.append(np.where(points.any(axis=1, keepdims=True), points @ pose[:3] + pose[3], 0))
    return np.concatenate(scans) if scans else np.empty((0, 3))


def _lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    if "\0" in text:
        raise InvalidInputError(str(path), "a file that is no text", _EXPECTED)
    return [line for line in map(str.strip, text.splitlines()) if line]


def _delimiter(row: str) -> str | None:
    return next((mark for mark in (";", "\t", ",") if mark in row), None)  # None: spaces


def _split(row: str) -> list[str]:
    return [cell.strip().strip('"') for cell in row.split(_delimiter(row))]


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))  # with semicolons between, numbers may have decimal commas
    except ValueError:
        return False
    return True


def _places(path: Path, names: str, row: str) -> tuple[int, ...]:
    """Columns of x, y and z."""
    cells = _split(names.lstrip("#/ "))
    found = [(match[1], place) for place, cell in enumerate(cells) if (match := _AXIS.fullmatch(cell.lower()))]
    axes = dict(reversed(found))  # of two with the same name the first
    if axes.keys() >= {"x", "y", "z"}:
        return tuple(axes[axis] for axis in "xyz")
    if len(cells) == len(_split(row)) and not names.startswith(_COMMENTS):
        raise InvalidInputError(str(path), f"columns named {', '.join(cells)[:80]}", "columns x, y and z")
    return 0, 1, 2


def _table(rows: Sequence[str], places: tuple[int, ...], path: Path) -> NDArray[np.float64]:
    delimiter = _delimiter(rows[0])
    if delimiter == ";":
        rows = [row.replace(",", ".") for row in rows]
    try:
        return np.loadtxt(rows, np.float64, delimiter=delimiter, usecols=places, quotechar='"', ndmin=2, comments=None)
    except (ValueError, IndexError) as error:
        raise InvalidInputError(str(path), f"lines that do not fit together ({error})", _EXPECTED) from error
