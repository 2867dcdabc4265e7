"""Point clouds as other scanners would have measured them: domain randomisation (Tobin et al. 2017) for training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.point_cloud.corruption import Cloud, rotation

_MOST = 2048  # points that are looked at; more tell nothing new of the shape
_LEAST = 20


def randomise(raw: Cloud, rng: np.random.Generator) -> Cloud:
    """What a spinning LiDAR, a depth camera or a scanner sees of the same thing: one side, in rings or as a grid.

    A LiDAR has 2 to 64 rings on the thing and 5 to 160 points in each; a depth camera a dense one-sided view. Both look
    from -20 to 40 degrees of elevation, lose the lowest part to the removal of the ground, and a piece to something
    in front. One in five stays a cloud of the whole surface, thinned to 64 points or more.
    """
    cloud = raw if len(raw) <= _MOST else raw[np.sort(rng.choice(len(raw), _MOST, replace=False))]
    turn = rotation(rng.uniform(0, 2 * np.pi), rng.normal(0, np.radians(4)), rng.normal(0, np.radians(4)))
    cloud = (cloud - (cloud.min(axis=0) + cloud.max(axis=0)) / 2) * rng.uniform(0.85, 1.18, 3).astype(np.float32)
    cloud = cloud @ turn.T
    if rng.random() < 0.2:
        keep = int(len(cloud) * np.exp(rng.uniform(np.log(min(1.0, 64 / len(cloud))), 0)))
        return _noisy(cloud[np.sort(rng.choice(len(cloud), max(keep, _LEAST), replace=False))], rng)
    extent = float(np.ptp(cloud, axis=0).max())
    distance = extent * np.exp(rng.uniform(np.log(1.5), np.log(20)))
    elevation = np.radians(rng.uniform(-20, 40))
    # The sensor stands at +x: depth along x, then columns along y and rows along z.
    seen = _clipped(cloud, rng) @ rotation(0.0, elevation, 0.0).T
    depth = distance - seen[:, 0]
    across, up = seen[:, 1] / depth, seen[:, 2] / depth
    visible = _front(across, up, depth, int(np.clip(np.sqrt(len(seen)) * 0.5, 4, 28)), 0.06 * extent)
    seen, across, up = seen[visible], across[visible], up[visible]
    if rng.random() < 0.6:  # rings
        rings, columns = (
            round(np.exp(rng.uniform(np.log(2), np.log(64)))),
            round(np.exp(rng.uniform(np.log(5), np.log(160)))),
        )
        chosen, row = _grid(across, up, columns, rings)
        seen = seen[chosen]
        seen[:, 2] = row * depth[visible][chosen]  # each on its ring
    if len(seen) < _LEAST:
        seen = cloud[np.sort(rng.choice(len(cloud), min(len(cloud), 4 * _LEAST), replace=False))]
    level = seen @ rotation(0.0, elevation, 0.0)  # z is up again, as drivers that know their tilt deliver it
    return _noisy(level.astype(np.float32), rng)


def _clipped(cloud: Cloud, rng: np.random.Generator) -> Cloud:
    """Without the part below the ground plane that was removed, and without what stands behind something else."""
    kept = np.ones(len(cloud), bool)
    if rng.random() < 0.4:
        kept &= cloud[:, 2] >= np.quantile(cloud[:, 2], rng.uniform(0, 0.25))
    if rng.random() < 0.3:
        angle = rng.uniform(0, 2 * np.pi)
        along = cloud[:, 1] * np.cos(angle) + cloud[:, 2] * np.sin(angle)
        kept &= along >= np.quantile(along, rng.uniform(0, 0.4))
    return cloud[kept] if kept.sum() >= _LEAST else cloud


def _front(
    across: NDArray[np.float32], up: NDArray[np.float32], depth: NDArray[np.float32], cells: int, slack: float
) -> NDArray[np.bool_]:
    """Mask of the points that nothing hides: those near the first surface in their cell of a coarse picture."""
    place = _cell(across, cells) * cells + _cell(up, cells)
    nearest = np.full(cells * cells, np.inf)
    np.minimum.at(nearest, place, depth)
    found: NDArray[np.bool_] = depth <= nearest[place] + slack
    return found


def _grid(
    across: NDArray[np.float32], up: NDArray[np.float32], columns: int, rows: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """One point for each beam that hits: its index, and the tangent of the elevation of its ring."""
    row = _cell(up, rows)
    chosen = np.unique(_cell(across, columns) * rows + row, return_index=True)[1]
    low, high = float(up.min()), float(up.max())
    centre = low + (row[chosen] + 0.5) * (high - low) / rows
    return chosen, centre.astype(np.float32)


def _cell(values: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    low, high = float(values.min()), float(values.max())
    return np.clip((values - low) / max(high - low, 1e-9) * count, 0, count - 1).astype(np.intp)


def _noisy(cloud: Cloud, rng: np.random.Generator) -> Cloud:
    """Range noise of up to 2 % of the extent."""
    level = np.float32(rng.uniform(0, 0.02) * np.ptp(cloud, axis=0).max())
    noisy: Cloud = cloud.astype(np.float32) + level * rng.standard_normal(cloud.shape, np.float32)
    return noisy
