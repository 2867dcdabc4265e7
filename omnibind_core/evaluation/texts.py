"""Text as an input of an evaluation, as a modality beside the sensors, in two settings.

In the paper's, the text names the label, which is the answer: what it adds says little, and noise in it costs much. The
other is a description without the label, its aliases and its synonyms, which says something.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from omnibind_core.data.damage import NOISE, damaged, damages
from omnibind_core.data.matching.label_descriptions import definitions
from omnibind_core.data.matching.wordnet import WordNet
from omnibind_core.data.samples import Sample
from omnibind_core.evaluation import methods
from omnibind_core.evaluation.bench import CONFLICTING, Bench
from omnibind_core.evaluation.bootstrap import Bootstrap
from omnibind_core.evaluation.methods import FusionMethod, LateFusion, Method
from omnibind_core.evaluation.probes import Probe, Probes
from omnibind_core.features.combinations import TEXT, Index, Split
from omnibind_core.features.sets import FeatureSet, embed_all
from omnibind_core.labels import PAPER_TEMPLATES, LabelBank

NAMED, DESCRIBED = "names the label", "describes it"
"""What the text says: the paper's ``"a photo of a {label}"``, or a definition that does not name it."""
MASK = "thing"
"""Stands for the words of a label in its description."""
_SMALL = frozenset({"and", "the", "for", "with"})  # words of labels that say nothing, beside those of two letters


def descriptions(bank: LabelBank, wordnet: WordNet | None) -> dict[str, str]:
    """A description of each label that has one, in which no word of the label, its aliases and its synonyms is left.

    Args:
        bank: The vocabulary. Its own descriptions come first, since the sense was chosen when the model was trained.
        wordnet: Gives the definitions of the others, and synonyms; None leaves both out.
    """
    found = {}
    for name in bank.names:
        told = bank.descriptions.get(name) or (() if wordnet is None else definitions(name, wordnet))
        if told:
            words = [name, *bank.aliases.get(name, ())]
            if wordnet is not None:
                words += [other for sense in wordnet.senses(name) for other in wordnet.names(sense)]
            gloss = masked(told[0].removeprefix(f"{name}:").strip(), words)
            if gloss:
                found[name] = gloss
    return found


def masked(sentence: str, names: Iterable[str]) -> str:
    """The sentence with every word of the names, also in the plural or inside of a longer word, as :data:`MASK`.

    Empty if nothing else is left.
    """
    hidden = {word for name in names for word in _words(name) if len(word) > 2 and word not in _SMALL}
    stems = {word for word in hidden if len(word) > 3} | {word[:-1] for word in hidden if len(word) > 4}

    def hide(match: re.Match[str]) -> str:
        word = match[0].lower()
        known = {word, word.removesuffix("s"), word.removesuffix("es")}
        return MASK if known & hidden or any(stem in word for stem in stems) else match[0]

    text = re.sub(r"\w+", hide, sentence)
    return text if {*_words(text)} - {MASK, "a", "an", "of", "or", "and", "the"} else ""


@dataclass
class TextBench(Bench):
    """A bench whose labels have a text each, too.

    Attributes:
        sentences: One for each row of the text.
        without: Number of labels with samples that have no text.
    """

    sentences: Sequence[str] = ()
    without: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {name: count for name, count in self.data.known.counts.items() if name != TEXT}
        # One text for each label, so there is none other to draw, and to have noise in all of them costs nothing.
        self.boot = Bootstrap(counts, self.seed)
        self.subset[TEXT] = np.arange(len(self.sentences))

    def faults(self, name: str) -> tuple[str, ...]:
        """See :meth:`Bench.faults`; noise in text is :func:`random_words`, unless the modality defines it."""
        if name != TEXT:
            return super().faults(name)
        return (*dict.fromkeys((*damages(TEXT), NOISE)), CONFLICTING)

    def _damaged_rows(self, name: str, damage: str) -> Index:
        if name != TEXT or (name, damage) in self._damaged:
            return super()._damaged_rows(name, damage)
        known, names = self.data.known.sets[TEXT], self.model.labels.names
        sentences = [
            damaged(TEXT, sentence, damage, sample.id, self.seed)
            if damage in damages(TEXT)
            else random_words(sentence, sample.label, names, self.seed)
            for sentence, sample in zip(self.sentences, known.samples, strict=True)
        ]
        first = self._add(TEXT, _features(self, sentences))
        self._damaged[name, damage] = first + np.arange(len(sentences))
        return self._damaged[name, damage]


