"""One sample of a data set: a file, or a part of a picture, of one modality with one label; and what loads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from omnibind_core.labels import clean

Box = tuple[int, int, int, int]
"""Part of a picture: left, top, width, height, in pixels."""

_PART = re.compile(r"(?:#(\d+),(\d+),(\d+),(\d+))?(?:#scale=([^#,]+),([^#,]+))?$")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled item on disk.

    Attributes:
        id: Unique within its source.
        modality: One of :func:`omnibind_core.modalities.names`.
        source: Name of the data set it comes from; labels are compared within and between these.
        path: File, relative to the source's root, with forward slashes. ``#x,y,w,h`` at its end means that part of the
            picture, in pixels from the top left: ``infrared/test/190001.jpg#540,310,62,140``. ``#scale=a,b`` at its end
            brings values to the unit of the modality's raw form: value * a + b.
        label: The data set's own word, as :func:`omnibind_core.labels.clean` leaves it: it is shown everywhere.
        split: ``"train"``, ``"val"`` or ``"test"``.
        group: What must stay together in one split: a recording, a mesh, a scene, a fold. Equal groups of different
            sources are the same thing (N-ImageNet's events were recorded from ImageNet's pictures).
        pair: What was observed, at one moment: samples of different modalities that share it show the same thing. Empty
            if no other sample does.
    """

    id: str
    modality: str
    source: str
    path: str
    label: str
    split: str
    group: str
    pair: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", clean(self.label))

    @property
    def file(self) -> str:
        """The path without the part of the picture and the scale."""
        return _PART.sub("", self.path)

    @property
    def box(self) -> Box | None:
        """Which part of the picture, or None for the whole file."""
        found = _PART.search(self.path)
        if found is None or found[1] is None:
            return None
        left, top, width, height = map(int, found.groups()[:4])
        return left, top, width, height

    @property
    def scale(self) -> tuple[float, float] | None:
        """Factor and offset of the values in the file, or None if they are in the unit of the raw form."""
        found = _PART.search(self.path)
        return None if found is None or found[5] is None else (float(found[5]), float(found[6]))


class Loads(Protocol):
    """What everyone who reads samples needs of where they come from."""

    def path(self, sample: Sample) -> Path:
        """The file that its data are in."""

    def load(self, sample: Sample) -> Any:
        """The checked raw item of a sample."""


@dataclass(frozen=True)
class Changed:
    """The samples of a source, whose raw items a derived class changes as it loads them.

    Attributes:
        source: Has the samples.
    """

    source: Loads

    def path(self, sample: Sample) -> Path:
        """The file of the sample."""
        return self.source.path(sample)
