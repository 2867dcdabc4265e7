"""ImageBind (Girdhar et al. 2023): six modalities, each through a preprocessor, a transformer, a head and a scale.

Written from the published description of the architecture. Names and shapes of the tensors are those of
``imagebind_huge.pth``, so that file is loaded by name. The four stages are keyed by modality: a modality is all tensors
whose name has it in second place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from omnibind_core.encoders.base import TextTower, Trunk
from omnibind_core.encoders.clip_text import CONTEXT, TowerTokeniser
from omnibind_core.encoders.imagebind import layers
from omnibind_core.encoders.imagebind.config import ImageBindConfig, ImageBindTextConfig
from omnibind_core.encoders.transformer import normalise_pictures
from omnibind_core.errors import ConfigError

INPUTS: dict[str, tuple[int, ...]] = {
    "vision": (3, 224, 224),
    "audio": (1, 128, 204),
    "depth": (1, 224, 224),
    "thermal": (1, 224, 224),
    "imu": (6, 2000),
}
"""Shape of one view, by ImageBind's name of the modality."""
_STEMS = {"vision": "rgbt_stem", "audio": "rgbt_stem", "depth": "depth_stem", "thermal": "rgbt_stem", "imu": "imu_stem"}
_SCALES = {"audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}
_TEXT_SCALE = 1 / 0.07
_IMU_DROPOUT = 0.5


class SensorPreprocessor(nn.Module):
    """A view to tokens: the class token, then one for each patch, with their positions added.

    Args:
        config: Size.
    """

    def __init__(self, config: ImageBindConfig) -> None:
        super().__init__()
        width, patch, tower = config.width, config.patch, config.tower
        stride = config.stride or patch
        shape = INPUTS[tower]
        grid = [(side - patch) // stride + 1 for side in shape[1:]]
        if min(grid) < 1:
            raise ConfigError(f"tower '{tower}': patch is {patch}, more than its input of {list(shape)} has")
        count = math.prod(grid)
        if tower == "vision":
            proj: nn.Module = layers.FramePatches(width, patch)
        elif tower == "imu":
            proj = layers.Signal(width, patch)
        else:
            proj = nn.Conv2d(1, width, patch, stride, bias=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self._stem = _STEMS[tower]
        self.add_module(self._stem, layers.Stem(proj, width, normalise=tower != "vision"))
        positions = layers.Positions(1 + count, width)
        if tower == "imu":
            self.pos_embed = positions.pos_embed
        else:
            self.pos_embedding_helper = positions

    def forward(self, views: Tensor) -> Tensor:
        """``[N, *INPUTS[tower]]`` to ``[N, 1 + patches, width]``."""
        patches = getattr(self, self._stem)(views)
        tokens = torch.cat((self.cls_token.expand(len(patches), -1, -1), patches), dim=1)
        out: Tensor = tokens + (self.pos_embed if self._stem == "imu_stem" else self.pos_embedding_helper.pos_embed)
        return out


class TextPreprocessor(nn.Module):
    """Token ids to tokens with their positions added.

    Args:
        config: Size.
    """

    NOT_FINITE: ClassVar = {"mask": -math.inf}  # added to what it hides

    mask: Tensor

    def __init__(self, config: ImageBindTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.tokens, config.width)
        self.pos_embed = nn.Parameter(torch.empty(1, CONTEXT, config.width))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        # In the checkpoint; the attention is causal without it.
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        """``int64 [N, T]`` to ``[N, T, width]``, T at most 77."""
        out: Tensor = self.token_embedding(ids) + self.pos_embed[:, : ids.shape[1]]
        return out


class TextHead(nn.Module):
    """The end token to the shared space."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.LayerNorm(width, eps=layers.EPS), nn.Linear(width, embed_dim, bias=False))

    def forward(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """``[N, T, width]`` and the ids ``[N, T]``, of which the end token has the highest, to ``[N, embed_dim]``."""
        out: Tensor = self.proj(tokens[torch.arange(len(ids), device=ids.device), ids.argmax(dim=1)])
        return out


class ImageBind(nn.Module):
    """The four stages of any of ImageBind's modalities.

    Args:
        towers: Sizes, one for each modality.
    """

    def __init__(self, *towers: ImageBindConfig | ImageBindTextConfig) -> None:
        super().__init__()
        self.modality_preprocessors = nn.ModuleDict()
        self.modality_trunks = nn.ModuleDict()
        self.modality_heads = nn.ModuleDict()
        self.modality_postprocessors = nn.ModuleDict()
        for config in towers:
            size = (config.width, config.depth, config.heads)
            if isinstance(config, ImageBindTextConfig):
                name = "text"
                self.modality_preprocessors[name] = TextPreprocessor(config)
                self.modality_trunks[name] = layers.Transformer(*size, causal=True)
                self.modality_heads[name] = TextHead(config.width, config.embed_dim)
                scale = layers.LogitScale(_TEXT_SCALE, learnable=True)
                self.modality_postprocessors[name] = nn.Sequential(layers.Normalise(), scale)
                continue
            name, vision = config.tower, config.tower == "vision"
            self.modality_preprocessors[name] = SensorPreprocessor(config)
            self.modality_trunks[name] = layers.Transformer(*size, normalise=vision, extra_token=not vision)
            self.modality_heads[name] = _sensor_head(config)
            scaled = [] if vision else [layers.LogitScale(_SCALES[name], learnable=False)]
            self.modality_postprocessors[name] = nn.Sequential(layers.Normalise(), *scaled)

    def encode(self, modality: str, inputs: Tensor) -> Tensor:
        """Embeddings of one modality.

        Args:
            modality: ImageBind's name of it.
            inputs: ``[N, *INPUTS[modality]]`` in the precision of the weights, normalised; pictures, or two frames of
                a video ``[N, 3, 2, 224, 224]``; for text token ids ``int64 [N, T]``, T at most 77.

        Returns:
            ``[N, embed_dim]``, of the length that ImageBind gives it: 1 for vision, else the modality's scale.
        """
        tokens = self.modality_trunks[modality](self.modality_preprocessors[modality](inputs))
        head = self.modality_heads[modality]
        embeddings = head(tokens, inputs) if modality == "text" else head(tokens)
        out: Tensor = self.modality_postprocessors[modality](embeddings)
        return out

    def encode_clips(self, modality: str, clips: Tensor) -> Tensor:
        """Embeddings ``[N, embed_dim]`` of samples that consist of several clips ``[N, S, ...]`` each: their mean."""
        return self.encode(modality, clips.flatten(0, 1)).unflatten(0, clips.shape[:2]).mean(dim=1)


def _sensor_head(config: ImageBindConfig) -> nn.Sequential:
    norm, first = nn.LayerNorm(config.width, eps=layers.EPS), layers.ClassToken()
    dropout = [nn.Dropout(_IMU_DROPOUT)] if config.tower == "imu" else []
    return nn.Sequential(norm, first, *dropout, nn.Linear(config.width, config.embed_dim, bias=False))


class ImageBindTrunk(ImageBind, Trunk):
    """One sensor modality of ImageBind; its features are embeddings in ImageBind's space.

    Pictures for vision are ``uint8 [N, 3, 224, 224]``, or two frames of a video each, ``uint8 [N, 3, 2, 224, 224]``.
    The other views are ``float32 [N, *INPUTS[tower]]`` as their presets normalise them.

    Args:
        config: Size.
    """

    def __init__(self, config: ImageBindConfig) -> None:
        super().__init__(config)
        self.tower = config.tower
        self.feature_dim = config.embed_dim
        self.takes = (INPUTS[config.tower], "uint8" if config.tower == "vision" else "float32")

    def forward(self, views: Tensor) -> Tensor:
        """See :meth:`Trunk.forward`."""
        head: Any = self.modality_heads[self.tower]
        dtype = head[-1].weight.dtype
        inputs = normalise_pictures(views, dtype) if self.tower == "vision" else views.to(dtype)
        return self.encode(self.tower, inputs).float()


class ImageBindText(ImageBind, TextTower):
    """ImageBind's text modality.

    Args:
        config: Size and vocabulary.
    """

    def __init__(self, config: ImageBindTextConfig) -> None:
        super().__init__(config)
        self.feature_dim = config.embed_dim
        self.tokeniser = TowerTokeniser(config.vocabulary, config.weights, config.tokens)

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """See :meth:`TextTower.forward`."""
        preprocessor: Any = self.modality_preprocessors["text"]
        weight = preprocessor.token_embedding.weight
        parts = [weight.new_empty(0, self.feature_dim)]
        for ids in self.tokeniser.batches(sentences):
            parts.append(self.encode("text", ids.to(weight.device)))
        return torch.cat(parts).float()
