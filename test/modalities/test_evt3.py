"""The EVT3 decoder against a slow one that takes word by word, on random streams and on a real recording."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.event.evt3 import Evt3Decoder, Evt3Filter

ROW, COLUMN, BASE, V12, V8, LOW, CONTINUED, HIGH, TRIGGER, OTHER = 0, 2, 3, 4, 5, 6, 7, 8, 10, 14
WIDTH, HEIGHT = 640, 480


class SlowDecoder:
    """The format as it is described, one word after the other."""

    def __init__(self):
        self.high = self.time = self.y = self.x = None
        self.bright = 0
        self.timed = False
        self.events, self.triggers = [], []
        self.malformed = self.unplaced = 0

    def decode(self, words):
        for word in words:
            kind, value = word >> 12, word & 0xFFF
            if kind == HIGH:
                self.on_high(value)
            elif kind == LOW and self.high is not None:
                self.timed = True
                self.time = max(self.time, self.high * 4096 + value)
            elif kind == ROW:
                self.y = value & 0x7FF
            elif kind == COLUMN:
                self.on_event(value & 0x7FF, value >> 11)
            elif kind == BASE:
                self.x, self.bright = value & 0x7FF, value >> 11
            elif kind in (V12, V8):
                for bit in range(12 if kind == V12 else 8):
                    if value >> bit & 1:
                        self.on_event(None if self.x is None else self.x + bit, self.bright)
                if self.x is not None:
                    self.x += 12 if kind == V12 else 8
            elif kind == TRIGGER and self.timed:
                self.triggers.append((self.time, value & 1, value >> 8 & 15))
            elif kind in (1, 9, 11, 12, 13):
                self.malformed += 1

    def on_high(self, value):
        if self.high is None:
            self.high, self.time = value, value * 4096
            return
        step = (value - self.last_high + 2048) % 4096 - 2048
        if step < -10:
            self.malformed += 1
            step = 0
        self.high += step
        if self.timed:
            self.time = max(self.time, self.high * 4096)
        else:
            self.time = self.high * 4096

    def on_event(self, x, bright):
        if not self.timed or self.y is None or x is None:
            self.unplaced += 1
        elif x >= WIDTH or self.y >= HEIGHT:
            self.malformed += 1
        else:
            self.events.append((x, self.y, self.time, bright))

    @property
    def last_high(self):
        return self.high % 4096


def rows(events):
    return list(zip(*(getattr(events, name).tolist() for name in "xytp"), strict=True))


def edges(triggers):
    return list(zip(triggers.t.tolist(), triggers.p.tolist(), triggers.channel.tolist(), strict=True))


def packet(*words):
    return np.array(words, "<u2").view(np.uint8)


def word(kind, value):
    return kind << 12 | value


def decode(*packets, decoder=None):
    decoder = decoder or Evt3Decoder(WIDTH, HEIGHT)
    events, triggers = [], []
    for one in packets:
        found = decoder.decode(packet(*one))
        events += rows(found[0])
        triggers += edges(found[1])
    return decoder, events, triggers


START = [word(HIGH, 1), word(LOW, 5), word(ROW, 7)]


@pytest.mark.parametrize("back", range(1, 13))
def test_time_may_be_repeated_from_ten_steps_ago_and_no_further(back):
    words = [word(HIGH, 100), word(LOW, 5), word(ROW, 7), word(HIGH, 100 - back), word(COLUMN, 3)]
    again = [word(HIGH, 100), word(LOW, 9), word(COLUMN, 4), word(HIGH, 101), word(LOW, 1), word(TRIGGER, 1)]
    for packets in ([words, again], [[one] for one in words + again]):
        decoder, events, triggers = decode(*packets)
        assert decoder.malformed == (back > 10)
        # The time stays where it was, and whether the step back was followed or not, the step forward ends there too.
        assert events == [(3, 7, 100 * 4096 + 5, 0), (4, 7, 100 * 4096 + 9, 0)]
        assert triggers == [(101 * 4096 + 1, 1, 0)]


# Words as sensors send them, with a few that make no sense.
words = st.one_of(
    st.builds(word, st.sampled_from([ROW, COLUMN, BASE, V12, V8, LOW, TRIGGER]), st.integers(0, 4095)),
    st.builds(word, st.just(COLUMN), st.integers(0, WIDTH - 1)),
    st.builds(word, st.just(ROW), st.integers(0, HEIGHT - 1)),
    st.integers(0, 0xFFFF),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(words, max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_any_stream_in_any_packets_is_decoded_as_word_by_word(stream, cuts):
    slow = SlowDecoder()
    slow.decode(stream)
    cuts = [0, *sorted(cuts), 60]
    parts = [stream[a:b] for a, b in itertools.pairwise(cuts)]
    decoder, events, triggers = decode(*parts)
    assert events == slow.events
    assert triggers == slow.triggers
    assert (decoder.malformed, decoder.unplaced) == (slow.malformed, slow.unplaced)
    times = [t for _, _, t, _ in events]
    assert times == sorted(times)


def test_state_goes_on_from_packet_to_packet():
    _, events, _ = decode(START, [word(COLUMN, 0x800 | 3)], [word(LOW, 9)], [word(COLUMN, 4)])
    assert events == [(3, 7, 4096 + 5, 1), (4, 7, 4096 + 9, 0)]


def test_vectors_move_their_base_on_over_packets():
    vectors = [word(BASE, 0x800 | 100), word(V12, 0b100000000001)], [word(V12, 1), word(V8, 0b10000010)], [word(V8, 1)]
    _, events, _ = decode(START, *vectors)
    assert [(x, p) for x, _, _, p in events] == [(100, 1), (111, 1), (112, 1), (125, 1), (131, 1), (132, 1)]


def test_the_upper_four_bits_of_a_short_vector_are_no_events():
    _, events, _ = decode([*START, word(BASE, 0), word(V8, 0xF01)])
    assert [x for x, *_ in events] == [0]


def test_single_events_do_not_move_the_base():
    _, events, _ = decode([*START, word(BASE, 50), word(COLUMN, 9), word(V8, 1)])
    assert [x for x, *_ in events] == [9, 50]


def test_the_time_goes_on_when_its_24_bits_loop():
    loop = [[word(HIGH, 4095), word(LOW, 4000), word(ROW, 1), word(COLUMN, 1)], [word(HIGH, 0), word(COLUMN, 2)]]
    later = [[word(HIGH, high % 4096)] for high in range(1, 4200, 100)]
    _, events, _ = decode(*loop, [word(LOW, 3), word(COLUMN, 3)], *later, [word(COLUMN, 4)])
    assert [t for _, _, t, _ in events] == [(1 << 24) - 96, 1 << 24, (1 << 24) + 3, (1 << 24) + 4101 * 4096]


def test_a_time_that_is_repeated_late_does_not_loop():
    stream = [[word(HIGH, 100), word(LOW, 50), word(ROW, 1)], [word(HIGH, 99), word(LOW, 4000), word(COLUMN, 1)],
              [word(HIGH, 100), word(LOW, 60), word(COLUMN, 2)]]  # fmt: skip
    decoder, events, _ = decode(*stream)
    assert [t for _, _, t, _ in events] == [100 * 4096 + 50, 100 * 4096 + 60]
    assert decoder.malformed == 0


def test_a_wrong_time_is_counted_and_does_not_stop_the_clock():
    stream = [*START, word(HIGH, 900), word(HIGH, 2), word(LOW, 0), word(COLUMN, 1), word(HIGH, 3), word(COLUMN, 2)]
    decoder, events, _ = decode(stream)
    assert decoder.malformed == 1
    assert events[1][2] - events[0][2] == 4096


def test_triggers():
    _, _, triggers = decode(
        [word(TRIGGER, 0x601)], START[:2], [word(TRIGGER, 0x601), word(LOW, 8), word(TRIGGER, 0x300)]
    )
    assert triggers == [(4096 + 5, 1, 6), (4096 + 8, 0, 3)]


def test_nothing_is_misplaced_after_a_gap():
    decoder, _, _ = decode([*START, word(BASE, 100)])
    decoder.reset()
    lost = [
        word(COLUMN, 1),
        word(V12, 1),
        word(HIGH, 9),
        word(COLUMN, 2),
        word(LOW, 1),
        word(COLUMN, 3),
        word(TRIGGER, 1),
    ]
    _, events, triggers = decode(lost, decoder=decoder)
    assert events == []
    assert len(triggers) == 1
    assert decoder.unplaced == 4
    _, events, _ = decode([word(ROW, 4), word(COLUMN, 5), word(V8, 1), word(BASE, 6), word(V8, 1)], decoder=decoder)
    assert [(x, y) for x, y, *_ in events] == [(5, 4), (6, 4)]
    assert decoder.unplaced == 5


def test_monitoring_words_are_skipped_and_undefined_ones_counted():
    stream = [*START, word(OTHER, 0xED6), word(CONTINUED, 3), word(15, 9), word(1, 0), word(13, 5), word(COLUMN, 1)]
    decoder, events, _ = decode(stream)
    assert len(events) == 1
    assert decoder.malformed == 2


def test_events_outside_the_sensor_are_left_out_and_counted():
    decoder, events, _ = decode([*START, word(COLUMN, WIDTH), word(BASE, WIDTH - 1), word(V8, 3), word(ROW, HEIGHT),
                                 word(COLUMN, 1)])  # fmt: skip
    assert [(x, y) for x, y, *_ in events] == [(WIDTH - 1, 7)]
    assert decoder.malformed == 3


def test_half_a_word_is_refused_and_changes_nothing():
    decoder, _, _ = decode(START)
    with pytest.raises(InvalidInputError, match=r"\[front\] got 5 bytes of EVT3, expected whole words"):
        decoder.decode(np.full(5, 0x80, np.uint8), "front")
    assert decode([word(COLUMN, 3)], decoder=decoder)[1] == [(3, 7, 4101, 0)]


def test_vectors_without_end_do_not_overflow():
    decoder, _, _ = decode([*START, word(BASE, 0)])
    for _ in range(50):
        events, _ = decoder.decode(np.full(20_000, word(V12, 1), "<u2").view(np.uint8))
        assert (events.x < WIDTH).all()


@pytest.fixture(scope="module")
def recorded(shared_data):
    """Packets of the real recording."""
    pytest.importorskip("rosbags")
    from omnibind_ros.bags import read, types

    path = shared_data / "bags" / "event_camera_evt3"
    if not path.is_dir():
        pytest.skip(f"no recording of an event camera: {path} is missing")
    return [types.decode(item).events for item in read.messages(path)]


def test_a_real_recording_is_decoded_whole_and_much_faster_than_word_by_word(recorded, capsys):
    took = math.inf
    for _ in range(3):
        begin = time.perf_counter()
        decoder = Evt3Decoder(WIDTH, HEIGHT)
        found = [decoder.decode(data) for data in recorded]
        took = min(took, time.perf_counter() - begin)
    begin = time.perf_counter()
    slow = SlowDecoder()
    slow.decode(np.concatenate(recorded).view("<u2").tolist())
    slow_took = time.perf_counter() - begin

    x, y, t, p = (np.concatenate([getattr(events, name) for events, _ in found]) for name in "xytp")
    assert np.array_equal(np.column_stack([x, y, t, p]), np.array(slow.events))
    assert [edge for _, triggers in found for edge in edges(triggers)] == slow.triggers
    assert (decoder.malformed, decoder.unplaced, slow.malformed, slow.unplaced) == (0, 0, 0, 0)

    assert len(recorded) == 517
    assert len(t) == 343_474
    assert (np.diff(t) >= 0).all()
    assert x.max() < WIDTH and y.max() < HEIGHT
    span = (t[-1] - t[0]) / 1e6
    assert 2.07 < span < 2.09, "as long as the recording"
    rising = np.array([time_us for time_us, edge, _ in slow.triggers if edge])
    assert np.median(np.diff(rising)) == 1000, "a trigger of 1 kHz"
    with capsys.disabled():
        print(f"\nEVT3: {len(t)} events in {took:.3f} s, {span / took:.0f} times as fast as they were recorded, "
              f"{slow_took / took:.0f} times as fast as word by word")  # fmt: skip
    assert slow_took > 2 * took


def test_after_a_gap_only_a_few_events_of_a_real_recording_are_lost(recorded):
    whole, gappy = Evt3Decoder(WIDTH, HEIGHT), Evt3Decoder(WIDTH, HEIGHT)
    lost = 0
    for number, data in enumerate(recorded):
        expected, _ = whole.decode(data)
        if number % 3 == 0:
            gappy.reset()
            continue
        events, _ = gappy.decode(data)
        missing = len(expected) - len(events)
        lost += missing
        for name in "xyp":
            assert np.array_equal(getattr(events, name), getattr(expected, name)[missing:])
        assert np.array_equal(events.t, expected.t[missing:])
    assert lost == gappy.unplaced
    assert 0 < lost < 1000, "of more than 200 000"


def test_the_filter_leaves_what_needs_no_past():
    one = Evt3Filter()
    stream = [
        word(COLUMN, 1),
        word(1, 0),
        word(V12, 1),
        *START,
        word(COLUMN, 2),
        word(V8, 1),
        word(BASE, 3),
        word(V8, 1),
    ]
    kept = one.clean(packet(*stream)).view("<u2").tolist()
    assert kept == [*START, word(COLUMN, 2), word(BASE, 3), word(V8, 1)]
    assert (one.malformed, one.unplaced) == (1, 3)
    following = packet(word(COLUMN, 1), word(V8, 1))
    assert one.clean(following) is following
    one.reset()
    assert not one.clean(following).size
