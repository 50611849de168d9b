"""Transfers between simulation servers on a real cluster, with their real data planes over UDP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import pytest_asyncio

from bridge.authority import (
    CASES,
    Acceptance,
    HandOver,
    Release,
    Released,
    Transfer,
    check,
    decode_entries,
    encode_message,
    release_context,
    transfers,
)
from bridge.cluster.local import LocalCluster
from bridge.errors import AuthorityError, ConfigurationError, InvalidStateError
from bridge.etf import Atom
from bridge.jose import Jwk, seal_signed_box
from bridge.khepri import Khepri
from bridge.registry import ConflictError, DeniedError, NotHolderError, Ownership, Rule
from bridge.replication import encode_state
from bridge.replication.world import WorldState
from bridge.sim.asks import Asks
from bridge.sim.dataplane.messages import Follow, SendMessage
from bridge.sim.events import Problem
from bridge.sim.settling import Settling
from bridge.sim.transfers import Transfers
from tests.support.cluster import fresh, hidden_node
from tests.support.sealing import Bench
from tests.support.simulation import Observed, simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Trio = tuple[Observed, Observed, Observed]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trio(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trio]:
    """Three servers that know each other; the first one sends on for a while after each hand-over."""
    names = [fresh("sim") for _ in range(3)]
    key_file = str(tmp_path_factory.mktemp("keys") / "key.pem")
    async with (
        simulation(cluster, names[0], linger_ms=1000) as a,
        simulation(cluster, names[1]) as b,
        simulation(cluster, names[2], key_file=key_file) as c,
    ):
        for one in (a, b, c):
            for other in (a, b, c):
                if one is not other:
                    await one.meets(other)
        yield a, b, c


@pytest.fixture
def ball() -> str:
    return fresh("ball")


async def spawned(holder: Observed, ball: str, **values: Rule) -> int:
    record = await holder.server.transfers.spawn(ball, owner="Player1", position=(1.0, 2.0, 3.0), **values)
    return record.epoch


async def learned(observed: Observed, ball: str, epoch: int, holder: Observed) -> None:
    """Wait until a server has the newest grant from the homeserver, shown by its accepting the state."""
    await observed.sees(ball, epoch, holder)


def where(observed: Observed, ball: str) -> list[float]:
    position: list[float] = observed.server.transfers.state(ball).position.tolist()
    return position


class Messages:
    """The messages that cross from here on."""

    def __init__(self, *observed: Observed) -> None:
        self._since = [(one.server, len(one.server.transfers.messages)) for one in observed]

    def transfer(self) -> Transfer:
        found = transfers(m for server, since in self._since for m in server.transfers.messages[since:])
        assert len(found) == 1
        return found[0]

    async def until(self, kind: str) -> Transfer:
        """Recorded by tasks of the servers, some turns of the event loop after what the test awaited."""
        async with asyncio.timeout(10):
            while not any(
                m.kind == kind for server, since in self._since for m in server.transfers.messages[since:]
            ):
                await asyncio.sleep(0.001)
        return self.transfer()


async def test_a_world_is_spawned_at_once_and_seen_elsewhere(cluster: LocalCluster) -> None:
    """R0-52: more of it than go in one group of requests."""
    world = {fresh("tree"): (float(number), 2.0, 3.0) for number in range(150)}
    async with (
        simulation(cluster, fresh("sim"), capacity=512) as a,
        simulation(cluster, fresh("sim"), capacity=512) as b,
    ):
        records = await a.server.transfers.spawn_many(world, owner="Player1", rule=Rule.DENY)
        assert records.keys() == world.keys() == set(a.server.transfers.held())
        assert {(one.owner, one.rule, one.server) for one in records.values()} == {
            ("Player1", Rule.DENY, a.name)
        }
        for name, record in records.items():
            await b.sees(name, record.epoch, a)


async def test_of_a_world_that_cannot_all_be_spawned_the_first_refusal_is_told(trio: Trio, ball: str) -> None:
    a, b, _ = trio
    await spawned(b, ball)
    first = fresh("tree")
    world = {first: (0.0, 0.0, 0.0), ball: (0.0, 0.0, 0.0)}
    with pytest.raises(ConflictError, match=f"{b.name} holds {ball}"):
        await a.server.transfers.spawn_many(world, owner="Player1")
    assert ball not in a.server.transfers.held()
    assert await a.server.transfers.spawn_many({}, owner="Player1") == {}


async def test_a_push_crosses_in_four_messages_of_which_two_precede_authority(trio: Trio, ball: str) -> None:
    """R0-29."""
    a, b, _ = trio
    await spawned(a, ball)
    messages = Messages(a, b)
    record = await a.server.transfers.push(ball, owner="Player2", to=b.name)
    assert (record.server, record.owner, record.master) == (b.name, "Player2", "Player1")
    await b.acts(ball, record.epoch)
    await a.sees(ball, record.epoch, b)
    transfer = await messages.until("accepted")
    kinds, path = CASES["push"].kinds, CASES["push"].path
    assert sorted(m.kind for m in transfer.messages) == sorted(kinds)
    assert (transfer.case, transfer.critical_path) == ("push", path)


async def test_a_pull_crosses_in_four_messages_of_which_three_precede_authority(
    trio: Trio, ball: str
) -> None:
    """R0-29."""
    a, b, _ = trio
    epoch = await spawned(a, ball)
    await learned(b, ball, epoch, a)
    messages = Messages(a, b)
    record = await b.server.transfers.pull(ball, owner="Player2")
    assert ball in b.server.transfers.held()
    assert ball not in a.server.transfers.held()
    await a.sees(ball, record.epoch, b)
    transfer = messages.transfer()
    kinds, path = CASES["pull"].kinds, CASES["pull"].path
    assert sorted(m.kind for m in transfer.messages) == sorted(kinds)
    assert (transfer.case, transfer.critical_path) == ("pull", path)


async def test_a_switch_goes_directly_and_ends_with_state_under_the_new_epoch(trio: Trio, ball: str) -> None:
    """R0-33: the release travels with the offer, and the homeserver's answer goes to the new holder."""
    a, b, _ = trio
    await spawned(a, ball)
    messages = Messages(a, b)
    await a.server.transfers.offer(ball, owner="Player2", to=b.name)
    transfer = await messages.until("state")
    assert [(m.kind, m.hop) for m in transfer.messages] == [
        ("offer", 0),
        ("claim", 1),
        ("answer", 2),
        ("state", 3),
    ]
    kinds, path = CASES["switch"].kinds, CASES["switch"].path
    assert tuple(m.kind for m in transfer.messages) == kinds
    assert (transfer.case, transfer.critical_path) == ("switch", path)
    assert ball in b.server.transfers.held()
    with pytest.raises(InvalidStateError, match="following"):
        await a.server.transfers.offer(ball, owner="Player1", to=b.name)


