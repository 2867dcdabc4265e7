"""Prophesee's files: ``.raw`` in EVT 2.0 and EVT 3.0, and ``.dat``.

Facts of the formats: the documentation of Prophesee's Metavision SDK, "RAW File Format", "DAT File Format" and "EVT 2.0
Format". Of a long recording the end is read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Events
from omnibind_core.modalities.event.evt3 import Evt3Decoder
from omnibind_core.modalities.event.headers import chosen, guessed_sensor, read_header, read_tail, unwrapped

_VERSION = re.compile(r"(?:evt |format EVT)(\d)(?:\.?(\d))?", re.IGNORECASE)
_SIZE = re.compile(r"geometry (\d+)x(\d+)|width[= ](\d+)|height[= ](\d+)", re.IGNORECASE)
_TIME_HIGH = 8  # kind of an EVT2 word that holds the upper 28 bits of the time; 0 and 1 are events
_LARGEST = 2048  # pixels that EVT2 and EVT3 can name
_CD_EVENTS = (0x00, 0x0C)  # kinds of .dat with x, y and polarity


def read_raw(path: Path) -> Events:
    """Reads a ``.raw`` file.

    Raises:
        InvalidInputError: No such file, another encoding, or nothing in it.
    """
    with path.open("rb") as file:
        header = read_header(file, b"%")
        version = _VERSION.search("\n".join(header))
        if not header or (version and (version[1], version[2] or "0") not in (("2", "0"), ("3", "0"))):
            found = f"events in {version[0]}" if version else "a file without the header of Prophesee"
            raise InvalidInputError(str(path), found, "EVT 2.0 or EVT 3.0; Metavision's tools convert others")
        is_evt3 = version is not None and version[1] == "3"
        data, _ = read_tail(file, path, 2 if is_evt3 else 4)
    if is_evt3:
        width, height = _size(header) or (_LARGEST, _LARGEST)
        events, _ = Evt3Decoder(width, height).decode(data, str(path))
    else:
        events = _evt2(data.view("<u4"))
    return _sized(events, header, path)


def read_dat(path: Path) -> Events:
    """Reads a ``.dat`` file: a time and a word with x, y and polarity for each event.

    Raises:
        InvalidInputError: No such file, or nothing in it.
    """
    with path.open("rb") as file:
        header = read_header(file, b"%")
        kind = file.read(2)
        if not header or len(kind) < 2 or kind[0] not in _CD_EVENTS or kind[1] != 8:
            raise InvalidInputError(str(path), "a file without the header of Prophesee", "a .dat file of CD events")
        data, _ = read_tail(file, path, 8)
    t, word = data.view("<u4").reshape(-1, 2).T
    x, y, p = word & 0x3FFF, word >> 14 & 0x3FFF, word >> 28 & 1
    events = Events(
        x.astype(np.uint16), y.astype(np.uint16), unwrapped(t.astype(np.int64), 32), p.astype(np.uint8), 0, 0
    )
    return _sized(events, header, path)


def _evt2(words: np.ndarray) -> Events:
    """Events of EVT2 words ``[N]``; those before the first time are left out."""
    kinds = words >> 28
    is_high = kinds == _TIME_HIGH
    highs = (words[is_high] & 0xFFFFFFF).astype(np.int64) << 6
    known = np.cumsum(is_high)
    at = np.flatnonzero((kinds < 2) & (known > 0))
    chosen = words[at]
    t = unwrapped(highs[known[at] - 1] | (chosen >> 22 & 63), 34)
    x, y = (chosen >> 11 & 0x7FF).astype(np.uint16), (chosen & 0x7FF).astype(np.uint16)
    return Events(x, y, t, kinds[at].astype(np.uint8), _LARGEST, _LARGEST)


def _size(header: list[str]) -> tuple[int, int] | None:
    found = [match for line in header for match in _SIZE.finditer(line)]
    for match in found:
        if match[1]:
            return int(match[1]), int(match[2])
    width = [int(match[3]) for match in found if match[3]]
    height = [int(match[4]) for match in found if match[4]]
    return (width[0], height[0]) if width and height else None


def _sized(events: Events, header: list[str], path: Path) -> Events:
    width, height = _size(header) or guessed_sensor(events.x, events.y, str(path))
    inside = (events.x < width) & (events.y < height)  # a flipped bit is no reason to refuse a recording
    return replace(chosen(events, inside), width=width, height=height)
