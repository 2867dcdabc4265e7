"""``omnibind predict`` on real files with the tiny model."""

from __future__ import annotations

import argparse
import json

import cv2
import numpy as np
import pytest
import torch

from omnibind_core import OmniBind, encoders, fusion, modalities
from omnibind_core.commands import predict
from omnibind_core.errors import ConfigError, OmniBindError

LABELS = ("cup", "dog", "car", "rain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved tiny model and one file of every modality but text."""
    soundfile = pytest.importorskip("soundfile")
    root = tmp_path_factory.mktemp("predict")
    torch.manual_seed(0)
    config = encoders.load_config("tiny")
    model = OmniBind(config, encoders.build(config), fusion.build(config.embed_dim, config.fusion))
    model.set_labels(LABELS)
    model.save_pretrained(root / "model")
    rng = np.random.default_rng(0)
    for name in ("image", "touch"):
        cv2.imwrite(str(root / f"{name}.png"), rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    np.save(root / "thermal.npy", rng.uniform(20, 35, (48, 64)).astype(np.float32))
    np.save(root / "point_cloud.npy", rng.standard_normal((2000, 3)).astype(np.float32))
    x, y, p = (rng.integers(0, high, 500) for high in (128, 128, 2))
    np.savez(
        root / "event.npz",
        **{"x": x.astype(np.uint16), "y": y.astype(np.uint16), "p": p.astype(np.uint8)},
        t=np.sort(rng.integers(0, 200_000, 500)),
        width=128,
        height=128,
    )
    soundfile.write(root / "audio.wav", rng.uniform(-0.5, 0.5, 16000).astype(np.float32), 16000)
    (root / "bad.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def run(folder, monkeypatch):
    """Runs the sub-command in the folder of the files."""
    monkeypatch.chdir(folder)

    def call(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        predict.add_parser(parser.add_subparsers())
        args = parser.parse_args(["predict", "--model", str(folder / "model"), *arguments])
        return args.run(args)

    return call


EVERYTHING = (
    *("--image", "image.png", "--audio", "audio.wav", "--point-cloud", "point_cloud.npy", "--touch", "touch.png"),
    *("--thermal", "thermal.npy", "--event", "event.npz", "--text", "a red cup"),
)


def test_all_modalities_as_json(run, capsys):
    assert run(*EVERYTHING, "--json", "--top-k", "3") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"].startswith("tiny@")
    assert [item["modality"] for item in result["inputs"]] == list(modalities.NAMES)
    assert sum(item["weight"] for item in result["inputs"]) == pytest.approx(1, abs=1e-5)
    for part in (result, *result["inputs"]):
        scores = [entry["score"] for entry in part["top"]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert part["confidence"] == scores[0]
        assert part["label"] in ("", part["top"][0]["label"])
    assert 0 < result["conflict"] <= 1  # a model that has learnt nothing, and seven labels
    assert result["rejected"] == []


def test_help_lists_the_files_of_every_modality(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100000")
    parser = argparse.ArgumentParser()
    predict.add_parser(commands := parser.add_subparsers())
    text = commands.choices["predict"].format_help()
    for name in set(modalities.NAMES) - {"text"}:
        assert f"{name.replace('_', ' ')} file: {modalities.get(name).formats()}\n" in text
    assert "with open3d: .pcd" in text


def test_single_input_is_the_fusion(run, capsys):
    assert run("--image", "image.png", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["inputs"][0]["weight"] == pytest.approx(1)


def test_table_names_every_input_and_label(run, capsys):
    assert run("--image", "image.png", "image.png", "--image", "image.png", "--text", "a dog") == 0
    out = capsys.readouterr().out
    assert out.count("image.png") == 3
    assert "a dog" in out
    assert all(label in out for label in LABELS)


def test_own_vocabulary_as_list_and_as_file(run, folder, capsys):
    (folder / "names.txt").write_text("# mine\nfire truck\n\nwhistle\n", encoding="utf-8")
    for source in ("fire truck, whistle", "names.txt"):
        assert run("--text", "fire truck", "--labels", source, "--json") == 0
        result = json.loads(capsys.readouterr().out)
        assert {entry["label"] for entry in result["top"]} == {"fire truck", "whistle"}


def test_own_vocabulary_with_descriptions(run, folder, capsys):
    (folder / "names.yaml").write_text("fire truck: [a red car with a ladder]\nwhistle:\n", encoding="utf-8")
    scores = []
    for source in ("fire truck, whistle", "names.yaml"):
        assert run("--text", "fire truck", "--labels", source, "--json", "--top-k", "2") == 0
        result = json.loads(capsys.readouterr().out)
        scores.append({entry["label"]: entry["score"] for entry in result["top"]})
    assert scores[0].keys() == scores[1].keys() == {"fire truck", "whistle"}
    assert scores[0] != scores[1]


def test_words_that_the_text_tower_hardly_knows_are_said_once(run, monkeypatch, capsys):
    monkeypatch.setattr(
        predict, "strange_words", lambda names, known: [name for name in names if name not in known][:2]
    )
    assert run("--text", "a cup", "--labels", "Tasse,cup,Hund") == 0
    err = capsys.readouterr().err
    assert err.count("hardly knows Tasse, Hund; an English description") == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.txt", "missing.txt"),
        (" , ", "no name"),
        ("bad.bin", "UTF-8"),
        ("mylabels", "no file 'mylabels', and one name is no vocabulary"),
        ("dog;cat;car", "';' between, expected commas"),
        ("dog|cat", "'|' between".replace("|", r"\|")),
        ("dog,", "holds one name"),
        ("one.txt", "holds one name"),
        ("semicolons.txt", "';' between"),
        ("one.yaml", "holds one name"),
    ],
)
def test_unusable_vocabulary(run, folder, source, message):
    (folder / "bad.bin").write_bytes(b"\xff\xfe\xfa")
    (folder / "one.txt").write_text("dog\n\n", encoding="utf-8")
    (folder / "semicolons.txt").write_text("dog;cat;car\n", encoding="utf-8")
    (folder / "one.yaml").write_text("dog: [an animal]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        run("--text", "cup", "--labels", source)


def test_every_bad_file_is_named(run, capsys):
    assert run("--image", "bad.png", "image.png", "--audio", "missing.wav", "--text", " ") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 3
    assert "bad.png" in err
    assert "missing.wav" in err
    assert "--text" in err


def test_keep_going_uses_the_good_ones(run, capsys):
    assert run("--keep-going", "--image", "bad.png", "image.png", "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert [item["source"] for item in result["inputs"]] == ["image.png"]
    assert [item["source"] for item in result["rejected"]] == ["bad.png"]
    assert "bad.png" in err
    assert run("--keep-going", "--image", "bad.png") == 2


def test_unknown_below_the_threshold(run, capsys, monkeypatch):
    load = predict.load_model

    def strict(*args):
        model = load(*args)
        model.threshold = 1.01
        return model

    monkeypatch.setattr(predict, "load_model", strict)
    assert run("--image", "image.png") == 0
    assert capsys.readouterr().out.startswith("unknown (nearest: ")
    assert run("--image", "image.png", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["label"], result["unknown"]) == ("", True)
    assert result["inputs"][0]["unknown"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--image"),
        (("--image", "image.png", "--device", "warp"), "warp"),
        (("--image", "image.png", "--model", "nowhere"), "nowhere"),
    ],
)
def test_wrong_use_is_explained(run, arguments, message):
    with pytest.raises(OmniBindError, match=message):
        run(*arguments)


def test_numbers_must_be_positive(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--image", "image.png", "--top-k", "0")
    assert stop.value.code == 2
    assert "--top-k" in capsys.readouterr().err


def test_what_says_nothing_is_told_and_left_out(run, folder, capsys):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(folder / "silence.wav", np.zeros(16000, np.float32), 16000)
    assert run("--image", "image.png", "--audio", "silence.wav", "--json") == 0
    captured = capsys.readouterr()
    assert "[silence.wav] nothing to say: silence, the loudest sample 0 of" in captured.err
    image, sound = json.loads(captured.out)["inputs"]
    assert image["weight"] == pytest.approx(1) and image["doubt"] is None and image["without"] is None
    assert sound["weight"] == 0 and sound["unknown"] and sound["doubt"].startswith("nothing to say")
    assert run("--audio", "silence.wav") == 0
    table = capsys.readouterr().out
    assert table.startswith("unknown (no input says anything)") and "nothing to say" in table


def test_16_bit_pictures_are_stretched_and_depth_is_told(run, folder, capsys):
    rng = np.random.default_rng(0)
    light = rng.integers(0, 1024, (60, 80)).astype(np.uint16)
    depth = np.where(rng.random((60, 80)) < 0.2, 0, rng.integers(900, 4000, (60, 80))).astype(np.uint16)
    cv2.imwrite(str(folder / "ten_bits.png"), light)
    cv2.imwrite(str(folder / "depth.png"), depth)
    picture = modalities.get("image").load(folder / "ten_bits.png")
    assert picture.shape == (60, 80, 3) and picture.max() == 255
    np.testing.assert_allclose(picture[..., 1], light * (255 / 1023), atol=0.51)
    assert run("--image", "ten_bits.png", "depth.png", "--json") == 0
    captured = capsys.readouterr()
    assert "ten_bits" not in captured.err
    assert "[depth.png] implausible: values 9" in captured.err and "zeros: distances in mm" in captured.err


def test_a_folder_stands_for_its_files_and_each_is_a_thing_of_its_own(run, folder, capsys):
    (folder / "photos" / "deeper").mkdir(parents=True)
    (folder / "photos" / "notes.txt").write_text("no picture")
    for name in ("b.png", "a.PNG"):
        (folder / "photos" / name).write_bytes((folder / "image.png").read_bytes())
    cv2.imwrite(str(folder / "photos" / "c.png"), np.zeros((20, 20, 3), np.uint8))
    assert run("--each", "--image", "photos", "--audio", "audio.wav", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert "label" not in result and "top" not in result
    *pictures, black, sound = result["inputs"]
    assert [item["source"] for item in result["inputs"]] == [
        "photos/a.PNG",
        "photos/b.png",
        "photos/c.png",
        "audio.wav",
    ]
    assert run("--image", "image.png", "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    for item in pictures:
        assert item["confidence"] == pytest.approx(alone["confidence"], abs=1e-5)
        assert (item["weight"], item["without"], item["top"][0]["label"]) == (1, None, alone["top"][0]["label"])
    assert black["unknown"] and black["weight"] == 0 and sound["weight"] == 1
    assert run("--each", "--image", "photos") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("input") and len(lines) == 4
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty has no point_cloud file, expected .*\.npz.*open3d"):
        run("--point-cloud", "empty")


def test_many_files_are_read_in_parts(run, capsys, monkeypatch):
    monkeypatch.setattr(predict, "_BATCH", 2)
    assert run(*EVERYTHING, "--json") == 0
    parts = json.loads(capsys.readouterr().out)
    assert [item["modality"] for item in parts["inputs"]] == list(modalities.NAMES)
    monkeypatch.setattr(predict, "_BATCH", 99)
    assert run(*EVERYTHING, "--json") == 0
    assert json.loads(capsys.readouterr().out)["confidence"] == pytest.approx(parts["confidence"], abs=1e-5)
    monkeypatch.setattr(predict, "_BATCH", 2)
    assert run("--image", "image.png", "image.png", "bad.png", "--audio", "missing.wav") == 2
    out, err = capsys.readouterr()
    assert out == "" and "bad.png" in err and "missing.wav" in err
    assert run("--keep-going", "--image", "bad.png", "image.png", "image.png", "image.png", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["inputs"]) == 3


def test_embeddings_are_written(run, folder, tmp_path, capsys):
    path = tmp_path / "new" / "out.npz"
    assert run(*EVERYTHING, "--embeddings", str(path), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    model = OmniBind.from_pretrained(folder / "model")
    with np.load(path) as found:
        assert str(found["model"]) == result["model"]
        assert found["modality"].tolist() == [item["modality"] for item in result["inputs"]]
        assert found["source"].tolist() == [item["source"] for item in result["inputs"]]
        assert found["doubt"].tolist() == [""] * 7
        rows, fused = found["embeddings"], found["fused"]
    np.testing.assert_allclose(rows[1], model.embed_text(["a red cup"])[0].numpy(), atol=1e-5)
    recognised = model.recognise(list(modalities.NAMES), rows)
    np.testing.assert_allclose(recognised.embedding, fused, atol=1e-5)
    assert run("--each", "--image", "image.png", "--embeddings", str(path)) == 0
    with np.load(path) as found:
        assert found["embeddings"].shape == (1, model.config.embed_dim) and "fused" not in found
    with pytest.raises(ConfigError, match=r"out\.csv', expected a file name that ends in \.npz"):
        run("--image", "image.png", "--embeddings", "out.csv")


def test_units_of_the_numbers_in_files(run, folder, capsys):
    cv2.imwrite(str(folder / "skin.png"), np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16))
    assert run("--touch", "skin.png") == 2
    assert "[skin.png] got uint16 up to 40" in capsys.readouterr().err
    assert run("--touch", "skin.png", "--unit", "touch.full_scale=4095", "--unit", "point-cloud.scale=0.001") == 0
    for unit, message in (
        ("full_scale=3", "expected MODALITY.UNIT=VALUE"),
        ("touch.metres=3", "touch has no unit 'metres'; it has full_scale, scale, offset"),
        ("smell.scale=3", "unknown modality 'smell'"),
    ):
        with pytest.raises(ConfigError, match=message):
            run("--touch", "skin.png", "--unit", unit)


def test_units_that_are_words_and_those_that_are_numbers() -> None:
    given = ["event.time_unit=ns", "event.width=640", "point-cloud.scale=0.001"]
    expected = {"event": {"time_unit": "ns", "width": 640.0}, "point_cloud": {"scale": 0.001}}
    assert predict.read_units(given) == expected


def test_hidden_files_of_a_folder_are_left_out(tmp_path) -> None:
    for name in ("a.PNG", "._a.png", ".b.jpg", "c.txt"):
        (tmp_path / name).touch()
    assert predict._files("image", str(tmp_path)) == [str(tmp_path / "a.PNG")]


def test_pressures_in_another_unit_take_a_scale(run, folder, capsys):
    kilopascal = np.zeros((16, 16))
    kilopascal[4:9, 5:12] = 32.0
    np.save(folder / "kpa.npy", kilopascal)
    np.savetxt(folder / "share.csv", kilopascal / 40, delimiter=",")
    assert run("--touch", "kpa.npy") == 2
    assert "255 / the pressure at full scale" in capsys.readouterr().err
    assert run("--touch", "kpa.npy", "--unit", "touch.full_scale=40", "--json") == 0
    scaled = json.loads(capsys.readouterr().out)["inputs"][0]["top"]
    assert run("--touch", "share.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out)["inputs"][0]["top"] == scaled


def test_hundredths_of_a_kelvin_take_the_scale_that_the_doubt_names(run, folder, capsys):
    cv2.imwrite(str(folder / "kelvin.tif"), np.linspace(29000, 31000, 3072).reshape(48, 64).astype(np.uint16))
    assert run("--thermal", "kelvin.tif") == 0
    assert "scale: 0.01, offset: -273.15" in capsys.readouterr().err
    assert run("--thermal", "kelvin.tif", "--unit", "thermal.scale=0.01", "--unit", "thermal.offset=-273.15") == 0
    assert "implausible" not in capsys.readouterr().err
