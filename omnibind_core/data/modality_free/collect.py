"""The sample table of a modality-free data set: samples of several sources, and whether their files are there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from omnibind_core.data.concepts import Concepts
from omnibind_core.data.modality_free.dataset import SAMPLE_FIELDS
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources import Source
from omnibind_core.data.sources.base import shorten
from omnibind_core.errors import DataError, OmniBindError
from omnibind_core.optional import require

# Few different values: kept once, and a number per row. The rest of a row is about 150 bytes of text.
_REPEATED = frozenset({"modality", "source", "label", "split"})
_CHUNK = 16384
_BLOCK = 1 << 20


Row = dict[str, Any]
"""One row of a sample table."""

Place = tuple[Path, int, "int | None"]
"""Where data are: file, first byte, number of bytes (None: to the end)."""


class Collection(NamedTuple):
    """One source of the data set.

    Attributes:
        source: It, opened.
        prefix: Put before its ids, so that those of two sources differ.
    """

    source: Source
    prefix: str = ""


class Checked(NamedTuple):
    """What is known of a file.

    Attributes:
        size: Bytes.
        sha256: Hexadecimal; None if not asked for.
        problem: What is wrong with it; empty if nothing is.
    """

    size: int
    sha256: str | None
    problem: str


def collect(collections: Sequence[Collection], splits: Sequence[str]) -> Any:
    """Lists the samples of all sources, ordered by id.

    Args:
        collections: The sources; their numbers become the column ``collection``.
        splits: Splits to take.

    Returns:
        ``pyarrow.Table`` with the fields of :class:`Sample` and ``collection``.

    Raises:
        DataError: An id occurs twice, a group is in two splits, or there are no samples; says how many others are fine.
    """
    pa = require("pyarrow", "The modality-free data set")
    types = {
        name: pa.dictionary(pa.int32(), pa.string()) if name in _REPEATED else pa.string() for name in SAMPLE_FIELDS
    }
    schema = pa.schema([*types.items(), ("collection", pa.int16())])
    batches = []
    for number, (source, prefix) in enumerate(collections):
        stream = (sample for sample in source.samples() if sample.split in splits)
        for samples in _chunks(stream):
            columns = {name: [getattr(sample, name) for sample in samples] for name in SAMPLE_FIELDS}
            columns["id"] = [prefix + name for name in columns["id"]]
            columns["collection"] = [number] * len(samples)
            batches.append(pa.RecordBatch.from_pydict(columns, schema=schema))
    table = pa.Table.from_batches(batches, schema).unify_dictionaries().combine_chunks()
    if not len(table):
        raise DataError(f"no source has samples of the split(s) {', '.join(splits)}")
    table = table.take(require("pyarrow.compute", "").sort_indices(table["id"])).combine_chunks()
    _check_ids(table, collections)
    _check_groups(table)
    return table


def with_concepts(table: Any, concepts: Concepts) -> tuple[Any, Any]:
    """Adds the column ``concept``, and takes out the samples whose label is left out of the label table.

    Args:
        table: Samples.
        concepts: The label table.

    Returns:
        The table, and the certainty of every sample's label ``float32 [N]``, 0..1.

    Raises:
        DataError: A label is in no row of the label table, says how many are; or all are left out.
    """
    pa, pc = require("pyarrow", ""), require("pyarrow.compute", "")
    found = {(match.source, match.label): match for match in concepts}
    source, label = (table[name].combine_chunks() for name in ("source", "label"))
    pairs = np.stack([np.asarray(column.indices) for column in (source, label)])
    distinct, which = np.unique(pairs, axis=1, return_inverse=True)
    which = which.reshape(-1)
    words = [(source.dictionary[int(s)].as_py(), label.dictionary[int(w)].as_py()) for s, w in distinct.T]
    missing = [pair for pair in words if pair not in found]
    if missing:
        names = shorten([f"{word} ({name})" for name, word in missing])
        raise DataError(
            f"{len(missing)} labels are in no row of the label table: {names}; "
            f"the other {len(words) - len(missing)} are"
        )
    matches = [found[pair] for pair in words]
    concept = pa.DictionaryArray.from_arrays(which.astype(np.int32), pa.array([match.canonical for match in matches]))
    score = np.array([match.score for match in matches], np.float32)[which]
    table = table.append_column("concept", pc.cast(concept, pa.string()).dictionary_encode())
    kept = np.array([bool(match.canonical) for match in matches])[which]
    if not kept.any():
        raise DataError(f"the label table leaves out all {len(words)} labels")
    return (table, score) if kept.all() else (table.filter(pa.array(kept)), score[kept])


def check_files(
    table: Any, place: Callable[[Row], Place], *, sha256: bool, load: Callable[[Row], Any] | None = None
) -> Iterator[Checked]:
    """Looks at the data of every sample, in the order of the table, on all cores.

    Args:
        table: Samples.
        place: Row of the table to where its data are.
        sha256: Also compute the hash.
        load: Decodes the data of a row; None does not.
    """
    measure = lru_cache(4096)(_measure)  # crops share a file

    def check(row: Row) -> Checked:
        try:
            found = measure(*place(row), sha256)
            if load is not None and not found.problem:
                load(row)
        except OmniBindError as error:
            return Checked(0, None, str(error))
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for batch in table.to_batches(max_chunksize=_CHUNK):
            yield from pool.map(check, batch.to_pylist())


def _measure(path: Path, start: int, size: int | None, sha256: bool) -> Checked:
    try:
        left = path.stat().st_size - start
        left = left if size is None else min(left, size)
        if left <= 0:
            return Checked(
                0, None, f"[{path}] is empty (0 bytes)" if not start else f"[{path}] ends before byte {start}"
            )
        if not sha256:
            return Checked(left, None, "")
        digest = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(start)
            for at in range(0, left, _BLOCK):
                digest.update(file.read(min(_BLOCK, left - at)))
        return Checked(left, digest.hexdigest(), "")
    except OSError as error:
        return Checked(0, None, f"[{path}] cannot be read: {error.strerror}")


def _chunks(stream: Iterator[Sample]) -> Iterator[list[Sample]]:
    while chunk := list(islice(stream, _CHUNK)):
        yield chunk


def _check_ids(table: Any, collections: Sequence[Collection]) -> None:
    pc = require("pyarrow.compute", "")
    ids = table["id"].combine_chunks()
    twice = np.flatnonzero(np.asarray(pc.equal(ids[1:], ids[:-1])))
    if len(twice):
        number = table["collection"]
        where = sorted({collections[number[int(row) + i].as_py()].source.name for row in twice[:1] for i in (0, 1)})
        raise DataError(
            f"{len(twice)} ids occur twice: {shorten([ids[int(row)].as_py() for row in twice])} (source "
            f"{' and '.join(where)}); the other {len(table) - 2 * len(twice)} samples are fine. Ids of two sources "
            "are told apart by the key prefix"
        )


def _check_groups(table: Any) -> None:
    groups = straddling_groups(table)
    if groups:
        pa, pc = require("pyarrow", ""), require("pyarrow.compute", "")
        fine = len(table) - pc.sum(pc.is_in(table["group"], pa.array(groups))).as_py()
        raise DataError(
            f"{len(groups)} groups are in more than one split: {shorten(groups)}; the {fine} samples of other groups "
            "are fine"
        )


def straddling_groups(table: Any) -> list[str]:
    """Groups that are in more than one split, in order, of a table with the columns ``group`` and ``split``."""
    pa, pc = require("pyarrow", ""), require("pyarrow.compute", "")
    pairs = pa.table({"group": table["group"], "split": pc.cast(table["split"], pa.string())})
    counted = pairs.group_by(["group", "split"]).aggregate([]).group_by("group").aggregate([("split", "count")])
    found: list[str] = sorted(counted.filter(pc.greater(counted["split_count"], 1))["group"].to_pylist())
    return found
