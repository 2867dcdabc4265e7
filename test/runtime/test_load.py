"""Ticks are left out by plan when they take more time than there is; time is made up."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import pytest

from omnibind_core.runtime.engine import Selection
from omnibind_core.runtime.load import LEAST, LoadPlan


@dataclass
class Host:
    """A worker that computes one tick at a time and keeps one more, replaced by the next, as the node's does."""

    plan: LoadPlan = field(default_factory=LoadPlan)
    rate: float = 5.0
    by_rate: bool = True
    now: float = 100.0
    minor: frozenset[str] = frozenset()
    costs: dict[str, float] = field(default_factory=lambda: {"camera": 0.1, "lidar": 0.25})

    def run(self, seconds, cost):
        """Ticks for a while, each of which takes ``cost(s since the tick before was begun)``.

        Returns:
            Latency of each computed tick, s; number of skipped ones; times of all that were begun.
        """
        end, free, begun_last = self.now + seconds, self.now, self.now - 1 / self.rate
        waiting, running, latencies, skipped, begun = None, None, [], 0, []
        while self.now < end:
            while running is not None and free <= self.now:
                started, took = running
                self.plan.finished(took)
                latencies.append(free - started)
                running = None
                if waiting is not None:
                    running, waiting = (waiting, cost(waiting - begun_last)), None
                    begun_last = running[0]
                    free += running[1]
            if self.plan.admits(Selection(0, (), 0, by_rate=self.by_rate)):
                begun.append(self.now)
                if running is None:
                    running, free = (self.now, cost(self.now - begun_last)), self.now
                    begun_last = self.now
                    free += running[1]
                else:
                    skipped += waiting is not None
                    waiting = self.now
                self.plan.begun(self.now)
                told = {name: cost / (4 if name in self.plan.spared else 1) for name, cost in self.costs.items()}
                self.plan.look(self.now, told, self.minor)
            self.now += 1 / (self.rate * (self.plan.share if self.by_rate else 1))
        return latencies, skipped, begun


@pytest.fixture(autouse=True)
def _told(caplog):
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize("by_rate", [True, False])
def test_too_slow_a_node_ticks_less_often_says_so_once_and_returns(caplog, by_rate):
    host = Host(by_rate=by_rate)
    _, skipped, _ = host.run(4, lambda gap: 0.4)
    assert skipped > 3 and host.plan.share == pytest.approx(0.4, rel=0.1)
    latencies, skipped, begun = host.run(60, lambda gap: 0.4)
    assert skipped == 0 and max(latencies[2:]) <= (0.41 if by_rate else 0.6)  # no tick waits for long
    assert len(begun) == pytest.approx(60 * 2.0, rel=0.15)
    (line,) = caplog.messages
    words = "too slow for 5.0 ticks a second, 2.0 are planned; one takes 0.400 s (lidar 0.250 s, camera 0.100 s)"
    assert line == f"{words}; got 2.5 a second" and caplog.records[0].levelno == logging.WARNING
    assert host.plan.words.partition(" for ")[0] == "too slow" and "0.400 s (lidar" in host.plan.words
    host.run(30, lambda gap: 0.1)
    assert host.plan.share == 1 and host.plan.words == ""
    assert caplog.messages[1:] == ["all of 5.0 ticks a second again: one takes 0.100 s"]


def test_what_can_be_kept_up_is_left_alone(caplog):
    host = Host()
    _, skipped, begun = host.run(60, lambda gap: 0.19)
    assert skipped == 0 and len(begun) == pytest.approx(300, abs=1) and host.plan.share == 1 and not caplog.messages


def test_a_load_around_the_limit_does_not_go_to_and_fro(caplog):
    host = Host()
    costs = iter(range(10**6))
    host.run(300, lambda gap: 0.2 + 0.02 * math.sin(next(costs)))
    host.run(300, lambda gap: 0.21)
    host.run(300, lambda gap: 0.17)  # could be kept up, but barely
    assert len(caplog.messages) == 1 and host.plan.share < 1


def test_one_long_tick_changes_nothing(caplog):
    host = Host()
    costs = iter([0.1] * 5 + [3.0] + [0.1] * 1000)
    host.run(60, lambda gap: next(costs))
    assert host.plan.share == 1 and not caplog.messages


def test_a_cost_that_grows_with_the_pause_between_ticks_comes_to_rest(caplog):
    host = Host()  # the events of a camera are decoded all, however rarely it ticks: that is half of the time here
    host.run(120, lambda gap: 0.12 + 0.5 * min(gap, 2.0))
    before = host.plan.share
    _, skipped, _ = host.run(60, lambda gap: 0.12 + 0.5 * min(gap, 2.0))
    assert LEAST < host.plan.share == before < 1 and skipped == 0 and len(caplog.messages) == 1


