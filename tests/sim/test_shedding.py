"""When a server sheds, how much, and to whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.sim.shedding import Offered, Shedding, assigned

PERIOD = 1 / 60


def stepped(shedding: Shedding, share: float, seconds: float = 10.0) -> Shedding:
    """A simulation whose steps take that share of their period, for so long."""
    for _ in range(round(seconds / PERIOD)):
        shedding.stepped(share * PERIOD)
    return shedding


def test_a_server_below_its_limits_sheds_nothing_and_has_room_up_to_four_fifths() -> None:
    shedding = stepped(Shedding(period_seconds=PERIOD, max_entities=100), 0.5)
    assert shedding.excess(100) == 0
    assert [shedding.room(held) for held in (0, 79, 80, 100)] == [80, 1, 0, 0]


def test_one_that_holds_too_much_sheds_down_to_four_fifths_and_no_faster_than_it_may() -> None:
    shedding = Shedding(period_seconds=PERIOD, max_entities=100, per_round=8)
    held, rounds = 101, []
    while number := shedding.excess(held):
        assert shedding.room(held) == 0
        rounds.append(number)
        held -= number
    assert rounds == [8, 8, 5]
    assert held == 80
    assert shedding.excess(100) == 0


def test_steps_that_take_too_long_shed_a_tenth_a_round_until_they_are_well_within_their_period() -> None:
    shedding = stepped(Shedding(period_seconds=PERIOD, max_entities=1_000), 1.2)
    assert shedding.busy == pytest.approx(1.2, abs=0.01)
    assert (shedding.excess(50), shedding.room(0)) == (5, 0)
    stepped(shedding, 0.9)
    assert (shedding.excess(45), shedding.room(0)) == (5, 0)
    stepped(shedding, 0.7)
    assert (shedding.excess(40), shedding.room(40)) == (0, 760)


def test_steps_may_be_given_less_than_their_period() -> None:
    shedding = stepped(Shedding(period_seconds=PERIOD, max_entities=1_000, max_busy=0.5), 0.45)
    assert (shedding.excess(50), shedding.room(0)) == (0, 0)
    stepped(shedding, 0.6)
    assert (shedding.excess(50), shedding.room(0)) == (5, 0)
    stepped(shedding, 0.35)
    assert (shedding.excess(45), shedding.room(45)) == (0, 755)
    with pytest.raises(ConfigurationError):
        Shedding(period_seconds=PERIOD, max_entities=1, max_busy=0.0)


def test_one_long_step_sheds_nothing() -> None:
    shedding = stepped(Shedding(period_seconds=PERIOD, max_entities=10), 0.1)
    shedding.stepped(10 * PERIOD)
    assert shedding.excess(10) == 0


def test_the_one_that_holds_least_takes_of_what_it_streams_in() -> None:
    others = {
        "a": Offered(5, frozenset({"e1", "e2", "e3"})),
        "b": Offered(4, frozenset({"e1", "e2"})),
        "c": Offered(0, frozenset()),
    }
    assert assigned(["e0", "e1", "e2", "e3"], others) == [("e1", "b"), ("e2", "a"), ("e3", "a")]


@pytest.mark.parametrize("values", [{"max_entities": 0}, {"period_seconds": 0.0}, {"per_round": 0}])
def test_limits_that_are_none_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Shedding(**({"period_seconds": PERIOD, "max_entities": 1} | values))  # type: ignore[arg-type]


@given(
    limits=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    loads=st.lists(st.integers(0, 60), min_size=2, max_size=5),
)
def test_servers_that_shed_to_each_other_come_to_rest(limits: list[int], loads: list[int]) -> None:
    """Nothing is lost, nobody is pushed above its limit, and after some rounds nothing moves any more."""
    count = min(len(limits), len(loads))
    policies = [Shedding(period_seconds=PERIOD, max_entities=limit) for limit in limits[:count]]
    held = [[f"{server}-{n}" for n in range(load)] for server, load in enumerate(loads[:count])]
    total = sum(map(len, held))
    moved, last = True, 0
    for _ in range(60):
        moved = False
        for giver, policy in enumerate(policies):
            number = policy.excess(len(held[giver]))
            others = {
                str(server): Offered(
                    len(held[server]), frozenset(held[giver][: other.room(len(held[server]))])
                )
                for server, other in enumerate(policies)
                if server != giver
            }
            for entity, taker in assigned(held[giver][:], others)[:number]:
                held[giver].remove(entity)
                held[int(taker)].append(entity)
                assert len(held[int(taker)]) <= limits[int(taker)]
                moved = True
                last += 1
    assert not moved
    assert sum(map(len, held)) == total
    assert last <= total
