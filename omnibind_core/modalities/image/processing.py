"""Camera picture to encoder input."""

from __future__ import annotations

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


def process(raw: NDArray[np.uint8], preset: PicturePreset) -> NDArray[np.uint8]:
    """RGB ``uint8 [H, W, 3]`` to ``uint8 [1, 3, 224, 224]``."""
    return fit_picture(raw, preset)
