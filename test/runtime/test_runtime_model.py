"""The streaming engine with the real modalities and the tiny model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omnibind_core import OmniBind, encoders, fusion, modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Events, Sound
from omnibind_core.runtime import Encoded, PerceptionEngine, SensorConfig, SensorState

S = 1_000_000_000
SENSORS = [
    SensorConfig("camera", "image"),
    SensorConfig("thermal", "thermal"),
    SensorConfig("event_camera", "event", window=0.1),
    SensorConfig("tactile", "touch"),
    SensorConfig("lidar", "point_cloud"),
    SensorConfig("microphone", "audio", window=1.0),
]


@pytest.fixture(scope="module", params=["tiny", "point_bind_tiny", "open_clip_tiny"])
def model(request) -> OmniBind:
    torch.manual_seed(0)
    config = encoders.load_config(request.param)
    model = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))
    model.set_labels(("cup", "dog", "car", "rain"))
    return model


@pytest.fixture
def engine(model) -> PerceptionEngine:
    return PerceptionEngine(model, SENSORS, lambda sensor, payload: payload)


@pytest.fixture
def frames(rng):
    """One item of each sensor that comes in frames."""
    return {
        "camera": rng.integers(0, 255, (60, 80, 3), dtype=np.uint8),
        "thermal": rng.uniform(20, 35, (48, 64)).astype(np.float32),
        "tactile": rng.integers(0, 255, (28, 50, 3), dtype=np.uint8),
        "lidar": rng.standard_normal((3000, 3)).astype(np.float32),
    }


@pytest.fixture
def sound(rng) -> Sound:
    return Sound(rng.uniform(-0.5, 0.5, 24000).astype(np.float32), 16000)


def packet(rng, count: int) -> Events:
    """20 ms of events."""
    x, y = rng.integers(0, 64, (2, count)).astype(np.uint16)
    t = np.sort(rng.integers(0, 20_000, count))
    t[0], t[-1] = 0, 20_000
    return Events(x, y, t, rng.integers(0, 2, count).astype(np.uint8), 64, 64)


def test_six_sensors_give_what_the_model_gives_for_the_same_data(engine, model, frames, sound, rng):
    for name, raw in frames.items():
        engine.push(name, 2 * S, 2 * S, raw, header=name)
    for index in range(15):  # 1.5 s of sound in chunks of 0.1 s, of which the window holds the last 1.0 s
        chunk = Sound(sound.samples[index * 1600 : (index + 1) * 1600], 16000)
        stamp = S // 2 + index * S // 10
        engine.push("microphone", stamp, stamp + S // 10, chunk)
    packets = [packet(rng, 50) for _ in range(10)]
    for index, events in enumerate(packets):
        stamp = 18 * S // 10 + index * S // 50
        engine.push("event_camera", stamp, stamp + S // 50, events)
    prediction = engine.tick(2 * S)

    assert [share.name for share in prediction.sensors] == [config.name for config in SENSORS]
    assert {report.state for report in engine.reports(2 * S)} == {SensorState.ACTIVE}
    stamps = [18 * S // 10 + index * S // 50 for index in range(10)]
    joined = modalities.get("event").join(list(zip(stamps, packets, strict=True)), 2 * S, 0.1)
    raws = {**frames, "microphone": Sound(sound.samples[8000:], 16000), "event_camera": joined}
    kinds = [config.modality for config in SENSORS]
    items = [(config.modality, model.process(config.modality, raws[config.name])) for config in SENSORS]
    expected = model.recognise(kinds, model.embed(items))
    np.testing.assert_allclose(prediction.embedding, expected.embedding, atol=1e-5)
    np.testing.assert_allclose([share.weight for share in prediction.sensors], expected.weights, atol=1e-5)
    assert prediction.header in frames


def test_unusable_items_of_every_sensor_are_counted(engine, frames):
    bad = {
        "camera": np.zeros((0, 10, 3), np.uint8),
        "thermal": np.full((8, 8), np.nan, np.float32),
        "tactile": np.zeros(5, np.uint8),
        "lidar": np.full((100, 3), np.nan, np.float32),
        "microphone": Sound(np.full(1600, np.nan, np.float32), 16000),
        "event_camera": Events(*(np.array([200]) for _ in range(3)), np.array([1]), 64, 64),
    }
    for name, raw in bad.items():
        engine.push(name, S, S, raw)
    assert engine.tick(S) is None
    assert [report.rejected for report in engine.reports(S)] == [1] * 6
    engine.push("camera", S + 1, S + 1, frames["camera"])
    assert [share.name for share in engine.tick(S + 1).sensors] == ["camera"]


def test_encoder_input_and_embeddings_from_another_host(engine, model, frames):
    views = model.process("image", frames["camera"])
    embedding = model.embed([("touch", model.process("touch", frames["tactile"]))])[0].numpy()
    engine.push("camera", S, S, Encoded("preprocessed", views))
    engine.push("tactile", S, S, Encoded("embedding", embedding))
    remote = engine.tick(S)
    engine.push("camera", S + 1, S + 1, frames["camera"])
    engine.push("tactile", S + 1, S + 1, frames["tactile"])
    np.testing.assert_allclose(remote.embedding, engine.tick(S + 1).embedding, atol=1e-5)


@pytest.mark.parametrize("payload", [Encoded("preprocessed", np.zeros((1, 5))), Encoded("embedding", np.eye(1)[0])])
def test_encoded_payload_of_another_model_is_rejected_alone(engine, frames, payload):
    engine.push("camera", S, S, payload)
    engine.push("lidar", S, S, frames["lidar"])
    engine.push("thermal", S, S, frames["thermal"])
    assert [share.name for share in engine.tick(S).sensors] == ["thermal", "lidar"]
    assert engine.reports(S)[0].rejected == 1
    assert "expected" in engine.reports(S)[0].reason


def test_model_without_the_modality_rejects_only_that_sensor(model, frames, monkeypatch):
    process = model.process

    def refuse(modality, raw):
        if modality == "thermal":
            raise InvalidInputError(modality, "thermal", "another modality")
        return process(modality, raw)

    monkeypatch.setattr(model, "process", refuse)
    engine = PerceptionEngine(model, SENSORS, lambda sensor, payload: payload)
    for name in ("camera", "thermal"):
        engine.push(name, S, S, frames[name])
    assert [share.name for share in engine.tick(S).sensors] == ["camera"]
