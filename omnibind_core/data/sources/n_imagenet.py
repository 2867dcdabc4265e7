"""N-ImageNet: ImageNet's photographs before a moving event camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from omnibind_core import modalities
from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source, file_names, register
from omnibind_core.data.sources.base.tables import read_lines, refuse
from omnibind_core.data.sources.imagenet import class_folders, class_names
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Events
from omnibind_core.modalities.archives import check_archive
from omnibind_core.modalities.base import readable_file

_PARTS = {"train": ("extracted_train", "train_list.txt"), "val": ("extracted_val", "val_list.txt")}
_WIDTH, _HEIGHT = 640, 480  # of the camera, a Samsung DVS Gen3 (n_imagenet: SENSOR_W, SENSOR_H)
_FIELDS = (("x", "y", "t", "p"), ("x_pos", "y_pos", "timestamp", "polarity"))  # compressed files, raw files


@register
class NImageNet(Source):
    """Events of a camera that moved before a screen with ImageNet's photographs; the splits are ImageNet's.

    Args:
        root: Folder that holds ``extracted_train`` and ``extracted_val``, or one of them.
        lists: Take the files from ``train_list.txt`` and ``val_list.txt`` where they are, so that missing files are
            noticed; False takes what is there. The lists hold paths of the authors' machine; only the ends of these
            are used.
        common: Options of :class:`Source`.
    """

    name: ClassVar[str] = "n_imagenet"
    title: ClassVar[str] = "N-ImageNet"
    licence: ClassVar[str] = "research; none stated by the authors, ImageNet's terms apply to what it shows"
    citation: ClassVar[str] = (
        "Kim, Bae, Park, Zhang, Kim: N-ImageNet: Towards Robust, Fine-Grained Object Recognition With Event Cameras. "
        "ICCV 2021, pages 2146-2156"
    )
    homepage: ClassVar[str] = "https://github.com/82magnolia/n_imagenet"
    modalities: ClassVar[tuple[str, ...]] = ("event",)
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    layout: ClassVar[str] = "extracted_{train,val}/<wnid>/*.npz, with train_list.txt and val_list.txt beside"

    def __init__(self, root: Path, *, lists: bool = True, **common: Any) -> None:
        super().__init__(root, **common)
        self._lists = lists
        self._find(*(folder for folder, _ in _PARTS.values()))
        self._folders = {
            split: class_folders(self.root / folder)
            for split, (folder, _) in _PARTS.items()
            if (self.root / folder).is_dir()
        }

    def _scan(self) -> Iterator[Sample]:
        for split, folders in self._folders.items():
            base, listing = _PARTS[split]
            if self._lists and (self.root / listing).is_file():
                paths = _read_list(self.root / listing, base)
            else:
                paths = (
                    f"{base}/{wnid}/{name}" for wnid in folders for name in file_names(self.root / base / wnid, ".npz")
                )
            for path in paths:
                _, wnid, name = path.split("/")
                stem = name.removesuffix(".npz")
                picture = f"imagenet/{stem}"
                yield Sample(stem, "event", self.name, path, class_names()[wnid], split, picture, picture)

    def _labels(self) -> list[str]:
        return [class_names()[wnid] for folders in self._folders.values() for wnid in folders]

    def _read(self, sample: Sample) -> Events:
        path = self.path(sample)
        x, y, t, p = _read_fields(path)
        if t.dtype.kind == "u":
            t = t.astype(np.int64)
        if (t[1:] < t[:-1]).any():
            order = np.argsort(t, kind="stable")
            x, y, t, p = x[order], y[order], t[order], p[order]
        events: Events = modalities.get("event").check(Events(x, y, t, p, _WIDTH, _HEIGHT), str(path))
        return events


def _read_list(path: Path, base: str) -> Iterator[str]:
    """Streams paths relative to the data set's folder: the last three parts of each line.

    Raises:
        DataError: At the end, if some of the lines were no such paths.
    """
    problems, fine = [], 0
    for number, line in enumerate(read_lines(path), 1):
        parts = line.replace("\\", "/").split("/")[-3:]
        if len(parts) == 3 and parts[0] == base and parts[1] in class_names() and parts[2].endswith(".npz"):
            fine += 1
            yield "/".join(parts)
        else:
            problems.append(f"line {number}: '{line}', expected .../{base}/<wnid>/<file>.npz")
    if problems:
        refuse(path, problems, fine, "lines")


def _read_fields(path: Path) -> list[Any]:
    """x, y, t in µs and polarity, whichever of the two ways the archive names them."""
    expected = f"an .npz archive with event_data of the fields {', '.join(_FIELDS[0])}"
    check_archive(readable_file(path, (".npz",), expected), expected)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "event_data" in archive:
                rows = archive["event_data"]
                names, found = rows.dtype.names or (), {name: rows[name] for name in rows.dtype.names or ()}
            else:
                names, found = tuple(archive), {name: archive[name] for name in _FIELDS[1] if name in archive}
    except Exception as error:  # a damaged file makes NumPy, zipfile and zlib raise almost anything
        raise InvalidInputError(str(path), f"a file that NumPy cannot read ({error})", expected) from error
    for fields in _FIELDS:
        if all(name in found for name in fields):
            return [found[name] for name in fields]
    raise InvalidInputError(str(path), f"an archive with {', '.join(names) or 'no fields'}", expected)
