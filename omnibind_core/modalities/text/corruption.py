"""Augmentation and damage of texts."""

from __future__ import annotations

import numpy as np

from omnibind_core.modalities.base import Corruptions

_TEMPLATES = ("{}", "a {}", "a photo of a {}", "this is a {}", "one {}", "the {}")
_OTHER_WORDS = ("weather", "yesterday", "idea", "number", "colour", "question", "street", "music", "winter", "north")


def augment(raw: str, rng: np.random.Generator) -> str:
    """The same words in one of a few frames; whole sentences (four words or more) stay as they are."""
    return raw if len(raw.split()) > 3 else _TEMPLATES[rng.integers(len(_TEMPLATES))].format(raw)


def _blank(raw: str, rng: np.random.Generator) -> str:
    return "something"  # says nothing; an empty text would be refused as input


def _typos(raw: str, rng: np.random.Generator) -> str:
    """Each letter becomes another one with a probability of 0.3."""
    hit = rng.random(len(raw)) < 0.3
    letters = rng.integers(ord("a"), ord("z") + 1, len(raw))
    return "".join(chr(new) if swap else old for old, swap, new in zip(raw, hit, letters, strict=True))


def _unrelated(raw: str, rng: np.random.Generator) -> str:
    """Another word."""
    return str(rng.choice(_OTHER_WORDS))


CORRUPTIONS: Corruptions[str] = {"typos": _typos, "blank": _blank, "unrelated": _unrelated}
