"""The nodes over real DDS, with a stand-in for the model and sensors that come, go and misbehave."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from domains import any_domain

pytest.importorskip("rclpy")
pytest.importorskip("omnibind_ros.msg")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import WrenchStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.clock import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import String, UInt16MultiArray
from std_srvs.srv import SetBool
from std_srvs.srv import Trigger as TriggerService

from omnibind_core import modalities
from omnibind_core.errors import ConfigError
from omnibind_core.modalities import Events, Sound
from omnibind_core.runtime.types import SensorReport, SensorState
from omnibind_ros import messages, msg
from omnibind_ros.graph import topics
from omnibind_ros.graph.topics import LATCHED
from omnibind_ros.node import outputs
from omnibind_ros.node.diagnostics import sensor_entry
from omnibind_ros.node.fusion_node import FusionNode
from omnibind_ros.node.sensor_node import SensorNode

pytestmark = pytest.mark.ros

PATIENCE = 20.0  # s that anything may take before a test fails; nothing waits longer than it must
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

PUBLISHER = """
import sys, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
import sensor_msgs.msg
from omnibind_ros.messages import fill, image_fields
import numpy as np
Image = getattr(sensor_msgs.msg, sys.argv[3])
rclpy.init()
node = rclpy.create_node("camera_driver")
policy = ReliabilityPolicy.RELIABLE if sys.argv[2] == "reliable" else ReliabilityPolicy.BEST_EFFORT
publisher = node.create_publisher(Image, sys.argv[1], QoSProfile(depth=5, reliability=policy))
message = fill(Image(), image_fields(np.zeros((24, 32, 3), np.uint8), "rgb8") if sys.argv[3] == "Image" else {})
def publish():
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
node.create_timer(0.05, publish)
rclpy.spin(node)
"""


class StandIn:
    """A model that embeds every item as the same vector and says that it is a cat."""

    identity = "stand_in@1"
    modalities = modalities.NAMES

    def __init__(self, device, wanted):
        self.device, self.wanted = device, wanted
        self.threshold = 0.1
        self.labels = SimpleNamespace(names=("cat", "dog"))
        self.processed = []

    @classmethod
    def load(cls, source, device, modalities, precision, engine, threads, providers):
        if source == "missing":
            raise ConfigError("no model 'missing'")
        model = cls(device, modalities)
        model.precision, model.engine, model.providers = precision, engine, providers
        return model

    def warm_up(self, modalities):
        self.warm = set(modalities)

    def process(self, modality, raw):
        self.processed.append(modality)
        return np.zeros((1, 4), np.float32)

    def embed(self, items):
        return np.tile(np.array([0.6, 0.8], np.float32), (len(items), 1))

    def recognise(self, kinds, embeddings, doubts=None):
        count = len(self.labels.names)
        rows = np.full((1 + len(kinds), count), 0.2 / max(count - 1, 1), np.float32)
        rows[:, 0] = 0.8
        weights = np.full(len(kinds), 1 / len(kinds), np.float32)
        return SimpleNamespace(
            embedding=np.array([0.6, 0.8], np.float32),
            weights=weights,
            similarities=rows,
            probabilities=rows,
            without=rows[1:],
            familiarity=np.full(len(kinds), -3, np.float32),
        )

    def set_labels(self, names, between=None):
        self.labels = SimpleNamespace(names=tuple(names))


class Rig:
    """Nodes in a domain of their own, spun by a thread, and what they publish."""

    def __init__(self):
        self.domain = any_domain()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.helper = rclpy.create_node("helper", context=self.context)
        self.predictions, self.statuses, self.diagnostics = [], [], []
        self.helper.create_subscription(msg.Prediction, "omnibind/prediction", self.predictions.append, 100)
        self.helper.create_subscription(msg.FusionStatus, "fusion_node/status", self.statuses.append, LATCHED)
        self.helper.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10)
        self.executor.add_node(self.helper)
        self.nodes, self.processes = [self.helper], []
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def start(self, kind, start=True, namespace=None, **parameters):
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
        node = kind(context=self.context, parameter_overrides=overrides, namespace=namespace)
        if start:
            assert node.start()
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def fusion(self, start=True, **parameters):
        return self.start(FusionNode, start, **{"rate": 20.0, "sensors": ["camera"], **parameters})

    def camera_process(self, topic="camera/image_raw", reliability="best_effort", kind="Image"):
        environment = {**os.environ, "ROS_DOMAIN_ID": str(self.domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        process = subprocess.Popen([sys.executable, "-c", PUBLISHER, topic, reliability, kind], env=environment)
        self.processes.append(process)
        return process

    def publish(self, kind, topic, fields, qos=BEST_EFFORT, period=0.05, stamp=None):
        """Publishes the same content again and again; returns the timer."""
        publisher = self.helper.create_publisher(kind, topic, qos)
        message = messages.fill(kind(), fields)

        def send():
            if hasattr(message, "header"):
                message.header.frame_id = f"{topic}_frame"
                message.header.stamp = (stamp or self.helper.get_clock().now)().to_msg()
            publisher.publish(message)

        return self.helper.create_timer(period, send)

    def camera(self, topic="camera/image_raw", encoding="rgb8", **options):
        fields = messages.image_fields(np.zeros((24, 32, 3), np.uint8), "rgb8")
        return self.publish(Image, topic, {**fields, "encoding": encoding}, **options)

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
            time.sleep(0.01)

    def wait_for_prediction(self, *sensors):
        """Waits for a new prediction by exactly these sensors."""
        seen = len(self.predictions)
        found = []
        self.wait(
            lambda: (
                found.extend(p for p in self.predictions[seen:] if [share.name for share in p.sensors] == [*sensors])
                or found
            ),
            f"a prediction by {sensors}",
        )
        return found[0]

    def sensor(self, name):
        """The newest status of a sensor."""
        rows = self.statuses[-1].sensors if self.statuses else []
        return next((row for row in rows if row.name == name), msg.SensorStatus())

    def wait_for_entry(self, name, words):
        """Waits for an entry of /diagnostics, its name without the node's, that says so; returns its values."""

        def find():
            rows = (row for array in self.diagnostics[-1:] for row in array.status)
            return [row for row in rows if row.name.endswith(f": {name}") and words in row.message]

        found = []
        self.wait(lambda: found.extend(find()) or found, f"'{words}' of {name}")
        return {pair.key: pair.value for pair in found[0].values}

    def wait_for_state(self, name, state):
        self.wait(lambda: self.sensor(name).state == state, f"state {state} of {name}, which is {self.sensor(name)}")
        return self.sensor(name)

    def call(self, kind, name, request):
        """Calls a service of a node."""
        client = self.helper.create_client(kind, name)
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(request)
        self.wait(future.done, f"the service {name}")
        return future.result()

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.executor.shutdown()
        self.thread.join(PATIENCE)
        for node in self.nodes[1:]:
            node.stop()
        for node in self.nodes:
            node.destroy_node()
        rclpy.shutdown(context=self.context)


def stand_in(monkeypatch, kind=StandIn):
    monkeypatch.setattr("omnibind_ros.node.lifecycle.load_model", lambda *given: kind.load(*given))


