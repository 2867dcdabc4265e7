"""How glibc's malloc treats large blocks.

What a trunk makes of seven pictures is larger than the 32 MB from which on malloc maps every block anew and gives it
back at once, so that each tick touches thousands of fresh pages: a tenth of its time.
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt; other C libraries have none
_LARGE = 1 << 28  # bytes, of what is mapped, and of what is free at the end of the heap and given back
_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_large_blocks() -> None:
    """Lets blocks of up to 256 MB be taken from the heap again, unless the environment has settings of its own."""
    if os.name != "posix":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None or any(name in os.environ for name in _OWN):
        return
    # Older ones refuse so much; setting the other alone would leave the first at its 128 kB for ever.
    if set_option(_M_MMAP_THRESHOLD, _LARGE):
        set_option(_M_TRIM_THRESHOLD, _LARGE)
