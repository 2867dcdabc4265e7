"""What could not be used: how much, and why the last time."""

from __future__ import annotations

from collections.abc import Mapping

from omnibind_core.errors import InvalidInputError

_MOST = 64  # sources that are remembered, the newest: messages name them, as many as they like


class Rejections:
    """Counts, and the last reason of each of the newest sources. Written by one thread, read by any.

    Attributes:
        count: Of all sources.
    """

    def __init__(self) -> None:
        self.count = 0
        self._reasons: dict[str, str] = {}

    def add(self, source: str, error: InvalidInputError, count: int = 1) -> None:
        """Notes that so many parts of a message, or all of it, could not be used."""
        self.count += count
        reasons = dict(self._reasons)
        reasons.pop(source, None)
        reasons[source] = str(error)
        while len(reasons) > _MOST:
            del reasons[next(iter(reasons))]
        self._reasons = reasons  # as a whole: others read it

    def clear(self) -> None:
        """Forgets all."""
        self.count = 0
        self._reasons = {}

    @property
    def reasons(self) -> Mapping[str, str]:
        """The last reason of each source, the newest last."""
        return dict(self._reasons)
