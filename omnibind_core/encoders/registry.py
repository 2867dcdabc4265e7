"""The registry of encoders: the families by the name that a model config gives as its ``family``, and their trunks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from omnibind_core.encoders.base import TextTower, Trunk
from omnibind_core.encoders.family import Family, FileTrunkConfig, TrunkConfig
from omnibind_core.encoders.imagebind.family import IMAGEBIND, POINT_BIND
from omnibind_core.encoders.lite.family import LITE
from omnibind_core.encoders.open_clip.family import OPEN_CLIP
from omnibind_core.encoders.plugin import PLUGIN

FAMILIES: dict[str, Family] = {
    "lite": LITE,
    "imagebind": IMAGEBIND,
    "point_bind": POINT_BIND,
    "open_clip": OPEN_CLIP,
}
_TYPES = {
    found.config: found for found in (*(found for family in FAMILIES.values() for found in family.trunks), PLUGIN)
}

SCHEMAS: tuple[type[TrunkConfig], ...] = tuple(_TYPES)
"""What ``trunks`` of a model config may hold."""


def make_trunk(config: TrunkConfig) -> Trunk | TextTower:
    """Makes a trunk, with packaged weights if it has them, at random otherwise.

    Raises:
        ConfigError: A plug-in's code does not make a trunk of these settings.
        MissingDependencyError: A package that is needed is not installed.
        WeightsError: A packaged file is not the known one.
    """
    return _TYPES[type(config)].make(config)


def trunk_state(config: FileTrunkConfig, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the trunk that :func:`make_trunk` makes.

    Args:
        config: Settings of the trunk.
        checkpoint: Tensors by their names in the file. Each is read from disk when it is used, not before.

    Raises:
        WeightsError: The file is of another family, or lacks this trunk; says what was found.
    """
    state = _TYPES[type(config)].state
    assert state is not None, f"{type(config).__name__} takes a weights file, but its family does not read it"
    return state(config, checkpoint)


def head_state(config: FileTrunkConfig, checkpoint: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    """The trained ``linear`` head of a modality, if the file has one: ``weight`` and ``bias``, else nothing."""
    state = _TYPES[type(config)].head_state
    return {} if state is None else state(checkpoint, modality)
