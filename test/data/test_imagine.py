"""Imagined samples: what an event camera would have seen of photos, and how a student learns from it."""

from __future__ import annotations

import csv
import dataclasses

import cv2
import numpy as np
import pytest
import torch
import yaml

from omnibind_core import cli, encoders
from omnibind_core.data import imagine
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.rendering.events import simulate
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.errors import ConfigError
from omnibind_core.features.sets import FeatureSet, embed_all
from omnibind_core.training import align, dataset
from omnibind_core.training import config as training_config
from omnibind_core.training.batches import Batches
from omnibind_core.training.config import TrainConfig
from omnibind_core.training.dataset import TrainingData
from omnibind_core.training.engine import Trainer
from omnibind_core.training.subsets import few_shot, without_labels

WORDS = ("cup", "dog", "car")


def photo(index: int, rng: np.random.Generator) -> np.ndarray:
    """Bars of another width for each label."""
    stripes = (np.arange(40) // (2 + 3 * index)) % 2
    return (np.tile(stripes, (32, 1))[..., None] * 160 + rng.integers(0, 40, (32, 40, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A ``samples.csv`` tree of photos, one of them plain, and events; no events of cars."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    lines = []
    for split, count in (("train", 4), ("val", 2)):
        for index, word in enumerate(WORDS):
            for number in range(count):
                stem = f"{split}-{word}-{number}"
                picture = np.full((32, 40, 3), 90, np.uint8) if stem == "train-dog-1" else photo(index, rng)
                cv2.imwrite(str(root / f"{stem}.png"), picture)
                lines.append((f"image-{stem}", "image", "made", f"{stem}.png", word, split, stem))
                if word != "car":
                    np.savez(root / f"{stem}.npz", **dataclasses.asdict(simulate(photo(index, rng), rng, (64, 48))))
                    lines.append((f"event-{stem}", "event", "made", f"{stem}.npz", word, split, stem))
    with (root / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "modality", "source", "path", "label", "split", "group"))
        writer.writerows(lines)
    labels = "".join(f"made,{word},{word},1.0,same word\n" for word in WORDS)
    (root / "labels.csv").write_text("source,label,canonical,score,reason\n" + labels)
    return root


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def settings(tree, **changes) -> TrainConfig:
    stage = {"steps": 6, "batch": 8, "lr": 0.01, "imagined": {"event": 0.5}}
    return TrainConfig(
        model="tiny", data=str(tree), labels=str(tree / "labels.csv"), augmentations=1, align={**stage, **changes}
    )


@pytest.fixture(scope="module")
def architecture():
    return encoders.load_config("tiny")


@pytest.fixture
def encoder_set(architecture):
    return encoders.build(architecture, {"image", "text", "event"})


def load(config, architecture, encoder_set) -> TrainingData:
    return dataset.load(config, architecture, encoder_set, dataset.match(config, encoder_set))


def test_events_of_a_photo_depend_on_its_id_and_the_seed_only(tree):
    source = FolderSource(tree)
    first, second = (
        dataclasses.replace(sample, modality="event") for sample in source.samples(split="train", modality="image")[:2]
    )
    seen = imagine.Imagined(source, 3)
    events = seen.load(first)
    assert len(events) >= imagine.MIN_EVENTS and (np.diff(events.t) >= 0).all()
    seen.load(second)
    for again, same in ((seen.load(first), True), (imagine.Imagined(source, 4).load(first), False)):
        assert (len(events) == len(again) and np.array_equal(events.x, again.x)) == same
    assert seen.path(first) == tree / "train-cup-0.png"


@pytest.mark.parametrize("shape", [(32, 40), (1, 1), (300, 7)])
def test_a_plain_photo_gives_none(shape):
    assert imagine.event(np.full((*shape, 3), 128, np.uint8), np.random.default_rng(0)) is None


def test_imagined_samples_are_of_the_training_photos_that_show_something(tree, architecture, encoder_set):
    data = load(settings(tree), architecture, encoder_set)
    part = data.imagined["event"]
    expected = {sample.id for sample in data.train["image"].samples} - {"image-train-dog-1"}
    assert [*data.imagined] == ["event"] and {sample.id for sample in part.samples} == expected
    assert {sample.modality for sample in part.samples} == {"event"}
    assert [data.vocabulary[number] for number in part.concept] == [sample.label for sample in part.samples]
    assert part.inputs.shape == (11, 1, 32) and np.isfinite(part.inputs).all()
    again = load(settings(tree), architecture, encoder_set).imagined["event"]
    np.testing.assert_array_equal(part.inputs, again.inputs)
    few = few_shot(data, 1, 0)
    assert few.imagined["event"] is part and len(few.train["event"]) == 2
    left = without_labels(data, {"event": ["cup"]})
    assert left.imagined["event"] is part and len(left.train["event"]) == 4


@pytest.mark.parametrize(
    "changes", [{"imagined": {}}, {"imagined": {"event": 0}}, {"students": ["touch"]}], ids=["none", "zero", "other"]
)
def test_nothing_is_imagined_of_a_student_that_does_not_want_it(tree, architecture, encoder_set, monkeypatch, changes):
    monkeypatch.setattr(imagine.Imagined, "load", lambda *args: pytest.fail("it was imagined"))
    assert load(settings(tree, **changes), architecture, encoder_set).imagined == {}


def test_photos_that_all_show_nothing_leave_the_student_as_it_is(
    tree, architecture, encoder_set, monkeypatch, tmp_path
):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path))
    monkeypatch.setattr(imagine.Imagined, "load", lambda *args: None)
    assert load(settings(tree), architecture, encoder_set).imagined == {}


def test_a_trunk_that_learns_is_refused(tree, architecture, encoder_set):
    encoder_set.trunks["vision"].requires_grad_(True)
    with pytest.raises(ConfigError, match=r"align\.imagined\.event: its trunk 'vision' learns"):
        load(settings(tree), architecture, encoder_set)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("align.imagined={touch: 0.3}", r"align\.imagined: .*'touch' cannot be imagined.*event"),
        ("align.imagined.event=1", r"align\.imagined: .*share of event is 1"),
        ("align.imagined.event=-0.1", r"align\.imagined: .*share of event is -0\.1"),
    ],
)
def test_wrong_settings_name_the_key_and_what_can_be_imagined(override, message):
    with pytest.raises(ConfigError, match=message):
        training_config.load("lite", [override])


