"""Requests joined with their answers, as the check of a history shows."""

from __future__ import annotations

from msgspec.structs import replace

from bridge.authority import Called, Known, Replied, check
from tests.support.history import A, B, asked, created, final, leaving, pulled, view


def test_a_request_without_an_answer_is_counted_and_harmless() -> None:
    verdict = check([*created(), *pulled(2, 200, 2, 2)[:1], final(ball=view(2, 2, B, "Bob"))])
    assert verdict.violations == []
    assert verdict.unanswered == 1


def test_what_a_leaving_player_passed_on_explains_a_version_of_it() -> None:
    """R0-8: one request changes many entities, and shows none of their records."""
    given = asked(2, "transfer", 200, view(2, 1, owner="Bob"), by="Ann", to="Bob")
    end = final(ball=view(3, 1))
    assert check([*created(), *given, *leaving(300, "ball"), end]).violations == []
    assert check([*created(), *given, *leaving(300, "ball")[:1], end]).violations == []
    assert check([*created(), *given, *leaving(300, "cup"), end]).not_linearizable
    assert check([*created(), *given, *leaving(180, "ball"), end]).not_linearizable


def test_a_session_that_was_granted_another_entity_later_had_not_ended() -> None:
    taken = pulled(2, 200, 3, 2)
    cup = Called(client="e", number=1, function="create_entity", at_ns=300, entity="cup", session=A)
    there = Replied(client="e", number=1, at_ns=310, known=Known.OK, record=view(1, 9))
    assert check([*created(), *taken]).violations == []
    assert check([*created(), *taken, cup, there]).not_linearizable


def test_a_request_that_two_processes_repeated_is_one() -> None:
    """The first one died after it was done, and before it was answered."""
    first = Called(client="key", number=1, function="transfer", at_ns=200, entity="ball", by="Ann", to="Bob")
    again, answered = asked(1, "transfer", 400, view(2, 1, owner="Bob"), by="Ann", to="Bob")
    repeat = [replace(again, client="key"), replace(answered, client="key")]
    back = asked(2, "transfer", 300, view(3, 1), by="Bob", to="Ann")
    assert not check([*created(), first, *back, *repeat]).violations
    assert check([*created(), *back, *repeat]).not_linearizable, "it was done before its repeat was asked"
    assert check([*created(), first, *back, *repeat]).operations == 3


def test_what_an_ended_session_held_is_passed_on_one_after_the_other() -> None:
    """The cup's record names a session that has ended, and lost the ball before."""
    passed = asked(2, "transfer", 200, view(3, 2, B, owner="Bob"), by="Ann", to="Bob")
    called, answered = created()
    cup = [replace(called, entity="cup", client="d"), replace(answered, client="d")]
    called, answered = asked(2, "transfer", 300, view(2, 1, A, owner="Bob"), by="Ann", to="Bob")
    still = [replace(called, entity="cup", client="d"), replace(answered, client="d")]
    assert not check([*created(), *passed, *cup, *still]).violations
    # Nothing is given to a session that has ended.
    called, answered = asked(2, "give", 300, view(2, 1, A, owner="Bob"), session=A, owner="Bob", epoch=1)
    given = [replace(called, entity="cup", client="d"), replace(answered, client="d")]
    assert check([*created(), *passed, *cup, *given]).not_linearizable


def test_what_became_of_the_things_of_a_player_who_left_is_explained() -> None:
    given = asked(2, "transfer", 200, view(2, 1, owner="Bob"), by="Ann", to="Bob")
    left = Called(client="c", number=3, function="leave", at_ns=300, player="Bob")
    ruled = asked(4, "transfer", 400, view(4, 1, owner="Cid"), by="Ann", to="Cid")
    assert not check([*created(), *given, left, *ruled]).violations
    assert check([*created(), *given, *ruled]).not_linearizable
    assert check([*created(), *given, replace(left, player="Eve"), *ruled]).not_linearizable
