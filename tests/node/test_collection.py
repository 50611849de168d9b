"""What the garbage collector is told of large answers."""

from __future__ import annotations

import gc

import pytest

from bridge.node.collection import counted_as_old


@pytest.fixture(autouse=True)
def _collector() -> object:
    yield
    gc.unfreeze()
    gc.enable()


def test_what_is_made_is_not_young_and_the_collector_goes_on() -> None:
    with counted_as_old():
        assert not gc.isenabled()
        made = [[n] for n in range(2_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert not any(one is made for one in gc.get_objects(generation=0))
    assert any(one is made for one in gc.get_objects(generation=2))
    assert gc.get_count()[0] < 1_000


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with counted_as_old():
        pass
    assert not gc.isenabled()


def test_what_the_program_froze_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with counted_as_old():
        assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen - 100  # some of it may have gone


def test_an_error_leaves_the_collector_on() -> None:
    with pytest.raises(ValueError, match="no"), counted_as_old():
        raise ValueError("no")
    assert gc.isenabled()
