"""EfficientNet-Lite (Tan and Le 2019; the Lite variants have ReLU6, no squeeze-and-excite, unscaled stem and head)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.encoders.base import Trunk
from omnibind_core.encoders.lite.convert import efficientnet_lite
from omnibind_core.encoders.lite.layers import SameConv
from omnibind_core.encoders.packages import (
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE1,
    EFFICIENTNET_LITE2,
    PackagedFile,
    read_torch,
)

# Repeats, kernel, stride, expansion, width: the B0 table of the paper.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_LEVELS = (2, 4, 5)  # stages of 40, 112 and 192 channels in the smallest variant


class _Variant(NamedTuple):
    """How much wider and deeper than B0 it is, and where its weights are."""

    width: float
    depth: float
    file: PackagedFile

    def channels(self, count: int) -> int:
        """The nearest multiple of eight of so many times the width, but at most a tenth less."""
        wide = count * self.width
        nearest = max(8, int(wide + 4) // 8 * 8)
        return nearest if nearest >= 0.9 * wide else nearest + 8

    def repeats(self, stage: int) -> int:
        """Blocks of a stage; the first and the last stage are not deepened."""
        repeats = _STAGES[stage][0]
        return repeats if stage in (0, len(_STAGES) - 1) else math.ceil(repeats * self.depth)


VARIANTS = {
    "efficientnet_lite0": _Variant(1.0, 1.0, EFFICIENTNET_LITE0),
    "efficientnet_lite1": _Variant(1.0, 1.1, EFFICIENTNET_LITE1),
    "efficientnet_lite2": _Variant(1.1, 1.2, EFFICIENTNET_LITE2),
}


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to the input where shapes allow."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = width_in * expansion
        self.expand = SameConv(width_in, wide, 1) if expansion > 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride, groups=wide)
        self.project = SameConv(wide, width_out, 1)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        """``[N, width_in, H, W]`` to ``[N, width_out, H / stride, W / stride]``."""
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        out: Tensor = self.project(F.relu6(self.depthwise(wide), inplace=True))
        return out.add_(x) if self.residual else out


class EfficientNetLite(Trunk):
    """Pictures ``uint8 [N, 3, H, W]`` to pooled features ``float32 [N, 1280]``, or more with levels (Lite0: 2288).

    Batch normalisation is folded into the convolutions, so this trunk is for inference only.

    Args:
        variant: One of :data:`VARIANTS`. They were trained with pictures of 224, 240 and 260 pixels.
        levels: Adds what lies before the last layer: the mean and the maximum of three stages, and the mean of the
            last. It costs no time, and tells sensors that are unlike photographs more.

    Attributes:
        classifier: The 1000 ImageNet classes: logits of the first 1280 features.
    """

    packaged = True

    def __init__(self, variant: str = "efficientnet_lite0", levels: bool = False) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, stride=2)
        blocks = []
        width = 32
        ends = []
        scale = VARIANTS[variant]
        for stage, (_, kernel, stride, expansion, channels) in enumerate(_STAGES):
            width_out = scale.channels(channels)
            for step in range(scale.repeats(stage)):
                blocks.append(InvertedResidual(width, width_out, kernel, stride if step == 0 else 1, expansion))
                width = width_out
            ends.append((len(blocks) - 1, width))
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(width, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)
        self._levels = dict(ends[i] for i in _LEVELS) if levels else {}
        last = (width,) if levels else ()
        self.parts = (1280, *(width for width in self._levels.values() for _ in range(2)), *last)
        self.feature_dim = sum(self.parts)

    @classmethod
    def from_package(cls, variant: str = "efficientnet_lite0", levels: bool = False) -> EfficientNetLite:
        """The ImageNet-trained trunk.

        Args:
            variant: See the class.
            levels: See the class.

        Raises:
            MissingDependencyError: The package that carries the weights is not installed.
            WeightsError: Its file is not the known one.
        """
        trunk = cls(variant, levels)
        trunk.load_state_dict(efficientnet_lite(read_torch(VARIANTS[variant].file)))
        return trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, views: Tensor) -> Tensor:
        """See :meth:`Trunk.forward`."""
        # (x - 127) / 128: the normalisation this network was trained with, not ImageNet's mean and deviation.
        x = views.to(self.stem.weight.dtype, memory_format=torch.channels_last).sub_(127.0).mul_(1 / 128)
        x = F.relu6(self.stem(x), inplace=True)
        pooled = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._levels:
                pooled += [x.mean(dim=(2, 3)), x.amax(dim=(2, 3))]
        if self._levels:
            pooled.append(x.mean(dim=(2, 3)))
        x = F.relu6(self.head(x), inplace=True).mean(dim=(2, 3))
        return (torch.cat([x, *pooled], dim=1) if pooled else x).float()
