"""What the homeserver's feed tells a session, and who hears of it: servers, players, entities, the inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

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
_LEARNED_AT_ONCE: Final = 128
"""records of a snapshot: a few milliseconds"""


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
            async for change in feed:
                match change:
                    case Snapshot(nodes=nodes):
                        await self._learn_all(nodes)
                        self._forget_all_but(nodes)
                        self.ready.set()
                    case Updated(path=path, data=data):
                        self._learn(path, data)
                    case Deleted(path=path):
                        self._forget(path)

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

    async def _learn_all(self, nodes: Mapping[NativePath, object]) -> None:
        # Keys first: a grant in the inbox names a giver, and its release opens with that key.
        for kind in (_SERVERS, _PLAYERS, _ENTITIES, _INBOX):
            told = [(path, data) for path, data in nodes.items() if path[1] == kind]
            for number, (path, data) in enumerate(told):
                self._learn(path, data)
                # Renewals and steps of the simulation must not wait for a whole world.
                if number % _LEARNED_AT_ONCE == _LEARNED_AT_ONCE - 1:
                    self.learned += _LEARNED_AT_ONCE
                    await asyncio.sleep(0)

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

    def _forget_all_but(self, nodes: Mapping[NativePath, object]) -> None:
        """What is no more since before a member was connected is told by a snapshot that lacks it."""
        told = {path[2] for path in nodes if path[1] == _ENTITIES and len(path) == 3}
        for entity in [name for name in self._standing.entities if name.encode() not in told]:
            self._obedience.forget_entity(entity, may_be_new=True)


async def _all_set(*events: asyncio.Event) -> None:
    for event in events:
        await event.wait()
