"""Another vocabulary for a model that goes on answering by the one it has."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from omnibind_core.errors import ConfigError, OmniBindError
from omnibind_core.labels import clean
from omnibind_core.modalities.text.modality import MOST_CHARACTERS
from omnibind_core.runtime.worker import LatestWorker

MOST_LABELS = 50_000
"""Of a vocabulary: each is compared with at every tick, and told in every status."""
_TOLD = 10  # labels that are named in one sentence
_NICE = 10  # of the embedding thread: it gets a tenth of a core that predictions want, too, and all that is left over

_log = logging.getLogger(__name__)

Between = Callable[[int, int], None]
"""Called before each slice of a vocabulary with the number of sentences embedded and of all; raises to give up."""


def check_labels(labels: Sequence[str]) -> None:
    """Says at once, without the model, whether labels can be a vocabulary; none at all stand for the model's own.

    Raises:
        ConfigError: One is blank, too long, or given twice as they are shown, there is one alone, or there are more
            than :data:`MOST_LABELS`.
    """
    if len(labels) > MOST_LABELS:
        raise ConfigError(f"parameter 'labels' has {len(labels)}, expected at most {MOST_LABELS}")
    longest = max(map(len, labels), default=0)
    if longest > MOST_CHARACTERS:
        raise ConfigError(f"parameter 'labels' has one of {longest} characters, expected at most {MOST_CHARACTERS}")
    names = [clean(label) for label in labels]
    if "" in names:
        raise ConfigError(f"parameter 'labels' has a blank one at place {names.index('') + 1}, expected names")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        more = f" and {len(twice) - _TOLD} more" if len(twice) > _TOLD else ""
        raise ConfigError(f"parameter 'labels' has one twice: {', '.join(twice[:_TOLD])}{more}")
    if len(names) == 1:
        raise ConfigError(
            f"parameter 'labels' has one, '{names[0]}', expected two or more: one alone is always the answer"
        )


class VocabularyChanges:
    """Embeds vocabularies on a thread of its own, so that neither messages nor predictions wait for that.

    Of several changes the last one asked for counts; one that is being embedded is given up between two slices. What
    fails is logged, and the vocabulary stays as it is.

    Args:
        give_way: Called before each slice, so that predictions which are due come first; should return within a
            fraction of a second.
    """

    def __init__(self, give_way: Callable[[], object] = lambda: None) -> None:
        self._give_way = give_way
        self._lock = threading.Lock()
        self._wanted: _Change | None = None  # what is being embedded or waits for it
        self._failure = ""
        self._worker = LatestWorker(self._make, lambda _: None, name="omnibind-vocabulary")

    def request(self, size: int, change: Callable[[Between], None]) -> None:
        """Asks for another vocabulary and returns at once.

        Args:
            size: Number of its labels.
            change: Embeds it and gives it to the model, on the thread; passes on a :data:`Between`.
        """
        wanted = _Change(size, change)
        with self._lock:
            before, self._wanted = self._wanted, wanted
        if before is not None:
            _log.info(
                "labels changed again: the %d of the change before, %s, are given up for the %d of this one",
                before.size,
                before.share,
                size,
            )
        self._worker.submit(wanted)

    @property
    def busy(self) -> str:
        """What is being embedded, in words; empty if nothing is."""
        wanted = self._wanted
        return "" if wanted is None else f"embedding a vocabulary of {wanted.size} labels, {wanted.share}"

    @property
    def failure(self) -> str:
        """Why the last change failed; empty if it did not, or another is under way."""
        return self._failure

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until nothing is being embedded.

        Args:
            timeout: s; ``None`` waits without limit.

        Returns:
            Whether that is so.
        """
        return self._worker.wait(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Gives up what is being embedded.

        Args:
            timeout: s to wait for the slice that is being embedded; ``None`` waits without limit.

        Returns:
            Whether the thread has ended.
        """
        with self._lock:
            self._wanted = None
        return self._worker.close(timeout)

    def _make(self, change: _Change) -> None:
        _lower_priority()
        begin = time.monotonic()
        try:
            self._failure = ""
            change.run(lambda done, total: self._between(change, done, total))
        except _GivenUpError:
            return
        except Exception as error:
            self._failure = str(error) if isinstance(error, OmniBindError) else f"{type(error).__name__}: {error}"
            trace = None if isinstance(error, OmniBindError) else error
            _log.error("labels could not be changed, what was before stays: %s", self._failure, exc_info=trace)
        else:
            _log.info("%d labels answer now, after %.1f s", change.size, time.monotonic() - begin)
        with self._lock:
            if self._wanted is change:
                self._wanted = None

    def _between(self, change: _Change, done: int, total: int) -> None:
        change.done, change.total = done, total
        if self._wanted is change:
            self._give_way()
        if self._wanted is not change:
            raise _GivenUpError


class _Change:
    """One change and how far it is."""

    def __init__(self, size: int, run: Callable[[Between], None]) -> None:
        self.size = size
        self.run = run
        self.done, self.total = 0, 1

    @property
    def share(self) -> str:
        return f"{100 * self.done // max(self.total, 1)} % done"


class _GivenUpError(Exception):
    """Another change came, or the end."""


def _lower_priority() -> None:
    if sys.platform == "linux":  # where threads have priorities of their own, which those they start inherit
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
