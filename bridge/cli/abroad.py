"""Case 1 performed on this machine: a second instance of one node, and homeservers that ask each other."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from bridge.cli.output import progress
from bridge.errors import DeadlineError

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.authority import Message
    from bridge.cluster.local import LocalCluster
    from bridge.homeserver.federation import Escrows, Peer
    from bridge.jose import Jwk
    from bridge.sim.events import ServerEvent
    from bridge.sim.server import SimulationServer

_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02
_TAKER: Final = "abroad"


def can_perform() -> bool:
    """Whether what the REST service needs is installed."""
    return all(find_spec(name) is not None for name in ("fastapi", "httpx", "uvicorn"))


@contextmanager
def second_instance() -> Iterator[LocalCluster]:
    """A cluster of one node, of an instance of its own, that ends with the block."""
    from bridge.cluster.local import LocalCluster, LocalClusterConfig

    config = LocalClusterConfig(nodes=1, instance=f"abroad-{secrets.token_hex(4)}")
    with LocalCluster(config, progress) as cluster:
        yield cluster


class AbroadCase:
    """Case 1 between a server of this instance and one of another.

    Attributes:
        messages: what crossed between the homeservers of both, and to the other instance's server.
        took_ms: from each command until the new holder acted.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.took_ms: list[float] = []
        self._acts: dict[tuple[str, int], int] = {}

    async def perform(self, here: Path, giver: SimulationServer, other: LocalCluster, times: int) -> None:
        """Push an entity there so often, and back each time.

        Args:
            here: directory of this instance's cluster.
            giver: one of its servers.
            other: the other instance's cluster.
            times: how often.

        Raises:
            BridgeError: a request was refused, or something took longer than half a minute.
        """
        from bridge.sim.config import SimulationConfig
        from bridge.sim.server import SimulationServer

        async with AsyncExitStack() as stack:
            ours, theirs = [
                await stack.enter_async_context(self._served(place)) for place in (here, other.directory)
            ]
            for (escrows, _), (_, peer) in ((ours, theirs), (theirs, ours)):
                await escrows.pin(peer)
                # What is in escrow by then stays pinned, which only an interrupted run leaves.
                # No instance of this name comes again.
                stack.push_async_callback(escrows.unpin, peer.instance, anyway=True)
            taker = SimulationServer(
                SimulationConfig(
                    name=_TAKER,
                    node=f"{_TAKER}@127.0.0.1",
                    members=other.members,
                    cookie=other.cookie,
                    epmd_port=other.epmd_port,
                    register=False,
                    store=other.store,
                    keep_history=True,
                ),
                self._on_event,
            )
            await stack.enter_async_context(taker)
            await self._push(giver, taker, times, home=ours[1].instance, away=theirs[1].instance)
            self.messages += taker.transfers.messages

    async def _push(
        self, giver: SimulationServer, taker: SimulationServer, times: int, *, home: str, away: str
    ) -> None:
        entity = f"abroad{secrets.token_hex(4)}"
        await giver.transfers.spawn(entity, owner="ann", position=(0.0, 0.0, 0.0))
        for _ in range(times):
            begin_ns = await _given(giver, entity, to=taker, instance=away)
            epoch = (await giver.transfers.abroad.decided(entity, seconds=_SECONDS)).epoch
            await _until(partial(self._acts.__contains__, (entity, epoch)), "authority abroad")
            self.took_ms.append((self._acts[entity, epoch] - begin_ns) / 1e6)
            await _given(taker, entity, to=giver, instance=home)
            await taker.transfers.abroad.decided(entity, seconds=_SECONDS)
            await _until(lambda: giver.transfers.held_epoch(entity) is not None, "authority at home")

    def _on_event(self, event: ServerEvent) -> None:
        from bridge.sim.events import AuthorityGained

        if isinstance(event, AuthorityGained):
            self._acts[event.entity, event.epoch] = event.at_ns

    @asynccontextmanager
    async def _served(self, place: Path) -> AsyncIterator[tuple[Escrows, Peer]]:
        """The REST service of an instance, with a key for this run; how another one pins it."""
        from bridge.cli.connection import local_way, open_store
        from bridge.cluster.running import running_cluster
        from bridge.homeserver.federation import Escrows, Peer
        from bridge.homeserver.federation.service import federating
        from bridge.homeserver.rest.app import create_app
        from bridge.homeserver.rest.serve import Listening, serving, store_context
        from bridge.jose import Jwk
        from bridge.registry.trust import Trust

        key = Jwk.generate()
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(local_way(place, running_cluster(place))))
            instance = (await store.health()).instance
            desk = await stack.enter_async_context(
                federating(
                    store, instance=instance, signer=_OwnKey(instance, key), on_message=self.messages.append
                )
            )
            trust = await stack.enter_async_context(Trust(store))
            app = create_app(replace(await store_context(store, trust=trust), desk=desk))
            url, _ = await stack.enter_async_context(serving(app, Listening()))
            yield Escrows(store), Peer(instance=instance, urls=(url,), keys=(key.public(),))


class _OwnKey:
    """A signer of this process, by the rules of the one that is a process of its own."""

    def __init__(self, instance: str, key: Jwk) -> None:
        from bridge.homeserver.signer.policy import SigningPolicy

        self._policy = SigningPolicy(instance=instance, current=key)

    async def sign(self, typ: str, claims: Mapping[str, object]) -> str:
        return self._policy.sign(typ, claims, now=time.time(), monotonic=time.monotonic())

    async def keys(self) -> list[Jwk]:
        return self._policy.public_keys()


async def _given(giver: SimulationServer, entity: str, *, to: SimulationServer, instance: str) -> int:
    """Push once the other instance's servers are known; when the command was given, monotonic."""
    from bridge.registry import UnknownServerError

    deadline = time.monotonic() + _SECONDS
    while True:
        begin_ns = time.monotonic_ns()
        try:
            await giver.transfers.push_abroad(entity, owner="bob", instance=instance, to=to.config.name)
        except UnknownServerError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return begin_ns


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DeadlineError(f"{what} did not come in {_SECONDS:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)
