"""Temperatures in the files of thermal cameras and of their software."""

from __future__ import annotations

import csv
import io
import math
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError

THERMAL, TOUCH = modalities.get("thermal"), modalities.get("touch")
# What a FLIR camera writes of itself: value, offset in its record, form (ExifTool's documentation of the record).
CAMERA = {
    "emissivity": (0.95, 0x20, "f"),
    "distance": (2.0, 0x24, "f"),
    "reflected": (295.15, 0x28, "f"),
    "air": (293.15, 0x2C, "f"),
    "window": (290.15, 0x30, "f"),
    "transmission": (0.9, 0x34, "f"),
    "humidity": (0.4, 0x3C, "f"),
    "r1": (21106.77, 0x58, "f"),
    "b": (1501.0, 0x5C, "f"),
    "f": (1.0, 0x60, "f"),
    "alpha1": (0.006569, 0x70, "f"),
    "alpha2": (0.01262, 0x74, "f"),
    "beta1": (-0.002276, 0x78, "f"),
    "beta2": (-0.00667, 0x7C, "f"),
    "x": (1.9, 0x80, "f"),
    "o": (-7340, 0x308, "i"),
    "r2": (0.012545258, 0x30C, "f"),
}


def scene() -> np.ndarray:
    """°C, a warm spot on a slope."""
    rows, columns = np.mgrid[:24, :32]
    return 18 + 0.2 * columns + 20.0 * ((rows - 8) ** 2 + (columns - 20) ** 2 < 20)


def counts(celsius: float, **other: float) -> float:
    """What the sensor gets of a surface, forwards: radiation through air, a window and air, each adding its own."""
    of = {name: value for name, (value, _, _) in CAMERA.items()} | other

    def radiation(kelvin: float) -> float:
        return of["r1"] / of["r2"] / (math.exp(of["b"] / kelvin) - of["f"]) - of["o"]

    air = of["air"] - 273.15
    water = math.sqrt(of["humidity"] * math.exp(1.5587 + 0.06939 * air - 2.7816e-4 * air**2 + 6.8455e-7 * air**3))
    halfway = -math.sqrt(of["distance"] / 2)
    passes = of["x"] * math.exp(halfway * (of["alpha1"] + of["beta1"] * water))
    passes += (1 - of["x"]) * math.exp(halfway * (of["alpha2"] + of["beta2"] * water))
    radiance = of["emissivity"] * radiation(celsius + 273.15) + (1 - of["emissivity"]) * radiation(of["reflected"])
    for share, kelvin in ((passes, of["air"]), (of["transmission"], of["window"]), (passes, of["air"])):
        radiance = share * radiance + (1 - share) * radiation(kelvin)
    return radiance


def fff(order: str = "<", body: Callable[[np.ndarray], bytes] | None = None, **other: float) -> bytes:
    """A FLIR file of the scene: header, directory, the camera's record, the raw record."""
    raw = np.vectorize(lambda value: round(counts(value, **other)))(scene()).astype(np.uint16)
    camera = bytearray(0x400)
    struct.pack_into(f"{order}H", camera, 0, 2)
    for name, (value, offset, form) in CAMERA.items():
        struct.pack_into(order + form, camera, offset, other.get(name, value))
    pixels = raw.astype(f"{order}u2").tobytes() if body is None else body(raw)
    image = struct.pack(f"{order}HHH", 2, 32, 24) + bytes(26) + pixels
    start = 0x40 + 3 * 32
    entries = [(0x20, 1, len(camera), start), (1, 2, len(image), start + len(camera)), (0, 0, 0, 0)]
    directory = [struct.pack(f"{order}HHIIIIIII", *entry[:2], 100, 1, entry[3], entry[2], 0, 0, 0) for entry in entries]
    header = b"FFF\0" + b"CAMERA".ljust(16, b"\0") + struct.pack(f"{order}III", 101, 0x40, 3)
    return header.ljust(0x40, b"\0") + b"".join(directory) + bytes(camera) + image


def radiometric(carried: bytes, size: int = 500, shape: tuple[int, int] = (24, 32), exif: bytes = b"") -> bytes:
    """A JPEG that carries a FLIR file in several segments."""
    jpeg = cv2.imencode(".jpg", np.full((*shape, 3), 90, np.uint8))[1].tobytes()
    parts = [carried[at : at + size] for at in range(0, len(carried), size)]
    bodies = [exif] if exif else []
    bodies += [b"FLIR\0\1" + bytes([number, len(parts) - 1]) + part for number, part in enumerate(parts)]
    return jpeg[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies) + jpeg[2:]


def as_png(swapped: bool) -> Callable[[np.ndarray], bytes]:
    return lambda raw: cv2.imencode(".png", raw.byteswap() if swapped else raw)[1].tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("body", [None, as_png(True), as_png(False)])
@pytest.mark.parametrize("carrier", [".jpg", ".seq", ".fff"])
def test_flir_files_are_temperatures(
    carrier: str, body: Callable[[np.ndarray], bytes] | None, order: str, tmp_path: Path
) -> None:
    data = fff(order, body)
    path = tmp_path / f"FLIR0001{carrier}"
    path.write_bytes(radiometric(data) if carrier == ".jpg" else data + fff(order, reflected=300.0))
    picture = THERMAL.load(path)
    assert picture.dtype == np.float32 and np.abs(picture - scene()).max() < 0.02  # one count is 0.007 °C and more
    assert modalities.doubt("thermal", picture) is None


