"""Folder source, scenes, combinations, feature cache and the data commands."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omnibind_core import blocks
from omnibind_core.commands import data as command
from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.samples import Sample
from omnibind_core.data.scenes import CombinationSampler, compose_scenes
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.features import cache
from omnibind_core.files import cache_folder, write_atomically

HEADER = "id,modality,source,path,label,split,group\n"


def write_table(root: Path, *rows: str) -> Path:
    (root / "samples.csv").write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return root


def pictures(root: Path, count: int) -> FolderSource:
    for i in range(count):
        cv2.imwrite(str(root / f"{i}.png"), np.full((8, 8, 3), 20 * i, np.uint8))
    return FolderSource(write_table(root, *(f"p{i},image,s,{i}.png,thing,train,g{i}" for i in range(count))))


def test_folder_lists_and_loads(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 6, 3), np.uint8))
    write_table(tmp_path, "a,image,s,a.png,cup,train,g", "b,audio,s,b.wav,dog,val,")
    source = FolderSource(tmp_path)
    assert len(source) == 2
    assert [s.id for s in source.samples(split="val")] == ["b"]
    (sample,) = source.samples(modality="image", split="train")
    assert sample == Sample("a", "image", "s", "a.png", "cup", "train", "g")
    assert source.load(sample).shape == (4, 6, 3)
    with pytest.raises(InvalidInputError, match=r"b\.wav"):
        source.load(source.samples(modality="audio")[0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["b,smell,s,b.png,cup,train,g"], "line 3: unknown modality 'smell'"),
        (["b,image,s,b.png,,train,g"], "line 3: label is empty"),
        (["b,image,s,b.png,cup,later,g"], "unknown split 'later'"),
        (["b,image,s,../b.png,cup,train,g"], "leads out of the folder"),
        (["b,image,s,/b.png,cup,train,g"], "leads out of the folder"),
        (["b,image,s,..\\b.png,cup,train,g"], "leads out of the folder"),
        (["b,image"], "is empty"),
        (["b,image,s,b.png,cup,train,g", "b,image,s,c.png,cup,train,g"], "id 'b' occurs 2 times"),
        (["b,image,s,b.png,cup,train,g", "c,image,s,c.png,cup,val,g"], "group 'g' is in the splits train and val"),
    ],
)
def test_wrong_rows_are_named_and_the_others_counted(rows: list[str], message: str, tmp_path: Path) -> None:
    write_table(tmp_path, "fine,image,s,a.png,cup,train,g0", *rows)
    with pytest.raises(DataError, match=r"samples\.csv") as caught:
        FolderSource(tmp_path)
    assert message in str(caught.value)
    assert "1 other rows are fine" in str(caught.value)


def test_wrong_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        FolderSource(tmp_path)
    (tmp_path / "samples.csv").write_text("id,modality\n")
    with pytest.raises(DataError, match=r"lacks the column.*group, label, path"):
        FolderSource(tmp_path)
    write_table(tmp_path)
    with pytest.raises(DataError, match="no samples"):
        FolderSource(tmp_path)
    (tmp_path / "samples.csv").write_bytes(b"id,\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        FolderSource(tmp_path)


def test_links_to_files_and_folders_elsewhere_are_followed_where_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    root.mkdir()
    elsewhere.mkdir()
    cv2.imwrite(str(elsewhere / "a.png"), np.full((4, 4, 3), 7, np.uint8))
    (root / "a.png").symlink_to(elsewhere / "a.png")
    (root / "photos").symlink_to(elsewhere)
    source = FolderSource(write_table(root, "a,image,s,a.png,cup,train,g", "b,image,s,photos/a.png,cup,train,g"))
    for sample in source.samples():
        with pytest.raises(
            DataError, match=rf"{root}, sample '{sample.id}': path '{sample.path}' is a link out of .*LINKS"
        ):
            source.load(sample)
    assert set(source.inspect().broken) == {"a.png", "photos/a.png"}
    monkeypatch.setenv("OMNIBIND_LINKS", f"/nowhere:{elsewhere}")
    assert [source.load(sample).tolist() for sample in source.samples()] == [[[[7] * 3] * 4] * 4] * 2


def test_inspect_counts_and_finds_broken_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path, 3)
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "2.png").unlink()
    assert set(source.inspect().broken) == {"2.png"}
    found = source.inspect(read=True)
    assert set(found.broken) == {"1.png", "2.png"}
    assert found.samples["image", "s", "train"] == 3
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", "inspect", "folder", str(tmp_path), "--read"])
    assert args.run(args) == 1
    printed = capsys.readouterr().out
    assert "3 samples, 2 files missing or broken, 1 fine" in printed
    assert "1 samples doubted\n  p0: implausible: a black picture" in printed


def test_shared_data_is_read(shared_data: Path) -> None:
    source = FolderSource(shared_data)
    assert not source.inspect().broken
    for modality in {sample.modality for sample in source.samples()}:
        assert source.load(source.samples(modality=modality, split="val")[0]) is not None


def stock() -> tuple[list[Sample], Concepts]:
    held = {
        "cup": ("image", "touch", "event"),
        "dog": ("image", "audio"),
        "lamp": ("image",),
        "noise": ("audio", "image"),
    }
    samples = [
        Sample(f"{label}-{kind}-{i}", kind, "s", "x", label, "train", f"{label}{kind}{i}")
        for label, kinds in held.items()
        for kind in kinds
        for i in range(3)
    ]
    return samples, Concepts(Match("s", label, "" if label == "noise" else label, 1.0, "") for label in held)


def test_scenes_show_one_concept_by_several_modalities() -> None:
    samples, concepts = stock()
    scenes = compose_scenes(samples, concepts, 1, 12)
    assert scenes == compose_scenes(samples[::-1], concepts, 1, 12)
    assert scenes != compose_scenes(samples, concepts, 2, 12)
    assert {scene.concept for scene in scenes[:2]} == {"cup", "dog"}
    for scene in scenes:
        assert 2 <= len(scene.samples) <= 3
        for kind, items in scene.samples.items():
            assert [(s.modality, s.label) for s in items] == [(kind, scene.concept)]
    ids = [s.id for scene in scenes if scene.concept == "dog" for s in scene.samples["audio"]]
    assert len(set(ids[:3])) == 3
    several = compose_scenes(samples, concepts, 1, 4, per_modality=2, max_modalities=2)
    assert all(len(scene.samples) == 2 and all(len(s) == 2 for s in scene.samples.values()) for scene in several)


def test_scenes_that_cannot_be_made() -> None:
    samples, concepts = stock()
    with pytest.raises(DataError, match="split 'val'"):
        compose_scenes(samples, concepts, 0, 1, split="val")
    with pytest.raises(DataError, match="4 modalities"):
        compose_scenes(samples, concepts, 0, 1, min_modalities=4)


def test_combinations_are_of_one_concept_and_of_the_size_asked_for() -> None:
    index = {
        "image": np.array([0, 2, 1, 0, -1]),
        "audio": np.array([1, 1]),
        "touch": np.array([1, 0], np.int64),
        "event": np.array([], np.int64),
    }
    sampler = CombinationSampler(index)
    assert sampler.modalities == ("image", "audio", "touch", "event")
    assert sampler.sizes == (1, 2, 3)
    for size in (None, 1, 2, 3):
        rows, concept = sampler.draw(500, np.random.default_rng(3), size=size)
        assert rows.shape == (500, 4) and concept.shape == (500,)
        present = rows >= 0
        assert present.any(axis=1).all()
        if size is not None:
            assert (present.sum(axis=1) == size).all()
        for column, labels in enumerate(index.values()):
            taken = present[:, column]
            assert (labels[rows[taken, column]] == concept[taken]).all()
    rows, concept = sampler.draw(500, np.random.default_rng(3))
    again, _ = sampler.draw(500, np.random.default_rng(3))
    assert (rows == again).all()
    assert set(concept) == {0, 1, 2}
    assert set(rows[concept == 0, 0]) == {-1, 0, 3}
    assert set((rows >= 0).sum(axis=1)) == {1, 2, 3}
    rows, _ = sampler.draw(500, np.random.default_rng(3), min_size=2)
    assert ((rows >= 0).sum(axis=1) >= 2).all()
    with pytest.raises(DataError, match="no concept has 4"):
        sampler.draw(1, np.random.default_rng(0), size=4)
    with pytest.raises(DataError, match="no samples"):
        CombinationSampler({"image": np.array([-1])})


def mean_colour(items: Sequence[Any]) -> np.ndarray:
    return np.stack([item.reshape(-1, 3).mean(axis=0) for item in items]).astype(np.float32)


def test_features_are_computed_once_and_do_not_depend_on_batches(tmp_path: Path) -> None:
    source = pictures(tmp_path, 5)
    told: list[tuple[int, int]] = []
    calls = []

    def extract(items: Sequence[Any]) -> np.ndarray:
        calls.append(len(items))
        return mean_colour(items)

    def run(folder: str, key: str = "k", **options: Any) -> np.ndarray:
        return cache.features(
            source, source.samples(), "image", extract, key, 2, 7, folder=tmp_path / folder, **options
        )

    first = run("a", batch_size=6, progress=lambda done, total: told.append((done, total)))
    assert first.shape == (5, 3, 3) and first.dtype == np.float32
    assert np.allclose(first[:, 0, 0], [0, 20, 40, 60, 80])
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert calls == [6, 6, 3]
    again = run("a")
    assert len(calls) == 3 and (again == first).all()
    assert not again.flags.writeable
    assert (run("b", batch_size=1) == first).all()
    told.clear()
    assert (run("c", batch_size=3, threads=3, progress=lambda *done: told.append(done)) == first).all()
    assert told == [(done, 5) for done in range(1, 6)]
    before = len(calls)
    run("a", key="other weights")
    assert len(calls) > before
    before = len(calls)
    cv2.imwrite(str(tmp_path / "0.png"), np.full((9, 9, 3), 7, np.uint8))
    assert run("a")[0, 0, 0] == 7 and len(calls) > before


def test_variants_differ_from_the_sample_from_each_other_and_between_samples(tmp_path: Path) -> None:
    source = pictures(tmp_path, 2)
    for name in ("0.png", "1.png"):  # the same content: only the id can make a difference
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), 90, np.uint8))

    def run(seed: int) -> np.ndarray:
        return cache.features(
            source, source.samples(), "image", mean_colour, "k", 3, seed, folder=tmp_path / "cache", batch_size=3
        )

    first, other = run(7), run(8)
    assert (first[:, 0] == 90).all() and (other[:, 0] == 90).all()
    assert len(np.unique(first.reshape(8, 3), axis=0)) == 1 + 2 * 3
    assert not (first[:, 1:] == other[:, 1:]).all(axis=2).any()


def test_failed_extraction_leaves_no_file(tmp_path: Path) -> None:
    source = pictures(tmp_path, 3)

    def extract(items: Sequence[Any]) -> np.ndarray:
        if (items[0] >= 40).all():
            raise InvalidInputError("2.png", "nonsense", "a picture")
        return mean_colour(items)

    folder = tmp_path / "cache"
    with pytest.raises(InvalidInputError):
        cache.features(source, source.samples(), "image", extract, "k", 0, 0, folder=folder, batch_size=1)
    assert list(folder.iterdir()) == []
    with pytest.raises(DataError, match="extractor returned"):
        cache.features(source, source.samples(), "image", lambda items: np.zeros(3), "k", 0, 0, folder=folder)
    with pytest.raises(DataError, match="no audio samples"):
        cache.features(source, [], "audio", mean_colour, "k", 0, 0, folder=folder)
    with pytest.raises(DataError, match="is of modality image"):
        cache.features(source, source.samples(), "audio", mean_colour, "k", 0, 0, folder=folder)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match="'p1' is gone"):
        cache.features(source, source.samples(), "image", mean_colour, "k", 0, 0, folder=folder)


class Encoder:
    """Mean colours, and how often each was asked for."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[int] = []
        self.stop_after = stop_after

    def __call__(self, items: Sequence[Any]) -> np.ndarray:
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        self.seen += [int(item[0, 0, 0]) for item in items]
        return mean_colour(items)


