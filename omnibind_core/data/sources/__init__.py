"""The sources, by name: one module per data set in here, and those that plug-ins add.

A plug-in is a Python file like those in here: a class derived from :class:`Source` under the decorator
:func:`register`. Its code runs only if the user names the file or module, by :func:`load_plugin` or in the environment
variable :data:`PLUGINS_VARIABLE`, or has installed it as a package with an entry point in the group
:data:`ENTRY_POINTS`. A data set that was built with one never brings it.

Each built-in source is imported when it is first asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnibind_core.data.sources.base import BUILT_IN, Inspection, Source, register, registered
from omnibind_core.errors import ConfigError

PLUGINS_VARIABLE = "OMNIBIND_SOURCES"
"""Environment variable with the files, folders of files or modules of plug-ins, separated like folders in ``PATH``."""
ENTRY_POINTS = "omnibind.sources"
"""Group of entry points: the name is the source's, the value the module that registers it."""

__all__ = [
    "BUILT_IN",
    "ENTRY_POINTS",
    "PLUGINS_VARIABLE",
    "Inspection",
    "Source",
    "create",
    "get",
    "load_plugin",
    "names",
    "options",
    "register",
    "unknown",
]

_entries: dict[str, importlib.metadata.EntryPoint] = {}


def names() -> tuple[str, ...]:
    """All sources that are known here: the built-in ones, then those of plug-ins.

    Raises:
        ConfigError: A plug-in that the environment names cannot be used.
    """
    _discover()
    return tuple(dict.fromkeys((*BUILT_IN, *_entries, *registered)))


def get(name: str) -> type[Source]:
    """The source of that name.

    Raises:
        ConfigError: There is none of that name, or its plug-in cannot be used.
    """
    if name in BUILT_IN:
        importlib.import_module(f"{__name__}.{name}")
    elif name not in names():
        raise ConfigError(unknown(name))
    elif name not in registered:
        load_plugin(_entries[name].module)
        if name not in registered:
            raise ConfigError(f"plug-in {_entries[name].module}: it registers no source '{name}'")
    return registered[name]


def unknown(name: str) -> str:
    """What to tell someone who uses a source that is not known."""
    return (
        f"unknown source '{name}'; known are {', '.join(names())}. That of a plug-in is known with "
        f"{PLUGINS_VARIABLE}=FILE in the environment, by an entry point in the group {ENTRY_POINTS}, or after "
        "omnibind_core.data.sources.load_plugin(FILE)"
    )


def load_plugin(place: Path | str) -> None:
    """Runs the code of a plug-in, which registers its sources. Doing it twice changes nothing.

    Args:
        place: A Python file, a folder of such files, or the import name of a module.

    Raises:
        ConfigError: There is no such file or module, its code fails, or it registers no source, or one whose name is
            taken.
    """
    path = Path(place).expanduser().resolve()
    if path.is_dir():
        files = sorted(path.glob("[!_]*.py"))
        if not files:
            raise ConfigError(f"plug-in {path}: the folder holds no Python files")
        for file in files:
            load_plugin(file)
        return
    is_file = path.suffix == ".py" or os.sep in str(place)
    if is_file and not path.is_file():
        raise ConfigError(f"plug-in {path}: no such file")
    module, origin = (f"omnibind_source_{path.stem}", path) if is_file else (str(place), place)
    loaded = sys.modules.get(module)
    if loaded is not None:
        if is_file and loaded.__file__ != str(path):
            raise ConfigError(f"plug-in {path}: a plug-in of that file name is loaded already, {loaded.__file__}")
        return
    before = dict(registered)
    try:
        if is_file:
            _run(module, path)
        else:
            importlib.import_module(module)
        if registered == before:
            raise ConfigError("it registers no source, expected a class derived from Source under @register")
    except Exception as error:
        registered.clear()
        registered.update(before)
        sys.modules.pop(module, None)
        found = error if isinstance(error, ConfigError) else f"cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(f"plug-in {origin}: {found}") from error


def options(name: str) -> dict[str, Any]:
    """The options of a source with their defaults."""
    signatures = [
        inspect.signature(vars(base)["__init__"]) for base in get(name).__mro__[:-2] if "__init__" in vars(base)
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
        name: One of :func:`names`.
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
            wanted = "list" if isinstance(known[key], tuple) else type(known[key]).__name__
            raise ConfigError(
                f"source '{name}': option '{key}' is {value!r}, expected a {wanted} such as {known[key]!r}"
            )
    return get(name)(root, **(values or {}))


@functools.cache
def _discover() -> None:
    """Finds the plug-ins of installed packages, and runs those that the environment names, once."""
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if entry.name in BUILT_IN:
            raise ConfigError(f"plug-in {entry.module}: the source '{entry.name}' is built in, expected another name")
        if _entries.setdefault(entry.name, entry).module != entry.module:
            other = _entries[entry.name].module
            raise ConfigError(f"plug-in {entry.module}: the source '{entry.name}' is already that of {other}")
    for place in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep):
        if place:
            load_plugin(place)


def _run(module: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None and spec.loader is not None
    sys.modules[module] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, tuple):
        item = default[0] if default else ""  # numbers, or ids
        return isinstance(value, (list, tuple)) and all(_fits(one, item) for one in value)
    return isinstance(value, type(default))
