"""Files that once ended in a foreign error: each reader says what was found in which file."""

from __future__ import annotations

import csv
import io
import itertools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from omnibind_core import cli, modalities
from omnibind_core.commands.train import _figures
from omnibind_core.config import MOST_VALUES, from_json, from_yaml, read_mapping
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.folder import FolderSource
from omnibind_core.data.sources.imagenet import _wnids
from omnibind_core.encoders.checkpoints import open_checkpoint
from omnibind_core.errors import ConfigError, DataError, InvalidInputError, OmniBindError, WeightsError
from omnibind_core.evaluation.report import document, plots
from omnibind_core.features.adaptation import read_homes
from omnibind_core.labels import LabelBank, Prompts, clean
from omnibind_core.modalities.archives import check_archive
from omnibind_core.training.logs import Table
from omnibind_ros.bags import scene_bag
from omnibind_ros.messages.fields import DecodeOptions
from omnibind_ros.messages.frames import modality_frame
from omnibind_ros.replay import truth
from omnibind_ros.replay.objects import truth as things

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "name, text",
    [
        ("deep.json", DEEP),
        ("deep.yaml", DEEP),
        ("deeper.yaml", "- " * 2000),
        ("date.yaml", "a: 2001-99-99"),
        ("number.yaml", "a: " + "9" * 5000),
        ("empty.yaml", "a: !!int ''"),
        ("number.json", '{"a": ' + "9" * 5000 + "}"),
        ("latin.yaml", "a: \xfc"),
    ],
)
def test_a_text_that_cannot_be_read_names_its_file(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=name):
        read_mapping(path)


@pytest.mark.parametrize("read", [from_json, from_yaml])
def test_depth_is_bounded_and_usual_texts_are_read(read: Callable[[str], Any]) -> None:
    assert read('{"a": [[[1, 2.5, null]]], "b": {"c": true}}') == {"a": [[[1, 2.5, None]]], "b": {"c": True}}
    assert read("[" * 90 + "]" * 90) is not None
    with pytest.raises(ValueError, match="nested"):
        read(DEEP)


def test_many_values_and_aliases_of_aliases_are_bounded() -> None:
    with pytest.raises(ValueError, match=f"more than {MOST_VALUES} values"):
        from_yaml("[" + "1," * MOST_VALUES + "]")
    chain = ["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 1300))]
    assert len(from_yaml("\n".join(chain[:90]))) == 90
    with pytest.raises(ValueError, match="nested more than 100 levels with all that aliases stand for"):
        from_yaml("\n".join(chain))


@pytest.mark.parametrize("values", ["centres", "scale", None])
def test_a_home_that_is_none(tmp_path: Path, values: str | None) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"image.centres": torch.ones(2, 4), "image.scale": torch.ones(2)}
    if values is None:
        del tensors["image.scale"]
    else:
        tensors[f"image.{values}"][0] = torch.nan
    save_file(tensors, tmp_path / "home.safetensors")
    with pytest.raises(WeightsError, match=r"home\.safetensors: 'image' has"):
        read_homes(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        '{"weight_map": 3}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": ["b"]}}',
        '{"weight_map": {"a": "b.bin"}, "metadata": 3}',
        '{"weight_map": {"a": "../b.bin"}}',
        "[]",
        DEEP,
    ],
)
def test_an_index_of_weights_that_is_none(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pytorch_file_with_any_byte_changed(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(4)}, path)
    whole = path.read_bytes()
    refused = 0
    for place in (*range(0, len(whole), 5), whole.rfind(b"PK\1\2")):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            open_checkpoint(path)
        except WeightsError as error:
            refused += str(path) in str(error)
        path.unlink()  # what is mapped into memory keeps its own
    assert refused > 10


def test_a_pytorch_file_without_check_sums_is_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import torch

    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        sums = {entry.CRC for entry in archive.infolist() if entry.file_size}
    whole = path.read_bytes()
    for checked in sums:  # as torch.serialization.set_crc32_options(False) writes it
        whole = whole.replace(struct.pack("<I", checked), bytes(4))
    path.write_bytes(whole)
    assert open_checkpoint(path, verify=True)["a"].tolist() == [1, 1, 1, 1]
    assert f"{path} was saved without check sums" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"names": 3},
        {"names": ["\x00"]},
        {"names": ["a", "a"], "owner": [0, 1]},
        {"owner": ["a"]},
        {"owner": [2**70]},
        {"aliases": []},
        {"templates": None},
        {"descriptions": 3},
    ],
)
def test_labels_of_a_model_that_are_none(change: dict[str, Any]) -> None:
    import torch

    told = {"names": ["cat"], "templates": ["{}"], "aliases": {}, "reduce": "mean", "owner": [0]}
    LabelBank.from_dict(told, torch.ones(1, 2))
    with pytest.raises(OmniBindError, match="labels"):
        LabelBank.from_dict({**told, **change}, torch.ones(len(change.get("owner", [0])), 2))


