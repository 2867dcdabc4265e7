"""The modality-free data set: built, read, verified, exported, trained on."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch
import yaml

from omnibind_core import OmniBind, cli
from omnibind_core.config import load_named
from omnibind_core.data.modality_free import build as build_module
from omnibind_core.data.modality_free.build import BuildConfig, build
from omnibind_core.data.modality_free.collect import Collection, collect
from omnibind_core.data.modality_free.combine import Pools, combine, spread
from omnibind_core.data.modality_free.dataset import ModalityFree
from omnibind_core.data.modality_free.descriptions import read_descriptions
from omnibind_core.data.modality_free.match_groups import MatchGroups, Towers
from omnibind_core.data.modality_free.shards import encode, export
from omnibind_core.data.modality_free.stats import count, lines, plot
from omnibind_core.data.modality_free.verify import verify
from omnibind_core.data.samples import Sample
from omnibind_core.data.scenes import GivenCombinations
from omnibind_core.errors import ConfigError, DataError, InvalidInputError, MissingDependencyError
from omnibind_core.features.combinations import EmbeddedSplit
from omnibind_core.features.sets import FeatureSet
from omnibind_core.modalities import Events, Sound
from omnibind_core.modalities import get as get_modality
from omnibind_core.training import config as training_config
from omnibind_core.training import dataset

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

WORDS = {"cup": "cup", "mug": "cup", "dog": "dog", "car": "car"}
SMALL = {"sources": [{"source": "folder"}], "total": 60, "splits": {"train": 2, "val": 1}}


def embed_words(sentences):
    """Stands in for the text teacher: the same word, the same direction."""
    rows = np.zeros((len(sentences), 32), np.float32)
    for row, sentence in zip(rows, sentences, strict=True):
        row[sum(sentence.encode()) % 32] = 1
    return rows


def no_items(model, modality, raws):
    raise AssertionError("no embeddings were asked for")


TOWERS = Towers(embed_words, no_items)


def write_tree(root: Path, pair: bool = False) -> Path:
    """Three concepts in image, audio and point cloud; the image source says mug and cup. Every file is real."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for split, number in (("train", 5), ("val", 3)):
        for index, word in enumerate(WORDS):
            for i in range(number):
                stem = f"{split}-{word}-{i}"
                image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                image[..., index % 3] = 220
                cv2.imwrite(str(root / f"{stem}.png"), image)
                rows.append((f"image-{stem}", "image", "photos", f"{stem}.png", word, split, stem, stem))
                if word == "mug":
                    continue
                tone = np.sin(2 * np.pi * 200 * 3**index * np.arange(16000) / 16000).astype(np.float32)
                soundfile.write(root / f"{stem}.wav", 0.5 * tone, 16000)
                rows.append((f"audio-{stem}", "audio", "sounds", f"{stem}.wav", word, split, stem, stem))
                if word != "car":
                    points = rng.uniform(-1, 1, (128, 3)).astype(np.float32)
                    points[:, index % 3] *= 0.1
                    np.savez(root / f"{stem}.npz", points=points)
                    rows.append((f"cloud-{stem}", "point_cloud", "scans", f"{stem}.npz", word, split, stem, stem))
    with (root / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "modality", "source", "path", "label", "split", "group", "pair")[: 7 + pair])
        writer.writerows(row[: 7 + pair] for row in rows)
    used = sorted({(row[2], row[4]) for row in rows})
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("source", "label", "canonical", "score", "reason"))
        writer.writerows((source, word, WORDS[word], 0.9 if word == "mug" else 1.0, "") for source, word in used)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree") / "data")


def settings(tree, **changes) -> BuildConfig:
    return BuildConfig(**{**SMALL, "labels": str(tree / "labels.csv"), **changes})


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "index"
    build(settings(tree), tree, out, TOWERS)
    return out


@pytest.fixture
def copy(built, tree, tmp_path):
    """A data set of one's own, to damage."""
    shutil.copytree(tree, tmp_path / "data")
    shutil.copytree(built, tmp_path / "index")
    return tmp_path / "index"


def edit(path: Path, change) -> None:
    rows = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(rows.to_pylist()), rows.schema), path)


def run(*argv) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in argv])
    return int(stop.value.code)


# ------------------------------------------------------------------------------------------------------- combinations


def test_shares_are_even_and_leave_no_remainder(rng):
    assert spread(10, np.array([np.inf] * 3), rng, np.array([46.0, 15.0, 39.0])).sum() == 10
    assert sorted(spread(10, np.full(3, 100.0), rng)) == [3, 3, 4]
    assert list(spread(10, np.array([2.0, 100.0, 0.0]), rng)) == [2, 8, 0]
    assert list(spread(10, np.array([2.0, 3.0]), rng)) == [2, 3]


def test_combinations_are_different_and_as_many_as_exist(rng):
    item = np.arange(3, dtype=np.int32)
    cell = np.zeros(3, np.int32)
    pools = Pools.of([(item, cell), (item, cell)], np.ones(1), [True, False])
    rows, _ = combine(pools, 1000, {1: 1, 2: 1}, rng)
    assert len(rows) == len({tuple(row) for row in rows}) == 3 + 9  # text alone is no combination
    assert (rows[:, 0] >= 0).all()