@pytest.fixture
def rig(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    stand_in(monkeypatch)
    rig = Rig()
    yield rig
    rig.close()


def noise_events():
    index = np.arange(200)
    return Events(
        (index % 16).astype(np.uint16), (index % 12).astype(np.uint16), index * 50, (index % 2).astype(np.uint8), 16, 12
    )


# Predictions ----------------------------------------------------------------------------------------------------------


def test_all_six_sensors_are_fused_and_the_newest_header_is_copied(rig):
    rig.fusion(
        sensors=["camera", "thermal", "event_camera", "tactile", "lidar", "microphone"],
        publish_embedding=True,
        publish_similarities=True,
    )
    rig.camera()
    rig.publish(Image, "thermal/image_raw", messages.image_fields(np.full((12, 16), 30000, np.uint16), "mono16"))
    rig.publish(Image, "tactile/image_raw", messages.image_fields(np.zeros((12, 16), np.uint8), "mono8"))
    rig.publish(msg.EventArray, "event_camera/events", messages.event_array_fields(noise_events()))
    cloud = messages.point_cloud_fields(np.random.default_rng(0).normal(size=(64, 3)), PointField)
    rig.publish(PointCloud2, "lidar/points", cloud)
    sound = Sound(np.sin(np.arange(1600) / 5).astype(np.float32), 16000)
    rig.publish(msg.AudioChunk, "microphone/audio", messages.audio_chunk_fields(sound))
    prediction = rig.wait_for_prediction("camera", "thermal", "event_camera", "tactile", "lidar", "microphone")
    kinds = [share.modality for share in prediction.sensors]
    assert kinds == ["image", "thermal", "event", "touch", "point_cloud", "audio"]
    assert prediction.label == "cat" and list(prediction.labels) == ["cat", "dog"] and not prediction.unknown
    assert prediction.confidence == pytest.approx(0.8)
    assert sum(share.weight for share in prediction.sensors) == pytest.approx(1)
    assert len(prediction.sensors) == 6 and all(share.label and share.confidence for share in prediction.sensors)
    assert max(share.age for share in prediction.sensors) < 2 and prediction.latency > 0
    assert prediction.header.frame_id.endswith("_frame") and messages.stamp_ns(prediction) is not None
    assert np.allclose(prediction.embedding, [0.6, 0.8])
    assert len(prediction.similarities) == 7 * 2
    rig.wait(lambda: any(len(status.status) == 7 for status in rig.diagnostics), "diagnostics of all sensors")
    entry = next(array for array in rig.diagnostics if len(array.status) == 7)
    assert all(status.name.startswith("fusion_node: ") for status in entry.status)


def test_a_killed_sensor_leaves_within_its_timeout_and_returns(rig):
    rig.fusion(sensors=["camera", "thermal"], camera__timeout=0.5)
    rig.publish(Image, "thermal/image_raw", messages.image_fields(np.zeros((12, 16), np.uint8), "mono8"))
    for _ in range(2):
        driver = rig.camera_process()
        rig.wait_for_prediction("camera", "thermal")
        driver.kill()
        driver.wait()
        killed = time.time_ns()
        alone = rig.wait_for_prediction("thermal")
        # What counts is the time of the tick, which the newest header approaches to one publishing period.
        late = (messages.stamp_ns(alone) - killed) / 1e9
        assert late < 0.5 + 0.05 + 0.25
        assert "silent for" in rig.wait_for_state("camera", msg.SensorStatus.STATE_STALE).reason
    assert rig.sensor("thermal").state == msg.SensorStatus.STATE_ACTIVE


def test_without_any_sensor_the_status_says_so_and_nothing_is_predicted(rig):
    rig.fusion()
    rig.wait(lambda: rig.statuses and rig.statuses[-1].ticks > 5, "ticks")
    assert rig.statuses[-1].message == (
        "no sensor alive: camera waiting: no message yet; nobody publishes on /camera/image_raw"
    )
    assert not rig.predictions and not rig.statuses[-1].alive
    assert rig.statuses[-1].model == "stand_in@1" and list(rig.statuses[-1].labels) == ["cat", "dog"]


def test_the_status_does_not_call_a_sensor_dead_before_its_first_prediction(rig):
    rig.fusion(sensors=["camera"])
    rig.camera()
    rig.wait_for_prediction("camera")
    rig.wait(lambda: "perceiving by camera" in {status.message for status in rig.statuses}, "the status after it")
    alive = [s.message for s in rig.statuses if s.sensors[0].state == msg.SensorStatus.STATE_ACTIVE]
    assert alive[0] == "camera alive, no prediction yet"
    assert not any("no sensor alive" in message for message in alive)


def test_malformed_messages_are_counted_and_the_node_lives_on(rig):
    rig.fusion(sensors=["camera", "thermal"])
    bad = rig.camera(encoding="rgb565")
    rig.publish(Image, "thermal/image_raw", messages.image_fields(np.zeros((12, 16), np.uint8), "mono8"))
    status = rig.wait_for_state("camera", msg.SensorStatus.STATE_REJECTED)
    assert "rgb565" in status.reason and status.rejected >= 3
    rig.wait_for_prediction("thermal")
    bad.cancel()
    rig.camera()
    rig.wait_for_prediction("camera", "thermal")


def test_words_take_part_for_a_few_seconds_and_one_utterance_brings_them_back(rig):
    node = rig.fusion(sensors=["camera", "speech"], speech__type="text", speech__timeout=0.5)
    threads = []
    process = node.model.process
    node.model.process = lambda modality, raw: (
        threads.append((modality, threading.get_ident())) or process(modality, raw)
    )
    rig.camera()
    rig.wait_for_prediction("camera")
    speech = rig.helper.create_publisher(String, "speech/text", 10)
    rig.wait(speech.get_subscription_count, "the subscription")
    for _ in range(2):
        said = time.time_ns()
        speech.publish(String(data="a red  mug"))
        prediction = rig.wait_for_prediction("camera", "speech")
        assert [share.modality for share in prediction.sensors] == ["image", "text"]
        assert messages.stamp_ns(prediction) >= said  # a String has no header: its receipt counts
        assert prediction.sensors[1].age < 1
        rig.wait_for_prediction("camera")
        assert "silent for" in rig.wait_for_state("speech", msg.SensorStatus.STATE_STALE).reason
    own = {thread for modality, thread in threads if modality == "text"}
    assert own and rig.thread.ident not in own, "words are embedded by the worker"


def test_words_that_cannot_be_used_are_counted_and_the_camera_goes_on(rig):
    rig.fusion(sensors=["camera", "text"])
    rig.camera()
    words = rig.helper.create_publisher(String, "text/text", 10)
    rig.wait(words.get_subscription_count, "the subscription")
    empty = "[text] got an empty text, expected at least one word"
    for count, (data, reason) in enumerate(
        [(" ", empty), ("x" * 10**6, "[text] got 1000000 characters, expected at most 2000 characters"), ("", empty)], 1
    ):
        words.publish(String(data=data))
        rig.wait(lambda count=count: rig.sensor("text").rejected == count, f"rejection {count}")
        assert reason in rig.sensor("text").reason
        rig.wait_for_prediction("camera")
    assert rig.sensor("text").state == msg.SensorStatus.STATE_REJECTED
    words.publish(String(data="a dog"))
    rig.wait_for_prediction("camera", "text")


def test_a_sensor_node_sends_words_as_embeddings(rig):
    node = rig.start(SensorNode, sensor="speech", speech__type="text")
    assert node.parameters["send"] == "preprocessed"  # as for all others, but words are no numbers
    frames = []
    rig.helper.create_subscription(msg.ModalityFrame, "omnibind/speech", frames.append, 10)
    speech = rig.helper.create_publisher(String, "speech/text", 10)
    rig.wait(speech.get_subscription_count, "the subscription")
    rig.wait(lambda: not speech.publish(String(data="a dog")) and frames, "a frame")
    assert frames[0].modality == "text" and frames[0].kind == msg.ModalityFrame.KIND_EMBEDDING
    assert messages.stamp_ns(frames[0]) is not None


def test_time_that_goes_backwards_clears_the_buffers_and_predictions_go_on(rig):
    clock = rig.helper.create_publisher(Clock, "/clock", 10)
    rig.fusion(use_sim_time=True)
    now = [100.0]

    def sim_time():
        return SimpleNamespace(to_msg=lambda: rclpy.time.Time(nanoseconds=round(now[0] * 1e9)).to_msg())

    def advance():
        now[0] += 0.02
        clock.publish(Clock(clock=sim_time().to_msg()))

    rig.helper.create_timer(0.02, advance)
    rig.camera(stamp=sim_time)
    rig.wait_for_prediction("camera")
    now[0] = 50.0
    rig.wait(lambda: 50e9 < messages.stamp_ns(rig.predictions[-1]) < 100e9, "a prediction in the second loop")
    assert rig.sensor("camera").rejected == 0


# Topics ---------------------------------------------------------------------------------------------------------------


def test_a_wrong_message_type_is_named(rig):
    rig.fusion()
    rig.publish(String, "camera/image_raw", {"data": "hello"})
    status = rig.wait_for_state("camera", msg.SensorStatus.STATE_REJECTED)
    assert "/camera/image_raw has messages of type std_msgs/msg/String" in status.reason
    assert "sensor_msgs/msg/Image" in status.reason


def test_incompatible_qos_is_named_by_policy_and_auto_follows_the_publisher(rig):
    rig.fusion(sensors=["camera", "thermal"], camera__qos="reliable", thermal__topic="camera/image_raw")
    rig.camera()
    status = rig.wait_for_state("camera", msg.SensorStatus.STATE_INCOMPATIBLE_QOS)
    assert "reliab" in status.reason.lower()
    rig.wait_for_prediction("thermal")


def test_auto_qos_follows_a_publisher_that_returns_with_another(rig):
    node = rig.fusion(camera__timeout=0.5)
    driver = rig.camera_process(reliability="reliable")
    rig.wait_for_prediction("camera")
    subscriptions = node.get_subscriptions_info_by_topic("camera/image_raw")
    assert [info.qos_profile.reliability for info in subscriptions] == [ReliabilityPolicy.RELIABLE]
    driver.kill()
    rig.wait_for_state("camera", msg.SensorStatus.STATE_STALE)
    rig.camera_process(reliability="best_effort")
    rig.wait_for_prediction("camera")


def test_a_latched_publisher_that_was_there_before_is_heard(rig):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = rig.helper.create_publisher(Image, "camera/image_raw", latched)
    message = messages.fill(Image(), messages.image_fields(np.zeros((24, 32, 3), np.uint8), "rgb8"))
    publisher.publish(message)  # its stamp is zero: the time of receipt counts
    node = rig.fusion(camera__timeout=60.0)
    rig.wait_for_prediction("camera")
    assert [report.received for report in node.engine.reports(node.now_ns)] == [1]


def test_a_topic_whose_type_changes_is_refused(rig):
    rig.fusion()
    timer = rig.camera()
    rig.wait_for_prediction("camera")
    timer.cancel()
    rig.helper.destroy_publisher(next(p for p in rig.helper.publishers if p.topic_name == "/camera/image_raw"))
    rig.camera_process(kind="CompressedImage")
    status = rig.wait_for_state("camera", msg.SensorStatus.STATE_REJECTED)
    assert "a topic keeps its type until the node is started again" in status.reason


# Ticks ----------------------------------------------------------------------------------------------------------------


def test_a_trigger_sensor_gives_one_prediction_for_each_of_its_messages(rig):
    rig.fusion(sensors=["camera", "thermal"], trigger="camera", rate=0.5)
    rig.publish(Image, "thermal/image_raw", messages.image_fields(np.zeros((12, 16), np.uint8), "mono8"), period=0.02)
    rig.camera(period=0.2)
    rig.wait(lambda: sum(p.header.frame_id == "camera/image_raw_frame" for p in rig.predictions) > 5, "predictions")
    stamps = [messages.stamp_ns(p) for p in rig.predictions if p.header.frame_id == "camera/image_raw_frame"]
    assert stamps == sorted(set(stamps))


def test_a_tick_waits_for_the_end_of_max_wait_and_no_longer(rig):
    node = rig.fusion(sensors=["camera", "thermal"], rate=2.0, max_wait=0.2, camera__timeout=60.0)
    rig.publish(Image, "thermal/image_raw", messages.image_fields(np.zeros((12, 16), np.uint8), "mono8"))
    camera = rig.camera()
    rig.wait_for_prediction("camera", "thermal")
    camera.cancel()  # overdue from now on, and not given up for a minute
    rig.wait(lambda: not node._loop._wait_timer.is_canceled(), "a tick that waits")
    seen = len(rig.predictions)
    rig.wait(lambda: len(rig.predictions) > seen + 2, "predictions in spite of that")
    assert all("thermal" in {share.name for share in p.sensors} for p in rig.predictions[seen:])


def test_too_few_sensors_are_told(rig):
    rig.fusion(sensors=["camera", "thermal"], min_sensors=2)
    rig.camera()
    rig.wait_for_state("camera", msg.SensorStatus.STATE_ACTIVE)
    rig.wait(lambda: "only camera alive, 2 sensors wanted" in rig.statuses[-1].message, "the message")
    assert not rig.predictions


def test_a_bag_loop_gives_the_same_number_of_predictions_each_time(rig):
    clock = rig.helper.create_publisher(Clock, "/clock", 10)
    node = rig.fusion(use_sim_time=True, trigger="camera", camera__qos="reliable")
    camera = rig.helper.create_publisher(Image, "camera/image_raw", 10)
    message = messages.fill(Image(), messages.image_fields(np.zeros((24, 32, 3), np.uint8), "rgb8"))
    rig.wait(lambda: node.link("camera").ros_type and camera.get_subscription_count(), "the connection")
    counts = []
    for _ in range(3):
        begin = len(rig.predictions)
        for step in range(1, 13):
            now = rclpy.time.Time(nanoseconds=1_000_000_000 * 100 + step * 100_000_000)
            clock.publish(Clock(clock=now.to_msg()))
            rig.wait(lambda now=now: node.now_ns == now.nanoseconds, "the time")
            message.header.stamp = now.to_msg()
            camera.publish(message)
            rig.wait(lambda now=now: rig.predictions and messages.stamp_ns(rig.predictions[-1]) == now.nanoseconds,
                     "a prediction for the message")  # fmt: skip
        counts.append(len(rig.predictions) - begin)
    assert counts == [12, 12, 12]


@pytest.mark.skipif(importlib.util.find_spec("message_filters") is not None, reason="message_filters is installed")
def test_what_needs_a_package_that_is_missing_says_so(rig, capfd):
    node = rig.fusion(start=False, sync="approximate")
    assert not node.start()
    reason = "cannot activate: sync: approximate needs the package 'message_filters': apt install ros-$ROS_DISTRO-"
    assert reason in capfd.readouterr().err


def test_sync_by_message_filters_predicts_and_adapts(rig):
    pytest.importorskip("message_filters", reason="message_filters comes with a ROS installation only")
    rig.fusion(sensors=["camera", "thermal"], sync="approximate", thermal__timeout=0.5)
    rig.camera()
    picture = messages.image_fields(np.zeros((12, 16), np.uint8), "mono8")
    thermal = rig.publish(Image, "thermal/image_raw", picture)
    rig.wait_for_prediction("camera", "thermal")
    thermal.cancel()
    rig.wait_for_prediction("camera")
    assert "silent for" in rig.wait_for_state("thermal", msg.SensorStatus.STATE_STALE).reason


# Discovery ------------------------------------------------------------------------------------------------------------


def test_topics_are_adopted_as_they_appear_and_let_go(rig):
    node = rig.fusion(
        sensors=[""],
        discover=True,
        discover_forget=0.5,
        front_camera__timeout=0.3,
        precision="bfloat16",
        engine="onnxruntime",
        providers=["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    assert (node.model.precision, node.model.engine) == ("bfloat16", "onnxruntime")
    assert node.model.providers == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert node.model.wanted == {"image", "thermal", "event", "touch", "point_cloud", "audio"}
    rig.publish(Image, "rear/lwir/image_raw", messages.image_fields(np.zeros((12, 16), np.uint8), "mono8"))
    rig.publish(Image, "rear/depth/image_raw", messages.image_fields(np.zeros((12, 16), np.uint8), "mono8"))
    rig.publish(String, "chatter", {"data": "hello"})
    rig.wait_for_prediction("rear_lwir")
    assert set(node.sensors) == {"rear_lwir"} and rig.sensor("rear_lwir").modality == "thermal"
    driver = rig.camera_process("front/camera/image_raw")
    rig.wait_for_prediction("rear_lwir", "front_camera")
    assert node.parameters["front_camera.timeout"] == 0.3  # from the parameter file, before the sensor was there
    assert rig.call(SetBool, "fusion_node/front_camera/set_enabled", SetBool.Request(data=False)).success
    rig.wait_for_state("front_camera", msg.SensorStatus.STATE_DISABLED)
    driver.send_signal(signal.SIGINT)
    rig.wait(lambda: "front_camera" not in node.sensors, "the topic to be let go")
    rig.wait(lambda: len(rig.statuses[-1].sensors) == 1, "the status")
    refused = rig.call(SetBool, "fusion_node/front_camera/set_enabled", SetBool.Request(data=True))
    assert not refused.success and "no sensor 'front_camera'" in refused.message
    rig.camera_process("front/camera/image_raw")
    rig.wait_for_prediction("rear_lwir", "front_camera")


def test_a_clock_since_boot_is_offered_the_time_of_receipt_and_takes_part_by_it(rig):
    node = rig.fusion(sensors=[""], discover=True)
    rig.camera("a/image_raw", stamp=lambda: Time(seconds=12, clock_type=ClockType.ROS_TIME))
    reason = rig.wait_for_state("a", msg.SensorStatus.STATE_LATE).reason
    assert "s before it was received" in reason and reason.endswith("or set a.stamp: receive")
    assert node.set_parameters([Parameter("a.stamp", value="receive")])[0].successful
    prediction = rig.wait_for_prediction("a")
    assert prediction.header.stamp.sec == 12 and abs(prediction.sensors[0].age) < 10
    refused = node.set_parameters([Parameter("a.stamp", value="now")])[0]
    assert not refused.successful and "'a.stamp' is 'now', expected one of header, receive" in refused.reason


def test_what_was_adopted_is_adopted_again_after_an_unexpected_error(rig, monkeypatch):
    node = rig.fusion(sensors=[""], discover=True)
    rig.camera("front/camera/image_raw")
    rig.wait(lambda: "front_camera" in node.sensors, "adoption")
    change = "fusion_node/change_state"

    def step(number):
        request = ChangeState.Request(transition=Transition(id=number))
        return rig.call(ChangeState, change, request).success

    assert step(Transition.TRANSITION_DEACTIVATE)
    monkeypatch.setattr(FusionNode, "make_trigger", lambda *_: {}["a mistake"])
    assert not step(Transition.TRANSITION_ACTIVATE)
    assert not node.sensors and "front_camera.type" not in node.parameters
    monkeypatch.undo()
    stand_in(monkeypatch)
    assert step(Transition.TRANSITION_CONFIGURE) and step(Transition.TRANSITION_ACTIVATE)
    rig.wait_for_prediction("front_camera")


def test_adoption_has_a_limit(rig):
    node = rig.fusion(sensors=[""], discover=True, discover_limit=1)
    rig.camera("a/image_raw")
    rig.wait_for_prediction("a")
    rig.camera("b/image_raw")
    entry = "fusion_node: discovery"
    rig.wait(
        lambda: any(
            value.key == "/b/image_raw" and "discover_limit" in value.value
            for array in rig.diagnostics for status in array.status if status.name == entry for value in status.values
        ),
        "the reason",
    )  # fmt: skip
    assert set(node.sensors) == {"a"}


def test_topics_are_looked_at_and_what_is_no_sensor_is_left_alone(rig):
    grey = messages.image_fields(np.zeros((12, 16), np.uint8), "mono8")
    rig.publish(Image, "oak/stereo/image_raw", messages.image_fields(np.full((6, 8), 1500, np.uint16), "16UC1"))
    rig.camera("flir_camera/image_raw", "bgr8")
    rig.publish(Image, "nearir_image", grey)
    rig.publish(Image, "front/classes", messages.image_fields(np.zeros((12, 16), np.int32), "32SC1"))
    rig.helper.create_publisher(Image, "idle/image_raw", 10)
    rig.helper.create_publisher(WrenchStamped, "wrench", 10)
    node = rig.fusion(sensors=[""], discover=True)
    rig.wait_for_prediction("flir_camera")
    assert rig.sensor("flir_camera").modality == "image", "a visible camera, by its colours"
    discovery = node._discovery
    rig.wait(lambda: "/idle/image_raw" in discovery.excluded, "the look at a topic that is silent")
    assert "as a point cloud it would need /oak/stereo/camera_info" in discovery.excluded["/oak/stereo/image_raw"]
    assert discovery.excluded["/front/classes"] == "32SC1: it labels pixels"
    assert "a force-torque reading" in discovery.excluded["/wrench"]
    told = "nothing came while it was looked at: /helper should publish on /idle/image_raw"
    assert discovery.excluded["/idle/image_raw"] == told
    rig.wait(lambda: not node._prober.busy, "the end of the look")
    subscribed = [subscription.topic_name for subscription in node.subscriptions]
    assert "/flir_camera/image_raw" in subscribed and "/front/classes" not in subscribed
    assert rig.helper.count_subscribers("/front/classes") == 0, "what was looked at costs nothing any more"
    rig.publish(CameraInfo, "oak/stereo/camera_info", CAMERA_INFO)
    rig.wait_for_prediction("flir_camera", "oak_stereo")
    assert rig.sensor("oak_stereo").modality == "point_cloud"


CAMERA_INFO = {"width": 8, "height": 6, "k": np.array([8.0, 0, 4, 0, 8, 3, 0, 0, 1])}


# What is on the topic -------------------------------------------------------------------------------------------------


def test_depth_and_pressure_arrays_are_sensors_and_their_wants_are_told(rig):
    rig.fusion(sensors=["lidar", "tactile"], lidar__topic="depth/image", tactile__topic="skin", tactile__rows=4)
    rig.publish(Image, "depth/image", messages.image_fields(np.full((6, 8), 1500, np.uint16), "16UC1"))
    rig.publish(UInt16MultiArray, "skin", {"data": np.arange(24, dtype=np.uint16)})
    rig.wait_for_prediction("tactile")
    reason = rig.wait_for_state("lidar", msg.SensorStatus.STATE_REJECTED).reason
    assert "whose camera is not known yet, expected a sensor_msgs/msg/CameraInfo on /depth/camera_info" in reason
    rig.publish(CameraInfo, "depth/camera_info", CAMERA_INFO)
    rig.wait_for_prediction("lidar", "tactile")


def test_a_topic_that_is_there_in_another_form_or_of_another_kind_is_told(rig):
    rig.helper.create_publisher(CompressedImage, "camera/image_raw/compressed", 10)
    rig.helper.create_publisher(WrenchStamped, "tactile/image_raw", 10)
    rig.fusion(sensors=["camera", "tactile"])
    told = (
        "nobody publishes on /camera/image_raw, but /camera/image_raw/compressed exists: set the sensor's topic to it"
    )
    rig.wait(lambda: told in rig.sensor("camera").reason, "the other form")
    reason = rig.wait_for_state("tactile", msg.SensorStatus.STATE_REJECTED).reason
    assert "WrenchStamped, expected" in reason and "a force-torque reading: omnibind has no modality for it" in reason


def test_messages_that_do_not_arrive_are_told_from_silence(rig, monkeypatch):
    monkeypatch.setattr(topics, "_SILENCE", 0.2)
    monkeypatch.setattr(topics, "buffer_warning", lambda: "net.core.rmem_max is 1")
    node = rig.fusion(sensors=["camera", "thermal"])
    rig.wait(lambda: rig.sensor("camera").reason.endswith("nobody publishes on /camera/image_raw"), "silence")
    rig.helper.create_publisher(Image, "camera/image_raw", BEST_EFFORT)
    rig.helper.create_publisher(Image, "thermal/image_raw", 10)
    told = (
        "which is connected: it sends nothing, or all is lost on its way as best effort (net.core.rmem_max is 1; docs"
    )
    rig.wait(lambda: told in rig.sensor("camera").reason, "the hint")
    link = node.link("camera")
    node._pool._lost[link._key] = 7  # what the middleware tells, where a buffer is too small
    rig.wait(lambda: "; 7 messages were lost on their way (net.core" in rig.sensor("camera").reason, "the number")
    assert rig.sensor("thermal").reason.endswith("helper should publish on /thermal/image_raw"), "reliable: not lost"
    rig.wait(
        lambda: any((v.key, v.value) == ("lost", "7") for a in rig.diagnostics for s in a.status for v in s.values),
        "the number in the diagnostics",
    )


# Sensor nodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("send", ["preprocessed", "embedding"])
def test_a_sensor_node_feeds_the_fusion_node(rig, send):
    fusion = rig.fusion(camera__topic="omnibind/camera", camera__message_type=messages.MODALITY_FRAME)
    sensor = rig.start(SensorNode, sensor="camera", send=send, rate=20.0)
    rig.camera()
    prediction = rig.wait_for_prediction("camera")
    assert prediction.header.frame_id == "camera/image_raw_frame"
    assert sensor.model.processed and not fusion.model.processed
    assert sensor.model.wanted == (set() if send == "preprocessed" else {"image"})  # encoders that it needs


def test_frames_for_another_model_are_rejected(rig):
    rig.fusion(camera__topic="omnibind/camera")
    frame = {"sensor": "camera", "modality": "image", "model": "other@2", "kind": 1, "dtype": 1,
             "shape": np.array([2], np.uint32), "data": np.array([0.6, 0.8], np.float32).view(np.uint8)}  # fmt: skip
    rig.publish(msg.ModalityFrame, "omnibind/camera", frame)
    assert "'other@2', expected 'stand_in@1'" in rig.wait_for_state("camera", msg.SensorStatus.STATE_REJECTED).reason


# Outputs --------------------------------------------------------------------------------------------------------------


def test_the_debug_image_is_made_for_subscribers_only_and_reliable(rig):
    node = rig.fusion(sensors=["thermal", "camera"])
    rig.camera()
    rig.publish(Image, "thermal/image_raw", messages.image_fields(np.full((12, 16), 30000, np.uint16), "mono16"))
    rig.wait_for_prediction("thermal", "camera")
    offered = node.get_publishers_info_by_topic("fusion_node/debug_image")
    assert [info.qos_profile.reliability for info in offered] == [ReliabilityPolicy.RELIABLE]
    pictures = []
    rig.helper.create_subscription(Image, "fusion_node/debug_image", pictures.append, 1)
    rig.wait(lambda: pictures, "a picture")
    picture = pictures[0]
    assert (picture.encoding, picture.width) == ("rgb8", 640) and picture.height > 480
    assert picture.header.frame_id.endswith("_frame")
    assert np.frombuffer(picture.data, np.uint8).max() == 255  # something is written on it


class Record(SimpleNamespace):
    """A message of vision_msgs as far as the node can tell."""


VISION = SimpleNamespace(Classification=Record, ObjectHypothesis=Record, VisionClass=Record, LabelInfo=Record)


def test_standard_messages_say_the_same_as_ours():
    prediction = SimpleNamespace(unknown=False, labels=("cat", "dog"), scores=(0.75, 0.25))
    message = outputs.classification(VISION, "header", prediction)
    assert message.header == "header"
    assert [(result.class_id, result.score) for result in message.results] == [("cat", 0.75), ("dog", 0.25)]
    prediction.unknown = True
    assert outputs.classification(VISION, "header", prediction).results == []
    info = outputs.label_info(VISION, "header", ("cat", "dog"), 0.5)
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [(0, "cat"), (1, "dog")]
    assert info.threshold == 0.5


def test_standard_messages_over_dds(rig):
    vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs comes with a ROS installation only")
    rig.fusion()
    infos, classes = [], []
    rig.camera()
    rig.wait_for_prediction("camera")
    rig.helper.create_subscription(vision.LabelInfo, "omnibind/label_info", infos.append, LATCHED)
    rig.helper.create_subscription(vision.Classification, "omnibind/classification", classes.append, 10)
    rig.wait(lambda: infos and classes, "both")
    assert [entry.class_name for entry in infos[0].class_map] == ["cat", "dog"]
    assert classes[0].results[0].class_id == "cat" and classes[0].header.frame_id == "camera/image_raw_frame"


def block(at, side=0.8, step=0.1):
    """Points of a cube."""
    axis = np.arange(-side / 2, side / 2 + step / 2, step)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    return (grid + at).astype(np.float32)


def test_things_are_told_with_ids_and_boxes_and_go_on_without_the_camera(rig):
    """Two cubes: a detector sees one in the picture, the cloud has both. A URDF and tf are not there: parameters do."""
    rig.fusion(
        rate=5.0, sensors=["camera", "lidar"], camera__timeout=0.6, camera__frame="eye", lidar__frame="mast",
        objects__enabled=True, objects__detections=["detections camera"],
        objects__transforms=["odom eye 0 0 0 -1.5707963 0 -1.5707963", "odom mast 0 0 0 0 0 0"],
    )  # fmt: skip
    told, things = [], []
    rig.helper.create_subscription(msg.ObjectPredictions, "omnibind/objects", told.append, 10)
    pixels = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    camera = rig.publish(Image, "camera/image_raw", messages.image_fields(pixels, "rgb8"), period=0.1)
    k = [160.0, 0.0, 159.5, 0.0, 160.0, 119.5, 0.0, 0.0, 1.0]
    rig.publish(CameraInfo, "camera/camera_info", {"width": 320, "height": 240, "k": k}, period=0.2)
    points = np.concatenate([block((4, 1, 0)), block((4, -1, 0))])
    rig.publish(PointCloud2, "lidar/points", messages.point_cloud_fields(points, PointField), period=0.1)
    box = msg.Detection(score=0.9, left=100.0, top=100.0, right=140.0, bottom=140.0)
    bad = msg.Detection(score=0.9, left=900.0, top=100.0, right=940.0, bottom=140.0)
    rig.publish(msg.Detections, "detections", {"detections": [box, bad]}, period=0.1)

    def seen(*sensors):
        for message in told:
            for one in message.objects:
                views = {view.sensor: view for view in one.views}
                if one.pose.position.y > 0.5 and {name for name, view in views.items() if view.seen} == {*sensors}:
                    things[:] = [message, one, views]
        told.clear()
        return things

    rig.wait(lambda: seen("camera", "lidar"), "a thing that both see")
    message, one, views = things
    assert message.header.frame_id == "odom" and one.id > 0
    assert abs(one.pose.position.x - 4) < 0.5 and 0.5 < one.size.x < 1.5
    assert views["camera"].left < 110 < 130 < views["camera"].right and views["camera"].bottom > 130
    assert [share.name for share in one.prediction.sensors] == ["camera", "lidar"] and one.prediction.label == "cat"
    values = rig.wait_for_entry("objects", "things in the frame 'odom'")
    assert "outside of the picture of 'camera'" in values["detections"] and int(values["rejected_detections"]) > 0
    camera.cancel()
    things.clear()
    rig.wait(lambda: seen("lidar"), "the thing without the camera")
    assert things[1].id == one.id and things[1].prediction.label == "cat"
    assert "stale" in things[2]["camera"].reason
    rig.wait_for_prediction("lidar")


def test_diagnostics_tell_the_stage_times_and_a_node_that_is_too_slow(rig):
    node = rig.fusion(rate=50.0)
    rig.camera()
    embed = node.model.embed

    def slow(items):
        time.sleep(0.3)
        return embed(items)

    node.model.embed = slow

    def entry(name):
        found = [s for array in rig.diagnostics for s in array.status if s.name == f"fusion_node: {name}"]
        return found[-1] if found else None

    rig.wait(lambda: entry("inference") and "too slow" in entry("inference").message, "the warning")
    values = {value.key: value.value for value in entry("inference").values}
    assert float(values["encode_mean"].split()[0]) > 0.05 and float(values["latency_max"].split()[0]) > 0.3
    assert int(values["overruns"]) > 0 and values["errors"] == "0"
    assert entry("inference").level == b"\x01"
    values = {value.key: value.value for value in entry("sensor camera").values}
    assert values["topic"] == "/camera/image_raw" and values["publishers"] == "/helper"


def test_a_node_that_is_too_slow_lowers_its_rate_and_returns_to_it(rig, monkeypatch):
    monkeypatch.setattr("omnibind_core.runtime.load._WINDOW", 0.5)
    node = rig.fusion(rate=20.0)
    rig.camera(period=0.02)
    embed = node.model.embed

    def slow(items):
        time.sleep(0.1)
        return embed(items)

    node.model.embed = slow

    def entry():
        found = [s for array in rig.diagnostics for s in array.status if s.name == "fusion_node: inference"]
        return found[-1].level, found[-1].message, {value.key: value.value for value in found[-1].values}

    rig.wait(lambda: rig.statuses and "; too slow for" in rig.statuses[-1].message, "the status")
    assert "are planned; one takes 0.1" in rig.statuses[-1].message and "(camera 0.1" in rig.statuses[-1].message
    rig.wait(lambda: rig.diagnostics and "are planned" in entry()[1], "the diagnostics")
    level, _, values = entry()
    assert level == b"\x01" and float(values["planned"].split()[0]) < float(values["asked"].split()[0])
    assert float(values["cost_camera"].split()[0]) > 0.09
    node.model.embed = embed
    rig.wait(lambda: "too slow" not in rig.statuses[-1].message, "the asked rate")
    rig.wait(lambda: entry()[1] == "running", "the diagnostics of that")


def test_diagnostics_warn_of_what_cannot_be_but_not_of_silence():
    link = SimpleNamespace(topic="/camera/image_raw", ros_type=messages.IMAGE, publishers=(), lost=0)
    black, silence = modalities.Doubt("a black picture, 0 of 255"), modalities.Doubt("silence", empty=True)
    for doubt, warned in ((None, False), (black, True), (silence, False)):
        reason = f"newest item 0.10 s old; {doubt}"
        report = SensorReport("camera", "image", SensorState.ACTIVE, reason, 0.1, 10.0, 5, 0, 0, -0.1, doubt)
        level, message, _ = sensor_entry(report, link, {})
        assert (level == DiagnosticStatus.WARN) == warned and str(doubt) in message


def test_diagnostics_tell_what_a_sensor_lost(rig, monkeypatch):
    monkeypatch.setattr(messages.Decoder, "losses", {"packet_gaps": 3})
    rig.fusion()
    rig.camera()
    rig.wait_for_prediction("camera")

    def values():
        found = [s.values for array in rig.diagnostics for s in array.status if s.name == "fusion_node: sensor camera"]
        return {value.key: value.value for value in found[-1]} if found else {}

    rig.wait(lambda: "packet_gaps" in values(), "the loss")
    assert values()["packet_gaps"] == "3"


def test_a_sensor_like_none_in_training_is_told_with_what_to_do(rig):
    rig.fusion()
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)  # a black one would be doubted
    rig.publish(Image, "camera/image_raw", messages.image_fields(picture, "rgb8"))
    assert rig.wait_for_prediction("camera").sensors[0].familiarity == -3.0

    def entry():
        return [s for array in rig.diagnostics for s in array.status if s.name == "fusion_node: sensor camera"][-1:]

    rig.wait(lambda: entry() and "omnibind adapt" in entry()[0].message, "the hint")
    assert entry()[0].level == b"\x01" and "not like any image the model was trained with" in entry()[0].message
    assert {value.key: value.value for value in entry()[0].values}["familiarity"] == "-3.00"


def test_diagnostics_come_while_simulated_time_stands_still(rig):
    rig.fusion(use_sim_time=True)
    rig.wait(lambda: len(rig.diagnostics) >= 2, "diagnostics")
    message = rig.diagnostics[-1].status[-1].message
    assert message == "use_sim_time is true and nothing publishes /clock"
    assert messages.stamp_ns(rig.diagnostics[-1]) is None


# Tactile reference ----------------------------------------------------------------------------------------------------


def test_the_tactile_reference_is_taken_from_the_newest_picture(rig):
    seen, threads = [], set()
    node = rig.fusion(sensors=["tactile", "camera"])
    decode = node._tactile._decode
    node._tactile._decode = lambda *given: threads.add(threading.current_thread().name) or decode(*given)
    node.model.process = lambda modality, raw: seen.append((modality, raw)) or np.zeros((1, 4), np.float32)
    service = "fusion_node/set_tactile_reference"
    answer = rig.call(TriggerService, service, TriggerService.Request())
    assert not answer.success and "[tactile] got no message now" in answer.message
    rig.publish(Image, "tactile/image_raw", messages.image_fields(np.full((12, 16, 3), 90, np.uint8), "rgb8"))
    rig.wait(lambda: seen and seen[-1][1].max() == 90, "pictures")
    answer = rig.call(TriggerService, service, TriggerService.Request())
    assert answer.success and answer.message == "[tactile] reference of 16 x 12 pixels taken"
    rig.wait(lambda: (seen[-1][1] == 128).all(), "pictures without what was there before")
    rig.camera("tactile/image_raw", encoding="h264", period=0.01)

    def refusal():
        answer = rig.call(TriggerService, service, TriggerService.Request())
        return "" if answer.success else answer.message

    rig.wait(lambda: "h264" in refusal(), "a picture that cannot be used")
    assert threads == {"omnibind-worker"}  # not the one that takes messages and answers calls


# Robots ---------------------------------------------------------------------------------------------------------------


def test_two_robots_on_one_machine(rig):
    first = rig.fusion(namespace="one")
    second = rig.fusion(namespace="two")
    rig.camera("one/camera/image_raw")
    heard = {name: [] for name in ("one", "two")}
    for name, predictions in heard.items():
        rig.helper.create_subscription(msg.Prediction, f"{name}/omnibind/prediction", predictions.append, 10)
    rig.wait(lambda: len(heard["one"]) > 5, "predictions of the first")
    assert not heard["two"] and not rig.predictions
    assert first.link("camera").topic == "/one/camera/image_raw"
    assert second.link("camera").topic == "/two/camera/image_raw"
    rig.wait(
        lambda: {s.hardware_id for a in rig.diagnostics for s in a.status} == {"/one/fusion_node", "/two/fusion_node"},
        "diagnostics of both",
    )
    names = {(s.hardware_id, s.name) for a in rig.diagnostics for s in a.status}
    wanted = {(f"/{robot}/fusion_node", f"{robot}/fusion_node: inference") for robot in ("one", "two")}
    assert wanted <= names  # a robot alone has "fusion_node: inference"
    by_robot = [{name for hardware, name in names if hardware == f"/{robot}/fusion_node"} for robot in ("one", "two")]
    assert len(by_robot[0]) > 1 and not by_robot[0] & by_robot[1]


# Lifecycle and parameters ---------------------------------------------------------------------------------------------


def test_lifecycle(rig):
    node = rig.fusion(start=False)
    rig.camera()
    success = TransitionCallbackReturn.SUCCESS
    for _ in range(2):
        assert node.trigger_configure() == success
        assert node.trigger_activate() == success
        rig.wait_for_prediction("camera")
        assert node.trigger_deactivate() == success
        rig.wait(lambda: rig.statuses[-1].message == "inactive", "the status to say inactive")
        seen = len(rig.predictions)
        time.sleep(0.3)
        assert len(rig.predictions) == seen
        model = weakref.ref(node.model)
        assert node.trigger_cleanup() == success
        assert node.model is None and model() is None  # nothing holds it any more


def test_a_lifecycle_manager_without_bond_drives_the_node(rig):
    rig.fusion(start=False)
    rig.camera()
    steps = [
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
        (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, State.PRIMARY_STATE_FINALIZED),
    ]
    for transition, state in steps:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert rig.call(ChangeState, "fusion_node/change_state", request).success
        assert rig.call(GetState, "fusion_node/get_state", GetState.Request()).current_state.id == state
        if state == State.PRIMARY_STATE_ACTIVE:
            rig.wait_for_prediction("camera")


PATHS = {  # how to get to a state by ids, and the ids that are right in it
    State.PRIMARY_STATE_UNCONFIGURED: ([], {1, 5}),
    State.PRIMARY_STATE_INACTIVE: ([1], {2, 3, 6}),
    State.PRIMARY_STATE_ACTIVE: ([1, 3], {4, 7}),
    State.PRIMARY_STATE_FINALIZED: ([5], set()),
}
SHUTDOWN = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN - State.PRIMARY_STATE_UNCONFIGURED  # and the same for the others


@pytest.mark.parametrize("state", PATHS)
def test_a_transition_that_the_state_lacks_is_refused_and_the_node_lives_on(rig, capfd, state):
    rig.fusion(start=False)
    path, right = PATHS[state]
    client = rig.helper.create_client(ChangeState, "fusion_node/change_state")
    assert client.wait_for_service(PATIENCE)

    def change(number, label=""):
        request = ChangeState.Request(transition=Transition(id=number, label=label))
        future = client.call_async(request)
        rig.wait(future.done, f"transition {number} '{label}'")
        return future.result().success

    assert all(change(number) for number in path)
    wrong = [(number, "") for number in [*range(9), 10, 20, 30, 40, 50, 60, 99, 200, 255] if number not in right]
    wrong += [(number, "transition_success") for number in (1, 255)] + [(1, "no such label")]
    capfd.readouterr()
    assert not any(change(*transition) for transition in wrong)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == len(wrong) and all("is refused: the node is " in line for line in lines), lines
    assert rig.call(GetState, "fusion_node/get_state", GetState.Request()).current_state.id == state
    if right:  # a label counts more than the id, as with nodes in C++
        assert change(0, "shutdown") if state == 3 else change(SHUTDOWN + state)
        reached = rig.call(GetState, "fusion_node/get_state", GetState.Request()).current_state.id
        assert reached == State.PRIMARY_STATE_FINALIZED


def test_a_step_that_fails_unexpectedly_says_so_and_can_be_repeated(rig, capfd, monkeypatch):
    node = rig.fusion(start=False)
    monkeypatch.setattr(StandIn, "warm_up", lambda *_: {}["a\nmistake"])
    assert not node.start()
    lines = [line for line in capfd.readouterr().err.splitlines() if "ERROR" in line]
    assert len(lines) == 1 and "cannot configure: KeyError: 'a\\nmistake'" in lines[0]
    assert node.model is None and not node.sensors
    monkeypatch.undo()
    stand_in(monkeypatch)
    assert node.start()


def test_a_device_that_is_not_there_is_refused_before_the_model_is_loaded(rig, capfd):
    node = rig.fusion(start=False, device="cuda:99", model="missing")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "cannot configure: parameter 'device' is 'cuda:99', expected one of auto, cpu" in capfd.readouterr().err
    assert node.set_parameters([Parameter("device", value="cpu"), Parameter("model", value="lite")])[0].successful
    assert node.start()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("device", "gpu", "'device' is 'gpu', expected auto, cpu, cuda, cuda:1, ..."),
        ("trigger", "lidar", "'trigger' is 'lidar', expected one of rate, camera"),
        ("discover_include", ["("], "is no regular expression"),
        ("camera.topic", "a b", "'a_b' would do"),
        ("camera.scale", float("nan"), "'camera.scale' is nan, expected a finite number"),
        ("camera.topic", "/{robot}/x", "'camera.topic' is '/{robot}/x', expected one that ROS can resolve"),
        ("labels", None, "'labels' cannot be deleted"),  # as by 'ros2 param delete'
    ],
)
def test_unusable_values_are_refused_before_they_are_used(rig, name, value, complaint):
    node = rig.fusion(start=False)
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful and complaint in result.reason
    assert node.start()


