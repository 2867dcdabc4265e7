"""Where things may be at a tick: what detectors have found and what our own proposers find, each thing once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omnibind_core.objects import depth
from omnibind_core.objects.matching import Placed, candidate_of, merge
from omnibind_core.objects.proposals import clusters, moving, warm
from omnibind_core.objects.proposals.detectors import Inbox
from omnibind_core.objects.regions import Candidate, Rectangle, Region2D, Region3D
from omnibind_core.objects.rig import Rig
from omnibind_core.objects.snapshot import CLOUD, Snapshot
from omnibind_core.objects.types import ObjectSettings

Region = Region2D | Region3D
_PROPOSERS: Mapping[str, Mapping[str, Callable[[str, Snapshot], Sequence[Region]]]] = {
    CLOUD: {"clusters": clusters.propose},
    "thermal": {"warm": warm.propose},
    "event": {"moving": moving.propose},
}
Attempt = Callable[..., Any]
"""Runs ``step(*args)`` for a source; a failure is counted as the source's, and gives ``None``."""


class Finder:
    """Candidates of a tick.

    :meth:`detect` is for any thread.

    Args:
        rig: Where the sensors are.
        settings: What is looked at.
        attempt: Called with a source, a function and its arguments.
        reject: Called with a source and why something of it cannot be used.
        count: Called with what happened, and how often.
    """

    def __init__(
        self,
        rig: Rig,
        settings: ObjectSettings,
        attempt: Attempt,
        reject: Callable[[str, str], None],
        count: Callable[[str, int], None],
    ) -> None:
        self._rig = rig
        self._settings = settings
        self._attempt = attempt
        self._reject = reject
        self._count = count
        self._proposers = {
            kind: [propose for name, propose in proposers.items() if name in settings.propose]
            for kind, proposers in _PROPOSERS.items()
        }
        self._inbox = Inbox(settings.max_regions, count, reject)

    def detect(self, regions: Sequence[Region]) -> None:
        """Takes in what detectors found."""
        self._inbox.put(regions)

    def clear(self) -> None:
        """Forgets what was taken in."""
        self._inbox.clear()

    def find(self, snapshot: Snapshot, missing: Mapping[str, str], now_ns: int) -> list[Candidate]:
        """What may be things.

        Args:
            snapshot: The tick.
            missing: Sensors that take no part, and why.
            now_ns: Its time.
        """
        return merge(self._placed(self._regions(snapshot, missing, now_ns), snapshot), self._settings.overlap)

    def given(self, regions: Sequence[Region], snapshot: Snapshot) -> Candidate | None:
        """One thing, of regions that are known to be of it; ``None`` if no place can be made of them.

        Those in pictures are taken to be of the pictures of this tick.
        """
        here: list[Region] = []
        for region in regions:
            if isinstance(region, Region3D):
                here.append(region)
            elif region.sensor in snapshot.pictures:
                here.append(replace(region, stamp_ns=snapshot.views[region.sensor].reading.stamp_ns))
        placed = self._placed(here, snapshot)
        return candidate_of(placed) if placed else None

    def _regions(self, snapshot: Snapshot, missing: Mapping[str, str], now_ns: int) -> list[Region]:
        """The surest of each proposer first, as many as are looked at."""
        found = self._inbox.take(now_ns, self._settings.detection_age)
        found = [region for region in found if self._is_seen(region, snapshot, missing)]
        for sensor, view in snapshot.views.items():
            for propose in self._proposers.get(view.reading.modality, ()):
                found += self._attempt(sensor, propose, sensor, snapshot) or []
        by_proposer: dict[str, list[Region]] = {}
        for region in found:
            by_proposer.setdefault(region.proposer, []).append(region)
        ranked = [
            (place, number, region)
            for number, regions in enumerate(by_proposer.values())
            for place, region in enumerate(sorted(regions, key=lambda region: -region.score))
        ]
        ranked.sort(key=lambda entry: entry[:2])
        kept = [region for _, _, region in ranked[: self._settings.max_regions]]
        self._count("regions", len(kept))
        self._count("dropped", len(found) - len(kept))
        return kept

    def _is_seen(self, region: Region, snapshot: Snapshot, missing: Mapping[str, str]) -> bool:
        """Whether a region of a detector is in space, or in a picture of this tick."""
        if isinstance(region, Region3D):
            return True
        sensor, who = region.sensor, region.proposer
        if sensor not in snapshot.pictures:
            why = missing.get(sensor, "no such sensor has a picture now")
            expected = f"one of {', '.join(snapshot.pictures) or 'none, there is no picture'}"
            self._reject(who, f"[{who}] a box in '{sensor}' ({why}), expected {expected}")
            return False
        width, height = snapshot.views[sensor].reading.size
        if region.box.within(Rectangle(0, 0, width, height)).area:
            return True
        told = ", ".join(f"{value:g}" for value in region.box)
        self._reject(who, f"[{who}] a box {told} in '{sensor}', expected one in its {width} x {height} pixels")
        return False

    def _placed(self, regions: Sequence[Region], snapshot: Snapshot) -> list[Placed]:
        """Where they are; those of which that is not known are counted."""
        found = [self._attempt(region.proposer, self._place, region, snapshot) for region in regions]
        return [placed for placed in found if placed is not None]

    def _place(self, region: Region, snapshot: Snapshot) -> Placed:
        if isinstance(region, Region3D):
            return Placed(region, region.volume)
        view = snapshot.views[region.sensor]
        region = cut_to(region, Rectangle(0, 0, *view.reading.size))
        if region.stamp_ns != view.reading.stamp_ns:  # the detector took its time, and the robot may have moved
            view = self._rig.view(replace(view.reading, stamp_ns=region.stamp_ns))
            snapshot = snapshot.seen_by(view)
        return Placed(region, depth.place(region, snapshot), view)


def cut_to(region: Region2D, picture: Rectangle) -> Region2D:
    """A region, and its mask, without what is beyond the picture."""
    box = region.box.within(picture)
    mask = region.mask
    if mask is not None:
        across, down = (math.floor(new) - math.floor(old) for new, old in zip(box[:2], region.box[:2], strict=True))
        mask = mask[down:, across:]
    return replace(region, box=box, mask=mask)
