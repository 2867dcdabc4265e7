"""What the vision transformers of several families share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of RGB on 0..1 that CLIP, OpenCLIP and ImageBind take from pictures."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of the same."""


class Attention(nn.Module):
    """Multi-head self-attention with the parameters of :class:`torch.nn.MultiheadAttention`.

    Args:
        width: Of the tokens.
        heads: A divisor of ``width``.
        extra_token: One learned key and value more, that every token attends to (``add_bias_kv``).
        causal: A token attends to itself and those before it.
    """

    def __init__(self, width: int, heads: int, extra_token: bool, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.bias_k = nn.Parameter(torch.empty(1, 1, width)) if extra_token else None
        self.bias_v = nn.Parameter(torch.empty(1, 1, width)) if extra_token else None
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                nn.init.xavier_normal_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, width]`` to the same."""
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=2)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat((k, self.bias_k.expand(len(x), -1, -1)), dim=1)
            v = torch.cat((v, self.bias_v.expand(len(x), -1, -1)), dim=1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


def normalise_pictures(pictures: Tensor, dtype: torch.dtype) -> Tensor:
    """RGB ``uint8 [N, 3, ...]`` to CLIP's zero mean and unit deviation."""
    x = pictures.to(torch.float32, copy=True)
    for channel, (mean, std) in enumerate(zip(CLIP_MEAN, CLIP_STD, strict=True)):  # plain numbers need no device
        x[:, channel].sub_(255 * mean).div_(255 * std)
    return x.to(dtype)