def test_it_listens_before_the_model_is_loaded(rig, monkeypatch):
    rig.camera()
    node = rig.fusion(start=False)
    rig.wait(lambda: node.get_publishers_info_by_topic("camera/image_raw"), "the node to find the camera")
    load = StandIn.load.__func__

    def wait_and_load(*arguments):
        rig.wait(lambda: rig.helper.count_subscribers("camera/image_raw"), "a subscription")
        return load(*arguments)

    monkeypatch.setattr(StandIn, "load", classmethod(wait_and_load))
    assert node.start()
    rig.wait_for_prediction("camera")


def test_a_model_that_does_not_exist_fails_the_configuration_and_can_be_corrected(rig):
    node = rig.fusion(start=False, model="missing")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert not node.sensors and not node._links
    assert node.set_parameters([Parameter("model", value="lite")])[0].successful
    assert node.start()


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"sensors": ["camera", "camera"]}, "'sensors' names one twice"),
        ({"sensors": ["front"]}, "'front.type' is '', expected one of camera"),
        ({"camera__type": "sonar"}, "'camera.type' is 'sonar'"),
        ({"camera__timeout": -1.0}, "'camera.timeout'"),
        ({"camera__timeout": "soon"}, "'camera.timeout' is 'soon', expected a number"),
        ({"camera__qos": "best"}, "'camera.qos' is 'best', expected one of auto"),
        ({"camera__message_type": "std_msgs/msg/String"}, "'camera.message_type'"),
        ({"rate": 0.0}, "'rate'"),
        ({"trigger": "lidar"}, "'trigger' is 'lidar', expected one of rate, camera"),
        ({"sensors": [""]}, "'sensors' is empty"),
        ({"discover_exclude": ["("]}, "'discover_exclude': .* is no regular expression"),
        ({"sensors": []}, "'sensors' is empty, expected at least one name, or discover: true"),
        ({"sensors": ["front-camera"]}, "'sensors' has 'front-camera', expected letters.*; 'front_camera' would do"),
        ({"sensors": ["2cam"]}, "'sensors' has '2cam', expected letters.*; 'sensor_2cam' would do"),
        ({"sensors": ["front/camera"]}, "'front_camera' would do"),
        ({"sensors": ["cam\u00e9ra"]}, "'cam_ra' would do"),
        ({"sensors": ["---"]}, "'sensors' has '---', expected letters.*first$"),
        ({"sensors": ["\u524d\u65b9"]}, "'sensors' has '\u524d\u65b9', expected letters.*first$"),
        ({"sensors": ["rate"]}, "'sensors' has 'rate', expected a name that no other parameter has"),
        (
            {"camera__topic": "front camera/image"},
            "'camera.topic' is 'front camera/image', .*'front_camera/image' would",
        ),
        ({"camera__topic": "/image_raw/"}, "'camera.topic' is '/image_raw/', expected .*; '/image_raw' would do"),
        ({"camera__topic": "a//b"}, "'a/b' would do"),
        ({"camera__topic": "2cam/image"}, "'sensor_2cam/image' would do"),
        ({"device": "gpu"}, "'device' is 'gpu', expected auto, cpu, cuda, cuda:1, ..."),
        ({"device": ""}, "'device' is '', expected auto"),
        ({"rate": -1.5}, "'rate' is -1.5, expected 0.1 to 100$"),
        ({"rate": float("nan")}, "'rate' is nan, expected 0.1 to 100$"),
        ({"rate": "fast"}, "'rate' is 'fast', expected a number"),
        ({"camera__enabled": "yes"}, "'camera.enabled' is 'yes', expected a bool"),
    ],
)
def test_unusable_parameters_are_refused_by_name(rig, parameters, complaint):
    with pytest.raises(ConfigError, match=complaint):
        rig.fusion(**parameters)


