from __future__ import annotations

import asyncio

from bridge.sim.dataplane.commands import LEAST_BYTES, LONGEST_SECONDS, MOST_BYTES, CommandReader, Share
from bridge.sim.dataplane.messages import (
    MAX_FRAME_BYTES,
    BeginSession,
    Command,
    Forget,
    Shutdown,
    encode_frame,
)

WORLD: list[Command] = [Forget(entity=f"tree{number:04}") for number in range(2_000)]


def fed(data: bytes, *, ended: bool = True) -> CommandReader:
    stream = asyncio.StreamReader(limit=2 * len(data) + 1)
    stream.feed_data(data)
    if ended:
        stream.feed_eof()
    return CommandReader(stream)


async def all_of(reader: CommandReader) -> list[list[Command]]:
    told = []
    while some := await reader.waiting():
        told.append(some)
    return told


async def test_commands_come_whole_and_in_order_however_they_were_cut() -> None:
    frames = b"".join(map(encode_frame, WORLD))
    told = await all_of(fed(frames))
    assert [command for some in told for command in some] == WORLD
    assert max(len(some) * len(encode_frame(WORLD[0])) for some in told) <= LEAST_BYTES + len(
        encode_frame(WORLD[0])
    )


async def test_one_longer_than_what_is_read_at_once_is_waited_for() -> None:
    long = BeginSession(session=bytes(3 * LEAST_BYTES))
    assert await all_of(fed(encode_frame(long) + encode_frame(Shutdown()))) == [[long, Shutdown()]]


async def test_a_control_plane_that_dies_within_a_frame_has_told_what_was_whole() -> None:
    assert await all_of(fed(encode_frame(Shutdown()) + encode_frame(Shutdown())[:-1])) == [[Shutdown()]]


async def test_a_frame_longer_than_any_ends_it() -> None:
    data = (MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"junk"
    assert await all_of(fed(encode_frame(Shutdown()) + data, ended=False)) == [[Shutdown()]]


async def test_a_lost_control_plane_is_one_that_has_ended() -> None:
    reader = fed(b"")
    reader._stream = asyncio.StreamReader()
    reader._stream.set_exception(ConnectionResetError())
    assert await reader.waiting() == []


def test_commands_get_about_as_much_time_as_all_else_takes() -> None:
    """R0-52: a fixed number in each turn would take a busy data plane minutes to hear of a world."""
    share = Share()
    seconds, others = 40e-6 / 100, 0.03
    turns = 0
    told = 0
    while told < 3_200_000:
        share.took(commands=share.bytes * seconds, others=others)
        told += share.bytes
        turns += 1
    assert turns < 100
    assert share.bytes * seconds <= others


def test_nobody_waits_long_for_commands_and_the_quiet_get_few() -> None:
    share = Share()
    for _ in range(20):
        share.took(commands=0.001, others=1.0)
    assert share.bytes == MOST_BYTES
    share.took(commands=2 * LONGEST_SECONDS, others=1.0)
    assert share.bytes == MOST_BYTES // 2
    for _ in range(20):
        share.took(commands=0.01, others=0.0)
    assert share.bytes == LEAST_BYTES
