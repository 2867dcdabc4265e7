"""The demo of things: what it tells the node, and what it makes of what it hears; without a node."""

from __future__ import annotations

import json

import numpy as np
import pytest

from omnibind_core.geometry import Transform
from omnibind_core.geometry.frames import rpy
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.types import Prediction, SensorShare
from omnibind_ros import messages
from omnibind_ros.messages.objects import transform_of

pytest.importorskip("rosbags")
pytest.importorskip("rclpy")
pytest.importorskip("matplotlib")

from omnibind_ros.bags import types, write
from omnibind_ros.demo import things
from omnibind_ros.demo.monitor import Observation, Status
from omnibind_ros.demo.schedule import Outage
from omnibind_ros.demo.things_picture import Told
from omnibind_ros.replay.objects import truth

S = 1_000_000_000
T0 = 1_700_000_000 * S
OUTAGES = (Outage("camera", 2.0, 4.0), Outage("lidar", 6.0, 8.0))
BOXES = {"a": Rectangle(5, 5, 25, 25), "b": Rectangle(40, 10, 60, 40), "c": Rectangle(70, 10, 90, 40)}


def said(label, *sensors):
    shares = tuple(SensorShare(name, "image", 0.5, 0.1, label, 0.9, label, 0.9, 0) for name in sensors)
    nothing = np.zeros(1, np.float32)
    return Prediction(0, None, label, 0.9, False, 0.0, (label,), (0.9,), shares, nothing, nothing[None])


def thing(number, box, label="cup", sensors=("camera", "thermal")):
    volume = Volume(np.zeros(3), np.ones(3), np.eye(3), np.zeros((3, 3)))
    sights = {name: Sight(box) for name in sensors}
    return ObjectPrediction(number, volume, np.zeros(3), 0, said(label, *sensors), sights)


def ticks(change_at=99.0):
    """Two a second, for ten seconds; one thing gets another id at a time."""
    for number in range(20):
        time_s = number / 2
        alive = [name for name in ("camera", "thermal") if not (name == "camera" and 2 <= time_s < 4)]
        ids = [1, 2, 3 if time_s < change_at else 4]
        pairs = zip(ids, BOXES.values(), strict=True)
        yield Told(time_s, [thing(own, box, sensors=alive) for own, box in pairs])


@pytest.fixture
def recording(tmp_path):
    """Pictures of a camera and a thermal camera, where things are, and where the sensors are."""
    store = types.typestore().types
    path = tmp_path / "recording"
    geometry = {name: store[f"geometry_msgs/msg/{name}"] for name in ("Vector3", "Quaternion", "Transform")}
    body = geometry["Transform"](geometry["Vector3"](0.1, -0.2, 1.5), geometry["Quaternion"](*rpy(0.3, -0.4, 1.9)))
    kind = "geometry_msgs/msg/TransformStamped"
    static = types.message(kind, {"child_frame_id": "lidar", "transform": body}, T0, "base_link")
    with write.BagWriter(path) as writer:
        writer.write("/tf_static", "tf2_msgs/msg/TFMessage", T0, store["tf2_msgs/msg/TFMessage"]([static]))
        for number in range(20):
            time_ns = T0 + number * S // 2
            for topic, pixels, encoding in (
                ("/camera/image_raw", np.full((60, 100, 3), 9 * number, np.uint8), "rgb8"),
                ("/thermal/image_raw", np.full((60, 100), 29500, np.uint16), "16UC1"),
            ):
                item = types.message(messages.IMAGE, messages.image_fields(pixels, encoding), time_ns, "lens")
                writer.write(topic, messages.IMAGE, time_ns, item)
    rows = [
        f"0,20,{name},cup,{sensor},{','.join(map(str, box))}"
        for name, box in BOXES.items()
        for sensor in ("camera", "thermal")
    ]
    head = "start_s,end_s,id,label,sensor,left,top,right,bottom"
    (path / truth.NAME).write_text("\n".join([head, *rows]) + "\n")
    return path


def test_the_node_is_told_what_the_bag_says_of_frames(recording):
    (line,) = things.static_transforms(recording)
    parent, child, transform = transform_of(line, "test")
    assert (parent, child) == ("base_link", "lidar")
    wanted = Transform.of((0.1, -0.2, 1.5), rpy(0.3, -0.4, 1.9))
    np.testing.assert_allclose(transform.rotation, wanted.rotation, atol=1e-6)
    np.testing.assert_allclose(transform.translation, wanted.translation, atol=1e-6)


def test_ids_have_to_last_through_all_outages(recording):
    known = truth.read(recording / truth.NAME, T0, T0 + 10 * S)
    every = things.kept(things.pairs([*ticks()], known, T0), OUTAGES)
    assert every == {"a": "1", "b": "2", "c": "3"}
    assert things.kept(things.pairs([*ticks(change_at=5.0)], known, T0), OUTAGES) == {"a": "1", "b": "2"}
    without = [told for told in ticks() if not 6 <= told.time_s < 8]
    assert things.kept(things.pairs(without, known, T0), OUTAGES) == {}, "nothing was told in the second outage"


class Heard:
    """What a monitor has heard."""

    model, labels = "m@1", ("cup", "dog")

    def __init__(self, told):
        self.told = told
        names = ("camera", "thermal", "lidar")
        self.reports = [Status(number / 2, dict.fromkeys(names, (2, 0.1))) for number in range(20)]
        self.predictions = []
        for number in range(20):
            now = number / 2
            away = [one.sensor for one in OUTAGES if one.kill_s + 0.4 < now < one.restart_s]
            seen = [name for name in names if name not in away]
            self.predictions.append(Observation(now, said("cup", *seen), 0.1))


def test_the_report_says_whether_it_worked(recording, tmp_path, capsys):
    out = tmp_path / "out" / "objects"
    out.mkdir(parents=True)
    console = things.ThingsConsole(("camera",))
    assert things._report(out, recording, Heard([*ticks()]), console, OUTAGES) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert [row["kept"] for row in summary["things"]] == ["1", "2", "3"]
    assert [row["right"] for row in summary["things"]] == [1.0, 1.0, 1.0]
    assert (out.parent / "objects.png").read_bytes().startswith(b"\x89PNG")
    assert things._report(out, recording, Heard([*ticks(change_at=5.0)]), console, OUTAGES) == 1
    assert "failed: 2 things kept one id through all outages, expected 3 or more" in capsys.readouterr().out


def test_a_line_is_printed_when_something_changes(capsys):
    console = things.ThingsConsole(("camera",))
    console.things(Told(0.0, [thing(1, BOXES["a"])]), ())
    console.things(Told(0.5, [thing(1, BOXES["a"])]), ())
    console.things(Told(1.0, [thing(1, BOXES["a"], "dog")]), ("camera",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "#1 cup 0.90 (camera 50 thermal 50)" in lines[0]
    assert "camera" in lines[1]
    assert "#1 dog" in lines[1]
