"""OpenCLIP's vision transformers and text towers (Radford et al. 2021; Cherti et al. 2023), under OpenCLIP's names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.encoders.base import TextTower, Trunk
from omnibind_core.encoders.clip_text import TowerTokeniser
from omnibind_core.encoders.open_clip.config import Activation, OpenClipTextConfig, OpenClipVisionConfig
from omnibind_core.encoders.transformer import Attention, normalise_pictures


class MLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.quick = activation == "quick_gelu"

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, width]`` to the same shape."""
        x = self.c_fc(x)
        x = x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x)
        out: Tensor = self.c_proj(x)
        return out


class Block(nn.Module):
    """A transformer layer that normalises before attention and MLP."""

    def __init__(self, width: int, heads: int, activation: Activation, causal: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, extra_token=False, causal=causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, activation)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, width]`` to the same shape."""
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Transformer(nn.Module):
    """Blocks one after another."""

    def __init__(self, width: int, layers: int, heads: int, activation: Activation, causal: bool = False) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, activation, causal) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, width]`` to the same shape."""
        for block in self.resblocks:
            x = block(x)
        return x


class VisionTransformer(nn.Module):
    """Normalised pictures ``[N, 3, size, size]`` to ``[N, feature_dim]``.

    Args:
        config: Size.
    """

    def __init__(self, config: OpenClipVisionConfig) -> None:
        super().__init__()
        width = config.width
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + (config.size // config.patch) ** 2, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, config.activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, config.feature_dim))

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        x = self.conv1(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        out: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return out


class OpenClipVision(Trunk):
    """Pictures ``uint8 [N, 3, size, size]`` to the shared space of OpenCLIP, ``float32 [N, feature_dim]``, unit length.

    Unit length, so that all views of a sample count the same. Names of the tensors: those of OpenCLIP.

    Args:
        config: Size.
    """

    def __init__(self, config: OpenClipVisionConfig) -> None:
        super().__init__()
        self.feature_dim = config.feature_dim
        self.takes = ((3, config.size, config.size), "uint8")
        self.visual = VisionTransformer(config)

    def forward(self, views: Tensor) -> Tensor:
        """See :meth:`Trunk.forward`."""
        pictures = normalise_pictures(views, self.visual.proj.dtype)
        return F.normalize(self.visual(pictures).float(), dim=-1)


class OpenClipText(TextTower):
    """Sentences to the shared space of OpenCLIP, ``float32 [N, feature_dim]``.

    The embedding is read at the end token. Names of the tensors: those of OpenCLIP.

    Args:
        config: Size and vocabulary.
    """

    def __init__(self, config: OpenClipTextConfig) -> None:
        super().__init__()
        width = config.width
        self.feature_dim = config.feature_dim
        self.token_embedding = nn.Embedding(config.tokens, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context, width))
        self.transformer = Transformer(width, config.layers, config.heads, config.activation, causal=True)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, config.feature_dim))
        # Of CLIP's training; what divides our cosines is calibrated (Calibration.temperature).
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.tokeniser = TowerTokeniser(config.vocabulary, config.weights, config.tokens, config.context)

    def encode(self, tokens: Tensor) -> Tensor:
        """Embeddings ``[N, feature_dim]`` of token ids ``int64 [N, T]`` as :class:`ClipTokeniser` makes them."""
        ends = tokens.argmax(dim=1)  # the end token has the highest number
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.transformer(x)
        x = x[torch.arange(len(x), device=x.device), ends]
        return (self.ln_final(x) @ self.text_projection).float()

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """See :meth:`TextTower.forward`."""
        device = self.text_projection.device
        rows = [torch.empty(0, self.feature_dim, device=device)]
        for ids in self.tokeniser.batches(sentences):
            rows.append(self.encode(ids.to(device)))
        return torch.cat(rows)
