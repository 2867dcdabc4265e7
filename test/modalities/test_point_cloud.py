"""Point clouds: normalisation, sampling, checks and files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.point_cloud import cleaning, corruption, processing

CLOUD = modalities.get("point_cloud")


@pytest.mark.parametrize("number", [8, 1000, 1024, 1500, 50_000])
@pytest.mark.parametrize("preset", ["unit_1024", "unit_2048", "unit_8192"])
def test_output_lies_in_the_unit_ball(number: int, preset: str, rng: np.random.Generator) -> None:
    raw = CLOUD.check((rng.random((number, 3)) * 20 + (4e3, -1e3, 7)).astype(np.float32), "lidar")
    (points,) = CLOUD.process(raw, CLOUD.preset(preset))
    assert points.shape == (CLOUD.preset(preset).points, 3)
    assert points.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-4)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)


def test_farthest_points_equal_a_plain_loop(rng: np.random.Generator) -> None:
    points = rng.standard_normal((200, 3)).astype(np.float32)
    chosen = [0]
    while len(chosen) < 30:
        distance = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1)
        chosen.append(int(distance.argmax()))
    assert processing.farthest_points(points, 30).tolist() == chosen


def test_sample_thins_and_repeats(rng: np.random.Generator) -> None:
    few = rng.random((10, 3)).astype(np.float32)
    assert np.array_equal(processing.sample(few, 25), np.concatenate([few, few, few[:5]]))
    many = rng.random((5000, 3)).astype(np.float32)
    picked = processing.sample(many, 100)
    assert len(np.unique(picked, axis=0)) == 100 and np.array_equal(picked, processing.sample(many, 100))
    gaps = np.linalg.norm(picked[:, None] - picked, axis=2) + 9 * np.eye(100)
    at_random = many[:100]
    random_gaps = np.linalg.norm(at_random[:, None] - at_random, axis=2) + 9 * np.eye(100)
    assert gaps.min() > 2 * random_gaps.min()  # well spread


def test_check_drops_columns_and_bad_rows() -> None:
    raw = np.arange(60, dtype=np.float64).reshape(12, 5)
    raw[3, 1], raw[5, 4], raw[7, 2], raw[9, 0] = np.nan, np.nan, 1e300, np.finfo(np.float32).max
    checked = CLOUD.check(raw, "lidar")
    assert checked.shape == (9, 3) and checked.dtype == np.float32
    good = np.random.default_rng(0).random((20, 3), np.float32)
    assert CLOUD.check(good, "lidar").base is good  # no copy


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((0, 3), np.float32), "0 points, 0 of them finite"),
        (np.full((100, 3), np.nan, np.float32), "100 points, 0 of them finite"),
        (np.random.default_rng(0).random((7, 3)), "7 points, 7 of them finite"),
        (np.zeros((50, 2), np.float32), r"shape \[50, 2\]"),
        (np.zeros(50, np.float32), r"shape \[50\]"),
        (np.ones((50, 3), np.float32), "50 points at one place"),
        (np.zeros((50, 3), complex), "dtype complex128"),
    ],
)
def test_bad_clouds_are_refused(raw: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"\[lidar\] got {message}"):
        CLOUD.check(raw, "lidar")


def test_files(tmp_path: Path, rng: np.random.Generator) -> None:
    points = rng.random((30, 3)).astype(np.float32)
    np.savez(tmp_path / "c.npz", points=points.astype(np.float16))
    assert CLOUD.load(tmp_path / "c.npz") == pytest.approx(points, abs=1e-3)
    np.save(tmp_path / "c.npy", points)
    assert np.array_equal(CLOUD.load(tmp_path / "c.npy"), points)
    np.column_stack([points, np.ones(30, np.float32)]).tofile(tmp_path / "c.bin")
    assert np.array_equal(CLOUD.load(tmp_path / "c.bin"), points)
    np.savez(tmp_path / "d.npz", xyz=points)
    with pytest.raises(InvalidInputError, match="an archive with xyz, expected an array 'points'"):
        CLOUD.load(tmp_path / "d.npz")
    points.tofile(tmp_path / "d.bin")
    with pytest.raises(InvalidInputError, match="360 bytes, expected four float32"):
        CLOUD.load(tmp_path / "d.bin")


@pytest.mark.parametrize("suffix", [".pcd", ".ply"])
def test_open3d_files(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    open3d = pytest.importorskip("open3d")
    points = rng.random((30, 3))
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    assert open3d.io.write_point_cloud(str(tmp_path / f"c{suffix}"), cloud)
    assert CLOUD.load(tmp_path / f"c{suffix}") == pytest.approx(points, abs=1e-6)


@pytest.fixture
def chair(rng: np.random.Generator) -> np.ndarray:
    """``float32 [1500, 3]`` on a seat, a back and a leg, 1 m high, in no order."""
    sizes, places = ((0.5, 0.5, 0.02), (0.5, 0.02, 0.5), (0.05, 0.05, 0.5)), ((0, 0, 0.5), (0, 0, 0.5), (0.2, 0.3, 0))
    parts = [rng.random((500, 3)) * size + place for size, place in zip(sizes, places, strict=True)]
    return rng.permutation(np.concatenate(parts)).astype(np.float32)


UTM = np.array([5e5, 5.4e6, 300.0])  # where float32 has steps of half a metre


@pytest.mark.parametrize(
    ("name", "columns"),
    [("a.bin", 3), ("a.bin", 4), ("a.bin", 5), ("a.pcd.bin", 5), ("a.bin", 6), ("a.bin", 7)],
)
@pytest.mark.parametrize("order", ["scan", "none"])
def test_columns_of_a_bin_are_told_from_its_numbers(
    name: str, columns: int, order: str, chair: np.ndarray, tmp_path: Path, rng: np.random.Generator
) -> None:
    cloud = chair[np.lexsort(chair.T)] if order == "scan" else chair
    count = len(cloud)  # every layout but seven columns fits the length
    others = {
        3: np.empty((count, 0)),
        4: rng.random((count, 1)),  # KITTI's intensity
        5: np.column_stack([rng.integers(0, 256, count), rng.integers(0, 32, count)]),  # nuScenes' intensity and ring
        6: rng.integers(0, 256, (count, 3)),  # colours
        7: np.column_stack([rng.integers(0, 256, (count, 3)), np.full(count, 255)]),
    }[columns]
    np.column_stack([cloud, others]).astype("<f4").tofile(tmp_path / name)
    assert np.array_equal(CLOUD.load(tmp_path / name), cloud)


def test_normals_in_a_bin_are_no_points(chair: np.ndarray, tmp_path: Path, rng: np.random.Generator) -> None:
    normals = rng.standard_normal((len(chair), 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    np.column_stack([chair, normals]).astype("<f4").tofile(tmp_path / "a.bin")
    assert np.array_equal(CLOUD.load(tmp_path / "a.bin"), chair)


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(0).bytes(4800),
        np.random.default_rng(0).random(1200).tobytes(),  # float64
        np.random.default_rng(0).random(1200, np.float32).tobytes(),  # any layout, as good as each other
    ],
)
def test_a_bin_that_fits_no_layout_or_several_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(InvalidInputError, match="3 to 8 that the numbers tell apart"):
        CLOUD.load(tmp_path / "a.bin")
    (tmp_path / "a.pcd.bin").write_bytes(data[:-4])
    with pytest.raises(InvalidInputError, match="five float32"):
        CLOUD.load(tmp_path / "a.pcd.bin")


def test_far_from_the_origin_a_cloud_keeps_its_shape(chair: np.ndarray) -> None:
    far = chair + UTM
    moved = CLOUD.check(far, "lidar")
    assert moved - moved[0] == pytest.approx(chair - chair[0], abs=1e-6)
    centimetres = CLOUD.check(np.rint(far * 100).astype(np.int64), "lidar") / 100
    assert centimetres - centimetres[0] == pytest.approx(chair - chair[0], abs=0.011)
    near = chair + np.array([40.0, -20.0, 1.0])
    assert np.array_equal(CLOUD.check(near, "lidar"), near.astype(np.float32))  # the sensor stays at the origin


@pytest.mark.parametrize("preset", ["unit_1024", "pictures"])
def test_few_points_far_away_change_nothing(preset: str, chair: np.ndarray, rng: np.random.Generator) -> None:
    for distance in (2, 1000, 1e7):
        strays = rng.standard_normal((10, 3))
        strays *= distance / np.linalg.norm(strays, axis=1, keepdims=True)
        with_them = np.concatenate([chair[:700], strays.astype(np.float32), chair[700:]])
        assert np.array_equal(CLOUD.check(with_them, "lidar"), chair), distance
    assert np.array_equal(
        CLOUD.process(CLOUD.check(with_them, "lidar"), CLOUD.preset(preset)), CLOUD.process(chair, CLOUD.preset(preset))
    )


def test_thin_parts_and_second_things_are_not_outliers(chair: np.ndarray, rng: np.random.Generator) -> None:
    antenna = np.column_stack([np.full((12, 2), 0.2), np.linspace(1, 2, 12)]).astype(np.float32)  # less than 1 %
    assert len(CLOUD.check(np.concatenate([chair, antenna]), "lidar")) == len(chair) + 12
    ball = (rng.standard_normal((60, 3)) * 0.05 + (5, 0, 0)).astype(np.float32)  # 4 %
    assert len(CLOUD.check(np.concatenate([chair, ball]), "lidar")) == len(chair) + 60


def test_what_measured_nothing_is_dropped_and_counted(
    chair: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = np.concatenate([np.zeros((50, 3)), np.full((20, 3), np.nan), np.full((3, 3), np.inf), [[900, 0, 0]]])
    np.save(tmp_path / "a.npy", np.concatenate([nothing, chair]).astype(np.float32))
    with caplog.at_level("INFO"):
        assert np.array_equal(CLOUD.load(tmp_path / "a.npy"), chair)
    assert "left out 73 points that are not finite or at the origin, and 1 far away from all others" in caplog.text


def test_arrays_with_names_and_with_more_columns(chair: np.ndarray, tmp_path: Path) -> None:
    named = np.zeros(len(chair), [("intensity", "f4"), ("Z", "f8"), ("x", "f8"), ("y", "f8")])
    named["x"], named["y"], named["Z"] = chair.T
    assert np.array_equal(CLOUD.check(named, "lidar"), chair)
    np.savez(tmp_path / "a.npz", points=named)
    assert np.array_equal(CLOUD.load(tmp_path / "a.npz"), chair)
    assert np.array_equal(CLOUD.check(np.column_stack([chair, chair, chair]), "lidar"), chair)
    with pytest.raises(
        InvalidInputError, match=r"\[lidar\] got an array with the fields lon, lat, expected fields x, y"
    ):
        CLOUD.check(np.zeros(20, [("lat", "f4"), ("lon", "f4")]), "lidar")


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_surveys(suffix: str, chair: np.ndarray, tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    pytest.importorskip("lazrs")
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [0.001] * 3, UTM
    survey = laspy.LasData(header)
    survey.x, survey.y, survey.z = (chair + UTM).T
    path = tmp_path / f"a{suffix}"
    survey.write(path)
    points = CLOUD.load(path)
    assert points - points[0] == pytest.approx(chair - chair[0], abs=0.002)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(InvalidInputError, match="expected a complete LAS or LAZ file"):
        CLOUD.load(path)


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
def test_pcd_of_every_kind_and_cut(kind: str, chair: np.ndarray, tmp_path: Path) -> None:
    open3d = pytest.importorskip("open3d")
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(chair))
    path = tmp_path / "a.pcd"
    open3d.io.write_point_cloud(str(path), cloud, write_ascii=kind == "ascii", compressed=kind == "binary_compressed")
    whole = path.read_bytes()
    assert f"DATA {kind}\n".encode() in whole
    assert CLOUD.load(path) == pytest.approx(chair, abs=1e-6)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InvalidInputError, match="a header of 1500 points above"):
        CLOUD.load(path)
    path.write_bytes(whole.replace(b"POINTS 1500", b"POINTS 1000000000000"))
    with pytest.raises(InvalidInputError, match="a header of 1000000000000 points above 1500"):
        CLOUD.load(path)


PLY = (
    "ply\nformat {kind} 1.0\ncomment another program's\nelement camera 1\nproperty float f\nelement vertex {count}\n"
    "property double x\nproperty double y\nproperty double z\nproperty uchar red\n"
    "element face 0\nproperty list uchar int vertex_indices\nend_header\n"
)


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_of_every_kind_and_with_too_few_points(kind: str, chair: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    end = ">" if kind == "binary_big_endian" else "<"
    rows = np.zeros(60, [("xyz", f"{end}f8", 3), ("red", "u1")])
    rows["xyz"] = chair[:60] + UTM
    body = np.array(35.0, f"{end}f4").tobytes() + rows.tobytes()
    if kind == "ascii":
        body = "".join(["35.0\n", *(f"{x!r} {y!r} {z!r} 7\n" for x, y, z in rows["xyz"].tolist())]).encode()
    path = tmp_path / "a.ply"
    path.write_bytes(PLY.format(kind=kind, count=60).encode() + body)
    points = CLOUD.load(path)
    assert points - points[0] == pytest.approx(chair[:60] - chair[0], abs=1e-6)
    for count in (100, 10**12):
        path.write_bytes(PLY.format(kind=kind, count=count).encode() + body)
        with pytest.raises(InvalidInputError, match=r"a header of at least \d+ (lines|bytes) above"):
            CLOUD.load(path)


@pytest.mark.parametrize(
    ("name", "delimiter", "head"),
    [
        ("a.xyz", " ", ""),
        ("a.txt", "\t", "# made by a scanner\n\n"),
        ("a.txt", " ", "//X Y Z R G B\n"),
        ("a.csv", ",", ""),
        ("a.csv", ",", '"X [m]","Y [m]","Z [m]"\n'),
        ("a.csv", ";", "\ufeffx;y;z\n"),
        ("a.pts", " ", "1500\n"),
        ("a.ptx", " ", "300\n5\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n5 6 7 1\n"),
    ],
)
def test_text_files(name: str, delimiter: str, head: str, chair: np.ndarray, tmp_path: Path) -> None:
    lines = [delimiter.join(f"{value:.6f}" for value in (*point, 0.5)) for point in chair]
    text = "\r\n".join(lines)
    (tmp_path / name).write_text(head + (text.replace(".", ",") if delimiter == ";" else text), newline="")
    points = CLOUD.load(tmp_path / name)
    moved = (5, 6, 7) if name == "a.ptx" else (0, 0, 0)
    assert points == pytest.approx(chair + moved, abs=1e-5)


def test_columns_of_a_table_are_told_by_their_names(chair: np.ndarray, tmp_path: Path) -> None:
    rows = [f"chair,{at},{z},{x},{y}" for at, (x, y, z) in enumerate(chair.tolist())]
    (tmp_path / "a.csv").write_text("label,id,z,x,y\n" + "\n".join(rows))
    assert CLOUD.load(tmp_path / "a.csv") == pytest.approx(chair)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "lon,lat,alt\n1,2,3\n", "columns named lon, lat, alt, expected columns x, y and z"),
        ("a.txt", "some words\nand more\n", "no line of three numbers"),
        ("a.xyz", "1 2 3\n4 5\n", "lines that do not fit together"),
        ("a.pts", "100\n1 2 3\n4 5 6\n", "a header of 100 points above 2 lines"),
        ("a.ptx", "10\n10\n" + "0 0 0\n" * 9, "a scan of 100 points above 1 lines"),
        ("a.xyz", "1 2\0 3\n", "a file that is no text"),
    ],
)
def test_text_that_is_no_cloud_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        CLOUD.load(tmp_path / name)


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".off", ".ply", ".glb"])
def test_points_are_drawn_on_the_surface_of_a_mesh(suffix: str, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box((2000, 600, 1000))  # centimetres
    if suffix == ".glb":  # its y is up
        box.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0)))
    path = tmp_path / f"a{suffix}"
    box.export(path)
    points = CLOUD.load(path)
    assert np.array_equal(points, CLOUD.load(path))
    assert np.ptp(points, axis=0) == pytest.approx((2000, 600, 1000), rel=1e-3)
    on_top = (points[:, 2] > 499).mean()
    assert on_top == pytest.approx(2 * 0.6 / (2 * (2 * 0.6 + 2 * 1 + 0.6 * 1)), abs=0.02)  # by area
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(InvalidInputError, match=r"\[.*a\.\w+\] got"):
        CLOUD.load(path)


def test_an_off_file_that_ends_in_its_surfaces_is_refused(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    whole = trimesh.creation.icosphere().export(file_type="off").encode()
    (tmp_path / "a.off").write_bytes(whole[: 9 * len(whole) // 10])
    with pytest.raises(InvalidInputError, match="a header of 1922 lines above 1603"):
        CLOUD.load(tmp_path / "a.off")
    (tmp_path / "b.off").write_bytes(whole.replace(b"OFF\n", b"OFF # a sphere\n"))
    assert CLOUD.load(tmp_path / "b.off").shape == (16384, 3)


@pytest.mark.parametrize("cut", [3, 6, 8])
def test_an_off_file_that_ends_in_its_last_line_is_refused(cut: int, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    whole = trimesh.creation.icosphere().export(file_type="off").encode().rstrip()
    (tmp_path / "a.off").write_bytes(whole[:-cut])
    with pytest.raises(InvalidInputError, match=r"a last surface '3( \d+){1,2}', expected its number"):
        CLOUD.load(tmp_path / "a.off")


def test_an_off_file_of_points_that_ends_in_its_last_line_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    path = tmp_path / "a.off"
    path.write_text("OFF\n4 0 0\n0 0 0\n1 0 0\n0 1 0\n0 0")
    with pytest.raises(InvalidInputError, match="a last corner of 2 numbers, expected a complete OFF file"):
        CLOUD.load(path)


_CORNERS = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"


@pytest.mark.parametrize("header", ["OFF\n4 1\n", "OFF\n4 1 0\n", "OFF4 1 0\n", "OFF 4 1 0\n", "# one\nOFF\n\n4 1 6\n"])
def test_headers_of_off_files(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.off"
    path.write_text(header + _CORNERS + "3 0 1 2\n")
    assert CLOUD.load(path).shape == (16384, 3)
    path.write_text(header + _CORNERS)
    with pytest.raises(InvalidInputError, match=r"a header of 5 lines above 4, expected a complete OFF file"):
        CLOUD.load(path)


def test_an_stl_that_claims_more_triangles_than_it_has_is_refused(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    data = bytearray(trimesh.creation.box().export(file_type="stl"))
    data[80:84] = (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "a.stl").write_bytes(data)
    with pytest.raises(InvalidInputError, match="neither points nor a surface"):
        CLOUD.load(tmp_path / "a.stl")


def test_rotation_is_one_about_up() -> None:
    turn = corruption.rotation(np.pi / 2, 0, 0)
    assert turn @ [1, 0, 0] == pytest.approx([0, 1, 0], abs=1e-6) and turn @ [0, 0, 1] == pytest.approx([0, 0, 1])
    tilted = corruption.rotation(0.3, -0.1, 0.2)
    assert tilted @ tilted.T == pytest.approx(np.eye(3), abs=1e-6) and np.linalg.det(tilted) == pytest.approx(1)


def test_partial_view_drops_one_side(rng: np.random.Generator) -> None:
    cloud = rng.standard_normal((1000, 3), np.float32)
    kept = corruption.partial_view(cloud, 0.4, rng)
    assert kept.mean() == pytest.approx(0.6, abs=0.01)
    direction = cloud[~kept].mean(axis=0) - cloud[kept].mean(axis=0)
    assert np.abs(direction[:2]).max() > 0.5


def test_pictures_show_the_cloud_from_three_sides() -> None:
    preset = CLOUD.preset("pictures")
    rng = np.random.default_rng(0)
    plank = rng.uniform(-0.5, 0.5, (3000, 3)).astype(np.float32) * [2.0, 0.2, 0.4]
    views = CLOUD.process(plank.astype(np.float32), preset)
    assert views.shape == (3, 3, 224, 224) and views.dtype == np.uint8
    assert (views[:, 0] == views[:, 2]).all() and (views[:, 0, 0, 0] == 255).all()  # grey, on white
    drawn = [np.nonzero((view[0] < 255).any(axis=0))[0] for view in views]
    widths = [columns[-1] - columns[0] for columns in drawn]
    heights = [np.ptp(np.nonzero((view[0] < 255).any(axis=1))[0]) for view in views]
    assert min(widths[0], widths[2]) > heights[0] > 0  # wider than high, unless seen from its end
    assert widths[1] < widths[0]
    assert (views == CLOUD.process(plank.astype(np.float32), preset)).all()


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_pictures_do_not_depend_on_place_and_size(shift: float) -> None:
    cloud = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
    preset = CLOUD.preset("pictures")
    moved = CLOUD.process((cloud * 8 + np.float32(shift)).astype(np.float32), preset).astype(int)
    differing = np.abs(moved - CLOUD.process(cloud, preset)) > 40
    assert differing.mean() < (0.001 if shift == 0 else 0.05)  # float32 leaves 1 mm at 10 km


@pytest.mark.parametrize("points", [8, 9000])
def test_few_points_and_many_make_pictures(points: int) -> None:
    line = np.zeros((points, 3), np.float32)
    line[:, 0] = np.linspace(0, 1, points)
    views = CLOUD.process(line, CLOUD.preset("pictures"))
    assert views.shape == (3, 3, 224, 224) and (views < 255).any()


@pytest.mark.parametrize("place", [(0, 0, 0), (4.5e5, 5.4e6, 300)])
def test_a_cleaned_cloud_passes_again_unchanged(place: tuple[float, ...]) -> None:
    for seed in range(12):  # a tenth have outliers that only show without others
        rng = np.random.default_rng(seed)
        thing = rng.normal(size=(1000, 3)) * rng.uniform(0.1, 3, 3)
        outliers = rng.normal(size=(int(rng.integers(2, 17)), 3)) * 10 ** rng.uniform(0, 4, (1, 1))
        outliers[::2] /= 30
        once = CLOUD.check(np.concatenate([thing, outliers]) + place, "once")
        assert np.array_equal(CLOUD.check(once, "twice"), once)


def test_the_nearest_of_several_points_in_a_pixel_is_drawn(rng: np.random.Generator) -> None:
    points = rng.random((5000, 3)).astype(np.float32)
    points -= points.mean(axis=0)
    drawn = processing._depth(points, 0.0, 0.0, 24)  # a grid of 24: many points in each pixel; nothing is spread there
    towards = -points[:, 1]  # seen along y
    extent = np.ptp(points[:, [0, 2]], axis=0).max()
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    assert drawn.max() == pytest.approx((towards.max() + middle[1]) / extent, abs=1e-5)
    nearest = np.full((24, 24), -9.0, np.float32)
    across, up = ((points[:, axis] - middle[axis]) / extent * 0.82 * 24 for axis in (0, 2))
    np.maximum.at(nearest, ((12 - up).astype(int), (across + 12).astype(int)), (towards + middle[1]) / extent)
    around = cv2.dilate(nearest, np.ones((3, 3), np.uint8))  # which the drawing does, too
    inside = around > -9
    assert drawn[inside] == pytest.approx(around[inside], abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_that_were_measured(dtype: type, rng: np.random.Generator) -> None:
    points = rng.random((50, 3)).astype(dtype) - 0.5
    points[7] = 0
    points[9, 0] = points[11, 1] = 0  # these are points
    columns, measured = cleaning.by_columns(points, 1e9)
    assert np.array_equal(columns.T, points) and measured.tolist() == [at for at in range(50) if at != 7]
    points[7, 2] = 1
    assert cleaning.by_columns(points, 1e9)[1] is None
    points[3, 1], points[5, 2], points[6, 0], points[8, 0] = np.nan, np.inf, -np.inf, 2e9
    assert sorted({*range(50)} - {*cleaning.by_columns(points, 1e9)[1].tolist()}) == [3, 5, 6, 8]
