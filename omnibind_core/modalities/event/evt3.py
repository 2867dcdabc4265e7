"""EVT 3.0, the raw stream of Prophesee's event cameras, decoded by NumPy without a loop over words or events.

The stream is a sequence of little-endian 16-bit words, the kind in the upper four bits. Words only say what changed, so
a decoder carries time, row and column from packet to packet. After lost packets none of this is known any more: call
:meth:`Evt3Decoder.reset`, and events are left out until time and place are known again. Facts of the format: the
documentation of Prophesee's Metavision SDK, "EVT 3.0 Format".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Events

# Kinds of words. The 12 bits below hold:
_ROW = 0x0  # y in 11 bits
_COLUMN = 0x2  # an event: polarity, x in 11 bits
_BASE = 0x3  # polarity and x in 11 bits of the vectors that follow
_VECTOR_12, _VECTOR_8 = 0x4, 0x5  # one event per set bit, at the base plus the bit's number; the base moves on
_TIME_LOW, _TIME_HIGH = 0x6, 0x8  # lower and upper 12 bits of the time, µs
_TRIGGER = 0xA  # channel in 4 bits, 7 unused, edge
# 0x7, 0xE and 0xF are monitoring data of the sensor; the others are not defined.

_WIDTHS = np.zeros(16, np.int64)
_WIDTHS[[_VECTOR_12, _VECTOR_8]] = 12, 8
_BITS = np.zeros(16, np.uint16)
_BITS[[_VECTOR_12, _VECTOR_8]] = 0xFFF, 0xFF
_IS_EVENT = np.isin(np.arange(16), (_COLUMN, _VECTOR_12, _VECTOR_8))
_IS_UNDEFINED = np.isin(np.arange(16), (0x1, 0x9, 0xB, 0xC, 0xD))
# What a word adds to two sums that run along the words, in one pass: changes of time and of row, of base and columns.
_HALF = 32  # bits of either
_LOW = (1 << _HALF) - 1
_CHANGES = np.isin(np.arange(16), (_TIME_LOW, _TIME_HIGH)) + (np.isin(np.arange(16), _ROW).astype(np.int64) << _HALF)
_COVERS = np.isin(np.arange(16), _BASE) + (_WIDTHS << _HALF)

_LOOP = 1 << 12  # the upper half of the time starts again after that many, which is every 16.8 s
# Sensors repeat a time that they have passed already, by a few steps; going back further is an error in the stream.
_JITTER = 10

_UNKNOWN = -1
_MAX_COLUMN = 1 << 12  # beyond all sensors


@dataclass(frozen=True)
class Triggers:
    """Edges on the external trigger inputs of an event camera, in time order.

    Attributes:
        t: ``int64 [N]``, µs on the clock of the events.
        p: ``uint8 [N]``, 1 = rising, 0 = falling.
        channel: ``uint8 [N]``, number of the input.
    """

    t: NDArray[np.int64]
    p: NDArray[np.uint8]
    channel: NDArray[np.uint8]

    def __len__(self) -> int:
        return int(self.t.shape[0])


def most_events(data: NDArray[np.uint8]) -> int:
    """How many events a packet ``uint8 [2 * words]`` may hold: of a vector as many as it has columns."""
    kinds = data[1::2] >> 4
    return kinds.size + 11 * int((kinds == _VECTOR_12).sum()) + 7 * int((kinds == _VECTOR_8).sum())


class Evt3Decoder:
    """Decodes one stream, packet by packet, in order.

    Times are those of the sensor's clock, which loops, from its first loop on. They never go back, unless by a reset.

    Args:
        width: Sensor width in pixels.
        height: Sensor height in pixels.

    Attributes:
        malformed: Words so far of an undefined kind, steps back of the time, and events outside the sensor.
        unplaced: Events so far that were left out because their time or place was not known yet.
    """

    def __init__(self, width: int, height: int) -> None:
        self.malformed = 0
        self.unplaced = 0
        self._width = width
        self._height = height
        self.reset()

    def reset(self) -> None:
        """Forgets what was carried from packet to packet; for a stream that begins, or that has a gap."""
        self._time = _UNKNOWN  # µs of the last time word, without loops; never goes back
        self._high = _UNKNOWN  # upper bits of it, without loops
        self._row = _UNKNOWN
        self._base = _UNKNOWN  # column where the next vector begins
        self._base_polarity = 0

    def decode(self, data: NDArray[np.uint8], source: str = "evt3") -> tuple[Events, Triggers]:
        """Decodes the next packet.

        Args:
            data: ``uint8 [2 * words]``.
            source: Sensor name, for the error message.

        Returns:
            Events and triggers; ``t`` goes on from packet to packet.

        Raises:
            InvalidInputError: Not whole words; nothing is changed then.
        """
        words, kinds = _words(data, source)
        places = kinds.astype(np.intp)  # NumPy would do so at each look into a table
        counts = np.bincount(places, minlength=16)
        changes = np.cumsum(_CHANGES[places])
        times, rows = self._times(words, kinds), self._rows(words, kinds)
        at = np.flatnonzero((kinds == _COLUMN) | (kinds == _VECTOR_12) | (kinds == _VECTOR_8))
        t, y = times[changes[at] & _LOW], rows[changes[at] >> _HALF]
        chosen = words[at]
        x, p = (chosen & 0x7FF).astype(np.int32), (chosen >> 11 & 1).astype(np.uint8)
        if counts[[_BASE, _VECTOR_12, _VECTOR_8]].any():
            word, x, p = self._expand(words, np.cumsum(_COVERS[places]), kinds, at, x, p)
            t, y = t[word], y[word]
        edges = np.flatnonzero(kinds == _TRIGGER)
        triggers = _triggers(words[edges], times[changes[edges] & _LOW])
        self.malformed += int(counts[_IS_UNDEFINED].sum())
        return self._placed(x, y, t, p), triggers

    def _times(self, words: NDArray[np.uint16], kinds: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Known times ``[1 + changes]``, the first from before the packet."""
        time_at = np.flatnonzero((kinds == _TIME_LOW) | (kinds == _TIME_HIGH))
        values, is_high = (words[time_at] & 0xFFF).astype(np.int64), kinds[time_at] == _TIME_HIGH
        high_at = np.flatnonzero(is_high)
        highs = self._unloop(values[high_at])
        # After the upper bits the lower ones are 0 until they come; the maximum undoes this where nothing has changed.
        values[high_at] = 0
        upper = np.repeat(highs, np.diff(np.concatenate([[0], high_at, [len(values)]])))
        times = np.empty(1 + len(values), np.int64)
        times[0] = self._time
        np.add(upper * _LOOP, values, out=times[1:])
        if self._time == _UNKNOWN:  # known from the first lower bits that follow upper ones
            known = ~is_high & (upper != _UNKNOWN)
            times[: 1 + int(np.argmax(known)) if known.any() else len(times)] = _UNKNOWN
        np.maximum.accumulate(times, out=times)
        self._time, self._high = int(times[-1]), int(highs[-1])
        return times

    def _unloop(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Upper bits of the time, from the last ones before the packet on, without loops."""
        if not len(values):
            return np.array([self._high])
        first = values[0] if self._high == _UNKNOWN else self._high
        steps = np.diff(np.concatenate([[first % _LOOP], values]))
        steps = (steps + _LOOP // 2) % _LOOP - _LOOP // 2
        wrong = steps < -_JITTER
        self.malformed += int(wrong.sum())
        steps[wrong] = 0
        return np.concatenate([[self._high], first + np.cumsum(steps)])

    def _rows(self, words: NDArray[np.uint16], kinds: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Rows ``[1 + changes]``, the first from before the packet."""
        changed = words[np.flatnonzero(kinds == _ROW)]
        rows = np.empty(1 + len(changed), np.int32)
        rows[0], rows[1:] = self._row, changed & 0x7FF
        self._row = int(rows[-1])
        return rows

    def _expand(
        self,
        words: NDArray[np.uint16],
        covers: NDArray[np.int64],
        kinds: NDArray[np.uint8],
        at: NDArray[np.intp],
        x: NDArray[np.int32],
        p: NDArray[np.uint8],
    ) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.uint8]]:
        """Events of single words and of vectors in their order: which of the words ``at``, column, polarity."""
        base_at = np.flatnonzero(kinds == _BASE)
        changed = words[base_at]
        bases, polarities = np.empty(1 + len(changed), np.int32), np.empty(1 + len(changed), np.uint8)
        # Less the columns that vectors before have covered, as what these have covered up to a word is added to it.
        bases[0], bases[1:] = self._base, (changed & 0x7FF) - (covers[base_at] >> _HALF)
        polarities[0], polarities[1:] = self._base_polarity, changed >> 11 & 1
        unknown = self._base == _UNKNOWN
        self._base = min(int(bases[-1]) + int(covers[-1] >> _HALF), _MAX_COLUMN)
        if unknown and not len(changed):
            self._base = _UNKNOWN
        self._base_polarity = int(polarities[-1])

        vectors = np.flatnonzero(kinds[at] != _COLUMN)
        kind, base = kinds[at[vectors]], covers[at[vectors]] & _LOW
        start = bases[base] + (covers[at[vectors]] >> _HALF) - _WIDTHS[kind]
        if unknown:
            start[base == 0] = _UNKNOWN - 16
        x[vectors], p[vectors] = start, polarities[base]
        bits = np.ones(len(at), "<u2")
        bits[vectors] = words[at[vectors]] & _BITS[kind]
        set_bits = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little").view(bool))
        word = set_bits >> 4
        return word, x[word] + (set_bits & 15).astype(np.int32), p[word]

    def _placed(self, x: NDArray[np.int32], y: NDArray[np.int32], t: NDArray[np.int64], p: NDArray[np.uint8]) -> Events:
        """The events whose time and place are known and on the sensor; the others are counted."""
        on_sensor = (x.view(np.uint32) < self._width) & (y.view(np.uint32) < self._height)  # negative ones are large
        if on_sensor.all() and (t[:1] >= 0).all():  # times do not go back
            return Events(x.astype(np.uint16), y.astype(np.uint16), t, p, self._width, self._height)
        unknown = (t < 0) | (y < 0) | (x < 0)
        outside = ~unknown & ((x >= self._width) | (y >= self._height))
        self.unplaced += int(unknown.sum())
        self.malformed += int(outside.sum())
        kept = np.flatnonzero(~(unknown | outside))
        x, y, t, p = x[kept], y[kept], t[kept], p[kept]
        return Events(x.astype(np.uint16), y.astype(np.uint16), t, p, self._width, self._height)


