"""Sample-level matching (paper Sec. 3.4): which samples of two modalities fit together, though no sensor saw both.

Every sample is a row: the text teacher's embedding of its description
(:mod:`omnibind_core.data.modality_free.descriptions`), or its embedding in the shared space. Two samples
match if each is the other's nearest by cosine, above a threshold.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import ConfigError, DataError
from omnibind_core.files import write_atomically
from omnibind_core.optional import require

COLUMNS = ("id_a", "id_b", "score")
EXACT_PAIRS = 10**9
"""Up to so many pairs (31,600 x 31,600) every pair is compared, in blocks; that takes half a minute on two cores."""

Rows = NDArray[np.floating[Any]]
"""``[N, D]``, any length but zero; may be a memory map: it is read in blocks and never copied as a whole."""

_BLOCK = 4096
# Inverted lists: 2 sqrt(N) of them, of which 32 are searched, trained on 64 rows per list. On 100,000 x 384 they are
# built three times faster than a graph (HNSW) and find no less (docs/data.md); and equal runs give equal lists.
_LISTS_PER_ROOT, _SEARCHED, _TRAINING_ROWS = 2.0, 32, 64


class SampleMatch(NamedTuple):
    """Two samples that fit together.

    Attributes:
        id_a: Sample of the first modality.
        id_b: Sample of the second.
        score: Cosine, -1..1.
    """

    id_a: str
    id_b: str
    score: float


class Pairs(NamedTuple):
    """Mutually nearest rows, ordered by the first index.

    Attributes:
        a: ``int64 [K]``, rows of the first array, each at most once.
        b: ``int64 [K]``, rows of the second, each at most once.
        score: ``float32 [K]``, cosines.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    score: NDArray[np.float32]


def match_samples(
    ids_a: Sequence[str], rows_a: Rows, ids_b: Sequence[str], rows_b: Rows, threshold: float, **options: Any
) -> list[SampleMatch]:
    """Matches the samples of two modalities by their embeddings.

    Args:
        ids_a: Names of the first modality's samples.
        rows_a: Their embeddings ``[N, D]``.
        ids_b: Names of the second's.
        rows_b: Their embeddings ``[M, D]``.
        threshold: Least cosine, -1..1.
        options: Of :func:`mutual_nearest`.

    Raises:
        DataError: Names occur twice, or an embedding is zero or not finite; names the first such sample.
        ConfigError: The threshold is out of range.
    """
    for ids, rows in ((ids_a, rows_a), (ids_b, rows_b)):
        _check(ids, rows)
    found = mutual_nearest(rows_a, rows_b, threshold, **options)
    return [
        SampleMatch(ids_a[a], ids_b[b], float(score)) for a, b, score in zip(found.a, found.b, found.score, strict=True)
    ]


def match_descriptions(
    texts_a: Mapping[str, str],
    texts_b: Mapping[str, str],
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    threshold: float,
    **options: Any,
) -> list[SampleMatch]:
    """Matches the samples of two modalities by their descriptions.

    Args:
        texts_a: Sample id to description, first modality.
        texts_b: The same, second modality.
        embed: Text teacher, sentences to ``float32 [N, D]``. Each sentence is embedded once.
        threshold: Least cosine, -1..1.
        options: Of :func:`mutual_nearest`.
    """
    texts = sorted({*texts_a.values(), *texts_b.values()}, key=lambda text: (len(text), text))  # even batches pad less
    row = {text: i for i, text in enumerate(texts)}
    rows = np.asarray(embed(texts), np.float32) if texts else np.zeros((0, 1), np.float32)
    sides = [rows[np.array([row[text] for text in side.values()], np.int64)] for side in (texts_a, texts_b)]
    return match_samples(list(texts_a), sides[0], list(texts_b), sides[1], threshold, **options)


