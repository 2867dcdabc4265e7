"""What thing a label names: "faces easy" is a person, "dog bark" a dog, "colorful rooster" a rooster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from omnibind_core.data.wordnet import WordNet
from omnibind_core.errors import ConfigError

_RULES = Path(__file__).with_name("matching_rules.yaml")
_PREPOSITION = re.compile(r"\s+(?:in|on|at|with|of|from|near|for)\s+")
_ALTERNATIVES = re.compile(r"\s+or\s+|\s*[/,;|]\s*")
_MAPPINGS = ("canonical", "seen_as", "heard_as")
_GROUPS = ("separate", "synonyms")
# "the sound made by a dog", "the harsh sound of a duck", "noise of the kind made by hogs"
_CRY = re.compile(r"\b(?:sounds?|noise|cry)\b.*?\b(?:made by|uttered by|of)\s+(?:an?\s+|the\s+)?(\w+)")


@dataclass(frozen=True)
class Rules:
    """The rule file, see ``matching_rules.yaml`` for what each key means."""

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
                kind: type = dict if key in _MAPPINGS else list
                if not isinstance(value, kind):
                    raise ConfigError(f"{path}: '{key}' is {value!r}, expected a {kind.__name__}")
                if key in _MAPPINGS:
                    values.setdefault(key, {}).update(value)
                else:
                    values.setdefault(key, []).extend(value)
        frozen: dict[str, Any] = {
            key: value if key in _MAPPINGS else tuple(map(tuple, value)) if key in _GROUPS else frozenset(value)
            for key, value in values.items()
        }
        return cls(**frozen)

    @cached_property
    def synonym_of(self) -> dict[str, str]:
        """Each word of a group of synonyms to the last of the group."""
        return {word: group[-1] for group in self.synonyms for word in group}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
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


def read_phrase(label: str, modality: str, rules: Rules, wordnet: WordNet | None) -> Phrase:
    """Finds out what thing a label names.

    Args:
        label: As the source writes it.
        modality: Sounds are named after what happens, pictures after what is seen.
        rules: The rule file.
        wordnet: The dictionary, or None to go by rules alone.
    """
    text = " ".join(re.sub(r"[_()\s]+", " ", label.lower()).split())
    if modality == "audio":
        maker = rules.heard_as.get(text) or _maker_of_cry(text, wordnet)
        if maker:
            return Phrase(maker, reason=f"sound of {maker}")
    if _known(text, rules, wordnet):
        return _seen(_singular(text, wordnet), modality, rules, wordnet, "")
    part = _ALTERNATIVES.split(text)[0]
    part = _PREPOSITION.split(part)[0]
    part = _without_trailing_words(part, modality, rules, wordnet)
    reason = "" if part == text else f"'{label}' names {part}"
    if _known(part, rules, wordnet) or " " not in part:
        return _seen(_singular(part, wordnet), modality, rules, wordnet, reason)
    return _compound(part, reason, wordnet)


def _known(text: str, rules: Rules, wordnet: WordNet | None) -> bool:
    return text in rules.synonym_of or (wordnet is not None and bool(wordnet.senses(text)))


def _seen(text: str, modality: str, rules: Rules, wordnet: WordNet | None, reason: str) -> Phrase:
    if not (wordnet and wordnet.senses(text)):
        text = rules.synonym_of.get(text, text)
    if modality != "touch" and text in rules.seen_as:
        return Phrase(rules.seen_as[text], reason=f"{text} of a {rules.seen_as[text]}")
    return Phrase(text, reason=reason)


def _without_trailing_words(text: str, modality: str, rules: Rules, wordnet: WordNet | None) -> str:
    words = text.split()
    dropped = rules.view_words | (rules.sound_words if modality == "audio" else frozenset())
    while len(words) > 1 and (words[-1] in dropped or _is_no_noun(words[-1], wordnet)):
        words.pop()
    return " ".join(words)


def _is_no_noun(word: str, wordnet: WordNet | None) -> bool:
    return wordnet is not None and not wordnet.senses(word)


def _compound(text: str, reason: str, wordnet: WordNet | None) -> Phrase:
    """Splits a compound that is in no dictionary at its head, the longest known end."""
    words = text.split()
    cut = next((i for i in range(1, len(words)) if wordnet and wordnet.senses(" ".join(words[i:]))), len(words) - 1)
    modifier, head = " ".join(words[:cut]), _singular(" ".join(words[cut:]), wordnet)
    if wordnet is None:
        return Phrase(f"{modifier} {head}", head, reason)
    if _is_kind(modifier, head, wordnet):  # "tuna fish"
        return Phrase(_singular(modifier, wordnet), reason=f"a {modifier} is a {head}")
    if _is_substance(modifier, wordnet) and wordnet.domain(wordnet.senses(head)[0]) == "noun.animal":  # "rubber duck"
        return Phrase(f"{modifier} {head}", reason=reason)
    return Phrase(f"{modifier} {head}", head, reason)


def _is_kind(narrow: str, wide: str, wordnet: WordNet) -> bool:
    senses = set(wordnet.senses(wide))
    return any(senses & wordnet.ancestors(sense).keys() for sense in wordnet.senses(narrow))


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
