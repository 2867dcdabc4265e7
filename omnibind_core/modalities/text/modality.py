"""The text modality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from omnibind_core.errors import InvalidInputError
from omnibind_core.modalities.base import Corruptions, Modality, Preset, Role, readable_file
from omnibind_core.modalities.drawing import Picture, caption
from omnibind_core.modalities.text import corruption, processing

MOST_CHARACTERS = 2000
"""Longest text: text towers read some hundred words and cut the rest off unseen."""


class Text(Modality[str, Preset]):
    """A word, a phrase or a sentence. Raw form: ``str``."""

    name: ClassVar[str] = "text"
    role: ClassVar[Role] = Role.TEACHER
    is_sensor: ClassVar[bool] = False
    topic_ending: ClassVar[str] = "text"
    # Words come one by one: the first after a silence counts, and what was said holds for a few seconds.
    sensor_defaults: ClassVar[Mapping[str, Any]] = {"timeout": 5.0, "readmit_after": 1}
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)
    presets: ClassVar[dict[str, Preset]] = processing.PRESETS
    corruptions: ClassVar[Corruptions[str]] = corruption.CORRUPTIONS

    def check(self, raw: str, source: str) -> str:
        """Accepts one to :data:`MOST_CHARACTERS` characters that can be read; cleans white space and underscores."""
        if not isinstance(raw, str):
            raise InvalidInputError(source, type(raw).__name__, "a text (str)")
        if len(raw) > MOST_CHARACTERS:
            raise InvalidInputError(source, f"a text of {len(raw)} characters", f"at most {MOST_CHARACTERS}")
        try:
            raw.encode("utf-8")
        except UnicodeEncodeError as error:  # bytes of a command line that are no text
            raise InvalidInputError(source, f"a text that is no Unicode ({error.reason})", "UTF-8 text") from error
        cleaned = processing.clean(raw)
        if not cleaned:
            raise InvalidInputError(source, "an empty text", "at least one word")
        return cleaned

    def load(self, path: Path) -> str:
        """Reads a UTF-8 text file."""
        readable_file(path, self.suffixes, "a text file")
        try:
            return self.check(path.read_text(encoding="utf-8-sig"), str(path))
        except UnicodeDecodeError as error:
            raise InvalidInputError(str(path), f"bytes that are no text ({error.reason})", "UTF-8 text") from error

    def process(self, raw: str, preset: Preset) -> NDArray[np.str_]:
        """Text to ``str [1]``."""
        return processing.process(raw, preset)

    def augment(self, raw: str, rng: np.random.Generator) -> str:
        """Another frame around the words."""
        return corruption.augment(raw, rng)

    def draw(self, raw: str, height: int = 240) -> Picture:
        """The text, written."""
        return caption(raw, (height, height))


MODALITY = Text()
