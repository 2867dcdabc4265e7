"""Convolutions as TensorFlow made them: "same" padding, batch normalisation already folded into weight and bias."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: what does not divide evenly goes to the right and the bottom."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # With stride 1 the padding is symmetric, which the convolution does itself, without a copy of its input.
        super().__init__(width_in, width_out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, width_in, H, W]`` to ``[N, width_out, H / stride, W / stride]``, sizes rounded up."""
        if self.stride[0] > 1:
            (kernel, _), (stride, _) = self.kernel_size, self.stride
            extra = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[:1:-1]]
            x = F.pad(x, [side for total in extra for side in (total // 2, total - total // 2)])
        return super().forward(x)
