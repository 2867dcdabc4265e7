"""Sources: small trees in exactly the published layouts, real files where there are some, and what can be wrong."""

from __future__ import annotations

import argparse
import csv
import json
import os
import pickle
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
import yaml

from omnibind_core.commands import data as command
from omnibind_core.data import contact_sheet, sources
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources import llvip, touch_and_go
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.data.sources.imagenet import class_names
from omnibind_core.errors import ConfigError, DataError, InvalidInputError

TENCH, GOLDFISH, CRANE, MACHINE = "n01440764", "n01443537", "n02012849", "n03126707"


# Writing files as they are published.


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jpeg(path: Path, value: int = 128, size: tuple[int, int] = (24, 32)) -> Path:
    picture = np.full((*size, 3), value, np.uint8)
    picture[: size[0] // 2, : size[1] // 2] = 255 - value
    return write(path, cv2.imencode(".jpg", picture)[1].tobytes())


def wav(path: Path, seconds: float = 0.2, rate: int = 44100, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, tone, rate, subtype=subtype)
    return path


def atis(path: Path, count: int = 200) -> Path:
    rng = np.random.default_rng(count)
    t = np.sort(rng.integers(0, 300_000, count))
    x, y, p = rng.integers(0, 234, count), rng.integers(0, 174, count), rng.integers(0, 2, count)
    events = b"".join(
        struct.pack(">BBI", a, b, int(c) << 31 | int(d) << 8)[:5] for a, b, c, d in zip(x, y, p, t, strict=True)
    )
    return write(path, events)


def npz_events(path: Path, count: int = 200, **fields: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    rows = np.zeros(count, [("x", "<u2"), ("y", "<u2"), ("t", "<u8"), ("p", "?")])
    rows["x"], rows["y"], rows["p"] = rng.integers(0, 640, count), rng.integers(0, 480, count), rng.random(count) < 0.5
    rows["t"] = np.sort(rng.integers(0, 50_000, count))
    np.savez_compressed(path, **(fields or {"event_data": rows}))
    return path


def all_of(source: sources.Source, **kind: str) -> list[Sample]:
    return list(source.samples(**kind))


def by_split(source: sources.Source) -> dict[str, int]:
    return dict(Counter(sample.split for sample in source.samples()))


def split_of_groups(source: sources.Source) -> dict[str, str]:
    found: dict[str, str] = {}
    for sample in source.samples():
        assert found.setdefault(sample.group, sample.split) == sample.split
    return found


# Trees, one per source.


def imagenet_tree(root: Path) -> Path:
    for wnid, numbers in ((TENCH, (10026, 10027)), (GOLDFISH, (998,)), (CRANE, (1,)), (MACHINE, (5,))):
        for number in numbers:
            jpeg(root / "train" / wnid / f"{wnid}_{number}.JPEG")
    for number in (1, 2, 3):
        jpeg(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    # The kit's numbers follow no common order, and it also lists inner nodes of the hierarchy.
    classes = [(1, GOLDFISH, 0), (2, TENCH, 0), (3, CRANE, 0), (1001, "n00001740", 40)]
    rows = np.zeros((len(classes), 1), [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")])
    for row, (number, wnid, children) in zip(rows[:, 0], classes, strict=True):
        row["ILSVRC2012_ID"], row["WNID"], row["words"], row["num_children"] = number, wnid, "words", children
    kit.mkdir(parents=True)
    pytest.importorskip("scipy.io").savemat(kit / "meta.mat", {"synsets": rows})
    write(kit / "ILSVRC2012_validation_ground_truth.txt", "2\n3\n1\n")
    return root


def caltech_tree(root: Path, counts: dict[str, int] | None = None) -> Path:
    for folder, count in (counts or {"BACKGROUND_Google": 3, "Faces": 6, "Faces_easy": 6, "anchor": 5}).items():
        for number in range(1, count + 1):
            jpeg(root / "101_ObjectCategories" / folder / f"image_{number:04d}.jpg")
    write(root / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp", "not a picture")
    return root


def shapenet_tree(root: Path) -> Path:
    write(root / "synsetoffset2category.txt", "Airplane\t02691156\nBag\t02773838\nMug\t03797390\n")
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for i, split in enumerate(("train", "train", "val", "test")):
        for offset in ("02691156", "03797390"):
            rows = np.column_stack([rng.normal(size=(20, 6)), np.full(20, 2.0)])
            text = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in rows)
            write(root / offset / f"model{i}.txt", text + "\n")
            lists[split].append(f"shape_data/{offset}/model{i}")
    for split, entries in lists.items():
        write(root / "train_test_split" / f"shuffled_{split}_file_list.json", json.dumps(entries))
    return root


def esc_tree(root: Path) -> Path:
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, category, esc10 in ((0, "dog", True), (1, "crying_baby", False)):
            for take in "AB":  # two clips of one recording
                name = f"{fold}-{1000 * fold + target}-{take}-{target}.wav"
                lines.append(f"{name},{fold},{target},{category},{esc10},{1000 * fold + target},{take}")
                wav(root / "audio" / name)
    write(root / "meta" / "esc50.csv", "\n".join(lines) + "\n")
    return root


def urban_tree(root: Path) -> Path:
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in range(1, 11):
        for piece in (0, 1):
            name = f"{500 + fold}-3-0-{piece}.wav"
            lines.append(f"{name},{500 + fold},0.0,0.2,1,{fold},3,dog_bark")
            wav(root / "audio" / f"fold{fold}" / name, rate=48000, subtype="PCM_24")
    write(root / "metadata" / "UrbanSound8K.csv", "\n".join(lines) + "\n")
    return root


def voc(persons: list[tuple[int, int, int, int]], size: tuple[int, int] = (320, 256)) -> str:
    things = "".join(
        "<object><name>person</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in persons
    )
    return (
        "<annotation><folder>infrared</folder><filename>x.jpg</filename><size>"
        f"<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size><segmented>0</segmented>{things}"
        "</annotation>"
    )


def llvip_tree(root: Path) -> Path:
    persons = [(20, 30, 50, 110), (200, 100, 240, 220), (300, 10, 309, 60)]  # the last one is 9 pixels wide
    for split, stems in (("train", ("010001", "010002", "020001")), ("test", ("190001",))):
        for stem in stems:
            for folder, value in (("infrared", 200), ("visible", 30)):
                jpeg(root / folder / split / f"{stem}.jpg", value, (256, 320))
            write(root / "Annotations" / f"{stem}.xml", voc(persons))
    return root


def n_imagenet_tree(root: Path) -> Path:
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for split, wnid, name in (
        ("train", TENCH, f"{TENCH}_10026"),
        ("train", GOLDFISH, f"{GOLDFISH}_998"),
        ("val", TENCH, "ILSVRC2012_val_00000001"),
    ):
        npz_events(root / f"extracted_{split}" / wnid / f"{name}.npz")
        lists[split].append(f"/home/someone/Datasets/N_Imagenet/extracted_{split}/{wnid}/{name}.npz")
    for split, lines in lists.items():
        write(root / f"{split}_list.txt", "\n".join(lines) + "\n")
    return root


def n_caltech_tree(root: Path) -> Path:
    for folder, count in {"BACKGROUND_Google": 3, "Faces_easy": 6, "anchor": 5}.items():
        for number in range(1, count + 1):
            atis(root / "Caltech101" / folder / f"image_{number:04d}.bin", 50 + number)
    return root


def touch_tree(root: Path) -> Path:
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(10):
        video, label = f"20220410_0316{number:02d}", number % 2 * 8
        for frame in range(6):
            name = f"{frame:010d}.jpg"
            for folder in ("video_frame", "gelsight_frame"):
                jpeg(root / "dataset" / video / folder / name)
            # The official lists divide frames: every video is in both.
            lines["test" if frame == 5 else "train"].append(f"{video}/{name},{-1 if frame == 0 else label}")
    for split, found in lines.items():
        write(root / "dataset" / f"{split}.txt", "\n".join(found) + "\n")
    return root


def folder_tree(root: Path) -> Path:
    jpeg(root / "a.jpg")
    return write(
        root / "samples.csv", "id,modality,source,path,label,split,group\na,image,s,a.jpg,cup,train,g\n"
    ).parent


TREES = {
    "folder": folder_tree,
    "imagenet": imagenet_tree,
    "caltech101": caltech_tree,
    "shapenet_part": shapenet_tree,
    "esc50": esc_tree,
    "urbansound8k": urban_tree,
    "llvip": llvip_tree,
    "n_imagenet": n_imagenet_tree,
    "n_caltech101": n_caltech_tree,
    "touch_and_go": touch_tree,
}


# What holds for all of them.


@pytest.mark.parametrize("name", sources.BUILT_IN)
def test_every_source_lists_reads_and_repeats(name: str, tmp_path: Path) -> None:
    source = sources.create(name, TREES[name](tmp_path))
    kind = sources.get(name)
    assert kind.name == name and kind.title and kind.licence and kind.layout
    if name != "folder":
        assert kind.homepage.startswith("https://") and kind.citation
    samples = all_of(source)
    assert samples == list(source) == list(sources.create(name, tmp_path))
    assert len(source) == len(samples) and source[len(samples) // 2] == samples[len(samples) // 2]
    assert len({sample.id for sample in samples}) == len(samples)
    assert {sample.modality for sample in samples} <= set(kind.modalities)
    assert {sample.split for sample in samples} <= set(kind.splits)
    for sample in samples:
        assert sample.label == sample.label.lower() and "_" not in sample.label and sample.group
        assert source.path(sample).is_file()
        assert source.load(sample) is not None
        if name != "folder":
            assert sample.source == name
    some = samples[0]
    assert all_of(source, split=some.split, modality=some.modality) == [
        sample for sample in samples if (sample.split, sample.modality) == (some.split, some.modality)
    ]
    found = source.inspect(read=True)
    assert sum(found.counts.values()) == len(samples)
    assert not found.broken and not found.problems and not found.unusable
    assert pickle.loads(pickle.dumps(samples)) == samples
    split_of_groups(source)


@pytest.mark.parametrize("name", sources.BUILT_IN)
def test_missing_folder_and_wrong_layout_say_what_was_expected(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder") as caught:
        sources.create(name, tmp_path / "nowhere")
    assert sources.get(name).layout in str(caught.value)
    write(tmp_path / "wrong" / "readme.txt", "nothing here")
    with pytest.raises(DataError, match=r"is missing|holds no") as caught:
        sources.create(name, tmp_path / "wrong")
    assert str(tmp_path / "wrong") in str(caught.value)


def test_every_module_is_registered() -> None:
    folder = Path(sources.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert modules == set(sources.BUILT_IN) == set(TREES)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets the plug-ins of a test."""
    before, modules = dict(sources.base.registered), set(sys.modules)
    monkeypatch.delenv(sources.PLUGINS_VARIABLE, raising=False)
    sources._discover.cache_clear()
    yield
    sources.base.registered.clear()
    sources.base.registered.update(before)
    sources._entries.clear()
    sources._discover.cache_clear()
    for name in set(sys.modules) - modules:
        if name.startswith(("omnibind_source_", "plugin_of_")):
            del sys.modules[name]


def documented_plugin() -> str:
    """The example in the documents."""
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    return text.partition("## A data set of your own format")[2].partition("```python\n")[2].partition("```")[0]


def plugin_tree(root: Path) -> Path:
    for name in ("spoon_1", "spoon_2", "fork_1"):
        jpeg(root / "pictures" / f"{name}.jpg")
    return root


def test_plugin_file_is_loaded_by_a_call(tmp_path: Path, registry: None, capsys: pytest.CaptureFixture[str]) -> None:
    root = plugin_tree(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"unknown source 'kitchen'; known are caltech101, .*OMNIBIND_SOURCES=FILE"):
        sources.create("kitchen", root)
    with pytest.raises(ConfigError, match="unknown source 'kitchen'"):
        inspect("kitchen", str(root))
    file = write(tmp_path / "plugins" / "kitchen.py", documented_plugin())
    sources.load_plugin(file)
    sources.load_plugin(tmp_path / "plugins")  # the same file again
    assert sources.names() == (*sources.BUILT_IN, "kitchen")
    source = sources.create("kitchen", root, {"size": "small"})
    assert [(x.id, x.label, x.source) for x in source] == [
        ("fork_1", "fork", "kitchen"),
        ("spoon_1", "spoon", "kitchen"),
        ("spoon_2", "spoon", "kitchen"),
    ]
    assert source.load(source[0]).shape == (24, 32, 3)
    with pytest.raises(ConfigError, match="'kitchen' has no option 'colour'; it has size, val_share, exclude, seed"):
        sources.create("kitchen", root, {"colour": "red"})
    assert inspect("kitchen", str(root), "--read") == 0
    assert "3 samples, 0 files missing or broken, 3 fine" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["file", "folder", "module"])
def test_plugin_is_named_by_the_environment(how: str, tmp_path: Path) -> None:
    root = plugin_tree(tmp_path / "data")
    file = write(tmp_path / "plugins" / "plugin_of_mine.py", documented_plugin())
    place = {"file": str(file), "folder": str(file.parent), "module": "plugin_of_mine"}[how]
    code = (
        "from omnibind_core.data import sources\n"
        f"print(sources.names()[-1], len(sources.create('kitchen', {str(root)!r})))"
    )
    paths = os.pathsep.join([str(file.parent), *filter(None, sys.path)])
    env = {**os.environ, "OMNIBIND_SOURCES": place, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["kitchen", "3"]


def test_plugin_of_an_installed_package(tmp_path: Path, registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "site" / "plugin_of_a_package.py", documented_plugin())
    facts = tmp_path / "site" / "kitchen-1.0.dist-info"
    write(facts / "METADATA", "Metadata-Version: 2.1\nName: kitchen\nVersion: 1.0\n")
    write(facts / "entry_points.txt", "[omnibind.sources]\nkitchen = plugin_of_a_package\nfork = plugin_of_a_package\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert sources.names()[-2:] == ("kitchen", "fork") and "plugin_of_a_package" not in sys.modules
    assert len(sources.create("kitchen", plugin_tree(tmp_path / "data"))) == 3
    with pytest.raises(ConfigError, match="plugin_of_a_package: it registers no source 'fork'"):
        sources.get("fork")


def test_plugins_that_cannot_be_used_say_why(tmp_path: Path, registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = documented_plugin()
    for name, text, problem in (
        ("broken", "1 / 0", "cannot be imported: ZeroDivisionError"),
        ("silent", "", "it registers no source"),
        ("taken", whole.replace('"kitchen"', '"esc50"'), "'esc50' is built in"),
        ("spelled", whole.replace('"kitchen"', '"My Kitchen"'), "expected small letters"),
        ("bare", whole.replace("    title", "    heading"), "lacks title"),
        ("idle", whole.replace("def _scan", "def _list"), "lacks _scan"),
        ("late", whole + "\n1 / 0\n", "cannot be imported: ZeroDivisionError"),
    ):
        file = write(tmp_path / f"{name}.py", text)
        with pytest.raises(ConfigError, match=problem) as caught:
            sources.load_plugin(file)
        assert str(file) in str(caught.value)
        assert sources.names() == sources.BUILT_IN
    for place in (tmp_path / "none.py", "no_such_module_of_sources"):
        with pytest.raises(ConfigError, match=str(place)):
            sources.load_plugin(place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no Python files"):
        sources.load_plugin(tmp_path / "empty")
    sources.load_plugin(write(tmp_path / "one" / "mine.py", whole))
    with pytest.raises(ConfigError, match="is already omnibind_source_mine"):
        sources.load_plugin(write(tmp_path / "other.py", whole))
    with pytest.raises(ConfigError, match="of that file name"):
        sources.load_plugin(write(tmp_path / "two" / "mine.py", whole))
    sources._discover.cache_clear()
    monkeypatch.setenv(sources.PLUGINS_VARIABLE, str(tmp_path / "broken.py"))
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        sources.names()


def test_options_are_checked(tmp_path: Path) -> None:
    esc_tree(tmp_path)
    with pytest.raises(ConfigError, match="unknown source 'esc'"):
        sources.create("esc", tmp_path)
    with pytest.raises(
        ConfigError, match="no option 'fold'; it has esc10, val_folds, test_folds, val_share, exclude, seed"
    ):
        sources.create("esc50", tmp_path, {"fold": 1})
    for values in (
        {"esc10": "yes"},
        {"esc10": 1},
        {"val_folds": 4},
        {"val_folds": ["4"]},
        {"seed": True},
        {"exclude": "a"},
    ):
        with pytest.raises(ConfigError, match="expected a"):
            sources.create("esc50", tmp_path, values)
    for values in ({"val_folds": [6]}, {"val_folds": [5]}, {"val_share": 1.0}):
        with pytest.raises(ConfigError, match="esc50"):
            sources.create("esc50", tmp_path, values)
    assert by_split(sources.create("esc50", tmp_path, {"val_folds": [], "test_folds": [2]})) == {"train": 16, "test": 4}


def test_ids_and_groups_can_be_left_out(tmp_path: Path) -> None:
    esc_tree(tmp_path)
    source = sources.create("esc50", tmp_path, {"exclude": ["1-1000-A-0", "freesound/2000"]})
    assert len(source) == 17
    assert "1-1000-B-0" in {s.id for s in source} and "freesound/2000" not in {s.group for s in source}


def test_a_share_of_the_training_groups_becomes_val(tmp_path: Path) -> None:
    esc_tree(tmp_path)
    values: dict[str, Any] = {"val_folds": [], "test_folds": [5], "val_share": 0.4}
    source = sources.create("esc50", tmp_path, values)
    counts = by_split(source)
    assert counts["test"] == 4 and counts["val"] > 0 and counts["train"] > 0
    groups = split_of_groups(source)
    assert groups == split_of_groups(sources.create("esc50", tmp_path, values))
    assert groups != split_of_groups(sources.create("esc50", tmp_path, {**values, "seed": 3}))


# What each of them means.


def test_imagenet_val_by_the_development_kit(tmp_path: Path) -> None:
    source = sources.create("imagenet", imagenet_tree(tmp_path))
    val = {sample.id: sample.label for sample in source.samples(split="val")}
    assert list(val.values()) == ["tench", "crane", "goldfish"]
    assert {s.label for s in source.samples(split="train")} == {"tench", "goldfish", "crane", "construction crane"}
    assert len(class_names()) == len(set(class_names().values())) == 1000
    train = all_of(source, split="train")[0]
    assert (train.id, train.group, train.pair) == (f"{TENCH}_10026", *2 * (f"imagenet/{TENCH}_10026",))


def test_imagenet_val_by_kaggle_and_by_folders(tmp_path: Path) -> None:
    kaggle = tmp_path / "kaggle"
    jpeg(kaggle / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG")
    table = "ImageId,PredictionString\n" + f"ILSVRC2012_val_00000001,{TENCH} 1 2 3 4 {TENCH} 5 6 7 8 \n"
    write(kaggle / "LOC_val_solution.csv", table)
    (sample,) = all_of(sources.create("imagenet", kaggle))
    assert (sample.label, sample.split) == ("tench", "val")
    jpeg(tmp_path / "sorted" / "val" / GOLDFISH / "ILSVRC2012_val_00000007.JPEG")
    (sample,) = all_of(sources.create("imagenet", tmp_path / "sorted"))
    assert sample.label == "goldfish"


def test_imagenet_that_is_incomplete_or_strange(tmp_path: Path) -> None:
    root = imagenet_tree(tmp_path)
    jpeg(root / "val" / "ILSVRC2012_val_00000009.JPEG")
    with pytest.raises(DataError, match=r"val_00000009.JPEG has no label; 3 other files are fine"):
        all_of(sources.create("imagenet", root))
    truth = root / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n999\n1\n")
    with pytest.raises(DataError, match=r"line 2: '999' is no class id; 2 other lines"):
        all_of(sources.create("imagenet", root))
    truth.with_name("meta.mat").write_bytes(b"no matrix")
    with pytest.raises(DataError, match=r"meta\.mat is not"):
        all_of(sources.create("imagenet", root))
    truth.with_name("meta.mat").unlink()
    with pytest.raises(DataError, match=r"meta\.mat is missing"):
        all_of(sources.create("imagenet", root))
    truth.unlink()
    with pytest.raises(DataError, match="ground_truth"):
        sources.create("imagenet", root)
    jpeg(root / "train" / "n99999999" / "x.JPEG")
    with pytest.raises(DataError, match=r"'n99999999' is none of the 1000 ImageNet classes; 4 other folders are fine"):
        sources.create("imagenet", root)


def test_caltech_draws_a_number_per_class(tmp_path: Path) -> None:
    root = caltech_tree(tmp_path)
    source = sources.create("caltech101", root, {"train_per_class": 4})
    train = Counter(sample.label for sample in source.samples(split="train"))
    assert train == {"background google": 3, "faces": 4, "faces easy": 4, "anchor": 4}
    assert by_split(sources.create("caltech101", root, {"train_per_class": 0})) == {"train": 20}
    other = sources.create("caltech101", root / "101_ObjectCategories", {"train_per_class": 4, "background": False})
    assert {sample.label for sample in other.samples()} == {"faces", "faces easy", "anchor"}
    # The cut faces are the same photographs: always in one split.
    groups: dict[str, set[str]] = {}
    for sample in source.samples():
        groups.setdefault(sample.group, set()).add(sample.id)
    assert groups["caltech101/Faces/image_0003"] == {"Faces/image_0003", "Faces_easy/image_0003"}
    drawn = {seed: sources.create("caltech101", root, {"train_per_class": 2, "seed": seed}) for seed in (0, 1)}
    assert split_of_groups(drawn[0]) != split_of_groups(drawn[1])


def test_events_and_photographs_of_caltech_fall_into_the_same_split(tmp_path: Path) -> None:
    values = {"train_per_class": 2, "background": False}
    photographs = split_of_groups(sources.create("caltech101", caltech_tree(tmp_path), values))
    source = sources.create("n_caltech101", n_caltech_tree(tmp_path), {**values, "split": "caltech101"})
    events = split_of_groups(source)
    assert events and events.items() <= photographs.items()
    pairs = {sample.pair for sample in source.samples()}
    assert pairs < {sample.pair for sample in sources.create("caltech101", tmp_path).samples()}


def test_n_caltech_splits(tmp_path: Path) -> None:
    root = n_caltech_tree(tmp_path)
    val = all_of(sources.create("n_caltech101", root), split="val")
    assert [sample.id for sample in val] == ["Faces_easy/image_0002", "anchor/image_0001"]  # the 5th and the 10th of 14
    assert len(all_of(sources.create("n_caltech101", root / "Caltech101"))) == 14
    write(root / "Caltech101_train.txt", "N_Caltech101/anchor/image_0001.bin\tCaltech-101/anchor/image_0001.jpg\n")
    write(root / "Caltech101_val.txt", "N_Caltech101/anchor/image_0002.bin\tCaltech-101/anchor/image_0002.jpg\n")
    listed = sources.create("n_caltech101", root, {"split": "lists"})
    assert [(sample.id, sample.split) for sample in listed] == [
        ("anchor/image_0001", "train"),
        ("anchor/image_0002", "val"),
    ]
    (root / "Caltech101" / "anchor" / "image_0002.bin").unlink()
    assert listed.inspect().broken == {"Caltech101/anchor/image_0002.bin": "no such file"}
    write(root / "Caltech101_val.txt", "N_Caltech101/anchor/image_0001.bin\tx\nanchor\n")
    with pytest.raises(DataError, match=r"line 1: occurs twice.*line 2: no <class>.*; 0 other lines"):
        sources.create("n_caltech101", root, {"split": "lists"})
    with pytest.raises(ConfigError, match="split is 'half'"):
        sources.create("n_caltech101", root, {"split": "half"})


def test_n_caltech_in_the_est_authors_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("training", "validation", "testing"):
        rows = np.column_stack(
            [rng.integers(0, 240, 60), rng.integers(0, 180, 60), rng.random(60) * 0.3, rng.choice([-1, 1], 60)]
        )
        (tmp_path / part / "anchor").mkdir(parents=True)
        np.save(tmp_path / part / "anchor" / f"anchor_{part}.npy", rows.astype(np.float32))
    source = sources.create("n_caltech101", tmp_path)
    assert by_split(source) == {"train": 1, "val": 1, "test": 1}
    events = source.load(source[0])
    assert (events.width, events.height, len(events)) == (240, 180, 60)
    assert 0.2 < events.duration < 0.3 and set(events.p.tolist()) == {0, 1}
    np.save(source.path(source[0]), np.zeros((3, 3)))
    with pytest.raises(InvalidInputError, match=r"\[3, 3\]"):
        source.load(source[0])


def test_atis_bytes_become_events(tmp_path: Path) -> None:
    source = sources.create("n_caltech101", n_caltech_tree(tmp_path))
    events = source.load(source[0])
    assert (events.width, events.height, len(events)) == (240, 180, 51)
    assert events.duration > 0.1 and set(events.p.tolist()) == {0, 1}


def test_shapenet_labels_axes_and_loose_files(tmp_path: Path) -> None:
    root = shapenet_tree(tmp_path)
    source = sources.create("shapenet_part", root)
    assert by_split(source) == {"train": 4, "val": 2, "test": 2}
    sample = source[0]
    published = np.loadtxt(source.path(sample))
    points = source.load(sample)
    assert points.shape == (20, 3) and points.dtype == np.float32
    assert np.allclose(points[:, 2], published[:, 1]) and np.allclose(points[:, 0], published[:, 0])
    assert np.linalg.det(np.linalg.lstsq(published[:, :3], points, rcond=None)[0]) == pytest.approx(1)  # no mirror
    write(root / "02691156" / "spare.txt", "1 2 3 4 5 6 7\n")
    notes = source.inspect().notes
    assert "1 files are in no split and left out: 02691156/spare.txt" in notes
    assert "1 of 3 labels is in no split: bag" in notes
    write(source.path(sample), "1 2 3\n4 5 6\n")
    with pytest.raises(InvalidInputError, match="lines of 3 numbers"):
        source.load(sample)
    write(source.path(sample), "1 2 3 4 5 6 7\n1 2\n")
    assert "model0.txt" in source.inspect(read=True).broken[sample.path]


def test_shapenet_with_wrong_lists(tmp_path: Path) -> None:
    root = shapenet_tree(tmp_path)
    path = root / "train_test_split" / "shuffled_val_file_list.json"
    write(path, json.dumps(["shape_data/02691156/model0", "shape_data/00000000/x"]))
    with pytest.raises(DataError, match=r"val entry 2: 'shape_data/00000000/x'.*id '02691156/model0' occurs 2 times"):
        sources.create("shapenet_part", root)
    for content in ("{", '{"a": 1}'):
        write(path, content)
        with pytest.raises(DataError, match=r"shuffled_val_file_list\.json is no JSON list"):
            sources.create("shapenet_part", root)
    write(root / "synsetoffset2category.txt", "Airplane 02691156\nBag\n")
    with pytest.raises(DataError, match="line 2: 'Bag'; 1 other lines"):
        sources.create("shapenet_part", root)


def test_esc_folds_and_the_ten_classes(tmp_path: Path) -> None:
    root = esc_tree(tmp_path)
    source = sources.create("esc50", root)
    assert by_split(source) == {"train": 12, "val": 4, "test": 4}
    assert {sample.label for sample in source} == {"dog", "crying baby"}
    assert {sample.label for sample in sources.create("esc50", root, {"esc10": True})} == {"dog"}
    sound = source.load(source[0])
    assert sound.sample_rate == 44100 and sound.duration == pytest.approx(0.2)


def change(table: Path, old: str, new: str) -> None:
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("category", "kind", r"esc50\.csv lacks the column\(s\) category: expected filename,fold"),
        ("1-1000-A-0.wav,1", "1-1000-A-0.wav,7", r"line 2: fold '7', expected 1 to 5; 19 other rows are fine"),
        ("1-1000-A-0.wav", "", r"line 2: filename, category or src_file is empty; 19 other"),
        ("1-1000-A-0.wav", "1-1000-B-0.wav", r"id '1-1000-B-0' occurs 2 times; 18 other rows are fine"),
        ("1-1000-A-0.wav,1", "1-1000-A-0.wav,4", r"group 'freesound/1000' is in the splits train and val; 18 other"),
    ],
)
def test_esc_with_a_wrong_table(old: str, new: str, message: str, tmp_path: Path) -> None:
    root = esc_tree(tmp_path)
    change(root / "meta" / "esc50.csv", old, new)
    with pytest.raises(DataError, match=message):
        sources.create("esc50", root)


def test_urbansound_folds(tmp_path: Path) -> None:
    root = urban_tree(tmp_path)
    source = sources.create("urbansound8k", root)
    assert by_split(source) == {"train": 16, "val": 2, "test": 2}
    assert source[0].label == "dog bark" and source[0].path == "audio/fold1/501-3-0-0.wav"
    assert source.load(source[0]).sample_rate == 48000
    change(root / "metadata" / "UrbanSound8K.csv", "502-3-0-0.wav,502,0.0,0.2,1,2", "502-3-0-0.wav,502,0.0,0.2,1,0")
    with pytest.raises(DataError, match=r"line 4: fold '0', expected 1 to 10; 19 other rows are fine"):
        sources.create("urbansound8k", root)


def test_llvip_crops_are_pairs(tmp_path: Path) -> None:
    source = sources.create("llvip", llvip_tree(tmp_path))
    samples = all_of(source)
    # 4 pictures x 2 persons wide enough x (person and background) x 2 cameras
    assert Counter((s.modality, s.label, s.split) for s in samples) == {
        (modality, label, split): count
        for modality in ("image", "thermal")
        for label in ("person", "background")
        for split, count in (("train", 6), ("test", 2))
    }
    pairs: dict[str, list[Sample]] = {}
    for sample in samples:
        pairs.setdefault(sample.pair, []).append(sample)
    persons = [(20, 30, 30, 80), (200, 100, 40, 120), (300, 10, 9, 50)]
    for thermal, image in pairs.values():
        assert (thermal.modality, image.modality) == ("thermal", "image")
        assert thermal.box == image.box is not None and thermal.group == image.group
        assert thermal.file == image.file.replace("visible", "infrared")
        raw = source.load(thermal)
        assert raw.shape == (thermal.box[3], thermal.box[2])  # grey, although stored as colour
        assert source.load(image).shape == (image.box[3], image.box[2], 3)
        if thermal.label == "person":
            assert thermal.box in persons
        else:
            x, y, w, h = thermal.box
            assert (w, h) in {box[2:] for box in persons}
            assert all(x >= a + c or a >= x + w or y >= b + d or b >= y + h for a, b, c, d in persons)
            assert 0 <= x <= 320 - w and 0 <= y <= 256 - h
    assert {s.group for s in samples} == {"llvip/place01", "llvip/place02", "llvip/place19"}
    assert samples == all_of(sources.create("llvip", tmp_path))
    boxes = [[s.box for s in sources.create("llvip", tmp_path, {"seed": seed})] for seed in (0, 1)]
    assert boxes[0] != boxes[1]


def test_llvip_crops_equal_the_picture(tmp_path: Path) -> None:
    source = sources.create("llvip", llvip_tree(tmp_path))
    sample = all_of(source, modality="image", split="test")[0]
    whole = cv2.imread(str(source.path(sample)))[..., ::-1]
    assert sample.box is not None
    x, y, w, h = sample.box
    assert np.array_equal(source.load(sample), whole[y : y + h, x : x + w])
    outside = Sample("a", "image", "llvip", f"{sample.file}#300,0,60,10", "person", "test", "g")
    with pytest.raises(InvalidInputError, match=r"box \(300, 0, 60, 10\).*320 x 256"):
        source.load(outside)


def test_llvip_crowds_and_wrong_annotations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    assert llvip.free_box((0, 0, 100, 100), [(0, 0, 320, 256)], (320, 256), rng) is None
    root = llvip_tree(tmp_path)
    write(root / "Annotations" / "190001.xml", voc([(0, 0, 400, 300)]))  # beyond the picture: cut
    samples = all_of(sources.create("llvip", root), split="test")
    assert [(s.label, s.box) for s in samples] == 2 * [("person", (0, 0, 320, 256))]
    for content in ("<annotation><size>", "<annotation/>", voc([(1, 2, 3, 4)]).replace("<xmin>1", "<xmin>one")):
        write(root / "Annotations" / "010002.xml", content)
        with pytest.raises(DataError, match=r"010002\.xml: expected a VOC annotation.*; 3 other annotations are fine"):
            all_of(sources.create("llvip", root))
    (root / "Annotations" / "010002.xml").unlink()
    with pytest.raises(DataError, match=r"010002\.xml.*; 3 other annotations"):
        all_of(sources.create("llvip", root))
    write(root / "Annotations" / "010002.xml", voc([]))
    (root / "infrared" / "train" / "010001.jpg").unlink()
    found = sources.create("llvip", root).inspect()
    assert found.broken == {"infrared/train/010001.jpg": "no such file"} and found.unusable == 4
    assert any("not in infrared: 010001.jpg" in note for note in found.notes)


def test_n_imagenet_lists_and_files(tmp_path: Path) -> None:
    root = n_imagenet_tree(tmp_path)
    source = sources.create("n_imagenet", root)
    assert by_split(source) == {"train": 2, "val": 1}
    events = source.load(source[0])
    assert (events.width, events.height, len(events)) == (640, 480, 200)
    shared = {s.pair for s in sources.create("imagenet", imagenet_tree(tmp_path / "imagenet"))}
    assert {s.pair for s in source} <= shared
    source.path(source[1]).unlink()
    assert set(source.inspect().broken) == {f"extracted_train/{GOLDFISH}/{GOLDFISH}_998.npz"}
    assert len(sources.create("n_imagenet", root, {"lists": False})) == 2
    write(root / "train_list.txt", f"/x/extracted_train/{TENCH}/a.npz\n/x/extracted_train/{TENCH}/a.npz\nnonsense\n")
    with pytest.raises(DataError, match=r"line 3: 'nonsense', expected .*; 2 other lines are fine"):
        all_of(sources.create("n_imagenet", root))
    write(root / "train_list.txt", 2 * f"/x/extracted_train/{TENCH}/a.npz\n")
    assert sources.create("n_imagenet", root).inspect().problems == ["id 'a' occurs 2 times"]


def test_n_imagenet_raw_and_wrong_archives(tmp_path: Path) -> None:
    root = n_imagenet_tree(tmp_path)
    source = sources.create("n_imagenet", root)
    path = source.path(source[0])
    raw = {
        "x_pos": np.array([1, 2, 3]),
        "y_pos": np.array([4, 5, 6]),
        "timestamp": np.array([30, 10, 20], np.uint32),
        "polarity": np.array([True, False, True]),
    }
    npz_events(path, **raw)
    events = source.load(source[0])
    assert events.x.tolist() == [2, 3, 1] and events.t.tolist() == [10, 20, 30] and events.p.tolist() == [0, 1, 1]
    npz_events(path, frames=np.zeros(3))
    with pytest.raises(InvalidInputError, match=r"an archive with frames, expected .*event_data"):
        source.load(source[0])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InvalidInputError, match="cannot read"):
        source.load(source[0])


def test_touch_and_go_keeps_videos_apart_unless_told_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = touch_tree(tmp_path)
    source = sources.create("touch_and_go", root)
    samples = all_of(source)
    assert len(samples) == 10 * 5 * 2  # the inconclusive frame of every video is dropped
    assert {s.label for s in samples} == {"concrete", "synthetic fabric"}
    videos = split_of_groups(source)
    assert set(videos.values()) == {"train", "val", "test"} and len(videos) == 10
    assert {(s.label, s.split) for s in samples} >= {("concrete", "train"), ("synthetic fabric", "train")}
    pairs = Counter(s.pair for s in samples)
    assert set(pairs.values()) == {2}
    notes = source.inspect().notes
    assert "10 frames of inconclusive material (label -1) are left out" in notes
    assert not any("leaks" in note for note in notes) and not caplog.records
    official = sources.create("touch_and_go", root / "dataset", {"split": "official"})
    assert by_split(official) == {"train": 80, "test": 20}
    assert any("leaks: 10 of 10 test videos" in note for note in official.inspect().notes)
    assert "leaks" in caplog.text


def test_touch_and_go_deals_videos_in_shares() -> None:
    rng = np.random.default_rng(0)
    frames = {(f"v{i:03d}", touch_and_go.MATERIALS[i % 5]): int(rng.integers(50, 500)) for i in range(140)}
    frames["lone", "grass"] = 100
    split_of = touch_and_go.split_videos(frames, 0)
    assert split_of == touch_and_go.split_videos(dict(reversed(frames.items())), 0)
    assert split_of != touch_and_go.split_videos(frames, 1)
    assert split_of["lone"] == "train"
    for material in touch_and_go.MATERIALS[:5]:
        dealt: Counter[str] = Counter()
        for (video, label), count in frames.items():
            if label == material:
                dealt[split_of[video]] += count
        assert dealt["train"] / dealt.total() == pytest.approx(0.7, abs=0.08)
        assert dealt["test"] / dealt.total() == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("20220410_031600/0000000001.jpg,20", r"line 51: label '20', expected -1 to 19; 50 other lines are fine"),
        ("0000000001.jpg,3", r"line 51: '0000000001.jpg,3', expected <video>/<frame>.jpg,<label>"),
        ("20220410_031600/0000000001.jpg,0", r"frame 20220410_031600/0000000001.jpg occurs twice.*other frames"),
    ],
)
def test_touch_and_go_with_wrong_lines(line: str, message: str, tmp_path: Path) -> None:
    root = touch_tree(tmp_path)
    path = root / "dataset" / "train.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        sources.create("touch_and_go", root)


def test_samples_of_a_folder_can_be_parts_of_pictures_and_pairs(tmp_path: Path) -> None:
    jpeg(tmp_path / "a.jpg", size=(24, 32))
    write(
        tmp_path / "samples.csv",
        "id,modality,source,path,label,split,group,pair\n"
        'a,image,s,"a.jpg#4,2,10,8",cup,train,g,p\n'
        "b,image,s,a.jpg,cup,train,g,\n",
    )
    source = FolderSource(tmp_path)
    part, whole = source.samples()
    assert part.pair == "p" and part.file == "a.jpg" and part.box == (4, 2, 10, 8) and whole.box is None
    assert source.load(part).shape == (8, 10, 3) and source.load(whole).shape == (24, 32, 3)
    assert not source.inspect(read=True).broken


# Broken files, the command, the contact sheet.


def inspect(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", "inspect", *arguments])
    return int(args.run(args))


def test_inspect_names_broken_files_and_counts_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = esc_tree(tmp_path / "esc")
    write(root / "audio" / "1-1000-A-0.wav", b"")
    (root / "audio" / "1-1000-B-0.wav").unlink()
    sound = root / "audio" / "2-2000-A-0.wav"
    sound.write_bytes(sound.read_bytes()[:20])
    assert inspect("esc50", str(root)) == 1
    out = capsys.readouterr().out
    assert "20 samples, 2 files missing or empty, 18 fine" in out
    assert "audio/1-1000-A-0.wav: an empty file (0 bytes)" in out and "audio/1-1000-B-0.wav: no such file" in out
    assert "CC BY-NC" in out and "Piczak" in out
    assert inspect("esc50", str(root), "--read", "--set", "esc10=true") == 1
    out = capsys.readouterr().out
    assert "10 samples, 3 files missing or broken, 7 fine" in out and "2-2000-A-0.wav" in out
    root = caltech_tree(tmp_path / "caltech")
    picture = root / "101_ObjectCategories" / "anchor" / "image_0002.jpg"
    picture.write_bytes(picture.read_bytes()[:-40])
    assert inspect("caltech101", str(root)) == 0
    assert inspect("caltech101", str(root), "--read", "--labels") == 1
    out = capsys.readouterr().out
    assert "19 fine" in out and "ends early" in out
    assert any(line.split() == ["anchor", "image", "5", "0", "0"] for line in out.splitlines())


def test_inspect_of_options_it_cannot_read(tmp_path: Path) -> None:
    esc_tree(tmp_path)
    for pair in ("esc10", "=1", "esc10=[", "fold=3"):
        with pytest.raises(ConfigError):
            inspect("esc50", str(tmp_path), "--set", pair)
    with pytest.raises(ConfigError, match=r"\.png"):
        inspect("esc50", str(tmp_path), "--sheet", str(tmp_path / "a.gif"))


@pytest.mark.parametrize("name", sources.BUILT_IN)
def test_contact_sheet_of_every_source(name: str, tmp_path: Path) -> None:
    root = TREES[name](tmp_path / "data")
    assert inspect(name, str(root), "--sheet", str(tmp_path / "sheet.png")) == 0
    drawn = cv2.imread(str(tmp_path / "sheet.png"))
    source = sources.create(name, root)
    modalities = {sample.modality for sample in source}
    assert drawn.shape[1] == 1206 and drawn.shape[0] >= 150 * len(modalities)
    assert np.array_equal(contact_sheet.contact_sheet(source), contact_sheet.contact_sheet(source))
    assert (drawn < 250).mean() > 0.005


def test_contact_sheet_shows_every_label_first_and_broken_files_as_such(tmp_path: Path) -> None:
    root = caltech_tree(tmp_path, {f"thing{i}": 6 for i in range(5)})
    source = sources.create("caltech101", root)
    chosen, counts = contact_sheet._choose(source, 7, np.random.default_rng(0))
    assert len(chosen["image"]) == 7 and len({sample.label for sample in chosen["image"]}) == 5
    assert counts["image"].total() == 30
    for path in (root / "101_ObjectCategories").glob("thing*/*.jpg"):
        path.write_bytes(b"broken")
    assert contact_sheet.contact_sheet(source).shape[1] == 1206


@pytest.mark.parametrize("name", [name for name in sources.BUILT_IN if name != "folder"])
def test_documents_say_where_to_get_it_and_how_to_add_it(name: str, repo: Path) -> None:
    text = (repo / "docs" / "data.md").read_text(encoding="utf-8")
    section = text.split(f"### `{name}`: ")[1].split("\n##")[0]
    assert sources.get(name).homepage in section and "**Use:**" in section and "**Splits:**" in section
    (entry,) = yaml.safe_load(section.split("```yaml")[1].split("```")[0])["sources"]
    assert entry["source"] == name and set(entry.get("options", {})) <= set(sources.options(name))


# The real files that there are.


def real(shared_data: Path, folder: str) -> list[dict[str, str]]:
    with (shared_data / "samples.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith(folder)]
    if not rows:
        pytest.skip(f"{shared_data} has no {folder}")
    return rows


def test_esc10_on_the_real_sounds(shared_data: Path, tmp_path: Path) -> None:
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    rows = real(shared_data, "audio/esc10/")[::8]
    labels = sorted({row["label"] for row in rows})
    (tmp_path / "audio").mkdir()
    for row in rows:
        fold, rest = Path(row["path"]).stem.split("_", 1)
        clip, take = rest.rsplit("_", 1)[1].split("-")
        target = labels.index(row["label"])
        name = f"{fold}-{clip}-{take}-{target}.wav"
        lines.append(f"{name},{fold},{target},{row['label'].replace(' ', '_')},True,{clip},{take}")
        samples, rate = soundfile.read(shared_data / row["path"], dtype="int16")
        soundfile.write(tmp_path / "audio" / name, samples, rate)
    write(tmp_path / "meta" / "esc50.csv", "\n".join(lines) + "\n")
    source = sources.create("esc50", tmp_path, {"esc10": True})
    assert {sample.label for sample in source} == set(labels)
    expected = Counter("val" if row["path"].split("/")[-1][0] == "4" else "train" for row in rows)
    assert by_split(source) == expected
    found = source.inspect(read=True)
    assert not found.broken and not found.problems
    assert source.load(source[0]).duration == pytest.approx(5, abs=0.01)


def test_caltech101_on_the_real_pictures(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBIND_LINKS", str(shared_data))
    rows = real(shared_data, "image/caltech101/")[::4]
    for row in rows:
        folder, name = row["path"].split("/")[-2:]
        target = tmp_path / "101_ObjectCategories" / folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((shared_data / row["path"]).resolve())
    source = sources.create("caltech101", tmp_path, {"train_per_class": 5})
    assert len(source) == len(rows)
    assert {sample.label for sample in source} == {row["label"] for row in rows}
    train = Counter(sample.label for sample in source.samples(split="train"))
    assert max(train.values()) == 5
    found = source.inspect(read=True)
    assert not found.broken and not found.problems
