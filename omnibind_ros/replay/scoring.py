"""What predictions are worth, beside what was there. Pure functions of rows, one row for each tick."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.runtime.types import Prediction

RIGHT, WRONG, UNKNOWN, SILENT, OUT_OF_VOCABULARY, UNLABELLED = (
    "right",
    "wrong",
    "unknown",
    "silent",
    "out_of_vocabulary",
    "unlabelled",
)
OUTCOMES = (RIGHT, WRONG, UNKNOWN, SILENT)
"""Of a tick whose label is known. ``unknown``: the confidence was below the threshold; ``silent``: no sensor had
anything to say."""


class Vocabulary:
    """Which label of the model a word means: the same in lower case, or one of its aliases.

    Args:
        names: The model's labels.
        aliases: Further names of a label.
    """

    def __init__(self, names: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None) -> None:
        self._meant = {_plain(word): name for name, words in (aliases or {}).items() for word in words if name in names}
        self._meant.update({_plain(name): name for name in names})

    def of(self, word: str) -> str | None:
        """The model's label; ``None`` if it has none of that name."""
        return self._meant.get(_plain(word))


def same(one: str, other: str) -> bool:
    """Whether two words name the same label: case, underscores and blanks around them do not count."""
    return _plain(one) == _plain(other)


def _plain(word: str) -> str:
    return word.strip().casefold().replace("_", " ")


@dataclass(frozen=True)
class Row:
    """One tick.

    Attributes:
        time_s: s from the beginning of the bag.
        tick_ns: Its time, ns.
        truth: What was there, in the words of the truth.
        meant: The same in the model's labels; what the model lacks is left out.
        since_s: s since the labels changed to these; NaN without labels.
        labels: Top labels, most probable first; none if nothing was predicted.
        confidence: Of the first of them.
        unknown: Whether that is below the threshold.
        sensors: Sensors that took part.
        weights: Their shares.
        ages: Ages of their items, s.
        said: What each alone would have said.
        mean: What mean fusion would have said, see :func:`mean_label`; ``""`` where nobody asked.
        conflict: How much the sensors contradicted each other, see ``Prediction``.
    """

    time_s: float
    tick_ns: int
    truth: tuple[str, ...] = ()
    meant: tuple[str, ...] = ()
    since_s: float = math.nan
    labels: tuple[str, ...] = ()
    confidence: float = math.nan
    unknown: bool = False
    sensors: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    ages: tuple[float, ...] = ()
    said: tuple[str, ...] = ()
    mean: str = ""
    conflict: float = 0.0

    @property
    def label(self) -> str:
        """The most probable label, also below the threshold; ``""`` if nothing was predicted."""
        return self.labels[0] if self.labels else ""

    @property
    def outcome(self) -> str:
        """One of :data:`OUTCOMES`, ``out_of_vocabulary`` (the model lacks the label) or ``unlabelled``."""
        if not self.truth:
            return UNLABELLED
        if not self.meant:
            return OUT_OF_VOCABULARY
        if not self.labels:
            return SILENT
        if self.unknown:
            return UNKNOWN
        return RIGHT if self.label in self.meant else WRONG

    @property
    def scored(self) -> bool:
        """Whether it counts."""
        return bool(self.meant)

    def alone(self, sensor: str) -> str:
        """What a sensor alone would have said; ``""`` if it took no part."""
        return self.said[self.sensors.index(sensor)] if sensor in self.sensors else ""


def row(
    prediction: Prediction | None,
    time_s: float,
    tick_ns: int,
    truth: tuple[str, ...],
    vocabulary: Vocabulary,
    since_s: float = math.nan,
) -> Row:
    """The row of one tick."""
    meant = tuple(name for word in truth if (name := vocabulary.of(word)) is not None)
    if prediction is None:
        return Row(time_s, tick_ns, truth, meant, since_s)
    shares = prediction.sensors
    return Row(
        time_s,
        tick_ns,
        truth,
        meant,
        since_s,
        prediction.labels if any(share.weight for share in shares) else (),  # else the labels say nothing, either
        prediction.confidence,
        prediction.unknown,
        tuple(share.name for share in shares),
        tuple(share.weight for share in shares),
        tuple(share.age for share in shares),
        tuple(share.label for share in shares),
        conflict=prediction.conflict,
    )


