"""``omnibind weights``, and foreign files that cannot be used."""

from __future__ import annotations

import json
import pickle
import resource
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnibind_core import OmniBind, cli, encoders, fusion
from omnibind_core.commands import weights
from omnibind_core.encoders import checkpoints, inspection
from omnibind_core.encoders.checkpoints import INDEX, fingerprint, open_checkpoint
from omnibind_core.encoders.family import FileTrunkConfig, weights_path
from omnibind_core.encoders.registry import make_trunk
from omnibind_core.errors import WeightsError

TINY = {"imagebind": "imagebind_tiny", "point_bind": "point_bind_tiny", "open_clip": "open_clip_tiny"}


def random_state(config: str) -> dict[str, Tensor]:
    """What a file for a model config holds, with random values."""
    torch.manual_seed(0)
    parts = [part for part in encoders.load_config(config).trunks.values() if isinstance(part, FileTrunkConfig)]
    state: dict[str, Tensor] = {}
    for part in parts:
        state |= make_trunk(part).state_dict()
    return {name: torch.randn_like(x) if x.is_floating_point() else x for name, x in state.items()}


@pytest.fixture(scope="module")
def clip() -> dict[str, Tensor]:
    return random_state("open_clip_tiny")


def run(capsys, *argv, code=0):
    """What a command prints; its errors if the exit status is 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in argv])
    said = capsys.readouterr()
    assert stop.value.code == code, said.err
    return said.err if code == 2 else said.out


# Opening files


def test_all_kinds_of_files_hold_the_same(clip, tmp_path):
    save_file(clip, tmp_path / "a.safetensors")
    torch.save(clip, tmp_path / "a.pth")
    wrapped = {f"module.{name}": tensor for name, tensor in clip.items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"lr": 1.0}}, tmp_path / "a.pt")
    names = sorted(clip)
    for kind, save in (("safetensors", save_file), ("bin", torch.save)):
        folder = tmp_path / kind
        folder.mkdir()
        stem = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
        placed = {name: f"part-{index % 2}.{kind}" for index, name in enumerate(names)}
        for file in set(placed.values()):
            save({name: clip[name] for name in names if placed[name] == file}, folder / file)
        (folder / f"{stem}.index.json").write_text(json.dumps({"weight_map": placed}))
    single = tmp_path / "single"
    single.mkdir()
    save_file(clip, single / "open_clip_model.safetensors")
    torch.save({}, single / "training_args.bin")  # the usual name counts
    marks = set()
    for source in ("a.safetensors", "a.pth", "a.pt", "safetensors", "bin", "single"):
        found = open_checkpoint(tmp_path / source)
        assert set(found) == set(clip) and len(found) == len(clip), source
        assert all(found.spec[name].device.type == "meta" for name in names)
        assert all(torch.equal(found[name], clip[name]) for name in names)
        marks.add(fingerprint(found))
    assert len(marks) == 1


def test_a_fingerprint_tells_trainings_apart(clip):
    marks = {fingerprint(clip)}
    marks.add(fingerprint({name: tensor * 1.001 for name, tensor in clip.items()}))
    marks.add(fingerprint({name: tensor.bfloat16() for name, tensor in clip.items()}))
    marks.add(fingerprint({**clip, "more": torch.zeros(0)}))
    assert len(marks) == 4
    strided = {
        name: tensor.repeat_interleave(2, dim=-1)[..., ::2] if tensor.ndim else tensor for name, tensor in clip.items()
    }
    assert fingerprint(strided) == fingerprint(clip)


class Evil:
    """Something that runs a command when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def broken(kind: str, clip: dict[str, Tensor], folder: Path) -> Path:
    """A file, or a folder, that cannot be used."""
    path = folder / ("model.safetensors" if "safetensors" in kind else "model.pth")
    if kind in ("truncated safetensors", "safetensors with half a header"):
        save_file(clip, path)
        path.write_bytes(path.read_bytes()[: 100 if "header" in kind else -1000])
    elif kind == "truncated torch":
        torch.save(clip, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "pickle with code":
        torch.save({"weight": torch.zeros(2), "evil": Evil()}, path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps({"weight": [1.0]}))
    elif kind == "program":
        with zipfile.ZipFile(path, "w") as archive:  # what torch.jit.save leaves
            for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
                archive.writestr(f"model/{name}", b"")
    elif kind == "zipped again":
        torch.save(clip, folder / "stored.zip")
        with zipfile.ZipFile(folder / "stored.zip") as stored, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in stored.namelist():
                new.writestr(name, stored.read(name))
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    elif kind == "a list":
        torch.save([torch.zeros(2)], path)
    elif kind == "other ending":
        path = folder / "weights.h5"
        path.touch()
    elif kind == "two files":
        for name in ("a.safetensors", "b.safetensors"):
            save_file(clip, folder / name)
        path = folder
    elif kind == "missing shard":
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
        path = folder
    elif kind == "shard elsewhere":
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
        path = folder
    elif kind == "shard without its tensor":
        save_file(clip, folder / "part.safetensors")
        (folder / INDEX).write_text(json.dumps({"weight_map": {"no such name": "part.safetensors"}}))
        path = folder
    elif kind == "no index":
        (folder / INDEX).write_text("[]")
        path = folder
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated safetensors", r"model\.safetensors: \d+ bytes that are not a whole safetensors file"),
        ("safetensors with half a header", "100 bytes that are not a whole safetensors file"),
        ("truncated torch", r"model\.pth: \d+ bytes that are not a whole PyTorch file: truncated"),
        ("pickle with code", "a pickle that would run code .*expected tensors"),
        ("plain pickle", "not a whole PyTorch file"),
        ("program", "TorchScript archive, which is a program"),
        ("zipped again", r"model\.pth: '.+' in it is compressed, expected tensors as torch.save writes them"),
        ("no tensors", "holds a dict with epoch, expected tensors by name"),
        ("a list", "holds a list, expected tensors by name"),
        ("other ending", "ends in '.h5', expected a safetensors file"),
        ("missing", "no such file or folder"),
        ("two files", r"a\.safetensors, b\.safetensors; expected exactly one"),
        ("missing shard", "lacks gone.safetensors, which model.safetensors.index.json names"),
        ("shard elsewhere", "lacks ../model.safetensors"),
        ("shard without its tensor", "lacks the tensor 'no such name'"),
        ("no index", "not an index of weights files"),
    ],
)
def test_unusable_files_are_refused(kind, message, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=message):
        open_checkpoint(broken(kind, clip, tmp_path))
    assert not Path("executed").exists()


