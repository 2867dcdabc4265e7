"""The demo: its schedule, what it makes of predictions, and players over DDS."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from domains import any_domain

from omnibind_core.data.rendering import demo_objects
from omnibind_core.errors import DataError
from omnibind_core.runtime.types import Prediction, SensorShare
from omnibind_ros.bags import read, scene_bag, types
from omnibind_ros.bags.scene_bag import SENSORS, SceneLabel
from omnibind_ros.demo import __main__ as demo_main
from omnibind_ros.demo import course
from omnibind_ros.demo import summary as summary_module
from omnibind_ros.demo.monitor import Console, Observation, Status
from omnibind_ros.demo.player import moved
from omnibind_ros.demo.schedule import Outage, plan
from omnibind_ros.demo.summary import evaluate, failures, follow, scores, summarise, table

LABELS = ("dog", "cat", "cow")


def scene(number: int, label: str = "dog", sensors: tuple[str, ...] = tuple(SENSORS)) -> SceneLabel:
    return SceneLabel(number * 5.0, number * 5.0 + 5, label, sensors, (), ())


def seen(time_s: float, label: str, **single: str) -> Observation:
    """A prediction; each sensor's similarities say what it would have said."""
    rows = np.stack([np.eye(3, dtype=np.float32)[LABELS.index(said)] for said in (label, *single.values())])
    shares = tuple(
        SensorShare(name, "image", 1 / len(single), 0.1, said, 0.7, "", 0.0, 0) for name, said in single.items()
    )
    said = Prediction(0, None, label, 0.7, False, 0.0, (label,), (0.7,), shares, np.zeros(0, np.float32), rows)
    return Observation(time_s, said, 0.02)


# --- recording --------------------------------------------------------------------------------------------------------


def test_a_recording_rendered_another_way_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = demo_main._parser().parse_args(["--out", str(tmp_path)])
    console = Console(tuple(SENSORS))
    made = []

    def write(path: Path, table: Path, *_: object) -> list[SceneLabel]:
        path.mkdir()
        scene_bag.write_labels(table, [scene(0)])
        made.append(demo_objects.RENDERING)
        return [scene(0)]

    monkeypatch.setattr(scene_bag, "scenes_for", lambda *_: iter(()))
    monkeypatch.setattr(scene_bag, "write", write)
    demo_main._recording(options, console)
    assert demo_main._recording(options, console) == [scene(0)]  # the same one
    monkeypatch.setattr(demo_objects, "RENDERING", demo_objects.RENDERING + 1)
    demo_main._recording(options, console)
    assert made == [demo_objects.RENDERING - 1, demo_objects.RENDERING]


# --- schedule ---------------------------------------------------------------------------------------------------------


def test_two_outages_overlap_and_are_seen() -> None:
    scenes = [scene(n, sensors=tuple(SENSORS) if n % 3 else ("camera", "microphone")) for n in range(16)]
    first, second = plan(scenes)
    assert first.sensor == "camera"
    assert first.kill_s < second.kill_s < first.restart_s < second.restart_s
    for outage in (first, second):
        for moment in (outage.kill_s, outage.restart_s):
            held = summary_module.scene_at(scenes, moment)
            assert held is not None
            assert outage.sensor in held.sensors
    for row in scenes:
        if row.end_s > second.kill_s and row.start_s < first.restart_s:
            assert set(row.sensors) - {first.sensor, second.sensor}


