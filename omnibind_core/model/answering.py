"""What every model that answers can do, whatever computes it. No torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omnibind_core import modalities
from omnibind_core.errors import ConfigError, InvalidInputError
from omnibind_core.labels import PAPER_TEMPLATES
from omnibind_core.modalities import Doubt, Reading
from omnibind_core.modalities.base import Preset

NEAR = 0.7
"""Cosine of labels from which on one is the other under another name; docs/own_labels.md has the trial."""
_SLICE = 8  # sentences of a vocabulary that are embedded at once: a tenth of a second on one core


@dataclass(frozen=True)
class Recognition:
    """What one set of ``n`` tokens was recognised as.

    Attributes:
        embedding: ``float32 [D]``, fused, unit length.
        weights: ``float32 [n]``, share of each token, sum 1; 0 of those that a doubt excludes, and of all if all are.
        similarities: ``float32 [1 + n, C]`` cosines to every label; row 0 fused, then each token alone.
        probabilities: ``float32 [1 + n, C]``, calibrated; each row sums to 1, less the chance that nothing of a
            vocabulary of the user's fits, and is uniform where a doubt excludes all that it would be of.
        without: ``float32 [n, C]``, calibrated probabilities of what is left without each token; uniform where nothing
            is left that says anything.
        familiarity: ``float32 [n]``, how like each token is to those of the training samples of its modality, see
            :class:`omnibind_core.fusion.familiarity.Familiarity`; NaN where it is not known.
        names: The ``C`` labels.
        speaks: Of each token, whether anything can be said from it: False if a doubt excludes it.
        threshold: Confidence below which the answer is unknown.

    Raises:
        InvalidInputError: One of them, but for the familiarity, has values that are not finite: that is no answer.
    """

    embedding: NDArray[np.float32]
    weights: NDArray[np.float32]
    similarities: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    without: NDArray[np.float32]
    familiarity: NDArray[np.float32]
    names: tuple[str, ...] = field(kw_only=True)
    speaks: tuple[bool, ...] = field(kw_only=True)
    threshold: float = field(kw_only=True)

    def __post_init__(self) -> None:
        for name in ("embedding", "weights", "similarities", "probabilities", "without"):
            if not np.isfinite(getattr(self, name)).all():
                raise InvalidInputError("recognise", f"{name} that are not finite", "an answer of finite numbers")

    @property
    def label(self) -> str:
        """What it is; ``""`` if that is unknown."""
        return "" if self.unknown else self.names[int(self.probabilities[0].argmax())]

    @property
    def confidence(self) -> float:
        """Calibrated probability of the most probable label, 0..1."""
        return float(self.probabilities[0].max())

    @property
    def unknown(self) -> bool:
        """Whether nothing says anything, or the confidence is below the threshold."""
        return not any(self.speaks) or self.confidence < self.threshold


class Labels(Protocol):
    """A vocabulary, as those who ask a model need it; see :class:`omnibind_core.labels.LabelBank`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in the order of every score vector."""
        ...

    @property
    def aliases(self) -> Mapping[str, tuple[str, ...]]:
        """Further names per label."""
        ...

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts the labels were embedded with."""
        ...

    @property
    def reduce(self) -> str:
        """How several rows of a label make one score."""
        ...

    @property
    def descriptions(self) -> Mapping[str, tuple[str, ...]]:
        """Sentences on what a label means."""
        ...


