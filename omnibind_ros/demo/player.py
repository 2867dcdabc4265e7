"""Plays topics of a recording over DDS: ``python -m omnibind_ros.demo.player BAG --topic T --start-at UNIX_TIME``.

Messages go out as the recording holds them, in CDR; only the time in a header is moved, so nothing is decoded.
Several players with the same start time stay in step, also when one is killed and started again. Imports no torch.

:mod:`omnibind_ros.bags.play` differs: it leaves messages as they are and makes the bag's time that of all nodes, on
``/clock``, of which there can be one only; it can halt, and is reliable. Here the recording comes to the present: nodes
keep their own clock, what was due before a player started is skipped, and publishers are best effort as drivers' are.
"""

from __future__ import annotations

import argparse
import signal
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnibind_core.errors import OmniBindError
from omnibind_ros.bags import read


def moved(data: bytes, shift_ns: int) -> bytes:
    """A message in CDR with its header's stamp moved.

    Args:
        data: A message whose first field is a ``std_msgs/Header``: after 4 bytes of encapsulation come the seconds
            (int32) and the nanoseconds (uint32), in the byte order that the second byte names.
        shift_ns: Added to the stamp, ns.
    """
    layout = "<iI" if data[1] & 1 else ">iI"
    seconds, nanoseconds = struct.unpack_from(layout, data, 4)
    stamp = divmod(seconds * 1_000_000_000 + nanoseconds + shift_ns, 1_000_000_000)
    buffer = bytearray(data)
    struct.pack_into(layout, buffer, 4, *stamp)
    return bytes(buffer)


def play(path: Path, topics: Sequence[str], start_at: float, offset: float, stop: threading.Event) -> int:
    """Publishes topics in the rhythm of the recording; rclpy must be initialised.

    Args:
        path: Folder of the bag.
        topics: Topics to play; empty plays all.
        start_at: Unix time at which the recording is at ``offset``; what lies before now is skipped.
        offset: s from the beginning of the recording.
        stop: Ends playing early when set.

    Returns:
        Number of messages published.

    Raises:
        DataError: There is no readable bag, or it lacks a topic.
        MissingDependencyError: A message type is not installed.
    """
    import rclpy.node
    import rclpy.qos

    from omnibind_ros.graph.topics import message_class

    types = read.topics(path)
    names = list(topics) or sorted(types)
    begin_ns = read.span_ns(path)[0]
    shift_ns = int((start_at - offset) * 1e9) - begin_ns
    node = rclpy.node.Node("player_" + "_".join(name.strip("/").replace("/", "_") for name in names))
    kinds: dict[str, Any] = {name: message_class(types[name]) for name in names if name in types}
    publishers: dict[str, Any] = {
        name: node.create_publisher(kind, name, rclpy.qos.qos_profile_sensor_data) for name, kind in kinds.items()
    }
    published = 0
    try:
        for item in read.messages(path, names, max(begin_ns, time.time_ns() - shift_ns)):
            if stop.wait(max((item.time_ns + shift_ns - time.time_ns()) / 1e9, 0)):
                break
            stamped = "header" in kinds[item.topic].get_fields_and_field_types()
            publishers[item.topic].publish(moved(item.data, shift_ns) if stamped else item.data)
            published += 1
    finally:
        node.destroy_node()
    return published


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="omnibind_ros.demo.player", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bag", type=Path, help="folder of a rosbag2 recording")
    parser.add_argument("--topic", action="append", default=[], help="topic to play, may be repeated (default: all)")
    parser.add_argument(
        "--start-at", type=float, default=None, metavar="UNIX_TIME", help="when to begin (default: now)"
    )
    parser.add_argument(
        "--offset", type=float, default=0.0, metavar="S", help="begin so many seconds into the recording"
    )
    options = parser.parse_args(arguments)

    import rclpy

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    try:
        start_at = time.time() if options.start_at is None else options.start_at
        play(options.bag, options.topic, start_at, options.offset, stop)
    except OmniBindError as error:
        print(f"player: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
