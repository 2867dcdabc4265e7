"""Encoders as a device runs them fastest, for a model that only answers.

On a GPU: batches of fixed sizes, precisions, graphs. On a CPU: trunks as ONNX files in other engines than torch.
"""

from omnibind_core.encoders.inference.batches import BatchedEncoders
from omnibind_core.encoders.inference.compiled import compile_trunks
from omnibind_core.encoders.inference.engines import ENGINES, Engine
from omnibind_core.encoders.inference.precision import PRECISIONS, Precision, lower

__all__ = ["ENGINES", "PRECISIONS", "BatchedEncoders", "Engine", "Precision", "compile_trunks", "lower"]
