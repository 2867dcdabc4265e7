"""Builds the modality-free data set (paper Sec. 3.4): samples of many sources in, combinations of them out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, field_validator

from omnibind_core import modalities
from omnibind_core.config import Config
from omnibind_core.data import sources
from omnibind_core.data.concepts import Concepts
from omnibind_core.data.matching.labels import match_labels
from omnibind_core.data.modality_free.collect import Collection, Place, Row, check_files, collect, with_concepts
from omnibind_core.data.modality_free.combine import Pools, combine, spread
from omnibind_core.data.modality_free.dataset import (
    BUILD,
    CAPTIONS,
    COMBINATIONS_PER_GROUP,
    INDEX,
    LABELS,
    MODALITY_SET,
    REPLACED,
    SAMPLES,
    SAMPLES_PER_GROUP,
    as_sample,
    sensors,
)
from omnibind_core.data.modality_free.descriptions import write_descriptions
from omnibind_core.data.modality_free.match_groups import MatchGroups, MatchingConfig, Towers, make_match_groups
from omnibind_core.data.sources.base import SPLITS, shorten
from omnibind_core.errors import DataError
from omnibind_core.files import write_folder_atomically
from omnibind_core.optional import require

_logger = logging.getLogger(__name__)


class SourceConfig(Config):
    """One data set that samples are taken from.

    Attributes:
        source: Name of the data set, as of ``omnibind data inspect``; ``folder`` for a tree with ``samples.csv``.
        root: Its folder, relative to ``--root``.
        options: Of the source.
        prefix: Put before its ids, where two sources would use the same.
    """

    source: str
    root: str = "."
    options: dict[str, Any] = Field(default_factory=dict)
    prefix: str = ""


class BuildConfig(Config):
    """A modality-free data set.

    Attributes:
        sources: Where the samples come from.
        labels: ``labels.csv`` that maps the sources' labels to concepts; null matches them anew, offline.
        matching: Which samples of one concept are combined.
        total: Number of combinations; fewer are written if no more exist.
        sizes: Share of each number of modalities, text included, in any unit. A size that no concept has leaves its
            share to the others. Null draws concepts alike, and the sizes from 2 up alike within each concept.
        splits: Share of each split in ``total``, in any unit. Splits that are not named are left out.
        text: Whether text is one of the modalities: the sources' own words, or descriptions.
        read: Decode every file once, to find broken ones.
        sha256: Write down the hash of every file.
        skip_broken: Leave out samples whose file is missing or broken, with a warning, instead of stopping.
        seed: Of everything that is drawn.
    """

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    labels: str | None = None
    matching: MatchingConfig = Field(default_factory=MatchingConfig)
    total: int = Field(20000, ge=1)
    sizes: dict[int, float] | None = None
    splits: dict[str, float] = Field(default_factory=lambda: {"train": 4.0, "val": 1.0}, min_length=1)
    text: bool = True
    read: bool = True
    sha256: bool = True
    skip_broken: bool = False
    seed: int = Field(0, ge=0)

    @field_validator("sizes")
    @classmethod
    def _check_sizes(cls, sizes: dict[int, float] | None) -> dict[int, float] | None:
        if sizes is not None:
            most = len(modalities.names())
            if not all(1 <= size <= most and share >= 0 for size, share in sizes.items()) or not sum(sizes.values()):
                raise ValueError(f"expected numbers of modalities from 1 to {most} with shares of 0 or more, not all 0")
        return sizes

    @field_validator("splits")
    @classmethod
    def _check_splits(cls, splits: dict[str, float]) -> dict[str, float]:
        if not set(splits) <= set(SPLITS) or min(splits.values()) < 0 or not sum(splits.values()):
            raise ValueError(f"expected shares of 0 or more, not all 0, of {', '.join(SPLITS)}")
        return splits


def build(config: BuildConfig, root: Path, out: Path, towers: Towers) -> None:
    """Builds a data set. It appears in ``out`` when it is whole, or not at all; one that is there is replaced then.

    Args:
        config: Settings.
        root: Folder that the sources' roots are relative to.
        out: Folder to write.
        towers: Encoders for label and sample matching; used where the settings ask for them.

    Raises:
        DataError: A source is missing, laid out wrongly or contradicts itself, a file is broken, nothing can be
            combined, or ``out`` holds something else. Says which, and how many others are fine.
        ConfigError: An option of a source is wrong.
    """
    with write_folder_atomically(out, REPLACED, alone=True) as folder:
        collections = [
            Collection(sources.create(asked.source, root / asked.root, asked.options), asked.prefix)
            for asked in config.sources
        ]
        table = collect(collections, tuple(config.splits))
        _logger.info("%d samples of %d sources", len(table), len(collections))
        _concepts(config, table, towers).write(folder / LABELS)
        concepts = Concepts.read(folder / LABELS)  # as rounded there: building with this table gives the same index
        _keep_old_labels(out / LABELS, folder / LABELS)
        table, score = with_concepts(table, concepts)
        table, kept = _checked(table, collections, config)
        _write_samples(folder / SAMPLES, table)
        groups = make_match_groups(table, score[kept], collections, concepts, config.matching, towers, root)
        if groups.captions:
            write_descriptions(folder / CAPTIONS, groups.captions)
        _write_index(folder / INDEX, table, groups, config)
        settings = {"root": str(root.resolve()), **config.model_dump()}
        settings["sources"] = [source.model_dump() for source in config.sources]
        if groups.described:
            settings["described_by"] = dict(groups.described)
        (folder / BUILD).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def _concepts(config: BuildConfig, table: Any, towers: Towers) -> Concepts:
    if config.labels is not None:
        return Concepts.read(Path(config.labels))
    rows = table.select(["source", "label", "modality"]).unify_dictionaries()
    strings = require("pyarrow", "").table({name: rows[name].cast("string") for name in rows.column_names})
    pairs = [tuple(row.values()) for row in strings.group_by(strings.column_names).aggregate([]).to_pylist()]
    _logger.info("matching %d labels", len({pair[:2] for pair in pairs}))
    return match_labels(sorted(pairs), towers.text)


def _keep_old_labels(old: Path, new: Path) -> None:
    """Corrections made by hand in the table of an earlier build are not lost."""
    if old.is_file() and old.read_bytes() != new.read_bytes():
        kept = new.with_name(f"{LABELS}.bak")
        kept.write_bytes(old.read_bytes())
        _logger.warning(
            "%s differed from the new one and was kept as %s; to build with it, set labels=%s", old, kept.name, old
        )


def _checked(table: Any, collections: Sequence[Collection], config: BuildConfig) -> tuple[Any, NDArray[np.bool_]]:
    """The table with sizes and hashes, without the samples that are broken, and which rows it keeps."""
    pa = require("pyarrow", "")
    sizes = np.empty(len(table), np.int64)
    hashes: list[str | None] = []
    problems: list[str] = []
    kept = np.ones(len(table), bool)

    def place(row: Row) -> Place:
        return collections[row["collection"]].source.path(as_sample(row)), 0, None

    def load(row: Row) -> Any:
        return collections[row["collection"]].source.load(as_sample(row))

    checked = check_files(table, place, sha256=config.sha256, load=load if config.read else None)
    for row, found in enumerate(checked):
        sizes[row] = found.size
        hashes.append(found.sha256)
        if found.problem:
            kept[row] = False
            problems.append(found.problem)
    if problems:
        told = f"{len(problems)} samples cannot be used: {shorten(problems)}; the other {int(kept.sum())} are fine"
        if not config.skip_broken or not kept.any():
            raise DataError(f"{told}. Nothing was written; skip_broken=true leaves them out")
        _logger.warning("%s; they are left out", told)
    table = table.append_column("size", pa.array(sizes)).append_column("sha256", pa.array(hashes, pa.string()))
    return table.filter(pa.array(kept)), kept


def _write_samples(path: Path, table: Any) -> None:
    plain = [table[name].cast("string") if _is_encoded(table[name]) else table[name] for name in table.column_names]
    table = require("pyarrow", "").table(plain, names=table.column_names)
    require("pyarrow.parquet", "").write_table(table, path, row_group_size=SAMPLES_PER_GROUP, compression="zstd")


def _is_encoded(column: Any) -> bool:
    return bool(require("pyarrow", "").types.is_dictionary(column.type))


@dataclass(frozen=True)
class _Split:
    """The combinations of one split: item numbers ``int32 [N, M]`` and match groups ``int32 [N]``."""

    name: str
    rows: NDArray[np.int32]
    match_group: NDArray[np.int32]


def _write_index(path: Path, table: Any, groups: MatchGroups, config: BuildConfig) -> None:
    pa = require("pyarrow", "")
    names = [*modalities.names(), "concept", "split"]
    schema = pa.schema([*((name, pa.string()) for name in names), ("score", pa.float32()), (MODALITY_SET, pa.string())])
    ids = table["id"].combine_chunks()
    texts = pa.array(groups.texts, pa.string())
    writer = require("pyarrow.parquet", "").ParquetWriter(path, schema, compression="zstd")
    with writer:
        for split in _draw(table, groups, config):
            for start in range(0, len(split.rows), COMBINATIONS_PER_GROUP):
                stop = start + COMBINATIONS_PER_GROUP
                rows, match_group = split.rows[start:stop], split.match_group[start:stop]
                columns = {
                    name: (texts if name == "text" else ids).take(pa.array(rows[:, column], mask=rows[:, column] < 0))
                    for column, name in enumerate(_columns())
                }
                columns["concept"] = pa.array([groups.concepts[i] for i in groups.concept[match_group]], pa.string())
                columns["split"] = pa.array([split.name] * len(rows), pa.string())
                columns["score"] = pa.array(_scores(rows, match_group, groups))
                columns[MODALITY_SET] = pa.array([_modality_set(row) for row in rows >= 0], pa.string())
                writer.write_table(pa.table({name: columns[name] for name in schema.names}, schema))


def _draw(table: Any, groups: MatchGroups, config: BuildConfig) -> list[_Split]:
    """Draws the combinations of every split, and says where the data did not hold what was asked for."""
    totals = spread(
        config.total,
        np.full(len(config.splits), np.inf),
        np.random.default_rng(config.seed),
        np.array(list(config.splits.values()), float),
    )
    modality, split = (np.asarray(table[name].cast("string")) for name in ("modality", "split"))
    drawn = []
    for number, (name, total) in enumerate(zip(config.splits, totals, strict=True)):
        here = split == name
        columns = [np.flatnonzero(here & (modality == sensor)).astype(np.int32) for sensor in sensors()]
        pools = Pools.of(
            [*((rows, groups.match_group[rows]) for rows in columns), groups.words(here & config.text)],
            groups.weight,
            [True] * len(columns) + [False],
        )
        rows, match_group = combine(pools, int(total), config.sizes, np.random.default_rng((config.seed, number)))
        if len(rows) < total:
            _logger.warning("%s: %d combinations were asked for, %d different ones exist", name, total, len(rows))
        missing = [size for size, share in (config.sizes or {}).items() if share and size > pools.largest]
        if missing and len(rows):
            _logger.warning(
                "%s: no concept has %s modalities; their share goes to the other sizes",
                name,
                " or ".join(map(str, missing)),
            )
        drawn.append(_Split(name, rows, match_group))
    if not any(len(split.rows) for split in drawn):
        wide = Counter(groups.concept[np.unique(groups.match_group)].tolist())
        raise DataError(f"nothing can be combined: none of the {len(wide)} concepts has enough modalities in one split")
    return drawn


def _scores(rows: NDArray[np.int32], match_group: NDArray[np.int32], groups: MatchGroups) -> NDArray[np.float32]:
    """Least certainty of all that a combination rests on: its samples' labels, and their match with each other."""
    sensors = rows[:, :-1]
    labels = np.where(sensors >= 0, groups.score[sensors], np.float32(1)).min(axis=1)
    scores: NDArray[np.float32] = np.minimum(labels, groups.match_score[match_group]).round(4)
    return scores


def _columns() -> tuple[str, ...]:
    """Order of the columns of a draw; text last."""
    return (*sensors(), "text")


def _modality_set(present: NDArray[np.bool_]) -> str:
    there = {name for name, here in zip(_columns(), present, strict=True) if here}
    return "+".join(name for name in modalities.names() if name in there)
