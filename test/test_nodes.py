"""The nodes over real DDS, with a stand-in for the model and sensors that come, go and misbehave."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("omnibind_ros.msg")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import String
from std_srvs.srv import SetBool

from omnibind_core import modalities
from omnibind_core.errors import ConfigError
from omnibind_core.modalities import Events, Sound
from omnibind_ros import messages, msg
from omnibind_ros.fusion_node import FusionNode
from omnibind_ros.sensor_node import SensorNode
from omnibind_ros.topics import LATCHED

pytestmark = pytest.mark.ros

PATIENCE = 20.0  # s that anything may take before a test fails; nothing waits longer than it must
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

PUBLISHER = """
import sys, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from omnibind_ros.messages import fill, image_fields
import numpy as np
rclpy.init()
node = rclpy.create_node("camera_driver")
policy = ReliabilityPolicy.RELIABLE if sys.argv[2] == "reliable" else ReliabilityPolicy.BEST_EFFORT
publisher = node.create_publisher(Image, sys.argv[1], QoSProfile(depth=5, reliability=policy))
message = fill(Image(), image_fields(np.zeros((24, 32, 3), np.uint8), "rgb8"))
def publish():
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
node.create_timer(0.05, publish)
rclpy.spin(node)
"""


def any_domain():
    return str(random.SystemRandom().randint(1, 230))


class StandIn:
    """A model that embeds every item as the same vector and says that it is a cat."""

    identity = "stand_in@1"

    def __init__(self, device, wanted):
        self.device, self.wanted = device, wanted
        self.threshold = 0.1
        self.labels = SimpleNamespace(names=("cat", "dog"))
        self.processed = []

    @classmethod
    def from_pretrained(cls, source, device="cpu", modalities=None):
        if source == "missing":
            raise ConfigError("no model 'missing'")
        return cls(device, modalities)

    def warm_up(self, modalities):
        self.warm = set(modalities)

    def process(self, modality, raw):
        self.processed.append(modality)
        return np.zeros((1, 4), np.float32)

    def embed(self, items):
        return np.tile(np.array([0.6, 0.8], np.float32), (len(items), 1))

    def recognise(self, kinds, embeddings):
        count = len(self.labels.names)
        rows = np.full((1 + len(kinds), count), 0.2 / max(count - 1, 1), np.float32)
        rows[:, 0] = 0.8
        weights = np.full(len(kinds), 1 / len(kinds), np.float32)
        return SimpleNamespace(
            embedding=np.array([0.6, 0.8], np.float32), weights=weights, similarities=rows, probabilities=rows
        )

    def set_labels(self, names):
        self.labels = SimpleNamespace(names=tuple(names))


class Rig:
    """Nodes in a domain of their own, spun by a thread, and what they publish."""

    def __init__(self):
        self.domain = int(any_domain())
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

    def start(self, kind, start=True, **parameters):
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
        node = kind(context=self.context, parameter_overrides=overrides)
        if start:
            assert node.start()
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def fusion(self, start=True, **parameters):
        return self.start(FusionNode, start, **{"rate": 20.0, "sensors": ["camera"], **parameters})

    def camera_process(self, topic="camera/image_raw", reliability="best_effort"):
        environment = {**os.environ, "ROS_DOMAIN_ID": str(self.domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        process = subprocess.Popen([sys.executable, "-c", PUBLISHER, topic, reliability], env=environment)
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
            lambda: found.extend(p for p in self.predictions[seen:] if list(p.sensors) == list(sensors)) or found,
            f"a prediction by {sensors}",
        )
        return found[0]

    def sensor(self, name):
        """The newest status of a sensor."""
        rows = self.statuses[-1].sensors if self.statuses else []
        return next((row for row in rows if row.name == name), msg.SensorStatus())

    def wait_for_state(self, name, state):
        self.wait(lambda: self.sensor(name).state == state, f"state {state} of {name}, which is {self.sensor(name)}")
        return self.sensor(name)

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


@pytest.fixture
def rig(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setattr("omnibind_core.model.OmniBind", StandIn)
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
    assert list(prediction.modalities) == ["image", "thermal", "event", "touch", "point_cloud", "audio"]
    assert prediction.label == "cat" and list(prediction.labels) == ["cat", "dog"] and not prediction.unknown
    assert prediction.confidence == pytest.approx(0.8)
    assert sum(prediction.weights) == pytest.approx(1)
    assert len(prediction.ages) == len(prediction.sensor_labels) == len(prediction.sensor_confidences) == 6
    assert max(prediction.ages) < 2 and prediction.latency > 0
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
    assert rig.statuses[-1].message == "no sensor alive: camera waiting: no message yet"
    assert not rig.predictions and not rig.statuses[-1].alive
    assert rig.statuses[-1].model == "stand_in@1" and list(rig.statuses[-1].labels) == ["cat", "dog"]


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
    rig.fusion(camera__timeout=60.0)
    rig.wait_for_prediction("camera")


# Sensor nodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("send", ["preprocessed", "embedding"])
def test_a_sensor_node_feeds_the_fusion_node(rig, send):
    fusion = rig.fusion(camera__topic="omnibind/camera", camera__message_type=messages.MODALITY_FRAME)
    sensor = rig.start(SensorNode, sensor="camera", send=send, rate=20.0)
    rig.camera()
    prediction = rig.wait_for_prediction("camera")
    assert prediction.header.frame_id == "camera/image_raw_frame"
    assert sensor.model.processed and not fusion.model.processed


def test_frames_for_another_model_are_rejected(rig):
    rig.fusion(camera__topic="omnibind/camera")
    frame = {"sensor": "camera", "modality": "image", "model": "other@2", "kind": 1, "dtype": 1,
             "shape": np.array([2], np.uint32), "data": np.array([0.6, 0.8], np.float32).view(np.uint8)}  # fmt: skip
    rig.publish(msg.ModalityFrame, "omnibind/camera", frame)
    assert "'other@2', expected 'stand_in@1'" in rig.wait_for_state("camera", msg.SensorStatus.STATE_REJECTED).reason


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
        assert node.trigger_cleanup() == success
        assert node.model is None


def test_a_model_that_does_not_exist_fails_the_configuration_and_can_be_corrected(rig):
    node = rig.fusion(start=False, model="missing")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
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


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_cleanly_on_a_signal(tmp_path, stop):
    process = subprocess.Popen(
        [sys.executable, "-m", "omnibind_ros.fusion_node", "--ros-args", "-p", "autostart:=false"],
        env={
            **os.environ,
            "ROS_DOMAIN_ID": any_domain(),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "RCUTILS_LOGGING_USE_STDOUT": "1",
            "ROS_LOG_DIR": str(tmp_path),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE
    while not any(tmp_path.iterdir()):  # rclpy has taken over the signals when it logs
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_an_unusable_parameter_ends_the_process_with_one_clear_line():
    command = [sys.executable, "-m", "omnibind_ros.fusion_node", "--ros-args", "-p", "camera.timeout:=-1.0"]
    done = subprocess.run(
        command,
        env={**os.environ, "ROS_DOMAIN_ID": any_domain(), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
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
