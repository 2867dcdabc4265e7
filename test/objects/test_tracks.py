"""Which regions are one thing, and which things of two ticks are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import Camera, Transform
from omnibind_core.objects import depth
from omnibind_core.objects.matching import Placed, candidate_of, merge
from omnibind_core.objects.proposals.finding import cut_to
from omnibind_core.objects.regions import Candidate, Rectangle, Region2D, Region3D, Volume
from omnibind_core.objects.rig import BODY, Reading, View
from omnibind_core.objects.snapshot import Snapshot
from omnibind_core.objects.tracks import Tracker

S = 1_000_000_000
TICK = S // 5


def volume(x: float, y: float, size: Any = 0.5, along: float = 0.05, z: float = 0.0) -> Volume:
    """A box seen from the origin, whose distance is known to a standard deviation."""
    centre = np.array([x, y, z], float)
    ray = centre / np.linalg.norm(centre)
    spread = 0.05**2 * np.eye(3) + along**2 * np.outer(ray, ray)
    return Volume(centre, np.broadcast_to(np.asarray(size, float), (3,)).copy(), np.eye(3), spread)


def view(sensor: str = "camera", at: tuple[float, float, float] = (0, 0, 0)) -> View:
    reading = Reading(sensor, "image", np.zeros((480, 640, 3), np.uint8), 0, sensor)
    return View(
        reading, Transform(BODY.inverse().rotation, np.array(at, float)), Camera(640, 480, (320, 320), (320, 240))
    )


def shown(where: Volume, by: View) -> Rectangle:
    pixels = by.project(where.corners)[0] + 0.5
    return Rectangle(*pixels.min(axis=0).tolist(), *pixels.max(axis=0).tolist())


def boxed(where: Volume, by: str = "detector", sensor: str = "camera", score: float = 0.9, stamp_ns: int = 0) -> Placed:
    seen = view(sensor)
    return Placed(Region2D(sensor, shown(where, seen), stamp_ns, score, by), where, seen)


def clustered(where: Volume, by: str = "clusters", stamp_ns: int = 0) -> Placed:
    return Placed(Region3D(where, stamp_ns, "lidar", 0.8, by), where)


def candidate(where: Volume, stamp_ns: int, boxes: dict[str, Region2D] | None = None) -> Candidate:
    return Candidate(where, boxes or {}, stamp_ns, 0.9, ("somebody",))


def test_box_and_cluster_of_one_thing_are_one_candidate_at_the_better_known_place() -> None:
    exact = volume(4, 0)
    found = merge([boxed(volume(5, 0, 0.6, along=2.0)), clustered(exact), clustered(volume(4, 2))])
    assert len(found) == 2
    assert found[0].volume is exact
    assert found[0].proposers == ("detector", "clusters")
    assert set(found[0].boxes) == {"camera"}
    assert found[0].score == 0.9


def test_two_boxes_of_one_detector_are_two_things_and_of_two_detectors_one() -> None:
    where, beside = volume(4, 0, along=2.0), volume(4, 0.1, along=2.0)
    assert len(merge([boxed(where), boxed(beside)])) == 2
    found = merge([boxed(where), boxed(beside, by="other", score=0.95)])
    assert len(found) == 1
    assert found[0].boxes["camera"].proposer == "other"


def test_what_stands_in_front_is_another_thing_though_its_picture_is_the_same() -> None:
    near, behind = volume(2, 0, 0.5), volume(6, 0, 1.5)
    assert len(merge([boxed(near), clustered(behind)])) == 2


def test_a_cup_is_no_part_of_the_table_that_it_stands_on() -> None:
    table, cup = volume(4, 0, 1.5), volume(3.8, 0, 0.2, z=0.3)
    assert len(merge([boxed(cup), clustered(table)])) == 2


def test_two_clusters_of_one_chair_are_one_thing_if_a_detector_says_so() -> None:
    seat, back = volume(4, 0, (0.5, 0.5, 0.6)), volume(4.1, 0, (0.3, 0.4, 0.3), z=0.4)
    chair = boxed(volume(4, 0, (0.6, 0.6, 1.2)))
    assert len(merge([clustered(seat), clustered(back)])) == 2
    found = merge([chair, clustered(seat), clustered(back)])
    assert len(found) == 1


def test_boxes_of_two_pictures_without_a_distance_are_one_where_their_rays_meet() -> None:
    where = volume(4, 0, along=2.0)
    one = boxed(where)
    assert len(merge([one, boxed(volume(4.5, 0.1, along=2.0), sensor="thermal", by="warm")])) == 1
    assert len(merge([one, boxed(volume(4, 2.5, along=2.0), sensor="thermal", by="warm")])) == 2


def test_boxes_in_space_are_one_if_they_overlap_or_one_holds_the_middle_of_the_other() -> None:
    whole, part = volume(4, 0, 1.0), volume(4.2, 0.2, 0.7)
    assert len(merge([clustered(whole), clustered(part, by="detector")])) == 1
    assert len(merge([clustered(whole), clustered(volume(4, 1.2, 1.0), by="detector")])) == 2


@pytest.mark.parametrize(("degrees", "candidates"), [(0, 1), (6, 1), (25, 2), (40, 2)])
def test_boxes_without_a_distance_at_other_bearings_are_two_things(degrees: float, candidates: int) -> None:
    turn = np.radians(degrees)
    found = [
        Region2D(sensor, shown(volume(2 * np.cos(by), 2 * np.sin(by)), view(sensor)), 0, 0.9, sensor)
        for sensor, by in (("camera", 0.0), ("thermal", turn))
    ]
    placed = [
        Placed(one, depth.place(one, Snapshot({one.sensor: view(one.sensor)})), view(one.sensor)) for one in found
    ]
    assert all(one.vague for one in placed)
    assert len(merge(placed)) == candidates


def test_the_order_of_the_regions_changes_no_candidate() -> None:
    rng = np.random.default_rng(0)
    regions = []
    for x, y in rng.uniform((2, -3), (8, 3), (12, 2)).tolist():
        regions += [boxed(volume(x, y, along=1.0), score=x / 10), clustered(volume(x, y + 0.05))]

    def told(order: Any) -> set[tuple[Any, ...]]:
        return {(*found.volume.centre, found.score, *sorted(found.proposers)) for found in merge(order)}

    assert told(regions) == told(regions[::-1]) == told([regions[i] for i in rng.permutation(len(regions))])


def follow(tracker: Tracker, ticks: Any, start: int = 0, points: Any = None) -> list[dict[int, np.ndarray]]:
    """Centres by id, tick by tick; a tick is a list of places."""
    told = []
    for number, places in enumerate(ticks, start):
        now = number * TICK
        tracks = tracker.update([candidate(volume(*place), now) for place in places], {}, now, points)
        told.append({track.id: track.state[:3].copy() for track in tracks})
    return told


def test_a_thing_is_told_of_when_it_was_found_twice() -> None:
    told = follow(Tracker(), [[(4, 0)], [(4, 0)], [(4, 0), (4, 3)]])
    assert [sorted(tick) for tick in told] == [[], [1], [1]]


def test_ids_stay_where_two_things_cross() -> None:
    paths = [[(4 + t / 5, -2 + 0.2 * t), (5, 2 - 0.2 * t)] for t in range(21)]
    told = follow(Tracker(), [places if t % 2 else places[::-1] for t, places in enumerate(paths)])
    first = told[1]
    rising = min(first, key=lambda id: first[id][1])
    assert sorted(told[-1]) == sorted(first)
    assert told[-1][rising][1] == pytest.approx(2.0, abs=0.2)


def test_velocity_is_found_and_a_late_detection_is_taken_for_what_was_then() -> None:
    tracker, late = Tracker(), TICK // 2
    for number in range(20):
        now = number * TICK
        place = volume(3 + (now - late) / S, 0)
        tracks = tracker.update([candidate(place, now - late)], {}, now)
    assert tracks[0].state[0] == pytest.approx(3 + now / S, abs=0.1)
    assert tracks[0].state[3] == pytest.approx(1.0, abs=0.1)
    assert tracks[0].seen_ns == now - late


def test_a_thing_is_forgotten_and_its_id_is_never_used_again() -> None:
    tracker = Tracker(forget=1.0)
    told = follow(tracker, [[(4, 0)]] * 3 + [[]] * 6 + [[(4, 0)]] * 2)
    assert [sorted(tick) for tick in told[2:]] == [[1]] * 6 + [[]] * 2 + [[2]]
    tracker.clear()
    assert sorted(follow(tracker, [[(4, 0)]] * 2)[-1]) == [3]


def cloud_of(where: Volume, count: int = 60) -> np.ndarray:
    return where.centre + (np.random.default_rng(0).random((count, 3)) - 0.5) * where.size


def test_points_in_its_box_keep_a_thing_that_nobody_finds_any_more() -> None:
    tracker = Tracker(forget=1.0)
    follow(tracker, [[(4, 0)]] * 3)
    told = follow(tracker, [[]] * 30, 3, cloud_of(volume(4, 0)))
    assert sorted(told[-1]) == [1]
    assert told[-1][1] == pytest.approx(np.array([4, 0, 0]), abs=0.05)


def test_points_of_another_thing_keep_no_double_of_it() -> None:
    tracker = Tracker(forget=1.0)
    follow(tracker, [[(4, 0), (4, 0.2)]] * 3)
    told = follow(tracker, [[(4, 0)]] * 10, 3, cloud_of(volume(4, 0)))
    assert sorted(told[-1]) == [1]


def test_a_wall_through_its_box_does_not_keep_it() -> None:
    y, z = np.meshgrid(np.linspace(-2, 2, 81), np.linspace(-0.3, 2, 50))
    wall = np.stack([np.full(y.size, 4.0), y.ravel(), z.ravel()], axis=1)
    tracker = Tracker(forget=1.0)
    follow(tracker, [[(4, 0)]] * 3)
    assert follow(tracker, [[]] * 10, 3, wall)[-1] == {}


def test_a_box_without_a_distance_goes_to_the_thing_on_its_ray_and_leaves_its_distance() -> None:
    tracker = Tracker(forget=1.0)
    follow(tracker, [[(4, 0), (4, 1.5)]] * 5)
    for number in range(5, 40):
        ray = volume(6, 0, 0.75, along=3.0)
        region = boxed(ray, stamp_ns=number * TICK).region
        assert isinstance(region, Region2D)
        rays = [candidate(ray, number * TICK, {"camera": region})]
        tracks = tracker.update(rays, {"camera": view()}, number * TICK)
    assert [track.id for track in tracks] == [1]
    assert tracks[0].state[:3] == pytest.approx(np.array([4, 0, 0]), abs=0.8)
    assert tracks[0].size == pytest.approx(0.5 * np.ones(3), abs=0.1)


def test_boxes_in_the_picture_decide_between_two_things_along_a_ray() -> None:
    tracker, camera = Tracker(confirm=1), view()
    near, far = volume(3, 0, 0.4, along=1.5), volume(5, 0, 1.6, along=1.5)
    tracker.update([candidate(near, 0), candidate(far, 0)], {"camera": camera}, 0)
    middle = volume(4.0, 0, 0.53, along=1.5)
    region = boxed(near, stamp_ns=TICK).region
    assert isinstance(region, Region2D)
    tracks = tracker.update([candidate(middle, TICK, {"camera": region})], {"camera": camera}, TICK)
    assert [track.hits for track in tracks] == [2, 1]


def test_a_box_that_turns_by_a_quarter_changes_no_size() -> None:
    tracker = Tracker(confirm=1)
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    lying = volume(4, 0, (1.0, 0.4, 0.5))
    turned = Volume(lying.centre, lying.size[[1, 0, 2]], quarter, lying.spread)
    for number in range(6):
        tracks = tracker.update([candidate(turned if number % 2 else lying, number * TICK)], {}, number * TICK)
    assert tracks[0].size == pytest.approx(lying.size)
    assert np.abs(tracks[0].rotation) == pytest.approx(np.eye(3))


def test_a_given_thing_is_where_it_is_given_and_keeps_its_id() -> None:
    tracker = Tracker(forget=1.0)
    first = tracker.hold({"cup": candidate(volume(4, 0), 0), "chair": candidate(volume(4, 2), 0)}, 0)
    assert [(track.id, track.given) for track in first] == [(1, "cup"), (2, "chair")]
    then = tracker.hold({"chair": candidate(volume(4, 2.1), TICK), "cup": None}, TICK)
    assert [(track.id, track.given) for track in then] == [(1, "cup"), (2, "chair")]
    assert then[1].state == pytest.approx(np.array([4, 2.1, 0, 0, 0.5, 0]))
    assert [track.id for track in tracker.hold({"cup": None, "chair": None}, TICK + S)] == [2]


def seen(where: Volume, stamp_ns: int, sensor: str = "camera") -> Candidate:
    """What a detector without a distance says of a thing in a picture."""
    by = view(sensor)
    by = replace(by, reading=replace(by.reading, stamp_ns=stamp_ns))
    region = Region2D(sensor, shown(where, by).within(Rectangle(0, 0, 640, 480)), stamp_ns, 0.9, "detector")
    return candidate_of([Placed(region, depth.place(region, Snapshot({sensor: by})), by)])


def views(stamp_ns: int) -> dict[str, View]:
    by = view()
    return {"camera": replace(by, reading=replace(by.reading, stamp_ns=stamp_ns))}


def test_a_thing_is_not_given_what_a_picture_shows_at_another_bearing() -> None:
    stool = volume(2, 0, 0.4)
    for degrees in (15, 25, 40):
        dog = volume(2.5 * np.cos(np.radians(degrees)), 2.5 * np.sin(np.radians(degrees)), 0.4)
        tracker = Tracker(confirm=1)
        for tick in range(5):
            tracker.update([candidate(stool, tick * TICK)], views(tick * TICK), tick * TICK)
        told = tracker.update([seen(dog, 5 * TICK)], views(5 * TICK), 5 * TICK)
        assert [track.id for track in told] == [1, 2]
        assert told[0].state[:3] == pytest.approx(stool.centre, abs=0.05)


@pytest.mark.parametrize("size", [(0.5, 0.5, 1.7), (0.8, 2.0, 0.8)])
def test_a_large_thing_nearby_keeps_its_size_and_place_when_only_a_picture_shows_it(size: Any) -> None:
    person, tracker = volume(2, 0, size), Tracker()
    for tick in range(20):
        found = candidate(person, tick * TICK) if tick < 8 else seen(person, tick * TICK)
        told = tracker.update([found], views(tick * TICK), tick * TICK)
    assert [track.id for track in told] == [1]
    assert told[0].size == pytest.approx(size)
    assert told[0].state[:3] == pytest.approx(person.centre, abs=0.1)


def test_a_box_that_is_cut_off_at_the_edge_tells_no_distance() -> None:
    thing, tracker = volume(2, 0, (0.5, 0.5, 1.7), z=-1.3), Tracker()
    for tick in range(20):
        found = candidate(thing, tick * TICK) if tick < 8 else seen(thing, tick * TICK)
        told = tracker.update([found], views(tick * TICK), tick * TICK)
    assert np.linalg.norm(told[0].state[:3]) == pytest.approx(np.linalg.norm(thing.centre), rel=0.15)


def test_a_thing_that_one_camera_alone_has_seen_does_not_run_into_it() -> None:
    tracker = Tracker()
    for tick in range(12):
        thing = volume(3, 1.5 - 0.2 * tick, 0.6)
        told = tracker.update([seen(thing, tick * TICK)], views(tick * TICK), tick * TICK)
    assert [track.id for track in told] == [1]
    first = np.linalg.norm(seen(volume(3, 1.5, 0.6), 0).volume.centre)
    assert 0.9 * first < np.linalg.norm(told[0].state[:3]) < 1.3 * first


def test_ids_do_not_move_on_along_a_row_of_things() -> None:
    tracker = Tracker(confirm=1)
    for tick in range(5):
        tracker.update([candidate(volume(4, y), tick * TICK) for y in (0.0, -0.5)], {}, tick * TICK)
    told = tracker.update([candidate(volume(4, y), 5 * TICK) for y in (0.0, 0.5)], {}, 5 * TICK)
    found = {track.id: track.state[1] for track in told if track.proposers}
    assert found == {1: pytest.approx(0.0, abs=0.05), 3: pytest.approx(0.5, abs=0.05)}


def test_one_scan_looked_at_twice_confirms_nothing() -> None:
    tracker = Tracker(confirm=2)
    assert not tracker.update([candidate(volume(3, 0), 0)], {}, 0)
    assert not tracker.update([candidate(volume(3, 0), 0)], {}, TICK)
    assert tracker.update([candidate(volume(3, 0), 2 * TICK)], {}, 2 * TICK)


def test_a_box_beyond_all_places_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no more than 1e\\+08 m"):
        volume(1e9, 0)


def test_a_mask_is_cut_with_its_box() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[:, 30:] = True
    cut = cut_to(Region2D("camera", Rectangle(-20, -10, 40, 30), 0, mask=mask), Rectangle(0, 0, 640, 480))
    assert cut.box == (0, 0, 40, 30)
    assert cut.mask is not None
    assert cut.mask.shape == (30, 40)
    assert cut.mask[:, 10:].all() and not cut.mask[:, :10].any()
