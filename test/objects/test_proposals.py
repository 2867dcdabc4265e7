"""What finds things by itself: clusters of points, warm and moving blobs; and how far away those of pictures are."""

from __future__ import annotations

import numpy as np
import pytest
from calibrated import block, camera_view, cloud_view, floor, picture, plane

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Events
from omnibind_core.objects.depth import LIMITS, place
from omnibind_core.objects.proposals import clusters, ground, moving, warm
from omnibind_core.objects.regions import Rectangle, Region2D, Region3D, Volume
from omnibind_core.objects.snapshot import Snapshot
from omnibind_core.objects.visibility import sights

EYE = np.zeros(3)


def found_in(*parts: np.ndarray, rng: np.random.Generator) -> list[Region3D]:
    points = np.concatenate(parts)
    return clusters.propose("lidar", Snapshot({"lidar": cloud_view(points + rng.normal(0, 0.01, points.shape))}))


@pytest.mark.parametrize("slope", [0.0, 0.2, -0.35])
def test_clusters_are_the_things_on_the_ground(slope: float, rng: np.random.Generator) -> None:
    """The ground is none, nor is the wall, which is the largest plane."""
    things = {(3.0, 1.0): ((0.6, 0.4, 0.8), 0.5), (5.0, -2.0): ((1.0, 0.5, 1.2), -0.3)}
    parts = [block((x, y, -1 + slope * x + size[2] / 2), size, yaw) for (x, y), (size, yaw) in things.items()]
    wall = plane(9.0, 8, 0.1)
    found = found_in(*parts, floor(slope=slope), wall[wall[:, 2] > -1 + slope * 9], rng=rng)
    assert len(found) == 2
    for region in found:
        at, (size, yaw) = min(things.items(), key=lambda thing: np.hypot(*(region.volume.centre[:2] - thing[0])))
        middle = np.array([*at, -1 + slope * at[0] + size[2] / 2])
        np.testing.assert_allclose(region.volume.centre, middle, atol=0.15)
        np.testing.assert_allclose(sorted(region.volume.size[:2]), sorted(size[:2]), atol=0.12)
        long = region.volume.rotation[:, int(np.argmax(region.volume.size[:2]))]
        assert abs(long @ [np.cos(yaw), np.sin(yaw), 0]) > 0.98
        assert np.linalg.eigvalsh(region.volume.spread)[-1] < 0.5**2


def test_what_stands_at_a_wall_is_a_thing(rng: np.random.Generator) -> None:
    """And a car, which is nearly as long, is none."""
    wall = plane(5.0, 3, 0.08)
    cupboard, car = block((4.7, 1.0, -0.4), (0.6, 1.0, 1.2)), block((-6, 3, -0.25), (4.5, 1.8, 1.5), 0.3, 0.1)
    found = found_in(wall[wall[:, 2] > -1], cupboard, car, floor(), rng=rng)
    assert len(found) == 2
    sides = sorted(region.volume.size.max() for region in found)
    assert sides == pytest.approx([1.2, 4.5], abs=0.2)
    assert min(np.linalg.norm(region.volume.centre - (4.65, 1.0, -0.4)) for region in found) < 0.15


def test_what_stands_on_a_table_is_found_beside_the_table(rng: np.random.Generator) -> None:
    """A box of the same height that nothing stands on is one thing."""
    table, mug = (
        block((2.5, 0.5, -0.6), (0.6, 0.9, 0.8), step=0.03),
        block((2.4, 0.6, -0.1), (0.1, 0.1, 0.2), step=0.02),
    )
    alone = block((3.0, -1.5, -0.5), (0.5, 0.5, 1.0), step=0.03)
    found = found_in(table, mug, alone, floor(), rng=rng)
    assert len(found) == 3
    part = min(found, key=lambda region: region.volume.size.max()).volume
    np.testing.assert_allclose(part.centre, (2.4, 0.6, -0.1), atol=0.05)
    np.testing.assert_allclose(part.size, (0.1, 0.1, 0.2), atol=0.08)


def test_clusters_without_a_ground_and_further_away(rng: np.random.Generator) -> None:
    """Gaps between points grow with the distance, as they do for a sensor's rays."""
    near = block((3, 0, 0), (0.5, 0.5, 0.5))
    far = block((20, 3, 0), (1.5, 1.5, 1.5), step=0.5)
    assert len(found_in(near, far, rng=rng)) == 2
    assert ground.find(near, EYE) is None
    assert not found_in(far[:12] - (17, 3, 0), rng=rng)  # the same gaps nearby: single points


