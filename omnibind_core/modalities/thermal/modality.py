"""The thermal modality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import SCALING, Corruptions, Role, readable_file, rescaled
from omnibind_core.modalities.drawing import Picture, coloured
from omnibind_core.modalities.objects import as_array, channels_last
from omnibind_core.modalities.pictures import AS_STORED, NEEDS, SUFFIXES, Measuring, check_layout, read_picture
from omnibind_core.modalities.tables import SUFFIXES as TABLES
from omnibind_core.modalities.tables import read_table
from omnibind_core.modalities.thermal import corruption, flir, processing
from omnibind_core.modalities.thermal.processing import ThermalPreset

MAX_INVALID = 0.25  # share of pixels without a finite value up to which they are filled


class Thermal(Measuring[ThermalPreset]):
    """Thermal picture.

    Raw form: ``float32 [H, W]`` (°C, or any unit that grows with temperature), ``uint8`` or ``uint16 [H, W]`` counts,
    or pseudo-colour RGB ``uint8 [H, W, 3]``.
    """

    name: ClassVar[str] = "thermal"
    role: ClassVar[Role] = Role.STUDENT
    is_camera: ClassVar[bool] = True
    topics: ClassVar[str] = "thermal|infrared|lwir|flir|lepton|boson|seek"
    measured: ClassVar[str] = "float32"
    suffixes: ClassVar[tuple[str, ...]] = (*SUFFIXES, ".npy", *TABLES, *flir.SUFFIXES)
    needs: ClassVar[dict[str, str]] = NEEDS
    presets: ClassVar[dict[str, ThermalPreset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[NDArray[Any]]] = corruption.CORRUPTIONS
    units: ClassVar[Mapping[str, str]] = {name: meaning.format(unit="°C") for name, meaning in SCALING.items()}

    def check(self, raw: NDArray[Any], source: str) -> NDArray[Any]:
        """Accepts the raw forms and any other integer or float ``[H, W]``, which becomes ``float32``.

        Colour with three equal channels becomes grey. Up to :data:`MAX_INVALID` of the pixels may be NaN or infinite:
        NaN and -inf become the lowest value, +inf the highest.
        """
        expected = "float or integer [H, W], or pseudo-colour uint8 [H, W, 3]"
        picture = check_layout(raw, source, expected)
        if picture.ndim == 3:
            if picture.dtype != np.uint8:
                raise InvalidInputError(source, f"dtype {picture.dtype} of shape {list(picture.shape)}", expected)
            first = picture[:, :, 0]
            is_grey = np.array_equal(first, picture[:, :, 1]) and np.array_equal(first, picture[:, :, 2])
            return first if is_grey else picture
        if picture.dtype in (np.uint8, np.uint16):
            return picture
        return _fill_invalid(picture.astype(np.float32, copy=False), source)

    def read(self, path: Path) -> NDArray[Any]:
        """Reads a picture file (8 or 16 bit grey, colour, float TIFF), a ``.npy`` array or a table of values as text.

        Of FLIR's radiometric JPEG and the first frame of its sequences: the temperatures.
        """
        what = "a thermal picture"
        readable_file(path, self.suffixes, what)
        suffix = path.suffix.lower()
        celsius = flir.read(path) if suffix in (".jpg", ".jpeg", *flir.SUFFIXES) else None
        if celsius is not None:
            return celsius
        return read_table(path, what) if suffix in TABLES else read_picture(path, self.suffixes, what, AS_STORED)

    def convert(self, given: Any, source: str, **units: Any) -> NDArray[Any]:
        """Accepts what :meth:`check` does, PIL pictures, channels first, and values with ``scale`` and ``offset``."""
        picture = channels_last(as_array(given, source))
        if units and picture.ndim == 3 and picture.shape[2] != 1:
            raise InvalidInputError(
                source, "a picture in colours", "a picture with one value a pixel, which a unit is for"
            )
        scaled = rescaled(picture, units, source)
        return self.check(picture if scaled is None else scaled, source)

    def process(self, raw: NDArray[Any], preset: ThermalPreset) -> NDArray[Any]:
        """Thermal picture to ``[1, *preset.shape]``."""
        return processing.process(raw, preset)

    def augment(self, raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Random crop, mirror and sensor noise."""
        return corruption.augment(raw, rng)

    def draw(self, raw: NDArray[Any], height: int = 240) -> Picture:
        """Temperatures and counts in colours from black (cold) over red to light yellow; pseudo-colour as it is."""
        return raw if raw.ndim == 3 else coloured(processing.stretch_contrast(raw), cv2.COLORMAP_INFERNO)


def _fill_invalid(picture: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    finite = np.isfinite(picture)
    if finite.all():
        return picture
    invalid = 1 - finite.mean()
    if invalid > MAX_INVALID:
        raise InvalidInputError(source, f"{invalid:.0%} of the pixels NaN or infinite", f"at most {MAX_INVALID:.0%}")
    low, high = picture[finite].min(), picture[finite].max()
    return np.nan_to_num(picture, nan=low, neginf=low, posinf=high)


MODALITY = Thermal()
