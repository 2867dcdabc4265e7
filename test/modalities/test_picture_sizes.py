"""What a picture's header claims is known, and bounded, before anything is decoded."""

from __future__ import annotations

import io
import struct
import time
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
from omnibind_core.modalities.picture_sizes import (
    FREE_BYTES,
    MOST_BYTES,
    MOST_PIXELS,
    MOST_RATIO,
    MOST_SCANNED,
    Claim,
    check_claim,
    check_size,
    is_cut_jpeg,
    size_of,
)
from omnibind_ros.messages import DecodeOptions, decode

SUFFIXES = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".gif", ".jp2", ".avif")


def encoded(suffix: str, width: int = 37, height: int = 23) -> bytes:
    picture = Image.fromarray(np.full((height, width, 3), 90, np.uint8))
    buffer = io.BytesIO()
    picture.convert("L" if suffix == ".pgm" else "RGB").save(buffer, Image.registered_extensions()[suffix])
    return buffer.getvalue()


def side_of(data: bytes) -> tuple[int, int] | None:
    claim = size_of(data)
    return claim and (claim.width, claim.height)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def sized(side: int) -> bytes:
    """The box of an AVIF that says how large it is."""
    return box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", box(b"ispe", struct.pack(">III", 0, side, side)))))


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
        "jp2": b"\xff\x4f\xff\x51"
        + struct.pack(">HHIIII", 47, 0, side, side, 0, 0)
        + struct.pack(">IIIIHB", side, side, 0, 0, 3, 7),
        "avif": b"\0\0\0\x14ftypavif\0\0\0\0avif" + sized(side),
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_size_is_that_of_the_decoded_picture(suffix: str) -> None:
    assert side_of(encoded(suffix)) == (37, 23)


def test_sizes_of_webp_without_loss_bmp_of_os2_and_bigtiff() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (37, 23), (1, 2, 3, 4)).save(buffer, "WEBP", lossless=True)
    assert side_of(buffer.getvalue()) == (37, 23)
    assert side_of(b"BM" + struct.pack("<IIIIHH", 26, 0, 26, 12, 37, 23)) == (37, 23)
    sides = b"".join(struct.pack(">HHQHHI", tag, 3, 1, side, 0, 0) for tag, side in ((256, 37), (257, 23)))
    assert side_of(b"MM\0+\0\x08\0\0" + struct.pack(">QQ", 16, 2) + sides) == (37, 23)


def test_what_is_embedded_in_a_jpeg_is_not_its_size() -> None:
    jpeg = encoded(".jpg")
    thumbnail = encoded(".jpg", 16, 8)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    assert side_of(jpeg[:2] + segment + jpeg[2:]) == (37, 23)
    assert check_size(jpeg + b"\xff\xda" * MOST_PIXELS.bit_length() * 100_000, "camera")  # a film after the photo


@pytest.mark.parametrize("kind", claims())
def test_a_claim_beyond_the_bound_is_refused_before_anything_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    monkeypatch.setattr(pillow_pictures, "_pixels", never)
    whole = claims()[kind]
    data = np.frombuffer(whole, np.uint8)
    message = SimpleNamespace(format="bgr8; png compressed", data=data)
    with pytest.raises(InvalidInputError):
        decode("sensor_msgs/msg/CompressedImage", message, "image", DecodeOptions(), "camera")  # imports all it needs
    with pytest.raises(InvalidInputError):
        pictures.decode_picture(data, "camera")
    tracemalloc.start()
    try:
        for attempt in (
            lambda: pictures.decode_picture(data, "camera"),
            lambda: pictures.decode_picture(data, "camera", pictures.AS_STORED),
            lambda: decode("sensor_msgs/msg/CompressedImage", message, "image", DecodeOptions(), "camera"),
        ):
            with pytest.raises(InvalidInputError, match=rf"\d pixels, expected at most {MOST_PIXELS} pixels"):
                attempt()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


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
        check_size(data[:end] + 80 * data[at:end] + data[end:], "camera")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("side", [(2448, 2048), (4096, 3072), (5472, 3648)])