def test_a_room_and_noise_are_no_things(rng: np.random.Generator) -> None:
    room = np.concatenate([block((0, 0, 0.5), (8, 6, 3), step=0.1), floor(reach=3)])
    assert not found_in(room, rng=rng)
    assert not found_in(plane(5.0), rng=rng)  # a piece of wall
    for points in (
        np.zeros((0, 3)),
        np.full((20, 3), np.nan),
        np.ones((10, 3)),
        np.full((20, 3), 1e9),
        rng.uniform(-9, 9, (10, 3)),
    ):
        found_in(points, rng=rng)


def test_ground_is_near_the_horizontal_with_nothing_below(rng: np.random.Generator) -> None:
    found = ground.find(floor(slope=0.2) + rng.normal(0, 0.02, (len(floor()), 3)), EYE)
    assert found is not None
    np.testing.assert_allclose(found.normal, np.array([-0.2, 0, 1]) / np.hypot(0.2, 1), atol=0.01)
    assert found.height(np.array([[2.0, 0, 0.4]]))[0] == pytest.approx(1 / np.hypot(0.2, 1), abs=0.02)
    assert ground.find(floor(slope=0.9), EYE) is None
    both = np.concatenate([block((0, 0, 0), (8, 8, 0.01), step=0.2)[:, :3] + (0, 0, 2), floor(step=0.3)])
    under = ground.find(both, EYE)
    assert under is not None
    assert under.offset == pytest.approx(-1, abs=0.05)


def region(left: float, top: float, right: float, bottom: float, **known: object) -> Region2D:
    return Region2D("camera", Rectangle(left, top, right, bottom), 0, **known)  # type: ignore[arg-type]


def placed(region: Region2D, *parts: np.ndarray) -> Volume:
    views = {"camera": camera_view(picture())}
    if parts:
        views["lidar"] = cloud_view(np.concatenate(parts))
    return place(region, Snapshot(views))


BOX = (360, 200, 440, 280)
"""A thing of 1 x 1 m, 4 m ahead and 1 m to the right."""


def the_thing() -> np.ndarray:
    return plane(4.0, 0.5) - (0, 1, 0)


@pytest.mark.parametrize("what", ["alone", "before a wall", "behind a few points", "on the ground", "through a gap"])
def test_depth_is_that_of_the_nearest_dense_points(what: str, rng: np.random.Generator) -> None:
    others = {
        "alone": [],
        "before a wall": [plane(9.0, 6, 0.1)],
        "behind a few points": [plane(9.0, 6, 0.1), np.array([[1.0, -0.25, 0]] * 3)],
        "on the ground": [floor(-0.5, step=0.02, reach=6)],
        "through a gap": [plane(9.0, 4, 0.06)],  # of which there are more
    }[what]
    thing = the_thing()
    volume = placed(region(*BOX), thing[rng.random(len(thing)) < 0.3], *others)
    np.testing.assert_allclose(volume.centre, (4.5, -1.12, 0), atol=0.1)  # behind its front, along the ray
    np.testing.assert_allclose(volume.size, 1.0, atol=0.12)
    assert np.sqrt(np.linalg.eigvalsh(volume.spread)[-1]) < 0.4


def test_mask_tells_a_thing_from_what_is_before_it(rng: np.random.Generator) -> None:
    """The left half of the box is another thing, which is nearer."""
    other = plane(2.0, 0.2, 0.02) - (0, 0.4, 0)
    mask = np.zeros((80, 80), np.bool_)
    mask[:, 42:] = True
    scene = (the_thing(), other[other[:, 1] > -0.5])
    assert placed(region(*BOX), *scene).centre[0] < 2.5
    assert placed(region(*BOX, mask=mask), *scene).centre[0] == pytest.approx(4.5, abs=0.1)


def test_depth_without_points_is_told_or_a_range() -> None:
    told = placed(region(*BOX, depth=(4.0, 4.0)))
    np.testing.assert_allclose(told.centre, (4.5, -1.12, 0), atol=0.1)
    vague = placed(region(*BOX))
    ray = vague.centre / np.linalg.norm(vague.centre)
    along = float(np.sqrt(ray @ vague.spread @ ray))
    away = float(np.linalg.norm(vague.centre))
    assert LIMITS[0] < away - along < 2
    assert 12 < away + along < LIMITS[1]
    assert np.linalg.eigvalsh(vague.spread)[-1] == pytest.approx(along**2, rel=1e-3)