async def test_giving_changes_the_owner_and_not_the_authority(trio: Trio, ball: str) -> None:
    a, _, _ = trio
    epoch = await spawned(a, ball)
    given = await a.server.transfers.give(ball, owner="Player3")
    assert (given.owner, given.server, given.epoch) == ("Player3", a.name, epoch)


async def test_state_moves_unchanged_and_late_records_are_refused(trio: Trio, ball: str) -> None:
    """R0-27, R0-6: the first server goes on sending under its old epoch on purpose."""
    a, b, c = trio
    await spawned(a, ball)
    a.server.transfers.place(ball, (10.0, 20.0, 30.0), (1.0, -1.0, 0.5))
    before = (await b.server.report()).verdicts.get("late", 0)
    epoch = (await a.server.transfers.push(ball, owner="Player2", to=b.name)).epoch
    await b.acts(ball, epoch)
    await a.sees(ball, epoch, b)
    async with asyncio.timeout(20):
        while (await b.server.report()).verdicts.get("late", 0) == before:
            await asyncio.sleep(0.01)
    reports = [await one.server.report() for one in (a, b, c)]
    entries = decode_entries(line for report in reports for line in report.history)
    gave = [e for e in entries if isinstance(e, HandOver) and e.entity == ball and e.side == "gave"]
    took = [e for e in entries if isinstance(e, HandOver) and e.entity == ball and e.side == "took"]
    assert [e.hash for e in gave] == [e.hash for e in took] != []
    # What was refused as late appears in nobody's acceptances beside the new holder's.
    accepted = [e for e in entries if isinstance(e, Acceptance) and e.entity == ball and e.receiver == b.name]
    assert all(e.sender == a.name and e.epoch < epoch for e in accepted)
    assert all(report.malformed == 0 for report in reports)


