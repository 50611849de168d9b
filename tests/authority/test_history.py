from typing import Any

import pytest
from msgspec.structs import replace

from bridge.authority.history import (
    Acceptance,
    Act,
    Alive,
    Began,
    Called,
    Entry,
    Final,
    Granted,
    HandOver,
    Replied,
    check,
    decode_entries,
    encode_entry,
    of_instance,
)
from bridge.authority.record_model import Known, RecordView
from bridge.errors import DecodeError

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def act(server: str, epoch: int, first: int, last: int, entity: str = "ball") -> Act:
    session = A if server == "a" else B
    return Act(server=server, session=session, entity=entity, epoch=epoch, first_ns=first, last_ns=last)


def accepted(epoch: int, first: int, last: int, sender: str = "a") -> Acceptance:
    return Acceptance(receiver="c", sender=sender, entity="ball", epoch=epoch, first_ns=first, last_ns=last)


def granted(server: str, epoch: int) -> Granted:
    session = A if server == "a" else B
    return Granted(server=server, session=session, entity="ball", epoch=epoch, at_ns=0)


def view(version: int, epoch: int, session: bytes | None = A, owner: str = "Ann") -> RecordView:
    return RecordView(owner=owner, master="Ann", rule="allow", session=session, epoch=epoch, version=version)


def asked(
    number: int, function: str, at: int, record: RecordView | None, known: Known = Known.OK, **members: Any
) -> list[Entry]:
    """A call that was answered 10 ns later."""
    return [
        Called(client="c", number=number, function=function, at_ns=at, entity="ball", **members),
        Replied(client="c", number=number, at_ns=at + 10, known=known, record=record),
    ]


def created() -> list[Entry]:
    return asked(1, "create_entity", 100, view(1, 1), session=A, owner="Ann", master="Ann", value="allow")


def pulled(number: int, at: int, version: int, epoch: int, session: bytes = B) -> list[Entry]:
    shown = view(version, epoch, session, "Bob")
    return asked(number, "pull", at, shown, session=session, owner="Bob", epoch=1)


def final(instance: str = "local", *, sessions: tuple[bytes, ...] = (A, B), **entities: RecordView) -> Final:
    return Final(instance=instance, at_ns=10_000, entities=entities, sessions=list(sessions))


def test_acts_one_after_the_other_are_fine() -> None:
    """R0-41, B-4."""
    verdict = check([act("b", 2, 11, 20), act("a", 1, 0, 10), act("a", 3, 21, 30)])
    assert verdict.violations == []
    assert verdict.acts == 3


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


def gone(number: int, at: int, version: int, epoch: int) -> list[Entry]:
    shown = replace(view(version, epoch, None, "Bob"), deleted=True)
    return asked(number, "delete_entity", at, shown, by="Ann")


def again(number: int, at: int, epoch: int) -> list[Entry]:
    shown = view(1, epoch)
    return asked(number, "create_entity", at, shown, session=A, owner="Ann", master="Ann", value="allow")


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


def test_a_stale_read_that_was_taken_for_a_write_is_a_counter_example() -> None:
    """The second give was decided on the record before the pull, and acknowledged."""
    give = asked(3, "give", 300, view(2, 1, A, "Cem"), session=A, epoch=1, owner="Cem")
    verdict = check([*created(), *pulled(2, 200, 2, 2), *give, final(ball=view(2, 1, A, "Cem"))])
    assert verdict.not_linearizable
    assert verdict.lost_grants


def test_an_entity_that_was_put_into_escrow_is_named_and_not_searched() -> None:
    gone = asked(2, "push_abroad", 300, view(2, 1, None, "Cem"), session=A, epoch=1, owner="Cem")
    back = asked(3, "give", 400, view(4, 9, A, "Bob"), session=A, epoch=9, owner="Bob")
    verdict = check([*created(), *gone, *back])
    assert verdict.violations == []
    assert verdict.travelled == ["ball"]


def test_a_grant_of_a_later_life_is_lost_where_the_end_shows_an_earlier_one() -> None:
    asked_twice = [*created(), *gone(2, 300, 2, 2), *again(3, 400, 3)]
    assert check([*asked_twice, final(ball=view(9, 2))]).lost_grants


def test_a_request_without_an_answer_is_counted_and_harmless() -> None:
    verdict = check([*created(), *pulled(2, 200, 2, 2)[:1], final(ball=view(2, 2, B, "Bob"))])
    assert verdict.violations == []
    assert verdict.unanswered == 1


def test_entries_survive_a_file() -> None:
    entries: list[Entry] = [
        act("a", 1, 0, 1),
        accepted(1, 0, 1),
        granted("a", 1),
        *created(),
        final(b=view(1, 1)),
    ]
    assert decode_entries([*map(encode_entry, entries), b"", b"\n"]) == entries


def leaving(at: int, *passed: str) -> list[Entry]:
    return [
        Called(client="d", number=1, function="leave", at_ns=at, player="Bob", session=A),
        Replied(client="d", number=1, at_ns=at + 10, known=Known.OK, passed=list(passed)),
    ]


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


def test_a_line_that_is_no_entry_is_named() -> None:
    with pytest.raises(DecodeError, match="line 2"):
        decode_entries([encode_entry(act("a", 1, 0, 1)), b'{"type":"nonsense"}'])


@pytest.mark.parametrize("line", [b'{"type":"act","server":"\xff"}', b"[" * 100_000, b'"\xff"'])
def test_a_line_that_is_no_utf_8_or_too_deep_is_no_entry(line: bytes) -> None:
    with pytest.raises(DecodeError, match="line 1"):
        decode_entries([line])


def test_servers_of_two_instances_with_one_name_are_told_apart() -> None:
    """What one instance accepted of another's server is that server's, whatever its own is called."""
    there: list[Entry] = [act("a", 5, 100, 200), granted("a", 5)]
    here: list[Entry] = [act("a", 3, 0, 50), accepted(5, 110, 210, sender="a@ruby"), *created()]
    together = of_instance(here, "emerald") + of_instance(there, "ruby")
    assert check(together).violations == []
    assert check(together).operations == 0
    assert {entry.server for entry in together if isinstance(entry, Act)} == {"a@emerald", "a@ruby"}
    wrong = [accepted(5, 110, 210, sender="b@ruby")]
    assert check([*together, *of_instance(wrong, "emerald")]).stale_acceptances


def test_two_instances_that_act_at_once_are_found() -> None:
    x = Act(server="a", session=A, entity="ball", epoch=3, first_ns=0, last_ns=50)
    y = Act(server="a", session=B, entity="ball", epoch=5, first_ns=40, last_ns=90)
    assert check(of_instance([x], "emerald") + of_instance([y], "ruby")).double_holders


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