def test_parameters_that_change_while_running(rig):
    node = rig.fusion(camera__timeout=2)  # an integer is as good as a float
    rig.camera()
    rig.wait_for_prediction("camera")
    assert node.set_parameters([Parameter("labels", value=["cup", "spoon", "fork"])])[0].successful
    rig.wait(lambda: list(rig.predictions[-1].labels) == ["cup", "spoon", "fork"], "new labels")
    rig.wait(lambda: list(rig.statuses[-1].labels) == ["cup", "spoon", "fork"], "new labels in the status")
    assert node.set_parameters([Parameter("labels", value=[""])])[0].successful
    rig.wait(lambda: rig.predictions[-1].label == "cat", "the model's own labels")
    assert node.set_parameters([Parameter("threshold", value=0.9)])[0].successful
    rig.wait(lambda: rig.predictions[-1].unknown and rig.predictions[-1].label == "", "unknown")
    refused = node.set_parameters([Parameter("labels", value=["a", "a"])])[0]
    assert not refused.successful and "one twice" in refused.reason
    refused = node.set_parameters([Parameter("model", value="other")])[0]
    assert not refused.successful and "unconfigured" in refused.reason
    refused = node.set_parameters([Parameter("camera.timeout", value=0.0)])[0]
    assert not refused.successful and "camera.timeout" in refused.reason


