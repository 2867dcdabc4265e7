"""What recordings of event cameras have in common: lines of text at the start, sizes of sensors, a long body."""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Events

MAX_SIDE = 8192  # pixels; larger than any event camera
MAX_PIXELS = 1 << 23  # width times height: eight times those of the usual ones; views of all of them are drawn
LAST = 1 << 21  # events that are used of a longer recording, its last ones
TAIL = 8 * LAST  # bytes that are read of it

_SENSORS = (
    (128, 128), (208, 192), (240, 180), (304, 240), (320, 320), (346, 260), (640, 480), (768, 640), (1280, 720),
    (1280, 800),
)  # fmt: skip
_NAMES = {"128": (128, 128), "208": (208, 192), "240": (240, 180), "346": (346, 260), "640": (640, 480)}
_NAME = re.compile(r"(?:dvs|davis|tmpdiff|dvxplorer)[ _-]?(128|208|240|346|640)", re.IGNORECASE)
_LONGEST_LINE = 1 << 16  # bytes

_log = logging.getLogger(__name__)


def read_header(file: BinaryIO, mark: bytes) -> list[str]:
    """The lines at the start that begin with a mark; the file then stands at what follows.

    They end with the first line that has another start or holds what is no text, or with a line that says so.
    """
    lines: list[str] = []
    while True:
        start = file.tell()
        line = file.readline(_LONGEST_LINE)
        if not (line.startswith(mark) and line.endswith(b"\n") and line.strip().isascii() and _is_text(line)):
            file.seek(start)
            return lines
        lines.append(line.decode().strip().lstrip(mark.decode()).strip())
        if lines[-1].upper().replace("-", " ") in ("END", "!END HEADER", "END OF ASCII HEADER"):
            return lines


def _is_text(line: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\r\n" for byte in line)


def read_tail(file: BinaryIO, path: Path, item: int) -> tuple[NDArray[np.uint8], bool]:
    """The bytes from where a file stands to its end, whole items of that size, the last :data:`TAIL` of more.

    Returns:
        ``uint8 [N]``, and whether it begins after the start.
    """
    start, end = file.tell(), path.stat().st_size
    whole = (end - start) // item * item
    if end - start - whole:
        warn_of_cut(path, whole // item)
    length = min(whole, TAIL // item * item)
    file.seek(start + whole - length)
    return np.frombuffer(file.read(length), np.uint8), length < whole


def named_sensor(text: str) -> tuple[int, int] | None:
    """Width and height of the sensor that a text names, such as ``DAVIS346``."""
    name = _NAME.search(text)
    return _NAMES[name[1]] if name else None


def guessed_sensor(x: NDArray[np.integer], y: NDArray[np.integer], source: str) -> tuple[int, int]:
    """Width and height of the smallest known sensor on which all events lie; it is said once for each.

    Raises:
        InvalidInputError: There are no events, or none is so large.
    """
    if not len(x) or len(x) != len(y):
        raise InvalidInputError(source, "no events" if not len(x) else "x and y of unequal length", "events")
    if x.dtype.kind not in "uif" or y.dtype.kind not in "uif":
        raise InvalidInputError(source, f"x and y of type {x.dtype} and {y.dtype}", "numbers")
    right, bottom = x.max(), y.max()  # of a table perhaps not finite, which is on no sensor
    for width, height in _SENSORS:
        if right < width and bottom < height:
            say_once(
                f"no size of the sensor in {Path(source).suffix or 'the'} file: taken as {width} x {height} pixels"
            )
            return width, height
    raise InvalidInputError(source, f"no size of the sensor, and events up to ({right}, {bottom})", "width and height")


def warn_of_cut(path: Path, whole: int) -> None:
    """Warns that a file ends within an event or a packet."""
    _log.warning("[%s] cut off: used what is whole, %d words or events", path, whole)


@functools.cache
def say_once(what: str) -> None:
    """Warns, if it has not been said in this process."""
    _log.warning("events: %s", what)


def unwrapped(t: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Times of a clock that starts again after so many bits, without that; small steps back are taken out."""
    loop = 1 << bits
    return np.maximum.accumulate(t + np.cumsum(np.diff(t, prepend=t[:1]) < -(loop // 2)) * loop)


def chosen(events: Events, index: slice | NDArray[np.bool_]) -> Events:
    """Some of the events."""
    arrays: dict[str, Any] = {name: getattr(events, name)[index] for name in "xytp"}
    return replace(events, **arrays)
