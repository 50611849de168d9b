from __future__ import annotations

import base64
import contextlib
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BoxError, DecodeError, InvalidStateError, SignatureError
from bridge.jose import Jwk, open_signed_box, peek_claims_untrusted, seal_signed_box, shared_secret
from bridge.udp.handshake import (
    _NEXT,
    HandshakeState,
    HandshakeTimes,
    Initiator,
    Responder,
    _Handshake,
    sender_untrusted,
)
from bridge.udp.keys import derive_session_keys, transcript_hash
from bridge.udp.peers import Peer
from bridge.udp.wire import (
    MAX_DATAGRAM_BYTES,
    Init,
    Parameters,
    Reply,
    Retry,
    encode_retry,
    parse_datagram_untrusted,
)
from tests.support.datagrams import EPOCH_MS, sorted_keys

TIMES = HandshakeTimes(now=10.0, now_ms=EPOCH_MS, timeout=5.0, lifetime=10.0)
PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


def initiator(*, wants_signed: bool = False) -> Initiator:
    low, high, _ = sorted_keys()
    return Initiator(
        identity=low,
        peer=Peer(name="b", public_key=high.public(), address=("192.0.2.2", 2)),
        session_id=bytes(range(16)),
        parameters=Parameters(11, 1 << 18, wants_signed),
        times=TIMES,
        retry_interval=0.25,
    )


def responder(box: bytes, *, sender: Jwk | None = None, wants_signed: bool = False) -> Responder:
    low, high, _ = sorted_keys()
    return Responder(
        identity=high,
        peer=Peer(name="a", public_key=(sender or low).public(), address=("192.0.2.1", 1)),
        box=box,
        claims=peek_claims_untrusted(box.decode()),
        address=("192.0.2.1", 1),
        parameters=Parameters(22, 1 << 19, wants_signed),
        times=TIMES,
    )


def init_of(sending: Initiator) -> bytes:
    datagram = sending.datagram_to_send(now=10.0)
    assert datagram is not None
    parsed = parse_datagram_untrusted(datagram)
    assert isinstance(parsed, Init)
    return parsed.box


def reply_of(answering: Responder) -> Reply:
    parsed = parse_datagram_untrusted(answering.reply)
    assert isinstance(parsed, Reply)
    return parsed


def test_both_sides_agree_on_keys_and_parameters() -> None:
    first = initiator()
    second = responder(init_of(first))
    agreement = first.receive_reply(reply_of(second), now_ms=EPOCH_MS)
    assert agreement.sending == second.agreement.receiving
    assert agreement.receiving == second.agreement.sending
    assert agreement.remote == Parameters(22, 1 << 19)
    assert second.agreement.remote == Parameters(11, 1 << 18)
    assert reply_of(second).connection_id == 11


def test_two_handshakes_never_have_the_same_keys() -> None:
    first = initiator()
    box = init_of(first)
    assert responder(box).agreement.sending != responder(box).agreement.sending


def test_whoever_has_both_long_lived_keys_later_finds_no_keys_of_the_session() -> None:
    """Forward secrecy: all that crossed was kept, and both boxes open; what agrees the keys was forgotten."""
    low, high, _ = sorted_keys()
    first = initiator()
    init = init_of(first)
    second = responder(init)
    reply = reply_of(second).box
    agreement = first.receive_reply(reply_of(second), now_ms=EPOCH_MS)
    crossed = []
    for box, recipient, sender, purpose, direction in (
        (init, high, low, "init", "i"),
        (reply, low, high, "reply", "r"),
    ):
        opened = open_signed_box(
            box.decode(),
            recipient=recipient,
            sender=sender.public(),
            purpose=purpose,
            direction=direction,
            now_ms=EPOCH_MS,
        )
        crossed.append(opened.ephemeral)
    found = [
        derive_session_keys(
            shared_secret=shared_secret(ours, theirs), transcript=transcript_hash(init, reply)
        )
        for ours in (low, high)
        for theirs in (low.public(), high.public(), *crossed)
    ]
    kept = {key.secret for keys in found for key in (keys.initiator, keys.responder)}
    assert kept.isdisjoint({agreement.sending.secret, agreement.receiving.secret})
    remembered = gc.get_referents(first) + gc.get_referents(second)
    assert not [
        item for item in remembered if isinstance(item, Jwk) and item.is_private and item not in (low, high)
    ]


