"""The model of a record: what each request makes of it, and what may have made what is shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.authority.record_model import (
    UNSEEN,
    Known,
    Operation,
    Record,
    RecordView,
    effects,
    may_have_made,
    permission,
    record_of,
    shown_open,
    shown_there,
    shows,
    unchanged,
)

A, B = b"a" * 16, b"b" * 16
PLAYERS = ("Ann", "Bob", "Cem")
HELD = Record("Ann", "Ann", "allow", None, A, 5, True)


def op(function: str, **members: Any) -> Operation:
    return Operation(client="c", function=function, entity="ball", called_ns=0, **members)


def view_of(record: Record, *, epoch: int | None = None) -> RecordView:
    """What an answer shows of a state; of a new epoch some number above the last one."""
    return RecordView(
        owner=record.owner,
        master=record.master,
        rule=record.rule,
        default_owner=record.default_owner,
        session=record.session,
        epoch=epoch or record.epoch + (not record.exact),
        version=2,
    )


players = st.sampled_from(PLAYERS)
sessions = st.sampled_from((A, B))
records = st.builds(
    Record,
    owner=players,
    master=players,
    rule=st.sampled_from(("allow", "deny", "ask")),
    default_owner=st.none() | players,
    session=st.none() | sessions,
    epoch=st.integers(1, 3),
    exact=st.booleans(),
)
operations = st.builds(
    op,
    st.sampled_from(
        (
            *("give", "release", "push", "pull", "claim", "request", "answer", "transfer", "revoke", "leave"),
            *("set_rule", "set_master", "set_default_owner"),
        )
    ),
    session=sessions,
    epoch=st.integers(1, 5),
    owner=players,
    to=players,
    by=st.sampled_from((*PLAYERS, "operator")),
    player=players,
    value=st.sampled_from((*PLAYERS, "allow", "deny")),
    authority=st.booleans(),
)


@given(operations, records)
def test_whatever_a_request_makes_is_something_that_it_may_have_made(
    operation: Operation, record: Record
) -> None:
    for after in effects(operation, record, (), (A, B, UNSEEN)):
        assert after is not None
        assert may_have_made(operation, view_of(after))
        assert shows(view_of(after), after)


@given(operations, records)
def test_a_new_holder_has_a_higher_epoch_and_no_other_change_has(
    operation: Operation, record: Record
) -> None:
    for after in effects(operation, record, (), (A, B, UNSEEN)):
        assert after is not None
        moved = after.session not in (record.session, None)
        assert not (moved and after.exact)
        assert after.epoch >= record.epoch


@given(operations, records)
def test_an_ended_session_is_granted_nothing(operation: Operation, record: Record) -> None:
    for after in effects(operation, record, (A, B), (A, B, UNSEEN)):
        assert after is not None
        assert after.session in (record.session, None, UNSEEN)


@pytest.mark.parametrize(
    ("operation", "after"),
    [
        (op("give", session=A, epoch=5, owner="Bob"), HELD._replace(owner="Bob")),
        (op("release", session=A, epoch=5), HELD._replace(session=None)),
        (op("push", session=A, epoch=5, owner="Bob"), HELD._replace(owner="Bob").granted(B)),
        (op("pull", session=B, epoch=5, owner="Bob"), HELD._replace(owner="Bob").granted(B)),
        (op("claim", session=B, owner="Bob"), HELD._replace(owner="Bob").granted(B)),
        (op("transfer", by="Ann", to="Bob"), HELD._replace(owner="Bob")),
        (op("request", player="Bob", owner="Ann", session=B), HELD._replace(owner="Bob")),
        (op("set_rule", by="Ann", value="deny"), HELD._replace(rule="deny")),
        (op("set_master", by="operator", value="Bob"), HELD._replace(master="Bob")),
        (op("set_default_owner", by="Ann", value=None, player="x"), None),
        (op("leave", player="Ann"), None),
        (op("give", session=A, epoch=4, owner="Bob"), None),
        (op("transfer", by="Bob", to="Bob"), None),
    ],
    ids=lambda value: value.function if isinstance(value, Operation) else "",
)
def test_each_request_makes_one_change_or_none(operation: Operation, after: Record | None) -> None:
    assert list(effects(operation, HELD, (), (B,))) == ([] if after is None else [after])


def test_who_leaves_passes_on_to_the_default_owner_or_the_master() -> None:
    owned = HELD._replace(owner="Bob")
    assert list(effects(op("leave", player="Bob"), owned, (), ())) == [HELD]
    default = owned._replace(default_owner="Cem")
    assert list(effects(op("leave", player="Bob"), default, (), ())) == [default._replace(owner="Cem")]
    own = owned._replace(default_owner="Bob")
    assert list(effects(op("leave", player="Bob"), own, (), ())) == [own._replace(owner="Ann")]


def test_its_master_or_the_operator_deletes_an_entity() -> None:
    gone = msgspec.structs.replace(view_of(HELD), session=None, epoch=9, version=2, deleted=True)
    assert record_of(gone) is None
    for by in ("Ann", "operator"):
        asked = op("delete_entity", by=by)
        assert list(effects(asked, HELD, (), ())) == [None]
        assert shows(gone, None)
        assert may_have_made(asked, gone)
    assert not may_have_made(op("release", session=A, epoch=5), gone)
    assert not shows(gone, HELD)
    assert list(effects(op("delete_entity", by="Bob"), HELD, (), ())) == []
    assert list(effects(op("delete_entity", by="Ann"), None, (), ())) == []
    refused = op("pull", session=A, epoch=5, known=Known.REFUSED, detail="no_entity")
    assert unchanged(refused, 2, None) is None
    assert unchanged(refused, 1, HELD) is False


def test_owner_and_master_need_nobodys_leave() -> None:
    record = HELD._replace(owner="Bob", rule="ask")
    assert [permission(player, record) for player in PLAYERS] == ["allow", "allow", "ask"]


def test_a_refusal_that_tells_the_epoch_makes_it_known() -> None:
    record = HELD.granted(B)
    told = op("pull", session=A, epoch=5, known=Known.REFUSED, detail="conflict", told_epoch=7)
    assert unchanged(told, 2, record) == record.at(7)
    assert unchanged(told, 2, record.at(6)) is False
    assert unchanged(told, 2, None) is False


def test_an_answer_shows_that_caller_and_new_holder_were_open() -> None:
    pushed = op("push", session=A, known=Known.OK, record=view_of(HELD._replace(session=B)))
    assert shown_open(pushed) == shown_there(pushed) == {A, B}
    assert shown_open(op("push", session=A)) == shown_there(op("push", session=A)) == set()


def test_a_record_may_name_a_session_that_has_ended_and_is_not_passed_on_yet() -> None:
    changed = op("transfer", session=A, known=Known.OK, record=view_of(HELD._replace(session=B)))
    assert shown_open(changed) == set()
    assert shown_there(changed) == {B}


def test_a_state_is_what_its_answer_shows() -> None:
    assert record_of(view_of(HELD)) == HELD
    assert str(HELD) == "owner Ann, held by 61616161, epoch 5"
    assert str(HELD.granted(UNSEEN)) == "owner Ann, held by another, epoch above 5"
