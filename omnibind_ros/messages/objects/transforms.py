"""Where frames are, by ``/tf``, ``/tf_static``, a robot's description and parameters, into a ``FrameTree``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnibind_core.errors import InvalidInputError
from omnibind_core.geometry import FrameTree, Transform
from omnibind_core.geometry.frames import SECOND, rpy
from omnibind_core.geometry.urdf import fixed_frames
from omnibind_ros.messages.objects.rejections import Rejections

TF_MESSAGE = "tf2_msgs/msg/TFMessage"
FORM = "parent child x y z roll pitch yaw"
"""What a transform that is given as a text consists of: two frames, metres and rad."""

_AHEAD = 5.0  # s: localisation dates its transforms into the future, by a second or so
_LONGEST = 100  # characters of a frame's name that are told
_BEHIND = 10.0  # s, as long as transforms are kept


def transform_of(text: str, source: str) -> tuple[str, str, Transform]:
    """Parent, child and transform of a text such as ``"base_link camera 0.1 0 0.3 0 0 1.57"``.

    Args:
        text: As :data:`FORM`: metres and rad about the fixed axes x, y, z, as in URDF.
        source: Where it is from, for error messages.

    Raises:
        InvalidInputError: It is no such text.
    """
    parts = text.split()
    try:
        x, y, z, roll, pitch, yaw = map(float, parts[2:])
        return parts[0], parts[1], Transform.of((x, y, z), rpy(roll, pitch, yaw))
    except InvalidInputError as error:
        raise InvalidInputError(source, f"'{text}': {error.value}", error.expected) from None
    except ValueError:
        raise InvalidInputError(source, f"'{text}'", f"'{FORM}', six numbers, m and rad") from None


class TransformReader:
    """Takes what messages say into a tree; what cannot be used is counted, with a sentence.

    Args:
        tree: The tree.

    Attributes:
        rejections: By topic and frame.
    """

    def __init__(self, tree: FrameTree) -> None:
        self.rejections = Rejections()
        self._tree = tree

    def read(self, message: Any, topic: str, static: bool, now_ns: int | None = None) -> None:
        """Takes a ``TFMessage``.

        Args:
            message: The message, of rclpy or rosbags.
            topic: For example ``"/tf"``.
            static: Whether its frames stand still (``/tf_static``).
            now_ns: The time on the clock of the ticks; what is stamped far from it is not used, as it is of another
                clock. ``None``: not known.
        """
        for stamped in message.transforms:
            parent, child = stamped.header.frame_id, stamped.child_frame_id
            source = f"{topic}: '{child[:_LONGEST]}' in '{parent[:_LONGEST]}'"
            try:
                stamp_ns = stamped.header.stamp.sec * SECOND + stamped.header.stamp.nanosec
                if not static and now_ns is not None:
                    _check_stamp(stamp_ns, now_ns, source)
                moved, turned = stamped.transform.translation, stamped.transform.rotation
                transform = Transform.of((moved.x, moved.y, moved.z), (turned.x, turned.y, turned.z, turned.w))
                self._tree.add(parent, child, transform, None if static else stamp_ns)
            except InvalidInputError as error:
                self.rejections.add(source, InvalidInputError(source, error.value, error.expected))

    def read_lines(self, lines: Sequence[str], source: str) -> None:
        """Takes transforms as texts, see :func:`transform_of`.

        Raises:
            InvalidInputError: One is none, or they make a loop.
        """
        for line in lines:
            frame = transform_of(line, source)
            try:
                self._tree.add(*frame)
            except InvalidInputError as error:
                raise InvalidInputError(source, f"'{line}': {error.value}", error.expected) from None

    def read_urdf(self, text: str, source: str) -> None:
        """Takes the fixed frames of a robot's description; none of one that is no tree.

        Raises:
            InvalidInputError: It is no URDF, or its frames make a loop.
        """
        frames = [*fixed_frames(text, source)]
        try:
            for tree in (FrameTree(), self._tree):  # first by themselves
                for frame in frames:
                    tree.add(*frame)
        except InvalidInputError as error:
            raise InvalidInputError(source, error.value, error.expected) from None

    def read_description(self, message: Any, topic: str) -> None:
        """Takes ``std_msgs/String`` of ``robot_description``; counted if it cannot be used."""
        try:
            self.read_urdf(message.data, topic)
        except InvalidInputError as error:
            self.rejections.add(topic, error)


def _check_stamp(stamp_ns: int, now_ns: int, source: str) -> None:
    late = (now_ns - stamp_ns) / SECOND
    if -_AHEAD <= late <= _BEHIND:
        return
    found = f"a transform stamped {abs(late):.3f} s {'after' if late < 0 else 'before'} now"
    expected = f"{_AHEAD:g} s after to {_BEHIND:g} s before: one clock for all (use_sim_time, synchronisation)"
    raise InvalidInputError(source, found, expected)
