from __future__ import annotations

from itertools import groupby
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.conditioner import MAX_PATHS, Conditioner
from bridge.udp.conditions import NetworkConditions
from bridge.udp.peers import Address

HERE = ("192.0.2.1", 1)
THERE = ("192.0.2.2", 2)
MANY = 20_000
EVERYTHING = NetworkConditions.parse(
    "loss=10%,burst=3,delay=20ms,jitter=10ms,duplicate=10%,reorder=10%,rate=1mbit,queue=20KiB,"
    "partition=200ms+100ms,seed=7"
)

Arrival = tuple[float, bytes, Address]


def arrivals(conditioner: Conditioner) -> list[Arrival]:
    found = []
    while (timer := conditioner.get_timer()) is not None:
        found += [(timer, *one) for one in conditioner.pop_due(now=timer)]
    return found


def run(text: str, *, count: int = MANY, every: float = 0.001, size: int = 4) -> list[tuple[float, int]]:
    """When which datagram arrived, of ``count`` that were sent one each ``every`` seconds from 0 s on."""
    conditioner = Conditioner(NetworkConditions.parse(text))
    for n in range(count):
        conditioner.push(n.to_bytes(4, "big").ljust(size), HERE, now=n * every)
    return [(at, int.from_bytes(datagram[:4], "big")) for at, datagram, _ in arrivals(conditioner)]


def lost(text: str) -> list[int]:
    arrived = {n for _, n in run(text)}
    return [n for n in range(MANY) if n not in arrived]


def bursts(numbers: list[int]) -> list[int]:
    """Lengths of the runs of consecutive numbers."""
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    return [len(list(members)) for _, members in runs]


pushes = st.lists(
    st.tuples(st.floats(0, 0.05), st.integers(0, 1500), st.sampled_from([HERE, THERE])), max_size=200
)


def push_all(conditioner: Conditioner, sent: list[tuple[float, int, Address]], *to: Address) -> list[Arrival]:
    now, arrived = 100.0, []
    for n, (pause, size, address) in enumerate(sent):
        now += pause
        if address in to:
            conditioner.push(n.to_bytes(4, "big") + bytes(size), address, now=now)
            arrived += [(now, *one) for one in conditioner.pop_due(now=now)]
    return arrived + arrivals(conditioner)


@given(sent=pushes, seed=st.integers(0, 1 << 32))
def test_a_seed_replays_exactly(sent: list[tuple[float, int, Address]], seed: int) -> None:
    conditions = NetworkConditions.parse(f"{str(EVERYTHING).removesuffix('7')}{seed}")
    first, again = (Conditioner(conditions, source="a") for _ in range(2))
    assert push_all(first, sent, HERE, THERE) == push_all(again, sent, HERE, THERE)
    assert first.statistics() == again.statistics()


@given(sent=pushes)
def test_what_goes_to_one_destination_changes_nothing_for_another(
    sent: list[tuple[float, int, Address]],
) -> None:
    """The time of partitions, which begins with the first datagram, is the one thing that paths share."""
    sent = [(0.0, 0, HERE), *sent]
    both = push_all(Conditioner(EVERYTHING), sent, HERE, THERE)
    alone = push_all(Conditioner(EVERYTHING), sent, HERE)
    assert [one[1] for one in both if one[2] == HERE] == [one[1] for one in alone]


@given(sent=pushes)
def test_every_datagram_is_counted_once(sent: list[tuple[float, int, Address]]) -> None:
    conditioner = Conditioner(EVERYTHING)
    arrived = push_all(conditioner, sent, HERE, THERE)
    counted = conditioner.statistics()
    assert counted.sent == len(sent)
    assert counted.on_the_way == len(conditioner) == 0
    gone = counted.cut + counted.overflowed + counted.lost
    assert len(arrived) == counted.sent - gone + counted.duplicated


def test_another_seed_or_another_source_is_another_run() -> None:
    sent = [(0.001, 10, HERE)] * 200
    runs = [
        push_all(Conditioner(NetworkConditions(loss=0.1, seed=seed), source=source), sent, HERE)
        for seed, source in ((1, "a"), (2, "a"), (1, "b"))
    ]
    assert runs[0] != runs[1] != runs[2] != runs[0]