def random_words(sentence: str, label: str, names: Iterable[str], seed: int) -> str:
    """Noise in a text: as many words, each a random one of the vocabulary's that is none of the label's."""
    own = _words(label)
    pool = sorted({word for name in names for word in _words(name)} - {*own}) or [MASK]
    rng = np.random.default_rng((seed, zlib.crc32(f"{label}|{sentence}".encode())))
    return " ".join(rng.choice(pool, len(_words(sentence))))


def with_text(bench: Bench, setting: str, wordnet: WordNet | None = None) -> TextBench | None:
    """The bench with text as one more modality; None if the model reads none, or no label has a text.

    The descriptions that the model's labels were trained with are taken from the labels where the text is one of them:
    it would be compared with itself.

    Args:
        bench: Has the sensors.
        setting: :data:`NAMED` or :data:`DESCRIBED`.
        wordnet: For :func:`descriptions`.
    """
    model, known = bench.model, bench.data.known
    if TEXT not in model.config.modalities or TEXT not in model.encoders.heads:
        return None
    bank, numbers = model.labels, np.unique(np.concatenate([samples.concept for samples in known.sets.values()]))
    told = {name: PAPER_TEMPLATES[0].format(name) for name in bank.names}
    if setting == DESCRIBED:
        told = descriptions(bank, wordnet)
        if bank.descriptions:
            bank = LabelBank.from_names(bank.names, model.embed_text, bank.templates, bank.aliases, bank.reduce)
    chosen = [int(number) for number in numbers if known.names[number] in told]
    if not chosen:
        return None
    names = [known.names[number] for number in chosen]
    sentences = [told[name] for name in names]
    samples = tuple(Sample(f"text-{name}", TEXT, TEXT, "", name, bench.data.split, name) for name in names)
    inputs = _features(bench, sentences)
    sets = {**known.sets, TEXT: FeatureSet(samples, inputs, np.array(chosen, np.int64))}
    data = dataclasses.replace(bench.data, known=Split(known.names, sets))
    tokens = {**bench.af.tokens, TEXT: embed_all(model.encoders, model.config, TEXT, inputs).clone()}
    found: dict[str, Method] = {}
    for name, method in bench.methods.items():
        if isinstance(method, FusionMethod):
            found[name] = FusionMethod(name, tokens, method.modules, bank, method.slots, method.fold)
        elif isinstance(method, LateFusion):
            probes = _probe(bench, method.probes)
            probed = methods.probed(probes, model, TEXT, inputs)
            found[name] = LateFusion(name, {**method.tokens, TEXT: probed}, probes, method.fold)
    args = (model, data, found, bench.train, bench.training, bench.count, bench.damage, bench.seed)
    without = len(numbers) - len(chosen)
    return TextBench(*args, _damaged=dict(bench._damaged), sentences=sentences, without=without)


def _features(bench: Bench, sentences: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Features ``[N, 1, F]`` of the text tower."""
    tower = bench.model.encoders.trunks[bench.model.encoders.trunk_of[TEXT]]
    with torch.inference_mode():
        found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = tower(list(sentences)).cpu().numpy()[:, None]
    return found


def _probe(bench: Bench, probes: Probes) -> Probes:
    """The probes with one for text: it learns the texts that the fusions learn with, and the labels' prompts."""
    names = bench.model.labels.names
    words = {(number, PAPER_TEMPLATES[0].format(name)) for number, name in enumerate(names)}
    for samples in () if bench.train is None else bench.train.sets.values():
        words |= {(int(c), s.label) for s, c in zip(samples.samples, samples.concept, strict=True)}
    told = sorted(words)
    concept = np.array([number for number, _ in told], np.int64)
    probe = Probe.fit(_features(bench, [word for _, word in told])[:, 0], concept)
    return Probes({**probes.probes, TEXT: probe}, probes.classes)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("_", " "))
