"""What keeps other processes of the same user out of the signer's memory."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38


def harden() -> list[str]:
    """Leave no core dump, and let nobody but root trace this process or read its memory.

    Returns:
        What could not be done here: these are no more than a second wall, so a signer runs without them.
    """
    missing = []
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return ["memory is not shielded from processes of the same user: this is no Linux"]
    libc = ctypes.CDLL(None, use_errno=True)
    for what, arguments in (
        ("the memory is not shielded from processes of the same user", (_PR_SET_DUMPABLE, 0, 0, 0, 0)),
        ("programs that it starts could gain rights", (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
    ):
        if libc.prctl(*arguments) != 0:
            missing.append(f"{what}: {os.strerror(ctypes.get_errno())}")
    return missing
