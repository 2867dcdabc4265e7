"""How ROS messages become radar points. Read by the ROS nodes only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_ros.messages import POINT_CLOUD, DecodeOptions, decodes, point_fields

# There is no standard: what drivers call the radial velocity (m/s) and the strength (dB), most telling names first.
_VELOCITY = ("velocity", "doppler", "doppler_velocity", "radial_speed", "radial_velocity", "v_doppler_mps")
_STRENGTH = ("rcs", "snr", "snr_db", "signal_to_noise_ratio", "power", "intensity")


@decodes(POINT_CLOUD, "radar")
def points(message: Any, modality: str, options: DecodeOptions, source: str) -> NDArray[np.float32]:
    """``sensor_msgs/PointCloud2`` of a radar: places, m, radial velocity and, if it is there, strength."""
    sent = [field.name for field in message.fields]
    velocity = next((name for name in _VELOCITY if name in sent), None)
    if velocity is None:
        expected = f"a radial velocity, called one of {', '.join(_VELOCITY)}"
        raise InvalidInputError(source, f"a cloud with the fields {', '.join(sent) or 'none'}", expected)
    strength = [name for name in _STRENGTH if name in sent][:1]
    return point_fields(message, ["x", "y", "z", velocity, *strength], source)
