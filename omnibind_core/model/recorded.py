"""A recogniser on a GPU, told what to do as a whole: a CUDA graph for each number of tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from omnibind_core.encoders.inference.graphs import Capture, GraphRecorder
from omnibind_core.model.recogniser import Recogniser

_MOST = 64  # graphs, after which those of rarer numbers of tokens are not kept

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Slot:
    """What sets of one size need.

    Attributes:
        here: Tokens and what is known of each, as they are filled in.
        there: The same on the device.
        run: Makes all outputs, joined, of what is there.
        shapes: Of the outputs.
    """

    here: Tensor
    there: Tensor
    run: Callable[[], Tensor]
    shapes: list[torch.Size]


class RecordedRecogniser:
    """Answers as its network does, for tokens that come from the CPU, by answers that go there.

    Thread-safe: one set at a time.

    Args:
        network: The recogniser, on the device.
        device: Where it is.
        capture: How a step is recorded; by default as a CUDA graph.
    """

    def __init__(self, network: Recogniser, device: torch.device, capture: Capture | None = None) -> None:
        self._network = network
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if capture is None:
            assert self._stream is not None, "CUDA graphs need a CUDA device"
            capture = GraphRecorder(self._stream)
        self._capture = capture
        self._busy = threading.Lock()
        self._vocabulary: tuple[Tensor, Tensor] | None = None  # that the graphs read
        self._slots: dict[int, _Slot] = {}
        self._gave_up = False

    @torch.inference_mode()
    def __call__(
        self, tokens: Tensor, modality_ids: Tensor, speaks: Tensor, doubted: Tensor, labels: Tensor, others: Tensor
    ) -> list[Tensor]:
        """The answer, as :meth:`.Recogniser.forward` gives it.

        Args:
            tokens: See there; on the CPU, as the next three.
            modality_ids: As above.
            speaks: As above.
            doubted: As above.
            labels: As above; on the device. Another tensor makes all graphs anew.
            others: As above; on the device.

        Returns:
            The parts of :class:`.Answer`, on the CPU.
        """
        told = torch.stack([modality_ids, speaks, doubted], dim=1).to(tokens.dtype)
        with self._busy:
            slot = self._slot(torch.cat([tokens, told], dim=1), labels, others)
            if slot is None:
                inputs = (part.to(self._device) for part in (tokens, modality_ids, speaks, doubted))
                return _split(*_joined(self._network(*inputs, labels, others)))
            with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                slot.there.copy_(slot.here, non_blocking=True)
                return _split(slot.run(), slot.shapes)

    def _slot(self, packed: Tensor, labels: Tensor, others: Tensor) -> _Slot | None:
        """The buffers of sets of this size, filled; None where they cannot be recorded."""
        if self._vocabulary is None or self._vocabulary[0] is not labels or self._vocabulary[1] is not others:
            self._vocabulary = (labels, others)
            self._slots.clear()
        count = len(packed)
        if self._gave_up or (count not in self._slots and len(self._slots) >= _MOST):
            return None
        if count not in self._slots:
            try:
                self._slots[count] = self._new(packed, labels, others)
            except Exception as error:  # whatever a fusion may do that no graph can
                self._gave_up = True
                self._slots.clear()
                _log.warning("recognition runs without CUDA graphs: %s", str(error).partition("\n")[0])
                return None
        slot = self._slots[count]
        slot.here.copy_(packed)
        return slot

    def _new(self, packed: Tensor, labels: Tensor, others: Tensor) -> _Slot:
        here = packed.clone() if self._stream is None else packed.clone().pin_memory()
        there = here.to(self._device, copy=True)
        width = packed.shape[1] - 3
        shapes: list[torch.Size] = []

        def step(packed: Tensor) -> Tensor:
            ids, speaks, doubted = packed[:, width:].unbind(dim=1)
            answer = self._network(packed[:, :width], ids.long(), speaks > 0, doubted > 0, labels, others)
            joined, shapes[:] = _joined(answer)
            return joined

        step(there)  # what is made when first needed
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return _Slot(here, there, self._capture(step, (there,)), shapes)


def _joined(answer: Sequence[Tensor]) -> tuple[Tensor, list[torch.Size]]:
    """All parts in one row, to be brought to the host at once, and their shapes."""
    return torch.cat([part.flatten() for part in answer]), [part.shape for part in answer]


def _split(joined: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """The parts, on the CPU, in memory of their own; waits for the device."""
    pieces = joined.to("cpu", copy=True).split([shape.numel() for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
