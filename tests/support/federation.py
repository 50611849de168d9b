"""Two instances, each with its own cluster and signing key, and a way between them that tests can disturb."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.authority import Message
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.errors import AuthorityError, BridgeError, ConnectionLostError
from bridge.etf import Atom
from bridge.homeserver.federation import Courier, CourierConfig, Desk, Escrows, Peer, RejectedError
from bridge.homeserver.federation.desk import LaterError, SettledError, UnpinnedError
from bridge.jose import Jwk
from bridge.khepri import Khepri, Path
from bridge.registry import EntityRecord
from tests.support.authority import STEP, Server
from tests.support.cluster import fresh, hidden_node
from tests.support.credentials import KeySigner
from tests.support.target import target

QUICK = CourierConfig(patience=1.0, first_wait=0.02, longest_wait=0.2, settle_every=0.05, servers_every=0.2)
INSTANCES = ("emerald", "ruby")


@dataclass
class Instance:
    """One side of a federation: its store, its key, its desk, and what its homeservers said of messages."""

    name: str
    cluster: LocalCluster
    store: Khepri
    key: Jwk = field(default_factory=Jwk.generate)
    messages: list[Message] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    questions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.signer = KeySigner(self.key)
        self.escrows = Escrows(self.store)
        self.desk = Desk(
            self.escrows, instance=self.name, signer=self.signer, on_message=self.messages.append
        )

    def as_peer(self, **changes: Any) -> Peer:
        members: dict[str, Any] = {
            "instance": self.name,
            "urls": ("http://127.0.0.1:1",),
            "keys": (self.key.public(),),
        }
        return Peer(**{**members, **changes})

    async def entity(self, entity: str) -> EntityRecord:
        await self.store.fence()
        return EntityRecord.from_term(await self.store.get(path("entities", entity)))

    def server(self) -> Server:
        return Server(self.store, fresh(f"{self.name}-sim"))

    async def push_abroad(self, record: EntityRecord, giver: Server, to: Instance, taker: Server) -> Any:
        """As a simulation server does that has stopped."""
        return await giver.home.push_abroad(
            entity=record.entity,
            epoch=record.epoch,
            owner="Player2",
            instance=to.name,
            to=taker.name,
            box=giver.release(record, taker),
            step=type(STEP)(trace=secrets.token_bytes(16), hop=0),
        )


def path(kind: str, *names: str) -> Path:
    return [Atom("bridge"), Atom(kind), *names]


class DirectLink:
    """Calls the desk of the other instance; may lose what goes either way."""

    def __init__(self, *desks: Desk) -> None:
        self.desks = {desk._here.instance: desk for desk in desks}
        self.asked: list[tuple[str, bytes, str]] = []
        self.lose_question: Callable[[bytes], bool] = lambda body: False
        self.lose_answer: Callable[[bytes], bool] = lambda body: False

    async def ask(self, peer: Peer, body: bytes, seal: str) -> tuple[bytes, str]:
        self.asked.append((peer.instance, body, seal))
        if self.lose_question(body):
            raise ConnectionLostError("lost on the way there")
        try:
            answer = await self.desks[peer.instance].serve(body, seal)
        except LaterError as error:
            raise RejectedError(str(error), status=409, kind="elsewhere") from error
        except SettledError as error:
            raise RejectedError(str(error), status=409, kind="settled") from error
        except UnpinnedError as error:
            raise RejectedError(str(error), status=403, kind="unpinned") from error
        except AuthorityError as error:
            raise RejectedError(str(error), status=404, kind=str(error.reason)) from error
        except BridgeError as error:
            raise RejectedError(str(error), status=400, kind="") from error
        if self.lose_answer(body):
            raise ConnectionLostError("lost on the way back")
        return answer.body, answer.seal


@dataclass
class Federation:
    """Both sides, and a direct way between them."""

    x: Instance
    y: Instance

    def __post_init__(self) -> None:
        self.link = DirectLink(self.x.desk, self.y.desk)

    def other(self, instance: Instance) -> Instance:
        return self.y if instance is self.x else self.x

    def courier(
        self,
        instance: Instance,
        *,
        config: CourierConfig = QUICK,
        checkpoint: Callable[[str], Awaitable[None]] | None = None,
    ) -> Courier:
        return Courier(
            instance.store,
            instance=instance.name,
            signer=instance.signer,
            link=self.link,
            config=config,
            on_message=instance.messages.append,
            on_problem=instance.problems.append,
            on_question=lambda asked, outcome: instance.questions.update([(asked, outcome)]),
            checkpoint=checkpoint,
        )

    @contextlib.asynccontextmanager
    async def couriers(self, **options: Any) -> AsyncIterator[None]:
        """A courier on each side."""
        tasks = [asyncio.create_task(self.courier(side, **options).run()) for side in (self.x, self.y)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self, entity: str) -> None:
        """Wait until nothing of the entity is on its way."""
        async with asyncio.timeout(30):
            for side in (self.x, self.y):
                while entity in [escrow.entity for escrow in await side.escrows.escrows()]:
                    await asyncio.sleep(0.02)

    async def places(self, entity: str) -> list[str]:
        """Where the entity is: exactly one of an instance's, in an instance's escrow."""
        found = []
        for side in (self.x, self.y):
            await side.store.fence()
            record = await term(side, "entities", entity)
            if record is not None and Atom("away") not in record:
                found.append(side.name)
            for escrow in await side.escrows.escrows():
                verdict = await term(self.other(side), "incoming", side.name, str(escrow.transfer))
                accepted = verdict is not None and verdict[Atom("verdict")] == Atom("accepted")
                if escrow.entity == entity and not accepted:
                    found.append(f"escrow of {side.name}")
        return found


async def term(side: Instance, kind: str, *names: str) -> Any:
    """A record of the tree as all members have it, or ``None``."""
    from bridge.khepri import NodeNotFoundError

    try:
        return await side.store.get(path(kind, *names), favor="consistency")
    except NodeNotFoundError:
        return None


def instance_cluster(name: str, *, nodes: int = 1) -> LocalCluster:
    """A cluster of an instance, not yet started."""
    # No server of these tests renews its session.
    environment = {"KB_LEASE_MS": "3600000"}
    return LocalCluster(
        LocalClusterConfig(nodes=nodes, instance=name, release=target().release, environment=environment)
    )


@pytest.fixture(scope="session")
def instance_clusters() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    """Two instances of a node each, for the whole session; not to be harmed."""
    with instance_cluster(INSTANCES[0]) as first, instance_cluster(INSTANCES[1]) as second:
        yield first, second


@contextlib.asynccontextmanager
async def federation_of(clusters: tuple[LocalCluster, LocalCluster]) -> AsyncIterator[Federation]:
    """Both instances, each with the other pinned under a new key."""
    async with contextlib.AsyncExitStack() as stack:
        sides = []
        for name, cluster in zip(INSTANCES, clusters, strict=True):
            node = await stack.enter_async_context(hidden_node(cluster))
            store = await stack.enter_async_context(
                Khepri.connect(node, cluster.members, store=cluster.store)
            )
            sides.append(Instance(name, cluster, store))
        x, y = sides
        await x.escrows.pin(y.as_peer())
        await y.escrows.pin(x.as_peer())
        yield Federation(x, y)


@pytest.fixture
async def federation(instance_clusters: tuple[LocalCluster, LocalCluster]) -> AsyncIterator[Federation]:
    """Two instances that trust each other."""
    async with federation_of(instance_clusters) as made:
        yield made
