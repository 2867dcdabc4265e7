"""What could not be used: how much, and why the last time."""

from __future__ import annotations

from collections.abc import Mapping

from omnibind_core.errors import InvalidInputError


class Rejections:
    """Counts by source, each with its last reason. Written by one thread, read by any.

    Attributes:
        count: Of all sources.
    """

    def __init__(self) -> None:
        self.count = 0
        self._reasons: dict[str, str] = {}

    def add(self, source: str, error: InvalidInputError, count: int = 1) -> None:
        """Notes that so many parts of a message, or all of it, could not be used."""
        self.count += count
        self._reasons[source] = str(error)

    @property
    def reasons(self) -> Mapping[str, str]:
        """The last reason of each source."""
        return dict(self._reasons)
