"""``omnibind_core.load``: what a program has at hand becomes the right item, or is refused in one sentence."""

from __future__ import annotations

import sys
from dataclasses import is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from omnibind_core import load, modalities
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities import Events, Sound

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
PRESSURE = RNG.integers(0, 4096, (16, 16)).astype(np.uint16)
POINTS = RNG.standard_normal((500, 3)).astype(np.float32)
SAMPLES = (RNG.uniform(-0.5, 0.5, 8000) * 32768).astype(np.int16)
EVENTS = {
    "x": RNG.integers(0, 64, 400),
    "y": RNG.integers(0, 48, 400),
    "t": np.sort(RNG.integers(0, 90_000, 400)),
    "p": RNG.integers(0, 2, 400),
}
SIZE = {"width": 64, "height": 48}


def same(one: Any, other: Any) -> None:
    """Whether two raw items are equal, in type and numbers."""
    assert type(one) is type(other)
    for left, right in zip(
        *(vars(item).values() if is_dataclass(item) else [item] for item in (one, other)), strict=True
    ):
        np.testing.assert_array_equal(left, right)
        assert getattr(left, "dtype", None) == getattr(right, "dtype", None)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(PICTURE, id="array"),
        pytest.param(PICTURE[:, :, ::-1].copy()[:, :, ::-1], id="BGR turned round"),
        pytest.param(PICTURE.transpose(2, 0, 1), id="channels first"),
        pytest.param(torch.from_numpy(PICTURE.transpose(2, 0, 1).copy()), id="tensor"),
        pytest.param(torch.from_numpy(PICTURE.transpose(2, 0, 1) / np.float32(255)), id="tensor on 0..1"),
        pytest.param(torch.from_numpy(PICTURE / np.float64(255)).requires_grad_(), id="tensor that learns"),
        pytest.param((PICTURE / 255).astype(np.float32), id="float on 0..1"),
        pytest.param(PICTURE.astype(np.int64), id="int64"),
        pytest.param(PICTURE.tolist(), id="lists"),
        pytest.param(np.dstack([PICTURE, np.full((20, 30), 255, np.uint8)]), id="RGBA"),
        pytest.param(PICTURE * np.uint16(257), id="16 bits"),
    ],
)
def test_pictures_of_other_forms_are_the_same_picture(given: Any) -> None:
    tolerance = 1 if isinstance(given, np.ndarray) and given.dtype == np.uint16 else 0
    reading = load("image", given)
    assert (reading.modality, reading.source, reading.doubt) == ("image", "image", None)
    assert reading.raw.dtype == np.uint8 and reading.raw.shape == PICTURE.shape
    np.testing.assert_allclose(reading.raw.astype(int), PICTURE, atol=tolerance)


def test_pictures_of_pillow() -> None:
    image = pytest.importorskip("PIL.Image")
    opened = image.fromarray(PICTURE)
    np.testing.assert_array_equal(load("image", opened).raw, PICTURE)
    grey = np.asarray(opened.convert("L"))
    np.testing.assert_array_equal(load("image", opened.convert("L")).raw, np.dstack([grey] * 3))
    np.testing.assert_array_equal(load("thermal", opened.convert("L")).raw, grey)
    np.testing.assert_array_equal(load("touch", opened).raw, PICTURE)
    counts = image.fromarray(PRESSURE)
    assert counts.mode == "I;16"
    np.testing.assert_array_equal(load("thermal", counts).raw, PRESSURE)
    half = opened.convert("RGBA")
    half.putalpha(image.fromarray(np.repeat([[0] * 15 + [255] * 15], 20, axis=0).astype(np.uint8)))
    on_white = load("image", half).raw
    assert (on_white[:, :15] == 255).all() and (on_white[:, 15:] == PICTURE[:, 15:]).all()
    turned = image.fromarray(PICTURE)
    turned.getexif()[0x0112] = 6  # the camera was held upright
    np.testing.assert_array_equal(load("image", turned).raw, PICTURE.transpose(1, 0, 2)[:, ::-1])


