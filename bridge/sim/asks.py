"""Questions under the rule ``ask`` (R0-8): those to masters at this server, and those of its players."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bridge.authority import HOME, Message
from bridge.etf import Atom
from bridge.registry import (
    Answered,
    Ask,
    AskEnded,
    ConflictError,
    DeniedError,
    EntityRecord,
    MasterAwayError,
    NoAskError,
    Outcome,
    Ownership,
    Step,
)
from bridge.sim.events import Asked, ServerEvent

AskHandler = Callable[[Ask], Awaitable[bool]]
"""a master's decision: whether to grant what is asked"""
_GRACE_SECONDS: Final = 5.0
"""how long the feed may take to bring an answer of the last moment"""


class Asks:
    """What is asked of players here, and what players here have asked.

    Args:
        name: of this server.
        session: its session.
        players: requests in the names of players.
        record: keeps a message that crossed.
        on_event: is told of questions to masters without a handler.

    Attributes:
        players: who has entered here, with their handlers.
    """

    def __init__(
        self,
        *,
        name: str,
        session: bytes,
        players: Ownership,
        record: Callable[[Message], None],
        on_event: Callable[[ServerEvent], None],
    ) -> None:
        self._name = name
        self._session = session
        self._players = players
        self._record = record
        self._on_event = on_event
        self._handlers: dict[str, AskHandler] = {}
        self.players: dict[str, AskHandler | None] = {}
        self._open: dict[tuple[str, str], Ask] = {}
        self._waiting: dict[bytes, asyncio.Future[AskEnded]] = {}

    async def enter(self, player: str, on_ask: AskHandler | None) -> None:
        """The player is at this server; see `Transfers.enter`."""
        # First, since the homeserver tells at once of what the player was asked before.
        if on_ask is None:
            self._handlers.pop(player, None)
        else:
            self._handlers[player] = on_ask
        await self._players.enter(player, self._session)
        self.players[player] = on_ask

    async def leave(self, player: str) -> list[str]:
        """The player is here no more; see `Transfers.leave`."""
        passed = await self._players.leave(player, self._session)
        self._handlers.pop(player, None)
        self.players.pop(player, None)
        return passed

    async def take_ask(self, ask: Ask) -> None:
        """Have a question answered, by the master's handler or by whoever listens to events."""
        if self._open.get((ask.entity, ask.player)) == ask:
            return  # The feed is at least once, and a snapshot tells the inbox again.
        self._drop_expired()
        self._open[ask.entity, ask.player] = ask
        self._crossed(ask.step, "ask", HOME, self._name)
        handler = self._handlers.get(ask.master)
        if handler is None:
            self._on_event(
                Asked(entity=ask.entity, player=ask.player, master=ask.master, expires_ms=ask.expires_ms)
            )
            return
        grant = await handler(ask)
        # It may have been withdrawn, or have expired, while the master thought.
        with contextlib.suppress(NoAskError):
            await self.answer(ask.entity, player=ask.player, by=ask.master, grant=grant)

    def forget_ask(self, entity: str, player: str) -> None:
        """The homeserver has the question no more: it was withdrawn, or has come to another end."""
        self._open.pop((entity, player), None)

    def _drop_expired(self) -> None:
        """Those that a member told last that is no more, and no other told the end of."""
        latest_ms = time.time() * 1_000 - _GRACE_SECONDS * 1_000
        for name in [name for name, ask in self._open.items() if ask.expires_ms < latest_ms]:
            del self._open[name]

    def waiting(self) -> int:
        """Questions here that are not answered yet, and own ones without an outcome."""
        return len(self._open) + len(self._waiting)

    async def answer(self, entity: str, *, player: str, by: str, grant: bool) -> Answered:
        """Send a master's answer; see `Transfers.answer`."""
        ask = self._open.pop((entity, player), None)
        step = None if ask is None else ask.step.next()
        answered = await self._players.answer(entity, player=player, by=by, grant=grant, step=step)
        if step is not None:
            self._crossed(step, "decision", self._name, HOME)
            self._crossed(step.next(), "answer", HOME, self._name)
        return answered

    def expect(self, step: Step) -> asyncio.Future[AskEnded]:
        """The outcome of an ask that this server is about to make, if it comes to one."""
        future: asyncio.Future[AskEnded] = asyncio.get_running_loop().create_future()
        self._waiting[step.trace] = future
        return future

    def forget(self, step: Step) -> None:
        """Nobody waits for the outcome (any more)."""
        self._waiting.pop(step.trace, None)

    def end(self, ended: AskEnded) -> None:
        """An outcome has come from the homeserver."""
        self._crossed(ended.step, "outcome", HOME, self._name)
        future = self._waiting.pop(ended.asked, None)
        if future is not None and not future.done():
            future.set_result(ended)

    async def outcome(
        self, waiting: asyncio.Future[AskEnded], entity: str, player: str, seconds: float
    ) -> EntityRecord:
        """Wait for the master's answer, and withdraw where that takes too long.

        Raises:
            DeniedError: the master refused, made a rule against it, or did not answer.
            ConflictError: another player was granted it.
            MasterAwayError: the master left.
        """
        if not (await asyncio.wait([waiting], timeout=seconds))[0]:
            try:
                await self._players.withdraw(entity, player=player)
            except NoAskError:
                # It was answered in the last moment; the word is on its way.
                await asyncio.wait([waiting], timeout=_GRACE_SECONDS)
            else:
                raise _denied(entity, Outcome.EXPIRED)
        if not waiting.done():
            raise _denied(entity, Outcome.EXPIRED)
        ended = waiting.result()
        record = ended.record
        match ended.outcome:
            case Outcome.GRANTED:
                return record
            case Outcome.CONFLICT:
                raise ConflictError(
                    f"{entity} was given to {record.owner}",
                    reason=Atom("conflict"),
                    props={"winner": record.owner.encode(), "epoch": record.epoch},
                )
            case Outcome.MASTER_AWAY:
                raise MasterAwayError(f"the master of {entity} has left", reason=Atom("master_away"))
            case other:
                raise _denied(entity, other)

    def _crossed(self, step: Step, kind: str, sender: str, receiver: str) -> None:
        self._record(
            Message(
                trace=step.trace,
                hop=step.hop,
                kind=kind,
                sender=sender,
                receiver=receiver,
                at_ns=time.monotonic_ns(),
            )
        )


def _denied(entity: str, outcome: Outcome) -> DeniedError:
    text = {Outcome.REFUSED: "its master refused", Outcome.DENIED: "its rule became deny"}
    why = text.get(outcome, "its master did not answer in time")
    return DeniedError(f"{entity}: {why}", reason=Atom(outcome.value))
