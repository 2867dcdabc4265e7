"""Who is encoded at a tick: what is new, or has changed, in fair turns, within what a tick may cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from omnibind_core.geometry.frames import SECOND
from omnibind_core.objects.regions import Rectangle, Volume
from omnibind_core.objects.rig import PICTURES, View
from omnibind_core.objects.types import ObjectSettings
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.encoding import Token

_NEW, _NEW_TO_SENSOR = 8.0, 4.0  # ticks that a thing without any embedding, or without one of a sensor, is ahead
_LASTS = 3.0  # times the age at which it is due that an embedding is used, if its turn does not come
_LARGE = 0.25  # of the picture's area, from which on a thing is as large as can be
_VOUCHES = ("image",)  # modalities whose crops tell whether a thing is still there
ALIKE = 0.6
"""Cosine of a thing's crop to its last one from which on it is still there, if nobody has found it: docs/objects.md."""
_OFTEN = 4.0  # times that such a thing is looked at before it would be forgotten


class Pair(NamedTuple):
    """A thing in a sensor."""

    id: int
    sensor: str


@dataclass(frozen=True, eq=False)
class Seen:
    """A thing, as one sensor sees it now.

    Attributes:
        pair: Which.
        view: How the sensor looked.
        volume: Where the thing is.
        sight: What is seen of it.
        certain: How sure it is what the thing is, 0..1.
        found: Whether it was found at this tick; else it is taken to be where it was.
    """

    pair: Pair
    view: View
    volume: Volume
    sight: Sight
    certain: float
    found: bool = True

    @property
    def large(self) -> float:
        """How large it is in the picture, 0..1; half in a sensor without pixels."""
        if self.sight.box is None:
            return 0.5
        width, height = self.view.reading.size
        return min(math.sqrt(self.sight.box.area / (_LARGE * width * height)), 1.0)


@dataclass(frozen=True, eq=False)
class _Kept:
    """What a sensor said of a thing, and where that was; not the item, which may be large."""

    token: Token
    stamp_ns: int
    volume: Volume
    box: Rectangle | None

    def moved(self, now: Seen) -> float:
        """By what share of its size the thing has moved, or by what factor less 1 grown, since then."""
        here, there = now.sight.box, self.box
        if here is None or there is None:
            away = float(np.linalg.norm(now.volume.centre - self.volume.centre))
            return away / float(self.volume.size.max())
        away = math.dist(here.centre, there.centre)
        sides = (here.width / there.width, here.height / there.height)
        grown = max(max(side, 1 / max(side, 1e-9)) for side in sides) - 1
        return max(away / math.sqrt(there.area), grown)


class Turns:
    """Embeddings of things by sensor, and whose turn it is to be encoded.

    An embedding is due when it is missing, older than ``refresh``, or the thing has moved by ``moved`` of its size.
    What is due waits until it is first: it gains with every tick, and the new, the large and those of whom it is unsure
    what they are begin ten ticks ahead of the others at most, so nobody waits much longer than those who were due
    before.

    Args:
        settings: What a tick may cost, and what is due.
    """

    def __init__(self, settings: ObjectSettings) -> None:
        self._settings = settings
        self._kept: dict[Pair, _Kept] = {}
        self._waited: dict[Pair, int] = {}
        self._costs: dict[str, int] = {}

    def order(self, seen: Sequence[Seen]) -> list[Seen]:
        """Those that are due, first who comes first."""
        due = [one for one in seen if self._due(one)]
        known = {pair.id for pair in self._kept}
        begun: set[int] = set()
        scores: dict[Pair, float] = {}
        kinds = (*PICTURES, "")
        for one in sorted(due, key=lambda one: (self.cost(one), _place(one, kinds))):  # the cheapest speaks first
            pair = one.pair
            ahead = 0.0 if pair in self._kept else _NEW_TO_SENSOR
            if pair.id not in known and pair.id not in begun:
                begun.add(pair.id)
                ahead = _NEW
            scores[pair] = ahead + one.large + 1 - one.certain + self._waited.get(pair, 0)
        self._waited = {pair: self._waited.get(pair, 0) + 1 for pair in scores}
        return sorted(due, key=lambda one: (-scores[one.pair], one.pair))

    def cost(self, seen: Seen) -> int:
        """Pictures that go through an encoder for it; 1 before one of its modality did."""
        return self._costs.get(seen.view.reading.modality, 1)

    def learn(self, modality: str, views: int) -> None:
        """Takes in how many pictures a crop of a modality makes."""
        self._costs[modality] = views

    def keep(self, seen: Seen, token: Token) -> bool:
        """Takes in what was encoded, unless it is of something else.

        A thing that nobody has found is still there if its crop looks as the last one did, at least by :data:`ALIKE`.
        What does not is not of it, and what was kept stays.

        Returns:
            Whether that vouches for the thing.
        """
        self._waited.pop(seen.pair, None)
        kept = self._kept.get(seen.pair)
        vouches = False
        if kept is not None and not seen.found and seen.view.reading.modality in _VOUCHES:
            vouches = _cosine(kept.token, token) >= ALIKE
            if not vouches:
                return False
        self._kept[seen.pair] = _Kept(token, seen.view.reading.stamp_ns, seen.volume, seen.sight.box)
        return vouches

    def drop(self, seen: Seen) -> None:
        """Forgets what a sensor said of a thing, of which it has nothing any more."""
        self._kept.pop(seen.pair, None)
        self._waited.pop(seen.pair, None)

    def token(self, seen: Seen) -> Token | None:
        """What a sensor that sees a thing says of it; ``None`` if nothing, or nothing new enough."""
        kept = self._kept.get(seen.pair)
        return None if kept is None or self._age(kept, seen) > _LASTS * self._settings.refresh else kept.token

    def keep_only(self, ids: Collection[int]) -> None:
        """Forgets all other things."""
        self._kept = {pair: kept for pair, kept in self._kept.items() if pair.id in ids}
        self._waited = {pair: ticks for pair, ticks in self._waited.items() if pair.id in ids}

    def _due(self, seen: Seen) -> bool:
        kept = self._kept.get(seen.pair)
        refresh = self._settings.refresh
        if not seen.found and seen.view.reading.modality in _VOUCHES:
            refresh = min(refresh, self._settings.forget / _OFTEN)
        if kept is None or self._age(kept, seen) >= refresh:
            return True
        return kept.moved(seen) >= self._settings.moved

    @staticmethod
    def _age(kept: _Kept, seen: Seen) -> float:
        return (seen.view.reading.stamp_ns - kept.stamp_ns) / SECOND


def _cosine(one: Token, other: Token) -> float:
    assert one.embedding is not None and other.embedding is not None
    return float(one.embedding @ other.embedding)


def _place(seen: Seen, kinds: Sequence[str]) -> tuple[int, str]:
    modality = seen.view.reading.modality
    return kinds.index(modality) if modality in kinds else len(kinds), seen.pair.sensor
