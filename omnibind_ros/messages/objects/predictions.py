"""What the fusion node says of things, ``ObjectPredictions.msg``, from the core's own type and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from omnibind_core.geometry.frames import SECOND
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.types import ObjectPrediction
from omnibind_core.objects.visibility import Sight
from omnibind_ros.messages.fields import stamp_ns
from omnibind_ros.messages.prediction import prediction_of

_BOX = ("left", "top", "right", "bottom")


def object_fields(
    thing: ObjectPrediction,
    prediction: Any,
    view: Callable[..., Any],
    point: Callable[..., Any],
    vector: Callable[..., Any],
    quaternion: Callable[..., Any],
    pose: Callable[..., Any],
    time: Callable[..., Any],
) -> dict[str, Any]:
    """Fields of ``omnibind_ros/ObjectPrediction``.

    Args:
        thing: The thing.
        prediction: Its ``omnibind_ros/Prediction``.
        view: Class of ``omnibind_ros/ObjectView``, as the next ones called with its fields as keywords.
        point: Class of ``geometry_msgs/Point``.
        vector: Class of ``geometry_msgs/Vector3``.
        quaternion: Class of ``geometry_msgs/Quaternion``.
        pose: Class of ``geometry_msgs/Pose``.
        time: Class of ``builtin_interfaces/Time``.
    """
    volume = thing.volume
    seconds, nanoseconds = divmod(thing.seen_ns, SECOND)
    return {
        "id": thing.id,
        "seen": time(sec=seconds, nanosec=nanoseconds),
        "proposers": list(thing.proposers),
        "pose": pose(
            position=point(**_xyz(volume.centre)),
            orientation=quaternion(**dict(zip("xyzw", _quaternion(volume), strict=True))),
        ),
        "size": vector(**_xyz(volume.size)),
        "velocity": vector(**_xyz(thing.velocity)),
        "position_covariance": volume.spread.astype(np.float64).ravel(),
        "prediction": prediction,
        "views": [_view(name, sight, view) for name, sight in thing.sights.items()],
    }


def objects_of(message: Any) -> list[ObjectPrediction]:
    """The things of an ``ObjectPredictions`` message, of rclpy or rosbags; ``float32`` numbers in predictions."""
    tick_ns = stamp_ns(message) or 0
    return [_object(one, tick_ns) for one in message.objects]


def _object(one: Any, tick_ns: int) -> ObjectPrediction:
    place, turned = one.pose.position, one.pose.orientation
    rotation = Rotation.from_quat((turned.x, turned.y, turned.z, turned.w)).as_matrix()
    spread = np.asarray(one.position_covariance, np.float64).reshape(3, 3)
    return ObjectPrediction(
        id=int(one.id),
        volume=Volume(_array(place), _array(one.size), rotation, spread),
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
    return Sight(box if any(box) else None, view.reason, bool(view.seen))


def _quaternion(volume: Volume) -> Sequence[float]:
    values: list[float] = Rotation.from_matrix(volume.rotation).as_quat().tolist()
    return values


def _xyz(values: Any) -> dict[str, float]:
    return dict(zip("xyz", map(float, values), strict=True))


def _array(vector: Any) -> Any:
    return np.array([vector.x, vector.y, vector.z], np.float64)