class SlowTexts(StandIn):
    """Embeds a vocabulary when it is allowed to."""

    def __init__(self, *args):
        super().__init__(*args)
        self.allowed = threading.Event()

    def set_labels(self, names, between=None):
        between(1, 4)
        assert self.allowed.wait(PATIENCE)
        if "bad" in names:
            raise ConfigError("no such text")
        super().set_labels(names)


def test_predictions_go_on_by_the_old_labels_until_the_new_ones_are_embedded(rig, monkeypatch):
    stand_in(monkeypatch, SlowTexts)
    node = rig.fusion(labels=["cup", "spoon"])
    rig.camera()
    rig.wait_for_state("camera", msg.SensorStatus.STATE_ACTIVE)
    told = "no prediction yet; embedding a vocabulary of 2 labels, 25 % done"
    rig.wait(lambda: rig.statuses[-1].message == told, "the status")
    assert not rig.predictions and not rig.statuses[-1].labels and node.model.labels.names == ("cat", "dog")
    node.model.allowed.set()
    assert list(rig.wait_for_prediction("camera").labels) == ["cup", "spoon"]
    node.model.allowed.clear()
    assert node.set_parameters([Parameter("labels", value=["fork", "knife"])])[0].successful
    rig.wait(lambda: "perceiving by camera; embedding a vocabulary of 2 labels" in rig.statuses[-1].message, "words")
    seen = len(rig.predictions)
    rig.wait(lambda: len(rig.predictions) > seen + 10, "predictions meanwhile")
    assert list(rig.predictions[-1].labels) == list(rig.statuses[-1].labels) == ["cup", "spoon"]
    for labels, complaint in ((["cup", " "], "blank"), (["a b", "a  b"], "one twice: a b"), (["a"], "two or more")):
        refused = node.set_parameters([Parameter("labels", value=labels)])[0]
        assert not refused.successful and complaint in refused.reason
    assert node.set_parameters([Parameter("labels", value=["last", "least"])])[0].successful
    node.model.allowed.set()
    rig.wait(
        lambda: list(rig.statuses[-1].labels) == ["last", "least"] == list(rig.predictions[-1].labels),
        "the last labels",
    )
    assert node.set_parameters([Parameter("labels", value=["bad", "worse"])])[0].successful
    rig.wait(lambda: "those before stay: no such text" in rig.statuses[-1].message, "the failure")

    def entry():
        return [s for array in rig.diagnostics for s in array.status if s.name == "fusion_node: inference"][-1]

    rig.wait(lambda: entry().level == b"\x01" and "no such text" in entry().message, "the warning")
    assert list(rig.wait_for_prediction("camera").labels) == ["last", "least"]


