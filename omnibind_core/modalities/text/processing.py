"""Words to encoder input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnibind_core.modalities.base import Preset

PRESETS = {"sentence": Preset("sentence", shape=(), dtype="str")}


def clean(text: str) -> str:
    """One line with single spaces; underscores, as in class names, become spaces."""
    return " ".join(text.replace("_", " ").split())


def process(raw: str, preset: Preset) -> NDArray[np.str_]:
    """A text to ``str [1]``; tokenising belongs to the text tower, whose vocabulary it needs."""
    return np.array([clean(raw)])