def test_cameras_in_the_dark_are_seen(suffix: str, side: tuple[int, int]) -> None:
    width, height = side
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1] if suffix == ".jpg" else []
    shapes = [(height, width), (height, width, 3)]
    for shape in shapes:
        data = cv2.imencode(suffix, np.zeros(shape, np.uint8), options)[1].tobytes()
        assert check_size(data, "camera"), (shape, len(data))
    if suffix == ".png":
        deep = cv2.imencode(suffix, np.zeros((height, width), np.uint16))[1].tobytes()
        assert check_size(deep, "camera")


def test_a_message_of_few_bytes_cannot_claim_a_large_picture() -> None:
    for form in ("png", "16UC1; compressedDepth png"):
        message = SimpleNamespace(format=form, data=b"x" * 12 * ("Depth" in form) + claim(8000, 7000))
        for modality in ("image", "point_cloud"):
            with pytest.raises(InvalidInputError, match="168000000 bytes in"):
                decode("sensor_msgs/msg/CompressedImage", message, modality, DecodeOptions(), "camera")


def claim(width: int, height: int) -> bytes:
    data = bytearray(encoded(".png"))
    data[16:24] = struct.pack(">II", width, height)
    return bytes(data)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_header_is_no_size(suffix: str) -> None:
    data = encoded(suffix)
    for length in range(0, 30):
        assert side_of(data[:length]) in (None, (37, 23))


def test_a_usual_progressive_jpeg_of_the_largest_size_is_decoded() -> None:
    assert 10 * MOST_PIXELS <= MOST_SCANNED


def png(width: int, height: int, bits: int, colour: int, more: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data, depth",
    [
        (png(4, 4, 1, 0), 3),
        (png(4, 4, 16, 0), 6),
        (png(4, 4, 8, 6), 4),
        (png(4, 4, 16, 4), 8),
        (png(4, 4, 8, 3, chunk(b"tRNS", b"\0")), 4),
        (encoded(".jpg"), 3),
        (encoded(".bmp"), 3),
        (encoded(".gif"), 4),
        (encoded(".tiff"), 3),
        (b"P7\nHEIGHT 4\nWIDTH 4\nDEPTH 4\nMAXVAL 65535\nTUPLTYPE RGB_ALPHA\nENDHDR\n", 8),
        (b"P5 4 4 65535 ", 6),
        (bytes(cv2.imencode(".tiff", np.zeros((4, 4, 3), np.float64))[1]), 24),
        (bytes(cv2.imencode(".tiff", np.zeros((4, 4, 4), np.uint16))[1]), 8),
        (bytes(cv2.imencode(".webp", np.zeros((4, 4, 4), np.uint8))[1]), 4),
    ],
)
def test_the_bytes_of_a_pixel(data: bytes, depth: int) -> None:
    found = size_of(data)
    assert found is not None and found.depth == depth


@pytest.mark.parametrize(
    "width, height, depth, size",
    [
        (8192, 5464, 3, 1000),  # a camera of 45 million pixels in the dark
        (8192, 5464, 6, 2 << 20),  # the same of 12 or 16 bits in a file for which there is no camera so good
        (8192, 8192, 6, 4 << 20),
        (8192, 8192, 3, 1 << 20),  # a map of few colours
    ],
)
def test_what_cameras_send_is_decoded(width: int, height: int, depth: int, size: int) -> None:
    check_claim(Claim(width, height, depth, "PNG"), size, "camera")


@pytest.mark.parametrize(
    "kind, width, height", [("HEIF", 8064, 6048), ("AVIF", 8064, 6048), ("HEIF", 6000, 4000), ("JPEG2000", 6000, 4000)]
)
def test_pictures_of_phones_at_night_are_decoded(kind: str, width: int, height: int) -> None:
    check_claim(Claim(width, height, 3, kind), 1000, "camera")


