"""Which rows of a cloud are points of the thing, and where its origin has to be for float32 to show its shape."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FARTHEST = 1e9  # in any unit; drivers mark what they did not measure by the highest float, too
_FAR = 1000.0  # sizes from the origin: beyond, float32 shows less than 1e-4 of the size
_FEW = 0.01  # share of the points that may lie apart, at each end of an axis
_APART = 0.25  # of the size of the rest: how wide the gap to them is
_SPARSE = 4.0  # the gap is never less than this by the root of the number of points, as in few points gaps are usual
_SAMPLE = 4096  # points that tell where the ends of the rest are
_JUDGED = 32  # in fewer points none is told apart


class Cleaned(NamedTuple):
    """What is left, and what was left out."""

    points: NDArray[np.float32]  # [N, 3]
    unmeasured: int  # rows that are not finite, beyond 1e9, or exactly at the origin
    apart: int  # rows far away from all others


def clean(values: NDArray[Any]) -> Cleaned:
    """Leaves out what is no point of the thing; a cloud far from the origin is centred before it becomes float32.

    Left out are rows that are NaN, infinite or beyond 1e9; rows exactly at the origin, where drivers and file formats
    put what returned nothing; and few rows (at most 1 % at each end of an axis) behind a gap of a quarter of the size
    of the rest, until there are none: what is left passes again unchanged. A cloud of float64 or integers that is more
    than 1000 times its size away from the origin, as in map coordinates, is moved to the origin.

    Args:
        values: Numbers ``[N, 3]``. ``float32`` of which nothing is left out is returned without a copy.
    """
    with np.errstate(over="ignore"):  # wider than float64
        points = values if values.dtype in (np.float32, np.float64) else values.astype(_wide(values.dtype))
    columns, measured = by_columns(points, _FARTHEST)
    if measured is not None:
        points, columns = _kept(columns, measured)
    count = len(points)
    while (together := _together(columns)) is not None:  # without the farthest, others may lie apart
        points, columns = _kept(columns, together)
    return Cleaned(centred(points), len(values) - count, count - len(points))


def _kept(columns: NDArray[Any], which: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Some points of ``[3, N]`` as rows and by columns."""
    columns = columns.take(which, axis=1)
    return np.ascontiguousarray(columns.T), columns


def by_columns(points: NDArray[Any], farthest: float) -> tuple[NDArray[Any], NDArray[np.intp] | None]:
    """The points by columns ``[3, N]``, as NumPy is slow along an axis of three, and which were measured; None: all.

    Those are neither NaN nor farther than ``farthest`` along an axis, nor exactly at the origin.

    Args:
        points: Floats ``[N, 3]``.
        farthest: At most the highest number of the type.
    """
    x, y, z = columns = np.ascontiguousarray(points.T)
    with np.errstate(invalid="ignore"):
        # Cheap: the lowest and the highest value are NaN where one is, and few points have an x of 0.
        near = bool(points.size) and -farthest <= columns.min() and columns.max() <= farthest
        if near and (x.all() or columns.any(axis=0).all()):
            return columns, None
        measured = (np.abs(x) <= farthest) & (np.abs(y) <= farthest) & (np.abs(z) <= farthest)
    measured &= (x != 0) | (y != 0) | (z != 0)
    return columns, np.flatnonzero(measured)


def _wide(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    return np.float32 if dtype == np.float16 else np.float64


def _together(columns: NDArray[Any]) -> NDArray[np.intp] | None:
    """Of ``[3, N]``, all but the few that lie apart from all others along an axis; None without such."""
    count = columns.shape[1]
    if count < _JUDGED:
        return None
    some = columns[:, :: max(1, count // _SAMPLE)]  # sorting all would take as long as the rest of a tick
    few = math.ceil(_FEW * some.shape[1])
    ends = np.sort(some, axis=1)[:, [few, -1 - few]]  # which is as quick as to find two ranks
    size = float(np.ptp(ends, axis=1).max())
    gap = max(_APART, _SPARSE / math.sqrt(count)) * size
    if size == 0:
        return None
    apart: NDArray[np.bool_] | None = None
    for column, (low, high) in zip(columns, ends, strict=True):
        for sign, end, reach in ((1, low, low - column.min()), (-1, -high, column.max() - high)):
            if reach <= gap:
                continue
            values = sign * column
            tail = np.sort(np.append(values[values < end], end))
            wide = np.flatnonzero(np.diff(tail) > gap)
            if wide.size:
                beyond = values <= tail[wide[-1]]
                apart = beyond if apart is None else apart | beyond
    return None if apart is None else np.flatnonzero(~apart)


def centred(points: NDArray[Any]) -> NDArray[np.float32]:
    """``[N, 3]`` as float32; from beyond 1000 times its size, where that has no shape left, moved to the origin first.

    Place and size are those of the middle 90 % of every axis.
    """
    if points.dtype == np.float32 or not len(points):
        return points.astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 becomes infinite
        low, middle, high = np.quantile(points, (0.05, 0.5, 0.95), axis=0)
        is_far = np.abs(middle).max() > _FAR * (high - low).max()
        return (points - middle if is_far else points).astype(np.float32)
