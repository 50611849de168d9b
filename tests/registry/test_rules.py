"""The rules as a state machine: random requests of players to a real cluster, and a plain model beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.cluster.local import LocalCluster
from bridge.errors import AuthorityError
from bridge.etf import Atom
from bridge.khepri import Khepri
from bridge.registry import OPERATOR, Answered, EntityRecord, Ownership, Party, Requested, Rule
from tests.support.authority import STEP, Server
from tests.support.cluster import fresh, hidden_node

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

PLAYERS = st.integers(0, 3)
THINGS = st.integers(0, 1)
SESSIONS = st.integers(0, 1)
MOSTLY = st.integers(0, 3).map(bool)
RULES = st.sampled_from([Rule.ASK, Rule.ASK, Rule.ALLOW, Rule.DENY])
PARTIES = st.one_of(st.none(), PLAYERS)


@dataclass
class Thing:
    """What the model knows of an entity: players and servers by number."""

    owner: int
    master: int
    rule: Rule
    holder: int | None
    default_owner: int | None = None

    def heir(self, leaver: int | None = None) -> int:
        return self.master if self.default_owner in (None, leaver) else self.default_owner


@dataclass
class Stage:
    """Two servers with open sessions, each through a member of its own, and the loop that they live in."""

    runner: asyncio.Runner
    servers: list[Server]
    clients: list[Ownership]

    def run(self, work: Coroutine[Any, Any, Any]) -> str:
        """What became of a request: ``ok``, an outcome, or the reason of its refusal."""
        try:
            answer = self.runner.run(work)
        except AuthorityError as error:
            return str(error.reason)
        match answer:
            case Requested(pending=pending):
                return "asked" if pending else "granted"
            case Answered(outcome=outcome):
                return outcome.value
            case _:
                return "ok"


@pytest.fixture
def stage(cluster: LocalCluster) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        node = hidden_node(cluster)
        runner.run(node.__aenter__())
        stores = [Khepri.connect(node, member, store=cluster.store) for member in cluster.members[:2]]
        servers = [Server(store, fresh("sim")) for store in stores]
        for server in servers:
            runner.run(server.open())
        yield Stage(runner, servers, [Ownership(store) for store in stores])
        for server, store in zip(servers, stores, strict=True):
            runner.run(server.home.close_session())
            runner.run(store.close())
        runner.run(node.__aexit__(None, None, None))


@dataclass
class Model:
    things: list[Thing] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    asks: dict[tuple[int, int], tuple[int, bool]] = field(default_factory=dict)
    """by thing and player: the server asked from, and whether with authority"""

    def win(self, thing: int, player: int, at: int, *, authority: bool) -> None:
        self.things[thing].owner = player
        if authority:
            self.things[thing].holder = at
        self.asks = {key: ask for key, ask in self.asks.items() if key[0] != thing}


def machine(stage: Stage) -> type[RuleBasedStateMachine]:
    """The state machine over one stage; each run has players and things of its own."""

    class Rules(RuleBasedStateMachine):
        @initialize(first=RULES, second=RULES, master=PLAYERS)
        def begin(self, first: Rule, second: Rule, master: int) -> None:
            self.model = Model()
            self.players = [fresh("player") for _ in range(4)]
            self.names = [fresh("thing") for _ in range(2)]
            for player in range(3):
                self.enter(player, player % 2)
            for number, law in enumerate((first, second)):
                made = stage.servers[number].home.create_entity(
                    entity=self.names[number],
                    owner=self.players[number],
                    master=self.players[master],
                    rule=law,
                )
                assert stage.run(made) == "ok"
                self.model.things.append(Thing(number, master, law, number))

        def record(self, thing: int) -> EntityRecord:
            # A member may lag behind what another one has answered.
            async def newest() -> EntityRecord:
                await stage.servers[0].store.fence()
                return await stage.clients[0].entity(self.names[thing])

            return stage.runner.run(newest())

        def party(self, by: int | None) -> Party:
            return OPERATOR if by is None else self.players[by]

        @rule(player=PLAYERS, at=SESSIONS)
        def enter(self, player: int, at: int) -> None:
            entering = stage.clients[at].enter(self.players[player], stage.servers[at].session)
            assert stage.run(entering) == "ok"
            self.model.places[player] = at

        @rule(player=PLAYERS, at=SESSIONS)
        def leave(self, player: int, at: int) -> None:
            told = stage.run(stage.clients[at].leave(self.players[player], stage.servers[at].session))
            if self.model.places.get(player, at) != at:
                assert told == "not_here"
                return
            assert told == "ok"
            self.model.places.pop(player, None)
            for thing in self.model.things:
                if thing.owner == player:
                    thing.owner = thing.heir(player)
            self.model.asks = {
                key: ask for key, ask in self.model.asks.items() if self.model.things[key[0]].master != player
            }

        @rule(
            player=PLAYERS,
            thing=THINGS,
            at=SESSIONS,
            there=MOSTLY,
            stale=st.integers(0, 7),
            authority=st.booleans(),
        )
        def request(
            self, player: int, thing: int, at: int, *, there: bool, stale: int, authority: bool
        ) -> None:
            at = self.model.places.get(player, at) if there else at
            known = self.record(thing)
            if stale == 0:
                known = replace(known, owner="nobody", epoch=known.epoch - 1)
            told = stage.run(
                stage.clients[at].request(
                    known, player=self.players[player], session=stage.servers[at].session, authority=authority
                )
            )
            assert told == self.expected(player, thing, at, stale=stale == 0, authority=authority)
            if told == "granted":
                self.model.win(thing, player, at, authority=authority)
            elif told == "asked":
                self.model.asks[thing, player] = (at, authority)

        @rule(thing=THINGS, authority=st.booleans())
        def everybody_requests(self, thing: int, *, authority: bool) -> None:
            for player, at in sorted(self.model.places.items()):
                self.request(player, thing, at, there=True, stale=1, authority=authority)

        def expected(self, player: int, thing: int, at: int, *, stale: bool, authority: bool) -> str:
            it = self.model.things[thing]
            if self.model.places.get(player) != at:
                return "no_player"
            if it.owner == player and (not authority or it.holder == at):
                return "already_owner"
            if stale:
                return "conflict"
            if player in (it.owner, it.master) or it.rule is Rule.ALLOW:
                return "granted"
            if it.rule is Rule.DENY:
                return "denied"
            if it.master not in self.model.places:
                return "master_away"
            return "pending" if self.model.asks.get((thing, player), (None,))[0] == at else "asked"

        @precondition(lambda self: self.model.asks)
        @rule(choice=st.integers(0, 7), by=PARTIES, rightful=MOSTLY, grant=MOSTLY)
        def answer(self, choice: int, by: int | None, *, rightful: bool, grant: bool) -> None:
            thing, player = sorted(self.model.asks)[choice % len(self.model.asks)]
            master = self.model.things[thing].master
            by = master if rightful else by
            told = stage.run(
                stage.clients[choice % 2].answer(
                    self.names[thing], player=self.players[player], by=self.party(by), grant=grant
                )
            )
            if by not in (None, master):
                assert told == "not_master"
                return
            at, authority = self.model.asks.pop((thing, player))
            if not grant:
                assert told == "refused"
            elif self.model.places.get(player) != at:
                assert told == "gone"
            else:
                assert told == "granted"
                self.model.win(thing, player, at, authority=authority)

        @rule(thing=THINGS, player=PLAYERS)
        def withdraw(self, thing: int, player: int) -> None:
            told = stage.run(stage.clients[0].withdraw(self.names[thing], player=self.players[player]))
            assert told == ("ok" if self.model.asks.pop((thing, player), None) else "no_ask")

        def may(self, told: str, thing: int, by: int | None, *, owner: bool) -> bool:
            it = self.model.things[thing]
            right = by in (None, it.master) or (owner and by == it.owner)
            assert told == ("ok" if right else "not_owner" if owner else "not_master")
            return right

        @rule(thing=THINGS, by=PARTIES, law=RULES)
        def set_rule(self, thing: int, by: int | None, law: Rule) -> None:
            told = stage.run(stage.clients[1].set_rule(self.names[thing], law, by=self.party(by)))
            if self.may(told, thing, by, owner=False):
                if law is Rule.DENY and self.model.things[thing].rule is not Rule.DENY:
                    self.model.asks = {k: ask for k, ask in self.model.asks.items() if k[0] != thing}
                self.model.things[thing].rule = law

        @rule(thing=THINGS, by=PARTIES, master=PLAYERS)
        def set_master(self, thing: int, by: int | None, master: int) -> None:
            told = stage.run(
                stage.clients[0].set_master(self.names[thing], self.players[master], by=self.party(by))
            )
            if self.may(told, thing, by, owner=False):
                if master != self.model.things[thing].master and master not in self.model.places:
                    self.model.asks = {k: ask for k, ask in self.model.asks.items() if k[0] != thing}
                self.model.things[thing].master = master

        @rule(thing=THINGS, by=PARTIES, player=st.one_of(st.none(), PLAYERS))
        def set_default_owner(self, thing: int, by: int | None, player: int | None) -> None:
            default = None if player is None else self.players[player]
            told = stage.run(
                stage.clients[1].set_default_owner(self.names[thing], default, by=self.party(by))
            )
            if self.may(told, thing, by, owner=False):
                self.model.things[thing].default_owner = player

        @rule(thing=THINGS, by=PARTIES, to=PLAYERS)
        def transfer(self, thing: int, by: int | None, to: int) -> None:
            told = stage.run(
                stage.clients[0].transfer(self.names[thing], self.players[to], by=self.party(by))
            )
            if self.may(told, thing, by, owner=True):
                self.model.things[thing].owner = to

        @rule(thing=THINGS, by=PARTIES)
        def revoke(self, thing: int, by: int | None) -> None:
            told = stage.run(stage.clients[1].revoke(self.names[thing], by=self.party(by)))
            if self.may(told, thing, by, owner=True):
                self.model.things[thing].owner = self.model.things[thing].heir()

        @rule(thing=THINGS)
        def release(self, thing: int) -> None:
            it = self.model.things[thing]
            server = stage.servers[it.holder or 0]
            told = stage.run(server.home.release(entity=self.names[thing], epoch=self.record(thing).epoch))
            assert told == ("not_holder" if it.holder is None else "ok")
            it.holder = None

        @rule(thing=THINGS, at=SESSIONS, player=PLAYERS)
        def pull(self, thing: int, at: int, player: int) -> None:
            it = self.model.things[thing]
            told = stage.run(
                stage.servers[at].home.pull(
                    entity=self.names[thing],
                    epoch=self.record(thing).epoch,
                    owner=self.players[player],
                    step=STEP,
                )
            )
            if it.holder == at:
                assert told == "already_held"
            elif it.rule is Rule.ALLOW or player in (it.owner, it.master):
                assert told == "ok"
                it.owner, it.holder = player, at
            else:
                assert told == "denied"

        @invariant()
        def the_records_are_the_models(self) -> None:
            if not hasattr(self, "model"):
                return
            for number, it in enumerate(self.model.things):
                record = self.record(number)
                assert (record.owner, record.master) == (self.players[it.owner], self.players[it.master])
                assert record.rule is it.rule
                assert record.server == (None if it.holder is None else stage.servers[it.holder].name)
                default = None if it.default_owner is None else self.players[it.default_owner]
                assert record.default_owner == default
            assert self.open_asks() == {
                (self.players[self.model.things[thing].master], self.names[thing], self.players[player])
                for thing, player in self.model.asks
            }

        def open_asks(self) -> set[tuple[str, str, str]]:
            """By master, entity and player."""
            found = stage.runner.run(stage.servers[0].store.get_many("/:bridge/:asks/*"))
            return {
                (asks[Atom("master")].decode(), ask[Atom("entity")].decode(), ask[Atom("player")].decode())
                for asks in found.values()
                if asks[Atom("master")].decode() in self.players
                for ask in asks[Atom("pending")]
            }

    return Rules


def test_whatever_players_ask_for_the_records_are_what_the_rules_allow(stage: Stage) -> None:
    """R0-6, R0-7, R0-8, R0-26."""
    run_state_machine_as_test(
        machine(stage),
        settings=settings(
            max_examples=30,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
