"""ONNX files of less precision: weights in half precision, or products of whole numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnibind_core.optional import require

_LEAST_WEIGHTS = 1024  # that are worth a conversion
_QUANTISED = ("Conv", "Clip", "Relu", "Add", "MatMul", "Gemm")
"""Operators that may be of whole numbers. What normalises pictures, pools and joins is not among them."""


def float16(path: Path) -> None:
    """Brings the weights of an ONNX file into half precision, in place. What computes stays in float32.

    Raises:
        MissingDependencyError: The package ``onnx`` is not installed.
    """
    onnx: Any = require("onnx", "Exporting in half precision")
    network = onnx.load(path)
    casts = []
    for weights in network.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT and np.prod(weights.dims) >= _LEAST_WEIGHTS:
            name, half = weights.name, f"{weights.name}.half"
            weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights).astype(np.float16), half))
            casts.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *network.graph.node]
    del network.graph.node[:]
    network.graph.node.extend(nodes)
    onnx.save(network, path)


def int8(path: Path, views: Sequence[NDArray[Any]]) -> None:
    """Lets convolutions and products of an ONNX file compute in whole numbers of eight bits, in place.

    Weights have a scale for each channel, what flows between them one for each tensor, from the least to the greatest
    number that is seen there in real data. The first and the last convolution stay as they are.

    Args:
        path: The file, with one input.
        views: Real views ``[n, ...]``, parts of one shape each.

    Raises:
        MissingDependencyError: The package ``onnx`` or ``onnxruntime`` is not installed.
        RuntimeError: There is nothing to convert.
        Exception: Whatever ONNX Runtime raises where it cannot.
    """
    onnx: Any = require("onnx", "Exporting in whole numbers")
    quantization: Any = require("onnxruntime.quantization", "Exporting in whole numbers")
    shapes: Any = require("onnxruntime.quantization.shape_inference", "Exporting in whole numbers")
    prepared = path.with_suffix(".prepared")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self._name = name
            self._rows: Iterator[NDArray[Any]] = (part[row : row + 1] for part in views for row in range(len(part)))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            row = next(self._rows, None)
            return None if row is None else {self._name: row}

    try:
        shapes.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        products = [node.name for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
        if len(products) < 3:
            raise RuntimeError("it has nothing between its first and its last convolution or product")
        quantization.quantize_static(
            str(prepared),
            str(path),
            Reader(graph.input[0].name),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=[products[0], products[-1]],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        prepared.unlink(missing_ok=True)
