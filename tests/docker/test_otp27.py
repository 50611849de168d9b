"""A hidden node on this host and an Erlang node of OTP 27 in a container on a network of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bridge.errors import HandshakeError, NodeDownError, RemoteError
from bridge.etf import Atom, ErlangMap, Pid
from bridge.node import Gateway, HiddenNode, NodeConfig
from tests.support.containers import Homeservers, host_name, node_name
from tests.support.docker import docker_client, homeserver_image

__all__ = ["docker_client", "homeserver_image"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

_OTP = node_name("hs1")


def _config(network: Homeservers) -> NodeConfig:
    """No port mapper runs on this host, and no resolver knows the containers: their addresses are given."""
    addresses = {host_name(name): network.address(name) for name in network.containers}
    return NodeConfig(register=False, epmd_port=4369, addresses=addresses)


@contextmanager
def _running(client: Any, image: str, *names: str) -> Iterator[Homeservers]:
    """Nodes of OTP 27 that know nothing of each other."""
    network = Homeservers(client, image)
    try:
        for name in names:
            network.start(name)
            network.await_ready(name)
        yield network
    finally:
        network.close()


@pytest.fixture(scope="module")
def network(docker_client: Any, homeserver_image: str) -> Iterator[Homeservers]:
    """One node for all tests here; nothing harms it."""
    with _running(docker_client, homeserver_image, "hs1") as running:
        yield running


@pytest.fixture
async def node(network: Homeservers) -> AsyncIterator[HiddenNode]:
    async with HiddenNode("sim1@host.kb", cookie=network.cookie, config=_config(network)) as running:
        yield running


async def test_it_is_otp_27_and_lists_the_node_as_hidden(node: HiddenNode) -> None:
    await node.connect(_OTP)
    assert await node.call(_OTP, "erlang", "system_info", [Atom("otp_release")]) == list(b"27")
    assert await node.call(_OTP, "erlang", "nodes", []) == []
    assert await node.call(_OTP, "erlang", "nodes", [Atom("hidden")]) == [Atom(node.name)]


async def test_terms_of_every_kind_come_back_as_they_went(node: HiddenNode) -> None:
    terms = [0, -1, 2**64, 1.5, b"\x00\xff", Atom("stone"), Atom("名"), True, (), [], [1, b"a"], {b"k": [1]}]
    terms.append(ErlangMap([(1, b"int"), (1.0, b"float")]))
    terms.append(node.mailbox().pid)
    assert await node.call(_OTP, "erlang", "hd", [[terms]]) == terms
    reference = await node.call(_OTP, "erlang", "make_ref", [])
    assert await node.call(_OTP, "erlang", "is_reference", [reference]) is True
    assert await node.call(_OTP, "erlang", "binary_to_term", [b"\x83a\x07"]) == 7


async def test_messages_monitors_and_links_work_both_ways(node: HiddenNode) -> None:
    box = node.mailbox("inbox")
    pid = await node.call(_OTP, "erlang", "spawn", [Atom("timer"), Atom("sleep"), [60_000]])
    assert isinstance(pid, Pid)
    monitor = await node.monitor(pid, mailbox=box)
    link = await node.link(pid)
    await node.cast(_OTP, "erlang", "exit", [pid, Atom("stone")])
    assert await monitor.wait(timeout=10.0) is await link.wait(timeout=10.0) is Atom("stone")
    assert (await box.receive(timeout=5.0))[0] is Atom("DOWN")
    await node.call(_OTP, "erlang", "send", [(Atom("inbox"), Atom(node.name)), b"by name"])
    assert await box.receive(timeout=5.0) == b"by name"
    assert await node.call(_OTP, "net_adm", "ping", [Atom(node.name)]) is Atom("pong")


async def test_what_fails_there_is_told_here(node: HiddenNode) -> None:
    with pytest.raises(RemoteError, match="badarith"):
        await node.call(_OTP, "erlang", "div", [1, 0])
    with pytest.raises(RemoteError, match="undef"):
        await node.call(_OTP, "erpc", "call", [Atom(node.name), Atom("erlang"), Atom("node"), []])


async def test_a_wrong_cookie_is_named(network: Homeservers) -> None:
    async with HiddenNode("sim2@host.kb", cookie="wrong", config=_config(network)) as node:
        with pytest.raises(HandshakeError, match="cookie"):
            await node.connect(_OTP)


async def test_a_host_whose_address_is_not_given_is_named(network: Homeservers) -> None:
    config = NodeConfig(register=False, epmd_port=4369)
    async with HiddenNode("sim3@host.kb", cookie=network.cookie, config=config) as node:
        with pytest.raises(HandshakeError, match="does not resolve"):
            await node.connect("hs1@no-such-host.invalid")


async def test_a_gateway_leaves_a_member_whose_network_is_cut(
    docker_client: Any, homeserver_image: str
) -> None:
    """No socket reports such a cut: neither side closes anything."""
    with _running(docker_client, homeserver_image, "hs1", "hs2") as network:
        async with (
            HiddenNode("sim4@host.kb", cookie=network.cookie, config=_config(network)) as node,
            Gateway(node, [_OTP, node_name("hs2")]) as gateway,
        ):
            moved = asyncio.Event()
            gateway.on_change(lambda member: moved.set() if member == node_name("hs2") else None)
            assert await gateway.connect(timeout=10.0) == _OTP
            waiting = asyncio.create_task(node.call(_OTP, "timer", "sleep", [60_000], timeout=60.0))
            await node.call(_OTP, "erlang", "node", [])
            network.cut_off("hs1")
            await asyncio.wait_for(moved.wait(), 10.0)
            with pytest.raises(NodeDownError):
                await waiting
            answer = await gateway.call("erlang", "node", [], timeout=5.0, idempotent=True)
            assert answer == Atom(node_name("hs2"))
