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

EMPTY = "label table, empty"
"""How a label came to be nothing that the model has a label for."""
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
    *,
    leave_out: bool = False,
) -> dict[Key, Labelled]:
    """Finds the concept of every label.

    A row of ``given`` counts first, then a row of ``own``, where an empty concept leaves the label out. Other labels
    are matched to the vocabulary as training data are (:func:`~omnibind_core.data.matching.labels.match_labels`). A
    concept of ``given`` that the vocabulary does not have is renamed: to what ``own`` calls the same labels or the same
    word, to a label that ``given`` takes for it (:func:`fold_labels`), or to what matching finds, unless ``given``
    tells the two apart. An empty concept of ``given`` is a thing that the model has no label for, whatever its name.

    Args:
        samples: Of any sources.
        vocabulary: The model's labels.
        own: The label table that the model was trained with.
        given: The label table of these data.
        embed: Text tower, for matching.
        wordnet: Dictionary, for matching; see ``match_labels``.
        leave_out: Whether an empty concept of ``given`` leaves the label out instead.
    """
    words = _words(own, vocabulary)
    modality = {(sample.source, sample.label): sample.modality for sample in samples}
    found: dict[Key, Labelled] = {}
    renamed = {} if given is None else _renamed(modality, vocabulary, words, own, given, embed, wordnet)
    left: list[tuple[str, str, str]] = []
    for key, of in sorted(modality.items()):
        concept = None if given is None else given.get(*key)
        if concept == "":
            found[key] = Labelled("" if leave_out else _nameless(key[1], vocabulary), EMPTY)
        elif concept is not None:
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


def fold_labels(vocabulary: Sequence[str], own: Concepts, given: Concepts) -> dict[str, str]:
    """The labels of the model that a table takes for the same as another one, and that other one.

    A row of the table tells of the label that ``own`` has for it, else of the label that is called as the row's. If all
    that it tells of a label is one concept, and the table has no concept of the label's own name, then the label is
    folded into what the model calls that concept: so a ``rooster`` is a ``chicken`` where a table says
    ``rooster,chicken``.

    Args:
        vocabulary: The model's labels.
        own: The label table that the model was trained with.
        given: The table.
    """
    words, members = _words(own, vocabulary), _members(vocabulary, own, given)
    first = {name: name if name in vocabulary else _called(name, words, members, own, given) for name in given.names}
    folded = {label: first[name] for name, labels in members.items() for label in labels}
    kept = {*first.values()}
    return {label: of for label, of in sorted(folded.items()) if of is not None and of != label and label not in kept}


def _members(vocabulary: Sequence[str], own: Concepts, given: Concepts) -> dict[str, list[str]]:
    """By concept of the given table, the labels of the model of which it tells that concept and no other."""
    named, names = {plain(label): label for label in vocabulary}, {*given.names}
    told = {label: {label} & names for label in vocabulary}
    for match in given:
        taught = own.get(match.source, match.label)
        label = named.get(plain(match.label)) if taught is None else taught
        if match.canonical and label in told:
            told[label].add(match.canonical)
    members: dict[str, list[str]] = defaultdict(list)
    for label, concepts in told.items():
        if len(concepts) == 1:
            members[next(iter(concepts))].append(label)
    return members


def _called(
    name: str, words: Mapping[str, str], members: Mapping[str, Sequence[str]], own: Concepts, given: Concepts
) -> str | None:
    """What the model calls a concept of the given table that is none of its labels; None if that is to be matched."""
    known = {*words.values()}
    of = (own.get(match.source, match.label) for match in given if match.canonical == name)
    taught = {label for label in of if label is not None and label in known}
    if len(taught) == 1:
        return taught.pop()
    return words.get(plain(name)) or min(taught & {*members.get(name, ())}, default=None)


def _nameless(label: str, vocabulary: Sequence[str]) -> str:
    """A name for a thing that the model has no label for, although it may have one that is called so."""
    name = plain(label)
    while name in vocabulary:
        name = f"another {name}"
    return name


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
    members = _members(vocabulary, own, given)
    renamed: dict[str, str] = {}
    unnamed = []
    for name in sorted({concept for key in keys if (concept := given.get(*key))} - known):
        called = _called(name, words, members, own, given)
        if called is not None:
            renamed[name] = called
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
