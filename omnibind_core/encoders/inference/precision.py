"""Trunks in half precision, where their embeddings are those of float32."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from omnibind_core.encoders.base import EncoderSet, TextTower
from omnibind_core.encoders.inference.probes import probes
from omnibind_core.errors import ConfigError
from omnibind_core.modalities.base import Preset

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
"""In which trunks may compute; ``auto`` takes the first half precision that is verified, on a GPU."""
LEAST_COSINE = 0.9998
"""Between embeddings in half precision and those in float32, for a trunk to be verified: of all probes but one."""
_SPARED = 1  # probes that may lie where a head jumps, as between the tenth and the eleventh vote of ConSE

_log = logging.getLogger(__name__)


def lower(
    encoders: EncoderSet, presets: Mapping[str, Preset], precision: str, device: torch.device
) -> dict[str, tuple[str, float]]:
    """Brings the trunks of a model into half precision, in place: those that are verified, by made-up input.

    Text towers stay as they are, as do heads, fusion and labels: they cost little.

    Args:
        encoders: The encoders, in eval mode.
        presets: Of the modalities whose sensors there may be.
        precision: One of :data:`PRECISIONS`.
        device: Where the encoders are.

    Returns:
        By trunk, what it computes in now, and the least cosine to float32 of what was tried last, NaN if that cannot be
        computed; nothing where nothing was tried.

    Raises:
        ConfigError: There is no such precision, or the device has none of that kind.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is '{precision}', expected one of {', '.join(PRECISIONS)}")
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("precision is float16, in which a CPU does not compute; expected float32, bfloat16 or auto")
    candidates = [precision]
    if precision == "auto":
        candidates = ["float16", "bfloat16"] if device.type == "cuda" else []
    candidates = [item for item in candidates if item != "float32"]
    found = {}
    for name, trunk in encoders.trunks.items():
        sensors = [key for key in encoders.heads if encoders.trunk_of[key] == name]
        if candidates and sensors and not isinstance(trunk, TextTower) and _dtype(trunk) == torch.float32:
            inputs = {key: torch.from_numpy(probes(presets[key])).to(device) for key in sensors}
            found[name] = _lowered(encoders, name, inputs, candidates)
    return found


def _lowered(
    encoders: EncoderSet, name: str, inputs: Mapping[str, Tensor], candidates: Sequence[str]
) -> tuple[str, float]:
    """Tries precisions on one trunk; what it computes in now, and the least cosine to float32."""
    trunk = encoders.trunks[name]
    wanted = _embedded(encoders, name, inputs, {})
    least = np.nan
    for candidate in candidates:
        dtype = getattr(torch, candidate)
        tensors = {**dict(trunk.named_parameters()), **dict(trunk.named_buffers())}
        state = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
        try:
            embedded = _embedded(encoders, name, inputs, state)
        except RuntimeError as error:  # torch has no such kernel
            least = np.nan
            _log.warning("the trunk '%s' does not compute in %s: %s", name, candidate, str(error).splitlines()[0])
            continue
        cosines = {key: _least((rows * wanted[key]).sum(dim=1)) for key, rows in embedded.items()}
        worst = min(cosines, key=lambda key: cosines[key])
        least = cosines[worst]
        if least >= LEAST_COSINE:
            trunk.to(dtype)
            _log.info("the trunk '%s' computes in %s: least cosine to float32 %.6f", name, candidate, least)
            return candidate, least
        _log.warning(
            "the trunk '%s' does not compute in %s: the cosine of '%s' to float32 is %.5f, expected at least %g",
            *(name, candidate, worst, least, LEAST_COSINE),
        )
    return "float32", least


@torch.inference_mode()
def _embedded(
    encoders: EncoderSet, name: str, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Embeddings of views, by modality, through the trunk with these tensors in the place of its own."""
    trunk = encoders.trunks[name]
    return {key: encoders.embed(key, functional_call(trunk, dict(state), (views,))) for key, views in inputs.items()}


def _least(cosines: Tensor) -> float:
    """The least of the cosines, without those that are spared; -1 if one is no number."""
    return cosines.sort().values[_SPARED].item() if cosines.isfinite().all() else -1.0


def _dtype(trunk: nn.Module) -> torch.dtype | None:
    """Of the weights."""
    return next((parameter.dtype for parameter in trunk.parameters() if parameter.is_floating_point()), None)
