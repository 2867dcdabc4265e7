"""The trunks of the families ``imagebind`` and ``point_bind``; the published sizes are in the model configs."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from omnibind_core.encoders.family import FileTrunkConfig

Sensor = Literal["vision", "audio", "depth", "thermal", "imu"]
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]


class _BindConfig(FileTrunkConfig):
    """What the trunks have in common.

    Attributes:
        embed_dim: Width of the embeddings, which are the features of the trunk.
    """

    embed_dim: PositiveInt = 1024


class TowerConfig(_BindConfig):
    """Size of the transformer of one of ImageBind's modalities.

    Attributes:
        width: Of the tokens.
        depth: Number of blocks.
        heads: Of the attention, a divisor of ``width``.
    """

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt

    @model_validator(mode="after")
    def _divides(self) -> TowerConfig:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}, expected a divisor of width, {self.width}")
        return self


class ImageBindConfig(TowerConfig):
    """One of ImageBind's sensor modalities, see :class:`omnibind_core.encoders.imagebind.model.ImageBindTrunk`.

    Attributes:
        tower: Name of the modality in ImageBind.
        patch: Side of a patch of the picture or spectrogram, samples of a patch of the signal.
        stride: From patch to patch; None for ``patch``.
    """

    type: Literal["imagebind"]
    tower: Sensor
    patch: PositiveInt
    stride: PositiveInt | None = None


class ImageBindTextConfig(TowerConfig):
    """ImageBind's text modality, see :class:`omnibind_core.encoders.imagebind.model.ImageBindText`.

    Attributes:
        vocabulary: CLIP's vocabulary, see :class:`omnibind_core.encoders.clip_text.ClipTokeniser`, found like
            ``weights``; the one beside these counts first. None for bytes alone, as tests do.
        tokens: Number of tokens of the vocabulary.
    """

    type: Literal["imagebind_text"]
    vocabulary: str | None = None
    tokens: PositiveInt = 49408


class PointBindConfig(_BindConfig):
    """Point-Bind's way from a point encoder to ImageBind's space.

    Attributes:
        projected: Width between the encoder and the head.
        heads: Of the attention.
    """

    projected: PositiveInt = 512
    heads: PositiveInt = 6


class I2PMAEConfig(PointBindConfig):
    """Point-Bind with I2P-MAE, whose three levels have these settings each.

    Attributes:
        groups: Number of centres.
        neighbours: Points of a centre's neighbourhood.
        widths: Of the tokens.
        depths: Number of blocks.
        radii: Tokens farther apart do not attend to each other; the cloud has radius 1.
    """

    type: Literal["i2p_mae"]
    groups: Triple = (512, 256, 64)
    neighbours: Triple = (48, 24, 24)
    widths: Triple = (96, 192, 384)
    depths: Triple = (5, 5, 5)
    radii: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.24, 0.48, 0.96)


class PointBERTConfig(PointBindConfig):
    """Point-Bind with Point-BERT.

    Attributes:
        groups: Number of centres.
        neighbours: Points of a centre's neighbourhood.
        encoder_dim: Width of what describes a neighbourhood.
        width: Of the tokens.
        depth: Number of blocks.
    """

    type: Literal["point_bert"]
    groups: PositiveInt = 512
    neighbours: PositiveInt = 32
    encoder_dim: PositiveInt = 256
    width: PositiveInt = 384
    depth: PositiveInt = 12
