"""How many pictures reach a node, and how late, by each transport: ``python -m omnibind_ros.faults.transports``.

The camera's driver, a process of its own, has Fast DDS's default transports; the node's differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnibind_ros.faults.publisher import STREAMS
from omnibind_ros.graph.transport import RECEIVE_BUFFER, avoid_shared_memory, profiles_variable, share_folder

CAMERAS = {(240, 320): 30.0, (480, 640): 30.0, (720, 1280): 30.0, (1080, 1920): 15.0}
"""Height and width of pictures in rgb8, and their rate in Hz."""
_SMALL_BUFFER = 212_992  # bytes, net.core.rmem_max of most distributions
_SETTLE = 1.0  # s


def environments(folder: Path) -> dict[str, dict[str, str]]:
    """The environment of a process for each transport, by its name, on this machine only.

    Args:
        folder: For files of the environments.
    """
    plain = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    udp = dict(plain)
    chosen = avoid_shared_memory(udp, "rmw_fastrtps_cpp", share_folder() / "config")
    if not chosen.udp:
        raise SystemExit(f"the transport is set by the environment: {chosen.words}")
    profile = Path(udp[profiles_variable()]).read_text(encoding="utf-8")
    small = folder / "small.xml"
    small.write_text(profile.replace(str(RECEIVE_BUFFER), str(_SMALL_BUFFER)), encoding="utf-8")
    return {
        "shared memory, Fast DDS's default": plain,
        f"UDP, receive buffer {_SMALL_BUFFER // 1024} KiB": {**udp, profiles_variable(): str(small)},
        f"UDP, receive buffer {RECEIVE_BUFFER // 1024} KiB": udp,
    }


def receive(qos: str, seconds: float) -> dict[str, Any]:
    """Listens to the camera as a node would.

    Args:
        qos: ``best_effort`` or ``reliable``.
        seconds: How long, from when the driver is known.

    Returns:
        ``count``, ``latency`` (median, s; None without pictures) and ``cpu`` (s of this process per s).
    """
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    from omnibind_ros.messages import stamp_ns

    latencies: list[float] = []
    rclpy.init()
    node = rclpy.create_node("receiver")
    reliability = ReliabilityPolicy.RELIABLE if qos == "reliable" else ReliabilityPolicy.BEST_EFFORT
    profile = QoSProfile(depth=5, reliability=reliability)

    def on_picture(message: Any) -> None:
        latencies.append((time.time_ns() - (stamp_ns(message) or 0)) * 1e-9)

    node.create_subscription(Image, STREAMS["camera"].topic, on_picture, profile)
    while not node.count_publishers(STREAMS["camera"].topic):
        rclpy.spin_once(node, timeout_sec=0.1)
    _spin(node, _SETTLE)
    latencies.clear()
    before = resource.getrusage(resource.RUSAGE_SELF)
    _spin(node, seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    node.destroy_node()
    rclpy.shutdown()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    latency = statistics.median(latencies) if latencies else None
    return {"count": len(latencies), "latency": latency, "cpu": used / seconds}


def _spin(node: Any, seconds: float) -> None:
    import rclpy

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)


def measure(
    size: tuple[int, int], rate: float, qos: str, environment: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    """Runs a driver and a receiver in a domain of their own.

    Args:
        size: Height and width of the pictures.
        rate: Pictures per second.
        qos: Of both.
        environment: The receiver's; the driver has the default transports.
        seconds: How long.

    Returns:
        What :func:`receive` does.
    """
    domain = {"ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 230))}
    picture = ["--rate", str(rate), "--qos", qos, "--size", *map(str, size)]
    driver = subprocess.Popen(
        [sys.executable, "-m", "omnibind_ros.faults.publisher", "camera", *picture],
        env={**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **domain},
    )
    try:
        command = [sys.executable, "-m", __spec__.name, "--receive", qos, "--seconds", str(seconds)]
        told = subprocess.run(command, env={**environment, **domain}, check=True, capture_output=True, text=True)
    finally:
        driver.kill()
        driver.wait()
    result: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="per measurement (default: %(default)s)")
    parser.add_argument("--receive", choices=("best_effort", "reliable"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.receive:
        print(json.dumps(receive(options.receive, options.seconds)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        kinds = environments(Path(folder))
        print(f"| pictures | QoS | {' | '.join(kinds)} |\n|---|---|{'---|' * len(kinds)}")
        for (height, width), rate in CAMERAS.items():
            for qos in ("best_effort", "reliable"):
                cells = []
                for environment in kinds.values():
                    seen = measure((height, width), rate, qos, environment, options.seconds)
                    share = min(seen["count"] / (rate * options.seconds), 1.0)
                    late = "" if seen["latency"] is None else f", {1e3 * seen['latency']:.1f} ms"
                    cells.append(f"{100 * share:.0f} %{late}, {100 * seen['cpu']:.0f} % of a core")
                print(f"| {width} x {height}, {rate:.0f} Hz | {qos} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