def test_the_mix_of_sizes_is_the_one_asked_for(rng):
    item, cell = np.arange(400, dtype=np.int32), np.repeat(np.arange(4, dtype=np.int32), 100)
    pools = Pools.of([(item, cell)] * 7, np.ones(4), [True] * 6 + [False])
    paper = load_named(BuildConfig, "data", "paper")
    rows, of = combine(pools, paper.total, paper.sizes, rng)
    assert len(rows) == 50080
    sizes = Counter((rows >= 0).sum(axis=1).tolist())
    assert {size: round(100 * n / 50080) for size, n in sizes.items()} == {2: 46, 3: 15, 4: 16, 5: 17, 6: 6}
    assert max(np.bincount(of)) - min(np.bincount(of)) <= len(sizes)
    for column in range(7):
        present = rows[:, column] >= 0
        assert (cell[rows[present, column]] == of[present]).all()


def test_concepts_weigh_alike_however_many_groups_each_has():
    concept = np.array([0, 1, 1, 1, 2, 1], np.int32)
    ones = np.ones(6, np.float32)
    rows = np.arange(6, dtype=np.int32)
    groups = MatchGroups(rows, ones, rows, concept, ones, ("a", "b", "c"), ("word",))
    assert groups.weight == pytest.approx([1, 0.25, 0.25, 0.25, 1, 0.25])
    item, cell = np.tile(np.arange(50, dtype=np.int32), 6), np.repeat(rows, 50)
    of = combine(Pools.of([(item, cell)] * 2, groups.weight, [True, True]), 300, {2: 1}, np.random.default_rng(0))[1]
    assert np.bincount(concept[of]).tolist() == [100, 100, 100]


def test_a_group_in_the_splits_of_two_sources_is_refused():
    class Given:
        name = "given"

        def __init__(self, *rows):
            self.rows = [Sample(key, "image", "s", f"{key}.png", "cup", split, group) for key, split, group in rows]

        def samples(self):
            return iter(self.rows)

    first = Collection(Given(("a", "train", "g"), ("b", "train", "h"), ("c", "test", "g")))
    fine = Collection(Given(("d", "train", "g"), ("e", "val", "i")))
    wrong = Collection(Given(("f", "val", "h"), ("g", "val", "i")))
    assert len(collect([first, fine], ["train", "val"])) == 4  # a split that is not taken does not count
    message = r"1 groups are in more than one split: h; the 2 samples of other groups"
    with pytest.raises(DataError, match=message):
        collect([first, wrong], ["train", "val"])


def test_sizes_that_no_concept_has_leave_their_share_to_the_others(rng):
    item, cell = np.arange(100, dtype=np.int32), np.zeros(100, np.int32)
    pools = Pools.of([(item, cell)] * 3, np.ones(1), [True, True, False])
    sizes = Counter((combine(pools, 600, {2: 2, 3: 1, 6: 5}, rng)[0] >= 0).sum(axis=1).tolist())
    assert sizes == {2: 400, 3: 200}


# --------------------------------------------------------------------------------------------------------------- build


def test_every_combination_is_of_one_concept_and_split(built, tree):
    data = ModalityFree.open(built)
    assert len(data) == 60
    assert Counter(one.split for one in data.combinations()) == {"train": 40, "val": 20}
    assert len({(tuple(one.samples.items()), one.text) for one in data}) == 60
    for one in data.combinations():
        samples = {name: data.sample(key) for name, key in one.samples.items()}
        assert {sample.split for sample in samples.values()} == {one.split}
        assert {WORDS[sample.label] for sample in samples.values()} == {one.concept}
        assert all(sample.modality == name for name, sample in samples.items())
        assert one.text is None or WORDS[one.text] == one.concept
        assert len(one.modalities) >= 2
        assert one.score == pytest.approx(0.9 if any(s.label == "mug" for s in samples.values()) else 1)
    kinds = Counter(len(one.modalities) for one in data)
    assert set(kinds) == {2, 3, 4}


def test_reading_by_number_is_reading_in_order(built):
    data = ModalityFree.open(built)
    streamed = list(data.combinations())
    assert [data[i] for i in range(len(data))] == streamed == data[:]
    assert data[-1] == streamed[-1]
    with pytest.raises(IndexError):
        data[len(data)]
    assert list(data.combinations("val")) == [one for one in streamed if one.split == "val"]
    again = pickle.loads(pickle.dumps(data))
    assert again[7] == data[7]


def test_items_are_loaded_as_their_modality_reads_them(built, tree):
    data = ModalityFree.open(built)
    one = next(one for one in data if {"image", "audio", "text"} <= set(one.modalities))
    items = data.items(one)
    assert tuple(items) == (*one.samples, "text")
    picture = get_modality("image").load(tree / data.sample(one.samples["image"]).path)
    assert (items["image"] == picture).all()
    assert isinstance(items["audio"], Sound)
    with pytest.raises(DataError, match="no sample 'nobody'"):
        data.load("nobody")


