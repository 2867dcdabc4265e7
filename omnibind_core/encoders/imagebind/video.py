"""Videos as ImageBind sees them: clips of two frames, each cut out at three places; embeddings are averaged."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError

# ImageBind's imagebind/data.py.
CLIPS, CLIP_SECONDS, FRAMES, CROPS, SIDE = 5, 2.0, 2, 3, 224


def video_clips(frames: NDArray[np.uint8], rate: float) -> NDArray[np.uint8]:
    """Cuts a video into the views of :class:`~omnibind_core.encoders.imagebind.model.ImageBindTrunk`.

    Five clips of two seconds, evenly spread; of each the first and the last frame; of these the left, middle and right
    square (or upper, middle and lower). Nothing averages them unasked: pass the number of views to
    :meth:`omnibind_core.encoders.base.EncoderSet.features`.

    Args:
        frames: RGB ``uint8 [T, H, W, 3]``.
        rate: Frames per second.

    Returns:
        ``uint8 [15, 3, 2, 224, 224]``, the crops of a clip one after another.

    Raises:
        InvalidInputError: No frames, another shape or dtype, or a rate that is not positive.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
        raise InvalidInputError("video", f"{frames.dtype} {list(frames.shape)}", "RGB frames uint8 [T, H, W, 3]")
    if not (math.isfinite(rate) and rate > 0):
        raise InvalidInputError("video", f"{rate} frames per second", "a positive number")
    last_start = max(len(frames) / rate - CLIP_SECONDS, 0.0)
    views = []
    for clip in range(CLIPS):
        start = clip * last_start / (CLIPS - 1)
        first = min(math.ceil(start * rate), len(frames) - 1)
        end = min(max(math.ceil((start + CLIP_SECONDS) * rate), first + 1), len(frames))
        chosen = np.linspace(first, end - 1, FRAMES).astype(int)
        views += _crops(np.stack([_fit(frames[index]) for index in chosen]))
    return np.stack(views)


def _fit(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Short side to 224."""
    height, width = frame.shape[:2]
    scale = SIDE / min(height, width)
    size = (max(SIDE, math.floor(width * scale)), max(SIDE, math.floor(height * scale)))
    fitted: NDArray[Any] = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
    return fitted


def _crops(pair: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """``[2, H, W, 3]`` to three times ``[3, 2, 224, 224]``, along the longer side."""
    height, width = pair.shape[1:3]
    spare = max(height, width) - SIDE
    crops = []
    for start in (0, math.ceil(spare / 2), spare):
        part = slice(start, start + SIDE)
        crop = pair[:, part] if height > width else pair[:, :, part]
        crops.append(np.ascontiguousarray(crop.transpose(3, 0, 1, 2)))
    return crops
