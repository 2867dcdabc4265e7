"""From what the sensors offer to embeddings: decode, check, cut the window, preprocess, encode; each item once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.errors import InvalidInputError, OmniBindError
from omnibind_core.modalities import Doubt
from omnibind_core.runtime.sensor import SECOND, Item, Pick
from omnibind_core.runtime.types import Doubted, Encoded, SensorConfig

_UNIT_TOLERANCE = 1e-2  # half-precision embeddings from another host are that near to unit length

_INERTIA = 0.9  # of the mean cost of a sensor, each tick, and of what its tokens changed by, each token

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Labels(Protocol):
    """A vocabulary; see :class:`omnibind_core.labels.LabelBank`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in the order of every score vector."""
        ...


class Recognised(Protocol):
    """What a set of tokens was recognised as; see :class:`omnibind_core.model.Recognition`."""

    @property
    def embedding(self) -> NDArray[np.float32]:
        """Fused, ``[D]``."""
        ...

    @property
    def weights(self) -> NDArray[np.float32]:
        """Share of each token, ``[n]``."""
        ...

    @property
    def similarities(self) -> NDArray[np.float32]:
        """Cosines ``[1 + n, C]``; row 0 fused."""
        ...

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Calibrated, ``[1 + n, C]``."""
        ...

    @property
    def without(self) -> NDArray[np.float32]:
        """Probabilities of every label without each token, ``[n, C]``."""
        ...

    @property
    def familiarity(self) -> NDArray[np.float32]:
        """How like each token is to what its encoder was trained with, ``[n]``, -6..1; NaN where not known."""
        ...


class Recogniser(Protocol):
    """What the runtime needs of a model; :class:`omnibind_core.model.AnsweringModel` is one."""

    @property
    def labels(self) -> Labels:
        """The vocabulary; another object after it was swapped."""
        ...

    @property
    def threshold(self) -> float:
        """Confidence below which a prediction is unknown."""
        ...

    def process(self, modality: str, raw: Any) -> NDArray[Any]:
        """Encoder input ``[views, ...]`` of one checked raw item."""
        ...

    def embed(self, items: Sequence[tuple[str, NDArray[Any]]]) -> Any:
        """Unit-length embeddings ``[n, D]`` (array or tensor) of ``(modality, views)``."""
        ...

    def recognise(
        self, modalities: Sequence[str], embeddings: NDArray[np.float32], doubts: Sequence[Doubt | None] | None = None
    ) -> Recognised:
        """Fuses and classifies ``[n, D]`` embeddings; the runtime gives ``doubts`` only where there is one."""
        ...


@dataclass(eq=False)
class Token:
    """The embedding of what one sensor offers, on its way.

    Attributes:
        sensor: The sensor.
        parts: The usable items that it offers, oldest first.
        views: Encoder input, until it is encoded.
        embedding: ``float32 [D]``; ``None`` until it is encoded, and if that failed.
        doubt: What speaks against what is encoded; ``None`` if nothing does.
    """

    sensor: SensorConfig
    parts: tuple[Item, ...]
    views: NDArray[Any] | None = field(default=None, repr=False)
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)
    doubt: Doubt | None = None

    @property
    def newest(self) -> Item:
        """The newest of its items."""
        return self.parts[-1]

    def fill(self, row: NDArray[Any]) -> None:
        """Takes its embedding.

        Raises:
            InvalidInputError: It is none.
        """
        self.embedding, self.views = _checked(row, self.sensor.name), None

    @property
    def content(self) -> Any:
        """What is encoded: the raw item of a frame, the window that is cut out of a stream, or an :class:`Encoded`.

        Raises:
            InvalidInputError: The parts of the stream do not fit together.
        """
        raw, modality = self.newest.raw, modalities.get(self.sensor.modality)
        if isinstance(raw, Encoded) or not modality.is_stream:
            return raw
        # The window ends with the data, not with the tick: the same parts always give the same embedding.
        end_ns = self.newest.stamp_ns + round(raw.duration * SECOND)
        parts = [(part.stamp_ns, part.raw) for part in self.parts if not isinstance(part.raw, Encoded)]
        return modality.join(parts, end_ns, self.sensor.window)