def test_the_same_settings_give_the_same_bytes(built, tree, tmp_path):
    build(settings(tree), tree, tmp_path / "again", TOWERS)
    for name in ("labels.csv", "samples.parquet", "index.parquet", "build.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (built / name).read_bytes(), name
    build(settings(tree, seed=1), tree, tmp_path / "other", TOWERS)
    assert (tmp_path / "other" / "index.parquet").read_bytes() != (built / "index.parquet").read_bytes()


def test_a_build_that_fails_leaves_nothing(tree, tmp_path, monkeypatch):
    real = build_module.combine

    def fail(*args):
        fail.calls += 1
        if fail.calls == 2:
            raise KeyboardInterrupt
        return real(*args)

    fail.calls = 0
    monkeypatch.setattr(build_module, "combine", fail)
    with pytest.raises(KeyboardInterrupt):
        build(settings(tree), tree, tmp_path / "out", TOWERS)
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_keeps_the_old_one(copy, tree, monkeypatch):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    monkeypatch.setattr(build_module, "_write_index", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(settings(tree, seed=3), tree, copy, TOWERS)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    monkeypatch.undo()
    build(settings(tree, seed=3), tree, copy, TOWERS)
    assert (copy / "index.parquet").read_bytes() != before["index.parquet"]


def test_a_folder_with_other_things_is_not_replaced(tree, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"thesis\.tex"):
        build(settings(tree), tree, tmp_path, TOWERS)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_labels_corrected_by_hand_are_kept(copy, tree, caplog):
    corrected = (
        (copy / "labels.csv").read_text().replace("cup,0.9", "mug,1.0").replace("photos,mug,cup", "photos,mug,mug")
    )
    (copy / "labels.csv").write_text(corrected)
    build(settings(tree), tree, copy, TOWERS)
    assert (copy / "labels.csv.bak").read_text() == corrected
    assert "labels=" in caplog.text
    build(settings(tree, labels=str(copy / "labels.csv.bak")), tree, copy, TOWERS)
    assert "mug" in {one.concept for one in ModalityFree.open(copy)}


def test_labels_are_matched_where_no_table_is_given(tree, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        build_module,
        "match_labels",
        lambda pairs, embed: asked.extend(pairs) or build_module.Concepts.read(tree / "labels.csv"),
    )
    build(settings(tree, labels=None), tree, tmp_path / "out", TOWERS)
    assert ("photos", "mug", "image") in asked
    assert asked == sorted(set(asked))


def test_labels_left_out_of_the_table_by_an_empty_concept(tree, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text((tree / "labels.csv").read_text().replace("photos,mug,cup", "photos,mug,"))
    build(settings(tree, labels=str(table)), tree, tmp_path / "out", TOWERS)
    assert not any(sample.label == "mug" for sample in ModalityFree.open(tmp_path / "out").samples())


# ----------------------------------------------------------------------------------------------------- sample matching


def test_pairs_combine_only_what_shows_the_same(tmp_path):
    tree = write_tree(tmp_path / "data", pair=True)
    build(settings(tree, matching={"by": "pairs"}, text=False), tree, tmp_path / "out", TOWERS)
    data = ModalityFree.open(tmp_path / "out")
    assert len(data)
    for one in data:
        assert len({data.sample(name).pair for name in one.samples.values()}) == 1


def test_descriptions_combine_what_they_make_near(tree, tmp_path):
    names = [row["id"] for row in csv.DictReader((tree / "samples.csv").open())]
    table = tmp_path / "descriptions.csv"
    table.write_text("id,description\n" + "".join(f"{name},{name[-1]}\n" for name in names))
    matching = {"by": "descriptions", "descriptions": str(table), "threshold": 0.9}
    build(settings(tree, matching=matching), tree, tmp_path / "out", TOWERS)
    data = ModalityFree.open(tmp_path / "out")
    assert any(len(one.samples) > 1 for one in data)
    for one in data:
        assert len({name[-1] for name in (*one.samples.values(), *([one.text] if one.text else []))}) == 1


def captioner_of(asked):
    """Stands in for a captioning model: tells pictures apart by their brightness, and names no object."""

    def open_model(folder):
        asked.append(folder)

        def caption(pictures):
            assert all(picture.dtype == np.uint8 and picture.shape == (32, 32, 3) for picture in pictures)
            return [f"a scene of brightness {picture.mean():.3f}" for picture in pictures]

        return caption

    return open_model


def near(sentences):
    """Stands in for the text teacher: all sentences are alike, and none equals another."""
    rows = np.ones((len(sentences), 8), np.float32)
    rows[:, 0] += [sum(sentence.encode()) % 97 / 970 for sentence in sentences]
    return rows


def test_captions_describe_the_pictures_and_the_template_everything_else(tree, tmp_path, caplog):
    asked = []
    matching = {"by": "descriptions", "captions": "always", "captioner": "model", "template": "a {colour} {label}"}
    matching["attributes"] = str(tmp_path / "a.csv")
    names = [row["id"] for row in csv.DictReader((tree / "samples.csv").open())]
    (tmp_path / "a.csv").write_text("id,colour\n" + "".join(f"{name},red\n" for name in names))
    config, out = settings(tree, matching=matching, total=400), tmp_path / "out"
    with caplog.at_level("INFO"):
        build(config, tree, out, Towers(near, no_items, captioner_of(asked)))
    assert asked == [tree / "model"]
    made = {"captioning model": 32, "template 'a {colour} {label}'": 40}
    assert yaml.safe_load((out / "build.yaml").read_text())["described_by"] == made
    assert "captioning model: 32, template 'a {colour} {label}': 40" in caplog.text
    captions = read_descriptions(out / "captions.csv")
    assert sorted(captions) == sorted(name for name in names if name.startswith("image"))
    said = {one.text for one in ModalityFree.open(out)} - {None}
    assert said <= {*captions.values(), *(f"a red {word}" for word in WORDS)} and said & {*captions.values()}
    # All sounds of a concept have one description, every picture its own: each finds one nevertheless.
    sounds = {one.samples["audio"] for one in ModalityFree.open(out) if {"image", "audio"} <= set(one.samples)}
    assert len(sounds) == 24
    again = {**matching, "captions": "never", "descriptions": str(out / "captions.csv")}
    build(settings(tree, matching=again, total=400), tree, tmp_path / "again", Towers(near, no_items, no_items))
    assert (tmp_path / "again" / "index.parquet").read_bytes() == (out / "index.parquet").read_bytes()


def test_without_a_captioning_model_labels_describe_the_pictures(tree, tmp_path, caplog):
    def not_installed(folder):
        raise MissingDependencyError("transformers", "Captioning images", "pip install transformers")

    matching = load_named(BuildConfig, "data", "paper").matching
    assert (matching.by, matching.captions, matching.template) == ("descriptions", "auto", "a {label}")
    (tmp_path / "captioner").mkdir()
    for number, (there, opened, reason) in enumerate(
        [("nowhere", no_items, "no captioning model in"), (str(tmp_path / "captioner"), not_installed, "transformers")]
    ):
        config = settings(tree, matching={**matching.model_dump(), "captioner": there})
        build(config, tree, tmp_path / f"out{number}", Towers(embed_words, no_items, opened))
        assert reason in caplog.text and "described by the template" in caplog.text
        caplog.clear()
        written = yaml.safe_load((tmp_path / f"out{number}" / "build.yaml").read_text())
        assert written["described_by"] == {"template 'a {label}'": 72}
        assert not (tmp_path / f"out{number}" / "captions.csv").exists()
    config = settings(tree, matching={**matching.model_dump(), "captioner": there, "captions": "always"})
    with pytest.raises(MissingDependencyError):
        build(config, tree, tmp_path / "out", Towers(embed_words, no_items, not_installed))
    assert not (tmp_path / "out").exists()


def test_embeddings_combine_what_is_near_in_the_shared_space(tree, tmp_path):
    def embed(model, modality, raws):
        rows = rng.standard_normal((len(raws), 8)).astype(np.float32)
        asked[model, modality] += len(raws)
        return rows

    rng, asked = np.random.default_rng(0), Counter()
    matching = {"by": "embeddings", "model": "some", "threshold": -1.0}
    build(settings(tree, matching=matching), tree, tmp_path / "out", Towers(embed_words, embed))
    assert asked == {("some", "image"): 32, ("some", "audio"): 24, ("some", "point_cloud"): 16}
    scores = [one.score for one in ModalityFree.open(tmp_path / "out") if len(one.samples) > 1]
    assert scores and min(scores) < 0.9


# ----------------------------------------------------------------------------------------------------------- bad input


def rows_of(tree: Path) -> list[str]:
    return (tree / "samples.csv").read_text().splitlines()


def lose(tree):
    (tree / "train-dog-0.png").unlink()


def empty(tree):
    (tree / "train-dog-0.wav").write_bytes(b"")


def cut(tree):
    data = (tree / "train-dog-0.png").read_bytes()
    (tree / "train-dog-0.png").write_bytes(data[: len(data) // 3])


def repeat(tree):
    lines = rows_of(tree)
    (tree / "samples.csv").write_text("\n".join([*lines, lines[1]]))


def rename_column(tree):
    (tree / "samples.csv").write_text("\n".join(rows_of(tree)).replace("label,", "class,", 1))


def unknown_split(tree):
    (tree / "samples.csv").write_text("\n".join(rows_of(tree)).replace(",train,", ",training,", 1))


def straddle(tree):
    (tree / "samples.csv").write_text("\n".join(rows_of(tree)).replace(",val,val-cup-0", ",val,train-cup-0"))


def forget_label(tree):
    text = (tree / "labels.csv").read_text().splitlines()
    (tree / "labels.csv").write_text("\n".join(line for line in text if not line.startswith("photos,mug")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose, r"1 samples cannot be used: \[.*train-dog-0\.png\].*No such file.*the other 71 are fine"),
        (empty, r"1 samples cannot be used: .*train-dog-0\.wav.*0 bytes.*the other 71 are fine"),
        (cut, r"1 samples cannot be used: .*train-dog-0\.png.*the other 71 are fine"),
        (repeat, r"samples\.csv.*occurs 2 times.*71 other rows are fine"),
        (rename_column, r"samples\.csv lacks the column\(s\) label.*expected id,modality"),
        (
            unknown_split,
            r"samples\.csv.*line 2.*unknown split 'training', expected one of train.*71 other rows are fine",
        ),
        (straddle, r"group 'train-cup-0' is in the splits train and val"),
        (forget_label, r"1 labels are in no row of the label table: mug \(photos\); the other 8 are"),
        (shutil.rmtree, r"is no folder"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, damage, message):
    tree = write_tree(tmp_path / "data")
    config = settings(tree)
    if damage is shutil.rmtree:
        shutil.copy(tree / "labels.csv", tmp_path / "labels.csv")
    damage(tree)
    with pytest.raises(DataError, match=message):
        build(config, tree, tmp_path / "out", TOWERS)
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_broken_files_can_be_left_out(tmp_path, caplog):
    tree = write_tree(tmp_path / "data")
    cut(tree)
    build(settings(tree, skip_broken=True), tree, tmp_path / "out", TOWERS)
    assert "train-dog-0.png" in caplog.text
    assert len(list(ModalityFree.open(tmp_path / "out").samples())) == 71


def test_ids_of_two_sources_are_told_apart_by_a_prefix(tree, tmp_path):
    twice = [{"source": "folder"}, {"source": "folder"}]
    with pytest.raises(DataError, match=r"72 ids occur twice.*prefix"):
        build(settings(tree, sources=twice), tree, tmp_path / "out", TOWERS)
    twice[1]["prefix"] = "more/"
    build(settings(tree, sources=twice), tree, tmp_path / "out", TOWERS)
    assert len(list(ModalityFree.open(tmp_path / "out").samples())) == 144


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("total=0", r"data\.total"),
        ("sizes={9: 1}", r"data\.sizes"),
        ("splits={training: 1}", r"data\.splits"),
        ("sources=[]", r"data\.sources"),
        ("matching.by=magic", r"data\.matching\.by"),
        ("totl=3", r"data\.totl"),
    ],
)
def test_wrong_settings_name_the_key(override, message):
    with pytest.raises(ConfigError, match=message):
        load_named(BuildConfig, "data", "mini", [override])


def test_an_unknown_config_names_the_known_ones():
    with pytest.raises(ConfigError, match="mini, paper"):
        load_named(BuildConfig, "data", "nonsense")


def test_nothing_to_combine_is_said(tree, tmp_path):
    table = tmp_path / "labels.csv"
    lines = (tree / "labels.csv").read_text().splitlines()
    table.write_text("\n".join([lines[0], *(f"{row.split(',')[0]},{row.split(',')[1]},,1," for row in lines[1:])]))
    with pytest.raises(DataError, match="leaves out all 9 labels"):
        build(settings(tree, labels=str(table)), tree, tmp_path / "out", TOWERS)


# -------------------------------------------------------------------------------------------------------------- verify


def test_a_whole_data_set_is_found_whole(built):
    report = verify(built)
    assert (report.problems, report.samples, report.combinations) == ([], 72, 60)
    assert verify(built, fast=True).problems == []


def problems(folder: Path, **options) -> str:
    return "\n".join(verify(folder, folder.parent / "data", **options).problems)


def test_verify_finds_a_changed_byte(copy):
    path = copy.parent / "data" / "train-dog-1.wav"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "1 files have changed" in problems(copy)
    assert "train-dog-1.wav (another SHA-256); the other 71 are fine" in problems(copy)
    assert problems(copy, fast=True) == ""
    path.write_bytes(data[:-2])
    assert "train-dog-1.wav" in problems(copy, fast=True)


def test_verify_finds_a_missing_file(copy, capsys):
    (copy.parent / "data" / "train-dog-1.wav").unlink()
    assert "1 files are missing or empty" in problems(copy, fast=True)
    assert run("data", "verify", copy, "--root", copy.parent / "data") == 1
    assert "train-dog-1.wav" in capsys.readouterr().out


def test_verify_finds_a_group_in_two_splits(copy):
    def move(rows):
        for row in rows:
            row["group"] = row["group"].replace("val-cup-0", "train-cup-0")
        return rows

    edit(copy / "samples.parquet", move)
    assert "1 groups are in more than one split: train-cup-0; the other 30 are fine" in problems(copy)


def test_verify_finds_ids_that_do_not_resolve(copy):
    edit(copy / "samples.parquet", lambda rows: [row for row in rows if row["id"] != "image-train-dog-1"])
    assert "1 ids are in no sample table: image-train-dog-1" in problems(copy)


def test_verify_finds_combinations_across_splits_and_wrong_kinds(copy):
    def confuse(rows):
        first = next(row for row in rows if row["image"] and row["split"] == "val")
        first["image"] = "image-train-car-0"
        rows[0]["kind"] = "image"
        return rows

    edit(copy / "index.parquet", confuse)
    found = problems(copy)
    assert "1 ids are combined in another split, concept or modality than their own: image-train-car-0" in found
    assert "1 combinations have other modalities than their kind says: combination 0" in found


def test_verify_finds_labels_changed_after_the_build(copy):
    table = copy / "labels.csv"
    table.write_text(table.read_text().replace("photos,mug,cup", "photos,mug,jug"))
    assert "'mug' of photos was 'cup', is 'jug'" in problems(copy)


SECRET = "../../secret.wav"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": SECRET}, f"sample '.*': path '{SECRET}' leads out of the folder"),
        ({"path": "/etc/passwd"}, "path '/etc/passwd' leads out"),
        ({"path": "link.wav"}, "path 'link.wav' is a link out of"),
        ({"path": None}, "samples.parquet: a row with .*'path': None"),
        ({"modality": "../../tmp/x"}, "a modality that is known"),
        ({"collection": 7}, "build.yaml, source 7: there is none"),
        ({"collection": -2}, "build.yaml, source -2: there is none"),
    ],
)
def test_rows_that_lead_elsewhere_are_refused_reading_and_exporting(copy, tmp_path, changes, message):
    shutil.copyfile(tmp_path / "data" / "train-cup-0.wav", tmp_path / "secret.wav")
    (tmp_path / "data" / "link.wav").symlink_to(tmp_path / "secret.wav")
    edit(copy / "samples.parquet", lambda rows: [{**row, **changes} for row in rows])
    data = ModalityFree.open(copy, tmp_path / "data")
    for use in (data.load, lambda name: export(data, tmp_path / "out"), lambda name: data.place(data.row(name))):
        with pytest.raises(DataError, match=message):
            use("audio-train-cup-0")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": "../secret.wav"}, "samples.parquet, sample '.*': path '../secret.wav' leads out"),
        ({"shard": "link.tar"}, "path 'link.tar' is a link out of"),
        ({"suffix": "/../../x"}, "the ending of a file's name"),
        ({"suffix": None}, "the ending of a file's name"),
        ({"offset": None}, "expected numbers"),
        ({"offset": -5}, "bytes from byte -5 on, expected a part of the file"),
        ({"size": 1 << 50}, "1125899906842624 bytes from byte"),
        ({"size": -1}, "-1 bytes from byte"),
    ],
)
def test_rows_of_shards_that_lead_elsewhere_are_refused(shards, tmp_path, changes, message):
    moved = shutil.copytree(shards, tmp_path / "moved")
    shutil.copyfile(moved / "train-000000.tar", tmp_path / "secret.wav")
    (moved / "link.tar").symlink_to(tmp_path / "secret.wav")
    edit(moved / "samples.parquet", lambda rows: [{**row, **changes} for row in rows])
    data = ModalityFree.open(moved)
    for use in (data.load, lambda name: export(data, tmp_path / "out")):
        with pytest.raises((DataError, InvalidInputError), match=message):
            use("audio-train-cup-0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved", "secret.wav"]


