"""What this process says to the lessor for servers without a cookie, and hears from it for them.

Each session that renews its lease here has one mailbox, which the lessor answers. It stays open for a while
after a renewal: the lessor may ask in between what the server streams in, and gets what that renewal said
(``docs/leases.md``). Whichever process a session's newest renewal came to is the one that is asked.

The lessor believes what it is told. So of what a server says that it streams, this process passes on those
entities that the server could pull as well: their owner or their master has entered at it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.errors import BridgeError, ConnectionLostError, DeadlineError, DecodeError
from bridge.etf import Atom
from bridge.homeserver.rest.context import Context
from bridge.homeserver.rest.reading import bridge_path, entity_records, record_at
from bridge.khepri import NodeCaller
from bridge.registry import Lost, Recalled, Renewed, Streaming, lessor_message, renew, streams
from bridge.registry.lessor import LESSOR

_KEPT: Final = 0.5
"""leases; a server renews three times in one, so that the word of whoever has not is old"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a server says with a renewal.

    Attributes:
        number: of the renewal.
        tick: the simulation's step counter.
        load: entities held.
        obeyed: recalls that were obeyed.
        streamed: entities whose newest state the server has, should their holder end.
        released: for each of these entities the newest epoch under which nothing of the session acts any
            more, or ever will.
    """

    number: int
    tick: int
    load: int
    obeyed: Collection[Recalled] = ()
    streamed: Collection[str] = frozenset()
    released: Mapping[str, int] = field(default_factory=dict)


class Leasing:
    """The sessions whose renewals come to this process.

    Args:
        here: the service.
    """

    def __init__(self, here: Context) -> None:
        self._here = here
        self._lines: dict[bytes, _Line] = {}

    async def renew(self, session: bytes, word: Word, *, lease: float) -> Renewed | None:
        """Pass a renewal on, and wait until the lessor acknowledges it or a later one.

        Args:
            session: whose lease it is.
            word: the renewal.
            lease: of the session, in seconds.

        Returns:
            What the lessor says; ``None``: the session is lost.

        Raises:
            BridgeError: no homeserver took it.
        """
        line = self._lines.get(session)
        if line is None:
            caller = self._here.store.caller
            if not isinstance(caller, NodeCaller):
                raise ConnectionLostError("the lessor is reached by Erlang's distribution alone")
            line = self._lines[session] = _Line(self._here, caller, session, self._forget)
        return await line.renew(word, lease)

    def _forget(self, line: _Line) -> None:
        if self._lines.get(line.session) is line:
            del self._lines[line.session]


class _Line:
    """One session's mailbox, as long as the session renews here.

    Args:
        here: the service.
        caller: its connection to the homeservers.
        session: whose it is.
        on_end: told when the mailbox is closed.
    """

    def __init__(
        self, here: Context, caller: NodeCaller, session: bytes, on_end: Callable[[_Line], None]
    ) -> None:
        self.session = session
        self._here = here
        self._caller = caller
        self._on_end = on_end
        self._mailbox = caller.mailbox()
        self._word: Word | None = None
        self._until = 0.0
        self._waiting: dict[asyncio.Future[Renewed | None], int] = {}
        self._hearing: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    async def renew(self, word: Word, lease: float) -> Renewed | None:
        """As of ``Leasing``."""
        loop = asyncio.get_running_loop()
        if self._word is None or word.number > self._word.number:
            self._word = word
            self._until = loop.time() + lease * _KEPT
        self._hearing = self._hearing or loop.create_task(self._hear())
        answered: asyncio.Future[Renewed | None] = loop.create_future()
        self._waiting[answered] = word.number
        try:
            await self._send(
                renew(
                    self._mailbox.pid,
                    session=self.session,
                    number=word.number,
                    tick=word.tick,
                    load=word.load,
                    obeyed=word.obeyed,
                )
            )
            return await answered
        finally:
            del self._waiting[answered]

    async def _send(self, message: Any) -> None:
        member = self._caller.current
        if member is None:
            raise ConnectionLostError("no homeserver is connected now")
        await self._caller.gateway.node.send((LESSOR, member), message)

    async def _hear(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with self._mailbox:
                while (left := self._until - clock()) > 0 or self._waiting:
                    # What a later version of the lessor says is left alone, and a renewal may have come.
                    with contextlib.suppress(DeadlineError, DecodeError):
                        self._heard(lessor_message(await self._mailbox.receive(timeout=max(left, 0.1))))
        except BridgeError:
            # The node ends. Whoever waits does so in vain, and not for long.
            pass
        finally:
            self._on_end(self)

    def _heard(self, message: Renewed | Lost | Streaming) -> None:
        match message:
            case Renewed():
                self._tell(message, upto=message.number)
            case Lost():
                self._tell(None)
            case Streaming():
                answer = asyncio.create_task(self._answer(message))
                self._answers.add(answer)
                answer.add_done_callback(self._answers.discard)

    def _tell(self, word: Renewed | None, *, upto: int | None = None) -> None:
        for waiting, number in self._waiting.items():
            if not waiting.done() and (upto is None or number <= upto):
                waiting.set_result(word)

    async def _answer(self, question: Streaming) -> None:
        word = self._word
        assert word is not None, "the lessor asks whoever has renewed"
        # The lessor waits for a moment only, and finds others.
        with contextlib.suppress(BridgeError):
            answer = streams(
                question,
                load=word.load,
                entities=await self._vouched([name for name in question.entities if name in word.streamed]),
                released=[(name, word.released[name]) for name in question.entities if name in word.released],
            )
            await self._send(answer)

    async def _vouched(self, streamed: list[str]) -> list[str]:
        records = await entity_records(self._here, streamed)
        players = list({player for record in records for player in (record.owner, record.master)})
        places = await asyncio.gather(
            *(record_at(self._here, bridge_path("players", player)) for player in players)
        )
        present = {
            player
            for player, place in zip(players, places, strict=True)
            if place is not None and place[Atom("session")] == self.session
        }
        return [record.entity for record in records if not present.isdisjoint((record.owner, record.master))]
