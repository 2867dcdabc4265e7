"""Camera picture to encoder input."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import PicturePreset
from omnibind_core.modalities.pictures import fit_picture

PRESETS = {
    preset.name: preset
    for preset in (
        # EfficientNet-Lite: ImageNet evaluation with a centre crop of 0.875.
        PicturePreset("efficientnet", resize=256),
        # CLIP, OpenCLIP and ImageBind: short side to the crop's own size.
        PicturePreset("clip", resize=224),
    )
}


def to_8_bit(picture: NDArray[np.uint16], highest: int | None = None) -> NDArray[np.uint8]:
    """Stretches a 16-bit picture by the range that it really has; full scale becomes 255.

    Cameras of 10, 12 and 14 bits write them as they are, at the dark end of 16. Full scale is that of the fewest bits,
    of 8, 10, 12, 14 and 16, that hold the highest value.

    Args:
        picture: ``uint16``, any shape.
        highest: Highest value of all pictures of the sensor so far; None takes that of this one.
    """
    top = int(picture.max()) if highest is None else highest
    bits = next(bits for bits in (8, 10, 12, 14, 16) if top < 1 << bits)
    scaled: NDArray[np.uint8] = np.asarray(cv2.convertScaleAbs(picture, alpha=255 / ((1 << bits) - 1)))
    return scaled.reshape(picture.shape)


def process(raw: NDArray[np.uint8], preset: PicturePreset) -> NDArray[np.uint8]:
    """RGB ``uint8 [H, W, 3]`` to ``uint8 [1, 3, 224, 224]``."""
    return fit_picture(raw, preset)
