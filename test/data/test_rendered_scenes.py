"""Rendered rooms and streets: what calibrated sensors see of made-up boxes, and where the truth says they are."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("open3d")

from omnibind_core.data.rendering.demo_objects import Furniture
from omnibind_core.data.rendering.scenes import catalogue, composites, cutouts, layout, robot, surfaces, truth, views
from omnibind_core.data.rendering.scenes.layout import Built, Scene, Thing
from omnibind_core.data.rendering.scenes.places import Kind
from omnibind_core.data.rendering.scenes.stage import NOTHING, Body, Stage
from omnibind_core.data.rendering.scenes.surfaces import Paint, Surface
from omnibind_core.errors import DataError
from omnibind_core.geometry import Camera, Transform
from omnibind_core.modalities.base import Events

LENS = robot.MOUNTS["camera"].camera
assert LENS is not None
CAMERA, SMALL = LENS.resized(320, 240), LENS.resized(128, 96)
RED = Paint((0.8, 0.1, 0.1))


def crate(size: tuple[float, float, float] = (0.6, 0.4, 0.8), paint: Paint = RED) -> Surface:
    return surfaces.box((0, 0, 0), size, paint).standing(size)


def thing(x: float, y: float, warm: float = 20.5, label: str = "crate", surface: Surface | None = None) -> Thing:
    body = crate() if surface is None else surface
    size = body.size.astype(np.float64)
    return Thing(Built(label, body, body, warm, False, warm > 30), np.array([x, y, size[2] / 2]), size, 0.4)


def furnished(*things: Thing, kind: Kind = "rooms", level: float = 1.0) -> Scene:
    scene = layout.assemble(kind, things, [], np.random.default_rng(0))
    return replace(scene, light=replace(scene.light, level=level))


def pose(sensor: str, seconds: float = 0.0) -> Transform:
    return robot.Motion().pose(seconds) @ robot.MOUNTS[sensor].pose


def within(points: NDArray[np.floating], one: Thing, seconds: float, margin: float) -> NDArray[np.bool_]:
    turn = np.array([[math.cos(one.yaw), -math.sin(one.yaw), 0], [math.sin(one.yaw), math.cos(one.yaw), 0], [0, 0, 1]])
    return np.asarray((np.abs((points - one.at(seconds)) @ turn) <= one.size / 2 + margin).all(axis=1))


def test_points_of_a_thing_are_in_its_boxes() -> None:
    still, moves = thing(3.0, 0.8), thing(3.5, -1.0, warm=34.0)
    moves = Thing(moves.built, moves.centre, moves.size, moves.yaw, (0.0, 0.4, 0.0))
    scene = furnished(still, moves)
    for seconds in (0.0, 1.5):
        at = pose("lidar", seconds)
        points, bodies = views.scan(scene, robot.Beams(), at, seconds, np.random.default_rng(1))
        sight = views.look(scene, CAMERA, pose("camera", seconds), seconds, fine=False)
        for number, one in enumerate(scene.things):
            own = at(points[bodies == number])
            assert len(own) > 100
            assert within(own, one, seconds, 0.05).all()
            box = truth.box(sight, CAMERA, pose("camera", seconds), one, number, seconds)
            assert box is not None
            pixels, seen = CAMERA.project(pose("camera", seconds).inverse()(own))
            left, top, right, bottom = box
            u, v = (pixels[seen] + 0.5).T
            assert seen.mean() > 0.9
            # The LiDAR is 15 cm higher than the camera: it sees a little more of the top.
            around = (u > left - 2) & (u < right + 2) & (v > top - 6) & (v < bottom + 2)
            assert around.all()
            assert u.max() - u.min() > 0.8 * (right - left)


def test_what_is_hidden_has_no_box() -> None:
    behind, before = thing(4.0, 0.0), thing(2.0, 0.0, surface=crate((0.8, 0.8, 1.6)))
    scene = furnished(behind, before)
    sight = views.look(scene, SMALL, pose("camera"), 0.0)
    assert truth.box(sight, SMALL, pose("camera"), behind, 0, 0.0) is None
    assert truth.box(sight, SMALL, pose("camera"), before, 1, 0.0) is not None
    beside = furnished(thing(4.0, 9.0))
    sight = views.look(beside, SMALL, pose("camera"), 0.0)
    assert truth.box(sight, SMALL, pose("camera"), beside.things[0], 0, 0.0) is None


def test_colours_and_shadows() -> None:
    scene = furnished(thing(3.0, 0.0))
    sight = views.look(scene, SMALL, pose("camera"), 0.0)
    picture = views.photograph(scene, sight, 0.0, np.random.default_rng(0))
    assert picture.shape == (96, 128, 3)
    own = picture[sight.bodies == 0].mean(axis=0)
    assert own[0] > 2 * own[1]
    lit, unlit = (views.colours(scene, sight, 0.0, shadows=shadows).mean(axis=-1) for shadows in (True, False))
    assert (lit < unlit - 0.05).any()
    assert (lit <= unlit + 1e-5).all()


def test_little_light_is_amplified_with_its_noise() -> None:
    pictures = []
    for level in (1.0, 0.1, 0.01):
        scene = furnished(thing(3.0, 0.0), level=level)
        sight = views.look(scene, SMALL, pose("camera"), 0.0)
        same = (views.photograph(scene, sight, 0.0, np.random.default_rng(seed)).astype(float) for seed in (0, 1))
        first, second = same
        pictures.append((first.mean(), (first - second).std()))
    (bright, fine), (dim, grainy), (dark, worse) = pictures
    assert abs(bright - dim) < 3
    assert dark < 0.7 * bright  # it can't be amplified any more
    assert worse > 2 * grainy > 3 * fine


def test_samples_are_shown_where_their_board_is() -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, 32, (2, 4000))
    sample = Events(
        places[0].astype(np.uint16),
        (places[1] // 2).astype(np.uint16),  # in the upper half
        np.sort(rng.integers(0, 200_000, 4000)),
        np.ones(4000, np.uint8),
        32,
        32,
    )
    cloud = rng.uniform(-1, 1, (500, 3)).astype(np.float32) * [3, 1, 5]
    raw = {
        "image": np.full((64, 64, 3), (0, 200, 0), np.uint8),
        "thermal": np.full((20, 20), 40.0, np.float32),
        "event": sample,
        "point_cloud": cloud,
        "touch": np.zeros((28, 50), np.uint8),
    }
    built = composites.build("cup", raw, rng)
    assert [built.seen_by(name) for name in ("image", "thermal", "event", "point_cloud", "audio")] == [True] * 4 + [
        False
    ]
    size = built.shape.size.astype(np.float64)
    board = Thing(built, np.array([2.5, 0.3, size[2] / 2 + 0.5]), size, -math.pi / 2)
    unseen = composites.build("pen", {"image": raw["image"], "event": sample}, rng)
    other = Thing(unseen, np.array([2.5, -0.9, size[2] / 2 + 0.5]), unseen.shape.size.astype(np.float64), -math.pi / 2)
    scene = furnished(board, other)
    sights = {}
    for name in ("camera", "thermal", "event_camera"):
        lens = robot.MOUNTS[name].camera
        assert lens is not None
        sights[name] = lens, pose(name), views.look(scene, lens, pose(name), 0.0)
    lens, at, sight = sights["camera"]
    picture = views.photograph(scene, sight, 0.0, rng)
    assert picture[sight.bodies == 0].mean(axis=0).argmax() == 1
    lens, at, sight = sights["thermal"]
    celsius = views.temperatures(scene, sight, lens, at, 0.0, rng)
    assert np.median(celsius[sight.bodies == 0]) == pytest.approx(40, abs=0.5)
    assert np.median(celsius[sight.bodies == 1]) == pytest.approx(20.5, abs=0.5)
    lens, at, sight = sights["event_camera"]
    eye = views.EventCamera(scene, lens, rng)
    eye.look(at, 0.0)
    found = eye.look(pose("event_camera", 0.05), 0.05)
    own = truth.box(sight, lens, at, board, 0, 0.0)
    assert own is not None
    left, top, right, bottom = own
    inside = (found.x >= left) & (found.x < right) & (found.y >= top) & (found.y < bottom)
    assert inside.sum() > 300
    assert (found.y[inside] < (top + bottom) / 2 + 2).all()
    points, bodies = views.scan(scene, robot.Beams(), pose("lidar"), 0.0, rng)
    assert 400 < (bodies == 0).sum() <= 500
    assert within(pose("lidar")(points[bodies == 0]), board, 0.0, 0.01).all()
    assert not (bodies == 1).any()


def test_edges_are_smooth() -> None:
    scene = furnished(thing(3.0, 0.0))
    sight = views.look(scene, SMALL, pose("camera"), 0.0)
    assert len(sight.rays) > 128 * 96
    share = sight.mean((sight.hits.body == 0).astype(np.float32))
    assert ((share > 0.1) & (share < 0.9)).any()
    assert ((share == 0) | (share == 1)).mean() > 0.9


def test_temperatures_are_those_of_the_things() -> None:
    lens = robot.MOUNTS["thermal"].camera
    assert lens is not None
    scene = furnished(thing(3.0, 0.8, warm=34.0), thing(3.0, -0.8))
    sight = views.look(scene, lens, pose("thermal"), 0.0)
    picture = views.temperatures(scene, sight, lens, pose("thermal"), 0.0, np.random.default_rng(0))
    warm, cool = (float(np.median(picture[sight.bodies == number])) for number in (0, 1))
    assert 28 < warm < 35
    assert abs(cool - 20.5) < 1
    outdoors = furnished(thing(8.0, 0.0), kind="streets")
    sky = views.look(outdoors, lens, Transform(pose("thermal").rotation, np.array([0, 0, 60.0])), 0.0)
    assert sky.bodies[0, 80] == NOTHING
    assert views.temperatures(outdoors, sky, lens, pose("thermal"), 0.0, np.random.default_rng(0))[0, 80] < 0


def test_events_are_where_edges_move() -> None:
    scene = furnished(thing(3.0, 0.0))
    small = Camera(64, 48, (50.0, 50.0), (31.5, 23.5))
    eye = views.EventCamera(scene, small, np.random.default_rng(0))
    assert not len(eye.look(pose("camera"), 0.0))
    assert not len(eye.look(pose("camera"), 0.1))
    found = eye.look(pose("camera", 0.3), 0.15)
    assert len(found)
    assert (np.diff(found.t) >= 0).all()
    assert 0 <= found.t[0] <= found.t[-1] < 50_000
    assert {0, 1} == set(found.p.tolist())


def test_nearest_body_wins_wherever_it_moves() -> None:
    front = Body(0, crate().moved((1, 0, 0)), (0.0, 1.0, 0.0))
    stage = Stage([front, Body(1, crate().moved((3, 0, 0)))])
    ray = np.array([[1, 0, 0]], np.float32)
    eye = np.array([0, 0, 0.4], np.float32)
    assert stage.cast(eye, ray).body.tolist() == [0]
    later = stage.cast(eye, ray, 2.0)
    assert later.body.tolist() == [1]
    assert later.distance[0] == pytest.approx(2.7)
    assert later.normal[0].tolist() == pytest.approx([-1, 0, 0])
    away = stage.cast(eye, -ray)
    assert away.body.tolist() == [NOTHING]
    assert np.isinf(away.distance[0])
    point, up = np.array([[0, 0, 0.4]], np.float32), np.array([[0, 0, 1]], np.float32)
    for seconds, light, free in ((0.0, 2, False), (2.0, 2, True), (2.0, 9, False)):
        assert stage.free(point, up, np.array([[light, 0, 0]], np.float32), seconds).tolist() == [free]


def test_texture_is_the_right_way_up(tmp_path: Path) -> None:
    picture = np.zeros((8, 4, 3), np.uint8)
    picture[:4] = 255  # white above black
    cv2.imwrite(str(tmp_path / "two.png"), picture)
    (tmp_path / "two.mtl").write_text("newmtl two\nKd 1 1 1\nmap_Kd two.png\n")
    lines = ["mtllib two.mtl", "usemtl two", "v -1 0 0", "v 1 0 0", "v 1 2 0", "v -1 2 0"]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1", "vn 0 0 1", "f 1/1/1 2/2/1 3/3/1", "f 1/1/1 3/3/1 4/4/1"]
    (tmp_path / "two.obj").write_text("\n".join(lines) + "\n")
    wall = surfaces.read_obj(tmp_path / "two.obj")
    assert wall.size.tolist() == [2, 0, 2]  # y up became z up
    stage = Stage([Body(0, wall)])
    rays = np.array([[0, 1, 0], [0, 1, 0]], np.float32)
    hits = stage.cast(np.array([[0, -1, 1.5], [0, -1, 0.5]], np.float32), rays)
    assert hits.colour.mean(axis=1).tolist() == [1, 0]
    assert hits.normal[0].tolist() == pytest.approx([0, -1, 0])  # its front is towards -y


def test_cutout_has_the_outline_of_its_picture(tmp_path: Path) -> None:
    picture = np.zeros((40, 20, 4), np.uint8)
    picture[:20, :, :] = (0, 0, 255, 255)  # red above, nothing at the bottom left
    picture[20:, 10:, :] = (255, 0, 0, 255)
    body = cutouts.relief(picture, 2.0)
    assert body.size.tolist() == pytest.approx([1, body.size[1], 2], abs=0.01)
    stage = Stage([Body(0, body)])
    eyes = np.array([[-0.25, -3, 1.5], [0.25, -3, 0.5], [-0.25, -3, 0.5]], np.float32)
    hits = stage.cast(eyes, np.tile(np.array([[0, 1, 0]], np.float32), (3, 1)))
    assert hits.body.tolist() == [0, 0, NOTHING]
    assert hits.colour[:2].tolist() == [[1, 0, 0], [0, 0, 1]]
    cv2.imwrite(str(tmp_path / "cutout.png"), np.pad(picture, ((5, 5), (5, 5), (0, 0))))
    assert cutouts.read(tmp_path / "cutout.png").shape == (40, 20, 4)
    cv2.imwrite(str(tmp_path / "opaque.png"), picture[..., :3])
    with pytest.raises(DataError, match=r"opaque.png: cannot be read as a PNG picture with transparency"):
        cutouts.read(tmp_path / "opaque.png")


def test_scenes_have_things_that_stand_apart() -> None:
    kept = [
        Built(f"crate {number}", crate(), crate(), 34.0 if number % 2 else 20.5, False, bool(number % 2))
        for number in range(8)
    ]
    for kind in ("rooms", "streets"):
        scene = layout.compose(kind, kept, 4, 5.0, np.random.default_rng(3))
        again = layout.compose(kind, kept, 4, 5.0, np.random.default_rng(3))
        assert [one.centre.tolist() for one in scene.things] == [one.centre.tolist() for one in again.things]
        assert len(scene.things) == 4
        assert len({one.built.label for one in scene.things}) == 4
        for number, one in enumerate(scene.things):
            assert 0.4 < one.centre[2] < 1.4
            assert np.isclose(np.linalg.norm(one.velocity) > 0, one.built.moves)
            for other in scene.things[:number]:
                for seconds in (0.0, 5.0):
                    assert np.hypot(*(one.at(seconds) - other.at(seconds))[:2]) > 0.6
        points, bodies = views.scan(scene, robot.Beams(), pose("lidar"), 0.0, np.random.default_rng(0))
        assert len(points) > 15_000
        assert {0, 1, 2, 3} <= set(bodies.tolist())


def test_catalogue_keeps_what_belongs_there() -> None:
    bus = Furniture("bus", Path("x"), "bus.obj", (2.5, 9.0, 3.0), "Vehicles")
    lamp = Furniture("lamp", Path("x"), "lamp.obj", (0.4, 0.4, 0.4), "Lights", hangs=True)
    sofa = Furniture("sofa", Path("x"), "sofa.obj", (2.0, 0.9, 0.8), "Living room")
    crates = Furniture("crate", Path("x"), "crate.obj", (0.6, 0.6, 0.6), "Miscellaneous")
    for entry, kinds in ((bus, ["streets"]), (lamp, []), (sofa, ["rooms"]), (crates, ["rooms", "streets"])):
        found = [kind for kind in ("rooms", "streets") if catalogue._kept(entry.name, kind, [entry], [])]
        assert found == kinds, entry.name


def test_table_has_empty_cells(tmp_path: Path) -> None:
    rows = [
        truth.Row(0.0, 0.2, "0", "cup", sensor="camera", left=1.0, top=2.0, right=30.5, bottom=40.0),
        truth.Row(0.0, 0.2, "0", "cup", frame="odom", x=1.25, y=0, z=0, length=1, width=1, height=1, yaw=0.1),
    ]
    truth.write(tmp_path / "objects.csv", rows)
    with (tmp_path / "objects.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert ",".join(read[0]) == (
        "start_s,end_s,id,label,sensor,left,top,right,bottom,frame,x,y,z,length,width,height,yaw"
    )
    assert (read[0]["right"], read[0]["x"], read[0]["frame"]) == ("30.5", "", "")
    assert (read[1]["x"], read[1]["left"], read[1]["yaw"]) == ("1.25", "", "0.1")
