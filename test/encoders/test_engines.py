"""Trunks in other engines than torch: exported, compared, kept, refused, and back in torch where that fails."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from omnibind_core import OmniBind, cli, modalities
from omnibind_core.commands import predict
from omnibind_core.encoders.inference import compile_trunks, compiled, engines, export
from omnibind_core.errors import ConfigError, MissingDependencyError, WeightsError
from omnibind_core.parallel import in_order

pytest.importorskip("onnx")
ENGINES = [name for name in ("onnxruntime", "openvino") if name in engines.candidates("auto")]
SENSORS = ("image", "thermal", "audio")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached(cache, monkeypatch):
    monkeypatch.setenv("OMNIBIND_CACHE", str(cache))


@pytest.fixture
def model(tiny_model) -> OmniBind:
    return OmniBind.from_pretrained(tiny_model, modalities=SENSORS)


def presets(model: OmniBind) -> dict:
    parts = {name: model.config.modalities[name] for name in model.encoders.heads}
    return {name: modalities.get(name).preset(part.preset) for name, part in parts.items()}


def tick(model: OmniBind, rng: np.random.Generator, counts=(1, 2, 3)):
    made = []
    for name, count in zip(SENSORS, counts, strict=True):
        preset = presets(model)[name]
        shape = (count, *preset.shape)
        views = rng.integers(0, 256, shape) if preset.dtype == "uint8" else rng.standard_normal(shape)
        made.append((name, views.astype(preset.dtype)))
    return made


@pytest.mark.parametrize("engine", ENGINES)
def test_gives_what_torch_gives_for_batches_of_any_size(tiny_model, model, engine, rng, caplog):
    caplog.set_level(logging.INFO)
    fast = OmniBind.from_pretrained(tiny_model, modalities=SENSORS, engine=engine)
    assert {name: part.engine for name, part in fast.encoders.compiled.items()} == {"vision": engine, "audio": engine}
    assert f"the trunk 'vision' runs in {engine}: least cosine to torch 1.000000" in caplog.text
    for counts in ((1, 1, 1), (3, 1, 2), (5, 4, 7)):
        items = tick(model, rng, counts)
        found, wanted = fast.embed(items), model.embed(items)
        assert (found * wanted).sum(dim=1).min() > 1 - 1e-4
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_several_threads_get_what_one_gets(tiny_model, engine, rng):
    fast = OmniBind.from_pretrained(tiny_model, modalities=SENSORS, engine=engine)
    batches = [tick(fast, rng, (1 + number % 3, 1, 1)) for number in range(12)]
    wanted = [fast.embed(items) for items in batches]
    together = threading.Barrier(3)

    def embed(items):
        together.wait(timeout=60)
        return fast.embed(items)

    for found, one in zip(in_order(embed, batches, 3), wanted, strict=True):
        torch.testing.assert_close(found, one, rtol=0, atol=1e-6)


def test_exported_once(tiny_model, monkeypatch):
    OmniBind.from_pretrained(tiny_model, modalities=SENSORS, engine=ENGINES[0])
    monkeypatch.setattr(compiled, "write", None)  # it would be called
    again = OmniBind.from_pretrained(tiny_model, modalities=SENSORS, engine=ENGINES[0])
    assert set(again.encoders.compiled) == {"vision", "audio"}


def test_the_folder_says_how_far_it_is_from_torch(model, cache):
    compile_trunks(model.encoders, presets(model), ENGINES[0])
    (folder,) = (cache / "exported").glob("trunks.vision-*")
    manifest = json.loads((folder / export.MANIFEST).read_text())
    part = manifest["parts"]["trunks.vision"]
    assert manifest["opset"] == export.OPSET
    assert part["inputs"] == {"views": ["uint8", ["n", 3, 224, 224]]}
    assert part["outputs"] == {"features": ["float32", ["n", 32]]}
    assert set(part["compared"]) == set(ENGINES)
    for row in part["compared"].values():
        assert 1 - 1e-4 < row["least_cosine"] <= 1 + 1e-9
        assert row["greatest_difference"] < 1e-3
    assert folder.name.endswith(part["digest"][:16])


def test_torch_is_what_it_was_and_the_default(tiny_model, model, rng):
    plain = OmniBind.from_pretrained(tiny_model, modalities=SENSORS, engine="torch")
    assert not plain.encoders.compiled and not model.encoders.compiled
    items = tick(model, rng)
    assert torch.equal(plain.embed(items), model.embed(items))


def test_auto_leaves_small_trunks_and_takes_the_fastest_that_is_like_torch(model, monkeypatch, caplog):
    assert compile_trunks(model.encoders, presets(model), "auto") == {}
    monkeypatch.setattr(compiled, "_WORTH", range(2**28))
    assert set(compile_trunks(model.encoders, presets(model), "auto").values()) == {engines.candidates("auto")[0]}
    opened = engines.open_network

    def wrong(engine, path, providers):
        run = opened(engine, path, providers)
        return run if engine == ENGINES[0] else lambda inputs: [1 + rows for rows in run(inputs)]

    monkeypatch.setattr(compiled, "open_network", wrong)
    assert set(compile_trunks(model.encoders, presets(model), "auto").values()) == {ENGINES[0]}


class Data(torch.nn.Module):
    """What no trace can follow: how often it is done depends on the numbers."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk, self.feature_dim = trunk, trunk.feature_dim

    def forward(self, views):
        features = self.trunk(views)
        return features.flip(1) if views[0].float().mean() > views[-1].float().mean() else features


