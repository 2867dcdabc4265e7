"""Things over time: what is found at one tick is the thing of the ticks before, or a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from omnibind_core.geometry.frames import SECOND
from omnibind_core.objects.matching import is_vague, outline, uncertain
from omnibind_core.objects.regions import Candidate, Region2D, Volume
from omnibind_core.objects.rig import View

GATE = 11.3
"""Square of the distance of a track and a candidate, in standard deviations, that 99 % of the pairs are below that are
one (chi-squared, three dimensions)."""
_PUSH = 0.5  # m/s, standard deviation of what a thing's speed changes by in a second
_FIRST_SPEED = 0.5  # m/s, the same of the speed of a new one
_CALM = 0.5  # s in which a thing that nobody finds loses its speed to 1/e: it may stop or turn as well as go on
_EXACT = 0.02  # m, standard deviation that no measurement is below
_SLACK = 0.25  # of a box's sides, by which centres that two proposers have found may differ, beyond what they say
_GROWN = 0.3  # of the difference to the size that was found, each time
_BY_SIZE = 0.25  # of the distance, standard deviation of what the size in a picture tells of it
_NOTHING = 100.0  # times as uncertain says nothing
_EDGE = 2.0  # pixels from a picture's edge, within which a box may go on beyond it
_HASTE = 0.5  # of the time after which a thing is forgotten, the same of one that was not found often enough
_POINTS = 8  # in the box of a thing that nobody found, that say that it is there
_AROUND = 0.5  # of its sides: so far around it are few points beside those in it, or it is not the thing but a wall
_OWN = 0.6  # of those points, that are in it
_UNMATCHED = 1.0  # a pair costs less: no thing is pushed to another one so that a third may have its place


@dataclass(eq=False)
class Track:
    """One thing over time.

    Attributes:
        id: Counted up from 1, never used again.
        state: ``float64 [6]``, centre and velocity in the fixed frame, m and m/s, at the last tick.
        covariance: ``float64 [6, 6]``, of both.
        size: ``float64 [3]``, metres.
        rotation: ``float64 [3, 3]``, from the box's axes to the fixed frame.
        seen_ns: Stamp of the newest evidence that it is there.
        hits: Ticks at which it was found.
        boxes: By sensor, where it was found in pictures at the last tick.
        proposers: Who found it then.
        given: Its name, if boxes were given.
        sized: Whether its size was measured, not only seen in a picture from a distance that is not known.
    """

    id: int
    state: NDArray[np.float64]
    covariance: NDArray[np.float64]
    size: NDArray[np.float64]
    rotation: NDArray[np.float64]
    seen_ns: int
    hits: int = 1
    boxes: Mapping[str, Region2D] = field(default_factory=dict)
    proposers: tuple[str, ...] = ()
    given: str = ""
    sized: bool = False

    @property
    def volume(self) -> Volume:
        """Where it is."""
        return Volume(self.state[:3].copy(), self.size.copy(), self.rotation, self.covariance[:3, :3].copy())

    def advance(self, seconds: float) -> None:
        """Goes on for a while with its velocity."""
        step = np.eye(6)
        step[:3, 3:] = seconds * np.eye(3)
        push = np.kron([[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]], np.eye(3)) * _PUSH**2
        self.state = step @ self.state
        self.covariance = step @ self.covariance @ step.T + push

    def measure(self, candidate: Candidate, late: float, view: View | None = None) -> None:
        """Takes in where it was found.

        What a picture alone has found is somewhere on a ray. How large it is there tells how far away it is, if its
        size is known; else the ray says nothing about its distance, however often it is said, unless less is known.

        Args:
            candidate: Where.
            late: s since then.
            view: How the camera looked that found it.
        """
        found = candidate.volume
        centre, spread = found.centre, found.spread
        axis, along = uncertain(found)
        if not is_vague(found):
            size, rotation = _aligned(found, self.rotation)
            self.size = self.size + (_GROWN if self.sized else 1.0) * (size - self.size)
            self.rotation, self.sized = rotation, True
        elif view is not None:
            eye = view.pose.translation
            away, here = centre - eye, float(np.linalg.norm(self.state[:3] - eye))
            times = self._times(candidate, view) if self.sized else None
            centre = eye + away * (here * (times or 1.0) / float(np.linalg.norm(away)))
            if times is None:
                # Two rays from one eye meet in the eye: what is known of the distance goes on along the new one.
                old, far = uncertain(self.volume)
                self.covariance[:3, :3] = _stretched(_stretched(self.covariance[:3, :3], old, far, 0.0), axis, 0.0, far)
                spread = _stretched(spread, axis, along, _NOTHING * along)
            else:
                spread = _stretched(spread, axis, along, _BY_SIZE * here * times)
        elif axis @ self.covariance[:3, :3] @ axis < along**2:
            spread = _stretched(spread, axis, along, _NOTHING * along)
        self._correct(centre, late, spread + _EXACT**2 * np.eye(3))
        self.hits += candidate.stamp_ns > self.seen_ns  # one scan, looked at twice, is no second opinion
        self.seen_ns = max(self.seen_ns, candidate.stamp_ns)
        self.boxes, self.proposers = candidate.boxes, candidate.proposers

    def _times(self, candidate: Candidate, view: View) -> float | None:
        """How many times as far away it is as it was thought to be, by its size in a picture; ``None`` if that is cut
        off at the edge, or the lens does not see all of it.
        """
        region = candidate.boxes.get(view.reading.sensor)
        shown = outline(self.volume, view)
        if region is None or shown is None or not shown.area:
            return None
        width, height = view.reading.size
        box = region.box
        if min(box.left, box.top) < _EDGE or box.right > width - _EDGE or box.bottom > height - _EDGE:
            return None
        return float(np.sqrt(shown.area / box.area))

    def put(self, candidate: Candidate) -> None:
        """Is where it is said to be, and moves as that has moved."""
        found = candidate.volume
        seconds = (candidate.stamp_ns - self.seen_ns) / SECOND
        if seconds > 0:
            self.state[3:] = (found.centre - self.state[:3]) / seconds
        self.state[:3], self.size, self.rotation = found.centre, found.size, found.rotation
        self.covariance[:3, :3] = found.spread
        self.hits += 1
        self.seen_ns = candidate.stamp_ns
        self.boxes, self.proposers = candidate.boxes, candidate.proposers

    def miss(self, seconds: float) -> None:
        """Nobody has found it."""
        calmer = np.diag(np.repeat([1.0, np.exp(-seconds / _CALM)], 3))
        self.state, self.covariance = calmer @ self.state, calmer @ self.covariance @ calmer
        self.boxes, self.proposers = {}, ()

    def stay(self, stamp_ns: int) -> None:
        """Something is where it is: it is still there, within its own size."""
        self._correct(self.state[:3], 0.0, np.diag((self.size.max() / 2) ** 2 * np.ones(3)))
        self.seen_ns = max(self.seen_ns, stamp_ns)

    def _correct(self, centre: NDArray[np.float64], late: float, spread: NDArray[np.float64]) -> None:
        sees = _sees(late)
        gain = np.linalg.solve(sees @ self.covariance @ sees.T + spread, sees @ self.covariance).T
        rest = np.eye(6) - gain @ sees
        self.state = self.state + gain @ (centre - sees @ self.state)
        self.covariance = rest @ self.covariance @ rest.T + gain @ spread @ gain.T  # stays symmetric


def _stretched(spread: NDArray[np.float64], axis: NDArray[np.float64], old: float, new: float) -> NDArray[np.float64]:
    """A covariance with another standard deviation along its longest axis."""
    return np.asarray(spread + (new**2 - old**2) * np.outer(axis, axis))


def _sees(late: float) -> NDArray[np.float64]:
    """From the state to the centre so many s ago."""
    return np.hstack([np.eye(3), -late * np.eye(3)])


def _slack(volume: Volume) -> NDArray[np.float64]:
    return np.asarray((volume.rotation * (_SLACK * volume.size) ** 2) @ volume.rotation.T)


def _aligned(volume: Volume, rotation: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Size and rotation of a box, its x and y axes so exchanged that it is turned least from another."""
    relative = rotation.T @ volume.rotation
    cos, sin = relative[0, 0] + relative[1, 1], relative[1, 0] - relative[0, 1]
    quarters = round(float(np.arctan2(sin, cos)) / (np.pi / 2)) % 4
    turn = np.linalg.matrix_power(np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), quarters)
    size = volume.size[[1, 0, 2]] if quarters % 2 else volume.size
    return size, volume.rotation @ turn


