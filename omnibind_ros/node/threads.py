"""Imported before anything that starts threads: they share one malloc arena, and sleep while they wait.

glibc gives threads arenas of their own, which grow in steps of 64 MB. A few objects that live on between the tensors of
a tick keep such a step occupied: after a while of sensors coming and going a node grew by one. NumPy's threads take
such arenas while it is imported, hence this is done by an import and not by a call.

OpenMP's threads, which torch computes with, spin while they wait for each other, unless they are told otherwise before
torch is imported. Where another process wants the processor, the one that is waited for then does not get it.
"""

from __future__ import annotations

import ctypes
import os

from omnibind_core.allocation import keep_large_blocks

_M_ARENA_MAX = -8  # of glibc's mallopt; other C libraries have none

_set_option = getattr(ctypes.CDLL(None), "mallopt", None)
if _set_option is not None:
    _set_option(_M_ARENA_MAX, 1)
keep_large_blocks()

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
