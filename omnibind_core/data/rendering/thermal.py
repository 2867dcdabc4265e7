"""What a thermal camera would see of an object of an assumed temperature."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

AMBIENT = 21.0  # degrees Celsius, a heated room
NOISE = 0.05  # degrees Celsius; noise-equivalent temperature difference of common uncooled cameras


def render(
    outline: NDArray[np.uint8],
    photo: NDArray[np.uint8],
    temperature: float,
    rng: np.random.Generator,
    size: tuple[int, int] = (160, 120),
    texture: float = 0.25,
) -> NDArray[np.float32]:
    """Draws the temperature map of one object in front of a wall at :data:`AMBIENT`.

    Warm towards its middle, cooler at its rim (it loses heat there), with a little of the photograph's texture, since
    emissivity and absorption go with the material.

    Args:
        outline: ``uint8 [H, W]``, opacity of the object.
        photo: ``uint8 [H, W, 3]`` (RGB), the same object.
        temperature: Of its middle, degrees Celsius.
        rng: Source of the noise.
        size: Width and height of the camera, pixels.
        texture: Share of the temperature difference that follows the photograph's brightness, 0..1.

    Returns:
        ``float32 [height, width]``, degrees Celsius.
    """
    width, height = size
    scale = min(width / outline.shape[1], height / outline.shape[0]) * 0.9
    move = np.array(
        [
            [scale, 0, (width - scale * outline.shape[1]) / 2],
            [0, scale, (height - scale * outline.shape[0]) / 2],
        ]
    )
    opacity = cv2.warpAffine(outline, move, size, flags=cv2.INTER_AREA).astype(np.float32) / 255
    grey = cv2.warpAffine(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), move, size, flags=cv2.INTER_AREA)
    solid = (opacity > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(np.pad(solid, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    core = depth / max(float(depth.max()), 1.0)
    inside = grey[solid > 0].astype(np.float32)
    look = (grey - inside.mean()) / (inside.std() + 1e-3) if inside.size else np.zeros_like(opacity)
    warmth = 0.75 + 0.25 * np.sqrt(core) + texture * np.clip(look, -1, 1) * 0.5
    scene = AMBIENT + (temperature - AMBIENT) * np.where(solid > 0, warmth, 0) * opacity
    blurred: NDArray[Any] = cv2.GaussianBlur(np.asarray(scene, np.float32), (0, 0), 0.8)
    noisy: NDArray[np.float32] = blurred + rng.normal(0, NOISE, blurred.shape).astype(np.float32)
    return noisy
