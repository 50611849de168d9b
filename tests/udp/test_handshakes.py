from __future__ import annotations

from typing import Any

import pytest

from bridge.jose import Jwk, seal_signed_box
from bridge.jose.box import BoxParts, open_parts
from bridge.jose.signature import sign_raw
from bridge.udp.conditions import NetworkConditions
from bridge.udp.events import (
    PeerUnreachable,
    SessionEstablished,
)
from bridge.udp.peers import Peer
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    COOKIE_BYTES,
    DATA,
    INIT,
    MAX_DATAGRAM_BYTES,
    REPLY,
    RETRY,
    Init,
    Parameters,
    encode_init,
    encode_parameters,
    encode_retry,
    parse_datagram_untrusted,
)
from tests.support.datagrams import (
    EPOCH_MS,
    Host,
    Network,
    connected_pair,
    drops,
    established,
    introduce,
    make_pair,
    sorted_keys,
)

STRANGER = ("198.51.100.7", 7)


def captured_init(network: Network, host: Host, peer: str) -> bytes:
    """The INIT a host sends, taken from the wire before it arrives."""
    network.drop = lambda datagram, _source, _target: datagram[0] == INIT
    host.endpoint.connect(peer, now=network.now)
    network.settle(host)
    network.drop = lambda _datagram, _source, _target: False
    return next(datagram for _, _, datagram in network.log if datagram[0] == INIT)


def init_box(sender: Jwk, recipient: Jwk, *, issued_at_ms: int, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "sender": sender,
        "recipient": recipient.public(),
        "session": bytes(16),
        "sequence": 0,
        "issued_at_ms": issued_at_ms,
        "lifetime_ms": 10_000,
        "purpose": "init",
        "direction": "i",
        **changes,
    }
    return encode_init(seal_signed_box(encode_parameters(Parameters(5, 1 << 18)), **arguments).encode())


def with_cookie(init: bytes, network: Network) -> bytes:
    """An INIT with the cookie that came last, or as it was."""
    parsed = parse_datagram_untrusted(init)
    assert isinstance(parsed, Init)
    retries = [datagram for _, _, datagram in network.log if datagram[0] == RETRY]
    return encode_init(parsed.box, retries[-1][-COOKIE_BYTES:]) if retries else init