def test_a_split_names_no_file_elsewhere(copy, tmp_path):
    edit(copy / "index.parquet", lambda rows: [{**row, "split": "../../evil"} for row in rows])
    data = ModalityFree.open(copy, tmp_path / "data")
    with pytest.raises(DataError, match=r"index\.parquet: split '\.\./\.\./evil', expected train, val, test"):
        export(data, tmp_path / "a" / "out")
    assert not list(tmp_path.rglob("*.tar"))


@pytest.mark.parametrize("root", ["..", "/", "../data"])
def test_sources_stay_in_the_folder_of_all_sources(root, copy, tree, tmp_path):
    told = yaml.safe_load((copy / "build.yaml").read_text())
    told["sources"][0]["root"] = root
    (copy / "build.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(DataError, match=rf"build\.yaml, source 0: root: path '{root}' leads out"):
        ModalityFree.open(copy).load("audio-train-cup-0")


@pytest.mark.parametrize("absolute", [False, True])
def test_sources_may_be_where_the_user_says(absolute, tree, tmp_path, monkeypatch):
    root = str(tree) if absolute else f"../{tree.name}"  # of a configuration, which is the user's own
    beside = tree.parent / "beside"
    beside.mkdir(exist_ok=True)
    out = build(settings(tree, sources=[{"source": "folder", "root": root}]), beside, tmp_path / "out", TOWERS)
    assert out is not None or (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"expected one in it, or in a folder of \$OMNIBIND_LINKS"):
        ModalityFree.open(tmp_path / "out", beside).load("audio-train-cup-0")
    monkeypatch.setenv("OMNIBIND_LINKS", str(tree))
    assert ModalityFree.open(tmp_path / "out", beside).load("audio-train-cup-0") is not None


@pytest.mark.parametrize("name", ["index.parquet", "samples.parquet", "labels.csv", "build.yaml"])
def test_an_incomplete_folder_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(DataError, match=name):
        ModalityFree.open(copy)
    (copy / name).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=name):
        len(ModalityFree.open(copy).concepts)


