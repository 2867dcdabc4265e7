"""One made-up sensor, well or badly behaved: ``python -m omnibind_ros.faults.publisher camera --fault jitter``."""

from __future__ import annotations

import argparse
import heapq
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core.modalities import Events, Sound
from omnibind_ros import messages
from omnibind_ros.graph.topics import message_class

FAULTS = {
    "none": "messages at the rate, stamped with their time",
    "silent": "a publisher that never sends",
    "flood": "ten times the rate",
    "jitter": "each message 0 to 100 ms late, and so out of order",
    "encoding": "pictures of an unknown encoding; other messages cut short",
    "type": "messages of another type, std_msgs/String",
    "behind": "stamps of a clock that is an hour slow",
    "ahead": "stamps of a clock that is an hour fast",
    "nan": "values that are not finite, where there are floats; otherwise as encoding",
}
"""What a sensor may do, in words."""

USABLE = ("none", "flood", "jitter")
"""Faults whose messages can be used."""

_JITTER = 0.1  # s
_FLOOD = 10
_SKEW_NS = 3600 * 1_000_000_000
_PIXELS = 48, 64


@dataclass(frozen=True)
class Stream:
    """What a made-up sensor publishes.

    Attributes:
        topic: Topic, relative.
        type: ROS message type.
    """

    topic: str
    type: str


STREAMS = {
    "camera": Stream("camera/image_raw", messages.IMAGE),
    "thermal": Stream("thermal/image_raw", messages.IMAGE),
    "event_camera": Stream("event_camera/events", messages.EVENT_ARRAY),
    "tactile": Stream("tactile/image_raw", messages.IMAGE),
    "lidar": Stream("lidar/points", messages.POINT_CLOUD),
    "microphone": Stream("microphone/audio", messages.AUDIO_CHUNK),
}
"""The six sensors of config/perception.yaml."""


def fields(sensor: str, period: float, rng: np.random.Generator) -> dict[str, Any]:
    """Content of one message of a sensor, without the header.

    Args:
        sensor: One of :data:`STREAMS`.
        period: s until the next message, which is the length of a piece of sound.
        rng: Source of the values.
    """
    if sensor == "camera":
        return messages.image_fields(rng.integers(0, 256, (*_PIXELS, 3), np.uint8), "rgb8")
    if sensor == "thermal":
        return messages.image_fields(rng.integers(29000, 31000, _PIXELS, np.uint16), "mono16")
    if sensor == "tactile":
        return messages.image_fields(rng.integers(0, 256, _PIXELS, np.uint8), "mono8")
    if sensor == "lidar":
        from sensor_msgs.msg import PointField

        return messages.point_cloud_fields(rng.normal(size=(256, 3)), PointField)
    if sensor == "microphone":
        samples = rng.uniform(-0.5, 0.5, max(round(16000 * period), 1)).astype(np.float32)
        return messages.audio_chunk_fields(Sound(samples, 16000))
    x, y, p = (rng.integers(0, high, 200).astype(kind) for high, kind in ((64, "u2"), (48, "u2"), (2, "u1")))
    times = np.sort(rng.integers(0, max(round(period * 1e6), 1), 200))
    return messages.event_array_fields(Events(x, y, times, p, 64, 48))


