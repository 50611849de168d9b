"""What the answers around a missing version leave as its making."""

from __future__ import annotations

from typing import Any

from bridge.authority.gaps import Gaps
from bridge.authority.record_model import UNSEEN, Known, Operation, RecordView

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def shown(
    version: int, at: int, *, epoch: int = 1, session: bytes | None = A, owner: str = "Ann"
) -> Operation:
    """A read of a version, answered ten nanoseconds after its call."""
    view = RecordView(owner=owner, master="Ann", rule="allow", session=session, epoch=epoch, version=version)
    return op("read", at, answered_ns=at + 10, known=Known.OK, record=view)


def op(function: str, at: int, **members: Any) -> Operation:
    return Operation(client="c", function=function, entity="ball", called_ns=at, **members)


def gaps(answered: list[Operation], *unknown: Operation) -> Gaps:
    return Gaps(answered, unknown, 0, None)


def makers(found: Gaps, version: int) -> tuple[int, ...]:
    gap = found.gap(version)
    assert gap is not None
    return gap.unknown


def test_a_version_that_an_answer_is_sure_to_have_made_is_no_gap() -> None:
    pushed = op("push", 20, answered_ns=30, known=Known.OK, session=A, record=shown(2, 20, epoch=2).record)
    assert gaps([shown(1, 0), pushed]).gap(2) is None
    assert gaps([shown(1, 0), shown(2, 20)]).gap(2) is not None


def test_versions_that_are_shown_in_another_order_leave_no_time() -> None:
    assert gaps([shown(1, 100), shown(2, 20)]).gap(2) is None


def test_what_was_asked_too_late_has_not_made_it() -> None:
    early, late = op("transfer", 5, by="Ann", to="Bob"), op("transfer", 50, by="Ann", to="Bob")
    found = gaps([shown(1, 0), shown(2, 20, owner="Bob"), shown(3, 40)], early, late)
    assert makers(found, 2) == (0,)
    assert found.alike == [0, 0]


def test_what_was_over_before_has_not_made_it() -> None:
    left = op("leave", 5, player="Bob", until_ns=15)
    answered = [shown(1, 0, owner="Bob"), shown(2, 20, owner="Bob"), shown(3, 40)]
    assert makers(gaps(answered, left), 3) == ()
    assert gaps(answered, left, left).alike == [0, 1]


def test_only_what_leads_from_one_record_to_the_next_has_made_it() -> None:
    wanted = [op("transfer", 5, by="Ann", to=to) for to in ("Bob", "Cem")]
    rule = op("set_rule", 5, by="Ann", value="deny")
    assert makers(gaps([shown(1, 0), shown(2, 20, owner="Cem")], *wanted, rule), 2) == (1,)
    # With nothing known of what was before, the record shown after excludes less.
    assert makers(gaps([shown(1, 0), shown(3, 20, owner="Cem")], *wanted, rule), 3) == (1,)
    assert makers(gaps([shown(1, 0), shown(3, 20, owner="Cem")], *wanted, rule), 2) == (0, 1, 2)


def test_what_names_an_epoch_has_made_it_where_that_was_current() -> None:
    pulls = [op("pull", 5, session=B, owner="Bob", epoch=epoch) for epoch in (1, 3, 9)]
    answered = [shown(1, 0), shown(5, 20, epoch=4, session=C), shown(8, 40, epoch=6)]
    found = gaps(answered, *pulls)
    assert makers(found, 2) == (0,)
    assert makers(found, 4) == (0, 1)
    assert makers(found, 6) == ()


def test_holders_are_named_where_something_shows_them() -> None:
    held = op("already", 25, answered_ns=35, known=Known.REFUSED, detail="already_held", session=C)
    found = gaps([shown(1, 0), shown(3, 40, epoch=2, session=B)], op("pull", 1, session=C, epoch=1))
    gap = found.gap(2)
    assert gap is not None
    assert gap.targets == (UNSEEN, B)
    gap = gaps([shown(1, 0), held, shown(3, 40, epoch=2, session=B)]).gap(2)
    assert gap is not None
    assert gap.targets == (UNSEEN, B, C)
    gap = gaps([shown(1, 0), shown(2, 40, epoch=2, session=B)]).gap(2)
    assert gap is not None
    assert gap.targets == (B,)


def test_after_the_last_version_there_is_a_gap_only_for_what_comes_later() -> None:
    answered = [shown(1, 0), shown(2, 20)]
    refused = op("give", 30, answered_ns=40, known=Known.REFUSED, detail="not_holder", session=A, epoch=1)
    early = op("give", 1, answered_ns=15, known=Known.REFUSED, detail="not_holder", session=B, epoch=1)
    assert gaps([*answered, early]).gap(3) is None
    open_end = gaps([*answered, refused], op("release", 5, session=A, epoch=1))
    assert open_end.beyond == 3
    assert makers(open_end, 3) == makers(open_end, 30) == (0,)


def test_what_can_make_no_later_version_makes_no_difference_later() -> None:
    lost = op("transfer", 5, by="Ann", to="Bob")
    pull = op("pull", 5, session=B, owner="Bob", epoch=1)
    found = gaps([shown(1, 0), shown(2, 20, owner="Bob"), shown(3, 40), shown(4, 60, epoch=5)], lost, pull)
    assert found.later(1).unknown == {0}
    assert found.later(2).unknown == set()
    assert A in found.later(3).sessions
    assert A not in found.later(4).sessions


def test_of_a_long_row_of_missing_versions_the_inner_ones_count_as_alike() -> None:
    lost = op("transfer", 5, by="Ann", to="Bob")
    found = gaps([shown(1, 0), shown(10_000_000, 20, owner="Bob")], lost)
    assert makers(found, 5_000_000) == (0,)
    assert found.later(9_999_999).unknown == {0}
