"""Which sensors see a thing."""

from __future__ import annotations

from dataclasses import dataclass

from omnibind_core.objects.regions import Rectangle


@dataclass(frozen=True)
class Sight:
    """Whether, and where, a sensor sees a thing.

    Attributes:
        box: Where in its picture; ``None`` of a sensor without pixels, and of one that does not see it.
        reason: Why it does not see it; ``""`` if it does.
        seen: Whether it does.
    """

    box: Rectangle | None
    reason: str
    seen: bool = False
