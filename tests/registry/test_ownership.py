"""Requests of players against a real homeserver cluster: rules, roles, asks, leaving, the double grab."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import AuthorityError, ConfigurationError
from bridge.khepri import Khepri, NodeNotFoundError
from bridge.node import HiddenNode
from bridge.registry import (
    OPERATOR,
    AlreadyOwnerError,
    Answered,
    Ask,
    AskEnded,
    BeingDeletedError,
    ConflictError,
    DeniedError,
    EntityRecord,
    MasterAwayError,
    NoAskError,
    NotHereError,
    NotHolderError,
    NotMasterError,
    NotOwnerError,
    Outcome,
    Ownership,
    Party,
    PendingError,
    Recall,
    Requested,
    Rule,
    Step,
    TooManyAsksError,
    UnknownEntityError,
)
from tests.support.authority import STEP, Server
from tests.support.cluster import fresh

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@dataclass
class Place:
    """Two servers, a master and owner at the first, another player at the second, and a thing."""

    a: Server
    b: Server
    players: Ownership
    master: str
    guest: str
    thing: str

    async def spawn(self, rule: Rule, *, owner: str = "") -> EntityRecord:
        return await self.a.home.create_entity(
            entity=self.thing, owner=owner or self.master, master=self.master, rule=rule
        )

    async def ask(self, known: EntityRecord, *, authority: bool = False, seconds: float = 30.0) -> Requested:
        return await self.players.request(
            known,
            player=self.guest,
            session=self.b.session,
            authority=authority,
            seconds=seconds,
            step=STEP,
        )

    async def answer(self, *, grant: bool) -> Answered:
        step = Step(trace=STEP.trace, hop=2)
        return await self.players.answer(
            self.thing, player=self.guest, by=self.master, grant=grant, step=step
        )


@pytest.fixture
async def place(cluster: LocalCluster, node: HiddenNode) -> AsyncIterator[Place]:
    async with (
        Khepri.connect(node, cluster.members[0], store=cluster.store) as left,
        Khepri.connect(node, cluster.members[1], store=cluster.store) as right,
    ):
        made = Place(
            Server(left, fresh("sim")),
            Server(right, fresh("sim")),
            Ownership(left),
            fresh("Master"),
            fresh("Guest"),
            fresh("thing"),
        )
        for server, player in ((made.a, made.master), (made.b, made.guest)):
            await server.open()
            await made.players.enter(player, server.session)
        yield made
        for server in (made.a, made.b):
            await server.home.close_session()


async def test_under_allow_a_request_is_granted_at_once(place: Place) -> None:
    """R0-8: the owner changes and, with authority, who simulates; the master stays."""
    record = await place.spawn(Rule.ALLOW)
    owned = await place.ask(record)
    assert (owned.pending, owned.record.owner, owned.record.server) == (False, place.guest, place.a.name)
    assert owned.record.epoch == record.epoch
    taken = await place.ask(replace(owned.record, owner=place.guest), authority=True)
    assert (taken.record.server, taken.record.master) == (place.b.name, place.master)
    assert taken.record.awaiting is not None
    assert isinstance(await place.a.inbox(place.thing), Recall)


async def test_under_deny_nothing_is_asked_and_the_refusal_is_counted(place: Place) -> None:
    """R0-6, R0-8."""
    record = await place.spawn(Rule.DENY)
    before = (await place.players.refusals()).get("request", {}).get("denied", 0)
    with pytest.raises(DeniedError):
        await place.ask(record)
    assert (await place.players.refusals())["request"]["denied"] == before + 1
    assert await place.players.entity(place.thing) == record


async def test_under_ask_the_master_is_told_and_decides_in_one_round_trip(place: Place) -> None:
    """R0-8."""
    record = await place.spawn(Rule.ASK)
    asked = await place.ask(record, authority=True)
    assert (asked.pending, asked.record) == (True, record)
    question = await place.a.asked(place.thing, place.guest)
    assert question == Ask(
        entity=place.thing,
        player=place.guest,
        server=place.b.name,
        owner=place.master,
        master=place.master,
        authority=True,
        expires_ms=asked.expires_ms,
        step=STEP.next(),
    )
    granted = await place.answer(grant=True)
    assert granted.outcome is Outcome.GRANTED
    assert (granted.record.owner, granted.record.server) == (place.guest, place.b.name)
    assert await place.b.asked(place.thing, place.guest) == AskEnded(
        entity=place.thing,
        player=place.guest,
        outcome=Outcome.GRANTED,
        record=granted.record,
        asked=STEP.trace,
        step=Step(trace=STEP.trace, hop=3),
    )
    recall = await place.a.inbox(place.thing)
    assert (recall.granted, recall.step) == (granted.record.epoch, Step(trace=STEP.trace, hop=3))
    with pytest.raises(NodeNotFoundError):
        await place.a.asked(place.thing, place.guest)


async def test_a_master_who_says_no_changes_nothing(place: Place) -> None:
    record = await place.spawn(Rule.ASK)
    await place.ask(record)
    assert (await place.answer(grant=False)).outcome is Outcome.REFUSED
    assert await place.players.entity(place.thing) == record
    assert (await place.b.asked(place.thing, place.guest)).outcome is Outcome.REFUSED
    with pytest.raises(NoAskError):
        await place.answer(grant=True)


async def test_an_ask_is_made_once_and_taken_back_once(place: Place) -> None:
    record = await place.spawn(Rule.ASK)
    await place.ask(record)
    with pytest.raises(PendingError):
        await place.ask(record)
    assert await place.players.withdraw(place.thing, player=place.guest) == record
    with pytest.raises(NodeNotFoundError):
        await place.a.asked(place.thing, place.guest)
    with pytest.raises(NoAskError):
        await place.players.withdraw(place.thing, player=place.guest)


async def test_an_ask_past_its_time_is_not_granted(place: Place) -> None:
    await place.ask(await place.spawn(Rule.ASK), seconds=0.001)
    await asyncio.sleep(0.005)
    with pytest.raises(NoAskError):
        await place.answer(grant=True)


@pytest.mark.parametrize("seconds", [0, 3_601])
async def test_an_ask_stays_open_for_an_hour_at_most(place: Place, seconds: float) -> None:
    record = await place.spawn(Rule.ASK)
    with pytest.raises(ConfigurationError, match="3600 s"):
        await place.ask(record, seconds=seconds)


async def test_of_two_who_asked_one_is_granted_and_the_other_hears_who_won(place: Place) -> None:
    """R0-8, the double grab under ask."""
    record = await place.spawn(Rule.ASK)
    rival = fresh("Rival")
    await place.players.enter(rival, place.b.session)
    await place.ask(record)
    await place.players.request(record, player=rival, session=place.b.session)
    await place.answer(grant=True)
    ended = await place.b.asked(place.thing, rival)
    assert (ended.outcome, ended.record.owner) == (Outcome.CONFLICT, place.guest)


async def test_asks_of_one_player_to_one_master_are_bounded(place: Place) -> None:
    for _ in range(8):
        place.thing = fresh("thing")
        await place.ask(await place.spawn(Rule.ASK))
    place.thing = fresh("thing")
    record = await place.spawn(Rule.ASK)
    with pytest.raises(TooManyAsksError):
        await place.ask(record)


async def test_a_master_who_is_away_cannot_be_asked_and_one_who_enters_is_told(place: Place) -> None:
    record = await place.spawn(Rule.ASK)
    await place.ask(record)
    await place.players.enter(place.master, place.b.session)
    assert isinstance(await place.b.asked(place.thing, place.guest), Ask)
    await place.players.leave(place.master, place.b.session)
    assert (await place.b.asked(place.thing, place.guest)).outcome is Outcome.MASTER_AWAY
    with pytest.raises(MasterAwayError):
        await place.ask(record)


async def test_a_new_master_inherits_what_was_asked(place: Place) -> None:
    """R0-7."""
    await place.ask(await place.spawn(Rule.ASK))
    heir = fresh("Heir")
    await place.players.enter(heir, place.b.session)
    await place.players.set_master(place.thing, heir, by=place.master)
    with pytest.raises(NotMasterError):
        await place.answer(grant=True)
    granted = await place.players.answer(place.thing, player=place.guest, by=heir, grant=True)
    assert (granted.record.owner, granted.record.master) == (place.guest, heir)


async def test_a_rule_that_becomes_deny_ends_what_was_asked(place: Place) -> None:
    """R0-7."""
    await place.ask(await place.spawn(Rule.ASK))
    await place.players.set_rule(place.thing, Rule.DENY, by=place.master)
    assert (await place.b.asked(place.thing, place.guest)).outcome is Outcome.DENIED


async def test_who_has_moved_on_gets_nothing(place: Place) -> None:
    record = await place.spawn(Rule.ASK)
    await place.ask(record)
    await place.players.enter(place.guest, place.a.session)
    assert await place.answer(grant=True) == Answered(record=record, outcome=Outcome.GONE)


async def test_a_request_comes_from_where_the_player_is(place: Place) -> None:
    record = await place.spawn(Rule.ALLOW)
    with pytest.raises(NotHereError):
        await place.players.request(record, player=place.guest, session=place.a.session)
    with pytest.raises(NotHereError):
        await place.players.leave(place.guest, place.a.session)


async def test_ownership_falls_to_the_default_owner_or_else_to_the_master(place: Place) -> None:
    """R0-7, R0-8."""
    await place.spawn(Rule.ALLOW, owner=place.guest)
    revoked = await place.players.revoke(place.thing, by=place.master)
    assert revoked.owner == place.master
    await place.players.set_default_owner(place.thing, place.guest, by=place.master)
    assert (await place.players.revoke(place.thing, by=place.master)).owner == place.guest
    unset = await place.players.set_default_owner(place.thing, None, by=place.master)
    assert unset.default_owner is None


async def test_what_changes_nothing_is_no_new_version(place: Place) -> None:
    record = await place.spawn(Rule.ALLOW)
    assert await place.players.set_rule(place.thing, Rule.ALLOW, by=place.master) == record


async def test_all_that_a_player_who_leaves_owns_passes_to_the_masters(place: Place) -> None:
    """R0-8: in transactions of a bounded size, and again from the start where it was interrupted."""
    things = [fresh("thing") for _ in range(300)]
    for start in range(0, len(things), 50):
        await asyncio.gather(
            *(
                place.a.home.create_entity(
                    entity=thing, owner=place.guest, master=place.master, rule=Rule.DENY
                )
                for thing in things[start : start + 50]
            )
        )
    own = await place.a.home.create_entity(
        entity=fresh("thing"), owner=place.guest, master=place.guest, rule=Rule.DENY
    )
    assert sorted(await place.players.leave(place.guest, place.b.session)) == sorted(things)
    records = [await place.players.entity(thing) for thing in things]
    assert {(record.owner, record.server) for record in records} == {(place.master, place.a.name)}
    assert (await place.players.entity(own.entity)).owner == place.guest
    assert await place.players.leave(place.guest, place.b.session) == []


async def test_two_clients_that_grab_in_the_same_moment_have_one_winner_each_time(
    place: Place, cluster: LocalCluster, node: HiddenNode
) -> None:
    """R0-8: 200 times, through two members; the other one hears the winner's name and the epoch."""
    rival = fresh("Rival")
    await place.players.enter(rival, place.a.session)
    theirs = Ownership(place.b.store)
    for number in range(200):
        place.thing = fresh("thing")
        record = await place.spawn(Rule.ALLOW)
        outcomes = await asyncio.gather(
            place.players.request(record, player=rival, session=place.a.session, authority=number % 4 == 3),
            theirs.request(record, player=place.guest, session=place.b.session, authority=number % 2 == 1),
            return_exceptions=True,
        )
        won = [outcome for outcome in outcomes if isinstance(outcome, Requested)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
        assert (len(won), len(lost)) == (1, 1), outcomes
        assert (lost[0].winner, lost[0].epoch) == (won[0].record.owner, won[0].record.epoch)


# Who may do what: the table of docs/protocol.md §7, cell by cell (R0-42).

COLUMNS = ["anyone", "owner", "master", "holder session", "operator"]


def table() -> list[tuple[str, str, str]]:
    text = (FilePath(__file__).parents[2] / "docs/protocol.md").read_text()
    section = text.split("### Who may do what")[1].split("\n### ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert all(len(row) == 1 + len(COLUMNS) for row in rows)
    return [
        (row[0].replace("`", ""), column, cell.strip(" `"))
        for row in rows
        for column, cell in zip(COLUMNS, row[1:], strict=True)
    ]


def test_the_table_covers_every_operation() -> None:
    assert len(table()) == 17 * len(COLUMNS)


@pytest.mark.parametrize(("operation", "role", "cell"), table())
async def test_every_role_may_do_what_the_table_says(
    place: Place, operation: str, role: str, cell: str
) -> None:
    """R0-42, R0-6."""
    if cell == "–":
        return
    function, _, rule = operation.partition(" under ")
    function = function.split()[0]
    owner, rival = fresh("Owner"), fresh("Rival")
    for player, session in ((owner, place.b.session), (rival, place.b.session)):
        await place.players.enter(player, session)
    if role == "master":
        await place.players.enter(place.master, place.b.session)
    record = await place.spawn(Rule(rule or "ask"), owner=owner)
    by_role: dict[str, Party] = {
        "anyone": place.guest,
        "owner": owner,
        "master": place.master,
        "holder session": place.a.name,
        "operator": OPERATOR,
    }
    by = by_role[role]
    player = by if isinstance(by, str) else ""
    server = place.a if role == "holder session" else place.b
    if role == "holder session":
        await place.players.enter(player, server.session)
    if function == "answer":
        await place.players.request(record, player=rival, session=place.b.session)
    players, home = place.players, server.home
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "request": lambda: players.request(record, player=player, session=server.session),
        "answer": lambda: players.answer(place.thing, player=rival, by=by, grant=True),
        "set_rule": lambda: players.set_rule(place.thing, Rule.DENY, by=by),
        "set_master": lambda: players.set_master(place.thing, rival, by=by),
        "set_default_owner": lambda: players.set_default_owner(place.thing, rival, by=by),
        "transfer": lambda: players.transfer(place.thing, rival, by=by),
        "revoke": lambda: players.revoke(place.thing, by=by),
        "delete_entity": lambda: players.delete_entity(place.thing, by=by),
        "pull": lambda: home.pull(entity=place.thing, epoch=record.epoch, owner=player, step=STEP),
        "claim": lambda: home.claim(entity=place.thing, owner=player, box="a.b", step=STEP),
        "give": lambda: home.give(entity=place.thing, epoch=record.epoch, owner=rival, step=STEP),
        "push": lambda: home.push(
            entity=place.thing, epoch=record.epoch, owner=rival, to=place.b.name, box="a.b", step=STEP
        ),
        "release": lambda: home.release(entity=place.thing, epoch=record.epoch),
    }
    if cell not in ("yes", "asks"):
        with pytest.raises(AuthorityError) as caught:
            await calls[function]()
        assert str(caught.value.reason) == cell
        assert await place.players.entity(place.thing) == record
        return
    answer = await calls[function]()
    if function == "delete_entity":
        with pytest.raises(UnknownEntityError):
            await place.players.entity(place.thing)
        return
    assert (cell == "asks") == (isinstance(answer, Requested) and answer.pending)
    assert (cell == "asks") == (await place.a.home.entity(place.thing) == record)


@pytest.mark.parametrize(
    ("error", "reason"), [(NotOwnerError, "transfer"), (NotMasterError, "set_rule"), (NotHolderError, "give")]
)
async def test_changes_without_the_right_are_refused_and_counted(
    place: Place, error: type[AuthorityError], reason: str
) -> None:
    """R0-6."""
    record = await place.spawn(Rule.ALLOW)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "transfer": lambda: place.players.transfer(place.thing, place.guest, by=place.guest),
        "set_rule": lambda: place.players.set_rule(place.thing, Rule.DENY, by=place.guest),
        "give": lambda: place.b.home.give(
            entity=place.thing, epoch=record.epoch, owner=place.guest, step=STEP
        ),
    }
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__.removesuffix("Error")).lower()
    before = (await place.players.refusals()).get(reason, {}).get(name, 0)
    with pytest.raises(error):
        await calls[reason]()
    assert (await place.players.refusals())[reason][name] == before + 1