class Tracker:
    """Gives what is found at each tick to the things that it is of.

    A thing begins with a candidate that is near none, and is told of when it was found at ``confirm`` ticks. It is
    forgotten ``forget`` s after the last evidence that it is there: that somebody found it, that a sensor that measures
    distances has points in its box, few around it, or that it looks in a camera as it did (:meth:`stays`), and no other
    thing is there. That its box is in a picture is no evidence.

    Args:
        confirm: Ticks.
        forget: s.
    """

    def __init__(self, confirm: int = 2, forget: float = 2.0) -> None:
        self._confirm = confirm
        self._forget_ns = round(forget * SECOND)
        self._tracks: list[Track] = []
        self._now_ns: int | None = None
        self._held: dict[str, Track] = {}
        self.begun = 0

    def update(
        self,
        candidates: Sequence[Candidate],
        views: Mapping[str, View],
        now_ns: int,
        points: NDArray[np.float64] | None = None,
    ) -> list[Track]:
        """Goes on to a tick.

        Args:
            candidates: What was found.
            views: How the sensors looked.
            now_ns: Time of the tick, not before the last one.
            points: ``[N, 3]``, what was measured in the fixed frame and is not of the ground.

        Returns:
            The things that are told of, in the order of their ids.
        """
        seconds = 0.0 if self._now_ns is None else (now_ns - self._now_ns) / SECOND
        self._now_ns = now_ns
        for track in self._tracks:
            track.advance(seconds)
        late = [(now_ns - candidate.stamp_ns) / SECOND for candidate in candidates]
        pairs = self._pairs(candidates, views, late)
        for row, column in pairs.items():
            eyes = [views[name] for name in candidates[column].boxes if name in views]
            self._tracks[row].measure(candidates[column], late[column], eyes[0] if eyes else None)
        explained = [self._tracks[row].volume for row in pairs]
        for row, track in enumerate(self._tracks):
            if row not in pairs:
                track.miss(seconds)
                told = track.hits >= self._confirm
                if told and points is not None and _stands(volume := track.volume, points, explained):
                    track.stay(now_ns)
                    explained.append(volume)
        taken = set(pairs.values())
        self._tracks = [track for track in self._tracks if now_ns - track.seen_ns <= self._patience_ns(track)]
        for index, candidate in enumerate(candidates):
            if index not in taken:
                self._tracks.append(self._begin(candidate))
        return [track for track in self._tracks if track.hits >= self._confirm]

    def _patience_ns(self, track: Track) -> int:
        """Without evidence; less for what was never confirmed, of which there may be much."""
        return self._forget_ns if track.hits >= self._confirm else round(_HASTE * self._forget_ns)

    def stays(self, id: int, stamp_ns: int) -> None:
        """Takes in that a thing which nobody found is still where it was, unless another one was found there."""
        found = [track.volume for track in self._tracks if track.proposers]
        for track in self._tracks:
            if track.id == id and not _taken(track.volume, found):
                track.stay(stamp_ns)

    def hold(self, given: Mapping[str, Candidate | None], now_ns: int) -> list[Track]:
        """Follows things that are known by name, which are now where their candidates are.

        Args:
            given: By name; ``None`` if a thing's place is not known now: it stays where it was, for ``forget`` s.
            now_ns: Time of the tick.

        Returns:
            Those that have a place, in the order of their ids.
        """
        tracks = []
        for name, candidate in given.items():
            track = self._held.get(name)
            here = None if candidate is None else replace(candidate, stamp_ns=now_ns)
            if here is not None and track is None:
                track = self._begin(here, name)
            elif here is not None and track is not None:
                track.put(here)
            if track is not None:
                self._held[name] = track
                tracks.append(track)
        self._held = {name: track for name, track in self._held.items() if now_ns - track.seen_ns <= self._forget_ns}
        return sorted((track for track in tracks if track.given in self._held), key=lambda track: track.id)

    def _begin(self, candidate: Candidate, given: str = "") -> Track:
        self.begun += 1
        found = candidate.volume
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = found.spread + _EXACT**2 * np.eye(3)
        covariance[3:, 3:] = _FIRST_SPEED**2 * np.eye(3)
        state = np.concatenate([found.centre, np.zeros(3)])
        return Track(
            self.begun,
            state,
            covariance,
            found.size.copy(),
            found.rotation,
            candidate.stamp_ns,
            boxes=candidate.boxes,
            proposers=candidate.proposers,
            given=given,
            sized=not is_vague(found),
        )

    @property
    def ids(self) -> frozenset[int]:
        """Of all that are not forgotten, those that are not told of yet, too."""
        return frozenset(track.id for track in (*self._tracks, *self._held.values()))

    def clear(self) -> None:
        """Forgets all things; ids go on."""
        self._tracks, self._held, self._now_ns = [], {}, None

    def _pairs(
        self, candidates: Sequence[Candidate], views: Mapping[str, View], late: Sequence[float]
    ) -> dict[int, int]:
        """Candidates by track: the cheapest assignment, by the distance less what boxes in pictures share."""
        if not self._tracks or not candidates:
            return {}
        squares = _distances(self._tracks, candidates, np.array(late))
        costs = np.where(squares <= GATE, squares / GATE, _UNMATCHED)
        for row, column in np.argwhere((squares <= GATE) & [bool(one.boxes) for one in candidates]).tolist():
            shared = _shared(self._tracks[row], candidates[column], views)
            costs[row, column] = _UNMATCHED if shared is None else costs[row, column] - shared
        rows, columns = linear_sum_assignment(costs)
        found = zip(rows.tolist(), columns.tolist(), strict=True)
        return {row: column for row, column in found if costs[row, column] < _UNMATCHED}


