"""Events out of what a program has at hand: dictionaries and structured arrays of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Events, positive
from omnibind_core.modalities.objects import as_array

_MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
UNITS = {
    "width": "of the sensor, pixels",
    "height": "of the sensor, pixels",
    "time_unit": f"of the stamps: {', '.join(_MICROSECONDS)}; by default integers are us, and floats need it",
}
_NAMES = {
    "x": ("x",),
    "y": ("y",),
    "t": ("t", "ts", "timestamp", "timestamps"),
    "p": ("p", "pol", "polarity", "polarities"),
}
_EXPECTED = "Events, or a dictionary or structured array with x, y, t and p"


def from_columns(given: Any, source: str, units: Mapping[str, Any]) -> Events:
    """Events that are not checked yet.

    Args:
        given: :class:`Events`; or a mapping or structured array with the columns ``x``, ``y``, ``t`` and ``p``, also by
            their usual longer names. Of a mapping, ``width`` and ``height`` may be in it, too.
        source: For the error message.
        units: Some of :data:`UNITS`; a size goes before that of ``given``.

    Raises:
        InvalidInputError: A column, the size or the unit of the stamps is missing. Of a plain array ``[N, 4]`` nothing
            tells the order of the columns.
    """
    width, height = (positive(units, name, source) for name in ("width", "height"))
    if isinstance(given, Events):
        if units.get("time_unit") is not None:
            raise InvalidInputError(source, "a time_unit for Events", "none: their stamps are µs")
        return replace(given, width=int(width or given.width), height=int(height or given.height))
    if not isinstance(given, Mapping):
        table = as_array(given, source)
        if table.dtype.names is None:
            raise InvalidInputError(source, f"{table.dtype} {list(table.shape)} without names of columns", _EXPECTED)
        given = {name: table[name] for name in table.dtype.names}
    found: dict[str, NDArray[Any]] = {}
    for column, names in _NAMES.items():
        named = [name for name in names if name in given]
        if not named:
            raise InvalidInputError(source, f"columns {', '.join(map(str, given)) or 'none'}", _EXPECTED)
        found[column] = as_array(given[named[0]], source)
    width, height = width or given.get("width"), height or given.get("height")
    if width is None or height is None:
        raise InvalidInputError(source, "events without the size of their sensor", "width= and height= in pixels")
    x, y, p = (_whole(found[name]) for name in "xyp")
    return Events(x, y, _stamps(found["t"], units.get("time_unit"), source), p, int(width), int(height))


def _whole(column: NDArray[Any]) -> NDArray[Any]:
    """Floats without fractions as integers; others stay, for the check to refuse."""
    whole = column.dtype.kind == "f" and bool((column == np.rint(column)).all())
    return column.astype(np.int64) if whole else column


def _stamps(column: NDArray[Any], unit: str | None, source: str) -> NDArray[Any]:
    """Stamps in µs."""
    if unit is None and column.dtype.kind == "f":
        raise InvalidInputError(source, f"stamps as {column.dtype}", "integers in µs, or time_unit='s', 'ms' or 'us'")
    if unit in (None, "us") and column.dtype.kind != "f":
        return column
    if unit not in _MICROSECONDS:
        raise InvalidInputError(source, f"time_unit={unit!r}", ", ".join(_MICROSECONDS))
    if column.dtype.kind not in "uif" or not np.isfinite(column).all():
        raise InvalidInputError(source, f"stamps as {column.dtype}", "finite numbers")
    column = column if column.dtype.kind == "f" else column.astype(np.int64)
    first = column[0] if column.size else 0  # times from there: in ns since 1970 a float64 has no µs
    return np.rint((column - first) * _MICROSECONDS[unit]).astype(np.int64)
