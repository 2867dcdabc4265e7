"""Descriptions of labels, as sentences beside their names: the definitions of WordNet, or a file."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from omnibind_core.config import read_mapping
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.matching.labels import Embed
from omnibind_core.data.matching.wordnet import WordNet, installed_wordnet
from omnibind_core.errors import ConfigError, DataError, MissingDependencyError

SENSES = 2
"""Definitions of a label at most."""

_SENSE = re.compile(
    r"sense (\S+\.n\.\d+)(?:, or .*)?"
)  # as label matching writes it into a row of the concept that has the sense

_ALIKE = 0.95
"""Cosine above which a text tower cannot tell two names apart."""

_WORD = re.compile(r"[^\W\d_]+")
_FUNCTION_WORDS = frozenset({"and", "for", "from", "of", "or", "s", "the", "to", "with", "without"})  # not in WordNet

_logger = logging.getLogger(__name__)


def describe_labels(source: str, concepts: Concepts) -> dict[str, tuple[str, ...]]:
    """Descriptions of concepts; those without any are left out.

    Args:
        source: ``"none"``, ``"wordnet"``, ``"meaning"`` (that of the label matching alone), or a file for
            :func:`read_label_descriptions`.
        concepts: Label matching; tells the concepts, and the senses that were chosen for some of them.

    Raises:
        ConfigError: The file is missing or wrong.
        DataError: WordNet is asked for and not there; says what to install.
    """
    if source == "none":
        return {}
    if source == "meaning":
        meanings: dict[str, dict[str, None]] = {}
        for match in concepts:
            if match.canonical and match.meaning:
                meanings.setdefault(match.canonical, {})[f"{match.canonical}: {match.meaning}"] = None
        return {name: tuple(sentences) for name, sentences in meanings.items()}
    if source != "wordnet":
        found = read_label_descriptions(Path(source).expanduser())
        unknown = sorted(found.keys() - {*concepts.names})
        if unknown:
            _logger.warning("%s describes what is no label of the data: %s", source, ", ".join(unknown))
        return {name: sentences for name, sentences in found.items() if sentences and name not in unknown}
    try:
        wordnet = WordNet()
    except (DataError, MissingDependencyError) as error:
        raise DataError(
            f"descriptions is 'wordnet', and WordNet cannot be used: {error}; expected NLTK (pip install "
            "nltk) and the Debian package wordnet-base, or descriptions: none"
        ) from error
    chosen: dict[str, str] = {}
    for match in concepts:
        sense = _SENSE.fullmatch(match.reason)
        if sense is not None:
            chosen.setdefault(match.canonical, sense[1])
    made = {name: definitions(name, wordnet, chosen.get(name)) for name in concepts.names}
    return {name: sentences for name, sentences in made.items() if sentences}


def strange_words(labels: Iterable[str] | Mapping[str, Sequence[str]], known: Iterable[str] = ()) -> list[str]:
    """Words of labels that are not in the English dictionary, so that a text tower of English hardly knows them.

    Args:
        labels: Names; or names with descriptions, of which those with any are not looked at.
        known: Names that are not looked at either, such as the model's own.

    Returns:
        The words, each once; none where WordNet is not at hand.
    """
    skipped = {*known}
    told = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, ())
    words = [word for name, texts in told.items() if not texts and name not in skipped for word in _WORD.findall(name)]
    wordnet = installed_wordnet() if words else None
    if wordnet is None:
        return []
    found = dict.fromkeys(words)
    return [word for word in found if word.lower() not in _FUNCTION_WORDS and not wordnet.is_known(word.lower())]


def definitions(name: str, wordnet: WordNet, sense: str | None = None) -> tuple[str, ...]:
    """``"name: definition"`` for the first senses of a name that a sensor can perceive.

    Args:
        name: A noun phrase; unknown ones have no definition.
        wordnet: The dictionary.
        sense: Comes first, if it is known what the name means.

    Raises:
        DataError: WordNet has no such sense.
    """
    senses = dict.fromkeys([*([sense] if sense else []), *wordnet.things(name)])
    return tuple(f"{name}: {wordnet.definition(one)}" for one in [*senses][:SENSES])


def spell_alike(names: Sequence[str], embed: Embed, told: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Names letter by letter where the text tower takes several for the same, as it does in scripts it cannot read.

    Args:
        names: Labels.
        embed: The text tower.
        told: Descriptions that there are; labels with some are left alone.

    Returns:
        A description for each such label: ``"U+526A U+5200"``.
    """
    left = [name for name in names if name not in told and not name.isascii()]
    if len(left) < 2:
        return {}
    rows = embed(left)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -1.0)
    alike = (name for name, nearest in zip(left, cosine.max(axis=1), strict=True) if nearest > _ALIKE)
    return {name: (" ".join(f"U+{ord(letter):04X}" for letter in name),) for name in alike}


def read_label_descriptions(path: Path) -> dict[str, tuple[str, ...]]:
    """Reads a YAML or JSON file that maps labels to a sentence or a list of sentences; a label may have none.

    Raises:
        ConfigError: The file is missing, or holds something else; names the label.
    """
    result: dict[str, tuple[str, ...]] = {}
    for name, value in read_mapping(path).items():
        sentences = [] if value is None else [value] if isinstance(value, str) else value
        if not (isinstance(name, str) and isinstance(sentences, list) and all(isinstance(s, str) for s in sentences)):
            raise ConfigError(f"{path}: {name!r} has {value!r}, expected a label in words with a list of sentences")
        result[name] = tuple(sentence.strip() for sentence in sentences if sentence.strip())
    return result