def colours(source: FolderSource, folder: Path, encoder: Encoder, augmentations: int = 0) -> np.ndarray:
    return cache.features(
        source, source.samples(), "image", encoder, "k", augmentations, 0, folder=folder, batch_size=1
    )


def test_only_what_is_new_in_a_data_set_is_encoded(tmp_path: Path) -> None:
    first, folder = colours(pictures(tmp_path, 4), tmp_path / "cache", Encoder(), 1), tmp_path / "cache"
    more = Encoder()
    five = colours(pictures(tmp_path, 5), folder, more, 1)
    assert more.seen[0] == 80 and len(more.seen) == 2  # the sample and its variant
    assert (five[:4] == first).all() and (five[4, 0] == 80).all()
    fewer = Encoder()
    assert (colours(pictures(tmp_path, 2), folder, fewer, 1) == first[:2]).all() and fewer.seen == []
    (tmp_path / "moved").mkdir()
    elsewhere = Encoder()
    assert (colours(pictures(tmp_path / "moved", 5), folder, elsewhere, 1) == five).all() and elsewhere.seen == []


def test_a_damaged_block_is_computed_anew_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(blocks, "_ROWS", 2)
    source, folder = pictures(tmp_path, 6), tmp_path / "cache"
    first = colours(source, folder, Encoder())
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == 3
    for flipped, place in ((files[0], -3), (files[1], 0), (files[2], None)):  # in the rows, in the header, cut
        content = bytearray(flipped.read_bytes())
        if place is None:
            del content[-1:]
        else:
            content[place] ^= 0x40
        flipped.write_bytes(content)
        again = Encoder()
        assert (colours(source, folder, again) == first).all()
        assert len(again.seen) == 2 and caplog.text.count("is damaged") == 1
        caplog.clear()
        none = Encoder()
        assert (colours(source, folder, none) == first).all()
        assert none.seen == [] and caplog.text == ""