async def test_servers_that_sign_what_they_say_pass_entities_as_others_do(
    cluster: LocalCluster, ball: str
) -> None:
    """B-2: each datagram is from the server that the homeserver knows, and can be shown to be."""
    async with (
        simulation(cluster, fresh("sim"), signed=True) as a,
        simulation(cluster, fresh("sim")) as b,
    ):
        await a.meets(b)
        await b.meets(a)
        first = await spawned(a, ball)
        await b.sees(ball, first, a)
        second = (await a.server.transfers.push(ball, owner="Player2", to=b.name)).epoch
        await b.acts(ball, second)
        await a.sees(ball, second, b)
        reports = [await one.server.report() for one in (a, b)]
        assert all(report.malformed == 0 for report in reports)
        assert all(report.verdicts["accepted"] > 0 for report in reports)


async def test_what_another_server_holds_is_seen_where_it_is(trio: Trio, ball: str) -> None:
    """R0-34: its state arrives, and follows the ball to its next holder."""
    a, b, c = trio
    epoch = await spawned(a, ball)
    a.server.transfers.place(ball, (10.0, 20.0, 30.0))
    async with asyncio.timeout(10):
        for observer in (b, c):
            await learned(observer, ball, epoch, a)
            while where(observer, ball) != pytest.approx([10.0, 20.0, 30.0]):
                await asyncio.sleep(0.005)
        await a.server.transfers.push(ball, owner="Player2", to=b.name)
        await b.acts(ball, a.server.transfers._standing.holdings[ball].epoch)
        b.server.transfers.place(ball, (11.0, 20.0, 30.0))
        for observer in (a, c):
            while where(observer, ball) != pytest.approx([11.0, 20.0, 30.0]):
                await asyncio.sleep(0.005)
    with pytest.raises(InvalidStateError, match="no state of nothing"):
        a.server.transfers.state("nothing")


async def test_nobody_acts_twice_however_wildly_an_entity_is_passed(
    trio: Trio, cluster: LocalCluster, ball: str
) -> None:
    """R0-6, R0-8, R0-27: every server pulls, pushes and offers as it likes; the checker finds nothing."""
    epoch = await spawned(trio[0], ball)
    for other in trio[1:]:
        await learned(other, ball, epoch, trio[0])

    refusals: set[str] = set()

    async def play(me: Observed, other: Observed) -> None:
        for turn in range(12):
            try:
                if turn % 3 == 0 and ball in me.server.transfers.held():
                    await me.server.transfers.push(ball, owner=me.name, to=other.name)
                elif turn % 3 == 1 and ball in me.server.transfers.held():
                    await me.server.transfers.offer(ball, owner=me.name, to=other.name)
                else:
                    await me.server.transfers.pull(ball, owner=me.name)
            except (ConflictError, NotHolderError, InvalidStateError):
                continue
            except AuthorityError as error:
                refusals.add(str(error.reason))
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(*(play(trio[i], trio[(i + 1) % 3]) for i in range(3)))
    assert refusals <= {"already_held"}
    await settled(trio, cluster, ball)
    reports = [await one.server.report() for one in trio]
    entries = decode_entries(line for report in reports for line in report.history)
    async with (
        hidden_node(cluster) as node,
        Khepri.connect(node, cluster.members, store=cluster.store) as store,
    ):
        final = await store.get([Atom("bridge"), Atom("entities"), ball], favor="consistency")
    verdict = check(entries, final_epochs={ball: final[Atom("epoch")]})
    assert verdict.violations == []
    assert verdict.acts > 3