def mutual_nearest(
    rows_a: Rows, rows_b: Rows, threshold: float, *, seed: int = 0, threads: int = 1, exact_pairs: int = EXACT_PAIRS
) -> Pairs:
    """Rows that are each other's nearest by cosine.

    Equal rows (the same description) count as one row with several members; members are paired in order, so that 100
    pictures and 80 sounds of "a dog" give 80 pairs and not one.

    Args:
        rows_a: ``[N, D]``.
        rows_b: ``[M, D]``.
        threshold: Least cosine, -1..1.
        seed: Of the approximate search.
        threads: Of the approximate search; other than 1, rounding may differ from machine to machine.
        exact_pairs: With more pairs of distinct rows than this, the search is approximate (inverted lists of half
            precision by faiss, 2 bytes per number); scores are exact all the same.

    Raises:
        ConfigError: The threshold is out of range.
        DataError: The arrays do not fit together.
        MissingDependencyError: faiss is needed and not installed.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold}, expected a cosine from -1 to 1")
    if rows_a.ndim != 2 or rows_b.ndim != 2 or rows_a.shape[1] != rows_b.shape[1]:
        raise DataError(f"embeddings are {rows_a.shape} and {rows_b.shape}, expected [N, D] and [M, D]")
    members_a, members_b = _members(rows_a), _members(rows_b)
    first_a, first_b = (np.array([m[0] for m in members], np.int64) for members in (members_a, members_b))
    if len(first_a) * len(first_b) <= exact_pairs:
        nearest_a, nearest_b = _exact(rows_a, first_a, rows_b, first_b)
    else:
        with _threads(threads):
            nearest_a = _approximate(rows_a, first_a, rows_b, first_b, seed)
            asked = np.unique(nearest_a[nearest_a >= 0])  # only these can be somebody's mutual nearest
            nearest_b = np.full(len(first_b), -1, np.int64)
            nearest_b[asked] = _approximate(rows_b, first_b[asked], rows_a, first_a, seed)
    left = np.flatnonzero(nearest_a >= 0)
    right = nearest_a[left]
    mutual = nearest_b[right] == left
    left, right = left[mutual], right[mutual]
    score = _cosines(rows_a, first_a[left], rows_b, first_b[right])
    kept = score >= np.float32(threshold)
    pairs = [
        (a, b, value)
        for i, j, value in zip(left[kept], right[kept], score[kept], strict=True)
        for a, b in zip(members_a[i], members_b[j], strict=False)
    ]
    pairs.sort()
    a, b, values = zip(*pairs, strict=True) if pairs else ((), (), ())
    return Pairs(np.array(a, np.int64), np.array(b, np.int64), np.array(values, np.float32))


def write_matches(path: Path, matches: Iterable[SampleMatch]) -> None:
    """Writes the matches as a CSV with the columns ``id_a,id_b,score``."""
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((match.id_a, match.id_b, f"{match.score:.4f}") for match in matches)


def _check(ids: Sequence[str], rows: Rows) -> None:
    if len(ids) != len(rows):
        raise DataError(f"{len(ids)} sample names for {len(rows)} embeddings")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"sample '{twice}' occurs twice; {len(set(ids))} names are distinct")
    bad = [start + int(i) for start, block in _blocks(rows) for i in np.flatnonzero(~_usable(block))]
    if bad:
        fine = len(rows) - len(bad)
        raise DataError(f"the embedding of sample '{ids[bad[0]]}' is zero or not finite; {fine} others are fine")


def _usable(rows: Rows) -> NDArray[np.bool_]:
    length = np.linalg.norm(np.asarray(rows, np.float32), axis=1)
    usable: NDArray[np.bool_] = np.isfinite(length) & (length > 0)
    return usable


def _members(rows: Rows) -> list[list[int]]:
    """Numbers of equal rows, in order of the first; by a hash of their bytes, for sorting would copy all rows."""
    groups: dict[bytes, list[int]] = {}
    for start, block in _blocks(rows):
        for i, row in enumerate(np.ascontiguousarray(block)):
            groups.setdefault(hashlib.blake2b(row, digest_size=16).digest(), []).append(start + i)
    return list(groups.values())


def _blocks(rows: Rows) -> Iterator[tuple[int, Rows]]:
    for start in range(0, len(rows), _BLOCK):
        yield start, rows[start : start + _BLOCK]


def _unit(rows: Rows) -> NDArray[np.float32]:
    rows = np.asarray(rows, np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _cosines(rows_a: Rows, of_a: NDArray[np.int64], rows_b: Rows, of_b: NDArray[np.int64]) -> NDArray[np.float32]:
    result = np.empty(len(of_a), np.float32)
    for start in range(0, len(of_a), _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = np.einsum("nd,nd->n", _unit(rows_a[of_a[block]]), _unit(rows_b[of_b[block]]))
    return np.clip(result, -1, 1)


def _exact(
    rows_a: Rows, of_a: NDArray[np.int64], rows_b: Rows, of_b: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The nearest of the other side for every row of both, in one pass over blocks of the cosine matrix."""
    nearest = np.full(len(of_a), -1, np.int64), np.full(len(of_b), -1, np.int64)
    best = np.full(len(of_a), -np.inf, np.float32), np.full(len(of_b), -np.inf, np.float32)
    for i in range(0, len(of_a), _BLOCK):
        left = _unit(rows_a[of_a[i : i + _BLOCK]])
        for j in range(0, len(of_b), _BLOCK):
            cosine = left @ _unit(rows_b[of_b[j : j + _BLOCK]]).T
            for side, start, other in ((0, i, j), (1, j, i)):
                found = cosine.argmax(axis=1 - side)
                value = cosine.max(axis=1 - side)
                block = slice(start, start + len(found))
                better = value > best[side][block]
                best[side][block][better] = value[better]
                nearest[side][block][better] = found[better] + other
    return nearest


def _approximate(
    queries: Rows, of_queries: NDArray[np.int64], base: Rows, of_base: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """The nearest row of the base for every query, -1 where none was found."""
    faiss = require("faiss", "Matching so many samples")
    lists = max(1, min(round(_LISTS_PER_ROOT * len(of_base) ** 0.5), len(of_base) // _TRAINING_ROWS))
    quantiser = faiss.IndexFlatIP(base.shape[1])
    index = faiss.IndexIVFScalarQuantizer(
        quantiser, base.shape[1], lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.seed = seed
    index.nprobe = min(_SEARCHED, lists)
    size = min(len(of_base), lists * _TRAINING_ROWS)
    training = np.sort(np.random.default_rng(seed).choice(len(of_base), size, replace=False))
    index.train(_unit(base[of_base[training]]))
    for start in range(0, len(of_base), _BLOCK):
        index.add(_unit(base[of_base[start : start + _BLOCK]]))
    result = np.empty(len(of_queries), np.int64)
    for start in range(0, len(of_queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = index.search(_unit(queries[of_queries[block]]), 1)[1][:, 0]
    return result


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Sets how many threads faiss uses, a global number, and puts it back."""
    faiss = require("faiss", "Matching so many samples")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
