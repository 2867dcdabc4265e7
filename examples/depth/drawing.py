"""A depth picture as a picture for people."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.drawing import Picture, coloured

from .processing import nearness


def draw(raw: NDArray[Any]) -> Picture:
    """Metres ``float32 [H, W]`` in colours from red (near) to blue (far); what was not measured is black."""
    measured = raw > 0
    picture = coloured(nearness(raw, measured), cv2.COLORMAP_TURBO)
    return np.where(measured[:, :, None], picture, np.uint8(0))
