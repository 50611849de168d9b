"""Renewals between a server and a member that is a node of Python's, whose lessor is the test."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.authority import Lease
from bridge.etf import Atom, Pid
from bridge.node import Gateway, HiddenNode, Mailbox, NodeConfig
from bridge.registry import LESSOR, Recalled
from bridge.sim.dataplane.deadline import Deadline, boot_ns, shared_size
from bridge.sim.renewals import Renewals

SESSION = b"s" * 16
COOKIE = "secret"


class Load:
    """What the server has to say."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.fails = False

    def tick(self) -> int:
        if self.fails:
            raise LookupError("no tick")
        return 42

    def held(self) -> int:
        return 3

    def obeyed(self, recalls: tuple[Recalled, ...]) -> list[Recalled]:
        return [recall for recall in recalls if recall[0] == "ball"]

    async def streamed(self, entities: tuple[str, ...]) -> tuple[str, ...]:
        self.asked.append(entities)
        return entities[:1]

    def released(self, entities: tuple[str, ...]) -> list[tuple[str, int]]:
        return [(entity, 5) for entity in entities[1:]]


class Member:
    """A member, and what its lessor hears."""

    def __init__(self, node: HiddenNode) -> None:
        self.node = node
        self.lessor: Mailbox = node.mailbox(LESSOR)

    async def renewal(self) -> Any:
        kind, *rest = await self.lessor.receive(timeout=20)
        assert kind == Atom("renew")
        return rest

    async def tell(self, to: Pid, *message: Any) -> None:
        await self.node.send(to, (Atom(message[0]), *message[1:]))


class Renewing:
    """Renewals that run, and the member that takes them."""

    def __init__(self, members: list[Member], lease_ms: int, gateway: Gateway) -> None:
        self.members = members
        self.member = members[0]
        self.gateway = gateway
        self.load = Load()
        self.lease = Lease(SESSION, lease_ms * 1_000_000, margin_ns=10 * 1_000_000)
        self.deadline = Deadline(bytearray(shared_size(1)), 1)
        self.renewals = Renewals(gateway=gateway, lease=self.lease, deadline=self.deadline, load=self.load)
        self.running = asyncio.create_task(self.renewals.run())


@contextlib.asynccontextmanager
async def renewing(*, lease_ms: int = 600, members: int = 1) -> AsyncIterator[Renewing]:
    async with contextlib.AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(
                HiddenNode(
                    f"m{number}@127.0.0.1", cookie=COOKIE, config=NodeConfig(register=False, epmd_port=1)
                )
            )
            for number in range(members)
        ]
        config = NodeConfig(register=False, ports={node.name: node.port for node in others})
        node = await stack.enter_async_context(HiddenNode("sim1@127.0.0.1", cookie=COOKIE, config=config))
        gateway = await stack.enter_async_context(Gateway(node, [other.name for other in others]))
        await gateway.connect(timeout=20)
        made = Renewing([Member(other) for other in others], lease_ms, gateway)
        try:
            yield made
        finally:
            made.running.cancel()
            await asyncio.gather(made.running, return_exceptions=True)


async def test_each_renewal_is_sent_once_with_a_number_that_rises_by_one() -> None:
    async with renewing() as one:
        told = [await one.member.renewal() for _ in range(4)]
        assert [number for _, _, number, *_ in told] == [1, 2, 3, 4]
        assert {tuple(rest[1:2] + rest[3:5]) for rest in told} == {(SESSION, 42, 3)}
        assert not one.renewals.acknowledged.is_set()
        assert one.deadline.is_over()


async def test_an_acknowledgement_sets_the_deadline_that_counts_from_before_the_renewal() -> None:
    async with renewing(lease_ms=60_000) as one:
        before = boot_ns()
        pid, _, number, *_ = await one.member.renewal()
        await one.member.tell(pid, "renewed", SESSION, number, 1, [])
        await asyncio.wait_for(one.renewals.acknowledged.wait(), 20)
        assert not one.deadline.is_over()
        assert one.lease.acts_until_ns <= before + 60_000 * 1_000_000
        assert one.lease.acts_until_ns == int(one.deadline._word[0])


