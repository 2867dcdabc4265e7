"""``omnibind bag play`` and ``record`` over DDS, and the agreement of a live fusion node with the replay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from domains import any_domain

from omnibind_core import cli
from omnibind_core.modalities import Sound
from omnibind_ros.messages import stamp_ns

rosbag2 = pytest.importorskip("rosbags.rosbag2")
rclpy = pytest.importorskip("rclpy")

from omnibind_ros.bags import read, scene_bag  # noqa: E402

pytestmark = pytest.mark.ros
S = 1_000_000_000
COMMAND = (sys.executable, "-c", "from omnibind_core.cli import main; main()", "bag")


@pytest.fixture(autouse=True)
def domain(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(any_domain()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Touch pictures at 10 Hz and sound at 5 Hz, for 2 s."""
    raw = {"touch": np.zeros((28, 50), np.uint8), "audio": Sound(np.zeros(3200, np.float32), 16000)}
    data = scene_bag.SceneData("cup", raw, frozenset(), dict.fromkeys(raw, "test"))
    path = tmp_path_factory.mktemp("small") / "bag"
    scene_bag.write(path, path / "truth.csv", [data], duration=2.0)
    return path


@pytest.fixture
def node(domain):
    rclpy.init()
    node = rclpy.create_node("listener")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def spin_until(node, wanted, patience=60.0):
    deadline = time.monotonic() + patience
    while not wanted() and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
    return wanted()


def go_on(node, client):
    """Ends the pause; asks again, because an answer is lost if the client is not known to the service yet."""
    from std_srvs.srv import SetBool

    assert client.wait_for_service(60)
    assert any(spin_until(node, client.call_async(SetBool.Request(data=False)).done, 2.0) for _ in range(20))


@pytest.fixture
def run():
    """Starts ``omnibind bag ...``; ends it after the test."""
    started = []

    def start(*arguments):
        started.append(
            subprocess.Popen(
                [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_messages_are_played_as_they_are_in_the_time_of_the_bag(small, node, run):
    from rclpy.qos import QoSProfile
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image

    stamps, clock = [], []
    node.create_subscription(Image, "/tactile/image_raw", lambda m: stamps.append(stamp_ns(m)), QoSProfile(depth=50))
    node.create_subscription(
        Clock, "/clock", lambda m: clock.append(m.clock.sec * S + m.clock.nanosec), QoSProfile(depth=500)
    )
    player = run("play", small, "--topic", "/tactile/image_raw", "--rate", 4)
    assert spin_until(node, lambda: len(stamps) >= 20)
    assert stamps == [scene_bag.EPOCH_NS + number * S // 10 for number in range(20)]
    assert (np.diff(clock) > 0).all()
    assert clock[0] >= scene_bag.EPOCH_NS
    assert max(np.diff(clock)) < S // 4  # it goes on between messages
    assert player.wait(30) == 0


def test_playing_halts_and_goes_on(small, node, run):
    from omnibind_ros.msg import AudioChunk
    from std_srvs.srv import SetBool

    heard = []
    node.create_subscription(AudioChunk, "/microphone/audio", heard.append, 50)
    player = run("play", small, "--pause", "--start", 1)
    client = node.create_client(SetBool, "/bag_player/pause")
    assert client.wait_for_service(60)
    spin_until(node, lambda: False, 1.0)
    assert heard == []
    go_on(node, client)
    assert spin_until(node, lambda: player.poll() is not None)
    spin_until(node, lambda: len(heard) >= 5, 5.0)
    assert len(heard) == 5  # of 10
    assert player.returncode == 0


def test_a_loop_begins_anew_until_it_is_interrupted(small, node, run):
    from rosgraph_msgs.msg import Clock

    clock = []
    node.create_subscription(Clock, "/clock", lambda m: clock.append(m.clock.sec * S + m.clock.nanosec), 500)
    player = run("play", small, "--loop", "--rate", 20)
    assert spin_until(node, lambda: (np.diff(clock) < 0).sum() >= 2)
    player.send_signal(signal.SIGINT)
    assert player.wait(30) == 130


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topic", "/none"], "has no topic /none; it has /microphone/audio, /tactile/image_raw"),
        (["--rate", "0"], "--rate is 0.0, expected a positive number"),
        (["--start", "9"], "s long, and playing should begin at 9 s"),
        (["--evaluate", "--loop"], "plays the whole bag once"),
    ],
)
def test_unusable_options_are_told(arguments, message, small, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["bag", "play", str(small), *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_messages_with_other_fields_than_today_are_not_played(tmp_path, capsys):
    typesys, rosbag2 = (pytest.importorskip(f"rosbags.{name}") for name in ("typesys", "rosbag2"))
    kind = "omnibind_ros/msg/Prediction"
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    store.register(typesys.get_types_from_msg("string label", kind))
    with rosbag2.Writer(tmp_path / "old", version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/prediction", kind, typestore=store)
        writer.write(topic, S, store.serialize_cdr(store.types[kind]("dog"), kind))
    with pytest.raises(SystemExit) as ended:
        cli.main(["bag", "play", str(tmp_path / "old")])
    assert ended.value.code == 2
    assert f"no topic can be played: {kind} had other fields when it was recorded" in capsys.readouterr().err


def test_what_is_played_can_be_recorded_in_several_files(small, run, tmp_path):
    out = tmp_path / "again"
    recorder = run("record", "--out", out, "--split", 0.02)
    time.sleep(0.1)
    player = run("play", small, "--pause")
    # playing begins when the recorder subscribes to both topics
    rclpy.init()
    node = rclpy.create_node("control")
    try:
        from std_srvs.srv import SetBool

        topics = ("/tactile/image_raw", "/microphone/audio")
        assert spin_until(node, lambda: all(node.count_subscribers(topic) for topic in topics))
        go_on(node, node.create_client(SetBool, "/bag_player/pause"))
        assert player.wait(60) == 0
        spin_until(node, lambda: False, 1.0)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    recorder.send_signal(signal.SIGINT)
    output, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, errors
    assert "/tactile/image_raw: 20 messages" in output
    assert len(list(out.glob("*.mcap"))) > 2
    assert read.topics(out) == read.topics(small)

    def content(path):
        return sorted((item.topic, item.data) for item in read.messages(path))

    assert content(out) == content(small)


def test_a_recording_of_nothing_says_so(run, tmp_path):
    recorder = run("record", "--out", tmp_path / "none", "--topic", "/none", "--duration", 1)
    _, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 1
    assert "/none was not recorded: no message came" in errors


@pytest.mark.slow
def test_a_live_node_and_the_replay_agree(shared_data, run, tmp_path):
    """The node fed by ``bag play`` at rate 1, beside the replay: at least 99 % of ticks."""
    path = tmp_path / "demo"
    made = run("make", "--data", shared_data, "--out", path, "--scenes", 2, "--seconds", 20)
    assert made.wait(120) == 0
    node = subprocess.Popen(
        [sys.executable, "-m", "omnibind_ros.node.fusion_node", "--ros-args", "-p", "use_sim_time:=true"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    parameters = tmp_path / "defaults.yaml"
    parameters.write_text("fusion_node: {ros__parameters: {rate: 5.0}}\n")
    try:
        player = run("play", path, "--evaluate", "--json", "--params", parameters)
        output, errors = player.communicate(timeout=280)
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(30)
    assert output, errors
    found = json.loads(output)
    assert found["compared"] >= 150, found
    assert found["agreement"] >= 0.99, found
    assert player.returncode == 0
    assert sum(found["lost"].values()) == 0
