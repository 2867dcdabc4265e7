"""All fusions by their ``fusion.type``: training, evaluation, the command line and the tables in docs/ read this list.

A fusion registers itself in any module of this package, one of a user's own in a module that is imported before the
model is built (CONTRIBUTING.md has the recipe).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from omnibind_core.config import Config, parse
from omnibind_core.errors import ConfigError
from omnibind_core.fusion.base import Fusion

DEFAULT = "attention"
"""``fusion.type`` of a config that names none."""

ConfigT = TypeVar("ConfigT", bound=Config)
Presets = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class FusionType:
    """A fusion as the registry knows it.

    Attributes:
        name: ``fusion.type`` in configs.
        title: In tables.
        config: Its settings.
        make: Builds it from the embedding width, its settings and the model's modalities.
        presets: Named defaults, the first of which is taken where none is named; None for none.
        learns: Whether it has weights, so that a comparison has to train it.
    """

    name: str
    title: str
    config: type[Config]
    make: Callable[[int, Any, Sequence[str]], Fusion]
    presets: Presets | None = None
    learns: bool = True


_types: dict[str, FusionType] = {}


def register(
    name: str, title: str, config: type[ConfigT], *, presets: Presets | None = None, learns: bool = True
) -> Callable[[Callable[[int, ConfigT, Sequence[str]], Fusion]], Callable[[int, ConfigT, Sequence[str]], Fusion]]:
    """Decorates what builds a fusion of a new type; see :class:`FusionType` for the arguments.

    Raises:
        ConfigError: There is a fusion of this name.
    """

    def decorate(
        make: Callable[[int, ConfigT, Sequence[str]], Fusion],
    ) -> Callable[[int, ConfigT, Sequence[str]], Fusion]:
        if name in _types:
            raise ConfigError(f"there is a fusion '{name}' already")
        _types[name] = FusionType(name, title, config, make, presets, learns)
        return make

    return decorate


def types() -> tuple[FusionType, ...]:
    """All fusions, AF first."""
    _load()
    return tuple(_types.values())


def baselines() -> tuple[FusionType, ...]:
    """What AF is compared with."""
    return tuple(found for found in types() if found.name != DEFAULT)


def build(dim: int, data: Mapping[str, Any], slots: Sequence[str] = ()) -> Fusion:
    """The fusion that a model config asks for.

    Args:
        dim: Embedding width.
        data: The ``fusion`` part of the config; without ``type``, AF.
        slots: The model's modalities, in the order that modality ids count them; some fusions have a part for each.

    Raises:
        ConfigError: No such type, or a key is unknown or a value impossible; names the key.
    """
    _load()
    name = data.get("type", DEFAULT)
    found = _types.get(name)
    if found is None:
        raise ConfigError(f"fusion.type is {name!r}, expected one of {', '.join(_types)}")
    return found.make(dim, parse(found.config, data, "fusion", found.presets), slots)


def changed(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The ``fusion`` part of a config with some keys changed; another ``type`` starts anew, as its keys are others."""
    old = data.get("type", DEFAULT)
    return {**(data if changes.get("type", old) == old else {}), **changes}


@functools.cache
def _load() -> None:
    """Imports the modules of this package, so that their fusions are known; those that it imports itself were first."""
    package = importlib.import_module(__package__ or "omnibind_core.fusion")
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")
