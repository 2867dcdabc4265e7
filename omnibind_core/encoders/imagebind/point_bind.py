"""Point-Bind (Guo et al. 2023): point clouds in ImageBind's space, by I2P-MAE or Point-BERT.

Written from the published description. Names and shapes of the tensors are those of Point-Bind's checkpoints, which are
UniBind's, too. The original needs two CUDA extensions; farthest points and neighbours are plain torch here, by their
rules.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.encoders.base import Trunk
from omnibind_core.encoders.imagebind import layers
from omnibind_core.encoders.imagebind.config import I2PMAEConfig, PointBERTConfig
from omnibind_core.encoders.lite.point import gather

_NEAR_ORIGIN = 1e-3  # squared distance; pointnet2_ops takes such points for padding
_DROPOUT = 0.5
_PATCH_WIDTHS = (128, 256, 512)  # of the layers that describe a neighbourhood of points
_POSITION_WIDTH = 128  # of Point-BERT


@torch.library.custom_op("omnibind::farthest_points", mutates_args=())  # one step for a compiler, not hundreds
def farthest_points(points: Tensor, count: int, skip_origin: bool) -> Tensor:
    """Indices of points far from one another: the first point, then always the one farthest from those chosen.

    Args:
        points: ``float32 [B, N, 3]``.
        count: How many.
        skip_origin: By the rule of the extension ``pointnet2_ops``, that I2P-MAE was trained with: points at a squared
            distance of 0.001 or less from the origin are never the farthest; if no others are left, the first point is
            taken again.

    Returns:
        ``int64 [B, count]``.
    """
    chosen = torch.zeros(points.shape[0], count, dtype=torch.int64, device=points.device)
    axes = points.transpose(1, 2).contiguous()  # [B, 3, N]: each axis in one piece makes the distances cheap
    distance = torch.full_like(axes[:, 0], 1e10)
    if skip_origin:
        distance.masked_fill_(axes.square().sum(dim=1) <= _NEAR_ORIGIN, -1.0)
    for step in range(1, count):
        latest = axes.gather(2, chosen[:, None, step - 1 : step].expand(-1, 3, -1))
        torch.minimum(distance, (axes - latest).square().sum(dim=1), out=distance)
        chosen[:, step] = distance.argmax(dim=1)
    return chosen


@farthest_points.register_fake
def _(points: Tensor, count: int, skip_origin: bool) -> Tensor:
    return points.new_empty(points.shape[0], count, dtype=torch.int64)


def neighbourhoods(points: Tensor, groups: int, neighbours: int, skip_origin: bool) -> tuple[Tensor, Tensor]:
    """Farthest points and the points nearest to each.

    Args:
        points: ``float32 [B, N, 3]``.
        groups: Number of farthest points, the centres.
        neighbours: Number of points near each, at most ``N``; the centre is one of them.
        skip_origin: See :func:`farthest_points`.

    Returns:
        Centres ``float32 [B, groups, 3]``, and indices of their neighbours ``int64 [B, groups, neighbours]``.
    """
    centres = gather(points, farthest_points(points, groups, skip_origin))
    # Not by a matrix product, which rounds the small distances away.
    distance = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
    return centres, distance.topk(neighbours, dim=2, largest=False, sorted=False).indices


class PatchEncoder(nn.Module):
    """Describes sets of vectors: each is widened and compared with the maximum of its set; the maximum is the result.

    Args:
        widths: Of the input, of the two layers before the comparison, of the two behind it.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        width_in, narrow, wide, compared, width_out = widths
        self.first_conv = self._two(width_in, narrow, wide)
        self.second_conv = self._two(2 * wide, compared, width_out)

    @staticmethod
    def _two(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
        first, second = nn.Conv1d(width_in, hidden, 1), nn.Conv1d(hidden, width_out, 1)
        return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(), second)

    def forward(self, sets: Tensor) -> Tensor:
        """``[B, G, K, width_in]`` to ``[B, G, width_out]``."""
        x = self.first_conv(sets.flatten(0, 1).transpose(1, 2))
        whole = x.amax(dim=2, keepdim=True).expand_as(x)
        out: Tensor = self.second_conv(torch.cat((whole, x), dim=1)).amax(dim=2)
        return out.unflatten(0, sets.shape[:2])


class PointAttention(nn.Module):
    """Multi-head self-attention as of a vision transformer without query, key and value biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, near: Tensor | None) -> Tensor:
        """``[B, T, width]`` to the same; tokens attend where ``near``, ``bool [B, T, T]``, is true."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, None if near is None else near[:, None])
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out


class PointBlock(nn.Module):
    """A transformer block that normalises before each part."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = PointAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = layers.Mlp(width, 4 * width)

    def forward(self, x: Tensor, near: Tensor | None) -> Tensor:
        """See :meth:`PointAttention.forward`."""
        x = x + self.attn(self.norm1(x), near)
        return x + self.mlp(self.norm2(x))


class PointTransformer(nn.Module):
    """Blocks, each of which is told the positions again."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PointBlock(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, positions: Tensor, near: Tensor | None = None) -> Tensor:
        """``[B, T, width]`` and positions of the same shape to the same; ``near`` as in :class:`PointAttention`."""
        for block in self.blocks:
            x = block(x + positions, near)
        return x


