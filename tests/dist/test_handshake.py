"""Both sides of the handshake, frame by frame against the Erlang documentation."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist.flags import DIGEST_25, OFFERED, DistFlag
from bridge.dist.handshake import (
    _NEXT,
    Failure,
    Handshake,
    HandshakeRejectedError,
    Identity,
    Role,
    State,
    Status,
    challenge_digest,
)
from bridge.errors import ConfigurationError

_CHALLENGE = 0x01020304
_PEERS = 0xFFFF_FFFF
_INITIATOR = (State.WAIT_STATUS, State.WAIT_CHALLENGE, State.WAIT_CHALLENGE_ACK)
_ACCEPTOR = (State.WAIT_NAME, State.WAIT_DECISION, State.WAIT_ALIVE_ANSWER, State.WAIT_CHALLENGE_REPLY)
_ENDS = (State.CONNECTED, State.FAILED)


def _handshake(role: Role, *, peer: str | None = None) -> Handshake:
    handshake = Handshake(
        role, Identity(name="me@h", cookie="secret", creation=7), challenge=_CHALLENGE, peer=peer
    )
    handshake.start()
    return handshake


def _challenge(name: bytes = b"peer@h", flags: int = OFFERED) -> bytes:
    return struct.pack(">cQIIH", b"N", flags, _PEERS, 9, len(name)) + name


def _name(name: bytes = b"peer@h", flags: int = OFFERED) -> bytes:
    return struct.pack(">cQIH", b"N", flags, 9, len(name)) + name


_ACK = b"a" + challenge_digest("secret", _CHALLENGE)
_REPLY = b"r" + _PEERS.to_bytes(4, "big") + challenge_digest("secret", _CHALLENGE)


def _at(state: State) -> Handshake:
    """A handshake that has come to a state by the frames of a real peer."""
    role = Role.INITIATOR if state in _INITIATOR else Role.ACCEPTOR
    handshake = _handshake(role)
    if role is Role.INITIATOR:
        for frame in (b"sok", _challenge())[: _INITIATOR.index(state)]:
            handshake.receive_frame(frame)
    elif state is not State.WAIT_NAME:
        handshake.receive_frame(_name())
        if state is not State.WAIT_DECISION:
            handshake.answer_name(Status.ALIVE if state is State.WAIT_ALIVE_ANSWER else Status.OK)
    assert handshake.state is state
    return handshake


def test_the_digest_is_the_one_erlang_computes() -> None:
    # Asked of OTP 25: the MD5 of the cookie's text followed by that of the number.
    assert challenge_digest("secret", 4294967295).hex() == "5dfd181e69aa587cc812eb333e6536b6"
    assert challenge_digest("é", 0) == challenge_digest("\xe9", 0)


def test_the_initiators_frames_are_those_of_the_specification() -> None:
    handshake = _handshake(Role.INITIATOR, peer="peer@h")
    handshake.receive_frame(b"sok")
    handshake.receive_frame(_challenge())
    handshake.receive_frame(_ACK)
    assert handshake.state is State.CONNECTED
    assert handshake.outbox == [
        b"N" + int(OFFERED).to_bytes(8, "big") + b"\0\0\0\x07" + b"\0\x04me@h",
        b"r" + _CHALLENGE.to_bytes(4, "big") + challenge_digest("secret", _PEERS),
    ]
    assert (handshake.peer, handshake.peer_creation) == ("peer@h", 9)


def test_the_acceptors_frames_are_those_of_the_specification() -> None:
    handshake = _handshake(Role.ACCEPTOR)
    handshake.receive_frame(_name())
    handshake.answer_name(Status.OK)
    handshake.receive_frame(_REPLY)
    assert handshake.state is State.CONNECTED
    assert handshake.outbox == [
        b"sok",
        b"N"
        + int(OFFERED).to_bytes(8, "big")
        + _CHALLENGE.to_bytes(4, "big")
        + b"\0\0\0\x07"
        + b"\0\x04me@h",
        b"a" + challenge_digest("secret", _PEERS),
    ]


def test_alive_is_answered_true_and_awaits_true() -> None:
    initiator = _handshake(Role.INITIATOR)
    initiator.receive_frame(b"salive")
    assert initiator.outbox[-1] == b"strue"
    assert initiator.state is State.WAIT_CHALLENGE
    acceptor = _at(State.WAIT_ALIVE_ANSWER)
    acceptor.receive_frame(b"strue")
    assert acceptor.state is State.WAIT_CHALLENGE_REPLY


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)))
def test_only_the_edges_of_the_table_can_be_gone(source: State, target: State) -> None:
    handshake = _at(source) if source not in _ENDS else _ended(source)
    if target in _NEXT[source]:
        handshake._enter(target)
        assert handshake.state is target
    else:
        with pytest.raises(AssertionError, match="no edge"):
            handshake._enter(target)
        assert handshake.state is source


def _ended(state: State) -> Handshake:
    handshake = _at(State.WAIT_CHALLENGE_ACK)
    if state is State.CONNECTED:
        handshake.receive_frame(_ACK)
    else:
        handshake.fail()
    return handshake


def test_the_table_leads_every_state_to_an_end_and_none_from_one() -> None:
    assert set(_NEXT) == set(State)
    for end in _ENDS:
        assert _NEXT[end] == frozenset()
    for state in (*_INITIATOR, *_ACCEPTOR):
        assert State.FAILED in _NEXT[state]
    # Nobody is connected without the other's digest: these two are the only ways in.
    before = {state for state, following in _NEXT.items() if State.CONNECTED in following}
    assert before == {State.WAIT_CHALLENGE_ACK, State.WAIT_CHALLENGE_REPLY}
    # Neither role ever enters a state of the other.
    for own, foreign in ((_INITIATOR, _ACCEPTOR), (_ACCEPTOR, _INITIATOR)):
        assert not {following for state in own for following in _NEXT[state]} & set(foreign)


_FRAMES: dict[str, bytes] = {
    "status": b"sok",
    "challenge": _challenge(),
    "ack": _ACK,
    "name": _name(),
    "true": b"strue",
    "reply": _REPLY,
}
_EXPECTED = {
    State.WAIT_STATUS: {"status"},
    State.WAIT_CHALLENGE: {"challenge"},
    State.WAIT_CHALLENGE_ACK: {"ack"},
    # A challenge reads as a name: its first bytes have the same layout. The name that it then holds is none.
    State.WAIT_NAME: {"name"},
    State.WAIT_DECISION: set(),
    State.WAIT_ALIVE_ANSWER: {"true"},
    State.WAIT_CHALLENGE_REPLY: {"reply"},
}


@pytest.mark.parametrize(
    ("state", "kind"),
    [(state, kind) for state, kinds in _EXPECTED.items() for kind in _FRAMES if kind not in kinds],
    ids=lambda value: value.name if isinstance(value, State) else value,
)
def test_a_frame_out_of_turn_ends_the_handshake(state: State, kind: str) -> None:
    handshake = _at(state)
    with pytest.raises(HandshakeRejectedError):
        handshake.receive_frame(_FRAMES[kind])
    assert handshake.state is State.FAILED


def test_no_frame_is_taken_after_the_end() -> None:
    for frame in _FRAMES.values():
        for end in _ENDS:
            handshake = _ended(end)
            with pytest.raises(HandshakeRejectedError, match="out of turn"):
                handshake.receive_frame(frame)
            assert handshake.state is end


def _rejected(handshake: Handshake, act: Callable[[Handshake], None]) -> HandshakeRejectedError:
    with pytest.raises(HandshakeRejectedError) as caught:
        act(handshake)
    assert handshake.state is State.FAILED
    return caught.value


@pytest.mark.parametrize(
    ("state", "frame", "failure"),
    [
        (State.WAIT_STATUS, b"snok", Failure.SIMULTANEOUS),
        (State.WAIT_STATUS, b"snot_allowed", Failure.NOT_ALLOWED),
        (State.WAIT_STATUS, b"smaybe", Failure.MALFORMED),
        (State.WAIT_STATUS, b"", Failure.MALFORMED),
        (State.WAIT_CHALLENGE, _challenge(flags=0), Failure.FLAGS),
        (
            State.WAIT_CHALLENGE,
            _challenge(flags=OFFERED & ~DistFlag.BIG_CREATION & ~(1 << 26)),
            Failure.FLAGS,
        ),
        (State.WAIT_CHALLENGE, b"n\0\x05\0\0\0\0\0\0\0\0peer@h", Failure.FLAGS),
        (State.WAIT_CHALLENGE, _challenge(b"no name"), Failure.MALFORMED),
        (State.WAIT_CHALLENGE, _challenge(b"\xff\xfe@h"), Failure.MALFORMED),
        (State.WAIT_CHALLENGE, _challenge()[:-1], Failure.MALFORMED),
        (State.WAIT_CHALLENGE, b"N", Failure.MALFORMED),
        (State.WAIT_CHALLENGE_ACK, b"a" + bytes(16), Failure.BAD_DIGEST),
        (State.WAIT_CHALLENGE_ACK, b"r" + _ACK[1:], Failure.BAD_DIGEST),
        (State.WAIT_CHALLENGE_ACK, _ACK[:-1], Failure.MALFORMED),
        (State.WAIT_NAME, _name(flags=0), Failure.FLAGS),
        (State.WAIT_NAME, b"n\0\x05\0\0\0\0peer@h", Failure.FLAGS),
        (State.WAIT_NAME, _name(b"a@b@c"), Failure.MALFORMED),
        (State.WAIT_NAME, _name(b"x" * 1020 + b"@"), Failure.MALFORMED),
        (State.WAIT_ALIVE_ANSWER, b"sfalse", Failure.NOT_ALLOWED),
        (State.WAIT_ALIVE_ANSWER, b"smaybe", Failure.MALFORMED),
        (State.WAIT_CHALLENGE_REPLY, b"r" + bytes(20), Failure.BAD_DIGEST),
        (State.WAIT_CHALLENGE_REPLY, b"r" + bytes(21), Failure.MALFORMED),
    ],
)
def test_a_bad_frame_is_refused_for_its_reason(state: State, frame: bytes, failure: Failure) -> None:
    assert _rejected(_at(state), lambda h: h.receive_frame(frame)).failure is failure


def test_a_wrong_digest_is_answered_with_nothing() -> None:
    handshake = _at(State.WAIT_CHALLENGE_REPLY)
    sent = list(handshake.outbox)
    _rejected(handshake, lambda h: h.receive_frame(b"r" + bytes(20)))
    assert handshake.outbox == sent


def test_a_reflected_digest_proves_nothing() -> None:
    """A peer that returns our own digest of its challenge does not know the cookie."""
    handshake = _at(State.WAIT_CHALLENGE_ACK)
    _rejected(handshake, lambda h: h.receive_frame(b"a" + challenge_digest("secret", _PEERS)))


def test_another_node_than_the_one_dialled_is_refused_before_our_digest_is_told() -> None:
    handshake = _handshake(Role.INITIATOR, peer="other@h")
    handshake.receive_frame(b"sok")
    refusal = _rejected(handshake, lambda h: h.receive_frame(_challenge()))
    assert refusal.failure is Failure.WRONG_NAME
    assert len(handshake.outbox) == 1


def test_the_digest_of_flags_is_as_good_as_the_flags() -> None:
    handshake = _at(State.WAIT_CHALLENGE)
    handshake.receive_frame(_challenge(flags=DistFlag.MANDATORY_25_DIGEST))
    assert DIGEST_25 in handshake.peer_flags


def test_data_after_a_name_is_ignored() -> None:
    acceptor = _at(State.WAIT_NAME)
    acceptor.receive_frame(_name() + b"of a later version")
    assert acceptor.peer == "peer@h"


@pytest.mark.parametrize("status", [Status.NOK, Status.NOT_ALLOWED])
def test_a_refused_name_is_told_its_status(status: Status) -> None:
    handshake = _at(State.WAIT_DECISION)
    _rejected(handshake, lambda h: h.answer_name(status))
    assert handshake.outbox == [b"s" + status.value.encode()]


@given(st.sampled_from([*_INITIATOR, *_ACCEPTOR]), st.binary(max_size=60))
def test_any_frame_raises_only_what_is_promised(state: State, frame: bytes) -> None:
    handshake = _at(state)
    try:
        handshake.receive_frame(frame)
    except HandshakeRejectedError:
        assert handshake.state is State.FAILED


@pytest.mark.parametrize("name", ["", "me", "@h", "me@", "a@b@h", "x" * 254 + "@h"])
def test_a_name_without_both_parts_or_too_long_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no node name"):
        Identity(name=name, cookie="c", creation=1)


def test_limits_of_an_identity_hold_at_their_numbers() -> None:
    Identity(name="x" * 253 + "@h", cookie="c", creation=1)
    Identity(name="me@h", cookie="c", creation=2**32 - 1)
    for creation in (0, 2**32):
        with pytest.raises(ConfigurationError, match="creation"):
            Identity(name="me@h", cookie="c", creation=creation)
    with pytest.raises(ConfigurationError, match="latin-1"):
        Identity(name="me@h", cookie="語", creation=1)
    with pytest.raises(ConfigurationError, match="everybody"):
        Identity(name="me@h", cookie="", creation=1)


def test_a_cookie_is_not_printed() -> None:
    assert "secret" not in repr(Identity(name="me@h", cookie="secret", creation=1))
