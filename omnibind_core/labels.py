"""The label bank: what the model can say, as text embeddings. Swapped at run time without touching a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.errors import ConfigError

PAPER_TEMPLATES: tuple[str, ...] = ("a photo of a {}",)
"""Prompt of the paper for positives, negatives and labels (App. B)."""

EmbedText = Callable[[Sequence[str]], Tensor]


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
            ``"mean"`` (mean cosine).
    """

    names: tuple[str, ...]
    rows: Tensor
    owner: Tensor
    templates: tuple[str, ...] = PAPER_TEMPLATES
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if self.reduce not in ("max", "mean"):
            raise ConfigError(f"labels.reduce is '{self.reduce}', expected 'max' or 'mean'")
        if self.rows.ndim != 2 or self.owner.shape != self.rows.shape[:1]:
            raise ConfigError(f"label rows have shape {tuple(self.rows.shape)}, owners {tuple(self.owner.shape)}")
        if self.owner.unique().tolist() != list(range(len(self.names))):
            raise ConfigError(f"the label bank has {len(self.names)} labels, but not every one has a row")

    @classmethod
    def from_names(
        cls,
        names: Sequence[str],
        embed_text: EmbedText,
        templates: Sequence[str] = PAPER_TEMPLATES,
        aliases: Mapping[str, Sequence[str]] | None = None,
        reduce: str = "mean",
    ) -> LabelBank:
        """Embeds a vocabulary.

        Args:
            names: Labels; surrounding white space and repetitions are dropped.
            embed_text: Sentences to unit-length embeddings ``[N, D]``.
            templates: Prompts, each with one ``{}``.
            aliases: Further names of a label.
            reduce: See :class:`LabelBank`.

        Raises:
            ConfigError: No name is left, or a template lacks ``{}``.
        """
        unique = tuple(dict.fromkeys(" ".join(name.split()) for name in names if name.strip()))
        if not unique:
            raise ConfigError("the list of labels is empty, expected at least one name")
        for template in templates:
            if "{}" not in template:
                raise ConfigError(f"label template '{template}' has no '{{}}' for the label")
        known = {name: tuple(words) for name, words in (aliases or {}).items() if name in unique}
        sentences: list[str] = []
        owner: list[int] = []
        for index, name in enumerate(unique):
            for word in (name, *known.get(name, ())):
                for template in templates:
                    sentences.append(template.replace("{}", word))
                    owner.append(index)
        rows = F.normalize(embed_text(sentences).float(), dim=-1)
        return cls(unique, rows, torch.tensor(owner, device=rows.device), tuple(templates), known, reduce)

    def extended(self, names: Sequence[str], embed_text: EmbedText) -> LabelBank:
        """The same bank with further names at its end; rows that are there stay as they are, bit for bit."""
        known = {*self.names}
        new = [name for name in names if name not in known]
        if not new:
            return self
        more = LabelBank.from_names(new, embed_text, self.templates)
        rows = torch.cat([self.rows, more.rows.to(self.rows.device)])
        owner = torch.cat([self.owner, more.owner.to(self.owner.device) + len(self.names)])
        return LabelBank((*self.names, *more.names), rows, owner, self.templates, self.aliases, self.reduce)

    def __len__(self) -> int:
        return len(self.names)

    def similarities(self, embeddings: Tensor) -> Tensor:
        """Cosines to every label.

        Args:
            embeddings: ``float32 [..., D]``, unit length.

        Returns:
            ``float32 [..., C]``, -1..1.
        """
        scores = embeddings @ self.rows.T
        if self.rows.shape[0] == len(self.names):
            return scores
        shape = (*scores.shape[:-1], len(self.names))
        index = self.owner.expand_as(scores)
        start = scores.new_full(shape, -1.0) if self.reduce == "max" else scores.new_zeros(shape)
        how = "amax" if self.reduce == "max" else "mean"
        return start.scatter_reduce(-1, index, scores, how, include_self=False)

    def prototypes(self) -> Tensor:
        """One unit-length embedding per label, ``[C, D]``: the normalised mean of its rows."""
        sums = self.rows.new_zeros(len(self.names), self.rows.shape[1]).index_add_(0, self.owner, self.rows)
        return F.normalize(sums, dim=-1)

    def to(self, device: torch.device | str) -> LabelBank:
        """The same bank on another device."""
        rows, owner = self.rows.to(device), self.owner.to(device)
        return LabelBank(self.names, rows, owner, self.templates, self.aliases, self.reduce)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows, for ``labels.json``."""
        return {
            "names": list(self.names),
            "templates": list(self.templates),
            "aliases": {name: list(words) for name, words in self.aliases.items()},
            "reduce": self.reduce,
            "owner": self.owner.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], rows: Tensor) -> LabelBank:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: A key is missing, or the rows do not fit the names.
        """
        try:
            return cls(
                tuple(data["names"]),
                rows,
                torch.tensor(data["owner"], dtype=torch.int64, device=rows.device),
                tuple(data["templates"]),
                {name: tuple(words) for name, words in data["aliases"].items()},
                data["reduce"],
            )
        except KeyError as error:
            raise ConfigError(f"labels.json has no key {error}") from error
