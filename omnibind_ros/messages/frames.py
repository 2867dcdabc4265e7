"""Words, and the frames that a sensor node sends to a fusion node."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.runtime.types import Encoded
from omnibind_ros.messages.fields import DecodeOptions, as_bytes, flat_bytes
from omnibind_ros.messages.registry import decodes

STRING = "std_msgs/msg/String"
MODALITY_FRAME = "omnibind_ros/msg/ModalityFrame"

# Constants of ModalityFrame.msg.
_KINDS: tuple[Literal["preprocessed"], Literal["embedding"]] = ("preprocessed", "embedding")
_MOST_DIMENSIONS = 8  # more than any modality has; NumPy's own bound is 32 or 64
_DTYPES = ("<u1", "<f4")


@decodes(STRING, "text")
def string(message: Any, modality: str, options: DecodeOptions, source: str) -> str:
    """``std_msgs/String``."""
    text: str = message.data
    options.limits.check("text", len(text), source)
    return text


@decodes(MODALITY_FRAME)
def modality_frame(message: Any, modality: str, options: DecodeOptions, source: str) -> Encoded:
    """Our ``ModalityFrame``; a view of it."""
    if message.modality != modality:
        raise InvalidInputError(source, f"a frame of modality '{message.modality}'", modality)
    if options.model and message.model != options.model:
        raise InvalidInputError(source, f"a frame made for model '{message.model}'", f"'{options.model}'")
    if message.kind >= len(_KINDS) or message.dtype >= len(_DTYPES):
        raise InvalidInputError(source, f"kind {message.kind}, dtype {message.dtype}", "each 0 or 1")
    dtype, shape, data = np.dtype(_DTYPES[message.dtype]), tuple(map(int, message.shape)), as_bytes(message.data)
    if len(shape) > _MOST_DIMENSIONS:
        raise InvalidInputError(source, f"a frame of {len(shape)} dimensions", f"at most {_MOST_DIMENSIONS}")
    if not shape or data.size != math.prod(shape) * dtype.itemsize or data.size == 0:
        raise InvalidInputError(source, f"{data.size} bytes for the shape {list(shape)}", f"all its values as {dtype}")
    values: NDArray[Any] = data.view(dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise InvalidInputError(source, "values that are not finite", "finite values")
    return Encoded(_KINDS[message.kind], values)


def modality_frame_fields(sensor: str, modality: str, model: str, encoded: Encoded) -> dict[str, Any]:
    """Fields of ``omnibind_ros/ModalityFrame``, without the header.

    Raises:
        InvalidInputError: The values are neither ``uint8`` nor ``float32``.
    """
    dtype = encoded.array.dtype.newbyteorder("<").str.lstrip("<|")
    if dtype not in ("u1", "f4"):
        raise InvalidInputError(sensor, f"values of type {encoded.array.dtype}", "uint8 or float32")
    return {
        "sensor": sensor,
        "modality": modality,
        "model": model,
        "kind": _KINDS.index(encoded.kind),
        "dtype": _DTYPES.index(f"<{dtype}"),
        "shape": np.array(encoded.array.shape, np.uint32),
        "data": flat_bytes(encoded.array),
    }
