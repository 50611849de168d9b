"""Two instances, each with its homeservers, services and one simulation server, roads between them all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from benchmarks.passes.instance import Instance, services
from benchmarks.passes.proxy import proxied
from benchmarks.passes.road import Road
from benchmarks.passes.series import SERVERS
from benchmarks.passes.stage import Stage, start_server
from bridge.authority import Message
from bridge.cli.connection import local_way, open_store
from bridge.cluster.local import LocalCluster
from bridge.errors import BridgeError
from bridge.etf import Atom
from bridge.homeserver.federation import Escrows, Peer
from bridge.khepri import Khepri

_BRIDGE: Final = Atom("bridge")
_KNOWN_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05


@asynccontextmanager
async def stage_abroad(
    clusters: tuple[LocalCluster, LocalCluster], road: Road, messages: list[Message]
) -> AsyncIterator[Stage]:
    """A server at each instance; passes between them are Case 1.

    Args:
        clusters: of the two.
        road: between all hosts; homeservers and services of one instance are one site.
        messages: gets what crossed to the services, once they have ended.
    """
    running = Stage()
    async with AsyncExitStack() as stack:
        instances = [await stack.enter_async_context(services(cluster)) for cluster in clusters]
        stores = [
            await stack.enter_async_context(open_store(local_way(cluster.directory, cluster.state)))
            for cluster in clusters
        ]
        far = await stack.enter_async_context(proxied({one.name: one.port for one in instances}, road))
        for store, other in zip(stores, reversed(instances), strict=True):
            await Escrows(store).pin(_peer(other, far[other.name]))
            stack.push_async_callback(_unpin, store, other.name)
        for name, cluster, instance in zip(SERVERS, clusters, instances, strict=True):
            running.servers[name] = await start_server(stack, cluster, name, road, running.on_event)
            running.instances[name] = instance.name
        for store, name in zip(stores, reversed(SERVERS), strict=True):
            await _known(store, running.instances[name], name)
        yield running
    messages += [message for instance in instances for message in instance.messages]


def _peer(instance: Instance, port: int) -> Peer:
    return Peer(instance=instance.name, urls=(f"http://127.0.0.1:{port}",), keys=(instance.key,))


async def _unpin(store: Khepri, instance: str) -> None:
    # What is on its way still keeps its pin; the next stage brings another key and address.
    with contextlib.suppress(BridgeError):
        await Escrows(store).unpin(instance)


async def _known(store: Khepri, instance: str, server: str) -> None:
    """Wait until an instance was told of a server of another one."""
    async with asyncio.timeout(_KNOWN_SECONDS):
        while True:
            nodes = await store.get_many([_BRIDGE, Atom("abroad"), instance])
            told = next(iter(nodes.values()), None)
            if told is not None and server.encode() in told[Atom("servers")]:
                return
            await asyncio.sleep(_LOOK_SECONDS)
