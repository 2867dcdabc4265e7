"""Photos as other cameras, lights and places would have made them: domain randomisation (Tobin et al. 2017)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.pictures import random_crop
from omnibind_core.modalities.randomising import soft_field

_PLAIN = 12.0  # standard deviation of the border of a picture whose thing stands free, in grey levels


def randomise(raw: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another place, frame, turn, resolution, sharpness and light.

    A thing that stands free gets another background half of the time. The frame keeps a quarter of the picture or more,
    or has a board around it. Down to 32 pixels on the short side, with the artefacts of a JPEG; motion blur; a tenth of
    the light, or too much; grey now and then.
    """
    picture = raw.astype(np.float32)
    if rng.random() < 0.5:
        picture = _other_background(picture, rng)
    picture = _on_board(picture, rng) if rng.random() < 0.3 else random_crop(picture, rng, min_area=0.25)
    if rng.random() < 0.3:
        picture = _turned(picture, rng.uniform(-25, 25))
    height, width = picture.shape[:2]
    if rng.random() < 0.5:
        scale = min(1.0, np.exp(rng.uniform(np.log(32), np.log(160))) / min(height, width))
        size = max(8, round(width * scale)), max(8, round(height * scale))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)
    if rng.random() < 0.3:
        picture = _motion_blur(picture, rng)
    picture = _lit(picture, rng)
    levels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        levels = np.repeat(cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    if rng.random() < 0.5:
        done, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 80))])
        levels = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8) if done else levels
    return np.ascontiguousarray(levels)


def _other_background(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Another background behind a thing that stands free on a plain one; other pictures stay as they are."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    if border.std(axis=0).max() > _PLAIN:
        return picture
    away = np.abs(picture - np.median(border, axis=0)).max(axis=2)
    mask = cv2.morphologyEx((away > 2.5 * _PLAIN).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    share = mask.mean()
    if not 0.03 < share < 0.9:
        return picture
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)[:, :, None]
    return picture * soft + _surface(picture.shape[:2], rng) * (1 - soft)


def _surface(size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """A board, a table or the blurred clutter of a room: ``float32 [H, W, 3]``, 0 to 255."""
    colour = rng.uniform(0, 255, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(120, 255))
    strength = rng.uniform(0, 25) if rng.random() < 0.5 else rng.uniform(25, 90)
    field = np.stack([soft_field(size, rng) for _ in range(3)], axis=-1) - 0.5
    shared = soft_field(size, rng)[:, :, None] - 0.5
    tint = rng.uniform(0, 1)
    noisy: NDArray[np.float32] = np.clip(colour + 2 * strength * (tint * field + (1 - tint) * shared), 0, 255).astype(
        np.float32
    )
    return noisy


def _on_board(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The picture as a smaller part of a larger one, on a board of the colour of its border."""
    height, width = picture.shape[:2]
    grown = rng.uniform(1.1, 2.0)
    rows, columns = round(height * grown), round(width * grown)
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    colour = np.median(border, axis=0) if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    board = np.empty((rows, columns, 3), np.float32)
    board[:] = colour
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    board[top : top + height, left : left + width] = picture
    return board


def _turned(picture: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), np.float32)


def _motion_blur(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    length = max(3, round(rng.uniform(0.02, 0.08) * min(picture.shape[:2])))
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1 / length
    turn = cv2.getRotationMatrix2D((length / 2, length / 2), rng.uniform(0, 180), 1)
    kernel = np.asarray(cv2.warpAffine(line, turn, (length, length)), np.float32)
    return np.asarray(cv2.filter2D(picture, -1, kernel / max(float(kernel.sum()), 1e-6)), np.float32)


def _lit(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Another exposure, contrast, white balance and the noise of the sensor, which weighs more in the dark."""
    if rng.random() < 0.25:
        gain, gamma = np.exp(rng.uniform(np.log(0.1), np.log(0.6))), rng.uniform(0.8, 1.8)
    else:
        gain, gamma = rng.uniform(0.7, 1.5), np.exp(rng.uniform(-0.4, 0.4))
    balance = rng.uniform(0.85, 1.15, 3)
    lit = 255 * (np.clip(picture / 255, 0, 1) ** gamma) * gain * balance
    noise = rng.uniform(0, 10) * rng.standard_normal(lit.shape)
    shaken: NDArray[np.float32] = (lit + noise).astype(np.float32)
    return shaken
