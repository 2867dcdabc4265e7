"""Work on several threads whose results come in order, as if there were one."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that compute with torch on as many threads of its own as this one does."""
    return ThreadPoolExecutor(threads, initializer=_start)


def _start() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].get_num_threads()  # its settings reach a thread when it is first asked for them


def in_order(function: Callable[[_T], _R], items: Iterable[_T], threads: int) -> Iterator[_R]:
    """As ``map``, on several threads; results that nobody takes stop them.

    Args:
        function: Called with one item; what it raises is raised where its result would come.
        items: Taken one by one, each as soon as it will be worked on next.
        threads: How many; 1 works here, on none.
    """
    if threads == 1:
        yield from map(function, items)
        return
    with pool(threads) as workers:
        running: deque[Future[_R]] = deque()
        try:
            for item in items:
                running.append(workers.submit(function, item))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
