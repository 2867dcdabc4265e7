"""The recipes of CONTRIBUTING.md, followed: their code blocks are the modules that run here."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnibind_core import OmniBind, cli, encoders, fusion
from omnibind_core.data import sources
from omnibind_core.errors import InvalidInputError
from omnibind_core.evaluation import evaluate, methods
from omnibind_core.features.combinations import EmbeddedSplit
from omnibind_core.features.sets import FeatureSet
from omnibind_core.fusion import registry as fusions
from omnibind_core.training.config import FuseConfig
from omnibind_ros import messages
from omnibind_ros.messages import registry as decoders

FOUND = {"omnibind_ros.messages": decoders._load_modules, "omnibind_core.fusion": fusions._load}
WORDS = ("cup", "dog", "car", "rain")


@pytest.fixture
def follow(repo, tmp_path, monkeypatch):
    """Imports the Python block of a recipe as the module that the recipe says to write; it is gone after the test."""

    def module(title):
        text = (repo / "CONTRIBUTING.md").read_text(encoding="utf-8")
        section = text.partition(f"\n### {title}\n")[2].partition("\n#")[0]
        path, code = re.search(r"`(\S+\.py)`.*?```python\n(.*?)```", section, re.S).groups()
        assert not (repo / path).exists(), f"{path}: the recipe needs another example"
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        for check in (["check"], ["format", "--diff"]):
            subprocess.run(["ruff", *check, "--stdin-filename", repo / path, "-"], input=code, text=True, check=True)
        file.write_text(code, encoding="utf-8")
        package = path.rpartition("/")[0].replace("/", ".")
        if package in FOUND:  # the module is found by itself
            monkeypatch.setattr(sys.modules[package], "__path__", [*sys.modules[package].__path__, str(file.parent)])
            FOUND[package].cache_clear()
            name = f"{package}.{file.stem}"
            monkeypatch.delitem(sys.modules, name, raising=False)
            FOUND[package]()
            return sys.modules[name]
        name = f"recipe_{file.stem}"
        spec = importlib.util.spec_from_file_location(name, file)
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    known = {name: dict(of) for name, of in decoders._decoders.items()}
    with monkeypatch.context() as patch:
        patch.setattr(fusions, "_types", dict(fusions._types))
        patch.setattr(decoders, "_decoders", known)
        before = dict(sources.base.registered)
        yield module
        for name, loaded in list(sys.modules.items()):
            if str(tmp_path) in str(getattr(loaded, "__file__", "")):
                del sys.modules[name]
        sources.base.registered.clear()
        sources.base.registered.update(before)


def run(*argv):
    with pytest.raises(SystemExit) as end:
        cli.main([*map(str, argv)])
    return end.value.code


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Pictures of two things, in two splits."""
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("omnibind_core.data.matching.labels.find_wordnet", lambda: None)
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "modality", "source", "path", "label", "split", "group"))
        for split in ("train", "val"):
            for word in WORDS[:2]:
                for number in range(2):
                    key = f"{split}-{word}-{number}"
                    cv2.imwrite(str(folder / f"{key}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
                    writer.writerow((key, "image", "made", f"{key}.png", word, split, key))
    return folder


def test_a_ros_message_type(follow):
    ros_type = follow("A ROS message type").POINT_CLOUD
    assert messages.types_for("point_cloud")[0] == messages.POINT_CLOUD, "the package's own are preferred"
    assert ros_type in messages.types_for("point_cloud") and ros_type not in messages.types_for("image")
    points = [SimpleNamespace(x=1.0, y=2.0, z=3.0), SimpleNamespace(x=0.0, y=0.0, z=0.5)]
    decoder = messages.Decoder("point_cloud", "lidar")
    decoded = decoder.decode(ros_type, SimpleNamespace(points=points), messages.DecodeOptions())
    assert decoded.tolist() == [[1, 2, 3], [0, 0, 0.5]]
    points[0].x = float("nan")
    with pytest.raises(InvalidInputError, match="lidar"):
        decoder.decode(ros_type, SimpleNamespace(points=points), messages.DecodeOptions())


def test_a_data_set(follow, tmp_path, capsys):
    follow("A data set")
    for word, count in (("tea_cup", 2), ("dog", 1)):
        (tmp_path / "things" / word).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(tmp_path / "things" / word / f"{number}.png"), np.full((32, 32, 3), 99, np.uint8))
    assert "label_folders" in sources.names()
    options = ["--read", "--labels", "--sheet", tmp_path / "sheet.png"]
    assert run("data", "inspect", "label_folders", tmp_path / "things", *options) == 0
    printed = capsys.readouterr().out
    assert "tea cup" in printed and "3 samples, 0 files missing or broken, 3 fine" in printed
    assert (tmp_path / "sheet.png").is_file()
    found = sources.create("label_folders", tmp_path / "things")
    assert [sample.label for sample in found] == ["dog", "tea cup", "tea cup"]
    assert found.load(found[0]).shape == (32, 32, 3)
    (tmp_path / "things" / "dog" / "0.png").write_bytes(b"")
    assert "0 bytes" in str(found.inspect().broken)


def test_a_fusion(follow, tmp_path):
    follow("A fusion")
    assert methods.trainable()["Maximum"] == "maximum"
    torch.manual_seed(0)
    config = encoders.load_config("tiny").model_copy(update={"fusion": {"type": "maximum"}})
    model = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))
    model.set_labels(WORDS)
    before = {name: weight.clone() for name, weight in model.fusion.state_dict().items()}
    concept = np.repeat(np.arange(4), 3)
    tokens = {name: F.normalize(torch.randn(12, 1, config.embed_dim), dim=-1) for name in ("image", "touch")}
    sets = dict.fromkeys(tokens, FeatureSet((), np.zeros((12, 1, 1), np.float32), concept))
    embedded = EmbeddedSplit(WORDS, sets, tokens=tokens, slots=tuple(config.modalities))
    one_step = methods.Training(FuseConfig(steps=1, batch=8), ("Maximum",))
    model.fusion.load_state_dict(methods.trained(model, embedded, "maximum", 0, one_step).state_dict())
    assert any(not torch.equal(weight, before[name]) for name, weight in model.fusion.state_dict().items())

    model.save_pretrained(tmp_path / "model")
    again = OmniBind.from_pretrained(tmp_path / "model")
    assert type(again.fusion).__name__ == "MaximumFusion"
    rows = torch.stack([part[:2, 0] for part in tokens.values()], dim=1)
    mask = torch.tensor([[True, True], [True, False]])
    kind = torch.tensor([[0, 1], [0, 1]])
    assert torch.equal(again.fusion(rows, mask, kind).embedding, model.fusion(rows, mask, kind).embedding)
    alone = again.fusion(rows[1:, :1], mask[1:, :1], kind[1:, :1]).embedding
    torch.testing.assert_close(again.fusion(rows, mask, kind).embedding[1:], alone)


def test_a_table_of_the_evaluation_that_compares_the_fusion(follow, tree, tiny_model, tmp_path, monkeypatch, capsys):
    follow("A fusion")
    monkeypatch.setitem(evaluate.SECTIONS, "labels", follow("A table of the evaluation").section)
    monkeypatch.setattr("omnibind_core.commands.eval.MOST_STEPS", 2)
    argv = ["eval", "--model", tiny_model, "--data", tree, "--count", 10, "--out", tmp_path / "report", "--json"]
    assert run(*argv, "--tables", "labels", "--baselines", "Maximum") == 0
    report = json.loads(capsys.readouterr().out)
    assert [section["title"] for section in report["sections"]] == ["Summary", "Data", "Labels"]
    rows = report["tables"]["by_label"]["rows"]
    assert [(row["label"], row["modalities"], row["n"]) for row in rows] == [("cup", "image", 2), ("dog", "image", 2)]
    assert "Accuracy by label" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "report" / "tables" / "by_label.csv").is_file()
    assert report["facts"]["methods"][:2] == ["AF", "Mean"] and "Maximum" in report["facts"]["methods"]
