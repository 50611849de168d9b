"""Authority requests against a real homeserver cluster, without any simulation server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import AuthorityError, ConfigurationError
from bridge.etf import Atom
from bridge.jose import Jwk
from bridge.khepri import InvalidRequestError, Khepri, TooLargeError
from bridge.node import HiddenNode
from bridge.registry import (
    Awaiting,
    ConflictError,
    DeniedError,
    EntityExistsError,
    EntityRecord,
    Grant,
    Homeserver,
    NameInUseError,
    NotHolderError,
    Recall,
    Rule,
    Step,
    UnknownEntityError,
    UnknownServerError,
)
from tests.support.authority import STEP, Server
from tests.support.cluster import fresh

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture
async def servers(cluster: LocalCluster, node: HiddenNode) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers with open sessions, connected to different members."""
    async with (
        Khepri.connect(node, cluster.members[0], store=cluster.store) as left,
        Khepri.connect(node, cluster.members[1], store=cluster.store) as right,
    ):
        a, b = Server(left, fresh("sim")), Server(right, fresh("sim"))
        assert (await a.open()).held == (await b.open()).held == ()
        yield a, b
        for server in (a, b):
            await server.home.close_session()


@pytest.fixture
def ball() -> str:
    return fresh("ball")


async def bridge_tree(store: Khepri) -> dict[Any, Any]:
    """The homeserver's own tree, without the results kept for operation ids."""
    found = await store.get_many("/:bridge/**")
    return {path: data for path, data in found.items() if path[1] != Atom("clients") and data is not None}


async def test_the_spawner_owns_masters_and_simulates(servers: tuple[Server, Server], ball: str) -> None:
    """R0-8, R0-9."""
    a, _ = servers
    record = await a.spawn(ball)
    assert (record.owner, record.master, record.server, record.session) == (
        "Player1",
        "Player1",
        a.name,
        a.session,
    )
    assert (record.version, record.awaiting, record.home) == (1, None, "local")
    assert record.epoch > 0


async def test_an_entity_is_made_once(servers: tuple[Server, Server], ball: str) -> None:
    a, b = servers
    await a.spawn(ball)
    with pytest.raises(EntityExistsError):
        await b.spawn(ball)


async def test_owner_master_and_authority_can_be_three_parties(
    servers: tuple[Server, Server], ball: str
) -> None:
    """R0-9."""
    a, b = servers
    record = await a.spawn(ball)
    await a.push(record, b, owner="Player3")
    # A local read: the member that is asked may not have applied the change yet.
    async with asyncio.timeout(20):
        while (told := await b.home.entity(ball)).version == record.version:
            await asyncio.sleep(0.01)
    assert (told.owner, told.master, told.server) == ("Player3", "Player1", b.name)


async def test_a_server_is_looked_up_with_its_key_and_address(servers: tuple[Server, Server]) -> None:
    """R0-15, R0-16."""
    a, b = servers
    record = await a.home.server(b.name)
    assert Jwk.from_json(record.key.decode()).thumbprint() == b.key.thumbprint() == record.thumbprint
    assert (record.host, record.port, record.session) == ("127.0.0.1", 4000, b.session)
    with pytest.raises(UnknownServerError):
        await a.home.server("nobody")


async def test_another_key_does_not_get_a_servers_name(servers: tuple[Server, Server]) -> None:
    a, _ = servers
    with pytest.raises(AuthorityError) as caught:
        await Server(a.store, a.name).open()
    assert str(caught.value.reason) == "server_key_mismatch"
    assert (await a.home.server(a.name)).session == a.session


async def test_a_thumbprint_that_is_not_the_keys_is_refused(servers: tuple[Server, Server]) -> None:
    a, b = servers
    with pytest.raises(AuthorityError) as caught:
        await a.home.open_session(
            server=a.name,
            key=a.key.public().to_json().encode(),
            thumbprint=b.key.thumbprint(),
            address=("127.0.0.1", 4000),
        )
    assert str(caught.value.reason) == "invalid_key"


