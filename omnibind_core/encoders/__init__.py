"""Encoders: trunks shared by modalities, one head per modality, and the model configs that name them.

Torch is imported with what needs it: exported encoders (:mod:`~omnibind_core.encoders.inference.engines`) do not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnibind_core.encoders.base import EncoderSet, TextTower, Trunk
    from omnibind_core.encoders.config import ModelConfig, list_configs, load_config
    from omnibind_core.encoders.factory import build, load_own_state, own_state

__all__ = [
    "EncoderSet",
    "ModelConfig",
    "TextTower",
    "Trunk",
    "build",
    "list_configs",
    "load_config",
    "load_own_state",
    "own_state",
]
_HOMES = {
    "base": ("EncoderSet", "TextTower", "Trunk"),
    "config": ("ModelConfig", "list_configs", "load_config"),
    "factory": ("build", "load_own_state", "own_state"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
