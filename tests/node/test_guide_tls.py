"""What ``docs/guide-tls.md`` tells to do, done."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.otp import PortMapper, otp_node, tls_flags

_ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


def _block(language: str) -> str:
    guide = (_ROOT / "docs" / "guide-tls.md").read_text()
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    return str(text)


async def test_the_guide_leads_to_two_nodes_that_believe_each_other(
    mapper: PortMapper, tmp_path: Path
) -> None:
    here = f"{sys.executable} -m bridge.cli"
    commands = _block("sh").replace("khepri-bridge", here)
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, env=environment)
    options = tmp_path / "certs" / "127.0.0.1" / "node.optfile"
    async with otp_node(mapper, "hs1", flags=tls_flags(options)) as otp:
        environment = {**mapper.environment(), "PYTHONPATH": str(_ROOT)}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _block("python"), cwd=tmp_path, env=environment, stdout=subprocess.PIPE
        )
        said, _ = await child.communicate()
        assert said.decode().strip() == otp.name
