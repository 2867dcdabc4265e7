"""The depth modality: what a depth camera measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Corruptions, Modality, Role
from omnibind_core.modalities.drawing import Picture
from omnibind_core.modalities.pictures import check_layout, read_picture

from . import corruption, drawing, processing
from .processing import DepthPreset

MIN_MEASURED = 0.001  # share of pixels below which a picture says nothing
_EXPECTED = "uint16 [H, W] in millimetres or float [H, W] in metres"


class Depth(Modality[NDArray[Any], DepthPreset]):
    """Depth picture.

    Raw form: ``float32 [H, W]``, distance along the optical axis in metres, 0 where nothing was measured.
    """

    name: ClassVar[str] = "depth"
    role: ClassVar[Role] = Role.STUDENT
    is_camera: ClassVar[bool] = True
    topics: ClassVar[str] = "depth"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".tif", ".tiff", ".npy")
    presets: ClassVar[dict[str, DepthPreset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[NDArray[Any]]] = corruption.CORRUPTIONS

    def check(self, raw: NDArray[Any], source: str) -> NDArray[Any]:
        """Accepts ROS's two kinds of depth picture (REP 118): 16-bit millimetres and floating-point metres.

        0, negative, NaN and infinite mean "not measured".
        """
        depth = check_layout(raw, source, _EXPECTED)
        if depth.ndim != 2 or not (depth.dtype.kind == "f" or depth.dtype.str[1:] == "u2"):
            raise InvalidInputError(source, f"dtype {depth.dtype} of shape {list(depth.shape)}", _EXPECTED)
        metres = depth.astype(np.float32)
        if depth.dtype.kind == "u":
            metres *= 1e-3
        metres[~(np.isfinite(metres) & (metres > 0))] = 0
        measured = np.count_nonzero(metres) / metres.size
        if measured < MIN_MEASURED:
            raise InvalidInputError(source, f"{measured:.2%} of the pixels measured", f"at least {MIN_MEASURED:.1%}")
        return metres

    def load(self, path: Path) -> NDArray[Any]:
        """Reads 16-bit PNG or TIFF (millimetres), float TIFF or a ``.npy`` array."""
        return self.check(read_picture(path, self.suffixes, "a depth picture", cv2.IMREAD_UNCHANGED), str(path))

    def process(self, raw: NDArray[Any], preset: DepthPreset) -> NDArray[Any]:
        """Depth picture to ``[1, *preset.shape]``."""
        return processing.process(raw, preset)

    def augment(self, raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Random crop, mirror, distance and noise."""
        return corruption.augment(raw, rng)

    def draw(self, raw: NDArray[Any], height: int = 240) -> Picture:
        """Near is red, far is blue, not measured is black."""
        return drawing.draw(raw)


MODALITY = Depth()
