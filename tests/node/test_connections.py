"""Hidden nodes that dial each other, and strangers who dial them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bridge.dist import DistConfig, DistConnection, HandshakeFailed, Identity, Role
from bridge.errors import ClosedError, ConfigurationError, DeadlineError, HandshakeError
from bridge.etf import Atom
from bridge.node import HiddenNode, NodeConfig
from tests.support.otp import COOKIE, free_port
from tests.support.port_mapper import LoopPortMapper, loop_port_mapper


def _node(names: LoopPortMapper, alive: str, *, cookie: str = COOKIE, **options: object) -> HiddenNode:
    return HiddenNode(f"{alive}@127.0.0.1", cookie=cookie, config=names.config(**options))


@pytest.fixture
async def quiet() -> AsyncIterator[int]:
    """The port of a peer that takes what it is told and says nothing."""
    async with loop_port_mapper() as peer:
        peer.silent = True
        yield peer.port


async def test_two_nodes_share_one_connection_and_lose_it_together(names: LoopPortMapper) -> None:
    async with _node(names, "a") as a, _node(names, "b") as b:
        await asyncio.gather(*(a.connect(b.name) for _ in range(10)))
        assert (a.connected, b.connected) == ((b.name,), (a.name,))
        lost = asyncio.Event()
        undo = b.on_node_down(lambda node: lost.set() if node == a.name else None)
        await a.disconnect(b.name)
        assert a.connected == ()
        await asyncio.wait_for(lost.wait(), 5.0)
        assert b.connected == ()
        undo()
        undo()


async def test_two_nodes_in_one_loop_monitor_and_link_each_others_mailboxes(names: LoopPortMapper) -> None:
    async with _node(names, "a") as a, _node(names, "b") as b:
        watched, linked, mine = b.mailbox("watched"), b.mailbox(), a.mailbox()
        watch = await a.monitor(("watched", b.name))
        link = await a.link(linked.pid, mailbox=mine)
        assert (a.connected, b.connected) == ((b.name,), (a.name,))
        await a.send(watched.pid, b"after both")
        assert await watched.receive(timeout=5.0) == b"after both"
        await watched.close()
        assert await asyncio.wait_for(watch.wait(), 5.0) == Atom("normal")
        await linked.close()
        assert await asyncio.wait_for(link.wait(), 5.0) == Atom("normal")


@pytest.mark.parametrize("attempt", range(5))
async def test_two_nodes_that_dial_at_once_share_one_connection(names: LoopPortMapper, attempt: int) -> None:
    del attempt  # who is first differs from one run to the next
    async with _node(names, "a") as a, _node(names, "b") as b:
        await asyncio.gather(a.connect(b.name), b.connect(a.name))
        assert (a.connected, b.connected) == ((b.name,), (a.name,))
        box = b.mailbox()
        await a.send(box.pid, b"through")
        assert await box.receive(timeout=5.0) == b"through"


async def test_a_wrong_cookie_is_named_and_a_later_try_with_the_right_one_connects(
    names: LoopPortMapper,
) -> None:
    async with _node(names, "b") as b:
        async with _node(names, "a", cookie="wrong") as a:
            for _ in range(2):
                with pytest.raises(HandshakeError, match=r"cannot connect to b@127\.0\.0\.1: .*same one"):
                    await a.connect(b.name)
            assert a.connected == ()
        async with _node(names, "a") as a:
            await a.connect(b.name)


async def test_the_port_of_another_node_is_found_out(names: LoopPortMapper) -> None:
    async with _node(names, "a") as a, _node(names, "b") as b:
        names.ports["c"] = b.port
        with pytest.raises(HandshakeError, match=r"c@127\.0\.0\.1 was dialled and b@127\.0\.0\.1 answered"):
            await a.connect("c@127.0.0.1")


async def test_a_stale_registration_and_a_missing_one_are_named(names: LoopPortMapper) -> None:
    names.ports["gone"] = free_port()
    async with _node(names, "a") as a:
        with pytest.raises(HandshakeError, match="does not listen on port"):
            await a.connect("gone@127.0.0.1")
        with pytest.raises(HandshakeError, match="is registered at"):
            await a.connect("nobody@127.0.0.1")
        with pytest.raises(ConfigurationError, match="no node name"):
            await a.connect("nobody")
        with pytest.raises(ConfigurationError, match="itself"):
            await a.connect(a.name)


async def test_nodes_with_fixed_ports_need_no_port_mapper() -> None:
    config = NodeConfig(register=False, epmd_port=free_port())
    async with HiddenNode("b@127.0.0.1", cookie=COOKIE, config=config) as b:
        for known in ({"ports": {b.name: b.port}}, {"ports": {"127.0.0.1": b.port}}, {"port": b.port}):
            fixed = NodeConfig(register=False, **known)
            async with HiddenNode("a@127.0.0.1", cookie=COOKIE, config=fixed) as a:
                await a.connect(b.name)
                assert b.connected == (a.name,)
    async with HiddenNode("a@127.0.0.1", cookie=COOKIE, config=fixed) as a:
        with pytest.raises(HandshakeError, match=r"does not listen on port .* fixed port"):
            await a.connect("c@127.0.0.1")


async def test_a_port_in_use_and_an_address_of_another_machine_are_named(names: LoopPortMapper) -> None:
    async with _node(names, "a") as a:
        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127\.0\.0\.1:{a.port} \("):
            await _node(names, "b", listen_port=a.port).__aenter__()
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1:0"):
        await _node(names, "b", listen_host="192.0.2.1").__aenter__()


async def test_a_host_without_a_resolver_is_dialled_by_its_address(names: LoopPortMapper) -> None:
    async with (
        _node(names, "a", addresses={"b.kb": "127.0.0.1"}) as a,
        HiddenNode("b@b.kb", cookie=COOKIE, config=names.config()) as b,
    ):
        await a.connect(b.name)
        assert b.connected == (a.name,)


async def test_a_peer_that_says_nothing_uses_up_only_the_time_allowed(
    names: LoopPortMapper, quiet: int
) -> None:
    names.ports["quiet"] = quiet
    async with _node(names, "a", connect_timeout=0.1) as a:
        with pytest.raises(DeadlineError, match=r"within .*is it an Erlang node"):
            await a.connect("quiet@127.0.0.1")
        with pytest.raises(DeadlineError, match=r"within 0\.01 s"):
            await a.connect("quiet@127.0.0.1", timeout=0.01)


async def test_a_silent_port_mapper_uses_up_only_the_time_allowed(names: LoopPortMapper) -> None:
    async with _node(names, "a", connect_timeout=0.1) as a:
        names.silent = True
        with pytest.raises(DeadlineError, match=r"the port mapper .* does not answer"):
            await a.connect("b@127.0.0.1")
        with pytest.raises(HandshakeError, match="does not answer"):
            await _node(names, "c", connect_timeout=0.1).__aenter__()


async def test_closing_ends_who_waits_for_a_connection(names: LoopPortMapper, quiet: int) -> None:
    names.ports["quiet"] = quiet
    async with _node(names, "a") as a:
        waiting = asyncio.create_task(a.connect("quiet@127.0.0.1"))
        await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        await waiting


async def test_a_node_that_starts_anew_takes_the_place_of_its_earlier_run(names: LoopPortMapper) -> None:
    """The earlier connection is given up when the newcomer has proved the cookie, and not before."""
    async with _node(names, "b") as b:
        downs: list[str] = []
        b.on_node_down(downs.append)
        first = _node(names, "a", register=False)
        await first.__aenter__()
        await first.connect(b.name)
        async with _node(names, "a", cookie="wrong", register=False) as impostor:
            with pytest.raises(HandshakeError):
                await impostor.connect(b.name)
        assert downs == []
        async with _node(names, "a", register=False) as second:
            await second.connect(b.name)
            assert downs == [first.name]
            assert b.connected == (second.name,)
            box = b.mailbox()
            await second.send(box.pid, b"second")
            assert await box.receive(timeout=5.0) == b"second"
        await first.close()


async def _dial(port: int, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, DistConnection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    identity = Identity(name=name, cookie=COOKIE, creation=9)
    connection = DistConnection(Role.INITIATOR, identity, challenge=1, now=0.0, config=DistConfig())
    for chunk in connection.data_to_send():
        writer.write(chunk)
    return reader, writer, connection


async def test_a_stranger_with_our_own_name_is_not_allowed(names: LoopPortMapper) -> None:
    async with _node(names, "a") as a:
        reader, writer, connection = await _dial(a.port, a.name)
        connection.receive_data(await reader.read(), now=0.0)
        event = connection.next_event()
        assert isinstance(event, HandshakeFailed)
        assert "does not allow this node name" in event.detail
        writer.close()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", bytes(2), b"\0\1N", b"\xff\xff"])
async def test_a_stranger_who_speaks_something_else_is_hung_up_on(names: LoopPortMapper, data: bytes) -> None:
    async with _node(names, "a") as a:
        reader, writer = await asyncio.open_connection("127.0.0.1", a.port)
        writer.write(data)
        assert await reader.read() == b""
        writer.close()
        assert a.connected == ()


async def test_as_many_strangers_may_wait_as_are_allowed_and_not_one_more(names: LoopPortMapper) -> None:
    async with _node(names, "a", max_incoming_connections=2) as a:
        waiting = [await _dial(a.port, f"s{n}@127.0.0.1") for n in range(2)]
        for reader, _, connection in waiting:
            connection.receive_data(await reader.read(2), now=0.0)  # each is answered
        reader, writer, _ = await _dial(a.port, "s3@127.0.0.1")
        assert await reader.read() == b""
        for _, other, _ in [*waiting, (reader, writer, None)]:
            other.close()
