"""Event files, by their ending: recordings of cameras, HDF5, NumPy's arrays and tables of text.

Columns without a unit of time or the size of the sensor are for :mod:`.conversion` to judge. Of more than
:data:`.headers.LAST` events the last ones are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError, MissingDependencyError
from omnibind_core.modalities.archives import check_archive
from omnibind_core.modalities.base import Events
from omnibind_core.modalities.event import aedat, prophesee
from omnibind_core.modalities.event.conversion import Columns, named
from omnibind_core.modalities.event.headers import LAST, MAX_SIDE, TAIL, chosen
from omnibind_core.optional import require

_ATIS_WIDTH, _ATIS_HEIGHT = 240, 180  # N-Caltech101
_ATIS_OVERFLOW_ROW, _ATIS_OVERFLOW = 240, 1 << 13  # a row that no pixel has marks a clock overflow, µs

_ORDERS = (
    "txyp",
    "xytp",
    "xypt",
    "tpxy",
    "tyxp",
)  # of the columns of a table without names, in the order they are tried
_COLUMNS = "x, y, t and p"
_ECF = 36559  # HDF5's number of Prophesee's compression
_GEOMETRY = re.compile(r"(\d+)x(\d+)")


def read(path: Path) -> Events | Columns:
    """Reads a file; what it holds is not checked.

    Raises:
        InvalidInputError: It is in no format of its ending, or holds no events.
        MissingDependencyError: The package that reads it is not installed.
    """
    events = READERS[path.suffix.lower()](path)
    return chosen(events, slice(-LAST, None)) if isinstance(events, Events) and len(events) > LAST else events


def from_frame(frame: NDArray[Any], source: str) -> Events:
    """Events that give back a frame of net polarity counts: ``|v|`` events at a pixel of value ``v``, all at t = 0.

    Args:
        frame: Signed integers ``[H, W]``: brighter minus darker events per pixel.
        source: File path or sensor name, for the error message.

    Raises:
        InvalidInputError: Not a signed integer picture.
    """
    if frame.ndim != 2 or frame.dtype.kind != "i":
        raise InvalidInputError(source, f"frame {frame.dtype} {list(frame.shape)}", "signed integers [H, W]")
    y, x = np.nonzero(frame)
    value = frame[y, x].astype(np.int64)
    counted = float(np.abs(value.astype(np.float64)).sum())
    if counted > LAST:
        raise InvalidInputError(source, f"a frame of {counted:.0f} events", f"at most {LAST}")
    repeats = np.abs(value)
    return Events(
        np.repeat(x, repeats).astype(np.uint16),
        np.repeat(y, repeats).astype(np.uint16),
        np.zeros(int(repeats.sum()), np.int64),
        np.repeat(value > 0, repeats).astype(np.uint8),
        frame.shape[1],
        frame.shape[0],
    )


def _read_npz(path: Path) -> Events | Columns:
    expected = f"an .npz archive with {_COLUMNS}, or with frame"
    check_archive(path, expected)
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive}
            arrays = {name: array for name, array in held.items() if isinstance(array, np.ndarray)}  # else bytes
    except Exception as error:  # a damaged file makes NumPy and zipfile raise almost anything
        raise InvalidInputError(str(path), f"a file that NumPy cannot read ({_first(error)})", expected) from error
    if "frame" in arrays:
        return from_frame(arrays["frame"], str(path))
    size = [arrays.pop(name, None) for name in ("width", "height")]
    if any(one is not None and (one.size != 1 or one.dtype.kind not in "ui") for one in size):
        raise InvalidInputError(str(path), "width or height that is not one integer", expected)
    if len(arrays) == 1:
        return _read_array(next(iter(arrays.values())), str(path))
    names = named(arrays)
    if len(names) < 4:
        missing = ", ".join(name for name in "xytp" if name not in names)
        raise InvalidInputError(str(path), f"an archive without {missing}", expected)
    columns = {name: arrays[names[name]] for name in names}
    shapes = {name: list(column.shape) for name, column in columns.items()}
    if any(len(shape) != 1 for shape in shapes.values()):
        raise InvalidInputError(str(path), f"columns of the shapes {shapes}", "x, y, t and p, each [N]")
    return _events(columns, None if size[0] is None or size[1] is None else (size[0].item(), size[1].item()))


def _read_npy(path: Path) -> Columns:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # as above
        found = f"a file that NumPy cannot read ({_first(error)})"
        raise InvalidInputError(str(path), found, f"an array with {_COLUMNS}") from error
    return _read_array(array, str(path))


def _read_array(array: Any, source: str, size: tuple[int, int] | None = None) -> Columns:
    """Events of an array or data set: ``[N]`` with named fields, ``[N, 4]`` or ``[4, N]``."""
    if array.ndim == 1 and array.dtype.names:
        names = named(array.dtype.names)
        rows = array[-LAST:]
        if len(names) == 4:
            return _events({name: rows[names[name]] for name in names}, size)
    elif array.ndim == 2 and 4 in array.shape and array.dtype.kind in "uif":
        return _events(_columns(array[-LAST:] if array.shape[1] == 4 else array[:, -LAST:].T, source), size)
    fields = f" with the fields {', '.join(array.dtype.names)}" if array.dtype.names else f" {array.dtype}"
    raise InvalidInputError(
        source, f"an array {list(array.shape)}{fields}", f"[N] with the fields {_COLUMNS}, or [N, 4]"
    )


def _read_hdf5(path: Path) -> Columns:
    h5py = require("h5py", "Reading HDF5")
    try:
        with h5py.File(path, "r") as file:
            found = _first_events(file, h5py)
            if found is None:
                raise InvalidInputError(str(path), "no data sets of events", f"a group or data set with {_COLUMNS}")
            for data in found.values():
                _require_filters(data, h5py, path)
            size = _size(file) or _size(next(iter(found.values())).parent)
            if "" in found:
                return _read_array(found[""], str(path), size)
            return _events({name: data[-LAST:] for name, data in found.items()}, size)
    except (InvalidInputError, MissingDependencyError):
        raise
    except Exception as error:  # as above
        raise InvalidInputError(
            str(path), f"a file that cannot be read ({_first(error)})", "HDF5 with events"
        ) from error


def _first_events(file: Any, h5py: Any) -> dict[str, Any] | None:
    """The data sets ``x, y, t, p`` of the first group that has them, or one with all of them as ``""``."""

    def look(_: str, item: Any) -> dict[str, Any] | None:
        if isinstance(item, h5py.Dataset):
            table = item.ndim == 2 and item.shape[1] == 4 and item.dtype.kind in "uif"
            return {"": item} if table or (item.ndim == 1 and len(named(item.dtype.names or ())) == 4) else None
        names = named(item)
        data = {name: item[names[name]] for name in names}
        return data if len(data) == 4 and all(getattr(one, "ndim", 0) == 1 for one in data.values()) else None

    found: dict[str, Any] | None = look("", file) or file.visititems(look)
    return found


def _require_filters(data: Any, h5py: Any, path: Path) -> None:
    """Brings what a data set is compressed with."""
    filters = data.id.get_create_plist()
    for number in (filters.get_filter(i)[0] for i in range(filters.get_nfilters())):
        if not h5py.h5z.filter_avail(number) and number != _ECF:
            require("hdf5plugin", "Reading compressed HDF5")
        if not h5py.h5z.filter_avail(number):
            what = (
                "Prophesee's compression ECF" if number == _ECF else f"a compression that HDF5 lacks (number {number})"
            )
            way = "its plugin on HDF5_PLUGIN_PATH, or a file converted to .raw, .dat or .csv by the camera's tools"
            raise InvalidInputError(str(path), f"events in {what}", way)


def _size(item: Any) -> tuple[int, int] | None:
    """Width and height as a group has them, beside the events or as attributes."""
    if all(name in item.attrs for name in ("width", "height")):
        return int(item.attrs["width"]), int(item.attrs["height"])
    if all(name in item and item[name].ndim == 0 for name in ("width", "height")):
        return int(item["width"][()]), int(item["height"][()])
    geometry = _GEOMETRY.fullmatch(str(item.attrs.get("geometry", "")))
    return (int(geometry[1]), int(geometry[2])) if geometry else None


def _read_text(path: Path) -> Columns:
    """A table with blanks or commas; a line of names and one with the size of the sensor may come before it."""
    is_long = path.stat().st_size > TAIL
    with path.open("rb") as file:
        head = file.read(1 << 12).decode("utf-8", "replace").splitlines()
        file.seek(-TAIL if is_long else 0, 2 if is_long else 0)
        lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
    order: list[str] = []
    size, above = None, 0
    for line in head:
        words = _words(line)
        if len(words) > 2 and _is_numbers(words):
            break
        above += 1
        if len(words) == 2 and _is_numbers(words):
            size = round(float(words[0])), round(float(words[1]))
        elif len(named(words)) == 4:
            order = words
    lines = lines[1 if is_long else above :]
    if len(lines) > 1 and not lines[-1].endswith("\n") and len(_words(lines[-1])) < len(_words(lines[-2])):
        lines.pop()  # the file was cut off in it
    if not lines:
        raise InvalidInputError(str(path), "no table of numbers", f"lines with {_COLUMNS}")
    try:
        rows = np.loadtxt(lines, delimiter="," if "," in lines[0] else None, comments=("#", "%"), ndmin=2)
    except ValueError as error:
        raise InvalidInputError(str(path), f"no table of numbers ({error})", f"lines with {_COLUMNS}") from error
    if rows.shape[1] != (len(order) or 4):
        raise InvalidInputError(str(path), f"lines of {rows.shape[1]} numbers", f"lines with {_COLUMNS}")
    if not order:
        return _events(_columns(rows, str(path)), size)
    names = named(order)
    return _events({name: rows[:, order.index(names[name])] for name in names}, size)


def _words(line: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", line.strip("#%, \t\r\n")) if word]


def _is_numbers(words: Sequence[str]) -> bool:
    try:
        return all(np.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def _read_atis(path: Path) -> Events:
    """x, y, then polarity in the top bit and the time in µs in the 23 bits below, big-endian."""
    data = np.fromfile(path, np.uint8)
    if data.size % 5:
        raise InvalidInputError(str(path), f"{data.size} bytes", "5 bytes per event")
    x, y, high, middle, low = data.reshape(-1, 5).astype(np.int64).T
    t = (high & 127) << 16 | middle << 8 | low
    overflow = y == _ATIS_OVERFLOW_ROW
    t += np.cumsum(overflow) * _ATIS_OVERFLOW
    x, y, t, p = (array[~overflow] for array in (x, y, t, high >> 7))
    width = max(_ATIS_WIDTH, int(x.max(initial=0)) + 1)
    height = max(_ATIS_HEIGHT, int(y.max(initial=0)) + 1)
    return Events(x, y, t, p.astype(np.uint8), width, height)


def _read_dat(path: Path) -> Events:
    """Prophesee's, or what jAER wrote with the ending of its first version."""
    with path.open("rb") as file:
        is_aedat = file.read(5) == b"#!AER"
    return aedat.read(path) if is_aedat else prophesee.read_dat(path)