def test_a_sensor_is_switched_off_and_on_by_service(rig):
    node = rig.fusion()
    rig.camera()
    rig.wait_for_prediction("camera")
    client = rig.helper.create_client(SetBool, "fusion_node/camera/set_enabled")
    assert client.wait_for_service(PATIENCE)
    for enabled, state in [(False, msg.SensorStatus.STATE_DISABLED), (True, msg.SensorStatus.STATE_ACTIVE)]:
        future = client.call_async(SetBool.Request(data=enabled))
        rig.wait(future.done, "the service")
        assert future.result().success
        rig.wait_for_state("camera", state)
        assert node.parameters["camera.enabled"] is enabled
    rig.wait_for_prediction("camera")


def test_a_misspelt_parameter_is_pointed_out(rig):
    given = ["camera.timout", "use_sim_time", "send", "lidar.topic"]
    fusion = rig.fusion(start=False)
    wrong = "parameter 'camera.timout' is unknown; did you mean 'camera.timeout'?"
    assert fusion.parameters.unknown(given) == [wrong, "parameter 'lidar.topic' is unknown"]
    sensor = rig.start(SensorNode, start=False)
    assert sensor.parameters.unknown(given) == [wrong]  # the file may be that of all nodes


# Processes ------------------------------------------------------------------------------------------------------------


