"""Label-level matching: which labels of which sources are one concept (paper Sec. 3.4), offline.

Three kinds of evidence, the plain ones first: what thing a label names
(:mod:`omnibind_core.data.matching.phrases`), WordNet
(same sense; a kind of a thing that another source names: dalmatian → dog), and text embeddings (which sense is meant
among the source's other labels; what WordNet does not know). Over-merging costs more than under-merging: two labels
that one source tells apart stay apart unless WordNet says that one is a kind of the other and a second source uses the
wider word.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.concepts import Concepts, Match
from omnibind_core.data.matching.phrases import Phrase, Rules, read_phrase
from omnibind_core.data.matching.wordnet import WordNet, find_wordnet

Pair = tuple[str, str, str]
"""(source, label, modality)"""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Sentences to embeddings ``float32 [N, D]``; any length, cosine is taken."""

# A class of things that one may stand for ("dog": 189 kinds, "ball", "car") against a realm ("bird": 871, "tool").
_MAX_HYPONYMS = 250
_MAX_STEPS = 6
# Sense choice: what is added to the cosine of a sense's definition to the neighbouring labels, whose differences
# between senses are about 0.1. The commonest sense of a word is usually meant; words for persons that also name a thing
# (boxer, dalmatian) mean the thing, unless the person is common in texts; a sense that has another name first (home
# plate) is rarely what the word by itself says, least of all a part of the body (mug, seat, chest); "the flesh of a
# duck" is not what a duck is;
# "computer mouse" elsewhere tells what a mouse is, and "rooster" what a cock; two words of one source seldom mean the
# same.
_FREQUENT = 0.2
_PERSON, _COMMON, _MOSTLY = -0.2, 5, 0.9
_NICKNAME, _OF_BODY = -0.1, -0.2
_DERIVED = -0.1
_NAMED = 0.15
_TAKEN = -0.2
_NEIGHBOURS = 5
# By how much the best sense has to lead the next, so that the choice goes without saying.
_LEAD = 0.05
# Two sources have the same vocabulary if they share so many words, and this part of all their words.
_SHARED, _MIRRORED = 10, 0.5
_POOLED = 0.7
_SAME = 0.72
"""Cosine of MiniLM above which two names are near enough to be one thing, if nothing speaks against it."""


@dataclass(frozen=True)
class _Label:
    source: str
    label: str
    modalities: frozenset[str]
    phrase: Phrase
    family: str
    sense: str | None = None
    rival: str | None = None  # a sense that is nearly as likely


@dataclass
class _Group:
    """Labels that surely name one thing."""

    labels: list[_Label]
    name: str
    sense: str | None
    parent: _Group | None = None
    score: float = 1.0
    reason: str = ""

    @property
    def sources(self) -> set[str]:
        return {label.source for label in self.labels}

    @property
    def recurs(self) -> bool:
        """Whether independent sources name it that have no modality in common."""
        families: dict[str, set[str]] = defaultdict(set)
        for label in self.labels:
            families[label.family] |= label.modalities
        return any(one.isdisjoint(other) for one, other in combinations(families.values(), 2))

    @property
    def root(self) -> _Group:
        return self if self.parent is None else self.parent.root

    def merge_into(self, other: _Group, score: float, reason: str) -> None:
        if self.root is not other.root:
            self.parent, self.score, self.reason = other, score, reason


