"""The modalities, by name: the seven built-in ones, and those that plug-ins add.

A plug-in is one more folder like those in here, named like its modality, with ``modality.py``, ``processing.py`` and
``corruption.py``; it may have ``drawing.py``, ``plausibility.py``, ``encoder.py`` (a trunk of its own) and
``messages.py`` (decoders of ROS messages), too.
Its code runs only if the user names the folder, by :func:`register`, in the environment variable
:data:`PLUGINS_VARIABLE` or under ``plugins`` in a training config, or has installed it as a package with an entry point
in the group :data:`ENTRY_POINTS`. A saved model never brings any.

Each modality is imported when it is first asked for.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from omnibind_core.errors import ConfigError
from omnibind_core.files import expanded
from omnibind_core.modalities.base import (
    Corruptions,
    Doubt,
    Events,
    Modality,
    PicturePreset,
    Preset,
    Reading,
    Role,
    Sound,
)

NAMES: tuple[str, ...] = ("image", "text", "touch", "thermal", "event", "point_cloud", "audio")
"""The built-in ones; :func:`names` has the plug-ins, too."""
PLUGINS_VARIABLE = "OMNIBIND_PLUGINS"
"""Environment variable with the folders of plug-ins, separated like those in ``PATH``."""
ENTRY_POINTS = "omnibind.modalities"
"""Group of entry points: the name is the modality's, the value the package that is like such a folder."""

__all__ = [
    "ENTRY_POINTS",
    "NAMES",
    "PLUGINS_VARIABLE",
    "Corruptions",
    "Doubt",
    "Events",
    "Modality",
    "PicturePreset",
    "Preset",
    "Reading",
    "Role",
    "Sound",
    "doubt",
    "file_doubt",
    "fingerprint",
    "get",
    "load",
    "names",
    "part_doubt",
    "plugin_module",
    "register",
    "sensors",
    "unknown",
]

_FILES = ("modality.py", "processing.py", "corruption.py")
_RANDOMISATION = "randomisation.py"
# Files that no feature of a sample itself depends on.
_NO_FEATURES = ("drawing.py", "messages.py", "plausibility.py", _RANDOMISATION)
_SHARED = ("pictures.py", "pillow_pictures.py", "tables.py")  # beside the folders of the built-in ones, which need them
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REQUIRED = ("name", "role", "suffixes", "presets")


class _Plugin(NamedTuple):
    package: str  # import name
    origin: str  # what the user knows it by


_plugins: dict[str, _Plugin] = {}


def names() -> tuple[str, ...]:
    """All modalities that are known here: the built-in ones, then the plug-ins in the order of their registration.

    Raises:
        ConfigError: A plug-in that the environment names cannot be used.
    """
    _discover()
    return (*NAMES, *_plugins)


def sensors() -> tuple[str, ...]:
    """Those of :func:`names` that sensors deliver: all but text."""
    return tuple(name for name in names() if get(name).is_sensor)


@functools.cache
def get(name: str) -> Modality[Any, Any]:
    """The modality of that name.

    Raises:
        ConfigError: There is none of that name, or its plug-in cannot be used.
    """
    if name in NAMES:
        built_in: Modality[Any, Any] = importlib.import_module(f"{__name__}.{name}.modality").MODALITY
        return built_in
    if name not in _plugins and name not in names():
        raise ConfigError(unknown(name))
    plugin = _plugins[name]
    modality = getattr(_import(plugin, "modality"), "MODALITY", None)
    if not isinstance(modality, Modality):
        found = "no MODALITY" if modality is None else f"a MODALITY of type {type(modality).__name__}"
        raise ConfigError(f"plug-in {plugin.origin}: modality.py has {found}, expected an instance of a Modality")
    lacks = [attribute for attribute in _REQUIRED if not getattr(modality, attribute, None)]
    if lacks:
        raise ConfigError(f"plug-in {plugin.origin}: MODALITY lacks {', '.join(lacks)}")
    if modality.name != name:
        raise ConfigError(f"plug-in {plugin.origin}: MODALITY.name is '{modality.name}', expected '{name}'")
    return modality