def watch_decryption(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is handed to the decryption of boxes from here on."""
    opened: list[object] = []

    def watched(box: BoxParts, recipient: Jwk) -> bytes:
        opened.append(box)
        return open_parts(box, recipient)

    monkeypatch.setattr("bridge.jose.signed_box.open_parts", watched)
    return opened


def test_two_datagrams_of_handshake_agree_keys_and_the_first_sealed_ones_confirm_them() -> None:
    """R0-15..22: one signed box each way, directly between the two."""
    network, a, b = connected_pair()
    kinds = [datagram[0] & 0xF0 for _, _, datagram in network.log]
    assert kinds[:2] == [INIT, REPLY]
    assert kinds.count(INIT) == kinds.count(REPLY) == 1
    assert {(source, target) for source, target, _ in network.log} == {
        (a.address, b.address),
        (b.address, a.address),
    }
    assert a.session("b").session_id == b.session("a").session_id


def test_the_first_datagram_is_padded_to_the_full_size_and_the_answer_is_not_larger() -> None:
    network, _, _ = connected_pair()
    init, reply = (datagram for _, _, datagram in network.log[:2])
    assert len(init) == MAX_DATAGRAM_BYTES
    assert len(reply) <= len(init)


def test_a_lost_init_is_repeated_with_identical_bytes() -> None:
    network, a, b = make_pair()
    lost: list[bytes] = []

    def lose_two(datagram: bytes, *_: Any) -> bool:
        if datagram[0] == INIT and len(lost) < 2:
            lost.append(datagram)
            return True
        return False

    network.drop = lose_two
    a.endpoint.connect("b", now=network.now)
    network.run(until=established(a, b))
    inits = {datagram for _, _, datagram in network.log if datagram[0] == INIT}
    assert len(inits) == 1


def test_a_lost_reply_is_repeated_without_another_signature_check() -> None:
    network, a, b = make_pair()
    lost: list[bytes] = []

    def lose_one(datagram: bytes, *_: Any) -> bool:
        if datagram[0] == REPLY and not lost:
            lost.append(datagram)
            return True
        return False

    network.drop = lose_one
    a.endpoint.connect("b", now=network.now)
    network.run(until=established(a, b))
    assert b.endpoint.statistics().handshakes_checked == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_handshake_survives_heavy_loss(seed: int) -> None:
    network = Network(seed=seed)
    low, high, _ = sorted_keys()
    bad = NetworkConditions(delay=0.01, jitter=0.02, loss=0.3, duplicate=0.2)
    a, b = network.host("a", low, conditions=bad), network.host("b", high, conditions=bad)
    introduce(a, b)

    def try_again() -> bool:
        for event in a.of_type(PeerUnreachable):
            a.events.remove(event)
            a.endpoint.connect("b", now=network.now)
        return established(a, b)()

    a.endpoint.connect("b", now=network.now)
    network.run(until=try_again)


def test_a_silent_peer_is_reported_unreachable_and_nothing_is_left() -> None:
    network, a, b = make_pair()
    network.crash(b)
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: bool(a.of_type(PeerUnreachable)))
    assert a.endpoint.statistics().handshakes_pending == 0
    assert a.endpoint.get_timer() is None


def test_a_strangers_init_is_dropped_before_any_signature_check() -> None:
    """R0-15..22: only keys that were added are ever looked up."""
    network, a, _ = make_pair()
    stranger = sorted_keys()[2]
    network.inject(init_box(stranger, a.key, issued_at_ms=EPOCH_MS + 100_000), STRANGER, a)
    assert drops(a, DropReason.STRANGER) == 1
    assert a.endpoint.statistics().handshakes_checked == 0
    assert not [entry for entry in network.log if entry[0] == a.address]


def test_a_key_carried_in_the_box_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """R0-15..22 (6): a box that names b but is signed by the key it carries itself is refused unopened."""
    network, a, b = make_pair()
    forger = Jwk.generate("P-256")
    honest = init_box(b.key, a.key, issued_at_ms=EPOCH_MS + 100_000)
    monkeypatch.setattr(
        "bridge.jose.signed_box.sign_raw", lambda data, _key, algorithm: sign_raw(data, forger, algorithm)
    )
    forged = init_box(b.key, a.key, issued_at_ms=EPOCH_MS + 100_000)
    monkeypatch.undo()
    opened = watch_decryption(monkeypatch)
    network.inject(forged, STRANGER, a)
    assert drops(a, DropReason.BAD_BOX) == 1
    assert opened == []
    network.inject(honest, STRANGER, a)
    assert len(opened) == 1


def test_every_sampled_flipped_bit_of_an_init_is_refused_and_never_decrypted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R0-15..22 (7): decryption is never reached after a bad signature (R0-21)."""
    network, a, b = make_pair(handshakes_per_second=1e6, handshake_burst=10_000)
    init = captured_init(network, b, "a")
    opened = watch_decryption(monkeypatch)
    replies = len(network.log)
    for position in range(4, MAX_DATAGRAM_BYTES, 3):
        altered = bytearray(init)
        altered[position] ^= 1 << position % 8
        network.inject(bytes(altered), b.address, a)
    assert opened == []
    assert len(network.log) == replies
    network.inject(init, b.address, a)
    assert len(opened) == 1


def test_every_sampled_flipped_bit_of_a_reply_is_refused_and_the_genuine_one_still_taken() -> None:
    network, a, b = make_pair(handshakes_per_second=1e6, handshake_burst=10_000)
    network.drop = lambda datagram, _source, _target: datagram[0] == REPLY
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: any(datagram[0] == REPLY for _, _, datagram in network.log), seconds=1)
    reply = next(datagram for _, _, datagram in network.log if datagram[0] == REPLY)
    network.drop = lambda _datagram, _source, _target: False
    for position in range(0, len(reply), 3):
        altered = bytearray(reply)
        altered[position] ^= 1 << position % 8
        network.inject(bytes(altered), b.address, a)
    assert not a.of_type(SessionEstablished)
    network.inject(reply, b.address, a)
    network.run(until=established(a, b))


def test_a_replayed_init_is_refused_by_its_replay_key() -> None:
    """R0-24: replay refused, after the session it made and even with other token bytes."""
    network, a, b = connected_pair()
    init = next(datagram for _, _, datagram in network.log if datagram[0] == INIT)
    checked = b.endpoint.statistics().handshakes_checked
    network.inject(init, STRANGER, b)
    assert drops(b, DropReason.REPLAYED) == 1
    assert b.endpoint.statistics().handshakes_checked == checked
    assert a.session("b").session_id == b.session("a").session_id


