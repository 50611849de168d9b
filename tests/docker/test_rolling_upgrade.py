"""A cluster of Khepri 0.16 becomes one of 0.18, a member at a time, while clients go on writing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pytest

from bridge.khepri import Khepri, Put
from bridge.node import Gateway, HiddenNode, NodeConfig
from tests.support.containers import Homeservers, host_name, node_name
from tests.support.docker import docker_client, homeserver_image, newer_homeserver_image

__all__ = ["docker_client", "homeserver_image", "newer_homeserver_image"]

pytestmark = [pytest.mark.docker, pytest.mark.matrix, pytest.mark.slow, pytest.mark.timeout(900)]

_NAMES: Final = ("hs1", "hs2", "hs3")
_SECONDS: Final = 60.0


@pytest.fixture
def old_cluster(docker_client: Any, homeserver_image: str) -> Iterator[Homeservers]:
    """Three members of the older image, each with a volume of its own."""
    network = Homeservers(docker_client, homeserver_image)
    try:
        for name in _NAMES:
            network.start(
                name, seed="" if name == "hs1" else "hs1", volumes={f"{network.cookie}-{name}": _mount()}
            )
            network.await_ready(name)
        yield network
    finally:
        network.close()
        for name in _NAMES:
            with contextlib.suppress(Exception):
                docker_client.volumes.get(f"{network.cookie}-{name}").remove(force=True)


def _mount() -> dict[str, str]:
    return {"bind": "/data", "mode": "rw"}


def _upgrade(network: Homeservers, name: str, image: str) -> None:
    """Stop a member in order, and start the newer image on its data and under its name."""
    network.containers[name].stop()
    network.containers[name].handle.remove()
    network.image = image
    network.start(
        name, seed="hs2" if name == "hs1" else "hs1", volumes={f"{network.cookie}-{name}": _mount()}
    )
    network.await_ready(name)


async def _write(store: Khepri, written: dict[str, int], stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        key = f"n{number % 50}"
        if number % 2:
            await store.put(f"/:counts/{key}", number, timeout=_SECONDS)
        else:
            await store.transaction([Put(f"/:counts/{key}", number)], timeout=_SECONDS)
        written[key] = number
        await asyncio.sleep(0.02)


async def test_every_member_is_upgraded_while_writes_go_on(
    old_cluster: Homeservers, newer_homeserver_image: str
) -> None:
    network = old_cluster
    addresses = {host_name(name): network.address(name) for name in _NAMES}
    written: dict[str, int] = {}
    for name in _NAMES:
        config = NodeConfig(register=False, epmd_port=4369, addresses=addresses)
        stop = asyncio.Event()
        async with (
            HiddenNode("python@host.kb", cookie=network.cookie, config=config) as node,
            # The member that is upgraded comes first: the client has to leave it.
            Gateway(node, [node_name(name), *(node_name(n) for n in _NAMES if n != name)]) as gateway,
        ):
            await gateway.connect(timeout=_SECONDS)
            async with Khepri.connect(node, gateway, store="homeserver") as store:
                writing = asyncio.create_task(_write(store, written, stop))
                await asyncio.to_thread(_upgrade, network, name, newer_homeserver_image)
                await asyncio.sleep(1.0)
                stop.set()
                await writing
                for key, number in written.items():
                    assert await store.get(f"/:counts/{key}") == number
        addresses = {host_name(other): network.address(other) for other in _NAMES}
    for name in _NAMES:
        health = network.health(name)
        assert sorted(health["members"]) == [node_name(other) for other in _NAMES]
        version = network.evaluate(name, 'io:format("~s", [element(2, application:get_key(khepri, vsn))]).')
        assert version == "0.18.1"