class TokenCache:
    """Makes tokens and keeps the newest of every sensor, so that a tick without new data encodes nothing.

    What fails is the failure of one sensor: it is counted through ``on_unusable``, and the others are not affected.
    For one thread at a time.

    Args:
        model: The model.
        decode: Turns ``(sensor name, payload)`` into a raw item or :class:`Encoded`.
        on_unusable: Called with the sensor's name and the reason for each item that cannot be used.
        on_verdict: Called with the sensor's name, whether its newest item could be encoded and what speaks against it
            (``None``: nothing), after new items of it were tried.

    Attributes:
        seconds: What the stages of the last call took: ``decode`` (and preprocess), ``encode``.
        costs: Mean s of the last calls that each sensor took; encoding is shared out by the size of its input.
        changes: How much each sensor's tokens change from one to the next, 1 - cosine; rises at once, falls slowly.
    """

    def __init__(
        self,
        model: Recogniser,
        decode: Callable[[str, Any], Any],
        on_unusable: Callable[[str, str], None],
        on_verdict: Callable[[str, bool, Doubt | None], None],
    ) -> None:
        self._model = model
        self._decode = decode
        self._on_unusable = on_unusable
        self._on_verdict = on_verdict
        self._tokens: dict[str, Token] = {}
        self._traced: set[tuple[str, type[Exception]]] = set()
        self._fitting: set[tuple[str, int]] = set()  # modalities and widths of embeddings that the model took
        self.seconds: dict[str, float] = {}
        self.costs: dict[str, float] = {}
        self.changes: dict[str, float] = {}

    def clear(self) -> None:
        """Forgets every token."""
        self._tokens, self.changes = {}, {}

    def forget(self, sensor: str) -> None:
        """Forgets the token of one sensor, so that it answers with nothing from before."""
        self._tokens.pop(sensor, None)

    def newest(self, sensor: str) -> Any:
        """The raw item of a sensor that was decoded last; ``None`` if there is none."""
        token = self._tokens.get(sensor)
        return None if token is None else token.newest.raw

    def encode(
        self, picks: Sequence[Pick], embed: bool = True, held: Collection[str] = (), later: bool = False
    ) -> list[Token]:
        """The tokens of a tick, in the order of the picks; all new items go to the model in one call.

        Args:
            picks: What the sensors offer.
            embed: Otherwise they are only preprocessed, and keep their views.
            held: Sensors whose last token will do, unless it is too old for the tick.
            later: Those that were preprocessed here keep their views, and the caller encodes them: whether they are
                usable is known before. What others have preprocessed is encoded now.
        """
        begin = time.perf_counter()
        before = dict(self._tokens)
        names = {pick.sensor.name for pick in picks}
        self._tokens = {name: token for name, token in before.items() if name in names}  # the dead hold no memory
        kept = {pick.sensor.name for pick in picks if pick.sensor.name in held and self._lasts(pick)}
        tried = [
            pick for pick in picks if pick.sensor.name not in kept and not all(part.decoded for part in pick.parts)
        ]
        tokens: dict[str, Token] = {}
        costs: dict[str, float] = {}
        decoded = begin
        for pick in picks:
            name, start = pick.sensor.name, decoded
            token = before[name] if name in kept else self._token(pick)
            decoded = time.perf_counter()
            costs[name] = decoded - start
            if token is not None:
                tokens[name] = token
        sizes = {name: token.views.size for name, token in tokens.items() if token.views is not None}
        waiting = [token for token in tokens.values() if token.views is not None]
        if embed:
            self.embed([token for token in waiting if not later or isinstance(token.newest.raw, Encoded)])
        self.seconds = {"decode": decoded - begin, "encode": time.perf_counter() - decoded}
        for name, size in sizes.items():
            costs[name] += self.seconds["encode"] * size / max(sum(sizes.values()), 1)
        olds = self.costs
        self.costs = {name: cost + _INERTIA * (olds.get(name, cost) - cost) for name, cost in costs.items()}
        tokens = {
            name: token
            for name, token in tokens.items()
            if token.embedding is not None or (token.views is not None and (later or not embed))
        }
        self._compare(before, tokens)
        for pick in tried:
            # A window is fused without its broken parts; what speaks for the sensor is the newest part.
            token = tokens.get(pick.sensor.name)
            usable = token is not None and token.newest is pick.newest
            self._on_verdict(pick.sensor.name, usable, None if token is None else token.doubt)
        return list(tokens.values())

    def _lasts(self, pick: Pick) -> bool:
        """Whether the last token of a sensor is encoded, of the same settings, and not too old for the tick."""
        token = self._tokens.get(pick.sensor.name)
        if token is None or token.embedding is None or token.sensor != pick.sensor:
            return False
        return token.newest.stamp_ns >= pick.oldest_ns

    def _compare(self, before: Mapping[str, Token], tokens: Mapping[str, Token]) -> None:
        """Notes how much the new tokens differ from those before."""
        changes = dict(self.changes)
        for name, token in tokens.items():
            old = before.get(name, token)
            if old is not token and old.embedding is not None and token.embedding is not None:
                change = 1 - float(old.embedding @ token.embedding)
                changes[name] = max(change, _INERTIA * changes.get(name, 0.0))
        self.changes = changes

    def _token(self, pick: Pick) -> Token | None:
        """The token of a pick, new if its items are; ``None`` if none of them is usable and new enough."""
        parts = tuple(part for part in pick.parts if self._raw(pick.sensor, part) is not None)
        if not parts or parts[-1].stamp_ns < pick.oldest_ns:
            return None
        token = self._tokens.get(pick.sensor.name)
        if token is None or token.parts != parts:
            token = self._tokens[pick.sensor.name] = Token(pick.sensor, parts)
            self.attempt(pick.sensor.name, self._prepare, token)
        return token

    def _raw(self, sensor: SensorConfig, item: Item) -> Any:
        if not item.decoded:
            item.raw = self.attempt(sensor.name, self._decode_item, sensor, item)
            item.payload, item.decoded = None, True
        return item.raw

    def _decode_item(self, sensor: SensorConfig, item: Item) -> Any:
        """The checked raw item, or ``None`` if there is nothing in it."""
        raw = self._decode(sensor.name, item.payload)
        if isinstance(raw, Doubted):
            raw, item.doubt = raw.raw, raw.doubt
        if isinstance(raw, Encoded):
            return raw
        modality = modalities.get(sensor.modality)
        if modality.is_stream and isinstance(raw, Sized) and not len(raw):
            return None  # a still scene makes no events: that is not an error
        return modality.check(raw, sensor.name)

    def _prepare(self, token: Token) -> None:
        """Fills ``views``, or ``embedding`` if it came with one."""
        sensor, raw = token.sensor, token.content
        if isinstance(raw, Encoded) and raw.kind == "embedding":
            embedding = _checked(raw.array, sensor.name)
            if (sensor.modality, len(embedding)) not in self._fitting:
                self._model.recognise([sensor.modality], embedding[None])  # refuses another model's width
                self._fitting.add((sensor.modality, len(embedding)))
            token.embedding = embedding
        elif isinstance(raw, Encoded):
            token.views = raw.array
        else:
            token.doubt = token.newest.doubt or modalities.doubt(sensor.modality, raw)
            token.views = self._model.process(sensor.modality, raw)

    def embed(self, tokens: Sequence[Token]) -> None:
        """Encodes what was preprocessed, in one batch; what fails then is tried alone, and has no embedding."""
        if len(tokens) > 1:
            try:
                self._embed_batch(tokens)
                return
            except Exception:
                _log.debug("a batch could not be encoded; its items are tried one by one", exc_info=True)
        for token in tokens:
            if token.views is not None:
                self.attempt(token.sensor.name, self._embed_batch, [token])
                token.views = None

    def _embed_batch(self, tokens: Sequence[Token]) -> None:
        items = [(token.sensor.modality, token.views) for token in tokens if token.views is not None]
        rows = embedded(self._model, items)
        for token, row in zip(tokens, rows, strict=True):
            token.fill(row)

    def attempt(self, sensor: str, step: Callable[..., _T], *args: Any) -> _T | None:
        """Runs one step for one sensor; a failure is counted and gives ``None``."""
        try:
            return step(*args)
        except InvalidInputError as error:  # of the sensor, whatever found it
            self._on_unusable(sensor, str(InvalidInputError(sensor, error.value, error.expected)))
        except OmniBindError as error:
            self._on_unusable(sensor, str(error))
        except Exception as error:
            if (sensor, type(error)) not in self._traced:
                self._traced.add((sensor, type(error)))
                _log.exception("[%s] unexpected error; further ones of this kind are counted only", sensor)
            self._on_unusable(sensor, f"[{sensor}] {type(error).__name__}: {error}")
        return None


