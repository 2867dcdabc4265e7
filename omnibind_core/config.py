"""Reading configuration: pydantic models whose errors name the key, the value and what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from omnibind_core import resources
from omnibind_core.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration model: immutable; unknown keys are errors, as are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


MOST_VALUES = 100_000
"""In a YAML file, with all that aliases stand for."""
MOST_LEVELS = 100
"""In a YAML file, one in the other, with those that aliases stand for."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is quicker, where it is there
_FORM_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def parse(
    model: type[ConfigT],
    data: Mapping[str, Any],
    where: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> ConfigT:
    """Validates settings.

    Args:
        model: The pydantic model.
        data: The settings. With ``presets``, the key ``preset`` names defaults that the other keys overrule; the first
            preset is the default.
        where: What the keys belong to, for the error message, for example ``"fusion"``.
        presets: Named defaults.

    Raises:
        ConfigError: A key is unknown or a value impossible.
    """
    values = dict(data)
    if presets is not None:
        name = values.pop("preset", next(iter(presets)))
        if not isinstance(name, str) or name not in presets:
            raise ConfigError(f"{where}.preset is {name!r}, expected one of {', '.join(presets)}")
        values = {**presets[name], **values}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join((where, *(str(part) for part in problem["loc"])))
            # What is wrong with the settings as a whole says what it is about; showing all of them would hide it.
            message = problem["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {message}" + (f" (got {problem['input']!r})" if problem["loc"] else ""))
        raise ConfigError("; ".join(problems)) from error


def from_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def from_yaml(text: str | bytes, most: int = MOST_VALUES) -> Any:
    """What a YAML text holds, of a bounded number of values.

    An alias counts as all that it stands for: a few hundred bytes can stand for more than any memory holds, which shows
    only when somebody goes through it.

    Args:
        text: The text.
        most: Values that it may hold.

    Raises:
        ValueError: It is no YAML, a value in it is impossible, it holds more, nests too deeply or holds itself.
    """
    documents = _documents(text, _LOADER, most)
    if len(documents) > 1:
        raise ValueError(f"{len(documents)} documents, expected one")
    return documents[0] if documents else None


def forms_of_yaml(text: str | bytes) -> list[Any]:
    """The documents in a YAML text as mappings and lists, whatever their tags; all else is text, ``""`` for nothing.

    For what another program reads, which knows other tags and values. Bounds and errors are those of :func:`from_yaml`.
    """
    return _documents(text, _FORM_LOADER, MOST_VALUES)


def _documents(text: str | bytes, kind: Any, most: int) -> list[Any]:
    try:
        _check_form(text, kind, most)
        loader = kind(text)
        try:
            documents = []
            while loader.check_node():
                node = loader.get_node()
                values, levels = _size(node, {})
                if levels > MOST_LEVELS + 1:
                    raise ValueError(f"it is nested more than {MOST_LEVELS} levels with all that aliases stand for")
                if values > most:
                    raise ValueError(f"{values:.3g} values with all that aliases stand for, expected at most {most}")
                documents.append(loader.construct_document(node))
            return documents
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("a value that holds itself, expected values that end") from None
    except Exception as error:  # a date of the 99th, !!int without digits: its constructors raise almost anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _check_form(text: str | bytes, kind: Any, most: int) -> None:
    depth = values = 0
    for event in yaml.parse(text, kind):  # libyaml's loader ends the process where it is too deep
        values += isinstance(event, yaml.NodeEvent)
        if values > most:
            raise ValueError(f"it has more than {most} values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_LEVELS:
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels")


def _size(node: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node of YAML stands for, and in how many levels."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = (one for part in parts for one in (part if isinstance(part, tuple) else (part,)))
        sizes = [_size(one, known) for one in pairs]
        known[id(node)] = 1 + sum(size for size, _ in sizes), 1 + max((levels for _, levels in sizes), default=0)
    return known[id(node)]


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML or JSON file that holds a mapping.

    Raises:
        ConfigError: The file is missing, not YAML or JSON, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = from_json(text) if path.suffix == ".json" else from_yaml(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as configuration: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}, expected a mapping of keys to values")
    return data


def load_named(model: type[ConfigT], shelf: str, name: str, overrides: Sequence[str] = ()) -> ConfigT:
    """Reads one of the YAML files in ``configs/``, or one of the user's.

    Args:
        model: The pydantic model.
        shelf: Folder in ``configs/``.
        name: A file, or the name of one on the shelf.
        overrides: ``key=value`` with dots between levels; values are YAML.

    Raises:
        ConfigError: The file is missing, or a key or value is wrong; names the key.
    """
    data = read_mapping(_find(shelf, name))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected key=value")
        try:
            _put(data, key.strip().split("."), from_yaml(value))
        except ValueError as error:
            raise ConfigError(f"--set {text}: the value is not YAML") from error
    return parse(model, data, shelf)


def _put(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: '{key}' holds a value, not keys")
        data = inner
    data[keys[-1]] = value


def _find(shelf: str, name: str) -> Path:
    for path in (Path(name), resources.path(f"configs/{shelf}/{name}.yaml")):
        if path.is_file():
            return path
    known = resources.names(f"configs/{shelf}", ".yaml")
    raise ConfigError(f"no {shelf} config '{name}': expected a YAML file, or one of {', '.join(known)}")
