"""What the fusion node says of things, ``ObjectPredictions.msg``, from the core's own type and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.geometry import Transform
from omnibind_core.geometry.frames import SECOND
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.objects.visibility import Sight
from omnibind_ros.messages.fields import fill, stamp_ns
from omnibind_ros.messages.prediction import prediction_of

_BOX = ("left", "top", "right", "bottom")


def fill_object(message: Any, thing: ObjectPrediction, prediction: Any, view: Callable[..., Any]) -> Any:
    """Sets the fields of an ``omnibind_ros/ObjectPrediction`` of rclpy, and returns it.

    Args:
        message: A new one.
        thing: The thing.
        prediction: Its ``omnibind_ros/Prediction``.
        view: Class of ``omnibind_ros/ObjectView``, called with its fields as keywords.
    """
    place_box(message.pose, message.size, thing.volume)
    set_vector(message.velocity, thing.velocity)
    message.seen.sec, message.seen.nanosec = divmod(thing.seen_ns, SECOND)
    views = [_view(name, sight, view) for name, sight in thing.sights.items()]
    fields = {"id": thing.id, "proposers": list(thing.proposers), "prediction": prediction, "views": views}
    covariance = thing.volume.spread.astype(np.float64).ravel()
    return fill(message, {**fields, "position_covariance": covariance})


def place_box(pose: Any, size: Any, volume: Volume) -> None:
    """Sets a ``geometry_msgs/Pose`` and a ``Vector3`` of sides, m, to those of a box."""
    set_vector(pose.position, volume.centre)
    set_vector(size, volume.size)
    turned = pose.orientation
    turned.x, turned.y, turned.z, turned.w = Transform(volume.rotation, volume.centre).quaternion


def set_vector(vector: Any, values: NDArray[np.floating]) -> None:
    """Sets a ``Point`` or ``Vector3``."""
    vector.x, vector.y, vector.z = map(float, values)


def objects_of(message: Any) -> list[ObjectPrediction]:
    """The things of an ``ObjectPredictions`` message, of rclpy or rosbags; ``float32`` numbers in predictions."""
    tick_ns = stamp_ns(message) or 0
    return [_object(one, tick_ns) for one in message.objects]


def _object(one: Any, tick_ns: int) -> ObjectPrediction:
    place, turned = one.pose.position, one.pose.orientation
    box = Transform.of((place.x, place.y, place.z), (turned.x, turned.y, turned.z, turned.w))
    spread = np.asarray(one.position_covariance, np.float64).reshape(3, 3)
    return ObjectPrediction(
        id=int(one.id),
        volume=Volume(box.translation, _array(one.size), box.rotation, spread),
        velocity=_array(one.velocity),
        seen_ns=one.seen.sec * SECOND + one.seen.nanosec,
        prediction=prediction_of(one.prediction, tick_ns),
        sights={view.sensor: _sight(view) for view in one.views},
        proposers=tuple(one.proposers),
    )


def _view(name: str, sight: Sight, view: Callable[..., Any]) -> Any:
    box = () if sight.box is None else zip(_BOX, map(float, sight.box), strict=True)
    return view(sensor=name, seen=sight.seen, reason=sight.reason, **dict(box))


def _sight(view: Any) -> Sight:
    box = Rectangle(*(float(getattr(view, side)) for side in _BOX))
    return Sight(box if any(box) else None, view.reason)


def _array(vector: Any) -> NDArray[np.float64]:
    return np.array([vector.x, vector.y, vector.z], np.float64)
