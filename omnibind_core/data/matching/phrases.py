"""What thing a label names: "faces easy" is a person, "dog bark" a dog, "colorful rooster" a rooster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from omnibind_core import resources
from omnibind_core.config import from_yaml
from omnibind_core.data.matching.wordnet import WordNet
from omnibind_core.errors import ConfigError

_RULES = resources.path("data/matching/rules.yaml")
_PREPOSITION = re.compile(r"\s+(?:in|on|at|with|of|from|near|for)\s+")
_ALTERNATIVES = re.compile(r"\s+or\s+|\s*[/,;|]\s*")
_MAPPINGS = ("canonical", "seen_as", "heard_as")
_GROUPS = ("separate", "synonyms")
# "the sound made by a dog", "the harsh sound of a duck", "noise of the kind made by hogs"
_CRY = re.compile(r"\b(?:sounds?|noise|cry)\b.*?\b(?:made by|uttered by|of)\s+(?:an?\s+|the\s+)?(\w+)")


@dataclass(frozen=True)
class Rules:
    """The rule file, see ``rules.yaml`` for what each key means."""

    canonical: Mapping[str, str] = field(default_factory=dict)
    separate: tuple[tuple[str, ...], ...] = ()
    synonyms: tuple[tuple[str, ...], ...] = ()
    view_words: frozenset[str] = frozenset()
    seen_as: Mapping[str, str] = field(default_factory=dict)
    sound_words: frozenset[str] = frozenset()
    heard_as: Mapping[str, str] = field(default_factory=dict)
    absorbing: frozenset[str] = frozenset()

    @classmethod
    def read(cls, own: Path | None = None) -> Rules:
        """The rules that come with the package, with a user's own file on top.

        Raises:
            ConfigError: The user's file is missing, no YAML, or has an unknown key or a value of another type.
        """
        values: dict[str, Any] = {}
        for path in (_RULES, *([own] if own else [])):
            for key, value in _read_yaml(path).items():
                if key not in cls.__dataclass_fields__:
                    raise ConfigError(f"{path}: unknown key '{key}'; known are {', '.join(cls.__dataclass_fields__)}")
                expected: type = dict if key in _MAPPINGS else list
                if not isinstance(value, expected):
                    raise ConfigError(f"{path}: '{key}' is {value!r}, expected a {expected.__name__}")
                if key in _MAPPINGS:
                    values.setdefault(key, {}).update(value)
                else:
                    values.setdefault(key, []).extend(value)
        frozen: dict[str, Any] = {
            key: value if key in _MAPPINGS else tuple(map(tuple, value)) if key in _GROUPS else frozenset(value)
            for key, value in values.items()
        }
        return cls(**frozen)

    def concept_of(self, source: str, label: str) -> str | None:
        """What ``canonical`` says about a label, or None."""
        return self.canonical.get(f"{source}/{label}", self.canonical.get(label))

    @cached_property
    def synonym_of(self) -> dict[str, str]:
        """Each word of a group of synonyms to the last of the group."""
        return {word: group[-1] for group in self.synonyms for word in group}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = from_yaml(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the rules {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}, expected keys such as 'synonyms'")
    return content


@dataclass(frozen=True)
class Phrase:
    """The thing that a label names.

    Attributes:
        text: Noun phrase in the singular, lower-case.
        head: Its last part if the whole is not in the dictionary and is a kind of that: "crash cymbal" → "cymbal".
        reason: How it was found, empty if the label says it plainly.
    """

    text: str
    head: str = ""
    reason: str = ""


def plain(label: str) -> str:
    """A label in lower case, with spaces for underscores and brackets."""
    return " ".join(re.sub(r"[_()\s]+", " ", label.lower()).split())


def read_phrase(label: str, modality: str, rules: Rules, wordnet: WordNet | None) -> Phrase:
    """Finds out what thing a label names.

    Args:
        label: As the source writes it.
        modality: Sounds are named after what happens, pictures after what is seen.
        rules: The rule file.
        wordnet: The dictionary, or None to go by rules alone.
    """
    text = plain(label)
    if modality == "audio":
        maker = rules.heard_as.get(text) or _maker_of_cry(text, wordnet)
        if maker:
            return Phrase(maker, reason=f"sound of {maker}")
    if _known(text, rules, wordnet):
        return _seen(_singular(text, wordnet), modality, rules, wordnet, "")
    phrase = _ALTERNATIVES.split(text)[0]
    phrase = _PREPOSITION.split(phrase)[0]
    phrase = _corrected(phrase, wordnet)
    phrase = _without_added_words(phrase, modality, rules, wordnet)
    reason = "" if phrase == text else f"'{label}' names {phrase}"
    if _known(phrase, rules, wordnet) or " " not in phrase:
        return _seen(_singular(phrase, wordnet), modality, rules, wordnet, reason)
    return _compound(phrase, reason, wordnet)


def _known(text: str, rules: Rules, wordnet: WordNet | None) -> bool:
    return text in rules.synonym_of or (wordnet is not None and bool(wordnet.senses(text)))


def _seen(text: str, modality: str, rules: Rules, wordnet: WordNet | None, reason: str) -> Phrase:
    if not (wordnet and wordnet.senses(text)):
        text = rules.synonym_of.get(text, text)
    if modality != "touch" and text in rules.seen_as:
        return Phrase(rules.seen_as[text], reason=f"{text} of a {rules.seen_as[text]}")
    return Phrase(text, reason=reason)


def _corrected(text: str, wordnet: WordNet | None) -> str:
    """A compound with one wrong letter in its last word, "water lilly", as the dictionary has it."""
    first, _, last = text.rpartition(" ")
    if wordnet is None or not first or wordnet.senses(text) or wordnet.is_known(last):
        return text
    cuts = [(last[:i], last[i:]) for i in range(len(last) + 1)]
    guesses = {left + right[1:] for left, right in cuts if right}
    guesses |= {left + letter + right for left, right in cuts for letter in ascii_lowercase}
    guesses |= {left + letter + right[1:] for left, right in cuts if right for letter in ascii_lowercase}
    return next((known for guess in sorted(guesses) if wordnet.senses(known := f"{first} {guess}")), text)


def _without_added_words(text: str, modality: str, rules: Rules, wordnet: WordNet | None) -> str:
    """Drops what is only said about the thing: "car side", "cougar face", "dog bark", "chirping bird"."""
    words = text.split()
    while len(words) > 1 and not _known(" ".join(words), rules, wordnet) and _is_added(words, modality, rules, wordnet):
        words.pop()
    if modality == "audio" and len(words) > 1 and not _known(" ".join(words), rules, wordnet):
        rest = " ".join(words[1:])
        if _is_doing(words[0], wordnet) and (wordnet is None or wordnet.things(rest)):
            return rest
    return " ".join(words)


def _is_added(words: Sequence[str], modality: str, rules: Rules, wordnet: WordNet | None) -> bool:
    """Whether the last word tells a view, a part, a sound or a material of what stands before it."""
    word = words[-1]
    if word in rules.view_words:
        return True
    if wordnet is None:
        return modality == "audio" and (word in rules.sound_words or _is_doing(word, None))
    if not wordnet.senses(word):
        return True
    domains = {wordnet.domain(sense) for before in words[:-1] for sense in wordnet.things(before)}
    if modality == "audio":
        heard = word in rules.sound_words or wordnet.is_sound(word) or _is_doing(word, wordnet)
        return bool(domains) and (heard or ("noun.artifact" in domains and _is_substance(word, wordnet)))
    is_part = wordnet.domain(wordnet.senses(word)[0]) == "noun.body"
    return modality != "touch" and is_part and "noun.animal" in domains


def _is_doing(word: str, wordnet: WordNet | None) -> bool:
    return word.endswith("ing") and (wordnet is None or wordnet.is_word(word, "v"))


def _compound(text: str, reason: str, wordnet: WordNet | None) -> Phrase:
    """Splits a compound that is in no dictionary at its head, the longest known end."""
    words = text.split()
    cut = next((i for i in range(1, len(words)) if wordnet and wordnet.senses(" ".join(words[i:]))), len(words) - 1)
    modifier, head = " ".join(words[:cut]), _singular(" ".join(words[cut:]), wordnet)
    if wordnet is None:
        return Phrase(f"{modifier} {head}", head, reason)
    if _is_hyponym(modifier, head, wordnet):  # "tuna fish"
        return Phrase(_singular(modifier, wordnet), reason=f"a {modifier} is a {head}")
    if _is_substance(modifier, wordnet) and wordnet.domain(wordnet.senses(head)[0]) == "noun.animal":  # "rubber duck"
        return Phrase(f"{modifier} {head}", reason=reason)
    return Phrase(f"{modifier} {head}", head, reason)


def _is_hyponym(narrow: str, wide: str, wordnet: WordNet) -> bool:
    senses = set(wordnet.things(wide))
    return any(senses & wordnet.hypernyms(sense).keys() for sense in wordnet.things(narrow))


def _is_substance(word: str, wordnet: WordNet) -> bool:
    return any(wordnet.domain(sense) == "noun.substance" for sense in wordnet.senses(word)[:1])


def _maker_of_cry(word: str, wordnet: WordNet | None) -> str | None:
    """Whose cry a word is, by its definition."""
    for sense in wordnet.senses(word) if wordnet else ():
        found = _CRY.search(wordnet.definition(sense)) if wordnet else None
        maker = found and wordnet and wordnet.singular(found[1])
        if maker and wordnet and wordnet.domain(wordnet.senses(maker)[0]) == "noun.animal":
            return maker
    return None


def _singular(text: str, wordnet: WordNet | None) -> str:
    """The dictionary form; without a dictionary by the common endings of English plurals."""
    if wordnet is not None:
        return wordnet.singular(text) or text
    for ending, singular in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x")):
        if text.endswith(ending):
            return text[: -len(ending)] + singular
    if text.endswith("s") and not text.endswith(("ss", "us", "is", "scissors", "pliers", "glasses")):
        return text[:-1]
    return text
