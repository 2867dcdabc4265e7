"""OmniBind: one embedding from whatever modalities are present, and the tools to train it.

Importing this package is cheap: no model and no optional dependency is loaded until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LabelBank", "OmniBind", "__version__", "load"]

if TYPE_CHECKING:
    from omnibind_core.labels import LabelBank
    from omnibind_core.modalities import load
    from omnibind_core.model import OmniBind


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; sensor players and message tools must not pay for it.
    if name == "OmniBind":
        from omnibind_core.model import OmniBind

        return OmniBind
    if name == "LabelBank":
        from omnibind_core.labels import LabelBank

        return LabelBank
    if name == "load":
        from omnibind_core.modalities import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