def test_percent_of_humidity(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    data = fff(humidity=0.8)
    at = data.index(struct.pack("<f", 0.8))
    path.write_bytes(radiometric(data[:at] + struct.pack("<f", 80.0) + data[at + 4 :]))
    assert np.abs(THERMAL.load(path) - scene()).max() < 0.02


def test_radiometric_pictures_are_turned(tmp_path: Path) -> None:
    turned = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    (tmp_path / "a.jpg").write_bytes(radiometric(fff(), exif=turned))
    assert np.abs(THERMAL.load(tmp_path / "a.jpg") - np.rot90(scene(), -1)).max() < 0.02


def test_jpegs_without_counts_stay_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(radiometric(b""))
    assert THERMAL.load(path).dtype == np.uint8
    data = fff()
    path.write_bytes(radiometric(data[:0x60] + bytes(32) + data[0x80:]))  # the camera's record only
    assert THERMAL.load(path).dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (fff()[:2000], "ends early"),
        (fff()[:70], "ends early"),
        (fff(body=lambda raw: b"\xff\xd8\xff\xf7" + bytes(50)), "in a compression of FLIR's own"),
        (fff(body=lambda raw: raw.tobytes()[:-2]), "1534 bytes of counts for 32 x 24 pixels"),
        (fff(body=lambda raw: as_png(False)(raw[:5])), "a PNG that is not of the 32 x 24 pixels"),
        (fff().replace(struct.pack("<f", 21106.77), bytes(4)), "constants that give no temperature"),
        (b"NORPIX" + bytes(100), "without FLIR's counts"),
    ],
)
def test_flir_files_that_cannot_be_read_say_what_to_do(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.seq"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=rf"a\.seq\] got .*{message}.*export temperatures as CSV or TIFF"):
        THERMAL.load(path)


def written(table: np.ndarray, delimiter: str, mark: str, decimals: int = 2) -> list[str]:
    return [delimiter.join(f"{value:.{decimals}f}".replace(".", mark) for value in row) for row in table]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize(
    ("delimiter", "mark"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), (" ", ".")]
)
def test_tables_of_temperatures(delimiter: str, mark: str, encoding: str, tmp_path: Path) -> None:
    lines = ["Messung: Käfer, 21,5 °C", "", *written(scene(), delimiter, mark), "", "Ende"]
    (tmp_path / "a.csv").write_text("\r\n".join(lines), encoding)
    picture = THERMAL.load(tmp_path / "a.csv")
    assert picture.dtype == np.float32 and np.abs(picture - scene()).max() < 0.006


def test_table_by_numpy(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", scene(), delimiter=",", header="temperature", fmt="%.4e")
    np.savetxt(tmp_path / "a.txt", scene())
    for name in ("a.csv", "a.txt"):
        assert np.abs(THERMAL.load(tmp_path / name) - scene()).max() < 0.006


def test_tables_as_cameras_software_exports_them(tmp_path: Path) -> None:
    rows = written(scene(), ",", ".")
    flir = [
        "File:,C:\\FLIR0042.jpg",
        "",
        "Object Parameters",
        "Emissivity:,0.95",
        "Refl. temp:,20.0 C",
        "Distance:,1.00,m",
    ]
    first, *rest = rows
    flir += ["", f"Frame 1,{first},", *(f",{row}," for row in rest), "", "Time,20.1"]
    frame = io.StringIO()  # as a data frame writes itself: with numbers of rows and columns
    csv.writer(frame).writerows([["", *range(32)], *([number, *row] for number, row in enumerate(scene().round(2)))])
    numbered = ["\t".join(["", *map(str, range(1, 33))])]
    numbered += [f"{number}\t{row}" for number, row in enumerate(written(scene(), "\t", ","), 1)]
    quoted = [",".join(f'"{value:.2f}"'.replace(".", ",") for value in row) for row in scene()]
    tables = {"flir": flir, "frame": frame.getvalue().splitlines(), "numbered": numbered, "quoted": quoted}
    for name, lines in tables.items():
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(lines))
        assert np.abs(THERMAL.load(path) - scene()).max() < 0.006, name


@pytest.mark.parametrize("decimals", [1, 2])
def test_commas_between_columns_and_for_decimals(decimals: int, tmp_path: Path) -> None:
    """As Optris' software exports where Windows speaks German."""
    (tmp_path / "a.csv").write_text("\n".join(written(scene(), ",", ",", decimals)))
    assert np.abs(THERMAL.load(tmp_path / "a.csv") - scene()).max() < 0.06
    whole = scene().round().astype(int)
    np.savetxt(tmp_path / "b.csv", whole, fmt="%d", delimiter=",")
    assert np.array_equal(THERMAL.load(tmp_path / "b.csv"), whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,T\n" + "\n".join(f"{i / 10},{20 + i / 7:.2f}" for i in range(90)), "90 lines of 2 numbers"),
        ("\n".join(f"{i / 10},{i},{20 + i / 7:.2f}" for i in range(90)), "90 lines of 3 numbers"),
        ("no numbers at all", "0 lines of 0 numbers"),
        ("1\0", "no text"),
    ],
)
def test_text_that_is_no_picture_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    for modality in (THERMAL, TOUCH):
        with pytest.raises(InvalidInputError, match=rf"a\.csv\] got .*{message}.* expected a .* picture as text"):
            modality.load(tmp_path / "a.csv")


def test_table_with_empty_cells(tmp_path: Path) -> None:
    table = scene()[:4, :4].round(2).astype(str)
    table[1, 2] = ""
    np.savetxt(tmp_path / "a.csv", table, fmt="%s", delimiter=";")
    assert THERMAL.load(tmp_path / "a.csv")[1, 2] == pytest.approx(18)  # as any pixel without a value: the coldest


def test_pressures_as_text(tmp_path: Path) -> None:
    pressures = np.linspace(0, 1, 64).reshape(8, 8)
    np.savetxt(tmp_path / "a.csv", pressures, delimiter=";", fmt="%.3f")
    assert np.abs(TOUCH.load(tmp_path / "a.csv") - pressures).max() < 0.001
