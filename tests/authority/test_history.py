"""A whole history checked at once."""

from __future__ import annotations

from bridge.authority import Acceptance, Act, Alive, Began, check, of_instance
from tests.support.history import A, B, accepted, act, again, asked, created, final, gone, pulled, view


def test_acts_one_after_the_other_are_fine() -> None:
    """R0-41, B-4."""
    verdict = check([act("b", 2, 11, 20), act("a", 1, 0, 10), act("a", 3, 21, 30)])
    assert verdict.violations == []
    assert verdict.acts == 3


def test_an_act_of_a_killed_server_lasted_until_its_last_tick() -> None:
    began = Began(server="a", session=A, entity="ball", epoch=1, first_ns=5)
    alive = Alive(server="a", session=A, at_ns=50)
    assert check([began, alive, act("b", 2, 51, 60)]).violations == []
    (violation,) = check([began, alive, act("b", 2, 40, 60)]).double_holders
    assert violation.rule == "no two holders at an instant"
    assert check([began, act("a", 1, 5, 9), alive, act("b", 2, 40, 60)]).violations == []


def test_an_acceptance_told_again_takes_the_place_of_the_earlier_one() -> None:
    assert len(check([accepted(1, 0, 5), accepted(1, 0, 15), accepted(2, 10, 20)]).stale_acceptances) == 1


def test_a_receiver_that_was_started_again_has_forgotten_what_it_accepted() -> None:
    again = Acceptance(receiver="c", session=A, sender="a", entity="ball", epoch=1, first_ns=30, last_ns=40)
    assert check([accepted(2, 10, 20), again]).violations == []


def test_answers_and_acts_of_one_run_are_checked_together() -> None:
    entries = [*created(), *pulled(2, 200, 2, 2), act("a", 1, 101, 150), act("b", 2, 205, 300)]
    verdict = check([*entries, final(ball=view(2, 2, B, "Bob"))])
    assert verdict.violations == []
    assert (verdict.operations, verdict.unanswered, verdict.acts) == (2, 0, 2)


def test_a_name_that_was_deleted_is_followed_into_its_next_life() -> None:
    """There another one of the name begins at version 1, at a higher epoch."""
    history = [*created(), *pulled(2, 200, 2, 2), *gone(3, 300, 3, 3), *again(4, 400, 4)]
    verdict = check([*history, final(ball=view(1, 4))])
    assert verdict.violations == []
    assert verdict.deleted == []
    assert check([*history[:-2], final()]).violations == [], "deleted is not lost"
    assert check([*history, final()]).lost_entities
    assert check([*history[:-2], final(ball=view(2, 2, B, "Bob"))]).not_linearizable, "deleted, and there"
    late = asked(5, "transfer", 500, view(2, 4, A, "Cem"), by="Bob", to="Cem")
    assert check([*history, *late, final(ball=view(2, 4, A, "Cem"))]).not_linearizable
    assert check([*history, *pulled(5, 210, 2, 5), final(ball=view(1, 4))]).not_linearizable


def test_a_deletion_without_an_answer_ends_the_search() -> None:
    history = [*created(), *pulled(2, 200, 2, 2), *gone(3, 300, 3, 3)[:1], *again(4, 400, 4)]
    for ends in (final(ball=view(1, 4)), final()):
        verdict = check([*history, ends])
        assert verdict.violations == []
        assert verdict.deleted == ["ball"]
    early = pulled(5, 210, 2, 5)
    assert check([*history, *early, final(ball=view(1, 4))]).not_linearizable


def test_an_entity_that_was_put_into_escrow_is_named_and_not_searched() -> None:
    gone = asked(2, "push_abroad", 300, view(2, 1, None, "Cem"), session=A, epoch=1, owner="Cem")
    back = asked(3, "give", 400, view(4, 9, A, "Bob"), session=A, epoch=9, owner="Bob")
    verdict = check([*created(), *gone, *back])
    assert verdict.violations == []
    assert verdict.travelled == ["ball"]


def test_two_instances_that_act_at_once_are_found() -> None:
    x = Act(server="a", session=A, entity="ball", epoch=3, first_ns=0, last_ns=50)
    y = Act(server="a", session=B, entity="ball", epoch=5, first_ns=40, last_ns=90)
    assert check(of_instance([x], "emerald") + of_instance([y], "ruby")).double_holders
