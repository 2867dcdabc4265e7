"""The seven modalities, by name. Each is imported when it is first asked for."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from omnibind_core.errors import ConfigError
from omnibind_core.modalities.base import Events, Modality, PicturePreset, Preset, Role, Sound

NAMES: tuple[str, ...] = ("image", "text", "touch", "thermal", "event", "point_cloud", "audio")

__all__ = ["NAMES", "Events", "Modality", "PicturePreset", "Preset", "Role", "Sound", "get"]


@functools.cache
def get(name: str) -> Modality[Any, Any]:
    """The modality of that name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown modality '{name}'; known are {', '.join(NAMES)}")
    module = importlib.import_module(f"omnibind_core.modalities.{name}.modality")
    modality: Modality[Any, Any] = module.MODALITY
    return modality