def test_a_flipped_bit_of_a_pytorch_file_is_found_where_all_of_it_is_read(clip, capsys, tmp_path):
    path = tmp_path / "flipped.pth"
    torch.save(clip, path)
    data = bytearray(path.read_bytes())
    data[data.find(clip["visual.proj"].numpy().tobytes()) + 3] ^= 0x40  # of an exponent
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"flipped\.pth: damaged: '.+' in it has another check sum"):
        open_checkpoint(path, verify=True)
    said = run(capsys, "weights", "convert", path, "--out", tmp_path / "out", "--config", "open_clip_tiny", code=2)
    assert "damaged" in said and not (tmp_path / "out").exists()


# Loading into a model


def with_weights(path: Path, **changes: object) -> encoders.ModelConfig:
    return encoders.load_config("open_clip_tiny").model_copy(update={"weights": str(path), **changes})


def test_a_half_precision_file_is_refused_on_a_cpu_unless_a_precision_is_given(clip, tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({name: tensor.half() for name, tensor in clip.items()}, path)
    config = with_weights(path)
    with pytest.raises(WeightsError, match=r"half\.safetensors is in float16.*expected a GPU .*float32 or bfloat16"):
        encoders.build(config, {"image"})
    assert encoders.build(config, {"image"}, "cuda").trunks["vision"].visual.proj.dtype == torch.float16
    given = {**config.trunks, "vision": config.trunks["vision"].model_copy(update={"precision": "float32"})}
    built = encoders.build(config.model_copy(update={"trunks": given}), {"image"})
    assert built.trunks["vision"].visual.proj.dtype == torch.float32
    wrong = {**config.trunks, "vision": config.trunks["vision"].model_copy(update={"precision": "float16"})}
    with pytest.raises(WeightsError, match="precision is float16"):
        encoders.build(config.model_copy(update={"trunks": wrong}), {"image"})


def test_weights_that_are_not_a_number_are_refused(clip, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({**clip, "visual.proj": torch.full_like(clip["visual.proj"], torch.nan)}, path)
    with pytest.raises(WeightsError, match=r"open_clip.*proj' has values that are not a number"):
        encoders.build(with_weights(path), {"image"})


def test_a_bfloat16_file_stays_in_bfloat16(clip, tmp_path):
    save_file({name: tensor.bfloat16() for name, tensor in clip.items()}, tmp_path / "b.safetensors")
    built = encoders.build(with_weights(tmp_path / "b.safetensors"), {"image", "text"})
    assert all(parameter.dtype == torch.bfloat16 for trunk in built.trunks.values() for parameter in trunk.parameters())
    assert built.encode_text(["a dog"]).dtype == torch.float32


def test_a_file_of_another_family_or_size_is_refused(clip, tmp_path):
    save_file(random_state("imagebind_tiny"), tmp_path / "imagebind.safetensors")
    save_file({name: tensor for name, tensor in clip.items() if "visual" in name}, tmp_path / "image.safetensors")
    save_file({**clip, "visual.proj": torch.zeros(32, 8)}, tmp_path / "narrow.safetensors")
    imagebind = encoders.load_config("imagebind_tiny").model_copy(
        update={"weights": str(tmp_path / "image.safetensors")}
    )
    with pytest.raises(WeightsError, match=r"image\.safetensors .*expected a checkpoint of ImageBind.*visual"):
        encoders.build(imagebind, {"audio"})
    with pytest.raises(
        WeightsError, match=r"image\.safetensors .*expected CLIP's text tower, got tensors named visual"
    ):
        encoders.build(with_weights(tmp_path / "image.safetensors"))
    assert encoders.build(with_weights(tmp_path / "image.safetensors"), {"image", "touch"}).trunks["vision"].packaged
    with pytest.raises(WeightsError, match=r"'visual.proj' has shape \[32, 8\], expected \[32, 32\]"):
        encoders.build(with_weights(tmp_path / "narrow.safetensors"), {"image"})


def test_nothing_is_read_before_all_of_a_file_is_known_to_fit(clip, tmp_path, monkeypatch):
    torch.save({**clip, "visual.proj": torch.zeros(32, 8)}, tmp_path / "narrow.pth")
    looked_up = []
    original = checkpoints.Checkpoint.__getitem__

    def note(self: checkpoints.Checkpoint, name: str) -> Tensor:
        looked_up.append(original(self, name))
        return looked_up[-1]

    monkeypatch.setattr(checkpoints.Checkpoint, "__getitem__", note)
    with pytest.raises(WeightsError, match=r"visual\.proj"):
        encoders.build(with_weights(tmp_path / "narrow.pth"), {"image"})
    assert looked_up and all(tensor.device.type == "meta" for tensor in looked_up)


def test_a_model_without_its_weights_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMNIBIND_WEIGHTS", str(tmp_path / "shelf"))
    with pytest.raises(
        WeightsError, match=r"nothing at .*open_clip_vit_b_32 or .*shelf/open_clip_vit_b_32.*OMNIBIND_WEIGHTS"
    ):
        encoders.build(encoders.load_config("open_clip_vit_b_32"), {"image"})
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "x.pth").touch()
    assert weights_path("/elsewhere/x.pth") == tmp_path / "shelf" / "x.pth"


# Commands


@pytest.mark.parametrize("family", TINY)
def test_spec_lists_what_the_encoders_have(family, capsys):
    config = encoders.load_config(TINY[family])
    said = json.loads(run(capsys, "weights", "spec", TINY[family], "--json"))
    state = random_state(TINY[family])
    rows = {name: row for trunk in said["trunks"].values() for name, row in trunk.items()}
    assert {name: row["shape"] for name, row in rows.items()} == {name: list(x.shape) for name, x in state.items()}
    assert said["numbers"] == sum(x.numel() for x in state.values())
    some = run(capsys, "weights", "spec", TINY[family], "--modalities", "text")
    trunk = config.modalities["text"].trunk
    assert len(some.splitlines()) == len(said["trunks"][trunk]) + 2 and f"# trunk {trunk} (text)" in some


def test_spec_of_the_largest_model_takes_no_memory(capsys):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = run(capsys, "weights", "spec", "open_clip_vit_h_14")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB; the model has 3.9 GB
    assert "# 686 tensors, 986,109,441 numbers, 3.94 GB" in said
    assert "visual.conv1.weight" in said and "[1280, 3, 14, 14]" in said


def test_spec_refuses_a_model_whose_weights_are_in_packages(capsys):
    assert "no trunk takes a weights file" in run(capsys, "weights", "spec", "lite", code=2)
    assert "no trunk of audio" in run(capsys, "weights", "spec", "open_clip_tiny", "--modalities", "audio", code=2)
    assert "no modality smell" in run(capsys, "weights", "spec", "open_clip_tiny", "--modalities", "smell", code=2)


@pytest.mark.parametrize("family", [*TINY, "unibind"])
def test_check_of_a_whole_file(family, capsys, tmp_path):
    state = random_state(TINY.get(family, "point_bind_tiny"))
    if family == "unibind":
        state |= {"mlp_for_image.weight": torch.zeros(32, 32), "mlp_for_image.bias": torch.zeros(32)}
    torch.save(state, tmp_path / "weights.pt")
    said = run(capsys, "weights", "check", tmp_path / "weights.pt", "--family", family)
    assert "does not fit" not in said and f"the model config {TINY.get(family, 'point_bind_tiny')}:" in said
    licence = "each checkpoint has a licence of its own" if family == "open_clip" else "CC-BY-NC"
    assert licence in next(line for line in said.splitlines() if line.startswith("licence:"))
    found = json.loads(run(capsys, "weights", "check", tmp_path / "weights.pt", "--family", family, "--json"))
    assert found["fits"] and found["family"] == family and found["extra"] == []
    assert sum(trunk["matching"] for trunk in found["trunks"].values()) == found["tensors"] - 2 * (family == "unibind")


def test_check_tells_what_is_missing_extra_and_mis_shaped(clip, capsys, tmp_path):
    state = {**clip, "visual.extra": torch.zeros(1), "text_projection": torch.zeros(8, 32)}
    del state["visual.ln_post.bias"]
    hidden = {**state, "text.mask": torch.zeros(1), "attn_mask": torch.zeros(77, 77)}
    save_file(hidden, tmp_path / "a.safetensors")
    command = ("weights", "check", tmp_path / "a.safetensors", "--family", "open_clip", "--config", "open_clip_tiny")
    found = json.loads(run(capsys, *command, "--json", code=1))
    vision, text = found["trunks"]["vision"], found["trunks"]["text"]
    assert vision["missing"] == ["visual.ln_post.bias"] and vision["unknown"] == ["visual.extra"]
    assert text["mis_shaped"] == {"text_projection": [[8, 32], [32, 32]]}
    assert found["extra"] == ["attn_mask", "text.mask"] and not found["fits"]
    said = run(capsys, *command, code=1)
    for line in (
        "missing: 1",
        "visual.ln_post.bias",
        "unknown: 1",
        "text_projection: found [8, 32], expected [32, 32]",
    ):
        assert line in said


def test_check_refuses_another_family_and_says_which(clip, capsys, tmp_path):
    assert set(weights._FAMILIES) == set(inspection.FAMILY_NAMES)
    save_file(clip, tmp_path / "clip.safetensors")
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    said = run(capsys, "weights", "check", tmp_path / "clip.safetensors", "--family", "unibind", code=2)
    assert "a checkpoint of CLIP" in said and "expected one of Point-Bind" in said
    said = run(capsys, "weights", "check", tmp_path / "other.safetensors", "--family", "open_clip", code=2)
    assert "of no known family (tensors named 'encoder.weight'" in said


@pytest.mark.parametrize("family", TINY)
def test_converted_weights_make_the_same_encoders_from_only_the_files_needed(family, capsys, tmp_path):
    config = encoders.load_config(TINY[family])
    torch.save(random_state(TINY[family]), tmp_path / "a.pt")
    out = tmp_path / "out"
    said = run(capsys, "weights", "convert", tmp_path / "a.pt", "--config", TINY[family], "--out", out)
    trunks = {name for name, part in config.trunks.items() if isinstance(part, FileTrunkConfig)}
    assert {path.stem for path in out.glob("*.safetensors")} == trunks and "licence: " in said
    with safe_open(out / "vision.safetensors", "pt") as file:
        assert file.metadata()["licence"] == inspection.licence_of(open_checkpoint(tmp_path / "a.pt"))
    (a, b) = (
        encoders.build(config.model_copy(update={"weights": str(path)}), {"image", "text"})
        for path in (tmp_path / "a.pt", out)
    )
    for name, tensor in a.trunks.state_dict().items():
        assert torch.equal(b.trunks.state_dict()[name], tensor), name
    assert a.trunks["vision"].fingerprint == b.trunks["vision"].fingerprint != ""


def test_convert_takes_only_what_is_asked_for_in_the_type_asked_for(clip, capsys, tmp_path):
    save_file(clip, tmp_path / "a.safetensors")
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("")
    command = (
        "weights",
        "convert",
        tmp_path / "a.safetensors",
        "--config",
        "open_clip_tiny",
        "--out",
        tmp_path / "out",
    )
    run(capsys, *command, "--modalities", "touch", "thermal", "--dtype", "bfloat16")
    names = {"vision.safetensors", INDEX, "vocab.json", "merges.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "vision.safetensors").values()} == {torch.bfloat16}
    run(capsys, *command)  # our own folder is replaced
    assert (tmp_path / "out" / "text.safetensors").is_file()
    (tmp_path / "out" / "thesis.pdf").touch()
    assert "thesis.pdf, which would be lost" in run(capsys, *command, code=2)


def test_convert_refuses_what_does_not_fit_and_writes_nothing(clip, capsys, tmp_path):
    save_file({name: tensor for name, tensor in clip.items() if "visual" in name}, tmp_path / "a.safetensors")
    command = ("weights", "convert", tmp_path / "a.safetensors", "--out", tmp_path / "out", "--config")
    said = run(capsys, *command, "open_clip_tiny", code=2)
    assert "does not fit the trunk 'open_clip_text': expected CLIP's text tower" in said
    said = run(capsys, *command, "open_clip_vit_b_32", "--modalities", "image", code=2)
    assert "'visual.transformer.resblocks.10.ln_2.bias' is missing" in said and "more" in said
    assert "expected CLIP's" in run(capsys, *command, "open_clip_tiny", "--modalities", "text", code=2)
    assert not (tmp_path / "out").exists()


def test_imagebind_and_open_clip_are_converted_into_each_other(capsys, tmp_path):
    """The image and text towers of both tiny models have the same sizes, as those of the published ones have."""
    imagebind = random_state("imagebind_tiny")
    torch.save(imagebind, tmp_path / "imagebind.pth")
    there = ("--config", "open_clip_tiny", "--out", tmp_path / "clip")
    assert "CC-BY-NC" in run(capsys, "weights", "convert", tmp_path / "imagebind.pth", *there)
    assert "CC-BY-NC" in run(capsys, "weights", "check", tmp_path / "clip", "--family", "open_clip")
    back = ("--config", "imagebind_tiny", "--out", tmp_path / "back")
    said = run(capsys, "weights", "convert", tmp_path / "clip", *back, code=2)
    assert "the modalities text, vision, expected 'audio'" in said
    run(capsys, "weights", "convert", tmp_path / "clip", *back, "--modalities", "image", "text")
    found = {**load_file(tmp_path / "back" / "vision.safetensors"), **load_file(tmp_path / "back" / "text.safetensors")}
    stem, mask = "modality_preprocessors.vision.rgbt_stem.proj.1.weight", "modality_preprocessors.text.mask"
    assert set(found) == {name for name in imagebind if name.split(".")[1] in ("vision", "text")}
    for name in set(found) - {stem, mask}:
        assert torch.equal(found[name], imagebind[name]), name
    torch.testing.assert_close(found[stem].sum(dim=2), imagebind[stem].sum(dim=2))

    # Both make the same embeddings, but for the epsilon of their LayerNorms.
    a, b = (
        encoders.build(encoders.load_config(name).model_copy(update={"weights": str(path)}), {"image", "text"})
        for name, path in (("imagebind_tiny", tmp_path / "back"), ("open_clip_tiny", tmp_path / "clip"))
    )
    views = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        for one, other in (
            (
                a.embed("image", a.features("vision", views, [1, 1])),
                b.embed("image", b.features("vision", views, [1, 1])),
            ),
            (a.encode_text(["a dog", "cups"]), b.encode_text(["a dog", "cups"])),
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_a_saved_model_names_its_weights_and_loads_only_those_asked_for(clip, tmp_path, monkeypatch):
    save_file(clip, tmp_path / "clip.safetensors")
    with_file = tmp_path / "shards"
    with_file.mkdir()
    inspection.convert(
        open_checkpoint(tmp_path / "clip.safetensors"), encoders.load_config("open_clip_tiny"), with_file
    )
    config = with_weights(with_file)
    model = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))
    model.set_labels(("cup", "dog"))
    model.save_pretrained(tmp_path / "model")
    read: list[str] = []
    original = checkpoints.Checkpoint.__getitem__
    monkeypatch.setattr(
        checkpoints.Checkpoint, "__getitem__", lambda self, name: read.append(name) or original(self, name)
    )
    part = OmniBind.from_pretrained(tmp_path / "model", modalities={"text"})
    assert part.modalities == ("text",) and read and not any(name.startswith("visual.") for name in read)
    torch.testing.assert_close(part.embed_text(["a dog"]), model.embed_text(["a dog"]))
