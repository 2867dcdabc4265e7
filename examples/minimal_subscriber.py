"""Prints what the fusion node recognises, how sure it is, and which sensors that rests on."""

from __future__ import annotations

import contextlib

import rclpy
from omnibind_ros.msg import Prediction
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node


def on_prediction(message: Prediction) -> None:
    """Called for every prediction; the label is empty if the node is not sure enough."""
    sensors = ", ".join(f"{share.name} {100 * share.weight:.0f} %" for share in message.sensors)
    print(f"{message.label or 'unknown'} ({message.confidence:.2f}) from {sensors}", flush=True)


if __name__ == "__main__":
    rclpy.init()
    node = Node("minimal_subscriber")
    node.create_subscription(Prediction, "/omnibind/prediction", on_prediction, 10)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
