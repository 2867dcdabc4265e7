"""ImageNet-1K (ILSVRC 2012)."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from omnibind_core import resources
from omnibind_core.config import from_json
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source, file_names, register, subfolders
from omnibind_core.data.sources.base.tables import read_lines, read_rows, refuse
from omnibind_core.errors import DataError
from omnibind_core.optional import require

_CLASSES = resources.path("encoders/lite/imagenet_classes.txt")
# Three pairs of classes have the same first name: a bird and a machine, a dog and a garment, two garments.
_DISTINCT = {"n02113186": "cardigan welsh corgi", "n03126707": "construction crane", "n03710721": "tank suit"}
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_KAGGLE = "ILSVRC/Data/CLS-LOC/"
_SUFFIXES = (".jpeg", ".jpg")
_PATIENCE = 60.0  # s for what takes one
# In a process of its own, since SciPy reads where a damaged file says, unchecked, which may end the process; and within
# so many bytes.
_LOAD = """
import sys
sys.path[:] = filter(None, sys.path)
import contextlib, json
with contextlib.suppress(ImportError, ValueError, OSError):
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
from scipy.io import loadmat
rows = loadmat(sys.argv[1], squeeze_me=True, struct_as_record=True)["synsets"]
print(json.dumps({str(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows if row["num_children"] == 0}))
"""


@functools.cache
def class_names() -> dict[str, str]:
    """First WordNet name of each of the 1000 classes, lower-case, by WordNet id such as ``"n01440764"``."""
    lines = (line.split("\t") for line in _CLASSES.read_text(encoding="utf-8").splitlines())
    return {wnid: _DISTINCT.get(wnid, names.split(", ")[0].lower()) for wnid, names, _ in lines}


def class_folders(folder: Path) -> list[str]:
    """The names of the class folders in a folder.

    Raises:
        DataError: One is not the WordNet id of any of the 1000 classes.
    """
    names = [path.name for path in subfolders(folder)]
    unknown = [f"folder '{name}' is none of the 1000 ImageNet classes" for name in names if name not in class_names()]
    if unknown:
        refuse(folder, unknown, len(names) - len(unknown), "folders")
    return names


@register
class ImageNet(Source):
    """Photographs of 1000 classes; 1,281,167 for training, 50,000 for validation. The test set has no public labels.

    ``val`` may hold class folders, or lie flat as it is published, with the development kit or Kaggle's table beside.
    """

    name: ClassVar[str] = "imagenet"
    title: ClassVar[str] = "ImageNet-1K"
    licence: ClassVar[str] = "non-commercial research and education (ImageNet terms of access)"
    citation: ClassVar[str] = (
        "Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge. International Journal of Computer "
        "Vision 115(3), 2015"
    )
    homepage: ClassVar[str] = "https://image-net.org/download.php"
    modalities: ClassVar[tuple[str, ...]] = ("image",)
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    layout: ClassVar[str] = (
        "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG; or val/*.JPEG with ILSVRC2012_devkit_t12/data/{meta.mat,"
        f"{_TRUTH}}} or Kaggle's LOC_val_solution.csv"
    )

    def __init__(self, root: Path, **common: Any) -> None:
        super().__init__(root, **common)
        self._find("train", "val", _KAGGLE + "train", _KAGGLE + "val")
        self._base = _KAGGLE if (self.root / _KAGGLE).is_dir() else ""
        self._folders = {
            split: class_folders(self.root / self._base / split)
            for split in self.splits
            if (self.root / self._base / split).is_dir()
        }
        self._is_flat = self._folders.get("val") == []
        if self._is_flat:
            self._truth_files()

    def _scan(self) -> Iterator[Sample]:
        for split, folders in self._folders.items():
            for wnid in folders:
                for name in file_names(self.root / self._base / split / wnid, *_SUFFIXES):
                    yield self._sample(f"{split}/{wnid}/{name}", wnid, split)
        if self._is_flat:
            truth = self._truth()
            names = file_names(self.root / self._base / "val", *_SUFFIXES)
            unknown = [f"{name} has no label" for name in names if _stem(name) not in truth]
            if unknown:
                refuse(self.root / self._base / "val", unknown, len(names) - len(unknown), "files")
            for name in names:
                yield self._sample(f"val/{name}", truth[_stem(name)], "val")

    def _labels(self) -> list[str]:
        return [class_names()[wnid] for folders in self._folders.values() for wnid in folders]

    def _sample(self, path: str, wnid: str, split: str) -> Sample:
        stem = _stem(path.rpartition("/")[2])
        picture = f"imagenet/{stem}"
        return Sample(stem, "image", self.name, self._base + path, class_names()[wnid], split, picture, picture)

    def _truth_files(self) -> Path:
        return self._find(f"ILSVRC2012_devkit_t12/data/{_TRUTH}", f"data/{_TRUTH}", _TRUTH, "LOC_val_solution.csv")

    def _truth(self) -> dict[str, str]:
        """WordNet id of every validation picture by its file name without the ending."""
        path = self._truth_files()
        if path.suffix == ".csv":  # "n01978287 240 170 260 240 n01978287 ...": class and box of each object
            columns = ("ImageId", "PredictionString")
            found = {row["ImageId"]: row["PredictionString"].partition(" ")[0] for _, row in read_rows(path, columns)}
        else:
            wnids = _wnids(path.with_name("meta.mat"))
            lines = list(read_lines(path))
            wrong = [f"line {n}: '{line}' is no class id" for n, line in enumerate(lines, 1) if line not in wnids]
            if wrong:
                refuse(path, wrong, len(lines) - len(wrong), "lines")
            found = {f"ILSVRC2012_val_{n:08d}": wnids[line] for n, line in enumerate(lines, 1)}
        unknown = [f"{stem} is of class '{wnid}'" for stem, wnid in found.items() if wnid not in class_names()]
        if unknown:
            refuse(path, unknown, len(found) - len(unknown))
        return found


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _wnids(path: Path) -> dict[str, str]:
    """WordNet id by the development kit's own class number, 1 to 1000, which is in no common order."""
    if not path.is_file():
        raise DataError(f"{path} is missing: the development kit's table of classes is expected beside {_TRUTH}")
    require("scipy.io", "Reading ImageNet's development kit")
    command = [sys.executable, "-c", _LOAD, str(path.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        found = f"SciPy has not read it in {_PATIENCE:g} s"
    else:
        if not done.returncode:
            return dict(from_json(done.stdout))
        lines = done.stderr.split("\n")
        found = next((line for line in reversed(lines) if line.strip()), f"SciPy ends by signal {-done.returncode}")
    raise DataError(f"{path} is not the development kit's table of classes: {found}")
