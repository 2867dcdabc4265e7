"""``omnibind adapt``: what is learned beside a head, what is held out, and whole models through the command."""

from __future__ import annotations

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from omnibind_core import OmniBind, cli
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.encoders.heads import Adapted, root
from omnibind_core.errors import DataError
from omnibind_core.evaluation import adapting
from omnibind_core.features.adaptation import Home, read_homes, save_homes
from omnibind_core.features.sets import FeatureSet

COLOURS = {"cup": (230, 40, 40), "dog": (40, 230, 40), "pallet": (40, 40, 230)}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("omnibind_core.data.matching.labels.find_wordnet", lambda: None)
        yield


def write(root, labels, count, split="train", groups=None, changed=lambda picture: picture):
    """Pictures of plain colours with noise, one colour for each label."""
    rng, rows = np.random.default_rng(len(labels)), []
    root.mkdir(parents=True, exist_ok=True)
    for label in labels:
        for number in range(count):
            picture = rng.integers(0, 30, (40, 40, 3), dtype=np.uint8) + np.array(COLOURS[label], np.uint8) // 2
            name = f"{split}-{label}-{number}"
            cv2.imwrite(str(root / f"{name}.png"), changed(picture.astype(np.uint8)))
            group = name if groups is None else groups(label, number)
            rows.append((name, "image", "mine", f"{name}.png", label, split, group))
    old = list(csv.reader((root / "samples.csv").open()))[1:] if (root / "samples.csv").is_file() else []
    with (root / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "modality", "source", "path", "label", "split", "group"), *old, *rows])
    return root


def striped(picture):
    picture[::2] = 0
    return picture[..., ::-1]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """What the model knew: the same things, striped and with red and blue exchanged."""
    root = write(tmp_path_factory.mktemp("home"), ("cup", "dog"), 12, "train", changed=striped)
    return write(root, ("cup", "dog"), 5, "val", changed=striped)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write(tmp_path_factory.mktemp("recording"), tuple(COLOURS), 8)


def adapt(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["adapt", *map(str, arguments)])
    return ended.value.code


@pytest.fixture(scope="module")
def adapted(tiny_model, recording, home, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapted") / "model"
    assert adapt("--model", tiny_model, "--data", recording, "--home", home, "--out", out) == 0
    return out


# What is learned.


def head_with(keys, home, threshold=0.0):
    head = Adapted(nn.Linear(4, 3), 4, 3, labels=2, samples=len(keys), home=len(home)).requires_grad_(False)
    for name, value in (
        ("keys", root(keys)),
        ("home", root(home)),
        ("spread", torch.tensor(0.05)),
        ("threshold", torch.tensor(threshold)),
        ("centre", torch.zeros(4)),
        ("weight", torch.eye(4)[:2]),
        ("bias", torch.zeros(2)),
        ("temperature", torch.tensor(0.01)),
        ("labels", torch.eye(3)[:2]),
    ):
        getattr(head, name).copy_(value)
    return head


def test_a_head_says_what_it_did_at_home_and_the_vote_on_the_new_sensor():
    new, home = torch.eye(4)[:2], torch.eye(4)[2:]
    head = head_with(new, home)
    before = F.normalize(head.base(torch.eye(4)), dim=1)
    said = head(torch.eye(4))
    torch.testing.assert_close(said[2:], before[2:], rtol=0, atol=1e-6)
    torch.testing.assert_close(said[:2], torch.eye(3)[:2] + 0.5 * before[:2], rtol=0, atol=1e-6)
    far = head_with(new, home, threshold=3.0)
    torch.testing.assert_close(far(torch.eye(4)), F.normalize(far.base(torch.eye(4)), dim=1), rtol=0, atol=1e-6)


def test_the_threshold_leaves_home_at_home():
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.3, (500, 16)).astype(np.float32) + np.eye(16, dtype=np.float32)[rng.integers(0, 4, 500)]
    home = Home.of(rows)
    assert 0 < home.spread < 1
    assert len(home.centres) == 64
    keys = root(torch.from_numpy(rng.normal(0, 0.3, (8, 16)).astype(np.float32)) + torch.eye(16)[4])
    fresh = root(torch.from_numpy(rng.normal(0, 0.3, (500, 16)).astype(np.float32)) + torch.eye(16)[0])
    nearer = (fresh @ keys.T).amax(1) - (fresh @ home.centres.T).amax(1)
    assert (nearer > home.threshold(keys)).float().mean() < 0.1
    assert home.threshold(home.centres[:8]) > home.threshold(keys)  # a sensor that is like home has to be more like it


