"""The trunks of the family ``lite``: packaged weights, one trunk of our own, stand-ins for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt, PositiveInt

from omnibind_core.encoders.family import TrunkConfig

if TYPE_CHECKING:
    from omnibind_core.encoders.base import TextTower, Trunk


class EfficientNetConfig(TrunkConfig):
    """EfficientNet-Lite0 with the packaged ImageNet weights.

    Attributes:
        levels: Features of earlier stages beside those of the last, see
            :class:`omnibind_core.encoders.lite.efficientnet.EfficientNetLite0`.
    """

    type: Literal["efficientnet_lite0"]
    levels: bool = False

    def build(self) -> Trunk:
        """See :meth:`TrunkConfig.build`."""
        from omnibind_core.encoders.lite.efficientnet import EfficientNetLite0

        return EfficientNetLite0.from_package(self.levels)


class MiniLMConfig(TrunkConfig):
    """all-MiniLM-L6-v2 with the packaged weights."""

    type: Literal["minilm_l6"]

    def build(self) -> TextTower:
        """See :meth:`TrunkConfig.build`."""
        from omnibind_core.encoders.lite.minilm import MiniLMTower

        return MiniLMTower()


class YamNetConfig(TrunkConfig):
    """YAMNet with the packaged AudioSet weights."""

    type: Literal["yamnet"]

    def build(self) -> Trunk:
        """See :meth:`TrunkConfig.build`."""
        from omnibind_core.encoders.lite.yamnet import YamNet

        return YamNet.from_package()


class PointConfig(TrunkConfig):
    """Our point-cloud trunk; see :class:`omnibind_core.encoders.lite.point.PointTrunk`."""

    type: Literal["point"]
    width: PositiveInt
    centres: tuple[PositiveInt, PositiveInt]
    neighbours: PositiveInt
    blocks: tuple[NonNegativeInt, NonNegativeInt]
    feature_dim: PositiveInt

    def build(self) -> Trunk:
        """See :meth:`TrunkConfig.build`."""
        from omnibind_core.encoders.lite.point import PointTrunk

        return PointTrunk(**self.model_dump(exclude={"type"}))


class RandomConvConfig(TrunkConfig):
    """A small random convolution over pictures or log-mel patches, for tests."""

    type: Literal["random_conv"]
    channels: PositiveInt
    pool: PositiveInt
    feature_dim: PositiveInt

    def build(self) -> Trunk:
        """See :meth:`TrunkConfig.build`."""
        from omnibind_core.encoders.lite.stand_ins import RandomConv

        return RandomConv(self.channels, self.pool, self.feature_dim)


class HashedTextConfig(TrunkConfig):
    """A random vector per word, for tests."""

    type: Literal["hashed_text"]
    buckets: PositiveInt
    feature_dim: PositiveInt

    def build(self) -> TextTower:
        """See :meth:`TrunkConfig.build`."""
        from omnibind_core.encoders.lite.stand_ins import HashedText

        return HashedText(self.buckets, self.feature_dim)


SCHEMAS = (EfficientNetConfig, MiniLMConfig, YamNetConfig, PointConfig, RandomConvConfig, HashedTextConfig)