async def test_a_name_whose_session_is_open_gets_no_other_one(
    servers: tuple[Server, Server], ball: str
) -> None:
    """A second process of that name, or what still seals for a dead one, would act beside it."""
    a, _ = servers
    record = await a.spawn(ball)
    again = Server(a.store, a.name, a.key)
    with pytest.raises(NameInUseError) as caught:
        await again.open()
    assert caught.value.session == a.session
    assert await a.home.entity(ball) == record
    await a.home.close_session()
    assert (await again.open()).held == ()
    dormant = await a.home.entity(ball)
    assert (dormant.session, dormant.server, dormant.epoch) == (None, None, record.epoch)
    with pytest.raises(NotHolderError):
        await a.home.give(entity=ball, epoch=record.epoch, owner="Player2", step=STEP)
    await again.home.close_session()


async def test_opening_tells_the_lease(servers: tuple[Server, Server]) -> None:
    a, _ = servers
    opened = await a.open()
    assert opened.lease_ms == 3_600_000
    assert opened.generation >= 1


async def test_a_session_whose_opening_was_repeated_hears_what_it_holds(
    servers: tuple[Server, Server], ball: str
) -> None:
    a, _ = servers
    record = await a.spawn(ball)
    assert record in (await a.open()).held


async def test_a_closed_session_leaves_its_entities_dormant_and_takeable(
    servers: tuple[Server, Server], ball: str
) -> None:
    a, b = servers
    record = await a.spawn(ball)
    await a.home.close_session()
    assert (await a.home.server(a.name)).session is None
    taken = await b.pull(record)
    assert (taken.server, taken.awaiting) == (b.name, None)
    with pytest.raises(UnknownServerError):
        await b.push(taken, a)


async def test_giving_changes_the_owner_and_nothing_else(servers: tuple[Server, Server], ball: str) -> None:
    a, _ = servers
    record = await a.spawn(ball)
    given = await a.home.give(entity=ball, epoch=record.epoch, owner="Player2", step=STEP)
    assert (given.owner, given.epoch, given.server) == ("Player2", record.epoch, a.name)
    assert given.version == record.version + 1


async def test_a_push_hands_over_with_the_release_in_the_inbox(
    servers: tuple[Server, Server], ball: str
) -> None:
    """R0-29: the answer and the grant are the next hop of the same transfer."""
    a, b = servers
    record = await a.spawn(ball)
    pushed = await a.push(record, b)
    assert (pushed.server, pushed.session, pushed.owner) == (b.name, b.session, "Player2")
    assert await b.inbox(ball) == Grant(
        entity=ball,
        epoch=pushed.epoch,
        previous=record.epoch,
        giver=a.name,
        owner="Player2",
        box="a.b",
        step=STEP.next(),
    )


async def test_a_pull_recalls_and_names_whose_release_is_due(
    servers: tuple[Server, Server], ball: str
) -> None:
    a, b = servers
    record = await a.spawn(ball)
    pulled = await b.pull(record)
    assert pulled.awaiting == Awaiting(session=a.session, server=a.name, epoch=record.epoch)
    recall = await a.inbox(ball)
    assert isinstance(recall, Recall)
    assert (recall.epoch, recall.granted, recall.taker) == (record.epoch, pulled.epoch, b.name)
    assert recall.step == STEP.next()


async def test_a_recall_that_overtakes_a_grant_keeps_it(servers: tuple[Server, Server], ball: str) -> None:
    a, b = servers
    pushed = await a.push(await a.spawn(ball), b)
    await a.pull(pushed)
    recall = await b.inbox(ball)
    assert isinstance(recall, Recall)
    assert isinstance(recall.unread, Grant)
    assert (recall.unread.epoch, recall.unread.box) == (pushed.epoch, "a.b")


async def test_two_pulls_in_the_same_moment_have_exactly_one_winner(
    servers: tuple[Server, Server], cluster: LocalCluster, node: HiddenNode, ball: str
) -> None:
    """R0-8, the double grab: the loser hears who won."""
    a, b = servers
    async with Khepri.connect(node, cluster.members[2], store=cluster.store) as store:
        c = Server(store, fresh("sim"))
        await c.open()
        for round_ in range(10):
            record = await a.spawn(f"{ball}-{round_}")
            outcomes = await asyncio.gather(b.pull(record), c.pull(record), return_exceptions=True)
            won = [outcome for outcome in outcomes if isinstance(outcome, EntityRecord)]
            lost = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
            assert (len(won), len(lost)) == (1, 1)
            assert lost[0].winner == won[0].server
            assert lost[0].props["epoch"] == won[0].epoch
            assert await b.home.entity(record.entity) == won[0]
        await c.home.close_session()


