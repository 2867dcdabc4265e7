"""UrbanSound8K."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source, register, words
from omnibind_core.data.sources.base.folds import split_of_folds
from omnibind_core.data.sources.base.tables import accept, read_rows

_FOLDS = 10
_COLUMNS = ("slice_file_name", "fsID", "fold", "classID", "class")


@register
class UrbanSound8K(Source):
    """8,732 sounds of a city of up to 4 s in ten classes, in ten folds; slices of one recording are in one fold.

    Args:
        root: Folder that holds ``metadata`` and ``audio``.
        val_folds: Folds for validation.
        test_folds: Folds for testing. The published protocol tests on each fold in turn; other splits are not
            comparable with it, and reshuffling puts slices of one recording on both sides.
        common: Options of :class:`Source`.
    """

    name: ClassVar[str] = "urbansound8k"
    title: ClassVar[str] = "UrbanSound8K"
    licence: ClassVar[str] = "CC BY-NC 3.0"
    citation: ClassVar[str] = (
        "Salamon, Jacoby, Bello: A Dataset and Taxonomy for Urban Sound Research. ACM Multimedia 2014"
    )
    homepage: ClassVar[str] = "https://urbansounddataset.weebly.com/urbansound8k.html"
    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    layout: ClassVar[str] = "metadata/UrbanSound8K.csv and audio/fold1 to audio/fold10 with *.wav"

    def __init__(
        self,
        root: Path,
        *,
        val_folds: Sequence[int] = (9,),
        test_folds: Sequence[int] = (10,),
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        split_of = split_of_folds(self.name, _FOLDS, val_folds, test_folds)
        table = self._find("metadata/UrbanSound8K.csv")
        self._find("audio")
        samples, problems = [], []
        for line, row in read_rows(table, _COLUMNS):
            name = row["slice_file_name"]
            if row["fold"] not in split_of:
                problems.append(f"line {line}: fold '{row['fold']}', expected 1 to {_FOLDS}")
            elif not (name and row["class"] and row["fsID"]):
                problems.append(f"line {line}: slice_file_name, class or fsID is empty")
            else:
                samples.append(
                    Sample(
                        name.removesuffix(".wav"),
                        "audio",
                        self.name,
                        f"audio/fold{row['fold']}/{name}",
                        words(row["class"]),
                        split_of[row["fold"]],
                        f"freesound/{row['fsID']}",
                    )
                )
        self._samples = accept(table, samples, problems)

    def _scan(self) -> Iterator[Sample]:
        return iter(self._samples)
