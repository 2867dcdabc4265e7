"""From the messages of one sensor to the canvas: decoded, checked, not more often than a person can see."""

from __future__ import annotations

from typing import Any

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities import Events, Sound
from omnibind_core.runtime.types import Encoded
from omnibind_ros.messages import DecodeOptions, Decoder
from omnibind_ros.messages import stamp_ns as stamp_of
from omnibind_ros.view.canvas import Canvas

_SECOND = 1_000_000_000
_EARLY = 0.9  # of a period: a 10 Hz camera that is a little early still shows every picture at 10 Hz
_FAR = 1.0  # s; a stamp that is further off is of another clock: one picture would lie years from all others
_GRUMBLE = 1.0  # s between two lines about unusable messages of one sensor


class Feed:
    """Shows the messages of one sensor.

    Args:
        canvas: Where to.
        name: Name of the sensor.
        modality: Its modality.
        options: What its messages do not say.
        rate: Pictures or clouds a second that are shown at most; of sound everything is.

    Attributes:
        options: As given; may be changed.
    """

    def __init__(self, canvas: Canvas, name: str, modality: str, options: DecodeOptions, rate: float) -> None:
        self.name = name
        self._canvas = canvas
        self._modality = modalities.get(modality)
        self._decoder = Decoder(modality, name)
        self.options = options
        self._period_ns = round(_SECOND / rate)
        self._shown_ns: int | None = None
        self._chunks: list[tuple[int, Events]] = []
        self._grumbled_ns: int | None = None

    def push(self, receive_ns: int, ros_type: str, message: Any) -> None:
        """Takes the next message. It is shown at its stamp, or where that is far off, when it was received.

        Args:
            receive_ns: When it was received, ns.
            ros_type: For example ``"sensor_msgs/msg/Image"``.
            message: The message, of rclpy or rosbags.
        """
        stamp_ns = stamp_of(message)
        if stamp_ns is None or abs(stamp_ns - receive_ns) > _FAR * _SECOND:
            stamp_ns = receive_ns
        if not self._modality.is_stream and not self._due(stamp_ns):
            return  # a frame that will not be shown is not decoded
        try:
            raw = self._decoder.decode(ros_type, message, self.options)
            if isinstance(raw, Encoded):
                self._show(stamp_ns, raw)
            elif isinstance(raw, Events):
                self._collect(stamp_ns, raw)
            elif not (isinstance(raw, Sound) and not raw.samples.size):
                self._show(stamp_ns, self._modality.check(raw, self.name))
        except InvalidInputError as error:
            self._grumble(stamp_ns, str(error))

    def _due(self, stamp_ns: int) -> bool:
        # Also when time has gone backwards.
        return self._shown_ns is None or not 0 <= stamp_ns - self._shown_ns < self._period_ns * _EARLY

    def _show(self, stamp_ns: int, raw: Any) -> None:
        self._shown_ns = stamp_ns
        self._canvas.item(self.name, stamp_ns, raw)

    def _collect(self, stamp_ns: int, events: Events) -> None:
        """Events are collected until a picture of them is due."""
        if len(events):
            self._chunks.append((stamp_ns, self._modality.check(events, self.name)))
        if not self._chunks or not self._due(stamp_ns):
            return
        chunks, self._chunks = self._chunks, []
        end_ns = max(stamp + round(chunk.duration * _SECOND) for stamp, chunk in chunks)
        self._show(stamp_ns, self._modality.join(chunks, end_ns, self._period_ns / _SECOND))

    def _grumble(self, stamp_ns: int, reason: str) -> None:
        last = self._grumbled_ns
        if last is None or not 0 <= stamp_ns - last < _GRUMBLE * _SECOND:
            self._grumbled_ns = stamp_ns
            self._canvas.say(stamp_ns, reason if self.name in reason else f"[{self.name}] {reason}", good=False)