def test_the_reply_is_not_larger_than_the_init() -> None:
    assert len(responder(init_of(initiator())).reply) <= MAX_DATAGRAM_BYTES


def test_a_reply_to_another_init_is_refused_and_the_right_one_still_taken() -> None:
    first = initiator()
    box = init_of(first)
    low, high, _ = sorted_keys()
    foreign = seal_signed_box(
        b"",
        sender=high,
        recipient=low.public(),
        session=bytes(16),
        sequence=0,
        issued_at_ms=EPOCH_MS,
        lifetime_ms=1000,
        purpose="reply",
        direction="r",
    )
    with pytest.raises(BoxError):
        first.receive_reply(Reply(11, foreign.encode()), now_ms=EPOCH_MS)
    first.receive_reply(reply_of(responder(box)), now_ms=EPOCH_MS)


def test_parameters_of_another_size_are_refused() -> None:
    low, high, _ = sorted_keys()
    box = seal_signed_box(
        b"odd",
        sender=low,
        recipient=high.public(),
        session=bytes(16),
        sequence=0,
        issued_at_ms=EPOCH_MS,
        lifetime_ms=1000,
        purpose="init",
        direction="i",
    )
    with pytest.raises(DecodeError):
        responder(box.encode())


def test_only_the_looked_up_key_verifies() -> None:
    """R0-15..22 (6): the key is fetched, never carried."""
    with pytest.raises((BoxError, SignatureError)):
        responder(init_of(initiator()), sender=sorted_keys()[2])


def test_a_second_reply_is_refused() -> None:
    first = initiator()
    reply = reply_of(responder(init_of(first)))
    first.receive_reply(reply, now_ms=EPOCH_MS)
    with pytest.raises(InvalidStateError):
        first.receive_reply(reply, now_ms=EPOCH_MS)


def test_the_init_is_repeated_with_backoff_and_identical_bytes() -> None:
    first = initiator()
    sent: dict[float, bytes] = {}
    while (now := first.get_timer()) < first.deadline:
        datagram = first.datagram_to_send(now=now)
        assert datagram is not None
        sent[now] = datagram
    assert list(sent) == [10.0, 10.25, 10.75, 11.75, 13.75]
    assert len(set(sent.values())) == 1


def retry_for(box: bytes, cookie: bytes) -> Retry:
    parsed = parse_datagram_untrusted(encode_retry(box, cookie))
    assert isinstance(parsed, Retry)
    return parsed


def test_a_retry_brings_the_same_box_again_at_once_with_the_cookie() -> None:
    first = initiator()
    box = init_of(first)
    assert first.receive_retry(retry_for(box, b"c" * 20), now=10.1)
    assert first.get_timer() == 10.1
    datagram = first.datagram_to_send(now=10.1)
    assert datagram is not None
    assert parse_datagram_untrusted(datagram) == Init(box, b"c" * 20)
    assert first.datagram_to_send(now=10.1) is None
    first.receive_reply(reply_of(responder(box)), now_ms=EPOCH_MS)


def test_each_cookie_is_answered_once_and_four_of_them_at_most() -> None:
    first = initiator()
    box = init_of(first)
    cookies = [bytes([n]) * 20 for n in range(6)]
    assert [first.receive_retry(retry_for(box, cookie), now=10.1) for cookie in cookies] == [True] * 4 + [
        False
    ] * 2
    assert not first.receive_retry(retry_for(box, cookies[0]), now=10.1)


def test_a_retry_for_another_init_or_after_the_reply_changes_nothing() -> None:
    first = initiator()
    box = init_of(first)
    assert not first.receive_retry(retry_for(b"another", b"c" * 20), now=10.1)
    assert first.get_timer() == 10.25
    first.receive_reply(reply_of(responder(box)), now_ms=EPOCH_MS)
    assert not first.receive_retry(retry_for(box, b"c" * 20), now=10.1)


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_states_are_signed_if_either_side_wants_it(ours: bool, theirs: bool) -> None:
    first = initiator(wants_signed=ours)
    second = responder(init_of(first), wants_signed=theirs)
    agreement = first.receive_reply(reply_of(second), now_ms=EPOCH_MS)
    assert agreement.is_signed is second.agreement.is_signed is (ours or theirs)


def test_nothing_is_confirmed_before_keys_are_agreed() -> None:
    with pytest.raises(InvalidStateError):
        initiator().confirm()


