"""Which ROS message types each modality takes, and what decodes them.

A decoder is registered where it stands, by :func:`decodes`, in any module of this package. Decoders of others are in
the ``messages.py`` of a plug-in modality, and in modules that :data:`MODULES_VARIABLE` names in the environment or that
installed packages offer as entry points in the group :data:`ENTRY_POINTS`; they may be for built-in modalities, too.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from omnibind_core import modalities
from omnibind_core.errors import ConfigError
from omnibind_ros.messages.fields import DecodeOptions

MODULES_VARIABLE = "OMNIBIND_MESSAGES"
"""Environment variable with the names of modules that register decoders, separated like the folders in ``PATH``."""
ENTRY_POINTS = "omnibind.messages"
"""Group of entry points: the value is such a module, the name is free."""

Function = Callable[[Any, str, DecodeOptions, str], Any]
"""``(message, modality, options, source) -> raw item``; see :func:`decodes`."""
_Registered = TypeVar("_Registered", bound=Function | Callable[[], Function])

_ANY = ""  # in place of a modality: all of them
_decoders: dict[str, dict[str, Any]] = {}  # by modality, by ROS type, preferred types first


def decodes(ros_type: str, *names: str) -> Callable[[_Registered], _Registered]:
    """Registers a decoder of a message type. What is registered first is preferred; of several on one, the lowest.

    The decoder is called with the message, of rclpy or of a bag, of which it reads attributes only; the modality; a
    :class:`~omnibind_ros.messages.DecodeOptions`; and the sensor's name. It returns the raw item, which the modality's
    ``check`` has still to accept, or :class:`~omnibind_core.runtime.types.Doubted`, which holds it and what the message
    alone tells against it, or raises :class:`~omnibind_core.errors.InvalidInputError`. A class is made once per
    sensor: its instance, which is called in the same way, remembers what later messages build on, and may have
    ``losses``: how much was lost so far, by name.

    Args:
        ros_type: For example ``"sensor_msgs/msg/Image"``.
        *names: Modalities that take the type from this decoder; without any all do, after all other types.

    Returns:
        A decorator that leaves the function or class as it is. It raises :class:`~omnibind_core.errors.ConfigError`
        if another decoder of that type is registered for one of the modalities.
    """

    def register(decoder: _Registered) -> _Registered:
        for name in names or (_ANY,):
            other = _find(name, ros_type)
            if other is not None and _named(other) != _named(decoder):  # a module may be executed again
                raise ConfigError(
                    f"{ros_type} has two decoders for {name or 'all modalities'}: {_named(other)} and {_named(decoder)}"
                )
            _decoders.setdefault(name, {})[ros_type] = decoder
        return decoder

    return register


def types_for(modality: str) -> tuple[str, ...]:
    """ROS message types accepted for a modality, preferred ones first.

    Raises:
        ConfigError: There is no such modality, or a module with decoders cannot be imported.
    """
    _load()
    if modality not in modalities.names():
        raise ConfigError(modalities.unknown(modality))
    return (*_decoders.get(modality, {}), *_decoders.get(_ANY, {}))


def make(modality: str, ros_type: str) -> Function:
    """The decoder of one sensor's messages of a type that is one of :func:`types_for` the modality."""
    decoder: Any = _find(modality, ros_type)
    function: Function = decoder() if isinstance(decoder, type) else decoder
    return function


def _find(modality: str, ros_type: str) -> Any:
    return next((_decoders[name][ros_type] for name in (modality, _ANY) if ros_type in _decoders.get(name, {})), None)


def _named(decoder: Any) -> str:
    return f"{decoder.__module__}.{decoder.__qualname__}"


def _load() -> None:
    """Imports the decoders of others that are not yet."""
    _load_modules()
    for name in modalities.names()[len(modalities.NAMES) :]:
        modalities.plugin_module(name, "messages")


@functools.cache
def _load_modules() -> None:
    package = importlib.import_module(__package__ or "omnibind_ros.messages")
    for own in pkgutil.iter_modules(package.__path__):  # those that the package itself imports were first
        importlib.import_module(f"{package.__name__}.{own.name}")
    named = [(module, MODULES_VARIABLE) for module in os.environ.get(MODULES_VARIABLE, "").split(os.pathsep) if module]
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        named.append((entry.module, f"package {entry.dist.name if entry.dist else entry.name}"))
    for module, origin in named:
        try:
            importlib.import_module(module)
        except Exception as error:
            found = f"module {module} cannot be imported: {type(error).__name__}: {error}"
            raise ConfigError(f"{origin}: {found}") from error
