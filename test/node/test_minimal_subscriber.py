"""``examples/minimal_subscriber.py``, as a process of its own, hears predictions over DDS."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from domains import any_domain

rclpy = pytest.importorskip("rclpy")
msg = pytest.importorskip("omnibind_ros.msg")


@pytest.mark.ros
def test_predictions_are_printed(repo, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(any_domain()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

    def share(name, weight):
        return msg.SensorShare(name=name, weight=weight)

    sure = msg.Prediction(label="dog", confidence=0.75, sensors=[share("camera", 0.6), share("microphone", 0.4)])
    unsure = msg.Prediction(unknown=True, confidence=0.25, sensors=[share("lidar", 1.0)])
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("publisher", context=context)
    publisher = node.create_publisher(msg.Prediction, "/omnibind/prediction", 10)
    command = [sys.executable, str(repo / "examples" / "minimal_subscriber.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not publisher.get_subscription_count() and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(10):  # the first may be sent before the subscriber knows of the publisher
            publisher.publish(sure)
            publisher.publish(unsure)
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert set(printed.splitlines()) == {
        "dog (0.75) from camera 60 %, microphone 40 %",
        "unknown (0.25) from lidar 100 %",
    }
    assert (errors, process.returncode) == ("", 0)
