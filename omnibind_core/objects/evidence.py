"""What things are taken for, by what was said of them so far."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnibind_core.geometry.frames import SECOND
from omnibind_core.runtime.encoding import Recognised, Recogniser, Token, recognised
from omnibind_core.runtime.engine import shares_of
from omnibind_core.runtime.ranking import Ranking, rank
from omnibind_core.runtime.types import Prediction

_EVEN = 0.05
"""Share of an even distribution that is mixed into every answer, so that none excludes a label for ever."""
_MOST = 0.2
"""What one answer counts at most, of all so far: where answers are rare, one that lies does not win."""
_FIRST = 0.2  # s that the first answer counts as


class Evidence:
    """A forgetting average of the logarithms of what a thing's labels were given.

    An average, not a sum: sensors see the same thing at every tick, so that what they say again is nothing new, and ten
    answers of 0.6 stay 0.6. Bayes' sum would make them 0.99. An answer counts by the time since the one before, with a
    time constant of half the memory, not by the number of ticks, and at most a fifth of all. The order of the labels is
    that of the geometric mean, in which an answer that contradicts all others changes little; the probability of the
    first one is at most its arithmetic mean, so that no label becomes more probable than the answers made it. What more
    sensors say of the same moment takes the place of what some of them said: embeddings come in turns.

    Args:
        memory: s within which something else wins over what was said before, if it is said about as surely, and at
            least four times.
    """

    def __init__(self, memory: float = 4.0) -> None:
        self._constant = memory / 2
        self._names: tuple[str, ...] = ()
        self._sums = self._before = _Sums()

    @property
    def names(self) -> tuple[str, ...]:
        """Labels; none as long as nothing was said."""
        return self._names

    def add(
        self, probabilities: NDArray[np.floating], names: tuple[str, ...], now_ns: int, completes: bool = False
    ) -> None:
        """Takes in an answer.

        Args:
            probabilities: ``[C]``, sum at most 1.
            names: The ``C`` labels; other ones than before begin anew.
            now_ns: When.
            completes: It is of all that the one before was of, and of more, and takes its place.
        """
        values = np.asarray(probabilities, np.float64)
        if names is not self._names and names != self._names:
            self._names, self._sums, self._before = names, _Sums(), _Sums()
        self._before = self._before if completes else self._sums
        old = self._before
        seconds = _FIRST if old.last_ns is None else max(now_ns - old.last_ns, 0) / SECOND
        share = min(1 - math.exp(-seconds / self._constant), _MOST)
        even = (1 - _EVEN) * values + _EVEN * values.sum() / len(values)
        logs = np.log(np.maximum(even, np.finfo(np.float64).tiny))
        rest = 1 - share
        self._sums = _Sums(
            rest * old.logs + share * logs, rest * old.means + share * values, rest * old.weight + share, now_ns
        )

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """``[C]``, sum at most 1; what is missing may be any label, or none of them.

        Of as many labels as :attr:`names`, at least one answer given.
        """
        means, logs = self._sums.means / self._sums.weight, self._sums.logs / self._sums.weight
        shares = np.exp(logs - logs.max())
        shares *= means.sum() / shares.sum()
        shares = np.maximum(shares - _EVEN * means.sum() / len(means), 0.0) / (1 - _EVEN)
        first = int(logs.argmax())
        return (shares * min(1.0, means[first] / max(shares[first], 1e-300))).astype(np.float32)


class _Sums(NamedTuple):
    """Weighted sums of answers; the weight of each goes down with every one after it."""

    logs: NDArray[np.float64] = np.zeros(())
    means: NDArray[np.float64] = np.zeros(())
    weight: float = 0.0
    last_ns: int | None = None


@dataclass(eq=False)
class _Belief:
    """What one thing is taken for.

    Attributes:
        evidence: So far.
        tokens: What was recognised last.
        names: The labels then.
        answer: As what.
    """

    evidence: Evidence
    tokens: tuple[Token, ...] = ()
    names: Sequence[str] = ()
    answer: Recognised | None = field(default=None, repr=False)


class Beliefs:
    """What all things are taken for.

    Args:
        model: The model.
        memory: See :class:`Evidence`.
        top_k: Number of labels of a prediction.
    """

    def __init__(self, model: Recogniser, memory: float = 4.0, top_k: int = 5) -> None:
        self._model = model
        self._memory = memory
        self._top_k = top_k
        self._beliefs: dict[int, _Belief] = {}

    def certain(self, id: int) -> float:
        """How sure it is what a thing is, 0..1."""
        belief = self._beliefs.get(id)
        return float(belief.evidence.probabilities.max()) if belief is not None and belief.evidence.names else 0.0

    def keep_only(self, ids: Collection[int]) -> None:
        """Forgets all other things."""
        self._beliefs = {id: belief for id, belief in self._beliefs.items() if id in ids}

    def predict(self, id: int, tokens: Sequence[Token], now_ns: int) -> Prediction:
        """What a thing is.

        The same tokens as at the tick before are no new evidence, and are not recognised again.

        Args:
            id: The thing.
            tokens: What its sensors say of it, with embeddings.
            now_ns: Time of the tick.
        """
        belief = self._beliefs.setdefault(id, _Belief(Evidence(self._memory)))
        self._recognise(belief, tuple(tokens), now_ns)
        answer, names = belief.answer, belief.evidence.names
        shares = shares_of(tokens, answer, belief.names, now_ns) if tokens and answer is not None else ()
        found = Ranking("", 0.0, True, 0.0, (), ())
        if names:
            found = rank(belief.evidence.probabilities, names, self._top_k, self._model.threshold)
        return Prediction(
            tick_ns=now_ns,
            header=None,
            label=found.label,
            confidence=found.confidence,
            unknown=found.unknown,
            entropy=found.entropy,
            labels=found.labels,
            scores=found.scores,
            sensors=shares,
            embedding=np.zeros(0, np.float32) if answer is None else answer.embedding,
            similarities=np.zeros((0, len(names)), np.float32) if answer is None else answer.similarities,
        )

    def _recognise(self, belief: _Belief, tokens: tuple[Token, ...], now_ns: int) -> None:
        now = self._model.labels.names
        known = now is belief.names or now == belief.names
        if not tokens or (known and tokens == belief.tokens):
            return
        answer, names = recognised(self._model, tokens)
        completes = set(belief.tokens) <= set(tokens)
        belief.tokens, belief.names, belief.answer = tokens, names, answer
        if answer.weights.any():
            belief.evidence.add(answer.probabilities[0], tuple(names), now_ns, completes)
