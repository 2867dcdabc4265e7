"""Models that answer: in torch, which can also be trained and saved, or from exported parts, without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnibind_core.model.omnibind import (
        EXPORTED,
        WEIGHTS,
        OmniBind,
        Recognition,
        available,
        model_folder,
        saved_config,
    )

__all__ = ["EXPORTED", "WEIGHTS", "OmniBind", "Recognition", "available", "model_folder", "saved_config"]
_HOMES = {"omnibind": ("EXPORTED", "WEIGHTS", "OmniBind", "Recognition", "available", "model_folder", "saved_config")}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
