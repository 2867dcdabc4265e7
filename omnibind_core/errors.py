"""Every error that OmniBind raises on purpose. Catch :class:`OmniBindError` to catch them all."""

from __future__ import annotations

_MOST_CHARACTERS = 300  # of what was found: it may be a field of a message, as long as the sender likes


class OmniBindError(Exception):
    """Base class of all errors raised on purpose."""


class InvalidInputError(OmniBindError, ValueError):
    """A sensor item or file cannot be used.

    Its text is one line that terminals can show, whatever was found: control characters and marks that change the
    direction of writing are escaped, what is long is cut.

    Attributes:
        source: What it came from: a sensor name, a topic or a file path.
        value: What was found, in words.
        expected: What would have been accepted, in words.
    """

    def __init__(self, source: str, value: str, expected: str) -> None:
        found = value if len(value) <= _MOST_CHARACTERS else f"{value[:_MOST_CHARACTERS]}... ({len(value)} characters)"
        super().__init__(_shown(f"[{source}] got {found}, expected {expected}"))
        self.source = source
        self.value = value
        self.expected = expected

    def __reduce__(self) -> tuple[type[InvalidInputError], tuple[str, str, str]]:
        return type(self), (self.source, self.value, self.expected)


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