def test_an_init_replayed_after_a_restart_displaces_nothing() -> None:
    """Key confirmation: whoever cannot seal under the new keys gets no session."""
    network, a, b = connected_pair()
    init = next(datagram for _, _, datagram in network.log if datagram[0] == INIT)
    network.crash(b)
    again = network.host("b", b.key, port=b.address[1])
    introduce(a, again)
    network.inject(init, STRANGER, again)
    assert again.endpoint.statistics().handshakes_pending == 1
    network.run(seconds=6)
    assert again.endpoint.statistics().handshakes_pending == 0
    assert again.events == []


def test_an_init_older_than_the_one_that_made_the_session_is_stale() -> None:
    network, _, b = connected_pair()
    low = sorted_keys()[0]
    network.inject(init_box(low, b.key, issued_at_ms=EPOCH_MS + 90_000), STRANGER, b)
    assert drops(b, DropReason.STALE_HANDSHAKE) == 1


@pytest.mark.parametrize("shift_ms", [31_000, -41_000])
def test_an_init_outside_the_clock_limits_is_refused(shift_ms: int) -> None:
    network, a, b = make_pair()
    network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000 + shift_ms), a.address, b)
    assert drops(b, DropReason.BAD_BOX) == 1


@pytest.mark.parametrize("change", [{"purpose": "reply"}, {"direction": "r"}])
def test_a_box_for_another_use_is_refused(change: dict[str, Any]) -> None:
    network, a, b = make_pair()
    network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, **change), a.address, b)
    assert drops(b, DropReason.BAD_BOX) == 1


def test_a_box_for_another_recipient_is_refused() -> None:
    network, a, b = make_pair()
    network.inject(init_box(a.key, sorted_keys()[2], issued_at_ms=EPOCH_MS + 100_000), a.address, b)
    assert drops(b, DropReason.BAD_BOX) == 1


def test_handshakes_beyond_the_rate_are_not_checked() -> None:
    network, a, b = make_pair(handshakes_per_second=1.0, handshake_burst=2)
    for number in range(5):
        session = number.to_bytes(16, "big")
        network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, session=session), a.address, b)
    assert b.endpoint.statistics().handshakes_checked == 2
    assert b.endpoint.statistics().retries == 3


def test_pending_handshakes_are_bounded() -> None:
    network, a, b = make_pair(max_pending_handshakes=3)
    for number in range(5):
        box = init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, session=number.to_bytes(16, "big"))
        network.inject(box, a.address, b)
        network.inject(with_cookie(box, network), a.address, b)
    assert b.endpoint.statistics().handshakes_pending == 3


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("offset", [0.0, 0.004, 0.006, 0.02])
def test_simultaneous_initiation_ends_in_one_session(delay: float, offset: float) -> None:
    network = Network()
    low, high, _ = sorted_keys()
    conditions = NetworkConditions(delay=delay)
    a, b = network.host("a", low, conditions=conditions), network.host("b", high, conditions=conditions)
    introduce(a, b)
    a.endpoint.connect("b", now=network.now)
    network.run(seconds=offset)
    b.endpoint.connect("a", now=network.now)
    network.run(until=established(a, b))
    network.run(seconds=15)
    assert len(a.of_type(SessionEstablished)) == len(b.of_type(SessionEstablished)) == 1
    assert a.session("b").session_id == b.session("a").session_id


@pytest.mark.parametrize("seed", range(12))
def test_simultaneous_initiation_under_loss_ends_in_one_session(seed: int) -> None:
    network = Network(seed=seed)
    low, high, _ = sorted_keys()
    bad = NetworkConditions(delay=0.02, jitter=0.2, loss=0.25)
    a, b = network.host("a", low, conditions=bad), network.host("b", high, conditions=bad)
    introduce(a, b)
    a.endpoint.connect("b", now=network.now)
    b.endpoint.connect("a", now=network.now)
    network.run(seconds=30)
    for host, peer in ((a, "b"), (b, "a")):
        if host.endpoint.session(peer) is None:
            host.endpoint.connect(peer, now=network.now)
    network.run(seconds=30)
    assert a.session("b").session_id == b.session("a").session_id


