"""Depth picture to encoder input: a picture that an encoder of photographs can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import PicturePreset
from omnibind_core.modalities.pictures import fit_picture

_SMOOTHING = 1.5  # pixels; slopes of unsmoothed depth are mostly noise
_PERCENTILES = (1.0, 99.0)  # a flying pixel must not set the contrast


@dataclass(frozen=True)
class DepthPreset(PicturePreset):
    """A depth preset. Both show the part of the picture that was measured; what was not is black.

    Attributes:
        style: ``"normals"`` (direction of the surface as colour) or ``"near"`` (grey, near is bright).
    """

    fit: str = "letterbox"
    style: str = "normals"


PRESETS = {style: DepthPreset(style, style=style) for style in ("normals", "near")}


def process(raw: NDArray[Any], preset: DepthPreset) -> NDArray[Any]:
    """Metres ``float32 [H, W]`` to ``uint8 [1, 3, size, size]``."""
    measured = raw > 0
    rows, columns = np.flatnonzero(measured.any(axis=1)), np.flatnonzero(measured.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    depth, measured = raw[part], measured[part]
    picture = nearness(depth, measured) if preset.style == "near" else surface_normals(depth, measured)
    return fit_picture(picture, preset)


def nearness(depth: NDArray[Any], measured: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Farthest to nearest measured pixel as 55..255, not measured 0; ``uint8 [H, W]``."""
    near, far = np.percentile(depth[measured], _PERCENTILES)
    scale = 200 / max(far - near, 1e-3)
    grey = np.clip(255.5 - (depth - near) * scale, 55, 255)
    return np.where(measured, grey, 0).astype(np.uint8)


def surface_normals(depth: NDArray[Any], measured: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Direction of the surface as colour, right, down and towards the camera as red, green, blue; ``uint8 [H, W, 3]``.

    The focal length is taken to be the width of the picture (a field of view of 53 degrees): pictures carry none.
    """
    weight = cv2.GaussianBlur(measured.astype(np.float32), (0, 0), _SMOOTHING)
    smooth = cv2.GaussianBlur(depth, (0, 0), _SMOOTHING) / np.maximum(weight, 1e-6)  # 0 adds nothing where not measured
    scale = depth.shape[1] / np.maximum(smooth, 1e-3)
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) * scale for dx in (1, 0))
    normals = np.stack([x, y, np.ones_like(x)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(measured[:, :, None], 127.5 * normals + 128, 0).astype(np.uint8)
