"""Layers of ImageBind, named as in ``imagebind_huge.pth``: patches to tokens, transformer, logit scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.encoders.transformer import Attention

EPS = 1e-6
"""Of every LayerNorm but those of the stems, which have torch's 1e-5."""
_MAX_SCALE = 100.0


class Mlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to the same."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A transformer block that normalises before each part; arguments as of :class:`Attention`."""

    def __init__(self, width: int, heads: int, extra_token: bool, causal: bool) -> None:
        super().__init__()
        self.attn = Attention(width, heads, extra_token, causal)
        self.norm_1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, 4 * width)
        self.norm_2 = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, width]`` to the same."""
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Transformer(nn.Module):
    """Blocks, for vision with a LayerNorm before them. The stochastic depth of the training is left out.

    Args:
        width: Of the tokens.
        depth: Number of blocks.
        heads: Of the attention.
        normalise: LayerNorm before the first block.
        extra_token: See :class:`Attention`.
        causal: See :class:`Attention`.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        normalise: bool = False,
        extra_token: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.pre_transformer_layer = nn.Sequential(nn.LayerNorm(width, eps=EPS)) if normalise else nn.Identity()
        self.blocks = nn.ModuleList(Block(width, heads, extra_token, causal) for _ in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[N, T, width]`` to the same."""
        x: Tensor = self.pre_transformer_layer(tokens)
        for block in self.blocks:
            x = block(x)
        return x


class FramePatches(nn.Sequential):
    """Patches of a picture ``[N, 3, H, W]``, or of two frames of a video ``[N, 3, 2, H, W]``: ``[N, width, h, w]``.

    A picture is a video that stands still: the kernels of both frames are added up instead of computing them twice.
    """

    def __init__(self, width: int, patch: int) -> None:
        # The checkpoint calls the convolution 1; 0 was what made two frames of a picture.
        super().__init__(nn.Identity(), nn.Conv3d(3, width, (2, patch, patch), (2, patch, patch), bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        conv = self[1]
        assert isinstance(conv, nn.Conv3d)
        if x.ndim == 4:
            return F.conv2d(x, conv.weight.sum(dim=2), stride=conv.stride[1:])
        out: Tensor = conv(x)
        return out.squeeze(2)


class Signal(nn.Linear):
    """Patches of a signal ``[N, 6, T]``, ``size`` samples of all channels each: ``[N, T / size, width]``."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__(6 * size, width, bias=False)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return super().forward(x.unflatten(2, (-1, self.size)).transpose(1, 2).flatten(2))


class Stem(nn.Module):
    """Patches to tokens ``[N, T, width]``.

    Args:
        proj: Makes ``[N, width, h, w]`` or ``[N, T, width]``.
        width: Of the tokens.
        normalise: LayerNorm of the tokens.
    """

    def __init__(self, proj: nn.Module, width: int, normalise: bool = True) -> None:
        super().__init__()
        self.proj = proj
        self.norm_layer = nn.LayerNorm(width) if normalise else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        tokens = self.proj(x)
        out: Tensor = self.norm_layer(tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens)
        return out


class Positions(nn.Module):
    """A learned vector for every place in the sequence."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, count, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)


class Normalise(nn.Module):
    """Unit length."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, D]`` to the same."""
        return F.normalize(x, dim=-1)


class LogitScale(nn.Module):
    """Multiplies by a scale of at most 100.

    Args:
        scale: Its start.
        learnable: Whether it is a parameter; a buffer otherwise.
    """

    log_logit_scale: Tensor

    def __init__(self, scale: float, learnable: bool) -> None:
        super().__init__()
        value = torch.tensor(math.log(scale))
        if learnable:
            self.log_logit_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_logit_scale", value)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x * self.log_logit_scale.exp().clamp(max=_MAX_SCALE)


class ClassToken(nn.Module):
    """The first token: ``[N, T, width]`` to ``[N, width]``."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x[:, 0]