async def settled(trio: Trio, cluster: LocalCluster, ball: str) -> None:
    """Wait until the one server that the homeserver names acts for the entity, and no other."""
    async with (
        hidden_node(cluster) as node,
        Khepri.connect(node, cluster.members, store=cluster.store) as store,
    ):
        async with asyncio.timeout(30):
            while True:
                record = await store.get([Atom("bridge"), Atom("entities"), ball], favor="consistency")
                holders = [one.name.encode() for one in trio if ball in one.server.transfers.held()]
                if holders == [record[Atom("server")]]:
                    return
                await asyncio.sleep(0.02)


async def test_the_list_of_what_a_server_holds_is_the_homeservers(
    trio: Trio, cluster: LocalCluster, ball: str
) -> None:
    """R0-2."""
    a, b, _ = trio
    await spawned(a, ball)
    await spawned(a, f"{ball}-2")
    await b.acts(ball, (await a.server.transfers.push(ball, owner="Player2", to=b.name)).epoch)
    async with (
        hidden_node(cluster) as node,
        Khepri.connect(node, cluster.members, store=cluster.store) as store,
    ):
        records = await store.get_many("/:bridge/:entities/*", favor="consistency")
    for one in trio:
        registered = {
            record[Atom("entity")].decode()
            for record in records.values()
            if record[Atom("session")] == one.server.session
        }
        assert set(one.server.transfers.held()) == registered


async def test_a_push_overtaken_by_a_pull_is_refused_and_the_recall_obeyed(trio: Trio, ball: str) -> None:
    a, b, c = trio
    epoch = await spawned(a, ball)
    await learned(b, ball, epoch, a)
    with a.frozen():
        pushing = asyncio.create_task(a.server.transfers.push(ball, owner="Player3", to=c.name))
        await asyncio.sleep(0)
        pulling = asyncio.create_task(b.server.transfers.pull(ball, owner="Player2"))
        # The pull is committed once the homeserver has answered it, which its recorder notes.
        await Messages(b).until("answer")
    with pytest.raises(NotHolderError):
        await pushing
    record = await pulling
    assert ball in b.server.transfers.held()
    assert ball not in a.server.transfers.held()
    await a.sees(ball, record.epoch, b)


async def test_a_recall_that_comes_while_a_release_is_awaited_is_obeyed_afterwards(
    trio: Trio, ball: str
) -> None:
    a, b, c = trio
    epoch = await spawned(a, ball)
    for other in (b, c):
        await learned(other, ball, epoch, a)
    with a.frozen():
        first = asyncio.create_task(b.server.transfers.pull(ball, owner="Player2"))
        answered = await Messages(b).until("answer")
        assert answered.case == "pull"
        second = asyncio.create_task(pull_until_won(c, ball))
        await Messages(c).until("answer")
        assert ball not in b.server.transfers.held()
        assert ball not in c.server.transfers.held()
    await first
    record_epoch = await second
    await c.acts(ball, record_epoch)
    assert ball not in b.server.transfers.held()
    reports = [await one.server.report() for one in trio]
    entries = decode_entries(line for report in reports for line in report.history)
    assert check([e for e in entries if getattr(e, "entity", "") == ball]).violations == []


async def pull_until_won(observed: Observed, ball: str) -> int:
    """Pull as often as it takes to have heard of the newest epoch."""
    async with asyncio.timeout(20):
        while True:
            try:
                return (await observed.server.transfers.pull(ball, owner="Player3")).epoch
            except ConflictError:
                await asyncio.sleep(0.005)


