from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from bridge.homeserver.signer import hardening

_SCRIPT = """
import ctypes, resource, sys
from bridge.homeserver.signer.hardening import harden
print(harden(), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the wall is that of Linux")
def test_a_hardened_process_cannot_be_dumped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[] 0 (0, 0)"


def test_elsewhere_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    assert "no Linux" in hardening.harden()[0]
