"""Which things were where: boxes in pictures and in space, from a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import DataError
from omnibind_core.geometry import Transform
from omnibind_core.geometry.frames import rpy
from omnibind_core.labels import clean
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_ros.replay.truth import time_ns

NAME = "objects.csv"
"""What the table is called beside a bag."""
PICTURE, PLACE = ("left", "top", "right", "bottom"), ("x", "y", "z", "length", "width", "height", "yaw")
COLUMNS = ("start_s", "end_s", "id", "label", "sensor", *PICTURE, "frame", *PLACE)
"""Of the table; cells of a box that is not there are empty."""
_NEEDED = COLUMNS[:4]


@dataclass(frozen=True)
class Place:
    """A box in space.

    Attributes:
        frame: Frame of the next.
        centre: x, y, z, metres.
        size: Sides along its own x, y, z, metres.
        yaw: Turn about z, rad.
    """

    frame: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float = 0.0

    def volume(self, pose: Transform) -> Volume:
        """The box in the fixed frame, exactly known.

        Args:
            pose: From :attr:`frame` to the fixed frame.
        """
        own = pose @ Transform.of(self.centre, rpy(0.0, 0.0, self.yaw))
        return Volume(own.translation, np.array(self.size), own.rotation, np.zeros((3, 3)))


@dataclass(frozen=True)
class Mark:
    """A row of the table: where a thing was during an interval; ns, the end excluded.

    Attributes:
        start_ns: When it begins.
        end_ns: When it ends.
        id: Name of the thing.
        label: What it is; ``""`` if that is not told.
        sensor: In whose picture the next is; ``""`` without one.
        box: Where it is there.
        place: Where it is in space.
    """

    start_ns: int
    end_ns: int
    id: str
    label: str
    sensor: str = ""
    box: Rectangle | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Things:
    """Which things were where at every time.

    Attributes:
        marks: In order of their beginning.
        notes: What a person should know, in sentences.
    """

    marks: tuple[Mark, ...]
    notes: tuple[str, ...] = ()
    _starts: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _ends: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", np.array([mark.start_ns for mark in self.marks], np.int64))
        object.__setattr__(self, "_ends", np.array([mark.end_ns for mark in self.marks], np.int64))

    @property
    def labels(self) -> dict[str, str]:
        """Label of every thing."""
        return {mark.id: mark.label for mark in self.marks}

    @property
    def sensors(self) -> tuple[str, ...]:
        """Sensors in whose pictures there are boxes, in alphabetical order."""
        return tuple(sorted({mark.sensor for mark in self.marks if mark.box is not None}))

    @property
    def placed(self) -> bool:
        """Whether there are boxes in space."""
        return any(mark.place is not None for mark in self.marks)

    def at(self, now_ns: int) -> dict[str, str]:
        """The things that are there at a time, with their labels."""
        return {mark.id: mark.label for mark in self._held(now_ns)}

    def boxes(self, sensor: str, stamp_ns: int) -> dict[str, Rectangle]:
        """By thing, its box in the picture that a sensor took at a time."""
        return {mark.id: mark.box for mark in self._held(stamp_ns) if mark.sensor == sensor and mark.box is not None}

    def places(self, now_ns: int) -> dict[str, Place]:
        """By thing, its box in space at a time."""
        return {mark.id: mark.place for mark in self._held(now_ns) if mark.place is not None}

    def _held(self, now_ns: int) -> list[Mark]:
        return [self.marks[place] for place in np.flatnonzero((self._starts <= now_ns) & (now_ns < self._ends))]


def read(path: Path, start_ns: int, end_ns: int, bag_name: str = "") -> Things:
    """Reads a table with the columns :data:`COLUMNS`, all but the first four of which may be missing.

    Times are s since the beginning of the bag, or ns since 1970. Other columns are left alone, but where there is one
    named ``bag``, only the rows count that name this bag.

    Args:
        path: The file.
        start_ns: Beginning of the bag, ns.
        end_ns: Its end.
        bag_name: Name of the bag.

    Raises:
        DataError: It cannot be read, lacks a column, or has an unusable row; names the line, the value and what was
            expected.
    """
    marks: list[Mark] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = table.fieldnames or []
            if missing := [name for name in _NEEDED if name not in columns]:
                raise DataError(f"{path} lacks the columns {', '.join(missing)}, expected {', '.join(COLUMNS)}")
            for row in table:
                if row.get("bag", bag_name) == bag_name:
                    marks.append(_mark(row, start_ns, f"{path}, line {table.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable table of things: {error}") from error
    if not marks:
        raise DataError(f"{path} has no things" + (f" for the bag '{bag_name}'" if bag_name else ""))
    _check(marks, path, start_ns)
    inside = sorted((one for one in marks if one.end_ns > start_ns and one.start_ns <= end_ns), key=_begin)
    left = len(marks) - len(inside)
    span = f"the bag is {(end_ns - start_ns) / 1e9:.1f} s long"
    return Things(tuple(inside), (f"{left} of {len(marks)} boxes lie outside the bag; {span}",) if left else ())


def _begin(mark: Mark) -> tuple[int, str, str]:
    return mark.start_ns, mark.id, mark.sensor


def _mark(row: Mapping[str, str | None], start_ns: int, where: str) -> Mark:
    words = {name: clean(row.get(name) or "") for name in COLUMNS}
    begin, end = (time_ns(words[name], start_ns, where) for name in ("start_s", "end_s"))
    if end <= begin:
        raise DataError(f"{where}: it ends at {words['end_s']} and begins at {words['start_s']}, expected a later end")
    if not words["id"]:
        raise DataError(f"{where}: no id, expected a name of the thing")
    edges, place = _numbers(words, PICTURE, where), _numbers(words, PLACE, where)
    box = None if edges is None else Rectangle(*edges)
    if box is None and place is None:
        raise DataError(f"{where}: '{words['id']}' has no box, expected {', '.join(PICTURE)} or {', '.join(PLACE)}")
    if box is not None and not box.area:
        raise DataError(f"{where}: a box of {_told(box)}, expected left below right and top below bottom")
    for name, needed in (("sensor", box), ("frame", place)):
        if needed is not None and not words[name]:
            raise DataError(f"{where}: a box without its {name}, expected one of both")
    return Mark(begin, end, words["id"], words["label"], words["sensor"], box, _place(words["frame"], place, where))


def _place(frame: str, numbers: Sequence[float] | None, where: str) -> Place | None:
    if numbers is None:
        return None
    x, y, z, length, width, height, yaw = numbers
    if min(length, width, height) <= 0:
        raise DataError(f"{where}: sides of {length:g}, {width:g}, {height:g} m, expected more than 0")
    return Place(frame, (x, y, z), (length, width, height), yaw)


def _numbers(words: Mapping[str, str], names: Sequence[str], where: str) -> list[float] | None:
    """The numbers of some cells; ``None`` if all of them are empty. Without a yaw there is no turn."""
    if not any(words[name] for name in names):
        return None
    found = []
    for name in names:
        text = words[name] or ("0" if name == "yaw" else "")
        try:
            found.append(float(text))
        except ValueError:
            found.append(math.nan)
        if not math.isfinite(found[-1]):
            raise DataError(f"{where}: {name} is '{text}', expected a finite number, as all of {', '.join(names)}")
    return found


def _check(marks: Sequence[Mark], path: Path, start_ns: int) -> None:
    """A thing has one label, and is at one place of a picture at a time."""
    labels: dict[str, str] = {}
    for mark in marks:
        if labels.setdefault(mark.id, mark.label) != mark.label:
            told = f"'{labels[mark.id]}' and '{mark.label}'"
            raise DataError(f"{path}: thing '{mark.id}' has the labels {told}, expected one, or another id")
    ordered = sorted(
        (mark for mark in marks if mark.box is not None), key=lambda one: (one.sensor, one.id, *_begin(one))
    )
    for one, other in pairwise(ordered):
        if (one.sensor, one.id) == (other.sensor, other.id) and other.start_ns < one.end_ns:
            at = f"{(other.start_ns - start_ns) / 1e9:g} s"
            raise DataError(f"{path}: '{one.id}' has two boxes in the picture of '{one.sensor}' at {at}, expected one")


def _told(box: Rectangle) -> str:
    return ", ".join(f"{value:g}" for value in box)
