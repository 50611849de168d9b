"""Every control message, there and back."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist import (
    AliasSend,
    ControlMessage,
    DemonitorP,
    Exit,
    Exit2,
    GroupLeader,
    Link,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnReply,
    SpawnRequest,
    UnlinkId,
    UnlinkIdAck,
)
from bridge.dist.control import WITH_PAYLOAD, address_of, control_term, parse_control_untrusted
from bridge.errors import DecodeError
from bridge.etf import Atom, Pid, Reference, decode_term, encode_term

_WORD = st.integers(0, 2**32 - 1)
_ATOM = st.sampled_from(["rex", "a@h", "", "true", "名"]).map(Atom)
_PID = st.builds(Pid, _ATOM, _WORD, _WORD, _WORD)
_REFERENCE = st.builds(Reference, _ATOM, _WORD, st.lists(_WORD, min_size=1, max_size=5).map(tuple))
_REASON = st.one_of(_ATOM.filter(lambda atom: atom.text != "true"), st.binary(), st.tuples(st.integers()))
_PROCESS = st.one_of(_PID, _ATOM.filter(lambda atom: atom.text != "true"))
_ID = st.integers(1, 2**64 - 1)
_MESSAGES: dict[Any, st.SearchStrategy[ControlMessage]] = {
    Send: st.builds(Send, to=_PID),
    RegSend: st.builds(RegSend, source=_PID, to=_ATOM),
    AliasSend: st.builds(AliasSend, source=_PID, alias=_REFERENCE),
    Link: st.builds(Link, source=_PID, to=_PID),
    UnlinkId: st.builds(UnlinkId, id=_ID, source=_PID, to=_PID),
    UnlinkIdAck: st.builds(UnlinkIdAck, id=_ID, source=_PID, to=_PID),
    Exit: st.builds(Exit, source=_PID, to=_PID, reason=_REASON),
    Exit2: st.builds(Exit2, source=_PID, to=_PID, reason=_REASON),
    GroupLeader: st.builds(GroupLeader, source=_PID, to=_PID),
    MonitorP: st.builds(MonitorP, source=_PID, to=_PROCESS, reference=_REFERENCE),
    DemonitorP: st.builds(DemonitorP, source=_PID, to=_PROCESS, reference=_REFERENCE),
    MonitorPExit: st.builds(MonitorPExit, source=_PROCESS, to=_PID, reference=_REFERENCE, reason=_REASON),
    SpawnRequest: st.builds(
        SpawnRequest,
        request=_REFERENCE,
        source=_PID,
        group_leader=_PID,
        mfa=st.tuples(
            _ATOM.filter(lambda atom: atom.text != "true"), st.just(Atom("f")), st.integers(0, 255)
        ),
        options=st.lists(st.just(Atom("monitor"))),
    ),
    SpawnReply: st.builds(SpawnReply, request=_REFERENCE, to=_PID, flags=st.integers(0, 3), result=_PROCESS),
}
_P = Pid(Atom("a@h"), 1, 0, 5)
_R = Reference(Atom("a@h"), 5, (1,))


def test_every_kind_of_message_has_a_strategy_here() -> None:
    assert set(_MESSAGES) == set(get_args(ControlMessage))


@given(st.one_of(*_MESSAGES.values()), st.booleans())
def test_a_message_survives_the_wire_with_and_without_exit_payload(
    message: ControlMessage, exit_payload: bool
) -> None:
    control, reason = control_term(message, exit_payload=exit_payload)
    if reason is not None:
        assert control[0] in WITH_PAYLOAD
    assert parse_control_untrusted(decode_term(encode_term(control)), reason) == message


@pytest.mark.parametrize(
    ("traced", "plain"),
    [
        ((12, Atom(""), _P, b"token"), Send(to=_P)),
        ((13, _P, _P, b"token", b"why"), Exit(source=_P, to=_P, reason=b"why")),
        ((16, _P, Atom(""), Atom("rex"), b"token"), RegSend(source=_P, to=Atom("rex"))),
        ((18, _P, _P, b"token", b"why"), Exit2(source=_P, to=_P, reason=b"why")),
        ((22, _P, _P), Send(to=_P)),
        ((23, _P, _P, b"token"), Send(to=_P)),
        ((25, _P, _P, b"token"), Exit(source=_P, to=_P, reason=b"payload")),
        ((27, _P, _P, b"token"), Exit2(source=_P, to=_P, reason=b"payload")),
        (
            (30, _R, _P, _P, (Atom("m"), Atom("f"), 0), [], b"token"),
            SpawnRequest(request=_R, source=_P, group_leader=_P, mfa=(Atom("m"), Atom("f"), 0), options=[]),
        ),
        ((32, _R, _P, 0, _P, b"token"), SpawnReply(request=_R, to=_P, flags=0, result=_P)),
        ((34, _P, _R, b"token"), AliasSend(source=_P, alias=_R)),
    ],
)
def test_a_message_with_a_trace_token_is_read_as_the_one_without(
    traced: tuple[Any, ...], plain: ControlMessage
) -> None:
    assert parse_control_untrusted(traced, b"payload") == plain


def test_a_name_may_be_an_atom_that_is_a_bool_here() -> None:
    monitor = parse_control_untrusted((19, _P, False, _R), None)
    assert monitor == MonitorP(source=_P, to=Atom("false"), reference=_R)
    assert parse_control_untrusted((6, _P, Atom(""), True), None) == RegSend(source=_P, to=Atom("true"))


@given(st.one_of(*_MESSAGES.values()))
def test_a_message_is_for_whom_it_names(message: ControlMessage) -> None:
    match message:
        case AliasSend():
            assert address_of(message) == message.alias
        case SpawnRequest():
            assert address_of(message) is None
        case _:
            assert address_of(message) == message.to


def test_what_unlink_id_replaced_asks_nothing_of_this_side() -> None:
    assert parse_control_untrusted((4, _P, _P), None) is None
    assert parse_control_untrusted((5,), None) is None


@pytest.mark.parametrize(
    "term",
    [
        b"no tuple",
        (),
        (Atom("send"), _P),
        (True, _P, _P),
        (99, _P, _P),
        (1, _P),
        (1, _P, _P, _P),
        (1, _P, Atom("name")),
        (2, Atom(""), Atom("name")),
        (6, _P, Atom(""), b"rex"),
        (19, _P, b"name", _R),
        (19, _P, _P, _P),
        (29, _R, _P, _P, (Atom("m"), Atom("f")), []),
        (31, _R, _P, Atom("flags"), _P),
        (35, 0, _P, _P),
        (35, 2**64, _P, _P),
        (36, True, _P, _P),
        (37, 0, _P, _P),
    ],
)
def test_another_shape_is_refused(term: Any) -> None:
    with pytest.raises(DecodeError):
        parse_control_untrusted(term, None)


_TERMS = st.recursive(
    st.one_of(st.integers(-1, 40), _PID, _REFERENCE, _ATOM, st.binary(max_size=3), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=6).map(tuple), st.lists(inner, max_size=3)),
    max_leaves=10,
)


@given(
    st.tuples(st.integers(-1, 40)).flatmap(
        lambda head: st.lists(_TERMS, max_size=6).map(lambda t: (*head, *t))
    )
)
def test_any_other_term_raises_only_what_is_promised(term: Any) -> None:
    try:
        parse_control_untrusted(term, None)
    except DecodeError:
        return
