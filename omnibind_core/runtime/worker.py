"""One thread that works on the newest job only: the way to keep inference off the thread that takes messages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from omnibind_core.errors import OmniBindError

_log = logging.getLogger(__name__)

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


class LatestWorker(Generic[JobT, ResultT]):
    """Computes jobs one after another; a job that waits is replaced by a newer one.

    Exceptions of ``compute`` and ``on_result`` are counted, and the first of each type is logged with its traceback;
    the thread lives on.

    Args:
        compute: Turns a job into a result, on the worker's thread.
        on_result: Gets every result, on the worker's thread.
        name: Name of the thread.

    Attributes:
        overruns: Jobs replaced before they were begun.
        errors: Jobs that ended in an exception.
        failure: What the last of these was; empty if there was none.
    """

    def __init__(
        self, compute: Callable[[JobT], ResultT], on_result: Callable[[ResultT], None], name: str = "omnibind-worker"
    ) -> None:
        self.overruns = 0
        self.errors = 0
        self.failure = ""
        self._traced: set[type[Exception]] = set()
        self._compute = compute
        self._on_result = on_result
        self._slot: list[JobT] = []
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: JobT) -> None:
        """Puts a job into the slot and returns at once. After :meth:`close` it is ignored."""
        with self._changed:
            if self._closed:
                return
            self.overruns += len(self._slot)
            self._slot[:] = [job]
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until no job waits or runs.

        Args:
            timeout: s; ``None`` waits without limit.

        Returns:
            Whether that is so; ``False`` after the timeout.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not (self._slot or self._busy), timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Forgets the job that waits, lets the running one finish and ends the thread.

        Args:
            timeout: s to wait for the running job; ``None`` waits without limit.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._closed = True
            self._slot.clear()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> LatestWorker[JobT, ResultT]:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._slot or self._closed)
                if self._closed:
                    return
                job = self._slot.pop()
                self._busy = True
            try:
                self._on_result(self._compute(job))
            except Exception as error:
                self.errors += 1
                self.failure = str(error) if isinstance(error, OmniBindError) else f"{type(error).__name__}: {error}"
                if type(error) not in self._traced:
                    self._traced.add(type(error))
                    _log.exception("a tick failed; the next one is tried, further errors of this kind are counted only")
