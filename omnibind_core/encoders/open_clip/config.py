"""The trunks of the family ``open_clip``. Sizes of the published models are in the model configs."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from omnibind_core.encoders.family import FileTrunkConfig

Activation = Literal["gelu", "quick_gelu"]


class _TowerConfig(FileTrunkConfig):
    """What both towers have.

    Attributes:
        width: Of the tokens.
        layers: Number of blocks.
        heads: Of the attention, a divisor of ``width``.
        feature_dim: Width of the embeddings, which are the features of the trunk.
        activation: ``quick_gelu``, x * sigmoid(1.702 x), for weights of OpenAI, and those that say so in their name or
            their config.json; OpenCLIP's others have ``gelu``.
    """

    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feature_dim: PositiveInt
    activation: Activation = "gelu"

    @model_validator(mode="after")
    def _divides(self) -> _TowerConfig:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}, expected a divisor of width, {self.width}")
        return self


class OpenClipVisionConfig(_TowerConfig):
    """See :class:`omnibind_core.encoders.open_clip.model.OpenClipVision`.

    Attributes:
        patch: Side of the squares that become tokens, in pixels.
        size: Side of the pictures, a multiple of ``patch``.
    """

    type: Literal["open_clip_vision"]
    patch: PositiveInt
    size: PositiveInt = 224

    @model_validator(mode="after")
    def _tiles(self) -> OpenClipVisionConfig:
        if self.size % self.patch:
            raise ValueError(f"size is {self.size}, expected a multiple of patch, {self.patch}")
        return self


class OpenClipTextConfig(_TowerConfig):
    """See :class:`omnibind_core.encoders.open_clip.model.OpenClipText`.

    Attributes:
        context: Tokens of a sentence at most, start and end included.
        tokens: Number of tokens of the vocabulary.
        vocabulary: CLIP's vocabulary, see :class:`omnibind_core.encoders.clip_text.ClipTokeniser`, found like
            ``weights``; None for bytes alone, as tests do.
    """

    type: Literal["open_clip_text"]
    context: PositiveInt = 77
    tokens: PositiveInt = 49408
    vocabulary: str | None = None