def unknown(name: str) -> str:
    """What to tell someone who uses a modality that is not known."""
    return (
        f"unknown modality '{name}'; known are {', '.join(names())}. That of a plug-in is known with "
        f"{PLUGINS_VARIABLE}=FOLDER in the environment, plugins: [FOLDER] in a training config, or after "
        "omnibind_core.modalities.register(FOLDER)"
    )


def register(folder: Path | str) -> Modality[Any, Any]:
    """Adds the modality of a plug-in folder to this process; its code runs. Doing it twice changes nothing.

    Args:
        folder: Named like the modality, with the files ``modality.py``, ``processing.py`` and ``corruption.py``, which
            import each other relatively (``from . import processing``).

    Raises:
        ConfigError: A file is missing or cannot be imported, the folder's name is none for a modality or is taken, or
            ``modality.py`` has no ``MODALITY`` of that name.
    """
    path = Path(folder).expanduser().resolve()
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise ConfigError(
            f"plug-in {path}: {', '.join(missing)} is missing, expected a folder with {', '.join(_FILES)}"
        )
    plugin = _Plugin(f"omnibind_plugin_{path.name}", str(path))
    if _plugins.get(path.name) == plugin:
        return get(path.name)
    _add(path.name, plugin)
    module = ModuleType(plugin.package, f"The plug-in {path}.")
    module.__path__ = [str(path)]
    sys.modules[plugin.package] = module
    try:
        return get(path.name)
    except ConfigError:
        del _plugins[path.name]
        for key in [key for key in sys.modules if key.partition(".")[0] == plugin.package]:
            del sys.modules[key]
        raise


def plugin_module(name: str, part: str) -> ModuleType | None:
    """An optional file of a plug-in, imported: ``encoder``, ``messages`` or ``randomisation``.

    Args:
        name: Modality.
        part: File name without ``.py``.

    Returns:
        None if the modality is built in, or its plug-in has no such file.

    Raises:
        ConfigError: The modality is not known, or the file cannot be imported.
    """
    get(name)
    plugin = _plugins.get(name)
    if plugin is None or importlib.util.find_spec(f"{plugin.package}.{part}") is None:
        return None
    return _import(plugin, part)


def randomisation(name: str) -> Callable[[Any, np.random.Generator], Any] | None:
    """The domain randomisation of a modality: ``randomise`` of its file ``randomisation.py``; None if it has no such.

    It turns a checked raw item into what another sensor of the kind would have made of the same thing. Same generator
    state, same result.

    Raises:
        ConfigError: The modality is not known, or the file cannot be imported.
    """
    module = plugin_module(name, "randomisation")
    if name in NAMES and importlib.util.find_spec(f"{__name__}.{name}.randomisation") is not None:
        module = importlib.import_module(f"{__name__}.{name}.randomisation")
    found: Callable[[Any, np.random.Generator], Any] | None = getattr(module, "randomise", None)
    return found


def load(name: str, given: Any, *, source: str = "", **units: Any) -> Reading:
    """One item of a modality, checked, with what speaks against it: of a file or of what a program has at hand.

    What can mean one thing only is converted, and everything else refused: docs/python.md lists both.

    Args:
        name: Modality.
        given: A file, as ``str`` or ``Path``; of text, a ``str`` is the text itself. Or an array, a torch tensor, a PIL
            picture, the raw form of the modality, or what its :meth:`Modality.convert` says.
        source: What the item is called in messages and results; by default the file, the text or the modality.
        units: What the numbers mean: some of the modality's :attr:`Modality.units`.

    Raises:
        ConfigError: The modality is not known, or has no such unit.
        InvalidInputError: The item cannot be used: names the source, what was found, and what was expected.
        MissingDependencyError: The file needs a package that is not installed.
    """
    modality = get(name)
    wrong = sorted(units.keys() - modality.units.keys())
    if wrong:
        raise ConfigError(f"{name} has no unit '{wrong[0]}'; it has {', '.join(modality.units) or 'none'}")
    units = {unit: value for unit, value in units.items() if value is not None}
    if isinstance(given, os.PathLike) or (isinstance(given, str) and modality.is_sensor):
        path = expanded(given)
        raw = modality.convert(modality.read(path), str(path), **units)
        return Reading(name, raw, source or str(given), file_doubt(name, path) or doubt(name, raw))
    raw = modality.convert(given, source or name, **units)
    return Reading(name, raw, source or (given if isinstance(given, str) else name), doubt(name, raw))


