"""Event files as other programs write them, or as their published layouts say."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError, MissingDependencyError
from omnibind_core.modalities import Events
from omnibind_core.modalities.event import headers

EVENT = modalities.get("event")
N = 400
RNG = np.random.default_rng(0)
T = np.sort(RNG.integers(0, 4000, N))  # µs
X, Y, P = RNG.integers(0, 346, N), RNG.integers(0, 260, N), RNG.integers(0, 2, N)
X[0], Y[0] = 345, 259

# By dv-processing 2.0.4: 60 events (5 i, 4 i), 100 µs apart, every third one brighter, LZ4.
AEDAT4 = (
    "c-oDWL1+_M7{~u(qt;Nn(a9k~mGK$Y9%?gFgL;^j#HQUwTU%{xs}?kLraIWpgvq2-Q4kUI;6XtaMGrl=P!?hL(1U_V!5%y)hzNS<"
    "K|w@Nq{}LZ2=0Gk?A92u12cT@|9k)MdvD%1vtfO*ZO^7uG81o9R|XrZfCzwecSjqFSCHcXYEaDxka&l9zg>#?>-`cyH^!7P)6H9s"
    "-7K0KRnZbuc<Hudn2MbpHJgP~@Y43MBa~d$JJKv-rE#n@wS2nz-9&Za)Z+B4=ef#J^H{SOaz=BmnfL1p#XFW`g1qNi_F>V|xj(MQ"
    "{Fy&AJFa!uva=&yj!_sfcd>kVjxNV`TB*C)e%JC$caaIZ3tq0^RZ3`%nYNezNgCghGV?>OmGdfWthJE$oKeNddf6gToMO4gMPyAI"
    "EN=~4rdyu0tuNDCF~NePu__&-8nenyvqJ5>b=(~ITGFyT(Xu(drBb;HzJ1^LnzpEm@i_%|=)0GnO7^9DS@@t<ai=kVs|%WP!T4*e"
    "$BeO-V5$En+5Z926-gwfuQ2>q%vOE*Nc?vREaRsW;FFVh>%JqgE)oqcE1LZe$_QcAQi09Dy%4k@s-qAMNfp{Js8JzbAPx`v_#N>Y"
    "gjI-v?ZoR4A-+v<1L_nArB#7e4<!Wo48=`|62D^9gnHu66g^wfK>RmF9V!!r+vrImu0S5A*p6+)vy65^Cr-4}(}M)@b&7kD3PDu="
    "M$dk9F#8C_gXkoF$jCqsahyQ2kRiTI(Z&GrCq{V;5+6zvkK+*W48@Z$xVHKoOnDkdSo}Q2vlt<sV{{%l;>=EZF2W<eN%41#b8U4j"
    "t6jwjW<N!70({CZ82y1W#2sDq{E2hKHz@uECKjPx^i1Ibvoo1?3zvwWGP(n<Rp{OH+{HEG35xeH!Qz1)dLDrLm$^Re5hjW6GkSs>"
    "#OiK(X2Dk~U!wRNQ^X$_y~Iu8!9B#U!Bdi_Db8V<Ym4?W<$KJq_&JIn{ezd^F#3%9#65g>T0nY8JVkMZ^q6al?4_qxddlo4D9X|-"
    "@iRsdiBFO0qi3!3f_RdmkY2HPO}~Ou8>Kh%|LRho9$@&-uY;wZd3z?gy}VETz6=*FwP@h)KfqBPqNoky^p}=zuUd)K`f|)InQ!Qt"
    "{{I{MKdOOm-T"
)


@pytest.fixture(autouse=True)
def say_again() -> Iterator[None]:
    headers.say_once.cache_clear()
    yield


def assert_same(raw: Events, size: tuple[int, int] | None = (346, 260), count: int = N) -> None:
    assert len(raw) == count
    first = N - count
    assert raw.x.tolist() == X[first:].tolist() and raw.y.tolist() == Y[first:].tolist()
    assert raw.p.tolist() == P[first:].tolist()
    assert (raw.t - raw.t[0]).tolist() == (T - T[first])[first:].tolist()
    assert (raw.width, raw.height) == size


def structured(fields: str, **types: str) -> np.ndarray:
    rows = np.zeros(N, [(name, types.get(name, "<i8")) for name in fields])
    for name, values in zip("txyp", (T, X, Y, P), strict=True):
        rows[name] = values
    return rows


@pytest.mark.parametrize(("encoding", "name"), [("DAT", "a.dat"), ("EVT2", "a.raw"), ("EVT3", "a.raw")])
def test_prophesee(encoding: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / name
    wizard = pytest.importorskip("expelliarmus").Wizard(encoding=encoding)
    wizard.save(fpath=path, arr=structured("txyp", x="<i2", y="<i2", p="u1"))
    assert_same(EVENT.load(path))
    assert "taken as 346 x 260 pixels" in caplog.text
    path.write_bytes(b"% geometry 1280x720\n" + path.read_bytes())
    assert_same(EVENT.load(path), (1280, 720))
    path.write_bytes(path.read_bytes()[:-1])
    assert EVENT.load(path).x.tolist() == X[: N - 1].tolist()
    assert "cut off" in caplog.text


def test_the_end_of_a_long_recording_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnibind_core.modalities.event.reading.LAST", 100)
    monkeypatch.setattr(headers, "TAIL", 800)
    wizard = pytest.importorskip("expelliarmus")
    rows = structured("txyp", x="<i2", y="<i2", p="u1")
    wizard.Wizard(encoding="DAT").save(fpath=tmp_path / "a.dat", arr=rows)
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "a.npz", x=X, y=Y, t=T, p=P)
    for path in tmp_path.iterdir():
        raw = EVENT.load(path)
        assert raw.x.tolist() == X[-100:].tolist() and raw.t[-1] == T[-1]
    lines = "".join(f"{t} {x} {y} {p}\n" for t, x, y, p in zip(T, X, Y, P, strict=True))
    monkeypatch.setattr("omnibind_core.modalities.event.reading.TAIL", 800)
    (tmp_path / "a.txt").write_text(lines)
    raw = EVENT.load(tmp_path / "a.txt")
    assert 40 < len(raw) < 80 and raw.x.tolist() == X[-len(raw) :].tolist()


@pytest.mark.parametrize(
    ("line", "size"),
    [("% format EVT3;height=480;width=640", (640, 480)), ("% evt 3.0\n% Width 640\n% Height 480", (640, 480))],
)
def test_headers_of_prophesee(line: str, size: tuple[int, int], tmp_path: Path) -> None:
    words = [0x8001, 0x6005, 0x0007, 0x2803, 0x2000 | 639, 0x2000 | 640]  # the last one is beside the sensor
    path = tmp_path / "a.raw"
    path.write_bytes(line.encode() + b"\n% end\n" + np.array(words, "<u2").tobytes())
    raw = EVENT.load(path)
    assert (raw.width, raw.height) == size
    assert (raw.x.tolist(), raw.y.tolist(), raw.p.tolist(), raw.t.tolist()) == ([3, 639], [7, 7], [1, 0], [4101, 4101])


def aedat2(address: np.ndarray, chip: str) -> bytes:
    header = f"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# AEChip: {chip}\r\n"
    others = np.array([[0x80001000, 0], [0x400, 0]])  # the frame camera, a trigger
    rows = np.stack([address, T], axis=1)
    return header.encode() + np.concatenate([others, rows] if "davis" in chip else [rows]).astype(">u4").tobytes()


@pytest.mark.parametrize("name", ["a.aedat", "a.dat"])
def test_aedat_2(name: str, tmp_path: Path) -> None:
    davis = (259 - Y) << 22 | (345 - X) << 12 | P << 11
    (tmp_path / name).write_bytes(aedat2(davis, "eu.seebetter.ini.chips.davis.Davis346blue"))
    assert_same(EVENT.load(tmp_path / name))
    dvs = (127 - Y % 128) << 8 | (127 - X % 128) << 1 | (1 - P)
    (tmp_path / name).write_bytes(aedat2(dvs, "ch.unizh.ini.jaer.chip.retina.DVS128"))
    raw = EVENT.load(tmp_path / name)
    assert (raw.width, raw.height) == (128, 128)
    assert (
        raw.x.tolist() == (X % 128).tolist() and raw.y.tolist() == (Y % 128).tolist() and raw.p.tolist() == P.tolist()
    )
    (tmp_path / name).write_bytes(aedat2(dvs, "ch.unizh.ini.jaer.chip.cochlea.CochleaAMS1c"))
    with pytest.raises(InvalidInputError, match="chip CochleaAMS1c, expected a DVS128 or a DAVIS"):
        EVENT.load(tmp_path / name)


@pytest.mark.parametrize("version", ["3.1", "3.0"])
def test_aedat_3(version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    y = Y if version == "3.1" else 259 - Y
    rows = np.stack([X << 17 | y << 2 | P << 1 | 1, T], axis=1).astype("<u4")
    rows = np.insert(rows, 7, (0, 5), axis=0)  # one that is marked as not valid

    def packet(kind: int, size: int, body: bytes, overflow: int = 0) -> bytes:
        number = len(body) // size
        return struct.pack("<hhiiiiii", kind, 1, size, 4, overflow, number, number, number) + body

    end = "#!END-HEADER\r\n" if version == "3.1" else ""
    header = f"#!AER-DAT{version}\r\n#Format: RAW\r\n#Source 1: DAVIS346\r\n#Start-Time: 2017-01-01 00:00:00\r\n{end}"
    parts = [packet(0, 8, bytes(8)), packet(1, 8, rows[:99].tobytes()), packet(3, 36, bytes(72))]
    path = tmp_path / "a.aedat"
    path.write_bytes(header.encode() + b"".join(parts) + packet(1, 8, rows[99:].tobytes()))
    assert_same(EVENT.load(path))
    path.write_bytes(path.read_bytes()[:-12])
    assert EVENT.load(path).x.tolist() == X[:-2].tolist()
    assert f"cut off: used what is whole, {N - 1} words or events" in caplog.text
    path.write_bytes(header.encode() + packet(1, 8, rows[:9].tobytes()) + packet(1, 8, rows[9:].tobytes(), overflow=1))
    assert EVENT.load(path).t[-1] == T[-1] + (1 << 31)


def test_aedat_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aedat")
    path = tmp_path / "a.aedat4"
    data = zlib.decompress(base64.b85decode(AEDAT4))
    path.write_bytes(data)
    raw = EVENT.load(path)
    steps = np.arange(60)
    assert (raw.width, raw.height) == (346, 260)
    assert raw.x.tolist() == (5 * steps).tolist() and raw.y.tolist() == (4 * steps).tolist()
    assert raw.t.tolist() == (1_700_000_000_000_000 + 100 * steps).tolist()
    assert raw.p.tolist() == (steps % 3 == 0).tolist()
    # The library panics at the second and ends the process at the third.
    for broken in (data[:700], data[:18] + b"\xff" + data[19:], data.replace(b"compression", b"compress\xefon")):
        path.write_bytes(broken)
        with pytest.raises(InvalidInputError, match="cannot be read"):
            EVENT.load(path)
    monkeypatch.setitem(__import__("sys").modules, "aedat", None)
    with pytest.raises(MissingDependencyError, match=r"Reading AEDAT 4 needs .*pip install aedat"):
        EVENT.load(path)


def dsec(file: Any, plugin: Any) -> None:
    for name, values, kind in (("x", X, "u2"), ("y", Y, "u2"), ("t", T, "u4"), ("p", P, "u1")):
        file.create_dataset(f"events/{name}", data=values.astype(kind), chunks=(100,), **plugin.Blosc(cname="zstd"))
    file["ms_to_idx"], file["t_offset"] = np.arange(5, dtype=np.uint64), np.int64(49_599_300_523)


def metavision(file: Any, _: Any) -> None:
    file["CD/events"] = structured("xypt", x="<u2", y="<u2", p="<i2")
    file["CD/indexes"] = np.zeros(3, [("id", "<i8"), ("ts", "<i8")])
    file.attrs["geometry"] = "346x260"


def e2vid(file: Any, _: Any) -> None:
    for name, values in (("xs", X), ("ys", Y), ("ts", T / 1e6), ("ps", P.astype(bool))):
        file[f"events/{name}"] = values


def mvsec(file: Any, _: Any) -> None:
    file["davis/left/events"] = np.stack([X, Y, 1.5e9 + T / 1e6, 2 * P - 1], axis=1)
    file["davis/left/imu"] = np.zeros((5, 6))


def v2e(file: Any, _: Any) -> None:
    file["events"] = np.stack([T, X, Y, P], axis=1).astype(np.uint32)


@pytest.mark.parametrize("make", [dsec, metavision, e2vid, mvsec, v2e])
def test_hdf5(make: Callable[[Any, Any], None], tmp_path: Path) -> None:
    h5py, plugin = pytest.importorskip("h5py"), pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, plugin)
    assert_same(EVENT.load(tmp_path / "a.h5"))


def test_hdf5_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:  # as Prophesee writes them
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((100,))
        properties.set_filter(36559, h5py.h5z.FLAG_OPTIONAL)
        kind = h5py.h5t.py_create(structured("xypt").dtype)
        group = file.create_group("CD").id
        h5py.h5d.create(group, b"events", kind, h5py.h5s.create_simple((N,)), dcpl=properties)
    with pytest.raises(InvalidInputError, match=r"compression ECF, expected its plugin .* converted to \.raw"):
        EVENT.load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidInputError, match="truncated file"):
        EVENT.load(path)
    with h5py.File(path, "w") as file:
        file["pictures"] = np.zeros((3, 5))
    with pytest.raises(InvalidInputError, match="no data sets of events"):
        EVENT.load(path)


def table(columns: str, *, sign: bool = False, unit: float = 1) -> np.ndarray:
    values = {"t": T / unit if unit != 1 else T, "x": X, "y": Y, "p": 2 * P - 1 if sign else P}
    return np.stack([values[name] for name in columns], axis=1)


@pytest.mark.parametrize("sign", [False, True])
@pytest.mark.parametrize("columns", ["txyp", "xytp", "xypt"])
@pytest.mark.parametrize("unit", [1, 1e6])
def test_tables(columns: str, sign: bool, unit: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = table(columns, sign=sign, unit=unit)
    np.save(tmp_path / "a.npy", rows)
    np.save(tmp_path / "b.npy", rows.T)
    np.savez(tmp_path / "a.npz", events=rows)
    formats = ["%.9f" if name == "t" and unit != 1 else "%d" for name in columns]
    np.savetxt(tmp_path / "a.txt", rows, fmt=formats)
    np.savetxt(tmp_path / "a.csv", rows, fmt=formats, delimiter=",", header="some header", comments="% ")
    np.savetxt(tmp_path / "c.txt", rows, fmt=formats, header="346 260", comments="")  # E2VID
    for path in sorted(tmp_path.iterdir()):
        assert_same(EVENT.load(path))
    assert (caplog.text.count("taken as seconds") == 1) == (unit != 1)
    assert caplog.text.count("no size of the sensor in .txt file: taken as 346 x 260 pixels") == 1


def test_names_say_which_column_is_which(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", table("pytx"), fmt="%d", delimiter=",", header="polarity,Y,timestamp,x", comments="")
    np.save(tmp_path / "a.npy", structured("pytx", p="?"))
    np.savez(tmp_path / "a.npz", x=X, y=Y, timestamps=T / 1e6, polarity=2 * P - 1)
    np.savez(tmp_path / "b.npz", x=X, y=Y, t=T, p=P, width=346, height=260)
    for path in sorted(tmp_path.iterdir()):
        assert_same(EVENT.load(path))


def test_a_table_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0.5 345 259 1\n0.6 3 4 0\n0.7 5")
    raw = EVENT.load(path)
    assert raw.x.tolist() == [345, 3] and raw.t.tolist() == [0, 100_000]


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.raw", b"abc" * 9, "without the header of Prophesee"),
        ("a.raw", b"% evt 2.1\n" + bytes(80), "events in evt 2.1, expected EVT 2.0 or EVT 3.0"),
        ("a.raw", b"% evt 3.0\n", "no events"),
        ("a.dat", b"% Version 2\n\x0e\x10" + bytes(32), "expected a .dat file of CD events"),
        ("a.aedat", b"#!AER-DAT1.0\r\n" + bytes(80), "without the header of AEDAT"),
        ("a.aedat", b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + b"\xff" * 28, "a packet of -1 events"),
        ("a.aedat", b"#!AER-DAT3.1\r\n#!END-HEADER\r\n", "no events"),
        ("a.h5", b"abc" * 9, "cannot be read"),
        ("a.npy", b"abc" * 9, "NumPy cannot read"),
        ("a.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i8', (((" + b" " * 97, "NumPy cannot read"),
        ("a.npy", np.zeros((5, 3)), r"an array \[5, 3\] float64"),
        ("a.npy", np.zeros(5, [("x", int), ("y", int)]), "with the fields x, y, expected"),
        ("a.npy", table("txyp")[::-1], "in one of the orders t x y p, .*, t not decreasing"),
        ("a.npy", table("txyp") + np.array([0, 0.25, 0, 0]), "x as float64"),
        ("a.npy", table("txyp") * np.array([1, 20, 1, 1]), "no size of the sensor, and events up to"),
        ("a.txt", b"hello\nworld\n", "no table of numbers"),
        ("a.txt", b"1 2 3\n4 5 6\n", "lines of 3 numbers"),
        ("a.txt", b"1 2 3 0\n4 5 six 1\n", "no table of numbers .*six"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(name: str, make: bytes | np.ndarray, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(make, bytes):
        path.write_bytes(make)
    else:
        np.save(path, make)
    if name == "a.h5":
        pytest.importorskip("h5py")
    with pytest.raises(InvalidInputError, match=message) as error:
        EVENT.load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
