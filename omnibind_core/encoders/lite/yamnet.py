"""YAMNet: MobileNet v1 (Howard et al. 2017) on log-mel patches, trained by its authors on AudioSet's 521 classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibind_core.encoders.base import Trunk
from omnibind_core.encoders.lite.convert import yamnet
from omnibind_core.encoders.lite.layers import SameConv
from omnibind_core.encoders.lite.tf_bundle import read_bundle
from omnibind_core.encoders.packages import YAMNET_INDEX, YAMNET_VARIABLES, packaged_file

# Stride and width of the depthwise-separable layers: the table of the MobileNet paper.
_LAYERS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *((1, 512),) * 5, (2, 1024), (1, 1024))


class SeparableConv(nn.Module):
    """Filters each channel, then mixes the channels."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = SameConv(width_in, width_in, 3, stride, groups=width_in)
        self.pointwise = SameConv(width_in, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, width_in, H, W]`` to ``[N, width_out, H / stride, W / stride]``."""
        return F.relu(self.pointwise(F.relu(self.depthwise(x), inplace=True)), inplace=True)


class YamNet(Trunk):
    """Log-mel patches ``float32 [N, 96, 64]`` (0.96 s of 10 ms frames, 64 bands) to features ``float32 [N, 1024]``.

    Batch normalisation is folded into the convolutions, so this trunk is for inference only.

    Attributes:
        classifier: The 521 AudioSet classes: logits of features, each an independent yes or no.
    """

    packaged = True
    feature_dim = 1024

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(1, 32, 3, stride=2)
        widths = (32, *(width for _, width in _LAYERS))
        self.layers = nn.Sequential(
            *(
                SeparableConv(width_in, width, stride)
                for width_in, (stride, width) in zip(widths, _LAYERS, strict=False)
            )
        )
        self.classifier = nn.Linear(1024, 521)

    @classmethod
    def from_package(cls) -> YamNet:
        """The AudioSet-trained trunk.

        Raises:
            MissingDependencyError: The package that carries the weights is not installed.
            WeightsError: Its files are not the known ones.
        """
        trunk = cls()
        folder = packaged_file(YAMNET_INDEX).parent
        packaged_file(YAMNET_VARIABLES)
        trunk.load_state_dict(yamnet(read_bundle(folder)))
        return trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, views: Tensor) -> Tensor:
        """See :meth:`Trunk.forward`."""
        x = views[:, None].to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = self.layers(F.relu(self.stem(x), inplace=True))
        return x.mean(dim=(2, 3)).float()
