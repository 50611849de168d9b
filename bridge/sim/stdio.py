"""A simulation server driven over its standard streams: commands in, events out, one JSON object a line.

What stands behind a driver: another process that starts servers, on this machine or by ``docker exec``,
and tells them what the players do. Standard output holds nothing but these lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Annotated, Final, get_args

import msgspec

from bridge.authority import Message
from bridge.errors import BridgeError, DecodeError, InvalidStateError
from bridge.registry import Closed, Returned, Rule
from bridge.sim.config import SimulationConfig
from bridge.sim.ending import until_one_ends
from bridge.sim.events import (
    Asked,
    AuthorityGained,
    EntityDeleted,
    EntityUpdated,
    FellSilent,
    PeerSessionChanged,
    Problem,
    ServerEvent,
    SessionLost,
    SessionOpened,
    StateAccepted,
)
from bridge.sim.metrics import exposing
from bridge.sim.server import SimulationServer

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""bytes; the report of a long match is the longest line"""

_ABROAD_SECONDS: Final = 120.0
"""longer than a courier offers before it has an entity taken back"""

_Id = Annotated[int, msgspec.Meta(ge=0)]
Vector = tuple[float, float, float]


class Spawn(msgspec.Struct, frozen=True, kw_only=True, tag="spawn"):
    """Create an entity, or take over a dormant one of that name."""

    id: _Id
    entity: str
    owner: str
    position: Vector
    rule: Rule = Rule.ALLOW


class Kick(msgspec.Struct, frozen=True, kw_only=True, tag="kick"):
    """Put a held entity somewhere with a velocity and pass it to another player.

    ``to`` is that player's server: another one gets the authority with it. ``way`` is ``push`` or ``offer``.
    """

    id: _Id
    entity: str
    owner: str
    to: str
    position: Vector
    velocity: Vector
    way: str = "push"


class Take(msgspec.Struct, frozen=True, kw_only=True, tag="take"):
    """Take an entity from whoever has it."""

    id: _Id
    entity: str
    owner: str


class PushAbroad(msgspec.Struct, frozen=True, kw_only=True, tag="push_abroad"):
    """Give a held entity to a server of another instance; carried out once that instance has decided.

    Refused there, the entity stays: the command has failed.
    """

    id: _Id
    entity: str
    owner: str
    instance: str
    to: str


class Enter(msgspec.Struct, frozen=True, kw_only=True, tag="enter"):
    """The player is at this server from now on."""

    id: _Id
    player: str


class RequestEntity(msgspec.Struct, frozen=True, kw_only=True, tag="request"):
    """A player here asks for an entity; its rule decides, or its master within ``seconds`` (R0-8)."""

    id: _Id
    entity: str
    player: str
    authority: bool = True
    seconds: Annotated[float, msgspec.Meta(gt=0, le=3_600)] = 30.0