async def test_a_deleted_entitys_name_is_free_when_its_holder_has_stopped(place: Place) -> None:
    record = await place.spawn(Rule.ASK)
    await place.players.request(record, player=place.guest, session=place.b.session)
    deleted = await place.players.delete_entity(place.thing, by=place.master, step=STEP)
    assert (deleted.is_deleted, deleted.session) == (True, None)
    assert deleted.epoch > record.epoch
    recall = await place.a.inbox(place.thing)
    assert isinstance(recall, Recall)
    assert (recall.epoch, recall.granted, recall.taker) == (record.epoch, deleted.epoch, None)
    assert recall.step == STEP.next()
    outcome = await place.b.asked(place.thing, place.guest)
    assert (type(outcome), outcome.outcome) == (AskEnded, Outcome.DELETED)
    with pytest.raises(UnknownEntityError):
        await place.a.home.entity(place.thing)
    with pytest.raises(UnknownEntityError):
        await place.players.set_rule(place.thing, Rule.DENY, by=place.master)
    with pytest.raises(BeingDeletedError):
        await place.spawn(Rule.ALLOW)
    await place.a.home.release(entity=place.thing, epoch=record.epoch)
    with pytest.raises(UnknownEntityError):
        await place.a.home.release(entity=place.thing, epoch=record.epoch)
    again = await place.spawn(Rule.ALLOW)
    assert (again.epoch > deleted.epoch, again.version) == (True, 1)
    assert again.age > deleted.age


async def test_the_owner_asks_for_nothing_again(place: Place) -> None:
    record = await place.spawn(Rule.DENY, owner=place.guest)
    with pytest.raises(AlreadyOwnerError):
        await place.ask(record)
