"""WordNet 3.0 nouns: the senses of a phrase, and what is a kind of what. Read through NLTK's corpus reader."""

from __future__ import annotations

import functools
import io
import logging
import warnings
from pathlib import Path
from typing import Any

from omnibind_core.data.debian import fetch_package
from omnibind_core.errors import DataError, MissingDependencyError
from omnibind_core.files import cache_folder
from omnibind_core.optional import require

_logger = logging.getLogger(__name__)

# Lexicographer files of WordNet 3.0 in the order of their numbers, lexnames(5WN). NLTK needs this table as a file,
# which Debian does not ship. The name starts with the part of speech: noun 1, verb 2, adjective 3, adverb 4.
_LEXNAMES = """
    adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition
    noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person
    noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state
    noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition
    verb.consumption verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social
    verb.stative verb.weather adj.ppl
""".split()  # noqa: SIM905  (a table is easier to check than 45 quoted words)
_PART_OF_SPEECH = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_DOMAINS = ("Tops", "animal", "artifact", "body", "food", "object", "phenomenon", "plant", "person", "substance")
_THINGS = frozenset(f"noun.{domain}" for domain in _DOMAINS)
_SOUNDS = frozenset({"sound.n.01", "sound.n.04", "noise.n.01", "utterance.n.01", "cry.n.02"})


class WordNet:
    """Noun senses and their kinds. A sense is named as in ``"dog.n.01"``; more frequent senses come first.

    Args:
        folder: Holds ``data.noun``, ``index.noun``, ``noun.exc`` and so on; ``None`` takes Debian's ``wordnet-base``,
            which is downloaded into the cache when it is not installed.

    Raises:
        DataError: The files are missing, damaged, or cannot be fetched.
        MissingDependencyError: NLTK is not installed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        require("nltk", "Reading WordNet")
        folder = fetch_package("wordnet-base") / "usr/share/wordnet" if folder is None else folder
        if not (folder / "data.noun").is_file():
            raise DataError(f"no WordNet in {folder}: expected the file data.noun there")
        try:
            self._reader = _reader(folder)
        except (OSError, ValueError, AssertionError) as error:
            raise DataError(f"cannot read WordNet in {folder}: {error}") from error

    @functools.cache  # noqa: B019  (one instance per process, small results)
    def senses(self, phrase: str) -> tuple[str, ...]:
        """Noun senses of a phrase, most frequent first; plural forms are reduced. Empty if it is unknown."""
        found = dict.fromkeys(
            sense.name() for spelling in _spellings(phrase) for sense in self._reader.synsets(spelling, pos="n")
        )
        return tuple(found)

    def things(self, phrase: str) -> tuple[str, ...]:
        """The senses that a sensor can perceive, without names of single persons and places."""
        return tuple(s for s in self.senses(phrase) if not self.is_name(s) and self.domain(s) in _THINGS)

    def is_sound(self, word: str) -> bool:
        """Whether it is a kind of sound (bark, click, creak) and not first of all what makes it (bell, drum)."""
        senses = self.senses(word)
        return any(not _SOUNDS.isdisjoint(self.hypernyms(sense)) for sense in senses) and (
            self.domain(senses[0]) != "noun.artifact"
        )

    def singular(self, phrase: str) -> str | None:
        """The dictionary form of a noun phrase, or None if it is unknown."""
        for spelling in _spellings(phrase):
            form = self._reader.morphy(spelling, "n")
            if form is not None:
                return phrase if form == spelling else str(form).replace("_", " ")
        return None

    def is_word(self, word: str, part_of_speech: str) -> bool:
        """Whether the word is known as ``"n"``, ``"v"``, ``"a"`` or ``"r"``."""
        return bool(self._reader.synsets(word, pos=part_of_speech))

    def is_known(self, word: str) -> bool:
        """Whether the word is in the dictionary as any part of speech."""
        return bool(self._reader.synsets(word))

    def names(self, sense: str) -> tuple[str, ...]:
        """All words for a sense, the most usual one first, lower-case."""
        return tuple(name.replace("_", " ").lower() for name in self._synset(sense).lemma_names())

    def definition(self, sense: str) -> str:
        """The gloss."""
        return str(self._synset(sense).definition())

    def is_name(self, sense: str) -> bool:
        """Whether it is one person or place instead of a kind of thing, or a people or title written as a name."""
        synset = self._synset(sense)
        return bool(synset.instance_hypernyms()) or (
            synset.lexname() == "noun.person" and synset.lemma_names()[0][0].isupper()
        )

    def domain(self, sense: str) -> str:
        """Lexicographer file, such as ``"noun.animal"``."""
        return str(self._synset(sense).lexname())

    @functools.cache  # noqa: B019
    def hypernyms(self, sense: str) -> dict[str, int]:
        """What a sense is a kind of, directly or not: sense to the least number of steps up; itself with 0."""
        found = {sense: 0}
        layer = [self._synset(sense)]
        for distance in range(1, 30):
            layer = [parent for child in layer for parent in child.hypernyms() + child.instance_hypernyms()]
            layer = [parent for parent in layer if parent.name() not in found]
            if not layer:
                break
            found.update((parent.name(), distance) for parent in layer)
        return found

    def are_alike(self, one: str, other: str) -> bool:
        """Whether both are kinds of the same, one step up (as two senses of "table"), or an animal and its meat."""
        if {self.domain(one), self.domain(other)} == {"noun.animal", "noun.food"}:
            return True
        above = ({name for name, steps in self.hypernyms(sense).items() if steps == 1} for sense in (one, other))
        return not set.isdisjoint(*above)

    @functools.cache  # noqa: B019
    def hyponym_count(self, sense: str) -> int:
        """How many senses are a kind of this one, directly or not: small for a class of things, large for a realm."""
        seen: set[str] = set()
        stack = [self._synset(sense)]
        while stack:
            for child in stack.pop().hyponyms():
                if child.name() not in seen:
                    seen.add(child.name())
                    stack.append(child)
        return len(seen)

    def frequency(self, sense: str, phrase: str) -> int:
        """How often the phrase has this sense in WordNet's tagged texts (SemCor)."""
        spellings = {spelling.lower() for spelling in _spellings(phrase)}
        lemmas = self._synset(sense).lemmas()
        return sum(int(lemma.count()) for lemma in lemmas if lemma.name().lower() in spellings)

    def _synset(self, sense: str) -> Any:
        try:
            return self._reader.synset(sense)
        except require("nltk.corpus.reader.wordnet", "Reading WordNet").WordNetError as error:
            raise DataError(f"WordNet has no sense '{sense}': {error}") from error