@pytest.mark.parametrize(
    ("given", "units"),
    [
        pytest.param(SAMPLES, {"sample_rate": 16000}, id="int16"),
        pytest.param(SAMPLES.astype(np.int32) << 16, {"sample_rate": 16000}, id="int32"),
        pytest.param(SAMPLES / 32768, {"sample_rate": 16000.0}, id="float64"),
        pytest.param(np.stack([SAMPLES, SAMPLES], axis=1), {"sample_rate": 16000}, id="stereo"),
        pytest.param(torch.from_numpy(np.stack([SAMPLES, SAMPLES])), {"sample_rate": 16000}, id="channels first"),
        pytest.param(Sound(SAMPLES, 16000), {}, id="Sound of int16"),
        pytest.param(Sound(SAMPLES, 8000), {"sample_rate": 16000}, id="the rate given counts"),
    ],
)
def test_sound_of_other_forms_is_the_same_sound(given: Any, units: dict[str, Any]) -> None:
    reading = load("audio", given, **units)
    assert reading.doubt is None
    same(reading.raw, Sound(SAMPLES / np.float32(32768), 16000))


def test_8_bit_sound_is_centred() -> None:
    samples = np.array([0, 64, 128, 192, 255], np.uint8)
    same(load("audio", samples, sample_rate=8000).raw.samples, np.array([-1, -0.5, 0, 0.5, 127 / 128], np.float32))


TABLE = np.zeros(400, [("timestamp", "i8"), ("x", "u2"), ("y", "u2"), ("polarity", "?")])
for _name, _column in zip(("x", "y", "timestamp", "polarity"), EVENTS.values(), strict=True):
    TABLE[_name] = _column


def test_units_of_a_file_of_events_are_those_of_its_columns(tmp_path: Any) -> None:
    for unit, times in (("ns", EVENTS["t"] * 1000), ("ms", EVENTS["t"] / 1000), ("s", EVENTS["t"] / 1e6)):
        np.savez(tmp_path / "a.npz", **(EVENTS | {"t": times}))
        same(
            load("event", tmp_path / "a.npz", **SIZE, time_unit=unit).raw,
            load("event", EVENTS | {"t": times}, **SIZE, time_unit=unit).raw,
        )
    same(load("event", tmp_path / "a.npz", **SIZE).raw, load("event", tmp_path / "a.npz", **SIZE, time_unit="s").raw)
    with np.load(tmp_path / "a.npz") as archive:  # a mapping, and its sizes are arrays
        same(load("event", {**archive, "width": np.array([64]), "height": np.array(48)}, time_unit="s").raw.width, 64)


def test_names_of_columns_are_those_of_files(tmp_path: Any) -> None:
    columns = dict(zip(("Xs", "YS", "Time", "on"), EVENTS.values(), strict=True))
    np.savez(tmp_path / "a.npz", **columns)
    same(load("event", columns, **SIZE).raw, load("event", tmp_path / "a.npz", **SIZE).raw)


@pytest.mark.parametrize(
    ("given", "units"),
    [
        (EVENTS | {"width": float("nan"), "height": 48}, {}),
        (EVENTS | SIZE, {"time_unit": ["s"]}),
        (EVENTS | SIZE | {"x": np.where(EVENTS["x"] > 60, np.inf, EVENTS["x"])}, {}),
    ],
)
def test_odd_columns_are_refused(given: Any, units: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        load("event", given, **units)


@pytest.mark.parametrize(
    ("given", "units"),
    [
        pytest.param(EVENTS, SIZE, id="dictionary"),
        pytest.param(EVENTS | SIZE, {}, id="with its size"),
        pytest.param({key: torch.from_numpy(value) for key, value in EVENTS.items()}, SIZE, id="tensors"),
        pytest.param(EVENTS | {"p": EVENTS["p"] * 2 - 1}, SIZE, id="-1 and 1"),
        pytest.param(EVENTS | {"x": EVENTS["x"].astype(np.float32)}, SIZE, id="whole floats"),
        pytest.param(TABLE, SIZE, id="structured"),
        pytest.param(EVENTS | {"t": EVENTS["t"] * 1000}, SIZE | {"time_unit": "ns"}, id="ns"),
        pytest.param(EVENTS | {"t": EVENTS["t"] / 1e6}, SIZE | {"time_unit": "s"}, id="s"),
    ],
)
def test_events_of_other_forms_are_the_same_events(given: Any, units: dict[str, Any]) -> None:
    raw = load("event", given, **units).raw
    expected = modalities.get("event").check(Events(**EVENTS, **SIZE), "expected")
    if units.get("time_unit"):  # counted from the first one
        expected = replace(expected, t=expected.t - expected.t[0])
    same(raw, expected)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(np.c_[POINTS, RNG.uniform(0, 255, 500)], id="with intensity"),
        pytest.param(torch.from_numpy(POINTS.T.copy()), id="columns first"),
        pytest.param(POINTS.astype(np.float64), id="float64"),
        pytest.param(np.rec.fromarrays([*POINTS.T, POINTS[:, 0]], names="x,y,z,intensity"), id="structured"),
        pytest.param(SimpleNamespace(points=POINTS.astype(np.float64)), id="an object of open3d"),
    ],
)
def test_clouds_of_other_forms_are_the_same_cloud(given: Any) -> None:
    raw = load("point_cloud", given).raw
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(raw, POINTS)


