"""What is in a bag, and what this package would make of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnibind_core import modalities
from omnibind_core.errors import DataError, InvalidInputError, PartlyReadError
from omnibind_core.modalities import Events
from omnibind_core.runtime.types import Encoded
from omnibind_ros import messages
from omnibind_ros.bags import read, types
from omnibind_ros.graph.discovery import modality_of
from omnibind_ros.graph.judging import look_of
from omnibind_ros.messages import DecodeOptions, Decoder, PacketDecoder


@dataclass
class EventSummary:
    """The events of one topic.

    Attributes:
        encoding: Of the packets; ``""`` for plain arrays.
        width: Sensor width in pixels.
        height: Sensor height in pixels.
        events: How many.
        brighter: How many of them say that it became brighter.
        triggers: Edges on the external trigger inputs, by input and edge: ``"6 rising"``.
        first_us: Time of the first event, µs on the clock of the events.
        last_us: Time of the last event.
        gaps: How often packets were missing.
        unplaced: Events left out after a gap, because their time or place stood in a missing packet.
        malformed: Words that made no sense.
        decode_s: s that decoding took.
    """

    encoding: str = ""
    width: int = 0
    height: int = 0
    events: int = 0
    brighter: int = 0
    triggers: dict[str, int] = field(default_factory=dict)
    first_us: int | None = None
    last_us: int | None = None
    gaps: int = 0
    unplaced: int = 0
    malformed: int = 0
    decode_s: float = 0.0

    @property
    def span_s(self) -> float:
        """S from the first event to the last."""
        return 0.0 if self.first_us is None or self.last_us is None else (self.last_us - self.first_us) / 1e6


@dataclass
class TopicSummary:
    """One topic of a bag.

    Attributes:
        topic: Its name.
        type: ROS type of its messages.
        messages: How many.
        first_ns: Time of the first one, ns.
        last_ns: Time of the last one.
        modality: What a node would use it for; ``""``: nothing.
        content: What the first message holds, in words.
        rejected: Messages, of those that were decoded, that cannot be used.
        reason: Why, of the last one, or why the topic cannot be read.
        events: Its events, if it holds events.
        skipped: Whether the topic cannot be read at all.
    """

    topic: str
    type: str
    messages: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    modality: str = ""
    content: str = ""
    rejected: int = 0
    reason: str = ""
    events: EventSummary | None = None
    skipped: bool = False

    @property
    def span_s(self) -> float:
        """S from the first message to the last."""
        return 0.0 if self.first_ns is None or self.last_ns is None else (self.last_ns - self.first_ns) / 1e9

    @property
    def rate(self) -> float | None:
        """Messages per second; ``None`` if fewer than two were recorded at different times."""
        return (self.messages - 1) / self.span_s if self.span_s > 0 else None


@dataclass
class BagSummary:
    """A bag.

    Attributes:
        path: Where it is.
        topics: Its topics, by name.
        damage: Why it could not be read to its end; ``""`` if it could.
        partly: Whether all that is whole was read, what lies behind the damage included.
    """

    path: str
    topics: list[TopicSummary]
    damage: str = ""
    partly: bool = False

    @property
    def messages(self) -> int:
        """Messages that were read."""
        return sum(topic.messages for topic in self.topics if not topic.skipped)

    @property
    def start_ns(self) -> int | None:
        """Time of the first message, ns."""
        return min((topic.first_ns for topic in self.topics if topic.first_ns is not None), default=None)

    @property
    def span_s(self) -> float:
        """S from the first message to the last."""
        ends = [topic.last_ns for topic in self.topics if topic.last_ns is not None]
        return (max(ends) - (self.start_ns or 0)) / 1e9 if ends else 0.0


def inspect(path: Path) -> BagSummary:
    """Reads a bag from beginning to end, and decodes all events and the first message of every other sensor.

    A bag that is damaged is summarised as far as it can be read.

    Args:
        path: Folder of the bag, or its only file.

    Raises:
        DataError: There is no bag that can be read at all.
        MissingDependencyError: rosbags is not installed.
    """
    inspectors = {
        topic: _Inspector(TopicSummary(topic, ros_type)) for topic, ros_type in sorted(read.topics(path).items())
    }
    damage, partly = "", False
    try:
        for item in read.messages(path):
            inspectors[item.topic].add(item)
    except DataError as error:
        damage, partly = str(error), isinstance(error, PartlyReadError)
    topics = [inspector.finish() for inspector in inspectors.values()]
    for topic, one in sorted(read.skipped(path).items()):
        topics.append(TopicSummary(topic, one.type, one.messages, reason=one.reason, skipped=True))
    return BagSummary(str(path), topics, damage, partly)


class _Inspector:
    """Fills the summary of one topic, message by message."""

    def __init__(self, summary: TopicSummary) -> None:
        self._summary = summary
        summary.modality = modality_of(summary.topic, summary.type, modalities.names()) or ""
        if summary.type == messages.STRING:
            summary.modality = "text"
        self._triggers: Counter[str] = Counter()
        self._packets: PacketDecoder | None = None
        if summary.type in (messages.EVENT_PACKET, messages.OLD_EVENT_PACKET):
            self._packets = PacketDecoder()
        if summary.modality == "event":
            summary.events = EventSummary()

    def add(self, item: types.RecordedMessage) -> None:
        summary = self._summary
        summary.messages += 1
        summary.last_ns = item.time_ns
        if summary.first_ns is None:
            summary.first_ns = item.time_ns
        if summary.events is None and summary.messages > 1:
            return
        try:
            message = types.decode(item)
            if summary.messages == 1:
                summary.content = _CONTENTS.get(summary.type, lambda _: "")(message)
                if summary.type in (messages.IMAGE, messages.COMPRESSED_IMAGE):
                    look = look_of(summary.type, message)
                    summary.modality = modality_of(summary.topic, summary.type, modalities.names(), look) or ""
            if summary.type == messages.MODALITY_FRAME and message.modality in modalities.names():
                summary.modality = message.modality
            if summary.events is not None:
                self._add_events(summary.events, message)
            elif summary.modality:
                self._try(message)
        except InvalidInputError as error:
            summary.rejected += 1
            summary.reason = str(error)

    def _try(self, message: Any) -> None:
        name, modality = self._summary.topic, self._summary.modality
        raw = Decoder(modality, name).decode(self._summary.type, message, DecodeOptions())
        if not isinstance(raw, Encoded):
            modalities.get(modality).check(raw, name)

    def _add_events(self, summary: EventSummary, message: Any) -> None:
        begin = time.perf_counter()
        events: Events
        if self._packets is not None:
            summary.encoding = message.encoding
            events, triggers = self._packets.decode(message, self._summary.topic)
            edges = zip(triggers.channel.tolist(), triggers.p.tolist(), strict=True)
            self._triggers.update(f"{channel} {('falling', 'rising')[edge]}" for channel, edge in edges)
        else:
            decoder = Decoder("event", self._summary.topic)
            events = decoder.decode(self._summary.type, message, DecodeOptions())
        if len(events):
            events = modalities.get("event").check(events, self._summary.topic)
        summary.decode_s += time.perf_counter() - begin
        summary.width, summary.height = events.width, events.height
        if not len(events):
            return
        # Our own message counts from its header.
        origin = (messages.stamp_ns(message) or 0) // 1000 if self._summary.type == messages.EVENT_ARRAY else 0
        first, last = int(events.t[0]) + origin, int(events.t[-1]) + origin
        summary.events += len(events)
        summary.brighter += int(events.p.sum())
        summary.first_us = first if summary.first_us is None else min(summary.first_us, first)
        summary.last_us = last if summary.last_us is None else max(summary.last_us, last)

    def finish(self) -> TopicSummary:
        events, packets = self._summary.events, self._packets
        if events is not None and packets is not None:
            events.triggers = dict(sorted(self._triggers.items()))
            events.gaps, events.unplaced, events.malformed = packets.gaps, packets.unplaced, packets.malformed
        return self._summary


_CONTENTS: Mapping[str, Callable[[Any], str]] = {
    messages.IMAGE: lambda m: f"{m.width} x {m.height} {m.encoding}",
    messages.COMPRESSED_IMAGE: lambda m: m.format,
    messages.POINT_CLOUD: lambda m: f"{m.width * m.height} points: {', '.join(field.name for field in m.fields)}",
    messages.LASER_SCAN: lambda m: f"{len(m.ranges)} ranges",
    messages.EVENT_ARRAY: lambda m: f"{m.width} x {m.height}",
    messages.EVENT_PACKET: lambda m: f"{m.width} x {m.height} {m.encoding}",
    messages.OLD_EVENT_PACKET: lambda m: f"{m.width} x {m.height} {m.encoding}",
    messages.DVS_EVENTS: lambda m: f"{m.width} x {m.height}",
    messages.PROPHESEE_EVENTS: lambda m: f"{m.width} x {m.height}",
    messages.AUDIO_CHUNK: lambda m: f"{m.sample_rate} Hz, {m.channels} channels",
    messages.AUDIO_STAMPED: lambda m: f"{m.audio.info.rate} Hz, {m.audio.info.channels} channels",
    messages.AUDIO_INFO: lambda m: ", ".join(f"{key} {value}" for key, value in vars(m).items() if key[0] != "_"),
    messages.MODALITY_FRAME: lambda m: f"{m.modality} for {m.model}, {list(map(int, m.shape))}",
}
