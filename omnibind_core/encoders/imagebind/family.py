"""The families ``imagebind`` and ``point_bind``: which settings make which network, and where its tensors are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from omnibind_core.encoders.family import Family, TrunkType
from omnibind_core.encoders.imagebind import convert
from omnibind_core.encoders.imagebind.config import (
    I2PMAEConfig,
    ImageBindConfig,
    ImageBindTextConfig,
    PointBERTConfig,
    PointBindConfig,
)
from omnibind_core.encoders.imagebind.model import ImageBindText, ImageBindTrunk
from omnibind_core.encoders.imagebind.point_bind import PointBindTrunk

_NON_COMMERCIAL = "CC-BY-NC 4.0: for non-commercial use only"


def _sensor(config: ImageBindConfig, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return convert.tower(checkpoint, config.tower)


def _text(_: ImageBindTextConfig, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return convert.tower(checkpoint, "text")


def _points(_: PointBindConfig, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return convert.points(checkpoint)


IMAGEBIND = Family(
    (
        TrunkType(ImageBindConfig, ImageBindTrunk, _sensor, convert.head),
        TrunkType(ImageBindTextConfig, ImageBindText, _text, convert.head),
    ),
    f"ImageBind's weights are {_NON_COMMERCIAL}",
)
POINT_BIND = Family(
    tuple(TrunkType(config, PointBindTrunk, _points, convert.head) for config in (I2PMAEConfig, PointBERTConfig)),
    f"Point-Bind's and UniBind's files hold ImageBind's weights, {_NON_COMMERCIAL}",
)
