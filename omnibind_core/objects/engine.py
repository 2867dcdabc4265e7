"""One prediction for each thing: regions in, things out, whatever subset of the sensors is alive."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from omnibind_core import modalities
from omnibind_core.objects import crops, visibility
from omnibind_core.objects.evidence import Beliefs
from omnibind_core.objects.proposals.finding import Finder, Region
from omnibind_core.objects.rig import PICTURES, Reading, Rig, View
from omnibind_core.objects.snapshot import CLOUD, Snapshot
from omnibind_core.objects.tracks import Track, Tracker
from omnibind_core.objects.turns import Pair, Seen, Turns
from omnibind_core.objects.types import ObjectPrediction, ObjectSettings
from omnibind_core.objects.visibility import Sight
from omnibind_core.runtime.encoding import Recogniser, Token, TokenCache
from omnibind_core.runtime.sensor import Item
from omnibind_core.runtime.types import Encoded, SensorConfig

_TOUCH = "touch"
_WHOLE = {"audio": "hears the whole scene", "text": "tells of the whole scene"}
_CUT = (*PICTURES, CLOUD)  # modalities of which a part can be cut out


def readings(tokens: Sequence[Token], place: Callable[[Item], tuple[str, bool]]) -> dict[str, Reading]:
    """What the sensors offer to a tick, by sensor.

    Args:
        tokens: Of the tick, see :meth:`omnibind_core.runtime.PerceptionEngine.tokens`.
        place: The frame of an item, by its header, and whether it is the optical frame of a depth camera, whose points
            are decoded x forward.
    """
    found = {}
    for token in tokens:
        name, kind, item = token.sensor.name, token.sensor.modality, token.newest
        frame, optical = place(item)
        found[name] = Reading(name, kind, token.content, item.stamp_ns, frame, token.embedding, token.doubt, optical)
    return found


class ObjectEngine:
    """Finds, follows and recognises things.

    What fails is the failure of one sensor, region or crop: it is counted, with its reason, and the rest goes on. A
    sensor whose geometry is not known, or whose reading is excluded by a doubt, takes no part.

    :meth:`detect`, :meth:`reject`, :attr:`counters` and :attr:`rejections` are for any thread, all else for one.

    Args:
        model: The model.
        rig: Where the sensors are.
        settings: How things are found, followed and recognised.

    Attributes:
        seconds: What the stages of the last tick took: ``find``, ``crop``, ``encode``, ``fuse``.
    """

    def __init__(self, model: Recogniser, rig: Rig, settings: ObjectSettings | None = None) -> None:
        self.model = model
        self.rig = rig
        self.settings = settings or ObjectSettings()
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._cache = TokenCache(model, lambda _, raw: raw, self.reject, lambda *_: None)
        self._finder = Finder(rig, self.settings, self._cache.attempt, self.reject, self._count)
        self._tracker = Tracker(self.settings.confirm, self.settings.forget)
        self._turns = Turns(self.settings)
        self._beliefs = Beliefs(model, self.settings.memory, self.settings.top_k)
        self._touches: dict[str, Token] = {}
        self._now_ns: int | None = None

    @property
    def counters(self) -> Mapping[str, int]:
        """How often what happened.

        ``regions`` looked at, ``dropped`` regions beyond what is looked at, ``rejected`` items, regions and crops,
        ``begun`` tracks, ``encoded`` crops, and ``skipped``, which were due and had to wait. ``things`` is how many are
        told of now.
        """
        with self._lock:
            return dict(self._counts)

    @property
    def rejections(self) -> Mapping[str, str]:
        """The last reason of what was rejected, by sensor or proposer."""
        with self._lock:
            return dict(self._reasons)

    def detect(self, regions: Sequence[Region]) -> None:
        """Takes in what detectors found, for the next tick: the newest of each, at most ``max_regions``."""
        self._finder.detect(regions)

    def reject(self, source: str, reason: str) -> None:
        """Counts something that cannot be used.

        Args:
            source: Sensor or proposer.
            reason: What is wrong, with the value and the expectation.
        """
        with self._lock:
            self._counts["rejected"] += 1
            self._reasons[source] = reason

    def clear(self) -> None:
        """Forgets all things, because time went backwards. Ids and counters go on."""
        self._finder.clear()
        self._forget()

    def _forget(self) -> None:
        self._tracker.clear()
        self._turns.keep_only(())
        self._beliefs.keep_only(())
        self._now_ns = None

    def perceive(
        self,
        now_ns: int,
        readings: Mapping[str, Reading],
        absent: Mapping[str, str],
        boxes: Mapping[str, Sequence[Region]] | None = None,
    ) -> list[ObjectPrediction]:
        """What is where now.

        Args:
            now_ns: Time of the tick.
            readings: What the sensors offer, by sensor.
            absent: Sensors that take no part in the tick, and why.
            boxes: Given things, each by a name that it keeps, with its regions: nothing else is looked for then, and
                what is given in a picture is cut out there.

        Returns:
            Things in the order of their ids.
        """
        if self._now_ns is not None and now_ns < self._now_ns:
            self._forget()  # what detectors have found meanwhile may be of now
        self._now_ns = now_ns
        times = [time.perf_counter()]
        snapshot, missing = self._snapshot(readings, absent)
        if boxes is None:
            found = self._finder.find(snapshot, missing, now_ns)
            solid = snapshot.points[snapshot.above]
            tracks = self._tracker.update(found, snapshot.views, now_ns, solid)
        else:
            given = {name: self._finder.given(regions, snapshot) for name, regions in boxes.items()}
            tracks = self._tracker.hold(given, now_ns)
        looks = self._look(tracks, snapshot, missing)
        seen = {track.id: list(self._seen(track, looks[track.id], snapshot)) for track in tracks}
        times.append(time.perf_counter())
        chosen = list(self._cut([one for every in seen.values() for one in every], looks, snapshot))
        times.append(time.perf_counter())
        self._encode(chosen)
        times.append(time.perf_counter())
        told = [self._told(track, looks[track.id], seen[track.id], snapshot) for track in tracks]
        times.append(time.perf_counter())
        self.seconds = dict(zip(("find", "crop", "encode", "fuse"), np.diff(times).tolist(), strict=True))
        self._turns.keep_only(self._tracker.ids)
        self._beliefs.keep_only(self._tracker.ids)
        with self._lock:
            self._counts["begun"], self._counts["things"] = self._tracker.begun, len(told)
        return told

    def _snapshot(self, readings: Mapping[str, Reading], absent: Mapping[str, str]) -> tuple[Snapshot, dict[str, str]]:
        """What takes part, and why the others do not."""
        missing = dict(absent)
        usable = {}
        for name, reading in readings.items():
            if reading.modality in _WHOLE:
                missing[name] = _WHOLE[reading.modality]
            elif reading.modality not in (*_CUT, _TOUCH):
                missing[name] = f"nobody knows how to cut a thing out of {reading.modality}"
            elif reading.doubt is not None and reading.doubt.excludes:
                missing[name] = str(reading.doubt)
            elif isinstance(reading.raw, Encoded) and reading.modality != _TOUCH:
                missing[name] = "comes encoded, and nothing can be cut out of that"
            else:
                usable[name] = reading
        views, why = self.rig.views(usable)
        for name, reason in why.items():
            self.reject(name, reason)
        return Snapshot(views), missing | why

    def _look(
        self, tracks: Sequence[Track], snapshot: Snapshot, missing: Mapping[str, str]
    ) -> dict[int, dict[str, Sight]]:
        """What each sensor sees of each thing, by its id."""
        stamps = {name: view.reading.stamp_ns for name, view in snapshot.views.items()}
        here = [
            {name: region for name, region in track.boxes.items() if region.stamp_ns == stamps.get(name)}
            for track in tracks
        ]
        found = visibility.sights([track.volume for track in tracks], snapshot, here)
        looks = {track.id: sights for track, sights in zip(tracks, found, strict=True)}
        for name, view in snapshot.views.items():
            if view.reading.modality == _TOUCH:
                for id, sight in self._touched(tracks, view).items():
                    looks[id][name] = sight
        for sights in looks.values():
            sights.update({name: Sight(reason=reason) for name, reason in missing.items()})
        return looks

    def _touched(self, tracks: Sequence[Track], view: View) -> dict[int, Sight]:
        """A hand touches the smallest thing that it is at."""
        point, margin = view.pose.translation[None], self.settings.touch_margin
        at = [track for track in tracks if track.volume.inside(point, margin)[0]]
        one = min(at, key=lambda track: float(np.prod(track.size)), default=None)
        if one is None:
            return {track.id: Sight(reason="touches nothing that was found") for track in tracks}
        sights = {track.id: Sight(reason="touches another thing") for track in tracks}
        sights[one.id] = Sight() if view.reading.token is not None else Sight(reason="could not be encoded")
        return sights

    def _seen(self, track: Track, sights: Mapping[str, Sight], snapshot: Snapshot) -> Iterator[Seen]:
        """In which sensors a thing can be cut out."""
        volume, certain = track.volume, self._beliefs.certain(track.id)
        found = bool(track.proposers) or track.seen_ns == self._now_ns
        for name, view in snapshot.views.items():
            if sights[name].seen and view.reading.modality != _TOUCH:
                yield Seen(Pair(track.id, name), view, volume, sights[name], certain, found)

    def _cut(
        self, seen: Sequence[Seen], looks: Mapping[int, dict[str, Sight]], snapshot: Snapshot
    ) -> Iterator[tuple[Seen, Token]]:
        """The crops of those whose turn it is, preprocessed."""
        cost, things = 0, set[int]()
        skipped = encoded = 0
        for one in self._turns.order(seen):
            id, sensor = one.pair
            full = id not in things and len(things) >= self.settings.max_objects
            if full or (cost and cost + self._turns.cost(one) > self.settings.max_crops):
                skipped += 1
                continue
            token, reason = self._token(one, snapshot)
            if token is None:
                self._turns.drop(one)
                looks[id][sensor] = Sight(reason=reason)
                continue
            assert token.views is not None
            self._turns.learn(one.view.reading.modality, len(token.views))
            cost += len(token.views)
            things.add(id)
            encoded += 1
            yield one, token
        self._count("skipped", skipped)
        self._count("encoded", encoded)

    def _token(self, seen: Seen, snapshot: Snapshot) -> tuple[Token | None, str]:
        """A crop, preprocessed, or why there is none."""
        reading = seen.view.reading
        raw, reason = crops.crop(seen.volume, seen.sight, seen.pair.sensor, snapshot)
        if raw is None:
            return None, reason
        token = _empty_token(reading)
        if self._cache.attempt(reading.sensor, self._prepare, token, raw, reading) is None:
            return None, self.rejections.get(reading.sensor, "")
        return token, ""

    def _prepare(self, token: Token, raw: Any, reading: Reading) -> Token:
        kind = reading.modality
        token.doubt = modalities.part_doubt(kind, raw)
        if token.doubt is None and kind in PICTURES:  # of a cloud it is about the whole of it
            token.doubt = reading.doubt
        token.views = self.model.process(kind, raw)
        return token

    def _encode(self, chosen: Sequence[tuple[Seen, Token]]) -> None:
        """All crops of a tick in one batch."""
        self._cache.embed([token for _, token in chosen])
        for one, token in chosen:
            if token.embedding is not None and self._turns.keep(one, token):
                self._tracker.stays(one.pair.id, one.view.reading.stamp_ns)

    def _told(
        self, track: Track, sights: Mapping[str, Sight], seen: Sequence[Seen], snapshot: Snapshot
    ) -> ObjectPrediction:
        tokens = [self._turns.token(one) for one in seen if sights[one.pair.sensor].seen]
        tokens += [
            self._touch(view.reading)
            for name, view in snapshot.views.items()
            if view.reading.modality == _TOUCH and sights[name].seen
        ]
        said = [token for token in tokens if token is not None]
        assert self._now_ns is not None
        return ObjectPrediction(
            track.id,
            track.volume,
            track.state[3:].copy(),
            track.seen_ns,
            self._beliefs.predict(track.id, said, self._now_ns),
            sights,
            track.proposers,
            track.given,
        )

    def _touch(self, reading: Reading) -> Token:
        """The token of the whole item; the same as long as the item is."""
        token = self._touches.get(reading.sensor)
        if token is None or token.embedding is not reading.token:
            token = self._touches[reading.sensor] = _empty_token(reading)
            token.embedding, token.doubt = reading.token, reading.doubt
        return token

    def _count(self, what: str, number: int) -> None:
        with self._lock:
            self._counts[what] += number


def _empty_token(reading: Reading) -> Token:
    """To be filled with what a part of an item, or all of it, says."""
    item = Item(reading.stamp_ns, reading.stamp_ns, None, None)
    return Token(SensorConfig(reading.sensor, reading.modality), (item,))
