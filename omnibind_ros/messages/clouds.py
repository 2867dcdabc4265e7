"""``sensor_msgs/PointCloud2`` and ``LaserScan``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.point_cloud.cleaning import by_columns, centred
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

    A cloud in wider numbers that is far from its origin, as in map coordinates, is centred before it becomes float32.

    Points that are NaN, infinite or exactly at the sensor's origin, where drivers put what returned nothing, are left
    out, whatever ``is_dense`` says.
    """
    options.limits.check("points", message.height * message.width, source)
    layout = _layout(message, "xyz", source)
    (first, start), *others = layout.fields
    if first == np.float32 and others == [(first, start + 4), (first, start + 8)]:
        side_by_side = (*layout.strides, 4)
        points: NDArray[Any] = np.ndarray((*layout.shape, 3), first, layout.data, start, side_by_side)
        if not points.flags.aligned:
            points = points.copy()
    else:
        points = _columns(layout, np.result_type(np.float32, *(dtype for dtype, _ in layout.fields)))
    return centred(_valid(points.reshape(-1, 3), source))


def point_fields(message: Any, names: Sequence[str], source: str) -> NDArray[np.float32]:
    """Fields of a ``sensor_msgs/PointCloud2`` by name, all points as they were sent: ``float32 [N, len(names)]``.

    Args:
        message: The message.
        names: Of the fields.
        source: Sensor name, for error messages.

    Raises:
        InvalidInputError: The cloud is empty, lacks a field, or its layout is wrong.
    """
    return _columns(_layout(message, names, source), np.float32).reshape(-1, len(names))


class _Layout(NamedTuple):
    """Where the values of some fields of a cloud are."""

    data: NDArray[np.uint8]
    shape: tuple[int, int]  # rows and points in each
    strides: tuple[int, int]  # bytes
    fields: list[tuple[np.dtype[Any], int]]  # type and offset in bytes


def _layout(message: Any, names: Sequence[str], source: str) -> _Layout:
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
    places = []
    fields = {field.name: field for field in message.fields}
    for name in names:
        field = fields.get(name)
        if field is None or field.datatype not in _POINT_TYPES:
            found = f"a cloud with the fields {', '.join(map(str, fields)) or 'none'}"
            wanted = f"{', '.join(names[:-1])} and {names[-1]}"
            raise InvalidInputError(source, found, f"fields {wanted} of a type of sensor_msgs/PointField")
        dtype = np.dtype(_POINT_TYPES[field.datatype]).newbyteorder(">" if message.is_bigendian else "<")
        if field.offset + dtype.itemsize > point_step:
            raise InvalidInputError(source, f"field {name} at byte {field.offset}", f"inside point_step {point_step}")
        places.append((dtype, field.offset))
    return _Layout(data, (height, width), (row_step, point_step), places)


def _columns(layout: _Layout, dtype: DTypeLike) -> NDArray[Any]:
    """The values ``[rows, points, fields]``, copied."""
    values = np.empty((*layout.shape, len(layout.fields)), dtype)
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
        for column, (stored, offset) in enumerate(layout.fields):
            values[..., column] = np.ndarray(layout.shape, stored, layout.data, offset, layout.strides)
    return values


@decodes(LASER_SCAN, "point_cloud")
def laser_scan(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.float32]:
    """``sensor_msgs/LaserScan``: the points in range, at z = 0."""
    options.limits.check("points", len(message.ranges), source)
    ranges = np.asarray(message.ranges, np.float32)
    ranges = np.where((ranges >= message.range_min) & (ranges <= message.range_max), ranges, np.nan)
    with np.errstate(invalid="ignore", over="ignore"):  # angles that are not finite give points that are not
        angles = message.angle_min + message.angle_increment * np.arange(ranges.size)
        points = np.stack([ranges * np.cos(angles), ranges * np.sin(angles), np.zeros(ranges.size)], axis=1)
        return _valid(points.astype(np.float32), source)


def _valid(points: NDArray[Any], source: str) -> NDArray[Any]:
    """``[N, 3]`` without what saw nothing: NaN, infinity, or exactly the sensor's origin."""
    columns, valid = by_columns(points, float(np.finfo(points.dtype).max))
    if valid is None:
        return points
    if not valid.size:
        found = f"a cloud of {len(points)} points of which none is finite and off the origin"
        raise InvalidInputError(source, found, "finite points")
    return np.ascontiguousarray(columns.take(valid, axis=1).T)


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
