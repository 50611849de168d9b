"""The guardian of a simulation server: a process of its own that ends the session of a server that is dead.

The control plane and the data plane hold the write end of one pipe as long as they live, the guardian its
read end: end of file means that nothing is left that could seal. A guardian of the control plane alone would
end the session while the data plane still seals (``docs/authority-model.md``, GUARDIAN_WATCHES_CONTROL).
Without a guardian, or where its host is lost too, the session's lease runs out.

Started as ``python -m bridge.sim.guardian LIFE_FD`` with a line of settings on standard input; it has the
cookie, as the control plane has, and reads nothing but these two.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Callable
from typing import Final, Self

import msgspec

from bridge.errors import BridgeError, ConfigurationError, DeadlineError
from bridge.khepri import Khepri
from bridge.node import Gateway, HiddenNode, NodeConfig, TlsConfig
from bridge.registry import EndReason, Homeserver
from bridge.sim.config import SimulationConfig

_ID_BYTES: Final = 16
_NO_SESSION: Final = bytes(_ID_BYTES)
_START_SECONDS: Final = 20.0
_END_SECONDS: Final = 3.0
_CONNECT_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 1.0
"""between tries to start another guardian; meanwhile a dead server waits for its lease"""
_READY: Final = b"ready\n"
_NAMES: Final = 100
"""Different node names of one server's guardians: an earlier one may still be at its work, and names that
never repeat would fill the homeservers' tables of atoms."""


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    server: str
    node: str
    members: tuple[str, ...]
    cookie: str | None
    epmd_port: int
    store: str
    tls: tuple[str, ...] | None
    """paths of certificate, key, authority and, where there are any, revocations"""
    tls_key_password: str | None


class Guardian:
    """The control plane's end of a running guardian.

    Attributes:
        life: write end of the pipe; whoever holds it open lives.
    """

    def __init__(self, config: SimulationConfig, on_problem: Callable[[str], None]) -> None:
        """Make one; it starts on entering.

        Args:
            config: of the server.
            on_problem: told when a guardian ended by itself, and whether another one took its place.
        """
        self._config = config
        self._on_problem = on_problem
        self._session = _NO_SESSION
        self._is_watching = False
        self._read, self.life = os.pipe2(os.O_CLOEXEC)
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self._close_pipe()
            raise
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._close_pipe()
        await self._end()

    def watch(self, session: bytes | None) -> None:
        """From now on this session (16 bytes) is to be ended when the server is dead; ``None``: none is."""
        self._session = _NO_SESSION if session is None else session
        if self._is_watching:
            self._tell()

    def _tell(self) -> None:
        # Never while none reads: a full pipe would stop this process. It does not fail, since its read end is
        # open here too.
        os.write(self.life, self._session)

    async def _start(self) -> None:
        config = self._config
        name, _, host = config.node.partition("@")
        settings = _Settings(
            server=config.name,
            node=f"{name}_guardian{secrets.randbelow(_NAMES)}@{host}",
            members=config.members,
            cookie=config.cookie,
            epmd_port=config.epmd_port,
            store=config.store,
            tls=None if config.tls is None else tuple(str(path.absolute()) for path in config.tls.files),
            tls_key_password=None if config.tls is None else config.tls.key_password,
        )
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bridge.sim.guardian",
            str(self._read),
            pass_fds=(self._read,),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # What ends the server's group, a Ctrl-C of the terminal or a kill, must leave its guardian.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(settings) + b"\n")
        process.stdin.close()
        try:
            async with asyncio.timeout(_START_SECONDS):
                said = await process.stdout.readline()
        except TimeoutError:
            await self._end()
            raise DeadlineError(f"the guardian did not start in {_START_SECONDS:.0f} s") from None
        if said != _READY:
            await self._end()
            raise ConfigurationError(f"the guardian: {said.decode(errors='replace').strip() or 'it ended'}")
        self._is_watching = True
        self._tell()

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            await self._process.wait()
            self._is_watching = False
            try:
                await self._start()
            except BridgeError as error:
                self._on_problem(f"the guardian has ended, and no other one starts: {error}")
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self._on_problem("the guardian had ended; another one has taken its place")

    async def _end(self) -> None:
        if self._process is None:
            return
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _close_pipe(self) -> None:
        for descriptor in (self.life, self._read):
            os.close(descriptor)


async def guard(life: int, settings: _Settings, ready: Callable[[], None]) -> None:
    """Connect, wait for the end of the pipe, end the session that was told last."""
    config = NodeConfig(epmd_port=settings.epmd_port, register=False, tls=_tls(settings))
    async with (
        HiddenNode(settings.node, cookie=settings.cookie, config=config) as node,
        Gateway(node, settings.members) as gateway,
    ):
        await gateway.connect(timeout=_CONNECT_SECONDS)
        store = Khepri.connect(node, gateway, store=settings.store, client=f"guardian of {settings.server}")
        ready()
        session = await _last_session(life)
        _let_go_of_standard_error()
        if session != _NO_SESSION:
            await Homeserver(store, session).end_session(EndReason.DEAD)


def _tls(settings: _Settings) -> TlsConfig | None:
    if settings.tls is None:
        return None
    certificate, key, authority, *revoked = settings.tls
    return TlsConfig(
        certificate=certificate,
        key=key,
        authority=authority,
        revoked=revoked[0] if revoked else None,
        key_password=settings.tls_key_password,
    )


def _let_go_of_standard_error() -> None:
    # Whoever started the server reads it to its end, which is there now.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


async def _last_session(life: int) -> bytes:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(life, "rb", buffering=0))
    session = _NO_SESSION
    while True:
        try:
            session = await reader.readexactly(_ID_BYTES)
        except asyncio.IncompleteReadError:
            return session


def main() -> None:
    """Entry of the process."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Settings)

    def ready() -> None:
        # A server that has failed meanwhile reads nothing; its end comes by the other pipe.
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.buffer.write(_READY)
            sys.stdout.buffer.flush()

    try:
        asyncio.run(guard(int(sys.argv[1]), settings, ready))
    except BridgeError as error:
        # Whoever waits for readiness reads this; later nobody reads, and the lease runs out by itself.
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(f"{type(error).__name__}: {error}\n")
            sys.stdout.flush()
        sys.exit(1)


if __name__ == "__main__":
    main()