def find_wordnet() -> WordNet | None:
    """WordNet where it is installed or can be fetched; else None, with a warning that says why."""
    try:
        return WordNet()
    except (DataError, MissingDependencyError) as error:
        _logger.warning("labels are matched by names and embeddings alone, without WordNet: %s", error)
        return None


def installed_wordnet() -> WordNet | None:
    """WordNet where it is at hand; else None, and nothing is fetched."""
    for root in (cache_folder() / "debian/wordnet-base", Path("/")):
        folder = root / "usr/share/wordnet"
        if (folder / "data.noun").is_file():
            try:
                return WordNet(folder)
            except (DataError, MissingDependencyError):
                return None
    return None


def _spellings(phrase: str) -> tuple[str, ...]:
    """WordNet writes some compounds with a hyphen, some as one word."""
    words = phrase.lower().split()
    joins = ("_", "-", "") if len(words) > 1 else ("",)
    return tuple(join.join(words) for join in joins)


@functools.cache
def _reader(folder: Path) -> Any:
    base: Any = require("nltk.corpus.reader.wordnet", "Reading WordNet").WordNetCorpusReader
    allowed = require("nltk.data", "Reading WordNet").path  # newer versions of NLTK read from these folders only
    if str(folder) not in allowed:
        allowed.append(str(folder))

    class Reader(base):
        def open(self, file: str) -> Any:
            if file != "lexnames":
                return super().open(file)
            rows = (f"{i:02d} {name} {_PART_OF_SPEECH[name.split('.')[0]]}" for i, name in enumerate(_LEXNAMES))
            return io.StringIO("\n".join(rows))

        def map_wn(self, version: str = "wordnet") -> None:
            """No mapping between versions: other languages are not read."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no other languages
        return Reader(str(folder), None)
