"""Imported before anything that starts threads: all threads of the process share one malloc arena.

glibc gives threads arenas of their own, which grow in steps of 64 MB. A few objects that live on between the tensors of
a tick keep such a step occupied: after a while of sensors coming and going a node grew by one. NumPy's threads take
such arenas while it is imported, hence this is done by an import and not by a call.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # of glibc's mallopt; other C libraries have none

_set_option = getattr(ctypes.CDLL(None), "mallopt", None)
if _set_option is not None:
    _set_option(_M_ARENA_MAX, 1)