def test_without_conditions_everything_passes_at_once_and_in_order() -> None:
    assert run("", count=500) == [(n * 0.001, n) for n in range(500)]


def test_a_view_is_kept_as_it_was() -> None:
    conditioner, buffer = Conditioner(NetworkConditions(delay=1)), bytearray(b"first")
    conditioner.push(memoryview(buffer), HERE, now=0)
    buffer[:] = b"other"
    assert conditioner.pop_due(now=0.5) == []
    assert conditioner.pop_due(now=1) == [(b"first", HERE)]


@pytest.mark.parametrize(("loss", "low", "high"), [("2%", 340, 460), ("20%", 3800, 4200)])
def test_a_loss_without_bursts_hits_each_datagram_by_itself(loss: str, low: int, high: int) -> None:
    gone = lost(f"loss={loss},seed=1")
    assert low < len(gone) < high
    # Mean run of independent losses: 1 / (1 - p).
    assert fmean(bursts(gone)) == pytest.approx(1 / (1 - len(gone) / MANY), rel=0.05)


@pytest.mark.parametrize("burst", [1, 2, 4, 16])
def test_bursts_have_their_mean_length_and_leave_the_loss_as_it_is(burst: int) -> None:
    gone = lost(f"loss=5%,burst={burst},seed=3")
    assert len(gone) == pytest.approx(0.05 * MANY, rel=0.25)
    assert fmean(bursts(gone)) == pytest.approx(burst, rel=0.2)
    if burst == 1:
        assert max(bursts(gone)) == 1


def test_the_lengths_of_bursts_are_geometric() -> None:
    lengths = bursts(lost("loss=20%,burst=4,seed=5"))
    for length in (1, 2, 4, 8):
        longer = sum(one > length for one in lengths) / len(lengths)
        assert longer == pytest.approx((1 - 1 / 4) ** length, abs=0.04)


def test_everything_may_be_lost() -> None:
    assert run("loss=100%", count=500) == run("loss=100%,burst=4", count=500) == []


def test_delay_and_jitter_are_uniform_between_their_bounds() -> None:
    delays = sorted(at - n * 0.001 for at, n in run("delay=20ms,jitter=10ms,seed=1"))
    assert 0.02 <= delays[0] < 0.0201
    assert 0.0299 < delays[-1] < 0.03001
    for part in (0.25, 0.5, 0.75):
        assert delays[int(part * MANY)] == pytest.approx(0.02 + part * 0.01, abs=0.0002)


def test_a_delay_alone_keeps_the_order_and_jitter_does_not() -> None:
    assert [n for _, n in run("delay=20ms")] == list(range(MANY))
    order = [n for _, n in run("jitter=10ms")]
    assert sorted(order) == list(range(MANY))
    assert order != sorted(order)


def test_duplicates_arrive_twice() -> None:
    arrived = [n for _, n in run("duplicate=3%,jitter=5ms,seed=1")]
    assert set(arrived) == set(range(MANY))
    assert len(arrived) - MANY == pytest.approx(0.03 * MANY, rel=0.15)


def test_what_is_reordered_is_overtaken_by_exactly_its_hold() -> None:
    arrived = run("reorder=2%,reorder_by=5500us,seed=1")
    late = [n for at, n in arrived if at - n * 0.001 > 0.005]
    assert len(late) == pytest.approx(0.02 * MANY, rel=0.15)
    place = {n: index for index, (_, n) in enumerate(arrived)}
    overtaken = [n for n in late if n + 6 < MANY and not {n + k for k in range(1, 6)} & set(late)]
    assert all(place[n] > place[n + 5] for n in overtaken)
    assert len(overtaken) > len(late) / 2


def test_a_rate_spaces_what_comes_too_fast_and_leaves_the_rest() -> None:
    # 1000 bytes at 8 Mbit/s take a millisecond.
    fast = run("rate=8mbit,queue=1MB", count=500, every=0, size=1000)
    assert [at for at, _ in fast] == [pytest.approx((n + 1) * 0.001) for n in range(500)]
    slow = run("rate=8mbit", count=500, every=0.002, size=1000)
    assert [at for at, _ in slow] == [pytest.approx(n * 0.002 + 0.001) for n in range(500)]


