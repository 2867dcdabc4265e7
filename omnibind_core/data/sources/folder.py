"""A folder with a ``samples.csv``: the form in which users bring their own data."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from omnibind_core import modalities
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import SPLITS, Source, register
from omnibind_core.data.sources.base.tables import accept, read_rows
from omnibind_core.errors import DataError
from omnibind_core.files import leads_out, write_atomically
from omnibind_core.labels import clean
from omnibind_core.modalities.pictures import Measuring, parse_scale

COLUMNS = ("id", "modality", "source", "path", "label", "split", "group")
OPTIONAL = ("pair", "scale")


@register
class FolderSource(Source):
    """Samples listed in ``samples.csv``, or files in ``MODALITY/LABEL/``; read when they are asked for.

    Without a table, the folders say what the files are: all are of the split ``train``, and those in a further folder
    are a group.

    Its ``path`` column is relative to the folder and stays inside of it, as do links; see
    :func:`omnibind_core.files.inside`.
    ``group`` may be empty: the sample then is a group of its own. ``scale`` is what
    :func:`omnibind_core.modalities.pictures.parse_scale` takes.

    Raises:
        DataError: The table is missing or contradicts itself; names the lines, what was expected, and how many other
            rows are fine.
    """

    name: ClassVar[str] = "folder"
    title: ClassVar[str] = "your own data"
    licence: ClassVar[str] = "that of the data in it"
    citation: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    modalities: ClassVar[tuple[str, ...]] = modalities.NAMES
    splits: ClassVar[tuple[str, ...]] = SPLITS
    layout: ClassVar[str] = (
        f"a table samples.csv with the columns {','.join(COLUMNS)}, and the files it names; or files in MODALITY/LABEL/"
    )

    def __init__(self, root: Path, **common: Any) -> None:
        super().__init__(root, **common)
        table = self.root / "samples.csv"
        if not table.exists() and (found := tuple(_tree(self.root))):
            self._rows: tuple[Sample, ...] = found
            return
        if not table.exists() and self.root.is_dir():
            raise DataError(
                f"{table} is missing: expected that table, or files in MODALITY/LABEL/ with one of the modalities "
                f"{', '.join(modalities.names())}"
            )
        good: list[Sample] = []
        problems: list[str] = []
        for line, row in read_rows(table, COLUMNS, OPTIONAL):
            row["label"] = clean(row["label"])
            problem = _problem(row)
            if problem:
                problems.append(f"line {line}: {problem}")
            else:
                scale = row.pop("scale")
                path = row["path"] if not scale else "{}#scale={},{}".format(row["path"], *parse_scale(scale))
                good.append(Sample(**{**row, "path": path, "group": row["group"] or row["id"]}))
        self._rows = accept(table, good, problems)

    def samples(self, *, split: str | None = None, modality: str | None = None) -> list[Sample]:
        """All samples in the order of the table, or those of one split and modality."""
        return list(super().samples(split=split, modality=modality))

    def write(self, samples: Iterable[Sample], path: Path) -> None:
        """Writes a table of samples, for example with another split."""
        with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, (*COLUMNS, *OPTIONAL), lineterminator="\n")
            writer.writeheader()
            writer.writerows(dataclasses.asdict(sample) for sample in samples)

    def _scan(self) -> Iterator[Sample]:
        return iter(self._rows)


def _tree(root: Path) -> Iterator[Sample]:
    """Files in ``MODALITY/LABEL/`` and ``MODALITY/LABEL/GROUP/``, hidden ones left out."""
    for modality in modalities.names():
        if not (root / modality).is_dir():
            continue
        for path in sorted((root / modality).rglob("*")):
            place = path.relative_to(root)
            if len(place.parts) > 2 and path.is_file() and not any(part.startswith(".") for part in place.parts):
                name = place.as_posix()
                group = "/".join(place.parts[:3])  # the file itself where there is no further folder
                yield Sample(name, modality, FolderSource.name, name, place.parts[1], "train", group)


def _problem(row: dict[str, str]) -> str:
    """What is wrong with a row, or nothing."""
    empty = [column for column in COLUMNS if column != "group" and not row[column]]
    if empty:
        return f"{', '.join(empty)} is empty"
    if row["modality"] not in modalities.names():
        return modalities.unknown(row["modality"])
    if row["split"] not in SPLITS:
        return f"unknown split '{row['split']}', expected one of {', '.join(SPLITS)}"
    if problem := leads_out(row["path"]):
        return problem
    return _scale_problem(row["scale"], row["modality"]) if row["scale"] else ""


def _scale_problem(text: str, modality: str) -> str:
    if not isinstance(modalities.get(modality), Measuring):
        return f"scale '{text}', but values of {modality} have none"
    try:
        parse_scale(text)
    except ValueError as error:
        return f"scale {error}"
    return ""
