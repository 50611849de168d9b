"""The guide to credentials does what it says: its blocks run in order, against a real cluster."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

_GUIDE = Path(__file__).parents[2] / "docs" / "guide-credentials.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The command of this checkout, whatever is installed, on the cluster of this test.
_COMMAND = """#!/bin/sh
case "$2" in serve|certify|revoke) set -- "$@" --dir '{directory}';; esac
exec {python} -m bridge.cli "$@"
"""


def test_every_block_of_the_guide_runs(tmp_path: Path) -> None:
    """R0-32, R0-24, R4-1…R4-8."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "khepri-bridge"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(_GUIDE.parents[1]),
    }
    said = ""
    with LocalCluster(LocalClusterConfig(nodes=1)) as cluster:
        command.write_text(_COMMAND.format(directory=cluster.directory, python=sys.executable))
        command.chmod(0o755)
        try:
            for language, code in _BLOCK.findall(_GUIDE.read_text()):
                run = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[language]
                output = tmp_path / "output"
                with output.open("w") as file:
                    done = subprocess.run(
                        [*run, code],
                        cwd=tmp_path,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        timeout=90,
                    )
                assert done.returncode == 0, f"{code}\n{output.read_text()}"
                said += output.read_text()
        finally:
            for name in ("serve.pid", "signer.pid"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    os.kill(int((tmp_path / name).read_text()), signal.SIGTERM)
    assert "a token for alice" in said
    assert "in the tavern with {'gold': 7}" in said
    assert "the ticket was used before" in said
    assert "its key was revoked" in said
