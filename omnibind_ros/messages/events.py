"""Events: our ``EventArray``, the packets of ``event_camera_msgs``, and the arrays of older drivers."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError, MissingDependencyError
from omnibind_core.modalities import Events
from omnibind_core.modalities.event.evt3 import Evt3Decoder, Evt3Filter, Triggers, most_events
from omnibind_core.optional import require
from omnibind_ros.messages.fields import DecodeOptions, as_bytes
from omnibind_ros.messages.registry import decodes

EVENT_PACKET = "event_camera_msgs/msg/EventPacket"
OLD_EVENT_PACKET = "event_array_msgs/msg/EventArray"  # what event_camera_msgs was called before 2023
EVENT_ARRAY = "omnibind_ros/msg/EventArray"
PROPHESEE_EVENTS = "prophesee_event_msgs/msg/EventArray"
DVS_EVENTS = "dvs_msgs/msg/EventArray"

ENCODINGS = ("evt3", "mono", "trigger")
"""Encodings of ``EventPacket`` that need no other package."""
BY_PACKAGE = ("libcaer", "libcaer_cmp")
"""Encodings that need ``event_camera_py``."""


class _Codec(Protocol):
    """Decodes the packets of one stream in order."""

    @property
    def malformed(self) -> int:
        """Words so far that made no sense."""
        ...

    @property
    def unplaced(self) -> int:
        """Events so far that were left out because their time or place was not known."""
        ...

    def decode(self, message: Any, source: str) -> tuple[Events, Triggers]:
        """Events and triggers of the next packet."""
        ...

    def reset(self) -> None:
        """Packets are missing before the next one."""
        ...


@decodes(OLD_EVENT_PACKET, "event")
@decodes(EVENT_PACKET, "event")
class PacketDecoder:
    """``EventPacket`` of one publisher, which has to get every packet in order, because packets build on one another.

    A packet whose number does not follow that of the last one begins anew: after lost packets, when a bag loops, when
    the driver was restarted. Events whose time or place stood in a lost packet are left out.

    Attributes:
        gaps: How often packets were missing so far.
    """

    def __init__(self) -> None:
        self.gaps = 0
        self._codec: _Codec | None = None
        self._layout: tuple[str, int, int] | None = None
        self._next: int | None = None  # number of the packet that is expected; None: any is a new beginning

    def __call__(self, message: Any, modality: str, options: DecodeOptions, source: str) -> Events:
        """Events of the next packet."""
        data = as_bytes(message.events)
        word = 8 if message.encoding in ENCODINGS[1:] else 2  # bytes
        number = most_events(data) if message.encoding == "evt3" else data.size / word
        options.limits.check("events", number, source)
        return self.decode(message, source)[0]

    def decode(self, message: Any, source: str) -> tuple[Events, Triggers]:
        """Events and triggers of the next packet.

        Raises:
            InvalidInputError: The packet is malformed or of an unknown encoding.
        """
        layout = (message.encoding, message.width, message.height)
        if self._codec is None or layout != self._layout:
            self._codec, self._layout, self._next = _codec(*layout, source), layout, None
        elif message.seq != self._next:
            self._codec.reset()
            self.gaps += self._next is not None
        self._next = None
        decoded = self._codec.decode(message, source)
        self._next = message.seq + 1
        return decoded

    @property
    def losses(self) -> dict[str, int]:
        """:attr:`gaps`, :attr:`unplaced` and :attr:`malformed` by the names that ``/diagnostics`` has for them."""
        return {"packet_gaps": self.gaps, "unplaced_events": self.unplaced, "malformed_words": self.malformed}

    @property
    def malformed(self) -> int:
        """Words so far that made no sense, where the encoding has words."""
        return self._codec.malformed if self._codec is not None else 0

    @property
    def unplaced(self) -> int:
        """Events so far that were left out because their time or place stood in a lost packet."""
        return self._codec.unplaced if self._codec is not None else 0


def _codec(encoding: str, width: int, height: int, source: str) -> _Codec:
    if encoding not in ENCODINGS + BY_PACKAGE:
        expected = f"one of {', '.join(ENCODINGS)}, and with event_camera_py {', '.join(BY_PACKAGE)}"
        raise InvalidInputError(source, f"events encoded as '{encoding}'", expected)
    if not (0 < width < 1 << 16 and 0 < height < 1 << 16):
        raise InvalidInputError(source, f"a sensor of {width} x {height} pixels", "1 to 65535 each")
    package = _event_camera_py()
    if package is not None and encoding not in ("mono", "trigger"):  # NumPy views these two
        return _EventCameraPy(package, encoding, width, height)
    if encoding == "evt3":
        return _Evt3(width, height)
    if encoding in BY_PACKAGE:
        expected = f"one of {', '.join(ENCODINGS)}: for {encoding} apt install ros-$ROS_DISTRO-event-camera-py"
        raise InvalidInputError(source, f"events encoded as '{encoding}'", expected)
    return _Mono(width, height, triggers=encoding == "trigger")


@functools.cache
def _event_camera_py() -> ModuleType | None:
    try:
        return require("event_camera_py", "Decoding of event packets")
    except MissingDependencyError:
        return None


class _Evt3:
    def __init__(self, width: int, height: int) -> None:
        self._decoder = Evt3Decoder(width, height)

    @property
    def malformed(self) -> int:
        return self._decoder.malformed

    @property
    def unplaced(self) -> int:
        return self._decoder.unplaced

    def decode(self, message: Any, source: str) -> tuple[Events, Triggers]:
        return self._decoder.decode(as_bytes(message.events), source)

    def reset(self) -> None:
        self._decoder.reset()


class _Mono:
    """``mono`` and ``trigger`` of event_camera_codecs: 64 bits per event, which stand for themselves.

    ns after the packet's base in 32 bits, then 16 bits of x, 15 bits of y or of the trigger's channel, and polarity.
    """

    malformed = unplaced = 0

    def __init__(self, width: int, height: int, triggers: bool) -> None:
        self._size = width, height
        self._triggers = triggers

    def decode(self, message: Any, source: str) -> tuple[Events, Triggers]:
        data = as_bytes(message.events)
        if data.size % 8:
            raise InvalidInputError(source, f"{data.size} bytes of '{message.encoding}'", "8 bytes per event")
        words = data.view(">u8" if message.is_bigendian else "<u8")
        base, rest = divmod(message.time_base, 1000)
        t = ((words & 0xFFFFFFFF).astype(np.int64) + rest) // 1000 + base
        high, p = (words >> 48 & 0x7FFF).astype(np.uint16), (words >> 63).astype(np.uint8)
        if self._triggers:
            return _no_events(*self._size), Triggers(t, p, high.astype(np.uint8))
        return Events((words >> 32 & 0xFFFF).astype(np.uint16), high, t, p, *self._size), _no_triggers()

    def reset(self) -> None:
        pass


class _EventCameraPy:
    """The C++ decoders of ros-event-camera.

    They stop at an undefined word of EVT3, and after a gap place events at the row and column that held before it.
    """

    def __init__(self, package: ModuleType, encoding: str, width: int, height: int) -> None:
        self._package = package
        self._encoding = encoding
        self._size = width, height
        self._filter = Evt3Filter()
        self.reset()

    @property
    def malformed(self) -> int:
        return self._filter.malformed

    @property
    def unplaced(self) -> int:
        return self._filter.unplaced

    def reset(self) -> None:
        self._decoder = self._package.Decoder()
        self._filter.reset()
        self._last = 0  # time of the last event, µs

    def decode(self, message: Any, source: str) -> tuple[Events, Triggers]:
        data = as_bytes(message.events)
        if self._encoding == "evt3":
            data = self._filter.clean(data, source)
        try:
            self._decoder.decode_array(self._encoding, *self._size, message.time_base, data)
        except (RuntimeError, ValueError, TypeError) as error:
            found = f"{data.size} bytes of '{self._encoding}' that event_camera_py cannot decode"
            raise InvalidInputError(source, found, f"whole events ({error})") from error
        events, triggers = self._decoder.get_cd_events(), self._decoder.get_ext_trig_events()
        t = self._times(events["t"])
        return (
            Events(events["x"], events["y"], t, events["p"].astype(np.uint8), *self._size),
            Triggers(triggers["t"].astype(np.int64), triggers["p"].astype(np.uint8), triggers["id"].astype(np.uint8)),
        )

    def _times(self, t: NDArray[np.int32]) -> NDArray[np.int64]:
        """Times that go on where the 32 bits of the package roll over, and that never go back."""
        if not len(t):
            return t.astype(np.int64)
        steps = np.diff(t, prepend=np.int64(self._last).astype(np.int32)).astype(np.int32)
        times = np.maximum.accumulate(self._last + np.cumsum(steps, dtype=np.int64))
        self._last = int(times[-1])
        return times


def _no_events(width: int, height: int) -> Events:
    none = np.zeros(0, np.uint16)
    return Events(none, none, np.zeros(0, np.int64), np.zeros(0, np.uint8), width, height)


def _no_triggers() -> Triggers:
    return Triggers(np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.uint8))


@decodes(EVENT_ARRAY, "event")
def event_array(message: Any, modality: str, options: DecodeOptions, source: str) -> Events:
    """Our own message; views of it, but for the times."""
    x, y, t, p = (np.asarray(getattr(message, name)) for name in "xytp")
    options.limits.check("events", x.size, source)
    if not x.size == y.size == t.size == p.size:
        raise InvalidInputError(source, f"{x.size} x, {y.size} y, {t.size} t, {p.size} p", "equally many of each")
    return Events(x, y, t.astype(np.int64), p, message.width, message.height)


@decodes(DVS_EVENTS, "event")
@decodes(PROPHESEE_EVENTS, "event")
def event_list(message: Any, modality: str, options: DecodeOptions, source: str) -> Events:
    """``EventArray`` of ``dvs_msgs`` and ``prophesee_event_msgs``: one object per event, which takes its time."""
    events = message.events
    number = len(events)
    options.limits.check("events", number, source)
    t = np.fromiter((event.ts.sec * 1_000_000 + event.ts.nanosec // 1000 for event in events), np.int64, number)
    return Events(
        np.fromiter((event.x for event in events), np.uint16, number),
        np.fromiter((event.y for event in events), np.uint16, number),
        t,
        np.fromiter((event.polarity for event in events), np.uint8, number),
        message.width,
        message.height,
    )


def event_array_fields(events: Events) -> dict[str, Any]:
    """Fields of ``omnibind_ros/EventArray``, without the header, whose stamp is the time of the first event."""
    start = events.t[0] if len(events) else 0
    return {
        "width": events.width,
        "height": events.height,
        "x": events.x.astype(np.uint16, copy=False),
        "y": events.y.astype(np.uint16, copy=False),
        "t": (events.t - start).astype(np.uint32),
        "p": events.p.astype(np.uint8, copy=False),
    }
