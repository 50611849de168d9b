"""The road between hosts, and the parts of the benchmark of passes that decide what it says."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.passes.proxy import port_answer, port_mapper, proxied
from benchmarks.passes.road import Line, Road
from bridge.dist import encode_port_please, parse_port_please


class Luck(Random):
    """A way of mean length, then chunks that are lost or arrive as told."""

    def __init__(self, *draws: float) -> None:
        super().__init__()
        self._draws = iter(draws)

    def random(self) -> float:
        return next(self._draws)


MEAN, LOST, ARRIVES = 0.5, 0.99, 0.0


def arrivals(road: Road, times: list[float], luck: Random) -> list[tuple[float, bytes]]:
    """When each of the chunks that were sent at these times arrives."""
    line = Line(road, luck)
    arrived: list[tuple[float, bytes]] = []

    def until(now: float) -> None:
        while (due := line.get_timer()) is not None and due <= now:
            # What was held back by one before it arrives with that one.
            arrived.extend((due, data) for data in line.pop_due(now=due))

    for number, now in enumerate(times):
        until(now)
        line.push(number.to_bytes(2, "big"), now=now)
    until(1e9)
    return arrived


@given(
    st.lists(st.floats(0, 0.05), min_size=1, max_size=60),
    st.sampled_from([0.0, 20.0, 200.0]),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.integers(0, 1 << 32),
)
def test_everything_arrives_in_order_and_no_sooner_than_the_way_takes(
    gaps: list[float], rtt_ms: float, loss: float, seed: int
) -> None:
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    road = Road(rtt_ms=rtt_ms, loss=loss, seed=0)
    arrived = arrivals(road, times, Random(seed))
    assert [data for _, data in arrived] == [n.to_bytes(2, "big") for n in range(len(times))]
    assert all(at >= sent + road.shortest - 1e-9 for (at, _), sent in zip(arrived, times, strict=True))


def test_the_mean_way_is_half_the_round_trip() -> None:
    road = Road(rtt_ms=50, loss=0, seed=0)
    times = [float(n) for n in range(1_000)]
    ways = [at - sent for (at, _), sent in zip(arrivals(road, times, Random(1)), times, strict=True)]
    assert sum(ways) / len(ways) == pytest.approx(0.025, rel=0.02)
    assert max(ways) - min(ways) <= road.jitter


def test_what_is_lost_comes_again_after_the_time_out_or_when_a_later_one_shows_the_loss() -> None:
    road = Road(rtt_ms=100, loss=0.05, seed=0)
    ((alone, _),) = arrivals(road, [0.0], Luck(MEAN, LOST, ARRIVES))
    assert alone == pytest.approx(0.3 + 0.05), "a round trip, 200 ms, and the way"
    ((twice, _),) = arrivals(road, [0.0], Luck(MEAN, LOST, LOST, ARRIVES))
    assert twice == pytest.approx(0.3 + 0.6 + 0.05)
    (shown, _), (behind, _) = arrivals(road, [0.0, 0.01], Luck(MEAN, LOST, ARRIVES, MEAN, ARRIVES))
    assert shown == pytest.approx(0.01 + 0.125 + 0.05), "a round trip and a quarter, and the way"
    assert behind == shown, "in order"


def test_the_stand_in_answers_as_a_port_mapper_does() -> None:
    registered = parse_port_please(port_answer(b"hs1", 4711))
    assert registered is not None
    assert (registered.port, registered.hidden) == (4711, False)
    assert parse_port_please(port_answer(b"hs1", None)) is None


async def test_the_port_mapper_tells_of_its_nodes_alone() -> None:
    async with port_mapper({"hs1": 4711}) as port:
        for name, told in (("hs1", 4711), ("hs2", None)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(encode_port_please(name))
            registered = parse_port_please(await reader.read())
            writer.close()
            assert (None if registered is None else registered.port) == told


async def test_a_proxy_passes_on_both_ways_after_the_way_and_ends_with_either_end() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    async with proxied(
        {"echo": server.sockets[0].getsockname()[1]}, Road(rtt_ms=40, loss=0, seed=0)
    ) as ports:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["echo"])
        began = loop.time()
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert loop.time() - began >= 0.036
        writer.close()
        assert await reader.read() == b""
    server.close()
    await server.wait_closed()
