"""ESC-50 and its part ESC-10."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source, register, words
from omnibind_core.data.sources.base.folds import split_of_folds
from omnibind_core.data.sources.base.tables import accept, read_rows

_FOLDS = 5
_COLUMNS = ("filename", "fold", "category", "esc10", "src_file")


@register
class Esc50(Source):
    """2,000 sounds of 5 s in 50 classes, in five folds; clips of one recording are in one fold.

    Args:
        root: Folder that holds ``meta`` and ``audio``.
        esc10: Take only the 400 sounds of the ten classes of ESC-10.
        val_folds: Folds for validation.
        test_folds: Folds for testing. The published protocol tests on each fold in turn.
        common: Options of :class:`Source`.
    """

    name: ClassVar[str] = "esc50"
    title: ClassVar[str] = "ESC-50"
    licence: ClassVar[str] = "CC BY-NC 3.0; the part ESC-10 CC BY (the clips' own licences are in its LICENSE)"
    citation: ClassVar[str] = (
        "Piczak: ESC: Dataset for Environmental Sound Classification. ACM Multimedia 2015, pages 1015-1018"
    )
    homepage: ClassVar[str] = "https://github.com/karolpiczak/ESC-50"
    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    layout: ClassVar[str] = "meta/esc50.csv and audio/*.wav"

    def __init__(
        self,
        root: Path,
        *,
        esc10: bool = False,
        val_folds: Sequence[int] = (4,),
        test_folds: Sequence[int] = (5,),
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        split_of = split_of_folds(self.name, _FOLDS, val_folds, test_folds)
        table = self._find("meta/esc50.csv")
        self._find("audio")
        samples, problems = [], []
        for line, row in read_rows(table, _COLUMNS):
            if row["fold"] not in split_of:
                problems.append(f"line {line}: fold '{row['fold']}', expected 1 to {_FOLDS}")
            elif not (row["filename"] and row["category"] and row["src_file"]):
                problems.append(f"line {line}: filename, category or src_file is empty")
            elif row["esc10"] == "True" or not esc10:
                samples.append(
                    Sample(
                        row["filename"].removesuffix(".wav"),
                        "audio",
                        self.name,
                        f"audio/{row['filename']}",
                        words(row["category"]),
                        split_of[row["fold"]],
                        f"freesound/{row['src_file']}",
                    )
                )
        self._samples = accept(table, samples, problems)

    def _scan(self) -> Iterator[Sample]:
        return iter(self._samples)