def _first(error: Exception) -> str:
    """The first sentence of an error."""
    return re.split(r"\n|\. ", str(error).strip("'"))[0]


def _columns(rows: NDArray[Any], source: str) -> dict[str, NDArray[Any]]:
    """The columns of a table ``[N, 4]`` without names: the first usual order that they can be in."""
    columns = list(np.asarray(rows).T)
    for order in _ORDERS:
        named = dict(zip(order, columns, strict=True))
        place = all((named[name] >= 0).all() and (named[name] < MAX_SIDE).all() for name in "xy")
        if place and np.isin(named["p"], (-1, 0, 1)).all() and (named["t"][1:] >= named["t"][:-1]).all():
            return named
    raise InvalidInputError(
        source,
        f"{len(rows)} lines of four numbers that are no events",
        f"{_COLUMNS} in one of the orders {', '.join(' '.join(order) for order in _ORDERS)}, t not decreasing",
    )


def _events(found: Mapping[str, NDArray[Any]], size: tuple[int, int] | None = None) -> Columns:
    return Columns({name: column[-LAST:] for name, column in found.items()}, size)


READERS: dict[str, Callable[[Path], Events | Columns]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".bin": _read_atis,
    ".raw": prophesee.read_raw,
    ".dat": _read_dat,
    ".aedat": aedat.read,
    ".aedat4": aedat.read,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".txt": _read_text,
    ".csv": _read_text,
}
