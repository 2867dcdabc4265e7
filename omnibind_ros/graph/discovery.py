"""Which of the topics that are sensors' are adopted, within limits. No ROS is needed to decide that."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from omnibind_ros.graph.judging import Judgement, Look, Offer, judge, raw_topic, wants_look, words_of

_ENDINGS = ("image", "raw", "color", "colour", "rect", "rgb", "mono", "data", "points", "events", "audio", "compressed")
_STAYS = 0.5  # by so much a topic must be better than an adopted one to take its place


@dataclass(frozen=True)
class DiscoveryRules:
    """Which topics are adopted.

    Attributes:
        include: One of these must be found in the topic's name; empty accepts any. What one spells out is adopted
            whatever names say against it.
        exclude: None of these may be found in it.
        limit: Topics adopted at most.
        forget: s without a publisher after which a topic is let go.
    """

    include: tuple[re.Pattern[str], ...] = ()
    exclude: tuple[re.Pattern[str], ...] = ()
    limit: int = 8
    forget: float = 10.0

    def against(self, topic: str) -> str:
        """What the rules have against a topic; ``""``: nothing."""
        if self.include and not any(pattern.search(topic) for pattern in self.include):
            return "discover_include does not name it"
        excluding = next((pattern.pattern for pattern in self.exclude if pattern.search(topic)), "")
        return f"discover_exclude names it ('{excluding}')" if excluding else ""

    def spells_out(self, topic: str) -> bool:
        """Whether an ``include`` has the words that tell a topic from others: ``debug`` has, a namespace has not."""
        spelled = frozenset().union(*(words_of(one.pattern) for one in self.include if one.search(topic)))
        last = words_of(topic.rpartition("/")[2]) - words_of(" ".join(_ENDINGS))
        return bool(last and last <= spelled) or words_of(topic) <= spelled


def modality_of(topic: str, ros_type: str, known: Collection[str], look: Look | None = None) -> str | None:
    """Modality of a sensor by its topic's type and name; ``None`` if it is no sensor's. See :func:`judging.judge`.

    Args:
        topic: Full name.
        ros_type: For example ``"sensor_msgs/msg/Image"``.
        known: Modalities that may be adopted.
        look: What its messages say, if that is known.
    """
    judgement = judge(Offer(topic, (ros_type,), look=look or Look()), known, {})
    return judgement.modality or None if judgement is not None else None


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
        judgement: Why.
        seen: When a publisher was seen last, s.
    """

    judgement: Judgement
    seen: float

    @property
    def topic(self) -> str:
        """Full name."""
        return self.judgement.offer.topic


@dataclass
class Discovery:
    """Keeps account of adopted topics.

    Attributes:
        rules: Which topics are adopted.
        adopted: By sensor name.
        refused: Why a sensor's topic is not adopted, by topic: there is something that can be done about it.
        excluded: Why a topic is taken for no sensor's, or for no further one, by topic.
        pending: Topics whose messages have to be looked at first.
    """

    rules: DiscoveryRules
    adopted: dict[str, Adopted] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    pending: tuple[Offer, ...] = ()
    _told: str = ""
    _asked: tuple[Any, ...] = ()
    _answer: list[Judgement] = field(default_factory=list)

    def choose(self, offers: Iterable[Offer], known: Collection[str], used: Collection[str]) -> list[Judgement]:
        """The topics that should be adopted, those that are already among them, in the order of their names.

        The best of each modality goes before the second of another. What is adopted stays, unless something is better
        by :data:`_STAYS`.

        Args:
            offers: Every topic with publishers.
            known: Modalities that may be adopted.
            used: Topics that are some other sensor's already.
        """
        topics = {offer.topic: offer for offer in offers}
        mine = {item.topic: item for item in self.adopted.values()}
        question = topics, tuple(known), set(used), set(mine)
        if question == self._asked:  # asked four times a second, about hundreds of topics
            return self._answer
        self.refused, self.excluded, pending, judged = {}, {}, [], []
        shown: dict[tuple[str, ...], str] = {}  # what other sensors show already
        for topic in set(topics) & set(used):
            judgement = judge(topics[topic], known, topics, named=True)
            if judgement is not None and judgement.modality:
                shown |= dict.fromkeys(judgement.devices, topic)
        for topic in sorted(set(topics) - set(used)):
            judgement = self._judge(topics[topic], known, topics)
            if judgement is None:
                continue
            if not judgement.modality:
                self.excluded[topic] = judgement.reason
            elif wants_look(topics[topic]):
                pending.append(judgement)
                judged += [mine[topic].judgement] if topic in mine else []
            else:
                judged.append(judgement)
        judged += [item.judgement for topic, item in mine.items() if topic not in topics]  # silent for a while
        self.pending = tuple(item.offer for item in sorted(pending, key=lambda item: -item.score))
        self._asked, self._answer = question, self._best(judged, set(mine), shown)
        return self._answer

    def _judge(self, offer: Offer, known: Collection[str], topics: Mapping[str, Offer]) -> Judgement | None:
        topic = offer.topic
        if raw_topic(topic) != topic and raw_topic(topic) in topics:
            return None  # the compressed form of a picture is no second camera
        against = self.rules.against(topic)
        judgement = judge(offer, known, topics, named=self.rules.spells_out(topic))
        if judgement is None or not judgement.modality:
            return judgement
        if against:
            return replace(judgement, modality="", reason=against)
        if len(offer.types) > 1:
            self.refused[topic] = f"it has messages of {len(offer.types)} types: {', '.join(sorted(offer.types))}"
            return None
        return judgement

    def _best(
        self, judged: Iterable[Judgement], mine: Collection[str], shown: dict[tuple[str, ...], str]
    ) -> list[Judgement]:
        left = sorted(judged, key=lambda item: item.offer.topic)
        chosen: list[Judgement] = []
        while left:
            number = Counter(item.modality for item in chosen)
            best = max(left, key=lambda item: item.score + _STAYS * (item.offer.topic in mine) - number[item.modality])
            left.remove(best)
            topic = best.offer.topic
            twin = next((shown[mark] for mark in best.devices if mark in shown), "")
            if twin:
                self.excluded[topic] = f"it shows what {twin} shows"
            elif len(chosen) >= self.rules.limit:
                self.refused[topic] = f"{self.rules.limit} topics are adopted already (discover_limit)"
            else:
                chosen.append(best)
                shown |= dict.fromkeys(best.devices, topic)
        return sorted(chosen, key=lambda item: item.offer.topic)

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

    def news(self) -> str:
        """What is adopted and what is left out, and why, for a log; ``""`` if that has been told."""
        adopted = [f"{name} ({item.topic})" for name, item in sorted(self.adopted.items())]
        reasons: dict[str, list[str]] = {}
        for topic, reason in sorted({**self.excluded, **self.refused}.items()):
            reasons.setdefault(reason, []).append(topic)
        lines = [f"discovery: {len(adopted)} adopted: {', '.join(adopted) or 'none'}"]
        lines += [f"left out: {', '.join(topics)}: {reason}" for reason, topics in reasons.items()]
        text = "\n  ".join(lines)
        told, self._told = self._told, text
        return "" if text == told else text
