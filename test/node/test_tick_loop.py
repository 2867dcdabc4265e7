"""What is computed of ticks that come while one is being computed; time is made up."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus

from omnibind_core.runtime import EngineSettings, PerceptionEngine, PerceptionStream, SensorConfig, Trigger
from omnibind_core.runtime.sensor import SECOND
from omnibind_ros.node.diagnostics import Inference
from omnibind_ros.node.tick_loop import TickLoop

pytestmark = pytest.mark.ros


class StandInNode:
    """A node whose timers never run, and whose time stands still."""

    def __init__(self):
        self.now_ns = 100 * SECOND
        self.context = SimpleNamespace(ok=lambda: True)

    def create_timer(self, period, callback):
        return SimpleNamespace(cancel=lambda: None, reset=lambda: None, is_canceled=lambda: True)

    def get_clock(self):
        now = SimpleNamespace(nanoseconds=self.now_ns)
        return SimpleNamespace(now=lambda: now, create_jump_callback=lambda *_, **__: None)


@pytest.mark.parametrize("trigger", ["", "camera"])
def test_what_waits_for_the_worker_is_chosen_when_it_is_free(trigger):
    node, computed, begun, go = StandInNode(), [], threading.Event(), threading.Event()

    def compute(selection):
        begun.set()
        assert go.wait(10)
        return {pick.sensor.name: pick.newest.stamp_ns for pick in selection.picks}

    loop = TickLoop(node, 5.0, lambda selection: None, compute, lambda tick, stamps: computed.append((tick, stamps)))
    sensors = [SensorConfig("camera", "image"), SensorConfig("lidar", "point_cloud")]
    engine = PerceptionEngine(SimpleNamespace(), sensors, lambda *_: None, EngineSettings(trigger=trigger))
    loop.start(PerceptionStream(engine, Trigger(engine)))

    def advance(by, *heard):
        node.now_ns += round(by * SECOND)
        for sensor in heard:
            loop.stream.on_message(sensor, node.now_ns, node.now_ns, "message")
        loop._period()

    advance(0.0, "camera", "lidar")
    assert begun.wait(10)
    advance(0.2, "camera")
    second = node.now_ns
    advance(0.05, "lidar")
    go.set()
    assert loop.idle(10)
    loop.stop()
    (first, _), (tick, stamps) = computed
    # A tick for an item is of its moment, however long it waits.
    newest = second if trigger else second + round(0.05 * SECOND)
    assert stamps == {"camera": second, "lidar": 100 * SECOND if trigger else newest}
    assert tick.selection.now_ns == (second if trigger else newest) and tick.started > first.started


def test_the_diagnostics_say_what_the_last_failed_tick_was():
    inference = Inference()
    assert inference.entry(3, 0, 0)[:2] == (DiagnosticStatus.OK, "running")
    level, message, values = inference.entry(8, 0, 5, "RuntimeError: no fusion")
    assert level == DiagnosticStatus.ERROR and values["errors"] == 5
    assert message == "5 ticks failed since the last report, see the log; the last: RuntimeError: no fusion"
    assert inference.entry(9, 0, 5, "RuntimeError: no fusion")[:2] == (DiagnosticStatus.OK, "running")