def test_far_too_much_is_seen_after_three_ticks():
    host = Host()
    host.run(6.1, lambda gap: 2.0)
    assert host.plan.share == LEAST


def test_there_is_a_least_rate():
    host = Host()
    host.run(600, lambda gap: 20.0)
    assert host.plan.share == LEAST


def test_what_is_planned_stays_when_another_rate_is_asked_for():
    plan = LoadPlan()
    plan.share = 0.4
    plan.asks(2.0)
    assert plan.share == pytest.approx(0.2)
    plan.asks(0.1)
    assert plan.share == 1


def test_ticks_of_a_trigger_are_left_out_evenly():
    plan = LoadPlan()
    plan.share = 0.4
    kept = [plan.admits(Selection(0, (), 0, 5, by_rate=False)) for _ in range(100)]
    assert sum(kept) == 40 and "".join("01"[one] for one in kept[:10]) in ("0010100101", "0100101001", "0010100100")
    assert all(plan.admits(Selection(0, (), 0)) for _ in range(10))  # it is the rate that is lowered


def test_what_sensors_took_that_have_gone_is_free_at_once():
    plan = LoadPlan()
    for number in range(40):
        assert plan.admits(Selection(0, (), 0))
        plan.begun(100 + number / 5)
        plan.look(100 + number / 5, {"camera": 0.1, "lidar": 0.7})
        plan.finished(0.8)
    low = plan.share
    assert low < 0.3
    assert not plan.look(108.1, {"camera": 0.1, "lidar": 0.6})
    assert plan.look(108.2, {"camera": 0.1})
    assert plan.share == pytest.approx(min(1.0, 8 * low))
    assert not plan.look(108.3, {"camera": 0.1})


def takes(host: Host) -> float:
    """s that a tick takes by what its sensors cost."""
    return sum(cost / (4 if name in host.plan.spared else 1) for name, cost in host.costs.items())


def test_sensors_that_say_little_are_spared_before_less_than_half_of_the_ticks_are_left(caplog):
    host = Host(minor=frozenset({"lidar", "thermal"}), costs={"camera": 0.1, "lidar": 0.4})
    host.run(6, lambda gap: takes(host))
    assert host.plan.spared == ("lidar",) and host.plan.share == pytest.approx(0.8, abs=0.05)  # not a third
    assert "lidar encoded at every 4th" in host.plan.words and host.plan.words in caplog.messages[0]
    _, skipped, _ = host.run(60, lambda gap: takes(host))
    assert skipped == 0 and host.plan.spared == ("lidar",) and host.plan.share == pytest.approx(0.8, abs=0.05)
    assert len(caplog.messages) == 1
    host.costs = {"camera": 0.02, "lidar": 0.08}
    host.run(60, lambda gap: takes(host))
    assert host.plan.spared == () and host.plan.share == 1 and host.plan.words == ""
    assert len(caplog.messages) == 2 and caplog.messages[1].startswith("all of 5.0 ticks")


def test_all_ticks_come_while_a_sensor_is_spared_without_which_they_would_not(caplog):
    host = Host(minor=frozenset({"lidar"}), costs={"camera": 0.02, "lidar": 0.45})
    host.run(120, lambda gap: takes(host))
    assert host.plan.spared == ("lidar",) and host.plan.share == 1 and len(caplog.messages) == 1
    assert "5.0 are planned" in host.plan.words and "lidar encoded at every 4th" in host.plan.words


def test_a_plan_ends_that_spares_a_sensor_which_is_encoded_at_every_tick_anyway():
    host = Host(minor=frozenset({"lidar"}), costs={"camera": 0.02, "lidar": 0.45})
    host.run(120, lambda gap: takes(host))
    assert host.plan.spared == ("lidar",)
    host.minor = frozenset()  # it says something now
    for _ in range(20):
        host.plan.begun(host.now)
        host.plan.finished(0.13)
        host.now += 0.2
        host.plan.look(host.now, {"camera": 0.05, "lidar": 0.08}, host.minor)
    assert host.plan.spared == () and host.plan.words == ""


def test_none_is_spared_while_half_of_the_ticks_are_left():
    host = Host(minor=frozenset({"lidar"}), costs={"camera": 0.05, "lidar": 0.2})
    host.run(60, lambda gap: takes(host))
    assert 0.5 < host.plan.share < 1 and host.plan.spared == ()


def test_what_is_left_where_a_spared_sensor_goes_is_planned_at_once():
    host = Host(minor=frozenset({"lidar"}), costs={"camera": 0.3, "thermal": 0.3, "lidar": 0.1})
    host.run(20, lambda gap: takes(host))
    before = host.plan.share
    assert host.plan.spared == ("lidar",) and before < 0.5
    host.run(2, lambda gap: takes(host))
    assert host.plan.share == before  # sparing is not taken for sensors that have gone
    assert host.plan.look(host.now, {"camera": 0.1})
    assert host.plan.share > 2 * before