# -------------------------------------------------------------------------------------------------------------- export


@pytest.fixture(scope="module")
def shards(built, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "shards"
    names = export(ModalityFree.open(built), out, 15)
    assert names == ["train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar", "val-000001.tar"]
    return out


def same(one, other) -> bool:
    if isinstance(one, Sound):
        return one.sample_rate == other.sample_rate and np.array_equal(one.samples, other.samples)
    return np.array_equal(one, other)


def test_shards_are_read_through_the_same_interface(built, shards, tmp_path):
    moved = shutil.copytree(shards, tmp_path / "elsewhere")
    data, back = ModalityFree.open(built), ModalityFree.open(moved)
    assert list(back.combinations()) == list(data.combinations())
    for one in data:
        left, right = data.items(one), back.items(one)
        assert left.keys() == right.keys()
        assert all(same(left[name], right[name]) for name in left)
    assert verify(moved).problems == []


def test_shards_are_deterministic(built, shards, tmp_path):
    export(ModalityFree.open(built), tmp_path / "again", 15)
    for path in shards.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    export(ModalityFree.open(shards), tmp_path / "third", 15)  # from shards
    assert (tmp_path / "third" / "train-000000.tar").read_bytes() == (shards / "train-000000.tar").read_bytes()


def test_shards_follow_the_webdataset_convention(built, shards):
    webdataset = pytest.importorskip("webdataset")
    pipe = webdataset.WebDataset(str(shards / "train-{000000..000002}.tar"), shardshuffle=False, empty_check=False)
    found = list(pipe)
    data = list(ModalityFree.open(built).combinations("train"))
    assert len(found) == len(data) == 40
    for item, one in zip(found, data, strict=True):
        facts = json.loads(item["json"])
        assert facts["samples"] == one.samples
        assert facts["concept"] == one.concept
        parts = {key.split(".")[0] for key in item if "." in key}
        assert parts == set(one.modalities)


def test_verify_finds_damage_in_shards(shards, tmp_path):
    moved = shutil.copytree(shards, tmp_path / "elsewhere")
    with tarfile.open(moved / "val-000000.tar") as tar:
        member = next(member for member in tar if member.name.endswith((".png", ".wav", ".npz")))
    with (moved / "val-000000.tar").open("r+b") as file:
        file.seek(member.offset_data + member.size - 1)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert "1 files have changed" in "\n".join(verify(moved).problems)
    (moved / "val-000001.tar").unlink()
    assert "val-000001.tar" in "\n".join(verify(moved).problems)


@pytest.mark.parametrize(
    ("modality", "raw"),
    [
        ("image", np.arange(60, dtype=np.uint8).reshape(4, 5, 3)),
        ("touch", np.arange(20, dtype=np.uint8).reshape(4, 5)),
        ("thermal", np.arange(20, dtype=np.uint16).reshape(4, 5) * 999),
        ("thermal", np.linspace(20, 30, 20, dtype=np.float32).reshape(4, 5)),
        ("point_cloud", np.linspace(-1, 1, 30, dtype=np.float32).reshape(10, 3)),
        ("audio", Sound(np.linspace(-1, 1, 500, dtype=np.float32), 44100)),
    ],
)
def test_formats_of_single_sources_are_exported_without_loss(modality, raw, tmp_path):
    data, suffix = encode(modality, raw)
    assert encode(modality, raw) == (data, suffix)
    path = tmp_path / f"item{suffix}"
    path.write_bytes(data)
    assert same(raw, get_modality(modality).load(path))


def test_events_are_exported_without_loss(tmp_path):
    t = np.arange(50, dtype=np.int64) * 7
    events = Events((t % 30).astype(np.uint16), (t % 20).astype(np.uint16), t, (t % 2).astype(np.uint8), 30, 20)
    data, suffix = encode("event", events)
    (tmp_path / f"item{suffix}").write_bytes(data)
    back = get_modality("event").load(tmp_path / f"item{suffix}")
    assert all(np.array_equal(getattr(events, name), getattr(back, name)) for name in ("x", "y", "t", "p"))
    assert (back.width, back.height) == (30, 20)


def test_parts_of_pictures_are_exported_as_pictures(tmp_path):
    tree = write_tree(tmp_path / "data")
    text = (tree / "samples.csv").read_text().replace("train-dog-0.png", '"train-dog-0.png#4,8,16,12"')
    (tree / "samples.csv").write_text(text)
    build(settings(tree, total=2000, splits={"train": 1}), tree, tmp_path / "out", TOWERS)
    data = ModalityFree.open(tmp_path / "out")
    export(data, tmp_path / "shards", 5000)
    back = ModalityFree.open(tmp_path / "shards")
    assert back.load("image-train-dog-0").shape == (12, 16, 3)
    assert (back.load("image-train-dog-0") == data.load("image-train-dog-0")).all()


def test_a_shard_size_of_zero_is_refused(built, tmp_path):
    with pytest.raises(ConfigError, match="shard size is 0"):
        export(ModalityFree.open(built), tmp_path / "out", 0)


# --------------------------------------------------------------------------------------------------------------- stats


def test_statistics_count_everything(built, tmp_path):
    stats = count(ModalityFree.open(built))
    assert stats.total == 60
    assert stats.by_size().total() == stats.by_modality_set().total() == stats.by_concept().total() == 60
    assert stats.samples["image", "train"] == 20
    assert sum(stats.by_modality().values()) == sum(size * n for size, n in stats.by_size().items())
    text = "\n".join(lines(stats))
    assert "2 modalities" in text and "cup" in text
    plot(stats, tmp_path / "stats.png")
    picture = cv2.imread(str(tmp_path / "stats.png"))
    assert min(picture.shape[:2]) > 500 and picture.std() > 10


def test_the_whole_way_by_the_command_line(tree, tmp_path, capsys):
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "labels": str(tree / "labels.csv")}))
    out, shards = tmp_path / "out", tmp_path / "shards"
    assert run("data", "build", "--config", config, "--root", tree, "--out", out, "--set", "total=30") == 0
    assert run("data", "stats", out, "--plot", tmp_path / "stats.png") == 0
    assert run("data", "verify", out) == 0
    assert "30 combinations, 72 samples, hashes compared: nothing is wrong" in capsys.readouterr().out
    assert run("data", "export", out, "--out", shards, "--shard-size", "20") == 0
    assert run("data", "verify", "--fast", shards) == 0
    assert run("data", "build", "--config", "nonsense", "--root", tree, "--out", out) == 2


