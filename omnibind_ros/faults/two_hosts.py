"""What crosses the network when a sensor is on another host: ``python -m omnibind_ros.faults.two_hosts``.

A camera and its sensor node run in one network namespace, the fusion node in another. Counts bytes, cuts the link,
restores it, and prints one object of JSON for each way of sending.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnibind_core.errors import OmniBindError
from omnibind_ros.faults.fleet import Fleet
from omnibind_ros.faults.hosts import Hosts
from omnibind_ros.faults.observer import Observer
from omnibind_ros.faults.trial import NodeProcess

WAYS = ("raw", "reliable", "preprocessed", "embedding")
"""The raw pictures, best effort or reliable; what a sensor node makes of them."""

_RATE, _SIZE, _TIMEOUT = 10.0, (480, 640), 0.6
_STALE = 4  # SensorStatus.STATE_STALE


def run(way: str, model: str, seconds: float) -> dict[str, Any]:
    """Makes two hosts and runs one way of sending between them.

    Args:
        way: One of :data:`WAYS`.
        model: Shipped model, or folder.
        seconds: How long bytes are counted.

    Returns:
        What :func:`measure` found.

    Raises:
        HostsError: Network namespaces cannot be made here.
        OmniBindError: Something did not happen in time.
    """
    with Hosts() as hosts:
        # All of this process has to be on a host: DDS looks at the network interfaces once.
        command = [sys.executable, "-m", "omnibind_ros.faults.two_hosts", "--inside", hosts.tag]
        options = ["--model", model, "--seconds", str(seconds), way]
        done = subprocess.run(
            [*hosts.commands[0], *command, *options],
            env={**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise OmniBindError(f"{way}: {done.stderr.strip() or done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(hosts: Hosts, way: str, model: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Runs one way of sending; to be called on the first of the hosts.

    Returns:
        ``way``, ``kB/s`` over the link, ``Hz`` of pictures that arrive, ``reason`` while the link was cut, the number
        of predictions made ``meanwhile``, and ``exceptions`` of the nodes.

    Raises:
        TimeoutError: The sensor did not come, leave or return.
    """
    domain = random.SystemRandom().randint(1, 230)
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
    raw = way in ("raw", "reliable")
    common = {"model": model, "rate": _RATE, "sensor": "camera", "sensors": ["camera"]}
    frames = {"topic": "omnibind/camera", "message_type": "omnibind_ros/msg/ModalityFrame"}
    fusion = {**common, "camera": {"timeout": _TIMEOUT, **({} if raw else frames)}}
    nodes = [NodeProcess(folder, fusion, environment, hosts.commands[0])]
    if not raw:
        sensor = {**common, "send": way}
        nodes.append(NodeProcess(folder, sensor, environment, hosts.commands[1], "omnibind_ros.node.sensor_node"))
    observer = Observer(domain)
    fleet = Fleet(environment, hosts.commands[1])
    try:
        # Pictures are larger than the socket buffers: to the sensor node beside it they go reliably.
        fleet.start("camera", rate=_RATE, size=_SIZE, qos="best_effort" if way == "raw" else "reliable")
        observer.wait_for("camera", patience=90)
        begin, sent = time.monotonic(), hosts.sent(1)
        time.sleep(seconds)
        speed = (hosts.sent(1) - sent) / (time.monotonic() - begin) / 1000
        pictures = observer.sensor("camera").rate
        hosts.cut()
        reason = observer.wait_for_state("camera", _STALE).reason
        seen = len(observer.predictions)
        time.sleep(_TIMEOUT)
        meanwhile = len(observer.predictions) - seen
        hosts.restore()
        observer.wait_for("camera", patience=90)
        exceptions = sum(node.exceptions for node in nodes)
    finally:
        fleet.close()
        observer.close()
        for node in nodes:
            node.close()
    found = {"way": way, "kB/s": round(speed), "Hz": round(pictures, 1), "reason": reason}
    return {**found, "meanwhile": meanwhile, "exceptions": exceptions}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ways", nargs="*", default=WAYS, metavar="WAY", help=f"of {', '.join(WAYS)} (default: all)")
    parser.add_argument("--model", default="lite", help="shipped model or folder (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long bytes are counted (default: %(default)s)")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        for way in options.ways:
            if options.inside:
                with tempfile.TemporaryDirectory() as folder:
                    found = measure(Hosts(options.inside), way, options.model, options.seconds, Path(folder))
            else:
                found = run(way, options.model, options.seconds)
            print(json.dumps(found), flush=True)
    except (OmniBindError, TimeoutError) as error:
        print(f"two_hosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
