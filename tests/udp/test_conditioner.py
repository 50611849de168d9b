from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.udp.conditioner import Conditioner, Conditions

HERE = ("192.0.2.1", 1)


def run(conditions: Conditions, *, seed: int, count: int = 500) -> list[tuple[float, bytes]]:
    conditioner = Conditioner(conditions, seed=seed)
    for n in range(count):
        conditioner.push(n.to_bytes(2, "big"), HERE, now=n / 1000)
    arrived = []
    while (timer := conditioner.get_timer()) is not None:
        arrived += [(timer, datagram) for datagram, _ in conditioner.pop_due(now=timer)]
    return arrived


BAD = Conditions(loss=0.1, delay=0.02, jitter=0.01, duplication=0.1, reordering=0.1)


def test_a_seed_replays_exactly() -> None:
    assert run(BAD, seed=7) == run(BAD, seed=7)
    assert run(BAD, seed=7) != run(BAD, seed=8)


def test_without_conditions_everything_passes_at_once_and_in_order() -> None:
    assert run(Conditions(), seed=0) == [(n / 1000, n.to_bytes(2, "big")) for n in range(500)]


@pytest.mark.parametrize(
    ("conditions", "low", "high"),
    [(Conditions(loss=0.2), 350, 450), (Conditions(duplication=0.2), 550, 650), (Conditions(loss=1), 0, 0)],
)
def test_loss_and_duplication_have_their_rates(conditions: Conditions, low: int, high: int) -> None:
    assert low <= len(run(conditions, seed=1)) <= high


@pytest.mark.parametrize("conditions", [Conditions(jitter=0.01), Conditions(reordering=0.1)])
def test_jitter_and_reordering_change_the_order(conditions: Conditions) -> None:
    order = [datagram for _, datagram in run(conditions, seed=1)]
    assert len(order) == 500
    assert order != sorted(order)


@pytest.mark.parametrize("bad", [{"loss": 1.1}, {"duplication": -0.1}, {"delay": -1}, {"jitter": -1}])
def test_impossible_conditions_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Conditions(**bad)
