"""One round trip per tick: all views of a trunk in one batch of a fixed size, heads included, all trunks at once."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core.encoders.base import EncoderSet
from omnibind_core.encoders.inference.graphs import Capture, GraphRecorder

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Views in a batch: one that is not as large is filled up, by a third at most of what is computed."""
_PREPARED = 8  # views of the largest batch that is made ready before the first tick
_MOST_SLOTS = 48  # of a trunk: views whose shape varies would fill the memory

Items = Sequence[tuple[str, NDArray[Any]]]

_log = logging.getLogger(__name__)


def padded(count: int) -> int | None:
    """The smallest of :data:`SIZES` that holds so many views; None if there are more."""
    return next((size for size in SIZES if size >= count), None)


class BatchedEncoders:
    """The encoders of a model on one device, for a model that does not change any more.

    Args:
        encoders: The encoders, in eval mode, on the device.
        device: The device.
        capture: Makes a step that runs again; None for CUDA graphs. Tests on a CPU give their own.
    """

    def __init__(self, encoders: EncoderSet, device: torch.device, capture: Capture | None = None) -> None:
        self._encoders = encoders
        self._trunks = {name: TrunkBatches(encoders, name, device, capture) for name in encoders.trunks}
        self._busy = threading.Lock()

    @torch.inference_mode()
    def embed(self, items: Items) -> Tensor:
        """Embeds items of any modalities.

        Args:
            items: ``(modality, views [V, ...])``, checked.

        Returns:
            ``float32 [n, D]``, unit length, in the order of the items, on the CPU.
        """
        places: dict[str, list[int]] = defaultdict(list)
        for index, (modality, _) in enumerate(items):
            places[self._encoders.trunk_of[modality]].append(index)
        out = torch.empty(len(items), self._encoders.embed_dim)
        with self._busy:  # the buffers are one thread's at a time
            begun = [(at, self._trunks[name].begin([items[index] for index in at])) for name, at in places.items()]
            for at, finish in begun:
                out[at] = finish()
        return out

    @torch.inference_mode()
    def prepare(self, items: Items) -> None:
        """Makes the batches of up to eight views ready, of every shape that the views of the items have."""
        with self._busy:
            for modality, views in items:
                self._trunks[self._encoders.trunk_of[modality]].prepare(views)


@dataclass(frozen=True)
class _Slot:
    """What a batch of one size needs: buffers here and on the device, and how to run it.

    Attributes:
        host: Views and plan as they are filled here.
        there: The same on the device.
        run: Makes the embeddings ``[size, D]`` of what is there.
        rows: Where the embeddings end.
    """

    host: tuple[Tensor, Tensor]
    there: tuple[Tensor, Tensor]
    run: Callable[[], Tensor]
    rows: Tensor


