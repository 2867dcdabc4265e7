"""Our own point-cloud trunk: a small PointNet++ with residual blocks, in plain torch, permutation invariant.

The levels (farthest points, each described by its nearest neighbours through a max) are those of PointNet++ (Qi et al.
2017), the residual blocks those of PointNeXt (Qian et al. 2022). Above the first level the linear layer comes before
the neighbours are gathered, as in ASSANet (Qian et al. 2021), and so runs once per point, not once per neighbour:
``max_j (W x_j + V (p_j - p_i)) = max_j (W x_j + V p_j) - V p_i``.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from omnibind_core.encoders.base import Trunk

PATCH_RADIUS = 0.2  # brings the offsets of a patch's points, in a unit sphere, to about 1


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Indices of points that are far from one another, each the farthest from those before it.

    Starts at the point farthest from the centroid, so the choice does not depend on the order of the points. The first
    ``m`` indices are the farthest points of length ``m``.

    Args:
        points: ``float32 [B, N, 3]``.
        count: How many, at most ``N``.

    Returns:
        ``int64 [B, count]``.
    """
    chosen = torch.empty(points.shape[0], count, dtype=torch.int64, device=points.device)
    axes = points.transpose(1, 2).contiguous()  # [B, 3, N]: each axis in one piece makes the distances cheap
    to_centroid = (axes - axes.mean(dim=2, keepdim=True)).square().sum(dim=1)
    latest = to_centroid.argmax(dim=1, keepdim=True)
    distance = torch.full_like(to_centroid, torch.inf)
    for step in range(count):
        chosen[:, step] = latest[:, 0]
        centre = axes.gather(2, latest[:, None].expand(-1, 3, -1))
        torch.minimum(distance, (axes - centre).square().sum(dim=1), out=distance)
        latest = distance.argmax(dim=1, keepdim=True)
    return chosen


def nearest(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """Indices ``int64 [B, Q, k]`` of the ``k`` points ``[B, N, 3]`` nearest to each query ``[B, Q, 3]``."""
    return torch.cdist(queries, points).topk(min(k, points.shape[1]), dim=2, largest=False, sorted=False).indices


def gather(values: Tensor, indices: Tensor) -> Tensor:
    """Rows of ``[B, N, C]`` at ``[B, ...]``: ``[B, ..., C]``."""
    first = torch.arange(values.shape[0], device=values.device) * values.shape[1]
    rows = (indices + first.view(-1, *(1,) * (indices.ndim - 1))).flatten()
    return values.flatten(0, 1).index_select(0, rows).unflatten(0, indices.shape)


class BatchNorm(nn.BatchNorm1d):
    """Normalises the last axis of ``[..., C]``; in training by the whole batch, also when processes share it."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` to the same."""
        rows = x.flatten(0, -2)
        if self.training and distributed.is_available() and distributed.is_initialized():
            return self._together(rows).view_as(x)
        out: Tensor = super().forward(rows).unflatten(0, x.shape[:-1])
        return out

    def _together(self, rows: Tensor) -> Tensor:
        # torch's SyncBatchNorm works on GPUs only.
        from torch.distributed.nn.functional import all_reduce

        count = all_reduce(rows.new_tensor(float(len(rows))))
        mean = all_reduce(rows.sum(dim=0)) / count
        centred = rows - mean
        variance = all_reduce(centred.square().sum(dim=0)) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias


class SurfacePatch(nn.Module):
    """Describes each centre by the shape of the surface around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(7, width // 2), nn.ReLU(inplace=True), nn.Linear(width // 2, width, bias=False)
        )
        self.norm = BatchNorm(width)

    def forward(self, centres: Tensor, points: Tensor, neighbours: Tensor) -> Tensor:
        """Centres ``[B, Q, 3]`` among points ``[B, N, 3]`` at ``[B, Q, k]`` to ``[B, Q, width]``."""
        place = centres[:, :, None]
        offset = (gather(points, neighbours) - place) / PATCH_RADIUS
        edges = torch.cat((offset, offset.norm(dim=3, keepdim=True), place.expand_as(offset)), dim=3)
        return self.norm(self.mlp(edges).max(dim=2).values).relu()


class NeighbourPool(nn.Module):
    """Describes each centre by the features of the points around it: one linear layer per point, then the max."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.value = nn.Linear(width_in, width_out, bias=False)
        self.position = nn.Linear(3, width_out, bias=False)
        self.norm = BatchNorm(width_out)

    def forward(self, centres: Tensor, points: Tensor, neighbours: Tensor, features: Tensor) -> Tensor:
        """As :meth:`SurfacePatch.forward`, of features ``[B, N, width_in]`` to ``[B, Q, width_out]``."""
        values = self.value(features) + self.position(points)
        pooled = gather(values, neighbours).max(dim=2).values - self.position(centres)
        return self.norm(pooled).relu()


class ResidualBlock(nn.Module):
    """Mixes each point with its neighbours, then an inverted bottleneck, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = NeighbourPool(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width, bias=False),
            BatchNorm(2 * width),
            nn.ReLU(inplace=True),
            nn.Linear(2 * width, width, bias=False),
            BatchNorm(width),
        )

    def forward(self, points: Tensor, neighbours: Tensor, features: Tensor) -> Tensor:
        """Features ``[B, N, width]`` of points ``[B, N, 3]`` with neighbours ``[B, N, k]`` to the same."""
        return (features + self.mlp(self.pool(points, points, neighbours, features))).relu()


class PointTrunk(Trunk):
    """Point clouds ``float32 [N, P, 3]`` in the unit sphere, z up, to features.

    Args:
        width: Features per point at the first level; the second has twice, the whole cloud four times as many.
        centres: Points kept at the two levels.
        neighbours: Neighbours that describe a point.
        blocks: Residual blocks at the two levels.
        feature_dim: Width of the features.
    """

    trainable = True

    def __init__(
        self,
        width: int,
        centres: tuple[int, int],
        neighbours: int,
        blocks: tuple[int, int],
        feature_dim: int,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.centres = centres
        self.neighbours = neighbours
        self.patch = SurfacePatch(width)
        self.blocks1 = nn.ModuleList(ResidualBlock(width) for _ in range(blocks[0]))
        self.pool = NeighbourPool(width, 2 * width)
        self.blocks2 = nn.ModuleList(ResidualBlock(2 * width) for _ in range(blocks[1]))
        self.widen = nn.Sequential(nn.Linear(2 * width + 3, 4 * width, bias=False), BatchNorm(4 * width), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(8 * width, feature_dim, bias=False), BatchNorm(feature_dim), nn.ReLU())

    def forward(self, views: Tensor) -> Tensor:
        """See :meth:`Trunk.forward`."""
        count1, count2 = (min(n, views.shape[1]) for n in self.centres)
        level1 = gather(views, farthest_points(views, count1))
        features = self.patch(level1, views, nearest(level1, views, self.neighbours))
        around = nearest(level1, level1, self.neighbours)
        for block in self.blocks1:
            features = block(level1, around, features)
        level2 = level1[:, :count2]
        features = self.pool(level2, level1, around[:, :count2], features)
        around = nearest(level2, level2, self.neighbours)
        for block in self.blocks2:
            features = block(level2, around, features)
        features = self.widen(torch.cat((features, level2), dim=2))
        out: Tensor = self.out(torch.cat((features.amax(dim=1), features.mean(dim=1)), dim=1))
        return out
