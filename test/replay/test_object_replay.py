"""``omnibind bag eval --objects``, from a bag to the report: aligned pictures without calibration, a calibrated rig."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from omnibind_core import cli
from omnibind_ros import messages

pytest.importorskip("rosbags.rosbag2")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from omnibind_ros.bags import types, write

S = 1_000_000_000
T0 = 1_700_000_000 * S
WIDTH, HEIGHT = 160, 120
HEAD = "start_s,end_s,id,label,sensor,left,top,right,bottom,frame,x,y,z,length,width,height,yaw"
BOXES = {"left": (20, 30, 60, 70), "right": (100, 40, 140, 80)}


def omnibind(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code


def pictures(number):
    """Colour and temperature with two things, of which the left one moves a little."""
    rng = np.random.default_rng(number)
    colour = rng.integers(60, 90, (HEIGHT, WIDTH, 3), np.uint8)
    warm = np.full((HEIGHT, WIDTH), 20.0, np.float32) + rng.normal(0, 0.05, (HEIGHT, WIDTH)).astype(np.float32)
    for name, (left, top, right, bottom) in BOXES.items():
        colour[top:bottom, left:right] = (
            (200, 40, 40) if name == "left" else rng.integers(0, 255, (40, 40, 3), np.uint8)
        )
        warm[top:bottom, left:right] = 36 if name == "left" else 60
    return colour, warm


def picture(pixels, encoding, time_ns, frame="camera_optical"):
    return types.message(messages.IMAGE, messages.image_fields(pixels, encoding), time_ns, frame)


def aligned(path, frames=10, extra=()):
    """A bag of a camera and a thermal camera behind one lens, at 5 Hz."""
    with write.BagWriter(path) as writer:
        for item in extra:
            writer.write(*item)
        for number in range(frames):
            time_ns = T0 + number * S // 5
            colour, warm = pictures(number)
            kelvin = np.round((warm + 273.15) * 100).astype(np.uint16)
            writer.write("/camera/image_raw", messages.IMAGE, time_ns, picture(colour, "rgb8", time_ns))
            writer.write("/thermal/image_raw", messages.IMAGE, time_ns, picture(kelvin, "mono16", time_ns, "thermal"))
    return path


def truth(path, rows=()):
    boxes = [f"0,9,{name},cup,camera,{','.join(map(str, box))},,,,,,,," for name, box in BOXES.items()]
    path.write_text("\n".join([HEAD, *(rows or boxes)]) + "\n")
    return path


def parameters(path, model, sensors=("camera", "thermal"), **more):
    own = {name: {"field_of_view": 60.0, "frame": "lens"} for name in sensors}
    own["thermal"] = {**own.get("thermal", {}), "scale": 0.01, "offset": -273.15}
    values = {"model": str(model), "rate": 5.0, "max_wait": 0.0, "sensors": list(sensors), **own, **more}
    path.write_text(yaml.safe_dump({"fusion_node": {"ros__parameters": values}}))
    return path


def tables(out):
    return {name: one["rows"] for name, one in json.loads((out / "report.json").read_text())["tables"].items()}


@pytest.fixture(scope="module")
def evaluated(tiny_model, tmp_path_factory):
    """The report of aligned pictures, also with the camera lost, whose picture the boxes are in."""
    folder = tmp_path_factory.mktemp("objects")
    bag = aligned(folder / "bag")
    truth(bag / "objects.csv")
    asked = parameters(folder / "p.yaml", tiny_model)
    arguments = ["--params", asked, "--objects", "--drop", "camera", "--only", "camera"]
    assert omnibind("bag", "eval", bag, *arguments, "--out", folder / "report") == 0
    return folder / "report"


def test_things_are_asked_of_all_sensors_that_see_them(evaluated):
    rows = {row["answer"]: row for row in tables(evaluated)["objects_given"]}
    assert {"camera", "thermal"} < set(rows)
    assert {row["asked"] for row in rows.values()} == {20}, "two things at ten ticks"
    assert rows["camera"]["spoke"] == 20
    assert rows["thermal"]["spoke"] == 20, "the thermal picture is of the same lens"
    assert all(row["few"] for row in rows.values())
    worth = {row["sensor"]: row["asked"] for row in tables(evaluated)["objects_worth"]}
    assert worth == {"camera": 20, "thermal": 20}


def test_a_lost_camera_leaves_the_things_to_others(evaluated):
    rows = {row["scenario"]: row for row in tables(evaluated)["objects_what_if"]}
    assert set(rows) == {"as recorded", "drop camera", "only camera", "all of these together"}
    assert rows["drop camera"]["asked"] == 20
    assert rows["drop camera"]["best"] == "thermal"
    assert rows["only camera"]["best"] == "camera"
    assert rows["all of these together"]["best"] == "", "nobody is left"


def test_things_are_found_and_followed(evaluated):
    (found,) = tables(evaluated)["objects_found"]
    assert found["where"] == "camera"
    assert found["true"] == 20
    assert found["recall"] > 0.7, "warm blobs are found, and projected into the camera"
    tracks = {row["thing"]: row for row in tables(evaluated)["objects_tracks"]}
    assert [tracks[name]["switches"] for name in BOXES] == [0, 0]
    assert b"data:image/png" in (evaluated / "report.html").read_bytes()


def test_the_console_says_it_and_the_same_bag_gives_the_same(tiny_model, tmp_path, capsys):
    bag = aligned(tmp_path / "bag", frames=4)
    table = truth(tmp_path / "elsewhere.csv")
    asked = parameters(tmp_path / "p.yaml", tiny_model)
    for name in ("one", "two"):
        assert omnibind("bag", "eval", bag, "--params", asked, "--objects", table, "--out", tmp_path / name) == 0
    said = capsys.readouterr().out
    assert "things, boxes given: 8 times asked of 2 things, fewer than 10" in said
    assert "found, camera: precision" in said
    assert (tmp_path / "one/report.json").read_bytes() == (tmp_path / "two/report.json").read_bytes()


def test_without_the_option_nothing_is_asked_of_things(tiny_model, tmp_path, capsys):
    bag = aligned(tmp_path / "bag", frames=2)
    truth(bag / "objects.csv")
    asked = parameters(tmp_path / "p.yaml", tiny_model)
    assert omnibind("bag", "eval", bag, "--params", asked, "--out", tmp_path / "report") == 0
    assert not [name for name in tables(tmp_path / "report") if name.startswith("objects")]
    assert "things" not in capsys.readouterr().out


def test_what_cannot_be_used_is_told(tiny_model, tmp_path, capsys):
    bag = aligned(tmp_path / "bag", frames=3)
    rows = ["0,9,a,cup,camera,20,30,60,70,,,,,,,,", "0,9,b,gnu,radar,1,2,3,4,moon,1,2,3,1,1,1,0"]
    truth(bag / "objects.csv", rows)
    asked = parameters(tmp_path / "p.yaml", tiny_model, objects={"detections": ["/boxes"]})
    assert omnibind("bag", "eval", bag, "--params", asked, "--objects", "--out", tmp_path / "report") == 0
    said = capsys.readouterr().err
    assert "the bag has no detections on /boxes" in said
    assert "boxes in pictures of 'radar' are left out" in said
    assert "no label for gnu" in said
    assert "no frame 'moon'" in said
    assert omnibind("bag", "eval", bag, "--params", asked, "--objects", "none.csv", "--out", tmp_path / "report") == 2
    assert "none.csv is not a readable table of things" in capsys.readouterr().err


def test_things_of_several_bags_count_together(tiny_model, tmp_path):
    for name in ("one", "two"):
        truth(aligned(tmp_path / name, frames=2) / "objects.csv")
    asked = parameters(tmp_path / "p.yaml", tiny_model)
    bags = [tmp_path / "one", tmp_path / "two"]
    assert omnibind("bag", "eval", *bags, "--params", asked, "--objects", "--out", tmp_path / "report") == 0
    (fused, *_) = tables(tmp_path / "report")["objects_given"]
    assert (fused["asked"], fused["things"]) == (8, 4)
    assert tables(tmp_path / "report" / "two")["objects_given"][0]["things"] == 2


def detections(frames):
    """What a detector says of the camera's pictures, a tenth of a second late: both things."""
    store = types.typestore().types
    point, vector = store["geometry_msgs/msg/Point"], store["geometry_msgs/msg/Vector3"]
    pose = store["geometry_msgs/msg/Pose"](point(0, 0, 0), store["geometry_msgs/msg/Quaternion"](0, 0, 0, 1))
    found = []
    for left, top, right, bottom in BOXES.values():
        box = map(float, (left, top, right, bottom))
        nothing = np.zeros(0, np.uint8)
        found.append(store["omnibind_ros/msg/Detection"]("", 0.9, *box, nothing, pose, vector(0, 0, 0)))
    kind = "omnibind_ros/msg/Detections"
    for number in range(frames):
        stamp_ns = T0 + number * S // 5
        message = types.message(kind, {"detections": found}, stamp_ns, "camera_optical")
        yield "/boxes", kind, stamp_ns + S // 10, message