def test_whatever_is_damaged_in_a_file_of_the_cache_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each 13th bit of one of two files, changes that keep every byte of the rows, and ends that are cut off."""
    caplog.set_level("CRITICAL")
    addresses = [blocks.address(str(number)) for number in range(8)]
    rows = np.random.default_rng(0).normal(size=(8, 2, 8)).astype(np.float32)
    kept = blocks.Blocks(tmp_path)
    for start in (0, 4):
        kept.add(addresses[start : start + 4], rows[start : start + 4])
        kept.flush()
    path, other = sorted(tmp_path.glob("*"))
    content, whole = path.read_bytes(), other.read_bytes()
    damaged = [content[:size] for size in range(0, len(content), 29)]
    for bit in range(0, 8 * len(content), 13):
        damaged.append(content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :])
    for old, new in ((b'"F32"', b'"I32"'), (b"[4,2,8]", b"[2,4,8]"), (b"[4,2,8]", b"[4,4,4]"), (b"[4,16]", b"[16,4]")):
        damaged.append(content.replace(old, new))
    for one in damaged:
        assert one != content
        path.write_bytes(one)
        again = blocks.Blocks(tmp_path)
        missing = again.missing(addresses)
        assert len(missing) == 4
        again.add([addresses[place] for place in missing], rows[missing])
        assert (again.gather(addresses) == rows).all()
        assert other.read_bytes() == whole


def test_a_killed_writer_loses_only_its_last_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_ROWS", 2)
    source, folder = pictures(tmp_path, 6), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        colours(source, folder, Encoder(stop_after=5))
    (place,) = folder.iterdir()
    half, old = place / ".half.safetensors", place / ".old.safetensors"
    for left in (half, old):
        left.write_bytes(b"half a block")
    os.utime(old, (0, 0))
    rest = Encoder()
    assert (colours(source, folder, rest)[:, 0, 0] == [0, 20, 40, 60, 80, 100]).all()
    assert rest.seen == [80, 100]
    assert half.exists() and not old.exists()  # the first may be another writer's


def test_atomic_write_of_two_writers(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with write_atomically(path) as one, write_atomically(path) as other:
        one.write_text("one")
        other.write_text("other")
        assert not path.exists()
    assert path.read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_cache_folder_is_configurable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("OMNIBIND_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "omnibind"


def test_match_command_writes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path, "a,image,s,a.png,mugs,train,g0", "b,event,t,b.npz,mug,train,g1")

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.eye(max(len(texts), 1), dtype=np.float32)

    monkeypatch.setattr(command, "text_tower", lambda: embed)
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", "match", str(tmp_path), "--out", str(tmp_path / "labels.csv"), "--no-wordnet"])
    assert args.run(args) == 0
    concepts = Concepts.read(tmp_path / "labels.csv")
    assert concepts.get("s", "mugs") == concepts.get("t", "mug") is not None
    assert "2 labels -> 1 concepts" in capsys.readouterr().out
