"""Where the sensors of a robot are, and what each of them sees of a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import Camera, FrameTree, Transform
from omnibind_core.modalities import Doubt

PICTURES = ("image", "thermal", "event")
"""Modalities whose items are pictures of a camera, or become one."""
BODY = Transform(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
"""From x forward, y left, z up to x right, y down, z forward (REP 103): points of a depth picture, as they are decoded,
into the optical frame that its header names."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one sensor offers to a tick, decoded.

    Attributes:
        sensor: Its name.
        modality: Its modality.
        raw: The checked raw item: of a frame, or the window of a stream.
        stamp_ns: Of the item, on the clock of the frames' transforms.
        frame: Frame that its header names: the optical one of a camera.
        token: ``float32 [D]``, embedding of the whole item, if it was encoded.
        doubt: What speaks against it.
        optical: Whether the frame of a cloud is that of a depth camera, whose points are decoded x forward.
    """

    sensor: str
    modality: str
    raw: Any = field(repr=False)
    stamp_ns: int
    frame: str
    token: NDArray[np.float32] | None = field(default=None, repr=False)
    doubt: Doubt | None = None
    optical: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its picture, pixels.

        Raises:
            InvalidInputError: It is no picture.
        """
        if self.modality == "event":
            return int(self.raw.width), int(self.raw.height)
        if self.modality not in PICTURES:
            raise InvalidInputError(
                self.sensor, f"{self.modality}, which has no pixels", f"one of {', '.join(PICTURES)}"
            )
        return int(self.raw.shape[1]), int(self.raw.shape[0])


@dataclass(frozen=True, eq=False)
class View:
    """From where, and how, a sensor looked when it took an item.

    Attributes:
        reading: The item.
        pose: From the sensor's own axes (a camera's: optical) to the fixed frame, at the stamp of the item.
        camera: Its lens; ``None`` of a sensor without pixels.
    """

    reading: Reading
    pose: Transform
    camera: Camera | None = None

    def project(self, points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where points of the fixed frame are in the picture.

        Args:
            points: ``[N, 3]``, metres.

        Returns:
            ``float64 [N, 2]`` pixels, NaN where the lens cannot see; ``float64 [N]`` metres along the optical axis.
        """
        assert self.camera is not None
        local = self.pose.inverse()(points)
        return self.camera.project(local)[0], local[:, 2]


class Rig:
    """Cameras and frames of a robot.

    Args:
        fixed: Frame that things are told in, which should not move with the robot if it drives (``odom``).
        tree: Frames over time.
    """

    def __init__(self, fixed: str, tree: FrameTree | None = None) -> None:
        self.fixed = fixed
        self.tree = FrameTree() if tree is None else tree
        self.cameras: dict[str, Camera] = {}

    def view(self, reading: Reading) -> View:
        """How a sensor looked.

        Args:
            reading: What it offers.

        Raises:
            InvalidInputError: Nothing is known of its camera, that is of another size than the picture, or the way
                from its frame is not known at that time.
        """
        camera = None
        if reading.modality in PICTURES:
            width, height = reading.size
            camera = self.cameras.get(reading.sensor)
            if camera is None:
                raise InvalidInputError(reading.sensor, "a picture whose camera is not known", "a CameraInfo of it")
            if (camera.width, camera.height) != (width, height):
                expected = f"a CameraInfo of as many, not of {camera.width} x {camera.height}"
                raise InvalidInputError(reading.sensor, f"a picture of {width} x {height} pixels", expected)
        if not reading.frame:
            raise InvalidInputError(reading.sensor, "an item without a frame_id", "the frame that it is seen from")
        pose = self.tree.lookup(self.fixed, reading.frame, reading.stamp_ns)
        return View(reading, pose @ BODY if reading.optical else pose, camera)

    def views(self, readings: Mapping[str, Reading]) -> tuple[dict[str, View], dict[str, str]]:
        """How each sensor looked, and why that is not known of the others, by sensor."""
        found: dict[str, View] = {}
        why: dict[str, str] = {}
        for name, reading in readings.items():
            try:
                found[name] = self.view(reading)
            except InvalidInputError as error:
                why[name] = str(error)
        return found, why
