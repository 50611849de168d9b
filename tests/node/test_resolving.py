from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

import pytest
import uvloop

from bridge.errors import HandshakeError
from bridge.node.epmd import look_up, names, register
from bridge.node.resolving import dial

NOWHERE = "no-such-host.invalid"


async def no_use(address: str, port: int) -> None:
    raise AssertionError((address, port))


async def test_a_host_is_dialled_by_its_address() -> None:
    async def connect(address: str, port: int) -> tuple[str, int]:
        return address, port

    assert await dial("127.0.0.1", 4369, connect) == ("127.0.0.1", 4369)
    assert await dial("::1", 4369, connect) == ("::1", 4369)


async def test_each_address_of_a_host_is_tried_and_the_last_reason_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def found(host: str, port: int, **_: Any) -> list[Any]:
        there = [
            ("192.0.2.1", port),
            ("192.0.2.1", port),
            ("fe80::1", port, 0, 7),
            ("2001:db8::1", port, 0, 0),
        ]
        return [(0, 0, 0, "", address) for address in there]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    tried: list[str] = []

    async def connect(address: str, port: int) -> str:
        tried.append(address)
        if len(tried) < 3:
            raise ConnectionRefusedError(f"{address} refuses")
        return address

    assert await dial("three", 1, connect) == "2001:db8::1"
    assert tried == ["192.0.2.1", "fe80::1%7", "2001:db8::1"]

    async def refuse(address: str, port: int) -> str:
        raise ConnectionRefusedError(f"{address} refuses")

    with pytest.raises(ConnectionRefusedError, match="2001:db8::1 refuses"):
        await dial("three", 1, refuse)


@pytest.mark.parametrize("host", [NOWHERE, "a" * 64, "a..b", ""], ids=["unknown", "long", "gap", "empty"])
async def test_a_name_without_an_address_is_an_error_of_ours_wherever_it_is_looked_up(host: str) -> None:
    with pytest.raises(socket.gaierror):
        await dial(host, 1, no_use)
    for asked in (look_up("hs1@h", host, 1), register("hs1@h", 1, host, 1), names(host, 1)):
        with pytest.raises(HandshakeError, match="does not resolve"):
            await asked


def test_a_look_up_that_nobody_waits_for_ends_unheard() -> None:
    """As where a cut network makes the name server slow: its error once stood last in a server's output."""
    heard: list[dict[str, Any]] = []

    async def leave(loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(lambda _, context: heard.append(context))
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await look_up("hs1@h", NOWHERE, 1)
        # Until the resolver has answered, one way or the other.
        with pytest.raises(HandshakeError):
            await look_up("hs1@h", NOWHERE, 1)
        gc.collect()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave(runner.get_loop()))
    assert heard == []
