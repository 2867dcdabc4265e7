"""What was there when: from a table of intervals, or from a topic of the bag."""

from __future__ import annotations

import csv
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.labels import clean
from omnibind_ros import messages
from omnibind_ros.bags import read, types

_SECOND = 1_000_000_000
_ABSOLUTE = 10**15  # numbers from here on are ns since 1970, not s since the beginning of the bag
LAST = 2**63 - 1
"""ns since 1970, about the year 2262: later ones than any clock tells."""
_COLUMNS = (("start_s", "start"), ("end_s", "end"))


@dataclass(frozen=True)
class Interval:
    """A label and when it was right; ns, the end excluded."""

    start_ns: int
    end_ns: int
    label: str


@dataclass(frozen=True)
class Truth:
    """What was there at every time.

    Attributes:
        intervals: In order of their beginning; several labels may hold at once.
        notes: What a person should know, in sentences.
    """

    intervals: tuple[Interval, ...]
    notes: tuple[str, ...] = ()
    _starts: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _ends: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _names: NDArray[np.object_] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, times in (
            ("_starts", [one.start_ns for one in self.intervals]),
            ("_ends", [one.end_ns for one in self.intervals]),
        ):
            object.__setattr__(self, name, np.array([min(time, LAST) for time in times], np.int64))
        object.__setattr__(self, "_names", np.array([one.label for one in self.intervals], np.object_))

    def at(self, time_ns: int) -> tuple[str, ...]:
        """The labels that are right at a time; none if nothing is known of it."""
        time = max(-LAST, min(time_ns, LAST))
        return tuple(dict.fromkeys(self._names[(self._starts <= time) & (time < self._ends)].tolist()))

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in alphabetical order."""
        return tuple(sorted({one.label for one in self.intervals}))

    def segments(self) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Beginning, end (ns) and labels of the times between two changes, where there are labels."""
        changes: dict[int, tuple[list[int], list[int]]] = {}
        for place, one in enumerate(self.intervals):
            if one.start_ns < one.end_ns:
                changes.setdefault(one.start_ns, ([], []))[0].append(place)
                changes.setdefault(one.end_ns, ([], []))[1].append(place)
        of_label: dict[str, list[int]] = defaultdict(list)  # intervals that hold, in order
        first: list[int] = []  # of those of each label, in order: as many as there are labels, not intervals
        names: list[str] = []  # of these, for all are told at every change
        begin, held = 0, tuple[str, ...]()
        for time in sorted(changes):
            begun, ended = changes[time]
            touched = {self.intervals[place].label for place in (*begun, *ended)}
            before = {label: of_label[label][0] for label in touched if of_label[label]}
            for place in begun:
                insort(of_label[self.intervals[place].label], place)
            for place in ended:
                holding = of_label[self.intervals[place].label]
                del holding[bisect_left(holding, place)]
            after = {label: of_label[label][0] for label in touched if of_label[label]}
            if after == before:
                continue
            for place in before.values():
                at = bisect_left(first, place)
                del first[at], names[at]
            for label, place in after.items():
                at = bisect_left(first, place)
                first.insert(at, place)
                names.insert(at, label)
            if (labels := tuple(names)) != held:
                if held:
                    yield begin, time, held
                begin, held = time, labels


def from_table(path: Path, start_ns: int, end_ns: int, bag_name: str = "") -> Truth:
    """Reads intervals from a CSV file with the columns ``start_s``, ``end_s`` (or ``start``, ``end``) and ``label``.

    Times are s since the beginning of the bag, or ns since 1970. Other columns are left alone, but where there is one
    named ``bag``, only the rows count that name this bag.

    Args:
        path: The file.
        start_ns: Beginning of the bag, ns.
        end_ns: Its end.
        bag_name: Name of the bag.

    Raises:
        DataError: It cannot be read, lacks a column, or has an unusable row; names the line.
    """
    intervals = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = table.fieldnames or []
            keys = [next((key for key in names if key in columns), "") for names in _COLUMNS]
            if "" in keys or "label" not in columns:
                raise DataError(
                    f"{path} has the columns {', '.join(columns) or 'none'}, expected start_s, end_s, label"
                )
            for row in table:
                if row.get("bag", bag_name) != bag_name:
                    continue
                where = f"{path}, line {table.line_num}"
                begin, end = (time_ns(row[key], start_ns, where) for key in keys)
                label = clean(row["label"] or "")
                if end <= begin:
                    raise DataError(f"{where}: it ends at {row[keys[1]]} and begins at {row[keys[0]]}")
                if label:
                    intervals.append(Interval(begin, end, label))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable table of labels: {error}") from error
    if not intervals:
        raise DataError(f"{path} has no labels" + (f" for the bag '{bag_name}'" if bag_name else ""))
    return _checked(intervals, start_ns, end_ns)


