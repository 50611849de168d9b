"""The guide to federation does what it says: its blocks run in order."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(280)]

_GUIDE = Path(__file__).parents[3] / "docs" / "federation.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The command of this checkout, whatever is installed.
_COMMAND = f'#!/bin/sh\nexec {sys.executable} -m bridge.cli "$@"\n'


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def test_every_block_of_the_guide_runs(tmp_path: Path) -> None:
    """B-3: two instances, set up by hand, trade."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "khepri-bridge").write_text(_COMMAND)
    (tmp_path / "bin" / "khepri-bridge").chmod(0o755)
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, (language, code) in enumerate(_BLOCK.findall(_GUIDE.read_text())):
        if language == "python":
            (tmp_path / f"{number}.py").write_text(code)
            script.append(f"{sys.executable} {number}.py")
        else:
            script.append(code)
    first, second = _free_ports()
    done = subprocess.run(
        ["bash", "-c", "\n".join(script).replace("18081", str(first)).replace("18082", str(second))],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(_GUIDE.parents[1]),
            "XDG_STATE_HOME": str(tmp_path / "state"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    logs = "".join(log.read_text() for log in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    assert "there holds ['ball']" in done.stdout
    assert "\nhere holds ['ball']" in done.stdout
    assert "nothing is in escrow" in done.stdout
