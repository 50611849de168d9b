"""Carries what is in escrow to its receiver, and the receiver's decision home.

The tree says what is to be done (``/:bridge/:escrow``), so a courier has no memory of its own: one that
starts anywhere in a transfer does what the tree says, again, and every step of it may be done twice. So each
process of an instance may have a courier, and one is enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from bridge.authority import Message
from bridge.errors import (
    BridgeError,
    ConfigurationError,
    DecodeError,
    ProtocolError,
)
from bridge.etf import Atom
from bridge.homeserver.federation.asking import Asker
from bridge.homeserver.federation.documents import (
    Accepted,
    AskServers,
    Moved,
    Noted,
    Offer,
    Refused,
    Servers,
    Settle,
    Settled,
    act_of,
)
from bridge.homeserver.federation.escrows import Escrow, Escrows, Outgoing, escrow_from_term
from bridge.homeserver.federation.link import Link, RejectedError
from bridge.homeserver.federation.reaching import ReachedLink, UnreachableError
from bridge.jose.credentials import Signer
from bridge.jose.encoding import base64url_decode_untrusted
from bridge.khepri import Deleted, Khepri, NativePath, Snapshot, Updated

_log = logging.getLogger("bridge.homeserver.federation")

_random: Final = secrets.SystemRandom()
_BRIDGE: Final = Atom("bridge")
_ESCROW: Final = Atom("escrow")
_OUTGOING: Final = Atom("outgoing")


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierConfig:
    """How a courier works; all in seconds but ``at_once``."""

    patience: float = 30.0
    """how long to offer before the receiver is asked to refuse: nobody acts for the entity meanwhile"""
    first_wait: float = 0.05
    """after the first failure; doubled with each, at random below"""
    longest_wait: float = 10.0
    """between two attempts: a receiver that is away decides when it is back"""
    settle_every: float = 1.0
    """how often receivers are told which answers they may forget"""
    servers_every: float = 2.0
    """how often peers are asked for their servers"""
    at_once: int = 32
    """transfers carried at the same time to one instance: those of others do not wait for one that is slow"""

    def __post_init__(self) -> None:
        if min(self.patience, self.first_wait, self.longest_wait, self.settle_every, self.servers_every) <= 0:
            raise ConfigurationError("the times of a courier are above zero")
        if self.at_once < 1:
            raise ConfigurationError("a courier carries one transfer at once or more")


class Courier:
    """Carries the transfers of one instance to others.

    Args:
        store: client of the instance's store.
        instance: its name.
        signer: its key.
        link: to other instances.
        config: times and bounds.
        on_message: is told of each decision that came, for traces.
        on_problem: is told, in words, of what the operator should know, once as long as it stays so, and of
            its end where another instance was not to be reached; must not block.
        on_question: is told of each question to another instance, by its name, whether it was ``answered``,
            ``rejected`` or the instance ``unreachable``.
        checkpoint: awaited with the name of each step before it is made; for tests that end a courier there.
        clock: Unix seconds.
        monotonic: seconds, for how long an instance was away.
    """

    def __init__(
        self,
        store: Khepri,
        *,
        instance: str,
        signer: Signer,
        link: Link,
        config: CourierConfig | None = None,
        on_message: Callable[[Message], None] = lambda message: None,
        on_problem: Callable[[str], None] = _log.warning,
        on_question: Callable[[str, str], None] = lambda instance, outcome: None,
        checkpoint: Callable[[str], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._escrows = Escrows(store)
        self._instance = instance
        self._asker = Asker(
            self._escrows,
            instance=instance,
            signer=signer,
            link=ReachedLink(link, on_problem=on_problem, on_question=on_question, clock=monotonic),
            clock=clock,
        )
        self._config = config or CourierConfig()
        self._on_message = on_message
        self._on_problem = on_problem
        self._checkpoint = checkpoint or _no_checkpoint
        self._known: dict[int, Escrow] = {}
        self._changed: dict[int, asyncio.Event] = {}
        self._outgoing: dict[str, Outgoing] = {}
        self._rooms: dict[str, asyncio.Semaphore] = {}
        self._problems: dict[tuple[str, str], str] = {}

    async def run(self) -> None:
        """Carry until cancelled.

        Raises:
            BridgeError: the feed of the store cannot be watched.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(self._config.settle_every, "settle", self._settle))
            group.create_task(self._every(self._config.servers_every, "servers", self._exchange_servers))
            await self._watch(group)

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        async with self._store.watch([_BRIDGE, _ESCROW], [_BRIDGE, _OUTGOING]) as feed:
            async for change in feed:
                match change:
                    case Snapshot(nodes=nodes):
                        there = {_transfer(path) for path in nodes}
                        for transfer in [number for number in self._known if number not in there]:
                            self._forget(transfer)
                        for path, data in nodes.items():
                            self._learn(group, path, data)
                    case Updated(path=path, data=data):
                        self._learn(group, path, data)
                    case Deleted(path=path):
                        self._forget(_transfer(path))

    def _learn(self, group: asyncio.TaskGroup, path: NativePath, data: Any) -> None:
        if len(path) != 3 or data is None:
            return
        try:
            if path[1] == _OUTGOING:
                outgoing = Outgoing.from_term(data)
                self._outgoing[outgoing.instance] = outgoing
                return
            escrow = escrow_from_term(data)
        except DecodeError as error:
            # Of another version of the homeserver: the rest still counts.
            self._on_problem(f"escrow: {error}")
            return
        known = escrow.transfer in self._known
        self._known[escrow.transfer] = escrow
        if known:
            self._changed[escrow.transfer].set()
        else:
            self._changed[escrow.transfer] = asyncio.Event()
            group.create_task(self._carry(escrow.transfer))

    def _forget(self, transfer: int) -> None:
        escrow = self._known.pop(transfer, None)
        if escrow is not None:
            self._changed[transfer].set()
            self._problems.pop((escrow.asked, str(transfer)), None)

    async def _carry(self, transfer: int) -> None:
        """One transfer, until the tree has it no more."""
        began = time.monotonic()
        attempt = 0
        changed = self._changed[transfer]
        while (escrow := self._known.get(transfer)) is not None:
            changed.clear()
            try:
                async with self._room(escrow.asked):
                    done = await self._step(escrow)
            except BridgeError as error:
                done = False
                self._report(escrow.asked, str(transfer), f"{escrow.entity} for {escrow.asked}", error)
            if done:
                # The feed says what it became.
                attempt = 0
                await changed.wait()
                continue
            if escrow.state == "open" and time.monotonic() - began > self._config.patience:
                await self._give_up(transfer)
            attempt += 1
            await _first(changed, self._pause(attempt))
        del self._changed[transfer]

    def _room(self, instance: str) -> asyncio.Semaphore:
        return self._rooms.setdefault(instance, asyncio.Semaphore(self._config.at_once))

    async def _step(self, escrow: Escrow) -> bool:
        """Ask, and do as was answered; whether the tree has moved on by it."""
        await self._checkpoint("ask")
        try:
            answer = await self._asker.ask(escrow.asked, escrow.question)
        except RejectedError as error:
            if not isinstance(escrow.question, Moved) or error.kind != "no_entity":
                raise
            # Its home keeps it no more, and so no place of it.
            answer = Noted(entity=escrow.entity)
        await self._checkpoint("answered")
        match answer:
            case Accepted() | Refused() if not isinstance(escrow.question, Moved):
                if int(answer.transfer) != escrow.transfer:
                    raise ProtocolError(f"{escrow.asked} answered about another transfer")
                self._crossed(escrow, answer)
                await self._escrows.close(escrow.instance, answer)
                await self._checkpoint("closed")
            case Noted() if isinstance(escrow.question, Moved):
                await self._escrows.noted(escrow.transfer)
                await self._checkpoint("noted")
            case _:
                raise ProtocolError(f"{escrow.asked} answered {act_of(answer)} to {act_of(escrow.question)}")
        self._problems.pop((escrow.asked, str(escrow.transfer)), None)
        return True

    async def _give_up(self, transfer: int) -> None:
        try:
            await self._escrows.cancel(transfer)
        except BridgeError as error:
            self._on_problem(f"transfer {transfer} cannot be cancelled now: {error}")

    async def _settle(self) -> None:
        """Acknowledgements of what is closed: apart from every transfer, and together."""
        unsettled = [outgoing for outgoing in self._outgoing.values() if outgoing.low > outgoing.settled]
        await asyncio.gather(*(self._settle_with(outgoing) for outgoing in unsettled))

    async def _settle_with(self, outgoing: Outgoing) -> None:
        try:
            answer = await self._asker.ask(outgoing.instance, Settle(low=str(outgoing.low)))
            if isinstance(answer, Settled) and answer.low == str(outgoing.low):
                await self._escrows.settled(outgoing.instance, outgoing.low)
            self._problems.pop((outgoing.instance, "settle"), None)
        except BridgeError as error:
            self._report(outgoing.instance, "settle", f"acknowledging {outgoing.instance}", error)

    async def _exchange_servers(self) -> None:
        peers = await self._escrows.peers()
        await asyncio.gather(*(self._ask_servers(peer.instance) for peer in peers))

    async def _ask_servers(self, instance: str) -> None:
        try:
            answer = await self._asker.ask(instance, AskServers())
            if isinstance(answer, Servers):
                await self._escrows.note_servers(instance, answer.servers)
                self._problems.pop((instance, "servers"), None)
        except BridgeError as error:
            self._report(instance, "servers", f"servers of {instance}", error)

    async def _every(
        self, seconds: float, concern: str, work: Callable[[], Coroutine[object, object, None]]
    ) -> None:
        while True:
            try:
                await work()
                self._problems.pop(("", concern), None)
            except BridgeError as error:
                self._report("", concern, "this instance", error)
            await asyncio.sleep(seconds)

    def _report(self, instance: str, concern: str, what: str, error: BridgeError) -> None:
        """Say what is wrong, once as long as it stays the same."""
        text = f"{what}: {error}"
        if not isinstance(error, UnreachableError) and self._problems.get((instance, concern)) != text:
            self._problems[instance, concern] = text
            self._on_problem(text)

    def _pause(self, attempt: int) -> float:
        # At random, so that many transfers to a peer that comes back do not all ask it in one moment.
        longest = min(self._config.first_wait * 2.0 ** min(attempt, 30), self._config.longest_wait)
        return _random.uniform(longest / 2, longest)

    def _crossed(self, escrow: Escrow, answer: Accepted | Refused) -> None:
        if isinstance(escrow.question, Offer):
            self._on_message(
                Message(
                    trace=base64url_decode_untrusted(answer.trace),
                    hop=answer.hop,
                    kind=act_of(answer),
                    sender=escrow.instance,
                    receiver=self._instance,
                    at_ns=time.monotonic_ns(),
                )
            )


def _transfer(path: NativePath) -> int:
    """Number of a transfer by its path; -1 for any other path."""
    if len(path) == 3 and path[1] == _ESCROW and isinstance(path[2], bytes) and path[2].isdigit():
        return int(path[2])
    return -1


async def _first(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _no_checkpoint(name: str) -> None:
    del name
