"""The Python API: load, predict, predict_batch, encode; and no way around the checks."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
import torch

from omnibind_core import OmniBind, load
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.modalities import Events, Sound

SAMPLES = (np.random.default_rng(1).uniform(-0.5, 0.5, 16000) * 32768).astype(np.int16)


@pytest.fixture(scope="module")
def model(tiny_model) -> OmniBind:
    return OmniBind.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def readings():
    rng = np.random.default_rng(0)
    return [
        load("image", rng.integers(0, 255, (40, 50, 3), dtype=np.uint8), source="camera"),
        load("audio", SAMPLES, sample_rate=16000),
        load("image", np.zeros((40, 50, 3), np.uint8), source="covered"),
        load("text", "a red cup"),
        load("touch", rng.uniform(0, 1, (16, 16)), source="skin"),
    ]


def snippets(path, heading=""):
    """The Python blocks of a document, or of one of its sections, as one program."""
    text = path.read_text(encoding="utf-8")
    section = text.partition(f"\n{heading}\n")[2].partition("\n#")[0] if heading else text
    found = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    assert found
    return "\n".join(found)


@pytest.fixture
def at_hand(tmp_path, monkeypatch):
    """The files that the documents name."""
    soundfile = pytest.importorskip("soundfile")
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for name in ("dog.jpg", "photos/a.jpg", "photos/b.jpg"):
        cv2.imwrite(str(tmp_path / name), picture)
    soundfile.write(tmp_path / "bark.wav", SAMPLES, 16000)
    return tmp_path


def test_the_example_of_the_readme_runs(repo, at_hand, capsys):
    program = snippets(repo / "README.md", "## Without ROS")
    names: dict = {"samples": SAMPLES}
    exec(compile(program, "README.md", "exec"), names)
    answer, model = names["answer"], names["model"]
    assert model.identity.startswith("lite@") and answer.speaks == (True, True)
    assert capsys.readouterr().out == f"{answer.label or 'unknown'} {answer.confidence} {answer.weights}\n"
    views = [
        ("image", model.process("image", names["picture"].raw)),
        ("audio", model.process("audio", Sound(SAMPLES, 16000))),
    ]
    by_hand = model.recognise(["image", "audio"], model.embed(views))
    np.testing.assert_allclose(answer.probabilities, by_hand.probabilities, atol=1e-5)


def test_the_examples_of_the_page_run(repo, model, at_hand, monkeypatch, capsys):
    monkeypatch.setattr(OmniBind, "from_pretrained", lambda *args, **kwargs: model)
    names: dict = {}
    exec(compile(snippets(repo / "docs" / "python.md"), "python.md", "exec"), names)
    assert [[reading.modality for reading in scene] for scene in names["scenes"]] == [["image", "audio"], ["image"]]
    assert "photos/a.jpg" in capsys.readouterr().out
    with np.load(at_hand / "photos.npz") as kept:
        np.testing.assert_allclose(kept["embeddings"], model.encode(names["readings"]), atol=1e-6)
        assert kept["source"].tolist() == ["photos/a.jpg", "bark.wav", "photos/b.jpg"]


def test_process_checks_what_it_gets(model):
    expected = model.process("audio", Sound(SAMPLES / np.float32(32768), 16000))
    np.testing.assert_array_equal(model.process("audio", Sound(SAMPLES, 16000)), expected)
    stereo = np.stack([SAMPLES, SAMPLES], axis=1)
    np.testing.assert_array_equal(model.process("audio", Sound(stereo, 16000)), expected)
    cloud = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    np.testing.assert_array_equal(model.process("point_cloud", cloud), model.process("point_cloud", cloud[:, :3]))
    pressure = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    same = model.process("touch", (pressure / 65535).astype(np.float32))
    np.testing.assert_array_equal(model.process("touch", pressure), same)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("event", Events(*np.full((4, 99), 64), 64, 64), r"\[event\] got x from 64 to 64, expected 0 to 63"),
        ("image", np.zeros((4, 4, 3)), r"\[image\] got dtype float64, expected a picture uint8"),
        ("image", torch.zeros(3, 4, 4), r"\[image\] got Tensor, expected a picture uint8"),
        ("audio", SAMPLES, r"\[audio\] got ndarray, expected a Sound"),
        ("audio", Sound(SAMPLES.astype(np.float32), 16000), r"\[audio\] got samples that reach 16\d+"),
        ("touch", np.full((4, 4), 4000.0), r"\[touch\] got pressure 4e\+03 to 4e\+03, expected"),
        (
            "point_cloud",
            np.zeros((99, 2), np.float32),
            r"\[point_cloud\] got shape \[99, 2\], expected float32 \[N, 3\]",
        ),
    ],
)
def test_process_refuses_what_is_no_raw_form(model, name, raw, message):
    with pytest.raises(InvalidInputError, match=message):
        model.process(name, raw)


def test_prediction_is_that_of_the_single_steps(model, readings):
    answer = model.predict(readings)
    views = [(reading.modality, model.process(reading.modality, reading.raw)) for reading in readings]
    doubts = [reading.doubt for reading in readings]
    expected = model.recognise([name for name, _ in views], model.embed(views), doubts)
    np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-6)
    assert answer.speaks == (True, True, False, True, True) and answer.weights[2] == 0
    best = int(answer.probabilities[0].argmax())
    assert answer.confidence == pytest.approx(float(answer.probabilities[0, best]))
    assert answer.names == model.labels.names
    assert answer.unknown == (answer.confidence < model.threshold)
    assert answer.label == ("" if answer.unknown else model.labels.names[best])


def test_label_is_empty_where_nothing_is_known(model, readings, monkeypatch):
    monkeypatch.setattr(model, "threshold", 0.0)
    assert model.predict(readings).label in model.labels.names
    silent = model.predict([readings[2]])
    assert silent.unknown and silent.label == "" and silent.weights.tolist() == [0.0]
    monkeypatch.setattr(model, "threshold", 1.01)
    unsure = model.predict(readings)
    assert unsure.unknown and unsure.label == "" and unsure.confidence > 0


def test_a_batch_gives_what_single_scenes_give(model, readings):
    scenes = [readings[:2], [readings[3]], readings, [readings[2]]]
    for batch_size in (1, 3, 32):
        answers = model.predict_batch(scenes, batch_size)
        assert len(answers) == len(scenes)
        for answer, scene in zip(answers, scenes, strict=True):
            alone = model.predict(scene)
            np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)
            np.testing.assert_allclose(answer.weights, alone.weights, atol=1e-5)
    assert model.predict_batch([]) == []


def test_embeddings_are_of_unit_length_in_the_space_of_text(model, readings):
    embeddings = model.encode(readings, batch_size=2)
    assert embeddings.dtype == np.float32 and embeddings.shape == (5, model.config.embed_dim)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embeddings[3], model.embed_text(["a red cup"])[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(embeddings[[4, 0]], model.encode([readings[4], readings[0]]), atol=1e-5)
    later = model.recognise([reading.modality for reading in readings[:2]], embeddings[:2])
    np.testing.assert_allclose(later.probabilities, model.predict(readings[:2]).probabilities, atol=1e-5)
    assert model.encode([]).shape == (0, model.config.embed_dim)


def test_wrong_use_is_refused(model, tiny_model, readings):
    with pytest.raises(InvalidInputError, match=r"\[predict\] got no reading, expected at least one"):
        model.predict([])
    with pytest.raises(InvalidInputError, match="no reading"):
        model.predict_batch([readings, []])
    with pytest.raises(ConfigError, match="batch_size is -1, expected 1 or more"):
        model.encode(readings, batch_size=-1)
    part = OmniBind.from_pretrained(tiny_model, modalities={"image"})
    with pytest.raises(ConfigError, match=r"cannot encode 'audio'; it can encode image, text"):
        part.predict(readings[:2])
