"""What messages and parameters tell of where sensors are and look, brought together for each tick."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import Camera
from omnibind_core.objects.rig import PICTURES, Reading, Rig
from omnibind_core.runtime.encoding import Token
from omnibind_core.runtime.types import Encoded
from omnibind_ros.messages.camera_info import CAMERA_INFO, camera_of, is_rectified
from omnibind_ros.messages.pictures import COMPRESSED_IMAGE, IMAGE

ODOM = "odom"
"""The frame of REP 105 that does not move with the robot, and never jumps."""
PICTURE_KINDS = ("auto", "raw", "rectified")


@dataclass(frozen=True)
class Placement:
    """What parameters tell of where one sensor is and looks.

    Attributes:
        topic: Its topic; its name tells whether pictures are rectified.
        info: That of its ``CameraInfo``.
        frame: Frame that it looks from; ``""``: that of its messages.
        field_of_view: Degrees across its pictures, which have no distortion; 0: a ``CameraInfo`` tells.
        picture: One of :data:`PICTURE_KINDS`.
    """

    topic: str = ""
    info: str = ""
    frame: str = ""
    field_of_view: float = 0.0
    picture: str = "auto"

    @property
    def rectified(self) -> bool:
        """Whether its pictures are."""
        return is_rectified(self.topic) if self.picture == "auto" else self.picture == "rectified"


class Calibration:
    """Makes readings of tokens, in their frames, and keeps the cameras of a rig up to date.

    Args:
        rig: Cameras and frames.
        fixed: Frame that things are told in; ``""``: ``odom`` if the sensors' frames hang together with it, else what
            most of them hang on.

    Attributes:
        frames: Frame of each sensor that gave something since the start, by its name.
    """

    def __init__(self, rig: Rig, fixed: str = "") -> None:
        self.frames: dict[str, str] = {}
        self._headers: dict[str, str] = {}
        self._rig = rig
        self._fixed = fixed
        self._known: dict[str, tuple[Any, tuple[int, int], Camera]] = {}

    def place(
        self,
        tokens: Sequence[Token],
        placements: Mapping[str, Placement],
        types: Mapping[str, str],
        newest: Callable[[str], Any],
    ) -> tuple[dict[str, Reading], dict[str, str]]:
        """The readings of a tick, and why sensors with pictures have no camera, by sensor.

        Args:
            tokens: Of the tick.
            placements: By sensor.
            types: Message type of each sensor.
            newest: Gives the newest ``CameraInfo`` of a topic, or ``None``.
        """
        from omnibind_core.objects.engine import readings  # with SciPy, which nodes that tell of no things do without

        found: dict[str, Reading] = {}
        why: dict[str, str] = {}
        for name, reading in readings(tokens, lambda item: (getattr(item.header, "frame_id", ""), False)).items():
            placement = placements.get(name, Placement())
            deep = reading.modality == "point_cloud" and types.get(name) in (IMAGE, COMPRESSED_IMAGE)
            self._headers[name] = reading.frame
            reading = replace(reading, frame=(placement.frame or reading.frame).lstrip("/"), optical=deep)
            self.frames[name] = reading.frame
            try:
                if reading.modality in PICTURES and not isinstance(reading.raw, Encoded):
                    self._rig.cameras[name] = self._camera(reading, placement, newest)
                found[name] = reading
            except InvalidInputError as error:
                self._rig.cameras.pop(name, None)
                why[name] = str(error)
        return found, why

    def choose_frame(self) -> bool:
        """Chooses the fixed frame. Returns whether it is another one than before."""
        before, tree = self._rig.fixed, self._rig.tree
        if self._fixed:
            self._rig.fixed = self._fixed
        else:
            roots = Counter(tree.root(frame) for frame in self.frames.values() if frame)
            if roots:
                root = max(roots, key=lambda name: (roots[name], name == tree.root(before)))
                self._rig.fixed = ODOM if ODOM in tree and tree.root(ODOM) == root else root
        return self._rig.fixed != before

    @property
    def pictures(self) -> dict[str, tuple[str, ...]]:
        """Frames of each sensor that has a camera: that of its messages, which detectors repeat, and that it has."""
        names = [name for name in tuple(self._rig.cameras) if name in self.frames]
        return {name: tuple(dict.fromkeys((self._headers[name], self.frames[name]))) for name in names}

    def _camera(self, reading: Reading, placement: Placement, newest: Callable[[str], Any]) -> Camera:
        """The camera of a picture; the same object as long as nothing about it changes."""
        told: Any = placement.field_of_view or newest(placement.info)
        if told is None:
            where = placement.info or "camera_info beside its topic"
            expected = f"a {CAMERA_INFO} on {where}, or its field_of_view"
            raise InvalidInputError(reading.sensor, "a picture whose camera is not known", expected)
        last = self._known.get(reading.sensor)
        if last is not None and last[0] is told and last[1] == reading.size:
            return last[2]
        if placement.field_of_view:
            camera = pinhole(placement.field_of_view, *reading.size, reading.sensor)
        else:
            camera = camera_of(told, reading.sensor, reading.size, placement.rectified, placement.info)
        if last is not None and camera == last[2]:
            camera = last[2]
        self._known[reading.sensor] = told, reading.size, camera
        return camera


def pinhole(field_of_view: float, width: int, height: int, source: str) -> Camera:
    """A camera without distortion whose pictures are so many degrees across, its optical axis in their middle."""
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    return Camera(width, height, (focal, focal), ((width - 1) / 2, (height - 1) / 2), source=source)
