"""Debian's Elixir as a hidden node of the cluster: it runs cases of ``*.exs`` when it is asked to."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bridge.cluster.local import LocalCluster
from bridge.etf import Atom, decode_term, encode_term
from bridge.khepri import NativePath

_SCRIPT: Final = Path(__file__).parent / "parity.exs"
_NODE: Final = "parity@127.0.0.1"
_NOTHING: Final = Atom("nil")

Results = dict[str, Any]
"""What the calls of a case gave, by label, as terms."""


class Elixir:
    """A running Elixir program; one request at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def verb(self, name: str, root: NativePath) -> Results:
        """Run the steps of a verb as the function ``module:name`` below a root."""
        return _labelled(self._ask((Atom("verb"), name.encode(), list(root))))

    def row(self, name: str, root: NativePath, argument: Any = _NOTHING) -> Results:
        """Run any other case."""
        return _labelled(self._ask((Atom("row"), name.encode(), list(root), argument)))

    def calls(self, module: str, calls: Sequence[tuple[Atom, Sequence[Any]]]) -> list[Any]:
        """What functions of a module give, called one after the other."""
        given: list[Any] = self._ask((Atom("calls"), module.encode(), list(calls)))
        return given

    def events(self, root: NativePath, count: int) -> list[Any]:
        """What so many triggers below a root told, in the order it came."""
        told: list[Any] = self._ask((Atom("events"), list(root), count))
        return told

    def connect(self, cluster: LocalCluster, directory: str) -> None:
        """Dial the members, and load on them what runs there from a directory."""
        members = [Atom(member) for member in cluster.members]
        self._ask((Atom("connect"), members, Atom(cluster.store), directory.encode()))

    def disconnect(self, cluster: LocalCluster, directory: str) -> None:
        """Leave the members as they were."""
        members = [Atom(member) for member in cluster.members]
        self._ask((Atom("disconnect"), members, directory.encode()))

    def _ask(self, request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(encode_term(request)) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the Elixir program has ended"
        outcome, answer = decode_term(base64.b64decode(line))
        assert outcome == Atom("ok"), answer.decode()
        return answer


def _labelled(pairs: list[Any]) -> Results:
    found = {label.decode() if isinstance(label, bytes) else str(label): result for label, result in pairs}
    assert len(found) == len(pairs), "a label stands twice"
    return found


@contextmanager
def running_elixir(cluster: LocalCluster) -> Iterator[Elixir]:
    """The program beside a cluster; it ends with the block, or with this process (its input closes)."""
    # Members that were taken from an image see no other directory than that of temporary files.
    with tempfile.TemporaryDirectory(prefix="parity-") as directory:
        os.chmod(directory, 0o755)
        home = Path(directory) / "home"
        home.mkdir(mode=0o700)
        cookie = home / ".erlang.cookie"
        cookie.write_text(cluster.cookie)
        cookie.chmod(0o400)
        process = subprocess.Popen(
            [
                "elixir",
                *("--hidden", "--name", _NODE),
                *("--erl", "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"),
                _SCRIPT,
            ],
            env={
                **os.environ,
                "HOME": str(home),
                "ERL_EPMD_PORT": str(cluster.epmd_port),
                "ERL_EPMD_ADDRESS": "127.0.0.1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            elixir = Elixir(process)
            elixir.connect(cluster, directory)
            yield elixir
            elixir.disconnect(cluster, directory)
        finally:
            process.kill()
            process.communicate()
