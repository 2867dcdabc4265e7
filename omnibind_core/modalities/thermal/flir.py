"""FLIR's files: radiometric JPEG (R-JPEG), FFF and the first frame of a sequence (SEQ), as temperatures.

A JPEG carries an FFF file in its APP1 segments; a sequence is one FFF file after the other. An FFF file has a directory
of records, of which two matter: the sensor's counts, and what the camera knows of itself and of the scene. The layout
is that of ExifTool's documentation; the formula, with the camera's own constants, that of Planck's law for a sensor
behind air and a window (Minkina, Dudzik: Infrared Thermography, 2009).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.pictures import decode_picture, exif_orientation, upright

SUFFIXES = (".seq", ".fff")
_WHAT = "FLIR's raw counts with the constants of the camera: export temperatures as CSV or TIFF in FLIR's software"
_LARGEST = 64 << 20  # bytes that are read: a sequence is long, and its first frame is at its start
_MAGIC = (b"FFF\0", b"AFF\0")
_RAW, _CAMERA = 1, 0x20  # types of records
_RAW_HEADER = 32
_KELVIN = 273.15


@dataclass(frozen=True)
class _Scene:
    """Record of the camera: temperatures in K, distance in m, humidity as a share of 1."""

    emissivity: float
    distance: float
    reflected: float
    air: float
    window: float
    window_transmission: float
    humidity: float
    planck_r1: float
    planck_b: float
    planck_f: float
    alpha_1: float
    alpha_2: float
    beta_1: float
    beta_2: float
    x: float
    planck_o: float
    planck_r2: float


# Offset in the record and form of each value, in the order above.
_FIELDS = (
    (0x20, "6f"),  # emissivity to the window's transmission
    (0x3C, "f"),
    (0x58, "3f"),  # R1, B, F
    (0x70, "5f"),  # alpha, beta, X of the air
    (0x308, "i"),
    (0x30C, "f"),
)


def read(path: Path) -> NDArray[np.float32] | None:
    """Reads the temperatures of a radiometric JPEG, turned upright by its EXIF, or of the first frame of a FLIR file.

    Returns:
        ``float32 [H, W]``, °C, NaN where the counts are none of any temperature; None for a JPEG without counts.

    Raises:
        InvalidInputError: It is damaged, its counts are compressed in FLIR's own way, or its constants give nothing.
    """
    with path.open("rb") as file:
        data = file.read(_LARGEST)
    is_jpeg = data[:2] == b"\xff\xd8"
    carried = _embedded(data) if is_jpeg else data
    celsius = _temperatures(carried, str(path)) if carried.startswith(_MAGIC) else None
    if celsius is None and not is_jpeg:
        raise InvalidInputError(str(path), "a file without FLIR's counts", _WHAT)
    return celsius if celsius is None or not is_jpeg else upright(celsius, exif_orientation(data))


def _embedded(jpeg: bytes) -> bytes:
    """The FFF file that a JPEG carries; empty if it has none."""
    parts = [body for marker, body in _segments(jpeg) if marker == 0xE1 and body[:5] == b"FLIR\0" and len(body) > 8]
    return b"".join(part[8:] for part in sorted(parts, key=lambda part: part[6]))  # name, version, number, last number


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of what stands before the picture."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] != 0xDA:
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        yield jpeg[at + 1], jpeg[at + 4 : at + 2 + length]
        at += 2 + length


def _temperatures(data: bytes, source: str) -> NDArray[np.float32] | None:
    """Those of an FFF file, or of the first one of several; None if it has no counts."""
    try:
        records = _records(data)
        if _RAW not in records:
            return None
        counts = _counts(records[_RAW], source)
        scene = _scene(records.get(_CAMERA, b""))
    except struct.error as error:
        raise InvalidInputError(source, f"a FLIR file that ends early ({error})", _WHAT) from error
    celsius = _celsius(counts, scene)
    if not np.isfinite(celsius).any():
        raise InvalidInputError(source, f"FLIR constants that give no temperature ({scene})", _WHAT)
    return celsius


def _records(data: bytes) -> dict[int, bytes]:
    """The first record of each type."""
    order = ">" if struct.unpack_from(">I", data, 0x14)[0] in range(100, 200) else "<"  # the version
    start, count = struct.unpack_from(f"{order}II", data, 0x18)
    found: dict[int, bytes] = {}
    for entry in range(min(count, 256)):
        kind, _, _, _, offset, length = struct.unpack_from(f"{order}HHIIII", data, start + 32 * entry)
        if kind in (_RAW, _CAMERA) and kind not in found:
            found[kind] = data[offset : offset + length]
            if len(found[kind]) < length:
                raise struct.error(f"record {kind} has {len(found[kind])} of {length} bytes")
    return found


def _order(record: bytes) -> str:
    """Byte order of a record, whose first number is small."""
    return "<" if struct.unpack_from("<H", record)[0] < 0x100 else ">"


def _counts(record: bytes, source: str) -> NDArray[np.uint16]:
    order = _order(record)
    width, height = struct.unpack_from(f"{order}HH", record, 2)
    body = record[_RAW_HEADER:]
    if body.startswith(b"\x89PNG"):
        if struct.unpack_from(">II", body, 16) != (width, height):
            raise InvalidInputError(source, f"a PNG that is not of the {width} x {height} pixels declared", _WHAT)
        counts = decode_picture(np.frombuffer(body, np.uint8), source, cv2.IMREAD_UNCHANGED)
        if counts.ndim != 2 or counts.dtype != np.uint16:
            raise InvalidInputError(source, f"counts as a PNG of shape {list(counts.shape)}, {counts.dtype}", _WHAT)
        # Most cameras write these in the wrong byte order. In the right one neighbours are alike.
        return min(counts, counts.byteswap(), key=_roughness)
    if body.startswith(b"\xff\xd8\xff"):
        raise InvalidInputError(source, "counts in a compression of FLIR's own (as in .csq)", _WHAT)
    if not width * height or len(body) < 2 * width * height:
        raise InvalidInputError(source, f"{len(body)} bytes of counts for {width} x {height} pixels", _WHAT)
    return np.frombuffer(body, f"{order}u2", width * height).reshape(height, width).astype(np.uint16)


def _roughness(counts: NDArray[np.uint16]) -> float:
    return float(np.abs(np.diff(counts.astype(np.float32), axis=1)).mean()) if counts.shape[1] > 1 else 0.0


def _scene(record: bytes) -> _Scene:
    order = _order(record)
    values = [value for offset, form in _FIELDS for value in struct.unpack_from(order + form, record, offset)]
    scene = _Scene(*map(float, values))
    # Some cameras write percent.
    return scene if scene.humidity <= 2 else replace(scene, humidity=scene.humidity / 100)


def _celsius(counts: NDArray[np.uint16], scene: _Scene) -> NDArray[np.float32]:
    """Temperature of the surface from counts: what air, window and reflection add is taken away first."""

    def signal(kelvin: float) -> np.float64:
        black_body: np.float64 = r1 / (r2 * (np.exp(b / np.float64(kelvin)) - f)) - scene.planck_o
        return black_body

    r1, r2, b, f = (np.float64(value) for value in (scene.planck_r1, scene.planck_r2, scene.planck_b, scene.planck_f))
    air = scene.air - _KELVIN
    with np.errstate(all="ignore"):
        vapour = scene.humidity * np.exp(1.5587 + 0.06939 * air - 0.00027816 * air**2 + 0.00000068455 * air**3)
        # The window is taken to be half way.
        path = np.sqrt(np.float64(scene.distance) / 2)
        tau = scene.x * np.exp(-path * (scene.alpha_1 + scene.beta_1 * np.sqrt(vapour)))
        tau += (1 - scene.x) * np.exp(-path * (scene.alpha_2 + scene.beta_2 * np.sqrt(vapour)))
        window = np.float64(scene.window_transmission)
        passed = scene.emissivity * tau * window * tau  # share of the surface's radiation that reaches the sensor
        # Radiation of the air behind the window, of the window, and of the air before it, as the sensor gets them.
        added = (1 - tau) * tau * window * signal(scene.air) + (1 - window) * tau * signal(scene.window)
        added += (1 - tau) * signal(scene.air)
        reflected = (1 - scene.emissivity) * tau * window * tau * signal(scene.reflected)
        surface = (counts - added - reflected) / passed
        kelvin = b / np.log(r1 / (r2 * (surface + scene.planck_o)) + f)
    return np.asarray(kelvin - _KELVIN, np.float32)
