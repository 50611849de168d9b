"""Each promise, by a history that breaks it and one beside it that does not."""

from __future__ import annotations

from bridge.authority import Granted, HandOver, check
from tests.support.history import (
    A,
    B,
    C,
    accepted,
    act,
    again,
    asked,
    created,
    final,
    gone,
    granted,
    pulled,
    view,
)


def test_two_servers_acting_at_one_instant_are_a_counter_example() -> None:
    (violation,) = check([act("a", 1, 0, 10), act("b", 2, 10, 20)]).double_holders
    assert violation.rule == "no two holders at an instant"
    assert "b acted at epoch 2 while a still did at 1" in violation.text
    assert len(violation.entries) == 2


def test_an_overlap_behind_a_longer_act_is_found() -> None:
    verdict = check([act("a", 1, 0, 100), act("a", 2, 5, 6), act("b", 3, 50, 60)])
    assert len(verdict.double_holders) == 1


def test_an_epoch_that_is_over_stays_over() -> None:
    """A grant that was told again made a server act for what had been passed on, and deleted."""
    acts = [
        act("a", 1, 0, 10),
        act("b", 2, 11, 20),
        act("a", 1, 30, 40),
        act("a", 3, 50, 60),
        act("b", 2, 70, 71),
    ]
    first, second = check(acts).double_holders
    assert first.rule == second.rule == "an epoch that is over stays over"
    assert "a began to act at epoch 1" in first.text
    assert "b began to act at epoch 2" in second.text
    # Whoever was refused for good goes on under its own.
    assert check([act("a", 1, 0, 10), act("a", 1, 20, 30), act("b", 2, 31, 40)]).violations == []


def test_other_entities_do_not_overlap() -> None:
    assert check([act("a", 1, 0, 10), act("b", 2, 5, 20, entity="cup")]).violations == []


def test_one_epoch_of_two_servers_is_a_counter_example() -> None:
    assert len(check([granted("a", 4), granted("b", 4)]).double_holders) == 1


def test_an_epoch_accepted_after_a_higher_one_is_a_counter_example() -> None:
    (violation,) = check([accepted(1, 0, 15), accepted(2, 10, 20)]).stale_acceptances
    assert violation.rule == "a late ex-owner is refused"
    assert check([accepted(1, 0, 9), accepted(2, 10, 20)]).violations == []


def test_state_accepted_from_another_than_the_holder_is_a_counter_example() -> None:
    assert len(check([granted("b", 1), accepted(1, 0, 9, sender="a")]).stale_acceptances) == 1


def test_an_acknowledged_grant_above_the_final_epoch_is_lost() -> None:
    assert len(check([granted("a", 4)], final_epochs={"ball": 3}).lost_grants) == 1
    assert check([granted("a", 4)], final_epochs={"ball": 4}).violations == []


def test_a_state_that_changed_on_its_way_is_a_counter_example() -> None:
    """R0-27."""
    gave = HandOver(server="a", side="gave", entity="ball", epoch=1, hash=b"1" * 32)
    same = HandOver(server="b", side="took", entity="ball", epoch=1, hash=b"1" * 32)
    other = HandOver(server="b", side="took", entity="ball", epoch=1, hash=b"2" * 32)
    assert check([gave, same]).violations == []
    assert len(check([gave, other]).changed_states) == 1
    # Whoever was refused went on under its epoch, and gave another state later.
    later = HandOver(server="a", side="gave", entity="ball", epoch=1, hash=b"3" * 32)
    assert check([gave, later, same]).violations == []
    assert len(check([gave, later, other]).changed_states) == 1


def test_two_winners_of_one_epoch_are_a_counter_example() -> None:
    verdict = check([*created(), *pulled(2, 200, 2, 2, B), *pulled(3, 202, 2, 2, C)])
    assert len(verdict.double_holders) == 1
    (violation,) = verdict.not_linearizable
    assert "two operations made version 2" in violation.text


def test_a_session_that_acts_under_anothers_epoch_is_a_counter_example() -> None:
    assert len(check([*created(), act("b", 1, 200, 300)]).double_holders) == 1


def test_an_act_before_its_grant_was_asked_for_is_a_counter_example() -> None:
    (violation,) = check([*created(), act("a", 1, 50, 200)]).double_holders
    assert violation.rule == "a grant is acted on after it was asked for"


def test_an_order_that_no_model_allows_is_printed_with_its_operations() -> None:
    (violation,) = check([*created(), *pulled(2, 200, 2, 2, B), *pulled(3, 300, 3, 3, C)]).not_linearizable
    assert violation.rule == "ownership is linearizable"
    assert "c pull" in violation.text
    assert len(violation.entries) == 2


def test_an_acknowledged_change_that_the_end_does_not_show_is_a_counter_example() -> None:
    entries = [*created(), *pulled(2, 200, 2, 2)]
    assert len(check([*entries, final(ball=view(1, 1))]).lost_grants) == 1


def test_what_is_granted_after_the_last_look_is_not_lost() -> None:
    late = Granted(server="b", session=B, entity="ball", epoch=9, at_ns=10_001)
    assert check([*created(), late, final(ball=view(1, 1))]).violations == []
    early = Granted(server="b", session=B, entity="ball", epoch=9, at_ns=9_999)
    assert len(check([*created(), early, final(ball=view(1, 1))]).lost_grants) == 1


def test_an_entity_that_nobody_has_in_the_end_is_lost() -> None:
    (violation,) = check([*created(), final()]).lost_entities
    assert violation.rule == "no entity is lost"


def test_an_entity_that_two_instances_have_in_the_end_is_doubled() -> None:
    ends = [final("x", ball=view(1, 1)), final("y", ball=view(1, 9))]
    assert len(check([*created(), *ends]).doubled_entities) == 1
    assert check([*created(), final("x", ball=view(1, 1)), final("y")]).violations == []


def test_a_stale_read_that_was_taken_for_a_write_is_a_counter_example() -> None:
    """The second give was decided on the record before the pull, and acknowledged."""
    give = asked(3, "give", 300, view(2, 1, A, "Cem"), session=A, epoch=1, owner="Cem")
    verdict = check([*created(), *pulled(2, 200, 2, 2), *give, final(ball=view(2, 1, A, "Cem"))])
    assert verdict.not_linearizable
    assert verdict.lost_grants


def test_a_grant_of_a_later_life_is_lost_where_the_end_shows_an_earlier_one() -> None:
    asked_twice = [*created(), *gone(2, 300, 2, 2), *again(3, 400, 3)]
    assert check([*asked_twice, final(ball=view(9, 2))]).lost_grants
