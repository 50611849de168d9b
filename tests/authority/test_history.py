import pytest

from bridge.authority.history import (
    Acceptance,
    Act,
    Entry,
    Granted,
    HandOver,
    check,
    decode_entries,
    encode_entry,
)
from bridge.errors import DecodeError

A, B = b"a" * 16, b"b" * 16


def act(server: str, epoch: int, first: int, last: int, entity: str = "ball") -> Act:
    session = A if server == "a" else B
    return Act(server=server, session=session, entity=entity, epoch=epoch, first_ns=first, last_ns=last)


def accepted(epoch: int, first: int, last: int, sender: str = "a") -> Acceptance:
    return Acceptance(receiver="c", sender=sender, entity="ball", epoch=epoch, first_ns=first, last_ns=last)


def granted(server: str, epoch: int) -> Granted:
    session = A if server == "a" else B
    return Granted(server=server, session=session, entity="ball", epoch=epoch, at_ns=0)


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
    verdict = check([act("a", 1, 0, 100), act("a", 3, 5, 6), act("b", 2, 50, 60)])
    assert len(verdict.double_holders) == 1


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


def test_entries_survive_a_file() -> None:
    entries: list[Entry] = [act("a", 1, 0, 1), accepted(1, 0, 1), granted("a", 1)]
    assert decode_entries([*map(encode_entry, entries), b"", b"\n"]) == entries


def test_a_line_that_is_no_entry_is_named() -> None:
    with pytest.raises(DecodeError, match="line 2"):
        decode_entries([encode_entry(act("a", 1, 0, 1)), b'{"type":"nonsense"}'])


@pytest.mark.parametrize("line", [b'{"type":"act","server":"\xff"}', b"[" * 100_000, b'"\xff"'])
def test_a_line_that_is_no_utf_8_or_too_deep_is_no_entry(line: bytes) -> None:
    with pytest.raises(DecodeError, match="line 1"):
        decode_entries([line])
