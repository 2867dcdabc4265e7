"""Own data in one command: own words, a split that is drawn, and what is said where figures are missing or poor."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import resource

import numpy as np
import pytest
import torch

from omnibind_core import OmniBind, cli
from omnibind_core.blocks import Blocks
from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.holdout import hold_out
from omnibind_core.data.matching.label_descriptions import describe_labels, spell_alike
from omnibind_core.data.matching.labels import keep_labels
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.errors import DataError
from omnibind_core.features.sets import FeatureSet
from omnibind_core.training import config as training_config
from omnibind_core.training.checkpoint import Checkpoints, Progress
from omnibind_core.training.dataset import TrainingData, splits
from omnibind_core.training.verdict import doubts

WORDS = ("Tasse", "Stühle", "mug")
SMALL = (
    "model=tiny",
    "logger=none",
    "augmentations=1",
    "more_augmentations={}",
    "more_randomised={}",
    "align={steps: 4, batch: 16, lr: 0.01}",
    "image_text={steps: 2}",
    "fuse={steps: 3, batch: 16, fusion: {preset: reliability}}",
)


def clouds(root, words=WORDS, count=4):
    """A tree ``point_cloud/LABEL/`` of real files."""
    rng = np.random.default_rng(0)
    for index, word in enumerate(words):
        folder = root / "point_cloud" / word
        folder.mkdir(parents=True)
        for number in range(count):
            shape = [(1, 1, 1), (1, 1, 0.1), (1, 0.1, 0.1)][index]
            np.savez(folder / f"{number}.npz", points=(rng.uniform(-1, 1, (256, 3)) * shape).astype(np.float32))
    return root


def own(data, out, *extra: str) -> int:
    sets = [word for text in (*SMALL, *extra) for word in ("--set", text)]
    with pytest.raises(SystemExit) as stop:
        cli.main(("train", "own", "--data", str(data), "--out", str(out), *sets))
    return int(stop.value.code or 0)


def sample(number: int, label: str = "cup", split: str = "train", group: str = "", modality: str = "image") -> Sample:
    return Sample(str(number), modality, "mine", f"{number}.png", label, split, group or str(number))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The data, what came of them, and what was printed."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setenv("OMNIBIND_CACHE", str(folder / "cache"))
        assert own(clouds(folder / "data"), folder / "out") == 0
    return folder / "data", folder / "out", said.getvalue()


def test_one_command_from_a_tree_of_files_to_a_model_that_knows_the_own_words(trained, tmp_path):
    _, out, said = trained
    model = OmniBind.from_pretrained(out / "model")
    assert sorted(model.labels.names) == sorted(WORDS)  # as they are written, and no others
    assert "12 samples of 3 labels (12 point_cloud)" in said and "3 are held back" in said and "seed 0" in said
    clouds(tmp_path)
    (tmp_path / "samples.csv").write_text((out / "samples.csv").read_text())
    assert sorted(one.label for one in FolderSource(tmp_path).samples(split="val")) == sorted(WORDS)


def test_stage_two_says_what_stage_one_had(trained, tmp_path, capsys):
    settings = str(trained[1] / "align" / "train.yaml")
    saved = training_config.load(settings)
    assert (saved.labels, saved.holdout, saved.start) == ("own", 0.25, None)
    with pytest.raises(SystemExit) as stop:
        cli.main(("train", "fuse", "--config", settings, "--set", f"data={clouds(tmp_path / 'fewer', WORDS[:2])}"))
    assert stop.value.code == 2
    assert f"stage I had data={trained[0]}, stage II has data={tmp_path / 'fewer'}" in capsys.readouterr().err


def test_without_validation_it_says_so_and_does_not_recommend_itself(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMNIBIND_CACHE", str(tmp_path / "cache"))
    assert own(clouds(tmp_path / "data", count=2), tmp_path / "out", "holdout=0") == 0
    said = capsys.readouterr().out
    assert "no validation samples" in said and "holdout=0.25" in said
    assert "see the warnings before you use it" in said and ", use it" not in said


def data_of(train: dict[str, list[int]], val: dict[str, list[int]]) -> TrainingData:
    sets = [
        {
            name: FeatureSet(tuple(map(sample, labels)), np.zeros((len(labels), 1, 2), np.float32), np.array(labels))
            for name, labels in part.items()
        }
        for part in (train, val)
    ]
    return TrainingData(("a", "b"), Concepts([]), *sets)


GOOD = {"image": {"n": 2, "top1": 0.9}}
BOTH = {"image": [0, 1]}


def test_good_figures_leave_nothing_to_say():
    assert doubts(data_of(BOTH, BOTH), GOOD, [{"modalities": 2, "fused": 0.8}]) == []


@pytest.mark.parametrize(
    ("data", "single", "rows", "expected"),
    [
        (data_of(BOTH, BOTH), {"image": {"n": 25, "top1": 0.04}}, [], "only 4.0% of 25"),
        (data_of(BOTH, BOTH), GOOD, [{"modalities": 2, "fused": 0.3}], "2 modalities together are right on only 30.0%"),
        (data_of(BOTH, {"image": [1, 1]}), GOOD, [], "all validation samples are 'b'"),
        (data_of({"image": [0, 0]}, {"image": [0]}), GOOD, [], "'a' alone was learned"),
        (data_of({**BOTH, "touch": [0, 1]}, BOTH), GOOD, [], "how right touch is"),
        (data_of(BOTH, {}), {}, [], "no validation samples"),
        (data_of(BOTH, {}), {}, [], "takes two groups of a label at least"),
        (dataclasses.replace(data_of({"image": [0]}, {"image": [0]}), vocabulary=("a",)), GOOD, [], "only label"),
    ],
)
def test_figures_that_say_little_or_are_poor_are_doubted(data, single, rows, expected):
    (doubt,) = [text for text in doubts(data, single, rows) if expected in text]
    assert doubt


def test_whole_groups_of_each_label_and_modality_are_held_out():
    samples = [sample(n, "ab"[n % 2], group=f"g{n // 4}", modality=m) for m, s in (("image", 0), ("touch", 16)) for n in range(s, s + 16)]  # fmt: skip  # noqa: E501
    drawn = splits(samples, 0.25, 0)
    by_group = {one.group: one.split for one in drawn}
    assert all(by_group[one.group] == one.split for one in drawn)
    held = {(one.modality, one.label) for one in drawn if one.split == "val"}
    assert held == {("image", "a"), ("image", "b"), ("touch", "a"), ("touch", "b")}
    assert drawn == splits(samples, 0.25, 0) and sum(one.split == "val" for one in drawn) == 8


def test_a_split_that_is_there_stays_and_a_single_group_is_learned_from():
    there = [sample(0), sample(1, split="val"), sample(2)]
    assert splits(there, 0.25, 0) == there
    assert hold_out([sample(0, group="g"), sample(1, group="g")], lambda one: one.label, 0.25, 0) == set()


def test_own_labels_stay_as_they_are_written():
    table = keep_labels([("mine", "Stühle", "image"), ("mine", "mug", "image"), ("mine", "cup", "touch")])
    assert [(row.label, row.canonical, row.meaning) for row in table] == [
        (word, word, "") for word in ("Stühle", "cup", "mug")
    ]


def test_meanings_of_the_table_are_what_is_taught():
    table = Concepts(
        [Match("mine", "mug", "mug", 1.0, "sense mug.n.04", "a cup"), Match("mine", "Tor", "Tor", 1.0, "")]
    )
    assert describe_labels("meaning", table) == {"mug": ("mug: a cup",)}


def test_names_that_the_text_tower_cannot_read_are_spelled():
    def embed(words):
        return np.array([[1.0, 0.0] if word in ("剪刀", "雨伞") else [0.0, 1.0] for word in words], np.float32)

    spelled = spell_alike(("剪刀", "雨伞", "Stühle", "cup"), embed, {})
    assert spelled == {"剪刀": ("U+526A U+5200",), "雨伞": ("U+96E8 U+4F1E",)}
    assert spell_alike(("剪刀", "雨伞"), embed, {"剪刀": ("scissors",)}) == {}


@contextlib.contextmanager
def no_room(size: int):
    """No file may be larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_in_one_sentence(tmp_path):
    blocks, addresses, rows = Blocks(tmp_path / "cache"), ["0" * 31 + digit for digit in "1234"], np.ones((4, 4096))
    module = torch.nn.Linear(64, 64)
    with no_room(1000):
        blocks.add(addresses, rows.astype(np.float32))
        with pytest.raises(DataError, match="cannot write the cache"):
            blocks.flush()
        with pytest.raises(DataError, match="cannot write the checkpoint"):
            Checkpoints(tmp_path, "align", module, torch.optim.SGD(module.parameters()), {}).save(Progress())
    blocks.flush()
    with no_room(1000), pytest.raises(DataError, match="cannot write the cache"):
        blocks.gather(addresses)


def test_no_room_for_the_table_ends_in_one_sentence(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FolderSource, "write", full)
    assert own(clouds(tmp_path / "data"), tmp_path / "out") == 2
    assert "omnibind: there is no room to write" in capsys.readouterr().err


def test_a_folder_of_neither_form_names_both(tmp_path):
    (tmp_path / "images" / "cup").mkdir(parents=True)
    with pytest.raises(DataError, match=r"samples.csv is missing: expected that table, or files in MODALITY/LABEL/"):
        FolderSource(tmp_path)
