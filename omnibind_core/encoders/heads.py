"""Heads: trunk features ``[N, feature_dim]`` to the shared space ``[N, embed_dim]``, not normalised.

The heads ``identity`` and ``linear`` are torch's own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """LayerNorm, Linear, GELU, Dropout, Linear; beside it, if asked for, a linear path straight from the input.

    Args:
        width_in: Width of the features.
        width_out: Width of the embeddings.
        hidden: Width between the two layers.
        dropout: Share of hidden values dropped in training.
        residual: Adds the linear path.
        parts: Widths of the parts of the features, each of which is normalised by itself; empty for one part.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        hidden: int,
        dropout: float = 0.0,
        residual: bool = False,
        parts: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.norm = PartNorm(parts) if parts else nn.LayerNorm(width_in)
        self.layers = nn.Sequential(
            nn.Linear(width_in, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width_out)
        )
        self.skip = nn.Linear(width_in, width_out, bias=False) if residual else None

    @torch.no_grad()
    def start_as_nothing(self) -> None:
        """Makes the output zero until it is trained."""
        for parameter in (*self.layers[-1].parameters(), *(self.skip.parameters() if self.skip else ())):
            parameter.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """``[N, width_in]`` to ``[N, width_out]``."""
        x = self.norm(features)
        out: Tensor = self.layers(x)
        return out if self.skip is None else out + self.skip(x)


