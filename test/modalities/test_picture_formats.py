"""Pictures in the formats that people have, as Pillow, pillow-heif and tifffile write them."""

from __future__ import annotations

import io
import logging
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError, MissingDependencyError
from omnibind_core.modalities.picture_sizes import MOST_PIXELS
from omnibind_core.modalities.pictures import decode_picture, exif_orientation, on_white, upright

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("pillow_heif").register_heif_opener()

IMAGE, THERMAL, TOUCH = (modalities.get(name) for name in ("image", "thermal", "touch"))
RED, GREEN, BLUE = (200, 30, 10), (10, 180, 40), (20, 40, 220)
WHITE = (255, 255, 255)
ORIENTATION = 0x0112


def photo() -> np.ndarray:
    """RGB: red above, green and blue below."""
    pixels = np.empty((40, 60, 3), np.uint8)
    pixels[:20], pixels[20:, :30], pixels[20:, 30:] = RED, GREEN, BLUE
    return pixels


def cutout() -> np.ndarray:
    """RGBA: the photo in the middle, around it nothing, which is black."""
    alpha = np.zeros((40, 60, 1), np.uint8)
    alpha[10:30, 10:50] = 255
    return np.dstack([photo() * (alpha > 0), alpha])


def exif(orientation: int) -> bytes:
    tags = Pillow.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def near(pixel: np.ndarray, colour: Any, most: int) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= most)


def looks(picture: np.ndarray, *corners: Any) -> None:
    """The picture has these colours at a quarter from its corners: left above, right above, left and right below."""
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    height, width = picture.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4 - 1) for x in (width // 4, 3 * width // 4)]
    for place, colour in zip(places, corners, strict=True):
        assert near(picture[place], colour, 10), place


@pytest.mark.parametrize(
    "name", ["a.gif", "a.tif", "a.TIFF", "a.avif", "a.heic", "a.heif", "a.jp2", "a.j2k", "a.jfif", "a.webp", "a.pnm"]
)
def test_every_format_is_read(name: str, tmp_path: Path) -> None:
    kinds = {".heic": "HEIF", ".j2k": "JPEG2000", ".jfif": "JPEG", ".pnm": "PPM"}
    Pillow.fromarray(photo()).save(tmp_path / name, kinds.get(Path(name).suffix))
    looks(IMAGE.load(tmp_path / name), RED, RED, GREEN, BLUE)


def test_the_bytes_tell_the_format_not_the_ending(tmp_path: Path) -> None:
    Pillow.fromarray(photo()).save(tmp_path / "phone.jpg", "HEIF")
    looks(IMAGE.load(tmp_path / "phone.jpg"), RED, RED, GREEN, BLUE)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(compression: str | None, tmp_path: Path) -> None:
    Pillow.fromarray(photo()).save(tmp_path / "a.tif", compression=compression)
    looks(IMAGE.load(tmp_path / "a.tif"), RED, RED, GREEN, BLUE)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_print_colours(name: str, tmp_path: Path) -> None:
    Pillow.fromarray(photo()).convert("CMYK").save(tmp_path / name)
    looks(IMAGE.load(tmp_path / name), RED, RED, GREEN, BLUE)


def test_tiff_of_16_bits(tmp_path: Path) -> None:
    wide = photo().astype(np.uint16) * 257
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, wide, photometric="rgb")
    looks(IMAGE.load(path), RED, RED, GREEN, BLUE)
    tifffile.imwrite(path, wide[:, :, 0], photometric="minisblack")
    looks(IMAGE.load(path), (200,) * 3, (200,) * 3, (10,) * 3, (20,) * 3)
    tifffile.imwrite(path, wide >> 4, photometric="rgb")  # a camera of 12 bits
    looks(IMAGE.load(path), RED, RED, GREEN, BLUE)
    cmyk = np.asarray(Pillow.fromarray(photo()).convert("CMYK")).astype(np.uint16) * 257
    tifffile.imwrite(path, cmyk, photometric="separated")
    looks(IMAGE.load(path), RED, RED, GREEN, BLUE)
    tifffile.imwrite(path, photo().astype(np.float32), photometric="rgb")
    with pytest.raises(InvalidInputError, match="got dtype float32"):
        IMAGE.load(path)


def test_black_and_white(tmp_path: Path) -> None:
    drawing = Pillow.fromarray(np.arange(60)[None].repeat(40, 0) < 30)
    for name in ("a.png", "a.tif", "a.bmp", "a.gif"):
        drawing.save(tmp_path / name)
        looks(IMAGE.load(tmp_path / name), *[(255,) * 3, (0,) * 3] * 2)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.heic", "a.png", "a.webp"])
