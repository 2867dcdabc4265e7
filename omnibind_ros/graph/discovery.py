"""Which topics are sensors: by message type and name, within limits. No ROS is needed to decide that."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from omnibind_core import modalities
from omnibind_ros import messages

_ENDINGS = ("image", "raw", "color", "colour", "rect", "rgb", "mono", "data", "points", "events", "audio", "compressed")
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "zstd")


@dataclass(frozen=True)
class DiscoveryRules:
    """Which topics are adopted.

    Attributes:
        include: One of these must be found in the topic's name; empty accepts any.
        exclude: None of these may be found in it.
        limit: Topics adopted at most.
        forget: s without a publisher after which a topic is let go.
    """

    include: tuple[re.Pattern[str], ...] = ()
    exclude: tuple[re.Pattern[str], ...] = ()
    limit: int = 8
    forget: float = 10.0

    def accepts(self, topic: str) -> bool:
        """Whether the name of a topic is acceptable."""
        included = not self.include or any(pattern.search(topic) for pattern in self.include)
        return included and not any(pattern.search(topic) for pattern in self.exclude)


def modality_of(topic: str, ros_type: str, known: Collection[str]) -> str | None:
    """Modality of a sensor by its topic's type and name; ``None`` if it is no sensor's.

    Text and ``ModalityFrame`` are never adopted: their types do not say that a sensor is behind them. Where several
    modalities have messages of the type, the topic is of the one that finds its ``topics`` in the name, of two such
    ones of that which is known for less long (a plug-in's before a built-in one); else of the first without ``topics``.

    Args:
        topic: Full name.
        ros_type: For example ``"sensor_msgs/msg/Image"``.
        known: Modalities that may be adopted.
    """
    if ros_type == messages.MODALITY_FRAME:
        return None
    fitting = [name for name in modalities.sensors() if name in known and ros_type in messages.types_for(name)]
    if len(fitting) <= 1:
        return fitting[0] if fitting else None
    words = {name: modalities.get(name).topics for name in fitting}
    claims = [name for name in reversed(fitting) if words[name] and re.search(words[name], topic, re.IGNORECASE)]
    return next(iter(claims), next((name for name in fitting if not words[name]), None))


def name_of(topic: str, namespace: str, taken: Collection[str]) -> str:
    """Name for the sensor of a topic: what the topic's name says beyond the kind of its data.

    Args:
        topic: Full name, for example ``"/robot/front/camera/image_raw"``.
        namespace: The node's, left out.
        taken: Names that are in use.
    """
    words = topic.removeprefix(namespace.rstrip("/")).strip("/").split("/")
    kept = [word for word in words if not set(word.split("_")) <= set(_ENDINGS)] or words
    stem = re.sub(r"\W", "_", "_".join(kept))
    stem = stem if stem[:1].isalpha() else f"sensor_{stem}"
    numbered = (stem if count == 1 else f"{stem}_{count}" for count in range(1, len(taken) + 2))
    return next(name for name in numbered if name not in taken)


@dataclass
class Adopted:
    """A topic that was adopted.

    Attributes:
        topic: Full name.
        type: Message type.
        seen: When a publisher was seen last, s.
    """

    topic: str
    type: str
    seen: float


@dataclass
class Discovery:
    """Keeps account of adopted topics.

    Attributes:
        rules: Which topics are adopted.
        adopted: By sensor name.
        refused: Why a topic that looks like a sensor's is not adopted, by topic.
    """

    rules: DiscoveryRules
    adopted: dict[str, Adopted] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def candidates(
        self, graph: Iterable[tuple[str, Collection[str]]], known: Collection[str], used: Collection[str]
    ) -> list[tuple[str, str, str]]:
        """Topics that should be adopted: ``(topic, type, modality)``, in the order of their names.

        Args:
            graph: Every topic with publishers, and their types.
            known: Modalities that may be adopted.
            used: Topics that are some sensor's already.
        """
        topics: Mapping[str, Collection[str]] = dict(graph)
        taken = {*used, *(item.topic for item in self.adopted.values())}
        self.refused = {}
        found: list[tuple[str, str, str]] = []
        for topic in sorted(set(topics) - taken):
            modality = modality_of(topic, next(iter(topics[topic])), known)
            stem, _, ending = topic.rpartition("/")
            if modality is None or not self.rules.accepts(topic) or (ending in _TRANSPORTS and stem in topics):
                continue  # the compressed form of a picture is no second camera
            if len(topics[topic]) > 1:
                self.refused[topic] = (
                    f"it has messages of {len(topics[topic])} types: {', '.join(sorted(topics[topic]))}"
                )
            elif len(self.adopted) + len(found) >= self.rules.limit:
                self.refused[topic] = f"{self.rules.limit} topics are adopted already (discover_limit)"
            else:
                found.append((topic, next(iter(topics[topic])), modality))
        return found

    def lost(self, live: Collection[str], now: float) -> list[str]:
        """Names of the sensors whose topics have had no publisher for too long.

        Args:
            live: Topics with publishers.
            now: s, of any steady clock.
        """
        for item in self.adopted.values():
            if item.topic in live:
                item.seen = now
        return [name for name, item in self.adopted.items() if now - item.seen > self.rules.forget]
