"""Files that once ended in a foreign error: each reader says what was found in which file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnibind_core.config import from_json, from_yaml, read_mapping
from omnibind_core.encoders.checkpoints import open_checkpoint
from omnibind_core.errors import ConfigError, OmniBindError, WeightsError
from omnibind_core.labels import LabelBank

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


@pytest.mark.parametrize(
    "change",
    [{"names": 3}, {"owner": ["a"]}, {"owner": [2**70]}, {"aliases": []}, {"templates": None}, {"descriptions": 3}],
)
def test_labels_of_a_model_that_are_none(change: dict[str, Any]) -> None:
    import torch

    told = {"names": ["cat"], "templates": ["{}"], "aliases": {}, "reduce": "mean", "owner": [0]}
    LabelBank.from_dict(told, torch.ones(1, 2))
    with pytest.raises(OmniBindError, match="labels"):
        LabelBank.from_dict({**told, **change}, torch.ones(1, 2))
