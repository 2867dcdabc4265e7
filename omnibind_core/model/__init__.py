"""Models that answer: in torch, which can also be trained and saved, or from exported parts, without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnibind_core.model.answering import AnsweringModel, Recognition
    from omnibind_core.model.exported import ExportedModel
    from omnibind_core.model.folders import WEIGHTS, available, model_folder, saved_modalities
    from omnibind_core.model.omnibind import OmniBind

__all__ = [
    "WEIGHTS",
    "AnsweringModel",
    "ExportedModel",
    "OmniBind",
    "Recognition",
    "available",
    "model_folder",
    "saved_modalities",
]
_HOMES = {
    "answering": ("AnsweringModel", "Recognition"),
    "exported": ("ExportedModel",),
    "folders": ("WEIGHTS", "available", "model_folder", "saved_modalities"),
    "omnibind": ("OmniBind",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
