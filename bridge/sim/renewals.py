"""Keeps a session's lease: renewals to the lessor, its acknowledgements into the data plane's deadline.

Nothing is repeated or queued: each renewal has its own number and is sent once, to the member that the server
is connected to; what is lost on the way is followed by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Final, Protocol

from bridge.authority import Lease
from bridge.errors import BridgeError, DecodeError
from bridge.etf import Pid
from bridge.node import Gateway, Mailbox
from bridge.registry import LESSOR, Lost, Recalled, Renewed, Streaming, lessor_message, renew, streams
from bridge.sim.dataplane.deadline import Deadline, boot_ns

_SUSPECT_AFTER: Final = 2
"""renewals in a row, a third of a lease, after which another member is tried: an election is over sooner, so
this one is cut off from its cluster, or stands still with its connections open"""

_log = logging.getLogger("bridge.sim")


class Load(Protocol):
    """What a renewal says of the server, asked each time."""

    def tick(self) -> int:
        """A count that rises while the server does its work, and stands still where it hangs."""

    def held(self) -> int:
        """Entities held."""

    def obeyed(self, recalls: tuple[Recalled, ...]) -> Iterable[Recalled]:
        """Of the recalls that the lessor believes open, those that were obeyed."""

    async def streamed(self, entities: tuple[str, ...]) -> tuple[str, ...]:
        """Of these entities, those whose newest state is here."""

    def released(self, entities: tuple[str, ...]) -> Iterable[tuple[str, int]]:
        """Of these entities, those that the session has released for good, with the newest epoch."""


class Renewals:
    """Renewals of one session.

    Args:
        gateway: the connection to a homeserver.
        lease: of the session.
        deadline: of the data plane; set with each acknowledgement.
        load: what the server has to say.

    Attributes:
        acknowledged: set once the first renewal is acknowledged.
    """

    def __init__(self, *, gateway: Gateway, lease: Lease, deadline: Deadline, load: Load) -> None:
        self.acknowledged = asyncio.Event()
        self._gateway = gateway
        self._lease = lease
        self._deadline = deadline
        self._load = load
        self._recalls: tuple[Recalled, ...] = ()
        self._unheard = 0
        self._answers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Renew until the session is lost; returns then."""
        async with self._gateway.node.mailbox() as mailbox:
            sending = asyncio.create_task(self._send_forever(mailbox.pid))
            hearing = asyncio.create_task(self._hear_until_lost(mailbox))
            try:
                # One that renews no more is told nothing more either, not even that it is lost.
                done, _ = await asyncio.wait((sending, hearing), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                tasks = (sending, hearing, *self._answers)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear_until_lost(self, mailbox: Mailbox) -> None:
        while not self._is_lost(await mailbox.receive()):
            pass

    async def _send_forever(self, pid: Pid) -> None:
        loop = asyncio.get_running_loop()
        interval = self._lease.interval_ns / 1e9
        due = loop.time()
        while True:
            member = self._gateway.current
            if member is not None:
                await self._send(member, pid, interval)
            began = loop.time()
            due = max(due + interval, began)
            await asyncio.sleep(due - began)
            # Who stood still itself has not read what came meanwhile. To leave a member for that is to be
            # told the whole world anew, which may take as long again, and so for ever.
            if due - began > interval / 2 > loop.time() - due:
                self._look_elsewhere(member)

    async def _send(self, member: str, pid: Pid, seconds: float) -> None:
        obeyed = self._load.obeyed(self._recalls)
        # The lease counts from here; whatever delays what follows only shortens it.
        number = self._lease.renewal(boot_ns())
        message = renew(
            pid,
            session=self._lease.session,
            number=number,
            tick=self._load.tick(),
            load=self._load.held(),
            obeyed=obeyed,
        )
        try:
            async with asyncio.timeout(seconds):
                await self._gateway.node.send((LESSOR, member), message)
        except (BridgeError, TimeoutError) as error:
            _log.info("renewal %d of a session was not sent: %s", number, error)

    def _look_elsewhere(self, member: str | None) -> None:
        """A renewal had all of its time."""
        self._unheard += 1
        if member is not None and self._unheard >= _SUSPECT_AFTER:
            self._unheard = 0
            self._gateway.suspect(member)

    def _is_lost(self, term: object) -> bool:
        """Serve a message of the lessor; whether the session is lost."""
        try:
            message = lessor_message(term)
        except DecodeError as error:
            _log.warning("%s", error)
            return False
        if message.session != self._lease.session:
            return False
        match message:
            case Renewed():
                self._unheard = 0
                self._recalls = message.recalls
                if self._lease.acknowledged(message.number):
                    self._deadline.set(self._lease.acts_until_ns)
                    self.acknowledged.set()
            case Lost():
                return True
            case Streaming():
                answer = asyncio.create_task(self._answer(message))
                self._answers.add(answer)
                answer.add_done_callback(self._answers.discard)
        return False

    async def _answer(self, question: Streaming) -> None:
        member = self._gateway.current
        with contextlib.suppress(BridgeError):
            found = await self._load.streamed(question.entities)
            if member is not None:
                answer = streams(
                    question,
                    load=self._load.held(),
                    entities=found,
                    released=self._load.released(question.entities),
                )
                await self._gateway.node.send((LESSOR, member), answer)
