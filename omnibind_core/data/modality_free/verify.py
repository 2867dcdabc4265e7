"""Whether a modality-free data set is whole: its files, and that training and evaluation share nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from omnibind_core.data.modality_free.collect import check_files, straddling_groups
from omnibind_core.data.modality_free.dataset import MODALITY_SET, ModalityFree
from omnibind_core.data.sources.base import shorten
from omnibind_core.optional import require


@dataclass
class Report:
    """What :func:`verify` found.

    Attributes:
        combinations: Number of combinations.
        samples: Number of samples.
        hashed: Whether the data set has hashes to compare with.
        problems: One line each, with how many others are fine. Empty if nothing is wrong.
    """

    combinations: int = 0
    samples: int = 0
    hashed: bool = True
    problems: list[str] = field(default_factory=list)

    def add(self, what: str, names: list[str], total: int, noun: str) -> None:
        """Adds a problem, if it occurred."""
        if names:
            self.problems.append(
                f"{len(names)} {noun} {what}: {shorten(names)}; the other {total - len(names)} are fine"
            )


def verify(folder: Path, root: Path | None = None, *, fast: bool = False) -> Report:
    """Checks a built or exported data set.

    Args:
        folder: The data set.
        root: Where the sources are, if they were moved.
        fast: Compare the sizes of files only, not their hashes.

    Raises:
        DataError: A file of the data set itself is missing or no such table.
    """
    data = ModalityFree.open(folder, root)
    samples = require("pyarrow", "").concat_tables(data.sample_tables()).combine_chunks()
    report = Report(len(data), len(samples), samples["sha256"].null_count == 0)
    _check_labels(data, samples, report)
    _check_splits(samples, report)
    _check_combinations(data, samples, report)
    _check_sample_files(data, samples, report, fast)
    return report


def _check_labels(data: ModalityFree, samples: Any, report: Report) -> None:
    """Concepts in the sample table are those of the label table."""
    rows = samples.group_by(["source", "label", "concept"]).aggregate([]).to_pylist()
    now = [(row, data.concepts.get(row["source"], row["label"])) for row in rows]
    wrong = [
        f"'{row['label']}' of {row['source']} was '{row['concept']}', is '{concept}'"
        for row, concept in now
        if concept != row["concept"]
    ]
    report.add(
        "have another concept in labels.csv than when the data set was built", sorted(wrong), len(rows), "labels"
    )


def _check_splits(samples: Any, report: Report) -> None:
    groups = len(samples["group"].unique())
    report.add("are in more than one split", straddling_groups(samples), groups, "groups")


def _check_combinations(data: ModalityFree, samples: Any, report: Report) -> None:
    """Every id is a sample of that modality, split and concept, and the columns agree with each other."""
    pa, pc = require("pyarrow", ""), require("pyarrow.compute", "")
    unknown: set[str] = set()
    astray: set[str] = set()
    wrong_sets: set[str] = set()
    number = 0
    for table in data.tables():
        size = np.zeros(len(table), int) + np.asarray(table["text"].is_valid())
        for name in data.sensors:
            present = np.asarray(table[name].is_valid())
            size += present
            having = table.filter(pa.array(present))
            rows = pc.index_in(having[name], samples["id"])
            unknown.update(having[name].filter(rows.is_null()).to_pylist())
            found, having = samples.take(rows.drop_null()), having.filter(rows.is_valid())
            right = pc.and_(pc.equal(found["split"], having["split"]), pc.equal(found["concept"], having["concept"]))
            right = pc.and_(right, pc.equal(found["modality"], name))
            astray.update(having[name].filter(pc.invert(right)).to_pylist())
        expected = np.asarray(pc.count_substring(table[MODALITY_SET], "+")) + 1
        wrong_sets.update(f"combination {number + int(row)}" for row in np.flatnonzero(size != expected))
        number += len(table)
    report.add("are in no sample table", sorted(unknown), len(samples) + len(unknown), "ids")
    report.add("are combined in another split, concept or modality than their own", sorted(astray), len(samples), "ids")
    report.add("have other modalities than their kind says", sorted(wrong_sets), number, "combinations")


def _check_sample_files(data: ModalityFree, samples: Any, report: Report, fast: bool) -> None:
    missing: list[str] = []
    changed: list[str] = []
    paths, sizes, hashes = (samples[name].to_pylist() for name in ("path", "size", "sha256"))
    checked = check_files(samples, data.place, sha256=not fast and report.hashed)
    for path, size, sha256, found in zip(paths, sizes, hashes, checked, strict=True):
        if found.problem:
            missing.append(found.problem)
        elif found.size != size:
            changed.append(f"{path} ({found.size} bytes, expected {size})")
        elif found.sha256 not in (None, sha256):
            changed.append(f"{path} (another SHA-256)")
    report.add("are missing or empty", missing, len(samples), "files")
    report.add("have changed since the data set was built", changed, len(samples), "files")
