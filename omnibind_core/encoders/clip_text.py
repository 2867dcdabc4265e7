"""CLIP's byte-pair encoding (Radford et al. 2021), which OpenCLIP and ImageBind share: sentences to 77 token ids."""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnibind_core.config import from_json
from omnibind_core.encoders.family import weights_path
from omnibind_core.errors import WeightsError
from omnibind_core.optional import require

CONTEXT = 77
"""Tokens of a sentence, start and end included."""
VOCABULARY = 49408
"""Tokens of the published vocabulary."""

FILES = ("tokenizer.json", "vocab.json", "bpe_simple_vocab_16e6.txt.gz")
"""Names under which the vocabulary is looked for in a folder; ``merges.txt`` stands beside ``vocab.json``."""

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
# Contractions, runs of letters, single digits, runs of other signs; the pattern of CLIP's simple_tokenizer.py.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PLAIN = re.compile(r"[\t\n\r -~]*")  # nothing to mend
_BYTES = 256
_BATCH = 64  # sentences encoded at once
_EXPECTED = (
    f"bpe_simple_vocab_16e6.txt.gz, vocab.json with merges.txt beside it, or tokenizer.json of CLIP's {VOCABULARY}"
)


class ClipTokeniser:
    """Sentences to CLIP's token ids.

    A sentence is cleaned as CLIP's own tokeniser does it: broken characters mended by ``ftfy``, HTML
    entities resolved twice, white space made single spaces, lower case. What is too long is cut so that the end token
    stays, since the text tower reads the embedding there.

    Args:
        path: The vocabulary: a file of :data:`FILES`, or a folder that holds one. None is a vocabulary of single bytes
            (514 tokens), for tests.
        context: Tokens of a sentence.

    Attributes:
        vocabulary: Number of tokens; the last is the end token.

    Raises:
        MissingDependencyError: The package ``tokenizers`` is not installed.
        WeightsError: No such file, or not CLIP's vocabulary.
    """

    def __init__(self, path: str | Path | None, context: int = CONTEXT) -> None:
        self.context = context
        self._bpe = _byte_pairs([]) if path is None else _read(Path(path).expanduser())
        start, end = (self._bpe.token_to_id(token) for token in (_START, _END))
        self.vocabulary: int = self._bpe.get_vocab_size()
        if start is None or end != self.vocabulary - 1:
            raise WeightsError(
                f"{path}: a vocabulary of {self.vocabulary} tokens in which '{_END}' has number {end}, expected it to "
                f"be the last, as in {_EXPECTED}"
            )
        self._start, self._end = start, end

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """``int64 [n, context]``: start, the sentence, end, then zeros.

        Raises:
            MissingDependencyError: A sentence is not ASCII, and the package ``ftfy`` is not installed.
        """
        rows = torch.zeros(len(sentences), self.context, dtype=torch.int64)
        encoded = self._bpe.encode_batch([clean(text) for text in sentences], add_special_tokens=False)
        for row, sentence in zip(rows, encoded, strict=True):
            ids = [self._start, *sentence.ids[: self.context - 2], self._end]
            row[: len(ids)] = torch.tensor(ids)
        return rows


class TowerTokeniser:
    """The tokeniser of a text tower: reads the vocabulary when the first sentence comes.

    Args:
        vocabulary: As of :func:`locate_vocabulary`.
        weights: The same.
        tokens: Number of tokens that the tower has.
        context: Tokens of a sentence.

    Raises:
        WeightsError: There is no vocabulary.
    """

    def __init__(self, vocabulary: str | None, weights: str | None, tokens: int, context: int = CONTEXT) -> None:
        self._path = locate_vocabulary(vocabulary, weights)
        self._tokens, self._context = tokens, context
        self._read: ClipTokeniser | None = None

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """``int64 [n, context]``, see :class:`ClipTokeniser`.

        Raises:
            MissingDependencyError: As of :class:`ClipTokeniser`.
            WeightsError: It is no vocabulary of CLIP's, or has not as many tokens as the tower.
        """
        if self._read is None:
            tokeniser = ClipTokeniser(self._path, self._context)
            if tokeniser.vocabulary != self._tokens:
                raise WeightsError(
                    f"{self._path or 'the vocabulary of bytes'} has {tokeniser.vocabulary} tokens, expected the "
                    f"{self._tokens} of the text tower"
                )
            self._read = tokeniser
        return self._read(sentences)

    def batches(self, sentences: Sequence[str]) -> Iterator[Tensor]:
        """Ids ``int64 [n, T]`` of up to 64 sentences at once, T as long as the longest of them: no token of a causal
        tower sees those behind it, so the columns behind the last end token change nothing.
        """
        for start in range(0, len(sentences), _BATCH):
            ids = self(sentences[start : start + _BATCH])
            yield ids[:, : int(ids.argmax(dim=1).max()) + 1]  # the end token has the highest number


