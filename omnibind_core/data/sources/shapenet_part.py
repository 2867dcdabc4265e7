"""ShapeNet-part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.config import from_json
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source, file_names, register, shorten, words
from omnibind_core.data.sources.base.tables import accept, read_lines, refuse
from omnibind_core.errors import DataError, InvalidInputError
from omnibind_core.modalities.base import readable_file

_CATEGORIES = "synsetoffset2category.txt"
_COLUMNS = 7  # x y z nx ny nz part


@register
class ShapeNetPart(Source):
    """Points sampled on 16,881 CAD models of 16 kinds of things, with the official train, val and test lists.

    The published models stand on the x-z plane with y up; :meth:`load` turns them so that z is up, as everywhere here.
    Normals and part labels are not used.
    """

    name: ClassVar[str] = "shapenet_part"
    title: ClassVar[str] = "ShapeNet-part (with normals)"
    licence: ClassVar[str] = "non-commercial research and education (ShapeNet terms of use)"
    citation: ClassVar[str] = (
        "Yi, Kim, Ceylan, Shen, Yan, Su, Lu, Huang, Sheffer, Guibas: A Scalable Active Framework for Region Annotation "
        "in 3D Shape Collections. ACM Transactions on Graphics 35(6), SIGGRAPH Asia 2016"
    )
    homepage: ClassVar[str] = "https://shapenet.org"
    modalities: ClassVar[tuple[str, ...]] = ("point_cloud",)
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    layout: ClassVar[str] = (
        f"{_CATEGORIES}, <offset>/*.txt (x y z nx ny nz part) and "
        "train_test_split/shuffled_{train,val,test}_file_list.json"
    )

    def __init__(self, root: Path, **common: Any) -> None:
        super().__init__(root, **common)
        self._categories = self._read_categories()
        samples: list[Sample] = []
        problems: list[str] = []
        for split in self.splits:
            for number, entry in enumerate(self._read_list(split), 1):
                parts = entry.split("/")  # shape_data/02691156/1021a0914a7207aff927ed529ad90a11
                if len(parts) != 3 or parts[1] not in self._categories:
                    problems.append(f"{split} entry {number}: '{entry}', expected shape_data/<offset>/<model>")
                    continue
                path = f"{parts[1]}/{parts[2]}"
                label = self._categories[parts[1]]
                samples.append(
                    Sample(path, "point_cloud", self.name, f"{path}.txt", label, split, f"shapenet/{path}", "")
                )
        self._samples = accept(self.root / "train_test_split", samples, problems)

    def _read_categories(self) -> dict[str, str]:
        path = self._find(_CATEGORIES)
        lines = list(read_lines(path))
        rows = [line.split() for line in lines]
        wrong = [
            f"line {n}: '{line}'" for n, (line, row) in enumerate(zip(lines, rows, strict=True), 1) if len(row) != 2
        ]
        if wrong or not rows:
            refuse(path, wrong or ["no lines"], len(rows) - len(wrong), "lines '<name> <offset>'")
        return {offset: words(name) for name, offset in rows}

    def _read_list(self, split: str) -> list[str]:
        path = self._find(f"train_test_split/shuffled_{split}_file_list.json")
        try:
            entries = from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no JSON list: {error}") from error
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise DataError(f"{path} is no JSON list of names such as shape_data/<offset>/<model>")
        return entries

    def _scan(self) -> Iterator[Sample]:
        return iter(self._samples)

    def _labels(self) -> list[str]:
        return list(self._categories.values())

    def _notes(self) -> Iterator[str]:
        listed = {sample.path for sample in self._samples}
        loose = [
            path
            for offset in self._categories
            if (self.root / offset).is_dir()
            for name in file_names(self.root / offset, ".txt")
            if (path := f"{offset}/{name}") not in listed
        ]
        if loose:
            yield f"{len(loose)} files are in no split and left out: {shorten(loose)}"

    def _read(self, sample: Sample) -> NDArray[np.float32]:
        path = self.path(sample)
        expected = f"lines of {_COLUMNS} numbers: x y z nx ny nz part"
        readable_file(path, (".txt",), expected)
        try:
            rows: NDArray[Any] = np.loadtxt(path, np.float32, ndmin=2)
        except (ValueError, OSError) as error:
            raise InvalidInputError(str(path), f"a file that cannot be read ({error})", expected) from error
        if rows.shape[1] != _COLUMNS:
            raise InvalidInputError(str(path), f"lines of {rows.shape[1]} numbers", expected)
        x, y, z = rows[:, :3].T
        points: NDArray[np.float32] = modalities.get("point_cloud").check(np.stack([x, -z, y], axis=1), str(path))
        return points