@pytest.mark.parametrize("rule", [Rule.DENY, Rule.ASK])
async def test_a_rule_keeps_strangers_out_and_lets_the_owner_in(
    servers: tuple[Server, Server], ball: str, rule: Rule
) -> None:
    """R0-8."""
    a, b = servers
    record = await a.spawn(ball, rule=rule)
    with pytest.raises(DeniedError):
        await b.pull(record, owner="Player9")
    assert await b.home.entity(ball) == record
    assert (await b.pull(record, owner="Player1")).server == b.name


async def test_only_the_holder_at_its_epoch_gives_anything_away(
    servers: tuple[Server, Server], ball: str
) -> None:
    """R0-6: a change by a server that does not hold the entity is refused."""
    a, b = servers
    record = await a.spawn(ball)
    pushed = await a.push(record, b)
    for late in (
        a.push(record, b),
        a.push(pushed, b),
        a.home.give(entity=ball, epoch=pushed.epoch, owner="Player1", step=STEP),
        b.home.release(entity=ball, epoch=record.epoch),
    ):
        with pytest.raises(NotHolderError):
            await late
    assert await b.home.entity(ball) == pushed


async def test_a_claim_takes_what_the_holder_released_for_this_server(
    servers: tuple[Server, Server], ball: str
) -> None:
    """R0-33."""
    a, b = servers
    record = await a.spawn(ball)
    claimed = await b.home.claim(entity=ball, owner="Player2", box=a.release(record, b), step=STEP)
    assert (claimed.server, claimed.owner, claimed.awaiting) == (b.name, "Player2", None)
    assert claimed.epoch > record.epoch
    with pytest.raises(NotHolderError):
        await b.home.claim(entity=ball, owner="Player2", box=a.release(record, b), step=STEP)


async def test_a_claim_with_a_forged_or_foreign_release_is_refused(
    servers: tuple[Server, Server], ball: str
) -> None:
    """R0-20: the signature is checked with the key that the homeserver has for the holder."""
    a, b = servers
    record = await a.spawn(ball)
    other = await a.spawn(f"{ball}-other")
    for box in (
        a.release(record, b, key=b.key),
        a.release(record, a),
        a.release(other, b),
        b.release(record, b),
        "a.b",
        a.release(record, b)[:-4] + "AAAA",
    ):
        with pytest.raises(AuthorityError) as caught:
            await b.home.claim(entity=ball, owner="Player2", box=box, step=STEP)
        assert str(caught.value.reason) in ("bad_release", "not_holder")
    assert await b.home.entity(ball) == record


async def test_a_released_entity_is_dormant_until_somebody_pulls_it(
    servers: tuple[Server, Server], ball: str
) -> None:
    a, b = servers
    dormant = await a.home.release(entity=ball, epoch=(await a.spawn(ball)).epoch)
    assert (dormant.session, dormant.server) == (None, None)
    assert (await b.pull(dormant)).awaiting is None


async def test_epochs_rise_with_every_grant_of_any_entity(servers: tuple[Server, Server], ball: str) -> None:
    a, b = servers
    record = await a.spawn(ball)
    epochs = [record.epoch]
    holder, other = a, b
    for _ in range(4):
        record = await holder.push(record, other)
        epochs.append(record.epoch)
        epochs.append((await a.spawn(fresh("ball"))).epoch)
        holder, other = other, holder
    assert epochs == sorted(set(epochs))