def test_a_side_that_has_answered_waits_for_that_handshake_and_then_begins_its_own() -> None:
    network, a, b = make_pair()
    init = captured_init(network, a, "b")
    network.crash(a)
    network.inject(init, a.address, b)
    b.endpoint.connect("a", now=network.now)
    network.run(seconds=1)
    assert not [
        datagram for source, _, datagram in network.log if source == b.address and datagram[0] == INIT
    ]
    network.run(until=lambda: bool(b.of_type(PeerUnreachable)))
    assert [datagram for source, _, datagram in network.log if source == b.address and datagram[0] == INIT]


def test_a_side_that_has_answered_begins_its_own_also_when_the_first_word_is_the_last() -> None:
    network, a, b = make_pair()
    network.drop = lambda datagram, _source, _target: datagram[0] == DATA
    a.endpoint.connect("b", now=network.now)
    network.run(seconds=0.1)
    (session,) = a.endpoint._unconfirmed  # a peer that keeps the protocol has no session to close yet
    b.endpoint.connect("a", now=network.now)
    session.close()
    (farewell, *_) = session.datagrams_to_send(now=network.now)
    network.crash(a)
    network.inject(bytes(farewell.payload), a.address, b)
    network.run(until=lambda: bool(b.of_type(PeerUnreachable)))
    assert [datagram for source, _, datagram in network.log if source == b.address and datagram[0] == INIT]


def test_a_repeated_reply_is_dropped() -> None:
    network, a, b = make_pair()
    network.drop = lambda datagram, source, _target: source == b.address and datagram[0] != REPLY
    a.endpoint.connect("b", now=network.now)
    network.run(seconds=0.1)
    reply = next(datagram for _, _, datagram in network.log if datagram[0] == REPLY)
    network.inject(reply, b.address, a)
    assert drops(a, DropReason.REPLAYED) == 1
    assert not a.of_type(SessionEstablished)


def test_a_side_without_confirmation_gives_up_and_leaves_nothing() -> None:
    """The initiator agreed keys, but nothing sealed ever came back."""
    network, a, b = make_pair()
    network.drop = lambda datagram, source, _target: source == b.address and datagram[0] != REPLY
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: bool(a.of_type(PeerUnreachable)))
    network.run(seconds=20)
    assert a.endpoint.statistics().handshakes_pending == 0
    assert a.endpoint.get_timer() is None


def test_a_flood_of_inits_does_not_starve_the_handshakes_this_side_began() -> None:
    network, a, b = make_pair(handshakes_per_second=0.001, handshake_burst=1)
    third = sorted_keys()[2]
    a.endpoint.add_peer(Peer(name="c", public_key=third.public(), address=STRANGER))
    network.inject(init_box(third, a.key, issued_at_ms=EPOCH_MS + 100_000), STRANGER, a)
    network.inject(
        init_box(third, a.key, issued_at_ms=EPOCH_MS + 100_000, session=bytes(15) + b"1"), STRANGER, a
    )
    assert a.endpoint.statistics().retries == 1
    a.endpoint.connect("b", now=network.now)
    network.run(until=established(a, b))


def test_remembered_replay_keys_are_bounded_and_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.udp.admission._MAX_REMEMBERED", 2)
    network, a, b = make_pair()
    for number in range(3):
        session = number.to_bytes(16, "big")
        network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, session=session), a.address, b)
    assert drops(b, DropReason.HANDSHAKE_RATE) == 1
    network.run(seconds=60)
    network.inject(
        init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 160_000, session=bytes(15) + b"9"), a.address, b
    )
    assert drops(b, DropReason.HANDSHAKE_RATE) == 1


def test_a_peer_removed_while_connecting_is_reported_unreachable() -> None:
    network, a, b = make_pair()
    network.crash(b)
    a.endpoint.connect("b", now=network.now)
    network.settle(a)
    a.endpoint.remove_peer("b")
    network.settle(a)
    assert a.of_type(PeerUnreachable) == [PeerUnreachable(peer="b")]
    assert a.endpoint.get_timer() is None


def test_an_endpoint_closed_in_the_middle_of_a_handshake_takes_no_more_of_it() -> None:
    network, a, b = make_pair()
    init = captured_init(network, b, "a")
    b.endpoint.close()
    a.endpoint.close()
    network.inject(init, b.address, a)
    assert drops(a, DropReason.CLOSED) == 1
    assert b.endpoint.statistics().handshakes_pending == 0


