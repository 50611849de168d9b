from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.sim.dataplane.sealing import Sealing, Sealings


def sealing(number: int) -> Sealing:
    return Sealing(entity=f"e{number}", epoch=number + 1, slot=2 * number, handle=number)


def rows(sealings: Sealings) -> set[tuple[str, int, int, int]]:
    slots, handles, epochs = (column.tolist() for column in sealings.columns(sealings.everything()))
    names = [one.entity for one in sealings]
    return set(zip(names, slots, handles, epochs, strict=True))


@given(st.lists(st.integers(0, 100), max_size=300))
def test_the_arrays_have_what_is_acted_for_whatever_begins_and_ends(numbers: list[int]) -> None:
    """Each number begins an entity, or ends it where it has begun."""
    sealings = Sealings()
    sealed: dict[int, tuple[int | None, int]] = {}
    for now, number in enumerate(numbers, start=1):
        ended = sealings.pop(f"e{number}")
        if ended is None:
            sealings.add(sealing(number))
            sealed[number] = (None, 0)
        else:
            assert (ended.first_ns, ended.last_ns) == sealed.pop(number)
        if now % 3 == 0:
            sealings.seal(sealings.everything(), sealings.begun(), now_ns=now)
            sealed = {n: (first or now, now) for n, (first, _) in sealed.items()}
        assert rows(sealings) == {(f"e{n}", 2 * n, n, n + 1) for n in sealed}
        assert {one.entity for one in sealings.begun()} == {
            f"e{n}" for n, (first, _) in sealed.items() if first is None
        }
    assert all(sealings.last_ns(one) == sealed[one.handle][1] for one in sealings)


def test_those_that_begin_do_so_with_the_first_of_their_states() -> None:
    sealings = Sealings()
    for number in range(3):
        sealings.add(sealing(number))
    first = sealings.begun(at_most=2)
    assert [one.entity for one in first] == ["e0", "e1"]
    sealings.seal(np.array([one.row for one in first]), first, now_ns=7)
    assert [one.entity for one in sealings.begun()] == ["e2"]
    sealings.seal(sealings.everything(), sealings.begun(), now_ns=8)
    assert sealings.begun() == []
    assert [(one.first_ns, sealings.last_ns(one)) for one in sealings] == [(7, 8), (7, 8), (8, 8)]


def test_with_the_end_of_all_each_keeps_when_it_was_sealed_last() -> None:
    sealings = Sealings()
    one = sealing(0)
    sealings.add(one)
    sealings.seal(sealings.everything(), sealings.begun(), now_ns=5)
    sealings.clear()
    assert (len(sealings), one.last_ns, sealings.last_ns(one), one.entity in sealings) == (0, 5, 5, False)
