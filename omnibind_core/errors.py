"""Every error that OmniBind raises on purpose. Catch :class:`OmniBindError` to catch them all."""

from __future__ import annotations


class OmniBindError(Exception):
    """Base class of all errors raised on purpose."""


class InvalidInputError(OmniBindError, ValueError):
    """A sensor item or file cannot be used.

    Attributes:
        source: What it came from: a sensor name, a topic or a file path.
        value: What was found, in words.
        expected: What would have been accepted, in words.
    """

    def __init__(self, source: str, value: str, expected: str) -> None:
        super().__init__(f"[{source}] got {value}, expected {expected}")
        self.source = source
        self.value = value
        self.expected = expected

    def __reduce__(self) -> tuple[type[InvalidInputError], tuple[str, str, str]]:
        return type(self), (self.source, self.value, self.expected)


class ConfigError(OmniBindError, ValueError):
    """A configuration key is unknown, or its value has the wrong type or is impossible. Names the key."""


class WeightsError(OmniBindError, ValueError):
    """A weights file is missing, corrupt, of another family, or has tensors of the wrong shape."""


class DataError(OmniBindError, ValueError):
    """A data set is missing, laid out wrongly, or contradicts itself. Names the file and what was expected."""


class PartlyReadError(DataError):
    """Something in a recording is damaged. It is raised after everything else was given, and says what was lost."""


class MissingDependencyError(OmniBindError, ImportError):
    """An optional package is needed for what was asked, and is not installed."""

    def __init__(self, package: str, needed_for: str, install: str) -> None:
        super().__init__(f"{needed_for} needs the package '{package}': {install}")
        self.package = package
        self.needed_for = needed_for
        self.install = install

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, str]]:
        return type(self), (self.package, self.needed_for, self.install)
