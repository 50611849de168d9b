"""The driver's end of a simulation server: starts its process, sends commands, hands out events."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Final

from bridge.errors import BridgeError, ClosedError, ConfigurationError, DeadlineError, DecodeError
from bridge.registry import Rule
from bridge.sim.events import ServerEvent
from bridge.sim.stdio import (
    MAX_LINE_BYTES,
    AnswerAsk,
    Delete,
    Done,
    Enter,
    Failed,
    Kick,
    MakeReport,
    PushAbroad,
    Quit,
    Reported,
    Request,
    RequestEntity,
    Spawn,
    Started,
    Take,
    Update,
    decode_line,
    encode_line,
)

_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 15.0
"""a clean stop closes the session at the homeserver, which may just be electing a leader"""
_SPAWN_BATCH: Final = 8


class CommandFailedError(BridgeError):
    """The simulation server refused a command; the text starts with its exception's name."""


class SimulationProcess:
    """A simulation server in a process of its own.

    Args:
        name: its name.
        command: how to start it; it reads commands and writes lines (``bridge.sim.stdio``).
        on_event: called with what it tells unasked.
    """

    def __init__(
        self, name: str, command: Sequence[str], on_event: Callable[[str, ServerEvent], None]
    ) -> None:
        self.name = name
        self._command = list(command)
        self._on_event = on_event
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Done | Reported]] = {}
        self._started: asyncio.Future[Started] | None = None
        self._last_problem = ""
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the server's control plane.

        Raises:
            ClosedError: it was not started.
        """
        if self._process is None:
            raise ClosedError(f"{self.name} does not run")
        return self._process.pid

    async def start(self) -> Started:
        """Start it and wait until it has a session; what it says of itself then.

        Raises:
            ConfigurationError: it ended instead; its own error line is part of the text.
            DeadlineError: it took more than a minute.
        """
        self._started = asyncio.get_running_loop().create_future()
        # Whoever waits reads the outcome; once nobody does, it is of no interest.
        self._started.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            # Ctrl-C in the terminal is for the driver, which ends its servers one by one.
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(_START_SECONDS):
                return await asyncio.shield(self._started)
        except TimeoutError:
            raise DeadlineError(f"{self.name} was not ready in {_START_SECONDS:.0f} s") from None

    async def wait(self) -> None:
        """Wait until the process has ended, of itself or by another's hand."""
        if self._process is not None:
            await self._process.wait()

    async def spawn(
        self, entity: str, *, owner: str, position: tuple[float, float, float], rule: Rule = Rule.ALLOW
    ) -> int:
        """Create an entity there; its epoch."""
        return await self._ask(
            Spawn(id=next(self._ids), entity=entity, owner=owner, position=position, rule=rule)
        )

    async def kick(
        self,
        entity: str,
        *,
        owner: str,
        to: str,
        position: tuple[float, float, float],
        velocity: tuple[float, float, float],
        way: str = "push",
    ) -> int:
        """Pass an entity; its epoch, 0 where it is offered."""
        return await self._ask(
            Kick(
                id=next(self._ids),
                entity=entity,
                owner=owner,
                to=to,
                position=position,
                velocity=velocity,
                way=way,
            )
        )

    async def take(self, entity: str, *, owner: str) -> int:
        """Take an entity; its epoch, once that server acts for it."""
        return await self._ask(Take(id=next(self._ids), entity=entity, owner=owner))

    async def push_abroad(self, entity: str, *, owner: str, instance: str, to: str) -> int:
        """Give an entity to a server of another instance; its epoch, once that instance has decided."""
        return await self._ask(
            PushAbroad(id=next(self._ids), entity=entity, owner=owner, instance=instance, to=to)
        )

    async def enter(self, player: str) -> None:
        """A player is there from now on."""
        await self._ask(Enter(id=next(self._ids), player=player))

    async def request(
        self, entity: str, *, player: str, authority: bool = True, seconds: float = 30.0
    ) -> int:
        """A player there asks for an entity; its epoch, once they have it, and the server acts for it."""
        return await self._ask(
            RequestEntity(
                id=next(self._ids), entity=entity, player=player, authority=authority, seconds=seconds
            )
        )

    async def answer(self, entity: str, *, player: str, by: str, grant: bool) -> int:
        """The answer of a master there, who was told ``Asked``; the entity's epoch after it."""
        return await self._ask(
            AnswerAsk(id=next(self._ids), entity=entity, player=player, by=by, grant=grant)
        )

    async def update(
        self, entity: str, *, by: str, velocity: tuple[float, float, float], owner: str | None = None
    ) -> int:
        """A player there changes an entity that another server holds; its epoch, once that has taken it."""
        return await self._ask(
            Update(id=next(self._ids), entity=entity, by=by, velocity=velocity, owner=owner)
        )

    async def delete(self, entity: str, *, by: str) -> int:
        """Let there be no such entity any more, in the name of its master; the epoch of its end."""
        return await self._ask(Delete(id=next(self._ids), entity=entity, by=by))

    async def report(self) -> Reported:
        """Its records and counts."""
        number = next(self._ids)
        answer = await self._answer(number, MakeReport(id=number))
        if not isinstance(answer, Reported):
            raise ConfigurationError(f"{self.name} answered {answer!r:.100}")
        return answer

    async def close(self) -> None:
        """Ask it to end; kill it where it does not."""
        if self._process is None or self._process.stdin is None:
            return
        if not self._process.stdin.is_closing():
            self._process.stdin.write(encode_line(Quit()))
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def _ask(self, command: Request) -> int:
        answer = await self._answer(command.id, command)
        return answer.epoch if isinstance(answer, Done) else 0

    async def _answer(self, number: int, command: Request) -> Done | Reported:
        if self._process is None or self._process.stdin is None or self._process.returncode is not None:
            raise ClosedError(f"{self.name} does not run")
        future: asyncio.Future[Done | Reported] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._process.stdin.write(encode_line(command))
            return await future
        finally:
            self._waiting.pop(number, None)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        errors = asyncio.create_task(self._process.stderr.read())
        while line := await self._process.stdout.readline():
            try:
                self._take_line(decode_line(line))
            except DecodeError:
                self._last_problem = f"wrote {line[:200]!r}"
        said = (await errors).decode(errors="replace").strip().splitlines()
        await self._process.wait()
        text = f"{self.name} ended: {said[-1] if said else self._last_problem or 'no reason given'}"
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ClosedError(text))
        if self._started is not None and not self._started.done():
            self._started.set_exception(ConfigurationError(text))

    def _take_line(self, line: object) -> None:
        match line:
            case Started():
                assert self._started is not None
                if not self._started.done():
                    self._started.set_result(line)
            case Done(id=number) | Reported(id=number):
                future = self._waiting.get(number)
                if future is not None and not future.done():
                    future.set_result(line)
            case Failed(id=number, error=error):
                future = self._waiting.get(number)
                if future is not None and not future.done():
                    future.set_exception(CommandFailedError(f"{self.name}: {error}"))
            case _:
                self._on_event(self.name, line)  # type: ignore[arg-type]  # what is left of the union
