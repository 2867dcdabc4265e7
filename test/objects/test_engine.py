"""Things are found, followed and recognised, whatever is alive: with stand-ins for the encoders, and real geometry."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.geometry import Camera, FrameTree, Transform
from omnibind_core.modalities import Doubt
from omnibind_core.objects.engine import ObjectEngine, readings
from omnibind_core.objects.regions import Rectangle, Region2D, Region3D, Volume
from omnibind_core.objects.rig import BODY, Reading, Rig
from omnibind_core.objects.snapshot import Snapshot
from omnibind_core.objects.turns import Pair, Seen, Turns
from omnibind_core.objects.types import ObjectPrediction, ObjectSettings
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.encoding import Token
from omnibind_core.runtime.sensor import Item
from omnibind_core.runtime.types import Encoded, SensorConfig

S = 1_000_000_000
TICK = S // 5
COLOURS = {"red": 0, "green": 1, "blue": 2}
LABELS = (*COLOURS, "hot")
AHEAD = BODY.inverse()


class Model:
    """Says of a picture its colour, of warmth that it is hot, and of points how high they are: low ones are red."""

    def __init__(self) -> None:
        self.labels = SimpleNamespace(names=LABELS)
        self.threshold = 0.3
        self.processed: list[str] = []
        self.batches: list[list[str]] = []
        self.asked = 0
        self.fail_on = ""
        self.fail_in_batch = False

    def process(self, modality: str, raw: Any) -> np.ndarray:
        self.processed.append(modality)
        if modality == self.fail_on:
            raise InvalidInputError(modality, "a stand-in that fails", "none")
        says = np.full(4, 0.05, np.float32)
        if modality == "image":
            colour = raw.reshape(-1, 3).mean(axis=0) / 255
            says[:3] += colour - 0.8 * colour.min()
        elif modality == "thermal":
            says[3] += raw.mean() > 30
        elif modality == "point_cloud":
            says[int(np.ptp(raw[:, 2]) > 0.75)] += 1
        return np.tile(says, (3 if modality == "point_cloud" else 1, 1))

    def embed(self, items: Any) -> np.ndarray:
        self.batches.append([modality for modality, _ in items])
        if self.fail_in_batch and len(items) > 1:
            raise RuntimeError("one of them broke")
        rows = np.stack([views.mean(axis=0) for _, views in items])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def recognise(self, kinds: Any, embeddings: np.ndarray, doubts: Any = None) -> Any:
        self.asked += 1
        speaks = np.array([doubt is None or not doubt.excludes for doubt in doubts or [None] * len(kinds)])
        weights = speaks / max(speaks.sum(), 1)

        def probabilities(rows: np.ndarray) -> np.ndarray:
            shares = np.exp(5 * rows[..., : len(self.labels.names)])
            return shares / shares.sum(axis=-1, keepdims=True)

        fused = weights @ embeddings
        rows = np.vstack([fused, embeddings])
        return SimpleNamespace(
            embedding=fused.astype(np.float32),
            weights=weights.astype(np.float32),
            similarities=rows.astype(np.float32),
            probabilities=probabilities(rows).astype(np.float32),
            without=probabilities(embeddings).astype(np.float32),
            familiarity=np.full(len(kinds), np.nan, np.float32),
        )


class World:
    """Coloured boxes in front of a camera, a thermal camera and a LiDAR at the origin of ``map``.

    Args:
        things: Centre, side and colour of each.
    """

    def __init__(self, *things: tuple[tuple[float, float, float], float, str], **settings: Any) -> None:
        tree = FrameTree()
        for frame, transform in (("eyes", AHEAD), ("lidar", Transform.identity())):
            tree.add("map", frame, transform)
        self.rig = Rig("map", tree)
        for name in ("camera", "thermal"):
            self.rig.cameras[name] = Camera(320, 240, (160, 160), (159.5, 119.5))
        self.things = [Volume(np.array(at), np.full(3, side), np.eye(3), 1e-4 * np.eye(3)) for at, side, _ in things]
        self.colours = [colour for _, _, colour in things]
        self.model = Model()
        self.engine = ObjectEngine(self.model, self.rig, ObjectSettings(**{"propose": (), "confirm": 1, **settings}))
        self.now = 0

    def box(self, number: int) -> Rectangle:
        pixels = self.rig.cameras["camera"].project(AHEAD.inverse()(self.things[number].corners))[0] + 0.5
        return Rectangle(*pixels.min(axis=0).tolist(), *pixels.max(axis=0).tolist())

    def reading(self, name: str, kind: str, raw: Any, frame: str = "eyes", **given: Any) -> Reading:
        return Reading(name, kind, raw, self.now, frame, **given)

    def readings(self, *names: str) -> dict[str, Reading]:
        picture = np.random.default_rng(0).integers(90, 110, (240, 320, 3)).astype(np.uint8)
        warmth = np.full((240, 320), 20, np.float32) + np.arange(320, dtype=np.float32) / 100
        points = []
        for number, (thing, colour) in enumerate(zip(self.things, self.colours, strict=True)):
            left, top, right, bottom = (round(edge) for edge in self.box(number))
            picture[top:bottom, left:right] //= 8
            picture[top:bottom, left:right, COLOURS[colour]] = 200
            warmth[top:bottom, left:right] += 20
            front = (np.random.default_rng(number).random((400, 3)) - 0.5) * (0.02, *thing.size[1:] * 0.98)
            points.append(thing.centre - (thing.size[0] / 2 - 0.02, 0, 0) + front)
        every = {
            "camera": self.reading("camera", "image", picture),
            "thermal": self.reading("thermal", "thermal", warmth),
            "lidar": self.reading("lidar", "point_cloud", np.concatenate(points).astype(np.float32), "lidar"),
        }
        return {name: every[name] for name in names}

    def detected(self, *numbers: int, sensor: str = "camera", late: int = 0) -> list[Region2D]:
        return [Region2D(sensor, self.box(number), self.now - late, 0.9, "detector") for number in numbers]

    def found(self, *numbers: int) -> list[Region3D]:
        return [Region3D(self.things[number], self.now, "", 0.9, "boxes") for number in numbers]

    def tick(self, *names: str, others: dict[str, Reading] | None = None, **given: Any) -> list[ObjectPrediction]:
        told = self.engine.perceive(self.now, self.readings(*names) | (others or {}), given.pop("absent", {}), **given)
        self.now += TICK
        return told


ALL = ("camera", "thermal", "lidar")
NEAR = ((3.0, 0.8, 0.0), 0.6, "red")
FAR = ((4.0, -1.2, 0.0), 0.8, "blue")


def shares(thing: ObjectPrediction) -> dict[str, str]:
    return {share.name: share.label for share in thing.prediction.sensors}


def test_things_have_places_labels_and_a_share_of_every_sensor_that_sees_them() -> None:
    world = World(NEAR, FAR)
    world.engine.detect(world.detected(0, 1))
    near, far = world.tick(*ALL, absent={"event": "switched off"})
    assert (near.id, far.id) == (1, 2)
    assert near.volume.centre == pytest.approx(world.things[0].centre, abs=0.15)
    assert shares(near) == {"camera": "red", "thermal": "hot", "lidar": "red"}
    assert shares(far) == {"camera": "blue", "thermal": "hot", "lidar": "green"}
    assert near.prediction.labels[0] == near.prediction.label
    assert near.sights["event"] == Sight(reason="switched off")
    assert near.sights["camera"].seen
    assert near.proposers == ("detector",)
    assert near.seen_ns == 0
    assert [sorted(batch) for batch in world.model.batches] == [sorted(2 * ["image", "thermal", "point_cloud"])]


def test_ids_and_labels_stay_when_the_camera_that_found_a_thing_dies_and_others_see_it() -> None:
    world = World(NEAR, forget=1.0)
    world.engine.detect(world.detected(0))
    assert world.tick(*ALL)[0].prediction.label == "red"
    for _ in range(20):
        told = world.tick("thermal", "lidar", absent={"camera": "silent"})
    assert [thing.id for thing in told] == [1]
    assert shares(told[0]) == {"thermal": "hot", "lidar": "red"}
    assert told[0].sights["camera"].reason == "silent"
    assert told[0].proposers == ()


def test_a_camera_alone_goes_on_while_a_thing_looks_as_it_did_and_with_its_detector_for_ever() -> None:
    world = World(NEAR, forget=1.0)
    world.engine.detect(world.detected(0))
    world.tick(*ALL)
    told = [world.tick("camera") for _ in range(20)]
    assert [len(things) for things in told] == [1] * 20
    assert shares(told[-1][0]) == {"camera": "red"}
    world.colours[0] = "blue"  # another thing, or what was behind
    told = [world.tick("camera") for _ in range(8)]
    assert [len(things) for things in told] == [1] * 5 + [0] * 3  # the last look was at most a quarter of a second old
    assert shares(told[4][0]) == {"camera": "red"}  # what does not look like it is not asked
    world.engine.detect(world.detected(0))
    told = [world.tick("camera")]
    assert [(thing.id, thing.prediction.label) for thing in told[0]] == [(2, "blue")]
    for colour in ("blue", "green") * 10:
        world.colours[0] = colour
        world.engine.detect(world.detected(0))
        told.append(world.tick("camera"))
    assert [thing.id for thing in told[-1]] == [2]


def test_a_lost_double_of_a_thing_that_is_found_is_forgotten() -> None:
    world = World(NEAR, forget=1.0)
    world.engine.detect(world.detected(0))
    world.tick(*ALL)
    double = world.engine._tracker._begin(world.engine._finder.given(world.found(0), Snapshot({})))  # by another of old
    world.engine._tracker._tracks.append(double)
    for _ in range(8):
        world.engine.detect(world.detected(0))
        told = world.tick("camera")
    assert len(told) == 1


def test_own_proposals_alone_find_what_stands_in_a_cloud() -> None:
    world = World(NEAR, FAR, propose=("clusters",), confirm=2)
    assert world.tick("camera", "lidar") == []
    told = world.tick("camera", "lidar")
    assert [shares(thing)["camera"] for thing in told] == ["red", "blue"] or [
        shares(thing)["camera"] for thing in told
    ] == ["blue", "red"]
    assert all(thing.proposers == ("clusters",) for thing in told)


def test_a_detection_that_came_late_is_placed_where_the_robot_was_then() -> None:
    world = World(NEAR)
    for now, angle in ((0, 0.0), (TICK, 0.2)):  # the robot turns
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        world.rig.tree.add("map", "turning", Transform(turn, np.zeros(3)), now)
    world.rig.tree.add("turning", "head", AHEAD)
    found = world.detected(0)
    world.now = TICK
    world.engine.detect(found)
    camera = replace(world.readings("camera")["camera"], frame="head")
    told = world.tick("lidar", others={"camera": camera})
    assert told[0].volume.centre == pytest.approx(world.things[0].centre, abs=0.15)
    assert told[0].sights["camera"].box is not None
    assert abs(told[0].sights["camera"].box.centre[0] - world.box(0).centre[0]) > 20


def test_given_things_are_cut_out_where_they_are_given() -> None:
    world = World(NEAR, FAR)
    given = {"b": world.detected(1), "a": [*world.found(0), *world.detected(0)]}
    told = world.tick("camera", "lidar", boxes=given)
    assert [(thing.id, thing.given, shares(thing)["camera"]) for thing in told] == [(1, "b", "blue"), (2, "a", "red")]
    assert told[0].sights["camera"].box == world.box(1)
    again = world.tick("lidar", boxes=given)  # the camera is dead: one is given in space, too
    assert [(thing.id, thing.given, sorted(shares(thing))) for thing in again] == [
        (1, "b", ["lidar"]),
        (2, "a", ["lidar"]),
    ]


def test_touch_is_of_the_smallest_thing_at_the_hand_and_sound_of_none() -> None:
    world = World(((3.0, 0.8, 0.0), 2.0, "green"), NEAR)
    world.rig.tree.add("map", "hand", Transform(np.eye(3), np.array([2.68, 0.8, 0.0])))
    token = np.array([0, 0, 0, 1], np.float32)
    touch = world.reading("skin", "touch", Encoded("embedding", token), "hand", token=token)
    others = {
        "skin": touch,
        "ear": world.reading("ear", "audio", None, ""),
        "radar": world.reading("radar", "radar", 0),
    }
    world.engine.detect(world.found(0, 1))
    told = world.tick("camera", others=others)
    assert shares(told[1]) == {"camera": "red", "skin": "hot"}
    assert shares(told[0]).keys() == {"camera"}
    assert told[0].sights["skin"].reason == "touches another thing"
    assert told[0].sights["ear"].reason == "hears the whole scene"
    assert "radar" in told[0].sights["radar"].reason
    asked = world.model.asked
    world.tick("camera", others={"skin": replace(touch, stamp_ns=world.now)})  # the same item
    assert world.model.asked == asked
    away = replace(touch, doubt=Doubt("no contact", empty=True))
    assert "no contact" in world.tick("camera", others={"skin": away})[0].sights["skin"].reason


def test_a_sensor_without_geometry_or_with_an_excluding_doubt_takes_no_part() -> None:
    world = World(NEAR)
    world.rig.cameras["camera"] = Camera(640, 480, (160, 160), (319.5, 239.5))
    black = replace(world.readings("thermal")["thermal"], doubt=Doubt("a constant picture"))
    world.engine.detect(world.found(0))
    told = world.tick("camera", "lidar", others={"thermal": black})
    assert shares(told[0]).keys() == {"lidar"}
    assert "320 x 240" in told[0].sights["camera"].reason
    assert "constant" in told[0].sights["thermal"].reason
    assert "320 x 240" in world.engine.rejections["camera"]
    assert world.engine.counters["rejected"] == 1


def test_what_is_doubted_of_a_crop_counts_nothing_and_a_doubt_of_the_whole_counts_little() -> None:
    world = World(NEAR)
    world.engine.detect(world.detected(0))
    readings = world.readings(*ALL)
    readings["thermal"].raw[:] = 20 + np.arange(240)[:, None] * 0.001  # without contrast in the box
    readings["camera"] = replace(readings["camera"], doubt=Doubt("almost black", excludes=False))
    readings["lidar"] = replace(readings["lidar"], doubt=Doubt("a whole room", excludes=False))
    found = {share.name: share for share in world.tick(others=readings)[0].prediction.sensors}
    assert found["thermal"].doubt is not None
    assert found["thermal"].weight == 0
    assert found["camera"].doubt is not None
    assert found["lidar"].doubt is None


def test_detections_that_cannot_be_are_counted_and_name_what_is_wrong() -> None:
    world = World(NEAR)
    good = world.detected(0)
    wrong = {
        "outside": Region2D("camera", Rectangle(400, 0, 500, 50), 0, 0.9, "outside"),
        "dead": Region2D("thermal", Rectangle(0, 0, 50, 50), 0, 0.9, "dead"),
        "old": Region2D("camera", Rectangle(0, 0, 50, 50), -S, 0.9, "old"),
        "early": Region2D("camera", Rectangle(0, 0, 50, 50), S, 0.9, "early"),
        "unsure": Region2D("camera", Rectangle(0, 0, 50, 50), 0, float("nan"), "unsure"),
    }
    world.engine.detect([*good, *wrong.values()])
    assert len(world.tick("camera", "lidar", absent={"thermal": "silent for 3 s"})) == 1
    reasons = world.engine.rejections
    assert reasons.keys() == wrong.keys()
    assert "320 x 240" in reasons["outside"]
    assert "silent for 3 s" in reasons["dead"]
    assert "1.00 s before" in reasons["old"]
    assert "1.00 s after" in reasons["early"]
    assert "nan" in reasons["unsure"]
    assert world.engine.counters["rejected"] == 5


def test_of_ten_thousand_detections_the_surest_are_looked_at() -> None:
    world = World(NEAR, max_regions=20)
    world.engine.detect(world.found(0))
    spots = np.random.default_rng(0).uniform(0, 200, (10_000, 2)).tolist()
    world.engine.detect(
        [
            Region2D("camera", Rectangle(x, y, x + 30, y + 30), 0, 0.5 + number / 1e5, "many")
            for number, (x, y) in enumerate(spots)
        ]
    )
    told = world.tick("camera", "lidar")
    assert world.engine.counters["regions"] == 20
    assert world.engine.counters["dropped"] == 10_001 - 20
    assert any("boxes" in thing.proposers for thing in told)


def test_what_all_sensors_say_takes_the_place_of_what_the_first_said() -> None:
    world = World(NEAR, max_crops=1, refresh=100.0)
    for names in (("thermal",), ("thermal", "camera"), ("thermal", "camera", "lidar"), ("thermal", "camera", "lidar")):
        world.engine.detect(world.found(0))
        told = world.tick(*names)
    alone = World(NEAR)
    alone.engine.detect(alone.found(0))
    assert told[0].prediction.scores == pytest.approx(alone.tick(*ALL)[0].prediction.scores, abs=1e-6)


def test_what_fails_takes_nobody_with_it(caplog: pytest.LogCaptureFixture) -> None:
    world = World(NEAR)
    world.model.fail_on, world.model.fail_in_batch = "thermal", True
    world.engine.detect(world.detected(0))
    told = world.tick(*ALL)
    assert shares(told[0]).keys() == {"camera", "lidar"}
    assert "stand-in" in told[0].sights["thermal"].reason
    assert world.model.batches == [["image", "point_cloud"], ["image"], ["point_cloud"]]
    assert world.engine.counters["rejected"] == 1


def test_a_swapped_vocabulary_is_used_at_once_and_begins_anew() -> None:
    world = World(NEAR)
    world.engine.detect(world.detected(0))
    world.tick("camera")
    world.model.labels = SimpleNamespace(names=("tree", "stone"))
    prediction = world.tick("camera")[0].prediction
    assert prediction.label == "tree"
    assert set(prediction.labels) == {"tree", "stone"}
    assert world.model.batches == [["image"]]


def test_without_anybody_who_says_anything_the_last_word_stands() -> None:
    world = World(NEAR)
    world.engine.detect(world.detected(0))
    before = world.tick("camera")[0].prediction
    after = world.tick()[0].prediction
    assert (after.label, after.sensors) == (before.label, ())
    assert after.confidence == before.confidence
    world = World(NEAR)
    world.engine.detect(world.found(0))
    nothing = world.tick()[0].prediction
    assert (nothing.label, nothing.unknown, nothing.labels, nothing.sensors) == ("", True, (), ())


def test_time_that_goes_back_forgets_all_but_the_count_of_ids() -> None:
    world = World(NEAR)
    world.engine.detect(world.detected(0))
    world.tick("camera")
    world.tick("camera")
    world.now = 0
    world.engine.detect(world.detected(0))
    told = world.tick("camera")
    assert [thing.id for thing in told] == [2]
    assert len(world.model.batches) == 2


def test_a_still_thing_is_encoded_when_its_embedding_is_old_and_a_moving_one_when_it_has_moved() -> None:
    world = World(NEAR, refresh=1.0, moved=0.5)
    for _ in range(11):
        world.engine.detect(world.detected(0))
        world.tick("camera")
    assert len(world.model.batches) == 3  # at 0, 1 and 2 s
    assert world.model.asked == 3
    for step in range(4):
        world.things[0] = replace(world.things[0], centre=world.things[0].centre - (0, 0.2 * step, 0))
        world.engine.detect(world.detected(0))
        told = world.tick("camera")
    assert 4 <= len(world.model.batches) <= 6
    assert [thing.id for thing in told] == [1]


def test_a_tick_costs_no_more_than_it_may_and_everybody_gets_a_turn() -> None:
    things = [((4.0, -3 + 1.2 * number, 0.0), 0.7, "red") for number in range(6)]
    world = World(*things, max_crops=5, refresh=100.0)
    told = []
    for _ in range(8):
        world.engine.detect(world.found(*range(6)))
        told.append(world.tick(*ALL))
    sizes = [sum(3 if kind == "point_cloud" else 1 for kind in batch) for batch in world.model.batches]
    assert max(sizes) <= 5
    assert sum(sizes) == 6 * 5
    assert all(len(thing.prediction.sensors) == 3 for thing in told[-1])
    assert [bool(thing.prediction.sensors) for thing in told[0]].count(True) == 5  # each by one sensor first
    assert all(thing.prediction.label for thing in told[1])
    assert {thing.prediction.label for thing in told[0] if thing.prediction.sensors} == {"red"}
    assert world.engine.counters["encoded"] == 18
    assert world.engine.counters["skipped"] > 0


def test_no_more_things_than_allowed_are_encoded_at_a_tick() -> None:
    world = World(NEAR, FAR, ((5.0, 2.5, 0.0), 0.9, "green"), max_objects=1)
    told = []
    for _ in range(3):
        world.engine.detect(world.found(0, 1, 2))
        told.append(world.tick("camera", "thermal"))
    assert [sum(bool(thing.prediction.label) for thing in things) for things in told] == [1, 2, 3]


def test_who_waits_is_first_after_a_while_however_many_new_things_come() -> None:
    turns = Turns(ObjectSettings(refresh=1.0))

    def seen(id: int, stamp_ns: int) -> Seen:
        reading = Reading("camera", "image", np.zeros((240, 320, 3), np.uint8), stamp_ns, "eyes")
        view = SimpleNamespace(reading=reading)
        where = Volume(np.array([4.0, 0, 0]), np.ones(3), np.eye(3), np.eye(3))
        return Seen(Pair(id, "camera"), view, where, Sight(Rectangle(0, 0, 50, 50)), 0.0)  # type: ignore[arg-type]

    def take(one: Seen) -> None:
        turns.keep(one, Token(SensorConfig("camera", "image"), (Item(0, 0, None, None),)))

    take(seen(1, 0))
    waited = 0
    for tick in itertools.count(5):
        now = tick * TICK
        first = turns.order([seen(1, now), seen(100 + tick, now), seen(200 + tick, now)])[0]
        take(first)
        if first.pair.id == 1:
            break
        waited += 1
    assert 5 < waited <= 11


def test_what_is_kept_of_a_thing_is_no_item_of_a_sensor() -> None:
    world = World(NEAR)
    world.engine.detect(world.detected(0))
    readings = world.readings(*ALL)
    raws = {name: weakref.ref(reading.raw) for name, reading in readings.items()}
    world.tick(others=readings)
    readings.clear()
    del world.model
    gc.collect()
    assert {name: ref() is None for name, ref in raws.items()} == dict.fromkeys(ALL, True)


def test_readings_of_tokens_have_their_frames() -> None:
    item = Item(7, 7, None, "header", raw=np.zeros((4, 4, 3), np.uint8))
    token = Token(SensorConfig("camera", "image"), (item,), embedding=np.ones(4, np.float32))
    found = readings([token], lambda item: (f"frame of {item.header}", True))["camera"]
    assert (found.frame, found.optical, found.stamp_ns) == ("frame of header", True, 7)
    assert found.raw is item.raw
    assert found.token is token.embedding


def test_detections_may_come_from_another_thread_while_a_tick_is_computed() -> None:
    world = World(NEAR, FAR)
    stop = threading.Event()

    def detect() -> None:
        while not stop.is_set():
            world.engine.detect(world.found(0, 1))
            world.engine.reject("detector", "nonsense")

    thread = threading.Thread(target=detect)
    thread.start()
    try:
        told = [world.tick("camera") for _ in range(20)]
    finally:
        stop.set()
        thread.join()
    assert [thing.id for thing in told[-1]] == [1, 2]
    assert world.engine.counters["rejected"] > 0


@pytest.mark.parametrize(
    "wrong", [{"max_crops": 0}, {"refresh": 0.0}, {"overlap": 1.5}, {"propose": ("x",)}, {"touch_margin": -1.0}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)) if "propose" not in wrong else "proposer"):
        ObjectSettings(**wrong)
