"""Which transports the nodes choose, and that Fast DDS takes the profiles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from domains import any_domain

pytest.importorskip("omnibind_ros.msg")

from omnibind_ros.graph.transport import (
    RECEIVE_BUFFER,
    SHARED_MEMORY,
    avoid_shared_memory,
    buffer_warning,
    profiles_variable,
)

FAST = "rmw_fastrtps_cpp"
RANGE, PROFILES = "ROS_AUTOMATIC_DISCOVERY_RANGE", profiles_variable()


@pytest.mark.parametrize(("before", "after", "where"), [
    ({}, {PROFILES: "/c/fastdds_udp.xml"}, "UDP;"),
    ({RANGE: "SUBNET", "ROS_STATIC_PEERS": "10.0.0.2"},
     {RANGE: "SUBNET", "ROS_STATIC_PEERS": "10.0.0.2", PROFILES: "/c/fastdds_udp.xml"}, "UDP;"),
    ({RANGE: "LOCALHOST"},
     {RANGE: "SYSTEM_DEFAULT", PROFILES: "/c/fastdds_udp_localhost.xml"}, "UDP on this machine only;"),
    ({"ROS_LOCALHOST_ONLY": "1"},
     {RANGE: "SYSTEM_DEFAULT", PROFILES: "/c/fastdds_udp_localhost.xml"}, "UDP on this machine only;"),
])  # fmt: skip
def test_udp_is_chosen_where_nothing_else_is(before, after, where):
    environment = dict(before)
    chosen = avoid_shared_memory(environment, FAST, Path("/c"))
    assert chosen.udp and chosen.words.startswith(where) and f"{SHARED_MEMORY}=1" in chosen.words
    assert environment == after


@pytest.mark.parametrize(("environment", "rmw", "reason"), [
    ({}, "rmw_cyclonedds_cpp", "rmw_cyclonedds_cpp"),
    ({SHARED_MEMORY: "1"}, FAST, f"{SHARED_MEMORY} is 1"),
    ({"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"}, FAST, "FASTRTPS_DEFAULT_PROFILES_FILE"),
    ({"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}, FAST, "FASTDDS_DEFAULT_PROFILES_FILE"),
    ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, FAST, "FASTDDS_BUILTIN_TRANSPORTS"),
    ({"ROS_DISCOVERY_SERVER": "10.0.0.1:11811"}, FAST, "ROS_DISCOVERY_SERVER"),
    ({RANGE: "localhost", "ROS_STATIC_PEERS": "10.0.0.2"}, FAST, "static peers"),
])  # fmt: skip
def test_what_the_user_chose_is_left_alone(environment, rmw, reason):
    before = dict(environment)
    chosen = avoid_shared_memory(environment, rmw, Path("/c"))
    assert not chosen.udp and reason in chosen.words
    assert environment == before


def test_a_small_limit_of_buffers_is_told_with_the_command(tmp_path):
    limit = tmp_path / "rmem_max"
    assert buffer_warning(limit) is None  # another system
    limit.write_text("212992\n")
    warning = buffer_warning(limit)
    assert warning is not None and "212992" in warning and f"rmem_max={RECEIVE_BUFFER}" in warning
    limit.write_text(f"{RECEIVE_BUFFER}\n")
    assert buffer_warning(limit) is None


@pytest.mark.parametrize("name", ["fastdds_udp.xml", "fastdds_udp_localhost.xml"])
def test_the_profiles_have_one_transport_with_the_buffer(repo, name):
    text = (repo / "config" / name).read_text(encoding="utf-8")
    root = ElementTree.fromstring(re.sub(r' xmlns="[^"]+"', "", text).encode())
    assert [kind.text for kind in root.iter("type")] == ["UDPv4"]
    assert root.findtext(".//useBuiltinTransports") == "false"
    assert root.findtext(".//receiveBufferSize") == str(RECEIVE_BUFFER)


@pytest.mark.ros
@pytest.mark.parametrize(("given", "maps"), [({}, False), ({SHARED_MEMORY: "1"}, True)])
def test_a_process_maps_shared_memory_only_if_told(given, maps):
    """What matters in the end: the maps of a living process with a ROS context."""
    pytest.importorskip("rclpy")
    code = """
import os, rclpy
from omnibind_ros.graph.transport import avoid_shared_memory, share_folder
avoid_shared_memory(os.environ, rclpy.get_rmw_implementation_identifier(), share_folder() / "config")
rclpy.init()
node = rclpy.create_node("probe")
print(any(name in open("/proc/self/maps").read() for name in ("/dev/shm/fastrtps_", "/dev/shm/fastdds_")))
node.destroy_node()
rclpy.shutdown()
"""
    environment = {**os.environ, RANGE: "LOCALHOST", "ROS_DOMAIN_ID": str(any_domain()), **given}
    for name in (PROFILES, "FASTDDS_BUILTIN_TRANSPORTS"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(maps)], done.stderr


@pytest.mark.ros
def test_pictures_are_counted_by_transport(tmp_path):
    pytest.importorskip("rclpy")
    from omnibind_ros.faults import transports

    kinds = transports.environments(tmp_path)
    assert len(kinds) == 3 and len({environment.get(PROFILES) for environment in kinds.values()}) == 3
    *_, udp = kinds.values()
    seen = transports.measure((48, 64), 20.0, "best_effort", udp, 1.0)
    assert 10 <= seen["count"] <= 30 and seen["latency"] > 0 and seen["cpu"] > 0