@pytest.mark.parametrize("box", [BOX, (20, 20, 180, 120), (600, 400, 700, 480), (0, 0, 640, 480)])
def test_picture_of_a_placed_thing_is_its_region(box: tuple[float, float, float, float]) -> None:
    """In its camera and in another one at the same place, however vague the distance is."""
    found = region(*box)
    views = {"camera": camera_view(picture()), "twin": camera_view(np.zeros((240, 320), np.float32), "twin", "thermal")}
    snapshot = Snapshot(views)
    sight = sights([place(found, snapshot)], snapshot)[0]
    whole = found.box.within(Rectangle(0, 0, 640, 480))
    assert sight["camera"].box is not None
    assert sight["twin"].box is not None
    twice = Rectangle(*(2 * edge for edge in sight["twin"].box))
    assert min(sight["camera"].box.overlap(whole), twice.overlap(whole)) > 0.8


@pytest.mark.parametrize("box", [(700, 100, 800, 200), (-50, -50, -10, -10)])
def test_boxes_beside_the_picture_and_depths_that_are_none_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInputError, match="one in what the lens sees"):
        placed(region(*box))
    for depth in ((0.0, 3.0), (3.0, 2.0), (np.nan, 1.0), (1.0, np.inf)):
        with pytest.raises(InvalidInputError, match="nearest first"):
            placed(region(*BOX, depth=depth))
    with pytest.raises(InvalidInputError, match="a camera in use"):
        place(region(*BOX), Snapshot({}))


def warm_in(raw: np.ndarray) -> list[Region2D]:
    return warm.propose("thermal", Snapshot({"thermal": camera_view(raw, "thermal", "thermal")}))


def thermal(rng: np.random.Generator, warmer: float = 12.0) -> np.ndarray:
    celsius = 20 + rng.normal(0, 0.3, (240, 320)) + np.linspace(-1, 1, 320)
    celsius[60:140, 40:80] += warmer
    celsius[100:130, 200:260] += warmer / 2
    return celsius.astype(np.float32)


@pytest.mark.parametrize("form", ["celsius", "white hot", "counts", "colours", "holes"])
def test_warm_things_stand_out_in_every_form_of_a_picture(form: str, rng: np.random.Generator) -> None:
    celsius = thermal(rng)
    raw = {
        "celsius": celsius,
        "white hot": (celsius * 5).astype(np.uint8),
        "counts": (7000 + celsius * 20).astype(np.uint16),
        "colours": np.repeat((celsius * 5).astype(np.uint8)[:, :, None], 3, axis=2),
        "holes": np.where(rng.random(celsius.shape) < 0.001, np.nan, celsius),
    }[form]
    found = warm_in(raw)
    assert [region.proposer for region in found] == ["warm", "warm"]
    for region, box in zip(found, (Rectangle(40, 60, 80, 140), Rectangle(200, 100, 260, 130)), strict=True):
        assert region.box.overlap(box) > 0.85
        assert region.mask is not None
        assert region.mask.shape == (region.box.height, region.box.width)
        assert region.mask.mean() > 0.9
    assert found[0].score > found[1].score > 0.4


def test_nothing_warm(rng: np.random.Generator) -> None:
    """Noise, a picture of one value, one half that is warm, and things that are colder."""
    halves = np.full((240, 320), 20, np.float32)
    halves[:, :200] = 30
    for raw in (20 + rng.normal(0, 0.5, (240, 320)), np.full((24, 32), 7, np.uint8), halves, thermal(rng, -12.0)):
        assert not warm_in(raw.astype(raw.dtype if raw.dtype == np.uint8 else np.float32))


def events(*parts: np.ndarray) -> Events:
    x, y = np.concatenate(parts).T.astype(np.uint16)
    return Events(x, y, np.arange(len(x)), (x % 2).astype(np.uint8), 324, 243)  # no multiples of the cell


def moving_in(raw: Events) -> list[Region2D]:
    return moving.propose("event", Snapshot({"event": camera_view(raw, "event", "event")}))


def test_moving_things_stand_out_of_noise_and_hot_pixels(rng: np.random.Generator) -> None:
    noise = rng.integers(0, (324, 243), (2000, 2))
    thing, edge = rng.integers((50, 60), (110, 100), (3000, 2)), rng.integers((290, 200), (324, 243), (2000, 2))
    found = moving_in(events(noise, thing, edge, np.full((5000, 2), 200)))
    assert [region.proposer for region in found] == ["moving", "moving"]
    for region, box in zip(found, (Rectangle(50, 60, 110, 100), Rectangle(290, 200, 324, 243)), strict=True):
        assert region.box.overlap(box) > 0.6
        assert region.box.within(Rectangle(0, 0, 324, 243)) == region.box


def test_camera_that_moves_is_no_thing(rng: np.random.Generator) -> None:
    everywhere = rng.integers(0, (324, 243), (30_000, 2))
    thing = rng.integers((50, 60), (110, 100), (3000, 2))
    assert not moving_in(events(everywhere, thing))
    assert not moving_in(events(everywhere[:1]))
