"""Real JOSE of other languages to ask: erlang-jose of this machine, 1.11.10, and the Elixir modules of that.

One that is not there is a test skipped, with what to do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

_ROOT: Final = Path(__file__).parents[2]
_SCRIPTS: Final = _ROOT / "tests" / "jose"
_NEWER: Final = _ROOT / "_build" / "erlang-jose"
"""what ``scripts/erlang-jose`` made"""

Request = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherJose:
    """A program that answers requests (its source lists them) by another implementation of JOSE.

    Attributes:
        command: takes two more arguments, the file of requests and the file for answers.
        libraries: searched before those of the machine's Erlang.
        directory: for both files.
    """

    name: str
    command: tuple[str, ...]
    libraries: Path | None
    directory: Path

    def ask(self, requests: list[Request], *, may_fail: bool = False) -> list[Request]:
        """Send all requests in one run: starting the VM costs more than all of them.

        An answer with a member ``error`` fails the test that asked, unless it ``may_fail``.
        """
        questions, answers = self.directory / "requests.json", self.directory / "answers.json"
        questions.write_text(json.dumps(requests))
        environment = dict(os.environ) | ({"ERL_LIBS": str(self.libraries)} if self.libraries else {})
        done = subprocess.run(
            [*self.command, questions, answers],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            env=environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        replies: list[Request] = json.loads(answers.read_bytes())
        assert may_fail or [reply for reply in replies if "error" in reply] == []
        return replies


_ERLANG: Final = ("escript", str(_SCRIPTS / "erlang_jose.escript"))
_ELIXIR: Final = ("elixir", str(_SCRIPTS / "elixir_jose.exs"))
OTHER_JOSES: Final = {
    "erlang-jose of this machine": (_ERLANG, None),
    "erlang-jose 1.11.10": (_ERLANG, _NEWER),
    "Elixir's JOSE 1.11.10": (_ELIXIR, _NEWER),
}


def other_jose(name: str, directory: Path) -> OtherJose:
    """Return one of ``OTHER_JOSES``, which keeps its files in ``directory``; skips where it is missing."""
    command, libraries = OTHER_JOSES[name]
    if shutil.which(command[0]) is None or not _has_jose(libraries):
        pytest.skip(f"NOT TESTED against {name}: run scripts/setup --dev, or name its directory in ERL_LIBS")
    return OtherJose(name=name, command=command, libraries=libraries, directory=directory)


def _has_jose(libraries: Path | None) -> bool:
    if libraries is not None:
        return any(libraries.glob("made-for-otp-*"))
    probe = '[io:format("~p ", [code:which(M)]) || M <- [jose, jiffy]], halt().'
    found = subprocess.run(
        ["erl", "-noshell", "-eval", probe],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return "non_existing" not in found.stdout
