"""The programs of docs/guide-udp.md run and print what stands below them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_GUIDE = (Path(__file__).parents[2] / "docs" / "guide-udp.md").read_text()
_PROGRAMS = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", _GUIDE, re.DOTALL)


def test_every_program_of_the_guide_is_run() -> None:
    assert _GUIDE.count("```python") == len(_PROGRAMS) == 7


@pytest.mark.slow
@pytest.mark.parametrize(("program", "expected"), _PROGRAMS, ids=range(len(_PROGRAMS)))
def test_a_program_prints_what_the_guide_says(program: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == expected
