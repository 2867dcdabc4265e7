"""Stage II: adaptive fusion learns on random combinations of embeddings; the encoders are frozen (paper Sec. 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from omnibind_core.features.combinations import EmbeddedSplit, Index, TokenSets, similarities, top1, with_conflicts
from omnibind_core.fusion import Fusion, fusion_loss, wrong_predictions
from omnibind_core.labels import LabelBank
from omnibind_core.training.config import FuseConfig
from omnibind_core.training.engine import Stage

_VALIDATION = 512  # combinations of each size that the training looks at


@dataclass(frozen=True)
class FusionBatch:
    """A batch of combinations.

    Attributes:
        sets: Their tokens.
        label: ``int64 [B]``, true labels.
        wrong: ``int64 [B, K]`` labels that single modalities confused; None for all labels.
        present: ``bool [B, K]``, which of them count.
    """

    sets: TokenSets
    label: Tensor
    wrong: Tensor | None = None
    present: Tensor | None = None

    def __len__(self) -> int:
        return len(self.label)


class Fuse(Stage):
    """The fusion.

    Args:
        train: The training split.
        val: The validation split; None validates nothing.
        labels: The vocabulary; labels of combinations index it.
        fusion: What learns.
        settings: Of the stage.
    """

    def __init__(
        self, train: EmbeddedSplit, val: EmbeddedSplit | None, labels: LabelBank, fusion: Fusion, settings: FuseConfig
    ) -> None:
        super().__init__("fuse", settings)
        self.fusion = fusion
        self._config = settings
        self._train = train
        self._labels = labels
        self._prototypes = labels.prototypes()
        self._val: dict[str, tuple[TokenSets, Index]] = {}
        if val is not None:
            for size in val.sizes:
                drawn = val.draw(_VALIDATION, np.random.default_rng((0, size)), size)
                self._val[f"{size} modalities"] = val.gather(drawn), drawn.label
        count = sum(train.counts.values()) if train.given is None else len(train.given.rows)
        self.steps = settings.steps_over(count)

    def draw(self, step: int, rng: np.random.Generator) -> FusionBatch:
        """See :meth:`Stage.draw`."""
        config = self._config
        drawn = with_conflicts(self._train.draw(config.batch, rng, text=config.text), config.conflict, rng)
        sets = self._train.gather(drawn)
        label = torch.from_numpy(drawn.label).to(sets.tokens.device)
        if config.negatives == "all":
            return FusionBatch(sets, label)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        scores = self._labels.similarities(sets.tokens)
        return FusionBatch(sets, label, *wrong_predictions(scores, sets.mask, label, generator))

    def encode(self, batch: FusionBatch, share: slice) -> Tensor:
        """See :meth:`Stage.encode`."""
        fused: Tensor = self.fusion(*(None if rows is None else rows[share] for rows in batch.sets)).embedding
        return fused

    def losses(self, embeddings: Tensor, batch: FusionBatch) -> dict[str, Tensor]:
        """See :meth:`Stage.losses`."""
        label, tau = batch.label, self._config.tau
        if batch.wrong is None or batch.present is None:
            return {"loss": F.cross_entropy(embeddings @ self._prototypes.T / tau, label)}
        right, wrong = self._prototypes[label], self._prototypes[batch.wrong]
        return {"loss": fusion_loss(embeddings, right, wrong, batch.present, tau)}

    def validate(self) -> dict[str, float]:
        """See :meth:`Stage.validate`: top-1 for every size of combination."""
        return {
            size: top1(similarities(self.fusion, self._labels, sets), label)
            for size, (sets, label) in self._val.items()
        }
