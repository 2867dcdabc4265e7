"""The families of encoders, by the name that a model config gives as its ``family``."""

from __future__ import annotations

from omnibind_core.encoders.family import Family
from omnibind_core.encoders.imagebind import config as imagebind
from omnibind_core.encoders.lite import config as lite
from omnibind_core.encoders.open_clip import config as open_clip

_NON_COMMERCIAL = "CC-BY-NC 4.0: for non-commercial use only"

FAMILIES: dict[str, Family] = {
    "lite": Family(lite.SCHEMAS),
    "imagebind": Family(imagebind.SCHEMAS, f"ImageBind's weights are {_NON_COMMERCIAL}"),
    "point_bind": Family(
        imagebind.POINT_SCHEMAS, f"Point-Bind's and UniBind's files hold ImageBind's weights, {_NON_COMMERCIAL}"
    ),
    "open_clip": Family(
        open_clip.SCHEMAS, "OpenCLIP's code is under the MIT licence; each checkpoint has a licence of its own"
    ),
}
