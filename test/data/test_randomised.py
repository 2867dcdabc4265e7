"""Domain randomisation: other sensors of the kind, from training samples alone, without touching what they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from omnibind_core import encoders, modalities
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.randomised import Randomised
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.features.sets import FeatureSet
from omnibind_core.modalities.base import Events, Sound
from omnibind_core.modalities.point_cloud import randomisation as clouds
from omnibind_core.training import align
from omnibind_core.training.batches import Batches
from omnibind_core.training.config import AlignConfig, TrainConfig
from omnibind_core.training.dataset import TrainingData, variants


def moving_bar() -> Events:
    """Events of a bar 20 pixels high that moves over a sensor of 128 x 128."""
    x, y = np.repeat(np.arange(40, 80), 20), np.tile(np.arange(50, 70), 40)
    return Events(
        x.astype(np.uint16), y.astype(np.uint16), x.astype(np.int64) * 1000, (y % 2).astype(np.uint8), 128, 128
    )


def items() -> dict[str, object]:
    rng = np.random.default_rng(0)
    sphere = rng.standard_normal((2000, 3)).astype(np.float32)
    dot = np.zeros((28, 50), np.uint8)
    dot[10:16, 20:30] = 200
    photo = np.full((60, 80, 3), 250, np.uint8)
    photo[20:40, 30:50] = (200, 30, 30)
    return {
        "image": photo,
        "thermal": np.tile(np.arange(60, dtype=np.uint8)[:, None], (1, 40)),
        "touch": dot,
        "event": moving_bar(),
        "point_cloud": sphere / np.linalg.norm(sphere, axis=1, keepdims=True),
        "audio": Sound(np.sin(np.arange(16000) * 0.2).astype(np.float32) / 2, 16000),
    }


def flat(raw: object) -> np.ndarray:
    if isinstance(raw, Events):
        return np.concatenate([raw.x, raw.y, raw.t, raw.p]).astype(np.float64)
    return np.asarray(raw.samples if isinstance(raw, Sound) else raw, np.float64).ravel()


@pytest.mark.parametrize("name", modalities.sensors()[:6])
def test_what_comes_out_is_a_good_item_that_depends_on_the_generator_only(name):
    randomise, modality = modalities.randomisation(name), modalities.get(name)
    raw = items()[name]
    before = flat(raw).copy()
    seen = [randomise(raw, np.random.default_rng(seed)) for seed in range(40)]
    for one in seen:
        modality.check(one, "made")
        assert np.ptp(flat(one)) > 0
    again = randomise(raw, np.random.default_rng(3))
    assert flat(again).tolist() == flat(seen[3]).tolist()
    assert len({flat(one).tobytes() for one in seen}) == 40
    assert flat(raw).tolist() == before.tolist()  # the sample itself is left as it is


def test_most_scans_see_one_side_and_some_in_rings():
    """Around the origin lies the whole sphere of radius 1, about half a radius from it the half that a scanner sees."""
    sphere = items()["point_cloud"]
    one_sided = rings = 0
    for seed in range(60):
        seen = clouds.randomise(sphere, np.random.default_rng(seed))
        assert 8 <= len(seen) <= len(sphere)
        one_sided += bool(np.linalg.norm(seen.mean(axis=0)) > 0.3)
        rings += len(seen) < 400
    assert one_sided >= 35 and 10 <= rings < 60


def test_nothing_behind_the_surface_is_seen():
    """Two walls one behind the other: only points of the nearer one are left where it hides the other."""
    y, z = (part.ravel() for part in np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 30)))
    depth = np.concatenate([np.full(y.shape, 3.0), np.full(y.shape, 4.0)])
    seen = clouds._front(np.tile(y, 2), np.tile(z, 2), depth, 15, 0.1)
    assert seen[:900].all() and not seen[900:].any()


def test_a_grid_of_beams_has_one_point_each_on_its_ring():
    across, up = np.array([0.0, 0.01, 1.0, 1.0]), np.array([0.0, 0.02, 0.0, 1.0])
    chosen, ring = clouds._grid(across, up, 2, 2)
    assert sorted(chosen.tolist()) == [0, 2, 3]
    assert ring[chosen.argsort()].tolist() == [0.25, 0.25, 0.75]


@pytest.fixture
def photos(tmp_path):
    cv2 = pytest.importorskip("cv2")
    lines = ["id,modality,source,path,label,split,group"]
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 255, (40, 40, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        lines.append(f"p{number},image,made,{number}.png,cup,train,g{number}")
    (tmp_path / "samples.csv").write_text("\n".join(lines) + "\n")
    return FolderSource(tmp_path)


def test_a_sample_is_changed_by_its_id_and_the_seed(photos):
    first, second = photos.samples()[:2]
    one = Randomised(photos, 5).load(first)
    assert np.array_equal(one, Randomised(photos, 5).load(first))
    for other in (Randomised(photos, 6).load(first), Randomised(photos, 5).load(dataclasses.replace(first, id="else"))):
        assert one.shape != other.shape or not np.array_equal(one, other)
    assert Randomised(photos, 5).path(second) == photos.path(second)


def test_training_has_as_many_variants_as_the_experiment_says(photos, monkeypatch, tmp_path):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "cache"))
    model = encoders.load_config("tiny")
    built = encoders.build(model, {"image", "text"})

    def made(damage: int = 0, **settings):
        config = TrainConfig(data="made", augmentations=1, **settings)
        return variants(photos, photos.samples(), "image", model, built, config, damage)

    plain, none = made()
    assert plain.shape[:2] == (3, 2) and none is None
    more, harmed = made(1, randomised=2)
    assert more.shape[:2] == (3, 4) and harmed.shape[:2] == (3, 1)
    assert np.array_equal(more[:, :2], plain)  # the samples and their augmented variants stay the first
    assert len({row.tobytes() for row in more[0]}) == 4
    assert made(randomised=2, more_randomised={"image": 0})[0].shape[:2] == (3, 2)


def test_a_batch_has_the_share_of_randomised_variants_that_is_asked_for():
    samples = tuple(Sample(f"s{row}", "thermal", "made", "x", "cup", "train", str(row)) for row in range(8))
    inputs = np.zeros((8, 5, 4), np.float32)
    inputs[:, 3:] = 1  # two of five variants
    part = FeatureSet(samples, inputs, np.arange(8) % 2, randomised=2)
    data = TrainingData(("cup", "mug"), Concepts({}), {"thermal": part.take(np.arange(8))}, {})

    def drawn(**settings) -> float:
        shares = align._shares(data, "thermal", AlignConfig(batch=8, **settings))
        batches = Batches("thermal", shares, 0.5)
        return float(np.mean([batches.draw(np.random.default_rng(seed)).inputs for seed in range(200)]))

    assert drawn(randomised={"thermal": 0.25}) == 0.25
    assert drawn(randomised={"thermal": 0.0}) == 0
    assert drawn() == pytest.approx(0.4, abs=0.05)


def test_a_share_of_variants_that_there_are_none_of_is_refused():
    shares = {"randomised": {"event": 0.5}, "imagined": {"event": 0.3}}
    assert TrainConfig(data="made", more_randomised={"event": 1}, align=shares).align.randomised == {"event": 0.5}
    with pytest.raises(ValueError, match=r"align\.randomised\.event is 0\.5, but .* gives event no variants"):
        TrainConfig(data="made", align=shares)
    with pytest.raises(ValueError, match=r"the share of event is 0\.7, expected 0 or more, with imagined ones below 1"):
        AlignConfig(imagined={"event": 0.3}, randomised={"event": 0.7})


def test_features_of_samples_do_not_depend_on_the_randomisation(monkeypatch):
    """Its file counts for randomised features alone, so a change there makes no other feature anew."""
    assert modalities.fingerprint("image") != modalities.fingerprint("image", randomised=True)
    monkeypatch.setattr(modalities, "_NO_FEATURES", ("drawing.py", "messages.py"))
    assert modalities.fingerprint("text") == modalities.fingerprint("text")
    changed = modalities.fingerprint("image")
    monkeypatch.undo()
    assert changed != modalities.fingerprint("image")