class PartNorm(nn.Module):
    """LayerNorm of each part of the features by itself.

    Args:
        parts: Widths of the parts.
    """

    def __init__(self, parts: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(parts)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in parts)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, sum(parts)]`` to the same shape."""
        split = features.split(self.widths, dim=1)
        return torch.cat([norm(part) for norm, part in zip(self.norms, split, strict=True)], dim=1)


class ConSE(nn.Module):
    """Convex combination of semantic embeddings (Norouzi et al. 2013), with an optional trained refinement.

    The classifier's most probable classes vote: the embedding is the mean of the text embeddings of their names,
    weighted by their probabilities. The refinement is added to the unit-length vote. After training only a share of it
    is used, which keeps what the vote knows of labels that no training sample showed (as weight-space ensembles do,
    Wortsman et al. 2022).

    Args:
        classifier: Logits of the classes, from the first of the features; copied, frozen.
        embed_dim: Width of the class embeddings.
        embed_classes: Makes the class embeddings ``[classes, embed_dim]``. Called once, when they are needed and no
            saved ones were loaded.
        top_k: How many classes vote.
        temperature: Divides the logits before the softmax.
        refinement: ``[N, features] -> [N, embed_dim]``, trained; None for the plain vote.
        share: Share of the refinement that is used in eval mode, 0..1.
        centre: How much of the mean class embedding is taken from each, 0..1. What all classes have in common says
            nothing, but is near to some labels.
        ignored: Classes that do not vote.
    """

    class_embeddings: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        classifier: nn.Linear,
        embed_dim: int,
        embed_classes: Callable[[], Tensor],
        top_k: int = 10,
        temperature: float = 1.0,
        refinement: nn.Module | None = None,
        share: float = 0.5,
        centre: float = 0.0,
        ignored: Collection[int] = (),
    ) -> None:
        super().__init__()
        self.refinement = refinement
        self.share = share
        self._tied = False
        self.embed_classes = embed_classes
        self.top_k = top_k
        self.temperature = temperature
        self.centre = centre
        bias = classifier.bias.detach().clone()
        bias[list(ignored)] = -torch.inf
        self.register_buffer("weight", classifier.weight.detach().clone(), persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.register_buffer("class_embeddings", torch.full((classifier.out_features, embed_dim), torch.nan))

    @torch.no_grad()
    def tie(self) -> None:
        """Makes the class embeddings unless they are there."""
        if self._tied:
            return  # asking the tensor each time would make a GPU wait
        if self.class_embeddings[0, 0].isnan():
            rows = self.embed_classes()
            self.class_embeddings.copy_(rows - self.centre * rows.mean(dim=0))
        self._tied = True

    def forward(self, features: Tensor) -> Tensor:
        """``[N, feature_dim]`` to ``[N, embed_dim]``; without a refinement in the hull of the class embeddings."""
        self.tie()
        logits = nn.functional.linear(features[:, : self.weight.shape[1]], self.weight, self.bias) / self.temperature
        top, classes = logits.topk(self.top_k, dim=1)
        vote = torch.einsum("nk,nkd->nd", top.softmax(dim=1), self.class_embeddings[classes])
        if self.refinement is None:
            return vote
        share = 1.0 if self.training else self.share
        out: Tensor = nn.functional.normalize(vote, dim=-1) + share * self.refinement(features)
        return out


class Adapted(nn.Module):
    """A head with what was learned of one new sensor beside it.

    A classifier of the new sensor's labels votes by their text embeddings, as in :class:`ConSE`, where the features are
    more like those of the new sensor than like those that the model knew before; elsewhere the head stays what it was.
    Wrapped again for a further sensor, what is there is the head. Features are compared and classified as unit-length
    square roots (see :func:`root`), which few samples suffice for.

    Args:
        base: The head.
        width: Of the features.
        embed_dim: Of the embeddings.
        labels: Number of labels L that were learned.
        samples: Number of samples S of the new sensor that are kept.
        home: Number of features H that stand for what the model knew before.
    """

    keys: Tensor
    home: Tensor
    median: Tensor
    spread: Tensor
    threshold: Tensor
    centre: Tensor
    weight: Tensor
    bias: Tensor
    temperature: Tensor
    labels: Tensor

    def __init__(self, base: nn.Module, width: int, embed_dim: int, labels: int, samples: int, home: int) -> None:
        super().__init__()
        self.base = base
        for name, shape in {
            "keys": (samples, width),
            "home": (home, width),
            "median": (),
            "spread": (),
            "threshold": (),
            "centre": (width,),
            "weight": (labels, width),
            "bias": (labels,),
            "temperature": (),
            "labels": (labels, embed_dim),
        }.items():
            self.register_buffer(name, torch.ones(shape))

    def gate(self, features: Tensor) -> Tensor:
        """How much of the new sensor is in features ``[N, width]``: ``[N]``, 0..1."""
        rows = root(features)
        nearer = (rows @ self.keys.T).amax(dim=1) - (rows @ self.home.T).amax(dim=1)
        return torch.sigmoid(STEEPNESS * (nearer - self.threshold) / self.spread)

    def scores(self, features: Tensor) -> Tensor:
        """What the classifier says of features ``[N, width]``: ``[N, L]``, 1 for a label that is there, else 0."""
        return nn.functional.normalize(root(features) - self.centre, dim=1) @ self.weight.T + self.bias

    def forward(self, features: Tensor) -> Tensor:
        """``[N, width]`` to ``[N, embed_dim]``."""
        before = nn.functional.normalize(self.base(features), dim=1)
        after = adapted(before, self.scores(features), self.temperature, self.labels)
        out: Tensor = torch.lerp(before, after, self.gate(features)[:, None])
        return out


STEEPNESS = 6.0
"""Of an adapted head's gate: from 0.05 to 0.95 in one spread of what the model knew before."""
_KEPT = 0.5  # of the head's own answer beside the vote


def root(features: Tensor) -> Tensor:
    """Unit-length signed square roots ``[..., width]`` of features: no single large feature decides a cosine."""
    return nn.functional.normalize(features.sign() * features.abs().sqrt(), dim=-1)


def adapted(before: Tensor, scores: Tensor, temperature: Tensor | float, labels: Tensor) -> Tensor:
    """A head's unit-length answer ``[N, embed_dim]`` with the vote of scores ``[N, L]`` for labels added."""
    return (scores / temperature).softmax(dim=1) @ labels + _KEPT * before
