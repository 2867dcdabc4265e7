"""Which sensors see a thing, and what each of them has of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calibrated import AHEAD, camera_view, cloud_view, picture, plane

from omnibind_core import modalities
from omnibind_core.geometry import Camera, Transform
from omnibind_core.geometry.camera import Model
from omnibind_core.modalities import Events
from omnibind_core.objects.crops import LEAST_EVENTS, crop
from omnibind_core.objects.regions import Rectangle, Region2D, Volume
from omnibind_core.objects.rig import View
from omnibind_core.objects.snapshot import Snapshot
from omnibind_core.objects.visibility import LEAST_POINTS, Sight, sights


def a_box(at: tuple[float, float, float] = (4, 0, 0), side: float = 1.0, spread: np.ndarray | None = None) -> Volume:
    return Volume(np.array(at, float), np.full(3, side), np.eye(3), np.eye(3) * 1e-8 if spread is None else spread)


def along_ray(at: tuple[float, float, float], sigma: float) -> np.ndarray:
    ray = np.array(at) / np.linalg.norm(at)
    return sigma**2 * np.outer(ray, ray) + 1e-8 * np.eye(3)


def seen_of(volume: Volume, snapshot: Snapshot, boxes: dict[str, Region2D] | None = None) -> dict[str, Sight]:
    return sights([volume], snapshot, [boxes] if boxes else [])[0]


def test_box_of_a_thing_in_a_picture() -> None:
    sight = seen_of(a_box(), Snapshot({"camera": camera_view(picture())}))["camera"]
    assert sight.seen
    assert sight.box is not None
    reach = 320 * 0.5 / 3.5  # of the front of the box
    np.testing.assert_allclose(sight.box, (320 - reach, 240 - reach, 320 + reach, 240 + reach), atol=0.5)


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (a_box((-4, 0, 0)), "behind the camera, by 4.0 m"),
        (a_box((4, 9, 0)), "outside of the picture"),
        (a_box((4, 4.6, 0)), "outside of the picture but for"),
        (a_box((40, 0, 0), 0.3), "too small: 2 x 2 pixels, "),
    ],
)
def test_why_a_camera_sees_nothing(volume: Volume, words: str) -> None:
    sight = seen_of(volume, Snapshot({"camera": camera_view(picture())}))["camera"]
    assert not sight.seen
    assert sight.box is None
    assert sight.reason.startswith(words)


def test_nearer_points_hide_a_thing_and_its_own_and_those_behind_do_not() -> None:
    views = {"camera": camera_view(picture()), "lidar": cloud_view(plane(2.1))}
    hidden = seen_of(a_box(), Snapshot(views))["camera"]
    assert hidden.reason == "occluded to 100% by points at 2.1 m, it is at 4.0 m"
    for distance in (3.5, 4.0, 8.0):
        assert seen_of(a_box(), Snapshot({**views, "lidar": cloud_view(plane(distance))}))["camera"].seen
    few = np.concatenate([plane(8.0, 6, 0.1), plane(2.1, 0.06)])  # a pole before it
    assert seen_of(a_box(), Snapshot({**views, "lidar": cloud_view(few)}))["camera"].seen


@pytest.mark.parametrize(
    ("model", "distortion"),
    [("plumb_bob", (-0.3, 0.1, 0.001, -0.002, 0.0)), ("plumb_bob", (0.2, 0, 0, 0)), ("equidistant", (0.05, 0, 0, 0))],
)
def test_points_in_a_picture_are_all_that_the_lens_shows(
    model: Model, distortion: tuple[float, ...], rng: np.random.Generator
) -> None:
    """However wide it is: those that cannot be in it are left out early."""
    points = rng.normal(0, 5, (4000, 3))
    camera = Camera(640, 480, (250.0, 260.0), (330.0, 230.0), model, distortion)
    view = View(camera_view(picture()).reading, Transform(AHEAD, np.array((1.0, 2.0, 3.0))), camera)
    snapshot = Snapshot({"camera": view, "lidar": cloud_view(points)})
    pixels, distance = view.project(snapshot.points)
    inside = camera.contains(pixels) & (distance > 0.05)
    cover = snapshot.cover("camera")
    np.testing.assert_array_equal(cover.index, np.flatnonzero(inside))
    np.testing.assert_allclose(cover.pixels, pixels[inside] + 0.5, atol=1e-6)
    row, column = int(cover.pixels[0, 1] / cover.cell), int(cover.pixels[0, 0] / cover.cell)
    there = (cover.pixels // cover.cell == (column, row)).all(axis=1)
    assert cover.nearest[row, column] == cover.distance[there].min()


def test_thing_known_along_a_ray_is_the_same_for_a_camera_at_that_place_and_useless_for_one_far_away() -> None:
    at = (6.0, 1.0, 0.5)
    views = {
        "camera": camera_view(picture()),
        "thermal": camera_view(np.zeros((240, 320), np.float32), "thermal", "thermal"),
        "near": camera_view(picture(), "near", at=(0, 0.1, 0)),
        "far": camera_view(picture(), "far", at=(0, -3, 0)),
        "lidar": cloud_view(plane(6.0)),
    }
    exact = seen_of(a_box(at), Snapshot(views))
    vague = seen_of(a_box(at, spread=along_ray(at, 4.0)), Snapshot(views))
    for name in ("camera", "thermal"):
        boxes = vague[name].box, exact[name].box
        assert boxes[0] is not None
        assert boxes[0] == pytest.approx(boxes[1], abs=0.2)
    near, alone = vague["near"].box, exact["near"].box
    assert near is not None
    assert alone is not None
    assert alone.width + 5 < near.width < 2 * alone.width
    assert vague["far"].reason.startswith("its place is known to 2.1 to 9.9 m only, which leaves ")
    assert vague["lidar"].reason == "its place is known to 2.1 to 10.1 m only, it is 1.0 m large"
    assert exact["lidar"].seen


def test_what_was_found_in_a_picture_is_taken_from_there() -> None:
    region = Region2D("camera", Rectangle(600, 100, 700, 200), 0)
    seen = seen_of(a_box(), Snapshot({"camera": camera_view(picture())}), {"camera": region})["camera"]
    assert seen.box == (600, 100, 640, 200)
    beside = Region2D("camera", Rectangle(700, 100, 800, 200), 0)
    gone = seen_of(a_box(), Snapshot({"camera": camera_view(picture())}), {"camera": beside})["camera"]
    assert gone.reason == "outside of the picture"


def test_cloud_sees_what_has_points() -> None:
    few = plane(4.0)[: LEAST_POINTS - 1] * (1, 0.01, 0.01)
    sight = seen_of(a_box(), Snapshot({"lidar": cloud_view(few)}))["lidar"]
    assert sight.reason == f"too few points: {LEAST_POINTS - 1} in its box, {LEAST_POINTS} wanted"
    assert seen_of(a_box(), Snapshot({"lidar": cloud_view(np.full((40, 3), np.nan))}))["lidar"].reason
    assert seen_of(a_box(), Snapshot({"lidar": cloud_view(plane(4.0))}))["lidar"].seen


def cropped(view: View, volume: Volume, others: dict[str, View] | None = None) -> tuple[Any, str]:
    snapshot = Snapshot({view.reading.sensor: view, **(others or {})})
    name = view.reading.sensor
    return crop(volume, seen_of(volume, snapshot)[name], name, snapshot)


@pytest.mark.parametrize("at", [(4, 0, 0), (4, 3.5, 0), (4, -3.5, 2.6), (1.0, 0, 0)])
def test_crop_of_a_picture_is_a_square_inside_of_it(at: tuple[float, float, float]) -> None:
    whole = picture()
    item, reason = cropped(camera_view(whole), a_box(at))
    assert reason == ""
    checked = modalities.get("image").check(item, "camera")
    rows, columns = checked.shape[:2]
    top, left = divmod((item.ctypes.data - whole.ctypes.data) // 3, 640)  # not copied
    np.testing.assert_array_equal(checked, whole[top : top + rows, left : left + columns])
    assert abs(rows - columns) <= 1 or (rows, columns) == (480, 640)
    box = seen_of(a_box(at), Snapshot({"camera": camera_view(whole)}))["camera"].box
    assert box is not None
    assert Rectangle(left, top, left + columns, top + rows).within(box) == box


def test_crop_of_a_thermal_picture_keeps_its_form() -> None:
    celsius = np.arange(240 * 320, dtype=np.float32).reshape(240, 320)
    item, reason = cropped(camera_view(celsius, "thermal", "thermal"), a_box())
    assert reason == ""
    assert item.dtype == np.float32
    assert item.shape == pytest.approx((160 / 3.5 * 1.1,) * 2, abs=2.1)
    assert celsius[120, 160] in item


def test_crop_of_events_has_their_places_in_it(rng: np.random.Generator) -> None:
    n = 50_000
    x, y = rng.integers(0, 320, n).astype(np.uint16), rng.integers(0, 240, n).astype(np.uint16)
    raw = Events(x, y, np.arange(n), rng.integers(0, 2, n).astype(np.uint8), 320, 240)
    item, reason = cropped(camera_view(raw, "event", "event"), a_box((2.5, 0, 0)))
    assert reason == ""
    checked = modalities.get("event").check(item, "event")
    kept = np.isin(raw.t, checked.t)
    assert len(checked) == pytest.approx(n * checked.width * checked.height / (320 * 240), rel=0.1)
    assert np.unique(raw.x[kept].astype(int) - checked.x).size == 1
    assert checked.width == pytest.approx(160 / 2.0 * 1.1, abs=2.1)
    quiet = Events(x[:500], y[:500], np.arange(500), raw.p[:500], 320, 240)
    none, reason = cropped(camera_view(quiet, "event", "event"), a_box((2.5, 0, 0)))
    assert none is None
    assert reason.endswith(f"events in its box, {LEAST_EVENTS} wanted")


def test_crop_of_points_is_turned_to_the_sensor(rng: np.random.Generator) -> None:
    """What faces the sensor faces x, whatever its direction; others' points stay out; z is up."""
    for at in ((4.0, 0.0, 0.0), (0.0, -4.0, 0.0), (-3.0, 3.0, 1.0)):
        points = np.array(at) + rng.uniform(-0.5, 0.5, (1000, 3))
        facing = ((points - at) @ (-np.array(at) / np.linalg.norm(at))) > 0
        item, reason = cropped(cloud_view(np.concatenate([points[facing], points - (0, 0, -3)])), a_box(at, 1.01))
        assert reason == ""
        checked = modalities.get("point_cloud").check(item, "lidar")
        assert len(checked) == facing.sum()
        assert checked[:, 0].mean() > 0.1
        assert abs(checked[:, 1].mean()) < 0.1
        np.testing.assert_allclose(checked[:, 2], (points[facing] - at)[:, 2], atol=1e-5)