def recognised(model: Recogniser, tokens: Sequence[Token]) -> tuple[Recognised, Sequence[str]]:
    """What tokens that have embeddings, at least one, are recognised as, and the labels.

    Another thread may swap the vocabulary meanwhile; then they are recognised again.
    """
    kinds = [token.sensor.modality for token in tokens]
    embeddings = np.stack([token.embedding for token in tokens if token.embedding is not None])
    doubts = [[token.doubt for token in tokens]] if any(token.doubt for token in tokens) else []
    while True:
        names = model.labels.names
        answer = model.recognise(kinds, embeddings, *doubts)
        now = model.labels.names
        if names is now or names == now:
            return answer, names


def embedded(model: Recogniser, items: Sequence[tuple[str, NDArray[Any]]]) -> NDArray[Any]:
    """Embeddings ``[n, D]`` of ``(modality, views)``, on the CPU."""
    rows = model.embed(items)
    return np.asarray(rows.detach().cpu() if hasattr(rows, "detach") else rows)  # a tensor, maybe on another device


def _checked(vector: Any, sensor: str) -> NDArray[np.float32]:
    """A unit-length embedding ``float32 [D]``."""
    embedding: NDArray[np.float32] = np.asarray(vector, dtype=np.float32)
    norm = float(np.linalg.norm(embedding)) if embedding.ndim == 1 else float("nan")
    if not abs(norm - 1) <= _UNIT_TOLERANCE:  # also refuses NaN
        raise InvalidInputError(
            sensor, f"an embedding of shape {list(embedding.shape)} and length {norm:.3g}", "[D] values of length 1"
        )
    return embedding
