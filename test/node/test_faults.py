"""The fusion node as a process, with publishers as processes that are killed, return and misbehave, over real DDS."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time

import pytest
from domains import any_domain

pytest.importorskip("rclpy")
pytest.importorskip("omnibind_ros.msg")

from omnibind_ros import msg
from omnibind_ros.faults import trial, vitals
from omnibind_ros.faults.fleet import Fleet
from omnibind_ros.faults.hostile import PARAMETERS, TARGETS
from omnibind_ros.faults.observer import Observer
from omnibind_ros.faults.publisher import STREAMS
from omnibind_ros.graph.transport import avoid_shared_memory

pytestmark = pytest.mark.ros

TIMEOUT, RATE = 0.5, 10.0
STATE = msg.SensorStatus


@contextlib.contextmanager
def started(folder, model, repo, engine):
    """A running fusion node with a model, an observer, and publishers without and with shared memory."""
    domain = any_domain()
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "OMP_NUM_THREADS": "1",
    }
    # Drivers that share memory may hold each other up for 2 s when one is killed (docs/transport.md), as each is at the
    # end of a test. So those share it whose kills are the subject, those whose every message counts do not.
    alone = dict(environment)
    avoid_shared_memory(alone, "rmw_fastrtps_cpp", repo / "config")
    parameters = {
        "model": str(model),
        "device": "cpu",
        "engine": engine,
        "rate": RATE,
        "sensors": [*TARGETS, "strict"],
        "strict": {"type": "camera", "topic": "strict/image_raw", "qos": "reliable"},
        **PARAMETERS,
        **{name: {"timeout": TIMEOUT} for name in STREAMS},
    }
    node = trial.NodeProcess(folder, parameters, environment)
    observer = Observer(domain)
    fleet, sharing = Fleet(alone), Fleet(environment)
    world = World(node, observer, fleet, sharing)
    try:
        observer.wait(lambda: observer.status is not None, "the node", 60)
        yield world
    finally:
        fleet.close()
        sharing.close()
        observer.close()
        status = node.close()
    assert status == 0, node.log


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, repo):
    with started(tmp_path_factory.mktemp("faults"), tiny_model, repo, "torch") as world:
        yield world


class World:
    def __init__(self, node, observer, fleet, sharing):
        self.node, self.observer, self.fleet, self.sharing = node, observer, fleet, sharing

    def diagnostic(self, name):
        entry = self.observer.diagnostic(f"fusion_node: {name}")
        return entry, {value.key: value.value for value in entry.values} if entry else {}


@pytest.fixture
def quiet(world):
    """The world without publishers, before and after a test."""
    yield world
    for fleet in (world.fleet, world.sharing):
        for key in fleet.running:
            fleet.kill(key)
    heard = (STATE.STATE_ACTIVE, STATE.STATE_LATE)  # DDS takes its time to give dead publishers up
    world.observer.wait(lambda: not any(row.state in heard for row in world.observer.status.sensors), "silence")
    assert world.node.alive and world.node.exceptions == 0, world.node.log


def test_what_grows_is_told_from_what_comes_and_goes():
    def flat(values):
        return vitals.is_flat("threads", *vitals.trend([{"threads": value} for value in values], "threads"))

    assert flat([5.0] * 20 + [40.0] * 80) and flat([40.0, 42.0] * 50) and flat([40.0] * 99 + [90.0])
    assert not flat([40.0 + number / 10 for number in range(100)]) and not flat([40.0] * 70 + [43.0] * 30)
    assert flat([900.0 + number / 10 for number in range(100)])  # 2 % of it
    assert vitals.is_flat("memory", 800.0, 860.0) and not vitals.is_flat("memory", 800.0, 870.0)
    assert vitals.trend([], "threads") == (0.0, 0.0)
    own = vitals.of_process(os.getpid())
    assert own["peak"] >= own["memory"] > 10 and own["threads"] >= 1 and own["handles"] >= 3


def check_schedules(world, fleet, seeds, length):
    for sensor in STREAMS:
        fleet.start(sensor)
    world.observer.wait_for(*STREAMS)
    memory = []
    for seed in seeds:
        outages = trial.plan(seed, length, TIMEOUT)
        result = trial.run(fleet, world.observer, outages, TIMEOUT, RATE)
        assert not result.complaints, f"seed {seed}: {result.complaints}; {outages}"
        assert result.held < 2 * trial.SLACK or fleet is world.sharing, f"seed {seed}: {result}"
        assert result.predictions > 0
        memory.append(world.node.memory)
    settled = memory[len(memory) // 3 :]  # the first schedules fill caches and DDS histories
    assert settled[-1] < 1.03 * settled[0], memory
    assert all(row.rejected == 0 for row in world.observer.status.sensors)


@pytest.mark.timeout(900)
def test_sensors_that_are_killed_leave_and_return_by_fifty_random_schedules(quiet):
    check_schedules(quiet, quiet.sharing, range(50), 4.0)


def test_predictions_never_stop_where_no_driver_can_hold_another_up(quiet):
    check_schedules(quiet, quiet.fleet, range(50, 60), 4.0)


@pytest.mark.parametrize("engine", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_sensors_that_are_killed_leave_and_return_with_trunks_in_another_engine(tmp_path, tiny_model, repo, engine):
    pytest.importorskip(engine)
    with started(tmp_path, tiny_model, repo, engine) as world:
        assert world.node.log.count(f"runs in {engine}") == 2, world.node.log  # trunks
        check_schedules(world, world.fleet, [60], 3.0)
        assert world.node.exceptions == 0


@pytest.mark.parametrize("halted", ["node", "driver"])
def test_the_node_answers_for_its_own_silence_only(quiet, halted):
    quiet.fleet.start("thermal")
    pid = {"driver": quiet.fleet.start("camera"), "node": quiet.node.pid}[halted]
    quiet.observer.wait_for("camera", "thermal")

    def halt():
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(pid, signal.SIGCONT)

    thread = threading.Timer(0.2, halt)
    thread.start()
    result = trial.run(quiet.fleet, quiet.observer, [trial.Outage("thermal", 0.1, 3.5)], TIMEOUT, RATE)
    thread.join()
    if halted == "node":
        assert any("while drivers sent" in complaint for complaint in result.complaints), result
        assert result.held < 2 * trial.SLACK
    else:
        assert not result.complaints and result.held > 2


def test_a_flood_is_thinned_out_and_the_others_are_not_affected(quiet):
    quiet.fleet.start("camera", fault="flood", rate=20.0)
    quiet.fleet.start("lidar")
    quiet.observer.wait_for("camera", "lidar")
    quiet.observer.wait(lambda: quiet.observer.sensor("camera").rate > 60, "the rate to be seen")
    row = quiet.observer.sensor("camera")
    assert row.state == STATE.STATE_ACTIVE and row.dropped > 0 and row.rejected == 0
    assert quiet.observer.sensor("lidar").state == STATE.STATE_ACTIVE
    begin = len(quiet.observer.predictions)
    quiet.observer.wait(lambda: len(quiet.observer.predictions) > begin + 10, "predictions at the node's rate")


def test_large_best_effort_pictures_arrive(quiet):
    """One is larger than what Fast DDS has of shared memory for a sender (docs/transport.md)."""
    quiet.sharing.start("camera", size=(480, 640), rate=20.0)
    quiet.observer.wait_for("camera")
    quiet.observer.wait(lambda: quiet.observer.sensor("camera").rate > 4, "more than single pictures")
    assert quiet.observer.sensor("camera").state == STATE.STATE_ACTIVE


def test_jitter_of_100_ms_costs_no_prediction_and_no_order(quiet):
    quiet.fleet.start("camera", fault="jitter", rate=20.0)
    quiet.fleet.start("thermal")
    quiet.observer.wait_for("camera", "thermal")
    begin = len(quiet.observer.predictions)
    quiet.observer.wait(lambda: len(quiet.observer.predictions) > begin + 15, "predictions")
    seen = quiet.observer.predictions[begin:]
    assert all(set(p.sensors) == {"camera", "thermal"} for p in seen)
    assert [p.tick_ns for p in seen] == sorted(p.tick_ns for p in seen)
    assert quiet.observer.sensor("camera").state == STATE.STATE_ACTIVE


def test_two_publishers_on_one_topic_are_named_and_one_is_enough(quiet):
    quiet.fleet.start("camera")
    quiet.fleet.start("second", sensor="camera")
    quiet.observer.wait_for("camera")
    quiet.observer.wait(
        lambda: quiet.diagnostic("sensor camera")[1].get("publishers", "").count("/camera_driver") >= 2,
        "both publishers in the diagnostics",
    )
    quiet.fleet.kill("second")
    begin = len(quiet.observer.predictions)
    quiet.observer.wait(lambda: len(quiet.observer.predictions) > begin + 10, "predictions from the other")
    assert quiet.observer.sensor("camera").state == STATE.STATE_ACTIVE


def test_a_silent_publisher_is_told_from_none(quiet):
    quiet.fleet.start("tactile", fault="silent")
    quiet.observer.wait(
        lambda: "/tactile_driver should publish on /tactile/image_raw" in quiet.observer.sensor("tactile").reason,
        "the publisher in the reason",
    )
    assert quiet.observer.sensor("tactile").state in (STATE.STATE_WAITING, STATE.STATE_STALE)


@pytest.mark.parametrize("sensor", ["camera", "lidar", "event_camera", "microphone"])
def test_unusable_messages_are_rejected_with_the_reason(quiet, sensor):
    quiet.fleet.start("thermal")
    quiet.fleet.start(sensor, fault="encoding")
    row = quiet.observer.wait_for_state(sensor, STATE.STATE_REJECTED)
    assert f"[{sensor}]" in row.reason and "expected" in row.reason and row.rejected >= 3
    assert {"camera": "rgb565"}.get(sensor, "") in row.reason
    quiet.observer.wait_for("thermal")
    quiet.observer.wait(lambda: quiet.diagnostic(f"sensor {sensor}")[0].level == b"\x02", "an ERROR in the diagnostics")


def test_values_that_are_not_finite_are_rejected(quiet):
    quiet.fleet.start("lidar", fault="nan")
    quiet.observer.wait(lambda: "none is finite" in quiet.observer.sensor("lidar").reason, "the reason")
    row = quiet.observer.wait_for_state("lidar", STATE.STATE_REJECTED)
    assert "[lidar]" in row.reason and row.rejected >= 3


def test_wrong_qos_is_named_by_its_policy(quiet):
    quiet.fleet.start("strict", sensor="camera", topic="strict/image_raw")
    row = quiet.observer.wait_for_state("strict", STATE.STATE_INCOMPATIBLE_QOS)
    assert "eliab" in row.reason and "use qos: auto" in row.reason


def test_auto_qos_follows_a_publisher_through_restarts(quiet):
    rejected = quiet.observer.sensor("camera").rejected
    for qos in ("reliable", "best_effort", "latched", "best_effort"):
        quiet.fleet.start("camera", qos=qos)
        quiet.observer.wait_for("camera")
        quiet.fleet.kill("camera")
        row = quiet.observer.wait_for_state("camera", STATE.STATE_STALE)
        assert row.rejected == rejected


@pytest.mark.parametrize(("fault", "state", "word"), [
    ("behind", STATE.STATE_LATE, "stamped 3600"), ("ahead", STATE.STATE_REJECTED, "ahead of"),
])  # fmt: skip
def test_a_sensor_on_another_clock_is_named_with_a_hint(quiet, fault, state, word):
    quiet.fleet.start("microphone", fault=fault)
    quiet.fleet.start("camera")
    row = quiet.observer.wait_for_state("microphone", state)
    assert word in row.reason and "check use_sim_time and clock synchronisation" in row.reason
    quiet.observer.wait_for("camera")


def test_hostile_messages_are_refused_by_value_and_limit_and_predictions_go_on(quiet, tmp_path):
    told, pid = tmp_path / "told.txt", quiet.node.pid
    quiet.fleet.start("camera")
    quiet.observer.wait_for("camera")
    before, begin_ns, first = vitals.of_process(pid), time.time_ns(), len(quiet.observer.predictions)
    targets = [name for name in TARGETS if name != "camera"]
    options = {"targets": targets, "model": quiet.observer.status.model, "rate": 20.0, "told": str(told)}
    reasons = set()

    def all_sent():
        rejected = (row for row in quiet.observer.status.sensors if row.state == STATE.STATE_REJECTED)
        reasons.update((row.name, row.reason) for row in rejected)
        return told.exists() and len(told.read_text().splitlines()) > 90

    quiet.fleet.start("hostile", hostile=True, **options)
    quiet.observer.wait(all_sent, "the hostile messages", 60)
    quiet.fleet.kill("hostile")
    ticks = [seen.tick_ns for seen in quiet.observer.predictions[first:]]
    gap = trial.longest_gap([begin_ns, *ticks, time.time_ns()], quiet.fleet, TIMEOUT)[1]
    assert gap < 1 / RATE + TIMEOUT + 2 * trial.SLACK, gap
    refused = {row.name for row in quiet.observer.status.sensors if row.rejected}
    assert {"photo", "event_camera", "lidar", "microphone", "frames", "depth"} <= refused, refused
    assert len(reasons) > 3 and all(re.fullmatch(rf"\[{name}\] got .+, expected .+", why) for name, why in reasons)
    assert "200 is not a valid Parameter.Type" in quiet.node.log  # of rclpy: no client of its own asks for it
    after = vitals.of_process(pid)
    assert after["peak"] < before["peak"] + 400, (before, after)
    quiet.observer.wait(lambda: vitals.of_process(pid)["memory"] < before["memory"] + 100, "the memory back", 10)
    assert after["threads"] <= before["threads"] + 2 and after["handles"] <= before["handles"] + 2, (before, after)


# The last one: middlewares keep the type of a topic as long as a process lives.
def test_another_type_is_refused_and_named(quiet):
    received = quiet.observer.sensor("thermal").received
    quiet.fleet.start("thermal", fault="type")
    row = quiet.observer.wait_for_state("thermal", STATE.STATE_REJECTED)
    assert "std_msgs/msg/String" in row.reason and "sensor_msgs/msg/Image" in row.reason
    assert row.received == received  # looking at the graph is no message
