"""``omnibind export``: each part as a file that gives what torch gives; the vocabulary stays an input."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from omnibind_core import OmniBind, cli
from omnibind_core.encoders.inference import compile_trunks, engines, export, tensorrt
from omnibind_core.encoders.inference.parts import open_part, unharmed
from omnibind_core.errors import ConfigError, DataError, WeightsError
from omnibind_core.model.recogniser import INPUTS

pytest.importorskip("onnx")
ENGINES = engines.candidates("auto")


def run(*arguments) -> int:
    args = cli.parser().parse_args(["export", *map(str, arguments)])
    return args.run(args)


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_model, folder)
    run(folder, "--out", folder / "exported")
    return folder


@pytest.fixture(scope="module")
def manifest(exported):
    return json.loads((exported / "exported" / export.MANIFEST).read_text())


def test_all_parts_once_and_near_torch(exported, manifest):
    model = OmniBind.from_pretrained(exported)
    assert manifest["model"] == model.identity and manifest["opset"] == export.OPSET
    names = {"trunks.vision", "trunks.audio", "trunks.point", "trunks.text", "recogniser"}
    names |= {f"heads.{name}" for name in model.modalities}
    assert set(manifest["parts"]) | set(manifest["failed"]) == names
    assert not set(manifest["failed"]) - {"trunks.point"}, manifest["failed"]
    for name, part in manifest["parts"].items():
        assert (exported / "exported" / part["file"]).is_file()
        assert set(part["compared"]) == set(ENGINES)
        for row in part["compared"].values():
            assert row["least_cosine"] > 1 - 1e-4, name
    assert manifest["parts"]["recogniser"]["compared"][ENGINES[0]]["samples"] == 24


@pytest.mark.parametrize("name", ["../../secret.onnx", "/secret.onnx", "link.onnx", "../link.onnx", "."])
def test_a_manifest_names_no_file_elsewhere(name, tmp_path):
    folder = tmp_path / "model" / "exported"
    folder.mkdir(parents=True)
    (folder.parent / "link.onnx").symlink_to(tmp_path / "secret.onnx")
    (tmp_path / "secret.onnx").write_bytes(b"secret")
    (folder / "link.onnx").symlink_to(tmp_path / "secret.onnx")
    entry = {"file": name, "sha256": {"secret.onnx": hashlib.sha256(b"secret").hexdigest()}}
    assert not unharmed(folder, entry)
    with pytest.raises(WeightsError, match="is not as it was written"):
        open_part(folder, "part", entry, ENGINES, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_labels_are_swapped_and_sets_have_any_size(exported, manifest, engine):
    recogniser = engines.open_network(engine, exported / "exported" / manifest["parts"]["recogniser"]["file"])
    model = OmniBind.from_pretrained(exported)
    for tokens, labels, others in ((1, 4, 0), (5, 2, 3), (15, 50, 1)):
        rows = F.normalize(torch.randn(tokens, 32), dim=-1)
        bank = F.normalize(torch.randn(labels, 32), dim=-1)
        speaks = torch.rand(tokens) < 0.5
        speaks[-1] = True
        ids = torch.randint(7, (tokens,))
        given = (rows, ids, speaks, torch.zeros_like(speaks), bank, F.normalize(torch.randn(others, 32), dim=-1))
        found = recogniser({name: tensor.numpy() for name, tensor in zip(INPUTS, given, strict=True)})
        with torch.inference_mode():
            wanted = model.recogniser(*given)
            fused = model.fusion(rows[None], speaks[None], ids[None])
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(torch.from_numpy(one), other, rtol=0, atol=2e-5, equal_nan=True)
        torch.testing.assert_close(torch.from_numpy(found[0]), fused.embedding[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(found[1]), fused.weights[0], rtol=0, atol=1e-5)


def test_what_lies_in_the_folder_of_a_model_is_found_with_it(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "nothing"))
    model = OmniBind.from_pretrained(exported, modalities=["image", "audio"], engine=ENGINES[0])
    assert set(model.encoders.compiled) == {"vision", "audio"}
    assert not [*(tmp_path / "nothing").rglob("*.onnx")]


def test_openvino_gets_its_own_files(tiny_model, tmp_path, capsys):
    pytest.importorskip("openvino")
    run(tiny_model, "--out", tmp_path / "ir", "--format", "openvino", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["parts"]["trunks.audio"]["file"] == "trunks.audio.xml"
    assert set(told["parts"]["trunks.audio"]["compared"]) == {"openvino"}
    assert {path.suffix for path in (tmp_path / "ir").iterdir()} == {".xml", ".bin", ".json", ".npz", ".safetensors"}


def test_a_folder_with_something_else_is_left_alone(tiny_model, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match=r"letter\.txt"):
        run(tiny_model, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


LOADS = """
import sys
import numpy as np, torch
program = torch.export.load(sys.argv[1]).module()
pictures = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], program(pictures).detach().numpy())
assert not any(name.startswith("omnibind") for name in sys.modules)
"""


@pytest.fixture
def few(monkeypatch):
    """Only some parts are exported, which takes less time."""
    parts, names = OmniBind.parts, ["trunks.vision", "trunks.audio", "heads.image", "recogniser"]
    monkeypatch.setattr(OmniBind, "parts", lambda self: (part for part in parts(self) if part.name in names))
    return names


def test_programs_of_torch_give_what_the_model_gives(tiny_model, tmp_path, capsys, few):
    few[:] = ["heads.image"]
    assert run(tiny_model, "--out", tmp_path / "pt2", "--format", "torch_export", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {name: part["file"] for name, part in told["parts"].items()} == {name: f"{name}.pt2" for name in few}
    assert all(part["compared"]["torch.export"]["least_cosine"] > 0.9999 for part in told["parts"].values())


@pytest.mark.slow
def test_programs_of_torch_need_no_class_of_ours(tiny_model, tmp_path, few, rng):
    """In a process of its own, which has not imported the package."""
    few.remove("recogniser")  # torch.export takes the number of tokens of an attention layer for fixed
    assert run(tiny_model, "--out", tmp_path / "pt2", "--format", "torch_export") == 0
    pictures = rng.integers(0, 256, (3, 3, 224, 224)).astype(np.uint8)
    np.save(tmp_path / "in.npy", pictures)
    files = tmp_path / "pt2" / "trunks.vision.pt2", tmp_path / "in.npy", tmp_path / "out.npy"
    subprocess.run([sys.executable, "-c", LOADS, *map(str, files)], check=True, cwd=tmp_path)
    with torch.inference_mode():
        wanted = OmniBind.from_pretrained(tiny_model).encoders.trunks["vision"](torch.from_numpy(pictures))
    np.testing.assert_allclose(np.load(files[2]), wanted.numpy(), atol=1e-5)


def test_tensorrt_gets_what_it_documents_and_says_what_is_untested(tiny_model, tmp_path, capsys, monkeypatch, few):
    code = run(tiny_model, "--out", tmp_path / "trt", "--format", "tensorrt")
    told = json.loads((tmp_path / "trt" / export.MANIFEST).read_text())
    assert "untested" in capsys.readouterr().out and "no engine was built" in told["untested"]
    assert code == bool(told["failed"])
    assert told["parts"]["trunks.vision"]["file"] == "trunks.vision.onnx"
    assert told["parts"]["recogniser"]["limits"]["Unsqueeze"] == "axes are constant"
    known = tensorrt.documented()
    monkeypatch.setattr(tensorrt, "documented", lambda: {name: of for name, of in known.items() if name != "Conv"})
    with pytest.raises(RuntimeError, match="TensorRT documents no operator Conv"):
        tensorrt.check(tmp_path / "trt" / "trunks.vision.onnx")


def test_half_of_the_weights_bytes(exported, tiny_model, tmp_path, capsys, few):
    few[:] = ["heads.image"]
    run(tiny_model, "--out", tmp_path / "half", "--precision", "float16", "--json")
    told = json.loads(capsys.readouterr().out)
    part = told["parts"]["heads.image"]
    assert part["precision"] == "float16" and part["compared"][ENGINES[0]]["least_cosine"] > 1 - 1e-5
    before = (exported / "exported" / "heads.image.onnx").stat().st_size
    weights = 32 * 32 * 4
    assert (tmp_path / "half" / "heads.image.onnx").stat().st_size < before - weights / 2 + 300


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "int8"], "expected both or none"),
        (["--calibration-data", "."], "expected both or none"),
        (["--precision", "float16", "--format", "torch_export"], "written in float32"),
        (["--precision", "int8", "--format", "tensorrt", "--calibration-data", "."], "zero points of 0"),
    ],
)
def test_options_that_do_not_go_together(tiny_model, tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        run(tiny_model, "--out", tmp_path / "out", *options)


class Layers(nn.Sequential):
    """A trunk with something between its first and its last convolution."""

    feature_dim = 8

    def __init__(self) -> None:
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(3, 8, 8, stride=8), *(nn.Conv2d(8, 8, 3) for _ in range(4))]
        super().__init__(*(layer for conv in convolutions for layer in (conv, nn.ReLU())))

    def forward(self, views):
        return super().forward(views.float() / 255).mean(dim=(2, 3))


@pytest.mark.parametrize(("lost", "kept"), [(0.004, "int8"), (0.006, "float32"), (None, "float32")])
def test_whole_numbers_only_where_no_sensor_loses_more_than_half_a_point(tiny_model, tmp_path, rng, caplog, lost, kept):
    pytest.importorskip("onnxruntime")
    caplog.set_level(logging.INFO)
    model = OmniBind.from_pretrained(tiny_model, modalities=["image", "thermal"])
    model.encoders.trunks["vision"] = Layers().eval()
    asked = []

    def top1(part, name, runs):
        asked.append((part, name, runs))
        return {"image": 0.9, "thermal": None if lost is None else 0.8 - lost * (runs is not None)}

    presets = model._presets()
    views = [rng.integers(0, 256, (4, 3, 224, 224)).astype(np.uint8)]
    lowering = export.Lowering("int8", {"trunks.vision": views}, top1)
    part = export.trunk_part(model.encoders, "vision", presets)
    told = export.write([part], tmp_path, ENGINES, lowering=lowering)["parts"]["trunks.vision"]
    assert told["precision"] == kept and not list(tmp_path.glob("*.int8.*")) and not list(tmp_path.glob("*.prepared"))
    assert [name.partition(",")[0] for _, name, _ in asked] == ["", *ENGINES]
    assert told["top1"]["torch"] == {"image": 0.9, "thermal": 0.8 if lost else None}
    whole = asked[1][2]({"views": views[0]})[0]
    with torch.inference_mode():
        exact = model.encoders.trunks["vision"](torch.from_numpy(views[0])).numpy()
    assert 1e-6 < np.abs(whole - exact).max() / np.abs(exact).max() < 0.1  # of whole numbers, and of these weights
    if kept == "float32":
        why = "thermal loses 0.6 points of 80.0 in" if lost else "no sample tells what thermal would lose"
        assert why in caplog.text and "stays in float32, not int8" in caplog.text
        assert compile_trunks(model.encoders, presets, ENGINES[0], tmp_path) == {"vision": ENGINES[0]}
        return
    (name,) = compile_trunks(model.encoders, presets, ENGINES[0], tmp_path).values()
    assert name == asked[1][1] and "int8" in name  # features of other whole numbers are not taken for these
    assert f"runs in {name}" in caplog.text


def test_what_has_no_middle_stays_in_float32(tiny_model, tmp_path, rng, caplog, capsys, few):
    """Calibrated on the split train and judged on val; the trunks of this model are one convolution."""
    import cv2

    pytest.importorskip("onnxruntime")
    few[:] = ["trunks.vision", "trunks.audio"]
    rows = [("id", "modality", "source", "path", "label", "split", "group")]
    for number, (label, split) in enumerate((label, split) for split in ("train", "val") for label in ("cup", "dog")):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (32, 32, 3)).astype(np.uint8))
        rows.append((str(number), "image", "mine", f"{number}.png", label, split, ""))
    with (tmp_path / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    run(tiny_model, "--out", tmp_path / "int8", "--precision", "int8", "--calibration-data", tmp_path, "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["parts"]["trunks.vision"]["precision"] == "float32"
    assert "nothing between" in told["parts"]["trunks.vision"]["refused"]["int8"]
    assert "'trunks.vision' stays in float32, not int8" in caplog.text
    assert "refused" not in told["parts"]["trunks.audio"]  # of which there are no samples
    shutil.copy(tmp_path / "samples.csv", tmp_path / "all.csv")
    (tmp_path / "samples.csv").write_text((tmp_path / "all.csv").read_text().replace("train", "val"))
    with pytest.raises(DataError, match="split 'train'"):
        run(tiny_model, "--out", tmp_path / "other", "--precision", "int8", "--calibration-data", tmp_path)