def test_it_is_right_on_what_was_held_out_and_forgets_nothing(adapted, tiny_model):
    figures = json.loads((adapted / "figures.json").read_text())
    assert figures["learned"] == {"image": {"samples": 18, "labels": 3}}
    (held,) = figures["held out"]
    assert held["modalities"] == "image"
    assert held["n"] == 6
    assert held["before"]["right"] < 0.7 < 0.99 < held["after"]["right"]
    assert held["after"]["confidence"] > held["before"]["confidence"]
    (kept,) = figures["home"]
    assert kept["after"]["right"] >= kept["before"]["right"]


def test_the_adapted_model_is_a_model(adapted, tiny_model, recording):
    old, new = OmniBind.from_pretrained(tiny_model), OmniBind.from_pretrained(adapted)
    assert new.labels.names == (*old.labels.names, "pallet")
    assert new.identity != old.identity
    assert Concepts.read(adapted / "labels.csv").get("mine", "pallet") == "pallet"
    picture = cv2.imread(str(recording / "train-pallet-0.png"))[..., ::-1]
    recognised = new.recognise(["image"], new.embed([("image", new.process("image", picture))]))
    assert new.labels.names[int(recognised.probabilities[1].argmax())] == "pallet"
    rows = torch.rand(3, 32)
    torch.testing.assert_close(new.encoders.embed("touch", rows), old.encoders.embed("touch", rows))
    new.set_labels(["pallet", "nothing"])  # the vote is for a meaning, not for a place in the vocabulary
    recognised = new.recognise(["image"], new.embed([("image", new.process("image", picture))]))
    assert int(recognised.probabilities[1].argmax()) == 0


def test_it_is_adapted_again_without_its_home(adapted, recording, tmp_path):
    more = write(tmp_path / "more", ("cup", "dog"), 6, changed=lambda picture: 255 - picture)
    assert adapt("--model", adapted, "--data", more, "--out", tmp_path / "twice") == 0
    figures = json.loads((tmp_path / "twice" / "figures.json").read_text())
    assert figures["held out"][0]["after"]["right"] == 1.0
    twice, once = OmniBind.from_pretrained(tmp_path / "twice"), OmniBind.from_pretrained(adapted)
    head = twice.encoders.heads["image"]
    assert isinstance(head.base, Adapted)
    assert len(head.home) == len(head.base.home) + len(head.base.keys)  # what was learned before is home now
    picture = once.process("image", cv2.imread(str(recording / "train-pallet-1.png"))[..., ::-1])
    said = [model.recognise(["image"], model.embed([("image", picture)])).probabilities[1] for model in (once, twice)]
    assert said[0].argmax() == said[1].argmax()


