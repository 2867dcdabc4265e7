"""``sync: approximate``, with a stand-in for message_filters, and with the real one where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from omnibind_core.runtime import PerceptionEngine, PerceptionStream, SensorConfig
from omnibind_ros.node.sync import ApproximateSync

pytestmark = pytest.mark.ros

S = 1_000_000_000


class SimpleFilter:
    def __init__(self):
        self.callbacks = []

    def registerCallback(self, callback):  # noqa: N802 - the package's name
        self.callbacks.append(callback)

    def signalMessage(self, *messages):  # noqa: N802
        for callback in self.callbacks:
            callback(*messages)


class NewestWithinSlop(SimpleFilter):
    """Delivers the newest of every input whenever they are near enough."""

    made = 0

    def __init__(self, inputs, queue, slop):
        super().__init__()
        type(self).made += 1
        self.newest, self.slop = [None] * len(inputs), slop
        for index, one in enumerate(inputs):
            one.registerCallback(lambda message, index=index: self.add(index, message))

    def add(self, index, message):
        self.newest[index] = message
        if all(self.newest):
            times = [m.header.stamp.sec + m.header.stamp.nanosec / 1e9 for m in self.newest]
            if max(times) - min(times) < self.slop:
                self.signalMessage(*self.newest)
                self.newest = [None] * len(self.newest)


@pytest.fixture(params=["stand-in", "real"])
def engine(request, monkeypatch):
    if request.param == "real":
        pytest.importorskip("message_filters", reason="message_filters comes with a ROS installation only")
    else:
        package = SimpleNamespace(SimpleFilter=SimpleFilter, ApproximateTimeSynchronizer=NewestWithinSlop)
        monkeypatch.setitem(sys.modules, "message_filters", package)
    configs = [SensorConfig("camera", "image"), SensorConfig("lidar", "point_cloud"), SensorConfig("tactile", "touch")]
    return PerceptionEngine(None, configs, lambda name, payload: payload)


def play(stream, begin, end, *sensors):
    """Messages ten times a second, each sensor 10 ms after the other; returns the sets that came."""
    sets = []
    for step in range(round(begin * 10), round(end * 10)):
        for index, sensor in enumerate(sensors):
            now = 100 * S + step * S // 10 + index * S // 100
            stream.on_timer(now)
            stream.on_message(sensor, now, now, step)
            while (selection := stream.next(now)) is not None:
                sets.append((selection.sensors, {pick.newest.payload for pick in selection.picks}))
    return sets


def test_complete_sets_of_the_living_in_their_changing_number(engine):
    sync = ApproximateSync(engine, slop=0.05)
    stream = PerceptionStream(engine, sync)
    sets = play(stream, 0, 2, "camera", "lidar", "tactile")
    assert [names for names, _ in sets[1:]] == [("camera", "lidar", "tactile")] * (len(sets) - 1)
    assert all(len(steps) == 1 for _, steps in sets) and len(sets) >= 19  # of one moment each
    sets = play(stream, 2, 5, "camera", "tactile")
    assert {names for names, _ in sets} == {("camera", "tactile")}  # none while the LiDAR is missed, and then again
    assert len(sets) >= 18
    sets = play(stream, 5, 7, "camera", "lidar", "tactile")
    assert sets[-1][0] == ("camera", "lidar", "tactile")
    assert sync.living == ("camera", "lidar", "tactile")
    stream.clear()
    assert sync.living == () and stream.next(107 * S) is None


def test_when_time_goes_back_sets_are_made_anew(engine):
    sync = ApproximateSync(engine, slop=0.05)
    stream = PerceptionStream(engine, sync)
    first = play(stream, 0, 3, "camera", "lidar")
    assert sync.living == ("camera", "lidar")
    stream.on_timer(100 * S)
    assert sync.living == ()
    assert play(stream, 0, 3, "camera", "lidar") == first


def test_the_documented_comparison(repo):
    pytest.importorskip("message_filters", reason="message_filters comes with a ROS installation only")
    spec = importlib.util.spec_from_file_location("compare_sync", repo / "tools" / "compare_sync.py")
    tool = importlib.util.module_from_spec(spec)
    sys.modules["compare_sync"] = tool
    spec.loader.exec_module(tool)
    rows = [row for row in tool.table() if not row.startswith("| slowest")]
    text = (repo / "docs" / "synchronisation.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in text
