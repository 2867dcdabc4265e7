"""Which label of a model the samples of any data set should get: by a table, by the model's own, or by matching."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from omnibind_core.data.concepts import Concepts
from omnibind_core.data.matching.labels import Embed, match_labels
from omnibind_core.data.matching.phrases import plain
from omnibind_core.data.matching.wordnet import WordNet
from omnibind_core.data.samples import Sample

Key = tuple[str, str]
"""(source, label)"""

_VOCABULARY = " the model's vocabulary"  # a source name that no data set has


@dataclass(frozen=True)
class Labelled:
    """What a label of a data set became.

    Attributes:
        concept: The model's label, or the name of something that the model has no label for; empty if left out.
        how: Where that comes from, in words.
    """

    concept: str
    how: str


def find_labels(
    samples: Iterable[Sample],
    vocabulary: Sequence[str],
    own: Concepts,
    given: Concepts | None = None,
    embed: Embed | None = None,
    wordnet: WordNet | Literal["find"] | None = "find",
) -> dict[Key, Labelled]:
    """Finds the concept of every label.

    A row of ``given`` counts first, then a row of ``own``; an empty concept there leaves the label out. Other labels
    are matched to the vocabulary as training data are (:func:`~omnibind_core.data.matching.labels.match_labels`). A
    concept of ``given`` that the vocabulary does not have is renamed: to what ``own`` calls the same labels or the same
    word, or to what matching finds, unless ``given`` tells the two apart.

    Args:
        samples: Of any sources.
        vocabulary: The model's labels.
        own: The label table that the model was trained with.
        given: The label table of these data.
        embed: Text tower, for matching.
        wordnet: Dictionary, for matching; see ``match_labels``.
    """
    words = _words(own, vocabulary)
    modality = {(sample.source, sample.label): sample.modality for sample in samples}
    found: dict[Key, Labelled] = {}
    renamed = {} if given is None else _renamed(modality, vocabulary, words, own, given, embed, wordnet)
    left: list[tuple[str, str, str]] = []
    for key, of in sorted(modality.items()):
        concept = None if given is None else given.get(*key)
        if concept is not None:
            found[key] = Labelled(renamed.get(concept, concept), "label table")
        elif (concept := own.get(*key)) is not None:
            found[key] = Labelled(concept, "the model's own table")
        elif (concept := words.get(plain(key[1]))) is not None:
            found[key] = Labelled(concept, "same word as in the model's own table")
        else:
            left.append((*key, of))
    matched = dict(_match(left, vocabulary, embed, wordnet))
    for source, label, _ in left:
        concept = matched.get((source, label), "")
        found[source, label] = Labelled(concept or plain(label), "matched" if concept else "matches no label")
    return found


def _renamed(
    keys: Iterable[Key],
    vocabulary: Sequence[str],
    words: Mapping[str, str],
    own: Concepts,
    given: Concepts,
    embed: Embed | None,
    wordnet: WordNet | Literal["find"] | None,
) -> dict[str, str]:
    """Labels of the vocabulary by the concepts of a given table that mean the same."""
    known, apart = {*vocabulary}, {*given.names}
    taught: dict[str, set[str]] = defaultdict(set)
    for match in given:
        taught[match.canonical].add(own.get(match.source, match.label) or "")
    renamed: dict[str, str] = {}
    unnamed = []
    for name in sorted({concept for key in keys if (concept := given.get(*key))} - known):
        spelled, called = words.get(plain(name)), taught[name] & known
        if len(called) == 1:
            renamed[name] = called.pop()
        elif spelled is not None:
            renamed[name] = spelled
        else:
            unnamed.append(("table", name, "image"))
    for (_, name), label in _match(unnamed, vocabulary, embed, wordnet):
        if label not in apart:
            renamed[name] = label
    return renamed


def _words(own: Concepts, vocabulary: Sequence[str]) -> dict[str, str]:
    """The label of the vocabulary by the words that name it, where that is clear."""
    meanings: dict[str, set[str]] = defaultdict(set)
    for match in own:
        meanings[plain(match.label)].add(match.canonical)
        meanings[plain(match.canonical)].add(match.canonical)
    words = {word: next(iter(of)) for word, of in meanings.items() if len(of) == 1}
    words = {word: of for word, of in words.items() if of in vocabulary}
    return words | {plain(name): name for name in vocabulary}


def _match(
    triples: Sequence[tuple[str, str, str]],
    vocabulary: Sequence[str],
    embed: Embed | None,
    wordnet: WordNet | Literal["find"] | None,
) -> Iterable[tuple[Key, str]]:
    """The label of the vocabulary that each ``(source, label, modality)`` is matched with, if there is one."""
    if not triples:
        return
    table = match_labels([*triples, *((_VOCABULARY, name, "image") for name in vocabulary)], embed, wordnet)
    members: dict[str, list[str]] = defaultdict(list)
    for match in table:
        if match.source == _VOCABULARY:
            members[match.canonical].append(match.label)
    for match in table:
        names = members.get(match.canonical)
        if match.source != _VOCABULARY and names:
            yield (match.source, match.label), match.canonical if match.canonical in names else min(names)
