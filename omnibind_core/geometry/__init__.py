"""Where things are in the pictures and clouds of calibrated sensors.

Points are metres in REP 103 frames: x forward, y left, z up; in the optical frame of a camera x is right, y down, z
forward. Pixels are ``(u, v)``, right and down, the centre of the first pixel at ``(0, 0)``.
"""

from omnibind_core.geometry.camera import Camera
from omnibind_core.geometry.frames import FrameTree, Transform

__all__ = ["Camera", "FrameTree", "Transform"]
