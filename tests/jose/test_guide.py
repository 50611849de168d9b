"""The guide to boxes does what it says: its blocks run in order, the Elixir ones in real Elixir."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.erlang_jose import other_jose

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

_GUIDE = Path(__file__).parents[2] / "docs" / "guide-boxes.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The command of this checkout, whatever is installed.
_COMMAND = f'#!/bin/sh\nexec {sys.executable} -m bridge.cli "$@"\n'
_ELIXIR_START = "{:ok, _} = Application.ensure_all_started(:jose); :ok = JOSE.json_module(:jose_json_jiffy)\n"


def test_every_block_of_the_guide_runs(tmp_path: Path) -> None:
    """R0-23: from real Elixir too."""
    elixir = other_jose("Elixir's JOSE 1.11.10", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "khepri-bridge").write_text(_COMMAND)
    (tmp_path / "bin" / "khepri-bridge").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(_GUIDE.parents[1]),
        "ERL_LIBS": str(elixir.libraries),
    }
    said = ""
    blocks = _BLOCK.findall(_GUIDE.read_text())
    for language, code in blocks:
        command = {
            "sh": ["bash", "-euo", "pipefail", "-c", code],
            "python": [sys.executable, "-c", code],
            "elixir": ["elixir", "-e", _ELIXIR_START + code],
        }[language]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
        said += done.stdout
    assert {language for language, _ in blocks} == {"sh", "python", "elixir"}
    assert said.count("The gun is yours.") == 2
    assert said.count("the signature does not hold") == 2
    assert "The bow, too.\nseen before\nthe signature does not hold\na signed box has seven segments" in said
    assert "From Elixir." in said
    assert "From Bob." in said
