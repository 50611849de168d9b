"""One run: clients ask, the nemesis breaks, everything is mended, and the records are checked."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.authority import Called, Entry, Known, RecordFile, Replied, check
from bridge.authority import Final as FinalEntry
from bridge.cli.record import read_history
from bridge.errors import BridgeError, InvalidStateError
from bridge.etf import Atom
from bridge.khepri import Khepri, NodeNotFoundError
from bridge.node import Gateway, HiddenNode
from bridge.registry import OPERATOR, EntityExistsError, Journal, Ownership, Rule, UnknownEntityError, view_of
from bridge.sim.driver import SimulationProcess
from bridge.sim.events import AuthorityGained, Problem, ServerEvent
from tests.nemesis import tree as trees
from tests.nemesis.schedule import BY_SERVERS, PLAYERS, Act, Fault, Schedule, Step, entities
from tests.nemesis.stages import Stage

_PATIENCE: Final = 15.0
"""seconds until a player's request counts as one without an answer"""
_IN_FLIGHT: Final = 16
"""requests of one client under way at once; what comes beyond is not asked"""
_AGREE_SECONDS: Final = 60.0
_TAKE_SECONDS: Final = 60.0
"""how long it may take after all is mended until every entity can be taken again"""
_RESTART_SECONDS: Final = 0.3
_TREE: Final = "/:bridge/**"
_PLACE: Final = (1.0, 2.0, 0.0)


_Work = Callable[[SimulationProcess, str], Coroutine[Any, Any, None]]


class RecoveryError(Exception):
    """Something does not work again although all is mended."""


@dataclass(slots=True)
class Outcome:
    """What a run found.

    Attributes:
        asked: requests of the schedule; ``skipped`` were not asked because too many were under way.
        faults: how often each came.
        restarts: how often a simulation server was started.
        deleted: how many deletions were granted.
        recovered_s: seconds after all was mended until every entity was written and taken; ``None``: never.
        violations: counter-examples of the history, what is not whole in the tree, what did not recover.
    """

    seed: int
    seconds: float
    asked: int = 0
    skipped: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    operations: int = 0
    granted: int = 0
    refused: int = 0
    unanswered: int = 0
    acts: int = 0
    deleted: int = 0
    recovered_s: float | None = None
    violations: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)