def clean(text: str) -> str:
    """A sentence as CLIP's vocabulary was made for it; see :class:`ClipTokeniser`."""
    if not _PLAIN.fullmatch(text):
        text = require("ftfy", "Text that is not ASCII, for CLIP's vocabulary,").fix_text(text)
    return " ".join(html.unescape(html.unescape(text)).split()).lower()


def find_vocabulary(place: Path) -> Path | None:
    """The vocabulary in a folder, or beside a file, if there is one."""
    folder = place if place.is_dir() else place.parent
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def locate_vocabulary(vocabulary: str | None, weights: str | None) -> Path | None:
    """The vocabulary of a text tower: the one that lies with its weights, else the one that the config names.

    Args:
        vocabulary: Of the config, see :func:`~omnibind_core.encoders.family.weights_path`; None for bytes alone.
        weights: File or folder of the tower's weights, if there is one.

    Raises:
        WeightsError: It is nowhere.
    """
    if vocabulary is None:
        return None
    beside = None if weights is None else find_vocabulary(weights_path(weights))
    return beside or weights_path(vocabulary)


def vocabulary_files(place: Path) -> list[Path]:
    """The files of a vocabulary: of this one, or of the one in a folder or beside another file; may be none."""
    file = place if place.name in FILES else find_vocabulary(place)
    if file is None:
        return []
    return [file, file.parent / "merges.txt"] if file.name == "vocab.json" else [file]


def _read(path: Path) -> Any:
    """A ``tokenizers.Tokenizer`` of a vocabulary file."""
    file = find_vocabulary(path) if path.is_dir() else path
    if file is None or not file.is_file():
        raise WeightsError(f"{path}: no vocabulary of CLIP's tokeniser there, expected {_EXPECTED}")
    try:
        if file.name.endswith(".json"):
            content = from_json(file.read_text(encoding="utf-8"))
            if "model" in content:  # a whole tokenizer.json: only its merges are taken, so that all files work alike
                model = content["model"]
                pairs = (pair.split() if isinstance(pair, str) else pair for pair in model["merges"])
                return _byte_pairs([(left, right) for left, right in pairs], model["vocab"])
            return _byte_pairs(_merges((file.parent / "merges.txt").read_text(encoding="utf-8")), content)
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            # The file has more merges than CLIP uses: its vocabulary is 256 bytes, each also as the end of a word, one
            # token per merge, start and end.
            merges = _merges("".join(islice(lines, 1 + VOCABULARY - 2 * _BYTES - 2)))
        return _byte_pairs(merges)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file}: cannot be read as {_EXPECTED}: {error}") from error


def _merges(text: str) -> list[tuple[str, str]]:
    """Pairs of a list with one merge a line below a heading."""
    pairs = []
    for line in text.splitlines()[1:]:
        left, right = line.split()
        pairs.append((left, right))
    return pairs


def _byte_pairs(merges: Sequence[tuple[str, str]], vocabulary: dict[str, int] | None = None) -> Any:
    tokenizers = require("tokenizers", "CLIP's vocabulary")
    if vocabulary is None:
        # The bytes in the order of the alphabet that stands for them: printable ones first.
        alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        words = [*alphabet, *(sign + _WORD_END for sign in alphabet), *(left + right for left, right in merges)]
        vocabulary = {token: index for index, token in enumerate([*words, _START, _END])}
    bpe = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, list(merges), end_of_word_suffix=_WORD_END, unk_token=_END)
    )
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True)
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
    return bpe