# ------------------------------------------------------------------------------------------------------------ training


def test_both_stages_train_on_an_index_and_on_its_export(built, shards, tmp_path, monkeypatch):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "cache"))
    out, path = tmp_path / "model", tmp_path / "experiment.yaml"
    experiment = {
        "model": "tiny",
        "index": str(built),
        "out": str(out),
        "augmentations": 0,
        "image_text": {"steps": 20, "batch": 16, "lr": 0.01},
        "align": {"steps": 20, "batch": 16, "lr": 0.01},
        "fuse": {"steps": 10, "batch": 32, "text": 1.0},
    }
    path.write_text(yaml.safe_dump(experiment))
    assert run("train", "align", "--config", path) == 0
    assert run("train", "fuse", "--config", path) == 0
    figures = json.loads((out / "model" / "figures.json").read_text())
    assert figures["labels"] == 3
    assert [row["modalities"] for row in figures["combinations"]] == [1, 2, 3]

    model = OmniBind.from_pretrained(out / "model")
    draws = []
    for index in (built, shards):
        config = training_config.load(str(path), [f"index={index}"])
        data = dataset.load(config, model.config, model.encoders, dataset.match(config, model.encoders))
        embedded = dataset.embed(data, model, "val")
        assert embedded.given is not None and len(embedded.given.rows) == 20
        draws.append(embedded.gather(embedded.draw(50, np.random.default_rng(0), text=1.0)))
    assert torch.allclose(draws[0].tokens, draws[1].tokens, atol=1e-5)
    assert torch.equal(draws[0].mask, draws[1].mask)
    drawn = {tuple(row) for row in draws[0].mask.int().tolist()}
    kinds = {one.modalities for one in ModalityFree.open(built).combinations("val")}
    columns = (*embedded.modalities, "text")
    assert drawn <= {tuple(int(name in kind) for name in columns) for kind in kinds}