class Evt3Filter:
    """Takes out of a stream what makes another decoder fail: undefined words, and after a gap what it would misplace.

    Attributes:
        malformed: Undefined words so far.
        unplaced: Event words so far whose row or first column was not known yet.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self.unplaced = 0
        self.reset()

    def reset(self) -> None:
        """Begins anew; for a stream that begins, or that has a gap."""
        self._row = self._base = False

    def clean(self, data: NDArray[np.uint8], source: str = "evt3") -> NDArray[np.uint8]:
        """The next packet without such words.

        Args:
            data: ``uint8 [2 * words]``.
            source: Sensor name, for the error message.

        Raises:
            InvalidInputError: Not whole words.
        """
        words, kinds = _words(data, source)
        undefined = _IS_UNDEFINED[kinds]
        unplaced = np.zeros(len(kinds), bool)
        if not self._row:
            known = np.logical_or.accumulate(kinds == _ROW)
            unplaced |= _IS_EVENT[kinds] & ~known
            self._row = bool(known[-1:].any())
        if not self._base:
            known = np.logical_or.accumulate(kinds == _BASE)
            unplaced |= (_WIDTHS[kinds] > 0) & ~known
            self._base = bool(known[-1:].any())
        self.malformed += int(undefined.sum())
        self.unplaced += int(unplaced.sum())
        left_out = undefined | unplaced
        return words[~left_out].view(np.uint8) if left_out.any() else data


def _words(data: NDArray[np.uint8], source: str) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """The words of a packet, and their kinds."""
    if data.size % 2:
        raise InvalidInputError(source, f"{data.size} bytes of EVT3", "whole words of 2 bytes")
    words = np.ascontiguousarray(data).view("<u2")
    return words, (words >> 12).astype(np.uint8)


def _triggers(words: NDArray[np.uint16], t: NDArray[np.int64]) -> Triggers:
    known = t >= 0
    words = words[known]
    return Triggers(t[known], (words & 1).astype(np.uint8), (words >> 8 & 15).astype(np.uint8))
