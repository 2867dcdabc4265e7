"""Keeps a process out of Fast DDS's shared memory, where the death of another process can halt it for two seconds.

Fast DDS guards each receiver's shared memory by a lock. A driver that is killed while it sends leaves the lock held,
and whoever sends to that receiver, or is the receiver, waits until it gives up after 2 s (Fast-DDS#6117). A process
without shared memory takes no such lock and offers none, whatever transports the others have.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import MutableMapping
from pathlib import Path
from typing import NamedTuple

SHARED_MEMORY = "OMNIBIND_SHARED_MEMORY"
"""Environment variable: ``1`` leaves the transports as the middleware has them."""
RECEIVE_BUFFER = 4 * 2**20
"""Bytes of a socket's receive buffer that the profiles ask for."""

_RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_OWN = (*_PROFILES, "FASTDDS_BUILTIN_TRANSPORTS", "ROS_DISCOVERY_SERVER")
_LIMIT = Path("/proc/sys/net/core/rmem_max")


class Transport(NamedTuple):
    """What a process sends and receives by.

    Attributes:
        udp: Whether by UDP alone, as chosen here.
        words: The choice, and why.
    """

    udp: bool
    words: str


def avoid_shared_memory(environment: MutableMapping[str, str], rmw: str, profiles: Path) -> Transport:
    """Makes Fast DDS use UDP alone, unless the user has chosen transports. To be called before ``rclpy.init``.

    Args:
        environment: The process's; changed.
        rmw: The middleware, as ``rclpy.get_rmw_implementation_identifier`` names it.
        profiles: Folder of fastdds_udp.xml and fastdds_udp_localhost.xml.

    Returns:
        What was chosen.
    """
    if not rmw.startswith("rmw_fastrtps"):
        return Transport(False, f"{rmw} as it is configured")
    if environment.get(SHARED_MEMORY, "0") == "1":
        return Transport(False, f"Fast DDS's default, since {SHARED_MEMORY} is 1")
    own = next((name for name in _OWN if environment.get(name)), None)
    if own is not None:
        return Transport(False, f"Fast DDS as {own} says")
    here = environment.get(_RANGE, "").upper() == "LOCALHOST" or environment.get("ROS_LOCALHOST_ONLY") == "1"
    if here and environment.get("ROS_STATIC_PEERS"):
        return Transport(False, f"Fast DDS's default, since {_RANGE} is LOCALHOST with static peers")
    if here:
        # For LOCALHOST, rmw_fastrtps makes transports of its own, shared memory among them, beside any profile's.
        environment[_RANGE] = "SYSTEM_DEFAULT"
        environment.pop("ROS_LOCALHOST_ONLY", None)
    environment[profiles_variable()] = str(profiles / f"fastdds_udp{'_localhost' if here else ''}.xml")
    where = "UDP on this machine only" if here else "UDP"
    return Transport(True, f"{where}; {SHARED_MEMORY}=1 adds Fast DDS's shared memory")


def profiles_variable() -> str:
    """The environment variable that names Fast DDS's profiles: another one from Kilted (rmw_fastrtps 9) on."""
    from ament_index_python.packages import get_package_share_directory

    package = ElementTree.parse(Path(get_package_share_directory("rmw_fastrtps_cpp")) / "package.xml")
    return _PROFILES[int(package.findtext("version", "0").partition(".")[0]) >= 9]


def buffer_warning(limit: Path = _LIMIT) -> str | None:
    """What is wrong with the system's limit of receive buffers; ``None`` if nothing is, or it is unknown.

    Args:
        limit: File that has the limit, in bytes.
    """
    try:
        allowed = int(limit.read_text())
    except (OSError, ValueError):
        return None
    if allowed >= RECEIVE_BUFFER:
        return None
    return (
        f"net.core.rmem_max is {allowed}, expected {RECEIVE_BUFFER} or more: large messages sent as best effort will "
        f"be lost. sudo sysctl -w net.core.rmem_max={RECEIVE_BUFFER}"
    )


def share_folder() -> Path:
    """Where the package's launch and config files are installed."""
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("omnibind_ros"))
