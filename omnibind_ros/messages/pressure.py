"""``std_msgs`` arrays of numbers: what pressure arrays send that have no message of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Doubt
from omnibind_core.runtime.types import Doubted
from omnibind_ros.messages.fields import DecodeOptions
from omnibind_ros.messages.registry import decodes

_KINDS = ("Float32", "Float64", "UInt8", "UInt16", "UInt32", "UInt64", "Int8", "Int16", "Int32", "Int64")
MULTI_ARRAYS = tuple(f"std_msgs/msg/{kind}MultiArray" for kind in _KINDS)
"""Their types. They have no header: their stamp is the time of receipt."""


_BEYOND = 0.1  # of the full scale, by which noise and drift may exceed it
_CUT = 0.5  # share of taxels beyond it that a strong hand does not explain


def pressure(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.uint8] | Doubted:
    """A ``std_msgs/*MultiArray`` of pressures, one a taxel: value * scale + offset is 0..255.

    Its layout says how many rows and columns there are, or else ``options.rows``. Taxels that are NaN feel nothing.

    Returns:
        ``uint8 [rows, columns]``; doubted where another scale is likely: values far from 0..255, or none above 1.

    Raises:
        InvalidInputError: Neither says it, the values do not fit it, or none is finite.
    """
    values = np.asarray(message.data)
    rows, columns, pitch, offset = _layout(message.layout, values.size, options, source)
    wanted = offset + (rows - 1) * pitch + columns
    if values.size < wanted:
        expected = f"{wanted} for a layout of {rows} rows and {columns} columns"
        raise InvalidInputError(source, f"{values.size} values", expected)
    item = values.itemsize
    taxels = np.lib.stride_tricks.as_strided(values[offset:], (rows, columns), (pitch * item, item))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = taxels.astype(np.float64) * options.scale + options.offset
    if not np.isfinite(scaled).any():
        raise InvalidInputError(source, "pressures of which none is finite", "finite values")
    picture = np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)
    doubt = _doubt(scaled[np.isfinite(scaled)], taxels.dtype.kind == "f", options)
    return picture if doubt is None else Doubted(picture, doubt)


def _doubt(scaled: NDArray[np.float64], fractions: bool, options: DecodeOptions) -> Doubt | None:
    """What speaks for another scale; nothing speaks against a skin that is pressed beyond what it can measure."""
    low, high = float(scaled.min()), float(scaled.max())
    found = f"{low:.4g} to {high:.4g} by scale {options.scale:g} and offset {options.offset:g}"
    beyond = float(((scaled < -255 * _BEYOND) | (scaled > 255 * (1 + _BEYOND))).mean())
    unscaled = options.scale == 1 and options.offset == 0
    if beyond > (0 if unscaled else _CUT):
        wanted = "expected 0 to 255: scale is 255 / (highest - lowest value of the sensor), offset -lowest * scale"
        return Doubt(f"pressures {found}, {100 * beyond:.0f} % of them beyond the full scale, {wanted}", excludes=False)
    if fractions and unscaled and 0 <= low < high <= 1:
        return Doubt(f"no contact, pressures {found}; where 1 is the full scale, set scale: 255", empty=True)
    return None


for _name in MULTI_ARRAYS:
    decodes(_name, "touch")(pressure)


def _layout(layout: Any, size: int, options: DecodeOptions, source: str) -> tuple[int, int, int, int]:
    """Rows, columns, values from one row to the next, and values before the first."""
    offset = int(layout.data_offset)
    dims = [dim for dim in layout.dim if dim.size != 1] if len(layout.dim) > 2 else list(layout.dim)
    if len(dims) == 2:
        rows, columns, stride = int(dims[0].size), int(dims[1].size), int(dims[1].stride)
        # A pitch by the definition of MultiArrayLayout; many publishers leave strides at 0 or count in another way.
        fits = stride >= columns and offset + (rows - 1) * stride + columns <= size
        pitch = stride if fits else columns
    elif len(dims) < 2 and options.rows:
        rows, columns = options.rows, (size - offset) // options.rows
        pitch = columns
        if size <= offset or (size - offset) % rows:
            raise InvalidInputError(source, f"{max(size - offset, 0)} values", f"whole columns in {rows} rows (rows)")
    else:
        found = "x".join(str(int(dim.size)) for dim in layout.dim) or "none"
        expected = "rows and columns: set the sensor's parameter rows" if len(dims) < 2 else "rows and columns"
        raise InvalidInputError(source, f"{size} values with the layout {found}", expected)
    if rows < 1 or columns < 1 or math.prod((rows, columns)) > size:
        raise InvalidInputError(source, f"{size} values for {rows} rows and {columns} columns", "one for each taxel")
    return rows, columns, pitch, offset
