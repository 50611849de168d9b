"""The control plane's end: starts the data plane's process and talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import mmap
import os
import socket
import sys
from collections.abc import Callable
from typing import Final

from bridge.errors import ClosedError, ConfigurationError, DeadlineError, DecodeError, InvalidStateError
from bridge.replication import World
from bridge.sim.dataplane.deadline import Deadline, Turns, shared_size
from bridge.sim.dataplane.messages import (
    MAX_FRAME_BYTES,
    BeginSession,
    CatchUp,
    CaughtUp,
    Command,
    EndSession,
    Event,
    Fatal,
    FindStreamed,
    MakeReport,
    Measure,
    Measured,
    Opened,
    OpenRelease,
    PeerDown,
    PeerUp,
    Ready,
    Refused,
    Report,
    Sealed,
    SessionEnded,
    Shutdown,
    Start,
    Stop,
    Streamed,
    decode_event,
    encode_frame,
)

PROGRAM = "bridge.sim.dataplane.process"
"""the module that is run; tests of faults put one around it in its place"""
_START_SECONDS: Final = 20.0
"""a Python process with numpy and cryptography takes half a second; a loaded machine takes many times that"""
_ANSWER_SECONDS: Final = 10.0
_END_SECONDS: Final = 3.0


class DataPlaneClient:
    """A running data plane.

    Attributes:
        world: the shared slots; this side writes those of what the server holds.
        deadline: until when the data plane may seal; this side sets it.
        turns: those that the data plane has made.
        ready: key and address, once ``start`` has returned.
        reached: servers with which a datagram session stands.
    """

    world: World
    deadline: Deadline
    turns: Turns
    ready: Ready

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self.reached: set[str] = set()
        self._on_event = on_event
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Event]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self, start: Start, *, life: int | None = None) -> Ready:
        """Start the process.

        Args:
            start: how it is to run.
            life: a descriptor that it holds open as long as it lives; whoever has the other end of that pipe
                knows when it is dead.

        Raises:
            ConfigurationError: it cannot run; the text is its own.
        """
        # An anonymous file instead of multiprocessing.shared_memory: no name to collide or to clean up,
        # and Python 3.11's resource tracker would unlink a named block when the child ends.
        world_fd = os.memfd_create("khepri-bridge-world", os.MFD_CLOEXEC)
        size = shared_size(start.capacity)
        os.ftruncate(world_fd, size)
        memory = mmap.mmap(world_fd, size)
        self.world, self.deadline = World(memory, start.capacity), Deadline(memory, start.capacity)
        self.turns = Turns(memory, start.capacity)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                PROGRAM,
                str(theirs.fileno()),
                str(world_fd),
                pass_fds=(theirs.fileno(), world_fd, *(() if life is None else (life,))),
                stdin=asyncio.subprocess.DEVNULL,
                env=_environment(),
            )
        finally:
            theirs.close()
            os.close(world_fd)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self.tell(start)
        try:
            async with asyncio.timeout(_START_SECONDS):
                first = await _read_event(reader)
        except TimeoutError:
            raise DeadlineError(f"the data plane did not start in {_START_SECONDS:.0f} s") from None
        match first:
            case Ready():
                self.ready = first
            case Fatal(error=error):
                raise ConfigurationError(error)
            case _:
                raise ConfigurationError("the data plane ended while it started; its error stands above")
        self._reading = asyncio.create_task(self._read(reader))
        return first

    def tell(self, command: Command) -> None:
        """Send a command that has no answer.

        Raises:
            ClosedError: the process has ended.
        """
        if self._writer is None or self._writer.is_closing():
            raise ClosedError("the data plane has ended")
        self._writer.write(encode_frame(command))

    def begin_session(self, session: bytes) -> None:
        """Act in the name of this session from now on; what was held before is let go."""
        self.tell(BeginSession(session=session))

    async def end_session(self) -> None:
        """Seal nothing more; returns once that is so.

        Raises:
            ClosedError: the process has ended, so it is so.
        """
        # First, since a data plane that is busy with datagrams reads this before it reads the command.
        self.deadline.set(0)
        number = next(self._ids)
        try:
            answer = await self._ask(number, EndSession(id=number))
        except ClosedError:
            await self._make_sure()
            raise
        if not isinstance(answer, SessionEnded):
            raise InvalidStateError(_refusal(answer))

    async def find_streamed(
        self, entities: tuple[str, ...], *, max_age_ns: int, seconds: float
    ) -> tuple[str, ...]:
        """Those of the entities whose newest state lies in the world, not older than that.

        Args:
            seconds: how long to wait for the answer.
        """
        number = next(self._ids)
        question = FindStreamed(id=number, entities=entities, max_age_ns=max_age_ns)
        answer = await self._ask(number, question, seconds)
        if not isinstance(answer, Streamed):
            raise InvalidStateError(_refusal(answer))
        return answer.entities

    async def catch_up(self) -> None:
        """Returns once the data plane has done all that it was told before.

        Raises:
            ClosedError: the process has ended.
        """
        number = next(self._ids)
        answer = await self._ask(number, CatchUp(id=number))
        if not isinstance(answer, CaughtUp):
            raise InvalidStateError(_refusal(answer))

    async def stop_sealing(self, entity: str, to: str, *, linger_ns: int = 0) -> str:
        """Stop acting for an entity and get the signed release.

        Raises:
            InvalidStateError: it is not held, or the key of ``to`` is not known.
        """
        number = next(self._ids)
        answer = await self._ask(number, Stop(id=number, entity=entity, to=to, linger_ns=linger_ns))
        match answer:
            case Sealed(box=str() as box):
                return box
            case _:
                raise InvalidStateError(_refusal(answer))

    async def stop_for_nobody(self, entity: str) -> None:
        """Stop acting for an entity; its release can be had by ``stop_sealing`` later.

        Raises:
            InvalidStateError: it is not held.
        """
        number = next(self._ids)
        answer = await self._ask(number, Stop(id=number, entity=entity, to=None))
        if not isinstance(answer, Sealed):
            raise InvalidStateError(_refusal(answer))

    async def open_release(self, *, entity: str, giver: str, previous: int, box: str) -> bytes:
        """Verify and open a release; the last state.

        Raises:
            InvalidStateError: it does not hold; the text says why.
        """
        number = next(self._ids)
        answer = await self._ask(
            number,
            OpenRelease(id=number, entity=entity, giver=giver, previous=previous, box=box),
        )
        match answer:
            case Opened(state=state):
                return state
            case _:
                raise InvalidStateError(_refusal(answer))

    async def report(self, *, drain_seconds: float = 5.0) -> Report:
        """Records and counts so far, after everything reliable has arrived or the time is up."""
        number = next(self._ids)
        answer = await self._ask(
            number, MakeReport(id=number, drain_seconds=drain_seconds), _ANSWER_SECONDS + drain_seconds
        )
        if not isinstance(answer, Report):
            raise InvalidStateError(_refusal(answer))
        return answer

    async def measure(self, *, seconds: float) -> Measured:
        """How it is doing.

        Raises:
            DeadlineError: it has not answered in so many seconds.
        """
        number = next(self._ids)
        answer = await self._ask(number, Measure(id=number), seconds)
        if not isinstance(answer, Measured):
            raise InvalidStateError(_refusal(answer))
        return answer

    async def close(self) -> None:
        """End the process; it is killed where it does not end by itself."""
        self._closing = True
        with contextlib.suppress(ClosedError):
            self.tell(Shutdown())
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._reading is not None:
            await self._reading

    def _note_peer(self, event: Event) -> None:
        match event:
            case PeerUp(server=server):
                self.reached.add(server)
            case PeerDown(server=server):
                self.reached.discard(server)

    async def _make_sure(self) -> None:
        """One that does not answer may still seal: it counts as ended when the kernel says so."""
        if self._process is None:
            return
        self.deadline.set(0)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()

    async def _ask(self, number: int, command: Command, seconds: float = _ANSWER_SECONDS) -> Event:
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self.tell(command)
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise DeadlineError(f"the data plane did not answer in {seconds:.0f} s") from None
        finally:
            self._waiting.pop(number, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while (event := await _read_event(reader)) is not None:
            match event:
                case (
                    Sealed(id=number)
                    | Opened(id=number)
                    | Refused(id=number)
                    | Report(id=number)
                    | SessionEnded(id=number)
                    | Streamed(id=number)
                    | CaughtUp(id=number)
                    | Measured(id=number)
                ):
                    future = self._waiting.get(number)
                    if future is not None and not future.done():
                        future.set_result(event)
                case _:
                    self._note_peer(event)
                    # Who closes it can tell it nothing any more, so nothing that follows from an event.
                    if not self._closing:
                        self._on_event(event)
        if self._writer is not None:
            self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ClosedError("the data plane has ended"))
        if not self._closing:
            await self._make_sure()
            self._on_event(Fatal(error="the data plane has ended"))


def _refusal(answer: Event) -> str:
    return answer.error if isinstance(answer, Refused) else f"the data plane answered {answer!r:.100}"


def _environment() -> dict[str, str]:
    """What the child needs of ours. A cookie in the environment, or a home with one, is not among it."""
    keep = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")
    return {name: os.environ[name] for name in keep if name in os.environ} | {"HOME": "/nonexistent"}


async def _read_event(reader: asyncio.StreamReader) -> Event | None:
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > MAX_FRAME_BYTES:
            return None
        return decode_event(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError, DecodeError):
        # A data plane that sends nonsense was taken over; it is done for, as one that has ended.
        return None