def _position_layers(hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))


class HierarchicalEncoder(nn.Module):
    """The three levels of I2P-MAE, each with fewer and wider tokens.

    Args:
        config: Size.
    """

    def __init__(self, config: I2PMAEConfig) -> None:
        super().__init__()
        self.config = config
        patches = [
            (3, *_PATCH_WIDTHS, width) if level == 0 else (below, below, below, width, width)
            for level, (below, width) in enumerate(zip((3, *config.widths), config.widths, strict=False))
        ]
        self.token_embed = nn.ModuleList(PatchEncoder(widths) for widths in patches)
        self.encoder_pos_embeds = nn.ModuleList(_position_layers(width, width) for width in config.widths)
        self.encoder_blocks = nn.ModuleList(
            PointTransformer(width, depth, config.heads)
            for width, depth in zip(config.widths, config.depths, strict=True)
        )

    def forward(self, points: Tensor, dtype: torch.dtype) -> Tensor:
        """``float32 [B, N, 3]`` to ``dtype [B, groups, width]`` of the last level; ``dtype`` is that of the weights."""
        config, tokens = self.config, points
        for level, radius in enumerate(config.radii):
            centres, near = neighbourhoods(points, config.groups[level], config.neighbours[level], True)
            sets = gather(tokens, near)
            if level == 0:
                sets = (sets - centres[:, :, None]).to(dtype)
            # Distances to oneself are exactly 0 this way, so every token attends to something.
            local = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist") < radius
            positions = self.encoder_pos_embeds[level](centres.to(dtype))
            tokens = self.encoder_blocks[level](self.token_embed[level](sets), positions, local)
            points = centres
        return tokens


class I2PMAE(nn.Module):
    """I2P-MAE (Zhang et al. 2023) as an encoder: ``float32 [B, N, 3]`` to ``[B, width]``.

    Args:
        config: Size.
    """

    def __init__(self, config: I2PMAEConfig) -> None:
        super().__init__()
        self.h_encoder = HierarchicalEncoder(config)
        self.feature_dim = config.widths[-1]
        self.norm = nn.LayerNorm(self.feature_dim)

    def forward(self, points: Tensor) -> Tensor:
        """See the class."""
        tokens = self.norm(self.h_encoder(points, self.norm.weight.dtype))
        return tokens.mean(dim=1) + tokens.amax(dim=1)


class PointBERT(nn.Module):
    """Point-BERT (Yu et al. 2022) as an encoder: ``float32 [B, N, 3]`` to ``[B, 2 * width]``.

    Args:
        config: Size.
    """

    def __init__(self, config: PointBERTConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_dim = 2 * config.width
        self.encoder = PatchEncoder((3, *_PATCH_WIDTHS, config.encoder_dim))
        self.reduce_dim = nn.Linear(config.encoder_dim, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.cls_pos = nn.Parameter(torch.randn(1, 1, config.width))
        self.pos_embed = _position_layers(_POSITION_WIDTH, config.width)
        self.blocks = PointTransformer(config.width, config.depth, config.heads)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, points: Tensor) -> Tensor:
        """See the class."""
        dtype = self.reduce_dim.weight.dtype
        # The original starts at a point drawn at random; the same cloud should give the same embedding.
        centres, near = neighbourhoods(points, self.config.groups, self.config.neighbours, skip_origin=False)
        tokens = self.reduce_dim(self.encoder((gather(points, near) - centres[:, :, None]).to(dtype)))
        size = (len(points), -1, -1)
        x = torch.cat((self.cls_token.expand(size), tokens), dim=1)
        positions = torch.cat((self.cls_pos.expand(size), self.pos_embed(centres.to(dtype))), dim=1)
        x = self.norm(self.blocks(x, positions))
        return torch.cat((x[:, 0], x[:, 1:].amax(dim=1)), dim=1)


class PointBindTrunk(Trunk):
    """Point clouds ``float32 [N, P, 3]`` in the unit ball to embeddings in ImageBind's space, of unit length.

    Args:
        config: Encoder and size.
    """

    def __init__(self, config: I2PMAEConfig | PointBERTConfig) -> None:
        super().__init__()
        self.feature_dim = config.embed_dim
        self.takes = ((-1, 3), "float32")
        self.point_encoder = PointBERT(config) if isinstance(config, PointBERTConfig) else I2PMAE(config)
        projected = config.projected
        self.pc_projection = nn.Parameter(torch.randn(self.point_encoder.feature_dim, projected) * projected**-0.5)
        norm, linear = nn.LayerNorm(projected, eps=layers.EPS), nn.Linear(projected, config.embed_dim, bias=False)
        self.bind = nn.ModuleDict(
            {
                "modality_head_point": nn.Sequential(norm, nn.Dropout(_DROPOUT), linear),
                "modality_postprocessor_point": nn.Sequential(
                    layers.Normalise(), layers.LogitScale(1.0, learnable=False)
                ),
            }
        )

    def forward(self, views: Tensor) -> Tensor:
        """See :meth:`Trunk.forward`."""
        x = self.bind["modality_head_point"](self.point_encoder(views.float()) @ self.pc_projection)
        out: Tensor = self.bind["modality_postprocessor_point"](x)
        return out.float()