class Servers:
    """The simulation servers: each is started again whenever it has ended."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.starts = 0
        self.holder: dict[str, str] = {}
        self._stage = stage
        self._say = say
        self._running: dict[str, SimulationProcess] = {}
        self._over = False

    def on_event(self, server: str, event: ServerEvent) -> None:
        match event:
            case AuthorityGained(entity=entity):
                self.holder[entity] = server
            case Problem(text=text, fatal=True):
                self._say(f"{server}: {text}")

    async def keep(self, server: str) -> None:
        """Start it, and again when it ends, until ``close``."""
        said = ""
        while not self._over:
            command = await asyncio.to_thread(self._stage.command, server)
            process = SimulationProcess(server, command, self.on_event)
            self.starts += 1
            try:
                await process.start()
                self._running[server] = process
                await process.wait()
            except BridgeError as error:
                # The host may be down for a while; once is enough.
                if str(error) != said:
                    said = str(error)
                    self._say(f"{server} did not start: {error}")
            finally:
                self._running.pop(server, None)
                with contextlib.suppress(ProcessLookupError):
                    await process.close()
            await asyncio.sleep(_RESTART_SECONDS)

    def get(self, server: str) -> SimulationProcess | None:
        """The running process of that name."""
        return self._running.get(server)

    async def all_running(self) -> list[SimulationProcess]:
        """All of them, once they run."""
        while len(self._running) < len(self._stage.servers):
            await asyncio.sleep(0.1)
        return [self._running[server] for server in self._stage.servers]

    async def close(self) -> None:
        """End them all."""
        self._over = True
        await asyncio.gather(*(process.close() for process in list(self._running.values())))


class Players:
    """Clients in the names of players, each with a way of its own into the cluster."""

    def __init__(self, stores: list[Khepri], journals: list[Journal]) -> None:
        self.stores = stores
        self.ownerships = [
            Ownership(store, patience=_PATIENCE, journal=journal)
            for store, journal in zip(stores, journals, strict=True)
        ]

    async def ask(self, step: Step, server: str) -> None:
        """Carry out a step; a refusal is an answer too."""
        ownership = self.ownerships[step.actor]
        by = OPERATOR if step.player == "operator" else step.player
        match step.act:
            case Act.TRANSFER:
                await ownership.transfer(step.entity, step.other, by=by)
            case Act.REVOKE:
                await ownership.revoke(step.entity, by=by)
            case Act.SET_RULE:
                await ownership.set_rule(step.entity, Rule.DENY if step.denies else Rule.ALLOW, by=by)
            case Act.SET_DEFAULT_OWNER:
                await ownership.set_default_owner(step.entity, None if step.denies else step.other, by=by)
            case Act.DELETE:
                await ownership.delete_entity(step.entity, by=by)
            case Act.SET_RULE_ASK:
                await ownership.set_rule(step.entity, Rule.ASK, by=by)
            case Act.ANSWER:
                entity, player = await self._asked(step)
                await ownership.answer(entity, player=player, by=by, grant=not step.denies)
            case _ if step.player == "operator":
                # Who is at no server.
                return
            case Act.WITHDRAW:
                await ownership.withdraw(step.entity, player=step.player)
            case Act.LEAVE:
                await ownership.leave(step.player, await self._session(step, "players", step.player))
            case Act.ENTER:
                await ownership.enter(step.player, await self._session(step, "servers", server))
            case _:
                record = await ownership.entity(step.entity)
                session = await self._session(step, "servers", server)
                await ownership.enter(step.player, session)
                await ownership.request(record, player=step.player, session=session)

    async def _session(self, step: Step, kind: str, name: str) -> bytes:
        """Of a server, or where a player is."""
        record = await self.stores[step.actor].get([Atom("bridge"), Atom(kind), name.encode()])
        session = record[Atom("session")]
        if not isinstance(session, bytes):
            raise InvalidStateError(f"{name} has no session just now")
        return session

    async def _asked(self, step: Step) -> tuple[str, str]:
        """Entity and player of one of the open questions to a master; any where there are none."""
        try:
            asks = await self.stores[step.actor].get([Atom("bridge"), Atom("asks"), step.player.encode()])
        except NodeNotFoundError:
            return step.entity, step.other
        pending = asks[Atom("pending")]
        ask = pending[step.to % len(pending)]
        return ask[Atom("entity")].decode(), ask[Atom("player")].decode()


class Run:
    """One run on a stage.

    Args:
        stage: running homeservers.
        schedule: what is asked and broken.
        say: takes lines of progress.
    """

    def __init__(self, stage: Stage, schedule: Schedule, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._schedule = schedule
        self._say = say
        self._servers = Servers(stage, say)
        self._outcome = Outcome(schedule.seed, schedule.seconds)
        self._in_flight: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._node: HiddenNode
        self._players: Players

    async def play(self) -> Outcome:
        """Play the schedule to its end, mend everything, and judge.

        Returns:
            What was found; its ``violations`` are empty where every promise was kept.
        """
        config = self._stage.node_config()
        async with contextlib.AsyncExitStack() as stack:
            self._node = await stack.enter_async_context(
                HiddenNode("players@127.0.0.1", cookie=self._stage.cookie, config=config)
            )
            self._players = await self._make_players(stack)
            keeping = [asyncio.create_task(self._servers.keep(name)) for name in self._stage.servers]
            try:
                final = await self._play()
            finally:
                await self._servers.close()
                for task in (*keeping, *self._tasks):
                    task.cancel()
                await asyncio.gather(*keeping, *self._tasks, return_exceptions=True)
        self._judge(final)
        return self._outcome

    async def _make_players(self, stack: contextlib.AsyncExitStack) -> Players:
        stores, journals = [], []
        for number in range(len(PLAYERS)):
            turned = self._stage.members[number:] + self._stage.members[:number]
            gateway = await stack.enter_async_context(Gateway(self._node, turned))
            name = f"player{number}-{secrets.token_hex(4)}"
            file = stack.enter_context(RecordFile(self._stage.records / f"{name}.jsonl"))
            stores.append(Khepri.connect(self._node, gateway, store=self._stage.store, client=name))
            journals.append(Journal(name, file.write))
        return Players(stores, journals)

    async def _play(self) -> FinalEntry | None:
        async with asyncio.timeout(_AGREE_SECONDS):
            await self._servers.all_running()
        await self._make_entities()
        began = time.monotonic()
        breaking = asyncio.create_task(self._break(began))
        for step in self._schedule.steps:
            await asyncio.sleep(began + step.at - time.monotonic())
            self._start(step)
        await breaking
        self._say("mending everything")
        mended = time.monotonic()
        await self._attempt(self._stage.heal)
        await asyncio.to_thread(self._stage.heal)
        try:
            return await self._recover(mended)
        except (RecoveryError, BridgeError, TimeoutError) as error:
            self._outcome.violations.append(f"no recovery: {type(error).__name__}: {error}")
            return None

    async def _make_entities(self) -> None:
        servers = await self._servers.all_running()
        for number, entity in enumerate(entities()):
            server, player = servers[number % len(servers)], PLAYERS[number % len(PLAYERS)]
            await server.spawn(entity, owner=player, position=(float(number), 0.0, 0.0))

    def _start(self, step: Step) -> None:
        by_server = step.act in BY_SERVERS
        client = f"{'server' if by_server else 'player'}{step.actor}"
        if self._in_flight[client] >= _IN_FLIGHT:
            self._outcome.skipped += 1
            return
        self._outcome.asked += 1
        self._in_flight[client] += 1
        task = asyncio.create_task(self._carry_out(step, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, step: Step, client: str) -> None:
        try:
            # What a server refuses, and what nobody answers, the records tell.
            with contextlib.suppress(BridgeError):
                if step.act in BY_SERVERS:
                    await self._ask_server(step)
                else:
                    await self._players.ask(step, self._stage.servers[step.to])
        finally:
            self._in_flight[client] -= 1

    async def _ask_server(self, step: Step) -> None:
        asked = self._stage.servers[step.actor]
        if step.act not in (Act.TAKE, Act.SPAWN):
            # Of all servers the one that holds it has something to give.
            asked = self._servers.holder.get(step.entity, asked)
        server = self._servers.get(asked)
        if server is None:
            return
        if step.act is Act.TAKE:
            await server.take(step.entity, owner=step.player)
            return
        if step.act is Act.SPAWN:
            await server.spawn(step.entity, owner=step.player, position=_PLACE)
            return
        to = asked if step.act is Act.GIVE else self._stage.servers[step.to]
        way = "offer" if step.act is Act.OFFER else "push"
        speed = (0.5, 0.0, 0.0)
        await server.kick(step.entity, owner=step.other, to=to, position=_PLACE, velocity=speed, way=way)

    async def _break(self, began: float) -> None:
        async with asyncio.TaskGroup() as group:
            for fault in self._schedule.faults:
                await asyncio.sleep(began + fault.at - time.monotonic())
                self._say(str(fault))
                self._outcome.faults[fault.kind] += 1
                leader = await self._leader()
                await self._attempt(functools.partial(self._stage.begin, fault, leader))
                group.create_task(self._mend(fault, time.monotonic() + fault.seconds))

    async def _mend(self, fault: Fault, at: float) -> None:
        await asyncio.sleep(at - time.monotonic())
        await self._attempt(lambda: self._stage.end(fault))

    async def _attempt(self, work: Callable[[], None]) -> None:
        """What it is done to may just be coming or going; in the end everything is mended again."""
        try:
            await asyncio.to_thread(work)
        except Exception as error:
            self._say(f"not done: {type(error).__name__}: {error}")

    async def _leader(self) -> int:
        """Number of the leader; of any member where nobody knows of one."""
        for store in self._players.stores:
            with contextlib.suppress(BridgeError, TimeoutError):
                leader = str((await store.health(timeout=0.5)).leader)
                if leader in self._stage.members:
                    return self._stage.members.index(leader)
        return 0

    async def _recover(self, mended: float) -> FinalEntry:
        """See that all works again; then read, as the last of all clients, what there is."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        operator = self._players.ownerships[0]
        deleted = [entity for entity in entities() if not await _allow(operator, entity)]
        self._say(f"writes work again; {len(deleted)} entities are deleted")
        async with asyncio.timeout(_AGREE_SECONDS):
            servers = await self._servers.all_running()
        names = itertools.cycle(range(len(servers)))
        for entity in deleted:
            await self._by_some_server(entity, next(names), _spawn)
        for entity in entities():
            await self._by_some_server(entity, next(names), _take)
        self._outcome.recovered_s = round(time.monotonic() - mended, 2)
        tree = await self._agreed_tree()
        self._outcome.violations += [f"tree: {text}" for text in trees.problems(tree, set(entities()))]
        return FinalEntry(
            instance="nemesis",
            at_ns=time.monotonic_ns(),
            entities={name: view_of(record) for name, record in trees.records(tree).items()},
            sessions=sorted(trees.sessions(tree)),
        )

    async def _by_some_server(self, entity: str, first: int, work: _Work) -> None:
        """What some server has to be able to do; each is asked in turn."""
        deadline = time.monotonic() + _TAKE_SECONDS
        error: Exception | None = None
        for turn in itertools.count(first):
            name = self._stage.servers[turn % len(self._stage.servers)]
            server = self._servers.get(name)
            try:
                if server is not None:
                    await work(server, entity)
                    return
            except BridgeError as refused:
                error = refused
            if time.monotonic() > deadline:
                raise RecoveryError(f"{entity}: {work.__name__.strip('_')} does not work: {error}")
            await asyncio.sleep(0.2)

    async def _agreed_tree(self) -> dict[tuple[Any, ...], Any]:
        """What all members have, once they have the same."""
        deadline = time.monotonic() + _AGREE_SECONDS
        while True:
            try:
                first, *others = [tree async for tree in self._trees()]
                if all(other == first for other in others):
                    return first
                said = "they differ"
            except (BridgeError, TimeoutError) as error:
                said = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise RecoveryError(f"the members do not agree: {said}")
            # A member whose log is damaged ends some seconds after it was started.
            await self._attempt(self._stage.heal)
            await asyncio.sleep(0.3)

    async def _trees(self) -> AsyncIterator[dict[tuple[Any, ...], Any]]:
        for member in self._stage.members:
            async with Khepri.connect(self._node, member, store=self._stage.store) as store:
                await store.fence(timeout=5.0)
                found = await store.get_many(_TREE, timeout=5.0)
                yield {path: data for path, data in found.items() if not _moves(path)}

    def _judge(self, final: FinalEntry | None) -> None:
        if final is not None:
            with RecordFile(self._stage.records / "final.jsonl") as last:
                last.write(final)
        entries: list[Entry] = []
        for file in sorted(self._stage.records.glob("*.jsonl")):
            entries += read_history(file)
        verdict = check(entries)
        outcome = self._outcome
        outcome.restarts = self._servers.starts
        outcome.acts = verdict.acts
        outcome.operations, outcome.unanswered = verdict.operations, verdict.unanswered
        known = Counter(str(entry.known) for entry in entries if isinstance(entry, Replied))
        outcome.granted, outcome.refused = known["ok"], known["refused"]
        deletions = {
            (entry.client, entry.number)
            for entry in entries
            if isinstance(entry, Called) and entry.function == "delete_entity"
        }
        outcome.deleted = sum(
            isinstance(entry, Replied)
            and entry.known is Known.OK
            and (entry.client, entry.number) in deletions
            for entry in entries
        )
        outcome.violations += [f"{violation.rule}: {violation.text}" for violation in verdict.violations]
        outcome.undecided = verdict.undecided


