"""Trunks without trained weights, a few thousand random parameters, for tests of everything behind the encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.encoders.base import TextTower, Trunk
from omnibind_core.encoders.lite.tokenisers import hashed


class RandomConv(Trunk):
    """Pictures ``uint8 [N, 3, H, W]`` or log-mel patches ``float32 [N, H, W]`` to features of a random convolution.

    Args:
        channels: 3 for pictures, 1 for patches.
        pool: Side of the squares that are averaged first, in pixels.
        feature_dim: Width of the features, a multiple of 4.
    """

    def __init__(self, channels: int, pool: int, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.pool = pool
        self.conv = nn.Conv2d(channels, feature_dim // 4, 3, padding=1)

    def forward(self, views: Tensor) -> Tensor:
        """See :meth:`Trunk.forward`."""
        x = views[:, None] if views.ndim == 3 else views.float() / 128 - 1
        x = F.relu(self.conv(F.avg_pool2d(x, self.pool).to(self.conv.weight.dtype)))
        return F.adaptive_avg_pool2d(x, 2).flatten(1).float()


class HashedText(TextTower):
    """Sentences to the mean of a random vector per word; words are hashed into buckets.

    Args:
        buckets: Number of vectors.
        feature_dim: Width of the embeddings.
    """

    def __init__(self, buckets: int, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.words = nn.EmbeddingBag(buckets, feature_dim, mode="mean")

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """See :meth:`TextTower.forward`."""
        bags = [hashed(sentence, self.words.num_embeddings) for sentence in sentences]
        starts = [0]
        for bag in bags[:-1]:
            starts.append(starts[-1] + len(bag))
        device = self.words.weight.device
        indices = torch.tensor([index for bag in bags for index in bag], dtype=torch.int64, device=device)
        out: Tensor = self.words(indices, torch.tensor(starts[: len(bags)], device=device))
        return out

    def of_tokens(self) -> nn.Module:
        """See :meth:`TextTower.of_tokens`."""
        return _Mean(self.words.weight)


class _Mean(nn.Module):
    """The mean of the vectors of tokens that are there."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        shares = mask.to(self.weight.dtype)[..., None]
        return (self.weight[tokens] * shares).sum(dim=1) / shares.sum(dim=1)
