"""What a tactile array feels of a mesh that lies under it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omnibind_core.data.rendering.meshes import Mesh, cast
from omnibind_core.errors import DataError

# Rows and columns, and their pitch in m, of the Tekscan 6077 array of the TaISLab touch data (Gandarias et al. 2019).
ROWS, COLUMNS, PITCH = 28, 50, 0.0019
# The skin gives way by at most so much, m; and the share of the object under it that should be touched.
MAX_INDENTATION, CONTACT_SHARE = 0.01, 0.35
# Places at which the array is tried.
TRIES = 8
# Spread of a point load by the cover, in array elements.
COVER_SPREAD = 0.7


def press(mesh: Mesh, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Presses the array on the broad side of an object.

    A hand feels for a hold: of :data:`TRIES` places the one is kept where most of the array is touched. The pressure is
    that of a Winkler foundation, proportional to how far the surface would reach into the flat skin.

    Args:
        mesh: The mesh, metres.
        rng: Source of the heading, the places and the sensor's noise.

    Returns:
        ``uint8 [28, 50]``, 0 = no contact, 255 = the highest pressure.

    Raises:
        DataError: Nothing lies under the array.
    """
    order = np.argsort(-mesh.extent)  # the shortest side of the object points at the array
    flat = Mesh(np.ascontiguousarray(mesh.vertices[:, order]), mesh.triangles)
    tried = _heights(flat, _places(flat, rng), rng.uniform(-0.3, 0.3))
    reach = (tried > tried.max(axis=(1, 2), keepdims=True) - MAX_INDENTATION) & np.isfinite(tried)
    heights = tried[reach.sum(axis=(1, 2)).argmax()]
    under = np.isfinite(heights)
    if not under.any():
        raise DataError(f"nothing lies under the tactile array (extent {mesh.extent} m)")
    highest = heights[under].max()
    skin = max(float(np.quantile(heights[under], 1 - CONTACT_SHARE)), highest - MAX_INDENTATION)
    skin = min(skin, highest - 1e-4)  # a perfectly flat face still carries the load
    load = np.clip(np.where(under, heights - skin, 0), 0, None).astype(np.float32)
    pressure: NDArray[Any] = cv2.GaussianBlur(load, (0, 0), COVER_SPREAD)
    pressure *= 1 + rng.normal(0, 0.05, pressure.shape).astype(np.float32)  # gains differ between elements
    return np.clip(pressure / pressure.max() * 255, 0, 255).astype(np.uint8)


def _places(mesh: Mesh, rng: np.random.Generator) -> NDArray[np.float32]:
    """Where the array's middle is tried, ``float32 [TRIES, 2]``, m: on the surface; small objects in their middle."""
    corners = mesh.vertices[mesh.triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = corners[rng.choice(len(area), TRIES, p=area / area.sum()), :, :2]
    points = np.einsum("tc,tcd->td", rng.dirichlet(np.ones(3), TRIES), chosen)
    inset = np.minimum(np.array([COLUMNS, ROWS]) * PITCH, mesh.extent[:2]) / 2
    low, high = mesh.vertices[:, :2].min(axis=0), mesh.vertices[:, :2].max(axis=0)
    return np.clip(points, low + inset, high - inset).astype(np.float32)


def _heights(mesh: Mesh, centres: NDArray[np.float32], heading: float) -> NDArray[np.float32]:
    """Height of the surface under each element at each centre ``[N, 2]``, ``float32 [N, 28, 50]``, m.

    Minus infinite where there is none.
    """
    columns = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * PITCH
    rows = (np.arange(ROWS) - (ROWS - 1) / 2) * PITCH
    x = centres[:, :1, None] + columns[None] * np.cos(heading) - rows[:, None] * np.sin(heading)
    y = centres[:, 1:, None] + columns[None] * np.sin(heading) + rows[:, None] * np.cos(heading)
    above = np.float32(mesh.vertices[:, 2].max() + 1.0)
    origins = np.stack([x, y, np.full_like(x, above)], axis=-1).astype(np.float32)
    heights: NDArray[np.float32] = above - cast(mesh, origins, np.array([0, 0, -1], dtype=np.float32))
    return heights