def test_detections_of_the_bag_are_things(tiny_model, tmp_path):
    bag = aligned(tmp_path / "bag", frames=6, extra=detections(6))
    truth(bag / "objects.csv")
    more = {"objects": {"detections": ["/boxes camera"], "propose": []}}
    asked = parameters(tmp_path / "p.yaml", tiny_model, **more)
    assert omnibind("bag", "eval", bag, "--params", asked, "--objects", "--out", tmp_path / "report") == 0
    (found,) = tables(tmp_path / "report")["objects_found"]
    assert found["precision"] == 1.0
    assert found["recall"] > 0.6, "from the tick on that confirms them"
    assert found["overlap"] > 0.95
    counters = {row["what"]: row["number"] for row in tables(tmp_path / "report")["objects_counters"]}
    assert counters["regions"] == 10, "two of each message but the last, which comes after the last tick"


def test_the_view_of_a_bag_shows_things_where_parameters_ask_for_them(tiny_model, tmp_path, capsys):
    pytest.importorskip("rerun")
    chunks = pytest.importorskip("rerun.chunk")
    bag = aligned(tmp_path / "bag", frames=4)
    asked = parameters(tmp_path / "p.yaml", tiny_model, objects={"enabled": True})
    out = tmp_path / "out.rrd"
    assert omnibind("view", bag, "--params", asked, "--no-spawn", "--save", out) == 0
    assert "4 ticks" in capsys.readouterr().out
    rows: dict[str, int] = {}
    for chunk in chunks.RrdReader(str(out)).stream():
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + (0 if chunk.is_static else chunk.num_rows)
    assert rows["/things/boxes"] == rows["/sensors/camera/things"] == rows["/sensors/thermal/things"] == 4


