"""A release whose nodes are shell scripts: for what the launcher does, not for what a node does."""

from __future__ import annotations

from pathlib import Path

READY = 'echo "khepri_bridge: ready"\nexec sleep 1000\n'


def fake_release(directory: Path, script: str = READY) -> Path:
    """Make a release whose start script runs ``script`` (sh), with the environment of a real node."""
    executable = directory / "bin" / "khepri_bridge"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
    executable.chmod(0o755)
    return directory
