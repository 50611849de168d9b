"""Asking a port mapper over TCP, a well-behaved one and others."""

from __future__ import annotations

import asyncio

import pytest

from bridge.errors import HandshakeError
from bridge.node.epmd import look_up, register
from tests.support.otp import free_port
from tests.support.port_mapper import LoopPortMapper


async def test_a_registered_name_is_found_until_its_writer_closes(names: LoopPortMapper) -> None:
    creation, held = await register("sim1@h", 4711, "127.0.0.1", names.port)
    assert creation == 0x1000
    found = await look_up("sim1@h", "127.0.0.1", names.port)
    assert (found.port, found.hidden) == (4711, True)
    held.close()
    await held.wait_closed()
    while "sim1" in names.ports:
        await asyncio.sleep(0)
    with pytest.raises(HandshakeError, match="no node sim1@h is registered"):
        await look_up("sim1@h", "127.0.0.1", names.port)


async def test_a_name_in_use_is_named(names: LoopPortMapper) -> None:
    names.ports["sim1"] = 4711
    with pytest.raises(HandshakeError, match="in use"):
        await register("sim1@h", 4712, "127.0.0.1", names.port)


async def test_an_answer_in_pieces_is_read_to_its_end(names: LoopPortMapper) -> None:
    names.answer = [b"w", b"\x00\x12", b"\x67H\x00\x00\x06", b"\x00\x05\x00\x03hs1\x00\x00"]
    assert (await look_up("hs1@h", "127.0.0.1", names.port)).port == 0x1267
    names.answer = [b"y", b"\x00\x00", b"\x02"]
    creation, held = await register("hs1@h", 1, "127.0.0.1", names.port)
    held.close()
    assert creation == 2


@pytest.mark.parametrize("answer", [[], [b"w"], [b"HTTP/1.1 400 Bad Request\r\n\r\n"], [b"w\x00\x12"]])
async def test_what_is_no_port_mapper_is_named(names: LoopPortMapper, answer: list[bytes]) -> None:
    names.answer = answer
    with pytest.raises(HandshakeError, match="did not answer"):
        await look_up("hs1@h", "127.0.0.1", names.port)
    with pytest.raises(HandshakeError, match="did not register"):
        await register("hs1@h", 1, "127.0.0.1", names.port)


async def test_an_answer_without_an_end_is_not_read_for_ever(names: LoopPortMapper) -> None:
    names.answer = [b"x" * 4096] * 4
    with pytest.raises(HandshakeError, match="did not answer"):
        await look_up("hs1@h", "127.0.0.1", names.port)


async def test_nobody_at_the_port_and_a_host_that_does_not_resolve_are_told_apart() -> None:
    port = free_port()
    for ask in (look_up("hs1@h", "127.0.0.1", port), register("hs1@h", 1, "127.0.0.1", port)):
        with pytest.raises(HandshakeError, match=r"no Erlang port mapper answers .* ERL_EPMD_PORT"):
            await ask
    with pytest.raises(HandshakeError, match="does not resolve"):
        await look_up("hs1@no-such-host.invalid", "no-such-host.invalid", port)
