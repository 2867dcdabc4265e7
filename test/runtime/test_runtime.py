"""The streaming engine with a deterministic stand-in for the model and for the modalities."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import threading
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnibind_core import modalities
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.parallel import cores, in_order
from omnibind_core.runtime import (
    Encoded,
    EngineSettings,
    LatestWorker,
    PerceptionEngine,
    PerceptionStream,
    SensorConfig,
    SensorState,
    Trigger,
)
from omnibind_core.runtime.encoding import TokenCache
from omnibind_core.runtime.lookahead import Lookahead
from omnibind_core.runtime.ranking import conflict, rank
from omnibind_core.runtime.sensor import Sensor

S = 1_000_000_000
T0 = 1_000 * S
SIX = {
    "camera": "image",
    "thermal": "thermal",
    "event_camera": "event",
    "tactile": "touch",
    "lidar": "point_cloud",
    "microphone": "audio",
}
DIM = 8
LABELS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Chunk:
    """A stand-in for sound or events: one value every 10 ms."""

    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def duration(self) -> float:
        return len(self.values) * 0.01


class FakeModality:
    def __init__(self, name: str) -> None:
        self.name = name
        self.is_stream = name in ("event", "audio")

    def check(self, raw, source):
        values = np.asarray(raw.values if self.is_stream else raw, dtype=float)
        if not np.isfinite(values).all():
            raise InvalidInputError(source, "NaN", "finite values")
        return raw

    def join(self, parts, end_ns, duration):
        stamps = [stamp for stamp, _ in parts]
        assert stamps == sorted(stamps)
        start = end_ns - round(duration * S)
        values = [
            value
            for stamp, chunk in parts
            for index, value in enumerate(chunk.values)
            if start <= stamp + index * S // 100 < end_ns
        ]
        if not values:
            raise InvalidInputError("join", "nothing in the window", "at least one value")
        return Chunk(tuple(values))


@pytest.fixture(autouse=True)
def _fake_modalities(monkeypatch):
    monkeypatch.setattr(modalities, "get", FakeModality)


class FakeModel:
    """Embeds ``value`` of a modality as one direction each, fuses by the mean."""

    def __init__(self) -> None:
        self.labels = SimpleNamespace(names=LABELS)
        self.threshold = 0.0
        self.processed: list[tuple[str, object]] = []
        self.calls: list[list[str]] = []
        self.fused = 0
        self.fail_on: object = None

    def process(self, modality, raw):
        self.processed.append((modality, raw))
        return np.array([[modalities.NAMES.index(modality), np.mean(getattr(raw, "values", raw))]], dtype=np.float32)

    def embed(self, items):
        self.calls.append([modality for modality, _ in items])
        if any(views[0, 1] == self.fail_on for _, views in items):
            raise RuntimeError("encoder broke")
        rows = np.stack([np.cos(np.arange(DIM) * views[0, 1] + views[0, 0]) for _, views in items])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def recognise(self, kinds, embeddings, doubts=None):
        if embeddings.shape != (len(kinds), DIM):
            raise InvalidInputError("recognise", str(embeddings.shape), f"{(len(kinds), DIM)}")
        self.fused += 1
        mean = embeddings.mean(axis=0)
        rows = np.concatenate([mean[None], embeddings])
        similarities = rows[:, : len(self.labels.names)]
        exp = np.exp(5 * similarities)
        weights = np.full(len(kinds), 1 / len(kinds), dtype=np.float32)
        return SimpleNamespace(
            embedding=mean / np.linalg.norm(mean),
            weights=weights,
            similarities=similarities,
            probabilities=exp / exp.sum(axis=1, keepdims=True),
            without=(exp / exp.sum(axis=1, keepdims=True))[:0:-1],
            familiarity=-2 * embeddings[:, 0],
        )


def decode(sensor, payload):
    if payload == "garbage":
        raise InvalidInputError(sensor, "garbage", "a number")
    if payload == "bug":
        raise KeyError("decoder bug")
    return payload


def make(*sensors, model=None, **engine_settings):
    """An engine; sensors by name, or with settings."""
    configs = [s if isinstance(s, SensorConfig) else SensorConfig(s, SIX[s]) for s in sensors]
    return PerceptionEngine(model or FakeModel(), configs, decode, EngineSettings(**engine_settings))


def sample(sensor, value=1.0):
    return Chunk((value,) * 10) if SIX[sensor] in ("event", "audio") else value


def push(engine, sensor, at, payload=None, lag=0.0, **kwargs):
    """A message received ``at`` seconds, stamped ``lag`` s before."""
    receive = T0 + round(at * S)
    payload = sample(sensor) if payload is None else payload
    engine.push(sensor, receive - round(lag * S), receive, payload, **kwargs)


def tick(engine, at):
    return engine.tick(T0 + round(at * S))


def report(engine, at, index=0):
    return engine.reports(T0 + round(at * S))[index]


def names(prediction):
    return [] if prediction is None else [share.name for share in prediction.sensors]


# Who takes part ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, 7))
def test_every_combination_of_six_sensors_gives_a_prediction_of_exactly_these(count):
    for alive in itertools.combinations(SIX, count):
        engine = make(*SIX)
        for index, sensor in enumerate(reversed(alive)):
            push(engine, sensor, 0.0, sample(sensor, 1.0 + index))
        prediction = tick(engine, 0.1)
        assert names(prediction) == list(alive)
        assert sum(share.weight for share in prediction.sensors) == pytest.approx(1)
        assert prediction.similarities.shape == (1 + count, len(LABELS))
        states = {item.name: item.state for item in engine.reports(T0 + S // 10)}
        assert states == {name: SensorState.ACTIVE if name in alive else SensorState.WAITING for name in SIX}


def test_nothing_alive_gives_nothing():
    engine = make(*SIX)
    assert tick(engine, 0) is None
    assert {item.state for item in engine.reports(T0)} == {SensorState.WAITING}


def test_min_sensors():
    engine = make("camera", "lidar", min_sensors=2)
    push(engine, "camera", 0)
    assert tick(engine, 0) is None
    push(engine, "lidar", 0)
    assert names(tick(engine, 0)) == ["camera", "lidar"]


def test_silent_sensor_leaves_at_the_next_tick_and_returns_without_restart(caplog):
    engine = make("camera", "lidar")
    caplog.set_level(logging.INFO, "omnibind_core.runtime")
    for step in range(10):
        push(engine, "camera", step / 10)
        push(engine, "lidar", step / 10)
        assert names(tick(engine, step / 10)) == ["camera", "lidar"]
    for step in range(10, 40):
        push(engine, "camera", step / 10)
        expected = ["camera", "lidar"] if step <= 19 else ["camera"]
        assert names(tick(engine, step / 10)) == expected
    lidar = report(engine, 3.9, 1)
    assert lidar.state == SensorState.STALE
    assert lidar.reason == "silent for 3.0 s, timeout 1.0 s"
    assert lidar.age == pytest.approx(3.0)
    assert not engine._sensors["lidar"]._items
    push(engine, "camera", 4.0)
    push(engine, "lidar", 4.0)
    assert names(tick(engine, 4.0)) == ["camera", "lidar"]
    changes = [message for message in caplog.messages if message.startswith("[lidar]")]
    assert [change.split(":")[0] for change in changes] == [
        "[lidar] WAITING -> ACTIVE",
        "[lidar] ACTIVE -> STALE",
        "[lidar] STALE -> ACTIVE",
    ]


def test_hysteresis_wants_several_good_messages():
    engine = make(SensorConfig("camera", "image", readmit_after=3))
    push(engine, "camera", 0)
    assert names(tick(engine, 0)) == ["camera"]  # the first time, one is enough
    assert tick(engine, 2) is None
    for at, expected in ((2.1, []), (2.2, []), (2.3, ["camera"])):
        push(engine, "camera", at)
        assert names(tick(engine, at)) == expected
        if not expected:
            assert report(engine, at).state == SensorState.STALE
            assert "of 3 good messages" in report(engine, at).reason
    assert tick(engine, 4) is None
    push(engine, "camera", 4.1)
    assert tick(engine, 6) is None  # silent again: the count starts anew
    push(engine, "camera", 6.1)
    push(engine, "camera", 6.2)
    assert tick(engine, 6.2) is None


def test_enabled_switch():
    engine = make("camera", SensorConfig("lidar", "point_cloud", enabled=False))
    push(engine, "camera", 0)
    push(engine, "lidar", 0)
    assert names(tick(engine, 0)) == ["camera"]
    assert report(engine, 0, 1).state == SensorState.DISABLED
    assert report(engine, 0, 1).received == 1
    engine.set_enabled("lidar", True)
    engine.set_enabled("camera", False)
    assert tick(engine, 0) is None
    push(engine, "lidar", 0.1)
    assert names(tick(engine, 0.1)) == ["lidar"]
    assert report(engine, 0.1).reason == "switched off"


def test_incompatible_qos_shows_while_the_sensor_is_silent():
    engine = make("camera")
    reason = "RELIABILITY: publisher offers BEST_EFFORT, RELIABLE requested"
    engine.set_obstacle("camera", (SensorState.INCOMPATIBLE_QOS, reason))
    assert report(engine, 0).state == SensorState.INCOMPATIBLE_QOS
    assert "RELIABILITY" in report(engine, 0).reason
    push(engine, "camera", 0)  # another publisher of the topic is heard
    assert names(tick(engine, 0)) == ["camera"]
    assert report(engine, 0).state == SensorState.ACTIVE
    assert report(engine, 5).state == SensorState.INCOMPATIBLE_QOS
    engine.set_obstacle("camera", None)
    assert report(engine, 5).state == SensorState.STALE


# Stamps and clocks ---------------------------------------------------------------------------------------------------


def test_stamps_ahead_of_the_clock_are_rejected_with_the_measured_value():
    engine = make("camera", "lidar")
    for step in range(3):
        push(engine, "camera", step / 10, lag=-3600)
        push(engine, "lidar", step / 10)
    assert names(tick(engine, 0.2)) == ["lidar"]
    camera = report(engine, 0.2)
    assert camera.state == SensorState.REJECTED
    assert (camera.received, camera.rejected) == (3, 3)
    assert "3600.000 s ahead" in camera.reason
    assert "0.500 s" in camera.reason
    assert "use_sim_time" in camera.reason
    push(engine, "camera", 0.3)
    assert names(tick(engine, 0.3)) == ["camera", "lidar"]
    assert report(engine, 0.3).state == SensorState.ACTIVE
    assert report(engine, 5).state == SensorState.STALE


def test_a_stamp_may_lie_as_far_ahead_as_the_settings_say():
    engine = make("camera", max_future=0.5)
    for nanoseconds, rejected in ((S // 2, 0), (S // 2 + 1, 1)):
        engine.push("camera", T0 + nanoseconds, T0, 1.0)
        assert report(engine, 0).rejected == rejected


def test_a_silent_sensor_says_who_publishes():
    engine = make("camera")
    assert report(engine, 0).reason == "no message yet"
    engine.set_note("camera", "nobody publishes")
    assert report(engine, 0).reason == "no message yet; nobody publishes"
    push(engine, "camera", 1)
    assert "publishes" not in report(engine, 1).reason
    assert report(engine, 5).reason == "silent for 4.0 s, timeout 1.0 s; nobody publishes"
    engine.set_note("camera", "")
    assert report(engine, 5).reason == "silent for 4.0 s, timeout 1.0 s"


def test_states_have_the_numbers_of_the_message(repo):
    text = (repo / "msg/SensorStatus.msg").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"^uint8 STATE_([A-Z_]+)=(\d+)", text, re.MULTILINE)}
    assert numbers == {state.name: state.value for state in SensorState}


def test_slightly_fast_clock_is_used():
    engine = make("camera")
    for step in range(50):
        push(engine, "camera", step / 30, lag=-0.3)
    prediction = tick(engine, 49 / 30)
    assert prediction.sensors[0].age == pytest.approx(-0.3, abs=1e-6)


def test_old_stamps_are_not_used_and_the_reason_says_so():
    engine = make("camera")
    push(engine, "camera", 0, lag=100)
    assert tick(engine, 0) is None
    camera = report(engine, 0)
    assert (camera.state, camera.rejected) == (SensorState.LATE, 0)
    assert "100.00 s old" in camera.reason
    assert "limit 1.00 s" in camera.reason
    assert "clock synchronisation" in camera.reason
    assert camera.age == 0


def test_item_older_than_the_window_is_late_though_the_sensor_lives():
    engine = make(SensorConfig("camera", "image", timeout=2.0, window=0.5))
    push(engine, "camera", 0)
    assert names(tick(engine, 0.5)) == ["camera"]
    assert tick(engine, 0.6) is None
    assert report(engine, 0.6).state == SensorState.LATE
    assert "clock" not in report(engine, 0.6).reason


def test_time_offset_corrects_a_wrong_clock():
    engine = make(SensorConfig("camera", "image", time_offset=-10.0), SensorConfig("lidar", "point_cloud"))
    push(engine, "camera", 0, lag=-10)
    push(engine, "lidar", 0)
    prediction = tick(engine, 0.25)
    assert [share.age for share in prediction.sensors] == pytest.approx([0.25, 0.25])
    assert prediction.sensors[0].stamp_ns == T0


def test_a_clock_since_boot_takes_part_by_the_time_of_receipt():
    boot = T0 / S - 5  # the sensor was switched on 5 s before T0
    engine = make(SensorConfig("lidar", "point_cloud", stamp="receive"), SensorConfig("camera", "image"))
    push(engine, "lidar", 1, lag=boot, header="of the driver")
    push(engine, "camera", 1, lag=boot)
    prediction = tick(engine, 1.25)
    assert names(prediction) == ["lidar"] and prediction.header == "of the driver"
    assert prediction.sensors[0].age == pytest.approx(0.25) and prediction.sensors[0].stamp_ns == T0 + S
    reason = report(engine, 1.25, 1).reason
    assert report(engine, 1.25, 1).state == SensorState.LATE
    assert f"stamped {boot:.2f} s before it was received: " in reason and reason.endswith("set camera.stamp: receive")
    ahead = make("camera")
    push(ahead, "camera", 0, lag=-7)
    assert "7.000 s ahead" in report(ahead, 0).reason and "or set camera.stamp: receive" in report(ahead, 0).reason


def test_a_remedy_that_is_in_use_is_not_offered():
    engine = make(SensorConfig("camera", "image", stamp="receive", time_offset=-50.0))
    push(engine, "camera", 0)
    assert tick(engine, 0) is None and "50.00 s" in report(engine, 0).reason
    assert "receive" not in report(engine, 0).reason.partition("received")[2]


def test_changing_whose_clock_counts_forgets_what_was_timed_by_the_other():
    engine = make("lidar", trigger="lidar")
    stream = PerceptionStream(engine, Trigger(engine))

    def used(at, lag):
        now = T0 + round(at * S)
        stream.on_message("lidar", now - round(lag * S), now, 1.0)
        selection = stream.next(now)
        return None if selection is None else selection.reference_ns

    assert used(1, 0) == T0 + S
    stream.configure(SensorConfig("lidar", "point_cloud", time_offset=-0.5))  # its stamps go back
    assert used(1.1, 0) == T0 + round(0.6 * S)
    stream.configure(SensorConfig("lidar", "point_cloud"))
    assert used(1.2, 900) is None  # of another clock
    stream.configure(SensorConfig("lidar", "point_cloud", stamp="receive"))
    assert used(1.3, 900) == T0 + round(1.3 * S)
    stream.configure(SensorConfig("lidar", "point_cloud", stamp="receive", timeout=2.0))
    assert report(engine, 1.3).state == SensorState.ACTIVE  # other settings forget nothing


def test_newest_item_wins_whatever_the_order_of_arrival():
    model = FakeModel()
    engine = make("camera", model=model)
    push(engine, "camera", 0.2, 2.0, header="new")
    push(engine, "camera", 0.3, 1.0, lag=0.2, header="old")
    assert tick(engine, 0.3).header == "new"
    assert model.processed == [("image", 2.0)]
    assert report(engine, 0.3).dropped == 1


def test_header_of_the_newest_item_is_passed_on_untouched():
    engine = make("camera", "lidar")
    header = object()
    push(engine, "lidar", 0.1, header=header)
    push(engine, "camera", 0.0, header=object())
    assert tick(engine, 0.2).header is header


def test_clear_forgets_items_but_not_counts():
    engine = make(*SIX)
    loops = []
    for _ in range(2):
        predictions = 0
        for step in range(20):
            for sensor in SIX:
                push(engine, sensor, step / 10)
            predictions += tick(engine, step / 10) is not None
        loops.append(predictions)
        engine.clear()
        assert tick(engine, 0) is None
        assert report(engine, 0).state == SensorState.WAITING
    assert loops == [20, 20]
    assert report(engine, 0).received == 40


def test_time_going_back_clears_by_itself(caplog):
    clock = Clockwork("camera")
    clock.push("camera", 10)
    for at in (10, 9.9, 0):  # 9.9: two threads may read the clock in another order
        clock.due(at)
    first, second, third = (prediction for _, prediction in clock.ticks)
    assert first is not None
    assert second is not None
    assert third is None
    assert "went back by 9.900 s" in caplog.text


@pytest.mark.parametrize("call", ["on_message", "on_rejected", "on_timer", "next"])
@pytest.mark.parametrize("back", [True, False])
def test_every_call_notices_time_going_back_and_clears_engine_and_trigger_together(call, back, caplog):
    clock = Clockwork("camera", "lidar", trigger="camera", max_wait=0.2)
    for step in range(10):
        clock.push("camera", step / 10)
        clock.push("lidar", step / 10 + 0.05)
    clock.push("camera", 1.06)
    assert clock.stream.deadline_ns == T0 + round(1.26 * S)  # it waits for the lidar
    now = T0 + round(0.559 * S if back else 0.561 * S)
    arguments = {"on_message": ("lidar", now, now, 1.0), "on_rejected": ("lidar", "no message", now)}
    getattr(clock.stream, call)(*arguments.get(call, (now,)))
    assert ("went back by 0.501 s" in caplog.text) == back
    assert clock.engine.select(now).epoch == (1 if back else 0)
    assert (not clock.engine._sensors["camera"]._items) == back
    if back or call != "next":  # which decides what waits
        assert (not clock.trigger._references) == back


def test_prediction_begun_before_time_went_back_is_void():
    engine = make("camera")
    push(engine, "camera", 0)
    selection = engine.select(T0)
    engine.clear()
    assert engine.compute(selection) is None


# Ticks: rate, trigger, waiting --------------------------------------------------------------------------------------


class Clockwork:
    """A stream of engine and trigger, driven by messages and periods in the order of time."""

    def __init__(self, *sensors, **engine_settings):
        self.engine = make(*sensors, **engine_settings)
        self.trigger = Trigger(self.engine)
        self.stream = PerceptionStream(self.engine, self.trigger)
        self.ticks = []  # (time in s, prediction)

    def push(self, sensor, at, lag=0.0, **kwargs):
        receive = T0 + round(at * S)
        payload = kwargs.pop("payload", sample(sensor))
        self.stream.on_message(sensor, receive - round(lag * S), receive, payload, **kwargs)
        self.poll(at)

    def due(self, at):
        self.stream.on_timer(T0 + round(at * S))
        self.poll(at)

    def poll(self, at):
        while (selection := self.stream.next(T0 + round(at * S))) is not None:
            self.ticks.append((at, self.engine.compute(selection)))


def test_a_tick_waits_for_what_a_living_sensor_has_measured_already():
    clock = Clockwork("camera", "lidar", max_wait=0.1)
    for step in range(1, 11):
        clock.push("camera", step / 10, lag=0.05)  # stamped 0.05, 0.15, ...
        clock.push("lidar", step / 10)
    clock.push("lidar", 1.1)
    clock.due(1.06)  # what the camera measured at 1.05 arrives at 1.1
    assert not clock.ticks
    assert clock.trigger.deadline_ns == T0 + round(1.16 * S)
    clock.push("camera", 1.1, lag=0.05)
    assert [at for at, _ in clock.ticks] == [1.1]
    assert names(clock.ticks[0][1]) == ["camera", "lidar"]
    assert clock.trigger.deadline_ns is None


def test_a_tick_waits_max_wait_at_most_and_not_for_the_dead():
    clock = Clockwork("camera", "lidar", max_wait=0.1)
    for step in range(11):
        clock.push("camera", step / 10)
        clock.push("lidar", step / 10)
    for step in range(11, 31):  # the lidar died at 1.0
        clock.push("camera", step / 10)
        clock.due(step / 10 + 0.01)
        if step < 20:
            assert len(clock.ticks) == step - 11  # the lidar is overdue
            clock.poll(step / 10 + 0.09)
            assert len(clock.ticks) == step - 11
            clock.poll(step / 10 + 0.11)
        assert len(clock.ticks) == step - 10
    assert names(clock.ticks[0][1]) == ["camera", "lidar"]
    assert names(clock.ticks[-1][1]) == ["camera"]


@pytest.mark.parametrize("lag", [0.3, 100.0])
def test_no_tick_waits_for_what_cannot_come_in_time(lag):
    clock = Clockwork("camera", "lidar", max_wait=0.05)
    for step in range(1, 21):
        clock.push("lidar", step / 10, lag=lag)  # far behind, or on another clock
        clock.push("camera", step / 10)
        clock.due(step / 10 + 0.01)
        assert len(clock.ticks) == step
    assert names(clock.ticks[-1][1]) == ["camera", "lidar"][: 2 if lag < 1 else 1]


def test_without_max_wait_no_tick_waits():
    clock = Clockwork("camera", "lidar")
    for step in range(1, 20):
        clock.push("camera", step / 10, lag=0.05)
        clock.due(step / 10 + 0.09)
    assert len(clock.ticks) == 19


def test_a_trigger_sensor_ticks_with_its_header_and_what_is_nearest_to_it():
    clock = Clockwork("camera", "lidar", trigger="camera")
    for step in range(1, 60):
        if step % 4 == 0:
            clock.push("camera", step / 100, lag=0.017, header=step)  # nearest to the scan of 0.02 before
        else:
            clock.push("lidar", step / 100)
        clock.due(step / 100)  # the rate does not count while the camera is alive
    assert [prediction.header for _, prediction in clock.ticks] == [None] * 3 + list(range(4, 60, 4))
    for at, prediction in clock.ticks[4:]:
        camera, lidar = prediction.sensors
        assert camera.stamp_ns == T0 + round((at - 0.017) * S)
        assert lidar.stamp_ns == T0 + round((at - 0.02) * S)


def test_while_the_trigger_sensor_is_dead_the_rate_goes_on():
    clock = Clockwork("camera", "lidar", trigger="camera")
    for step in range(60):
        if not 10 <= step < 40:
            clock.push("camera", step / 10, header=step)
        clock.push("lidar", step / 10)
        clock.due(step / 10 + 0.05)
    by_rate = [at for at, _ in clock.ticks if round(at * 100) % 10 == 5]
    assert by_rate == pytest.approx([step / 10 + 0.05 for step in range(19, 40)])
    assert names(clock.ticks[-1][1]) == ["camera", "lidar"]
    assert clock.ticks[-1][1].header == 59


def test_a_trigger_sensor_with_a_wrong_clock_does_not_silence_the_others():
    clock = Clockwork("camera", "lidar", trigger="camera")
    for step in range(20):
        clock.push("camera", step / 10, lag=50.0)
        clock.push("lidar", step / 10)
        clock.due(step / 10)
    assert [names(prediction) for _, prediction in clock.ticks] == [["lidar"]] * 20


def test_references_come_in_order_and_each_once():
    clock = Clockwork("camera", trigger="camera", max_wait=0.1)
    for at, stamp in ((0.1, 0.1), (0.2, 0.2), (0.3, 0.15), (0.4, 0.2), (0.5, 0.5)):
        clock.push("camera", at, lag=at - stamp, header=stamp)
    assert [prediction.header for _, prediction in clock.ticks] == [0.1, 0.2, 0.5]


class StandInEngine:
    """All that a trigger asks of an engine; a selection is (time, reference)."""

    def __init__(self, **engine_settings):
        self.settings = EngineSettings(**engine_settings)
        self.waiting, self.alive = True, True
        self.asked = []

    def leads(self, sensor, now_ns):
        return self.alive and sensor == "camera"

    def awaited(self, reference_ns, deadline_ns, now_ns):
        self.asked.append((reference_ns, deadline_ns, now_ns))
        return ("lidar",) if self.waiting else ()

    def select(self, now_ns, reference_ns=None):
        return now_ns, reference_ns


def test_a_reference_that_waits_outlives_one_from_the_past():
    engine = StandInEngine(trigger="camera", max_wait=1.0)
    trigger = Trigger(engine)
    engine.waiting = False
    trigger.heard("camera", 20, 21)
    trigger.heard("lidar", 22, 22)
    assert trigger.poll(30) == (30, 20)
    assert trigger.poll(30) is None
    engine.waiting = True
    for stamp in (40, 20, 10):  # the second was used already, the third lies before it
        trigger.heard("camera", stamp, stamp + 1)
    assert trigger.poll(50) is None
    assert engine.asked[-1] == (40, 41 + S, 50)
    assert trigger.deadline_ns == 41 + S
    assert trigger.poll(40 + S) is None
    assert trigger.poll(41 + S) == (41 + S, 40)
    assert trigger.deadline_ns is None


def test_the_oldest_reference_decides_how_long_is_waited():
    trigger = Trigger(StandInEngine(trigger="camera", max_wait=1.0))
    trigger.heard("camera", 10, 50)
    trigger.heard("camera", 20, 40)
    assert trigger.deadline_ns == 50 + S


def test_no_more_than_eight_references_wait():
    trigger = Trigger(StandInEngine(trigger="camera", max_wait=1.0))
    for stamp in range(1, 9):
        trigger.heard("camera", stamp, stamp)
    assert trigger.poll(10) is None
    trigger.heard("camera", 9, 9)
    assert trigger.poll(10) == (10, 1)
    assert trigger.poll(10) is None


def test_a_tick_of_the_rate_waits_from_when_it_began():
    engine = StandInEngine(max_wait=1.0)
    trigger = Trigger(engine)
    assert trigger.deadline_ns is None and trigger.poll(5) is None
    trigger.due(10)
    trigger.due(20)
    assert trigger.deadline_ns == 10 + S
    assert trigger.poll(20) is None
    assert engine.asked == [(10, 10 + S, 20)]
    assert trigger.poll(9) == (9, None)  # a time before it began is another's
    assert trigger.poll(20) is None
    trigger.due(30)
    trigger.clear()
    assert trigger.deadline_ns is None and trigger.poll(31 + S) is None


def test_a_reference_counts_for_the_rate_too_and_a_dead_trigger_leaves_it_alone():
    engine = StandInEngine(trigger="camera", max_wait=1.0)
    engine.waiting = engine.alive = False
    trigger = Trigger(engine)
    trigger.due(10)
    engine.alive = True
    trigger.heard("camera", 5, 12)
    assert trigger.deadline_ns == 10 + S  # of both that wait, the one that began first
    assert trigger.poll(13) == (13, 5)
    assert trigger.poll(13) is None
    trigger.due(14)
    assert trigger.deadline_ns is None  # the trigger sensor is alive
    engine.alive = False
    trigger.heard("camera", 15, 16)
    assert trigger.poll(17) is None and trigger.deadline_ns is None
    trigger.due(18)
    assert trigger.poll(18) == (18, None)


@pytest.mark.parametrize(("back", "cleared"), [(0.5, False), (0.500000001, True)])
def test_time_may_go_back_as_far_as_stamps_may_lie_ahead(back, cleared, caplog):
    clock = Clockwork("camera", max_future=0.5)
    clock.push("camera", 1.0)
    clock.due(1.0 - back)
    assert ("buffers cleared" in caplog.text) == cleared
    assert [names(prediction) for _, prediction in clock.ticks] == [[] if cleared else ["camera"]]


def test_after_a_clear_any_time_may_come(caplog):
    clock = Clockwork("camera")
    clock.push("camera", 10)
    clock.stream.clear()
    clock.push("camera", 1)
    clock.due(1)
    assert [names(prediction) for _, prediction in clock.ticks] == [["camera"]]
    assert "went back" not in caplog.text


def test_a_bag_loop_gives_the_same_predictions_in_each_loop():
    clock = Clockwork(*SIX, trigger="camera", max_wait=0.05)
    counts = []
    for _ in range(3):
        seen = len(clock.ticks)
        for step in range(1, 100):
            for index, sensor in enumerate(SIX):
                if step % (index + 2) == 0:
                    clock.push(sensor, step / 50, lag=0.01 * index)
            clock.due(step / 50)
        counts.append([names(prediction) for _, prediction in clock.ticks[seen:]])
    assert len(counts[0]) == 50
    assert counts[0] == counts[1] == counts[2]


def test_a_sensor_that_is_added_and_removed_while_running():
    engine = make("camera")
    push(engine, "camera", 0)
    engine.add(SensorConfig("lidar", "point_cloud"))
    push(engine, "lidar", 0)
    selection = engine.select(T0)
    assert names(engine.compute(selection)) == ["camera", "lidar"]
    push(engine, "lidar", 0.1, "garbage")
    selection = engine.select(T0 + S // 10)
    engine.remove("lidar")
    assert names(engine.compute(selection)) == ["camera"]
    with pytest.raises(ConfigError, match="lidar"):
        engine.push("lidar", T0, T0, 1.0)
    assert [item.name for item in engine.reports(T0)] == ["camera"]


def test_a_fast_clock_and_a_slow_sensor_are_pointed_out():
    engine = make("camera", "lidar")
    for step in range(5):
        push(engine, "camera", step * 1.5, lag=-0.3)
        assert tick(engine, step * 1.5) is not None
    assert "stamped 0.30 s ahead of the time of receipt: check use_sim_time" in report(engine, 6.0).reason
    assert (
        report(engine, 7.2).reason == "silent for 1.2 s, timeout 1.0 s; it used to come every 1.5 s: raise its timeout"
    )


@pytest.mark.parametrize("reference", [None, T0])
def test_a_tick_of_the_rate_that_has_waited_is_of_what_is_newest_then(reference):
    engine = make("camera", "lidar")
    push(engine, "camera", 0, sample("camera", 1))
    push(engine, "lidar", 0, sample("lidar", 1))
    waiting = engine.select(T0, reference)
    push(engine, "camera", 0.1, sample("camera", 2))
    renewed = engine.renewed(waiting, T0 + S // 5)
    shares = {share.name: share for share in engine.compute(renewed).sensors}
    assert (renewed is waiting) == (reference is not None)
    assert shares["camera"].stamp_ns == (T0 + S // 10 if reference is None else T0)
    assert shares["lidar"].age == pytest.approx(0.2 if reference is None else 0.0)


def test_a_set_of_stamps_nothing_and_what_went_back_in_time_are_not_selected_again():
    engine = make("camera")
    nothing = engine.select(T0)
    push(engine, "camera", 0, sample("camera"))
    assert engine.renewed(nothing, T0) is nothing
    chosen, before = engine.select_set(T0, {"camera": T0}), engine.select(T0)
    assert engine.renewed(chosen, T0 + S) is chosen
    engine.clear()
    assert engine.renewed(before, T0) is before and engine.compute(before) is None


class Weighing(FakeModel):
    """Weighs the LiDAR by a twentieth of the others."""

    def recognise(self, kinds, embeddings, doubts=None):
        found = super().recognise(kinds, embeddings, doubts)
        weights = np.array([0.05 if kind == "point_cloud" else 1.0 for kind in kinds], np.float32)
        found.weights = weights / weights.sum()
        return found


def test_a_spared_sensor_is_encoded_at_every_fourth_tick_and_its_age_told():
    engine = make("camera", "lidar", model=Weighing())
    ages = []
    for number in range(24):
        now = number / 10
        push(engine, "camera", now, sample("camera", 1 + number))
        push(engine, "lidar", now, sample("lidar", 1 + number / 1000))
        if number == 8:
            assert engine.minor == {"lidar"}
            engine.spare(["lidar"])
        ages += [share.age for share in tick(engine, now).sensors if share.name == "lidar"]
    assert ages[:8] == [0] * 8 and sorted(set(ages)) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert len(ages) == 24 and ages[8:].count(0) == 4
    assert sum("point_cloud" in call for call in engine.model.calls) == 12
    assert report(engine, now, 1).rejected == 0


@pytest.mark.parametrize("why", ["weight", "change", "age", "trigger", "settings"])
def test_a_spared_sensor_that_says_something_or_is_too_old_is_encoded(why):
    engine = make(
        "camera", "lidar", model=FakeModel() if why == "weight" else Weighing(), trigger="lidar" * (why == "trigger")
    )
    step = 1.0 if why == "age" else 0.1
    for number in range(24):
        now = number * step
        push(engine, "camera", now, sample("camera", 1))
        push(engine, "lidar", now, sample("lidar", 1 + number * (why == "change")))
        engine.spare(["lidar"])
        if why == "settings":
            engine.configure(SensorConfig("lidar", "point_cloud", timeout=1 + number))
        prediction = tick(engine, now)
    assert sum("point_cloud" in call for call in engine.model.calls) >= (12 if why == "age" else 23)
    assert {share.name for share in prediction.sensors} == {"camera", "lidar"}


@pytest.mark.parametrize("how", ["switch", "settings", "adopted again"])
def test_a_spared_sensor_that_was_away_does_not_answer_with_what_it_had(how):
    engine = make("camera", "lidar", model=Weighing())
    for number in range(12):
        now = number / 10
        push(engine, "camera", now, sample("camera", 1))
        push(engine, "lidar", now, sample("lidar", 1))
        engine.spare(["lidar"])
        tick(engine, now)
    before = sum("point_cloud" in call for call in engine.model.calls)
    for number in range(12, 16):  # of any four ticks, three would take what is there
        now = number / 10
        if how == "switch":
            engine.set_enabled("lidar", False)
            engine.set_enabled("lidar", True)
        elif how == "settings":
            engine.configure(SensorConfig("lidar", "point_cloud", enabled=False))
            engine.configure(SensorConfig("lidar", "point_cloud"))
        else:
            engine.remove("lidar")
            engine.add(SensorConfig("lidar", "point_cloud"))
        push(engine, "camera", now, sample("camera", 1))
        push(engine, "lidar", now, sample("lidar", 1))
        shares = {share.name: share for share in tick(engine, now).sensors}
        assert shares["lidar"].age == 0
    assert sum("point_cloud" in call for call in engine.model.calls) == before + 4


def test_a_sensor_that_has_gone_does_not_hinder_reports_of_before():
    engine = make("camera", "lidar")
    reports = engine.reports(0)
    engine.remove("lidar")
    assert [one.name for one in engine.brought_up(reports)] == ["camera", "lidar"]


def test_stages_are_timed():
    engine = make("camera")
    push(engine, "camera", 0)
    stages = tick(engine, 0).stages
    assert list(stages) == ["decode", "encode", "fuse"]
    assert all(seconds >= 0 for seconds in stages.values())


def test_what_each_sensor_costs_is_measured(monkeypatch):
    clock = itertools.count()
    model = FakeModel()
    engine = make("camera", "lidar", "thermal", model=model)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))  # every look at the clock takes a second
    embed = model.embed
    model.process = lambda modality, raw: np.zeros((1, 6 if modality == "image" else 2), np.float32)
    model.embed = lambda items: [next(clock) for _ in range(7)] and embed(items)
    push(engine, "camera", 0)
    push(engine, "lidar", 0)
    tick(engine, 0)
    assert engine.costs == {"camera": 1 + 8 * 6 / 8, "lidar": 1 + 8 * 2 / 8}  # encoding by the size of its input
    tick(engine, 0.1)  # nothing new
    assert engine.costs == pytest.approx({"camera": 0.9 * 7 + 0.1, "lidar": 0.9 * 3 + 0.1})
    engine.remove("lidar")
    assert list(engine.costs) == ["camera"]


def test_the_stages_take_no_longer_than_the_tick():
    engine = make("camera")
    push(engine, "camera", 0)
    begin = time.perf_counter()
    stages = tick(engine, 0).stages
    assert sum(stages.values()) <= time.perf_counter() - begin


# Unusable data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["garbage", math.nan, "bug"])
def test_unusable_items_are_counted_and_do_not_touch_others(bad, caplog):
    engine = make("camera", "lidar")
    for step in range(5):
        push(engine, "camera", step / 10, bad)
        push(engine, "lidar", step / 10)
        assert names(tick(engine, step / 10)) == ["lidar"]
        assert report(engine, step / 10).rejected == step + 1
        expected = SensorState.ACTIVE if step < 2 else SensorState.REJECTED
        assert report(engine, step / 10).state == expected
        assert report(engine, step / 10, 1).state == SensorState.ACTIVE
    assert "[camera]" in report(engine, 0.4).reason
    assert caplog.text.count("Traceback") == (bad == "bug")
    push(engine, "camera", 0.5)
    assert names(tick(engine, 0.5)) == ["camera", "lidar"]
    assert report(engine, 0.5).state == SensorState.ACTIVE


def test_a_dead_sensor_holds_no_memory():
    engine = make("camera", "lidar")
    for name in ("camera", "lidar"):
        push(engine, name, 0)
    tick(engine, 0)
    assert engine.newest("camera") is not None
    for at in (1.5, 3.0):
        push(engine, "lidar", at)
        tick(engine, at)
    assert engine.newest("camera") is None and engine.newest("lidar") is not None


def test_a_stream_keeps_no_more_bytes_than_the_bound_and_the_newest_in_any_case():
    sensor = Sensor(SensorConfig("microphone", "audio", window=10.0), EngineSettings(), is_stream=True)
    most = EngineSettings().max_bytes
    for at in range(5):
        sensor.push(at, at, "sound", None, most // 3)
    assert [item.stamp_ns for item in sensor.select(5).parts] == [2, 3, 4] and sensor.report(5).dropped == 2
    sensor.push(6, 6, "sound", None, 2 * most)
    assert [item.stamp_ns for item in sensor.select(7).parts] == [6]


def test_a_reason_names_the_sensor_whatever_found_it():
    told = []
    cache = TokenCache(None, lambda *_: None, lambda *row: told.append(row), lambda *_: None)

    def encode():
        raise InvalidInputError("image", "1 view", "2")

    assert cache.attempt("camera", encode) is None
    assert told == [("camera", "[camera] got 1 view, expected 2")]


def test_rejected_sensor_is_back_after_enough_good_items():
    engine = make(SensorConfig("camera", "image", readmit_after=2), reject_after=1)
    push(engine, "camera", 0, "garbage")
    assert tick(engine, 0) is None
    for at, payload, expected in ((0.1, 1.0, []), (0.2, "garbage", []), (0.3, 1.0, []), (0.4, 1.0, ["camera"])):
        push(engine, "camera", at, payload)
        assert names(tick(engine, at)) == expected
    assert tick(engine, 0.5) is not None


def test_a_rejected_sensor_that_was_silent_is_judged_anew():
    engine = make("camera", reject_after=1)
    push(engine, "camera", 0, "garbage")
    assert tick(engine, 0) is None
    assert report(engine, 0).state == SensorState.REJECTED
    assert report(engine, 2).state == SensorState.STALE
    push(engine, "camera", 3, lag=100)
    tick(engine, 3)
    assert report(engine, 3).state == SensorState.LATE
    assert "100.00 s old" in report(engine, 3).reason


def test_one_item_is_rejected_once():
    engine = make("camera")
    push(engine, "camera", 0, "garbage")
    for step in range(5):
        assert tick(engine, step / 10) is None
    assert report(engine, 0.4).rejected == 1


def test_failing_encoder_takes_out_one_sensor_only():
    model = FakeModel()
    model.fail_on = 7.0
    engine = make("camera", "lidar", "thermal", model=model)
    push(engine, "camera", 0)
    push(engine, "lidar", 0, 7.0)
    push(engine, "thermal", 0)
    assert names(tick(engine, 0)) == ["camera", "thermal"]
    assert [item.rejected for item in engine.reports(T0)] == [0, 1, 0]
    assert "1 messages rejected, the last: [lidar] RuntimeError: encoder broke" in report(engine, 0, 1).reason


def test_one_item_that_cannot_be_encoded_is_tried_once():
    model = FakeModel()
    model.fail_on = 3.0
    engine = make("camera", "lidar", model=model)
    push(engine, "camera", 0, 3.0)
    assert tick(engine, 0) is None
    assert model.calls == [["image"]]
    push(engine, "camera", 0.1, 3.0)
    push(engine, "lidar", 0.1, 1.0)
    assert names(tick(engine, 0.1)) == ["lidar"]
    assert model.calls[1:] == [["image", "point_cloud"], ["image"], ["point_cloud"]]


def test_changes_of_state_are_told_and_only_those_that_trouble_are_warnings(caplog):
    caplog.set_level(logging.INFO)
    engine = make("camera")
    push(engine, "camera", 0)
    tick(engine, 0)
    tick(engine, 5)
    engine.configure(SensorConfig("camera", "image", enabled=False))
    engine.configure(SensorConfig("camera", "image"))
    told = [(record.levelname, record.getMessage().split(":")[0]) for record in caplog.records]
    assert told == [
        ("INFO", "[camera] WAITING -> ACTIVE"),
        ("WARNING", "[camera] ACTIVE -> STALE"),
        ("INFO", "[camera] STALE -> DISABLED"),
        ("INFO", "[camera] DISABLED -> WAITING"),
    ]


def test_after_a_silence_it_takes_as_many_bad_messages_again():
    engine = make("camera", reject_after=3)
    for at in (0, 5):  # the silence between forgives what was refused before it
        for step in range(3):
            camera = report(engine, at + step / 100)
            assert camera.state != SensorState.REJECTED, (at, step)
            engine.reject("camera", "[camera] got a wrong type", T0 + round((at + step / 100) * S))
        assert report(engine, at + 0.03).state == SensorState.REJECTED
        assert report(engine, at + 2).state == SensorState.STALE


def test_rejections_found_outside():
    engine = make("camera")
    for _ in range(3):
        engine.reject("camera", "[camera] got std_msgs/msg/String, expected sensor_msgs/msg/Image")
    camera = report(engine, 0)
    assert (camera.state, camera.received, camera.rejected) == (SensorState.REJECTED, 3, 3)
    assert "std_msgs/msg/String" in camera.reason
    assert report(engine, 0.9).state == SensorState.REJECTED
    assert report(engine, 2).state == SensorState.STALE


def test_sensor_that_turns_bad_leaves_after_its_timeout():
    engine = make("camera")
    push(engine, "camera", 0)
    assert tick(engine, 0) is not None
    for step in range(1, 15):
        push(engine, "camera", step / 10, lag=-9)
        prediction = tick(engine, step / 10)
        assert (prediction is not None) == (step < 3)
    assert report(engine, 1.4).state == SensorState.REJECTED


# Streams -------------------------------------------------------------------------------------------------------------


def test_stream_window_is_cut_from_all_parts():
    model = FakeModel()
    engine = make(SensorConfig("microphone", "audio", window=0.25), model=model)
    for step in range(10):
        push(engine, "microphone", (step + 1) / 10, Chunk((float(step),) * 10), lag=0.1)
    prediction = tick(engine, 1.05)
    window = model.processed[0][1].values
    assert window == (7.0,) * 5 + (8.0,) * 10 + (9.0,) * 10  # 0.25 s up to the end of the newest part
    assert prediction.sensors[0].age == pytest.approx(0.15)


def test_a_trigger_from_the_past_gets_the_whole_window_that_led_to_it():
    model = FakeModel()
    engine = make("camera", SensorConfig("microphone", "audio", window=0.5), model=model, trigger="camera")
    for step in range(1, 101):  # parts of 0.1 s, received when they end
        push(engine, "microphone", step / 10, Chunk((float(step),) * 10), lag=0.1)
    push(engine, "camera", 10.0, 1.0, lag=0.5)
    engine.compute(engine.select(T0 + 10 * S, T0 + round(9.5 * S)))
    window = next(raw for kind, raw in model.processed if kind == "audio").values
    # The part that was running at 9.5 s is the last of its moment; what came after it belongs to another.
    assert window == tuple(float(step) for step in range(92, 97) for _ in range(10))
    assert len(engine._sensors["microphone"]._items) <= 12  # a window of 0.5 s, as much again, and what reaches in


def test_without_a_trigger_a_stream_keeps_no_more_than_its_window():
    engine = make(SensorConfig("microphone", "audio", window=0.5))
    for step in range(100):
        push(engine, "microphone", step / 10)
    stamps = [item.stamp_ns - T0 for item in engine._sensors["microphone"]._items]
    assert stamps == [round(step / 10 * S) for step in range(94, 100)]  # from the part that ends as the window begins


@pytest.mark.parametrize(("lag", "state"), [(1.5, SensorState.ACTIVE), (1.500000001, SensorState.LATE)])
def test_a_part_may_be_a_window_and_a_timeout_old(lag, state):
    engine = make(SensorConfig("microphone", "audio", window=0.5, timeout=1.0))
    push(engine, "microphone", 0, lag=lag)
    assert names(tick(engine, 0)) == (["microphone"] if state == SensorState.ACTIVE else [])
    assert report(engine, 0).state == state


def test_a_frame_that_arrives_after_a_newer_one_was_used_is_never_used():
    engine = make("lidar")

    def picked(now, reference):
        pick = engine.select(T0 + round(now * S), T0 + round(reference * S)).picks[0]
        return (pick.newest.stamp_ns - T0) / S

    push(engine, "lidar", 0.30)
    assert picked(0.36, reference=0.27) == 0.30
    push(engine, "lidar", 0.37, lag=0.09)  # nearest to the next reference, but the past does not return
    assert report(engine, 0.37).dropped == 1
    push(engine, "lidar", 0.38)
    assert picked(0.4, reference=0.28) == 0.30
    assert picked(0.4, reference=0.36) == 0.38


def test_stream_is_encoded_again_only_with_new_parts():
    model = FakeModel()
    engine = make("microphone", "camera", model=model)
    push(engine, "microphone", 0.0)
    push(engine, "camera", 0.0)
    for step in range(5):
        assert names(tick(engine, step / 10)) == ["microphone", "camera"]
    push(engine, "microphone", 0.5)
    tick(engine, 0.5)
    assert model.calls == [["audio", "image"], ["audio"]]


def test_broken_part_of_a_stream_is_left_out():
    model = FakeModel()
    engine = make("microphone", model=model)
    for step, value in enumerate((1.0, math.nan, 3.0)):
        push(engine, "microphone", step / 10, Chunk((value,) * 10))
    assert tick(engine, 0.3) is not None
    assert model.processed[0][1].values == (1.0,) * 10 + (3.0,) * 10
    assert report(engine, 0.3).rejected == 1


def test_stream_that_turns_bad_is_rejected_though_its_window_holds_good_parts():
    engine = make(SensorConfig("microphone", "audio", window=10.0))
    push(engine, "microphone", 0.0)
    assert tick(engine, 0.0) is not None
    for step in range(1, 5):
        push(engine, "microphone", step / 10, "garbage")
        tick(engine, step / 10)
    assert report(engine, 0.4).state == SensorState.REJECTED


def test_empty_part_of_a_stream_is_no_error():
    engine = make("event_camera")
    push(engine, "event_camera", 0.0, Chunk(()))
    assert tick(engine, 0.0) is None
    assert report(engine, 0.0).rejected == 0
    assert report(engine, 0.0).state == SensorState.ACTIVE


# Cost ----------------------------------------------------------------------------------------------------------------


def test_each_item_is_encoded_once_and_all_new_ones_together():
    model = FakeModel()
    engine = make(*SIX, model=model)
    for sensor in SIX:
        push(engine, sensor, 0)
    first = tick(engine, 0.0)
    for step in range(1, 4):
        again = tick(engine, step / 10)
        np.testing.assert_array_equal(first.embedding, again.embedding)
    assert len(model.calls) == 1
    assert sorted(model.calls[0]) == sorted(SIX.values())
    push(engine, "camera", 0.5)
    push(engine, "lidar", 0.5)
    tick(engine, 0.5)
    assert model.calls[1:] == [["image", "point_cloud"]]
    assert len(model.processed) == 8


def test_skipped_items_are_never_decoded():
    decoded = []
    engine = PerceptionEngine(
        FakeModel(), [SensorConfig("camera", "image")], lambda sensor, payload: decoded.append(payload) or payload
    )
    for step in range(30):
        push(engine, "camera", step / 30, float(step))
    tick(engine, 1)
    assert decoded == [29.0]
    assert report(engine, 1).dropped == 29
    assert report(engine, 1).rate == pytest.approx(30)


@pytest.mark.parametrize("sensor", ["camera", "microphone"])
def test_buffers_are_bounded_in_a_flood(sensor):
    engine = make(sensor, max_frames=4, max_parts=64)
    for step in range(10_000):
        push(engine, sensor, step * 1e-5)
    buffer = engine._sensors[sensor]._items
    assert len(buffer) == (4 if sensor == "camera" else 64)
    assert report(engine, 0.1).dropped == 10_000 - len(buffer)
    assert names(tick(engine, 0.1)) == [sensor]


def test_stream_buffer_holds_its_window_only():
    engine = make(SensorConfig("microphone", "audio", window=0.5))
    for step in range(1000):
        push(engine, "microphone", step / 10)
    assert len(engine._sensors["microphone"]._items) <= 7


# What comes out ------------------------------------------------------------------------------------------------------


def test_equal_labels_stay_in_the_order_of_the_vocabulary():
    values = np.full(60, 0.01, np.float32)
    values[7::9] = 0.4
    found = rank(values, [str(i) for i in range(60)], 60, 0.0)
    others = [i for i in range(60) if i % 9 != 7]
    assert found.labels == tuple(str(i) for i in [*range(7, 60, 9), *others])


@pytest.mark.parametrize("top_k", [1, 5, 11, 59, 60, 99])
def test_the_first_labels_are_those_of_a_full_sort(top_k):
    values = (np.random.default_rng(top_k).integers(0, 9, 60) / 540).astype(np.float32)
    found = rank(values, [str(i) for i in range(60)], top_k, 0.0)
    assert found.labels == tuple(str(i) for i in sorted(range(60), key=lambda i: (-values[i], i))[:top_k])


def test_embeddings_from_elsewhere_are_recognised_alone_only_until_their_width_is_known():
    model = FakeModel()
    engine = make("camera", model=model)
    for number in (1, 2, 3):
        push(engine, "camera", number, Encoded("embedding", np.eye(DIM, dtype=np.float32)[number]))
        assert tick(engine, number) is not None
    assert model.fused == 4


@pytest.mark.parametrize(("threshold", "unknown"), [(0.5, False), (0.500001, True), (0.3, False)])
def test_unknown_is_what_lies_below_the_threshold(threshold, unknown):
    found = rank(np.array([0.25, 0.5, 0.125, 0.125], np.float32), LABELS, 3, threshold)
    assert (found.unknown, found.label, found.confidence) == (unknown, "" if unknown else "b", 0.5)
    assert (found.labels, found.scores) == (("b", "a", "c"), (0.5, 0.25, 0.125))
    assert found.entropy == pytest.approx(1.75 * math.log(2))
    assert rank(np.array([0.0, 1.0, 0.0, 0.0], np.float32), LABELS, 1, 0).entropy == 0
    nothing = rank(np.array([1e-6, 0.0, 0.0, 0.0], np.float32), LABELS, 1, 0.5)  # that none of them fits is not sure
    assert nothing.entropy == pytest.approx(math.log(4), abs=1e-4) and nothing.confidence == pytest.approx(1e-6)


def test_each_share_says_what_the_others_alone_would_have_said():
    model = FakeModel()
    engine = make("camera", "lidar", model=model)
    push(engine, "camera", 0, 1.0)
    alone = tick(engine, 0)
    assert (alone.sensors[0].label_without, alone.sensors[0].confidence_without) == ("", 0.0)
    push(engine, "lidar", 0.1, 2.0)
    both = tick(engine, 0.1)
    camera, lidar = both.sensors
    # The stand-in gives the rows without each token in reverse: of two, each gets the other's.
    assert (camera.label_without, camera.confidence_without) == (lidar.label, lidar.confidence)
    assert (lidar.label_without, lidar.confidence_without) == (camera.label, camera.confidence)
    assert 0 < camera.confidence_without < 1


def test_each_share_says_how_familiar_it_is_and_a_report_the_mean_of_some_predictions():
    engine = make("camera")
    assert math.isnan(engine.reports(0)[0].familiarity)
    told = []
    for step in range(3):
        push(engine, "camera", step / 10, 1.0 + step)
        told.append(tick(engine, step / 10).sensors[0].familiarity)
    assert told[0] != told[2]
    assert engine.reports(S // 4)[0].familiarity == pytest.approx(sum(told) / 3)
    engine.clear()
    assert math.isnan(engine.reports(S // 4)[0].familiarity)


def test_a_given_set_takes_these_items_of_these_sensors():
    engine = make("camera", "lidar", "thermal")
    for step in range(4):
        for name in ("camera", "lidar"):
            push(engine, name, step / 10, header=(name, step))
    selection = engine.select_set(T0 + S // 2, {"camera": T0 + S // 10, "thermal": T0})
    assert selection.sensors == ("camera",) and selection.reference_ns is None
    assert not selection.by_rate and make().select(T0).by_rate and not make().select(T0, T0).by_rate
    assert selection.picks[0].newest.header == ("camera", 1)
    prediction = engine.compute(selection)
    assert (names(prediction), prediction.header) == (["camera"], ("camera", 1))
    assert engine.compute(engine.select_set(T0 + S // 2, {"thermal": T0})) is None
    assert report(engine, 0.5, 1).state == SensorState.ACTIVE  # the lidar was not asked, but its state is looked after


def test_the_raw_item_that_was_decoded_last_can_be_shown():
    engine = make("camera", "lidar")
    push(engine, "camera", 0, 5.0)
    assert engine.newest("camera") is None
    tick(engine, 0)
    assert (engine.newest("camera"), engine.newest("lidar")) == (5.0, None)
    engine.clear()
    assert engine.newest("camera") is None


def test_two_sensors_of_one_modality_are_two_tokens():
    engine = make(SensorConfig("left", "image"), SensorConfig("right", "image"))
    engine.push("left", T0, T0, 1.0)
    engine.push("right", T0, T0, 2.0)
    prediction = engine.tick(T0)
    assert [share.modality for share in prediction.sensors] == ["image", "image"]
    assert prediction.sensors[0].confidence != prediction.sensors[1].confidence


def test_conflict_is_that_of_dempsters_rule():
    assert conflict([]) == conflict([("dog", 0.9)]) == conflict([("dog", 0.9), ("dog", 1.0)]) == 0
    assert conflict([("dog", 0.9), ("cat", 0.8)]) == pytest.approx(0.72)
    assert conflict([("dog", 0.5), ("dog", 0.5), ("cat", 0.8), ("", 1.0)]) == pytest.approx(0.75 * 0.8)
    # All 2^4 cases of who vouches for its label.
    said = [("a", 0.3), ("b", 0.6), ("c", 0.2), ("a", 0.9)]
    several = 0.0
    for vouches in itertools.product((False, True), repeat=4):
        chance = math.prod(p if one else 1 - p for one, (_, p) in zip(vouches, said, strict=True))
        several += chance * (len({label for one, (label, _) in zip(vouches, said, strict=True) if one}) > 1)
    assert conflict(said) == pytest.approx(several)
    six = [(label, 0.95) for label in ("a", "b", "c", "d", "e", "e")]
    assert conflict(six) > 0.99
    assert conflict([(label, 0.1) for label, _ in six]) < 0.15  # none of them is sure
    assert conflict([("a", 1.0), ("b", 1.0)]) == 1


def test_a_prediction_says_how_much_its_sensors_contradict_each_other():
    engine = make(SensorConfig("left", "image"), SensorConfig("right", "image"))
    engine.push("left", T0, T0, 1.0)
    engine.push("right", T0, T0, 2.0)
    one, other = (prediction := engine.tick(T0)).sensors
    expected = 0.0 if one.label == other.label else one.confidence * other.confidence
    assert prediction.conflict == pytest.approx(expected)
    shares = (replace(one, label="dog", confidence=0.75), replace(other, label="cat", confidence=0.5))
    assert replace(prediction, sensors=shares).conflict == pytest.approx(0.375)
    assert replace(prediction, sensors=(shares[0], replace(shares[1], label=""))).conflict == 0


def test_top_labels_entropy_and_unknown():
    model = FakeModel()
    engine = make("camera", model=model, top_k=3)
    push(engine, "camera", 0)
    known = tick(engine, 0)
    assert len(known.labels) == len(known.scores) == 3
    assert list(known.scores) == sorted(known.scores, reverse=True)
    assert (known.label, known.confidence, known.unknown) == (known.labels[0], known.scores[0], False)
    assert 0 < known.entropy < math.log(len(LABELS))
    assert known.sensors[0].label == known.label
    model.threshold = 1.0
    unknown = tick(engine, 0.1)
    assert (unknown.label, unknown.unknown) == ("", True)
    assert unknown.labels == known.labels


def test_labels_can_be_swapped_between_ticks():
    model = FakeModel()
    engine = make("camera", model=model)
    push(engine, "camera", 0)
    tick(engine, 0)
    model.labels = SimpleNamespace(names=("x", "y"))
    assert set(tick(engine, 0.1).labels) == {"x", "y"}
    assert len(model.calls) == 1


def test_encoded_payloads_skip_what_was_done_elsewhere():
    model = FakeModel()
    engine = make("camera", "lidar", "microphone", model=model)
    unit = np.eye(DIM, dtype=np.float32)[2]
    push(engine, "camera", 0, Encoded("preprocessed", np.array([[0, 1]], dtype=np.float32)))
    push(engine, "lidar", 0, Encoded("embedding", unit))
    push(engine, "microphone", 0, Encoded("embedding", unit))
    prediction = tick(engine, 0)
    assert names(prediction) == ["camera", "lidar", "microphone"]
    assert model.processed == []
    assert model.calls == [["image"]]
    assert prediction.sensors[1].label == "c"


@pytest.mark.parametrize("array", [np.ones(DIM), np.full(DIM, np.nan), np.eye(DIM + 1)[0], np.eye(DIM)])
def test_foreign_embedding_that_does_not_fit_is_rejected(array):
    engine = make("camera", "lidar")
    push(engine, "camera", 0, Encoded("embedding", array))
    push(engine, "lidar", 0)
    assert names(tick(engine, 0)) == ["lidar"]
    assert report(engine, 0).rejected == 1


@pytest.mark.parametrize("key", ["top_k", "min_sensors", "reject_after", "max_frames", "max_parts"])
def test_counts_begin_at_one(key):
    assert getattr(EngineSettings(**{key: 1}), key) == 1
    with pytest.raises(ConfigError, match=rf"{key} is 0, expected 1 or more"):
        EngineSettings(**{key: 0})


@pytest.mark.parametrize("key", ["max_future", "max_wait"])
def test_durations_of_the_engine_are_finite_and_not_negative(key):
    assert getattr(EngineSettings(**{key: 0.0}), key) == 0
    for value in (-1e-9, math.inf, -math.inf, math.nan):
        with pytest.raises(ConfigError, match=f"{key} is {value}"):
            EngineSettings(**{key: value})


def test_settings_of_a_sensor_have_limits():
    for key in ("timeout", "window"):
        assert getattr(SensorConfig("camera", "image", **{key: 1e-9}), key) == 1e-9
        for value in (0.0, -1.0, math.inf, math.nan):
            with pytest.raises(ConfigError, match=f"'camera': {key} is {value}"):
                SensorConfig("camera", "image", **{key: value})
    for value in (math.inf, math.nan):
        with pytest.raises(ConfigError, match=f"time_offset is {value}"):
            SensorConfig("camera", "image", time_offset=value)
    with pytest.raises(ConfigError, match="stamp is 'now', expected header or receive"):
        SensorConfig("camera", "image", stamp="now")
    assert SensorConfig("camera", "image", readmit_after=1).readmit_after == 1
    with pytest.raises(ConfigError, match="readmit_after is 0"):
        SensorConfig("camera", "image", readmit_after=0)


def test_what_a_sensor_and_an_engine_are_without_settings():
    sensor = SensorConfig("camera", "image")
    assert sensor.enabled and sensor.time_offset == 0.0
    assert (sensor.timeout, sensor.window, sensor.readmit_after) == (1.0, 1.0, 1)
    engine = EngineSettings()
    assert (engine.top_k, engine.min_sensors, engine.reject_after) == (5, 1, 3)
    assert (engine.max_future, engine.max_wait, engine.max_frames, engine.max_parts) == (0.5, 0.0, 8, 1024)


@pytest.mark.parametrize(("length", "fits"), [(0.9905, True), (1.0095, True), (0.9895, False), (1.0105, False)])
def test_an_embedding_may_be_a_hundredth_longer_or_shorter(length, fits):
    engine = make("camera")
    push(engine, "camera", 0, Encoded("embedding", np.eye(DIM)[0] * length))
    tokens = engine.tokens(engine.select(T0))
    assert [token.embedding.dtype for token in tokens] == [np.float32] * fits


def test_of_a_stream_of_both_kinds_the_raw_parts_are_joined():
    model = FakeModel()
    engine = make("microphone", model=model)
    push(engine, "microphone", 0.1, Encoded("preprocessed", np.zeros((1, 2), np.float32)), lag=0.1)
    push(engine, "microphone", 0.2, Chunk((1.0,) * 10), lag=0.1)
    push(engine, "microphone", 0.3, Chunk((2.0,) * 10), lag=0.1)
    assert names(tick(engine, 0.3)) == ["microphone"]
    assert [raw.values for _, raw in model.processed] == [(1.0,) * 10 + (2.0,) * 10]


def test_what_cannot_be_preprocessed_is_no_token():
    class Broken(FakeModel):
        def process(self, modality, raw):
            if raw == 9.0:
                raise RuntimeError("broken")
            return super().process(modality, raw)

    engine = make("camera", "lidar", model=Broken())
    push(engine, "camera", 0, 9.0)
    push(engine, "lidar", 0, 1.0)
    tokens = engine.tokens(engine.select(T0), embed=False)
    assert [(token.sensor.name, token.embedding) for token in tokens] == [("lidar", None)]
    assert tokens[0].views.shape == (1, 2)


def test_wrong_settings_name_the_key():
    with pytest.raises(ConfigError, match="camera"):
        make("camera", "camera")
    with pytest.raises(ConfigError, match="no sensor 'radar'"):
        make("camera").push("radar", 0, 0, None)
    with pytest.raises(ConfigError, match="reject_after"):
        EngineSettings(reject_after=0)
    with pytest.raises(ConfigError, match="max_future"):
        EngineSettings(max_future=math.nan)
    with pytest.raises(ConfigError, match="timeout"):
        SensorConfig("camera", "image", timeout=0)


# Properties over random schedules ------------------------------------------------------------------------------------

_MESSAGE = st.tuples(
    st.sampled_from(list(SIX)),
    st.integers(0, 99),  # receipt inside the batch, in hundredths
    st.integers(-70, 150),  # how long before receipt it was stamped, in hundredths
    st.sampled_from([1.0, 2.0, 3.0, "garbage"]),
)
_BATCH = st.lists(_MESSAGE, max_size=25, unique_by=lambda message: (message[0], message[1] - message[2]))
_RELAXED = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _replay(batches):
    """Pushes one batch a second with two ticks after each; returns the engine and its predictions."""
    engine = make(
        "camera",
        "thermal",
        "event_camera",
        "tactile",
        SensorConfig("lidar", "point_cloud", readmit_after=2),
        "microphone",
    )
    predictions = []
    for second, batch in enumerate(batches):
        for sensor, at, lag, value in batch:
            payload = value if value == "garbage" else sample(sensor, value)
            push(engine, sensor, second + at / 100, payload, lag / 100, header=(second, sensor, at))
        predictions += [tick(engine, second + 1), tick(engine, second + 1.4)]
    return engine, predictions


@_RELAXED
@given(st.lists(_BATCH, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(batches, random):
    shuffled = [random.sample(batch, len(batch)) for batch in batches]
    for one, other in zip(_replay(batches)[1], _replay(shuffled)[1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.sensors == other.sensors
            assert (one.label, one.scores, one.header) == (other.label, other.scores, other.header)
            np.testing.assert_array_equal(one.embedding, other.embedding)


@_RELAXED
@given(st.lists(_BATCH, min_size=1, max_size=5))
def test_random_schedules_keep_every_promise(batches):
    engine, predictions = _replay(batches)
    limit = {sensor: 2.0 if FakeModality(kind).is_stream else 1.0 for sensor, kind in SIX.items()}
    for prediction in filter(None, predictions):
        assert prediction.sensors
        for share in prediction.sensors:
            assert -0.5 <= share.age <= limit[share.name]
        assert sum(share.weight for share in prediction.sensors) == pytest.approx(1)
    ticks = [prediction.tick_ns for prediction in predictions if prediction]
    assert ticks == sorted(ticks)
    for item, sensor in zip(engine.reports(T0 + 100 * S), engine._sensors.values(), strict=True):
        sent = sum(message[0] == item.name for batch in batches for message in batch)
        assert item.received == sent
        assert item.rejected + item.dropped <= sent
        assert len(sensor._items) <= 25 * 5
        assert item.state == (SensorState.STALE if sent else SensorState.WAITING)


def summary(selection, prediction):
    content = prediction and (prediction.sensors, prediction.header, prediction.scores)
    return selection.now_ns, selection.reference_ns, content


_EVENT = st.tuples(
    st.sampled_from([*SIX, "period"]),
    st.integers(0, 400),  # when, in hundredths
    st.integers(-60, 120),  # how long before its receipt it was stamped, in hundredths
    st.sampled_from([1.0, 2.0, "garbage"]),
)
_EVENTS = st.lists(_EVENT, max_size=60, unique_by=lambda event: (event[0], event[1] - event[2], event[1]))


def _run(events, shuffle, **engine_settings):
    """Drives a clockwork; events of one moment arrive in any order. Returns it, and the items of each prediction."""
    clock = Clockwork(*SIX, **engine_settings)
    used = []
    compute = clock.engine.compute

    def spy(selection):
        prediction = compute(selection)
        used.append((selection, prediction))
        return prediction

    clock.engine.compute = spy
    for at, group in itertools.groupby(sorted(events, key=lambda event: event[1]), key=lambda event: event[1]):
        for sensor, _, lag, value in shuffle(list(group)):
            if sensor == "period":
                continue
            payload = value if value == "garbage" else sample(sensor, value)
            receive = T0 + at * S // 100
            clock.stream.on_message(sensor, receive - lag * S // 100, receive, payload, (sensor, at, lag))
        if any(event[0] == "period" for event in events if event[1] == at):
            clock.stream.on_timer(T0 + at * S // 100)
        clock.poll(at / 100)
        for sensor in clock.engine._sensors.values():
            assert len(sensor._items) <= (1024 if sensor._is_stream else 8)
        assert len(clock.trigger._references) <= 9
    return clock, used


@_RELAXED
@given(_EVENTS, st.sampled_from(["", "camera", "microphone"]), st.sampled_from([0.0, 0.05, 0.3]),
       st.randoms(use_true_random=False))  # fmt: skip
def test_any_schedule_gives_predictions_in_order_of_items_of_their_moment(events, trigger, max_wait, random):
    options = {"trigger": trigger, "max_wait": max_wait}
    clock, used = _run(events, lambda group: group, **options)
    _, shuffled = _run(events, lambda group: random.sample(group, len(group)), **options)
    moments = [selection.now_ns for selection, _ in used]
    assert moments == sorted(moments)
    references, frames = [], {}
    for selection, prediction in used:
        for pick in selection.picks:
            name, newest = pick.sensor.name, pick.newest
            limit = 2.0 if FakeModality(SIX[name]).is_stream else 1.0
            assert selection.now_ns - newest.stamp_ns <= (limit + (2.0 if selection.reference_ns else 0.0)) * S
            assert newest.stamp_ns - selection.now_ns <= 0.5 * S
            assert newest.order >= frames.get(name, newest.order)  # never back to an older frame
            if not FakeModality(SIX[name]).is_stream:
                frames[name] = newest.order
        if prediction is None:
            continue
        assert len(set(names(prediction))) == len(prediction.sensors)  # a sensor takes part once
        leader = next((share for share in prediction.sensors if share.name == trigger), None)
        if leader is not None and leader.stamp_ns == selection.reference_ns:
            references.append(prediction.header)
            assert prediction.header[0] == trigger
    assert len(references) == len(set(references))  # a reference is used once
    stamps = [at - lag for _, at, lag in references]
    assert stamps == sorted(stamps)
    # An item is encoded once, whatever the number of ticks that use it.
    sent = sum(event[0] in ("camera", "thermal", "lidar", "tactile") for event in events)
    model = clock.engine.model
    assert sum(kind in ("image", "thermal", "point_cloud", "touch") for kind, _ in model.processed) <= sent
    assert [summary(*tick) for tick in used] == [summary(*tick) for tick in shuffled]


# Threads -------------------------------------------------------------------------------------------------------------


def test_pushing_from_threads_while_ticking():
    engine = make(*SIX)
    errors = []
    predictions = []
    pushed = 300

    def publish(sensor):
        try:
            for step in range(pushed):
                push(engine, sensor, step / 1000, "garbage" if step % 10 == 5 else None)
        except Exception as error:  # pragma: no cover - the assertion below shows it
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(sensor,)) for sensor in SIX]
    with LatestWorker(engine.compute, predictions.append) as worker:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            worker.submit(engine.select(T0 + S // 2))
            engine.reports(T0 + S // 2)
        for thread in threads:
            thread.join()
        assert worker.wait(10)
        worker.submit(engine.select(T0 + S // 2))
        assert worker.wait(10)
        assert worker.errors == 0
    assert not errors
    assert [item.received for item in engine.reports(T0 + S // 2)] == [pushed] * 6
    assert any(prediction is not None for prediction in predictions)


def test_worker_computes_the_latest_job_only():
    gate, begun = threading.Event(), threading.Event()
    results = []

    def compute(job):
        begun.set()
        assert gate.wait(10)
        return job * 10

    worker = LatestWorker(compute, results.append)
    worker.submit(1)
    assert begun.wait(10)
    for job in (2, 3, 4):
        worker.submit(job)
    assert worker.overruns == 2
    assert not worker.wait(0.01)
    gate.set()
    assert worker.wait(10)
    assert results == [10, 40]
    assert worker.close(10)
    worker.submit(5)
    assert results == [10, 40]


def test_worker_is_busy_until_its_job_is_done_and_forgets_what_waits_when_closed():
    begun, release, done = threading.Event(), threading.Event(), []

    def compute(job):
        begun.set()
        release.wait(10)
        return job

    worker = LatestWorker(compute, done.append)
    assert worker.wait(10)
    worker.submit(1)
    assert begun.wait(10)
    assert not worker.wait(0.01)
    worker.submit(2)
    assert not worker.close(0.01)
    worker.submit(3)
    release.set()
    assert worker.close(10)
    assert done == [1] and worker.overruns == 0
    assert worker._slot == []


def test_what_one_sensor_makes_fail_in_the_fusion_is_counted_and_the_others_go_on(caplog):
    class Overflowing(FakeModel):
        def recognise(self, kinds, embeddings, doubts=None):
            if self.fail_on in kinds:
                raise InvalidInputError("recognise", "probabilities that are not finite", "an answer of finite numbers")
            return super().recognise(kinds, embeddings, doubts)

    model = Overflowing()
    engine = make("camera", "lidar", model=model)
    push(engine, "camera", 0, sample("camera", 1))
    push(engine, "lidar", 0, sample("lidar", 1))
    model.fail_on = "image"
    for _ in range(2):  # the same item is not tried again
        found, tokens = engine.perceive(engine.select(T0))
        assert [share.name for share in found.sensors] == [token.sensor.name for token in tokens] == ["lidar"]
    camera, lidar = engine.reports(T0)
    assert (camera.rejected, lidar.rejected) == (1, 0)
    assert "probabilities that are not finite" in camera.reason
    push(engine, "camera", 0.1, sample("camera", 2))
    model.fail_on = None
    assert [share.name for share in engine.tick(T0 + S // 10).sensors] == ["camera", "lidar"]


def test_a_fusion_that_always_raises_is_no_fault_of_a_sensor():
    class Broken(FakeModel):
        def recognise(self, kinds, embeddings, doubts=None):
            raise RuntimeError("no fusion")

    engine = make("camera", "lidar", model=Broken())
    push(engine, "camera", 0, sample("camera", 1))
    push(engine, "lidar", 0, sample("lidar", 1))
    for _ in range(2):  # what they offer stays
        with pytest.raises(RuntimeError, match="no fusion"):
            engine.tick(T0)
    assert [report.rejected for report in engine.reports(T0)] == [0, 0]


def test_an_error_of_every_tick_has_one_traceback_and_is_counted(caplog):
    with LatestWorker(lambda job: 1 / job, lambda _: None) as worker:
        for _ in range(5):
            worker.submit(0)
            assert worker.wait(10)
    assert worker.errors == 5 and worker.failure == "ZeroDivisionError: division by zero"
    assert caplog.text.count("Traceback") == 1


def test_worker_survives_exceptions(caplog):
    results = []

    def deliver(result):
        if math.isinf(result):
            raise ValueError("cannot deliver")
        results.append(result)

    with LatestWorker(lambda job: 1 / job if job != math.pi else math.inf, deliver) as worker:
        for job in (0, math.pi, 2):
            worker.submit(job)
            assert worker.wait(10)
    assert results == [0.5]
    assert worker.errors == 2
    assert caplog.text.count("Traceback") == 2


def test_worker_closes_while_busy_and_forgets_what_waits():
    gate, begun = threading.Event(), threading.Event()
    results = []

    def compute(job):
        begun.set()
        assert gate.wait(10)
        return job

    worker = LatestWorker(compute, results.append)
    worker.submit(1)
    assert begun.wait(10)
    worker.submit(2)
    assert not worker.close(0.01)
    gate.set()
    assert worker.close(10)
    assert results == [1]


# --- ticks that nobody waits for --------------------------------------------------------------------------------------


def sensors_come_and_go(model, tick_of):
    """40 ticks of four sensors, one of which sends garbage for a while and one of which falls silent."""
    engine = make("camera", "lidar", "tactile", "microphone", model=model)
    for number in range(40):
        at = number / 10
        push(engine, "camera", at, "garbage" if 10 <= number < 20 else number % 7)
        push(engine, "lidar", at, 1.0 + number // 2)
        if not 5 <= number < 35:
            push(engine, "tactile", at, number)
        push(engine, "microphone", at, Chunk((number / 9,) * 10))
        yield from tick_of(engine, engine.select(T0 + round(at * S)))


def computed(engine, selection):
    prediction = engine.compute(selection)
    yield prediction, engine.reports(selection.now_ns)


def looked_ahead(threads, model, known=None):
    aheads = []

    def tick_of(engine, selection):
        aheads[:] = aheads or [Lookahead(engine, threads, known)]
        yield from aheads[0].add(selection)

    ticks = list(sensors_come_and_go(model, tick_of))
    with aheads[0] as ahead:
        ticks += ahead.finish()
    return [(tick.prediction, list(tick.reports)) for tick in ticks]


@pytest.mark.parametrize("threads", [1, 3])
def test_ticks_that_nobody_waits_for_are_those_that_are_computed_at_once(threads):
    at_once = list(sensors_come_and_go(FakeModel(), computed))
    assert {len(prediction.sensors) for prediction, _ in at_once} == {2, 3, 4}
    assert any(report.state == SensorState.REJECTED for _, reports in at_once for report in reports)
    model = FakeModel()
    later = looked_ahead(threads, model)
    assert [(repr(prediction), repr(reports)) for prediction, reports in later] == [
        (repr(prediction), repr(reports)) for prediction, reports in at_once
    ]
    assert all(np.array_equal(a.embedding, b.embedding) for (a, _), (b, _) in zip(later, at_once, strict=True))
    assert all(len(set(call)) == 1 and len(call) <= 8 for call in model.calls)
    assert sum(map(len, model.calls)) == 7 + 20 + 10 + 40 and len(model.calls) < 25  # each input once, many together


def test_what_one_replay_has_encoded_another_does_not_encode_again():
    known, first, second = {}, FakeModel(), FakeModel()
    before = looked_ahead(1, first, known)
    assert repr(looked_ahead(1, second, known)) == repr(before)
    assert first.calls and not second.calls


def test_an_item_that_cannot_be_encoded_later_fails_for_its_sensor_alone():
    model = FakeModel()
    model.fail_on = 18.0  # of the lidar at tick 4, of the camera at tick 18
    engine, found = make("camera", "lidar", model=model), []
    with Lookahead(engine, 2) as ahead:
        for number in range(30):
            push(engine, "camera", number / 10, number)
            push(engine, "lidar", number / 10, number + 0.5 + (number == 4) * 13.5)
            found += ahead.add(engine.select(T0 + number * S // 10))
        assert [len(tick.tokens) for tick in found] == [2, 2, 2, 2, 1, 2, 2, 2]
        found += ahead.finish()
    assert [number for number, one in enumerate(found) if names(one.prediction) != ["camera", "lidar"]] == [4, 18]
    assert [report.rejected for report in engine.reports(T0 + 3 * S)] == [1, 1]


def test_what_another_host_has_preprocessed_is_judged_at_once():
    engine = make("camera", model=FakeModel())
    engine.model.fail_on = 5.0
    push(engine, "camera", 0, Encoded("preprocessed", np.array([[0.0, 5.0]], np.float32)))
    with Lookahead(engine) as ahead:
        assert not list(ahead.add(engine.select(T0)))
        assert engine.reports(T0)[0].rejected == 1
        [tick] = ahead.finish()
    assert tick.prediction is None and not tick.tokens


def test_results_of_several_threads_come_in_order():
    def slow_first(number):
        time.sleep(0.02 if number == 0 else 0)
        if number == 5:
            raise ValueError("five")
        return number

    assert list(in_order(slow_first, range(5), 3)) == list(in_order(slow_first, range(5), 1)) == [0, 1, 2, 3, 4]
    found = in_order(slow_first, itertools.count(), 2)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(found)
    assert 1 <= cores() <= (os.cpu_count() or 1)
