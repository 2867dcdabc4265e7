"""How glibc's malloc treats large blocks.

What a trunk makes of seven pictures is larger than the 32 MB from which on malloc maps every block anew and gives it
back at once, so that each tick touches thousands of fresh pages: a tenth of its time.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt; other C libraries have none
_LARGE = 1 << 28  # bytes, of what is mapped, and of what is free at the end of the heap and given back
_GROWTH = 96 << 20  # bytes: more than the blocks of ticks come and go by
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


def give_back() -> None:
    """Returns to the system what malloc holds and nobody uses. C libraries other than glibc do so by themselves."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Resident:
    """Gives memory back after a peak, such as one picture that is far larger than all others.

    The blocks of ticks are kept, as :func:`keep_large_blocks` wants it: only where a process has grown by much since
    it last gave back, it does so again.
    """

    def __init__(self) -> None:
        self._settled: int | None = None

    def look(self) -> None:
        """Looks how much memory there is, and gives back what is too much; call it now and then."""
        size = resident()
        if self._settled is None:
            self._settled = size
        elif size > self._settled + _GROWTH:
            give_back()
            self._settled = resident()


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