def process_environment(**more):
    """For one node of its own."""
    return {
        **os.environ, "ROS_DOMAIN_ID": str(any_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **more
    }  # fmt: skip


def test_the_process_ends_cleanly_on_a_signal(tmp_path):
    started = []
    for stop, delay in ((signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGINT, 0.05), (signal.SIGTERM, 0.5)):
        logs = tmp_path / f"{stop.name}_{delay}"
        logs.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "omnibind_ros.node.fusion_node", "--ros-args", "-p", "autostart:=false"],
            env=process_environment(RCUTILS_LOGGING_USE_STDOUT="1", ROS_LOG_DIR=str(logs)),
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append((process, stop, delay, logs))
    try:
        waiting = list(started)
        deadline = time.monotonic() + 4 * PATIENCE  # four processes import at once
        while waiting:
            for item in list(waiting):
                process, stop, delay, logs = item
                assert time.monotonic() < deadline and process.poll() is None
                if any(file.stat().st_size for file in logs.iterdir()):  # rclpy has taken over the signals when it logs
                    threading.Timer(delay, process.send_signal, [stop]).start()
                    waiting.remove(item)
            time.sleep(0.005)
        for process, stop, delay, _ in started:
            _, errors = process.communicate(timeout=4 * PATIENCE)
            assert process.returncode == 0, (stop, delay, errors)
            assert "Traceback" not in errors
    finally:
        for process, *_ in started:
            process.kill()


