"""Events out of columns: of files, and of the dictionaries and structured arrays that a program has at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Events, positive
from omnibind_core.modalities.event.headers import guessed_sensor, say_once
from omnibind_core.modalities.objects import as_array

_MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
UNITS = {
    "width": "of the sensor, pixels",
    "height": "of the sensor, pixels",
    "time_unit": f"of the stamps: {', '.join(_MICROSECONDS)}; by default integers are us, floats need it, and of files "
    "fractions are s",
}
_NAMES = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "pols", "polarity", "polarities", "on"),
}
_EXPECTED = "Events, or a dictionary or structured array with x, y, t and p"
_SECONDS = 1e5  # a recording with fractions of times is not longer, if they are seconds


@dataclass(frozen=True)
class Columns:
    """Columns of a file, ``[N]`` of any type of number.

    Attributes:
        found: By name: ``x``, ``y``, ``t`` and ``p``.
        size: Width and height of the sensor; None if the file does not tell.
    """

    found: Mapping[str, NDArray[Any]]
    size: tuple[int, int] | None = None


def named(names: Iterable[str]) -> dict[str, str]:
    """Which of the names stands for ``x``, ``y``, ``t`` and ``p``, in any case, as far as they are there."""
    lower = {str(name).lower(): name for name in reversed(list(names))}
    found = {key: next((lower[other] for other in others if other in lower), None) for key, others in _NAMES.items()}
    return {key: name for key, name in found.items() if name is not None}


def from_columns(given: Any, source: str, units: Mapping[str, Any]) -> Events:
    """Events that are not checked yet.

    Args:
        given: :class:`Events`; or a mapping or structured array with the columns ``x``, ``y``, ``t`` and ``p``, also by
            their usual longer names. Of a mapping, ``width`` and ``height`` may be in it, too. Or :class:`Columns`,
            whose missing size is guessed, and whose times with fractions are seconds, if the recording is not absurdly
            long then; both is said once.
        source: For the error message.
        units: Some of :data:`UNITS`; a size goes before that of ``given``.

    Raises:
        InvalidInputError: A column, the size or the unit of the stamps is missing. Of a plain array ``[N, 4]`` nothing
            tells the order of the columns.
    """
    unit = units.get("time_unit")
    if isinstance(given, Events):
        if unit is not None:
            raise InvalidInputError(source, "a time_unit for events whose stamps are µs", "none")
        size = _size({"width": given.width, "height": given.height, **units}, source)
        return replace(given, width=size["width"], height=size["height"])
    of_file = isinstance(given, Columns)
    if of_file:
        found = {name: np.asarray(column) for name, column in given.found.items()}
        told = dict(zip(("width", "height"), given.size or (), strict=False))
    else:
        if not isinstance(given, Mapping):
            table = as_array(given, source)
            if table.dtype.names is None:
                found_type = f"{table.dtype} {list(table.shape)} without names of columns"
                raise InvalidInputError(source, found_type, _EXPECTED)
            given = {name: table[name] for name in table.dtype.names}
        names = named(given)
        if len(names) < len(_NAMES):
            raise InvalidInputError(source, f"columns {', '.join(map(str, given)) or 'none'}", _EXPECTED)
        found = {column: as_array(given[name], source) for column, name in names.items()}
        told = {name: given[name] for name in ("width", "height") if name in given}
    size = _size({**told, **units}, source)
    x, y, p = (_whole(found[name]) for name in "xyp")
    if len(size) < 2:
        if not of_file:
            raise InvalidInputError(source, "events without the size of their sensor", "width= and height= in pixels")
        size = dict(zip(("width", "height"), guessed_sensor(x, y, source), strict=True))
    return Events(x, y, _stamps(found["t"], unit, of_file, source), p, **size)


def _size(told: Mapping[str, Any], source: str) -> dict[str, int]:
    """Width and height, as far as they are told."""
    sizes = {name: positive(told, name, source) for name in ("width", "height")}
    return {name: int(size) for name, size in sizes.items() if size is not None}


def _whole(column: NDArray[Any]) -> NDArray[Any]:
    """Floats without fractions as integers; others stay, for the check to refuse."""
    if column.dtype.kind != "f" or not (np.abs(column) < 1 << 31).all() or (column != np.rint(column)).any():
        return column
    return column.astype(np.int64)


def _stamps(column: NDArray[Any], unit: str | None, of_file: bool, source: str) -> NDArray[Any]:
    """Stamps in µs."""
    if unit is not None and unit not in tuple(_MICROSECONDS):
        raise InvalidInputError(source, f"time_unit={unit!r}", ", ".join(_MICROSECONDS))
    is_float = column.dtype.kind == "f"
    if unit is None and is_float and not of_file:
        raise InvalidInputError(source, f"stamps as {column.dtype}", "integers in µs, or time_unit='s', 'ms' or 'us'")
    if not is_float and unit in (None, "us"):
        return column
    if column.dtype.kind not in "uif" or not np.isfinite(column).all():
        raise InvalidInputError(source, f"stamps as {column.dtype}", "finite numbers")
    column = column.astype(np.float64 if is_float else np.int64)
    column = column - column[:1]  # times from the first: in ns since 1970 a float64 has no µs
    if unit is None and (column != np.rint(column)).any() and float(np.ptp(column)) < _SECONDS:
        say_once("times with fractions: taken as seconds")
        unit = "s"
    return np.rint(column * _MICROSECONDS[unit or "us"]).astype(np.int64)