def time_ns(text: str | None, start_ns: int, where: str) -> int:
    """A time of a table: s since the beginning of the bag, or whole ns since 1970.

    Args:
        text: The cell.
        start_ns: Beginning of the bag, ns.
        where: File and line, for error messages.

    Raises:
        DataError: It is no time.
    """
    try:
        number = float(text or "")
        found = int(text or "") if abs(number) >= _ABSOLUTE else start_ns + round(number * _SECOND)
        if abs(found) > LAST:
            raise OverflowError
        return found
    except (ValueError, OverflowError):
        raise DataError(
            f"{where}: '{text}' is no time, expected s since the beginning, or whole ns since 1970"
        ) from None


def from_topic(path: Path, topic: str, start_ns: int, end_ns: int) -> Truth:
    """Takes a topic of ``std_msgs/String``: each message holds until the next; an empty one: nothing is known.

    Raises:
        DataError: The bag lacks the topic, or it has other messages, or none that names a label.
    """
    ros_type = read.topics(path).get(topic, messages.STRING)
    if ros_type != messages.STRING:
        raise DataError(f"{path}: topic {topic} has messages of type {ros_type}, expected {messages.STRING}")
    said: list[tuple[int, str]] = []
    notes: list[str] = []
    try:
        for item in read.messages(path, [topic]):
            try:
                said.append((item.time_ns, clean(types.decode(item).data)))
            except InvalidInputError as error:
                notes.append(str(error))
    except DataError as error:
        if not said:  # otherwise the replay says that it is damaged
            raise DataError(f"{error}") from error
    ends = [(end_ns + 1, "")]
    intervals = [
        Interval(now, after, label) for (now, label), (after, _) in pairwise([*said, *ends]) if label and now < after
    ]
    if not intervals:
        raise DataError(f"{path}: topic {topic} names no label in {len(said)} messages")
    return _checked(intervals, start_ns, end_ns, notes)


def _checked(intervals: Iterable[Interval], start_ns: int, end_ns: int, notes: Sequence[str] = ()) -> Truth:
    """Sorted, and with a note for what overlaps or lies outside the bag."""
    ordered = sorted(intervals, key=lambda one: (one.start_ns, one.end_ns, one.label))
    found = [*notes, *_overlaps(ordered, start_ns)]
    outside = [one for one in ordered if one.end_ns <= start_ns or one.start_ns > end_ns]
    if outside:
        names = ", ".join(sorted({one.label for one in outside}))
        span = f"the bag is {(end_ns - start_ns) / _SECOND:.1f} s long"
        found.append(f"{len(outside)} of {len(ordered)} labels lie outside the bag and are left out ({names}); {span}")
    partly = [
        one for one in ordered if one not in outside and (one.start_ns < start_ns or one.end_ns > end_ns + _SECOND)
    ]
    found += [f"the label '{one.label}' at {_span(one, start_ns)} reaches beyond the bag" for one in partly]
    inside = tuple(one for one in ordered if one not in outside)
    return Truth(inside, tuple(found))


def _overlaps(ordered: Sequence[Interval], start_ns: int) -> list[str]:
    starts = [one.start_ns for one in ordered]
    later = [max(0, bisect_left(starts, one.end_ns) - place - 1) for place, one in enumerate(ordered)]
    if not any(later):
        return []
    place = next(place for place, number in enumerate(later) if number)
    one, other = ordered[place : place + 2]
    first = f"'{one.label}' at {_span(one, start_ns)} and '{other.label}' at {_span(other, start_ns)}"
    return [f"{sum(later)} pairs of labels overlap, and either counts as right there; the first: {first}"]


def _span(one: Interval, start_ns: int) -> str:
    begin, end = ((time - start_ns) / _SECOND for time in (one.start_ns, one.end_ns))
    return f"{begin:.1f} to {end:.1f} s"