def test_recording_without_camera_or_with_one_sensor() -> None:
    first, second = plan([scene(n, sensors=("lidar", "tactile", "thermal")) for n in range(8)])
    assert {first.sensor, second.sensor} < {"lidar", "tactile", "thermal"}
    with pytest.raises(DataError, match="8 of microphone"):
        plan([scene(n, sensors=("microphone",)) for n in range(8)])


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_scenes_are_judged_by_majority_after_the_grace_time() -> None:
    scenes = [scene(0, "dog"), scene(1, "cat")]
    predictions = [
        seen(0.5, "cow", camera="cow", lidar="cow"),  # within the grace time
        *(seen(t, "dog", camera="dog", lidar="cow") for t in (1.5, 2.5, 3.5)),
        seen(4.5, "cat", camera="cat"),
        *(seen(t, "dog", camera="cat", lidar="cat") for t in (6.5, 7.5)),
    ]
    first, second = evaluate(scenes, predictions, LABELS)
    assert (len(first.rows), first.majority.label, first.majority.sensors) == (4, "dog", ("camera", "lidar"))
    assert [first.majority.alone(name) for name in ("camera", "lidar", "thermal")] == ["dog", "cow", ""]
    assert (second.majority.label, second.majority.mean) == ("dog", "cat")
    figures = scores([first, second])
    assert figures["scenes_counted"] == 2
    assert figures["top1_fused"] == 0.5
    assert figures["best_single_sensor"] == "camera"
    assert figures["top1_best_single_sensor"] == 1.0
    assert figures["single_sensors"]["lidar"]["top1_where_alive"] == 0.5


def test_scenes_with_one_sensor_do_not_count() -> None:
    (result,) = evaluate([scene(0)], [seen(2.0, "dog", camera="dog")], LABELS)
    assert scores([result])["scenes_counted"] == 0
    assert scores([result])["top1_fused"] is None


def test_what_the_node_has_no_label_for_counts_as_wrong() -> None:
    predictions = [seen(t, "dog", camera="dog", lidar="dog") for t in (2.0, 7.0)]
    results = evaluate([scene(0, "zebra"), scene(1, "DOG")], predictions, LABELS)
    assert scores(results)["scenes_counted"] == 2
    assert scores(results)["top1_fused"] == 0.5


def test_absent_sensor_is_wrong_when_sensors_are_compared() -> None:
    scenes = [scene(0), scene(1)]
    predictions = [seen(2.0, "dog", camera="dog", lidar="cat"), seen(7.0, "dog", thermal="cat", lidar="dog")]
    figures = scores(evaluate(scenes, predictions, LABELS))
    assert figures["single_sensors"]["camera"]["top1_where_alive"] == 1.0
    assert figures["single_sensors"]["camera"]["top1_all_scenes"] == 0.5


def observed() -> tuple[list[Observation], list[Status], list[Outage]]:
    """The camera is killed at 3 s, leaves at 3.9 s and is back at 8.2 s; last heard of at 2.95 s."""
    predictions = [
        *(seen(t, "dog", camera="dog", lidar="dog") for t in (1.0, 2.0, 3.4)),
        *(seen(t, "dog", lidar="dog") for t in (3.9, 5.0, 7.0)),
        *(seen(t, "dog", camera="dog", lidar="dog") for t in (8.2, 9.0)),
    ]
    reports = [Status(t, {"camera": (2 if t < 3.9 else 4, t - 2.95)}) for t in (3.0, 3.9, 6.0)]
    return predictions, reports, [Outage("camera", 3.0, 7.5)]


def test_leaving_and_returning_are_timed() -> None:
    predictions, reports, outages = observed()
    (result,) = follow(outages, predictions, reports)
    assert result.last_message_s == pytest.approx(2.95)
    assert result.left_s == 3.9
    assert result.returned_s == 8.2
    assert result.predictions_meanwhile == 3
    assert failures(predictions, [result]) == []


def test_what_failed_is_said() -> None:
    predictions, reports, outages = observed()
    stubborn = [seen(t, "dog", camera="dog") for t in (1.0, 4.0, 9.0)]
    assert "never left" in failures(stubborn, follow(outages, stubborn, reports))[0]
    gone = predictions[:-2]
    assert "never returned" in failures(gone, follow(outages, gone, reports))[0]
    assert failures([], []) == ["no prediction was received"]