FOCAL = 140.0


def calibrated(path, frames=6):
    """A camera with a CameraInfo and a LiDAR 0.5 m above it, related by transforms; two boxes of points ahead."""
    store = types.typestore().types
    geometry = {name: store[f"geometry_msgs/msg/{name}"] for name in ("Vector3", "Quaternion", "Transform")}

    def transform(parent, child, moved, turned):
        kind = "geometry_msgs/msg/TransformStamped"
        body = geometry["Transform"](geometry["Vector3"](*moved), geometry["Quaternion"](*turned))
        return types.message(kind, {"child_frame_id": child, "transform": body}, T0, parent)

    static = [
        transform("base", "camera_optical", (0.0, 0.0, 1.0), (-0.5, 0.5, -0.5, 0.5)),
        transform("base", "lidar", (0.0, 0.0, 1.5), (0.0, 0.0, 0.0, 1.0)),
    ]
    matrix = np.array([FOCAL, 0, WIDTH / 2 - 0.5, 0, FOCAL, HEIGHT / 2 - 0.5, 0, 0, 1])
    roi = store["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    info = {
        "height": HEIGHT,
        "width": WIDTH,
        "distortion_model": "plumb_bob",
        "d": np.zeros(5),
        "k": matrix,
        "r": np.eye(3).ravel(),
        "p": np.zeros(12),
        "binning_x": 0,
        "binning_y": 0,
        "roi": roi,
    }
    rng = np.random.default_rng(0)
    ahead = [np.array([4.0, side, 1.0]) + rng.uniform(-0.3, 0.3, (400, 3)) for side in (-1.0, 1.0)]
    ground = np.column_stack([rng.uniform(1, 9, 4000), rng.uniform(-4, 4, 4000), rng.normal(0, 0.01, 4000)])
    points = (np.concatenate([*ahead, ground]) - [0, 0, 1.5]).astype(np.float32)
    with write.BagWriter(path) as writer:
        tf = store["tf2_msgs/msg/TFMessage"](static)
        writer.write("/tf_static", "tf2_msgs/msg/TFMessage", T0, tf)
        for number in range(frames):
            time_ns = T0 + number * S // 5
            kind = messages.CAMERA_INFO
            writer.write("/camera/camera_info", kind, time_ns, types.message(kind, info, time_ns, "camera_optical"))
            colour = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            writer.write("/camera/image_raw", messages.IMAGE, time_ns, picture(colour, "rgb8", time_ns))
            fields = messages.point_cloud_fields(points, store["sensor_msgs/msg/PointField"])
            cloud = types.message(messages.POINT_CLOUD, fields, time_ns, "lidar")
            writer.write("/lidar/points", messages.POINT_CLOUD, time_ns, cloud)
    return path


def test_a_calibrated_rig_finds_things_in_space(tiny_model, tmp_path):
    """Boxes are given in space alone; the camera's follow from its CameraInfo and the transforms of the bag."""
    bag = calibrated(tmp_path / "bag")
    rows = [f"0,9,{name},cup,,,,,,base,4,{y},1,0.6,0.6,0.6,0" for name, y in (("a", -1), ("b", 1))]
    truth(bag / "objects.csv", rows)
    path = tmp_path / "p.yaml"
    values = {"model": str(tiny_model), "rate": 5.0, "max_wait": 0.0, "sensors": ["camera", "lidar"]}
    path.write_text(yaml.safe_dump({"fusion_node": {"ros__parameters": values}}))
    assert omnibind("bag", "eval", bag, "--params", path, "--objects", "--out", tmp_path / "report") == 0
    found = tables(tmp_path / "report")
    given = {row["answer"]: row for row in found["objects_given"]}
    assert given["camera"]["spoke"] == given["lidar"]["spoke"] == given["fused"]["asked"] == 12
    (space,) = found["objects_found"]
    assert space["where"] == "space"
    assert space["recall"] > 0.6, "clusters, from the tick on that confirms them"
    assert space["precision"] > 0.6
    assert [row["switches"] for row in found["objects_tracks"]] == [0, 0]
