"""A Khepri store of this program's own: one Erlang virtual machine as a child, on two pipes.

It has no node name, opens no port, needs no cookie and no port mapper, and ends with this program.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.cluster.build import build_release
from bridge.cluster.processes import (
    ProcessIdentity,
    end_processes,
    identify,
    plain_environment,
    reap,
    wait_until_gone,
)
from bridge.errors import BridgeError, ConfigurationError
from bridge.khepri import Khepri, KhepriConfig
from bridge.port import PortConfig, open_port

_LAUNCHER: Final = Path("bin") / "khepri_bridge"
_LOG: Final = "beam.log"
_READY_SECONDS: Final = 20.0
_READY_INTERVAL: Final = 0.02
_SAFE_DESCRIPTOR: Final = 10
"""pipes are moved there first, so that putting one in place cannot close the other"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedConfig:
    """What the store is, and how long its virtual machine may take.

    Attributes:
        directory: of its data, kept between runs; ``None``: a temporary one, erased at the end.
        name: of this program, stable from start to start: operation ids begin with it.
        store: the store's id: lower-case letters, digits and ``_``.
        instance: name of the instance the data belongs to.
        stop_seconds: for the virtual machine to end by itself; then it is killed.
        khepri: deadlines of the client.
        port: ceilings of the pipes.
    """

    directory: Path | None = None
    name: str = "embedded"
    store: str = "simulation"
    instance: str = "local"
    stop_seconds: float = 10.0
    khepri: KhepriConfig = field(default_factory=KhepriConfig)
    port: PortConfig = field(default_factory=PortConfig)


@asynccontextmanager
async def embedded_store(config: EmbeddedConfig | None = None) -> AsyncIterator[Khepri]:
    """Start a virtual machine with a store of type ``simulation``, and give its client.

    Raises:
        ConfigurationError: Erlang is missing, the release does not build, another program uses the
            directory, or the store does not start; the text says what to do, or names the log.
    """
    config = config or EmbeddedConfig()
    release = await asyncio.to_thread(build_release, lambda _: None)
    with _directory(config.directory) as place:
        log = place / _LOG
        with _pipes() as (ours, theirs):
            child = _spawn(release, place, log, config, theirs)
            reading, writing = ours.release()
        process = identify(child)
        try:
            try:
                caller = await open_port(reading, writing, name=config.name, config=config.port)
            except BridgeError as error:
                raise ConfigurationError(
                    f"the embedded store did not start: {_last_line(log)} ({error})"
                ) from error
            async with caller, Khepri(caller, store=config.store, config=config.khepri) as store:
                await _await_ready(store)
                yield store
        finally:
            await _end(child, process, config.stop_seconds)


async def _end(child: int, process: ProcessIdentity | None, seconds: float) -> None:
    """Wait for the end of the virtual machine: the closed pipe is its word to stop."""
    if process is None:
        reap(child)
        return
    try:
        await asyncio.to_thread(wait_until_gone, [process], timeout=seconds)
    finally:
        # Out of time, or cancelled a second time. It is killed from here, since nothing waits in a loop that
        # is being left; what was answered is on disk in any case.
        end_processes([process], grace=0.0)


async def _await_ready(store: Khepri) -> None:
    """Until the store has its leader and what the homeserver keeps in it."""
    deadline = asyncio.get_running_loop().time() + _READY_SECONDS
    while (await store.health()).leader is None:
        if asyncio.get_running_loop().time() > deadline:
            raise ConfigurationError(f"the embedded store has had no leader for {_READY_SECONDS:g} s")
        await asyncio.sleep(_READY_INTERVAL)


def _spawn(release: Path, place: Path, log: Path, config: EmbeddedConfig, pipes: tuple[int, int]) -> int:
    environment = {
        **plain_environment(),
        "HOME": str(place),
        "KB_DATA_DIR": str(place),
        "KB_TYPE": "simulation",
        "KB_INSTANCE": config.instance,
        "KB_STORE": config.store,
    }
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    launcher = release / _LAUNCHER
    try:
        return os.posix_spawn(
            launcher,
            [str(launcher), "embedded"],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                (os.POSIX_SPAWN_DUP2, pipes[0], 3),
                (os.POSIX_SPAWN_DUP2, pipes[1], 4),
            ],
            setsid=True,
        )
    except OSError as error:
        raise ConfigurationError(f"{launcher} cannot be started: {error.strerror}") from None
    finally:
        os.close(output)


class _Ends:
    """Two descriptors that are closed unless somebody took them."""

    def __init__(self, reading: int, writing: int) -> None:
        self._held = [reading, writing]

    def release(self) -> tuple[int, int]:
        reading, writing = self._held
        self._held = []
        return reading, writing

    def close(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)


@contextlib.contextmanager
def _pipes() -> Iterator[tuple[_Ends, tuple[int, int]]]:
    """The ends of this side (reading, writing), and those of the child: it reads the first."""
    made: list[int] = []

    def pipe() -> tuple[int, int]:
        ends = os.pipe()
        moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _SAFE_DESCRIPTOR) for end in ends)
        for end in ends:
            os.close(end)
        return moved[0], moved[1]

    down_read, down_write = pipe()
    up_read, up_write = pipe()
    ours = _Ends(up_read, down_write)
    made += [down_read, up_write]
    try:
        yield ours, (down_read, up_write)
    finally:
        ours.close()
        for descriptor in made:
            os.close(descriptor)


@contextlib.contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """The data directory, for this program alone."""
    with contextlib.ExitStack() as stack:
        if given is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="khepri-embedded-")))
        else:
            place = given.absolute()
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = stack.enter_context((place / ".lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another program uses the store in {place}: give each its own"
            ) from None
        yield place


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else f"see {log}"
