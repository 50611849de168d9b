"""What the homeserver's feed tells a session, and who hears of it: servers, players, entities, the inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from bridge.errors import DeadlineError, DecodeError
from bridge.etf import Atom
from bridge.khepri import Deleted, Khepri, NativePath, Path, Snapshot, Updated, path_text
from bridge.registry import EntityRecord, PlayerRecord, ServerRecord, inbox_message
from bridge.sim.asks import Asks
from bridge.sim.direct import DirectUpdates
from bridge.sim.events import Problem, ServerEvent
from bridge.sim.obedience import Obedience
from bridge.sim.standing import Spawn, Standing

BRIDGE: Final = Atom("bridge")
_SERVERS: Final = Atom("servers")
_PLAYERS: Final = Atom("players")
_ENTITIES: Final = Atom("entities")
_INBOX: Final = Atom("inbox")
_START_SECONDS: Final = 30.0
"""until the first acknowledgement, or more of the world that is there; an election may be going on"""
_LEARNED_AT_ONCE: Final = 32
"""records: one to two milliseconds"""
_SORTED_AT_ONCE: Final = 2_048
"""paths of a snapshot, or names: about a millisecond"""

_T = TypeVar("_T")


class Feed:
    """Watches for one session; without it a server would not hear that it was recalled, and go on.

    Args:
        store: client of the instance's store.
        standing: keys, addresses and records of entities.
        obedience: hears of entities, and serves the inbox.
        direct: hears of players.
        asks: hears of questions that are gone.
        on_event: is told of records that cannot be read; must not block.
        spawn: runs work in the background and reports its failure.

    Attributes:
        ready: set once everything was told that was there.
        learned: rises while it is being told.
    """

    def __init__(
        self,
        *,
        store: Khepri,
        standing: Standing,
        obedience: Obedience,
        direct: DirectUpdates,
        asks: Asks,
        on_event: Callable[[ServerEvent], None],
        spawn: Spawn,
    ) -> None:
        self.ready = asyncio.Event()
        self.learned = 0
        self._store = store
        self._standing = standing
        self._obedience = obedience
        self._direct = direct
        self._asks = asks
        self._on_event = on_event
        self._spawn = spawn

    async def run(self) -> None:
        """Hear what is told until cancelled."""
        inbox: Path = [BRIDGE, _INBOX, self._standing.session]
        watched = ([BRIDGE, _SERVERS], [BRIDGE, _PLAYERS], [BRIDGE, _ENTITIES], inbox)
        async with self._store.watch(*watched) as feed:
            told = 0
            async for change in feed:
                match change:
                    case Snapshot(nodes=nodes):
                        await self._forget_all_but(await self._learn_all(nodes))
                        self.ready.set()
                    case Updated(path=path, data=data):
                        self._learn(path, data)
                    case Deleted(path=path):
                        self._forget(path)
                told += 1
                # Many of them may have come at once, and would all be taken in this turn.
                if told % _LEARNED_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def until_begun(self, name: str, *, acknowledged: asyncio.Event, over: asyncio.Task[None]) -> None:
        """Wait until the session's lease has begun and the world is known, however long that takes to tell.

        Args:
            name: of the server.
            acknowledged: set with the first acknowledgement.
            over: ends with the session.

        Raises:
            DeadlineError: nothing comes, or the session was lost.
        """
        begun = asyncio.create_task(_all_set(self.ready, acknowledged))
        heard = -1
        try:
            while not (begun.done() or over.done()) and self.learned > heard:
                heard = self.learned
                await asyncio.wait((begun, over), timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            begun.cancel()
        if over.done():
            over.result()
            raise DeadlineError(f"the session of {name} was lost before it was acknowledged")
        if not acknowledged.is_set():
            raise DeadlineError(
                f"the session of {name} was not acknowledged in {_START_SECONDS:.0f} s: "
                "do the homeservers have a leader?"
            )
        if not self.ready.is_set():
            raise DeadlineError(
                f"{name} has heard no more of the world in {_START_SECONDS:.0f} s: "
                "its homeserver has too much to do, or stands still"
            )

    async def _learn_all(self, nodes: dict[NativePath, object]) -> set[bytes | Atom]:
        """Learn from a snapshot, which is used up; names of the entities in it.

        Renewals and steps of the simulation must not wait for a whole world.
        """
        # Keys first: a grant in the inbox names a giver, and its release opens with that key.
        told: dict[Atom | bytes, list[NativePath]] = {
            kind: [] for kind in (_SERVERS, _PLAYERS, _ENTITIES, _INBOX)
        }
        for some in _parts(list(nodes), _SORTED_AT_ONCE):
            for path in some:
                told[path[1]].append(path)
            await asyncio.sleep(0)
        entities: set[bytes | Atom] = set()
        for of_kind in told.values():
            for some in _parts(of_kind, _LEARNED_AT_ONCE):
                for path in some:
                    self._learn(path, nodes.pop(path))
                    if path[1] == _ENTITIES and len(path) == 3:
                        entities.add(path[2])
                self.learned += len(some)
                await asyncio.sleep(0)
        return entities

    def _learn(self, path: NativePath, data: object) -> None:
        if len(path) < 3 or data is None:
            return
        try:
            self._learn_record(path, data)
        except DecodeError as error:
            # A record of another version of the homeserver: the rest of the feed still counts.
            self._on_event(Problem(text=f"{path_text(path)}: {error}", fatal=False))

    def _learn_record(self, path: NativePath, data: object) -> None:
        if path[1] == _SERVERS:
            self._standing.servers.learn(ServerRecord.from_term(data))
        elif path[1] == _PLAYERS:
            self._direct.learn_player(PlayerRecord.from_term(data))
        elif path[1] == _ENTITIES:
            self._obedience.learn_entity(EntityRecord.from_term(data))
        elif len(path) in (4, 6):
            self._spawn(self._obedience.read_inbox(inbox_message(data)))

    def _forget(self, path: NativePath) -> None:
        names = [name.decode(errors="replace") for name in path[2:] if isinstance(name, bytes)]
        match path[1], names:
            case kind, [name] if kind == _SERVERS and len(path) == 3:
                self._standing.servers.forget(name)
            case kind, [name] if kind == _PLAYERS and len(path) == 3:
                self._direct.forget_player(name)
            case kind, [name] if kind == _ENTITIES and len(path) == 3:
                self._obedience.forget_entity(name)
            case kind, [_, entity, player] if kind == _INBOX and len(path) == 6:
                self._asks.forget_ask(entity, player)

    async def _forget_all_but(self, told: set[bytes | Atom]) -> None:
        """What is no more since before a member was connected is told by a snapshot that lacks it."""
        known = self._standing.entities
        for some in _parts(list(known), _SORTED_AT_ONCE):
            for entity in some:
                if entity.encode() not in told and entity in known:
                    self._obedience.forget_entity(entity, may_be_new=True)
            await asyncio.sleep(0)


def _parts(items: list[_T], size: int) -> Iterator[list[_T]]:
    """All of them in lists of that many; the last one may be shorter."""
    return (items[begin : begin + size] for begin in range(0, len(items), size))


async def _all_set(*events: asyncio.Event) -> None:
    for event in events:
        await event.wait()
