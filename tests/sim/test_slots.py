import pytest

from bridge.errors import ConfigurationError
from bridge.sim.slots import Slots


def slots(capacity: int = 4, follow: int = 10) -> Slots:
    return Slots(server="sim1", capacity=capacity, follow=follow)


def test_an_entity_keeps_the_slot_that_it_got() -> None:
    some = slots()
    assert "ball" not in some
    assert [some["ball"], some["sack"], some["ball"]] == [0, 1, 0]
    assert "ball" in some


def test_one_entity_too_many_is_refused_and_takes_nothing() -> None:
    some = slots(capacity=1)
    assert some["ball"] == 0
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="more than 1 entities: raise the capacity of sim1"):
            some["sack"]
    assert "sack" not in some


@pytest.mark.parametrize(("capacity", "follow", "most"), [(4, 10, 2), (4, 1, 1), (4, 0, 0)])
def test_what_is_only_followed_leaves_half_of_the_slots(capacity: int, follow: int, most: int) -> None:
    some = slots(capacity, follow)
    for number in range(most):
        assert some.may_follow(f"e{number}")
        some[f"e{number}"]
    assert not some.may_follow("another")
    assert most == 0 or some.may_follow("e0")


def test_a_dropped_slot_is_another_entitys_once_it_is_free() -> None:
    some = slots(capacity=2)
    assert (some["ball"], some["sack"]) == (0, 1)
    assert some.drop("ball") == 0
    assert some.drop("ball") is None
    assert ("ball" in some, list(some), some.dropped) == (False, ["sack"], (0,))
    assert some.is_full
    assert not some.may_follow("gun")
    with pytest.raises(ConfigurationError):
        some["gun"]
    some.free(0)
    assert (some.is_full, some.dropped) == (False, ())
    assert some["gun"] == 0
    assert (list(some), len(some), some.is_full) == (["sack", "gun"], 2, True)
