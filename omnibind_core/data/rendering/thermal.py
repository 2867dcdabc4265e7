"""What a thermal camera would see of an object of an assumed temperature."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

AMBIENT = 21.0  # degrees Celsius, a heated room
NOISE = 0.05  # degrees Celsius; noise-equivalent temperature difference of common uncooled cameras
COLUMN_NOISE = 0.03  # the same for what a whole column of their elements is off by
FLOOR = -1.0  # degrees Celsius by which the floor at the bottom of the picture differs from the wall
# Degrees Celsius by which parts of a thing that is as warm as the room differ: emissivity and what they reflect.
REFLECTIONS = 0.4


def render(
    outline: NDArray[np.uint8],
    photo: NDArray[np.uint8],
    temperature: float,
    rng: np.random.Generator,
    size: tuple[int, int] = (160, 120),
    texture: float = 0.25,
) -> NDArray[np.float32]:
    """Draws the temperature map of one object in a room at :data:`AMBIENT`, as framed in the photograph.

    A warm thing is warm towards its middle, cooler at its rim (it loses heat there), with a little of the photograph's
    texture: what is dark insulates less, or absorbs more. One as warm as the room is seen only by :data:`REFLECTIONS`.

    Args:
        outline: ``uint8 [H, W]``, opacity of the object.
        photo: ``uint8 [H, W, 3]`` (RGB), the same object at the same place.
        temperature: Of its middle, degrees Celsius.
        rng: Source of the noise.
        size: Width and height of the camera, pixels.
        texture: Share of the temperature difference that follows the photograph's brightness, 0..1.

    Returns:
        ``float32 [height, width]``, degrees Celsius.
    """
    width, height = size
    scale = min(width / outline.shape[1], height / outline.shape[0])
    shift = (width - scale * outline.shape[1]) / 2, (height - scale * outline.shape[0]) / 2
    move = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    opacity = cv2.warpAffine(outline, move, size, flags=cv2.INTER_AREA).astype(np.float32) / 255
    grey = cv2.warpAffine(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), move, size, flags=cv2.INTER_AREA)
    solid = (opacity > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(np.pad(solid, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    core = depth / max(float(depth.max()), 1.0)
    inside = grey[solid > 0].astype(np.float32)
    look = (inside.mean() - grey) / (inside.std() + 1e-3) if inside.size else np.zeros_like(opacity)
    look = np.clip(look, -1, 1) * 0.5
    room = AMBIENT + FLOOR * np.linspace(-1, 1, height, dtype=np.float32).clip(0)[:, None]
    thing = AMBIENT + (temperature - AMBIENT) * (0.75 + 0.25 * np.sqrt(core) + texture * look) + REFLECTIONS * look
    scene = room + (thing - room) * opacity
    blurred: NDArray[Any] = cv2.GaussianBlur(np.asarray(scene, np.float32), (0, 0), 0.8)
    columns = rng.normal(0, COLUMN_NOISE, width).astype(np.float32)
    noisy: NDArray[np.float32] = blurred + columns + rng.normal(0, NOISE, blurred.shape).astype(np.float32)
    return noisy