def test_a_trunk_that_cannot_be_exported_stays_in_torch_and_says_so_once(model, rng, caplog, monkeypatch):
    model.encoders.trunks["vision"] = Data(model.encoders.trunks["vision"])
    items = tick(model, rng)
    wanted = model.embed(items)
    assert compile_trunks(model.encoders, presets(model), ENGINES[0]) == {"audio": ENGINES[0]}
    told = [record.getMessage() for record in caplog.records if "runs in torch" in record.getMessage()]
    assert len(told) == 1 and "'vision'" in told[0] and "least cosine" in told[0]
    torch.testing.assert_close(model.embed(items), wanted, rtol=0, atol=1e-5)
    monkeypatch.setattr(compiled, "write", None)  # nor is it tried again
    assert compile_trunks(model.encoders, presets(model), ENGINES[0]) == {"audio": ENGINES[0]}


@pytest.mark.parametrize("harm", ["truncated", "stale"])
def test_what_is_kept_and_does_not_fit_is_exported_anew(model, cache, rng, harm):
    compile_trunks(model.encoders, presets(model), ENGINES[0])
    (folder,) = (cache / "exported").glob("trunks.audio-*")
    file = folder / "trunks.audio.onnx"
    if harm == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    else:  # as after a change of the code that the digest does not know
        other = copy.deepcopy(model.encoders)
        with torch.no_grad():
            other.trunks["audio"].conv.weight.mul_(-2)
        export.trunk_part(other, "audio", presets(model)).write(file)
    assert compile_trunks(model.encoders, presets(model), ENGINES[0])["audio"] == ENGINES[0]
    plain = copy.deepcopy(model.encoders)
    plain.compiled = {}
    views = torch.from_numpy(tick(model, rng)[2][1])
    torch.testing.assert_close(
        model.encoders.features("audio", views, [3]), plain.features("audio", views, [3]), rtol=0, atol=1e-4
    )


def test_other_weights_are_refused_where_the_engine_is_named(tiny_model, model, tmp_path, caplog):
    part = export.trunk_part(model.encoders, "vision", presets(model))
    export.write([part], tmp_path, ENGINES[:1])
    assert export.exported_file(tmp_path, part).is_file()
    assert compile_trunks(model.encoders, presets(model), ENGINES[0], tmp_path / "none")
    with torch.no_grad():
        model.encoders.trunks["vision"].conv.bias.add_(1e-3)
    with pytest.raises(WeightsError, match="other weights than this model's"):
        compile_trunks(model.encoders, presets(model), ENGINES[0], tmp_path)


def test_what_comes_with_a_model_is_taken(model, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    parts = [export.trunk_part(model.encoders, name, presets(model)) for name in ("vision", "audio")]
    export.write(parts, tmp_path, ENGINES[:1])
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "nothing"))
    assert set(compile_trunks(model.encoders, presets(model), ENGINES[0], tmp_path)) == {"vision", "audio"}
    assert not (tmp_path / "nothing").exists()
    assert str(tmp_path) in caplog.text


def test_weights_that_move_or_change_are_computed_by_torch_again(model):
    compile_trunks(model.encoders, presets(model), ENGINES[0])
    model.to(torch.float64)
    assert not model.encoders.compiled


