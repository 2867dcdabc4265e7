"""CUDA graphs: what a GPU is told to do, recorded once and told again as a whole, without Python between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UPS = 2
"""Runs before recording: libraries choose their kernels and take their memory in the first."""

Step = Callable[..., Tensor]
Capture = Callable[[Step, Sequence[Tensor]], Callable[[], Tensor]]
"""Makes of a step and the tensors that it reads what runs it again: on what the tensors hold then, with the result
always in the same memory."""


class GraphRecorder:
    """Records steps on one stream. What is recorded shares memory, so only one of them may run at a time.

    Args:
        stream: Where the steps are recorded, and are to be replayed.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step, inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
        """Records a step; see :data:`Capture`.

        Raises:
            RuntimeError: It does something that cannot be recorded, such as waiting for the GPU.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):  # a recording that fails leaves the stream as the current one
            for _ in range(_WARM_UPS):
                step(*inputs)
            # Other threads may use the GPU meanwhile: only what this one does must be fit to be recorded.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                result = step(*inputs)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