def doubt(name: str, raw: Any) -> Doubt | None:
    """What speaks against a checked item of a modality: ``doubt`` of its file ``plausibility.py``.

    Values in no unit of the kind, a constant picture, silence, sound in another sample format, a whole room where a
    thing is expected: what can be read, but says nothing of what is there. A fraction of what processing costs.

    Args:
        name: Modality.
        raw: A checked item; of a stream the window.

    Returns:
        None if nothing does, or the modality has no such file.

    Raises:
        ConfigError: The modality is not known.
    """
    found: Callable[[Any], Doubt | None] | None = getattr(_plausibility(get(name)), "doubt", None)
    return None if found is None else found(raw)


def part_doubt(name: str, raw: Any) -> Doubt | None:
    """What speaks against a part of an item, cut out because there is a thing: ``part_doubt`` of ``plausibility.py``.

    That of the modality's :func:`doubt` if it has none of its own. What speaks against a whole item only, such as a
    room where a thing is expected, does not count.

    Args:
        name: Modality.
        raw: The part, checked.

    Raises:
        ConfigError: The modality is not known.
    """
    found: Callable[[Any], Doubt | None] | None = getattr(_plausibility(get(name)), "part_doubt", None)
    return doubt(name, raw) if found is None else found(raw)


def file_doubt(name: str, path: Path) -> Doubt | None:
    """What a file tells against itself that its item does not: ``file_doubt`` of ``plausibility.py``, if it is there.

    Args:
        name: Modality.
        path: A file that the modality has read.

    Raises:
        ConfigError: The modality is not known.
    """
    of_file: Callable[[Path], Doubt | None] | None
    of_file = getattr(_plausibility(get(name)), "file_doubt", None)
    return None if of_file is None else of_file(path)


@functools.cache
def _plausibility(modality: Modality[Any, Any]) -> ModuleType | None:
    """The file beside the module of a modality; None if there is none."""
    part = f"{type(modality).__module__.rpartition('.')[0]}.plausibility"
    return None if part[0] == "." or importlib.util.find_spec(part) is None else importlib.import_module(part)


def fingerprint(name: str, randomised: bool = False) -> str:
    """Hash of the code that makes a modality's features, so that those of older code are not taken for its own.

    Args:
        name: Modality.
        randomised: Of samples that its domain randomisation changed first.
    """
    modality = get(name)
    package = sys.modules[type(modality).__module__.rpartition(".")[0]]
    files = [file for folder in package.__path__ for file in sorted(Path(folder).glob("*.py"))]
    files = [file for file in files if file.name not in _NO_FEATURES or (randomised and file.name == _RANDOMISATION)]
    if name not in _plugins:
        own = Path(__file__).parent
        files += [own / name for name in _SHARED] + ([own / "randomising.py"] if randomised else [])
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _discover() -> None:
    """Adds the plug-ins of installed packages and of the environment, once. A package is imported when it is used."""
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        _add(entry.name, _Plugin(entry.value, f"package {entry.dist.name if entry.dist else entry.value}"))
    for folder in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep):
        if folder:
            register(folder)


def _add(name: str, plugin: _Plugin) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"plug-in {plugin.origin}: '{name}' names no modality, expected small letters, digits and _")
    if name in NAMES:
        raise ConfigError(f"plug-in {plugin.origin}: the modality '{name}' is built in, expected another name")
    if _plugins.setdefault(name, plugin) != plugin:
        other = _plugins[name].origin
        raise ConfigError(f"plug-in {plugin.origin}: the modality '{name}' is already that of the plug-in {other}")


def _import(plugin: _Plugin, part: str) -> ModuleType:
    try:
        return importlib.import_module(f"{plugin.package}.{part}")
    except Exception as error:
        found = f"{part}.py cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(f"plug-in {plugin.origin}: {found}") from error