class TrunkBatches:
    """What one trunk and its heads do in a tick. Arguments as of :class:`BatchedEncoders`."""

    def __init__(self, encoders: EncoderSet, trunk: str, device: torch.device, capture: Capture | None = None) -> None:
        self._encoders = encoders
        self._trunk = trunk
        self._device = device
        self._heads = [name for name in encoders.heads if encoders.trunk_of[name] == trunk]
        self._slots: dict[tuple[Any, ...], _Slot] = {}
        self._gave_up = False
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if capture is None:
            assert self._stream is not None, "CUDA graphs need a CUDA device"
            capture = GraphRecorder(self._stream)
        self._capture = capture

    def begin(self, items: Items) -> Callable[[], Tensor]:
        """Sends items of this trunk on their way.

        Args:
            items: As of :meth:`BatchedEncoders.embed`, at least one.

        Returns:
            What waits for them: ``float32 [n, D]`` on the CPU.
        """
        slot = self._slot(sum(len(views) for _, views in items), *(views for _, views in items))
        if slot is None:
            rows = self._plainly(items)
            return lambda: rows.cpu()
        if self._stream is not None:
            self._stream.synchronize()  # a tick that failed half-way may have left something behind
        self._fill(slot, items)
        with self._queue():
            for here, there in zip(slot.host, slot.there, strict=True):
                there.copy_(here, non_blocking=True)
            slot.rows.copy_(slot.run(), non_blocking=True)

        def finish() -> Tensor:
            if self._stream is not None:
                self._stream.synchronize()
            return slot.rows[: len(items)].clone()

        return finish

    def prepare(self, views: NDArray[Any]) -> None:
        """Makes the batches of up to eight views of this shape ready."""
        for size in SIZES[: SIZES.index(_PREPARED) + 1]:
            self._slot(size, views)

    def _queue(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _fill(self, slot: _Slot, items: Items) -> None:
        """Puts items into the buffers here. What is left of earlier ticks beyond them has no share in any."""
        views, plan = (tensor.numpy() for tensor in slot.host)
        plan[:] = 0
        start = 0
        for row, (modality, part) in enumerate(items):
            end = start + len(part)
            views[start:end] = part
            plan[row, start:end] = 1 / len(part)
            plan[row, -1] = self._heads.index(modality)
            start = end

    def _slot(self, count: int, *views: NDArray[Any]) -> _Slot | None:
        """The buffers for so many views of one shape; None where they have to be encoded as they are."""
        size, first = padded(count), views[0]
        alike = all(part.shape[1:] == first.shape[1:] for part in views)
        if self._gave_up or size is None or first.dtype.kind == "U" or not alike:
            return None
        key = (size, first.shape[1:], first.dtype.str)
        if key not in self._slots:
            if len(self._slots) >= _MOST_SLOTS:
                self._give_up(f"its views have more than {_MOST_SLOTS} shapes")
                return None
            try:
                self._slots[key] = self._new(size, first)
            except Exception as error:  # whatever a trunk may raise; if its input is at fault, it will again
                self._give_up((str(error).splitlines() or [type(error).__name__])[0])
                return None
        return self._slots[key]

    def _give_up(self, reason: str) -> None:
        self._gave_up = True
        self._slots.clear()
        _log.warning("the trunk '%s' runs without CUDA graphs: %s", self._trunk, reason)

    def _new(self, size: int, like: NDArray[Any]) -> _Slot:
        fast = self._stream is not None
        views = torch.from_numpy(np.zeros((size, *like.shape[1:]), like.dtype))
        plan = torch.zeros(size, size + 1)
        plan[:, :size] = torch.eye(size)
        host = tuple(part.pin_memory() if fast else part for part in (views, plan))
        there = tuple(part.to(self._device, copy=True) for part in host)
        features = self._encoders.trunks[self._trunk](there[0][:1])
        for name in self._heads:
            self._encoders.embed(name, features)  # the first time, class embeddings may be made
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))  # for these, weights and buffers
        run = self._capture(self._step, there)
        rows = torch.zeros(size, self._encoders.embed_dim, pin_memory=fast)
        return _Slot((host[0], host[1]), (there[0], there[1]), run, rows)

    def _step(self, views: Tensor, plan: Tensor) -> Tensor:
        """Embeddings ``[B, D]`` of views ``[B, ...]``.

        The plan, ``float32 [B, B + 1]``, has a row for each item: the share of every view in it, then the number of its
        head. Every head sees every row, which is cheaper than telling them apart.
        """
        features = self._encoders.trunks[self._trunk](views)
        shares, head = plan[:, :-1, None], plan[:, -1].long()
        # Not by a product alone: what has no share may be of a broken sensor, and NaN times nothing is NaN.
        means = torch.where(shares > 0, shares * features, 0.0).sum(dim=1)
        rows = torch.stack([self._encoders.embed(name, means) for name in self._heads], dim=1)
        return rows.gather(1, head[:, None, None].expand(-1, 1, rows.shape[2])).squeeze(1)

    def _plainly(self, items: Items) -> Tensor:
        joined = np.concatenate([views for _, views in items])
        data: Any = joined.tolist() if joined.dtype.kind == "U" else torch.from_numpy(joined).to(self._device)
        features = self._encoders.features(self._trunk, data, [len(views) for _, views in items])
        rows = [self._encoders.embed(name, features[row : row + 1]) for row, (name, _) in enumerate(items)]
        return torch.cat(rows)
