"""Hidden nodes and real OTP nodes where no port mapper runs: every port is known beforehand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from bridge.errors import HandshakeError
from bridge.node import HiddenNode, NodeConfig
from bridge.node.epmd import names
from tests.support.otp import (
    COOKIE,
    PortMapper,
    fixed_port_flags,
    free_port,
    no_port_mapper,
    otp_node,
    running_epmd,
)

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture
def nowhere() -> Iterator[PortMapper]:
    """A home without a port mapper."""
    with no_port_mapper() as home:
        yield home


async def test_nodes_with_fixed_ports_dial_each_other_without_a_port_mapper(nowhere: PortMapper) -> None:
    """OTP dials every node on its own port, so the hidden node has that port on an address of its own."""
    port = free_port()
    config = NodeConfig(
        epmd_port=nowhere.port, register=False, port=port, listen_host="127.0.0.2", listen_port=port
    )
    async with (
        otp_node(nowhere, "hs1", flags=fixed_port_flags(port)) as otp,
        HiddenNode("sim1@127.0.0.2", cookie=COOKIE, config=config) as node,
    ):
        box = node.mailbox("box")
        await otp.evaluate("{box, 'sim1@127.0.0.2'} ! <<>>")
        assert await box.receive(timeout=10.0) == b""
        assert node.connected == (otp.name,)
        lost = asyncio.Event()
        node.on_node_down(lambda _: lost.set())
        await otp.evaluate("erlang:disconnect_node('sim1@127.0.0.2')")
        await asyncio.wait_for(lost.wait(), 10.0)
        assert (await node.call(otp.name, "erlang", "node", [])).text == otp.name


async def test_a_port_that_is_not_the_nodes_is_named(nowhere: PortMapper) -> None:
    port = free_port()
    with socket.socket() as unused:
        # Bound, or the hidden node itself might get it.
        unused.bind(("127.0.0.1", 0))
        ports = {"hs1@127.0.0.1": unused.getsockname()[1], "127.0.0.1": port}
        async with (
            otp_node(nowhere, "hs1", flags=fixed_port_flags(port)) as otp,
            HiddenNode(
                "sim1@127.0.0.1", cookie=COOKIE, config=NodeConfig(register=False, ports=ports)
            ) as node,
        ):
            with pytest.raises(HandshakeError, match="is that its fixed port"):
                await node.connect(otp.name)
            with pytest.raises(
                HandshakeError, match=r"hs2@127\.0\.0\.1 was dialled and hs1@127\.0\.0\.1 answered"
            ):
                await node.connect("hs2@127.0.0.1")


async def test_a_hidden_node_is_found_again_after_the_port_mapper_has_restarted(nowhere: PortMapper) -> None:
    node = HiddenNode("sim1@127.0.0.1", cookie=COOKIE, config=nowhere.node_config())
    async with AsyncExitStack() as stack:
        with running_epmd(nowhere.port):
            await stack.enter_async_context(node)
        with running_epmd(nowhere.port):
            async with asyncio.timeout(20.0):
                while "sim1" not in await names("127.0.0.1", nowhere.port):
                    await asyncio.sleep(0.05)
            async with otp_node(nowhere, "hs1") as otp:
                box = node.mailbox("box")
                await otp.evaluate("{box, 'sim1@127.0.0.1'} ! <<>>")
                assert await box.receive(timeout=10.0) == b""
