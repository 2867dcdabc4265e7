"""The label bank: what the model can say, as text embeddings. Swapped at run time without touching a weight.

Torch is imported when a bank is made: the sentences of a vocabulary need none.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from omnibind_core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

EmbedText = Callable[[Sequence[str]], "Tensor"]

PAPER_TEMPLATES: tuple[str, ...] = ("a photo of a {}",)
"""Prompt of the paper for positives, negatives and labels (App. B)."""

_FEW = 32
"""Embeddings that many labels are multiplied with from the other side: it reads the labels 1.5 times as fast."""
_TOLD = 5  # labels, in a message


class Prompts(NamedTuple):
    """The sentences of a vocabulary.

    Attributes:
        names: Labels, unique.
        sentences: What is embedded.
        row: Of each sentence, the row that is the normalised mean of its sentences.
        owner: Of each row, the label.
        aliases: Further names of the labels.
        descriptions: Sentences on what the labels mean.
    """

    names: tuple[str, ...]
    sentences: list[str]
    row: list[int]
    owner: list[int]
    aliases: dict[str, tuple[str, ...]]
    descriptions: dict[str, tuple[str, ...]]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        templates: Sequence[str] = PAPER_TEMPLATES,
        aliases: Mapping[str, Sequence[str]] | None = None,
        descriptions: Mapping[str, Sequence[str]] | None = None,
    ) -> Prompts:
        """The sentences of labels; arguments and errors as of :meth:`LabelBank.from_names`."""
        unique = tuple(dict.fromkeys(word for name in names if (word := clean(name))))
        if not unique:
            raise ConfigError("the list of labels is empty, expected at least one name")
        for template in templates:
            if "{}" not in template:
                raise ConfigError(f"label template '{template}' has no '{{}}' for the label")
        known = {clean(name): tuple(words) for name, words in (aliases or {}).items()}
        known = {name: known[name] for name in unique if name in known}
        told = {clean(name): tuple(texts) for name, texts in (descriptions or {}).items() if texts}
        told = {name: told[name] for name in unique if name in told}
        sentences: list[str] = []
        row: list[int] = []
        owner: list[int] = []
        for index, name in enumerate(unique):
            words = (name, *known.get(name, ()))
            groups = [(template.replace("{}", word),) for word in words for template in templates]
            for group in (*groups, told[name]) if name in told else groups:
                sentences += group
                row += [len(owner)] * len(group)
                owner.append(index)
        return cls(unique, sentences, row, owner, known, told)


@dataclass(frozen=True)
class LabelBank:
    """Text embeddings of a vocabulary, one or more rows per label.

    Attributes:
        names: Labels, unique, in the order of every score vector.
        rows: ``float32 [R, D]``, unit length, the rows of one label one after another.
        owner: ``int64 [R]``, index into :attr:`names` of each row.
        templates: Prompts the rows were made with; ``{}`` stands for the label.
        aliases: Further names per label; each gave rows of its own.
        reduce: How several rows of a label make one score: ``"max"`` (nearest row, as UniBind's centre embeddings) or
            ``"mean"`` (cosine to the normalised mean row, so that labels with few and many rows compete fairly).
        descriptions: Sentences on what a label means; those of one label gave one row, the last of the label's.
    """

    names: tuple[str, ...]
    rows: Tensor
    owner: Tensor
    templates: tuple[str, ...] = PAPER_TEMPLATES
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reduce: str = "mean"
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_names(self.names)
        if self.reduce not in ("max", "mean"):
            raise ConfigError(f"labels.reduce is '{self.reduce}', expected 'max' or 'mean'")
        if self.rows.ndim != 2 or self.owner.shape != self.rows.shape[:1]:
            raise ConfigError(f"label rows have shape {tuple(self.rows.shape)}, owners {tuple(self.owner.shape)}")
        if self.owner.unique().tolist() != list(range(len(self.names))):
            raise ConfigError(f"the label bank has {len(self.names)} labels, but not every one has a row")
        if not (finite := self.rows.isfinite().all(dim=1)).all():
            name = self.names[int(self.owner[int((~finite).nonzero()[0])])]
            raise ConfigError(f"the embedding of label '{name}' is not finite, expected numbers")

    @classmethod
    def from_names(
        cls,
        names: Sequence[str],
        embed_text: EmbedText,
        templates: Sequence[str] = PAPER_TEMPLATES,
        aliases: Mapping[str, Sequence[str]] | None = None,
        reduce: str = "mean",
        descriptions: Mapping[str, Sequence[str]] | None = None,
    ) -> LabelBank:
        """Embeds a vocabulary.

        Args:
            names: Labels; surrounding white space and repetitions are dropped.
            embed_text: Sentences to unit-length embeddings ``[N, D]``.
            templates: Prompts, each with one ``{}``.
            aliases: Further names of a label.
            reduce: See :class:`LabelBank`.
            descriptions: Sentences on what a label means, such as ``"ketch: a sailing vessel with two masts"``; the
                normalised mean of their embeddings is one more row of the label.

        Raises:
            ConfigError: No name is left, or a template lacks ``{}``.
        """
        import torch
        from torch.nn import functional as F

        prompts = Prompts.of(names, templates, aliases, descriptions)
        embedded = embed_text(prompts.sentences).float()
        sums = embedded.new_zeros(len(prompts.owner), embedded.shape[1])
        sums.index_add_(0, torch.tensor(prompts.row, device=embedded.device), embedded)
        rows = F.normalize(sums, dim=-1)
        owner = torch.tensor(prompts.owner, device=rows.device)
        return cls(prompts.names, rows, owner, tuple(templates), prompts.aliases, reduce, prompts.descriptions)

    def extended(
        self, names: Sequence[str], embed_text: EmbedText, descriptions: Mapping[str, Sequence[str]] | None = None
    ) -> LabelBank:
        """The same bank with further names at its end; rows that are there stay as they are, bit for bit.

        Args:
            names: Labels; those that the bank has are skipped.
            embed_text: Sentences to unit-length embeddings ``[N, D]``.
            descriptions: Of the further names.
        """
        import torch

        known = {*self.names}
        new = [name for name in map(clean, names) if name not in known]
        if not new:
            return self
        more = LabelBank.from_names(new, embed_text, self.templates, descriptions=descriptions)
        return replace(
            self,
            names=(*self.names, *more.names),
            rows=torch.cat([self.rows, more.rows.to(self.rows.device)]),
            owner=torch.cat([self.owner, more.owner.to(self.owner.device) + len(self.names)]),
            descriptions={**self.descriptions, **more.descriptions},
        )

    def __len__(self) -> int:
        return len(self.names)

    def similarities(self, embeddings: Tensor) -> Tensor:
        """Cosines to every label.

        Args:
            embeddings: ``float32 [..., D]``, unit length.

        Returns:
            ``float32 [..., C]``, -1..1.
        """
        if self.reduce == "mean":
            if embeddings.ndim == 2 and len(embeddings) < _FEW:
                return (self.prototypes() @ embeddings.T).T
            return embeddings @ self.prototypes().T
        scores = embeddings @ self.rows.T
        start = scores.new_full((*scores.shape[:-1], len(self.names)), -1.0)
        return start.scatter_reduce(-1, self.owner.expand_as(scores), scores, "amax", include_self=False)

    def prototypes(self) -> Tensor:
        """One unit-length embedding per label, ``[C, D]``: the normalised mean of its rows."""
        return self._prototypes

    @functools.cached_property
    def _prototypes(self) -> Tensor:
        import torch
        from torch.nn import functional as F

        with torch.inference_mode(False), torch.no_grad():  # training may use them, too
            sums = self.rows.new_zeros(len(self.names), self.rows.shape[1]).index_add_(0, self.owner, self.rows)
            return F.normalize(sums, dim=-1)

    def to(self, device: torch.device | str) -> LabelBank:
        """The same bank on another device."""
        return replace(self, rows=self.rows.to(device), owner=self.owner.to(device))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows, for ``labels.json``."""
        return {
            "names": list(self.names),
            "templates": list(self.templates),
            "aliases": {name: list(words) for name, words in self.aliases.items()},
            "reduce": self.reduce,
            "descriptions": {name: list(texts) for name, texts in self.descriptions.items()},
            "owner": self.owner.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], rows: Tensor) -> LabelBank:
        """The inverse of :meth:`to_dict`; ``descriptions`` may be missing, as in files of older models.

        Raises:
            ConfigError: A key is missing, the rows do not fit the names, or these are not different.
        """
        import torch

        try:
            return cls(
                tuple(map(clean, data["names"])),
                rows,
                torch.tensor(data["owner"], dtype=torch.int64, device=rows.device),
                tuple(data["templates"]),
                {clean(name): tuple(words) for name, words in data["aliases"].items()},
                data["reduce"],
                {clean(name): tuple(texts) for name, texts in data.get("descriptions", {}).items()},
            )
        except KeyError as error:
            raise ConfigError(f"labels.json has no key {error}") from error
        except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            if isinstance(error, ConfigError):
                raise
            expected = "what OmniBind.save_pretrained writes"
            raise ConfigError(f"labels.json has values of other types ({error}), expected {expected}") from error


_RANGES = (
    (0, 0x20),
    (0x7F, 0xA0),
    (0x61C, 0x61D),
    (0x200E, 0x2010),
    (0x202A, 0x202F),
    (0x2066, 0x206A),
    (0xD800, 0xE000),
)
UNSEEN = dict.fromkeys(place for low, high in _RANGES for place in range(low, high))
"""Control characters, halves of surrogates, and what turns the direction of the text behind it."""


def check_names(names: Sequence[str]) -> None:
    """Refuses labels of a file that cannot be shown, or told apart.

    Raises:
        ConfigError: One is not as :func:`clean` leaves it, or stands there twice.
    """
    for name in names:
        if not isinstance(name, str) or not name or clean(name) != name:
            raise ConfigError(f"labels have {name!r}, expected one line without control characters and bidi marks")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        more = f" and {len(twice) - _TOLD} more" if len(twice) > _TOLD else ""
        raise ConfigError(f"labels stand there twice, expected different ones: {', '.join(twice[:_TOLD])}{more}")


def clean(name: str) -> str:
    """A label as people, terminals, HTML and ROS can show it: one line, without control characters and bidi marks."""
    return " ".join(" ".join(name.split()).translate(UNSEEN).split())  # what is left between two may be two spaces
