"""What speaks against a tactile picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Doubt

_CONTACT = 16 / 255  # of the full scale, between the lowest and the highest value; training and validation data: 61/255
_CONSTANT = 1.0  # of 255, standard deviation of a skin seen by a camera


def doubt(raw: NDArray[Any]) -> Doubt | None:
    """The doubt about a checked picture: a skin that nothing touches says nothing."""
    if raw.ndim == 3:
        spread = float(cv2.meanStdDev(raw)[1].max())
        if spread >= _CONSTANT:
            return None
        return Doubt(
            f"a constant picture, standard deviation {spread:.1f} of 255: does the skin's camera see anything?"
        )
    full = 255.0 if raw.dtype == np.uint8 else 1.0
    low, high, _, _ = cv2.minMaxLoc(raw)
    pressure = (high - low) / full
    if pressure >= _CONTACT:
        return None
    return Doubt(
        f"no contact, pressure differs by {pressure:.1%} of the full scale, expected {_CONTACT:.0%}", empty=True
    )