def test_labels_of_a_model_are_cleaned_as_others() -> None:
    import torch

    told = {
        "names": ["a\x1b[31m b"],
        "templates": ["{}"],
        "aliases": {"a\x1b[31m b": ["c"]},
        "reduce": "mean",
        "owner": [0],
    }
    bank = LabelBank.from_dict(told, torch.ones(1, 2))
    assert bank.names == ("a[31m b",) and bank.aliases == {"a[31m b": ("c",)}


@pytest.mark.parametrize("name", ["a \x00 b", "\u200e a\u200e \x00", "a\x00\n\x00b", "\x85 \xa0x"])
def test_a_label_that_was_cleaned_is_clean(name: str) -> None:
    assert clean(clean(name)) == clean(name)
    assert "  " not in clean(name)


@pytest.mark.parametrize("path", [".", "./", "a\0b", "..", "/etc/passwd"])
def test_a_path_of_samples_that_names_no_file_inside(tmp_path: Path, path: str) -> None:
    table = tmp_path / "samples.csv"
    table.write_text(f"id,modality,source,path,label,split,group\na,image,s,{path},cat,train,\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"samples\.csv.*(line 2|no CSV)"):
        FolderSource(tmp_path)


def _scene_labels(path: Path) -> Any:
    return scene_bag.read_labels(path)


@pytest.mark.parametrize("read", [Concepts.read, _scene_labels, lambda path: truth.from_table(path, 0, 10**10)])
@pytest.mark.parametrize(
    "content", [b"source,label,canonical\ns,M\xfcll,m\n", b"start_s,end_s,label\n0,1," + b"a" * 200_000, b"\0" * 64]
)
def test_a_table_of_labels_that_is_none(tmp_path: Path, read: Callable[[Path], Any], content: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.csv"):
        read(path)


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _stored_as(archive: bytes, flags: int, method: int) -> bytes:
    """The archive, whose members claim another compression."""
    changed = bytearray(archive)
    for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        found = changed.find(magic)
        while found >= 0:
            struct.pack_into("<HH", changed, found + place, flags, method)
            found = changed.find(magic, found + 4)
    return bytes(changed)


_ARCHIVE = _npz(points=np.ones((500, 3), np.float32), x=np.arange(300), y=np.arange(300), t=np.arange(300))
_LEAST = np.iinfo(np.int64).min


@pytest.mark.parametrize("modality", ["point_cloud", "event"])
@pytest.mark.parametrize(
    "content",
    [
        _ARCHIVE[:60] + bytes(byte ^ 255 for byte in _ARCHIVE[60:100]) + _ARCHIVE[100:],
        _stored_as(_ARCHIVE, 1, 8),
        _stored_as(_ARCHIVE, 0, 99),
        b"PK\3\4 and nothing",
        _npz(frame=np.full((4, 4), _LEAST)),
        _npz(frame=np.full((4, 4), 1 << 40)),
    ],
    ids=["zlib", "encrypted", "future", "short", "least", "many"],
)
def test_an_archive_of_arrays_that_cannot_be_read(tmp_path: Path, modality: str, content: bytes) -> None:
    path = tmp_path / "item.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"item\.npz"):
        modalities.load(modality, path)


def test_objects_in_an_archive_that_nobody_reads(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", points=points, names=np.array(["a" * 50, {}], dtype=object))
    check_archive(tmp_path / "a.npz", "an archive")
    modalities.load("point_cloud", tmp_path / "a.npz")


@pytest.mark.parametrize("modality", ["thermal", "point_cloud", "event"])
def test_an_array_whose_header_is_no_python(tmp_path: Path, modality: str) -> None:
    path = tmp_path / "item.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 110 + b"\n" * 8)
    with pytest.raises(InvalidInputError, match=r"item\.npy"):
        modalities.load(modality, path)


def test_a_table_of_classes_that_is_another(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "meta.mat"
    for synsets in (np.ones(3), "words"):
        scipy_io.savemat(path, {"synsets": synsets})
        with pytest.raises(DataError, match=r"meta\.mat"):
            _wnids(path)


def test_a_table_of_classes_on_which_scipy_dies(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "meta.mat"
    rows = np.zeros((2, 1), [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")])
    for row in range(2):
        rows[row, 0] = (np.uint8([[row + 1]]), f"n{row:08d}", np.uint8([[0]]))
    scipy_io.savemat(path, {"synsets": rows})
    assert _wnids(path) == {"1": "n00000000", "2": "n00000001"}
    content = path.read_bytes()
    path.write_bytes(content[:332] + b"\x0e\0\0\0" + content[336:])  # a matrix where numbers were: SIGSEGV
    with pytest.raises(DataError, match=r"meta\.mat is not .* classes: (SciPy ends by signal|\w+Error)"):
        _wnids(path)


def test_a_log_that_ends_in_zeros_is_read_so_far(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "align.csv"
    path.write_bytes(b"step,loss\n1,0.5\n2,0.4\n" + b"\0" * 100)
    Table(path, 2)
    assert path.read_text(encoding="utf-8").split() == ["step,loss", "1,0.5", "2,0.4"]
    path.write_bytes(b"\0" * 100)
    Table(path, 2)
    assert "align.csv: 0 rows are whole" in caplog.text


def test_a_frame_of_more_dimensions_than_numpy_has() -> None:
    message = SimpleNamespace(modality="image", model="", kind=0, dtype=0, shape=[1] * 65, data=np.zeros(1, np.uint8))
    with pytest.raises(InvalidInputError, match="65 dimensions"):
        modality_frame(message, "image", DecodeOptions(), "camera")


def test_truth_of_many_rows_is_what_each_row_says() -> None:
    rng = np.random.default_rng(0)
    rows = [(int(a), int(a + b), f"label {c}") for a, b, c in rng.integers(0, (90, 12, 5), (60, 3))]
    found = truth.Truth(tuple(truth.Interval(*row) for row in rows))
    for time in range(-1, 110):
        assert found.at(time) == tuple(dict.fromkeys(label for start, end, label in rows if start <= time < end))
    ordered = [truth.Interval(*row) for row in sorted(rows) if row[0] < row[1]]
    pairs = [(a, b) for n, a in enumerate(ordered) for b in ordered[n + 1 :] if b.start_ns < a.end_ns]
    assert truth._overlaps(ordered, 0)[0].startswith(f"{len(pairs)} pairs")


def test_truth_of_many_rows_takes_no_longer_for_it() -> None:
    """8,000 different labels that all overlap: 57 s, where each time kept what holds."""
    intervals = tuple(truth.Interval(number, 8000 + number, f"label {number}") for number in range(8000))
    begin = process_time()
    found = truth.Truth(intervals)
    assert found.at(7999) == tuple(one.label for one in intervals)
    assert found.at(2**70) == found.at(-(2**70)) == ()
    assert next(found.segments()) == (0, 1, ("label 0",))
    assert process_time() - begin < 2


def test_segments_of_many_rows_are_what_each_row_says() -> None:
    rng = np.random.default_rng(1)
    rows = [(int(a), int(a + b), f"label {c}") for a, b, c in rng.integers(0, (90, 12, 5), (80, 3))]
    found = truth.Truth(tuple(truth.Interval(*row) for row in rows))
    told = {time: labels for begin, end, labels in found.segments() for time in range(begin, end)}
    assert [told.get(time, ()) for time in range(110)] == [found.at(time) for time in range(110)]
    segments = list(found.segments())
    assert all(one[1] < other[0] or one[2] != other[2] for one, other in itertools.pairwise(segments))


@pytest.mark.parametrize("text", ["1e14", "-1e14", "9223372036854775808", "1" + "0" * 40, "1e400", "nan"])
def test_a_time_that_no_clock_tells(text: str, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(f"start_s,end_s,label\n0,{text},a\n")
    with pytest.raises(DataError, match=r"labels\.csv, line 2: '.*' is no time"):
        truth.from_table(table, 0, 10)


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, "[]", "{}", '{"single": 3}', '{"single": {"image": 1}}'])
def test_figures_of_stage_one_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text(text)
    with pytest.raises(DataError, match=r"figures\.json: no figures of stage I"):
        _figures(tmp_path / "figures.json")


WORDS = [
    "$\\frac{$",
    "a$b",
    "two\nlines",
    "\x1b[31mred",
    "nul\0",
    "\u202edrawkcab",
    "=1+1",
    "@SUM(A1)",
    "+1",
    "<b>",
    "\ud800",
]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_labels_of_any_letters_are_drawn_and_written(tmp_path: Path) -> None:
    marks = "".join(map(chr, (0, 0x1B, 0x202E, 0xD800)))
    words = WORDS[:-1]  # half a surrogate is in no file
    picture = plots.bars(
        "drawn", f"of {words[3]}", words, {word: [(0.5, None)] * len(words) for word in words}, "share"
    )
    ElementTree.fromstring(picture.data)
    rows = [{"label": word, "n": place} for place, word in enumerate(words)]
    table = document.Table("words", "Words", rows, (document.Column("label", "label"), document.Column("n", "n")))
    section = document.Section("Words", words[5], [table, picture])
    page = document.Report("evaluation", "Words", {}, [section]).write(tmp_path).read_text(encoding="utf-8")
    assert "<b>" not in page.partition("<table")[2].partition("</table>")[0]
    assert not set(page) & set(marks)
    written = (tmp_path / "tables" / "words.csv").read_text(encoding="utf-8")
    cells = [row["label"] for row in csv.DictReader(io.StringIO(written, newline=""))]
    assert not [cell for cell in cells if cell[0] in "=+-@"]
    assert "'=1+1" in cells and "a$b" in cells
    assert document.neutral(-1.5) == -1.5 and document.neutral("-") == "-"


def test_labels_of_all_tables_are_one_line_that_can_be_shown(tmp_path: Path) -> None:
    dirty, shown = "\u202ered\x1b[31m\tcup\u2066 ", "red[31m cup"
    sample = Sample("a", "image", "s", "a.png", dirty, "train", "a")
    assert sample.label == shown
    table = tmp_path / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("source", "label", "canonical"), ("s", dirty, dirty.replace("cup", "mug"))])
    assert Concepts.read(table).of(sample) == "red[31m mug"
    with (tmp_path / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [
            ("id", "modality", "source", "path", "label", "split", "group"),
            ("a", "image", "s", "a", dirty, "val", ""),
        ]
        csv.writer(file).writerows(rows)
    assert FolderSource(tmp_path).samples()[0].label == shown
    samples = (tmp_path / "samples.csv").read_text(encoding="utf-8").replace(dirty.strip(), "\u202e\x1b")
    (tmp_path / "samples.csv").write_text(samples, encoding="utf-8")
    with pytest.raises(DataError, match="line 2: label is empty"):
        FolderSource(tmp_path)
    with (tmp_path / "objects.csv").open("w", newline="", encoding="utf-8") as file:
        box = {"sensor": "camera", "left": 0, "top": 0, "right": 1, "bottom": 1}
        csv.writer(file).writerows([("start_s", "end_s", "id", "label", *box), (0, 1, dirty, dirty, *box.values())])
    assert things.read(tmp_path / "objects.csv", 0, 10**9).labels == {shown: shown}


@pytest.mark.parametrize("names", [["a", "a"], ["a", " a"], [""], ["\x1b"], [3]])
def test_labels_of_a_model_that_cannot_be_shown_or_told_apart(names: list[Any]) -> None:
    said = {"names": names, "owner": [0, 1][: len(names)], "templates": ["{}"], "aliases": {}, "reduce": "mean"}
    with pytest.raises(ConfigError, match=r"labels have .* expected one line|twice|other types"):
        LabelBank.from_dict(said, torch.eye(4)[: len(names)])


def test_what_files_say_is_shown_without_control_characters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "samples.csv"
    table.write_text("id,modality,source,path,label,split,group\na,\x1b[31mx\x07,s,a,b,val,\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        cli.main(["data", "inspect", "folder", str(tmp_path)])
    said = capsys.readouterr().err
    assert "[31mx" in said and said.count("\n") == 1 and said.strip().isprintable()


def test_labels_are_one_line_that_can_be_shown() -> None:
    names = Prompts.of([*WORDS, "\x1b", "  "], ["a {}"]).names
    assert names[:7] == ("$\\frac{$", "a$b", "two lines", "[31mred", "nul", "drawkcab", "=1+1")
    assert len(names) == len(WORDS) - 1
    assert all(name.isprintable() for name in names)
