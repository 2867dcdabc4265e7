"""LLVIP: registered visible and thermal pictures of streets at night, cut to persons and background."""

from __future__ import annotations

import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.samples import Box, Sample
from omnibind_core.data.sources.base import Source, file_names, register
from omnibind_core.data.sources.base.tables import refuse
from omnibind_core.errors import DataError

_FOLDERS = {"thermal": "infrared", "image": "visible"}
_MIN_SIDE = 10  # pixels; boxes with a side of that or less are dropped (CodeBind, datasets/llvip.py)
_TRIES = 200  # places tried for a background box


@register
class Llvip(Source):
    """Crops of persons and as many of background, each seen by both cameras.

    ImageBind's protocol for classifying LLVIP: every annotated person, and for each one a random box of the same size
    in the same picture that overlaps no person. Boxes with a side of 10 pixels or less are dropped; in a crowd where no
    free place is found there is no background box. The random boxes depend on ``seed`` and the picture only.

    Pictures of one place stand in one group: the first two digits of a picture's number are the place's. The official
    split keeps places apart.

    Args:
        root: Folder that holds ``Annotations``, ``infrared`` and ``visible``.
        common: Options of :class:`Source`; ``val_share`` draws whole places, and there are few.
    """

    name: ClassVar[str] = "llvip"
    title: ClassVar[str] = "LLVIP"
    licence: ClassVar[str] = "non-commercial (LLVIP terms of use and licence)"
    citation: ClassVar[str] = (
        "Jia, Zhu, Li, Tang, Zhou: LLVIP: A Visible-infrared Paired Dataset for Low-light Vision. ICCV Workshops 2021, "
        "pages 3496-3504"
    )
    homepage: ClassVar[str] = "https://bupt-ai-cz.github.io/LLVIP/"
    modalities: ClassVar[tuple[str, ...]] = ("image", "thermal")
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    layout: ClassVar[str] = "Annotations/*.xml (VOC), infrared/{train,test}/*.jpg and visible/{train,test}/*.jpg"

    def __init__(self, root: Path, **common: Any) -> None:
        super().__init__(root, **common)
        self._find("Annotations")
        self._pictures: dict[str, list[str]] = {}
        for split in self.splits:
            listed = [set(file_names(self._find(f"{folder}/{split}"), ".jpg")) for folder in _FOLDERS.values()]
            self._pictures[split] = sorted(set.union(*listed))
        if not any(self._pictures.values()):
            raise DataError(f"{self.root} holds no pictures: {self.title} is expected as {self.layout}")

    def _scan(self) -> Iterator[Sample]:
        for split, names in self._pictures.items():
            for name in names:
                stem = name.removesuffix(".jpg")
                persons, size = self._boxes(stem)
                kept = [box for box in persons if min(box[2:]) > _MIN_SIDE]
                rng = np.random.default_rng([self.seed, zlib.crc32(stem.encode())])
                background = [free for box in kept if (free := free_box(box, persons, size, rng)) is not None]
                for modality, folder in _FOLDERS.items():
                    for label, boxes in (("person", kept), ("background", background)):
                        for number, box in enumerate(boxes):
                            what = f"{stem}/{label}{number}"
                            yield Sample(
                                f"{modality}/{what}",
                                modality,
                                self.name,
                                f"{folder}/{split}/{name}#{','.join(map(str, box))}",
                                label,
                                split,
                                f"llvip/place{stem[:2]}",
                                f"llvip/{what}",
                            )

    def _boxes(self, stem: str) -> tuple[list[Box], tuple[int, int]]:
        folder = self.root / "Annotations"
        try:
            return read_boxes(folder / f"{stem}.xml")
        except DataError:
            pass
        stems = [name.removesuffix(".jpg") for names in self._pictures.values() for name in names]
        problems = []
        for other in stems:
            try:
                read_boxes(folder / f"{other}.xml")
            except DataError as error:
                problems.append(str(error))
        refuse(folder, problems, len(stems) - len(problems), "annotations")

    def _labels(self) -> tuple[str, ...]:
        return "person", "background"

    def _notes(self) -> Iterator[str]:
        for split, names in self._pictures.items():
            for folder in _FOLDERS.values():
                lacking = sorted(set(names).difference(file_names(self.root / folder / split, ".jpg")))
                if lacking:
                    yield f"{len(lacking)} of {len(names)} pictures of {split} are not in {folder}: {lacking[0]} ..."


def read_boxes(path: Path) -> tuple[list[Box], tuple[int, int]]:
    """The persons of a VOC annotation, cut to the picture, and the picture's width and height in pixels.

    Raises:
        DataError: The file is missing or no such annotation.
    """
    try:
        root = ET.parse(path).getroot()
        width, height = (int(_text(root, f"size/{side}")) for side in ("width", "height"))
        boxes = []
        for thing in root.iter("object"):
            if _text(thing, "name") == "person":
                sides = [round(float(_text(thing, f"bndbox/{side}"))) for side in ("xmin", "ymin", "xmax", "ymax")]
                left, right = (min(max(side, 0), width) for side in sides[::2])
                top, bottom = (min(max(side, 0), height) for side in sides[1::2])
                boxes.append((left, top, right - left, bottom - top))
    except (OSError, ET.ParseError, ValueError) as error:
        raise DataError(f"{path.name}: expected a VOC annotation with size and object/bndbox ({error})") from error
    return boxes, (width, height)


def _text(element: ET.Element, tag: str) -> str:
    text = element.findtext(tag)
    if text is None:
        raise ValueError(f"it has no '{tag}'")
    return text


def free_box(box: Box, taken: Sequence[Box], size: tuple[int, int], rng: np.random.Generator) -> Box | None:
    """A box of the same size at a random place of the picture that overlaps none of those taken, if one is found.

    Args:
        box: Gives the size.
        taken: Boxes not to overlap.
        size: Width and height of the picture.
        rng: Source of randomness; the same number of draws is made in any case.
    """
    width, height = box[2:]
    left = rng.integers(size[0] - width, endpoint=True, size=(_TRIES, 1))
    top = rng.integers(size[1] - height, endpoint=True, size=(_TRIES, 1))
    x, y, w, h = np.array(taken, np.int64).reshape(-1, 4).T
    overlaps: NDArray[np.bool_] = (left < x + w) & (x < left + width) & (top < y + h) & (y < top + height)
    free = np.flatnonzero(~overlaps.any(axis=1))
    return (int(left[free[0], 0]), int(top[free[0], 0]), width, height) if len(free) else None