def test_a_cloud_of_open3d() -> None:
    open3d = pytest.importorskip("open3d")
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(POINTS.astype(np.float64)))
    np.testing.assert_array_equal(load("point_cloud", cloud).raw, POINTS)


def test_a_cloud_of_a_file_is_that_of_its_array(tmp_path: Any) -> None:
    on_the_map = (POINTS + np.array([450_000.0, 5_400_000.0, 300.0])) * 1000  # mm, beyond 1e9
    for cloud in (on_the_map, on_the_map.T):
        np.save(tmp_path / "a.npy", cloud)
        same(load("point_cloud", tmp_path / "a.npy", scale=0.001).raw, load("point_cloud", cloud, scale=0.001).raw)
    assert np.ptp(load("point_cloud", tmp_path / "a.npy", scale=0.001).raw, axis=0) == pytest.approx(
        np.ptp(POINTS, axis=0), abs=1e-3
    )


def test_a_header_that_claims_more_than_memory_holds_is_refused(tmp_path: Any) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**15, 3)})
    for name in ("point_cloud", "touch", "thermal"):
        with pytest.raises(InvalidInputError, match="got an array of 12000000000000000 bytes in a file of"):
            load(name, tmp_path / "a.npy")


def test_a_damaged_archive_is_refused(tmp_path: Any) -> None:
    np.savez_compressed(tmp_path / "a.npz", points=POINTS)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[200:400] = b"\xff" * 200
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InvalidInputError, match="NumPy cannot read"):
        load("point_cloud", tmp_path / "a.npz")


def test_numbers_in_the_other_byte_order_are_the_same_numbers() -> None:
    same(load("touch", PRESSURE.astype(">u2"), full_scale=4095).raw, load("touch", PRESSURE, full_scale=4095).raw)
    same(load("thermal", PRESSURE.astype(">u2")).raw, PRESSURE)
    sound = load("audio", SAMPLES.astype(">i2"), sample_rate=16000).raw
    same(sound, load("audio", SAMPLES, sample_rate=16000).raw)
    sixteen = PICTURE.astype(np.uint16) * 257
    same(load("image", sixteen.astype(">u2")).raw, load("image", sixteen).raw)


def test_what_is_masked_was_not_measured() -> None:
    mask = np.arange(500)[:, None] % 10 == 0
    cloud = load("point_cloud", np.ma.masked_array(POINTS, np.repeat(mask, 3, axis=1))).raw
    same(cloud, POINTS[~mask[:, 0]])
    celsius = np.linspace(20, 30, 600, dtype=np.float32).reshape(20, 30)
    hot = np.where(celsius < 21, 900, celsius)
    assert load("thermal", np.ma.masked_array(hot, hot == 900)).raw.max() <= 30
    with pytest.raises(InvalidInputError, match="nan"):
        load("image", np.ma.masked_array(PICTURE, PICTURE > 200))


def test_transparent_grey_stays_grey_and_no_unit_is_none() -> None:
    grey = PIL.Image.fromarray(PICTURE[:, :, 0])
    same(load("touch", grey.convert("LA"), full_scale=None).raw, PICTURE[:, :, 0])
    same(load("thermal", grey, scale=None, offset=None).raw, PICTURE[:, :, 0])


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(torch.zeros(4, 5).to_sparse(), id="sparse"),
        pytest.param(torch.zeros(4, 5, device="meta"), id="without data"),
        pytest.param("closed", id="closed"),
    ],
)
def test_arrays_without_numbers_are_refused(given: Any) -> None:
    if given == "closed":
        given = PIL.Image.fromarray(PICTURE)
        given.close()
    with pytest.raises(InvalidInputError, match="that is no array"):
        load("image", given)