def test_given_combinations_are_drawn_as_they_are(rng):
    rows = np.array([[0, -1], [1, 0], [2, 1]], np.int32)
    given = GivenCombinations(rows, np.array([4, 5, 6]), np.array([0, -1, 1]))
    bank = {"image": torch.eye(8)[:3, None], "audio": torch.eye(8)[3:5, None]}
    concepts = {"image": np.array([4, 5, 6]), "audio": np.array([5, 6])}
    sets = {name: FeatureSet((), np.zeros((len(c), 1, 0), np.float32), c) for name, c in concepts.items()}
    bank["text"] = torch.eye(8)[5:7, None]
    embedded = EmbeddedSplit(tuple("abcdefg"), sets, np.array([4, 6]), given, bank)
    assert embedded.sizes == (1, 2)
    drawn = embedded.draw(40, rng, text=1.0)
    tokens, present, _ = embedded.gather(drawn)
    for token, mask, label in zip(tokens, present, drawn.label, strict=True):
        row = int(label) - 4
        assert mask.tolist() == [True, row > 0, row != 1]
        assert token.sum(0).nonzero().flatten().tolist() == [[0, 5], [1, 3], [2, 4, 6]][row]
    assert not embedded.draw(40, rng, size=2).mask[:, 2].any()
    assert set(embedded.draw(40, rng, size=1).label.tolist()) == {4}
    with pytest.raises(DataError, match="3 sensor modalities"):
        embedded.draw(1, rng, size=3)


