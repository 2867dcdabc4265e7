"""One module per data set; each turns its layout on disk into :class:`omnibind_core.data.samples.Sample`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnibind_core.data.sources.base import Inspection, Source
from omnibind_core.errors import ConfigError

NAMES: tuple[str, ...] = (
    "folder",
    "imagenet",
    "caltech101",
    "shapenet_part",
    "esc50",
    "urbansound8k",
    "llvip",
    "n_imagenet",
    "n_caltech101",
    "touch_and_go",
)

__all__ = ["NAMES", "Inspection", "Source", "create", "get", "options"]


def get(name: str) -> type[Source]:
    """The source of that name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown source '{name}'; known are {', '.join(NAMES)}")
    kind: type[Source] = importlib.import_module(f"omnibind_core.data.sources.{name}").SOURCE
    return kind


def options(name: str) -> dict[str, Any]:
    """The options of a source with their defaults."""
    signatures = [
        inspect.signature(vars(kind)["__init__"]) for kind in get(name).__mro__[:-2] if "__init__" in vars(kind)
    ]
    return {
        item.name: item.default
        for signature in signatures
        for item in signature.parameters.values()
        if item.kind is inspect.Parameter.KEYWORD_ONLY
    }


def create(name: str, root: Path, values: Mapping[str, Any] | None = None) -> Source:
    """Opens a data set.

    Args:
        name: One of :data:`NAMES`.
        root: Its folder.
        values: Options, as written in a configuration.

    Raises:
        ConfigError: Unknown name or option, or an option of the wrong type or value.
        DataError: The folder is missing or laid out otherwise.
    """
    known = options(name)
    for key, value in (values or {}).items():
        if key not in known:
            raise ConfigError(f"source '{name}' has no option '{key}'; it has {', '.join(known) or 'none'}")
        if not _fits(value, known[key]):
            kind = "list" if isinstance(known[key], tuple) else type(known[key]).__name__
            raise ConfigError(f"source '{name}': option '{key}' is {value!r}, expected a {kind} such as {known[key]!r}")
    return get(name)(root, **(values or {}))


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, tuple):
        kind = default[0] if default else ""  # numbers, or ids
        return isinstance(value, (list, tuple)) and all(_fits(item, kind) for item in value)
    return isinstance(value, type(default))
