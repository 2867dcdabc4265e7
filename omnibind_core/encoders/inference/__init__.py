"""Encoders as a device runs them fastest, for a model that only answers: batches of fixed sizes, precisions, graphs."""

from omnibind_core.encoders.inference.batches import BatchedEncoders
from omnibind_core.encoders.inference.precision import PRECISIONS, Precision, lower

__all__ = ["PRECISIONS", "BatchedEncoders", "Precision", "lower"]