async def test_a_transfer_is_one_committed_entry_and_changes_what_the_rule_allows(
    servers: tuple[Server, Server], node: HiddenNode, cluster: LocalCluster, ball: str
) -> None:
    """R0-25, R0-26."""
    a, b = servers
    record = await a.spawn(ball)
    leader = str((await a.store.health()).leader)

    async def committed() -> int:
        metrics = await node.call(leader, "ra", "key_metrics", [(Atom(cluster.store), Atom(leader))])
        index = metrics[Atom("commit_index")]
        assert isinstance(index, int)
        return index

    async with Khepri.connect(node, leader, store=cluster.store) as at_leader:
        before, index = await bridge_tree(at_leader), await committed()
        pushed = await a.push(record, b)
        after = await bridge_tree(at_leader)
        assert await committed() == index + 1
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    indexes = {path for path in changed if path[1] in (Atom("owned"), Atom("held"))}
    assert {path[2] for path in indexes} == {b"Player1", b"Player2", a.session, b.session}
    entity = (Atom("bridge"), Atom("entities"), ball.encode())
    assert changed - indexes == {
        entity,
        (Atom("bridge"), Atom("grants")),
        (Atom("bridge"), Atom("inbox"), b.session, ball.encode()),
    }
    untouched = {Atom(name) for name in ("entity", "master", "rule", "home")}
    assert {k: v for k, v in before[entity].items() if k in untouched} == {
        k: v for k, v in after[entity].items() if k in untouched
    }
    assert EntityRecord.from_term(after[entity]) == pushed


async def test_what_does_not_exist_is_said_by_name(servers: tuple[Server, Server], ball: str) -> None:
    a, b = servers
    with pytest.raises(UnknownEntityError, match="entities: none is called"):
        await a.home.entity(ball)
    with pytest.raises(UnknownEntityError):
        await a.home.release(entity=ball, epoch=1)
    record = await a.spawn(ball)
    with pytest.raises(UnknownServerError):
        await a.push(record, Server(b.store, "nobody"))
    with pytest.raises(NotHolderError):
        await Server(a.store, "nobody").pull(record)


async def test_a_release_beyond_the_limit_is_refused(servers: tuple[Server, Server], ball: str) -> None:
    a, b = servers
    record = await a.spawn(ball)
    with pytest.raises(TooLargeError):
        await a.home.push(entity=ball, epoch=record.epoch, owner="P", to=b.name, box="x" * 16_385, step=STEP)


async def test_a_request_out_of_its_range_is_refused(servers: tuple[Server, Server], ball: str) -> None:
    a, _ = servers
    with pytest.raises(InvalidRequestError):
        await a.home.pull(entity=ball, epoch=2**64, owner="P", step=STEP)
    with pytest.raises(InvalidRequestError):
        await a.home.pull(entity=ball, epoch=1, owner="P", step=Step(trace=b"short", hop=0))


@pytest.mark.parametrize("name", ["", "x" * 256])
async def test_a_name_has_1_to_255_bytes(servers: tuple[Server, Server], name: str) -> None:
    a, _ = servers
    with pytest.raises(ConfigurationError, match="a name has 1 to 255"):
        await a.spawn(name)


async def test_a_session_id_has_16_bytes(store: Khepri) -> None:
    with pytest.raises(ConfigurationError, match="16 bytes"):
        Homeserver(store, b"short")


async def test_requests_made_at_once_have_their_own_outcomes_and_are_applied_once(
    servers: tuple[Server, Server], ball: str
) -> None:
    """As one command of the log; what one of them is refused keeps none beside it from being granted."""
    a, b = servers
    records = await asyncio.gather(*(a.spawn(f"{ball}-{n}") for n in range(40)))
    assert len({record.epoch for record in records}) == 40
    told = await asyncio.gather(
        *(a.push(record, b) for record in records[:20]),
        *(a.push(record, Server(b.store, "nobody")) for record in records[20:30]),
        *(a.home.give(entity=record.entity, epoch=1, owner="x", step=STEP) for record in records[30:]),
        return_exceptions=True,
    )
    pushed = [one for one in told if isinstance(one, EntityRecord)]
    assert pushed == told[:20]
    assert {(one.server, one.version) for one in pushed} == {(b.name, 2)}
    assert [type(one) for one in told[20:]] == [UnknownServerError] * 10 + [NotHolderError] * 10


async def test_two_pulls_made_at_once_have_one_winner(servers: tuple[Server, Server], ball: str) -> None:
    """Both in one command of the log, as when they come in two."""
    a, b = servers
    record = await a.spawn(ball)
    c = Server(b.store, fresh("sim"))
    await c.open()
    busy = [b.spawn(f"{ball}-{n}") for n in range(8)]
    told = await asyncio.gather(*busy, b.pull(record), c.pull(record), return_exceptions=True)
    taken, refused = told[-2:]
    assert isinstance(taken, EntityRecord)
    assert isinstance(refused, ConflictError)
    assert refused.props["winner"] == b.name.encode()
    await c.home.close_session()
