"""What a node takes of its machine and of the middleware over time, and whether that stays the same."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnibind_core.allocation import MOST_SPARE

WARM_UP = 0.2
"""Share of the time after which nothing should grow any more."""
MOST_GROWTH = 0.02
"""Share by which the last quarter of the time after that may be above the first."""
SLACK = {"memory": MOST_SPARE / 2**20}
"""What it may be above it in any case: of memory, MiB, what a node keeps though nobody uses it."""
_SLACK = 2.0  # of the rest: a thread or a handle that comes and goes


def of_process(pid: int) -> dict[str, float]:
    """Resident memory and the most there was of it, MiB, threads and open handles of a process.

    Raises:
        OSError: It has ended.
    """
    folder = Path(f"/proc/{pid}")
    lines = (line.partition(":") for line in (folder / "status").read_text(encoding="utf-8").splitlines())
    status = {name: value.split() for name, _, value in lines}
    return {
        "memory": int(status["VmRSS"][0]) / 1024,
        "peak": int(status["VmHWM"][0]) / 1024,
        "threads": float(status["Threads"][0]),
        "handles": float(sum(1 for _ in (folder / "fd").iterdir())),
    }


def of_graph(observer: Any, node: str, namespace: str = "/") -> dict[str, float]:
    """Publishers, subscriptions, services and clients of a node, as the graph has them.

    A subscription counts once for each QoS. Guard conditions, timers and events are not in the graph.

    Args:
        observer: Another node.
        node: Name of the node.
        namespace: And its namespace.
    """

    def endpoints(topics: Sequence[tuple[str, Any]], infos: Any) -> float:
        return float(sum(info.node_name == node for topic, _ in topics for info in infos(topic)))

    try:
        published = observer.get_publisher_names_and_types_by_node(node, namespace)
        heard = observer.get_subscriber_names_and_types_by_node(node, namespace)
        return {
            "publishers": endpoints(published, observer.get_publishers_info_by_topic),
            "subscriptions": endpoints(heard, observer.get_subscriptions_info_by_topic),
            "services": float(len(observer.get_service_names_and_types_by_node(node, namespace))),
            "clients": float(len(observer.get_client_names_and_types_by_node(node, namespace))),
        }
    except RuntimeError:  # rclpy's, where the graph does not know the node
        return {}


def trend(samples: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    """Medians of the first and of the last quarter after the warm-up; zeros where there are no samples."""
    values = [sample[name] for sample in samples if name in sample]
    settled = values[round(WARM_UP * len(values)) :]
    quarter = max(len(settled) // 4, 1)
    if not settled:
        return 0.0, 0.0
    return statistics.median(settled[:quarter]), statistics.median(settled[-quarter:])


def is_flat(name: str, first: float, last: float) -> bool:
    """Whether the last is hardly above the first."""
    return last <= first + max(MOST_GROWTH * first, SLACK.get(name, _SLACK))
