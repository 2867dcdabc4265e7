"""NumPy arrays out of what other libraries hold: torch tensors, PIL pictures and whatever NumPy itself can read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.optional import require

_CHANNELS = (1, 3, 4)
_OVERSHOOT = 1e-3  # of a picture on 0..1, by resizing


def is_array_like(given: object) -> bool:
    """Whether :func:`as_array` takes it."""
    return isinstance(given, (list, tuple)) or any(hasattr(given, name) for name in ("__array__", "getbands", "detach"))


def as_array(given: Any, source: str) -> NDArray[Any]:
    """The numbers of an array-like object, on the CPU; their unit and layout stay.

    A PIL picture is turned upright by its EXIF orientation, and stands on white where it is transparent; palettes and
    CMYK become RGB, while grey stays grey, and 16 and 32 bits stay. ``bfloat16`` of torch becomes ``float32``.

    Args:
        given: A NumPy array, torch tensor, PIL picture, list of numbers, or any object with ``__array__``.
        source: For the error message.

    Returns:
        In the byte order of the machine; NaN where it is masked.

    Raises:
        InvalidInputError: It is none of these, holds no numbers on the CPU, or its rows differ in length.
    """
    if not is_array_like(given):
        expected = "a file, a NumPy array, a torch tensor or a PIL picture"
        raise InvalidInputError(source, f"an object of type {type(given).__name__}", expected)
    try:
        array = _numbers(given)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged rows, tensors without data, a closed picture
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(source, f"{type(given).__name__} that is no array ({reason})", "numbers") from error
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # OpenCV refuses views that run backwards, such as picture[:, :, ::-1].
    return np.ascontiguousarray(array) if any(stride < 0 for stride in array.strides) else array


def _numbers(given: Any) -> NDArray[Any]:
    if hasattr(given, "getbands"):
        return _pixels(given)
    if hasattr(given, "detach"):
        return (given.float() if str(given.dtype) == "torch.bfloat16" else given).numpy(force=True)
    if np.ma.is_masked(given):
        return np.asarray(given.astype(np.float64).filled(np.nan))
    return np.asarray(given)


def _pixels(picture: Any) -> NDArray[Any]:
    picture = require("PIL.ImageOps", "A PIL picture").exif_transpose(picture)
    grey = picture.mode == "LA"
    if picture.has_transparency_data:
        image = require("PIL.Image", "A PIL picture")
        ground = image.new("RGBA", picture.size, "white")
        picture = image.alpha_composite(ground, picture.convert("RGBA"))
    if grey or picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    return np.asarray(picture if picture.mode[0] in "IF" else picture.convert("RGB"))


def channels_last(picture: NDArray[Any]) -> NDArray[Any]:
    """``[C, H, W]`` as ``[H, W, C]``, where only that can be meant: 1, 3 or 4 channels at the front and not the end."""
    first = picture.ndim == 3 and picture.shape[0] in _CHANNELS and picture.shape[2] not in _CHANNELS
    return np.ascontiguousarray(picture.transpose(1, 2, 0)) if first else picture


def light(picture: NDArray[Any], source: str) -> NDArray[np.uint8]:
    """Values of light as ``uint8``: floats on 0..1, or integers on 0..255.

    Args:
        picture: Of any shape.
        source: For the error message.

    Raises:
        InvalidInputError: They exceed that, such as values that were normalised by a mean and standard deviation.
    """
    if picture.dtype == np.uint8 or picture.dtype.kind not in "uif" or not picture.size:
        return picture  # which is for the check to judge
    low, high = float(picture.min()), float(picture.max())
    is_float = picture.dtype.kind == "f"
    top, over = (1.0, _OVERSHOOT) if is_float else (255.0, 0.0)
    if not (low >= -over and high <= top + over):  # also NaN
        found = f"{picture.dtype} values from {low:.4g} to {high:.4g}"
        raise InvalidInputError(source, found, "uint8, float on 0..1 or integers on 0..255")
    return np.rint(np.clip(picture, 0, top) * (255 if is_float else 1)).astype(np.uint8)