_FRAME = b"\xff\xc2\x00\x11\x08\x00\x10\x00\x10\x03\x01\x11\x00\x02\x11\x01\x03\x11\x01"
_TAG = struct.pack("<HHQQ", 256, 4, 1, 16)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + 2_000_000 * b"\xff\xd8" + _FRAME + b"\xff\xda\x00\x02\xff\xd9",
        b"\xff\xd8" + _FRAME + 1_000_000 * b"\xff\xe0\x00\x02" + b"\xff\xda\x00\x02\xff\xd9",
        encoded(".png")[:33] + 300_000 * chunk(b"tEXt", b"") + encoded(".png")[33:],
        encoded(".png")[:33] + bytes(12 * 300_000),
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 200_000) + 200_000 * _TAG,
        box(b"ftyp", b"avif" + bytes(8)) + 150_000 * box(b"free", b"") + sized(16),
        box(b"ftyp", b"avif" + bytes(8)) + 100_000 * box(b"meta", bytes(4)) + sized(16),
        encoded(".jp2")[:12] + 150_000 * box(b"free", b"") + encoded(".jp2")[12:],
    ],
    ids=["starts", "segments", "chunks", "zeros", "tags", "boxes", "nested", "jp2"],
)
def test_many_small_parts_take_no_time(data: bytes) -> None:
    begin = time.process_time()
    message = SimpleNamespace(format="jpeg", data=data)
    with pytest.raises(InvalidInputError, match="cannot decode"):
        decode("sensor_msgs/msg/CompressedImage", message, "image", DecodeOptions(), "camera")
    assert time.process_time() - begin < 0.5
    with pytest.raises(InvalidInputError):
        pictures.decode_picture(np.frombuffer(data, np.uint8), "camera")


def test_many_parts_of_real_encoders_are_read() -> None:
    start, end = encoded(".png")[:33], encoded(".png")[33:]
    assert side_of(start + 30_000 * chunk(b"IDAT", b"") + end) == (37, 23)
    jpeg = encoded(".jpg")
    assert side_of(jpeg[:2] + 3000 * b"\xff\xe2\x00\x02" + jpeg[2:]) == (37, 23)
    assert not is_cut_jpeg(jpeg[:2] + 3000 * b"\xff\xe2\x00\x02" + jpeg[2:])


def test_few_bytes_hold_no_more_than_is_decoded_in_a_second() -> None:
    data = png(8192, 6000, 8, 6)
    with pytest.raises(InvalidInputError, match=rf"196608000 bytes in {len(data)}, expected at most \d+ bytes"):
        check_size(data, "camera")
    assert check_size(data + bytes((196_608_000 - FREE_BYTES) // MOST_RATIO), "camera")
    with pytest.raises(InvalidInputError, match=f"pixels of 8 bytes, expected at most {MOST_BYTES} bytes"):
        check_claim(Claim(8192, 8192, 8, "PNG"), 1 << 30, "camera")
    for kind, free, slowness in (("AVIF", 1, 3), ("HEIF", 1, 3), ("JPEG2000", 2, 5)):
        most = (FREE_BYTES // free + MOST_RATIO * 600_000 // slowness) // 3
        check_claim(Claim(most, 1, 3, kind), 600_000, "camera")
        with pytest.raises(InvalidInputError, match=kind):
            check_claim(Claim(most + 1, 1, 3, kind), 600_000, "camera")


def test_a_size_is_found_only_where_decoders_look() -> None:
    avif = encoded(".avif")
    assert side_of(avif + box(b"free", b"ispe" + b"\x77" * 36)) == (37, 23)
    jp2 = encoded(".jp2")
    at = jp2.index(b"jp2c") - 4
    fake = box(b"uuid", bytes(16) + b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 47, 0, 1, 1, 0, 0) + bytes(30))
    assert side_of(jp2[:at] + fake + jp2[at:]) == (37, 23)
    assert size_of(b"\0\0\0\x18ftypavif" + bytes(12) + (struct.pack(">I", 1000) + b"meta" + bytes(4)) * 50_000) is None


@pytest.mark.parametrize("place", [1 << 63, (1 << 64) - 1, (1 << 63) - 1])
def test_a_place_beyond_any_memory_is_no_size(place: int) -> None:
    data = b"II+\0\x08\0\0\0" + struct.pack("<Q", place) + bytes(40)
    assert size_of(data) is None
    with pytest.raises(InvalidInputError, match="camera"):
        pictures.decode_picture(np.frombuffer(data, np.uint8), "camera", pictures.AS_STORED)


def test_the_end_of_a_jpeg() -> None:
    jpeg = encoded(".jpg")
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg)) + jpeg
    assert not is_cut_jpeg(jpeg) and not is_cut_jpeg(jpeg + bytes(500)) and not is_cut_jpeg(encoded(".png"))
    for cut in (1, 2, 20, len(jpeg) // 2):
        assert is_cut_jpeg(jpeg[:-cut])
        assert is_cut_jpeg(jpeg[:2] + exif + jpeg[2:-cut])