async def test_a_wait_ends_when_the_session_that_was_waited_for_ends(
    trio: Trio, cluster: LocalCluster, ball: str
) -> None:
    """A holder that crashed signs no release; the end of its session says that none is due."""
    _, b, c = trio
    async with simulation(cluster, fresh("sim")) as crashed:
        epoch = await spawned(crashed, ball)
        await learned(b, ball, epoch, crashed)
        # Stopped first: its server ends the session once it is dead, and the pull is to come before.
        with crashed.frozen():
            messages = Messages(b)
            pulling = asyncio.create_task(b.server.transfers.pull(ball, owner="Player2"))
            await messages.until("answer")
            assert ball not in b.server.transfers.held()
            os.kill(crashed.data_plane, signal.SIGKILL)
        await crashed.told(Problem, fatal=True)
    record = await pulling
    assert ball in b.server.transfers.held()
    await c.sees(ball, record.epoch, b)


async def test_the_end_of_a_middle_holders_session_makes_the_older_release_due(
    trio: Trio, cluster: LocalCluster, ball: str
) -> None:
    """What was released to a server that is gone is signed again for the one that waits now."""
    a, b, c = trio
    epoch = await spawned(a, ball)
    async with simulation(cluster, fresh("sim")) as middle:
        await middle.meets(a)
        await learned(middle, ball, epoch, a)
        with a.frozen():
            waiting = asyncio.create_task(middle.server.transfers.pull(ball, owner="Player3"))
            await Messages(middle).until("answer")
            second = asyncio.create_task(pull_until_won(b, ball))
            await Messages(b).until("answer")
            waiting.cancel()
            await middle.server.close()
    await second
    assert ball in b.server.transfers.held()
    await c.sees(ball, b.server.transfers._standing.holdings[ball].epoch, b)


async def test_a_release_signed_by_a_third_server_does_not_end_the_wait(
    trio: Trio, ball: str, cluster: LocalCluster
) -> None:
    """R0-20: only the key that the homeserver has for the awaited holder counts."""
    a, b, c = trio
    epoch = await spawned(a, ball)
    await learned(b, ball, epoch, a)
    assert c.server.config.key_file is not None
    thief = Jwk.from_pem(Path(c.server.config.key_file).read_bytes())
    async with (
        hidden_node(cluster) as node,
        Khepri.connect(node, cluster.members, store=cluster.store) as store,
    ):
        victim = await store.get([Atom("bridge"), Atom("servers"), b.name])
    state = WorldState(tick=1, position=np.zeros(3), velocity=np.zeros(3))
    box = seal_signed_box(
        encode_message(Release(entity=ball, epoch=epoch, state=encode_state(state))),
        sender=thief,
        recipient=Jwk.from_json(victim[Atom("key")].decode()),
        session=c.server.session,
        sequence=epoch,
        issued_at_ms=1_800_000_000_000,
        lifetime_ms=0,
        purpose="release",
        direction="n",
        context=release_context(ball, epoch),
    )
    with a.frozen():
        pulling = asyncio.create_task(b.server.transfers.pull(ball, owner="Player2"))
        answer = (await Messages(b).until("answer")).messages[-1]
        granted = b.server.transfers._standing.holdings[ball].epoch
        forged = Released(trace=answer.trace, hop=2, entity=ball, epoch=granted, box=box)
        known = len(b.problems())
        c.server._plane.tell(SendMessage(to=b.name, message=encode_message(forged)))
        await b.until(lambda: len(b.problems()) > known)
        assert "names another sender" in b.problems()[-1]
        assert ball not in b.server.transfers.held()
    assert (await pulling).epoch == granted
    assert ball in b.server.transfers.held()


async def test_a_refused_push_leaves_the_entity_where_it_is(trio: Trio, ball: str) -> None:
    a, b, _ = trio
    await spawned(a, ball)
    with pytest.raises(InvalidStateError, match="is this server"):
        await a.server.transfers.push(ball, owner="Player2", to=a.name)
    with pytest.raises(ConfigurationError):
        await a.server.transfers.push(ball, owner="", to=b.name)
    assert ball in a.server.transfers.held()
    record = await a.server.transfers.push(ball, owner="Player2", to=b.name)
    await b.acts(ball, record.epoch)
    await a.sees(ball, record.epoch, b)