def test_summary_is_json_and_readable() -> None:
    predictions, reports, outages = observed()
    summary = summarise([scene(0), scene(1)], predictions, reports, outages, LABELS)
    assert summary["success"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    (outage,) = summary["outages"]
    assert outage["seconds_from_last_message_to_prediction_without"] == pytest.approx(0.95)
    text = table(summary)
    assert "0.95 s after its last message" in text
    assert "chance 33.33 %" in text


def test_summary_of_nothing_fails_without_crashing() -> None:
    summary = summarise([scene(0)], [], [], [Outage("camera", 1.0, 2.0)], ())
    assert not summary["success"]
    assert "no prediction was received" in summary["failures"]
    assert json.dumps(summary, allow_nan=False)
    assert "FAILED" in table(summary)


def test_timeline_is_drawn(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("matplotlib")
    from omnibind_ros.demo import timeline

    predictions, _, outages = observed()
    timeline.draw(tmp_path / "timeline.png", [scene(0), scene(1, "cat")], predictions, outages, "a title")
    picture = cv2.imread(str(tmp_path / "timeline.png"))
    assert picture.shape[1] > picture.shape[0] > 300
    assert picture.std() > 5


def test_console_prints_changes_only(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(("camera", "lidar"))
    first = seen(1.0, "dog", camera="dog", lidar="dog")
    for item in (first, dataclasses.replace(first, time_s=1.3), dataclasses.replace(first, time_s=3.5)):
        console.prediction(item, scene(0), set())
    console.prediction(seen(3.7, "cat", lidar="cat"), scene(0), {"camera"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # the change to something, the heartbeat, the change of label and sensors
    assert "\033" not in "".join(lines)
    assert "✓" in lines[0]
    assert lines[2].count("✗") == 2  # wrong label, dead camera


def test_a_captioner_has_a_place_where_it_was_asked_for(tmp_path: Path) -> None:
    scenes = [scene(0, sensors=("camera", "lidar", "captioner")), scene(1, sensors=("camera", "lidar"))]
    predictions = [seen(2.0, "dog", camera="dog", captioner="dog"), seen(7.0, "dog", camera="cat")]
    summary = summarise(scenes, predictions, [], [], LABELS)
    assert summary["sensors_seen"]["captioner"] == 1
    assert summary["by_scene"]["single_sensors"]["captioner"]["top1_where_alive"] == 1.0
    without = summarise(scenes[1:], predictions[1:], [], [], LABELS)
    assert "captioner" not in without["sensors_seen"]
    options = demo_main._parser().parse_args(["--out", str(tmp_path), "--text", "name"])
    demo_main._write_parameters(options)
    parameters = yaml.safe_load((tmp_path / "parameters.yaml").read_text())["fusion_node"]["ros__parameters"]
    assert parameters["sensors"] == [*SENSORS, "captioner"]
    assert parameters["captioner"] == {"type": "text", "timeout": 1.5} and "engine" not in parameters
    demo_main._write_parameters(demo_main._parser().parse_args(["--out", str(tmp_path), "--engine", "openvino"]))
    parameters = yaml.safe_load((tmp_path / "parameters.yaml").read_text())["fusion_node"]["ros__parameters"]
    assert parameters["engine"] == "openvino"


# --- player -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_bag(tmp_path: Path) -> Path:
    """A minute of touch pictures at 10 Hz and of sound."""
    from omnibind_core.modalities import Sound

    raw = {"touch": np.zeros((28, 50), np.uint8), "audio": Sound(np.zeros(3200, np.float32), 16000)}
    data = scene_bag.SceneData("nothing", raw, frozenset(), dict.fromkeys(raw, "test"))
    scene_bag.write(tmp_path / "recording", tmp_path / "labels.csv", [data], duration=60.0)
    return tmp_path / "recording"


def test_moved_changes_the_stamp_only(small_bag: Path) -> None:
    item = next(read.messages(small_bag))
    later = types.decode(dataclasses.replace(item, data=moved(item.data, 1_500_000_000)))
    before = types.decode(item)
    assert (later.header.stamp.sec, later.header.stamp.nanosec) == (before.header.stamp.sec + 1, 500_000_000)
    assert len(item.data) == len(moved(item.data, 1))
    np.testing.assert_array_equal(later.data, before.data)


def test_the_modules_that_the_demo_starts_exist() -> None:
    for module in (course.NODE_MODULE, course.PLAYER_MODULE):
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert "__main__" in Path(spec.origin or "").read_text(encoding="utf-8")


def test_player_needs_no_torch() -> None:
    code = "import sys, omnibind_ros.demo.player; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    rclpy = pytest.importorskip("rclpy")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(any_domain()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init()
    node = rclpy.create_node("listener")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.ros
def test_player_plays_in_time_and_resumes_after_a_kill(small_bag: Path, listener: object) -> None:
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    stamps: list[float] = []
    listener.create_subscription(  # type: ignore[attr-defined]
        Image,
        "/tactile/image_raw",
        lambda m: stamps.append(m.header.stamp.sec + m.header.stamp.nanosec / 1e9),
        qos_profile_sensor_data,
    )
    start_at = time.time()

    def play_until_heard() -> None:
        """Starts a player, and kills it once two messages were received."""
        arguments = ["--topic", "/tactile/image_raw", "--start-at", repr(start_at)]
        player = subprocess.Popen([sys.executable, "-m", "omnibind_ros.demo.player", str(small_bag), *arguments])
        already, deadline = len(stamps), time.monotonic() + 60
        try:
            while len(stamps) < already + 2 and player.poll() is None and time.monotonic() < deadline:
                rclpy.spin_once(listener, timeout_sec=0.05)
        finally:
            player.kill()
            player.wait()
            heard = -1
            while heard < len(stamps):  # what it had still sent
                heard = len(stamps)
                rclpy.spin_once(listener, timeout_sec=0.3)

    play_until_heard()
    before = len(stamps)
    assert before >= 2
    play_until_heard()
    assert len(stamps) >= before + 2
    # Stamps stay on the recording's grid, and what was missed while dead is not made up for.
    steps = (np.array(stamps) - start_at) * 10
    np.testing.assert_allclose(steps, np.round(steps), atol=0.01)
    assert (np.diff(steps) > 0.5).all()
    assert steps[before] - steps[before - 1] > 1.5


@pytest.mark.ros
def test_player_leaves_words_as_they_are(tmp_path: Path, listener: object) -> None:
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from std_msgs.msg import String

    raw = {"touch": np.zeros((4, 4), np.uint8)}
    data = scene_bag.SceneData("dog", raw, frozenset(), dict.fromkeys(raw, "test"))
    scene_bag.write(tmp_path / "bag", tmp_path / "labels.csv", scene_bag.with_words([data], "name"), duration=60.0)
    said: list[str] = []
    topic = scene_bag.WITH_WORDS["captioner"].topic
    listener.create_subscription(  # type: ignore[attr-defined]
        String, topic, lambda m: said.append(m.data), qos_profile_sensor_data
    )
    command = [sys.executable, "-m", "omnibind_ros.demo.player", str(tmp_path / "bag"), "--topic", topic]
    player = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not said and player.poll() is None and time.monotonic() < deadline:
        rclpy.spin_once(listener, timeout_sec=0.05)
    player.kill()
    player.wait()
    assert said and set(said) == {"a dog"}


@pytest.mark.ros
def test_player_names_a_topic_that_is_not_there(small_bag: Path) -> None:
    pytest.importorskip("rclpy")
    result = subprocess.run(
        [sys.executable, "-m", "omnibind_ros.demo.player", str(small_bag), "--topic", "/none"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    assert "has no topic /none" in result.stderr
    assert "/tactile/image_raw" in result.stderr