class AnsweringModel:
    """Recognises what any set of modalities shows.

    Attributes:
        digest: Hash of the saved architecture and weights; empty for a model never saved.
        threshold: Confidence below which a prediction is unknown; starts as the calibrated one.
    """

    digest: str
    threshold: float

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the architecture."""

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Width D of the embeddings."""

    @property
    @abstractmethod
    def slots(self) -> Mapping[str, str | None]:
        """Modalities of the model, in their order, with the name of the preset of each; None for its default."""

    @property
    @abstractmethod
    def modalities(self) -> tuple[str, ...]:
        """Modalities that this instance can encode, in the order of :func:`omnibind_core.modalities.names`."""

    @property
    @abstractmethod
    def labels(self) -> Any:
        """The vocabulary, :class:`Labels`.

        Raises:
            ConfigError: None was set.
        """

    @labels.setter
    @abstractmethod
    def labels(self, bank: Any) -> None: ...

    @abstractmethod
    def embed(self, items: Sequence[tuple[str, NDArray[Any]]]) -> Any:
        """Embeds items of any modalities; those that share a trunk go through it in one batch.

        Args:
            items: ``(modality, views [V, ...])`` as :meth:`process` makes them.

        Returns:
            ``float32 [n, D]``, unit length, in the order of the items: an array or a tensor.

        Raises:
            ConfigError: The model has no such modality.
            InvalidInputError: An item has another shape or dtype than the preset's.
        """

    @abstractmethod
    def embed_text(self, sentences: Sequence[str]) -> Any:
        """Unit-length embeddings ``float32 [n, D]`` of sentences: an array or a tensor."""

    @abstractmethod
    def recognise(
        self, modalities: Sequence[str], embeddings: Any, doubts: Sequence[Doubt | None] | None = None
    ) -> Recognition:
        """Fuses the tokens of one moment and classifies the result and every token alone.

        Args:
            modalities: Modality of each token.
            embeddings: ``float32 [n, D]``, unit length, at least one.
            doubts: What speaks against the reading of each, see :func:`omnibind_core.modalities.doubt`; None if nothing
                is known.

        Raises:
            ConfigError: The model's config has no such modality.
            InvalidInputError: No token, or the number or width of the embeddings does not fit.
        """

    @abstractmethod
    def _bank(
        self,
        names: tuple[str, ...],
        embed: Callable[[Sequence[str]], Any],
        templates: Sequence[str],
        reduce: str,
        descriptions: Mapping[str, Sequence[str]],
    ) -> Any:
        """A vocabulary, as :meth:`omnibind_core.labels.LabelBank.from_names` makes it."""

    @property
    def identity(self) -> str:
        """``name@hash``: equal for two models only if they make the same embeddings."""
        return f"{self.name}@{self.digest or 'unsaved'}"

    def set_labels(
        self,
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        between: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Replaces the vocabulary, with the prompts of the present one. Other threads may recognise meanwhile.

        What looks more like another label that the model was made with than like any of these is unknown: confidences
        are lowered by the chance of that, and the order of the labels stays.

        Args:
            labels: Names, which keep the descriptions that the present vocabulary has of them; or names with
                descriptions of their own, see :meth:`omnibind_core.labels.LabelBank.from_names`.
            between: Called before each slice of sentences with the number embedded and of all; what it raises goes
                through, and the vocabulary stays.

        Raises:
            ConfigError: Fewer than two names are left.
        """
        if len(names := {" ".join(name.split()) for name in labels} - {""}) == 1:
            raise ConfigError(f"one label, '{names.pop()}', expected two or more: one alone is always the answer")

        def embed(sentences: Sequence[str]) -> list[Any]:
            rows = []
            for start in range(0, len(sentences), _SLICE):
                between(start, len(sentences))
                rows.append(self.embed_text(sentences[start : start + _SLICE]))
            between(len(sentences), len(sentences))
            return rows

        old = self._present()
        templates, reduce = (PAPER_TEMPLATES, "mean") if old is None else (old.templates, old.reduce)
        told = labels if isinstance(labels, Mapping) else {} if old is None else old.descriptions
        self.labels = self._bank(tuple(labels), embed, templates, reduce, told)

    @abstractmethod
    def _present(self) -> Labels | None:
        """The vocabulary; None if none was set."""

    def process(self, modality: str, raw: Any) -> NDArray[Any]:
        """Encoder input ``[views, ...]`` of one raw item, which is checked, by the preset of the model's config.

        Args:
            modality: Its modality.
            raw: In the modality's raw form; :func:`omnibind_core.load` makes it of other things.

        Raises:
            ConfigError: The model has no such modality.
            InvalidInputError: The item is not in its raw form, or out of range.
        """
        if modality not in self.slots:  # no encoder is needed
            raise self._unknown(modality)
        found = modalities.get(modality)
        return found.process(found.check(raw, modality), self._preset(modality))

    def encode(self, readings: Sequence[Reading], batch_size: int = 32) -> NDArray[np.float32]:
        """Embeddings of readings, each alone: to be searched, clustered, or fused later by :meth:`recognise`.

        All modalities share the space of text, so the cosine of two is their product: with each other, and with
        :meth:`embed_text` of this model. Those of another :attr:`identity` are not comparable.

        Args:
            readings: What :func:`omnibind_core.load` gave, of any modalities.
            batch_size: Readings that are encoded at once.

        Returns:
            ``float32 [n, D]``, unit length, in the order of the readings, on the CPU.

        Raises:
            ConfigError: The model has no such modality, or the batch size is below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected 1 or more")
        out = np.empty((len(readings), self.embed_dim), np.float32)
        for start in range(0, len(readings), batch_size):
            part = readings[start : start + batch_size]
            views = [(reading.modality, self.process(reading.modality, reading.raw)) for reading in part]
            out[start : start + len(part)] = on_host(self.embed(views))
        return out

    def predict(self, readings: Sequence[Reading]) -> Recognition:
        """Recognises what readings of one moment show: all fused, and each alone.

        Args:
            readings: What :func:`omnibind_core.load` gave, at least one, of any modalities.

        Raises:
            ConfigError: The model has no such modality.
            InvalidInputError: There is no reading.
        """
        return self.predict_batch([readings])[0]

    def predict_batch(self, scenes: Sequence[Sequence[Reading]], batch_size: int = 32) -> list[Recognition]:
        """As :meth:`predict`, for many moments, whose readings are encoded together.

        Args:
            scenes: The readings of each; the same sensors need not be there in all.
            batch_size: Readings that are encoded at once.

        Raises:
            ConfigError: The model has no such modality.
            InvalidInputError: One of them has no reading.
        """
        if not all(scenes):
            raise InvalidInputError("predict", "no reading", "at least one for every answer")
        rows = iter(self.encode([reading for scene in scenes for reading in scene], batch_size))
        return [
            self.recognise(
                [reading.modality for reading in scene],
                np.stack([next(rows) for _ in scene]),
                [reading.doubt for reading in scene],
            )
            for scene in scenes
        ]

    def warm_up(self, modalities_used: Iterable[str]) -> None:
        """Encodes and fuses blank input once, so that the first real prediction is as fast as those after it."""
        items = self._blank(modalities_used)
        if items:
            self.recognise([name for name, _ in items], self.embed(items))

    def _blank(self, modalities_used: Iterable[str]) -> list[tuple[str, NDArray[Any]]]:
        """One view of nothing of each modality."""
        presets = {name: self._encodable(name) for name in dict.fromkeys(modalities_used)}
        return [
            (name, np.zeros((1, *(max(size, 1) for size in preset.shape)), preset.dtype))
            for name, preset in presets.items()
        ]

    def _preset(self, modality: str) -> Preset:
        return modalities.get(modality).preset(self.slots[modality])

    def _encodable(self, modality: str) -> Preset:
        """The preset of a modality that this instance can encode."""
        if not self._encodes(modality):
            raise self._unknown(modality)
        return self._preset(modality)

    @abstractmethod
    def _encodes(self, modality: str) -> bool:
        """Whether this instance can encode a modality."""

    def _unknown(self, modality: str) -> ConfigError:
        return ConfigError(f"this model cannot encode '{modality}'; it can encode {', '.join(self.modalities)}")

    def _check_views(self, modality: str, views: NDArray[Any]) -> None:
        preset = self._encodable(modality)
        dtype = "str" if views.dtype.kind == "U" else str(views.dtype)
        fits = views.ndim == 1 + len(preset.shape) and all(
            want in (-1, got) for want, got in zip(preset.shape, views.shape[1:], strict=True)
        )
        if not fits or dtype != preset.dtype or len(views) == 0:
            shape = ", ".join("any" if size < 0 else str(size) for size in preset.shape)
            raise InvalidInputError(modality, f"{dtype} {list(views.shape)}", f"{preset.dtype} [views, {shape}]")

    def _check_tokens(self, modalities: Sequence[str], shape: tuple[int, ...]) -> None:
        """Refuses what :meth:`recognise` cannot fuse."""
        expected = (len(modalities), self.embed_dim)
        if not modalities or shape != expected:
            raise InvalidInputError("recognise", f"embeddings of shape {shape}", f"{expected}, at least one row")
        unknown = sorted(set(modalities) - set(self.slots))
        if unknown:
            raise ConfigError(f"this model has no modality {', '.join(unknown)}; it has {', '.join(self.slots)}")


def on_host(rows: Any) -> NDArray[np.float32]:
    """An array, of one or of a tensor on any device."""
    if hasattr(rows, "detach"):
        rows = rows.detach().cpu()
    return np.asarray(rows)