def test_a_model_that_says_what_it_was_trained_on_needs_no_home(tiny_model, recording, home, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    model = OmniBind.from_pretrained(folder)
    told = adapting.home_of(home, model, "image")
    save_homes(folder, {"image": told})
    read = read_homes(folder)["image"]
    torch.testing.assert_close(read.centres, told.centres, rtol=0, atol=1e-3)
    assert (read.median, read.spread) == pytest.approx((told.median, told.spread))
    assert adapt("--model", folder, "--data", recording, "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["held out"][0]["after"]["right"] == 1.0
    assert (tmp_path / "out" / "home.safetensors").read_bytes() == (folder / "home.safetensors").read_bytes()
    (folder / "home.safetensors").write_bytes(b"short")
    assert adapt("--model", folder, "--data", recording, "--out", tmp_path / "again") == 2
    assert "not a whole safetensors file" in capsys.readouterr().err


# What is held out.


def made(label, group, split="train", modality="image"):
    return Sample(f"{label}-{group}-{modality}", modality, "s", "x.png", label, split, group)


def test_whole_groups_are_held_out_of_every_label_and_sensor():
    several = [made(label, f"{label}{n}", modality=of) for label in "ab" for n in range(4) for of in ("image", "audio")]
    learn, held, why = adapting._parts(several, {one.id: one.label for one in several}, 0.25, 0)
    assert why == ""
    assert not {one.group for one in learn} & {one.group for one in held}
    assert sorted((one.label, one.modality) for one in held) == [(x, y) for x in "ab" for y in ("audio", "image")]
    once = [made("a", "g"), made("a", "g", modality="audio")]
    assert adapting._parts(once, {one.id: "a" for one in once}, 0.25, 0)[1:] == (
        [], "no part can be held out, since no label has two groups: nothing says how good it became"
    )  # fmt: skip


def test_the_split_val_is_what_is_held_out():
    several = [made("a", "1"), made("a", "2"), made("a", "3", "val"), made("a", "4", "test")]
    learn, held, _ = adapting._parts(several, {one.id: "a" for one in several}, 0.9, 0)
    assert ([one.group for one in learn], [one.group for one in held]) == (["1", "2"], ["3"])


def test_a_label_table_says_what_is_learned(tiny_model, recording, tmp_path):
    model = OmniBind.from_pretrained(tiny_model)
    table = tmp_path / "labels.csv"
    table.write_text("source,label,canonical\nmine,cup,dog\nmine,dog,\nmine,pallet,euro pallet\n")
    read = adapting.read(recording, model, Concepts([]), Concepts.read(table))
    assert read.names == (*model.labels.names, "euro pallet")
    learned = read.learned["image"]
    assert isinstance(learned, FeatureSet)
    assert {read.names[of] for of in learned.concept} == {"dog", "euro pallet"}
    assert learned.inputs.shape[:2] == (12, 1 + adapting.VARIANTS)
    assert {one.label for one in learned.samples} == {"cup", "pallet"}
    assert any("8 of 24 samples are left out" in note for note in read.notes)


def test_what_cannot_work_is_told(tiny_model, recording, home, tmp_path, capsys):
    out = tmp_path / "out"
    assert adapt("--model", tiny_model, "--data", recording, "--out", out) == 2
    assert "does not say what its image encoder was trained on" in capsys.readouterr().err
    one = write(tmp_path / "one", tuple(COLOURS), 1)
    assert adapt("--model", tiny_model, "--data", one, "--home", home, "--out", out) == 2
    assert "expected at least 2 samples of a label in one of" in capsys.readouterr().err
    for argument in (("--holdout", 1), ("--model", out)):
        assert adapt("--model", tiny_model, "--data", recording, "--home", home, "--out", out, *argument) == 2
    assert not out.exists()
    assert adapt("--model", tiny_model, "--data", recording, "--home", home, "--out", recording) == 2
    assert "which would be lost" in capsys.readouterr().err
    with pytest.raises(DataError):
        adapting.read(tmp_path, OmniBind.from_pretrained(tiny_model), Concepts([]))


def test_one_group_is_learned_and_said_not_to_be_measured(tiny_model, home, tmp_path, capsys):
    data = write(tmp_path / "data", ("cup",), 4, groups=lambda label, number: "all")
    assert adapt("--model", tiny_model, "--data", data, "--home", home, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "no part can be held out" in said
    assert "'cup' alone was learned" in said
    assert "held out, never learned from" not in said
