"""Image, touch, thermal and text: fitting, decoding, value ranges, bad input."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities import PicturePreset
from omnibind_core.modalities.pictures import decode_picture, fit_picture, to_grey
from omnibind_core.modalities.thermal.modality import MAX_INVALID
from omnibind_core.modalities.thermal.processing import stretch_contrast
from omnibind_core.modalities.touch.processing import subtract_reference

IMAGE, TOUCH, THERMAL, TEXT = (modalities.get(name) for name in ("image", "touch", "thermal", "text"))
SMALL = PicturePreset("small", shape=(3, 8, 8), resize=8)


def test_crop_takes_the_middle() -> None:
    picture = np.zeros((8, 24, 3), np.uint8)
    picture[:, 8:16] = (10, 20, 30)
    assert (fit_picture(picture, SMALL) == np.array([10, 20, 30])[:, None, None]).all()
    # short side 16, crop 8: the middle half
    picture = np.arange(16, dtype=np.uint8).repeat(16).reshape(16, 16)
    fitted = fit_picture(picture, replace(SMALL, resize=16))
    assert fitted.shape == (1, 3, 8, 8)
    assert fitted[0, 1].tolist() == picture[4:12, 4:12].tolist()


def test_letterbox_keeps_the_whole_picture_and_its_aspect() -> None:
    fitted = fit_picture(np.full((10, 40, 3), 200, np.uint8), replace(SMALL, fit="letterbox"))[0]
    assert (fitted[:, 3:5] == 200).all() and not fitted[:, :3].any() and not fitted[:, 5:].any()


def test_stretch_keeps_the_whole_picture() -> None:
    picture = np.zeros((4, 16), np.uint8)
    picture[:, 8:] = 100
    fitted = fit_picture(picture, replace(SMALL, fit="stretch", interpolation="bilinear"))[0, 0]
    assert (fitted[:, :4] == 0).all() and (fitted[:, 4:] == 100).all()


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 20000), (20000, 1, 3), (2, 3), (300, 200)])
def test_any_shape_fits(fit: str, shape: tuple[int, ...]) -> None:
    fitted = fit_picture(np.full(shape, 7, np.uint8), PicturePreset("p", fit=fit))
    assert fitted.shape == (1, 3, 224, 224) and fitted.flags.c_contiguous and (fitted == 7).any()


def test_shrinking_averages() -> None:
    board = (np.indices((448, 448)).sum(axis=0) % 2 * 255).astype(np.uint8)
    fitted = fit_picture(board, PicturePreset("p", resize=224))
    assert abs(int(fitted.min()) - 127) <= 1 and abs(int(fitted.max()) - 127) <= 1


def test_one_channel_is_luminance() -> None:
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[:] = (255, 0, 0)
    assert (fit_picture(colour, replace(SMALL, shape=(1, 8, 8))) == 76).all()  # 0.299 * 255
    assert to_grey(colour[:, :, 0]).shape == (8, 8)


def test_unknown_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="'small': fit is 'squeeze'"):
        fit_picture(np.zeros((9, 9), np.uint8), replace(SMALL, fit="squeeze"))


def encoded(picture: np.ndarray, suffix: str) -> np.ndarray:
    return cv2.imencode(suffix, picture)[1]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"])
def test_image_files_are_rgb(suffix: str, tmp_path: Path) -> None:
    bgr = np.zeros((40, 60, 3), np.uint8)
    bgr[:, :, 2] = 250  # red
    path = tmp_path / f"Bild ü{suffix.upper()}"
    encoded(bgr, suffix).tofile(path)
    picture = IMAGE.load(path)
    assert picture.shape == (40, 60, 3)
    assert picture.reshape(-1, 3).mean(axis=0) == pytest.approx([250, 0, 0], abs=6)


def test_exif_orientation_is_applied() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    jpeg = encoded(picture, ".jpg").tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: turned by a quarter
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(tiff)) + b"Exif\0\0" + tiff
    turned = decode_picture(np.frombuffer(jpeg[:2] + exif + jpeg[2:], np.uint8), "phone")
    assert turned.shape == (60, 40, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_pictures_are_refused(suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    data = encoded(noise, suffix)
    assert decode_picture(data, "camera").shape == (60, 80, 3)
    with pytest.raises(InvalidInputError, match=r"\[camera\] got"):
        decode_picture(data[: int(len(data) * share)], "camera")


def test_jpeg_with_trailing_bytes_is_read() -> None:
    data = encoded(np.zeros((16, 16, 3), np.uint8), ".jpg").tobytes() + bytes(100) + b"\xff\xda video"
    assert decode_picture(np.frombuffer(data, np.uint8), "camera").shape == (16, 16, 3)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3), (5, 6, 4)])
def test_image_check_makes_rgb(shape: tuple[int, ...]) -> None:
    raw = np.full(shape, 9, np.uint8)
    checked = IMAGE.check(raw, "camera")
    assert checked.shape == (5, 6, 3) and (checked == 9).all()
    if shape[-1] == 3:
        assert checked.base is raw  # no copy


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), r"empty picture of shape \[0, 5, 3\]"),
        (np.zeros((5, 0), np.uint8), r"empty picture of shape \[5, 0\]"),
        (np.zeros((5, 5, 2), np.uint8), r"shape \[5, 5, 2\]"),
        (np.zeros(5, np.uint8), r"shape \[5\]"),
        (np.zeros((2, 5, 5, 3), np.uint8), r"shape \[2, 5, 5, 3\]"),
        (np.zeros((5, 5, 3), np.float32), "dtype float32"),
        (np.zeros((5, 5, 3), np.uint16), "dtype uint16"),
        (np.zeros((5, 5, 3), bool), "dtype bool"),
    ],
)
def test_bad_images_are_refused(raw: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"\[camera\] got.*{message}.*expected a picture uint8"):
        IMAGE.check(raw, "camera")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((5, 5, 3), np.float32), "dtype float32"),
        (np.zeros((5, 5), np.int16), "dtype int16"),
        (np.zeros((5, 5), np.uint32), "dtype uint32"),
        (np.full((5, 5), np.nan, np.float32), "not finite"),
        (np.array([[0, np.inf]], np.float32), "not finite"),
        (np.array([[0, 300]], np.float32), "pressure 0 to 300"),
        (np.array([[-0.5, 1]], np.float32), "pressure -0.5 to 1"),
        (np.zeros((0, 5), np.float32), "empty picture"),
    ],
)
def test_bad_touch_is_refused(raw: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"\[finger\] got.*{message}"):
        TOUCH.check(raw, "finger")


def test_touch_scales() -> None:
    pressure = np.array([[-0.05, 0, 0.5, 1.05]], np.float64)
    preset = replace(TOUCH.preset(), shape=(3, 1, 4), fit="stretch")
    assert TOUCH.process(TOUCH.check(pressure, "f"), preset)[0, 0].tolist() == [[0, 0, 128, 255]]
    counts = np.array([[0, 65535]], np.uint16)
    assert TOUCH.check(counts, "f").tolist() == [[0, 1]]


def test_touch_reference(rng: np.random.Generator) -> None:
    reference = rng.integers(0, 256, (6, 8, 3), np.uint8)
    assert (subtract_reference(reference, reference) == 128).all()
    white, black = np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)
    assert (subtract_reference(white, black) == 255).all() and (subtract_reference(black, white) == 0).all()
    grey = subtract_reference(np.array([[10, 90]], np.uint8), np.array([[30, 30]], np.uint8))
    assert grey.tolist() == [[0, 60]]  # pressure beyond that of no contact
    with pytest.raises(InvalidInputError, match=r"\[2, 2, 3\].*\[6, 8, 3\]"):
        subtract_reference(reference, white)


def test_thermal_contrast_does_not_depend_on_unit_or_dead_pixels(rng: np.random.Generator) -> None:
    celsius = rng.normal(25, 2, (60, 80)).astype(np.float32)
    counts = np.round((celsius + 273.15) * 100).astype(np.uint16)
    stretched = stretch_contrast(celsius)
    assert np.abs(stretched.astype(int) - stretch_contrast(counts)).max() <= 1
    assert stretched.min() == 0 and stretched.max() == 255
    dead = celsius.copy()
    dead[3, 4] = 10000
    assert np.abs(stretched.astype(int) - stretch_contrast(dead))[dead == celsius].max() <= 2


def test_thermal_contrast_of_extremes() -> None:
    assert not stretch_contrast(np.full((9, 9), 21.5, np.float32)).any()
    spot = np.zeros((100, 100), np.uint16)
    spot[50, 50] = 7
    assert stretch_contrast(spot)[50, 50] == 255


def test_thermal_presets() -> None:
    grey = np.full((10, 10), 51, np.uint8)
    assert THERMAL.process(grey, THERMAL.preset("imagebind")) == pytest.approx(np.full((1, 1, 224, 224), 0.2))
    assert THERMAL.process(grey, THERMAL.preset("unibind")) == pytest.approx(np.full((1, 1, 224, 224), -0.6))


def test_thermal_check_fills_invalid_pixels() -> None:
    raw = np.arange(16, dtype=np.float32).reshape(4, 4)
    raw[0, :3] = (np.nan, -np.inf, np.inf)
    checked = THERMAL.check(raw, "thermal")
    assert checked[0].tolist() == [3, 3, 15, 3] and np.isnan(raw[0, 0])
    raw[1:3] = np.nan
    with pytest.raises(InvalidInputError, match=rf"\[thermal\] got 69% of the pixels.*at most {MAX_INVALID:.0%}"):
        THERMAL.check(raw, "thermal")
    with pytest.raises(InvalidInputError, match="100% of the pixels"):
        THERMAL.check(np.full((3, 3), np.nan, np.float32), "thermal")


def test_thermal_check_forms() -> None:
    for dtype in (np.uint8, np.uint16, np.float32):
        assert THERMAL.check(np.zeros((4, 4), dtype), "t").dtype == dtype
    for other in (np.int16, np.float64, np.float16):
        assert THERMAL.check(np.zeros((4, 4), other), "t").dtype == np.float32
    assert THERMAL.check(np.zeros((4, 4, 3), np.uint8), "t").shape == (4, 4)  # grey stored as colour
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[0, 0] = (1, 2, 3)
    assert THERMAL.check(colour, "t").shape == (4, 4, 3)
    with pytest.raises(InvalidInputError, match="dtype float32 of shape"):
        THERMAL.check(np.zeros((4, 4, 3), np.float32), "t")


@pytest.mark.parametrize(("suffix", "dtype"), [(".png", np.uint8), (".png", np.uint16), (".tiff", np.float32)])
def test_thermal_files_keep_their_values(suffix: str, dtype: Any, tmp_path: Path) -> None:
    raw = np.arange(12, dtype=dtype).reshape(3, 4) * 5
    path = tmp_path / f"t{suffix}"
    encoded(raw, suffix).tofile(path)
    assert np.array_equal(THERMAL.load(path), raw) and THERMAL.load(path).dtype == dtype
    np.save(tmp_path / "t.npy", raw)
    assert np.array_equal(THERMAL.load(tmp_path / "t.npy"), raw)


def test_text(tmp_path: Path) -> None:
    assert TEXT.check("  coffee_mug \n on\ta  table ", "t") == "coffee mug on a table"
    assert TEXT.process("a_dog", TEXT.preset()).tolist() == ["a dog"]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9\n")
    assert TEXT.load(tmp_path / "a.txt") == "café"
    for empty in ("", " \n", "_"):
        with pytest.raises(InvalidInputError, match=r"\[t\] got an empty text"):
            TEXT.check(empty, "t")
