"""What a sensor delivers that cannot be, by modality, and what becomes of it in model, engine and command."""

from __future__ import annotations

import csv
import logging
import re

import numpy as np
import pytest
import torch

from omnibind_core import encoders, fusion, modalities
from omnibind_core.calibration import Calibration, Certainty
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Doubt, Events, Sound
from omnibind_core.model import OmniBind
from omnibind_core.runtime import Doubted, EngineSettings, PerceptionEngine, SensorConfig, SensorState

S = 1_000_000_000


def photo(rng, low=0, high=256):
    return rng.integers(low, high, (120, 160, 3), dtype=np.uint8)


def lamp(picture):
    """With a light of 0.5 % of its pixels."""
    picture[50:58, 70:82] = 250
    return picture


def hum(rng, level):
    """Coloured noise, 2 s at 16 kHz."""
    noise = np.convolve(rng.normal(0, 1, 32015), np.ones(16) / 4, mode="valid")
    return (noise * level).astype(np.float32)


def click(length):
    """One short sound."""
    samples = np.zeros(length, np.float32)
    samples[5000:5008] = 0.02
    return samples


def box(rng, count, low, high):
    """Points on the surface of an upright box."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    points = rng.uniform(low, high, (count, 3))
    size = high - low
    axis = rng.choice(3, count, p=(areas := np.prod(size) / size) / areas.sum())
    points[np.arange(count), axis] = np.where(rng.random(count) < 0.5, low[axis], high[axis])
    return (points + rng.normal(0, 0.005, points.shape)).astype(np.float32)


def rays(directions, low, high, rng):
    """Where rays from the origin end inside of a box, 1 cm of noise."""
    with np.errstate(divide="ignore"):
        ranges = np.maximum(np.asarray(low) / directions, np.asarray(high) / directions).min(axis=1)
    ranges = np.minimum(ranges, 100) + rng.normal(0, 0.01, len(ranges))
    return (directions * ranges[:, None]).astype(np.float32)


def sweep(rng, low=(-3, -2, -0.8), high=(4, 3, 1.6), elevations=(-15, 15)):
    """One turn of a LiDAR of 16 beams."""
    azimuth, elevation = np.meshgrid(np.radians(np.arange(0, 360, 1.0)), np.radians(np.linspace(*elevations, 16)))
    flat = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    return rays(np.stack(flat, axis=-1).reshape(-1, 3), low, high, rng)


def sector(rng, low=(-1, -3, -0.9), high=(4, 3, 1.6)):
    """What a LiDAR of 64 beams that looks 120 degrees around ahead sees of a room."""
    azimuth, elevation = np.meshgrid(np.radians(np.arange(-60, 60, 1.0)), np.radians(np.linspace(-15, 15, 64)))
    flat = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    return rays(np.stack(flat, axis=-1).reshape(-1, 3), low, high, rng)


def view(rng, low=(-1, -3, -0.9), high=(4, 2, 1.6), wide=0.95, tall=0.55):
    """What a depth camera, of 87 by 58 degrees if not said otherwise, sees of a room."""
    across, up = np.meshgrid(np.linspace(-wide, wide, 64), np.linspace(-tall, tall, 48))
    directions = np.stack([np.ones_like(across), across, up], axis=-1).reshape(-1, 3)
    return rays(directions / np.linalg.norm(directions, axis=1, keepdims=True), low, high, rng)


def laser_scan(rng):
    points = sweep(rng, elevations=(0, 0))
    points[:, 2] = 0
    return points


def ground(rng, half=8.0, rough=0.02):
    return np.column_stack([rng.uniform(-half, half, (3000, 2)), rng.normal(0, rough, 3000)]).astype(np.float32)


def tone(rng, count=32000):
    """Something like music: tones that fade in and out, with a little hiss."""
    time = np.arange(count) / 16000
    wave = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220, 447, 910)) / 4 * np.sin(3 * time) ** 2
    return (wave + rng.normal(0, 0.003, count)).astype(np.float32)


def integers(rng):
    return np.rint(tone(rng) * 32767).astype("<i2")


GOOD = {
    "image": [
        photo,
        lambda rng: photo(rng, 20, 90),
        lambda rng: np.tile(np.repeat(np.array([0, 255], np.uint8), 10)[:, None], (480, 32, 3)),  # a grid misses it
    ],
    "thermal": [
        lambda rng: rng.uniform(18, 36, (48, 64)).astype(np.float32),
        lambda rng: rng.uniform(291, 309, (48, 64)).astype(np.float32),  # kelvin
        lambda rng: rng.integers(0, 256, (48, 64), dtype=np.uint8),
        lambda rng: photo(rng),
        lambda rng: np.where(np.arange(3072).reshape(48, 64) == 1500, 90, 20).astype(np.float32),  # one hot pixel
    ],
    "touch": [lambda rng: rng.integers(0, 90, (28, 50), dtype=np.uint8), photo],
    "event": [
        lambda rng: Events(*rng.integers(0, 64, (2, 200)).astype(np.uint16), np.arange(200), np.ones(200, "u1"), 64, 64)
    ],
    "audio": [
        lambda rng: Sound(tone(rng), 16000),
        lambda rng: Sound(tone(rng, 160_000) * np.float32(0.05), 16000),
        lambda rng: Sound(np.clip(rng.normal(0, 0.2, 32000), -1, 1).astype(np.float32), 16000),  # rain
        lambda rng: Sound(rng.normal(0, 0.04, 32000).astype(np.float32), 16000),  # far away
        lambda rng: Sound(hum(rng, 0.005), 16000),  # a fan
        lambda rng: Sound(hum(rng, 1e-3) + click(32000), 16000),
        lambda rng: Sound(hum(rng, 1e-3) * np.linspace(0, 2, 32000, dtype=np.float32), 16000),  # something comes
    ],
    "point_cloud": [
        lambda rng: box(rng, 2000, (0.4, -0.1, 0), (0.6, 0.1, 0.3)),
        lambda rng: box(rng, 3000, (-0.6, -0.3, 0), (0.6, 0.3, 2.0)),  # a wardrobe, around the origin
        lambda rng: box(rng, 3000, (2, -1, 0), (6.4, 0.8, 1.5)),  # as large as a car
        lambda rng: box(rng, 2048, (-60, -30, -100), (60, 30, 100)),  # a wardrobe in centimetres
        lambda rng: box(rng, 2000, (0, 0, 0), (0.21, 0.297, 0.004)),  # a sheet of paper
    ],
}
BAD = {
    "image": [
        (lambda rng: np.full((60, 80, 3), 128, np.uint8), True, "constant picture, standard deviation 0.0 of 255"),
        (lambda rng: np.full((60, 80, 3), (200, 20, 20), np.uint8), True, "constant picture"),
        (lambda rng: photo(rng, 0, 6), True, "black picture, 99 % of its values at most 5 of 255"),
        (lambda rng: lamp(photo(rng, 0, 6)), False, "almost black picture, 99 % of its values at most 5 of 255"),
        (lambda rng: photo(rng, 0, 16), False, "almost black picture, 99 % of its values at most 15 of 255"),
    ],
    "thermal": [
        (lambda rng: rng.uniform(29315, 30915, (48, 64)).astype(np.float32), False, "scale: 0.01, offset: -273.15"),
        (lambda rng: rng.uniform(2931, 3091, (48, 64)).astype(np.float32), False, "scale: 0.1, offset: -273.15"),
        (lambda rng: rng.uniform(7000, 9000, (48, 64)).astype(np.float32), False, "counts. Give scale and offset"),
        (lambda rng: rng.integers(7000, 9000, (48, 64)).astype(np.uint16), False, "values 70.. to 89"),
        (lambda rng: rng.uniform(-273.15, -270, (48, 64)).astype(np.float32), False, "values -273.* that are 0"),
        (lambda rng: np.full((48, 64), -273.15, np.float32), True, "constant picture, all values -273"),
        (lambda rng: np.full((48, 64), 77, np.uint8), True, "constant picture, all values 77"),
    ],
    "touch": [
        (lambda rng: rng.integers(0, 6, (28, 50), dtype=np.uint8), True, "no contact, pressure differs by 2.0%"),
        (lambda rng: rng.uniform(0, 0.03, (28, 50)).astype(np.float32), True, "no contact"),
        (lambda rng: np.full((48, 64, 3), 90, np.uint8), True, "constant picture"),
    ],
    "event": [
        (lambda rng: Events(*np.ones((2, 1), "u2"), np.zeros(1, "i8"), np.ones(1, "u1"), 64, 64), True, "1 events"),
    ],
    "audio": [
        (lambda rng: Sound(np.zeros(32000, np.float32), 16000), True, "silence"),
        (lambda rng: Sound(rng.normal(0, 1e-4, 32000).astype(np.float32), 16000), True, "silence"),
        (lambda rng: Sound(rng.normal(0, 2e-3, 32000).astype(np.float32), 16000), True, "hiss.* 0.002 of"),
        (lambda rng: Sound(rng.normal(0, 1e-2, 44100).astype(np.float32), 44100), True, "hiss.* 0.01 of"),
        (lambda rng: Sound(hum(rng, 1e-3), 16000), True, "hiss.* 0.001 of"),
        (lambda rng: Sound(rng.normal(0.1, 2e-3, 16000).astype(np.float32), 16000), True, "hiss.* 0.002 of"),
        (lambda rng: Sound(np.full(16000, -0.05, np.float32), 16000), True, "silence"),  # an offset is no sound
        (lambda rng: Sound(integers(rng).byteswap().astype(np.float32) / 32768, 16000), True, "steps between samples"),
        (lambda rng: Sound(integers(rng).view("u1").astype(np.float32) / 128 - 1, 16000), True, "another format"),
        (lambda rng: Sound(integers(rng).view("i1").astype(np.float32) / 128, 16000), True, "steps between samples"),
        (
            lambda rng: Sound(integers(rng).view("<u2").astype(np.float32) / 32768 - 1, 16000),
            True,
            "a level of 0.[6-9]",
        ),
        (lambda rng: Sound(tone(rng).view("<i2").astype(np.float32) / 32768, 16000), True, "steps between samples"),
        (lambda rng: Sound(np.full(32000, -1, np.float32), 16000), True, r"a mean of -1\.00"),
        (lambda rng: Sound(np.sin(np.arange(32000) * 1.2).astype(np.float32), 16000), False, "level of 0.71.*clipped"),
        (
            lambda rng: Sound(np.clip(np.sin(np.arange(32000, dtype=np.float32) / 8) * 2, -1, 1), 16000),
            False,
            "level of 0.*clipped",
        ),
    ],
    "point_cloud": [
        (laser_scan, False, "all points in one plane: a laser scan"),
        (
            lambda rng: laser_scan(rng) @ np.array([[1, 0, 0.2], [0, 1, 0], [-0.2, 0, 1]], np.float32),
            False,
            "laser scan",
        ),
        (ground, False, "15.* m, a plane that is 0.[45] % as thick as wide: the ground"),
        (sweep, False, "7.* x 5.* m, something on all sides"),
        (lambda rng: sweep(rng, (-20, -20, -1.5), (30, 12, 5)), False, "something on all sides"),
        (lambda rng: box(rng, 3000, (0, 0, 0), (5, 4, 2.5)), False, "something on all sides"),
        (view, False, "the view of a depth camera"),
        (
            lambda rng: view(rng, wide=0.47, tall=0.35),
            False,
            "2.* m, as wide as the view of a depth camera",
        ),  # 50 by 39
        (lambda rng: view(rng, (-1, -4, -1), (3, 4, 1.6), 1.19, 0.9), False, "view of a depth camera"),  # 100 by 84
        (sector, False, "the view of a depth camera or LiDAR"),
        (lambda rng: sector(rng, (-1, -15, -1.5), (30, 20, 5)), False, "the view of a depth camera or LiDAR"),
        (lambda rng: ground(rng, 1.5, 0.01), False, "a plane that is 1.* % as thick as wide: the ground"),
        (lambda rng: ground(rng, 2.5, 0.03), False, "a plane that is 2.* % as thick as wide: the ground"),
    ],
}


@pytest.mark.parametrize(("name", "index"), [(name, at) for name, made in GOOD.items() for at in range(len(made))])
def test_good_readings_are_not_doubted(name, index, rng):
    modality = modalities.get(name)
    assert modalities.doubt(name, modality.check(GOOD[name][index](rng), name)) is None


@pytest.mark.parametrize(("name", "index"), [(name, at) for name, made in BAD.items() for at in range(len(made))])
def test_readings_that_cannot_be_are_doubted_with_a_number(name, index, rng):
    make, excludes, reason = BAD[name][index]
    doubt = modalities.doubt(name, modalities.get(name).check(make(rng), name))
    assert doubt is not None and doubt.excludes == excludes
    assert re.search(reason, doubt.reason), doubt.reason
    assert any(letter.isdecimal() for letter in doubt.reason)
    assert doubt.empty == (name == "event" or any(word in reason for word in ("silence", "hiss", "contact")))


def test_integers_read_as_floats_are_refused(rng):
    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match="finite samples on"):
        modalities.get("audio").check(Sound(integers(rng).view("<f4"), 16000), "microphone")


def test_text_is_never_doubted():
    assert modalities.doubt("text", "a red cup") is None


@pytest.mark.slow
def test_no_sample_of_the_data_is_doubted(shared_data):
    rows = list(csv.DictReader((shared_data / "samples.csv").open(encoding="utf-8")))
    for row in rows[::9]:
        doubt = modalities.doubt(row["modality"], modalities.get(row["modality"]).load(shared_data / row["path"]))
        assert doubt is None, f"{row['path']}: {doubt}"


# What becomes of a doubt ----------------------------------------------------------------------------------------------

VOID, DIM = Doubt("void"), Doubt("dim", excludes=False)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = encoders.load_config("tiny")
    settings = {"layers": 0, "pool": "reliability", "centres": 4, "agreement": True}
    config = config.model_copy(update={"fusion": settings})
    made = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, settings, tuple(config.modalities)))
    tokens = torch.nn.functional.normalize(torch.randn(40, config.embed_dim), dim=1)
    for slot in range(len(config.modalities)):
        made.fusion.learn(slot, tokens[:30], tokens[30:], 0)
    with torch.no_grad():
        made.fusion.gains[1] = 0.5
    sure = {name: Certainty(bias=3.0, familiarity=0.5) for name in config.modalities}
    made.calibration = Calibration(certainty_single=sure)
    made.set_labels(("cup", "dog", "car", "rain"))
    return made


def ask(model, names, rng, doubts=None):
    return model.recognise(names, model.embed([(n, model.process(n, GOOD[n][0](rng))) for n in names]), doubts)


def test_what_says_nothing_has_no_weight_and_no_answer(model):
    names = ["image", "audio", "touch"]
    found = ask(model, names, np.random.default_rng(1), [None, VOID, None])
    without = ask(model, ["image", "touch"], np.random.default_rng(1))
    assert found.weights[1] == 0 and found.weights.sum() == pytest.approx(1)
    assert found.probabilities[2] == pytest.approx(0.25)
    alone = ask(model, names, np.random.default_rng(1))
    np.testing.assert_allclose(found.probabilities[0], alone.without[1], atol=1e-6)
    np.testing.assert_allclose(found.without[1], found.probabilities[0], atol=1e-6)
    assert found.embedding.shape == without.embedding.shape


def test_nothing_is_said_where_all_say_nothing(model, rng):
    found = ask(model, ["image", "audio"], rng, [VOID, VOID])
    assert found.weights.tolist() == [0, 0]
    assert found.probabilities == pytest.approx(0.25) and found.without == pytest.approx(0.25)
    assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-5)


def test_what_is_doubted_counts_less_and_is_less_sure(model):
    names = ["image", "audio"]
    usual, doubted = (ask(model, names, np.random.default_rng(2), doubts) for doubts in (None, [None, DIM]))
    assert doubted.familiarity[1] == -6 and doubted.familiarity[0] == usual.familiarity[0]
    assert 0 < doubted.weights[1] < 0.6 * usual.weights[1]
    assert doubted.probabilities[2].max() < usual.probabilities[2].max() - 0.05
    assert doubted.probabilities[2].argmax() == usual.probabilities[2].argmax(), "the answer stays"
    np.testing.assert_array_equal(doubted.probabilities[1], usual.probabilities[1])


@pytest.fixture
def engine(model):
    sensors = [SensorConfig("camera", "image"), SensorConfig("microphone", "audio", window=0.5)]
    return PerceptionEngine(model, sensors, lambda sensor, payload: payload, EngineSettings(reject_after=2))


def test_the_engine_keeps_such_a_sensor_alive_and_says_why(engine, rng, caplog):
    black, good = np.zeros((60, 80, 3), np.uint8), photo(rng)
    with caplog.at_level(logging.INFO, "omnibind_core"):
        for number, picture in enumerate([black, black, good, black, good, good, black], 1):
            engine.push("camera", number * S // 2, number * S // 2, picture)
            engine.push("microphone", number * S // 2 - S // 4, number * S // 2, Sound(tone(rng, 4000), 16000))
            prediction = engine.tick(number * S // 2)
            camera, microphone = prediction.sensors
            assert (camera.weight == 0) == (picture is black) == (camera.label == "") == (camera.doubt is not None)
            assert microphone.weight > 0 and microphone.doubt is None and microphone.label
            report = engine.reports(number * S // 2)[0]
            assert report.state == SensorState.ACTIVE
            assert ("implausible: a black picture, 99 % of" in report.reason) == (picture is black)
            assert (report.doubt is not None) == (picture is black)
    told = [record for record in caplog.records if "black picture" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING] * 2, "once, and again after it was well"


def test_a_prediction_of_nothing_is_unknown_whatever_the_threshold(engine, model, monkeypatch):
    monkeypatch.setattr(model, "threshold", 0.0)
    engine.push("camera", S, S, np.zeros((60, 80, 3), np.uint8))
    prediction = engine.tick(S)
    assert prediction.unknown and prediction.label == "" and prediction.confidence == pytest.approx(0.25)
    assert prediction.sensors[0].label == prediction.sensors[0].label_without == ""


def test_what_only_the_decoder_knows_is_a_doubt_too(engine, rng):
    engine.push("camera", S, S, Doubted(photo(rng), VOID))
    assert engine.tick(S).sensors[0].doubt == VOID
    engine.push("camera", 2 * S, 2 * S, photo(rng))
    assert engine.tick(2 * S).sensors[0].doubt is None


def test_silence_is_no_warning(engine, caplog):
    with caplog.at_level(logging.INFO, "omnibind_core"):
        engine.push("microphone", S, S, Sound(np.zeros(8000, np.float32), 16000))
        engine.tick(S + S // 2)
    report = engine.reports(S + S // 2)[1]
    assert report.state == SensorState.ACTIVE and "nothing to say: silence" in report.reason
    assert [record.levelno for record in caplog.records if "silence" in record.message] == [logging.INFO]


def test_a_part_of_a_thermal_picture_that_is_as_warm_as_the_rest_says_nothing(rng):
    wall = (21 + rng.normal(0, 0.05, (40, 30)) + np.linspace(0, 0.6, 40)[:, None]).astype(np.float32)
    assert modalities.doubt("thermal", wall) is None
    found = modalities.part_doubt("thermal", wall)
    assert found is not None and found.empty and found.excludes
    assert re.match(r"0\.[56] °C between a thing and its surroundings, expected 1 and more", found.reason)
    person = wall.copy()
    person[5:35, 10:22] += 9
    assert modalities.part_doubt("thermal", person) is None
    assert modalities.part_doubt("thermal", (wall * 3).astype(np.uint8)) is None  # without a unit
    shut = modalities.part_doubt("thermal", np.full((40, 30), 21, np.float32))
    assert shut is not None and "constant" in shut.reason