async def test_recalls_that_an_acknowledgement_names_are_told_once_they_are_obeyed() -> None:
    async with renewing() as one:
        pid, _, number, _, _, obeyed = await one.member.renewal()
        assert obeyed == []
        await one.member.tell(pid, "renewed", SESSION, number, 1, [(b"ball", 5), (b"sack", 6)])
        while not obeyed:
            *_, obeyed = await one.member.renewal()
        assert obeyed == [(b"ball", 5)]


async def test_news_of_another_session_and_nonsense_change_nothing() -> None:
    async with renewing() as one:
        pid, _, number, *_ = await one.member.renewal()
        await one.member.tell(pid, "renewed", b"o" * 16, number, 1, [])
        await one.member.tell(pid, "lost", b"o" * 16)
        await one.member.tell(pid, "nonsense")
        await one.member.tell(pid, "renewed", SESSION, number + 1_000, 1, [])
        await one.member.renewal()
        assert not one.running.done()
        assert one.deadline.is_over()


async def test_a_lost_session_ends_the_renewals() -> None:
    async with renewing() as one:
        pid, *_ = await one.member.renewal()
        await one.member.tell(pid, "lost", SESSION)
        await asyncio.wait_for(one.running, 20)


async def test_renewals_that_cannot_be_made_end_with_their_error() -> None:
    """Who renews no more hears no more: it would be silent for ever."""
    async with renewing() as one:
        one.load.fails = True
        with pytest.raises(LookupError, match="no tick"):
            await asyncio.wait_for(one.running, 20)


async def test_a_question_is_answered_at_the_member_with_its_reference() -> None:
    async with renewing(lease_ms=60_000) as one:
        pid, *_ = await one.member.renewal()
        await one.member.tell(pid, "streaming", 7, SESSION, [b"ball", b"sack"])
        answer = await one.member.lessor.receive(timeout=20)
        assert answer == (Atom("streams"), 7, SESSION, 3, [b"ball"], [(b"sack", 5)])
        assert one.load.asked == [("ball", "sack")]


async def test_a_member_that_brings_no_acknowledgement_is_left_for_another_one() -> None:
    """It may be cut off from its cluster, or stopped, with its connections open."""
    async with renewing(members=2) as one:
        first, second = one.members
        *_, number, _, _, _ = await first.renewal()
        assert number == 1
        *_, number, _, _, _ = await second.renewal()
        assert number > 1


async def test_who_stood_still_itself_reads_what_came_before_it_leaves_a_member() -> None:
    """R0-52: told of a world, it stands still for longer than a member may be silent, and is told it anew."""
    async with renewing(members=2) as one:
        for _ in range(3):
            pid, _, number, *_ = await one.member.renewal()
            await one.member.tell(pid, "renewed", SESSION, number, 1, [])
            time.sleep(one.lease.lease_ns / 2e9)
            await one.member.renewal()
            assert one.gateway.current == one.member.node.name


@pytest.mark.slow
async def test_silence_lets_the_lease_run_out_and_an_answer_brings_it_back() -> None:
    async with renewing(lease_ms=300) as one:
        pid, _, number, *_ = await one.member.renewal()
        await one.member.tell(pid, "renewed", SESSION, number, 1, [])
        await asyncio.wait_for(one.renewals.acknowledged.wait(), 20)
        while not one.deadline.is_over():
            await one.member.renewal()
        for _ in range(100):
            pid, _, number, *_ = await one.member.renewal()
            await one.member.tell(pid, "renewed", SESSION, number, 1, [])
            if not one.deadline.is_over():
                return
        raise AssertionError("the lease did not come back")
