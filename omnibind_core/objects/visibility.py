"""Which sensors see a thing, where in their pictures, and why the others do not."""

from __future__ import annotations

from dataclasses import dataclass

from omnibind_core.objects.regions import Rectangle


@dataclass(frozen=True)
class Sight:
    """What one sensor sees of a thing.

    Attributes:
        box: Where it is in the picture, inside of it; ``None`` in a cloud, and where it is not seen.
        reason: Why it is not seen, in words with values; ``""`` if it is.
    """

    box: Rectangle | None = None
    reason: str = ""

    @property
    def seen(self) -> bool:
        """Whether the sensor takes part."""
        return not self.reason