def test_under_load_an_init_comes_again_with_the_cookie_and_is_answered() -> None:
    network, a, b = make_pair(handshakes_per_second=0.001, handshake_burst=2)
    third = sorted_keys()[2]
    b.endpoint.add_peer(Peer(name="c", public_key=third.public(), address=STRANGER))
    for number in range(2):
        session = number.to_bytes(16, "big")
        network.inject(init_box(third, b.key, issued_at_ms=EPOCH_MS + 100_000, session=session), STRANGER, b)
    a.endpoint.connect("b", now=network.now)
    network.run(until=established(a, b))
    kinds = [datagram[0] for source, _, datagram in network.log if source != STRANGER and datagram[0] < 0x40]
    assert kinds[-4:] == [INIT, RETRY, INIT, REPLY]
    assert b.endpoint.statistics().retries == 1


def test_under_load_no_sender_is_looked_up_without_a_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    network, a, b = make_pair(handshakes_per_second=0.001, handshake_burst=1)
    network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000), a.address, b)
    looked_up: list[bytes] = []
    monkeypatch.setattr("bridge.udp.handshakes.sender_untrusted", looked_up.append)
    for cookie in (b"", b"c" * COOKIE_BYTES):
        network.inject(encode_init(b"whatever", cookie), STRANGER, b)
    assert looked_up == []
    assert b.endpoint.statistics().retries == 2


def test_a_repeated_init_from_elsewhere_is_answered_there_only_once_it_has_a_cookie() -> None:
    """Else one INIT from a victim's address and one from its own make a session that sends to the victim."""
    network, a, b = make_pair()
    init = init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000)
    network.inject(init, a.address, b)
    network.inject(init, STRANGER, b)
    answers = [(target, datagram[0]) for source, target, datagram in network.log if source == b.address]
    assert answers == [(a.address, REPLY), (STRANGER, RETRY)]
    network.inject(with_cookie(init, network), STRANGER, b)
    network.inject(init, STRANGER, b)
    answers = [(target, datagram[0]) for source, target, datagram in network.log if source == b.address]
    assert answers[2:] == [(STRANGER, REPLY), (STRANGER, REPLY)]


def test_a_session_begins_where_the_init_went_wherever_the_reply_says_it_is_from() -> None:
    network, a, b = make_pair()
    network.drop = lambda datagram, *_: datagram[0] == REPLY
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: any(datagram[0] == REPLY for _, _, datagram in network.log))
    network.drop = lambda *_: False
    reply = next(datagram for _, _, datagram in network.log if datagram[0] == REPLY)
    network.inject(reply, STRANGER, a)
    network.run(until=established(a, b))
    assert not [target for _, target, _ in network.log if target == STRANGER]
    assert a.session("b").address == b.address


def test_a_retry_nobody_waits_for_or_that_was_answered_is_dropped() -> None:
    network, a, b = make_pair()
    init = captured_init(network, a, "b")
    parsed = parse_datagram_untrusted(init)
    assert isinstance(parsed, Init)
    network.inject(encode_retry(b"another", b"c" * COOKIE_BYTES), b.address, a)
    assert drops(a, DropReason.UNKNOWN_CONNECTION) == 1
    for _ in range(2):
        network.inject(encode_retry(parsed.box, b"c" * COOKIE_BYTES), b.address, a)
    assert drops(a, DropReason.REPLAYED) == 1
    network.run(until=established(a, b))


def test_a_peer_has_only_so_many_handshakes_pending() -> None:
    network, a, b = make_pair(max_pending_per_peer=2)
    for number in range(5):
        session = number.to_bytes(16, "big")
        network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000, session=session), a.address, b)
    assert b.endpoint.statistics().handshakes_pending == 2
    assert drops(b, DropReason.HANDSHAKE_RATE) == 3


def test_a_side_that_has_answered_an_init_sends_nothing_more_before_it_is_confirmed() -> None:
    network, a, b = make_pair()
    network.inject(init_box(a.key, b.key, issued_at_ms=EPOCH_MS + 100_000), a.address, b)
    network.crash(a)
    network.run(seconds=20)
    assert [datagram[0] for source, _, datagram in network.log if source == b.address] == [REPLY]
    assert b.endpoint.statistics().handshakes_pending == 0
