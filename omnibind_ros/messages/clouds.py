"""``sensor_msgs/PointCloud2`` and ``LaserScan``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_ros.messages.fields import DecodeOptions, as_bytes, flat_bytes
from omnibind_ros.messages.registry import decodes

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
LASER_SCAN = "sensor_msgs/msg/LaserScan"

# Constants of sensor_msgs/PointField.
_POINT_TYPES: Mapping[int, str] = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_FLOAT32 = 7


@decodes(POINT_CLOUD, "point_cloud")
def point_cloud(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.float32]:
    """``sensor_msgs/PointCloud2``; a view of the message if x, y, z are native floats side by side and all points good.

    Points that are NaN, infinite or exactly at the sensor's origin, where drivers put what returned nothing, are left
    out, whatever ``is_dense`` says.
    """
    height, width, point_step = message.height, message.width, message.point_step
    # row_step only matters where there are rows, and drivers of unorganised clouds leave it at zero.
    row_step = message.row_step if height > 1 else width * point_step
    data = as_bytes(message.data)
    if height * width == 0:
        raise InvalidInputError(source, f"a cloud of {width} x {height} points", "at least one point")
    if point_step == 0 or row_step < width * point_step:
        found = f"row_step {row_step}, point_step {point_step}"
        raise InvalidInputError(source, found, f"a row of at least {width} points of 1 byte or more each")
    if data.size < height * row_step:
        raise InvalidInputError(source, f"{data.size} bytes of data", f"{height} rows of {row_step} bytes")
    axes = []
    fields = {field.name: field for field in message.fields}
    for name in "xyz":
        field = fields.get(name)
        if field is None or field.datatype not in _POINT_TYPES:
            found = f"a cloud with the fields {', '.join(map(str, fields)) or 'none'}"
            raise InvalidInputError(source, found, "fields x, y and z of a type of sensor_msgs/PointField")
        dtype = np.dtype(_POINT_TYPES[field.datatype]).newbyteorder(">" if message.is_bigendian else "<")
        if field.offset + dtype.itemsize > point_step:
            raise InvalidInputError(source, f"field {name} at byte {field.offset}", f"inside point_step {point_step}")
        axes.append((dtype, field.offset))
    strides = (row_step, point_step)
    (first, start), *others = axes
    if first == np.float32 and others == [(first, start + 4), (first, start + 8)]:
        side_by_side = (*strides, 4)
        points: NDArray[np.float32] = np.ndarray((height, width, 3), first, data, start, side_by_side)
        if not points.flags.aligned:
            points = points.copy()
    else:
        points = np.empty((height, width, 3), np.float32)
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is left out below
            for axis, (dtype, offset) in enumerate(axes):
                points[..., axis] = np.ndarray((height, width), dtype, buffer=data, offset=offset, strides=strides)
    return _valid(points.reshape(-1, 3), source)


@decodes(LASER_SCAN, "point_cloud")
def laser_scan(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.float32]:
    """``sensor_msgs/LaserScan``: the points in range, at z = 0."""
    ranges = np.asarray(message.ranges, np.float32)
    ranges = np.where((ranges >= message.range_min) & (ranges <= message.range_max), ranges, np.nan)
    with np.errstate(invalid="ignore", over="ignore"):  # angles that are not finite give points that are not
        angles = message.angle_min + message.angle_increment * np.arange(ranges.size)
        points = np.stack([ranges * np.cos(angles), ranges * np.sin(angles), np.zeros(ranges.size)], axis=1)
        return _valid(points.astype(np.float32), source)


def _valid(points: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    """``[N, 3]`` without what saw nothing: NaN, infinity, or exactly the sensor's origin."""
    x, y, z = points.T  # by columns: NumPy is slow along an axis of three
    valid = np.isfinite(x) & np.isfinite(y) & np.isfinite(z) & ((x != 0) | (y != 0) | (z != 0))
    if not valid.any():
        found = f"a cloud of {valid.size} points of which none is finite and off the origin"
        raise InvalidInputError(source, found, "finite points")
    return points if valid.all() else points[valid]


def point_cloud_fields(points: NDArray[Any], point_field: Callable[..., Any] = dict) -> dict[str, Any]:
    """Fields of an unorganised ``sensor_msgs/PointCloud2``, without the header.

    Args:
        points: ``[N, 3]`` x, y, z in metres.
        point_field: Class of ``sensor_msgs/PointField``, called with its fields as keywords.
    """
    data = flat_bytes(np.asarray(points, np.float32))
    return {
        "height": 1,
        "width": len(points),
        "fields": [point_field(name=n, offset=4 * i, datatype=_FLOAT32, count=1) for i, n in enumerate("xyz")],
        "is_bigendian": sys.byteorder == "big",
        "point_step": 12,
        "row_step": data.size,
        "data": data,
        "is_dense": bool(np.isfinite(points).all()),
    }
