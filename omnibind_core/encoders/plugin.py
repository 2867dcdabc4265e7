"""The trunk that a plug-in brings with its modality."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from omnibind_core import modalities
from omnibind_core.encoders.base import Trunk
from omnibind_core.encoders.family import TrunkConfig, TrunkType
from omnibind_core.errors import ConfigError


class PluginConfig(TrunkConfig):
    """A trunk that a plug-in brings: what ``build(**settings)`` in its ``encoder.py`` returns.

    Attributes:
        modality: The plug-in's modality.
        settings: Keyword arguments.
    """

    type: Literal["plugin"]
    modality: str
    settings: dict[str, Any] = Field(default_factory=dict)


def _make(config: PluginConfig) -> Trunk:
    """Calls the plug-in's ``build``.

    Raises:
        ConfigError: The plug-in's ``encoder.py`` is missing, or does not make a trunk of these settings.
    """
    where = f"the trunk of the plug-in '{config.modality}'"
    build = getattr(modalities.plugin_module(config.modality, "encoder"), "build", None)
    if build is None:
        raise ConfigError(f"{where}: expected an encoder.py with a function build in its folder")
    try:
        trunk = build(**config.settings)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}; its settings are {config.settings}") from error
    if not isinstance(trunk, Trunk) or not isinstance(getattr(trunk, "feature_dim", None), int):
        raise ConfigError(f"{where}: build returned {type(trunk).__name__}, expected a Trunk with a feature_dim")
    return trunk


PLUGIN = TrunkType(PluginConfig, _make)