def tally(rows: Iterable[Row]) -> dict[str, Any]:
    """Counts and shares.

    Returns:
        ``ticks`` that count; how many of them are ``right``, ``wrong``, ``unknown`` and ``silent``; ``accuracy``: right
        ones among all; ``accuracy_said``: right ones among those with an answer, right or wrong; ``top1`` and ``top5``:
        the label is the first, or one of the first five, whatever the confidence. Shares are ``None`` without ticks.
    """
    counted = [one for one in rows if one.scored]
    number = Counter(one.outcome for one in counted)
    total, answered = len(counted), number[RIGHT] + number[WRONG]
    return {
        "ticks": total,
        **{outcome: number[outcome] for outcome in OUTCOMES},
        "accuracy": share(number[RIGHT], total),
        "accuracy_said": share(number[RIGHT], answered),
        "top1": top1(counted),
        "top5": share(sum(bool(set(one.labels[:5]) & set(one.meant)) for one in counted), total),
    }


def top1(rows: Iterable[Row], said: Callable[[Row], str] = lambda one: one.label) -> float | None:
    """Share of the ticks that count at which a label is right, whatever the confidence.

    Args:
        rows: The ticks.
        said: The label that is looked at; the fused one by default.
    """
    counted = [one for one in rows if one.scored]
    return share(sum(said(one) in one.meant for one in counted), len(counted))


def settled(rows: Iterable[Row], seconds: float) -> list[Row]:
    """The ticks from so many seconds after a change of what was there on."""
    return [one for one in rows if one.since_s >= seconds]


def mean_label(similarities: NDArray[np.float32], labels: Sequence[str]) -> str:
    """What mean fusion says: the label with the greatest mean of the sensors' similarities.

    Args:
        similarities: ``float32 [1 + S, C]``, row 0 fused, then one per sensor; see ``Prediction``.
        labels: The ``C`` labels.

    Returns:
        The label; ``""`` without similarities to these labels.
    """
    if not labels or similarities.shape[1:] != (len(labels),) or len(similarities) < 2:
        return ""
    return labels[int(similarities[1:].mean(axis=0).argmax())]


def majority(rows: Sequence[Row], sensors: Iterable[str]) -> Row:
    """One row for several ticks of the same truth: what was said most often, the earlier one if two were equally often.

    Args:
        rows: The ticks, one at least.
        sensors: The sensors; those take part that do in at least half of the ticks, in this order. Their weight is the
            mean, their age the median of where they did.
    """
    taking = {name: [one for one in rows if name in one.sensors] for name in sensors}
    taking = {name: own for name, own in taking.items() if 2 * len(own) >= len(rows)}
    return replace(
        rows[0],
        labels=(_most_frequent(one.label for one in rows),),
        confidence=median(one.confidence for one in rows),
        unknown=2 * sum(one.unknown for one in rows) > len(rows),
        sensors=tuple(taking),
        weights=tuple(fmean(one.weights[one.sensors.index(name)] for one in own) for name, own in taking.items()),
        ages=tuple(median(one.ages[one.sensors.index(name)] for one in own) for name, own in taking.items()),
        said=tuple(_most_frequent(one.alone(name) for one in own) for name, own in taking.items()),
        mean=_most_frequent(one.mean for one in rows),
    )


def _most_frequent(words: Iterable[str]) -> str:
    return Counter(words).most_common(1)[0][0]


def share(part: int, whole: int) -> float | None:
    """A share, rounded to 0.01 %; ``None`` of nothing."""
    return round(part / whole, 4) if whole else None


