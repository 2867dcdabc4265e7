"""What TensorRT documents that it runs. TensorRT itself is reached through ONNX Runtime, see ``engines.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnibind_core.optional import require

OPERATORS = Path(__file__).with_name("tensorrt_operators.txt")
"""Operators of ONNX that TensorRT documents, with their limits, and where that is documented."""


def documented() -> dict[str, str]:
    """Operators by name, with what limits each; empty where nothing does that a network of ours could meet."""
    lines = OPERATORS.read_text(encoding="utf-8").splitlines()
    rows = [line.partition(":") for line in lines if line and not line.startswith("#")]
    return {name.strip(): limit.strip() for name, _, limit in rows}


def check(path: Path) -> dict[str, str]:
    """Checks that an ONNX file is sound, that all its shapes can be inferred, and that TensorRT has its operators.

    Returns:
        Documented limits of the operators in it, by operator: whether they are kept only TensorRT can tell.

    Raises:
        MissingDependencyError: The package ``onnx`` is not installed.
        RuntimeError: An operator is not documented.
        Exception: Whatever ``onnx`` raises where the file is not sound.
    """
    onnx: Any = require("onnx", "Exporting for TensorRT")
    network = onnx.load(path)
    onnx.checker.check_model(network, full_check=True)
    onnx.shape_inference.infer_shapes(network, check_type=True, strict_mode=True, data_prop=True)
    known = documented()
    used = sorted({f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in network.graph.node})
    if outside := [name for name in used if name not in known]:
        raise RuntimeError(f"TensorRT documents no operator {', '.join(outside)}")
    return {name: known[name] for name in used if known[name]}
