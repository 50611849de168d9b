"""Asking a port mapper over TCP, a well-behaved one and others."""

from __future__ import annotations

import asyncio

import pytest

from bridge.errors import DeadlineError, HandshakeError
from bridge.node import epmd
from bridge.node.epmd import look_up, register
from tests.support.otp import PortMapper, free_port
from tests.support.port_mapper import LoopPortMapper


async def test_a_registered_name_is_found_until_its_writer_closes(names: LoopPortMapper) -> None:
    held = await register("sim1@h", 4711, "127.0.0.1", names.port)
    assert held.creation == 0x1000
    found = await look_up("sim1@h", "127.0.0.1", names.port)
    assert (found.port, found.hidden) == (4711, True)
    held.close()
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
    held = await register("hs1@h", 1, "127.0.0.1", names.port)
    held.close()
    assert held.creation == 2


@pytest.mark.parametrize("answer", [[], [b"w"], [b"HTTP/1.1 400 Bad Request\r\n\r\n"], [b"w\x00\x12"]])
async def test_what_is_no_port_mapper_is_named(names: LoopPortMapper, answer: list[bytes]) -> None:
    names.answer = answer
    with pytest.raises(HandshakeError, match="did not answer"):
        await look_up("hs1@h", "127.0.0.1", names.port)
    with pytest.raises(HandshakeError, match="did not register"):
        await register("hs1@h", 1, "127.0.0.1", names.port)
    with pytest.raises(HandshakeError, match="did not answer"):
        await epmd.names("127.0.0.1", names.port)


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


@pytest.mark.erlang
async def test_all_names_of_the_real_port_mapper_are_listed(mapper: PortMapper) -> None:
    held = [await register(f"listed{n}@h", 4711 + n, "127.0.0.1", mapper.port) for n in range(2)]
    found = await epmd.names("127.0.0.1", mapper.port)
    assert {("listed0", 4711), ("listed1", 4712)} <= found.items()
    for one in held:
        one.close()


async def test_a_port_mapper_that_never_answers_uses_up_only_the_time_allowed(names: LoopPortMapper) -> None:
    names.silent = True
    with pytest.raises(DeadlineError, match=rf"{names.port} did not answer within 0\.05 s"):
        await epmd.names("127.0.0.1", names.port, timeout=0.05)


async def test_a_name_is_registered_again_when_the_port_mapper_comes_back(
    names: LoopPortMapper, caplog: pytest.LogCaptureFixture
) -> None:
    held = await register("sim1@h", 4711, "127.0.0.1", names.port, retry_seconds=0.01)
    await names.hang_up()
    names.ports["sim1"] = 1  # somebody else is faster
    while "the name sim1@h is in use" not in caplog.text:
        await asyncio.sleep(0.01)
    names.ports.clear()
    while names.ports != {"sim1": 4711}:
        await asyncio.sleep(0.01)
    assert held.creation == 0x1000
    held.close()


async def test_a_closed_registration_is_not_renewed(names: LoopPortMapper) -> None:
    held = await register("sim1@h", 4711, "127.0.0.1", names.port, retry_seconds=0.0)
    held.close()
    while "sim1" in names.ports:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert names.ports == {}