def by_combination(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A tally for every set of sensors that took part, the most frequent first."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for one in rows:
        if one.scored:
            groups[one.sensors].append(one)
    ordered = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [{"sensors": list(sensors), **tally(group)} for sensors, group in ordered]


def over_time(rows: Sequence[Row], bins: int = 40) -> list[dict[str, Any]]:
    """A tally for each of at most so many equal spans of whole seconds."""
    if not rows:
        return []
    width = max(1, math.ceil((rows[-1].time_s + 1e-9) / bins))
    groups: dict[int, list[Row]] = defaultdict(list)
    for one in rows:
        groups[int(one.time_s // width)].append(one)
    return [
        {"start_s": place * width, "end_s": (place + 1) * width, **tally(group)}
        for place, group in sorted(groups.items())
    ]


def first_right(rows: Sequence[Row], segments: Iterable[tuple[float, float, tuple[str, ...]]]) -> list[dict[str, Any]]:
    """How long it took to say the right label after each change of what was there.

    Args:
        rows: All rows.
        segments: Beginning and end, s, and labels of the times between two changes.

    Returns:
        Per stretch that the model has a label for: ``time_s``, ``labels``, ``seconds`` until the first right answer
        (``None``: there was none before the next change).
    """
    found = []
    for start_s, end_s, labels in segments:
        inside = [one for one in rows if start_s <= one.time_s < end_s and one.scored]
        if not inside:
            continue
        at = next((one.time_s for one in inside if one.outcome == RIGHT), None)
        seconds = None if at is None else round(at - start_s, 3)
        found.append({"time_s": round(start_s, 3), "labels": list(labels), "seconds": seconds})
    return found


def losses(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How long it took to be right again after a sensor left the fusion.

    Only losses count before which the answer was right, without another label since then.

    Returns:
        Per loss: ``sensor``, ``time_s`` of the first tick without it, ``seconds`` since the last tick with it until the
        first right one without it, ``None`` if what was there changed, or the bag ended, before that; ``kept``: it was
        right at once.
    """
    found = []
    for place in range(1, len(rows)):
        before, now = rows[place - 1], rows[place]
        if before.outcome != RIGHT or now.truth != before.truth:
            continue
        for sensor in before.sensors:
            if sensor in now.sensors:
                continue
            at = None
            for later in rows[place:]:
                if later.truth != before.truth or sensor in later.sensors:
                    break
                if later.outcome == RIGHT:
                    at = later.time_s
                    break
            seconds = None if at is None else round(at - before.time_s, 3)
            kept = now.outcome == RIGHT
            found.append({"sensor": sensor, "time_s": round(now.time_s, 3), "seconds": seconds, "kept": kept})
    return found


def summary_of_times(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Number, how many ended, median and maximum of their ``seconds``."""
    times = [item["seconds"] for item in items if item["seconds"] is not None]
    return {
        "number": len(items),
        "reached": len(times),
        "median_s": round(median(times), 3) if times else None,
        "max_s": max(times, default=None),
    }


def confusion(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """How often each label was said for each truth; below the threshold ``unknown``, nothing ``silent``."""
    said: Counter[tuple[str, str]] = Counter()
    for one in rows:
        if one.scored:
            answer = one.label if one.outcome in (RIGHT, WRONG) else one.outcome
            said[(answer if one.outcome == RIGHT else " / ".join(one.meant)), answer] += 1
    return [{"truth": truth, "said": answer, "ticks": n} for (truth, answer), n in sorted(said.items())]


def of_sensor(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """What one sensor contributed: ticks that it took part in, mean weight, median age, and what it alone is worth.

    Ticks at which its reading said nothing are counted, and are neither right nor wrong.
    """
    taking = [(one, one.sensors.index(name)) for one in rows if name in one.sensors]
    own = [one for one, _ in taking if one.alone(name)]
    return {
        "ticks": len(taking),
        "nothing_to_say": len(taking) - len(own),
        "mean_weight": round(sum(one.weights[place] for one, place in taking) / len(taking), 4) if taking else None,
        "median_age_s": round(median(one.ages[place] for one, place in taking), 3) if taking else None,
        "top1_alone": top1(own, lambda one: one.alone(name)),
        "top1_fused_same_ticks": top1(own),
    }
