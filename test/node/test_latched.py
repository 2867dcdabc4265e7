"""What was latched, for who listens later to a subscription that is never destroyed; without DDS."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from rclpy.qos import DurabilityPolicy, QoSProfile

from omnibind_ros.graph.topics import LATCHED, CameraInfos, SubscriptionPool, TopicLink


class Node:
    """Keeps what would be called with a message, by topic."""

    def __init__(self, qos=LATCHED, kind="std_msgs/msg/String"):
        self.heard, self._publisher = {}, SimpleNamespace(
            topic_type=kind, qos_profile=qos, node_name="driver", node_namespace="/"
        )  # fmt: skip

    def create_subscription(self, kind, topic, deliver, qos, **_):
        assert topic not in self.heard, "a subscription is used again"
        self.heard[topic] = deliver

    def resolve_topic_name(self, topic):
        return topic

    def get_publishers_info_by_topic(self, topic):
        return [self._publisher]


def link(node, pool, got, qos="latched", depth=2, keep=True):
    return TopicLink(node, pool, "/robot", ("std_msgs/msg/String",), qos, depth, lambda _, one: got.append(one), keep)


def test_what_was_latched_is_given_to_the_next_link():
    node, got, later = Node(), [], []
    pool = SubscriptionPool(node)
    first = link(node, pool, got)
    for number in range(3):
        node.heard["/robot"](number)
    first.close()
    node.heard["/robot"](3)  # a new description while nobody listens
    link(node, pool, later)
    assert (got, later) == ([0, 1, 2], [2, 3]), "the last ones, as many as may wait"
    node.heard["/robot"](4)
    assert later == [2, 3, 4]


@pytest.mark.parametrize(("qos", "keep"), [("latched", False), ("reliable", True)])
def test_what_is_not_latched_or_large_is_not_kept(qos, keep):
    node, later = Node(), []
    pool = SubscriptionPool(node)
    first = link(node, pool, [], qos, keep=keep)
    node.heard["/robot"](1)
    first.close()
    link(node, pool, later, qos, keep=keep)
    assert later == []


@pytest.mark.parametrize(("durability", "found"), [("TRANSIENT_LOCAL", "calibration"), ("VOLATILE", None)])
def test_a_camera_that_is_told_once_is_known_after_a_clean_up(durability, found):
    node = Node(QoSProfile(depth=1, durability=DurabilityPolicy[durability]), "sensor_msgs/msg/CameraInfo")
    infos = CameraInfos(node, SubscriptionPool(node))
    infos.follow("/info", "sensor_msgs/msg/Image")
    node.heard["/info"]("calibration")
    assert infos.newest("/info") == "calibration"
    infos.close()
    assert infos.newest("/info") is None
    infos.follow("/info", "sensor_msgs/msg/Image")
    assert infos.newest("/info") == found
