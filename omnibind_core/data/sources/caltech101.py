"""Caltech-101."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from omnibind_core.data.samples import Sample
from omnibind_core.data.sources.base import Source, file_names, register, subfolders, words
from omnibind_core.errors import ConfigError, DataError

BACKGROUND = "BACKGROUND_Google"
_FACES = {"Faces_easy": "Faces"}  # the same photographs, cut to the face


def photograph(folder: str, name: str) -> str:
    """What names the same photograph in Caltech-101 and N-Caltech101, whole or cut: ``caltech101/Faces/image_0001``."""
    return f"caltech101/{_FACES.get(folder, folder)}/{name.partition('.')[0]}"


def training_names(folder: str, names: Sequence[str], count: int, seed: int) -> Collection[str]:
    """The files of a class that are for training, drawn at random; all of them if ``count`` is 0.

    The draw depends on the numbers of the photographs only: N-Caltech101 and the cut faces fall as their photographs.
    """
    if count == 0:
        return set(names)
    rng = np.random.default_rng([seed, zlib.crc32(_FACES.get(folder, folder).encode())])
    return {names[i] for i in rng.permutation(len(names))[:count]}


@register
class Caltech101(Source):
    """9,144 photographs and drawings of 101 kinds of things and a background class.

    There is no official split; the authors suggest drawing a fixed number per class. Here ``train_per_class``
    photographs of each class (0: all) are for training, the rest for testing, drawn by ``seed``. ``Faces`` and
    ``Faces_easy`` are the same photographs and fall together; other photographs of the same persons may not.

    Args:
        root: Folder that holds ``101_ObjectCategories``, or that folder itself.
        train_per_class: 30 is the common choice.
        background: Whether ``BACKGROUND_Google``, pictures of anything, is taken.
        common: Options of :class:`Source`.
    """

    name: ClassVar[str] = "caltech101"
    title: ClassVar[str] = "Caltech-101"
    licence: ClassVar[str] = "CC BY 4.0 (CaltechDATA record); the photographs are from the web"
    citation: ClassVar[str] = (
        "Fei-Fei, Fergus, Perona: Learning Generative Visual Models from Few Training Examples. CVPR Workshop on "
        "Generative-Model Based Vision, 2004"
    )
    homepage: ClassVar[str] = "https://data.caltech.edu/records/mzrjq-6wc02"
    modalities: ClassVar[tuple[str, ...]] = ("image",)
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    layout: ClassVar[str] = "101_ObjectCategories/<class>/image_0001.jpg"

    def __init__(
        self,
        root: Path,
        *,
        train_per_class: int = 30,
        background: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        if train_per_class < 0:
            raise ConfigError(f"source '{self.name}': train_per_class is {train_per_class}, expected 0 or more")
        self._train_per_class = train_per_class
        inside = "101_ObjectCategories"
        self._base = "" if self.root.name == inside else f"{inside}/"
        folder = self.root if not self._base else self._find(inside)
        self._folders = [path.name for path in subfolders(folder) if background or path.name != BACKGROUND]
        if not self._folders:
            raise DataError(f"{folder} holds no class folders: {self.title} is expected as {self.layout}")

    def _scan(self) -> Iterator[Sample]:
        for folder in self._folders:
            names = file_names(self.root / self._base / folder, ".jpg")
            training = training_names(folder, names, self._train_per_class, self.seed)
            for name in names:
                yield Sample(
                    f"{folder}/{name.removesuffix('.jpg')}",
                    "image",
                    self.name,
                    f"{self._base}{folder}/{name}",
                    words(folder),
                    "train" if name in training else "test",
                    photograph(folder, name),
                    f"caltech101/{folder}/{name.partition('.')[0]}",
                )

    def _labels(self) -> list[str]:
        return [words(folder) for folder in self._folders]
