"""Parts of the replay of bags: sensors and parameters, changes, truth, figures, live beside replayed."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from omnibind_core.errors import ConfigError, DataError
from omnibind_core.modalities import Sound
from omnibind_core.runtime.types import Prediction, SensorShare
from omnibind_ros import messages
from omnibind_ros.messages import AUDIO_CHUNK, IMAGE, POINT_CLOUD, STRING, prediction_fields

rosbag2 = pytest.importorskip("rosbags.rosbag2")

from omnibind_ros.bags import read, scene_bag, storage, types, write  # noqa: E402
from omnibind_ros.bags.formats import mcap  # noqa: E402
from omnibind_ros.bags.inspect import inspect  # noqa: E402
from omnibind_ros.replay import live, scoring, truth  # noqa: E402
from omnibind_ros.replay.changes import parse, scenarios  # noqa: E402
from omnibind_ros.replay.engine import LONGEST_GAP, Replay, load_model  # noqa: E402
from omnibind_ros.replay.scoring import Row, Vocabulary  # noqa: E402
from omnibind_ros.replay.setup import read_parameters, resolve  # noqa: E402

S = 1_000_000_000
TOPICS = {"/camera/image_raw": IMAGE, "/lidar/points": POINT_CLOUD, "/microphone/audio": AUDIO_CHUNK}


# --- sensors and parameters -------------------------------------------------------------------------------------------


def test_the_packages_parameters_fit_the_topics_of_a_bag():
    setup = resolve(TOPICS, read_parameters(None))
    assert setup.present == ("camera", "lidar", "microphone")
    assert setup.sensors["thermal"].options.scale == 0.01
    (note,) = setup.notes
    assert note.startswith("the bag has no topic of thermal (/thermal/image_raw), event_camera (")


def test_words_hold_longer_and_return_at_once_unless_the_file_says_otherwise():
    given = {"sensors": ["speech", "camera"], "speech.type": "text"}
    for changes, timeout in (({}, 5.0), ({"speech.timeout": 0.5}, 0.5)):
        setup = resolve({"/speech/text": STRING, "/camera/image_raw": IMAGE}, {**given, **changes})
        speech, camera = (setup.sensors[name].config for name in ("speech", "camera"))
        assert (speech.modality, speech.timeout, speech.window, speech.readmit_after) == ("text", timeout, timeout, 1)
        assert (camera.timeout, camera.window, camera.readmit_after) == (1.0, 1.0, 2)


def test_topics_that_look_like_a_sensors_are_adopted():
    topics = {"/robot/front/image_raw": IMAGE, "/robot/velodyne/points": POINT_CLOUD, "/tf": "tf2_msgs/msg/TFMessage"}
    setup = resolve(topics, read_parameters(None), adopt=True)
    assert setup.present == ("robot_front", "robot_velodyne")
    assert setup.modalities == {"image", "point_cloud"}
    assert any("/robot/front/image_raw is taken for sensor 'robot_front': image" in note for note in setup.notes)
    with pytest.raises(DataError, match="no sensor has a usable topic"):
        resolve(topics, read_parameters(None))


def test_relative_topics_are_resolved_in_the_nodes_namespace(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "/**: {ros__parameters: {rate: 2.0, sensors: [camera]}}\n"
        "/robot/fusion_node: {ros__parameters: {rate: 3.0, camera: {topic: front/image, time_offset: 0.5}}}\n"
    )
    setup = resolve({"/robot/front/image": IMAGE}, read_parameters(path), "/robot")
    assert setup.topics == {"camera": "/robot/front/image"}
    assert setup.parameters["rate"] == 3.0  # the node's own block counts more
    assert setup.sensors["camera"].config.time_offset == 0.5


def test_a_topic_of_another_type_is_refused_and_the_others_are_used():
    setup = resolve({**TOPICS, "/lidar/points": IMAGE}, read_parameters(None))
    assert setup.present == ("camera", "microphone")
    assert "expected sensor_msgs/msg/PointCloud2" in setup.refused["lidar"]


def test_what_the_bag_has_instead_is_told():
    topics = {"/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage", "/lidar/points": POINT_CLOUD}
    topics["/tactile/image_raw"] = "geometry_msgs/msg/WrenchStamped"
    setup = resolve(topics, read_parameters(None))
    told = " ".join(setup.notes)
    assert "camera (/camera/image_raw, but /camera/image_raw/compressed exists: set the sensor's topic to it)" in told
    assert "a force-torque reading: omnibind has no modality for it" in setup.refused["tactile"]


def test_a_depth_camera_without_its_camera_info_says_what_it_waits_for():
    given = {"sensors": ["lidar", "camera"], "lidar.topic": "/oak/stereo/image_raw"}
    setup = resolve({"/oak/stereo/image_raw": IMAGE, "/camera/image_raw": IMAGE}, given)
    assert "the bag has no sensor_msgs/msg/CameraInfo on /oak/stereo/camera_info" in setup.refused["lidar"]
    assert setup.present == ("camera",)
    given["lidar.camera_info"] = "/calibration"
    setup = resolve({"/oak/stereo/image_raw": IMAGE, "/calibration": "sensor_msgs/msg/CameraInfo"}, given)
    assert setup.present == ("lidar",) and setup.sensors["lidar"].options.camera_info == "/calibration"


def test_pressure_arrays_and_depth_cameras_are_replayed(tmp_path, tiny_model):
    """As a node would adopt them: what the depth picture is, only its encoding says."""
    depth = np.full((6, 8), 1500, np.uint16)
    depth[::2, ::3] = 1000
    colour = messages.image_fields(np.zeros((12, 16, 3), np.uint8), "rgb8")
    debug = messages.image_fields(np.zeros((12, 16), np.int32), "32SC1")
    k = np.array([8.0, 0, 4, 0, 8, 3, 0, 0, 1])
    dims = [{"label": name, "size": size, "stride": 0} for name, size in (("rows", 4), ("columns", 6))]
    store = types.typestore().types
    dims = [store["std_msgs/msg/MultiArrayDimension"](**dim) for dim in dims]
    layout = store["std_msgs/msg/MultiArrayLayout"](dim=dims, data_offset=0)
    pressure = store["std_msgs/msg/UInt16MultiArray"](layout=layout, data=np.arange(24, dtype=np.uint16))
    region = store["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    info = {"height": 6, "width": 8, "distortion_model": "plumb_bob", "d": np.zeros(5), "k": k, "r": np.eye(3).ravel()}
    info |= {"p": np.zeros(12), "binning_x": 0, "binning_y": 0, "roi": region}
    path = tmp_path / "bag"
    with write.BagWriter(path) as writer:
        for step in range(12):
            time_ns = S + step * S // 5
            for topic, ros_type, fields in (
                ("/oak/stereo/image_raw", IMAGE, messages.image_fields(depth, "16UC1")),
                ("/oak/stereo/camera_info", messages.CAMERA_INFO, info),
                ("/oak/rgb/image_raw", IMAGE, colour),
                ("/classes/image", IMAGE, debug),
            ):
                writer.write(topic, ros_type, time_ns, types.message(ros_type, fields, time_ns))
            writer.write("/tactile", "std_msgs/msg/UInt16MultiArray", time_ns, pressure)
    setup = resolve(read.topics(path), {"sensors": [""]}, adopt=True, bag=path)
    assert {name: setup.sensors[name].config.modality for name in setup.present} == {
        "oak": "image", "oak_stereo": "point_cloud", "tactile": "touch"
    }  # fmt: skip
    assert any("/classes/image is not taken for a sensor: 32SC1: it labels pixels" in note for note in setup.notes)
    inspected = {one.topic: one.modality for one in inspect(path).topics}
    assert (inspected["/oak/rgb/image_raw"], inspected["/classes/image"], inspected["/tactile"]) == (
        "image",
        "",
        "touch",
    )
    *_, last = Replay(path, setup, load_model(setup, tiny_model)).steps()
    assert {share.name for share in last.prediction.sensors} == set(setup.present), last.reports
    raw = {pick.sensor.name: pick.newest.raw for pick in last.selection.picks}
    assert raw["tactile"].tolist() == np.arange(24).reshape(4, 6).tolist()
    assert raw["oak_stereo"].shape == (48, 3) and np.allclose(raw["oak_stereo"][0], [1.0, 0.5, 0.375])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a mapping of node names"),
        ("other: {ros__parameters: {rate: 1.0}}", "has parameters of other, expected some of"),
        ("fusion_node: {rate: 1.0}", "has no ros__parameters"),
        ("fusion_node: {ros__parameters: {rate: fast}}", "parameter 'rate' is 'fast', expected a number"),
        ("a: [", "is no YAML"),
    ],
)
def test_unusable_parameter_files_are_named(text, message, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        resolve(TOPICS, read_parameters(path))


def test_nothing_of_the_evaluation_needs_ros_or_torch_to_be_imported():
    code = (
        "import sys; sys.modules['rclpy'] = None\n"
        "import omnibind_ros.replay.report, omnibind_ros.replay.batch, omnibind_ros.commands.bag\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- changes ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setup():
    return resolve(TOPICS, read_parameters(None))


@pytest.mark.parametrize(
    ("action", "text", "shown"),
    [
        ("drop", "camera@10:20", "drop camera@10:20"),
        ("drop", "cam", "drop camera"),
        ("noise", "mic@5:", "noise microphone@5:"),
        ("noise", "mic=clipping@:5", "noise microphone=clipping@0:5"),
        ("delay", "lidar=0.1", "delay lidar=0.1"),
        ("rate", "camera=5", "rate camera=5"),
        ("only", "lidar,mic", "only lidar,microphone"),
    ],
)
def test_changes_are_read_as_they_are_written(action, text, shown, setup):
    from omnibind_core.data import damage

    text = text.replace("clipping", damage.damages("audio")[0])
    assert str(parse(action, text, setup)) == shown.replace("clipping", damage.damages("audio")[0])


@pytest.mark.parametrize(
    ("action", "text", "message"),
    [
        ("drop", "radar", "sensor 'radar' expected one of camera, lidar, microphone"),
        ("drop", "camera=3", r"expected SENSOR\[@START:END\]"),
        ("drop", "camera@20:10", "an end after the beginning"),
        ("drop", "camera@a:b", "'a' is no number"),
        ("drop", "", "expected SENSOR"),
        ("delay", "lidar", "expected SENSOR=SECONDS"),
        ("delay", "lidar=-1", "expected a positive number"),
        ("rate", "camera=0", "expected a positive number"),
        ("noise", "camera=rust", "image has no damage 'rust'; it has"),
        ("drop", "thermal", "expected one of"),  # it has no topic in the bag
    ],
)
def test_changes_that_make_no_sense_are_refused(action, text, message, setup):
    with pytest.raises(ConfigError, match=message):
        parse(action, text, setup)


def test_every_change_is_replayed_alone_and_all_together(setup):
    changes = [parse("drop", "camera", setup), parse("rate", "lidar=1", setup)]
    assert [one.name for one in scenarios(changes)] == [
        "as recorded", "drop camera", "rate lidar=1", "all of these together",
    ]  # fmt: skip
    assert len(scenarios(changes[:1])) == 2


# --- truth ------------------------------------------------------------------------------------------------------------


def table(path, *rows, head="start_s,end_s,label"):
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_labels_hold_from_their_beginning_to_before_their_end(tmp_path):
    found = truth.from_table(table(tmp_path / "t.csv", "0,1.5,dog"), 10 * S, 20 * S)
    assert found.intervals[0] == truth.Interval(10 * S, 11_500_000_000, "dog")
    assert found.at(10 * S) == ("dog",)
    assert found.at(11_499_999_999) == ("dog",)
    assert found.at(11_500_000_000) == ()
    assert found.at(9 * S) == ()


def test_absolute_times_are_ns(tmp_path):
    start = 1_700_000_000 * S
    found = truth.from_table(table(tmp_path / "t.csv", f"{start + S},{start + 2 * S},dog"), start, start + 9 * S)
    assert found.at(start + S) == ("dog",)
    assert list(found.segments()) == [(start + S, start + 2 * S, ("dog",))]


def test_overlapping_labels_all_hold_and_are_told(tmp_path):
    found = truth.from_table(table(tmp_path / "t.csv", "0,3,dog", "2,5,cat", "5,6,cat"), 0, 9 * S)
    assert found.at(2 * S) == ("dog", "cat")
    (note,) = found.notes
    assert "1 pairs of labels overlap" in note
    assert "'dog' at 0.0 to 3.0 s and 'cat' at 2.0 to 5.0 s" in note
    assert [labels for _, _, labels in found.segments()] == [("dog",), ("dog", "cat"), ("cat",)]


def test_labels_outside_the_bag_are_told_and_left_out(tmp_path):
    found = truth.from_table(table(tmp_path / "t.csv", "0,3,dog", "20,30,cat", "8,12,cow"), 0, 9 * S)
    assert [one.label for one in found.intervals] == ["dog", "cow"]
    assert "1 of 3 labels lie outside the bag and are left out (cat); the bag is 9.0 s long" in found.notes
    assert "the label 'cow' at 8.0 to 12.0 s reaches beyond the bag" in found.notes


def test_rows_of_other_bags_do_not_count(tmp_path):
    path = table(tmp_path / "t.csv", "a,0,3,dog", "b,0,3,cat", head="bag,start,end,label")
    assert truth.from_table(path, 0, 9 * S, "b").labels == ("cat",)
    with pytest.raises(DataError, match="no labels for the bag 'c'"):
        truth.from_table(path, 0, 9 * S, "c")


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        (["0,x,dog"], "start_s,end_s,label", "line 2: 'x' is no time"),
        (["3,3,dog"], "start_s,end_s,label", "line 2: it ends at 3 and begins at 3"),
        (["0,dog"], "start_s,label", "expected start_s, end_s, label"),
        ([], "start_s,end_s,label", "has no labels"),
    ],
)
def test_unusable_tables_are_named_with_the_line(rows, head, message, tmp_path):
    with pytest.raises(DataError, match=message):
        truth.from_table(table(tmp_path / "t.csv", *rows, head=head), 0, 9 * S)
    with pytest.raises(DataError, match=r"none\.csv"):
        truth.from_table(tmp_path / "none.csv", 0, 9 * S)


def test_a_topic_tells_what_is_there_until_it_says_something_else(tmp_path):
    string = types.typestore().types[STRING]
    with write.BagWriter(tmp_path / "bag") as writer:
        for second, text in ((1, "dog"), (3, ""), (5, "cat ")):
            writer.write("/truth", STRING, second * S, string(text))
    found = truth.from_topic(tmp_path / "bag", "/truth", S, 9 * S)
    assert [(one.start_ns // S, one.end_ns // S, one.label) for one in found.intervals] == [
        (1, 3, "dog"), (5, 9, "cat"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="has no topic /other"):
        truth.from_topic(tmp_path / "bag", "/other", S, 9 * S)


# --- figures ----------------------------------------------------------------------------------------------------------


def row(time_s, truth_, said="", sensors=("camera",), unknown=False):
    labels = (said, "cow") if said else ()
    return Row(
        time_s, round(time_s * S), (truth_,) if truth_ else (), (truth_,) if truth_ and truth_ != "florp" else (),
        0.0, labels, 0.9 if said else math.nan, unknown, sensors if said else (), (1 / len(sensors),) * len(sensors),
        (0.0,) * len(sensors), (said,) * len(sensors),
    )  # fmt: skip


ROWS = [
    row(0.0, "dog", "dog", ("camera", "mic")),
    row(0.2, "dog", "cat"),
    row(0.4, "dog", "dog"),
    row(0.6, "dog", "dog", unknown=True),
    row(0.8, "cat", "dog"),
    row(1.0, "cat"),
    row(1.2, "cat", "cat", ("mic",)),
    row(1.4, "florp", "cow"),
    row(1.6, "", "cow"),
]


def test_unknown_and_silent_ticks_are_counted_apart():
    tally = scoring.tally(ROWS)
    assert {key: tally[key] for key in ("ticks", *scoring.OUTCOMES)} == {
        "ticks": 7, "right": 3, "wrong": 2, "unknown": 1, "silent": 1,
    }  # fmt: skip
    assert (tally["accuracy"], tally["accuracy_said"], tally["top1"]) == (0.4286, 0.6, 0.5714)
    assert [one.outcome for one in ROWS[-2:]] == ["out_of_vocabulary", "unlabelled"]
    assert scoring.tally([])["accuracy"] is None


def test_time_to_the_first_right_answer_and_to_recover():
    segments = [(0.0, 0.8, ("dog",)), (0.7, 1.3, ("cat",)), (1.3, 1.5, ("florp",))]
    found = scoring.first_right(ROWS, segments)
    assert [one["seconds"] for one in found] == [0.0, 0.5]
    (lost,) = scoring.losses(ROWS)
    assert lost == {"sensor": "mic", "time_s": 0.2, "seconds": 0.4, "kept": False}
    assert scoring.summary_of_times(found) == {"number": 2, "reached": 2, "median_s": 0.25, "max_s": 0.5}


def test_combinations_confusion_and_shares_of_time():
    assert [(one["sensors"], one["ticks"]) for one in scoring.by_combination(ROWS)] == [
        (["camera"], 4), ([], 1), (["camera", "mic"], 1), (["mic"], 1),
    ]  # fmt: skip
    confused = {(one["truth"], one["said"]): one["ticks"] for one in scoring.confusion(ROWS)}
    assert confused[("dog", "dog")] == 2
    assert confused[("dog", "unknown")] == confused[("cat", "silent")] == 1
    assert sum(one["ticks"] for one in scoring.over_time(ROWS)) == 7
    assert scoring.of_sensor(ROWS, "mic") == {
        "ticks": 2, "nothing_to_say": 0, "mean_weight": 0.75, "median_age_s": 0.0, "top1_alone": 1.0,
        "top1_fused_same_ticks": 1.0,
    }  # fmt: skip


def test_a_sensor_with_nothing_to_say_is_neither_right_nor_wrong():
    said = dataclasses.replace(ROWS[0], said=("dog", ""), weights=(1.0, 0.0))
    assert scoring.of_sensor([said, ROWS[6]], "mic") | {"mean_weight": 0} == {
        "ticks": 2, "nothing_to_say": 1, "mean_weight": 0, "median_age_s": 0.0, "top1_alone": 1.0,
        "top1_fused_same_ticks": 1.0,
    }  # fmt: skip
    share = SensorShare("mic", "audio", 0.0, 0.0, "", 0.5, "", 0.0, 0)
    nothing = Prediction(0, None, "", 0.5, True, 0.0, ("dog", "cat"), (0.5, 0.5), (share,), *2 * (np.zeros(0),))
    vocabulary = Vocabulary(("dog", "cat"))
    assert scoring.row(nothing, 0.0, 0, ("cat",), vocabulary).outcome == scoring.SILENT
    heard = dataclasses.replace(nothing, sensors=(dataclasses.replace(share, weight=1.0, label="dog"),), unknown=False)
    assert scoring.row(heard, 0.0, 0, ("cat",), vocabulary).outcome == scoring.WRONG


def test_a_majority_stands_for_several_ticks():
    two = scoring.majority(ROWS[:2], ("mic", "camera", "lidar"))  # one of the two had the microphone
    assert (two.sensors, two.weights, two.said) == (("mic", "camera"), (0.5, 0.75), ("dog", "dog"))
    three = scoring.majority(ROWS[:3], ("mic", "camera"))
    assert (three.label, three.meant, three.sensors, three.unknown) == ("dog", ("dog",), ("camera",), False)
    assert scoring.top1(ROWS) == 0.5714
    assert scoring.top1(ROWS, lambda one: one.alone("mic")) == 0.2857  # wrong where it took no part
    assert scoring.top1([]) is None


def test_mean_fusion_leaves_the_fused_row_out():
    similarities = np.array([[0.0, 9.0], [0.3, 0.1], [0.2, 0.3]], np.float32)
    assert scoring.mean_label(similarities, ("dog", "cat")) == "dog"
    assert scoring.mean_label(similarities, ("dog", "cat", "cow")) == ""
    assert scoring.mean_label(np.zeros((3, 0), np.float32), ()) == ""


def test_words_mean_a_label_whatever_their_case():
    words = Vocabulary(("cell phone", "dog"), {"dog": ["hound"]})
    assert [words.of(one) for one in ("Cell_Phone", " DOG ", "Hound", "cat")] == ["cell phone", "dog", "dog", None]
    assert scoring.same("Cell_Phone ", "cell phone")
    assert not scoring.same("dog", "hound")


# --- the replay -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quiet_bag(tmp_path_factory):
    """Touch pictures at 10 Hz and sound at 5 Hz, for 3 s."""
    raw = {"touch": np.zeros((28, 50), np.uint8), "audio": Sound(np.zeros(3200, np.float32), 16000)}
    data = scene_bag.SceneData("cup", raw, frozenset(), dict.fromkeys(raw, "test"))
    path = tmp_path_factory.mktemp("quiet") / "bag"
    scene_bag.write(path, path / "truth.csv", [data], duration=3.0)
    return path


def steps_of(path, tiny_model, **parameters):
    setup = resolve(read.topics(path), {**read_parameters(None), **parameters})
    replay = Replay(path, setup, load_model(setup, tiny_model))
    return replay, list(replay.steps())


def test_words_of_a_bag_take_part_and_can_be_dropped(tmp_path, tiny_model, monkeypatch):
    meaning = {"dog": ("dog.n.01", ("dog", "domestic dog"), "a domestic Canis; dogs occur in many breeds")}
    monkeypatch.setattr(scene_bag, "WordNet", lambda: SimpleNamespace(
        things=lambda label: [meaning[label][0]] if label in meaning else [],
        names=lambda sense: meaning["dog"][1],
        definition=lambda sense: meaning["dog"][2],
    ))  # fmt: skip
    raw = {"touch": np.zeros((28, 50), np.uint8)}
    scenes = [scene_bag.SceneData(label, raw, frozenset(), {"touch": "test"}) for label in ("dog", "dog", "florp")]
    described = list(scene_bag.with_words(scenes, "description"))
    assert [one.raw.get("text") for one in described] == ["a Canis occur in many breeds", None, None]
    named = list(scene_bag.with_words(scenes, "name"))
    assert [one.raw.get("text") for one in named] == ["a dog", None, "a florp"]
    path = tmp_path / "bag"
    labels = scene_bag.write(path, path / "truth.csv", named[:2], duration=2.0)
    assert labels[0].rendered == ("captioner",) and labels[0].origin == ("tactile=test", "captioner=label")
    assert scene_bag.read_labels(path / "truth.csv") == labels
    assert scene_bag.sensors_of(labels)[-1] == "captioner"
    assert {one.topic: one.modality for one in inspect(path).topics}["/captioner/text"] == "text"
    given = {"sensors": ["tactile", "captioner"], "captioner.type": "text", "captioner.timeout": 1.0, "max_wait": 0.0}
    setup = resolve(read.topics(path), given)
    model = load_model(setup, tiny_model)
    heard = [[share.name for share in step.prediction.sensors] for step in Replay(path, setup, model).steps()]
    assert heard[2] == ["tactile", "captioner"] and heard[-1] == ["tactile"]
    dropped = Replay(path, setup, model, scenarios([parse("drop", "captioner", setup)])[1])
    assert all([share.name for share in step.prediction.sensors] == ["tactile"] for step in dropped.steps())


def test_ticks_come_at_the_multiples_of_the_period(quiet_bag, tiny_model):
    replay, steps = steps_of(quiet_bag, tiny_model, max_wait=0.0, rate=4.0)
    assert [step.selection.now_ns % (S // 4) for step in steps] == [0] * 12
    assert steps[0].selection.now_ns == replay.start_ns  # the messages of that moment were pushed before
    assert [share.name for share in steps[-1].prediction.sensors] == ["tactile", "microphone"]


def test_a_trigger_sensor_makes_the_ticks(quiet_bag, tiny_model):
    _, steps = steps_of(quiet_bag, tiny_model, trigger="tactile", rate=1.0)
    assert len(steps) == 30
    assert all(step.selection.reference_ns is not None for step in steps[1:])


def test_a_clock_of_its_own_is_replayed_by_the_time_of_recording(quiet_bag, tiny_model, monkeypatch):
    stamp_ns = messages.stamp_ns
    of_boot = {"stamp_ns": lambda message: stamp_ns(message) % (100 * S)}
    since_boot = SimpleNamespace(**of_boot, Decoder=messages.Decoder, size_of=messages.size_of)
    _, expected = steps_of(quiet_bag, tiny_model, max_wait=0.0)
    monkeypatch.setattr(sys.modules[Replay.__module__], "messages", since_boot)
    _, lost = steps_of(quiet_bag, tiny_model, max_wait=0.0)
    assert all(step.prediction is None for step in lost)
    assert "set tactile.stamp: receive" in {one.name: one.reason for one in lost[-1].reports}["tactile"]
    timed = {"tactile.stamp": "receive", "microphone.stamp": "receive"}
    _, steps = steps_of(quiet_bag, tiny_model, max_wait=0.0, **timed)
    heard = [[share.name for share in step.prediction.sensors] for step in steps]
    assert heard == [[share.name for share in step.prediction.sensors] for step in expected]


def test_the_same_bag_gives_the_same_predictions(quiet_bag, tiny_model):
    (_, one), (_, other) = (steps_of(quiet_bag, tiny_model) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert a.prediction.similarities.tobytes() == b.prediction.similarities.tobytes()
        assert repr(a.reports) == repr(b.reports)  # ages and rates may be NaN
        assert (a.time_s, a.prediction.sensors) == (b.time_s, b.prediction.sensors)


@pytest.mark.parametrize("mode", ["FILE", "MESSAGE"])
def test_compressed_databases_and_split_recordings_give_the_same(mode, quiet_bag, tiny_model, tmp_path):
    writer = rosbag2.Writer(tmp_path / "packed", version=9, storage_plugin=rosbag2.StoragePlugin.SQLITE3)
    writer.set_compression(rosbag2.CompressionMode[mode], rosbag2.CompressionFormat.ZSTD)
    topics = read.topics(quiet_bag)
    with writer, write.SplitBagWriter(tmp_path / "split", 10_000) as split:
        connections = {name: writer.add_connection(name, topics[name], typestore=types.typestore()) for name in topics}
        for item in read.messages(quiet_bag):
            writer.write(connections[item.topic], item.time_ns, item.data)
            split.write_raw(item.topic, item.type, item.time_ns, item.data)
    assert len(list((tmp_path / "split").glob("*.mcap"))) > 3
    _, expected = steps_of(quiet_bag, tiny_model)
    for name in ("packed", "split"):
        _, found = steps_of(tmp_path / name, tiny_model)
        assert [step.prediction.similarities.tobytes() for step in found] == [
            step.prediction.similarities.tobytes() for step in expected
        ]


def test_messages_that_are_no_messages_are_rejected(quiet_bag, tiny_model, tmp_path):
    topics = read.topics(quiet_bag)
    with write.BagWriter(tmp_path / "bad") as writer:
        for item in read.messages(quiet_bag):
            data = item.data[: len(item.data) // 2] if item.topic == "/microphone/audio" else item.data
            writer.write_raw(item.topic, topics[item.topic], item.time_ns, data)
    _, steps = steps_of(tmp_path / "bad", tiny_model)
    report = {one.name: one for one in steps[-1].reports}["microphone"]
    assert report.state.name == "REJECTED"
    assert "bytes that are no omnibind_ros/msg/AudioChunk" in report.reason
    assert {share.name for share in steps[-1].prediction.sensors} == {"tactile"}


def test_a_long_gap_without_any_message_is_skipped_and_told(tmp_path, tiny_model):
    picture = types.message(IMAGE, scene_bag.image_fields(np.zeros((28, 50), np.uint8), "mono8"), S)
    with write.BagWriter(tmp_path / "bag") as writer:
        for second in (0, 1, 40 * 365 * 86400):
            writer.write("/tactile/image_raw", IMAGE, S * (1 + second), picture)
    replay, steps = steps_of(tmp_path / "bag", tiny_model)
    ((begin, end),) = replay.gaps
    assert begin == pytest.approx(1 + LONGEST_GAP, abs=0.5)
    assert end == pytest.approx(40 * 365 * 86400)
    assert len(steps) < 200


def is_truncated(path):
    """Whether a file has whole messages, but no end."""
    try:
        file = mcap.McapFile(path)
    except storage.UnreadableError:
        return False
    file.close()
    return file.losses.cut and file.span_ns is not None


def test_a_file_that_is_truncated_off_is_read_as_far_as_it_is_whole(quiet_bag, tmp_path):
    whole = next(quiet_bag.glob("*.mcap"))
    count = len(list(read.messages(quiet_bag)))
    found = set()
    for size in range(40, whole.stat().st_size, 997):
        path = tmp_path / "cut.mcap"
        path.write_bytes(whole.read_bytes()[:size])
        held = 0
        with pytest.raises(DataError, match=r"is cut off|not a readable rosbag2"):
            for _ in read.messages(path):
                held += 1
        assert held in (0, count)
        found.add((is_truncated(path), held))
    assert found == {(False, 0), (True, count)}


# --- live beside replayed ---------------------------------------------------------------------------------------------


def test_the_tick_of_a_live_prediction_follows_from_header_and_ages():
    from omnibind_core.runtime.types import Prediction, SensorConfig, SensorShare

    sensors = {name: SensorConfig(name, "image", time_offset=0.5 * (name == "b")) for name in "ab"}
    stamp = SimpleNamespace(sec=7, nanosec=0)
    shares = tuple(
        SensorShare(name, "image", 0.5, age, "dog", 0.3, "", 0, 0) for name, age in (("a", 0.25), ("b", 0.125))
    )
    prediction = Prediction(
        0, None, "", 0.3, True, 1.0, ("dog",), (0.3,), shares, np.zeros(0, np.float32), np.zeros((3, 0), np.float32)
    )
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=stamp), **prediction_fields(prediction, 0.01, SimpleNamespace)
    )
    assert live.heard(message, sensors, "").tick_ns == 7_625_000_000  # the newest is b's, whose stamp was moved
    assert live.heard(message, sensors, "a").tick_ns == 7_250_000_000
    timed = {**sensors, "b": dataclasses.replace(sensors["b"], stamp="receive")}
    assert live.heard(message, timed, "").tick_ns is None  # the header is of b's own clock
    stamp.sec = 0
    assert live.heard(message, sensors, "").tick_ns is None


@pytest.mark.parametrize(("rest", "phase"), [((0, 3, 60), 0), ((190, 199, 5), 0), ((70, 72, 120), 70), ((), 0)])
def test_the_phase_of_late_ticks_is_found(rest, phase):
    assert live.phase_of([k * 200 + one for k, one in enumerate(rest)], 200) == phase


def test_live_predictions_are_compared_tick_by_tick(quiet_bag, tiny_model):
    setup = resolve(read.topics(quiet_bag), {**read_parameters(None), "max_wait": 0.0})
    _, steps = steps_of(quiet_bag, tiny_model, max_wait=0.0)
    said = [
        live.Heard(
            step.selection.now_ns + 4_000_000,  # the clock's step
            "another" if number == 3 else step.prediction.labels[0],
            step.prediction.unknown,
            step.prediction.confidence,
            tuple(share.name for share in step.prediction.sensors),
            0.01 * number,
        )
        for number, step in enumerate(steps)
        if number != 5
    ]
    found = live.compare(quiet_bag, setup, [*said, said[-1]], tiny_model).summary()
    assert (found["ticks_replayed"], found["compared"], found["agree"]) == (15, 14, 13)
    assert (found["missing_live"], found["only_live"], found["agreement"]) == (1, 1, round(13 / 14, 4))
    assert found["same_sensors"] == 1.0
    assert [one["live"]["label"] for one in found["disagreements"]] == ["another"]
    assert found["latency_max_s"] == 0.14
