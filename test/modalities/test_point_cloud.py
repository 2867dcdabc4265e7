"""Point clouds: normalisation, sampling, checks and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.point_cloud import corruption, processing

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