@pytest.mark.parametrize("name", ["a" * 5000 + ".png", "~nobody-of-this-name/a.png"])
def test_a_path_that_can_be_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="no such file"):
        load("image", name)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no Unicode"):
        load("text", "a \ud800 dog")


def test_text_out_of_an_array() -> None:
    assert load("text", np.array(["a dog"])[0]).raw == "a dog"


def test_units_say_what_numbers_mean(tmp_path: Any) -> None:
    np.testing.assert_allclose(load("point_cloud", POINTS * 1000, scale=0.001).raw, POINTS, rtol=1e-6)
    expected = (PRESSURE / 4095).astype(np.float32)
    same(load("touch", PRESSURE, full_scale=4095).raw, expected)
    same(load("touch", PRESSURE * (40 / 4095), full_scale=40).raw, expected)  # kPa
    same(load("touch", np.uint8([[0, 5], [10, 1]]), full_scale=10).raw, np.float32([[0, 0.5], [1, 0.1]]))
    np.save(tmp_path / "kpa.npy", PRESSURE * (40 / 4095))
    same(load("touch", tmp_path / "kpa.npy", full_scale=40).raw, expected)
    cv2.imwrite(str(tmp_path / "twelve_bits.png"), PRESSURE)
    same(load("touch", tmp_path / "twelve_bits.png", full_scale=4095).raw, expected)
    np.testing.assert_allclose(load("touch", PRESSURE, scale=255 / 4095).raw, expected, rtol=1e-6)
    below = load("touch", PRESSURE, scale=255 / 4095, offset=-255).raw  # what leaves the range is cut, as by the node
    assert below.dtype == np.float32 and (below == 0).all()
    counts = np.array([[29315, 30315], [29815, 31015]], np.uint16)  # hundredths of a kelvin
    np.testing.assert_allclose(load("thermal", counts, scale=0.01, offset=-273.15).raw, [[20, 30], [25, 37]], atol=1e-4)
    np.save(tmp_path / "counts.npy", counts)
    same(
        load("thermal", tmp_path / "counts.npy", scale=0.01, offset=-273.15).raw,
        load("thermal", counts, scale=0.01, offset=-273.15).raw,
    )
    with pytest.raises(InvalidInputError, match=r"twelve_bits\.png\] got uint16 up to 40\d\d of unknown full scale"):
        load("touch", tmp_path / "twelve_bits.png")


@pytest.mark.parametrize(
    ("name", "given", "units", "message"),
    [
        ("image", PICTURE * 1.0, {}, "float64 values from 0 to 255, expected uint8, float on 0..1"),
        ("image", PICTURE / 127.5 - 1, {}, "float64 values from -1 to 1, expected uint8, float on 0..1"),
        ("image", PICTURE[None], {}, r"shape \[1, 20, 30, 3\], expected a picture uint8 \[H, W\]"),
        ("image", PICTURE.astype(np.int16) - 1, {}, "int16 values from -1 to 254"),
        ("image", np.where(PRESSURE < 400, 0, 900 + PRESSURE), {}, "looks like distances in mm, expected a picture of"),
        ("image", object(), {}, "object, expected"),
        ("image", [[1, 2], [3]], {}, "list that is no array"),
        ("touch", PRESSURE, {}, r"uint16 up to 40\d\d of unknown full scale, expected pressure on 0..1, or full"),
        ("touch", PRESSURE * 1.0, {}, r"float64 up to 40\d\d of unknown full scale, expected pressure on"),
        ("touch", PRESSURE, {"full_scale": 1023}, r"values up to 40\d\d, expected at most full_scale=1023"),
        ("touch", PRESSURE, {"full_scale": -1}, "full_scale=-1, expected a number above 0"),
        ("touch", PRESSURE, {"full_scale": 255, "scale": 2}, "full_scale and scale, expected one of them"),
        ("thermal", PRESSURE, {"scale": 0}, "scale=0, expected a number other than 0"),
        ("thermal", PRESSURE, {"offset": "K"}, "offset='K', expected a number"),
        ("thermal", PICTURE, {"scale": 2}, "a picture in colours, expected a picture with one value a pixel"),
        ("touch", PICTURE, {"full_scale": 255}, "a picture in colours, expected a picture with one value a pixel"),
        ("audio", SAMPLES, {}, r"ndarray without a sample rate, expected a sound file, or an array with sample_rate="),
        ("audio", SAMPLES * 1.0, {"sample_rate": 16000}, "samples that reach 16"),
        ("audio", SAMPLES.astype(np.int32), {"sample_rate": 16000}, r"int32 samples up to 16\d+, of 16, 24 or 32 bits"),
        ("audio", SAMPLES.astype(np.int64), {"sample_rate": 16000}, "dtype int64, expected float32 or int16"),
        ("audio", SAMPLES, {"sample_rate": 44.1}, "sample rate 44.1, expected whole Hz from 1000"),
        ("event", EVENTS, {}, r"without the size of their sensor, expected width= and height="),
        ("event", EVENTS, {"width": 32, "height": 48}, "x from 0 to 63, expected 0 to 31"),
        ("event", EVENTS | {"t": EVENTS["t"] * 1e-6}, SIZE, "stamps as float64, expected integers in µs, or time_"),
        ("event", EVENTS, SIZE | {"time_unit": "h"}, "time_unit='h', expected s, ms, us, ns"),
        ("event", np.stack([*EVENTS.values()], axis=1), SIZE, r"int64 \[400, 4\] without names of columns, expected"),
        ("event", {"x": [1], "y": [1]}, SIZE, "columns x, y, expected Events, or a dictionary"),
        ("event", EVENTS | {"x": EVENTS["x"] / 64}, SIZE, "x as float64 .400., expected integers"),
        ("point_cloud", POINTS[:, :2], {}, r"shape \[500, 2\], expected float32 \[N, 3\]"),
        ("point_cloud", POINTS[None], {}, r"shape \[1, 500, 3\], expected float32 \[N, 3\]"),
        ("thermal", PICTURE[:, :, :2], {}, r"shape \[20, 30, 2\], expected"),
        ("text", 3.5, {}, r"float, expected a text"),
        ("text", " ", {}, "an empty text"),
    ],
)  # fmt: skip
def test_the_rest_is_refused_in_one_sentence(name: str, given: Any, units: dict[str, Any], message: str) -> None:
    if isinstance(given, np.ndarray) and name == "image" and given.ndim == 2:
        given = given.astype(np.uint16)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load(name, given, source="mine", **units)
    assert str(caught.value).startswith("[mine] got ") and "\n" not in str(caught.value)


