"""Walls, so that what stands at one does not hang together with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LONG, HIGH = 3.0, 1.8
"""Metres that a wall is long without a gap, and high at least: things are less."""
_MOST = 6  # walls
_TRIALS = 120  # lines through two points, seen from above
_JUDGES = 600  # points that judge a line
_THICK = 0.07  # m on either side
_SHARE = 0.04  # of the points, that are on a wall
_STEP = 0.25  # m, of the cells of a wall
_FULL = 0.3  # share of the cells with points


def without(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points ``[N, 3]``, metres, z is up, but those on upright planes as large as walls."""
    rng = np.random.default_rng(0)
    for _ in range(_MOST):
        if len(points) < _JUDGES // 4:
            break
        on = _largest(points, rng)
        if on is None:
            break
        points = points[~on]
    return points


def _largest(points: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """Which points are on the upright plane with most of them; ``None`` if that is no wall."""
    judges = points[rng.integers(len(points), size=_JUDGES), :2]
    first, second = judges[rng.integers(_JUDGES, size=(2, _TRIALS))]
    along = second - first
    lengths = np.linalg.norm(along, axis=1)
    kept = lengths > LONG / 4
    if not kept.any():
        return None
    first, along = first[kept], along[kept] / lengths[kept, None]
    across = np.stack([-along[:, 1], along[:, 0]])
    votes = (np.abs(judges @ across - np.einsum("ti,it->t", first, across)) < _THICK).sum(axis=0)
    best = int(votes.argmax())
    if votes[best] < _SHARE * _JUDGES:
        return None
    on = np.abs((points[:, :2] - first[best]) @ across[:, best]) < _THICK
    place = np.flatnonzero(on)
    run = _run((points[place, :2] - first[best]) @ along[best], points[place, 2])
    if run is None:
        return None
    on[place[~run]] = False
    return on


def _run(along: NDArray[np.float64], height: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which points of a plane are in its longest part without a gap; ``None`` if that is smaller than a wall."""
    steps = np.floor((along - along.min()) / _STEP).astype(np.intp)
    filled = np.concatenate([[False], np.bincount(steps) > 0, [False]])
    starts, ends = (
        np.flatnonzero(np.diff(filled.astype(np.int8)) > 0),
        np.flatnonzero(np.diff(filled.astype(np.int8)) < 0),
    )
    longest = int((ends - starts).argmax())
    length = int(ends[longest] - starts[longest])
    run = (steps >= starts[longest]) & (steps < ends[longest])
    rows = np.floor((height[run] - height[run].min()) / _STEP).astype(np.intp)
    if length * _STEP < LONG or np.ptp(height[run]) < HIGH:
        return None
    cells = np.unique(rows * length + steps[run] - starts[longest])
    return run if len(cells) >= _FULL * length * (rows.max() + 1) else None
