"""Real Erlang nodes as children of the test run, with a port mapper of their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.node import NodeConfig
from tests.support.target import target

COOKIE = "secret"
_START_TIMEOUT = 30.0
"""seconds for a BEAM to come up on a slow machine"""


@dataclass(frozen=True, slots=True)
class PortMapper:
    """A running epmd on loopback."""

    port: int
    home: Path

    def node_config(self) -> NodeConfig:
        """For hidden nodes that register with it."""
        return NodeConfig(epmd_host="127.0.0.1", epmd_port=self.port)

    def environment(self) -> dict[str, str]:
        """For BEAMs that register with it."""
        return {
            **os.environ,
            "HOME": str(self.home),
            "ERL_EPMD_PORT": str(self.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


def free_port() -> int:
    """A TCP port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def no_port_mapper(cookie: str = COOKIE) -> Iterator[PortMapper]:
    """A home for nodes that do without: nobody listens where the port mapper would."""
    home = Path(tempfile.mkdtemp(prefix="otp-"))
    cookie_file = home / ".erlang.cookie"
    cookie_file.write_text(cookie)
    cookie_file.chmod(0o400)
    try:
        yield PortMapper(free_port(), home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def port_mapper(cookie: str = COOKIE) -> Iterator[PortMapper]:
    """An epmd of our own; the automatic one would listen everywhere and outlive the tests."""
    with no_port_mapper(cookie) as mapper, running_epmd(mapper.port):
        yield mapper


@contextmanager
def running_epmd(port: int) -> Iterator[None]:
    """An epmd on loopback; where one was before, it has forgotten everything."""
    child = subprocess.Popen(["epmd", "-port", str(port), "-address", "127.0.0.1"])
    try:
        _await_listener(port, child)
        yield
    finally:
        child.kill()
        child.wait()


def _await_listener(port: int, child: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if child.poll() is not None:
            raise RuntimeError(f"epmd ended with status {child.returncode}")
        with socket.socket() as probe:
            probe.settimeout(0.05)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        # Nothing tells when epmd listens, so it is asked again.
        signal.sigtimedwait([], 0.05)
    raise RuntimeError("epmd does not listen")


class OtpNode:
    """One BEAM; ``name`` is its full node name."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    async def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process.returncode is None:
            self._process.kill()
        # To the end of its pipes too: a loop that closes before has handles left.
        await self._process.communicate()

    def pause(self) -> None:
        """Stop it in its tracks: its sockets stay open and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)
        # The signal is not instant: it could answer one more call before it takes effect.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    async def evaluate(self, expression: str) -> None:
        """Run an Erlang expression in its shell process, one at a time; see what it did through a call."""
        assert self._process.stdin is not None
        self._process.stdin.write(expression.encode() + b".\n")
        await self._process.stdin.drain()


def tls_flags(option_file: Path) -> tuple[str, ...]:
    """For a node that speaks TLS alone."""
    return ("-proto_dist", "inet_tls", "-ssl_dist_optfile", str(option_file))


def fixed_port_flags(port: int) -> tuple[str, ...]:
    """For a node that asks no port mapper: it listens on a port, and dials every other node on the same."""
    text = str(port)
    listen = ("-kernel", "inet_dist_listen_min", text, "inet_dist_listen_max", text)
    return ("-erl_epmd_port", text, *listen)


_READER = (
    "L = fun(L) -> case io:parse_erl_exprs('') of {ok, E, _} -> erl_eval:exprs(E, []), L(L);"
    ' _ -> halt(0) end end, io:format("ready~n"), L(L).'
)


@asynccontextmanager
async def otp_node(
    mapper: PortMapper, alive: str, *, erl: str | None = None, flags: tuple[str, ...] = ()
) -> AsyncIterator[OtpNode]:
    """A visible node ``alive@127.0.0.1``; it ends with the block, or with this process (its input closes)."""
    name = f"{alive}@127.0.0.1"
    process = await asyncio.create_subprocess_exec(
        erl or target().erl,
        "-noshell",
        "-start_epmd",
        "false",
        "-name",
        name,
        "-kernel",
        "prevent_overlapping_partitions",
        "false",
        "inet_dist_use_interface",
        "{127,0,0,1}",
        *flags,
        "-eval",
        _READER,
        env=mapper.environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    node = OtpNode(name, process)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_TIMEOUT):
            while b"ready" not in (line := await process.stdout.readline()):
                if not line:
                    raise RuntimeError(f"{name} did not start")
        yield node
    finally:
        await node.kill()