def spoil(content: dict[str, Any], fault: str) -> dict[str, Any]:
    """Makes the content of a message unusable: ``encoding`` or ``nan``."""
    spoilt = dict(content)
    if fault == "nan" and "samples" in spoilt:
        spoilt["samples"] = np.full_like(spoilt["samples"], np.nan)
    elif fault == "nan" and "point_step" in spoilt:
        spoilt["data"] = np.full(len(spoilt["data"]) // 4, np.nan, np.float32).view(np.uint8)
    elif "encoding" in spoilt:
        spoilt["encoding"] = "rgb565"
    elif "x" in spoilt:
        spoilt["x"] = spoilt["x"][:-1]
    elif "samples" in spoilt:
        spoilt["samples"] = spoilt["samples"][:0]
    else:
        spoilt["data"] = spoilt["data"][:-1]
    return spoilt


def publish(
    sensor: str,
    rate: float = 10.0,
    fault: str = "none",
    topic: str = "",
    qos: str = "best_effort",
    size: Sequence[int] = (),
    duration: float = float("inf"),
    log: str = "",
) -> None:
    """Publishes until the time is over or the process is killed; makes its own ROS context.

    Args:
        sensor: One of :data:`STREAMS`.
        rate: Messages per second.
        fault: One of :data:`FAULTS`.
        topic: Another topic than the sensor's own.
        qos: ``best_effort``, ``reliable`` or ``latched``.
        size: Height and width of a camera's picture; empty: small ones.
        duration: s.
        log: File that gets the time of each usable message when it has been sent to a subscription, ``int64`` ns of
            Unix time.
    """
    import rclpy
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    stream = STREAMS[sensor]
    node = rclpy.create_node(f"{sensor}_driver", context=context, enable_rosout=False, start_parameter_services=False)
    kind = message_class("std_msgs/msg/String" if fault == "type" else stream.type)
    profile = QoSProfile(
        depth=10,
        reliability=ReliabilityPolicy.BEST_EFFORT if qos == "best_effort" else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if qos == "latched" else DurabilityPolicy.VOLATILE,
    )
    publisher = node.create_publisher(kind, topic or stream.topic, profile)
    rate *= _FLOOD if fault == "flood" else 1
    rng, jitter = np.random.default_rng(0), random.Random(0)
    content = fields(sensor, 1 / rate, rng)
    if len(size) == 2:
        content = messages.image_fields(rng.integers(0, 256, (*size, 3), np.uint8), "rgb8")
    if fault in ("encoding", "nan"):
        content = spoil(content, fault)
    message = kind(data="hello") if fault == "type" else messages.fill(kind(), content)
    begin = time.monotonic()
    waiting: list[tuple[float, int]] = []  # (when to send, stamp)
    count = 0
    with Path(log if fault in USABLE and log else os.devnull).open("ab", buffering=0) as sent:
        while time.monotonic() < begin + duration:
            time.sleep(max(begin + count / rate - time.monotonic(), 0))
            count += 1
            if fault == "silent":
                continue
            delay = jitter.uniform(0, _JITTER) if fault == "jitter" else 0.0
            heapq.heappush(waiting, (time.monotonic() + delay, time.time_ns()))
            while waiting and waiting[0][0] <= time.monotonic():
                _stamp(message, heapq.heappop(waiting)[1], fault, f"{sensor}_frame")
                publisher.publish(message)
                if publisher.get_subscription_count():  # otherwise discovery is under way, and nobody gets it
                    sent.write(time.time_ns().to_bytes(8, sys.byteorder))
    node.destroy_node()
    rclpy.shutdown(context=context)


def _stamp(message: Any, stamp_ns: int, fault: str, frame_id: str) -> None:
    if hasattr(message, "header"):
        stamp_ns += {"behind": -_SKEW_NS, "ahead": _SKEW_NS}.get(fault, 0)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        message.header.frame_id = frame_id


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    epilog = "faults: " + "; ".join(f"{name}: {text}" for name, text in FAULTS.items())
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], epilog=epilog)
    parser.add_argument("sensor", choices=tuple(STREAMS))
    parser.add_argument("--rate", type=float, default=10.0, help="messages per second (default: %(default)s)")
    parser.add_argument("--fault", choices=tuple(FAULTS), default="none", help="what is wrong with it")
    parser.add_argument("--topic", default="", help="another topic than the sensor's own")
    parser.add_argument("--qos", choices=("best_effort", "reliable", "latched"), default="best_effort")
    parser.add_argument("--size", type=int, nargs=2, default=(), metavar=("H", "W"), help="of a camera's picture")
    parser.add_argument("--duration", type=float, default=float("inf"), metavar="S", help="end after so many seconds")
    options = parser.parse_args(arguments)
    try:
        publish(**vars(options))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
