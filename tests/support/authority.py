"""Servers that make authority requests, without simulating anything."""

from __future__ import annotations

from typing import Any

from bridge.authority import Release, encode_message, release_context
from bridge.etf import Atom
from bridge.jose import Jwk, seal_signed_box
from bridge.khepri import Khepri, Path
from bridge.registry import EntityRecord, Homeserver, OpenedSession, Rule, Step, inbox_message
from tests.support.cluster import fresh

STEP = Step(trace=bytes(range(16)), hop=0)


class Server:
    """One server's requests, with a key of its own."""

    def __init__(self, store: Khepri, name: str, key: Jwk | None = None) -> None:
        self.store = store
        self.name = name
        self.key = key or Jwk.generate("P-256")
        self.session = fresh("session").encode().ljust(16, b"-")
        self.home = Homeserver(store, self.session)

    async def open(self, key: Jwk | None = None) -> OpenedSession:
        key = key or self.key
        return await self.home.open_session(
            server=self.name,
            key=key.public().to_json().encode(),
            thumbprint=key.thumbprint(),
            address=("127.0.0.1", 4000),
        )

    async def spawn(self, entity: str, *, rule: Rule = Rule.ALLOW) -> EntityRecord:
        return await self.home.create_entity(entity=entity, owner="Player1", master="Player1", rule=rule)

    async def push(self, record: EntityRecord, to: Server, *, owner: str = "Player2") -> EntityRecord:
        return await self.home.push(
            entity=record.entity, epoch=record.epoch, owner=owner, to=to.name, box="a.b", step=STEP
        )

    async def pull(self, record: EntityRecord, *, owner: str = "Player2") -> EntityRecord:
        return await self.home.pull(entity=record.entity, epoch=record.epoch, owner=owner, step=STEP)

    async def inbox(self, entity: str) -> Any:
        path: Path = [Atom("bridge"), Atom("inbox"), self.session, entity]
        return inbox_message(await self.store.get(path, favor="consistency"))

    async def asked(self, entity: str, player: str) -> Any:
        """What lies in the inbox about this player's ask."""
        path: Path = [Atom("bridge"), Atom("inbox"), self.session, Atom("asks"), entity, player]
        return inbox_message(await self.store.get(path, favor="consistency"))

    def release(self, record: EntityRecord, to: Server, *, key: Jwk | None = None) -> str:
        return seal_signed_box(
            encode_message(Release(entity=record.entity, epoch=record.epoch, state=bytes(26))),
            sender=key or self.key,
            recipient=to.key.public(),
            session=self.session,
            sequence=record.epoch,
            issued_at_ms=1_800_000_000_000,
            lifetime_ms=0,
            purpose="release",
            direction="n",
            context=release_context(record.entity, record.epoch),
        )
