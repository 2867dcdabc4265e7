"""Descriptions of labels: from WordNet with the sense that matching chose, and from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.matching import label_descriptions
from omnibind_core.data.matching.label_descriptions import describe_labels, read_label_descriptions, strange_words
from omnibind_core.errors import ConfigError, DataError
from omnibind_core.files import cache_folder


def concepts(**reasons: str) -> Concepts:
    return Concepts([Match("made", name, name, 1.0, reason) for name, reason in reasons.items()])


@pytest.fixture
def wordnet() -> None:
    folder = cache_folder() / "debian/wordnet-base"
    if not (folder.is_dir() or Path("/usr/share/wordnet/data.noun").is_file()):
        pytest.skip(f"no WordNet in {folder}: 'omnibind data match' fetches it, or apt install wordnet-base")
    pytest.importorskip("nltk")


@pytest.mark.usefixtures("wordnet")
def test_the_sense_that_matching_chose_comes_first():
    table = concepts(ketch="name", siren="sense siren.n.04", crane="", kuzzle="name", idea="name")
    found = describe_labels("wordnet", table)
    assert [*found] == ["crane", "ketch", "siren"]  # no dictionary knows a kuzzle, and nobody has seen an idea
    assert len(found["ketch"]) == 1 and found["ketch"][0].startswith("ketch: a sailing vessel with two masts")
    assert len(found["siren"]) == 2 and "acoustic device" in found["siren"][0]
    assert "acoustic" not in describe_labels("wordnet", concepts(siren="name"))["siren"][0]


@pytest.mark.usefixtures("wordnet")
def test_an_unknown_sense_is_named():
    with pytest.raises(DataError, match=r"ketch\.n\.77"):
        describe_labels("wordnet", concepts(ketch="sense ketch.n.77"))


def test_missing_wordnet_says_what_to_install(monkeypatch):
    def missing() -> None:
        raise DataError("no apt")

    monkeypatch.setattr(label_descriptions, "WordNet", missing)
    with pytest.raises(DataError, match=r"no apt.*wordnet-base"):
        describe_labels("wordnet", concepts(cup="name"))
    assert describe_labels("none", concepts(cup="name")) == {}


def test_a_file_describes_the_labels_of_the_data(tmp_path, caplog):
    path = tmp_path / "words.yaml"
    path.write_text(
        "ketch: [a sailing vessel, ' two masts ', ' ']\ncup: something to drink from\ndog:\nyawl: [a ship]\n"
    )
    assert read_label_descriptions(path)["dog"] == ()
    found = describe_labels(str(path), concepts(ketch="", cup="", dog=""))
    assert found == {"ketch": ("a sailing vessel", "two masts"), "cup": ("something to drink from",)}
    assert "yawl" in caplog.text


@pytest.mark.parametrize(("text", "message"), [("cup: 7", "cup"), ("3: [x]", "3"), ("cup: [[x]]", "cup")])
def test_wrong_files_name_the_label(text, message, tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_label_descriptions(path)


@pytest.mark.usefixtures("wordnet")
def test_words_that_are_not_english_are_named_once():
    names = ("Schraubenzieher", "fire engine", "glass of water", "Gabel", "dogs", "gabel Gabel", "Dog", "L2 hamer")
    assert strange_words(names) == ["Schraubenzieher", "Gabel", "gabel", "hamer"]
    assert strange_words({"Gabel": ("a fork",), "hamer": ()}) == ["hamer"]
    assert strange_words(names, names) == strange_words(()) == []


def test_without_wordnet_no_word_is_strange(monkeypatch):
    monkeypatch.setattr(label_descriptions, "installed_wordnet", lambda: None)
    assert strange_words(("Gabel",)) == []


@pytest.mark.usefixtures("wordnet")
def test_the_shipped_models_own_labels_are_no_strange_words(repo):
    names = json.loads((repo / "omnibind_core/weights/lite/labels.json").read_text())["names"]
    assert strange_words(names) == []
