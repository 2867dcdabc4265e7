"""One prediction for each thing: regions in, things out, whatever subset of the sensors is alive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from omnibind_core.objects.regions import Region2D, Region3D
from omnibind_core.objects.rig import Reading, Rig
from omnibind_core.objects.types import ObjectPrediction, ObjectSettings
from omnibind_core.runtime.encoding import Recogniser, Token
from omnibind_core.runtime.sensor import Item

Region = Region2D | Region3D


def readings(tokens: Sequence[Token], place: Callable[[Item], tuple[str, bool]]) -> dict[str, Reading]:
    """What the sensors offer to a tick, by sensor.

    Args:
        tokens: Of the tick, see :meth:`omnibind_core.runtime.PerceptionEngine.tokens`.
        place: The frame of an item, by its header and payload, and whether that is an optical frame while its points
            are not (a depth picture).
    """
    found = {}
    for token in tokens:
        frame, optical = place(token.newest)
        config = token.sensor
        found[config.name] = Reading(
            config.name,
            config.modality,
            token.content,
            token.newest.stamp_ns,
            frame,
            token.embedding,
            token.doubt,
            optical,
        )
    return found


class ObjectEngine:
    """Finds, follows and recognises things.

    :meth:`detect` and the attributes may be used on any thread; all else on one.

    Args:
        model: The model.
        rig: Where the sensors are.
        settings: How things are found, followed and recognised.

    Attributes:
        counters: How often what happened: ``regions`` looked at, ``rejected`` regions, items and crops, ``dropped``
            regions beyond ``max_regions``, ``encoded`` crops, ``skipped`` crops that were due and had to wait,
            ``tracks`` that were begun; ``things`` is how many there are now.
        rejections: The last reason of what was rejected, by sensor or proposer.
    """

    def __init__(self, model: Recogniser, rig: Rig, settings: ObjectSettings | None = None) -> None:
        self.model = model
        self.rig = rig
        self.settings = settings or ObjectSettings()
        self.counters: Mapping[str, int] = Counter()
        self.rejections: Mapping[str, str] = {}

    def detect(self, regions: Sequence[Region]) -> None:
        """Takes in what a detector found, for the next tick."""

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
            boxes: Given things, each by a name that it keeps, with its regions: nothing else is looked for then.

        Returns:
            Things in the order of their ids.
        """
        return []

    def clear(self) -> None:
        """Forgets all things, because time went backwards. Ids and counters go on."""