async def test_an_entity_that_is_not_held_is_neither_placed_nor_passed(trio: Trio, ball: str) -> None:
    """R0-6."""
    a, b, _ = trio
    await spawned(a, ball)
    with pytest.raises(InvalidStateError, match="does not hold"):
        b.server.transfers.place(ball, (0, 0, 0))
    with pytest.raises(InvalidStateError, match="does not hold"):
        await b.server.transfers.push(ball, owner="Player2", to=a.name)
    with pytest.raises(InvalidStateError, match="does not hold"):
        await b.server.transfers.give(ball, owner="Player2")


async def test_spawning_takes_a_dormant_entity_and_never_a_held_one(
    trio: Trio, cluster: LocalCluster, ball: str
) -> None:
    a, b, _ = trio
    async with simulation(cluster, fresh("sim")) as leaver:
        epoch = await spawned(leaver, ball)
        await learned(a, ball, epoch, leaver)
        with pytest.raises(ConflictError) as caught:
            await a.server.transfers.spawn(ball, owner="Player2", position=(0, 0, 0))
        assert caught.value.winner == leaver.name
        await leaver.server.transfers._home.release(entity=ball, epoch=epoch)
    record = await a.server.transfers.spawn(ball, owner="Player2", position=(0, 0, 0))
    assert record.epoch > epoch
    await b.sees(ball, record.epoch, a)


async def test_a_rule_that_forbids_is_told(trio: Trio, ball: str) -> None:
    """R0-8."""
    a, b, _ = trio
    await learned(b, ball, await spawned(a, ball, rule=Rule.DENY), a)
    with pytest.raises(DeniedError):
        await b.server.transfers.pull(ball, owner="Player9")
    assert ball in a.server.transfers.held()


async def test_no_more_entities_than_slots(cluster: LocalCluster) -> None:
    async with simulation(cluster, fresh("sim"), capacity=1) as small:
        await spawned(small, fresh("ball"))
        with pytest.raises(ConfigurationError, match="raise the capacity"):
            await spawned(small, fresh("ball"))


async def test_a_push_that_is_cancelled_while_the_data_plane_stands_still_leaves_the_entity_acted_for(
    cluster: LocalCluster, ball: str
) -> None:
    async with simulation(cluster, fresh("sim")) as giver, simulation(cluster, fresh("sim")) as other:
        await giver.meets(other)
        epoch = await spawned(giver, ball)
        await other.sees(ball, epoch, giver)
        with giver.frozen():
            push = asyncio.create_task(giver.server.transfers.push(ball, owner="Player2", to=other.name))
            async with asyncio.timeout(10):
                while giver.server.transfers.held():
                    await asyncio.sleep(0)
            push.cancel()
            with pytest.raises(asyncio.CancelledError):
                await push
        assert giver.server.transfers.held() == [ball]
        seen = other.server.transfers.state(ball).tick
        async with asyncio.timeout(10):
            while other.server.transfers.state(ball).tick <= seen + 1:
                await asyncio.sleep(0.01)
        record = await giver.server.transfers.push(ball, owner="Player2", to=other.name)
        await other.acts(ball, record.epoch)
        assert giver.problems() == []


async def test_that_more_came_than_can_be_followed_is_said_once_with_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else whoever configured less than a world has would wait for the rest of it for ever."""
    bench = Bench()
    some = Transfers(
        standing=bench.standing,
        home=bench.home,
        players=cast(Ownership, None),
        asks=cast(Asks, None),
        settling=cast(Settling, None),
        may_act=lambda: True,
        on_event=bench.events.append,
        spawn=lambda work: work.close(),
    )
    for number in range(8):
        some.follow(f"tree{number}")
    assert [command.entity for command in bench.plane.told if isinstance(command, Follow)] == [
        f"tree{number}" for number in range(4)
    ]
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.startswith("sim1 has no room for the state of tree4")
    assert "4 entities at most; raise follow, and capacity" in told
