"""Stage II: adaptive fusion learns on random combinations of embeddings; the encoders are frozen (paper Sec. 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.features.combinations import Draw, Embedded, top1, with_lies
from omnibind_core.fusion import Fusion, fusion_loss, wrong_predictions
from omnibind_core.labels import LabelBank
from omnibind_core.training.config import FuseConfig
from omnibind_core.training.engine import Stage

_VALIDATION = 512  # combinations of each size that the training looks at


@dataclass(frozen=True)
class Combinations:
    """A batch of combinations.

    Attributes:
        draw: Tokens and labels.
        wrong: ``int64 [B, K]`` labels that single modalities confused; None for all labels.
        present: ``bool [B, K]``, which of them count.
    """

    draw: Draw
    wrong: Tensor | None = None
    present: Tensor | None = None

    def __len__(self) -> int:
        return len(self.draw.label)


class Fuse(Stage):
    """The fusion.

    Args:
        train: Training embeddings of every modality, variants included, and text embeddings of the sources' words.
        val: Validation embeddings; None validates nothing.
        labels: The vocabulary; concept numbers index it.
        fusion: What learns.
        settings: Of the stage.
    """

    def __init__(
        self, train: Embedded, val: Embedded | None, labels: LabelBank, fusion: Fusion, settings: FuseConfig
    ) -> None:
        super().__init__("fuse", settings)
        self.fusion = fusion
        self._config = settings
        self._embedded = train
        self._labels = labels
        self._prototypes = labels.prototypes()
        self._val: dict[str, Draw] = {}
        if val is not None:
            for size in val.sizes:
                draw = val.draw(_VALIDATION, np.random.default_rng((0, size)), size=size)
                self._val[f"{size} modalities"] = draw
        samples = train.embeddings.values() if train.given is None else [train.given.rows]
        self.steps = settings.steps_over(sum(len(rows) for rows in samples))

    def draw(self, step: int, rng: np.random.Generator) -> Combinations:
        """See :meth:`Stage.draw`."""
        config = self._config
        draw = with_lies(self._embedded.draw(config.batch, rng, text=config.text), config.conflict, rng)
        if config.negatives == "all":
            return Combinations(draw)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        scores = self._labels.similarities(draw.tokens)
        return Combinations(draw, *wrong_predictions(scores, draw.mask, draw.label, generator))

    def encode(self, batch: Combinations, share: slice) -> Tensor:
        """See :meth:`Stage.encode`."""
        draw = batch.draw
        kind = None if draw.kind is None else draw.kind[share]
        fused: Tensor = self.fusion(draw.tokens[share], draw.mask[share], kind).embedding
        return fused

    def losses(self, embeddings: Tensor, batch: Combinations) -> dict[str, Tensor]:
        """See :meth:`Stage.losses`."""
        label, tau = batch.draw.label, self._config.tau
        if batch.wrong is None or batch.present is None:
            return {"loss": F.cross_entropy(embeddings @ self._prototypes.T / tau, label)}
        right, wrong = self._prototypes[label], self._prototypes[batch.wrong]
        return {"loss": fusion_loss(embeddings, right, wrong, batch.present, tau)}

    def validate(self) -> dict[str, float]:
        """See :meth:`Stage.validate`: top-1 for every size of combination."""
        return {size: top1(self._labels, self.fusion, draw) for size, draw in self._val.items()}
