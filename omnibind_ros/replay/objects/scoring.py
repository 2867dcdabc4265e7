"""What is said of things, beside what they are. Pure functions of rows, one for each thing at each tick."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.evaluation.bootstrap import Bootstrap, interval, weighted_mean
from omnibind_ros.replay import scoring
from omnibind_ros.replay.scoring import Row

FEW = 10
"""Things below which a figure says that it rests on few."""
FUSED, NOW, SCENE = "fused", "now", "scene"
"""Whose answer it is, beside those of the sensors: of all of them and what they said before, of all of them at the tick
alone, and that for the whole scene."""
TOGETHER = (FUSED, NOW, SCENE)
"""All of these."""
SPACE = "space"
"""Where a box is that is in no picture."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What was said of one thing at one tick, whose box was given.

    Attributes:
        thing: Its id.
        row: What was said, as of a tick; its labels are those of what was said before, too.
        now: The label by this tick alone; ``""``: nothing.
        scene: What was said of the whole scene then; ``""``: nothing.
        without: By sensor that took part, what the others would have said without it; ``""``: nothing.
        unseen: By sensor that took no part, why.
    """

    thing: str
    row: Row
    now: str = ""
    scene: str = ""
    without: Mapping[str, str] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)

    def said(self, who: str) -> str:
        """What somebody said of it: one of :data:`TOGETHER` or a sensor; ``""``: nothing."""
        together = {FUSED: self.row.label, NOW: self.now, SCENE: self.scene}
        return together[who] if who in together else self.row.alone(who)


@dataclass(frozen=True)
class Found:
    """Which boxes of ours are which things, in one picture or in space.

    Attributes:
        time_s: s from the beginning of the bag.
        where: Sensor, or :data:`SPACE`.
        things: The things that are there.
        tracks: Ids of the boxes that are told there.
        pairs: By thing, the id of the box that is its own.
        overlaps: By thing, their intersection over union.
        labels: By id, what was said of it; ``""``: nothing.
    """

    time_s: float
    where: str
    things: tuple[str, ...]
    tracks: tuple[str, ...]
    pairs: Mapping[str, str]
    overlaps: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def rests_on(things: Iterable[str]) -> Figures:
    """How many things a figure rests on, and whether these are few."""
    number = len(set(things))
    return {"things": number, "few": number < FEW}


def share(right: Sequence[bool], things: Sequence[str]) -> Figures:
    """A share with the 95 % interval that other things might have given.

    Returns:
        ``share``, and ``interval`` of it, which is ``None`` of fewer than two things; both ``None`` of nothing.
    """
    if not right:
        return {"share": None, "interval": None}
    return {"share": float(np.mean(right)), "interval": _interval(np.array(right, np.float32), things)}


def _interval(values: NDArray[np.float32], things: Sequence[str]) -> list[float] | None:
    names, place = np.unique(np.array(things), return_inverse=True)
    if len(names) < 2:
        return None
    weights = Bootstrap({"thing": len(names)}).drawn("thing", place)
    return list(interval(weighted_mean(values, weights)))


def answers(asked: Sequence[Asked], sensors: Sequence[str]) -> list[Figures]:
    """How often the first label was right: of all sensors, of each alone, and of the scene's one label.

    Args:
        asked: What was said.
        sensors: The sensors.

    Returns:
        A row for each of them. ``share``, ``interval``: of all that was asked, where silence is wrong; ``spoke``: how
        often there was an answer; ``spoken``: share of these that was right, ``together``: that of all sensors at the
        same ticks.
    """
    counted = [one for one in asked if one.row.scored]
    rows = []
    for who in (*TOGETHER, *sensors):
        spoke = [one for one in counted if one.said(who)]
        if who not in TOGETHER and not spoke:
            continue
        rows.append(
            {
                "answer": who,
                "asked": len(counted),
                **rests_on(one.thing for one in counted),
                **share([_right(one, who) for one in counted], [one.thing for one in counted]),
                "spoke": len(spoke),
                "spoken": _mean(_right(one, who) for one in spoke),
                "together": _mean(_right(one, NOW) for one in spoke),
            }
        )
    return rows


def margins(asked: Sequence[Asked], sensors: Sequence[str]) -> list[Figures]:
    """How much more often the fused answer is right than others, with the interval of the difference.

    Returns:
        A row for the scene's label and for the best sensor: ``against``, ``share`` and ``interval`` of the difference
        of :data:`FUSED`, ``now`` that of :data:`NOW`.
    """
    counted = [one for one in asked if one.row.scored]
    if not counted:
        return []

    def right(who: str) -> NDArray[np.float32]:
        return np.array([_right(one, who) for one in counted], np.float32)

    others = [SCENE, *sorted(sensors, key=lambda name: -float(right(name).mean()))[:1]]
    things = [one.thing for one in counted]
    rows = []
    for who in others:
        gain = right(FUSED) - right(who)
        told = "the scene's label" if who == SCENE else f"the best sensor, {who}"
        now = float((right(NOW) - right(who)).mean())
        measured = {"share": float(gain.mean()), "interval": _interval(gain, things), "now": now}
        rows.append({"against": told, **rests_on(things), **measured})
    return rows


def by_label(asked: Sequence[Asked], sensors: Sequence[str]) -> list[Figures]:
    """The same for each label: shares of all that was asked, of all :data:`TOGETHER` and every sensor."""
    groups: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        if one.row.scored:
            groups[" / ".join(one.row.meant)].append(one)
    return [
        {
            "label": label,
            "asked": len(group),
            **rests_on(one.thing for one in group),
            **{who: _mean(_right(one, who) for one in group) for who in (*TOGETHER, *sensors)},
        }
        for label, group in sorted(groups.items())
    ]


def worth(asked: Sequence[Asked], sensors: Sequence[str]) -> list[Figures]:
    """What each sensor is worth: how often the answer of a tick is right with it and without it, where it took part.

    Returns:
        A row for each sensor: ``asked`` (how often it took part), ``alone``, ``with``, ``without``, and ``share`` and
        ``interval`` of the difference.
    """
    rows = []
    for name in sensors:
        took = [one for one in asked if one.row.scored and one.row.alone(name)]
        if took:
            rows.append({"sensor": name, **_worth(took, name)})
    return rows


def worth_each(asked: Sequence[Asked], sensors: Sequence[str]) -> list[Figures]:
    """The same for every thing: rows with ``thing`` and ``label``, too, without an interval."""
    groups: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        groups[one.thing].append(one)
    rows = []
    for thing, group in sorted(groups.items(), key=lambda pair: _numbered(pair[0])):
        label = " / ".join(group[0].row.truth)
        for found in worth(group, sensors):
            kept = {key: value for key, value in found.items() if key not in ("things", "few", "interval")}
            rows.append({"thing": thing, "label": label, **kept})
    return rows


def _worth(took: Sequence[Asked], name: str) -> Figures:
    kept = np.array([_right(one, NOW) for one in took], np.float32)
    lost = np.array([one.without.get(name, "") in one.row.meant for one in took], np.float32)
    things = [one.thing for one in took]
    return {
        "asked": len(took),
        **rests_on(things),
        "alone": _mean(_right(one, name) for one in took),
        "with": float(kept.mean()),
        "without": float(lost.mean()),
        "share": float((kept - lost).mean()),
        "interval": _interval(kept - lost, things),
    }


def unseen(asked: Iterable[Asked]) -> list[Figures]:
    """Why sensors took no part: ``sensor``, ``reason``, ``asked``, the most frequent first."""
    reasons = Counter(pair for one in asked for pair in one.unseen.items())
    return [{"sensor": name, "reason": why, "asked": n} for (name, why), n in reasons.most_common()]


def finding(found: Sequence[Found]) -> list[Figures]:
    """Precision and recall of the boxes, in every picture and in space.

    Returns:
        A row for each: ``where``, ``ticks``, how many boxes are ``true`` and ``told``, ``precision`` of those told,
        ``recall`` of the true ones with its ``interval``, mean ``overlap`` of the pairs.
    """
    groups: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        groups[one.where].append(one)
    rows = []
    for where, group in groups.items():
        true = [(thing, thing in one.pairs) for one in group for thing in one.things]
        told = sum(len(one.tracks) for one in group)
        hit = share([paired for _, paired in true], [thing for thing, _ in true])
        rows.append(
            {
                "where": where,
                "ticks": len(group),
                **rests_on(thing for thing, _ in true),
                "true": len(true),
                "told": told,
                "precision": scoring.share(sum(len(one.pairs) for one in group), told),
                "recall": hit["share"],
                "interval": hit["interval"],
                "overlap": _mean(value for one in group for value in one.overlaps.values()),
            }
        )
    return rows


def tracks(found: Sequence[Found], labels: Mapping[str, str]) -> list[Figures]:
    """What became of every thing: how long it was found, under how many ids, and as what.

    A thing has the id that most pictures, and space, pair it with; that of the tick before counts where two are equal.

    Args:
        found: All pairs.
        labels: Label of every thing in the model's words; ``""`` of one that does not count.

    Returns:
        A row for each thing: ``ticks`` that it was there, share of them that it was ``found``, ``ids``, ``switches``
        from one id to another, and ``right``: share of those found with the right label.
    """
    ticks: dict[float, list[Found]] = defaultdict(list)
    for one in found:
        ticks[one.time_s].append(one)
    there: Counter[str] = Counter()
    history: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for _, group in sorted(ticks.items()):
        for thing in {thing for one in group for thing in one.things}:
            there[thing] += 1
            votes = Counter(one.pairs[thing] for one in group if thing in one.pairs)
            if votes:
                before = history[thing][-1][0] if history[thing] else ""
                own = max(sorted(votes), key=lambda name: (votes[name], name == before))
                history[thing].append((own, next(one.labels.get(own, "") for one in group if own in one.tracks)))
    rows = []
    for thing in sorted(there, key=_numbered):
        label, ids = labels.get(thing, ""), [own for own, _ in history[thing]]
        rows.append(
            {
                "thing": thing,
                "label": label,
                "ticks": there[thing],
                "found": scoring.share(len(ids), there[thing]),
                "ids": len(set(ids)),
                "switches": sum(one != other for one, other in pairwise(ids)),
                "right": _mean(said == label for _, said in history[thing]) if label else None,
            }
        )
    return rows


def _numbered(name: str) -> tuple[int, str]:
    """Sorts names that are numbers as numbers."""
    return (len(name) if name.isdecimal() else 0), name


def _right(one: Asked, who: str) -> bool:
    return one.said(who) in one.row.meant


def _mean(values: Iterable[float]) -> float | None:
    known = [*values]
    return fmean(known) if known else None
