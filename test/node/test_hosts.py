"""A sensor node on one host, the fusion node on another, in two network namespaces with a link that is cut."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("omnibind_ros.msg")

from omnibind_ros.faults import two_hosts
from omnibind_ros.faults.hosts import Hosts, HostsError

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("way", "low", "high"), [("raw", 3000, 15000), ("preprocessed", 300, 2500), ("embedding", 1, 100)]
)
def test_a_sensor_on_another_host(tiny_model, way, low, high):
    try:
        found = two_hosts.run(way, str(tiny_model), seconds=2)
    except HostsError as error:
        pytest.skip(f"no network namespaces: {error}")
    assert low < found["kB/s"] < high, found
    assert "silent for" in found["reason"]  # while the link was cut; and the sensor has come back since
    assert found["meanwhile"] == 0 and found["exceptions"] == 0


def test_two_hosts_that_cannot_be_made_say_why(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HostsError, match="the command 'ip' is missing"):
        Hosts().__enter__()
