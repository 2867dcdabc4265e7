"""What a picture's header claims is known, and bounded, before anything is decoded."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import pictures, pillow_pictures
from omnibind_core.modalities.picture_sizes import DENSEST, MOST_PIXELS, MOST_SCANNED, check_size, size_of
from omnibind_ros.messages import DecodeOptions, decode

SUFFIXES = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".gif", ".jp2", ".avif")


def encoded(suffix: str, width: int = 37, height: int = 23) -> bytes:
    picture = Image.fromarray(np.full((height, width, 3), 90, np.uint8))
    buffer = io.BytesIO()
    picture.convert("L" if suffix == ".pgm" else "RGB").save(buffer, Image.registered_extensions()[suffix])
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def claims() -> dict[str, bytes]:
    """Pictures of a few bytes that claim 30,000 x 30,000 pixels and more."""
    side = 30_000
    jpeg = bytearray(encoded(".jpg"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", side, side)
    ifd = struct.pack("<H", 2) + struct.pack("<HHII", 256, 4, 1, side) + struct.pack("<HHII", 257, 4, 1, side)
    tiled = ifd[:-12] + struct.pack("<HHII", 257, 4, 1, 4) + struct.pack("<HHII", 323, 9, 1, 1 << 20)
    return {
        "jpeg": bytes(jpeg),
        "png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        "gif": b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;",
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, side, -side, 1, 24, 0, 0, 0, 0, 0, 0),
        "webp": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + 2 * (side - 1).to_bytes(3, "little"),
        "tiff": b"II*\0\x08\0\0\0" + ifd + bytes(4),
        "tiff of large tiles": b"II*\0\x08\0\0\0" + b"\x03" + tiled[1:] + bytes(4),
        "ppm": b"P6 # made up\n30000\n30000 255\n\0\0\0",
        "jp2": b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 47, 0, side, side, 0, 0),
        "avif": b"\0\0\0\x14ftypavif\0\0\0\0avif" + b"\0\0\0\x14ispe" + struct.pack(">III", 0, side, side),
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_size_is_that_of_the_decoded_picture(suffix: str) -> None:
    assert size_of(encoded(suffix)) == (37, 23)


def test_sizes_of_webp_without_loss_bmp_of_os2_and_bigtiff() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (37, 23), (1, 2, 3, 4)).save(buffer, "WEBP", lossless=True)
    assert size_of(buffer.getvalue()) == (37, 23)
    assert size_of(b"BM" + struct.pack("<IIIIHH", 26, 0, 26, 12, 37, 23)) == (37, 23)
    sides = b"".join(struct.pack(">HHQHHI", tag, 3, 1, side, 0, 0) for tag, side in ((256, 37), (257, 23)))
    assert size_of(b"MM\0+\0\x08\0\0" + struct.pack(">QQ", 16, 2) + sides) == (37, 23)


def test_what_is_embedded_in_a_jpeg_is_not_its_size() -> None:
    jpeg = encoded(".jpg")
    thumbnail = encoded(".jpg", 16, 8)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    assert size_of(jpeg[:2] + segment + jpeg[2:]) == (37, 23)
    assert check_size(jpeg + b"\xff\xda" * MOST_PIXELS.bit_length() * 100_000, "camera")  # a film after the photo


@pytest.mark.parametrize("kind", claims())
def test_a_claim_beyond_the_bound_is_refused_before_anything_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    monkeypatch.setattr(pillow_pictures, "_pixels", never)
    monkeypatch.setattr(pictures, "_jpeg_is_complete", lambda data: True)
    data = np.frombuffer(claims()[kind], np.uint8)
    message = SimpleNamespace(format="bgr8; png compressed", data=data)
    tracemalloc.start()
    try:
        for attempt in (
            lambda: pictures.decode_picture(data, "camera"),
            lambda: pictures.decode_picture(data, "camera", pictures.AS_STORED),
            lambda: decode("sensor_msgs/msg/CompressedImage", message, "image", DecodeOptions(), "camera"),
        ):
            with pytest.raises(InvalidInputError, match=rf"\d+ x \d+ pixels, expected at most {MOST_PIXELS} pixels"):
                attempt()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_large_picture_in_a_few_bytes_is_refused() -> None:
    side = 4096
    fits = encoded(".webp", side, side)
    assert len(fits) < 50_000 and check_size(fits, "camera")
    for suffix in (".webp", ".png"):
        with pytest.raises(InvalidInputError, match=f"{side + 1} x {side} pixels in .* bytes, .* {DENSEST} in a byte"):
            check_size(encoded(suffix, side + 1, side), "camera")
    data = encoded(".png", side + 1, side)
    assert check_size(data + bytes(side * (side + 1) // DENSEST), "camera")
    assert check_size(encoded(".jpg", side + 1, side), "camera")  # of a covered lens


def test_transparent_pictures_stand_on_white() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16):
        white = np.iinfo(dtype).max
        picture = rng.integers(0, white, (150, 20, 4), dtype, endpoint=True)
        picture[:70, :, 3] = 0
        share = picture[:, :, 3:].astype(np.float64) / white
        expected = np.rint(picture[:, :, :3] * share + white * (1 - share))
        assert (pictures.on_white(picture) == expected).all()


def test_a_jpeg_of_many_scans_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4096, 2048)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    assert check_size(data, "camera")
    at, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    with pytest.raises(InvalidInputError, match=rf"scans, expected at most {MOST_SCANNED} pixels"):
        check_size(data[:end] + 60 * data[at:end] + data[end:], "camera")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_header_is_no_size(suffix: str) -> None:
    data = encoded(suffix)
    for length in range(0, 30):
        assert size_of(data[:length]) in (None, (37, 23))