def match_labels(
    pairs: Sequence[Pair],
    embed: Embed | None = None,
    wordnet: WordNet | Literal["find"] | None = "find",
    rules: Rules | None = None,
) -> Concepts:
    """Maps every label of every source to a concept.

    Deterministic: neither the order of ``pairs`` nor repeats change the result.

    Args:
        pairs: ``(source, label, modality)``.
        embed: Text tower; None does without: the commonest sense is taken, unknown words match by spelling only.
        wordnet: Dictionary; ``"find"`` takes it where it is found or can be fetched, and logs a warning otherwise; None
            does without: only plurals, spelling, compounds and embeddings are used.
        rules: Rule file; None takes the one of the package.

    Returns:
        One row per source and label, with a score and a reason.
    """
    rules = Rules.read() if rules is None else rules
    if wordnet == "find":
        wordnet = find_wordnet()
    labels = _labels(pairs, rules, wordnet)
    if wordnet is not None:
        labels = _choose_senses(labels, embed, wordnet)
    groups = _group(labels)
    _merge_synonyms(groups, rules)
    if wordnet is not None:
        _merge_hyponyms(groups, wordnet, rules)
    _merge_compounds(groups, rules)
    if embed is not None:
        _merge_near_names(groups, embed, wordnet, rules)
    return Concepts(_match(label, group, rules, wordnet) for group in groups for label in group.labels)


def keep_labels(
    pairs: Sequence[Pair], embed: Embed | None = None, wordnet: WordNet | Literal["find"] | None = None
) -> Concepts:
    """Every label is a concept of its own, called as it is written, whatever the language.

    Args:
        pairs: ``(source, label, modality)``.
        embed: Text tower, as in :func:`match_labels`.
        wordnet: Says what the labels mean that it knows, as in :func:`match_labels`; None leaves their meanings empty.
    """
    if wordnet == "find":
        wordnet = find_wordnet()
    if wordnet is None:
        return Concepts(Match(source, label, label, 1.0, "own word") for source, label in _keys(pairs))
    told = _choose_senses(_labels(pairs, Rules(), wordnet), embed, wordnet)
    return Concepts(
        Match(
            label.source,
            label.label,
            label.label,
            1.0,
            _sense(label, wordnet) if label.sense and not label.phrase.head else "own word",
            wordnet.definition(label.sense) if label.sense and not label.phrase.head else "",
        )
        for label in told
    )