WHILE_IT_STARTS = """
import os, signal, sys, time
import rclpy
from omnibind_ros.graph import transport
from omnibind_ros.node import process
from omnibind_ros.node.fusion_node import FusionNode

def fail():
    raise RuntimeError("a mistake")

def lost():  # the context is shut down, and KeyboardInterrupt was raised where exceptions are ignored
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
    while rclpy.ok():
        time.sleep(0.001)

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Last:
    def __del__(self):  # where Python prints an exception and drops it
        interrupt()

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

def late():  # the thread that watches asks again and again, until the process cleans up
    plain = process._clean_up
    process._clean_up = lambda: (time.sleep(0.2), plain())
    Last()

init, log = (transport, "avoid_shared_memory"), (transport, "buffer_warning")
node, start = (FusionNode, "create_publisher"), (FusionNode, "start")
cases = [(init, terminate), (log, interrupt), (node, interrupt), (node, terminate), (start, interrupt)]
cases += [(node, lost), (start, lost), (node, Last), (node, late), (node, fail)]
children = []
for (owner, name), event in cases:
    children.append(os.fork())
    if children[-1] == 0:
        plain = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: (event(), plain(*args, **kwargs))[1])
        process.end(process.run(FusionNode))
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_a_signal_ends_the_process_cleanly_wherever_its_start_is():
    done = subprocess.run(
        [sys.executable, "-c", WHILE_IT_STARTS],
        env=process_environment(RCUTILS_LOGGING_USE_STDOUT="0", RCUTILS_LOGGING_SEVERITY="FATAL"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == str([0] * 9 + [1]), done.stderr  # a mistake is told as ever
    assert done.stderr.count("Traceback") == 1, done.stderr
    assert "a mistake" in done.stderr


ONE_LINE = """
import json, os, sys, tempfile
import torch  # before the children are forked, which saves each the time
from omnibind_ros.node import fusion_node, sensor_node

children = []
for name, arguments in json.loads(sys.argv[1]):
    log = tempfile.TemporaryFile()
    children.append((os.fork(), log))
    if children[-1][0] == 0:
        os.dup2(log.fileno(), 2)
        sys.argv = [name, "--ros-args", *arguments]
        {"fusion_node": fusion_node, "sensor_node": sensor_node}[name].main()
for process, log in children:
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(json.dumps([status, os.pread(log.fileno(), 10**6, 0).decode()]))
"""


def test_whatever_is_wrong_at_the_start_is_one_line_and_status_1(tmp_path):
    broken, flat, none = tmp_path / "broken.yaml", tmp_path / "flat.yaml", tmp_path / "none.yaml"
    broken.write_text("/**:\n  ros__parameters:\n    rate: [1\n", encoding="utf-8")
    flat.write_text("fusion_node:\n  rate: 3.0\n", encoding="utf-8")
    named = tmp_path / "named.yaml"
    named.write_text(
        "/**:\n  ros__parameters:\n    sensor: front-camera\n    front-camera: {type: camera}\n", encoding="utf-8"
    )
    empty = tmp_path / "empty.yaml"
    empty.write_text("/**:\n  ros__parameters:\n    sensors: []\n", encoding="utf-8")
    blank = tmp_path / "blank.yaml"
    blank.write_text("/**:\n  ros__parameters:\n    sensors:\n    rate: 3.0\n", encoding="utf-8")
    cases = [
        ("fusion_node", ["-p", "device:=cuda:99"], "parameter 'device' is 'cuda:99', expected one of auto, cpu"),
        ("fusion_node", ["-p", "model:=nope"], "no model 'nope': expected"),
        ("fusion_node", ["-p", "camera.topic:='a b'"], "parameter 'camera.topic' is 'a b', expected"),
        ("fusion_node", ["--params-file", f"{empty}"], "parameter 'sensors' is empty, expected at least one name"),
        ("fusion_node", ["--params-file", f"{none}"], f"parameter file {none} cannot be read: No such file"),
        ("fusion_node", ["--params-file", f"{broken}"], f"parameter file {broken} is no YAML: .*line 3"),
        ("fusion_node", ["--params-file", f"{flat}"], "Cannot have a value before ros__parameters at line 2"),
        ("fusion_node", ["-p", "camera.topic:='/{robot}/x'"], "'camera.topic' is '/{robot}/x', .*unknown substitution"),
        ("fusion_node", ["-p", f"camera.topic:=/{'x' * 300}"], "parameter 'camera.topic' is '/xxx.* length"),
        ("fusion_node", ["-p", "lidar.camera_info:='/a b'"], "parameter 'lidar.camera_info' is '/a b', .*'/a_b'"),
        ("fusion_node", ["-p", "labels:=['a', 'a']"], "parameter 'labels' has one twice: a"),
        ("fusion_node", ["-p", "use_sim_time:='yes'"], "'use_sim_time' to 'yes' .*expecting type 'BOOL'"),
        ("fusion_node", ["-p", f"sensors:=[{'x' * 300}]", "-p", f"{'x' * 300}.type:=camera"], "Invalid service name"),
        ("sensor_node", ["-p", "sensor:=''"], "parameter 'sensor' has '', expected letters, .*first$"),
        ("fusion_node", ["-p", "2cam.type:=camera"], "'-p 2cam.type:=camera', expected names of letters"),
        ("fusion_node", ["-r", "__ns:=/my-robot"], "'-r __ns:=/my-robot', expected names of letters"),
        (
            "fusion_node",
            ["-r", "__ns:=/robot/"],
            "'-r __ns:=/robot/', expected names of letters, .*; '/robot' would do",
        ),
        ("fusion_node", ["-p", "rate:="], "'-p rate:='.*expected one behind every name"),
        ("fusion_node", ["--params-file", f"{blank}"], "blank.yaml'.*No value at line 3, expected one behind every"),
        ("sensor_node", ["--params-file", f"{named}"], "parameter 'sensor' has 'front-camera', .*'front_camera'"),
    ]
    command = [sys.executable, "-c", ONE_LINE, json.dumps([case[:2] for case in cases])]
    done = subprocess.run(
        command, env=process_environment(), stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    for (_, arguments, expected), line in zip(cases, done.stdout.splitlines(), strict=True):
        status, log = json.loads(line)
        told = [line for line in log.splitlines() if re.search(r"\[(ERROR|FATAL)\].*\[(omnibind|fusion_node)\]", line)]
        assert status == 1 and "Traceback" not in log, (arguments, status, log)
        assert len(told) == 1 and re.search(expected, told[0]), (arguments, log)


def test_an_unusable_parameter_ends_the_process_with_one_clear_line():
    command = [sys.executable, "-m", "omnibind_ros.node.fusion_node", "--ros-args", "-p", "camera.timeout:=-1.0"]
    done = subprocess.run(
        command,
        env=process_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "'camera.timeout'" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_modalities_of_the_sensors_alone_are_loaded(rig):
    node = rig.fusion(sensors=["camera", "lidar"])
    assert node.model.wanted == {"image", "point_cloud"} <= set(modalities.NAMES)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="the C library is not glibc")
@pytest.mark.parametrize("node", ["fusion_node", "sensor_node"])
def test_the_threads_of_a_node_share_one_malloc_arena(node):
    code = f"""
import ctypes, threading
import omnibind_ros.node.{node}
kept = []
thread = threading.Thread(target=lambda: kept.extend(bytes(5000) for _ in range(1000)))
thread.start()
thread.join()
ctypes.CDLL(None).malloc_stats()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("Arena ") == 1, done.stderr