class AnswerAsk(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """The answer of a master here to what ``asked`` told."""

    id: _Id
    entity: str
    player: str
    by: str
    grant: bool


class Update(msgspec.Struct, frozen=True, kw_only=True, tag="update"):
    """A player here changes an entity that another server holds, and may name its next owner (Case 3)."""

    id: _Id
    entity: str
    by: str
    velocity: Vector
    owner: str | None = None


class Delete(msgspec.Struct, frozen=True, kw_only=True, tag="delete"):
    """Let there be no such entity any more, in the name of its master; whoever simulates it stops."""

    id: _Id
    entity: str
    by: str


class MakeReport(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """Tell the records and counts."""

    id: _Id


class Quit(msgspec.Struct, frozen=True, kw_only=True, tag="quit"):
    """Release everything and end; the end of standard input does the same."""


Request = Spawn | Kick | Take | PushAbroad | Enter | RequestEntity | AnswerAsk | Update | Delete | MakeReport
Command = Request | Quit


class Started(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="started"):
    """The server is ready; ``metrics`` is the port where Prometheus finds it, if it does."""

    server: str
    node: str
    metrics: int = 0


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The command was carried out; ``epoch`` is the entity's epoch after it (0 for an offer or a player)."""

    id: int
    epoch: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The command was refused; ``error`` starts with the name of the exception."""

    id: int
    error: str


class Reported(msgspec.Struct, frozen=True, kw_only=True, tag="reported"):
    """Records and counts; the fields are those of the data plane's report.

    ``dropped`` counts older records and messages, which a server that does not keep its history lacks.
    """

    id: int
    history: list[bytes]
    messages: list[Message]
    verdicts: dict[str, int]
    sent: dict[str, int]
    received: dict[str, int]
    malformed: int
    dropped: int = 0


Line = (
    Started
    | Done
    | Failed
    | Reported
    | AuthorityGained
    | StateAccepted
    | PeerSessionChanged
    | Asked
    | EntityUpdated
    | EntityDeleted
    | SessionOpened
    | SessionLost
    | FellSilent
    | Problem
)

# msgspec lets the errors of text that is no UTF-8 and of deep nesting through as they are.
_REFUSED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encoder: Final = msgspec.json.Encoder()
_command_decoder: Final = msgspec.json.Decoder(Command)
_line_decoder: Final = msgspec.json.Decoder(Line)
_COMMANDS: Final = ", ".join(str(kind.__struct_config__.tag) for kind in get_args(Command))


class _Numbered(msgspec.Struct):
    id: _Id


_number_decoder: Final = msgspec.json.Decoder(_Numbered)


def encode_line(message: Command | Line) -> bytes:
    """One line with its line feed."""
    return _encoder.encode(message) + b"\n"


def decode_command(line: bytes) -> Command:
    """A line to a server.

    Raises:
        DecodeError: it is no command.
    """
    try:
        command: Command = _command_decoder.decode(line)
    except _REFUSED as error:
        text = str(error)
        known = f"; commands: {_COMMANDS}" if text.endswith(("`$.type`", "field `type`")) else ""
        raise DecodeError(f"no command: {text}{known}") from error
    return command


def refusal(line: bytes, error: DecodeError) -> Failed | Problem:
    """What is told of a line that is no command: an answer where it has a number, since somebody waits."""
    try:
        return Failed(id=_number_decoder.decode(line).id, error=str(error))
    except _REFUSED:
        return Problem(text=str(error), fatal=False)


def decode_line(line: bytes) -> Line:
    """A line from a server.

    Raises:
        DecodeError: it is none.
    """
    try:
        told: Line = _line_decoder.decode(line)
    except _REFUSED as error:
        raise DecodeError(f"no line of a simulation server: {error}") from error
    return told


async def serve(config: SimulationConfig, *, commands: bool, metrics: str | None = None) -> None:
    """Run a simulation server until it is cancelled, or until ``quit`` or the end of its commands.

    Args:
        config: how to run.
        commands: whether standard input is read.
        metrics: ``HOST:PORT``, or a port of this machine, where Prometheus finds it; ``None``: nowhere.

    Raises:
        BridgeError: it cannot start.
    """
    reader = await _standard_input() if commands else None
    out = sys.stdout.buffer

    def write(line: Line) -> None:
        # A driver that has gone away is noticed as the end of standard input.
        with contextlib.suppress(BrokenPipeError):
            out.write(encode_line(line))
            out.flush()

    ended = asyncio.Event()

    def on_event(event: ServerEvent) -> None:
        write(event)
        if isinstance(event, Problem) and event.fatal:
            ended.set()

    async with contextlib.AsyncExitStack() as stack:
        server = SimulationServer(config, on_event)
        # Before it starts, since a port that is taken must not cost a session; told to be down until then.
        port = 0 if metrics is None else await stack.enter_async_context(exposing(metrics, server))
        await stack.enter_async_context(server)
        write(Started(server=config.name, node=config.node, metrics=port))
        works = [_fatal(ended)]
        if reader is not None:
            works.append(_read_commands(reader, server, write))
        await until_one_ends(*works)


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def _fatal(ended: asyncio.Event) -> None:
    await ended.wait()
    raise InvalidStateError("the data plane has ended; start the server again")


async def _read_commands(
    reader: asyncio.StreamReader, server: SimulationServer, write: Callable[[Line], None]
) -> None:
    async with asyncio.TaskGroup() as group:
        while line := await reader.readline():
            try:
                command = decode_command(line)
            except DecodeError as error:
                write(refusal(line, error))
                continue
            if isinstance(command, Quit):
                return
            group.create_task(_carry_out(command, server, write))


async def _carry_out(command: Request, server: SimulationServer, write: Callable[[Line], None]) -> None:
    try:
        write(await _answer(command, server))
    except BridgeError as error:
        write(Failed(id=command.id, error=f"{type(error).__name__}: {error}"))


async def _answer(command: Request, server: SimulationServer) -> Line:
    match command:
        case Spawn():
            record = await server.transfers.spawn(
                command.entity, owner=command.owner, position=command.position, rule=command.rule
            )
            return Done(id=command.id, epoch=record.epoch)
        case Kick():
            return Done(id=command.id, epoch=await _kick(command, server))
        case Take():
            record = await server.transfers.pull(command.entity, owner=command.owner)
            return Done(id=command.id, epoch=record.epoch)
        case PushAbroad():
            return await _push_abroad(command, server)
        case Enter():
            await server.transfers.enter(command.player)
            return Done(id=command.id, epoch=0)
        case RequestEntity():
            record = await server.transfers.request(
                command.entity, player=command.player, authority=command.authority, seconds=command.seconds
            )
            return Done(id=command.id, epoch=record.epoch)
        case AnswerAsk():
            answered = await server.transfers.answer(
                command.entity, player=command.player, by=command.by, grant=command.grant
            )
            return Done(id=command.id, epoch=answered.record.epoch)
        case Update():
            record = await server.transfers.update(
                command.entity, by=command.by, velocity=command.velocity, owner=command.owner
            )
            return Done(id=command.id, epoch=record.epoch)
        case Delete():
            record = await server.transfers.delete(command.entity, by=command.by)
            return Done(id=command.id, epoch=record.epoch)
        case MakeReport():
            report = await server.report()
            return Reported(
                id=command.id,
                history=report.history,
                messages=server.transfers.messages,
                dropped=report.dropped + server.dropped,
                verdicts=report.verdicts,
                sent=report.sent,
                received=report.received,
                malformed=report.malformed,
            )


async def _push_abroad(command: PushAbroad, server: SimulationServer) -> Line:
    abroad = server.transfers.abroad
    await abroad.push(command.entity, owner=command.owner, instance=command.instance, to=command.to)
    match await abroad.decided(command.entity, seconds=_ABROAD_SECONDS):
        case Closed(epoch=epoch):
            return Done(id=command.id, epoch=epoch)
        case Returned(reason=reason):
            return Failed(id=command.id, error=f"{command.instance} refused: {reason}")


async def _kick(command: Kick, server: SimulationServer) -> int:
    server.transfers.place(command.entity, command.position, command.velocity)
    if command.to == server.config.name:
        return (await server.transfers.give(command.entity, owner=command.owner)).epoch
    if command.way == "offer":
        await server.transfers.offer(command.entity, owner=command.owner, to=command.to)
        return 0
    return (await server.transfers.push(command.entity, owner=command.owner, to=command.to)).epoch
