"""The family ``lite``: which settings make which network."""

from __future__ import annotations

from omnibind_core.encoders.family import Family, TrunkType
from omnibind_core.encoders.lite import config as c
from omnibind_core.encoders.lite.efficientnet import EfficientNetLite
from omnibind_core.encoders.lite.minilm import MiniLMTower
from omnibind_core.encoders.lite.point import PointTrunk
from omnibind_core.encoders.lite.stand_ins import HashedText, RandomConv
from omnibind_core.encoders.lite.yamnet import YamNet


def _point(config: c.PointConfig) -> PointTrunk:
    return PointTrunk(**config.model_dump(exclude={"type"}))


def _random_conv(config: c.RandomConvConfig) -> RandomConv:
    return RandomConv(config.channels, config.pool, config.feature_dim)


def _hashed_text(config: c.HashedTextConfig) -> HashedText:
    return HashedText(config.buckets, config.feature_dim)


LITE = Family(
    (
        TrunkType(c.EfficientNetConfig, lambda config: EfficientNetLite.from_package(config.type, config.levels)),
        TrunkType(c.MiniLMConfig, lambda _: MiniLMTower()),
        TrunkType(c.YamNetConfig, lambda _: YamNet.from_package()),
        TrunkType(c.PointConfig, _point),
        TrunkType(c.RandomConvConfig, _random_conv),
        TrunkType(c.HashedTextConfig, _hashed_text),
    )
)
