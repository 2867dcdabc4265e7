"""Stage II: adaptive fusion learns on random combinations of embeddings; the encoders are frozen (paper Sec. 3.3)."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from omnibind_core.evaluation.combinations import Draw, Embedded
from omnibind_core.fusion import Fusion, fusion_loss, wrong_predictions
from omnibind_core.labels import LabelBank
from omnibind_core.training.config import FuseConfig
from omnibind_core.training.loop import Optimisation

_logger = logging.getLogger(__name__)


def fuse(embedded: Embedded, labels: LabelBank, fusion: Fusion, config: FuseConfig, seed: int) -> None:
    """Trains the fusion in place.

    Args:
        embedded: Training embeddings of every modality, variants included, and text embeddings of the sources' words.
        labels: The vocabulary; concept numbers index it.
        fusion: What learns.
        config: Settings.
        seed: Of the combinations and the random wrong labels.
    """
    rng = np.random.default_rng((seed, 2))
    generator = torch.Generator().manual_seed(seed)
    prototypes = labels.prototypes()
    optimisation = Optimisation(
        fusion.parameters(), config.lr, config.weight_decay, config.warmup, config.clip, config.steps
    )
    fusion.train()
    for step in range(config.steps):
        draw = with_lies(embedded.draw(config.batch, rng, text=config.text), config.lie, rng)
        fused = fusion(draw.tokens, draw.mask).embedding
        if config.negatives == "all":
            loss = _against_all(fused, prototypes, draw.label, config.tau)
        else:
            wrong, present = wrong_predictions(labels.similarities(draw.tokens), draw.mask, draw.label, generator)
            loss = fusion_loss(fused, prototypes[draw.label], prototypes[wrong], present, config.tau)
        optimisation.step(loss)
        if (step + 1) % max(1, config.steps // 10) == 0:
            _logger.info("fuse %3d %%: loss %.4f", 100 * (step + 1) // config.steps, loss.item())
    fusion.eval()


def with_lies(draw: Draw, chance: float, rng: np.random.Generator) -> Draw:
    """Lets one sensor in some combinations lie: its token becomes that of another combination with another label.

    Args:
        draw: Combinations; changed in place.
        chance: Of a lie, in combinations of two or more tokens.
        rng: Source of randomness.
    """
    count = len(draw.label)
    order = torch.from_numpy(rng.random(draw.mask.shape)).masked_fill(~draw.mask.cpu(), -1)
    column = order.argmax(dim=1).to(draw.mask.device)  # a random present token
    donor = torch.from_numpy(rng.permutation(count)).to(draw.mask.device)
    lying = torch.from_numpy(rng.random(count) < chance).to(draw.mask.device)
    lying &= (draw.mask.sum(dim=1) > 1) & draw.mask[donor, column] & (draw.label[donor] != draw.label)
    rows = lying.nonzero()[:, 0]
    draw.tokens[rows, column[rows]] = draw.tokens[donor[rows], column[rows]]
    return draw


def _against_all(fused: Tensor, prototypes: Tensor, label: Tensor, tau: float) -> Tensor:
    return torch.nn.functional.cross_entropy(fused @ prototypes.T / tau, label)
