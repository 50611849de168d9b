"""Members of records: each is there, and of its type, or named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.etf import Atom
from bridge.registry import EntityRecord, ServerRecord, Step, inbox_message
from tests.support.records import (
    ASK,
    CLOSED,
    ENDED,
    ENTITY,
    FAILOVER,
    GRANT,
    RECALL,
    RETURNED,
    SERVER,
    TRACE,
    term,
)
from tests.support.terms import terms

DECODERS: list[tuple[Callable[[Any], object], dict[Atom, Any]]] = [
    (EntityRecord.from_term, ENTITY),
    (ServerRecord.from_term, SERVER),
    (inbox_message, GRANT),
    (inbox_message, FAILOVER),
    (inbox_message, RECALL),
    (inbox_message, ASK),
    (inbox_message, ENDED),
    (inbox_message, {k: v for k, v in CLOSED.items() if k != Atom("transfer")}),
    (inbox_message, RETURNED),
    (Step.from_term, term(trace=TRACE, hop=1)),
]


@pytest.mark.parametrize("bad", [Atom("yes"), 1, b"true"])
def test_a_flag_is_true_or_false(bad: object) -> None:
    with pytest.raises(DecodeError, match="authority is no boolean"):
        inbox_message(ASK | term(authority=bad))


@pytest.mark.parametrize("address", [(b"h", 0), (b"h", 65_536), (b"h",), b"h:1", ("h", 1), (b"h", b"1")])
def test_an_address_is_a_host_and_a_port(address: object) -> None:
    with pytest.raises(DecodeError, match="no address"):
        ServerRecord.from_term(SERVER | term(address=address))


@pytest.mark.parametrize(("decode", "whole"), DECODERS)
def test_every_member_is_needed_and_its_absence_named(
    decode: Callable[[Any], object], whole: dict[Atom, Any]
) -> None:
    may_be_absent = {Atom("awaiting"), Atom("unread")}
    used = {Atom("trace"), Atom("hop")} | set(whole) - may_be_absent
    for name in used & set(whole):
        less = {key: value for key, value in whole.items() if key != name}
        if name in (Atom("session"), Atom("server")) and whole is ENTITY:
            continue  # an absent holder is a dormant entity
        if name == Atom("session") and whole is SERVER:
            continue
        with pytest.raises(DecodeError, match=f"without {name}"):
            decode(less)


@given(terms, st.sampled_from(DECODERS), st.data())
def test_any_term_is_a_record_or_a_decode_error(
    odd: object, example: tuple[Callable[[Any], object], dict[Atom, Any]], data: st.DataObject
) -> None:
    decode, whole = example
    member = data.draw(st.sampled_from(sorted(whole, key=str)))
    for candidate in (odd, {**whole, member: odd}):
        try:
            decode(candidate)
        except DecodeError:
            continue
