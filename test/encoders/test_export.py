"""``omnibind export``: each part as a file that gives what torch gives; the vocabulary stays an input."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch.nn import functional as F

from omnibind_core import OmniBind, cli
from omnibind_core.encoders.inference import engines, export
from omnibind_core.errors import DataError
from omnibind_core.recogniser import INPUTS

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
    assert not (tmp_path / "nothing").exists()


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
