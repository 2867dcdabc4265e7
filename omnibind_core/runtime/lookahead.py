"""Ticks that nobody waits for: what is new in several of them is encoded in batches, on several threads."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core import parallel
from omnibind_core.runtime.encoding import Token, embedded
from omnibind_core.runtime.engine import PerceptionEngine, Selection
from omnibind_core.runtime.types import Prediction, SensorReport

_TICKS = 8  # that are encoded together; their raw items are in memory
_ITEMS = 8  # of one modality in a batch
_AHEAD = 2  # such groups of ticks that are being encoded while the next is decoded

_MOST_KNOWN = 50_000  # embeddings that are remembered, 2 kB each

Place = tuple["Future[NDArray[Any]]", int]
"""Batch and row of an embedding."""
Known = dict[bytes, Place]
"""The same by the hash of the encoder input, the oldest first."""


@dataclass(frozen=True)
class Tick:
    """One tick.

    Attributes:
        selection: What it was computed from.
        tokens: What was encoded of it.
        prediction: What was perceived; ``None`` as of :meth:`PerceptionEngine.compute`.
        reports: State of every sensor then.
    """

    selection: Selection
    tokens: tuple[Token, ...] = field(repr=False)
    prediction: Prediction | None
    reports: tuple[SensorReport, ...]


class Lookahead:
    """Computes the ticks of an engine as :meth:`PerceptionEngine.compute` does, some ticks behind.

    Which items a tick has depends on whether those before could be decoded and preprocessed, but not on what they were
    recognised as; so a tick is decoded at once, and encoded and fused later. What is encoded together depends on the
    ticks alone, not on the number of threads or on which of them is faster, so neither do the predictions. The same
    encoder input is encoded once.

    Only an item that was decoded and preprocessed here, and then cannot be encoded, is counted later than it would be,
    and such items reject no sensor.

    Use as a context manager, on one thread.

    Args:
        engine: The engine.
        threads: Threads that encode, beside this one that decodes and fuses.
        known: What is encoded already by the same model, and will be.
    """

    def __init__(self, engine: PerceptionEngine, threads: int = 1, known: Known | None = None) -> None:
        self._engine = engine
        self._known: Known = {} if known is None else known
        self._pool = parallel.pool(threads)
        self._decoded: list[Tick] = []
        self._groups: deque[list[Tick]] = deque()
        self._sent: dict[Token, Place] = {}

    def __enter__(self) -> Lookahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, selection: Selection) -> Iterator[Tick]:
        """Takes the next selection of the engine; gives the ticks that are finished, in their order."""
        tokens = self._engine.tokens(selection, later=True)
        self._decoded.append(Tick(selection, tuple(tokens), None, tuple(self._engine.reports(selection.now_ns))))
        if len(self._decoded) == _TICKS:
            self._encode()
        while len(self._groups) > _AHEAD:
            yield from self._fused()

    def finish(self) -> Iterator[Tick]:
        """Gives all others; to be called at the end, and before time goes backwards."""
        self._encode()
        while self._groups:
            yield from self._fused()

    def _encode(self) -> None:
        """Sends what is new in the ticks that were decoded to the other threads."""
        new: dict[Token, bytes] = {}
        fresh: dict[str, dict[bytes, NDArray[Any]]] = {}
        for token in (token for tick in self._decoded for token in tick.tokens):
            if token.views is not None and token not in self._sent and token not in new:
                modality = token.sensor.modality
                key = new[token] = digest(modality, token.views)
                if key not in self._known:
                    fresh.setdefault(modality, {})[key] = token.views
        for modality, views in fresh.items():
            keys = list(views)
            for batch in (keys[start : start + _ITEMS] for start in range(0, len(keys), _ITEMS)):
                items = [(modality, views[key]) for key in batch]
                future = self._pool.submit(embedded, self._engine.model, items)
                self._known.update({key: (future, row) for row, key in enumerate(batch)})
        self._sent.update({token: self._known[key] for token, key in new.items()})
        for key in list(itertools.islice(self._known, max(len(self._known) - _MOST_KNOWN, 0))):
            del self._known[key]
        self._groups.append(self._decoded)
        self._decoded = []

    def _fused(self) -> Iterator[Tick]:
        """The ticks of the oldest group."""
        for tick in self._groups.popleft():
            for token in tick.tokens:
                if token.views is not None:
                    self._fill(token)
            tokens = tuple(token for token in tick.tokens if token.embedding is not None)
            prediction = self._engine.fuse(tick.selection, tokens)
            yield Tick(tick.selection, tokens, prediction, tuple(self._engine.brought_up(tick.reports)))

    def _fill(self, token: Token) -> None:
        batch, row = self._sent.pop(token)
        try:
            token.fill(batch.result()[row])
        except Exception:  # one item may fail others of its batch
            self._engine.embed([token])


def digest(modality: str, views: NDArray[Any]) -> bytes:
    """What tells the encoder input of one item from any other."""
    content = np.ascontiguousarray(views)
    key = hashlib.blake2b(f"{modality}{content.dtype.str}{content.shape}".encode(), digest_size=16).digest()
    return hashlib.blake2b(content.tobytes(), digest_size=16, key=key).digest()
