"""Encoders as a device runs them fastest, for a model that only answers.

On a GPU: batches of fixed sizes, precisions, graphs. On a CPU: networks as ONNX files in other engines than torch, for
which torch need not be imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnibind_core.encoders.inference.batches import BatchedEncoders
    from omnibind_core.encoders.inference.compiled import compile_trunks
    from omnibind_core.encoders.inference.engines import ENGINES, Engine
    from omnibind_core.encoders.inference.precision import PRECISIONS, Precision, lower

__all__ = ["ENGINES", "PRECISIONS", "BatchedEncoders", "Engine", "Precision", "compile_trunks", "lower"]
_HOMES = {
    "batches": ("BatchedEncoders",),
    "compiled": ("compile_trunks",),
    "engines": ("ENGINES", "Engine"),
    "precision": ("PRECISIONS", "Precision", "lower"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
