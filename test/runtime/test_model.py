"""The whole model on the tiny config: saving, loading, shared trunk passes, unusable input and weights."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from omnibind_core import OmniBind, encoders, files, fusion, modalities
from omnibind_core.calibration import Calibration
from omnibind_core.errors import ConfigError, InvalidInputError, OmniBindError, WeightsError
from omnibind_core.labels import LabelBank
from omnibind_core.modalities import Events, Sound
from omnibind_core.model import omnibind
from omnibind_core.model.folders import FILES, TRAINED, WEIGHTS, available, content_digests, kept_digests

LABELS = ("cup", "dog", "car", "rain")


def raw(name: str, rng: np.random.Generator):
    """One random raw item of a modality."""
    n = 500
    return {
        "image": rng.integers(0, 255, (60, 80, 3), dtype=np.uint8),
        "text": "a red cup",
        "touch": rng.integers(0, 255, (28, 50), dtype=np.uint8),
        "thermal": rng.uniform(20, 35, (48, 64)).astype(np.float32),
        "event": Events(
            rng.integers(0, 128, n).astype(np.uint16),
            rng.integers(0, 128, n).astype(np.uint16),
            np.sort(rng.integers(0, 200_000, n)),
            rng.integers(0, 2, n).astype(np.uint8),
            128,
            128,
        ),
        "point_cloud": rng.standard_normal((3000, 3)).astype(np.float32),
        "audio": Sound(rng.uniform(-0.5, 0.5, 24000).astype(np.float32), 16000),
    }[name]


def fresh() -> OmniBind:
    torch.manual_seed(0)
    config = encoders.load_config("tiny")
    model = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))
    model.set_labels(LABELS)
    return model


@pytest.fixture(scope="module")
def model() -> OmniBind:
    return fresh()


@pytest.fixture
def items(model, rng):
    return [(name, model.process(name, raw(name, rng))) for name in modalities.NAMES]


def test_every_modality_becomes_a_unit_embedding(model, items):
    embeddings = model.embed(items)
    assert embeddings.shape == (7, model.config.embed_dim)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(7))


def test_one_batch_gives_what_single_items_give(model, items):
    alone = torch.cat([model.embed([item]) for item in items])
    torch.testing.assert_close(model.embed(items[::-1]).flip(0), alone, atol=1e-5, rtol=1e-4)


def test_modalities_of_one_trunk_share_one_pass(model, items, monkeypatch):
    calls = []
    trunk = model.encoders.trunks["vision"]
    handle = trunk.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    model.embed(items)
    handle.remove()
    assert calls == [4]  # image, touch, thermal and event


def test_recognition_is_a_distribution_with_shares(model, items):
    names = [name for name, _ in items]
    found = model.recognise(names, model.embed(items))
    assert found.similarities.shape == found.probabilities.shape == (8, len(LABELS))
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert found.weights.sum() == pytest.approx(1, abs=1e-5)


def test_what_is_left_without_a_token_is_what_the_others_say(model, items):
    names, embeddings = [name for name, _ in items[:4]], model.embed(items[:4])
    found = model.recognise(names, embeddings)
    for left_out in range(4):
        rest = [index for index in range(4) if index != left_out]
        others = model.recognise([names[index] for index in rest], embeddings[rest])
        np.testing.assert_allclose(found.without[left_out], others.probabilities[0], atol=1e-6)
    alone = model.recognise(names[:1], embeddings[:1])
    np.testing.assert_allclose(alone.without, np.full((1, len(LABELS)), 1 / len(LABELS)), atol=1e-6)


def test_every_number_of_tokens_has_its_temperature(items):
    model = fresh()
    model.calibration = Calibration(temperatures=(0.5, 0.1), single={"touch": 0.3})
    for start, count, temperature in ((0, 1, 0.5), (0, 2, 0.1), (0, 5, 0.1), (2, 1, 0.3)):
        part = items[start : start + count]
        found = model.recognise([name for name, _ in part], model.embed(part))
        expected = np.exp(found.similarities[0] / temperature)
        np.testing.assert_allclose(found.probabilities[0], expected / expected.sum(), rtol=1e-4)


@pytest.mark.parametrize("count", range(1, 8))
def test_any_number_of_modalities_works(model, items, count):
    part = items[:count]
    found = model.recognise([name for name, _ in part], model.embed(part))
    assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-5)


def test_saved_and_loaded_gives_the_same(model, items, tmp_path):
    model.save_pretrained(tmp_path)
    again = OmniBind.from_pretrained(tmp_path)
    assert again.identity == model.identity and again.labels.names == LABELS
    torch.testing.assert_close(again.embed(items), model.embed(items))


def test_only_the_modalities_asked_for_are_loaded(model, items, tmp_path):
    model.save_pretrained(tmp_path)
    part = OmniBind.from_pretrained(tmp_path, modalities=["audio"])
    assert part.modalities == ("text", "audio")
    assert "vision" not in part.encoders.trunks
    audio = [item for item in items if item[0] == "audio"]
    torch.testing.assert_close(part.embed(audio), model.embed(audio))
    with pytest.raises(ConfigError, match="cannot encode 'image'"):
        part.embed(items[:1])


def test_labels_are_swapped_at_run_time(items):
    model = fresh()
    model.set_labels(["tree", "stone"])
    found = model.recognise(["image"], model.embed(items[:1]))
    assert found.similarities.shape == (2, 2)


def test_a_vocabulary_is_embedded_in_slices_and_stays_when_that_is_given_up():
    model = fresh()
    names = [f"thing {number}" for number in range(19)]
    before = model.labels.names
    calls = []

    def between(done, total):
        calls.append((done, total, model.labels.names == before))
        if done > 8 and len(calls) < 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.set_labels(names, between)
    assert calls == [(0, 19, True), (8, 19, True), (16, 19, True)] and model.labels.names == before
    model.set_labels(names, between)
    assert calls[3:] == [(done, 19, True) for done in (0, 8, 16, 19)]
    torch.testing.assert_close(model.labels.rows, model.embed_text([f"a photo of a {name}" for name in names]))


def test_names_alone_keep_the_descriptions_that_the_model_has_of_them():
    model = fresh()
    model.set_labels({"tree": ["a plant"], "stone": ()})
    rows = model.labels.rows
    model.set_labels(["stone", "tree"])
    assert model.labels.descriptions == {"tree": ("a plant",)}
    torch.testing.assert_close(model.labels.rows, rows[[2, 0, 1]])
    model.set_labels({"tree": [], "stone": []})
    assert model.labels.descriptions == {} and len(model.labels.rows) == 2


@pytest.mark.parametrize("labels", [["tree"], {" tree": [], "tree": ["a plant"]}])
def test_one_label_is_no_vocabulary(labels):
    model = fresh()
    with pytest.raises(ConfigError, match="one label, 'tree', expected two or more"):
        model.set_labels(labels)
    assert model.labels.names == LABELS


@pytest.mark.parametrize(
    "views",
    [
        np.zeros((1, 3, 10, 10), np.uint8),
        np.zeros((1, 3, 224, 224), np.float32),
        np.zeros((0, 3, 224, 224), np.uint8),
        np.zeros((3, 224, 224), np.uint8),
    ],
)
def test_views_of_another_preset_are_refused(model, views):
    with pytest.raises(InvalidInputError, match=r"\[image\] got .* expected uint8"):
        model.embed([("image", views)])


def test_recognise_refuses_embeddings_of_another_width(model):
    with pytest.raises(InvalidInputError, match="embeddings of shape"):
        model.recognise(["image"], np.zeros((1, 7), np.float32))


def test_unknown_models_are_named():
    with pytest.raises(ConfigError, match="no model 'nonsense'"):
        OmniBind.from_pretrained("nonsense")


def _break(folder, how: str) -> None:
    path = folder / "model.safetensors"
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "no file":
        path.unlink()
    else:
        state = load_file(path)
        key = next(name for name in sorted(state) if name.startswith("encoders.heads.audio") and state[name].ndim == 2)
        if how == "missing tensor":
            del state[key]
        elif how == "wrong shape":
            state[key] = torch.zeros(3, 3)
        elif how == "extra tensor":
            state["encoders.heads.audio.nonsense"] = torch.zeros(3)
        elif how == "no labels":
            del state["labels.rows"]
        elif how == "fusion shape":
            name = next(name for name in sorted(state) if name.startswith("fusion."))
            state[name] = torch.zeros(5)
        save_file(state, path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "not a whole safetensors file"),
        ("no file", "no such file"),
        ("missing tensor", "audio"),
        ("wrong shape", "audio"),
        ("extra tensor", "nonsense"),
        ("no labels", "labels.rows"),
        ("fusion shape", "size mismatch"),
    ],
)
def test_broken_weights_are_refused_with_what_is_wrong(tmp_path, how, message):
    fresh().save_pretrained(tmp_path)
    _break(tmp_path, how)
    with pytest.raises(WeightsError, match=message):
        OmniBind.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labels.rows", "tensor 'labels.rows' has values that are not finite"),
        ("fusion", "tensor 'fusion.+' has values that are not finite"),
        ("encoders", "tensor 'encoders.+' has values that are not finite"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, name, message, value):
    fresh().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    chosen = next(key for key, x in state.items() if key.startswith(name) and x.is_floating_point())
    state[chosen].view(-1)[-1] = value
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        OmniBind.from_pretrained(tmp_path)


def test_what_a_fusion_has_not_learned_is_no_damage(tmp_path):
    config = encoders.load_config({"extends": "tiny", "fusion": {"preset": "familiarity"}})
    model = OmniBind(
        config, encoders.build(config), fusion.build(config.embed_dim, config.fusion, tuple(config.modalities))
    )
    model.labels = fresh().labels
    usual = model.fusion.reliability.familiarity.usual
    usual[0] = 0.5
    model.save_pretrained(tmp_path)
    again = OmniBind.from_pretrained(tmp_path).fusion.reliability.familiarity.usual
    assert again[0] == 0.5 and again[1:].isnan().all() and len(again) > 1
    usual[0] = math.inf
    with pytest.raises(WeightsError, match=r"familiarity\.usual' has values that are not finite"):
        model.save_pretrained(tmp_path)
    assert OmniBind.from_pretrained(tmp_path).fusion.reliability.familiarity.usual[0] == 0.5


def test_a_module_names_what_of_it_is_not_finite():
    class Hiding(torch.nn.Module):
        NOT_FINITE: ClassVar = {"mask": -math.inf}

    whole = torch.nn.ModuleDict({"a": Hiding(), "b": torch.nn.Module()})
    omnibind._check_finite({"a.mask": torch.tensor([0, -math.inf]), "a.x": torch.zeros(2)}, whole, "here")
    for name, value in (("b.mask", -math.inf), ("a.mask", math.inf), ("a.mask", math.nan), ("a.x", -math.inf)):
        for dtype in (torch.float32, torch.float16, torch.float8_e5m2):
            with pytest.raises(WeightsError, match=f"here: the tensor '{name}'"):
                omnibind._check_finite({name: torch.tensor([0, value]).to(dtype)}, whole, "here")


def test_a_calibration_that_is_not_finite_is_refused(tmp_path):
    fresh().save_pretrained(tmp_path)
    for told in ({"certainty": [{"bias": math.nan}]}, {"temperatures": [math.inf]}, {"threshold": math.nan}):
        (tmp_path / "calibration.json").write_text(json.dumps(told))
        with pytest.raises(ConfigError, match=rf"calibration\.{next(iter(told))}"):
            OmniBind.from_pretrained(tmp_path)


def test_labels_that_are_not_finite_are_refused_and_those_before_stay():
    model = fresh()
    before = model.labels
    embed = model.embed_text
    model.embed_text = lambda sentences: embed(sentences) * math.nan
    with pytest.raises(ConfigError, match="embedding of label 'kettle' is not finite"):
        model.set_labels(["kettle", "drum"])
    assert model.labels is before


def test_an_answer_that_is_not_finite_is_none():
    model = fresh()
    row = torch.nn.functional.normalize(torch.ones(1, model.embed_dim), dim=-1)
    assert model.recognise(["image"], row).confidence > 0
    with pytest.raises(InvalidInputError, match="embedding that are not finite"):
        model.recognise(["image"], row * math.nan)


def test_a_broken_calibration_names_the_key(tmp_path):
    fresh().save_pretrained(tmp_path)
    (tmp_path / "calibration.json").write_text(json.dumps({"temperatures": [0.1, -1]}))
    with pytest.raises(ConfigError, match=r"calibration\.temperature"):
        OmniBind.from_pretrained(tmp_path)


def another() -> OmniBind:
    """Another model with as many labels."""
    model = fresh()
    model.set_labels(("face", "house", "bell", "tree"))
    with torch.no_grad():
        for parameter in model.encoders.heads.parameters():
            parameter += 0.1
    model.calibration = Calibration(temperatures=(0.5, 0.1))
    return model


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "labels.json", "calibration.json"])
def test_files_of_two_models_are_refused(tmp_path, file):
    fresh().save_pretrained(tmp_path / "one")
    other = another()
    other.config = other.config.model_copy(update={"name": "other"})
    other.save_pretrained(tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / file, tmp_path / "one" / file)
    with pytest.raises(WeightsError, match=rf"one: {file}: not what was saved with the rest"):
        OmniBind.from_pretrained(tmp_path / "one")
    (tmp_path / "one" / "digest.json").unlink()  # as older versions saved it
    OmniBind.from_pretrained(tmp_path / "one")


@pytest.mark.parametrize("times", [1, 4])
def test_a_model_that_is_replaced_while_it_is_read_is_one_of_both(tmp_path, monkeypatch, times):
    fresh().save_pretrained(tmp_path)
    read, other, left = omnibind._read_weights, another(), [times]

    def replaced(path):
        state = read(path)
        if left[0]:
            left[0] -= 1
            other.calibration = Calibration(temperatures=(0.5, 0.1 * (1 + left[0])))
            other.save_pretrained(path.parent)
        return state

    monkeypatch.setattr(omnibind, "_read_weights", replaced)
    model = OmniBind.from_pretrained(tmp_path)
    assert model.calibration == other.calibration and model.labels.names == other.labels.names
    assert torch.equal(model.labels.rows, other.labels.rows) and model.identity == other.identity
    left[0] = 100
    with pytest.raises(WeightsError, match=r"not what was saved with the rest.*save it there again"):
        OmniBind.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "calibration.json",
            '{"threshold": 0.5}',
            r"calibration\.json: not what was saved.*remove digest\.json: without it",
        ),
        ("labels.json", "{", r"labels\.json"),
        ("digest.json", "{", r"digest\.json"),
    ],
)
def test_a_refused_model_is_read_no_more_than_twice(tmp_path, monkeypatch, file, text, message):
    fresh().save_pretrained(tmp_path)
    (tmp_path / file).write_text(text)
    read, reads = omnibind._read_once, []
    monkeypatch.setattr(omnibind, "_read_once", lambda folder: reads.append(folder) or read(folder))
    with pytest.raises(OmniBindError, match=message):
        OmniBind.from_pretrained(tmp_path)
    assert len(reads) == 2
    (tmp_path / "digest.json").unlink()
    if file == "calibration.json":
        assert OmniBind.from_pretrained(tmp_path).threshold == 0.5


def test_a_saved_model_extends_no_other_file(tmp_path):
    fresh().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    (tmp_path / "digest.json").unlink()
    (tmp_path / "other.json").write_text('{"secret": 1}')
    config.write_text(json.dumps({**json.loads(config.read_text()), "extends": str(tmp_path / "other.json")}))
    with pytest.raises(ConfigError, match=r"config\.json: extends '.*other\.json', expected all of a saved"):
        OmniBind.from_pretrained(tmp_path)


@pytest.mark.parametrize("puts", range(1, 5))
def test_a_model_whose_saving_was_killed_is_whole_when_it_is_loaded(tmp_path, monkeypatch, puts):
    folder, other = tmp_path / "model", another()
    fresh().save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    replace, left = Path.replace, [puts]

    def fails(self, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(Path, "replace", fails)
        other.save_pretrained(folder)
    with monkeypatch.context() as patch:
        patch.setattr(omnibind, "recover", lambda folder: False)
        with pytest.raises(OmniBindError):
            OmniBind.from_pretrained(folder)
    again = OmniBind.from_pretrained(folder)
    assert again.labels.names == other.labels.names and again.calibration == other.calibration
    assert (folder / "notes.txt").read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_training_wrote_beside_a_model_goes_with_it(tmp_path):
    model = fresh()
    (tmp_path / "home.safetensors").write_bytes(b"of this one")
    model.write_files(tmp_path)
    for name in (*TRAINED, "notes.txt"):
        (tmp_path / name).write_bytes(b"of another one")
    with pytest.raises(WeightsError, match=r"home\.safetensors: not what was saved with the rest"):
        OmniBind.from_pretrained(tmp_path)
    model.calibration = Calibration(temperatures=(0.3,))
    model.save_pretrained(tmp_path)
    assert all((tmp_path / name).exists() for name in TRAINED), "the weights are the same"
    another().save_pretrained(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "notes.txt"])


def test_without_a_model_such_files_are_those_of_the_user(tmp_path):
    mine = {"labels.csv", "train.yaml", "figures.json", "notes.txt"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    fresh().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, *mine}
    assert all((tmp_path / name).read_text() == "mine" for name in mine)


@pytest.mark.parametrize(
    ("change", "left"),
    [("labels", TRAINED), ("key", TRAINED), ("fusion", ("home.safetensors",)), ("encoders", ()), ("damage", ())],
)
def test_what_a_training_wrote_stays_as_far_as_it_is_of_the_model(tmp_path, change, left):
    model = fresh()
    (tmp_path / "home.safetensors").write_bytes(b"of the encoders")
    model.write_files(tmp_path)
    for name in TRAINED[1:]:
        (tmp_path / name).write_bytes(b"of the training")
    model = OmniBind.from_pretrained(tmp_path)
    if change == "labels":
        model.set_labels(["red fox", "grey wolf", "hare"])
    elif change == "key":  # one that has a default, and that an older version did not write
        told = json.loads((tmp_path / "config.json").read_text())
        del told["seed"]
        (tmp_path / "config.json").write_text(json.dumps(told))
    elif change == "damage":
        (tmp_path / "config.json").write_text("{}")
    else:
        with torch.no_grad():
            for parameter in getattr(model, change).parameters():
                parameter += 0.1
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, *left}
    assert ("home.safetensors" in kept_digests(tmp_path)) == ("home.safetensors" in left)
    assert OmniBind.from_pretrained(tmp_path).labels.names == model.labels.names


def test_how_the_json_files_are_laid_out_does_not_matter(tmp_path):
    model = fresh()
    model.save_pretrained(tmp_path)
    for path in tmp_path.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text())) + "\r\n")
    assert OmniBind.from_pretrained(tmp_path).labels.names == model.labels.names


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "labels.json", "calibration.json", "digest.json"])
def test_a_full_disk_leaves_the_model_that_was_there(model, tmp_path, monkeypatch, file):
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    other, before = another(), model.labels.names
    other.digest, write = "unsaved", Path.write_bytes

    def full(self, data):
        if self.name == file:
            write(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", lambda self, text, **_: full(self, text.encode()))
    with pytest.raises(OSError, match="No space left"):
        other.save_pretrained(tmp_path / "model")
    assert other.digest == "unsaved" and [path.name for path in tmp_path.iterdir()] == ["model"]
    again = OmniBind.from_pretrained(tmp_path / "model")
    assert again.identity == model.identity and again.labels.names == before
    monkeypatch.undo()
    other.save_pretrained(tmp_path / "model")
    assert OmniBind.from_pretrained(tmp_path / "model").labels.names == other.labels.names
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_shipped_models_are_whole():
    for folder in (WEIGHTS / name for name in available()):
        kept = kept_digests(folder)
        assert kept == content_digests(folder)


def banks(width: int, *names: str) -> LabelBank:
    """One axis for each label of ``LABELS``."""
    return LabelBank(names, torch.eye(width)[[LABELS.index(name) for name in names]], torch.arange(len(names)))


def test_what_is_none_of_an_own_vocabulary_is_unknown():
    config = encoders.load_config("tiny")
    made = [
        OmniBind(config, encoders.build(config), fusion.MeanFusion(), home, Calibration())
        for home in (banks(config.embed_dim, *LABELS), None)
    ]
    model, homeless = made
    for each in made:
        each.labels = banks(config.embed_dim, "cup", "car")
    tokens = torch.eye(config.embed_dim)[[LABELS.index("dog"), LABELS.index("car")]]
    tokens[0, LABELS.index("car")] = 0.1  # a dog is a little more like a car than like a cup
    tokens = torch.nn.functional.normalize(tokens, dim=-1)
    dog, car = (model.recognise(["image"], token[None]).probabilities for token in tokens)
    alone, sure = (homeless.recognise(["image"], token[None]).probabilities for token in tokens)
    assert alone[:, 1] == pytest.approx(0.88, abs=0.01)  # the better one of two that are both wrong
    assert (dog.argmax(axis=1) == 1).all() and dog.max() < 0.01
    np.testing.assert_allclose(car, sure, rtol=1e-3)
    model.labels = banks(config.embed_dim, *LABELS)  # its own ones compete by themselves
    homeless.labels = model.labels
    own, same = (each.recognise(["image"], tokens[:1]).probabilities for each in made)
    np.testing.assert_array_equal(own, same)


def test_a_vocabulary_and_what_competes_with_it_change_at_once():
    config = encoders.load_config("tiny")
    own = banks(config.embed_dim, *LABELS)
    model = OmniBind(config, encoders.build(config), fusion.MeanFusion(), own)
    seen = []

    class Watched(LabelBank):
        def prototypes(self):
            seen.append(model.labels.names)  # as a tick on another thread would find it
            return super().prototypes()

    model.labels = Watched(own.names[:2], own.rows[:2], own.owner[:2])
    assert model.labels.names == own.names[:2] and seen[0] == own.names
