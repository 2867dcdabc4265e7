"""Sentences to token ids, for text towers and for what was exported of them. No torch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.encoders.packages import MINILM_TOKENIZER, packaged_file
from omnibind_core.optional import require

MOST_TOKENS = 256
"""Of a sentence of MiniLM; the checkpoint's sentence_bert_config.json."""

Tokens = dict[str, NDArray[Any]]
"""``tokens``, ``int64 [N, T]``, and ``mask``, ``bool [N, T]``, true where there is one."""


def word_pieces() -> Callable[[Sequence[str]], Tokens]:
    """MiniLM's tokeniser.

    Raises:
        MissingDependencyError: The package ``tokenizers``, or that of the vocabulary, is not installed.
        WeightsError: The vocabulary is not the known one.
    """
    pieces = require("tokenizers", "Encoding text").Tokenizer.from_file(str(packaged_file(MINILM_TOKENIZER)))
    pieces.enable_truncation(MOST_TOKENS)
    pieces.enable_padding()

    def tokenise(sentences: Sequence[str]) -> Tokens:
        encoded = pieces.encode_batch(list(sentences))
        ids = np.array([found.ids for found in encoded], np.int64)
        return {"tokens": ids, "mask": np.array([found.attention_mask for found in encoded], bool)}

    return tokenise


def hashed(sentence: str, buckets: int) -> list[int]:
    """The bucket of each word, of which there is at least one."""
    return [zlib.crc32(word.encode()) % buckets for word in sentence.lower().split() or [""]]


def hashed_words(buckets: int) -> Callable[[Sequence[str]], Tokens]:
    """Words hashed into buckets."""

    def tokenise(sentences: Sequence[str]) -> Tokens:
        found = [hashed(sentence, buckets) for sentence in sentences]
        mask = np.arange(max(map(len, found)))[None] < np.array([len(words) for words in found])[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(found)
        return {"tokens": ids, "mask": mask}

    return tokenise


def tokeniser(settings: Mapping[str, Any]) -> Callable[[Sequence[str]], Tokens] | None:
    """The tokeniser of a text tower, by its settings in the model config; None for one that is not exported.

    Raises:
        MissingDependencyError: A package that it needs is not installed.
        WeightsError: Its vocabulary is not the known one.
    """
    if settings["type"] == "minilm_l6":
        return word_pieces()
    return hashed_words(settings["buckets"]) if settings["type"] == "hashed_text" else None
