"""Both stages end to end on a small data set of real files and a tiny model, through the command line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import soundfile
import yaml

from omnibind_core import OmniBind, cli, modalities
from omnibind_core.config import read_mapping
from omnibind_core.errors import ConfigError
from omnibind_core.training import config as training_config
from omnibind_core.training import dataset

WORDS = ("cup", "dog", "car")


def picture(index: int, rng: np.random.Generator) -> np.ndarray:
    image = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8)
    image[..., index] = 220
    return image


def tone(index: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(16000) / 16000
    return (0.5 * np.sin(2 * np.pi * (200 * 4**index) * t) + 0.01 * rng.standard_normal(16000)).astype(np.float32)


def cloud(index: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.uniform(-1, 1, (256, 3)) * [(1, 1, 1), (1, 1, 0.1), (1, 0.1, 0.1)][index]).astype(np.float32)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A ``samples.csv`` tree: three concepts, three sensor modalities, every file real."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 6), ("val", 3)):
        for index, word in enumerate(WORDS):
            for number in range(count):
                stem = f"{split}-{word}-{number}"
                cv2.imwrite(str(root / f"{stem}.png"), picture(index, rng))
                soundfile.write(root / f"{stem}.wav", tone(index, rng), 16000)
                np.savez(root / f"{stem}.npz", points=cloud(index, rng))
                for modality, suffix in (("image", "png"), ("audio", "wav"), ("point_cloud", "npz")):
                    key = f"{modality}-{stem}"
                    rows.append((key, modality, "made", f"{stem}.{suffix}", word, split, f"{split}-{number}"))
    with (root / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "modality", "source", "path", "label", "split", "group"))
        writer.writerows(rows)
    (root / "labels.csv").write_text(
        "source,label,canonical,score,reason\n" + "".join(f"made,{word},{word},1.0,same word\n" for word in WORDS)
    )
    (root / "words.yaml").write_text(f"{WORDS[0]}: [a thing, something that one can see and hear]\n")
    return root


def run(*argv: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 0


def train(tree, out, *extra: str) -> None:
    settings = {
        "model": "tiny",
        "data": str(tree),
        "labels": str(tree / "labels.csv"),
        "descriptions": str(tree / "words.yaml"),
        "out": str(out),
        "augmentations": 2,
        "image_text": {"lr": 0.01, "batch": 16},
        "align": {"steps": 60, "per_student": {"point_cloud": {"steps": 12}}, "batch": 16, "lr": 0.01},
        "fuse": {"steps": 40, "batch": 32, "damage": 1, "fusion": {"preset": "reliability"}},
    }
    path = out / "experiment.yaml"
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings))
    sets = [word for text in extra for word in ("--set", text)]
    run("train", "align", "--config", str(path), *sets)
    run("train", "fuse", "--config", str(path), *sets)


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        train(tree, out / "first")
        train(tree, out / "second")
    return out


def test_the_trained_model_recognises_what_it_was_trained_on(trained, tree):
    model = OmniBind.from_pretrained(trained / "first" / "model")
    assert set(model.labels.names) == set(WORDS)
    right = 0
    for word in WORDS:
        kinds = ("audio", "point_cloud")
        suffixes = {"audio": "wav", "point_cloud": "npz"}
        views = [
            (kind, model.process(kind, modalities.get(kind).load(tree / f"val-{word}-0.{suffixes[kind]}")))
            for kind in kinds
        ]
        found = model.recognise(kinds, model.embed(views))
        assert found.weights.sum() == pytest.approx(1, abs=1e-5)
        assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
        right += model.labels.names[int(found.similarities[0].argmax())] == word
    assert right >= 2


def test_descriptions_of_labels_are_in_the_bank_of_both_stages(trained):
    aligned, fused = (OmniBind.from_pretrained(trained / "first" / stage).labels for stage in ("align", "model"))
    assert fused.descriptions == {WORDS[0]: ("a thing", "something that one can see and hear")}
    assert len(fused.rows) == len(WORDS) + 1
    assert aligned.descriptions == fused.descriptions and (aligned.rows == fused.rows).all()


def test_same_settings_give_the_same_bytes(trained):
    for name in ("model.safetensors", "calibration.json", "config.json", "labels.json"):
        first, second = (trained / run / "model" / name for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), name


def test_stage_two_refuses_another_vocabulary_than_stage_one(trained, tree, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        experiment = str(trained / "first" / "experiment.yaml")
        few = tree / "few.csv"
        few.write_text((tree / "labels.csv").read_text().replace("made,dog,dog", "made,dog,"))
        aligned = trained / "first" / "align" / "labels.csv"
        kept = aligned.read_bytes()
        aligned.write_bytes(few.read_bytes())
        try:
            cli.main(("train", "fuse", "--config", experiment))
        finally:
            aligned.write_bytes(kept)
    assert stop.value.code == 2
    assert "run stage I again" in capsys.readouterr().err


def test_figures_are_written_beside_the_model(trained):
    figures = json.loads((trained / "first" / "model" / "figures.json").read_text())
    assert figures["labels"] == 3
    assert figures["single"]["audio"]["n"] == 9
    sizes = [row["modalities"] for row in figures["combinations"]]
    assert sizes == [1, 2, 3]
    assert figures["combinations"][-1]["fused"] > 0.6


def test_the_resolved_config_can_be_run_again(trained):
    saved = read_mapping(trained / "first" / "model" / "train.yaml")
    again = training_config.load(str(trained / "first" / "model" / "train.yaml"))
    assert again.model_dump() == saved


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("align.stps=3", r"align\.stps"),
        ("align.lr=-1", r"align\.lr"),
        ("align.loss.tau_in=0", r"align\.loss\.tau_in"),
        ("seed=soon", "seed"),
        ("seed", "key=value"),
        ("seed.more=1", "seed"),
    ],
)
def test_wrong_settings_name_the_key(override, message):
    with pytest.raises(ConfigError, match=message):
        training_config.load("lite", [override])


def test_an_unknown_experiment_names_the_known_ones():
    with pytest.raises(ConfigError, match="lite"):
        training_config.load("nonsense")


def test_generated_tables_of_the_documents_are_current(repo):
    done = subprocess.run(
        [sys.executable, str(repo / "tools" / "doc_tables.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run python tools/doc_tables.py: {done.stdout}{done.stderr}"


def test_damaged_variants_are_features_of_damaged_samples(trained, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path))
    config = training_config.load(str(trained / "first" / "experiment.yaml"))
    model = OmniBind.from_pretrained(trained / "first" / "align")
    concepts = dataset.match(config, model.encoders)
    clean, data = (dataset.load(config, model.config, model.encoders, concepts, damage=n) for n in (0, 2))
    assert all(samples.damaged is None for samples in (*clean.train.values(), *data.val.values()))
    for name, samples in data.train.items():
        assert samples.damaged is not None and samples.damaged.shape[:2] == (len(samples), 2)
        first, second = samples.damaged[:, 0], samples.damaged[:, 1]
        own = samples.inputs[:, 0]
        for one, other in ((first, own), (second, own), (first, second)):
            assert (one != other).any(axis=1).mean() > 0.8, name
    # Stage II draws them as further variants.
    split = dataset.embed(data, model, "train")
    variants = {name: samples.inputs.shape[1] for name, samples in data.train.items()}
    drawn = split.draw(300, np.random.default_rng(0))
    for column, name in enumerate(split.modalities):
        assert split.tokens[name].shape[1] == variants[name] + 2
        assert (drawn.variants[:, column] >= variants[name]).any(), name
