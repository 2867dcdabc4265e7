"""YAML and JSON that others wrote: no more is made of it than it says."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from omnibind_core.config import MOST_LEVELS, MOST_VALUES, forms_of_yaml, from_yaml, read_mapping
from omnibind_core.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{of}'])}]\n" for of, name in itertools.pairwise("abcdefghi")
)
HOSTILE = {
    BOMB: f"aliases stand for, expected at most {MOST_VALUES}",
    BOMB.replace("a: &a", "<<: &a"): "expected at most|expected a mapping",
    "[" * 100_000: f"more than {MOST_LEVELS} levels",
    "- " * 100_000: f"more than {MOST_LEVELS} levels",
    "{a: " * 100_000: f"more than {MOST_LEVELS} levels",
    "a: &a [*a]": "holds itself",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_yaml_that_stands_for_more_than_it_says_is_refused_before_anything_is_made_of_it(
    text: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=HOSTILE[text]):
        from_yaml(text)
    with pytest.raises(ValueError, match=HOSTILE[text].partition("|")[0]):
        forms_of_yaml(text)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read as configuration"):
        read_mapping(tmp_path / "a.yaml")


def test_json_that_nests_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ' * 100_000)
    with pytest.raises(ConfigError, match=r"a\.json: cannot be read as configuration"):
        read_mapping(tmp_path / "a.json")


def test_aliases_and_merged_keys_are_read() -> None:
    text = "a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 4}\nc: *a"
    assert from_yaml(text) == {"a": {"x": 1, "y": [2, 3]}, "b": {"x": 4, "y": [2, 3]}, "c": {"x": 1, "y": [2, 3]}}
    assert from_yaml(text.encode()) == from_yaml(text)
    assert from_yaml("") is None
    assert from_yaml("[" * MOST_LEVELS + "]" * MOST_LEVELS)


def test_the_form_of_yaml_is_told_whatever_its_tags_and_values_are() -> None:
    text = "a: !!python/tuple [cup, !x 2]\nb: {c: 2024-13-45, d: =, 1: !!int x}\nf: !!python/object:os.x {g: }\n--- h"
    assert forms_of_yaml(text) == [
        {
            "a": ["cup", "2"],
            "b": {"c": "2024-13-45", "d": "=", "1": "x"},
            "f": {"g": ""},
        },
        "h",
    ]
