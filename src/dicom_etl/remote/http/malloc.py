"""Gives the memory of a page back to the system when the page is done with."""

from __future__ import annotations

import ctypes
import functools
import platform

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1024 * 1024


@functools.cache
def return_large_blocks() -> None:
    """From now on blocks of 1 MiB and more are mapped each on its own, where the C library is glibc; once a process.

    glibc raises that threshold by itself, up to 32 MiB, when such blocks are freed, and then carves the pages of the
    feed (2 MB) out of the arenas of many threads, which keep them. A sync of 500 000 entries: 574 MiB at its peak,
    449 with the threshold where it was.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