def _keys(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return sorted({(source, label) for source, label, _ in pairs})


def _labels(pairs: Sequence[Pair], rules: Rules, wordnet: WordNet | None) -> list[_Label]:
    modalities: dict[tuple[str, str], set[str]] = defaultdict(set)
    for source, label, modality in pairs:
        modalities[source, label].add(modality)
    phrases = {key: read_phrase(key[1], min(of), rules, wordnet) for key, of in sorted(modalities.items())}
    family = _families({key: phrase.text for key, phrase in phrases.items()})
    return [_Label(*key, frozenset(modalities[key]), phrase, family[key[0]]) for key, phrase in phrases.items()]


def _families(texts: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """The first of the sources that share a vocabulary, such as Caltech-101 and N-Caltech101, for each source."""
    words: dict[str, set[str]] = defaultdict(set)
    for (source, _), text in texts.items():
        words[source].add(text)
    family: dict[str, str] = {}
    for source, own in sorted(words.items()):
        alike = (
            other for other in family if len(own & words[other]) >= max(_SHARED, _MIRRORED * len(own | words[other]))
        )
        first = next(alike, None)
        family[source] = source if first is None else family[first]
    return family


def _choose_senses(labels: Sequence[_Label], embed: Embed | None, wordnet: WordNet) -> list[_Label]:
    """Picks the sense whose definition is nearest to the other labels of the source, with a prior for each sense.

    Most of a sense's nearness is pooled over the sources that use the same word, for most mean the same thing by it.
    """
    words = sorted({_word(label) for label in labels})
    candidates = {word: _things(word, wordnet) for word in words}
    prior = _priors(candidates, wordnet)
    context = _context(labels, candidates, embed, wordnet)
    pooled: dict[tuple[str, str], list[float]] = defaultdict(list)
    for label in labels:
        for sense in candidates[_word(label)]:
            pooled[_word(label), sense].append(context.get((label.source, sense), 0.0))

    scores: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for label in labels:
        word = _word(label)
        for sense in candidates[word]:
            own, shared = context.get((label.source, sense), 0.0), pooled[word, sense]
            nearness = (1 - _POOLED) * own + _POOLED * math.fsum(shared) / len(shared)
            scores[label.source, word][sense] = round(prior[word, sense] + nearness, 6)
    chosen: dict[tuple[str, str], str] = {}
    rivals: dict[tuple[str, str], str] = {}
    taken: set[tuple[str, str]] = set()
    for key in sorted(scores, key=lambda key: (-_lead(scores[key]), key)):  # the surest first
        values = {sense: value + _TAKEN * ((key[0], sense) in taken) for sense, value in scores[key].items()}
        chosen[key] = max(values, key=lambda sense: values[sense])
        taken.add((key[0], chosen[key]))
        others = {sense: value for sense, value in values.items() if sense != chosen[key]}
        rival = max(others, key=lambda sense: others[sense], default=None)
        if rival is not None and values[chosen[key]] - values[rival] < _LEAD:
            rivals[key] = rival
    keys = [(label.source, _word(label)) for label in labels]
    return [
        replace(label, sense=chosen.get(key), rival=rivals.get(key)) for label, key in zip(labels, keys, strict=True)
    ]


def _lead(scores: dict[str, float]) -> float:
    """By how much the best sense leads."""
    best = sorted(scores.values(), reverse=True)
    return best[0] - best[1] if len(best) > 1 else math.inf


def _word(label: _Label) -> str:
    """The word of a label that WordNet can know."""
    return label.phrase.head or label.phrase.text


def _things(word: str, wordnet: WordNet) -> tuple[str, ...]:
    """The senses that a sensor can perceive, or all if there are none; no proper names."""
    return wordnet.things(word) or tuple(sense for sense in wordnet.senses(word) if not wordnet.is_name(sense))


def _priors(candidates: dict[str, tuple[str, ...]], wordnet: WordNet) -> dict[tuple[str, str], float]:
    """How likely each sense of each word is before the neighbouring labels are looked at."""
    certain = {word: wordnet.hypernyms(senses[0]) for word, senses in candidates.items() if len(senses) == 1}
    meant = {senses[0] for senses in candidates.values() if len(senses) == 1}
    prior = {}
    for word, senses in candidates.items():
        counts = np.array([wordnet.frequency(sense, word) for sense in senses], float) + 1.0 / (
            1 + np.arange(len(senses))
        )
        names_person = _names_person(word, senses, wordnet)
        first = {sense for sense in senses if wordnet.names(sense)[0] == word}
        for sense, share in zip(senses, counts / counts.sum(), strict=True):
            value = _FREQUENT * float(share)
            if wordnet.domain(sense) == "noun.person" and not names_person:
                value += _PERSON
            if first and sense not in first:
                value += _OF_BODY if wordnet.domain(sense) == "noun.body" else _NICKNAME
            if _is_derived(sense, word, wordnet):
                value += _DERIVED
            if len(senses) > 1:
                value += _NAMED * (sense in meant or _is_named(sense, word, certain, wordnet))
            prior[word, sense] = value
    return prior


def _names_person(word: str, senses: Sequence[str], wordnet: WordNet) -> bool:
    """Whether the word is used for persons and hardly for anything else: man, driver; not pitcher, tiger."""
    counts = {sense: wordnet.frequency(sense, word) for sense in senses}
    persons = sum(count for sense, count in counts.items() if wordnet.domain(sense) == "noun.person")
    return persons >= _COMMON and persons >= _MOSTLY * sum(counts.values())


def _is_derived(sense: str, word: str, wordnet: WordNet) -> bool:
    """Whether the sense is told by another of the word ("flesh of a duck"), not by a compound ("a rocket engine")."""
    words = wordnet.definition(sense).split()
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(first == word and not (second and wordnet.senses(f"{first} {second}")) for first, second in pairs)


def _is_named(sense: str, word: str, certain: dict[str, dict[str, int]], wordnet: WordNet) -> bool:
    """Whether a compound tells the sense: a "computer mouse" is this mouse, this "wooden spoon" is a spoon."""
    if any(_is_compound_of(other, word) and sense in ancestors for other, ancestors in certain.items()):
        return True
    head = word.split()[-1]
    return head != word and not set(wordnet.senses(head)).isdisjoint(wordnet.hypernyms(sense))


def _context(
    labels: Sequence[_Label], candidates: dict[str, tuple[str, ...]], embed: Embed | None, wordnet: WordNet
) -> dict[tuple[str, str], float]:
    """Mean cosine of each doubtful sense's definition to the nearest other labels of each source that may mean it."""
    if embed is None:
        return {}
    doubtful = sorted({sense for senses in candidates.values() if len(senses) > 1 for sense in senses})
    gist = {sense: wordnet.definition(sense).split(";")[0] for sense in doubtful}
    doubtful.sort(key=lambda sense: len(gist[sense]))  # batches of equal length pad less
    phrases = sorted({label.phrase.text for label in labels})
    if not doubtful:
        return {}
    rows = _unit(embed(phrases + [f"{wordnet.names(sense)[0]}: {gist[sense]}" for sense in doubtful]))
    cosine = rows[len(phrases) :] @ rows[: len(phrases)].T
    sense_row = {sense: i for i, sense in enumerate(doubtful)}
    column = {phrase: i for i, phrase in enumerate(phrases)}
    of_source: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        of_source[label.source].add(label.phrase.text)
    result: dict[tuple[str, str], float] = {}
    for label in labels:
        senses = candidates[_word(label)]
        others = [column[text] for text in sorted(of_source[label.source] - {label.phrase.text})]
        if len(senses) > 1 and others:
            for sense in senses:
                near = np.sort(cosine[sense_row[sense], others])[-_NEIGHBOURS:]
                result[label.source, sense] = float(near.mean())
    return result


def _group(labels: Sequence[_Label]) -> list[_Group]:
    """Puts together what has the same name and sense. Compounds in no dictionary keep a group of their own."""
    groups: dict[tuple[str, str], list[_Label]] = defaultdict(list)
    for label in labels:
        known = label.sense is not None and not label.phrase.head
        groups[("sense", str(label.sense)) if known else ("name", label.phrase.text)].append(label)
    result = []
    for (evidence, key), members in sorted(groups.items()):
        count = Counter(label.phrase.text for label in members)
        name = min(count, key=lambda text: (-count[text], len(text), text))
        result.append(_Group(members, name, key if evidence == "sense" else None))
    return result


def _may_merge(one: _Group, other: _Group, rules: Rules) -> bool:
    names = {one.name, one.root.name}, {other.name, other.root.name}
    return not any(
        first != second and names[0] & {first} and names[1] & {second}
        for group in rules.separate
        for first in group
        for second in group
    )


def _merge_synonyms(groups: Sequence[_Group], rules: Rules) -> None:
    by_name = {label.phrase.text: group for group in groups for label in group.labels if not label.phrase.head}
    for words in rules.synonyms:
        known = [by_name[word] for word in reversed(words) if word in by_name]
        for group in known[1:]:
            if group.parent is None and _may_merge(group, known[0], rules):
                group.merge_into(known[0], 1.0, f"{group.name} = {known[0].name} (rule)")


def _merge_hyponyms(groups: Sequence[_Group], wordnet: WordNet, rules: Rules) -> None:
    """Merges a thing into the nearest wider one that another source names.

    A thing that independent sources name in different modalities is a concept by itself (wheelchair, desk) and stays,
    unless all of its labels are compounds of the wider word (electric guitar).
    """
    by_sense = {group.sense: group for group in groups if group.sense is not None}
    by_word = {label.phrase.text: group for group in groups for label in group.labels if not label.phrase.head}
    for group in groups:
        if group.sense is None or group.parent is not None:
            continue
        words = group.name.split()
        head = by_word.get(words[-1]) if len(words) > 1 else None
        head_senses = set(wordnet.senses(head.name)) if head and head.sense else set()
        for sense, steps in sorted(wordnet.hypernyms(group.sense).items(), key=lambda item: (item[1], item[0])):
            # "dining table" says by its name which table it is a kind of, should another sense of "table" be chosen
            named = head is not None and sense in head_senses and wordnet.are_alike(sense, str(head.sense))
            wider = head if steps and named else by_sense.get(sense)
            if (
                wider is None
                or wider is group
                or not wider.sources - group.sources
                or not _may_merge(group, wider, rules)
            ):
                continue
            absorbs = wider.name in rules.absorbing
            heads = {label.phrase.text for label in wider.labels} | {wider.name}
            compound = all(any(_is_compound_of(label.phrase.text, head) for head in heads) for label in group.labels)
            small = wordnet.hyponym_count(sense) <= _MAX_HYPONYMS and steps <= _MAX_STEPS
            if absorbs or (small and (compound or not group.recurs)):
                group.merge_into(wider, 0.95**steps, f"{group.name} is a kind of {wider.name} (WordNet, {steps} up)")
                break


def _is_compound_of(text: str, head: str) -> bool:
    return text.endswith((f" {head}", f"-{head}"))


def _merge_compounds(groups: Sequence[_Group], rules: Rules) -> None:
    """Merges compounds that are in no dictionary into their head, if another source names that."""
    by_name = {label.phrase.text: group for group in groups for label in group.labels if not label.phrase.head}
    for group in groups:
        head = group.labels[0].phrase.head
        wider = by_name.get(head)
        if wider is not None and wider.sources - group.sources and _may_merge(group, wider, rules):
            group.merge_into(wider, 0.8, f"compound of {head}")


def _merge_near_names(groups: Sequence[_Group], embed: Embed, wordnet: WordNet | None, rules: Rules) -> None:
    """Merges concepts whose names are each other's nearest by embedding, unless something speaks against it."""
    roots = [group for group in groups if group.parent is None]
    if len(roots) < 2:
        return
    rows = _unit(embed([group.name for group in roots]))
    members: dict[int, list[_Group]] = defaultdict(list)
    for group in groups:
        members[id(group.root)].append(group)
    sources = [set[str]().union(*(group.sources for group in members[id(root)])) for root in roots]
    cosine = np.round(rows @ rows.T, 6)
    np.fill_diagonal(cosine, -1.0)
    nearest = cosine.argmax(axis=1)
    for i, group in enumerate(roots):
        j = int(nearest[i])
        other = roots[j]
        if nearest[j] != i or i > j or cosine[i, j] < _SAME or sources[i] & sources[j]:
            continue
        if not _are_told_apart(group, other, wordnet) and _may_merge(group, other, rules):
            small, large = sorted((group, other), key=lambda g: (len(g.labels), g.name))
            small.merge_into(large, float(cosine[i, j]), f"name near to {large.name} (cosine {cosine[i, j]:.2f})")


def _are_told_apart(one: _Group, other: _Group, wordnet: WordNet | None) -> bool:
    """Whether WordNet knows both as different things: it then knows better than the embedding of a bare name."""
    return wordnet is not None and one.sense is not None and other.sense is not None


def _match(label: _Label, group: _Group, rules: Rules, wordnet: WordNet | None) -> Match:
    ruled = rules.concept_of(label.source, label.label)
    if ruled is not None:
        return Match(label.source, label.label, ruled, 1.0, "rule")
    reasons, score = [label.phrase.reason], 1.0
    step: _Group | None = group
    while step is not None:
        reasons.append(step.reason)
        score *= step.score
        step = step.parent
    plainly = _sense(label, wordnet) if wordnet is not None and group.sense is not None else "name"
    reason = "; ".join(text for text in reasons if text) or plainly
    root = group.root.sense
    meaning = wordnet.definition(root) if wordnet is not None and root is not None else ""
    return Match(label.source, label.label, group.root.name, score, reason, meaning)


def _sense(label: _Label, wordnet: WordNet) -> str:
    """Which sense was chosen, and the other one where that is doubtful."""
    doubt = f", or {label.rival} ({wordnet.definition(label.rival)})" if label.rival is not None else ""
    return f"sense {label.sense}{doubt}"


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(length, 1e-12)
    return unit