def _shared(track: Track, candidate: Candidate, views: Mapping[str, View]) -> float | None:
    """Intersection over union in a picture of both, 0..1, the most of all.

    ``None`` if what is known along a ray only is not where the track is in any picture: from far away, where the middle
    of such a ray is, a few metres are nothing, but the thing may be near.
    """
    volume, there, most = track.volume, not is_vague(candidate.volume), 0.0
    slack = min(uncertain(volume)[1], float(volume.size.max()) / 2)
    for name, region in candidate.boxes.items():
        if name not in views:
            continue
        view = views[name]
        box, wide = outline(volume, view), outline(replace(volume, size=volume.size + 2 * slack), view)
        seen = region.box if region.stamp_ns == view.reading.stamp_ns else outline(candidate.volume, view)
        if box is None or seen is None:
            continue
        most = max(most, box.overlap(seen))
        there = there or seen.holds(box.centre) or (wide is not None and wide.holds(seen.centre))
    return most if there else None


def _distances(
    tracks: Sequence[Track], candidates: Sequence[Candidate], late: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``[T, C]``, squares in standard deviations, from where candidates were found, so many s ago, to tracks then."""
    states = np.stack([track.state for track in tracks])
    covariances = np.stack([track.covariance for track in tracks])
    ago = late[None, :, None, None]
    both = covariances[:, None, :3, 3:]
    spread = covariances[:, None, :3, :3] - ago * (both + both.transpose(0, 1, 3, 2))
    spread = spread + ago**2 * covariances[:, None, 3:, 3:] + np.stack([_found(one.volume) for one in candidates])
    away = (
        np.stack([one.volume.centre for one in candidates]) - states[:, None, :3] + late[:, None] * states[:, None, 3:]
    )
    scaled = np.linalg.solve(spread, away[..., None])[..., 0]
    return np.asarray((away * scaled).sum(axis=-1))


def _found(volume: Volume) -> NDArray[np.float64]:
    """Covariance of where a candidate's centre was found, if somebody else finds it the next time."""
    return np.asarray(volume.spread + _EXACT**2 * np.eye(3) + _slack(volume))


def _taken(volume: Volume, others: Sequence[Volume]) -> bool:
    """Whether one of others is where a thing is."""
    return any(other.inside(volume.centre[None])[0] or volume.inside(other.centre[None])[0] for other in others)


def _stands(volume: Volume, points: NDArray[np.float64], explained: Sequence[Volume]) -> bool:
    """Whether something is in a box, and little around it, and it is none of the things that are known to be there."""
    if _taken(volume, explained):
        return False
    around = replace(volume, size=volume.size * (1 + 2 * _AROUND, 1 + 2 * _AROUND, 1))
    near = points[np.abs(points - volume.centre).max(axis=1) <= float(around.size.sum())]
    inside = int(volume.inside(near).sum())
    return inside >= _POINTS and inside > _OWN * int(around.inside(near).sum())
