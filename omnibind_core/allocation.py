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
_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_MOST_PATIENCE = 64  # looks
MOST_SPARE = 64 << 20
"""Bytes that nobody uses and that are kept for the next tick: more than the blocks of one."""


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


class _Info(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


class Spare:
    """Gives memory back after a peak, such as one picture that is far larger than all others.

    The blocks of ticks are kept, as :func:`keep_large_blocks` wants it: only where the process has much more memory
    than is in use, compared with what it was after it last gave back, it does so again.
    """

    def __init__(self) -> None:
        self._ask = getattr(ctypes.CDLL(None), "mallinfo2", None)  # none in glibc before 2.33, and in others
        if self._ask is not None:
            self._ask.restype = _Info
        self._usual = self._unused()
        self._over, self._patience = 0, 1  # looks in a row with too much, and how many of them before it is given back

    def look(self) -> None:
        """Looks how much there is, and gives back what is too much; call it now and then.

        Where ticks take so much each time, it is given back less and less often: they would have to get it anew.
        """
        if self._ask is None:
            return
        if self._unused() <= self._usual + MOST_SPARE:
            self._over, self._patience = 0, 1
            return
        self._over += 1
        if self._over >= self._patience:
            give_back()
            self._usual = self._unused()
            self._over, self._patience = 0, min(2 * self._patience, _MOST_PATIENCE)

    def _unused(self) -> int:
        """Bytes that are not malloc's, and those that it holds and nobody uses."""
        if self._ask is None:
            return 0
        info = self._ask()
        return resident() - int(info.uordblks) - int(info.hblkhd)


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