def test_engines_that_are_refused(tiny_model, monkeypatch):
    with pytest.raises(ConfigError, match="engine is 'tensor', expected one of auto, torch"):
        OmniBind.from_pretrained(tiny_model, engine="tensor")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match="openvino"):
        OmniBind.from_pretrained(tiny_model, engine="openvino")


@pytest.mark.parametrize(
    ("engine", "providers", "words"),
    [
        (
            "tensorrt",
            (),
            "engine 'tensorrt' needs TensorrtExecutionProvider, CUDAExecutionProvider.*available are .*CPU",
        ),
        ("onnxruntime", ("RocketProvider", "CPUExecutionProvider"), "has the providers RocketProvider, .*CPUExecution"),
        ("torch", ("CPUExecutionProvider",), "providers are of ONNX Runtime, and engine is 'torch'"),
    ],
)
def test_providers_that_are_refused(tiny_model, engine, providers, words):
    pytest.importorskip("onnxruntime")
    with pytest.raises(ConfigError, match=words):
        OmniBind.from_pretrained(tiny_model, engine=engine, providers=providers)


class Session:
    """Stands for ONNX Runtime on a machine with a GPU; says what it was given."""

    given: tuple = ()
    runs_on = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")

    def __init__(self, path, options, providers):
        type(self).given = tuple(providers)

    def get_inputs(self):
        return [SimpleNamespace(name="views", shape=["n", 3, 224, 224])]

    def get_providers(self):
        return list(self.runs_on)


def test_tensorrt_is_asked_for_before_cuda_and_builds_for_all_batches(cache, tmp_path, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtime, "InferenceSession", Session)
    monkeypatch.setattr(runtime, "get_available_providers", lambda: Session.runs_on)
    assert engines.candidates("tensorrt") == ("tensorrt",)
    engines.open_network("tensorrt", tmp_path / "trunk.onnx")
    (first, options), *others = Session.given
    assert (first, *others) == Session.runs_on
    assert options["trt_engine_cache_enable"] and options["trt_engine_cache_path"] == str(cache / "tensorrt")
    assert options["trt_profile_min_shapes"] == "views:1x3x224x224"
    assert options["trt_profile_max_shapes"] == "views:64x3x224x224"


def test_a_provider_that_does_not_start_is_not_passed_over(tmp_path, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtime, "InferenceSession", Session)
    monkeypatch.setattr(Session, "runs_on", ("CPUExecutionProvider",))
    with pytest.raises(RuntimeError, match="CUDAExecutionProvider did not start here"):
        engines.open_network("onnxruntime", tmp_path / "trunk.onnx", ("CUDAExecutionProvider", "CPUExecutionProvider"))


def test_a_cache_that_cannot_be_written_leaves_torch(model, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "file"))
    assert compile_trunks(model.encoders, presets(model), ENGINES[0]) == {}
    assert "runs in torch" in caplog.text


def test_predict_takes_an_engine(tiny_model, tmp_path, monkeypatch, capsys):
    import cv2

    path = str(tmp_path / "cup.png")
    cv2.imwrite(path, np.full((40, 40, 3), (30, 90, 200), np.uint8))
    given = []
    load = OmniBind.from_pretrained.__func__

    def seen(cls, *args, **kwargs):
        given.append((args[-2], [*args[-1]]))
        return load(cls, *args, **kwargs)

    monkeypatch.setattr(OmniBind, "from_pretrained", classmethod(seen))
    answers = []
    cpu = ["--engine", "onnxruntime", "--providers", "CPUExecutionProvider"]
    for options in ([], ["--engine", ENGINES[0]], cpu):
        args = cli.parser().parse_args(["predict", "--model", str(tiny_model), "--image", path, "--json", *options])
        assert predict.run(args) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert given == [(None, []), (ENGINES[0], []), ("onnxruntime", ["CPUExecutionProvider"])]
    assert answers[0]["top"][0]["score"] == pytest.approx(answers[1]["top"][0]["score"], abs=1e-4)


CALLS = """
import os, sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)
watched = {"os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"}
from omnibind_core.optional import require
require("openvino", "The test").Core()
print(sorted(set(seen)), bool(sys.modules.get("openvino_telemetry")))
"""


@pytest.mark.skipif("openvino" not in ENGINES, reason="openvino is not installed")
def test_openvino_tells_nobody_that_it_is_used():
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"
