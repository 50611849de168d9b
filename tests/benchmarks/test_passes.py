"""The road between hosts, and the parts of the benchmark of passes that decide what it says."""

from __future__ import annotations

import asyncio
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.passes.central import Central, Said
from benchmarks.passes.picture import svg
from benchmarks.passes.proxy import port_answer, port_mapper, proxied
from benchmarks.passes.publish import tables
from benchmarks.passes.road import Line, Road
from benchmarks.passes.series import Crossing, Trial, crossing_passes, run_series, summary
from bridge.dist import encode_port_please, parse_port_please
from bridge.errors import InvalidStateError
from bridge.sim.match import generate_match


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
            await writer.wait_closed()
            assert (None if registered is None else registered.port) == told


async def test_a_proxy_passes_on_both_ways_after_the_way_and_ends_with_either_end() -> None:
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()
        await writer.wait_closed()
        ended.set()

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
        await writer.wait_closed()
        async with asyncio.timeout(10):
            await ended.wait()
    server.close()
    await server.wait_closed()


RESULTS = {
    "benchmark": "passes",
    "passes": 40,
    "per_second": 25.0,
    "match": "some match",
    "generated": True,
    "nodes": 1,
    "processors": 2,
    "load": 0.4,
    "case2": {
        rtt: {
            "p50_ms": 3.0 + float(rtt),
            "p95_ms": 9.0,
            "p99_ms": 12.0,
            "before_arrival": 0.99,
            "within_100_ms": 1.0,
            "failed": 0,
            "model_ms": 2.0 + float(rtt),
            "messages": 4.0,
            "critical_path": 2,
        }
        for rtt in ("0", "50")
    },
    "case3_loss_5": {"50": {"passes": 3, "failed": 3}},
}


def test_the_picture_is_xml_with_a_panel_for_each_loss() -> None:
    picture = svg(RESULTS)
    ElementTree.fromstring(picture)
    assert "0 % loss" in picture
    assert "5 % loss" in picture


def test_the_tables_hold_the_measurement_against_the_model() -> None:
    text = tables(RESULTS)
    assert "40 crossing passes of some match, made up" in text
    assert "1 homeserver an instance, 2 cores, load average 0.4" in text
    assert "| Case 2: push | 3 / 9 / 12; 99.0% | 53 / 9 / 12; 99.0% |" in text
    assert "| Case 2: push | 4.0 | 2 | 1.02 (53 / 52 ms) | 100.0% |" in text
    assert "| Case 3: direct update | – |" in text


def test_a_series_counts_what_failed_as_not_in_time() -> None:
    trials = [
        Trial(flight_ms=10.0, took_ms=5.0, seen_ms=8.0),
        Trial(flight_ms=10.0, took_ms=None, error="no"),
    ]
    row = summary(trials)
    assert (row["p50_ms"], row["before_arrival"], row["failed"], row["seen_p50_ms"]) == (5.0, 0.5, 1, 8.0)
    assert summary(trials[1:]) == {"passes": 1, "failed": 1}


async def test_passes_are_begun_whatever_becomes_of_those_before() -> None:
    match = generate_match(passes=40, seconds=40.0, seed=1)
    passes = crossing_passes(match, 10)
    assert {(one.giver, one.taker) for one in passes} == {("sim1", "sim2"), ("sim2", "sim1")}
    begun: list[int] = []
    waiting = asyncio.Event()

    async def attempt(one: Crossing) -> tuple[float, float | None]:
        begun.append(one.play.number)
        if len(begun) == len(passes):
            waiting.set()
        await waiting.wait()
        if one is passes[0]:
            raise InvalidStateError("refused")
        return 1.0, None

    trials = await run_series(passes, attempt, per_second=1_000.0)
    assert begun == [one.play.number for one in passes]
    assert [t.error for t in trials if t.error] == ["InvalidStateError: refused"]


def test_the_central_server_obeys_the_owner_alone() -> None:
    central = Central()
    first = central.receive("sim1", Said("hand", bytes(16), 0, "ball", "sim2", (1.0, 0.0, 0.0)))
    assert [(to, said.kind, said.hop) for to, said in first] == [("sim1", "told", 1), ("sim2", "handed", 1)]
    assert central.receive("sim1", Said("input", bytes(16), 0, "ball", "sim2")) == []
    (answer,) = central.receive("sim2", Said("input", bytes(16), 0, "ball", "sim1", (0.0, 2.0, 0.0)))
    assert answer == ("sim1", Said("view", bytes(16), 1, "ball", "sim1", (0.0, 2.0, 0.0)))