async def _take(server: SimulationProcess, entity: str) -> None:
    """From another one, or from nobody."""
    await server.take(entity, owner=random.choice(PLAYERS))


async def _spawn(server: SimulationProcess, entity: str) -> None:
    """Once whoever acted for the deleted one of this name has stopped."""
    with contextlib.suppress(EntityExistsError):
        await server.spawn(entity, owner=random.choice(PLAYERS), position=_PLACE)


async def _allow(operator: Ownership, entity: str) -> bool:
    """Let everybody take it: the first thing that is asked may meet a cluster that is just electing.

    Returns:
        Whether it is there.
    """
    deadline = time.monotonic() + _AGREE_SECONDS
    while True:
        try:
            await operator.set_rule(entity, Rule.ALLOW, by=OPERATOR)
        except UnknownEntityError:
            return False
        except BridgeError as error:
            if time.monotonic() > deadline:
                raise RecoveryError(f"no write: {type(error).__name__}: {error}") from error
            await asyncio.sleep(0.2)
        else:
            return True


def _moves(path: tuple[Any, ...]) -> bool:
    """Whether a node changes while nobody asks anything: the lessor's, and results of clients."""
    return len(path) > 1 and path[1] in (Atom("lessor"), Atom("clients"), Atom("client_counts"))
