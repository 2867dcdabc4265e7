"""The radar modality: the sparse points that an automotive or mmWave radar detects."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Corruptions, Modality, Role
from omnibind_core.modalities.base import readable_file
from omnibind_core.modalities.drawing import Picture
from omnibind_core.modalities.pictures import read_array

from . import corruption, drawing, processing
from .processing import Points, RadarPreset

MIN_POINTS = 3  # a pedestrian far away has no more
_EXPECTED = f"numbers [N, 4 or 5] (x, y, z, radial velocity, strength) with at least {MIN_POINTS} finite points"


class Radar(Modality[Points, RadarPreset]):
    """Radar points.

    Raw form: ``float32 [N, 5]``: x (forward), y (left), z (up) in metres, radial velocity in m/s (away from the sensor
    is positive), strength of the echo in dB (0 where the sensor gives none).
    """

    name: ClassVar[str] = "radar"
    role: ClassVar[Role] = Role.STUDENT
    topics: ClassVar[str] = "radar|mmwave"
    topic_ending: ClassVar[str] = "points"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    presets: ClassVar[dict[str, RadarPreset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[Points]] = corruption.CORRUPTIONS

    def check(self, raw: NDArray[np.float32], source: str) -> Points:
        """Accepts any integer or float ``[N, 4]`` or ``[N, 5]``; points with NaN or infinity are dropped."""
        if not isinstance(raw, np.ndarray) or raw.dtype.kind not in "uif":
            found = f"dtype {raw.dtype}" if isinstance(raw, np.ndarray) else type(raw).__name__
            raise InvalidInputError(source, found, _EXPECTED)
        if raw.ndim != 2 or raw.shape[1] not in (4, 5):
            raise InvalidInputError(source, f"shape {list(raw.shape)}", _EXPECTED)
        points = np.zeros((len(raw), 5), np.float32)
        with np.errstate(over="ignore"):  # beyond float32 becomes inf, which is dropped below
            points[:, : raw.shape[1]] = raw
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) < MIN_POINTS:
            raise InvalidInputError(source, f"{len(raw)} points, {len(points)} of them finite", _EXPECTED)
        return points

    def load(self, path: Path) -> Points:
        """Reads a ``.npy`` array."""
        readable_file(path, self.suffixes, "a file of radar points")
        return self.check(read_array(path, "radar points"), str(path))

    def process(self, raw: Points, preset: RadarPreset) -> NDArray[np.uint8]:
        """Radar points to ``uint8 [1, 3, 224, 224]``."""
        return processing.process(raw, preset)

    def augment(self, raw: Points, rng: np.random.Generator) -> Points:
        """Another bearing, fewer points, noise."""
        return corruption.augment(raw, rng)

    def noise_only(self, raw: Points, rng: np.random.Generator) -> Points:
        """As many points, each value anywhere between its lowest and highest."""
        return corruption.noise_only(raw, rng)

    def draw(self, raw: Points, height: int = 240) -> Picture:
        """From above, the sensor at the lower edge."""
        return drawing.draw(raw, height)


MODALITY = Radar()
