"""How many columns a headerless file of float32 has: told from the numbers themselves.

KITTI writes x, y, z, intensity, nuScenes and Lyft a ring, too, tools for rooms six columns with colours or normals: all
as ``.bin``, and most lengths fit several of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError

COLUMNS = range(3, 9)
_LOOKED_AT = 300_000  # numbers
_USUAL = 0.95  # of them have to be numbers that may be measured
_MARGIN = 0.01  # by which a layout has to beat those that are neither its multiples nor its divisors
_NOISE = 2.0  # that margin is never less than this by the root of how many numbers there are


def read_bin(path: Path) -> NDArray[np.float32]:
    """All columns of a ``.bin``: ``float32 [N, 3 to 8]``. ``.pcd.bin`` is nuScenes' own, with five.

    Raises:
        InvalidInputError: The numbers fit no layout, or several.
    """
    size = path.stat().st_size
    values = np.fromfile(path, "<f4")
    nuscenes = path.name.lower().endswith(".pcd.bin")
    columns = 5 if nuscenes else guess(values)
    if columns is None or size % (4 * columns):
        expected = (
            f"four float32 (16 bytes) per point, or {COLUMNS[0]} to {COLUMNS[-1]} that the numbers tell apart; "
            "np.fromfile(FILE, '<f4').reshape(-1, COLUMNS) saved as .npy is read as such"
        )
        if nuscenes:
            expected = "five float32 (20 bytes) per point, as nuScenes has in .pcd.bin"
        raise InvalidInputError(str(path), f"{size} bytes", expected)
    return values.reshape(-1, columns)


def guess(values: NDArray[np.float32]) -> int | None:
    """Columns of a table that was written row by row, or None if that cannot be told.

    Numbers of one column are, in the mean, nearer to each other than to those of another column, whatever their order;
    in the order of a scan much nearer. So numbers that are as far apart in the file as there are columns differ least.

    Args:
        values: ``float32 [N]``, the table's numbers in a row.
    """
    looked = values[:_LOOKED_AT]
    usual = (np.abs(looked) < 1e9) & ((looked == 0) | (np.abs(looked) > 1e-30))  # bytes of something else seldom are
    if len(looked) < 4 * COLUMNS[-1] or usual.mean() < _USUAL:
        return None
    ranks = np.searchsorted(np.sort(looked), looked) / len(looked)  # the columns have different units; NaN is highest
    differ = {lag: np.sqrt(np.abs(ranks[lag:] - ranks[:-lag])).mean() for lag in COLUMNS}
    margin = 1 + max(_MARGIN, _NOISE / np.sqrt(len(looked)))
    least = min(differ.values())
    best = min(lag for lag in COLUMNS if differ[lag] <= least * margin)
    others = [lag for lag in COLUMNS if lag % best and best % lag]
    if any(differ[lag] <= differ[best] * margin for lag in others):
        return None
    if best == 3 and _has_normals(looked):
        best = 6
    return None if len(values) % best else best


def _has_normals(values: NDArray[np.float32]) -> bool:
    """Whether every second triple is of length 1, and not all: a normal is so like its point that lags do not tell."""
    triples = values[: len(values) // 6 * 6].reshape(-1, 2, 3)
    with np.errstate(over="ignore"):  # what is no number is no normal
        lengths = np.linalg.norm(triples, axis=2)
    unit = (np.abs(lengths - 1) < 1e-3).mean(axis=0)
    return bool(unit[1] > 0.98 and unit[0] < 0.5)
