"""The image modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Corruptions, Modality, PicturePreset, Role
from omnibind_core.modalities.drawing import Picture
from omnibind_core.modalities.image import corruption, plausibility, processing
from omnibind_core.modalities.objects import as_array, channels_last, light
from omnibind_core.modalities.pictures import NEEDS, SUFFIXES, check_layout, on_white, read_picture


class Image(Modality[NDArray[np.uint8], PicturePreset]):
    """Colour picture. Raw form: RGB ``uint8 [H, W, 3]``."""

    name: ClassVar[str] = "image"
    role: ClassVar[Role] = Role.TEACHER
    is_camera: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    needs: ClassVar[dict[str, str]] = {**NEEDS, ".tif": "PIL", ".tiff": "PIL"}
    presets: ClassVar[dict[str, PicturePreset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[NDArray[np.uint8]]] = corruption.CORRUPTIONS

    def check(self, raw: NDArray[np.uint8], source: str) -> NDArray[np.uint8]:
        """Accepts ``uint8`` ``[H, W]``, ``[H, W, 1]``, RGB ``[H, W, 3]`` and RGBA ``[H, W, 4]``.

        RGBA is put on white, unless its fourth channel is the same everywhere: drivers leave it at anything.
        """
        expected = "a picture uint8 [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4]"
        picture = check_layout(raw, source, expected)
        if picture.dtype != np.uint8:
            raise InvalidInputError(source, f"dtype {picture.dtype}", expected)
        if picture.ndim == 3 and raw.shape[2] == 4 and (raw[:, :, 3] != raw[0, 0, 3]).any():
            return on_white(raw)
        return np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture

    def load(self, path: Path) -> NDArray[np.uint8]:
        """Reads a picture file, turned upright by its EXIF orientation, on white where it is transparent.

        16 bits by :func:`.processing.to_8_bit`.
        """
        picture = read_picture(path, self.suffixes, "a picture file", cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        return self.check(processing.to_8_bit(picture) if picture.dtype == np.uint16 else picture, str(path))

    def convert(self, given: Any, source: str, **units: Any) -> NDArray[np.uint8]:
        """Accepts what :meth:`check` does, PIL pictures, channels first, floats on 0..1, and integers on 0..255.

        16 bits become 8 as those of files do, unless they look like distances.
        """
        picture = channels_last(as_array(given, source))
        if picture.dtype != np.uint16 or not picture.size:
            return self.check(light(picture, source), source)
        if picture.ndim == 2 and plausibility.depth_doubt(picture) is not None:
            raise InvalidInputError(
                source, "uint16 [H, W] that looks like distances in mm", "a picture of light, or uint8"
            )
        return self.check(processing.to_8_bit(picture), source)

    def process(self, raw: NDArray[np.uint8], preset: PicturePreset) -> NDArray[np.uint8]:
        """RGB picture to ``uint8 [1, 3, 224, 224]``."""
        return processing.process(raw, preset)

    def augment(self, raw: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Random crop, mirror and colour."""
        return corruption.augment(raw, rng)

    def draw(self, raw: NDArray[np.uint8], height: int = 240) -> Picture:
        """The picture itself."""
        return raw


MODALITY = Image()
