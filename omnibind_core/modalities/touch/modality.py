"""The touch modality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import SCALING, Corruptions, PicturePreset, Role, positive, readable_file, rescaled
from omnibind_core.modalities.drawing import Picture, rgb
from omnibind_core.modalities.objects import as_array, channels_last, light
from omnibind_core.modalities.pictures import AS_STORED, NEEDS, SUFFIXES, Measuring, check_layout, read_picture
from omnibind_core.modalities.tables import SUFFIXES as TABLES
from omnibind_core.modalities.tables import read_table
from omnibind_core.modalities.touch import corruption, processing

_FEW_BITS = 1 << 12  # that 16-bit integers below may be of a sensor with fewer bits
_TOLERANCE = 0.1  # of the full scale: noise and drift around no pressure and around saturation


class Touch(Measuring[PicturePreset]):
    """Tactile picture.

    Raw form: ``uint8 [H, W]`` or RGB ``uint8 [H, W, 3]``, or pressure as ``float32 [H, W]``, a share 0..1 of the
    sensor's full scale.
    """

    name: ClassVar[str] = "touch"
    role: ClassVar[Role] = Role.STUDENT
    topics: ClassVar[str] = r"tactile|touch|gelsight|(?<![a-z])digit(?![a-z])|gsmini|skin|pressure"
    measured: ClassVar[str] = "uint8"
    suffixes: ClassVar[tuple[str, ...]] = (*SUFFIXES, ".npy", *TABLES)
    needs: ClassVar[dict[str, str]] = NEEDS
    presets: ClassVar[dict[str, PicturePreset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[NDArray[Any]]] = corruption.CORRUPTIONS
    units: ClassVar[Mapping[str, str]] = {
        "full_scale": "highest value of the sensor, in the unit of the numbers: 4095, 65535, 40 for 40 kPa, ...",
        **{name: meaning.format(unit="0 (no pressure) to 255 (full scale)") for name, meaning in SCALING.items()},
    }

    def check(self, raw: NDArray[Any], source: str) -> NDArray[Any]:
        """Accepts ``uint8`` grey or colour pictures, ``uint16 [H, W]`` (65535 = full scale) and pressure 0..1."""
        expected = (
            "uint8 [H, W] or [H, W, 3], uint16 [H, W], or pressure float32 [H, W] as 0..1 of the full scale; "
            "kPa or another unit takes a scale, which is 255 / the pressure at full scale"
        )
        picture = check_layout(raw, source, expected)
        if picture.dtype == np.uint8:
            return picture
        if picture.ndim == 3 or picture.dtype.kind == "i" or (picture.dtype.kind == "u" and picture.itemsize != 2):
            raise InvalidInputError(source, f"dtype {picture.dtype} of shape {list(picture.shape)}", expected)
        if picture.dtype == np.uint16:
            return picture.astype(np.float32) / np.float32(65535)
        low, high = float(picture.min()), float(picture.max())
        if not (np.isfinite(low) and np.isfinite(high)):  # NaN passes through min and max
            raise InvalidInputError(source, "pressure that is not finite", expected)
        if low < -_TOLERANCE or high > 1 + _TOLERANCE:
            raise InvalidInputError(source, f"pressure {low:.3g} to {high:.3g}", expected)
        return picture.astype(np.float32, copy=False)

    def read(self, path: Path) -> NDArray[Any]:
        """Reads a picture file, grey as grey, a ``.npy`` array, or a table of pressures as text."""
        what = "a tactile picture"
        readable_file(path, self.suffixes, what)
        is_table = path.suffix.lower() in TABLES
        return read_table(path, what) if is_table else read_picture(path, self.suffixes, what, AS_STORED)

    def convert(self, given: Any, source: str, **units: Any) -> NDArray[Any]:
        """Accepts what :meth:`check` does, PIL pictures, channels first, and pressure of a given ``full_scale`` or
        ``scale`` and ``offset``.

        16-bit integers that would fit into 12 bits need it: whether 65535 is full scale, nothing else tells.
        """
        picture = channels_last(as_array(given, source))
        if picture.ndim == 3 and picture.shape[2] == 1:
            picture = picture[:, :, 0]
        full_scale, scaled = positive(units, "full_scale", source), rescaled(picture, units, source)
        if picture.ndim == 3:
            if units:
                raise InvalidInputError(
                    source, "a picture in colours", "a picture with one value a pixel, which a unit is for"
                )
            return self.check(light(picture, source), source)
        if scaled is not None:
            if full_scale is not None:
                raise InvalidInputError(source, "full_scale and scale", "one of them")
            return self.check(np.clip(scaled / 255, 0, 1), source)
        if picture.dtype.kind not in "uif" or not picture.size or (full_scale is None and picture.dtype == np.uint8):
            return self.check(picture, source)
        high = float(picture.max())
        if full_scale is None:
            few_bits = picture.dtype == np.uint16 and 0 < high < _FEW_BITS
            if few_bits or (picture.dtype != np.uint16 and high > 1 + _TOLERANCE):
                expected = (
                    "pressure on 0..1, or full_scale=, such as 4095 for 12 bits, 65535 for 16, "
                    "or scale=, 255 / the pressure at full scale"
                )
                raise InvalidInputError(source, f"{picture.dtype} up to {high:.4g} of unknown full scale", expected)
            return self.check(picture, source)
        if high > (1 + _TOLERANCE) * full_scale:
            raise InvalidInputError(source, f"values up to {high:.4g}", f"at most full_scale={full_scale:g}")
        return self.check((picture / full_scale).astype(np.float32), source)

    def process(self, raw: NDArray[Any], preset: PicturePreset) -> NDArray[np.uint8]:
        """Tactile picture to ``uint8 [1, 3, 224, 224]``."""
        return processing.process(raw, preset)

    def augment(self, raw: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Another pose and pressure of the contact."""
        return corruption.augment(raw, rng)

    def draw(self, raw: NDArray[Any], height: int = 240) -> Picture:
        """The picture itself; pressure in grey, full scale is white."""
        picture = processing.to_8_bit(raw)
        return rgb(picture) if picture.ndim == 2 else picture


MODALITY = Touch()
