"""N-Caltech101: Caltech-101's photographs before a moving event camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from omnibind_core import modalities
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source, file_names, register, subfolders, words
from omnibind_core.data.sources.base.tables import read_lines, refuse
from omnibind_core.data.sources.caltech101 import BACKGROUND, photograph, training_names
from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.modalities import Events
from omnibind_core.modalities.base import readable_file
from omnibind_core.modalities.pictures import read_array

_EST = {"training": "train", "validation": "val", "testing": "test"}
_SPLITS = ("auto", "every_5th", "lists", "caltech101")
_LISTS = {"train": "Caltech101_train.txt", "val": "Caltech101_val.txt"}
_WIDTH, _HEIGHT = 240, 180  # of the ATIS


@register
class NCaltech101(Source):
    """Events of an ATIS camera that moved three times before a screen with Caltech-101's photographs, 0.3 s each.

    There is no official split. ``split`` chooses:

    * ``auto``: the folders ``training, validation, testing`` of the EST authors' copy (``.npy``) where they are, else
      ``every_5th``;
    * ``every_5th``: EventBind's rule, every fifth file is ``val``, here over sorted names. EventBind itself took the
      order of its file system, which only its lists give back;
    * ``lists``: EventBind's ``Caltech101_train.txt`` and ``Caltech101_val.txt``, put into the folder; files that they
      do not name are left out;
    * ``caltech101``: as :class:`~omnibind_core.data.sources.caltech101.Caltech101` draws it with the same
      ``train_per_class`` and ``seed``, so that events and photographs can be combined without a leak.
    """

    name: ClassVar[str] = "n_caltech101"
    title: ClassVar[str] = "N-Caltech101"
    licence: ClassVar[str] = "Creative Commons; the terms stand on its Mendeley Data record cy6cvx3ryv"
    citation: ClassVar[str] = (
        "Orchard, Jayawant, Cohen, Thakor: Converting Static Image Datasets to Spiking Neuromorphic Datasets Using "
        "Saccades. Frontiers in Neuroscience 9:437, 2015"
    )
    homepage: ClassVar[str] = "https://www.garrickorchard.com/datasets/n-caltech101"
    modalities: ClassVar[tuple[str, ...]] = ("event",)
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    layout: ClassVar[str] = (
        "Caltech101/<class>/image_0001.bin (ATIS), or the EST authors' {training,validation,testing}/<class>/*.npy"
    )

    def __init__(
        self,
        root: Path,
        *,
        split: str = "auto",
        train_per_class: int = 30,
        background: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        self._split = self._choice("split", split, _SPLITS)
        self._train_per_class = train_per_class
        self._background = background
        self._is_est = split == "auto" and (self.root / "training").is_dir()
        if self._is_est:
            return
        self._base = "" if self.root.name == "Caltech101" else "Caltech101/"
        folder = self.root if not self._base else self._find("Caltech101")
        if not subfolders(folder):
            raise DataError(f"{folder} holds no class folders: {self.title} is expected as {self.layout}")
        self._listed_in = self._read_lists() if split == "lists" else {}

    def _scan(self) -> Iterator[Sample]:
        if self._is_est:
            for subset, split in _EST.items():
                for folder in self._classes(subset):
                    for name in file_names(self.root / subset / folder, ".npy"):
                        yield self._sample(f"{subset}/", folder, name, split)
            return
        if self._split == "lists":  # also files that are not there
            for key, split in self._listed_in.items():
                folder, name = key.split("/")
                if self._background or folder != BACKGROUND:
                    yield self._sample(self._base, folder, name, split)
            return
        count = 0
        for folder in self._classes(self._base):
            names = file_names(self.root / self._base / folder, ".bin")
            drawn = training_names(folder, names, self._train_per_class, self.seed)
            for name in names:
                count += 1
                if self._split == "caltech101":
                    split = "train" if name in drawn else "test"
                else:
                    split = "train" if count % 5 else "val"
                yield self._sample(self._base, folder, name, split)

    def _classes(self, base: str) -> list[str]:
        if not (self.root / base).is_dir():
            return []
        return [path.name for path in subfolders(self.root / base) if self._background or path.name != BACKGROUND]

    def _labels(self) -> list[str]:
        return [words(name) for base in (_EST if self._is_est else (self._base,)) for name in self._classes(base)]

    def _sample(self, base: str, folder: str, name: str, split: str) -> Sample:
        stem = name.rpartition(".")[0]
        is_numbered = stem.startswith("image_")  # as the photograph; other copies are named otherwise
        return Sample(
            f"{base if self._is_est else ''}{folder}/{stem}",
            "event",
            self.name,
            f"{base}{folder}/{name}",
            words(folder),
            split,
            photograph(folder, name) if is_numbered else f"n_caltech101/{folder}/{stem}",
            f"caltech101/{folder}/{stem}" if is_numbered else "",
        )

    def _read_lists(self) -> dict[str, str]:
        """Split by ``<class>/<file>``; a line is the event file, a tab and the photograph."""
        found: dict[str, str] = {}
        for split, name in _LISTS.items():
            path = self._find(name)
            lines = list(read_lines(path))
            keys = ["/".join(line.split("\t")[0].split("/")[-2:]) for line in lines]
            problems = [
                f"line {n}: {'occurs twice' if key in found else 'no <class>/<file>.bin'}: '{key}'"
                for n, key in enumerate(keys, 1)
                if key in found or key.count("/") != 1 or not key.endswith(".bin")
            ]
            if problems:
                refuse(path, problems, len(lines) - len(problems), "lines")
            found |= dict.fromkeys(keys, split)
        return found

    def _read(self, sample: Sample) -> Events:
        path = self.path(sample)
        if path.suffix != ".npy":
            return super()._read(sample)
        return _read_est(path)


def _read_est(path: Path) -> Events:
    """Reads ``[N, 4]`` numbers: x, y, t in seconds, polarity -1 or 1 (or 0 or 1)."""
    expected = "finite numbers [N, 4]: x, y, seconds, polarity"
    readable_file(path, (".npy",), expected)
    rows = read_array(path, expected)
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "uif" or not np.isfinite(rows).all():
        raise InvalidInputError(str(path), f"{rows.dtype} {list(rows.shape)}", expected)
    x, y, t, p = rows[np.argsort(rows[:, 2], kind="stable")].T
    stamps = np.rint(t.astype(np.float64) * 1e6).astype(np.int64)
    events = Events(x.astype(np.int64), y.astype(np.int64), stamps, p.astype(np.int8), _WIDTH, _HEIGHT)
    checked: Events = modalities.get("event").check(events, str(path))
    return checked