def test_wrong_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"audio has no unit 'fps'; it has sample_rate"):
        load("audio", SAMPLES, fps=16000)
    with pytest.raises(ConfigError, match=r"image has no unit 'scale'; it has none"):
        load("image", PICTURE, scale=2)
    with pytest.raises(ConfigError, match=r"unknown modality 'smell'"):
        load("smell", PICTURE)


def test_doubts_come_with_the_reading(tmp_path: Any) -> None:
    silence = load("audio", np.zeros(16000, np.int16), sample_rate=16000).doubt
    assert silence is not None and silence.empty and silence.excludes
    black = load("image", np.zeros((20, 30, 3), np.uint8)).doubt
    assert black is not None and "a black picture" in black.reason
    depth = np.where(PRESSURE < 400, 0, 900 + PRESSURE).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "depth.png"), depth)
    of_file = load("image", str(tmp_path / "depth.png"))
    assert of_file.source == str(tmp_path / "depth.png")
    assert of_file.doubt is not None and "distances in mm" in of_file.doubt.reason


def test_text_is_a_sentence_or_a_file(tmp_path: Any) -> None:
    assert load("text", "a_red  cup").raw == "a red cup"
    (tmp_path / "a.txt").write_text("a dog")
    assert load("text", tmp_path / "a.txt").raw == "a dog"
    with pytest.raises(InvalidInputError, match="no such file"):
        load("image", "missing.png")


@pytest.mark.parametrize("name", modalities.NAMES)
def test_what_was_checked_passes_again_unchanged(name: str) -> None:
    given = {
        "image": PICTURE,
        "text": "a_red cup ",
        "touch": PRESSURE,
        "thermal": PRESSURE.astype(np.float64),
        "event": Events(EVENTS["x"], EVENTS["y"], EVENTS["t"], EVENTS["p"] * 2 - 1, **SIZE),
        "point_cloud": np.c_[POINTS, POINTS],
        "audio": Sound(np.stack([SAMPLES, SAMPLES], axis=1), 16000),
    }[name]
    once = modalities.get(name).check(given, "once")
    same(modalities.get(name).check(once, "twice"), once)


def test_importing_the_loader_imports_no_torch() -> None:
    import subprocess

    code = "import sys, omnibind_core; omnibind_core.load('text', 'a dog'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
