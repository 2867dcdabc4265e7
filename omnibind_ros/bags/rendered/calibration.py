"""Messages that say how sensors look and where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from omnibind_core.geometry import Camera, Transform
from omnibind_ros.bags import types
from omnibind_ros.bags.scene_bag import SENSORS

TF = "tf2_msgs/msg/TFMessage"


def info_topic(sensor: str) -> str:
    """Where the calibration of a sensor is told: beside its data."""
    return SENSORS[sensor].topic.rpartition("/")[0] + "/camera_info"


def camera_info_fields(camera: Camera) -> dict[str, Any]:
    """Fields of a ``sensor_msgs/CameraInfo`` without its header."""
    matrix = camera.matrix
    region = types.typestore().types["sensor_msgs/msg/RegionOfInterest"]
    return {
        "height": camera.height,
        "width": camera.width,
        "distortion_model": camera.model,
        "d": np.array(camera.distortion, np.float64),
        "k": matrix.ravel(),
        "r": np.eye(3).ravel(),
        "p": np.hstack([matrix, np.zeros((3, 1))]).ravel(),
        "binning_x": 0,
        "binning_y": 0,
        "roi": region(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    }


def transform_fields(parent: str, child: str, transform: Transform, stamp_ns: int) -> Any:
    """A ``geometry_msgs/TransformStamped``, from child to parent."""
    known = types.typestore().types
    x, y, z = (float(value) for value in transform.translation)
    turn = [float(value) for value in Rotation.from_matrix(transform.rotation).as_quat()]
    content = {
        "child_frame_id": child,
        "transform": known["geometry_msgs/msg/Transform"](
            translation=known["geometry_msgs/msg/Vector3"](x, y, z),
            rotation=known["geometry_msgs/msg/Quaternion"](*turn),
        ),
    }
    return types.message("geometry_msgs/msg/TransformStamped", content, stamp_ns, parent)