@pytest.mark.parametrize("finish", ["confirm", "fail"])
def test_a_finished_handshake_takes_no_further_step(finish: str) -> None:
    second = responder(init_of(initiator()))
    getattr(second, finish)()
    for step in (second.confirm, second.fail):
        with pytest.raises(InvalidStateError):
            step()


def documented_transitions() -> list[tuple[str, str]]:
    section = PROTOCOL.read_text().split("### Handshake states", 1)[1].split("###", 1)[0]
    return re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", section, re.MULTILINE)


def test_the_state_table_is_the_documented_one() -> None:
    documented: dict[str, Any] = {state.name: set() for state in HandshakeState}
    for source, target in documented_transitions():
        documented[source].add(target)
    assert documented == {state.name: {target.name for target in targets} for state, targets in _NEXT.items()}


def started() -> _Handshake:
    _, high, _ = sorted_keys()
    peer = Peer(name="b", public_key=high.public(), address=("192.0.2.2", 2))
    return _Handshake(peer=peer, session_id=bytes(16), parameters=Parameters(1, 1), deadline=1.0)


def answered() -> tuple[Initiator, Responder]:
    first = initiator()
    second = responder(init_of(first))
    first.receive_reply(reply_of(second), now_ms=EPOCH_MS)
    return first, second


def confirmed(handshake: _Handshake) -> _Handshake:
    handshake.confirm()
    return handshake


def failed(handshake: _Handshake) -> _Handshake:
    handshake.fail()
    return handshake


def in_state(state: HandshakeState) -> list[_Handshake]:
    """Handshakes of both roles that have come to a state by what happens to them."""
    match state:
        case HandshakeState.START:
            return [started()]
        case HandshakeState.INIT_SENT:
            return [initiator()]
        case HandshakeState.REPLY_SENT:
            return [answered()[1]]
        case HandshakeState.REPLY_RECEIVED:
            return [answered()[0]]
        case HandshakeState.CONFIRMED:
            return [confirmed(handshake) for handshake in answered()]
        case HandshakeState.FAILED:
            return [failed(handshake) for handshake in (*answered(), initiator(), started())]


def steps_of(handshake: _Handshake) -> dict[HandshakeState, Callable[[], object]]:
    """What can happen to a handshake, by the state it would lead to."""
    steps: dict[HandshakeState, Callable[[], object]] = {
        HandshakeState.CONFIRMED: handshake.confirm,
        HandshakeState.FAILED: handshake.fail,
    }
    if isinstance(handshake, Initiator):
        reply = reply_of(responder(handshake._box))
        steps[HandshakeState.REPLY_RECEIVED] = lambda: handshake.receive_reply(reply, now_ms=EPOCH_MS)
    return steps


def test_every_documented_transition_happens_and_every_other_is_refused() -> None:
    documented = {
        (HandshakeState[source], HandshakeState[target]) for source, target in documented_transitions()
    }
    # Those from START, that a role makes of itself by sealing its box.
    driven = {(HandshakeState.START, handshake.state) for handshake in (initiator(), answered()[1])}
    for state in HandshakeState:
        for variant in range(len(in_state(state))):
            for target in HandshakeState:
                handshake = in_state(state)[variant]
                assert handshake.state is state
                step = steps_of(handshake).get(target)
                if step is None:
                    continue
                if (state, target) in documented:
                    step()
                    assert handshake.state is target
                    driven.add((state, target))
                else:
                    with pytest.raises(InvalidStateError):
                        step()
                    assert handshake.state is state
    assert driven == documented


def test_the_named_sender_is_read_from_the_header_alone() -> None:
    box = init_of(initiator())
    assert sender_untrusted(box.partition(b".")[0]) == sorted_keys()[0].thumbprint()


@given(st.binary(max_size=300))
def test_reading_the_sender_raises_box_errors_only(box: bytes) -> None:
    with contextlib.suppress(BoxError):
        sender_untrusted(box)


@pytest.mark.parametrize("header", [b"{}", b'{"snd":1}', b"[]", b'{"snd":"a","snd":"b"}', b"\xff"])
def test_a_header_without_one_sender_is_refused(header: bytes) -> None:
    with pytest.raises(BoxError):
        sender_untrusted(base64.urlsafe_b64encode(header).rstrip(b"=") + b".rest")


def test_confirmed_is_entered_only_from_states_with_agreed_keys() -> None:
    sources = {state for state, targets in _NEXT.items() if HandshakeState.CONFIRMED in targets}
    assert sources == {HandshakeState.REPLY_SENT, HandshakeState.REPLY_RECEIVED}
