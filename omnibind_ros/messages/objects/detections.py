"""Boxes of detectors: ``vision_msgs``, or our own ``Detections`` where that is not installed, to regions."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import Transform
from omnibind_core.objects.regions import Rectangle, Region2D, Region3D, Volume
from omnibind_core.objects.rig import Rig
from omnibind_ros.messages.fields import as_bytes, stamp_ns
from omnibind_ros.messages.objects.rejections import Rejections

DETECTIONS_2D = "vision_msgs/msg/Detection2DArray"
DETECTIONS_3D = "vision_msgs/msg/Detection3DArray"
DETECTIONS = "omnibind_ros/msg/Detections"

_When = Callable[[str], int]  # the time of what was found in the data of a sensor, ns

_MOST = 256  # boxes of a message that are used, the surest
_FAR = 1e6  # m, beyond what any sensor sees
_SHARE = 0.1  # of the sides of a box in space that its centre is uncertain by: detectors do not say


class DetectionReader:
    """Makes regions of what detectors say; what cannot be used is counted, with a sentence.

    Args:
        rig: Cameras and frames.
        frames: Gives the frames of each sensor that takes pictures, as far as known, by sensor; that of its messages
            first, which detectors repeat.
        moment: Gives the time on the clock of the ticks, ns, of what was found in the data of a sensor, by the stamp
            that the detector repeated, ns or ``None``, the time of receipt, ns, and the sensor; ``""``: it is not known
            whose they are.

    Attributes:
        rejections: By topic.
    """

    def __init__(
        self,
        rig: Rig,
        frames: Callable[[], Mapping[str, Sequence[str]]],
        moment: Callable[[int | None, int, str], int] = lambda stamp_ns, receive_ns, sensor: stamp_ns or receive_ns,
    ) -> None:
        self.rejections = Rejections()
        self._rig = rig
        self._frames = frames
        self._moment = moment

    def read(self, message: Any, topic: str, receive_ns: int, sensor: str = "") -> list[Region2D | Region3D]:
        """The regions of a message.

        Args:
            message: One of :data:`DETECTIONS_2D`, :data:`DETECTIONS_3D`, :data:`DETECTIONS`, of rclpy or rosbags.
            topic: Its topic, which becomes the regions' proposer.
            receive_ns: When it was received: its time, if it has no stamp.
            sensor: In whose picture boxes are; ``""``: in that of the sensor whose frame the message names.
        """
        found: list[Region2D | Region3D] = []
        for one in self._surest(message, topic):
            with self._counted(topic):
                stamp = stamp_ns(message) or stamp_ns(one)
                when = partial(self._moment, stamp, receive_ns)
                frame = message.header.frame_id or getattr(getattr(one, "header", None), "frame_id", "")
                if hasattr(one, "bbox"):
                    found.append(
                        self._flat(_rectangle(one.bbox, topic), None, one, topic, frame, when, sensor)
                        if hasattr(one.bbox, "size_x")
                        else self._solid(one.bbox.center, one.bbox.size, one, topic, frame, when(sensor))
                    )
                else:
                    found += self._own(one, topic, frame, when, sensor)
        return found

    @contextmanager
    def _counted(self, topic: str) -> Iterator[None]:
        """Goes on after something that cannot be used."""
        try:
            yield
        except InvalidInputError as error:
            self.rejections.add(topic, InvalidInputError(topic, error.value, error.expected))

    def _surest(self, message: Any, topic: str) -> Sequence[Any]:
        every: Sequence[Any] = message.detections
        if len(every) <= _MOST:
            return every
        error = InvalidInputError(topic, f"{len(every)} detections in one message", f"{_MOST} or fewer: the surest")
        self.rejections.add(topic, error, len(every) - _MOST)
        return heapq.nlargest(_MOST, every, key=lambda one: score if (score := _score(one)) >= 0 else -1.0)

    def _own(self, one: Any, topic: str, frame: str, when: _When, sensor: str) -> list[Region2D | Region3D]:
        """Regions of our ``Detection``: its box in a picture, its box in space, or both; each may be bad by itself."""
        found: list[Region2D | Region3D] = []
        sensor = one.sensor or sensor
        box = Rectangle(one.left, one.top, one.right, one.bottom)
        flat, solid = any(box), any((one.size.x, one.size.y, one.size.z))  # NaN, too
        if flat or solid:
            _checked_score(one, topic)  # once for both
        if flat:
            with self._counted(topic):
                found.append(self._flat(box, one.mask, one, topic, frame, when, sensor))
        if solid:
            with self._counted(topic):
                found.append(self._solid(one.pose, one.size, one, topic, frame, when(sensor)))
        if not (flat or solid):
            raise InvalidInputError(topic, "a detection without a box", "one in a picture, in space, or both")
        return found

    def _flat(self, box: Rectangle, mask: Any, one: Any, topic: str, frame: str, when: _When, sensor: str) -> Region2D:
        sensor = sensor or self._sensor_of(frame, topic)
        time_ns = when(sensor)
        whole = Region2D(sensor, box, time_ns, _checked_score(one, topic), topic)  # refuses what is no box
        camera = self._rig.cameras.get(sensor)
        if camera is not None:
            box = box.within(Rectangle(0, 0, camera.width, camera.height))
            if box.width <= 0 or box.height <= 0:
                told = ", ".join(f"{value:g}" for value in whole.box)
                expected = f"one inside of its {camera.width} x {camera.height} pixels"
                raise InvalidInputError(topic, f"a box {told} outside of the picture of '{sensor}'", expected)
        pixels = None if mask is None or not len(mask) else _mask(mask, whole.box, box, topic)
        return Region2D(sensor, box, time_ns, whole.score, topic, pixels)

    def _sensor_of(self, frame: str, topic: str) -> str:
        frames = self._frames()
        named = frame.lstrip("/")
        names = [name for name, own in frames.items() if named and named == own[0].lstrip("/")]
        names = names or [name for name, own in frames.items() if named in own[1:]]
        if len(names) == 1:
            return names[0]
        if names:
            found = f"boxes in the frame '{frame}', which {' and '.join(names)} have"
            raise InvalidInputError(topic, found, f"the sensor's name after the topic ('{topic} {names[0]}')")
        known = ", ".join(f"'{one}' ({name})" for name, own in frames.items() for one in own) or "none known yet"
        raise InvalidInputError(topic, f"boxes in the frame '{frame}'", f"that of a sensor with pictures: {known}")

    def _solid(self, pose: Any, size: Any, one: Any, topic: str, frame: str, time_ns: int) -> Region3D:
        sides = np.array([size.x, size.y, size.z], np.float64)
        place, turned = pose.position, pose.orientation
        local = Transform.of((place.x, place.y, place.z), (turned.x, turned.y, turned.z, turned.w))
        if not (np.isfinite(sides).all() and (sides > 0).all()):
            raise InvalidInputError(topic, f"a box of {sides.tolist()} m", "finite sides above 0")
        if max(np.abs(local.translation).max(), sides.max()) > _FAR:
            found = f"a box of {sides.tolist()} m at {local.translation.tolist()} m"
            raise InvalidInputError(topic, found, f"{_FAR:g} m or less")
        if not frame:
            raise InvalidInputError(topic, "a box in space without a frame_id", "the frame that it is in")
        way = self._rig.tree.lookup(self._rig.fixed, frame, time_ns) @ local
        spread = way.rotation @ np.diag((_SHARE * sides) ** 2) @ way.rotation.T
        volume = Volume(way.translation, sides, way.rotation, spread)
        return Region3D(volume, time_ns, "", _checked_score(one, topic), topic)


def _rectangle(box: Any, topic: str) -> Rectangle:
    """Of a ``BoundingBox2D``; of one that is turned, what it lies in."""
    place = getattr(box.center, "position", box.center)  # vision_msgs has its own Pose2D since Humble
    turned = box.center.theta
    if not math.isfinite(turned):
        raise InvalidInputError(topic, f"a box turned by {turned:g} rad", "a finite angle")
    across, down = abs(math.cos(turned)), abs(math.sin(turned))
    wide = (across * box.size_x + down * box.size_y) / 2
    high = (down * box.size_x + across * box.size_y) / 2
    if not (box.size_x > 0 and box.size_y > 0):
        raise InvalidInputError(topic, f"a box of {box.size_x:g} x {box.size_y:g} pixels", "finite sides above 0")
    return Rectangle(place.x - wide, place.y - high, place.x + wide, place.y + high)


def _score(one: Any) -> float:
    """Of the surest hypothesis of a detection; 1 if it has none."""
    if hasattr(one, "score"):
        return float(one.score)
    scores = (getattr(result, "hypothesis", result).score for result in one.results)
    return max(map(float, scores), default=1.0)


def _checked_score(one: Any, topic: str) -> float:
    score = _score(one)
    if not 0 <= score <= 1:  # NaN, too
        raise InvalidInputError(topic, f"a detection with a score of {score:g}", "0 to 1")
    return score


def _mask(mask: Any, whole: Rectangle, cut: Rectangle, topic: str) -> NDArray[np.bool_]:
    """The mask of a box, of what is left of the box at the edge of the picture."""
    (left, top), (right, bottom) = map(math.floor, whole[:2]), map(math.ceil, whole[2:])
    values = as_bytes(mask)
    if values.size != (right - left) * (bottom - top):
        expected = f"{right - left} x {bottom - top}: a byte for each pixel of the box, rounded outwards"
        raise InvalidInputError(topic, f"a mask of {values.size} bytes", expected)
    pixels = values.reshape(bottom - top, right - left) != 0
    rows = slice(math.floor(cut.top) - top, math.ceil(cut.bottom) - top)
    return pixels[rows, math.floor(cut.left) - left : math.ceil(cut.right) - left]
