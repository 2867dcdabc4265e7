"""Events: pictures against hand-computed ones, checks, files, windows cut out of a stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Events
from omnibind_core.modalities.event import corruption, processing
from omnibind_core.modalities.event.headers import LAST, MAX_PIXELS
from omnibind_core.modalities.event.reading import from_frame

EVENT = modalities.get("event")


def events(rows: list[tuple[int, int, int, int]], width: int = 8, height: int = 6) -> Events:
    """Events of rows ``(x, y, t, p)``."""
    x, y, t, p = np.array(rows, np.int64).reshape(-1, 4).T
    return EVENT.check(Events(x, y, t, p, width, height), "test")


def draw(raw: Events, preset: str, **changes: Any) -> np.ndarray:
    """The picture ``[height, width]`` or ``[height, width, 3]`` before it is resized."""
    chosen = replace(EVENT.preset(preset), **changes)
    return processing.pictures(raw, chosen)[0]


def count(raw: Events) -> np.ndarray:
    """Counts of all pixels ``[2, height, width]``."""
    pixels, found = processing.count(raw, processing.Frame(0, 0, raw.width, raw.height), slice(None))
    assert (np.diff(pixels) > 0).all() and found.any(axis=0).all()
    counts = np.zeros((2, raw.height * raw.width), found.dtype)
    counts[:, pixels] = found
    return counts.reshape(2, raw.height, raw.width)


# Bounding box x 1..4, y 0..1 on 8 x 6 pixels: EventCLIP moves it by (+1, +2).
FEW = events([(1, 0, 0, 1), (1, 0, 1, 1), (4, 1, 2, 0), (4, 1, 3, 1), (2, 0, 4, 0)])


def test_counts() -> None:
    counts = count(FEW)
    assert counts.shape == (2, 6, 8) and counts.sum() == 5
    assert counts[1, 0, 1] == 2 and counts[0, 1, 4] == 1 and counts[1, 1, 4] == 1 and counts[0, 0, 2] == 1


def test_eventclip_gray() -> None:
    picture = draw(FEW, "eventclip_gray", hot_pixels=0)
    expected = np.full((6, 8), 255)
    expected[2, 2] = 127  # 2 of at most 2 events: weight 1, grey 127
    expected[3, 5] = 127  # 1 + 1: weight min(0.5 + 0.5, 1)
    expected[2, 3] = round(0.5 * 127 * 0.5 + 0.5 * 255)  # one event: grey 63.5 with weight 0.5
    assert picture.tolist() == expected.tolist()


def test_eventclip_rgb() -> None:
    picture = draw(FEW, "eventclip_rgb", hot_pixels=0)
    assert picture[2, 2].tolist() == [255, 0, 0]
    assert picture[3, 5].tolist() == [128, 0, 128]
    assert picture[2, 3].tolist() == [128, 128, 191]  # blue 127.5 at weight 0.5 on white: (127.5, 127.5, 191.25)


def test_eventbind_rgb() -> None:
    picture = draw(FEW, "eventbind_rgb")
    assert picture.shape == (2, 5, 3)  # origin to the farthest event
    assert picture[0, 1].tolist() == [255, 0, 0] and picture[0, 2].tolist() == [0, 0, 255]
    assert picture[1, 4].tolist() == [0, 0, 0] and picture[0, 0].tolist() == [255, 255, 255]


def test_unibind() -> None:
    picture = draw(FEW, "unibind")
    assert picture.shape == (2, 4, 3)  # bounding box
    assert picture[0, 0].tolist() == [0, 255, 255]  # two brighter events of at most two
    assert picture[0, 1].tolist() == [255, 255, 0]  # one darker event of at most one
    assert picture[1, 3].tolist() == [255, 255, 128]  # (0, 127.5, 127.5) + (255, 255, 0), limited
    assert not picture[1, 0].any()


def test_hot_pixels() -> None:
    counts = np.zeros((2, 20, 20), np.float32)
    counts[0, 5, :10] = 1
    counts[1, 3, 3] = 500
    clean = processing.remove_hot_pixels(counts, 10, 400)
    assert clean[1, 3, 3] == 0 and clean.sum() == 10
    assert processing.remove_hot_pixels(counts, 0, 400) is counts
    only_hot = events([(3, 3, i, 1) for i in range(50)], 200, 200)
    assert (EVENT.process(only_hot, EVENT.preset("eventclip_gray")) == 255).all()


def test_object_framing_zooms_on_the_object() -> None:
    square = [(x, y, 0, 1) for x in range(40, 60) for y in range(70, 80)]
    noise = [(5, 5, 0, 1), (120, 110, 0, 0)]  # below one percent
    raw = events([*noise, *square], 128, 128)
    framed = processing.FRAMINGS["object"](raw)
    kept = processing.inside(raw, framed)
    assert (framed.width, framed.height, len(kept)) == (28, 28, 200)  # a margin of four pixels
    x, y = raw.x[kept] - framed.left, raw.y[kept] - framed.top
    assert (x.min(), x.max(), y.min(), y.max()) == (4, 23, 9, 18)
    one = processing.FRAMINGS["object"](events([(0, 0, 0, 1)], 128, 128))
    assert (one.width, 0 - one.left, 0 - one.top) == (9, 4, 4)


@pytest.mark.parametrize("number", [1, 2, 50, 51, 99, 101, 150, 151, 1000, 4951])
def test_percentiles_are_those_of_numpy(number: int, rng: np.random.Generator) -> None:
    values = rng.integers(0, rng.integers(1, 300), number).astype(np.uint16)
    assert processing._middle(values, 300) == tuple(np.percentile(values, (1, 99), method="nearest"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, [(0, 1)]),
        (20_000, [(0, 20_000)]),
        (30_000, [(0, 20_000)]),
        (30_001, [(0, 20_000), (10_001, 30_001)]),
        (40_000, [(0, 20_000), (20_000, 40_000)]),
        (100_000, [(0, 20_000), (80_000, 100_000)]),
    ],
)
def test_views_of_eventclip(number: int, expected: list[tuple[int, int]]) -> None:
    found = processing.views(number, EVENT.preset("eventclip_gray"))
    assert [(part.start, part.stop) for part in found] == expected


def test_views_may_be_the_first_or_the_last() -> None:
    found = processing.views(200_000, EVENT.preset("eventbind_rgb"))
    assert [part.start for part in found] == [0, 15_000, 30_000, 45_000, 60_000]
    assert processing.views(65_000, EVENT.preset("object_rgb")) == [slice(40_000, 60_000)]
    assert processing.views(75_000, EVENT.preset("object_rgb")) == [slice(55_000, 75_000)]


def test_published_constants() -> None:
    constants = {name: (preset.events_per_view, preset.max_views) for name, preset in EVENT.presets.items()}
    assert constants["eventclip_gray"] == constants["eventclip_rgb"] == (20_000, 2)
    assert constants["eventclip_gray_ncars"] == (30_000, 2)
    assert constants["eventclip_rgb_nimagenet"] == (70_000, 2)
    assert constants["eventbind_rgb"] == (15_000, 5) and constants["eventbind_rgb_nimagenet"] == (40_000, 5)


GOOD = {"x": np.array([1, 2]), "y": np.array([0, 3]), "t": np.array([5, 6]), "p": np.array([0, 1])}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.array([1, 8])}, "x from 1 to 8, expected 0 to 7"),
        ({"y": np.array([-1, 3])}, "y from -1 to 3, expected 0 to 5"),
        ({"t": np.array([6, 5])}, "t 6 then 5 at event 1"),
        ({"t": np.array([6, 5], np.uint32)}, "t 6 then 5"),
        ({"p": np.array([0, 2])}, "polarity from 0 to 2"),
        ({"p": np.array([0])}, "lengths .*'p': 1"),
        ({name: np.array([], np.int64) for name in "xytp"}, "no events"),
        ({"x": np.array([1.0, 2.0])}, "x as float64"),
        ({"t": [5, 6]}, "t as list"),
        ({"y": np.zeros((2, 1), int)}, r"y as int64 \[2, 1\]"),
        ({"width": 0}, "0 x 6 pixels"),
        ({"height": 100_000}, "8 x 100000 pixels"),
    ],
)
def test_bad_events_are_refused(changes: dict[str, Any], message: str) -> None:
    raw = Events(**{**GOOD, "width": 8, "height": 6, **changes})
    with pytest.raises(InvalidInputError, match=rf"\[dvs\] got.*{message}"):
        EVENT.check(raw, "dvs")


def test_check_makes_canonical_types() -> None:
    checked = EVENT.check(Events(**{**GOOD, "p": np.array([-1, 1], np.int8)}, width=8, height=6), "dvs")
    assert [checked.x.dtype, checked.y.dtype, checked.t.dtype, checked.p.dtype] == [
        np.uint16,
        np.uint16,
        np.int64,
        np.uint8,
    ]
    assert checked.p.tolist() == [0, 1]
    again = EVENT.check(checked, "dvs")
    assert again.x is checked.x and again.p is checked.p  # no copies


def test_frames_become_events(tmp_path: Path) -> None:
    frame = np.zeros((6, 8), np.int8)
    frame[1, 2], frame[3, 4] = 3, -2
    np.savez(tmp_path / "f.npz", frame=frame)
    raw = EVENT.load(tmp_path / "f.npz")
    counts = count(raw)
    assert np.array_equal(counts[1] - counts[0], frame) and len(raw) == 5
    with pytest.raises(InvalidInputError, match="no events"):
        EVENT.check(from_frame(np.zeros((6, 8), np.int8), "dvs"), "dvs")
    with pytest.raises(InvalidInputError, match="frame uint8"):
        from_frame(frame.astype(np.uint8), "dvs")


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    np.savez(path, **{**GOOD, "t": GOOD["t"].astype(np.uint32)}, width=8, height=6)
    raw = EVENT.load(path)
    assert raw.t.tolist() == [5, 6] and (raw.width, raw.height) == (8, 6)
    np.savez(path, x=GOOD["x"], y=GOOD["y"])
    with pytest.raises(InvalidInputError, match="without t, p"):
        EVENT.load(path)
    np.savez(path, **GOOD, width=np.array([8, 8]), height=6)
    with pytest.raises(InvalidInputError, match="width or height"):
        EVENT.load(path)


def test_atis_files(tmp_path: Path) -> None:
    def row(x: int, y: int, p: int, t: int) -> bytes:
        return bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255])

    path = tmp_path / "e.bin"
    path.write_bytes(row(7, 9, 1, 70_000) + row(230, 179, 0, 70_001) + row(0, 240, 0, 0) + row(1, 2, 1, 70_002))
    raw = EVENT.load(path)
    assert (raw.width, raw.height) == (240, 180)
    assert raw.x.tolist() == [7, 230, 1] and raw.y.tolist() == [9, 179, 2] and raw.p.tolist() == [1, 0, 1]
    assert raw.t.tolist() == [70_000, 70_001, 70_002 + 8192]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidInputError, match="19 bytes, expected 5 bytes per event"):
        EVENT.load(path)


def test_join_cuts_the_window() -> None:
    start = 1_700_000_000_000_000_000
    # stamps 100 ms apart; the first event of each part has an origin of its own
    parts = [
        (start, events([(0, 0, 500, 1), (1, 0, 50_500, 1)])),
        (start + 100_000_000, events([(2, 0, 7, 0), (3, 0, 60_007, 0)])),
    ]
    joined = EVENT.join(parts, start + 170_000_000, 0.12)  # from 50 ms to 170 ms
    assert joined.x.tolist() == [1, 2, 3] and joined.t.tolist() == [0, 50_000, 110_000]
    assert EVENT.join(parts, start + 100_000_000, 1.0).x.tolist() == [0, 1, 2]
    EVENT.check(joined, "dvs")


def test_join_sorts_overlapping_parts() -> None:
    parts = [(0, events([(0, 0, 0, 1), (1, 0, 1000, 1)])), (500_000, events([(2, 0, 0, 1)]))]
    joined = EVENT.join(parts, 1_000_000, 0.001)
    assert joined.x.tolist() == [0, 2, 1] and joined.t.tolist() == [0, 500, 1000]


def test_join_refuses() -> None:
    one = events([(0, 0, 0, 1)])
    with pytest.raises(InvalidInputError, match="sensor sizes"):
        EVENT.join([(0, one), (1, replace(one, width=9))], 10, 1.0)
    for parts in ([], [(0, one)]):
        with pytest.raises(InvalidInputError, match="no events in the window"):
            EVENT.join(parts, 10_000_000_000, 1.0)


def test_turning_keeps_events_on_the_sensor_and_in_time_order(rng: np.random.Generator) -> None:
    rows = np.column_stack([rng.integers(0, 128, (2000, 2)), np.arange(2000), rng.integers(0, 2, 2000)])
    raw = events([tuple(row) for row in rows.tolist()], 128, 128)
    turned = corruption._turn(raw, np.pi / 4)
    assert 1000 < len(turned) < 2000  # the corners leave the sensor
    assert turned.x.max() < 128 and turned.y.max() < 128
    assert (np.diff(turned.t) > 0).all()


def test_a_quarter_turn_moves_right_to_below() -> None:
    raw = events([(60, 60, 0, 1), (70, 60, 1, 1), (50, 60, 2, 1)], 128, 128)
    turned = corruption._turn(raw, np.pi / 2)
    assert turned.x.tolist() == [60, 60, 60] and turned.y.tolist() == [60, 70, 50]


def test_a_sensor_of_more_pixels_than_the_bound_is_refused() -> None:
    few = np.arange(3)
    for width, height in ((8192, 8192), (4096, 2049)):
        raw = Events(few.astype(np.uint16), few.astype(np.uint16), few, few.astype(np.uint8) & 1, width, height)
        with pytest.raises(InvalidInputError, match=f"{width} x {height} pixels, expected at most {MAX_PIXELS} pixels"):
            EVENT.check(raw, "camera")
    assert len(EVENT.check(replace(raw, height=2048), "camera")) == 3


def test_a_frame_of_more_events_than_the_bound_is_refused() -> None:
    for value in (np.iinfo(np.int64).min, np.iinfo(np.int64).max, LAST + 1):
        with pytest.raises(InvalidInputError, match=f"a frame of .* events, expected at most {LAST}"):
            from_frame(np.array([[value, 0]]), "frame")