def test_labels_and_an_index_exclude_each_other():
    with pytest.raises(ConfigError, match="exclude each other"):
        training_config.load("lite", ["index=somewhere", "labels=labels.csv"])
    with pytest.raises(ConfigError, match="is needed"):
        training_config.load("lite", ["data=null"])


# ----------------------------------------------------------------------------------------------------------- real data


@pytest.mark.slow
def test_the_mini_preset_on_real_data(shared_data, tmp_path):
    assert run("data", "build", "--config", "mini", "--root", shared_data, "--out", tmp_path / "one") == 0
    labels = f"labels={tmp_path / 'one' / 'labels.csv'}"
    for name in ("two", "three"):
        command = ("data", "build", "--config", "mini", "--root", shared_data, "--out", tmp_path / name)
        assert run(*command, "--set", labels) == 0
    assert (tmp_path / "one" / "index.parquet").read_bytes() == (tmp_path / "two" / "index.parquet").read_bytes()
    assert (tmp_path / "two" / "samples.parquet").read_bytes() == (tmp_path / "three" / "samples.parquet").read_bytes()
    assert verify(tmp_path / "one").problems == []
    sizes = count(ModalityFree.open(tmp_path / "one")).by_size()
    assert sizes.total() == 20000
    assert set(sizes) >= {2, 3, 4, 5}


def test_samples_of_all_fields_survive(built, tree):
    data = ModalityFree.open(built)
    sample = data.sample("image-train-mug-0")
    assert sample == Sample(
        "image-train-mug-0", "image", "photos", "train-mug-0.png", "mug", "train", "train-mug-0", ""
    )