def test_the_first_of_several_is_used_and_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Pillow.fromarray(photo()), Pillow.fromarray(255 - photo())
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with caplog.at_level(logging.INFO):
        looks(IMAGE.load(tmp_path / name), RED, RED, GREEN, BLUE)
    many = "several" if name in ("a.png", "a.webp") else "2"
    assert f"{name}] the first of {many} pictures" in caplog.text


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_each_value_on_white_is_rounded_rightly(dtype: Any) -> None:
    most = np.iinfo(dtype).max
    levels = np.linspace(0, most, 256).round()
    value, alpha = np.meshgrid(levels, levels)
    picture = np.dstack([value, value, most - value, alpha]).astype(dtype)
    expected = most + (picture[:, :, :3].astype(np.float64) - most) * (alpha[:, :, None] / most)
    assert np.abs(on_white(picture) - expected).max() < 0.51  # a float beside half a step


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.gif", "a.avif", "a.heic", "a.jp2"])
def test_transparent_pictures_stand_on_white(name: str, tmp_path: Path) -> None:
    Pillow.fromarray(cutout()).save(tmp_path / name)
    picture = IMAGE.load(tmp_path / name)
    assert near(picture[3, 3], WHITE, 3) and near(picture[25, 20], GREEN, 8)


def test_every_kind_of_transparency(tmp_path: Path) -> None:
    drawing = Pillow.fromarray(cutout())
    grey = drawing.convert("LA")
    middle = int(np.asarray(grey)[25, 20, 0])
    for name in ("grey.png", "grey.tif"):
        grey.save(tmp_path / name)
        picture = IMAGE.load(tmp_path / name)
        assert (picture[3, 3] == 255).all() and (picture[25, 20] == middle).all()
    drawing.quantize(8).save(tmp_path / "palette.png")
    deep = cutout().astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    # Pillow writes no RGBA PNG of 16 bits.
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "deep.png").write_bytes(png(rows, depth=16, colour=6))
    header = struct.pack("<IiiHHIIiiII", 108, 60, 40, 1, 32, 3, 9600, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    rows = cutout()[::-1, :, [2, 1, 0, 3]].tobytes()
    (tmp_path / "v4.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 9722, 0, 0, 122) + header + masks + rows)
    for name in ("palette.png", "deep.tif", "deep.png", "v4.bmp"):
        picture = IMAGE.load(tmp_path / name)
        assert near(picture[3, 3], WHITE, 0) and near(picture[25, 20], GREEN, 2), name


def png(rows: bytes, depth: int, colour: int) -> bytes:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 60, 40, depth, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    packed = [(kind + body, len(body)) for kind, body in (*chunks, (b"IEND", b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", n) + c + struct.pack(">I", zlib.crc32(c)) for c, n in packed
    )


def test_half_transparent_is_mixed_with_white() -> None:
    pixels = cutout()
    pixels[10:30, 10:50, 3] = 51  # a fifth
    for raw in (IMAGE.check(pixels, "array"), decode_picture(np.frombuffer(as_png(pixels), np.uint8), "file")):
        assert raw[25, 20].tolist() == [round(255 - (255 - value) / 5) for value in GREEN]
        assert raw[3, 3].tolist() == [255] * 3


def as_png(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_measured_pictures_keep_their_values_under_transparency(tmp_path: Path) -> None:
    grey = Pillow.fromarray(cutout()).convert("LA")
    grey.save(tmp_path / "a.png")
    for modality in (THERMAL, TOUCH):
        picture = modality.load(tmp_path / "a.png")
        picture = picture if picture.ndim == 2 else picture[:, :, 0]
        assert np.array_equal(picture, np.asarray(grey)[:, :, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_turns_it(orientation: int, tmp_path: Path) -> None:
    for name in ("a.png", "a.webp", "a.avif", "a.heic", "a.tif"):
        Pillow.fromarray(photo()).save(tmp_path / name, exif=exif(orientation))
        with Pillow.open(tmp_path / name) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        assert np.abs(IMAGE.load(tmp_path / name).astype(int) - expected).max() < 12, name
    data = as_png(cutout(), exif=exif(orientation))  # transparent, so turned by ourselves
    with Pillow.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert exif_orientation(data) == orientation
    assert np.array_equal(upright(cutout(), orientation), expected)
    assert decode_picture(np.frombuffer(data, np.uint8), "file").shape == (*expected.shape[:2], 3)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "AVIF", "HEIF", "JPEG2000"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Pillow.fromarray(noise).save(buffer, kind)
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    assert decode_picture(data, "file").shape == (60, 80, 3)
    with pytest.raises(InvalidInputError, match=rf"\[file\] got .*{kind}"):
        decode_picture(data[: int(share * data.size)], "file")


def test_declared_sizes_are_checked_before_decoding() -> None:
    huge = (
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    )
    with pytest.raises(InvalidInputError, match=f"65535 x 65535 pixels, expected at most {MOST_PIXELS} pixels"):
        decode_picture(np.frombuffer(huge + b"\x08" + bytes(60), np.uint8), "bomb")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Pillow.fromarray(photo()).save(tmp_path / "a.gif")
    Pillow.fromarray(cutout()).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingDependencyError, match=r"a\.gif.*pip install pillow"):
        IMAGE.load(tmp_path / "a.gif")
    assert (IMAGE.load(tmp_path / "a.png")[3, 3] == 255).all()  # OpenCV is enough for it


def test_distances_in_a_tiff_are_no_light(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(900, 4000, (40, 60)).astype(np.uint16)
    depth[:, :10] = 0
    tifffile.imwrite(tmp_path / "a.tif", depth)
    assert "distances in mm" in str(modalities.file_doubt("image", tmp_path / "a.tif"))
    Pillow.fromarray(photo()).save(tmp_path / "b.tif")
    assert modalities.file_doubt("image", tmp_path / "b.tif") is None