def part(name: str, value: float, count: int, variants: int) -> FeatureSet:
    samples = tuple(Sample(f"{name}-{row}", "event", "made", "x", "cup", "train", str(row)) for row in range(count))
    return FeatureSet(samples, np.full((count, variants, 4), value, np.float32), np.arange(count) % 3)


def test_a_batch_has_its_share_of_each_part_and_is_drawn_again_from_the_same_seed():
    batches = Batches("event", [(part("real", 0, 5, 3), 6), (part("imagined", 1, 4, 1), 2)], 0.5)
    batch, again, other = (batches.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert len(batch) == 8 and batch.inputs[:, 0].tolist() == [0] * 6 + [1] * 2
    np.testing.assert_array_equal(batch.concept, again.concept)
    assert not np.array_equal(batch.concept, other.concept)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 4), (0.99, 7)])
def test_a_student_learns_from_its_share_of_imagined_samples(tree, architecture, encoder_set, share, expected):
    data = load(settings(tree), architecture, encoder_set)
    marked = dataclasses.replace(data.imagined["event"], inputs=np.full_like(data.imagined["event"].inputs, 9))
    data = dataclasses.replace(data, imagined={"event": marked})
    config = settings(tree, imagined={"event": share})
    stage = align.Align(data, architecture, encoder_set, config.align, 0)
    lesson = stage.draw(0, np.random.default_rng(0))
    assert len(lesson) == 8 and int((lesson.batch.inputs == 9).all(axis=1).sum()) == expected
    shares = [stage.encode(lesson, slice(start, end)) for start, end in ((0, 3), (3, 8))]
    torch.testing.assert_close(torch.cat(shares), stage.encode(lesson, slice(0, 8)))
    before = [value.clone() for value in stage.state_dict().values()]
    Trainer(0).run(stage)
    assert not all(torch.equal(a, b) for a, b in zip(before, stage.state_dict().values(), strict=True))


def test_a_label_that_the_sensor_never_saw_is_learnt_from_photos(tree, architecture, encoder_set):
    """Photos of cars teach the event student a label of which it has no events."""
    data = load(settings(tree), architecture, encoder_set)
    car = data.vocabulary.index("car")
    assert car not in data.train["event"].concept
    right = {}
    for share in (0.0, 0.5):
        fresh = encoders.build(architecture, {"image", "text", "event"})
        config = settings(tree, steps=150, imagined={"event": share})
        Trainer(0).run(align.Align(data, architecture, fresh, config.align, 0))
        seen = data.imagined["event"]
        cars = embed_all(fresh, architecture, "event", seen.inputs[seen.concept == car])[:, 0]
        right[share] = int(((cars @ dataset.prompts(data, fresh).T).argmax(1) == car).sum())
    assert right == {0.0: 0, 0.5: 4}


def test_both_stages_run_through_the_command_line(tree, tmp_path):
    path = tmp_path / "experiment.yaml"
    config = settings(tree).model_dump(exclude={"fuse", "image_text"})
    path.write_text(yaml.safe_dump({**config, "out": str(tmp_path), "image_text": {"steps": 2}, "fuse": {"steps": 2}}))
    for stage in ("align", "fuse"):
        with pytest.raises(SystemExit) as stop:
            cli.main(("train", stage, "--config", str(path)))
        assert stop.value.code == 0
    assert Concepts.read(tmp_path / "align" / "labels.csv").names