def test_a_full_queue_drops_at_its_tail() -> None:
    burst = run("rate=8mbit,queue=10kB", count=100, every=0, size=1000)
    assert [n for _, n in burst] == list(range(10))
    # Twice the rate: half passes, and the queue is never longer than its bound.
    arrived = run("rate=8mbit,queue=10kB", count=2000, every=0.0005, size=1000)
    assert len(arrived) == pytest.approx(1000 + 10, abs=2)
    assert max(at - n * 0.0005 for at, n in arrived) <= 0.0101


def test_each_destination_has_the_rate_to_itself() -> None:
    conditioner = Conditioner(NetworkConditions(rate=1000))
    for address in (HERE, THERE):
        conditioner.push(bytes(1000), address, now=0)
    assert [at for at, _, _ in arrivals(conditioner)] == [1, 1]


def test_what_is_sent_in_a_partition_is_lost_and_what_is_on_its_way_arrives() -> None:
    arrived = {n for _, n in run("delay=100ms,partition=1s+2s,partition=5s+500ms", count=10_000)}
    assert set(range(10_000)) - arrived == {*range(1000, 3000), *range(5000, 5500)}


def test_partitions_count_from_the_first_datagram() -> None:
    conditioner = Conditioner(NetworkConditions.parse("partition=1s+1s"))
    for n in range(4):
        conditioner.push(bytes([n]), HERE, now=1000 + n)
    assert [datagram for _, datagram, _ in arrivals(conditioner)] == [b"\0", b"\2", b"\3"]


def test_a_path_can_be_cut_and_mended_by_call() -> None:
    conditioner = Conditioner(NetworkConditions())

    def passes() -> set[Address]:
        for address in (HERE, THERE):
            conditioner.push(b"x", address, now=0)
        return {address for _, address in conditioner.pop_due(now=0)}

    assert passes() == {HERE, THERE}
    conditioner.cut(HERE)
    assert passes() == {THERE}
    conditioner.cut()
    assert passes() == set()
    conditioner.mend()
    assert passes() == {THERE}
    conditioner.mend(HERE)
    assert passes() == {HERE, THERE}
    assert conditioner.statistics().cut == 4


@pytest.mark.parametrize("more", ["partition=500ms+500ms", "jitter=10ms,reorder=10%", "duplicate=10%"])
def test_what_else_happens_does_not_change_which_datagrams_are_lost(more: str) -> None:
    """Bursts go on below a partition: the first datagrams after it do not meet the one it began in."""
    alone = {n for _, n in run("loss=20%,burst=20,seed=1", count=2000)}
    both = {n for _, n in run(f"loss=20%,burst=20,{more},seed=1", count=2000)}
    cut = set(range(500, 1000)) if "partition" in more else set()
    assert both == alone - cut


def test_conditions_can_be_changed_for_one_destination_or_for_all() -> None:
    conditioner = Conditioner(NetworkConditions())
    conditioner.set_conditions(NetworkConditions(delay=1), address=THERE)
    for address in (HERE, THERE):
        conditioner.push(b"x", address, now=0)
    assert [(at, address) for at, _, address in arrivals(conditioner)] == [(0, HERE), (1, THERE)]
    conditioner.set_conditions(NetworkConditions(delay=2))
    for address in (HERE, THERE, ("192.0.2.3", 3)):
        conditioner.push(b"x", address, now=0)
    assert [at for at, _, _ in arrivals(conditioner)] == [2, 2, 2]


def test_strangers_take_bounded_memory() -> None:
    conditioner = Conditioner(NetworkConditions())
    for n in range(MAX_PATHS + 500):
        conditioner.push(b"x", ("192.0.2.1", n), now=0)
    assert len(conditioner._paths) == MAX_PATHS
    assert len(conditioner.pop_due(now=0)) == MAX_PATHS + 500
