"""Things in a bag, on plain data: reading of what was where, and what answers and boxes are worth."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from omnibind_core.errors import DataError
from omnibind_core.geometry import Transform
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_ros.replay.objects import drawing, pairing, scoring, truth
from omnibind_ros.replay.objects.scoring import Asked, Found
from omnibind_ros.replay.scoring import Row

S = 1_000_000_000
START = 1_700_000_000 * S
HEAD = "start_s,end_s,id,label,sensor,left,top,right,bottom,frame,x,y,z,length,width,height,yaw"


def table(tmp_path, *rows, head=HEAD):
    path = tmp_path / "objects.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def read(path, **options):
    return truth.read(path, START, START + 10 * S, **options)


def test_what_was_where(tmp_path):
    path = table(
        tmp_path,
        "0,2,a,cup,camera,1,2,11,22,,,,,,,,",
        "2,4,a,cup,camera,3,2,13,22,map,1,2,3,0.1,0.2,0.3,1.5",
        "0,4,b,,,,,,,map,4,5,6,1,1,2,",
        f"{START + 3 * S},{START + 20 * S},c,dog,thermal,0,0,5,5,,,,,,,,",
        "30,40,d,dog,thermal,0,0,5,5,,,,,,,,",
    )
    things = read(path)
    assert things.at(START + S) == {"a": "cup", "b": ""}
    assert things.at(START + 3 * S) == {"a": "cup", "b": "", "c": "dog"}
    assert things.boxes("camera", START + S) == {"a": Rectangle(1, 2, 11, 22)}
    assert things.boxes("camera", START + 2 * S) == {"a": Rectangle(3, 2, 13, 22)}, "an end is excluded"
    assert things.boxes("thermal", START + S) == {}
    places = things.places(START + 3 * S)
    assert places == {
        "a": truth.Place("map", (1, 2, 3), (0.1, 0.2, 0.3), 1.5),
        "b": truth.Place("map", (4, 5, 6), (1, 1, 2), 0.0),
    }
    assert things.sensors == ("camera", "thermal")
    assert things.placed
    assert things.notes == ("1 of 5 boxes lie outside the bag; the bag is 10.0 s long",)


def test_a_table_may_be_of_several_bags(tmp_path):
    rows = ["x,0,1,a,cup,camera,1,2,11,22", "y,0,1,b,cup,camera,1,2,11,22"]
    path = table(tmp_path, *rows, head="bag,start_s,end_s,id,label,sensor,left,top,right,bottom")
    assert set(read(path, bag_name="y").labels) == {"b"}
    with pytest.raises(DataError, match=r"no things for the bag 'z'"):
        read(path, bag_name="z")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("0,x,a,cup,camera,1,2,3,4,,,,,,,,", "line 2: 'x' is no time"),
        ("2,1,a,cup,camera,1,2,3,4,,,,,,,,", "line 2: it ends at 1 and begins at 2, expected a later end"),
        ("0,1,,cup,camera,1,2,3,4,,,,,,,,", "line 2: no id"),
        ("0,1,a,cup,camera,1,2,3,,,,,,,,,", "line 2: bottom is '', expected a finite number"),
        ("0,1,a,cup,camera,1,nan,3,4,,,,,,,,", "line 2: top is 'nan', expected a finite number"),
        ("0,1,a,cup,camera,3,2,1,4,,,,,,,,", "line 2: a box of 3, 2, 1, 4, expected left below right"),
        ("0,1,a,cup,,1,2,3,4,,,,,,,,", "line 2: a box without its sensor"),
        ("0,1,a,cup,,,,,,,1,2,3,1,1,1,0", "line 2: a box without its frame"),
        ("0,1,a,cup,,,,,,map,1,2,3,1,0,1,0", "line 2: sides of 1, 0, 1 m, expected more than 0"),
        ("0,1,a,cup,camera,,,,,,,,,,,,", "line 2: 'a' has no box, expected left, top, right, bottom or x, y"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path, row, told):
    with pytest.raises(DataError, match=re.escape(told)):
        read(table(tmp_path, row))


def test_a_table_that_is_wrong_is_named(tmp_path):
    with pytest.raises(DataError, match="lacks the columns id, label, expected start_s"):
        read(table(tmp_path, "0,1", head="start_s,end_s"))
    with pytest.raises(DataError, match="not a readable table of things"):
        read(tmp_path / "none.csv")
    box = "camera,1,2,3,4,,,,,,,,"
    with pytest.raises(DataError, match="thing 'a' has the labels 'cup' and 'dog', expected one"):
        read(table(tmp_path, f"0,1,a,cup,{box}", f"1,2,a,dog,{box}"))
    with pytest.raises(DataError, match=r"'a' has two boxes in the picture of 'camera' at 0.5 s"):
        read(table(tmp_path, f"0,1,a,cup,{box}", f"0.5,2,a,cup,{box}"))


def test_a_place_is_a_volume_of_the_fixed_frame():
    place = truth.Place("robot", (2.0, 0.0, 1.0), (4.0, 1.0, 2.0), math.pi / 2)
    pose = Transform(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([10.0, 0, 0]))
    volume = place.volume(pose)
    assert volume.centre == pytest.approx([10, 2, 1])
    assert np.ptp(volume.corners, axis=0) == pytest.approx([4, 1, 2]), "two quarter turns"


def answer(thing, meant, fused, scene="", without=None, unseen=None, **alone):
    row = Row(0.0, 0, (meant,), (meant,), 0.0, (fused,) if fused else (), 0.5, False)
    row = Row(**{**row.__dict__, "sensors": tuple(alone), "said": tuple(alone.values())})
    return Asked(thing, row, fused, scene, without or {}, unseen or {})


ASKED = [
    answer("a", "cup", "cup", "cup", {"camera": "dog", "lidar": "cup"}, camera="cup", lidar="dog"),
    answer("a", "cup", "cup", "dog", {"camera": "", "lidar": ""}, camera="cup"),
    answer("b", "dog", "cup", "dog", {"camera": "dog", "lidar": "cup"}, camera="cup", lidar="dog"),
    answer("b", "dog", "", "dog", unseen={"camera": "outside of the picture", "lidar": "no points"}),
]


def test_answers_on_given_boxes():
    rows = {row["answer"]: row for row in scoring.answers(ASKED, ["camera", "lidar", "thermal"])}
    assert list(rows) == ["fused", "now", "scene", "camera", "lidar"], "a sensor that said nothing has no row"
    assert [rows[who]["share"] for who in rows] == [0.5, 0.5, 0.75, 0.5, 0.25]
    assert rows["camera"]["spoke"] == 3
    assert rows["camera"]["spoken"] == pytest.approx(2 / 3)
    assert rows["lidar"]["spoken"] == 0.5
    assert rows["lidar"]["together"] == 0.5
    assert rows["fused"]["things"] == 2
    assert rows["fused"]["few"]
    assert rows["fused"]["interval"] == [0.0, 1.0], "each of the two things may be missing"


def test_what_a_sensor_is_worth():
    rows = {row["sensor"]: row for row in scoring.worth(ASKED, ["camera", "lidar"])}
    assert (rows["camera"]["asked"], rows["lidar"]["asked"]) == (3, 2)
    assert rows["camera"]["with"] == pytest.approx(2 / 3)
    assert rows["camera"]["without"] == pytest.approx(1 / 3), "right without it once, of the thing b"
    assert rows["lidar"]["share"] == 0.0
    each = {(row["thing"], row["sensor"]): row["share"] for row in scoring.worth_each(ASKED, ["camera", "lidar"])}
    assert each == {("a", "camera"): 1.0, ("a", "lidar"): 0.0, ("b", "camera"): -1.0, ("b", "lidar"): 0.0}


def test_margins_are_against_the_scene_and_the_best_sensor():
    rows = scoring.margins(ASKED, ["lidar", "camera"])
    assert [(row["against"], row["share"]) for row in rows] == [
        ("the scene's label", -0.25),
        ("the best sensor, camera", 0.0),
    ]
    assert rows[0]["interval"] == [-1.0, 0.5], "of one thing alone, or the other"


def test_labels_and_reasons():
    rows = scoring.by_label(ASKED, ["camera"])
    assert [(row["label"], row["fused"], row["scene"], row["camera"]) for row in rows] == [
        ("cup", 1.0, 0.5, 1.0),
        ("dog", 0.0, 1.0, 0.0),
    ]
    assert scoring.unseen(ASKED)[0] == {"sensor": "camera", "reason": "outside of the picture", "asked": 1}


def test_things_of_which_the_model_has_no_label_do_not_count():
    unknown = Asked("c", Row(0.0, 0, ("gnu",), (), labels=("cup",)), "cup", "cup")
    assert scoring.answers([unknown], [])[0]["share"] is None
    assert scoring.by_label([unknown], []) == scoring.margins([unknown], []) == []


def test_an_interval_needs_two_things():
    assert scoring.share([True, False], ["a", "a"]) == {"share": 0.5, "interval": None}
    many = scoring.share([place % 4 != 0 for place in range(400)], [str(place) for place in range(400)])
    low, high = many["interval"]
    assert 0.70 < low < 0.75 < high < 0.80
    assert not scoring.rests_on(str(place) for place in range(400))["few"]


def test_pairs_overlap_enough_and_most_together():
    true = {"a": Rectangle(0, 0, 10, 10), "b": Rectangle(0, 4, 10, 14), "c": Rectangle(50, 50, 60, 60)}
    told = {"1": Rectangle(0, 2, 10, 12), "2": Rectangle(0, -1, 10, 9), "3": Rectangle(55, 50, 65, 60)}
    found, overlaps = pairing.pairs(true, told, Rectangle.overlap)
    assert found == {"a": "2", "b": "1"}, "1 overlaps both; 3 overlaps c by a third only"
    assert overlaps["b"] == pytest.approx(80 / 120)
    assert pairing.pairs({}, told, Rectangle.overlap) == ({}, {})


def box(centre, size, yaw=0.0):
    turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    return Volume(np.array(centre, float), np.array(size, float), turn, np.zeros((3, 3)))


def test_overlap_in_space():
    far = np.array([500_000.0, 4_000_000.0, 0.0])
    one = box(far, (2, 2, 2))
    assert pairing.in_space(one, one) == pytest.approx(1)
    assert pairing.in_space(one, box(far + np.array([1, 0, 1]), (2, 2, 2))) == pytest.approx(2 / 14, abs=1e-3)
    assert pairing.in_space(box((0, 0, 0), (4, 2, 1)), box((0, 0, 0), (2, 4, 1), math.pi / 2)) == pytest.approx(1)
    octagon = 8 * (math.sqrt(2) - 1)  # what a square and the same turned by 45 degrees share, of side 2
    turned = pairing.in_space(box((0, 0, 0), (2, 2, 1)), box((0, 0, 0), (2, 2, 1), math.pi / 4))
    assert turned == pytest.approx(octagon / (8 - octagon), abs=1e-4)
    assert pairing.in_space(one, box(far + np.array([0, 0, 3]), (2, 2, 2))) == 0
    assert pairing.in_space(one, box(far + np.array([9, 0, 0]), (2, 2, 2))) == 0


def found(time_s, pairs, things=("a", "b"), ids=("1", "2"), where="camera", labels=None):
    overlaps = dict.fromkeys(pairs, 0.75)
    return Found(time_s, where, things, ids, pairs, overlaps, labels or {"1": "cup", "2": "cup"})


def test_precision_and_recall_by_where():
    rows = scoring.finding([found(0, {"a": "1"}), found(1, {"a": "1", "b": "2"}), found(1, {}, ids=(), where="space")])
    assert [row["where"] for row in rows] == ["camera", "space"]
    camera, space = rows
    assert (camera["true"], camera["told"], camera["precision"], camera["recall"]) == (4, 4, 0.75, 0.75)
    assert camera["overlap"] == 0.75
    assert (space["precision"], space["recall"], space["overlap"]) == (None, 0.0, None)


def test_what_becomes_of_things():
    seen = [
        found(0, {"a": "1", "b": "2"}),
        found(1, {}),  # nobody is found: that is no switch
        found(2, {"a": "1"}),
        found(3, {"a": "2"}),
        found(3, {"a": "1"}, where="thermal"),  # as many for both: the one before
        found(4, {"a": "2"}),
        found(5, {"a": "2"}),
    ]
    rows = {row["thing"]: row for row in scoring.tracks(seen, {"a": "cup", "b": "dog"})}
    assert (rows["a"]["ids"], rows["a"]["switches"], rows["a"]["ticks"]) == (2, 1, 6)
    assert rows["a"]["found"] == pytest.approx(5 / 6, abs=1e-4)
    assert (rows["b"]["ids"], rows["b"]["switches"]) == (1, 0)
    assert (rows["a"]["right"], rows["b"]["right"]) == (1.0, 0.0)


def test_a_picture_with_boxes_is_another_one():
    """One that is as wide as it is shown is the sensor's own, which is read-only, and used by others."""
    pixels = np.zeros((48, 640, 3), np.uint8)
    pixels.setflags(write=False)
    found = drawing.drawn("image", pixels, (640, 48), "camera", [], {"a": Rectangle(10, 10, 30, 30)})
    assert found.shape == (48, 640, 3)
    assert found[10, 20].tolist() == [255, 255, 255]
    assert not pixels.any()
